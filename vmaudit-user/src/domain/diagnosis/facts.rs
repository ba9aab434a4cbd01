//! What is known of one kind of refusal, and what the captured figures say about the checks that several calls share.

use vmaudit_common::call;
use vmaudit_common::{
    Bounds, CLASS_ASKED, CLASS_BEYOND, CLASS_CHARGED, CLASS_COUNTS, CLASS_CUT_END, CLASS_CUT_START,
    CLASS_DONE, CLASS_FILE, CLASS_FIXED, CLASS_GAP, CLASS_HUGE, CLASS_LOCKS, CLASS_LOOKED, CLASS_LOW,
    CLASS_MC0_MASK, CLASS_MC1_SHIFT, CLASS_NO_HOLE, CLASS_NONE_LOCKED, CLASS_NORESERVE, CLASS_ONE,
    CLASS_OVER_AS, CLASS_OVER_DATA, CLASS_OVER_RAM, CLASS_OVERCOMMIT_REFUSED, CLASS_SEARCH_LOST,
    CLASS_SEARCHED, CLASS_SECTION, CLASS_SECTION_LOST, CLASS_SURELY_OVER_AS, CLASS_SURELY_OVER_DATA,
    CLASS_TASKS_READ, CLASS_VAST, asked_for,
};

use crate::domain::diagnosis::{Finding, Question};
use crate::model::event::{Refused, Section};
use crate::model::session::KernelRules;
use crate::model::shortage::{Commit, Tasks};

/// Index into [`crate::model::event::Refused::rlimits`].
#[derive(Clone, Copy)]
pub(super) enum Rlimit {
    As = 0,
    Data = 1,
    Memlock = 2,
    Stack = 3,
}

pub(super) const EAGAIN: u8 = libc::EAGAIN as u8;
pub(super) const EPERM: u8 = libc::EPERM as u8;
pub(super) const ENOSPC: u8 = libc::ENOSPC as u8;

pub(super) const MAP_FIXED: u64 = 0x10;
pub(super) const MAP_SHARED: u64 = 1;
pub(super) const MAP_STACK: u64 = 0x20000;
pub(super) const PR_SET_VMA: u64 = 0x5356_4d41;

/// What is known of the refused calls.
pub(super) struct Facts<'a> {
    pub(super) question: &'a Question<'a>,
    /// `vmaudit_common::CLASS_*` bits: the kind's own, and what the example's arguments say where a recording was made
    /// by a version that did not put that into the kind.
    class: u64,
    /// The class's distance to the limit (`vmaudit_common::relative_to_max`) when the lock was taken and let go;
    /// `None` without a lock section, or where the limit is not known.
    pub(super) at: Option<(u32, u32)>,
    /// vm.max_map_count at that time.
    pub(super) max: Option<u64>,
}

impl<'a> Facts<'a> {
    pub(super) fn new(question: &'a Question<'a>) -> Self {
        let class = question.class | question.example.map_or(0, |example| asked_by(question, example));
        let max = question.example.map(|example| u64::from(example.max_map_count)).filter(|max| *max > 0);
        let max = max.or(question.limits.max_map_count);
        // A distance to a limit that nobody could read says nothing.
        let at = (class & CLASS_SECTION != 0 && max.is_some())
            .then_some(((class & CLASS_MC0_MASK) as u32, (class >> CLASS_MC1_SHIFT & CLASS_MC0_MASK) as u32));
        Self { question, class, at, max }
    }

    pub(super) fn has(&self, bit: u64) -> bool {
        self.class & bit != 0
    }

    /// Whether the calls asked for this; `None` when nothing tells.
    pub(super) fn asks(&self, bit: u64) -> Option<bool> {
        self.has(CLASS_ASKED).then(|| self.has(bit))
    }

    pub(super) fn kernel(&self) -> &KernelRules {
        self.question.kernel
    }

    pub(super) fn arg(&self, index: usize) -> Option<u64> {
        self.question.example.and_then(|example| example.args.get(index).copied())
    }

    pub(super) fn arg_has(&self, index: usize, bits: u64) -> Option<bool> {
        self.arg(index).map(|arg| arg & bits != 0)
    }

    pub(super) fn section(&self) -> Option<&Section> {
        self.question.example.and_then(|example| example.section.as_ref())
    }

    pub(super) fn rlimit(&self, which: Rlimit) -> Option<u64> {
        self.question.example.and_then(|example| example.rlimits.get(which as usize).copied())
    }

    /// How many tasks there were, from the example.
    pub(super) fn tasks(&self) -> Option<&Tasks> {
        self.question.example.and_then(|example| example.tasks.as_deref())
    }

    /// This limit on tasks was looked at.
    pub(super) fn tasks_read(&self, which: usize) -> bool {
        self.has(CLASS_TASKS_READ << which)
    }

    pub(super) fn section_lost(&self) -> bool {
        self.has(CLASS_SECTION_LOST)
    }

    /// The count when the lock was taken, as far as the class or the example tells it.
    pub(super) fn map_count(&self) -> Option<u64> {
        match (self.at?, self.max) {
            ((relative @ 1..=8, _), Some(max)) => max.saturating_add(relative.into()).checked_sub(7),
            _ => self.section().map(|section| u64::from(section.mc0)),
        }
    }

    /// Whether the count at the beginning of the lock section was at least max + `offset` (-6..=2).
    pub(super) fn started_at_least(&self, offset: i32) -> Option<bool> {
        self.at.map(|(mc0, _)| mc0 as i32 >= 7 + offset)
    }

    /// The same for its end.
    pub(super) fn ended_at_least(&self, offset: i32) -> Option<bool> {
        self.at.map(|(_, mc1)| mc1 as i32 >= 7 + offset)
    }

    /// A check that refuses once the count is at least max + `offset` when the lock is taken.
    pub(super) fn count_check(&self, offset: i32) -> Finding {
        match self.started_at_least(offset) {
            Some(true) => Finding::Met,
            Some(false) => Finding::No,
            None => Finding::Possible,
        }
    }

    /// A split that may have been the second one of the call (mm/vma.c:split_vma): it can be refused only if the count
    /// stood at max, and the call itself raises the count by one at most before. What was not split, an edge inside a
    /// mapping, is still there after the refusal.
    pub(super) fn split_refused(&self) -> Finding {
        let (start, end) = (self.has(CLASS_CUT_START), self.has(CLASS_CUT_END));
        match (self.started_at_least(-1), self.ended_at_least(0)) {
            (Some(true), Some(true)) => match (self.looked(), self.has(CLASS_GAP)) {
                (false, _) => Finding::Likely,
                (true, _) if self.has(CLASS_DONE) => Finding::No,
                // The gap lies behind; the start may also have needed no split.
                (true, true) if start => Finding::Likely,
                (true, false) if start || end => Finding::Met,
                (true, _) => Finding::No,
            },
            (None, _) | (_, None) => Finding::Possible,
            _ => Finding::No,
        }
    }

    /// Whether what the call maps is locked at once; `None` when nothing tells.
    pub(super) fn locks(&self) -> Option<bool> {
        let seen = self.kernel().future_locks_captured && self.question.class & CLASS_ASKED != 0;
        (seen || self.has(CLASS_LOCKS)).then(|| self.has(CLASS_LOCKS))
    }

    /// Whether nothing was locked in the address space when the call was refused.
    pub(super) fn none_locked(&self) -> Option<bool> {
        if self.question.class & CLASS_ASKED != 0 && self.counters() {
            return Some(self.has(CLASS_NONE_LOCKED));
        }
        self.section().map(|section| section.locked_vm == 0)
    }

    /// The mappings in the call's range are known as they were when it was refused.
    pub(super) fn looked(&self) -> bool {
        self.has(CLASS_LOOKED)
    }

    /// They leave no gap.
    pub(super) fn whole(&self) -> bool {
        self.looked() && !self.has(CLASS_GAP)
    }

    /// A part of the range is not mapped. `before`: what may have refused the call before it came to the gap.
    pub(super) fn gap(&self, before: &[Finding]) -> Finding {
        if !self.looked() {
            Finding::Possible
        } else if !self.has(CLASS_GAP) {
            Finding::No
        } else if self.has(CLASS_ONE) || before.iter().all(|finding| *finding == Finding::No) {
            Finding::Met
        } else {
            Finding::Likely
        }
    }

    /// A gap, where hardly anything else says so.
    pub(super) fn gap_if_unseen(&self) -> Finding {
        if self.looked() { Finding::No } else { Finding::Likely }
    }

    /// The first address of the example's range that is not mapped.
    pub(super) fn hole(&self) -> Option<u64> {
        self.question.example.and_then(|example| example.hole)
    }

    /// Of a range in a single mapping: whether `bit` is set. `None` when there are more, or nobody looked.
    pub(super) fn of_the_one(&self, bit: u64) -> Option<bool> {
        (self.whole() && self.has(CLASS_ONE)).then(|| self.has(bit))
    }

    /// The range lies strictly inside one mapping: both edges cut it.
    pub(super) fn strictly_inside(&self) -> Option<bool> {
        self.of_the_one(CLASS_CUT_START).map(|start| start && self.has(CLASS_CUT_END))
    }

    /// VMAs that the refused call added before it was refused.
    pub(super) fn added(&self) -> Option<u64> {
        let added = match (self.at?, self.section()) {
            ((before @ 1..=8, after @ 1..=8), _) => after.checked_sub(before).map(u64::from),
            (_, Some(section)) => section.mc1.checked_sub(section.mc0).map(u64::from),
            _ => None,
        };
        added.filter(|added| *added > 0)
    }

    /// Bytes the call asked for on top of what it had, from the example.
    pub(super) fn asked(&self) -> Option<u64> {
        let example = self.question.example?;
        let [first, second, third, ..] = example.args;
        match self.question.call {
            call::MREMAP => third.checked_sub(second),
            call::BRK => first.checked_sub(example.ret as u64),
            call::MMAP | call::MUNMAP | call::MPROTECT | call::PKEY_MPROTECT => Some(second),
            call::SHMGET | call::MSYNC | call::MINCORE => Some(second),
            call::MADVISE | call::MLOCK | call::MLOCK2 | call::MUNLOCK => Some(second),
            _ => None,
        }
    }

    /// Bytes of private writable memory that a fork copies, from the example: the least it is charged.
    pub(super) fn copied(&self) -> Option<u64> {
        let section = self.section().filter(|_| self.counters())?;
        Some(section.data_vm.saturating_mul(self.kernel().page_size))
    }

    /// The call copies the address space.
    pub(super) fn forks(&self) -> bool {
        matches!(self.question.call, call::CLONE | call::CLONE3 | call::FORK | call::VFORK)
    }

    /// What was promised to all, soon after the example, and what was asked of it on top.
    pub(super) fn commit(&self) -> Option<(Commit, Option<u64>)> {
        let commit = self.question.example?.commit?;
        Some((commit, if self.forks() { self.copied() } else { self.asked() }))
    }

    /// Bytes of addresses in use, and all that there are, where no free range was found among them.
    pub(super) fn addresses(&self) -> Option<(u64, u64)> {
        let section = self.section().filter(|_| self.counters() && self.has(CLASS_NO_HOLE))?;
        // Of those below 4 GiB it is not known how many are in use.
        (!self.has(CLASS_LOW))
            .then(|| (section.total_vm.saturating_mul(self.kernel().page_size), self.kernel().task_size))
    }

    pub(super) fn fixed(&self) -> bool {
        self.has(CLASS_FIXED)
    }

    /// The fixed range, or the heap, goes beyond the end of all addresses (mm/mmap.c:__get_unmapped_area).
    pub(super) fn beyond_the_end(&self) -> Option<bool> {
        match self.asks(CLASS_BEYOND)? {
            true => self.kernel().address_end.map(|_| true),
            false => Some(false),
        }
    }

    pub(super) fn counters(&self) -> bool {
        self.kernel().vm_counters_captured && self.has(CLASS_SECTION)
    }

    /// mm/mmap.c:may_expand_vm, first half.
    pub(super) fn address_space(&self) -> Finding {
        match (self.rlimit(Rlimit::As), self.counters()) {
            (Some(u64::MAX), _) => Finding::No,
            (_, true) if !self.has(CLASS_OVER_AS) => Finding::No,
            // What would have been replaced is not counted again.
            (_, true) if self.has(CLASS_SURELY_OVER_AS) => Finding::Met,
            (_, true) if self.fixed() && self.whole() => Finding::No,
            (_, true) if self.fixed() => Finding::Likely,
            (_, true) => Finding::Met,
            (_, false) => Finding::Possible,
        }
    }

    /// mm/mmap.c:may_expand_vm, second half; `counts` says whether the mapping is private, writable and no stack.
    pub(super) fn data(&self, counts: Option<bool>) -> Finding {
        // A limit of 0 is waived when the hard limit allows (for Valgrind).
        let waived =
            self.kernel().ignore_rlimit_data || matches!(self.rlimit(Rlimit::Data), Some(u64::MAX | 0));
        match self.counters() {
            _ if waived || counts == Some(false) => Finding::No,
            true if !self.has(CLASS_OVER_DATA) => Finding::No,
            true if counts.is_none() => Finding::Likely,
            true if self.has(CLASS_SURELY_OVER_DATA) => Finding::Met,
            true if self.fixed() && self.whole() => Finding::No,
            true if self.fixed() => Finding::Likely,
            true => Finding::Met,
            false => Finding::Possible,
        }
    }

    /// mm/util.c:__vm_enough_memory; `counts` says whether the mapping is charged.
    pub(super) fn overcommit(&self, counts: Option<bool>) -> Finding {
        let mode = self.question.limits.overcommit_memory;
        if self.has(CLASS_OVERCOMMIT_REFUSED) {
            return Finding::Met;
        }
        if counts == Some(false) || mode == Some(1) {
            return Finding::No;
        }
        match (mode, self.kernel().ram_and_swap_pages.and(self.asks(CLASS_OVER_RAM))) {
            // Mode 0 looks at this one request only.
            (Some(0), Some(false)) => Finding::No,
            // What a replaced mapping had been charged already is not captured.
            (Some(0), Some(true)) if counts == Some(true) && !self.fixed() => Finding::Met,
            (Some(0), Some(true)) => Finding::Likely,
            _ => Finding::Possible,
        }
    }

    /// A search for a free range (mm/vma.c:vm_unmapped_area). None is made for a hint that is free, and none for a
    /// length that exceeds all addresses, which only an example shows.
    pub(super) fn search(&self) -> Finding {
        if self.kernel().searches_seen && self.has(CLASS_NO_HOLE) {
            return Finding::Met;
        }
        let made = self.kernel().searches_seen
            && !self.has(CLASS_SEARCH_LOST)
            && (self.has(CLASS_SEARCHED) || self.asks(CLASS_SEARCHED).is_some());
        if made || self.always_has_hole() {
            return Finding::No;
        }
        if self.has(CLASS_VAST) { Finding::Possible } else { Finding::Unlikely }
    }

    /// n mappings leave n + 1 holes, so one of them has at least the mean size of all.
    pub(super) fn always_has_hole(&self) -> bool {
        let counted = self.counters() && !self.has(CLASS_LOW);
        let (Some(section), Some(asked), true) = (self.section(), self.asked(), counted) else {
            return false;
        };
        let free =
            self.kernel().task_size.saturating_sub(section.total_vm.saturating_mul(self.kernel().page_size));
        // Half, for the gap below the stack, alignment to huge pages and guard gaps.
        asked <= free / 2 / (u64::from(section.mc0) + 2)
    }

    /// Whether overcommit accounting charges what mmap was asked for.
    pub(super) fn mmap_charged(&self) -> Option<bool> {
        // A file of huge pages (mm/mmap.c:accountable_mapping).
        if self.has(CLASS_FILE) && self.has(CLASS_HUGE) {
            return Some(false);
        }
        if self.has(CLASS_CHARGED) || self.question.limits.overcommit_memory != Some(2) {
            return Some(self.has(CLASS_CHARGED));
        }
        // Strict accounting ignores MAP_NORESERVE (mm/mmap.c:do_mmap), which alone keeps what counts from being charged; of
        // shared memory only the arguments tell.
        match (self.asks(CLASS_NORESERVE)?, self.has(CLASS_COUNTS)) {
            (false, _) => Some(false),
            (true, true) => Some(!self.has(CLASS_HUGE)),
            (true, false) => self.arg_has(3, MAP_SHARED).map(|shared| shared && !self.has(CLASS_FILE)),
        }
    }
}

/// What the example's arguments ask for, measured against what is known.
fn asked_by(question: &Question<'_>, example: &Refused) -> u64 {
    let rules = question.kernel;
    let bounds = Bounds {
        page_shift: rules.page_size.max(1).trailing_zeros(),
        task_size: rules.task_size,
        address_end: rules.address_end.unwrap_or(0),
        ram_and_swap_pages: rules.ram_and_swap_pages.unwrap_or(0),
        start_brk: example.start_brk,
        rlimit_data: example.rlimits.get(Rlimit::Data as usize).copied().unwrap_or(u64::MAX),
    };
    let [a0, a1, a2, a3, ..] = example.args;
    asked_for(question.call, example.ret as u64, [a0, a1, a2, a3], &bounds)
}
