//! Why a memory call was refused: one kind of refusal in, one verdict out. Pure.
//!
//! For each call the checks that can answer so are listed in the order in which the kernel makes them; each is judged
//! as excluded, possible, likely or met by what was captured. The first check that is met ends the list, because the
//! kernel goes no further. A verdict is certain when one candidate is left.
//!
//! Two conventions. (1) Class bits come from the kernel side and hold for the whole kind; arguments come from one
//! example of it. (2) A kernel allocation of a few hundred bytes may fail anywhere (a task that is being killed, a
//! memory cgroup at its end); where a check that is *known to fail* fits, that is not counted as an alternative.

mod kernel;
mod sentences;

use std::collections::BTreeMap;

use vmaudit_common::call::{self, Call};
use vmaudit_common::{
    CLASS_FIXED, CLASS_GROWS, CLASS_MAYMOVE, CLASS_MC0_MASK, CLASS_MC1_SHIFT, CLASS_NO_HOLE, CLASS_OVER_AS,
    CLASS_OVER_DATA, CLASS_OVER_MEMLOCK, CLASS_SEARCHED, CLASS_SECTION, CLASS_SECTION_LOST,
};

pub use kernel::{KernelRules, MremapRule};

use crate::report::{Cause, Limits};
use crate::source::{Refused, Section};

/// One kind of refusal.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// Which call.
    pub call: Call,
    /// Positive errno (brk: ENOMEM by convention).
    pub errno: u8,
    /// `vmaudit_common::CLASS_*` bits.
    pub class: u32,
    /// Refusals of this kind.
    pub count: u64,
    /// Bytes that they should have unmapped and did not.
    pub kept_bytes: u64,
    /// One of them; `None` when none arrived.
    pub example: Option<&'a Refused>,
    /// System-wide limits.
    pub limits: &'a Limits,
    /// Facts about the kernel and about what the source captures.
    pub kernel: &'a KernelRules,
}

/// The answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Verdict {
    /// Why.
    pub cause: Cause,
    /// No other cause is possible.
    pub certain: bool,
    /// A normal answer to the question the call asks, no incident.
    pub ordinary: bool,
    /// Figures the verdict rests on: counts of VMAs, or bytes where the name ends in `_bytes`.
    pub evidence: BTreeMap<String, u64>,
    /// For people.
    pub sentence: String,
    /// What would help.
    pub cure: Option<String>,
}

/// Why the calls of `question` were refused.
pub fn why(question: &Question<'_>) -> Verdict {
    let facts = Facts::new(question);
    let mut checks = Checks::default();
    match question.call {
        call::MMAP => mmap(&facts, &mut checks),
        call::MUNMAP => munmap(&facts, &mut checks),
        call::MPROTECT | call::PKEY_MPROTECT => mprotect(&facts, &mut checks),
        call::MREMAP => mremap(&facts, &mut checks),
        call::BRK => brk(&facts, &mut checks),
        call::MADVISE | call::PROCESS_MADVISE => madvise(&facts, &mut checks),
        call::PRCTL => prctl(&facts, &mut checks),
        call::MLOCK | call::MLOCK2 | call::MUNLOCK => mlock(&facts, &mut checks),
        // Its only ENOMEM (mm/mlock.c:mlockall); failures of single mappings are ignored.
        call::MLOCKALL => checks.add(Reason::Memlock, Finding::Met),
        call::MBIND | call::SET_MEMPOLICY_HOME_NODE => mbind(&facts, &mut checks),
        call::MSEAL => {
            checks.add(Reason::Gap, Finding::Possible);
            checks.add(Reason::MapCount, facts.split_refused());
            checks.add(Reason::KernelMemory, Finding::Possible);
        }
        call::REMAP_FILE_PAGES => remap_file_pages(&facts, &mut checks),
        call::SHMAT | call::IO_SETUP | call::MAP_SHADOW_STACK => inner_mmap(&facts, &mut checks),
        call::ARCH_PRCTL => arch_prctl(&facts, &mut checks),
        call::CLONE | call::CLONE3 | call::FORK | call::VFORK => fork(&facts, &mut checks),
        call::EXECVE | call::EXECVEAT => exec(&facts, &mut checks),
        call::IOCTL => ioctl(&facts, &mut checks),
        call::IO_URING_SETUP | call::IO_URING_REGISTER => {
            // Counted per user, not per process (io_uring/rsrc.c:__io_account_mem), so it cannot be computed here.
            checks.add(
                Reason::Memlock,
                if facts.rlimit(Rlimit::Memlock) == Some(u64::MAX) { Finding::No } else { Finding::Likely },
            );
            checks.add(Reason::KernelMemory, Finding::Possible);
        }
        _ => {}
    }
    let (reason, certain, others) = checks.decide();
    Verdict {
        cause: reason.cause(),
        certain,
        ordinary: ordinary(&facts, reason),
        evidence: evidence(&facts, reason),
        sentence: sentences::sentence(&facts, reason, &others),
        cure: sentences::cure(&facts, reason),
    }
}

/// What a check of the kernel says, finer than [`Cause`]: each has its own words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reason {
    MapCount,
    AddressSpace,
    Data,
    Stack,
    Memlock,
    Overcommit,
    /// The search for a free range found none, or the length fits nowhere.
    NoHole,
    /// brk: another mapping, or the end of the addresses, stands where the heap should go.
    InTheWay,
    /// mremap without MREMAP_MAYMOVE cannot grow where it is.
    NoRoomInPlace,
    /// brk asked where the break is.
    BreakQuery,
    Gap,
    Hugetlb,
    KernelMemory,
    /// The mapped file's driver gave the errno.
    Driver,
    /// A limit on the number of tasks.
    Tasks,
    /// The init process of the pid namespace has ended.
    DeadNamespace,
    /// MADV_COLLAPSE met pages that are busy.
    Busy,
    Unknown,
}

impl Reason {
    fn cause(self) -> Cause {
        match self {
            Self::MapCount => Cause::MaxMapCount,
            Self::AddressSpace => Cause::RlimitAs,
            Self::Data => Cause::RlimitData,
            Self::Stack => Cause::RlimitStack,
            Self::Memlock => Cause::RlimitMemlock,
            Self::Overcommit => Cause::Overcommit,
            Self::NoHole | Self::InTheWay | Self::NoRoomInPlace | Self::BreakQuery => Cause::NoAddressRange,
            Self::Gap => Cause::RangeNotMapped,
            Self::Hugetlb => Cause::Hugetlb,
            Self::KernelMemory => Cause::KernelMemory,
            Self::Driver | Self::Tasks | Self::DeadNamespace | Self::Busy | Self::Unknown => Cause::Unknown,
        }
    }

    /// Rare enough not to outweigh another candidate.
    fn last_resort(self) -> bool {
        matches!(self, Self::KernelMemory | Self::Driver | Self::DeadNamespace)
    }
}

/// What the captured state says about one check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Finding {
    /// It did not refuse.
    No,
    /// It may have.
    Possible,
    /// Its figures fit; whether it applied to this call is not seen.
    Likely,
    /// A call that reaches it is refused by it.
    Met,
}

/// Checks in the kernel's order.
#[derive(Default)]
struct Checks {
    open: Vec<(Reason, Finding)>,
    met: bool,
}

impl Checks {
    fn add(&mut self, reason: Reason, finding: Finding) {
        if !self.met && finding != Finding::No {
            // A second chance to fail for the same reason tells nothing new, unless it is surer.
            match self.open.iter_mut().find(|(known, _)| *known == reason) {
                Some((_, known)) if finding != Finding::Met => *known = (*known).max(finding),
                _ => {
                    self.open.retain(|(known, _)| *known != reason);
                    self.open.push((reason, finding));
                }
            }
            self.met = finding == Finding::Met;
        }
    }

    /// The reason, whether it is certain, and what else is possible.
    fn decide(self) -> (Reason, bool, Vec<Reason>) {
        let reasons: Vec<Reason> = self.open.iter().map(|(reason, _)| *reason).collect();
        if let [only] = reasons.as_slice() {
            return (*only, !matches!(only.cause(), Cause::Unknown), Vec::new());
        }
        let likely =
            || self.open.iter().find(|(_, finding)| *finding == Finding::Likely).map(|(reason, _)| *reason);
        let ordinary_ones: Vec<Reason> =
            reasons.iter().copied().filter(|reason| !reason.last_resort()).collect();
        let chosen = if self.met {
            reasons.last().copied()
        } else {
            likely().or(match ordinary_ones.as_slice() {
                [] => reasons.iter().copied().find(|reason| *reason == Reason::KernelMemory),
                [only] => Some(*only),
                _ => None,
            })
        };
        let chosen = chosen.unwrap_or(Reason::Unknown);
        (chosen, false, reasons.into_iter().filter(|reason| *reason != chosen).collect())
    }
}

/// Index into [`Refused::rlimits`].
#[derive(Clone, Copy)]
enum Rlimit {
    As = 0,
    Data = 1,
    Memlock = 2,
    Stack = 3,
}

const ENOMEM: u8 = libc::ENOMEM as u8;
const EAGAIN: u8 = libc::EAGAIN as u8;

const PROT_WRITE: u64 = 2;
const MAP_TYPE: u64 = 0xf;
const MAP_PRIVATE: u64 = 2;
const MAP_FIXED: u64 = 0x10;
const MAP_ANONYMOUS: u64 = 0x20;
const MAP_32BIT: u64 = 0x40;
const MAP_GROWSDOWN: u64 = 0x100;
const MAP_NORESERVE: u64 = 0x4000;
const MAP_HUGETLB: u64 = 0x40000;
const MREMAP_FIXED: u64 = 2;
const MREMAP_DONTUNMAP: u64 = 4;
const CLONE_VM: u64 = 0x100;
const PR_SET_VMA: u64 = 0x5356_4d41;
/// A reservation so large that programs which try it can do without (V8, sanitizers), bytes.
const PROBE_BYTES: u64 = 1 << 40;

/// What is known of the refused calls.
struct Facts<'a> {
    question: &'a Question<'a>,
    /// The class's distance to the limit (`vmaudit_common::relative_to_max`) when the lock was taken and let go;
    /// `None` without a lock section.
    at: Option<(u32, u32)>,
    /// vm.max_map_count at that time.
    max: Option<u64>,
}

impl<'a> Facts<'a> {
    fn new(question: &'a Question<'a>) -> Self {
        let class = question.class;
        let at = (class & CLASS_SECTION != 0)
            .then_some((class & CLASS_MC0_MASK, class >> CLASS_MC1_SHIFT & CLASS_MC0_MASK));
        let max = question.example.map(|example| u64::from(example.max_map_count)).filter(|max| *max > 0);
        Self { question, at, max: max.or(question.limits.max_map_count) }
    }

    fn has(&self, bit: u32) -> bool {
        self.question.class & bit != 0
    }

    fn kernel(&self) -> &KernelRules {
        self.question.kernel
    }

    fn arg(&self, index: usize) -> Option<u64> {
        self.question.example.and_then(|example| example.args.get(index).copied())
    }

    fn arg_has(&self, index: usize, bits: u64) -> Option<bool> {
        self.arg(index).map(|arg| arg & bits != 0)
    }

    fn section(&self) -> Option<&Section> {
        self.question.example.and_then(|example| example.section.as_ref())
    }

    fn rlimit(&self, which: Rlimit) -> Option<u64> {
        self.question.example.and_then(|example| example.rlimits.get(which as usize).copied())
    }

    fn section_lost(&self) -> bool {
        self.has(CLASS_SECTION_LOST)
    }

    /// The count when the lock was taken, as far as the class or the example tells it.
    fn map_count(&self) -> Option<u64> {
        match (self.at?, self.max) {
            ((relative @ 1..=8, _), Some(max)) => (max + u64::from(relative)).checked_sub(7),
            _ => self.section().map(|section| u64::from(section.mc0)),
        }
    }

    /// Whether the count at the beginning of the lock section was at least max + `offset` (-6..=2).
    fn started_at_least(&self, offset: i32) -> Option<bool> {
        self.at.map(|(mc0, _)| mc0 as i32 >= 7 + offset)
    }

    /// The same for its end.
    fn ended_at_least(&self, offset: i32) -> Option<bool> {
        self.at.map(|(_, mc1)| mc1 as i32 >= 7 + offset)
    }

    /// A check that refuses once the count is at least max + `offset` when the lock is taken.
    fn count_check(&self, offset: i32) -> Finding {
        match self.started_at_least(offset) {
            Some(true) => Finding::Met,
            Some(false) => Finding::No,
            None => Finding::Possible,
        }
    }

    /// A split that may have been the second one of the call (mm/vma.c:split_vma): it can be refused only if the count
    /// stood at max, and the call itself raises the count by one at most before.
    fn split_refused(&self) -> Finding {
        match (self.started_at_least(-1), self.ended_at_least(0)) {
            (Some(true), Some(true)) => Finding::Likely,
            (None, _) | (_, None) => Finding::Possible,
            _ => Finding::No,
        }
    }

    /// Bytes the call asked for on top of what it had, from the example.
    fn asked(&self) -> Option<u64> {
        let example = self.question.example?;
        let [first, second, third, ..] = example.args;
        match self.question.call {
            call::MREMAP => third.checked_sub(second),
            call::BRK => first.checked_sub(example.ret as u64),
            call::MMAP
            | call::MPROTECT
            | call::PKEY_MPROTECT
            | call::MLOCK
            | call::MLOCK2
            | call::MUNLOCK => Some(second),
            call::MUNMAP | call::MADVISE => Some(second),
            _ => None,
        }
    }

    fn pages(&self, bytes: u64) -> u64 {
        bytes.div_ceil(self.kernel().page_size.max(1))
    }

    fn fixed(&self) -> bool {
        self.has(CLASS_FIXED)
    }

    fn counters(&self) -> bool {
        self.kernel().vm_counters_captured && self.has(CLASS_SECTION)
    }

    /// mm/mmap.c:may_expand_vm, first half.
    fn address_space(&self) -> Finding {
        match (self.rlimit(Rlimit::As), self.counters()) {
            (Some(u64::MAX), _) => Finding::No,
            (_, true) if !self.has(CLASS_OVER_AS) => Finding::No,
            // How much of the old mapping would have been given back is not captured.
            (_, true) if self.fixed() => Finding::Likely,
            (_, true) => Finding::Met,
            (_, false) => Finding::Possible,
        }
    }

    /// mm/mmap.c:may_expand_vm, second half; `counts` says whether the mapping is private, writable and no stack.
    fn data(&self, counts: Option<bool>) -> Finding {
        // A limit of 0 is waived when the hard limit allows (for Valgrind).
        let waived =
            self.kernel().ignore_rlimit_data || matches!(self.rlimit(Rlimit::Data), Some(u64::MAX | 0));
        match self.counters() {
            _ if waived || counts == Some(false) => Finding::No,
            true if !self.has(CLASS_OVER_DATA) => Finding::No,
            true if self.fixed() || counts.is_none() => Finding::Likely,
            true => Finding::Met,
            false => Finding::Possible,
        }
    }

    /// mm/util.c:__vm_enough_memory; `counts` says whether the mapping is charged.
    fn overcommit(&self, counts: Option<bool>) -> Finding {
        let mode = self.question.limits.overcommit_memory;
        if counts == Some(false) || mode == Some(1) {
            return Finding::No;
        }
        let pages = self.asked().map(|bytes| self.pages(bytes));
        match (mode, pages, self.kernel().ram_and_swap_pages) {
            // Mode 0 looks at this one request only.
            (Some(0), Some(pages), Some(most)) if pages <= most => Finding::No,
            (Some(0), Some(_), Some(_)) if counts == Some(true) => Finding::Met,
            (Some(0), Some(_), Some(_)) => Finding::Likely,
            _ => Finding::Possible,
        }
    }

    /// A search for a free range (mm/vma.c:vm_unmapped_area).
    fn search(&self) -> Finding {
        if self.kernel().searches_seen {
            return if self.has(CLASS_NO_HOLE) { Finding::Met } else { Finding::No };
        }
        if self.always_has_hole() { Finding::No } else { Finding::Possible }
    }

    /// n mappings leave n + 1 holes, so one of them has at least the mean size of all.
    fn always_has_hole(&self) -> bool {
        let (Some(section), Some(asked), true) = (self.section(), self.asked(), self.counters()) else {
            return false;
        };
        let free =
            self.kernel().task_size.saturating_sub(section.total_vm.saturating_mul(self.kernel().page_size));
        // Half, for the gap below the stack, alignment to huge pages and guard gaps.
        asked <= free / 2 / (u64::from(section.mc0) + 2)
    }

    /// Whether the mapping that mmap was asked for is private memory of no file, charged to the process.
    fn mmap_private_writable(&self) -> Option<bool> {
        let flags = self.arg(3)?;
        Some(flags & MAP_TYPE == MAP_PRIVATE && self.arg(2)? & PROT_WRITE != 0 && flags & MAP_GROWSDOWN == 0)
    }

    fn mmap_charged(&self) -> Option<bool> {
        let flags = self.arg(3)?;
        // Strict accounting ignores MAP_NORESERVE (mm/mmap.c:do_mmap).
        let waived = flags & MAP_NORESERVE != 0 && self.question.limits.overcommit_memory != Some(2);
        let private = flags & MAP_TYPE == MAP_PRIVATE && self.arg(2)? & PROT_WRITE != 0;
        let shared_memory = flags & MAP_TYPE != MAP_PRIVATE && flags & MAP_ANONYMOUS != 0;
        Some(!waived && flags & MAP_HUGETLB == 0 && (private || shared_memory))
    }
}

fn mmap(facts: &Facts<'_>, checks: &mut Checks) {
    let anonymous = facts.arg_has(3, MAP_ANONYMOUS);
    let huge = facts.arg_has(3, MAP_HUGETLB) == Some(true);
    if facts.question.errno == EAGAIN {
        let over = !facts.counters() || facts.has(CLASS_OVER_MEMLOCK);
        checks.add(
            Reason::Memlock,
            match (over, anonymous) {
                (false, _) => Finding::No,
                (true, Some(true)) => Finding::Met,
                (true, _) => Finding::Likely,
            },
        );
        checks.add(Reason::Driver, if anonymous == Some(true) { Finding::No } else { Finding::Possible });
        return;
    }
    let task_size = facts.kernel().task_size;
    // Only the rounding of the length to pages comes before the first look at the count (mm/mmap.c:do_mmap).
    let overflows = facts.asked().is_some_and(|length| length > u64::MAX - facts.kernel().page_size + 1);
    checks.add(Reason::NoHole, if overflows { Finding::Met } else { Finding::No });
    checks.add(Reason::MapCount, facts.count_check(1));
    let too_long = facts.asked().is_some_and(|length| length > task_size)
        && facts.arg(0).is_some_and(|hint| hint < task_size);
    checks.add(
        Reason::NoHole,
        match (too_long, facts.fixed()) {
            (true, _) => Finding::Met,
            (false, true) => match (facts.arg(0), facts.asked()) {
                (Some(address), Some(length)) if address <= task_size - length.min(task_size) => Finding::No,
                _ => Finding::Possible,
            },
            (false, false) if facts.arg_has(3, MAP_32BIT) == Some(true) && !facts.kernel().searches_seen => {
                Finding::Possible
            }
            (false, false) => facts.search(),
        },
    );
    // A fixed range strictly inside one mapping splits it; from 6.12 on before the limits of the process are looked at,
    // earlier after that. Whether it lies inside one is not seen.
    let splits = match facts.started_at_least(0) {
        Some(true) if facts.fixed() => Finding::Likely,
        _ => Finding::No,
    };
    checks.add(Reason::MapCount, splits);
    checks.add(Reason::AddressSpace, facts.address_space());
    checks.add(Reason::Data, facts.data(facts.mmap_private_writable()));
    checks.add(Reason::Overcommit, facts.overcommit(facts.mmap_charged()));
    if huge {
        checks.add(Reason::Hugetlb, Finding::Met);
    }
    if splits == Finding::Likely && anonymous == Some(true) {
        // Convention (2): only the split is known to fail.
        return;
    }
    checks.add(Reason::Driver, if anonymous == Some(true) { Finding::No } else { Finding::Possible });
    checks.add(Reason::KernelMemory, Finding::Possible);
}

/// mm/vma.c:vms_gather_munmap_vmas: the count is looked at only for a range strictly inside one mapping, and before
/// any allocation; a range that is not inside never gets ENOMEM but from an allocation.
fn munmap(facts: &Facts<'_>, checks: &mut Checks) {
    checks.add(Reason::MapCount, facts.count_check(0));
    checks.add(Reason::KernelMemory, Finding::Possible);
}

fn mprotect(facts: &Facts<'_>, checks: &mut Checks) {
    let writes = facts.arg_has(2, PROT_WRITE);
    // Counters cannot show a gap.
    checks.add(Reason::Gap, Finding::Possible);
    // The test is "fails now and did not before", so only memory that becomes writable is looked at.
    checks.add(Reason::Data, facts.data(writes.filter(|writes| !writes)));
    checks.add(Reason::Overcommit, facts.overcommit(writes.filter(|writes| !writes)));
    checks.add(Reason::MapCount, facts.split_refused());
    checks.add(Reason::KernelMemory, Finding::Possible);
}

fn mremap(facts: &Facts<'_>, checks: &mut Checks) {
    if facts.question.errno == EAGAIN {
        checks.add(Reason::Memlock, Finding::Met);
        return;
    }
    let targeted = facts.arg_has(3, MREMAP_FIXED | MREMAP_DONTUNMAP);
    let keeps = facts.arg_has(3, MREMAP_DONTUNMAP);
    let old = match facts.kernel().mremap {
        // Checked first, for every call (mm/mremap.c:check_map_count_against_split_early).
        Some(MremapRule::Split71) => {
            checks.add(Reason::MapCount, facts.count_check(-3));
            false
        }
        Some(MremapRule::Split72) => {
            let with_copy = match (facts.started_at_least(-4), keeps) {
                (Some(true), Some(true)) => Finding::Met,
                (Some(true), None) => Finding::Possible,
                _ => Finding::No,
            };
            checks.add(Reason::MapCount, facts.count_check(-3).max(with_copy));
            false
        }
        Some(MremapRule::Old) | None => true,
    };
    let grows = facts.has(CLASS_GROWS);
    if old {
        mremap_old(facts, targeted, grows, checks);
    }
    if grows {
        checks.add(Reason::AddressSpace, facts.address_space());
        checks.add(Reason::Data, facts.data(None));
        if !facts.has(CLASS_MAYMOVE) {
            checks.add(Reason::NoRoomInPlace, Finding::Likely);
        } else if targeted != Some(true) {
            checks.add(Reason::NoHole, facts.search());
        }
        if old && facts.has(CLASS_MAYMOVE) {
            checks.add(Reason::MapCount, mremap_old_move(facts));
        }
        checks.add(Reason::Overcommit, facts.overcommit(None));
    } else if targeted != Some(false) {
        checks
            .add(Reason::AddressSpace, if keeps == Some(true) { facts.address_space() } else { Finding::No });
        checks.add(Reason::NoHole, if keeps == Some(true) { facts.search() } else { Finding::No });
        if old {
            checks.add(Reason::MapCount, mremap_old_move(facts));
        }
    }
    checks.add(Reason::KernelMemory, Finding::Possible);
}

/// What kernels up to 7.0 look at first.
fn mremap_old(facts: &Facts<'_>, targeted: Option<bool>, grows: bool, checks: &mut Checks) {
    let known = facts.kernel().mremap == Some(MremapRule::Old);
    let finding = match (facts.at, targeted) {
        // Without the lock nothing else in mremap says ENOMEM (mm/mremap.c:check_mremap_params).
        (None, Some(true))
            if !facts.section_lost() && facts.kernel().mremap_checks_unlocked == Some(true) =>
        {
            Finding::Met
        }
        // A kernel that may be newer asks for four free ones in every call.
        (Some(_), _) if !known && facts.started_at_least(-3) == Some(true) => {
            if !grows && facts.started_at_least(0) == Some(true) { Finding::Met } else { Finding::Likely }
        }
        // A tail that is cut off may split, as munmap does; with a target, two more conditions hold as well.
        (Some(_), _) if !grows && facts.started_at_least(0) == Some(true) => Finding::Met,
        (Some(_), Some(true)) if facts.started_at_least(-5) == Some(true) => {
            // The first check, under the lock, up to 6.14 (mm/mremap.c:mremap_to).
            if known && facts.kernel().mremap_checks_unlocked == Some(false) {
                Finding::Met
            } else {
                Finding::Likely
            }
        }
        (Some(_), None)
            if facts.started_at_least(-5) == Some(true) && (facts.has(CLASS_MAYMOVE) || !grows) =>
        {
            Finding::Possible
        }
        (None, _) => Finding::Possible,
        _ => Finding::No,
    };
    checks.add(Reason::MapCount, finding);
}

/// mm/mremap.c:move_vma up to 7.0 wants four free; a successful search before it proves that everything earlier passed.
fn mremap_old_move(facts: &Facts<'_>) -> Finding {
    if facts.started_at_least(-3) != Some(true) {
        return Finding::No;
    }
    let reached = facts.kernel().searches_seen && facts.has(CLASS_SEARCHED) && !facts.has(CLASS_NO_HOLE);
    if reached && facts.kernel().mremap == Some(MremapRule::Old) { Finding::Met } else { Finding::Likely }
}

fn brk(facts: &Facts<'_>, checks: &mut Checks) {
    let example = facts.question.example;
    if example.is_some_and(|example| example.start_brk > 0 && example.args[0] < example.start_brk) {
        checks.add(Reason::BreakQuery, Finding::Met);
        return;
    }
    if !facts.has(CLASS_GROWS) {
        checks.add(Reason::InTheWay, Finding::Possible);
        checks.add(
            Reason::MapCount,
            match facts.count_check(0) {
                Finding::Met => Finding::Likely,
                other => other,
            },
        );
        checks.add(Reason::KernelMemory, Finding::Possible);
        return;
    }
    // The heap alone, first thing (mm/mmap.c:check_data_rlimit); its second figure is at least this.
    let heap = example.map(|example| example.args[0].saturating_sub(example.start_brk));
    checks.add(
        Reason::Data,
        match (heap, facts.rlimit(Rlimit::Data)) {
            (_, Some(u64::MAX)) => Finding::No,
            (Some(heap), Some(limit)) if heap > limit => Finding::Met,
            _ => Finding::Possible,
        },
    );
    // What lies above the heap is not captured.
    checks.add(Reason::InTheWay, Finding::Possible);
    checks.add(
        Reason::Memlock,
        match (facts.rlimit(Rlimit::Memlock), facts.counters()) {
            (Some(u64::MAX), _) => Finding::No,
            (_, true) if !facts.has(CLASS_OVER_MEMLOCK) => Finding::No,
            // Applies only after mlockall(MCL_FUTURE), which almost nobody calls.
            (_, true) if facts.section().is_some_and(|section| section.locked_vm == 0) => Finding::No,
            (_, true) => Finding::Possible,
            (_, false) => Finding::No,
        },
    );
    checks.add(Reason::AddressSpace, facts.address_space());
    checks.add(Reason::Data, facts.data(Some(true)));
    checks.add(Reason::MapCount, facts.count_check(1));
    checks.add(Reason::Overcommit, facts.overcommit(Some(true)));
    checks.add(Reason::KernelMemory, Finding::Possible);
}

/// What a madvise advice can run into.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Advice {
    /// Changes flags, so it may split mappings.
    Flags,
    /// Needs memory or page tables: POPULATE, GUARD_INSTALL.
    Memory,
    /// MADV_COLLAPSE.
    Collapse,
    /// Only looks at what is mapped.
    Plain,
    /// No example tells.
    Unknown,
}

fn advice(facts: &Facts<'_>) -> Advice {
    let index = if facts.question.call == call::PROCESS_MADVISE { 3 } else { 2 };
    match facts.arg(index) {
        None => Advice::Unknown,
        Some(0..=2 | 10..=19) => Advice::Flags,
        Some(22 | 23 | 102) => Advice::Memory,
        Some(25) => Advice::Collapse,
        Some(_) => Advice::Plain,
    }
}

fn madvise(facts: &Facts<'_>, checks: &mut Checks) {
    let advice = advice(facts);
    let new = facts.kernel().madvise_eagain;
    if facts.question.errno == EAGAIN {
        if advice == Advice::Collapse {
            checks.add(Reason::Busy, Finding::Met);
            return;
        }
        at_the_limit_eagain(facts, checks);
        return;
    }
    // The gap is reported at the end, after the advice has been applied to everything that is mapped.
    checks.add(
        Reason::Gap,
        if matches!(advice, Advice::Flags | Advice::Plain) { Finding::Possible } else { Finding::Likely },
    );
    if new != Some(true) && matches!(advice, Advice::Flags | Advice::Unknown) {
        checks.add(Reason::MapCount, facts.split_refused());
    }
    if !matches!(advice, Advice::Flags | Advice::Plain) {
        checks.add(Reason::KernelMemory, Finding::Possible);
    }
}

/// madvise and PR_SET_VMA: since 5.17 every refused split says EAGAIN; before, EAGAIN meant a failed allocation only.
fn at_the_limit_eagain(facts: &Facts<'_>, checks: &mut Checks) {
    let limit = match (facts.kernel().madvise_eagain, facts.ended_at_least(0)) {
        (Some(false), _) | (_, Some(false)) => Finding::No,
        (Some(true), Some(true)) => Finding::Met,
        (None, Some(true)) => Finding::Likely,
        (_, None) => Finding::Possible,
    };
    checks.add(Reason::MapCount, limit);
    checks.add(Reason::KernelMemory, Finding::Possible);
}

fn prctl(facts: &Facts<'_>, checks: &mut Checks) {
    if facts.arg(0).is_some_and(|option| option != PR_SET_VMA) {
        return;
    }
    if facts.question.errno == EAGAIN {
        at_the_limit_eagain(facts, checks);
    } else {
        checks.add(Reason::Gap, Finding::Likely);
        checks.add(Reason::KernelMemory, Finding::Possible);
    }
}

/// mm/mlock.c:do_mlock; munlock has no limit of its own.
fn mlock(facts: &Facts<'_>, checks: &mut Checks) {
    if facts.question.errno == EAGAIN {
        // Everything was locked, and filling it with memory failed (mm/mlock.c:__mlock_posix_error_return).
        checks.add(Reason::KernelMemory, Finding::Met);
        return;
    }
    if facts.question.call != call::MUNLOCK {
        // Nothing was locked before, so no part of the range was counted twice.
        let exact = facts.kernel().memlock_bit_knows_capability
            && facts.section().is_some_and(|section| section.locked_vm == 0);
        checks.add(
            Reason::Memlock,
            match (facts.rlimit(Rlimit::Memlock), facts.counters()) {
                (Some(u64::MAX), _) => Finding::No,
                (_, true) if !facts.has(CLASS_OVER_MEMLOCK) => Finding::No,
                (_, true) if exact => Finding::Met,
                (_, true) => Finding::Likely,
                (_, false) => Finding::Possible,
            },
        );
    }
    checks.add(Reason::Gap, Finding::Possible);
    checks.add(Reason::MapCount, facts.split_refused());
    checks.add(Reason::KernelMemory, Finding::Possible);
}

/// A gap says EFAULT here, so only the split and allocations say ENOMEM.
fn mbind(facts: &Facts<'_>, checks: &mut Checks) {
    checks.add(
        Reason::MapCount,
        match facts.split_refused() {
            Finding::Likely => Finding::Met,
            other => other,
        },
    );
    checks.add(Reason::KernelMemory, Finding::Possible);
}

/// mm/mmap.c:remap_file_pages maps anew with MAP_FIXED inside one mapping.
fn remap_file_pages(facts: &Facts<'_>, checks: &mut Checks) {
    if facts.question.errno == EAGAIN {
        checks.add(Reason::Memlock, Finding::Met);
        return;
    }
    checks.add(Reason::MapCount, facts.count_check(1));
    checks.add(
        Reason::MapCount,
        match facts.started_at_least(0) {
            Some(true) => Finding::Likely,
            Some(false) => Finding::No,
            None => Finding::Possible,
        },
    );
    checks.add(Reason::KernelMemory, Finding::Possible);
}

/// Calls that map something whose size the arguments do not show. io_setup hides the real errno (fs/aio.c:ioctx_alloc).
fn inner_mmap(facts: &Facts<'_>, checks: &mut Checks) {
    checks.add(Reason::MapCount, facts.count_check(1));
    checks.add(Reason::NoHole, if facts.kernel().searches_seen { facts.search() } else { Finding::Possible });
    let finite = |which| match facts.rlimit(which) {
        Some(u64::MAX) => Finding::No,
        _ => Finding::Possible,
    };
    checks.add(Reason::AddressSpace, finite(Rlimit::As));
    if facts.question.call == call::MAP_SHADOW_STACK {
        checks.add(Reason::Overcommit, facts.overcommit(None));
    }
    checks.add(Reason::KernelMemory, Finding::Possible);
}

/// ARCH_MAP_VDSO_* looks at no count (mm/vma.c:_install_special_mapping); enabling a shadow stack maps as mmap does.
fn arch_prctl(facts: &Facts<'_>, checks: &mut Checks) {
    checks.add(
        Reason::MapCount,
        match facts.count_check(1) {
            Finding::Met => Finding::Likely,
            other => other,
        },
    );
    checks.add(Reason::NoHole, facts.search());
    checks.add(Reason::KernelMemory, Finding::Possible);
}

/// kernel/fork.c: the VMA limit plays no part; a child may even start above it.
fn fork(facts: &Facts<'_>, checks: &mut Checks) {
    if facts.question.errno == EAGAIN {
        checks.add(Reason::Tasks, Finding::Met);
        return;
    }
    let shares = match facts.question.call {
        call::VFORK => Some(true),
        call::CLONE => facts.arg_has(0, CLONE_VM),
        call::FORK => Some(false),
        _ => None,
    };
    let mode = facts.question.limits.overcommit_memory;
    // Each charged mapping is a request of its own; in mode 0 one alone must exceed RAM and swap.
    let impossible = mode == Some(0)
        && facts.counters()
        && match (facts.section(), facts.kernel().ram_and_swap_pages) {
            (Some(section), Some(most)) => section.total_vm <= most,
            _ => false,
        };
    checks.add(
        Reason::Overcommit,
        match mode {
            _ if shares == Some(true) || impossible => Finding::No,
            Some(1) => Finding::No,
            Some(2) => Finding::Likely,
            _ => Finding::Possible,
        },
    );
    checks.add(Reason::KernelMemory, Finding::Possible);
    checks.add(Reason::DeadNamespace, Finding::Possible);
}

/// The new image's own limits; the VMA limit is not looked at while it is set up by the kernel alone.
fn exec(facts: &Facts<'_>, checks: &mut Checks) {
    let finite = |which| match facts.rlimit(which) {
        Some(u64::MAX) => Finding::No,
        Some(_) => Finding::Likely,
        None => Finding::Possible,
    };
    checks.add(Reason::AddressSpace, finite(Rlimit::As));
    checks.add(
        Reason::Data,
        if facts.kernel().ignore_rlimit_data { Finding::No } else { finite(Rlimit::Data) },
    );
    // The usual 8 MiB hold every image's first stack.
    checks.add(
        Reason::Stack,
        match facts.rlimit(Rlimit::Stack) {
            Some(limit) if limit >= 1 << 20 => Finding::No,
            Some(_) => Finding::Likely,
            None => Finding::Possible,
        },
    );
    checks.add(
        Reason::Overcommit,
        if facts.question.limits.overcommit_memory == Some(2) { Finding::Possible } else { Finding::No },
    );
    checks.add(Reason::KernelMemory, Finding::Possible);
}

/// Only userfaultfd's calls split mappings; other drivers have reasons of their own.
fn ioctl(facts: &Facts<'_>, checks: &mut Checks) {
    match facts.arg(1) {
        // UFFDIO_REGISTER and UFFDIO_UNREGISTER by type and number (include/uapi/linux/userfaultfd.h).
        Some(command) if command & 0xffff == 0xaa00 || command & 0xffff == 0xaa01 => {
            checks.add(
                Reason::MapCount,
                match facts.split_refused() {
                    Finding::Likely => Finding::Met,
                    other => other,
                },
            );
            checks.add(Reason::KernelMemory, Finding::Possible);
        }
        Some(_) => checks.add(Reason::Driver, Finding::Met),
        None => {
            checks.add(Reason::MapCount, facts.split_refused());
            checks.add(Reason::Driver, Finding::Possible);
            checks.add(Reason::KernelMemory, Finding::Possible);
        }
    }
}

/// Refusals that answer a question rather than disappoint a need.
fn ordinary(facts: &Facts<'_>, reason: Reason) -> bool {
    match reason {
        Reason::NoRoomInPlace | Reason::BreakQuery | Reason::Busy => true,
        Reason::Gap => matches!(facts.question.call, call::MADVISE | call::PROCESS_MADVISE | call::PRCTL),
        Reason::MapCount => false,
        // Programs reserve huge ranges without access, and try a smaller one when refused.
        _ => {
            facts.question.call == call::MMAP
                && facts.arg(2) == Some(0)
                && facts.arg_has(3, MAP_FIXED) == Some(false)
                && facts.asked().is_some_and(|length| length >= PROBE_BYTES)
        }
    }
}

fn evidence(facts: &Facts<'_>, reason: Reason) -> BTreeMap<String, u64> {
    let mut evidence = BTreeMap::new();
    let mut put = |name: &str, value: Option<u64>| {
        if let Some(value) = value {
            evidence.insert(name.to_owned(), value);
        }
    };
    let page = facts.kernel().page_size;
    let section = facts.section();
    let used = |pages: fn(&Section) -> u64| {
        section.filter(|_| facts.counters()).map(|section| pages(section).saturating_mul(page))
    };
    put("map_count", facts.map_count());
    put("max_map_count", facts.max);
    match reason {
        Reason::MapCount => put("needed", Some(sentences::free_needed(facts))),
        Reason::AddressSpace => {
            put("asked_bytes", facts.asked());
            put("used_bytes", used(|section| section.total_vm));
            put("limit_bytes", facts.rlimit(Rlimit::As));
        }
        Reason::Data => {
            put("asked_bytes", facts.asked());
            put("used_bytes", used(|section| section.data_vm));
            put("limit_bytes", facts.rlimit(Rlimit::Data));
        }
        Reason::Memlock => {
            put("asked_bytes", facts.asked());
            put("used_bytes", used(|section| section.locked_vm));
            put("limit_bytes", facts.rlimit(Rlimit::Memlock));
        }
        Reason::Stack => put("limit_bytes", facts.rlimit(Rlimit::Stack)),
        Reason::Overcommit => {
            put("asked_bytes", facts.asked());
            put("overcommit_memory", facts.question.limits.overcommit_memory);
            put(
                "ram_and_swap_bytes",
                facts.kernel().ram_and_swap_pages.map(|pages| pages.saturating_mul(page)),
            );
        }
        Reason::NoHole | Reason::NoRoomInPlace | Reason::InTheWay | Reason::Hugetlb => {
            put("asked_bytes", facts.asked())
        }
        _ => {}
    }
    // What was missing, where it can be computed.
    let missing = match (evidence.get("asked_bytes"), evidence.get("used_bytes"), evidence.get("limit_bytes"))
    {
        (Some(asked), Some(used), Some(limit)) => {
            asked.saturating_add(*used).checked_sub(*limit).filter(|missing| *missing > 0)
        }
        _ => None,
    };
    if let Some(missing) = missing {
        evidence.insert("missing_bytes".into(), missing);
    }
    if facts.question.kept_bytes > 0 {
        evidence.insert("kept_bytes".into(), facts.question.kept_bytes);
    }
    evidence
}

#[cfg(test)]
mod tests;
