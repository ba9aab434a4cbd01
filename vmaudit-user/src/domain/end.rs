//! Why a process ended: from what was seen of its signal, of its memory at that moment, and of its cgroups. Pure.
//!
//! A cause is named only where the evidence shows it; else the sentence says what is known and what is not.

mod out_of_memory;

use std::collections::BTreeMap;

use crate::model::end::{
    EndCause, Ended, Fault, FaultFile, Killer, OomCgroups, OwnState, ProcessEnd, Raised,
};
use crate::text::{bytes, clean, count, signal_name};

/// Signal numbers, the same on x86-64 and arm64.
mod signal {
    pub const HUP: i32 = 1;
    pub const INT: i32 = 2;
    pub const QUIT: i32 = 3;
    pub const TRAP: i32 = 5;
    pub const ILL: i32 = 4;
    pub const ABRT: i32 = 6;
    pub const BUS: i32 = 7;
    pub const KILL: i32 = 9;
    pub const SEGV: i32 = 11;
    pub const PIPE: i32 = 13;
    pub const ALRM: i32 = 14;
    pub const XCPU: i32 = 24;
    pub const XFSZ: i32 = 25;
    pub const SYS: i32 = 31;
}

/// si_code (include/uapi/asm-generic/siginfo.h).
mod code {
    pub const USER: i32 = 0;
    pub const KERNEL: i32 = 0x80;
    pub const QUEUE: i32 = -1;
    pub const TKILL: i32 = -6;
    pub const BUS_ADRALN: i32 = 1;
    pub const BUS_ADRERR: i32 = 2;
    pub const SEGV_ACCERR: i32 = 2;
    pub const SYS_SECCOMP: i32 = 1;
}

const HUGETLBFS_MAGIC: u64 = 0x9584_58f6;
const TMPFS_MAGIC: u64 = 0x0102_1994;
/// include/linux/mm.h, the same in 5.10 to 7.3.
const VM_HUGETLB: u64 = 0x40_0000;
const VM_PROTECTION: u64 = 7;
/// No address below is ever mapped on a machine with usual settings (vm.mmap_min_addr): a null pointer and an offset.
const NULL_POINTERS: u64 = 65536;
/// Below the stack pointer, where functions without calls keep what is theirs, and where a call stores its return
/// address.
const RED_ZONE: u64 = 256;
/// mm/mmap.c:stack_guard_gap, where nobody changed it, pages.
const GUARD_GAP: u64 = 256;
/// arch/x86/mm/mmap.c:SIZE_128M, arch/arm64/mm/mmap.c likewise.
const MMAP_GAP: u64 = 128 << 20;
/// What a process's end and a refused call before it must not be apart, to be told together.
pub const LINKED_NS: u64 = 1_000_000_000;

/// What an end is judged by.
pub struct Facts<'a> {
    /// What the source saw.
    pub ended: &'a Ended,
    /// Counters of its memory cgroups, if the OOM killer chose it.
    pub cgroups: Option<&'a OomCgroups>,
    /// What came just before, as a clause ("0.4 ms before, ..."); `None` where nothing did.
    pub before: Option<String>,
    /// Bytes per page.
    pub page_size: u64,
    /// The session's start, CLOCK_MONOTONIC ns.
    pub start_ns: u64,
    /// Addresses are not the caller's to know.
    pub hidden: bool,
}

/// A verdict under construction.
struct Verdict {
    cause: EndCause,
    certain: bool,
    by: Option<Killer>,
    cgroup: Option<String>,
    evidence: BTreeMap<String, u64>,
    /// Goes on after "died of SIGNAL".
    why: String,
}

impl Verdict {
    fn of(cause: EndCause, why: impl Into<String>) -> Self {
        Self {
            cause,
            certain: cause != EndCause::Unknown,
            by: None,
            cgroup: None,
            evidence: BTreeMap::new(),
            why: why.into(),
        }
    }

    fn unknown(why: impl Into<String>) -> Self {
        Self::of(EndCause::Unknown, why)
    }

    fn with(mut self, name: &str, value: u64) -> Self {
        self.evidence.insert(name.into(), value);
        self
    }

    /// The same where the evidence leaves room for something else.
    fn likely(self, certain: bool) -> Self {
        Self { certain, ..self }
    }
}

/// How the process ended, and why.
pub fn explain(facts: &Facts<'_>) -> ProcessEnd {
    let Facts { ended, .. } = *facts;
    let before = facts.before.as_ref().map(|before| format!("; {before}")).unwrap_or_default();
    let Some(signal) = ended.signal() else {
        let code = ended.code().unwrap_or(0);
        return ProcessEnd {
            code: Some(code),
            signal: None,
            cause: None,
            certain: true,
            at_s: None,
            by: None,
            cgroup: None,
            evidence: BTreeMap::new(),
            sentence: format!("ended with status {code}{before}"),
        };
    };
    let raised = ended.signal.as_deref();
    let verdict = match raised {
        None => Verdict::unknown(match signal {
            signal::KILL => "killed, by whom is unknown: the signal itself was not seen",
            _ => "why is unknown: the signal itself was not seen",
        }),
        Some(raised) => judge(facts, signal, raised),
    };
    let name = signal_name(signal);
    ProcessEnd {
        code: None,
        signal: Some(signal),
        cause: Some(verdict.cause),
        certain: verdict.certain,
        at_s: raised.map(|raised| raised.at_ns.saturating_sub(facts.start_ns) as f64 / 1e9),
        by: verdict.by,
        cgroup: verdict.cgroup,
        evidence: verdict.evidence,
        sentence: format!("died of {name}: {}{before}", verdict.why),
    }
}

/// The same from a wait status alone: whoever looks at /proc sees no signal.
pub fn of_status(code: Option<i32>, signal: Option<i32>) -> ProcessEnd {
    let sentence = match (signal, code) {
        (Some(signal), _) => {
            format!("died of {}: who sent it, or why, cannot be seen in /proc", signal_name(signal))
        }
        (None, code) => format!("ended with status {}", code.unwrap_or(0)),
    };
    ProcessEnd {
        code,
        signal,
        cause: signal.map(|_| EndCause::Unknown),
        certain: signal.is_none(),
        at_s: None,
        by: None,
        cgroup: None,
        evidence: BTreeMap::new(),
        sentence,
    }
}

fn judge(facts: &Facts<'_>, signal: i32, raised: &Raised) -> Verdict {
    if raised.oom {
        return out_of_memory::explain(facts.cgroups);
    }
    if matches!(raised.code, code::USER | code::QUEUE | code::TKILL) {
        return sent(facts.ended, signal, raised);
    }
    if let (Some(fault), Some(own)) = (&raised.fault, &raised.own) {
        return match signal {
            signal::SEGV => segment(facts, raised, fault, own),
            signal::BUS => bus(facts, raised, fault),
            signal::ILL => Verdict::unknown(
                "it executed an instruction that does not exist, as programs do that give up; no memory limit is part of \
                 that",
            ),
            signal::TRAP => gave_up(),
            signal::SYS if raised.code == code::SYS_SECCOMP => {
                Verdict::unknown("a seccomp filter does not allow a system call that it made")
            }
            _ => Verdict::unknown("raised by the processor; no memory limit is part of that"),
        };
    }
    by_kernel(signal, raised)
}

/// A breakpoint.
fn gave_up() -> Verdict {
    Verdict::unknown(
        "it executed a breakpoint, as programs do that give up (V8 when it is out of memory, for one)",
    )
}

/// Sent by a process.
fn sent(ended: &Ended, signal: i32, raised: &Raised) -> Verdict {
    let by = Killer { pid: raised.by.tgid, comm: raised.by.comm.clone() };
    if by.pid == 0 {
        return Verdict::unknown("who sent it is unknown");
    }
    let why = match (by.pid == ended.process.tgid, signal) {
        (true, signal::ABRT) => "it sent that to itself, as abort() does".to_owned(),
        (true, signal::PIPE) => "it wrote to a pipe that nobody reads any more".to_owned(),
        (true, _) => "it sent that to itself".to_owned(),
        (false, _) => format!("sent by {} (pid {})", clean(&by.comm), by.pid),
    };
    Verdict { by: Some(by), ..Verdict::of(EndCause::KilledBy, why) }
}

/// Sent by the kernel, and by no fault.
fn by_kernel(signal: i32, raised: &Raised) -> Verdict {
    let Some(own) = raised.own else {
        return match signal {
            signal::KILL => Verdict::unknown(
                "sent by the kernel and not by the OOM killer (as at the end of a pid namespace, or of a tracer)",
            ),
            _ => by_terminal(signal),
        };
    };
    let [soft, hard] = own.rlimit_cpu;
    let used_s = own.cpu_ns / 1_000_000_000;
    let limit = |name: &str, limit: u64| {
        Verdict::of(
            EndCause::CpuLimit,
            format!(
                "it used the CPU time that RLIMIT_CPU allows ({}, {name})",
                count(limit, "second", "seconds")
            ),
        )
        .with("rlimit_cpu_s", limit)
        .with("cpu_s", used_s)
    };
    match signal {
        signal::XCPU if soft != u64::MAX => limit("soft", soft),
        signal::KILL if hard != u64::MAX && own.cpu_ns > 0 && used_s >= hard => limit("hard", hard),
        signal::SEGV if raised.in_exec => Verdict::unknown(
            "the new program of an exec could not be set up, as when RLIMIT_AS, RLIMIT_DATA or RLIMIT_STACK is too small \
             for it",
        ),
        signal::XFSZ => Verdict::unknown("a file reached RLIMIT_FSIZE"),
        signal::ALRM => Verdict::unknown("its own timer ran out (alarm, setitimer)"),
        signal::TRAP => gave_up(),
        signal::SEGV => Verdict::unknown(
            "an access that the processor does not allow (as to an address that is none); no memory limit is part of that",
        ),
        signal::KILL => {
            Verdict::unknown("sent by the kernel, for a reason that was not seen; not by the OOM killer")
        }
        _ => by_terminal(signal),
    }
}

/// Sent by the kernel on its own account. SIGINT and SIGQUIT come so from terminals alone (drivers/tty/n_tty.c:isig,
/// drivers/tty/pty.c:pty_signal), but for the machine's first process; SIGHUP when one is gone (drivers/tty/tty_io.c,
/// tty_jobctrl.c), and rarely else (kernel/exit.c:kill_orphaned_pgrp).
fn by_terminal(signal: i32) -> Verdict {
    Verdict::unknown(match signal {
        signal::INT => "sent by its terminal, as at Ctrl-C",
        signal::QUIT => "sent by its terminal, as at Ctrl-\\",
        signal::HUP => "sent by the kernel, as when a terminal is closed or the leader of a session ends",
        _ => "sent by the kernel",
    })
}

/// An address as people know it.
fn address(facts: &Facts<'_>, fault: &Fault) -> String {
    match fault.address {
        _ if facts.hidden => "an address".into(),
        low if low < NULL_POINTERS => format!("address {low:#x}, as a null pointer does"),
        at => format!("address {at:#x}"),
    }
}

fn segment(facts: &Facts<'_>, raised: &Raised, fault: &Fault, own: &OwnState) -> Verdict {
    if let Some(verdict) = stack(facts, fault, own) {
        return verdict;
    }
    let at = address(facts, fault);
    let none = "no memory limit is part of that";
    let in_stack = own.stack.is_some_and(|[start, end]| (start..end).contains(&fault.address));
    match (fault.mapping, fault.looked) {
        (None, _) if in_stack => Verdict::unknown(format!(
            "it touched {at}, in its stack, in a way that this does not allow; {none}"
        )),
        (Some(mapping), _) if mapping.flags & VM_PROTECTION == 0 => Verdict::unknown(format!(
            "it touched {at}, in a mapping that allows no access, as the guard pages below a thread's stack do; {none}"
        )),
        (Some(_), _) if raised.code == code::SEGV_ACCERR => {
            Verdict::unknown(format!("it touched {at} in a way that its mapping does not allow; {none}"))
        }
        (Some(_), _) => Verdict::unknown(format!(
            "it touched {at}, in a mapping, at a page that is kept from use, as the guard pages below a thread's stack are"
        )),
        (None, true) => Verdict::unknown(format!("it touched {at}, where nothing is mapped; {none}")),
        (None, false) => {
            Verdict::unknown(format!("it touched {at}, and what is mapped there could not be looked at"))
        }
    }
}

/// The main stack, if it was to grow and could not.
///
/// The kernel grows it when an address below it is touched (mm/mmap.c:expand_stack, acct_stack_growth): by as much as it
/// takes, unless that comes too near to the mapping below, or exceeds RLIMIT_AS, RLIMIT_STACK or another limit. It does
/// not look at the stack pointer; we do, to tell growth from a wild pointer.
fn stack(facts: &Facts<'_>, fault: &Fault, own: &OwnState) -> Option<Verdict> {
    if fault.mapping.is_some() || own.sp == 0 {
        return None;
    }
    let page = facts.page_size.max(1);
    let (start, end, exact) = match own.stack {
        Some([start, end]) => (start, end, true),
        // Above env_end lie the name of the program and 8 bytes (fs/exec.c:bprm_mm_init, begin_new_exec): one page, or
        // two.
        None => {
            let end = own.env_end.checked_next_multiple_of(page)?;
            (end.checked_sub(own.stack_vm.checked_mul(page)?)?, end, false)
        }
    };
    let slack = if exact { 0 } else { 2 * page };
    // Its stack pointer has left the stack's mapping, or stands at its very edge.
    let at = fault.address;
    let beyond = own.sp <= start.saturating_add(slack).saturating_add(RED_ZONE);
    let by_stack = at < start.saturating_add(slack) && at.saturating_add(RED_ZONE) >= own.sp;
    // No other stack lies so near: the kernel keeps a gap below this one (mm/mmap.c:stack_guard_gap), and puts what has no
    // address of its own further down (arch/x86/mm/mmap.c:mmap_base, MIN_GAP).
    let near = start.saturating_sub(at) / page <= GUARD_GAP || end.saturating_sub(at) <= MMAP_GAP;
    if !beyond || !by_stack || !near {
        return None;
    }
    let size = end.checked_sub(at - at % page)?;
    let limit = own.rlimit_stack;
    let has = end.saturating_sub(start);
    let verdict =
        |cause, why| Verdict::of(cause, why).with("stack_bytes", has).with("rlimit_stack_bytes", limit);
    let needs = size.saturating_sub(has) / page;
    let total = own.total_vm.saturating_add(needs).saturating_mul(page);
    if size > limit {
        return Some(
            verdict(
                EndCause::StackLimit,
                format!("its stack reached RLIMIT_STACK = {} ({} in use)", bytes(limit), bytes(has)),
            )
            .likely(exact || size > limit.saturating_add(slack)),
        );
    }
    let limit_text = if limit == u64::MAX {
        "RLIMIT_STACK is unlimited".to_owned()
    } else {
        format!("RLIMIT_STACK = {} was not reached", bytes(limit))
    };
    Some(if total > own.rlimit_as {
        verdict(
            EndCause::StackNoRoom,
            format!(
                "its stack of {} could not grow: RLIMIT_AS = {} leaves no room; {limit_text}",
                bytes(has),
                bytes(own.rlimit_as)
            ),
        )
        .with("rlimit_as_bytes", own.rlimit_as)
        .with("address_space_bytes", own.total_vm.saturating_mul(page))
        .likely(exact)
    } else {
        verdict(
            EndCause::StackNoRoom,
            format!(
                "its stack of {} found no room to grow (a mapping too near below it, locked memory, or overcommit \
                 accounting); {limit_text}",
                bytes(has)
            ),
        )
        .likely(exact)
    })
}

fn bus(facts: &Facts<'_>, raised: &Raised, fault: &Fault) -> Verdict {
    match raised.code {
        code::BUS_ADRERR => {}
        code::BUS_ADRALN => return Verdict::unknown("it touched memory at an address of odd alignment"),
        code::KERNEL => return Verdict::unknown("sent by the kernel"),
        _ => return Verdict::unknown("the memory of a page is broken (a hardware error)"),
    }
    let Some(mapping) = fault.mapping else {
        return Verdict::unknown(format!(
            "no page was to be had at {}; which mapping that is in could not be looked at",
            address(facts, fault)
        ));
    };
    let huge = mapping.flags & VM_HUGETLB != 0;
    let Some(FaultFile { offset, size, magic, blocks }) = mapping.file else {
        return Verdict::unknown(format!("no page was to be had at {}", address(facts, fault)));
    };
    let page = facts.page_size.max(1);
    let end = size.checked_next_multiple_of(page).unwrap_or(u64::MAX);
    let file = |verdict: Verdict| verdict.with("file_bytes", size).with("offset_bytes", offset);
    match magic {
        _ if offset >= end => file(Verdict::of(
            EndCause::BusFileShort,
            format!(
                "it touched a mapped file beyond its end: byte {offset} of a file of {size} bytes, which was cut after it \
                 was mapped or was never so long"
            ),
        )),
        _ if huge || magic == HUGETLBFS_MAGIC => Verdict::of(
            EndCause::BusHugetlb,
            "it touched a mapping of huge pages and no huge page was free (vm.nr_hugepages, or the limit of a hugetlb \
             cgroup or mount); mapped with MAP_NORESERVE, or after a fork, nothing is reserved",
        ),
        TMPFS_MAGIC => match blocks {
            Some(blocks) if blocks > 0 => file(Verdict::of(
                EndCause::BusTmpfsFull,
                format!(
                    "the tmpfs of a file that it has mapped is full (size {}): a hole of the file found no page",
                    bytes(blocks.saturating_mul(page))
                ),
            ))
            .with("tmpfs_bytes", blocks.saturating_mul(page)),
            Some(_) => file(Verdict::unknown(
                "no page was to be had for a mapped file in a tmpfs, which itself has no limit",
            )),
            None => file(Verdict::of(EndCause::BusTmpfsFull, "the tmpfs of a file that it has mapped is full"))
                .likely(false),
        },
        _ => file(Verdict::unknown(
            "the file system gave no page for a mapped file (an I/O error, or a full disk); the file is long enough",
        )),
    }
}

#[cfg(test)]
mod tests;
