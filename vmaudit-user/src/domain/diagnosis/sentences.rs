//! The words of the verdicts, each written once.

use vmaudit_common::call::{self, CALLS};
use vmaudit_common::{CLASS_GROWS, CLASS_KEEPS, CLASS_TARGETED};

use crate::domain::diagnosis::checks::madvise::{Advice, advice};
use crate::domain::diagnosis::facts::{EAGAIN, ENOSPC, EPERM, Facts, MAP_FIXED, MAP_STACK, Rlimit};
use crate::domain::diagnosis::{Reason, tasks};
use crate::model::session::MremapRule;
use crate::text::{bytes, count, grouped};

/// The verdict for people, with its numbers; `others` are the reasons that could not be excluded.
pub(super) fn sentence(facts: &Facts<'_>, reason: Reason, certain: bool, others: &[Reason]) -> String {
    let mut text = match reason {
        Reason::MapCount => map_count(facts),
        Reason::AddressSpace => rlimit(facts, Rlimit::As, "RLIMIT_AS", "of address space"),
        Reason::Data => rlimit(facts, Rlimit::Data, "RLIMIT_DATA", "of private writable memory"),
        Reason::Memlock => memlock(facts),
        Reason::Stack => format!(
            "{}: the new image's stack does not fit under RLIMIT_STACK{}.",
            name(facts),
            equals(facts.rlimit(Rlimit::Stack))
        ),
        Reason::Overcommit => overcommit(facts),
        Reason::NoHole => no_hole(facts),
        Reason::InTheWay => format!(
            "brk() could not move the end of the heap{}: another mapping, or the end of the addresses, is \
             in the way.",
            facts
                .asked()
                .filter(|_| facts.has(CLASS_GROWS))
                .map_or(String::new(), |asked| format!(" up by {}", bytes(asked)))
        ),
        Reason::NoRoomInPlace => "mremap() was asked to grow a mapping where it is, without \
         MREMAP_MAYMOVE, and there was no room: an ordinary answer."
            .into(),
        Reason::BreakQuery => "brk() was asked where the break is: an ordinary answer.".into(),
        Reason::Gap => gap(facts),
        Reason::NoAccess => format!(
            "The range given to {} is mapped, but a part of it allows no access, so it cannot be filled with memory; \
             it stays marked as locked.",
            name(facts)
        ),
        Reason::FileEnd => format!(
            "The range given to {} is mapped, but a part of it lies beyond the end of the file, so it cannot be filled \
             with memory; it stays marked as locked.",
            name(facts)
        ),
        Reason::Wraps => format!(
            "{} was given a length{} that goes past the last address there is.",
            name(facts),
            facts
                .arg(0)
                .filter(|_| facts.question.call != call::MMAP)
                .map_or(String::new(), |at| format!(" at {at:#x}"))
        ),
        Reason::Hugetlb => {
            format!("{} asked for {}huge pages, and too few are free.", name(facts), amount_of(facts))
        }
        Reason::Segments => format!(
            "{} was refused by a limit on shared memory segments: their number (kernel.shmmni) or pages (kernel.shmall).",
            name(facts)
        ),
        Reason::AsynchronousIo => format!(
            "{} was refused by fs.aio-max-nr, which limits the requests of all processes of the machine.",
            name(facts)
        ),
        Reason::KernelMemory => kernel_memory(facts),
        Reason::Driver if matches!(facts.question.call, call::MLOCK | call::MLOCK2) => format!(
            "The range given to {} is mapped, but the file behind a part of it gave no page; it stays marked as locked.",
            name(facts)
        ),
        Reason::Driver => format!(
            "{}: the driver or the file system behind the file descriptor gave {} \
         for a reason of its own.",
            name(facts),
            errno(facts)
        ),
        _ if reason.limits_tasks() => tasks::sentence(facts, &name(facts), reason),
        Reason::DeadNamespace => format!(
            "{} was refused because the first process (the init) of the pid namespace that its children would be in \
             has ended: nothing can be started in it any more.",
            name(facts)
        ),
        Reason::Busy => format!(
            "{}: the pages to be collapsed were busy; the caller may try again. An \
         ordinary answer.",
            name(facts)
        ),
        _ => return unknown(facts, others),
    };
    let unmaps_first = facts.kernel().fixed_unmaps_first == Some(true)
        && facts.question.call == call::MMAP
        && facts.arg_has(3, MAP_FIXED) == Some(true);
    if unmaps_first && matches!(reason, Reason::Overcommit | Reason::Hugetlb | Reason::Driver) {
        text.push_str(
            " What was mapped there before is gone: this kernel unmaps it before it asks for memory.",
        );
    }
    if reason != Reason::MapCount
        && let Some(added) = facts.added()
    {
        text.push_str(&match added {
            1 => " 1 VMA was added before one such call failed, and stays.".into(),
            _ => format!(" {} VMAs were added before one such call failed, and stay.", grouped(added)),
        });
    }
    if !others.is_empty() {
        text.push_str(&format!(" Not certain: {} would look the same.", list(facts, others)));
    } else if reason == Reason::KernelMemory && !certain {
        text.push_str(" Not certain: nothing else fits, but nothing that was seen proves it.");
    }
    text
}

/// No free range, or none at all that is so large.
fn no_hole(facts: &Facts<'_>) -> String {
    match facts.asked() {
        Some(asked) if facts.beyond_the_end() == Some(true) => format!(
            "{} with MAP_FIXED asked for {} at {:#x}, which lies beyond the addresses of a process.",
            name(facts),
            bytes(asked),
            facts.arg(0).unwrap_or(0)
        ),
        Some(asked) if asked > facts.kernel().task_size => {
            format!("{} asked for {}, more than a process has addresses.", name(facts), bytes(asked))
        }
        Some(asked) => format!(
            "{} found no free address range of {}{}.",
            name(facts),
            bytes(asked),
            facts.addresses().map_or(String::new(), |(used, all)| format!(
                ": {} of the {} of addresses were in use",
                bytes(used),
                bytes(all)
            ))
        ),
        None => format!("{} found no free address range of the size it needs.", name(facts)),
    }
}

/// How many VMAs must be free for the call to pass its check of the count.
pub(super) fn free_needed(facts: &Facts<'_>) -> u64 {
    if facts.question.call != call::MREMAP {
        // The middle of a mapping takes two splits; at one below the limit the first one is made.
        return if facts.started_at_least(0) == Some(false) { 2 } else { 1 };
    }
    let (keeps, targeted) = (facts.has(CLASS_KEEPS), facts.has(CLASS_TARGETED));
    match facts.kernel().mremap {
        Some(MremapRule::Split72) if keeps => 5,
        Some(MremapRule::Split71 | MremapRule::Split72) => 4,
        _ if targeted => 6,
        _ if facts.has(CLASS_GROWS) => 4,
        _ => 1,
    }
}

fn name(facts: &Facts<'_>) -> String {
    format!("{}()", CALLS.get(usize::from(facts.question.call)).map_or("[unknown call]", |call| call.name))
}

fn errno(facts: &Facts<'_>) -> &'static str {
    match facts.question.errno {
        EAGAIN => "EAGAIN",
        EPERM => "EPERM",
        ENOSPC => "ENOSPC",
        _ => "ENOMEM",
    }
}

fn limit(facts: &Facts<'_>) -> String {
    format!("vm.max_map_count{}", facts.max.map_or(String::new(), |max| format!(" = {}", grouped(max))))
}

fn equals(limit: Option<u64>) -> String {
    match limit {
        Some(u64::MAX) | None => String::new(),
        Some(limit) => format!(" = {}", bytes(limit)),
    }
}

/// "2 GiB of " or nothing.
fn amount_of(facts: &Facts<'_>) -> String {
    facts.asked().map_or(String::new(), |asked| format!("{} of ", bytes(asked)))
}

/// "; 4 KiB stay mapped", for calls that should have unmapped something. What went later is not in it.
fn kept(facts: &Facts<'_>) -> String {
    let bound = facts.question.kept_bound.word();
    match (facts.question.kept_bytes, facts.question.count) {
        (0, _) => String::new(),
        (kept, 0 | 1) => format!("; {bound}{} stay mapped", bytes(kept)),
        (kept, _) => format!("; in all, {bound}{} stay mapped", bytes(kept)),
    }
}

fn map_count(facts: &Facts<'_>) -> String {
    let mut text = too_many(facts);
    if facts.question.call == call::MMAP && facts.arg_has(3, MAP_STACK) == Some(true) {
        text.push_str(" It was to be a thread's stack.");
    }
    text
}

fn too_many(facts: &Facts<'_>) -> String {
    let (name, limit) = (name(facts), limit(facts));
    let had = facts.map_count().map(|had| count(had, "VMA", "VMAs"));
    // A failed call may leave its first split behind.
    // Other kinds may be shown with this one, of which that is not true.
    let behind = match facts.at {
        Some((before, after)) if after > before => match facts.question.count {
            0 | 1 => " Before one such call was refused, the first of its splits was made; it stays.".into(),
            n => format!(
                " Before {} such calls were refused, the first of their splits was made; it stays.",
                grouped(n)
            ),
        },
        _ => String::new(),
    };
    match facts.question.call {
        call::MUNMAP => format!(
            "{name} had to split a mapping in two, which needs one more VMA than {limit} allows{}.",
            kept(facts)
        ),
        call::MREMAP if free_needed(facts) == 1 => format!(
            "{name} had to cut a piece out of a mapping, which needs one more VMA than {limit} allows{}.",
            kept(facts)
        ),
        call::MREMAP => {
            let of = match (facts.map_count(), facts.max) {
                (Some(had), Some(max)) => {
                    format!(
                        ", and the process had {} of the {} that vm.max_map_count allows",
                        grouped(had),
                        grouped(max)
                    )
                }
                _ => format!(", and {limit} left fewer"),
            };
            format!("{name} wants {} free VMAs before it begins{of}{}.", free_needed(facts), kept(facts))
        }
        call::BRK if !facts.has(CLASS_GROWS) => format!(
            "{name} had to split a mapping to shrink the heap, which needs one more VMA than {limit} \
             allows{}.",
            kept(facts)
        ),
        call::MMAP | call::REMAP_FILE_PAGES if facts.started_at_least(1) != Some(true) => format!(
            "{name} with MAP_FIXED had to split the mapping it lies in, which needs one more VMA than \
             {limit} allows."
        ),
        call::MMAP
        | call::BRK
        | call::SHMAT
        | call::IO_SETUP
        | call::MAP_SHADOW_STACK
        | call::ARCH_PRCTL
        | call::REMAP_FILE_PAGES => match had {
            Some(had) => {
                format!("{name} was refused because the process had {had}, more than {limit} allows.")
            }
            None => format!("{name} was refused because the process had more VMAs than {limit} allows."),
        },
        call::MADVISE | call::PROCESS_MADVISE | call::PRCTL if facts.question.errno == EAGAIN => format!(
            "{name} on a part of a mapping had to split it, which needs more VMAs than {limit} allows; \
             for that it answers EAGAIN, not ENOMEM.{behind}"
        ),
        _ => format!(
            "{name} on a part of a mapping had to split it, which needs more VMAs than {limit} \
             allows.{behind}"
        ),
    }
}

fn rlimit(facts: &Facts<'_>, which: Rlimit, label: &str, of: &str) -> String {
    let used = facts.section().filter(|_| facts.counters()).map(|section| {
        let pages = if matches!(which, Rlimit::As) { section.total_vm } else { section.data_vm };
        pages.saturating_mul(facts.kernel().page_size)
    });
    let limit = equals(facts.rlimit(which));
    match (facts.asked(), used) {
        (Some(asked), Some(used)) => format!(
            "{} asked for {}, and {} {of} were in use: more than {label}{limit} allows.",
            name(facts),
            bytes(asked),
            bytes(used)
        ),
        (Some(asked), None) => {
            format!("{} asked for {} {of}, more than {label}{limit} allows.", name(facts), bytes(asked))
        }
        _ => format!(
            "{} asked for more {} than {label}{limit} allows.",
            name(facts),
            of.trim_start_matches("of ")
        ),
    }
}

fn memlock(facts: &Facts<'_>) -> String {
    let limit = equals(facts.rlimit(Rlimit::Memlock));
    let page = facts.kernel().page_size;
    let section = facts.section().filter(|_| facts.counters());
    match facts.question.call {
        call::MLOCKALL => format!(
            "mlockall() asked to lock the whole address space{}: more than RLIMIT_MEMLOCK{limit} allows.",
            section.map_or(String::new(), |section| format!(
                ", {}",
                bytes(section.total_vm.saturating_mul(page))
            ))
        ),
        _ => match (facts.asked(), section) {
            (Some(asked), Some(section)) => format!(
                "{} asked to lock {}, and {} were locked: more than RLIMIT_MEMLOCK{limit} allows.",
                name(facts),
                bytes(asked),
                bytes(section.locked_vm.saturating_mul(page))
            ),
            _ => format!("{} asked for more locked memory than RLIMIT_MEMLOCK{limit} allows.", name(facts)),
        },
    }
}

fn overcommit(facts: &Facts<'_>) -> String {
    let mode = facts.question.limits.overcommit_memory;
    let forks = facts.forks();
    let what = match (forks, facts.asked(), facts.copied()) {
        (true, _, Some(copied)) => {
            format!("had to promise the child a copy of all private writable memory, {}", bytes(copied))
        }
        (true, ..) => "had to promise the child a copy of all private writable memory".into(),
        (false, Some(asked), _) => format!("asked for {}", bytes(asked)),
        (false, None, _) => "asked for more memory".into(),
    };
    let memory =
        facts.kernel().ram_and_swap_pages.map(|pages| bytes(pages.saturating_mul(facts.kernel().page_size)));
    match mode {
        Some(2) => {
            let figures = facts.commit().map_or(String::new(), |(commit, asked)| {
                let missing = asked.and_then(|asked| commit.missing(asked));
                let of = format!("{} of {}", bytes(commit.committed_bytes), bytes(commit.limit_bytes));
                let later = commit.after_us.div_ceil(1000);
                match missing {
                    Some(missing) => format!(
                        ": {of} were promised, so {} were missing (read {later} ms later)",
                        bytes(missing)
                    ),
                    // Some of it was given back meanwhile.
                    None => format!("; when that was read, {later} ms later, {of} were promised"),
                }
            });
            format!(
                "{} {what}, which the system's commit limit does not cover{figures}; vm.overcommit_memory = 2.",
                name(facts)
            )
        }
        Some(0) if !forks && facts.asked().is_none() => format!(
            "{} asked at once for more than RAM and swap together{}; vm.overcommit_memory = 0 refuses that.",
            name(facts),
            memory.map_or(String::new(), |memory| format!(" ({memory})"))
        ),
        Some(0) if !forks => format!(
            "{} {what} at once, more than RAM and swap together{}; vm.overcommit_memory = 0 refuses that.",
            name(facts),
            memory.map_or(String::new(), |memory| format!(" ({memory})"))
        ),
        _ => format!("{} {what}, and overcommit accounting (vm.overcommit_memory) refused it.", name(facts)),
    }
}

fn gap(facts: &Facts<'_>) -> String {
    match facts.question.call {
        call::MADVISE | call::PROCESS_MADVISE if advice(facts) != Advice::Memory => {
            format!(
                "{} met a gap in its range; the advice was applied to everything that is mapped: an \
             ordinary answer.",
                name(facts)
            )
        }
        call::MLOCK | call::MLOCK2 if !facts.looked() => format!(
            "The range given to {} has a part that is not mapped, \
         that may not be accessed, or that lies beyond the end of its file.",
            name(facts)
        ),
        _ => format!(
            "The range given to {} has a part that is not mapped{}.",
            name(facts),
            facts.hole().map_or(String::new(), |hole| match facts.kernel().address_end {
                Some(end) if hole >= end => format!(": {hole:#x} lies beyond the addresses of a process"),
                _ => format!(": nothing is at {hole:#x}"),
            })
        ),
    }
}

fn kernel_memory(facts: &Facts<'_>) -> String {
    let mut text = match facts.question.cgroup {
        Some(cgroup) => format!(
            "{}: an allocation inside the kernel failed; the process's memory cgroup has a limit of {} and ran out of \
             memory ({} since it was made)",
            name(facts),
            bytes(cgroup.limit_bytes),
            count(cgroup.out_of_memory, "time", "times")
        ),
        None => format!(
            "{}: an allocation inside the kernel failed (slab, page tables, or the memory cgroup at its limit)",
            name(facts)
        ),
    };
    if let Some(false) = facts.started_at_least(0) {
        text.push_str(&match facts.map_count() {
            Some(had) => {
                format!("; with {} the process was below {}", count(had, "VMA", "VMAs"), limit(facts))
            }
            None => format!("; the process was below {}", limit(facts)),
        });
    }
    text.push_str(&kept(facts));
    text.push('.');
    text
}

fn unknown(facts: &Facts<'_>, others: &[Reason]) -> String {
    let mut text = format!("Why {} said {} cannot be told", name(facts), errno(facts));
    if facts.section_lost() {
        text.push_str(": what was captured of the call was overwritten by another thread's");
    }
    if !others.is_empty() {
        text.push_str(&format!(". It may be {}", list(facts, others)));
    }
    if !others.contains(&Reason::MapCount) && facts.at.is_some() {
        text.push_str(&match facts.map_count() {
            Some(had) => {
                format!("; it is not {} (the process had {})", limit(facts), count(had, "VMA", "VMAs"))
            }
            None => format!("; it is not {}", limit(facts)),
        });
    }
    text.push_str(&kept(facts));
    text.push('.');
    text
}

/// "a, b or c".
fn list(facts: &Facts<'_>, reasons: &[Reason]) -> String {
    let phrases: Vec<String> = reasons.iter().map(|reason| phrase(facts, *reason)).collect();
    match phrases.as_slice() {
        [] => String::new(),
        [only] => only.clone(),
        [first @ .., last] => format!("{} or {last}", first.join(", ")),
    }
}

/// A reason in a list of candidates.
fn phrase(facts: &Facts<'_>, reason: Reason) -> String {
    match reason {
        Reason::MapCount => limit(facts),
        Reason::AddressSpace => format!("RLIMIT_AS{}", equals(facts.rlimit(Rlimit::As))),
        Reason::Data => format!("RLIMIT_DATA{}", equals(facts.rlimit(Rlimit::Data))),
        Reason::Stack => format!("RLIMIT_STACK{}", equals(facts.rlimit(Rlimit::Stack))),
        Reason::Memlock => format!("RLIMIT_MEMLOCK{}", equals(facts.rlimit(Rlimit::Memlock))),
        Reason::Overcommit => match facts.question.limits.overcommit_memory {
            Some(mode) => format!("overcommit accounting (vm.overcommit_memory = {mode})"),
            None => "overcommit accounting".into(),
        },
        Reason::NoHole => "no free address range".into(),
        Reason::InTheWay => "another mapping in the heap's way".into(),
        Reason::NoRoomInPlace => "no room to grow in place".into(),
        Reason::BreakQuery => "a question for the break".into(),
        Reason::Gap => "a gap in the range".into(),
        Reason::Segments => "a limit on shared memory segments".into(),
        Reason::AsynchronousIo => "fs.aio-max-nr".into(),
        Reason::NoAccess => "memory without access".into(),
        Reason::Hugetlb => "too few huge pages".into(),
        Reason::KernelMemory => "a failed allocation in the kernel".into(),
        Reason::Driver => "the driver or file system behind the file".into(),
        _ if reason.limits_tasks() => tasks::phrase(facts, reason),
        Reason::FileEnd => "the end of the file".into(),
        Reason::Wraps => "a length that goes past the last address".into(),
        Reason::DeadNamespace => "a pid namespace whose init has ended".into(),
        Reason::Busy => "busy pages".into(),
        _ => "something else".into(),
    }
}
