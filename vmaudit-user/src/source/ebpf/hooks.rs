//! THE table of hooks: it drives loading, `doctor`, the report's coverage and the README's table.
//!
//! Raw and classic tracepoints lose events under opposite conditions (measured in shared work on eleven kernels):
//! from 7.0 on tracing programs run preemptible, and while a task is preempted inside a raw tracepoint program the
//! kernel skips it for everybody else on that CPU; classic ones run with preemption off, but are skipped while any
//! task is preempted inside a bpf() map call. So raw before 7.0; from 7.0 on classic for the exits of calls where they are
//! always watched, and both for all else.
//!
//! A program at the exits of calls costs every call of the machine. From 6.18 on the programs at the releases of the lock can
//! do without it ([`can_ask`], vmaudit-ebpf/src/answer.rs), for the calls that take the lock; `--calls all`, budgets on
//! failures and `trace` take the exits all the same.

use vmaudit_common::{ABSENT, LIMIT_ON_TASKS_MET, LIMIT_ON_VMAS_MET};

use crate::model::hook::{
    ADDRESS_SEARCH, CALL_EXIT, EXEC, EXIT, EXIT_MMAP, FORK, HEAP_GROWTH, LOCK_RELEASED, OVERCOMMIT, SIGNAL,
    SNAPSHOT, VICTIM,
};
use crate::model::report::{Hook, HookState};
use crate::os::kernel::Facts;

/// One thing vmaudit listens to.
pub struct Row {
    /// Name in reports and in `doctor`.
    pub name: &'static str,
    /// What it is for.
    pub gives: &'static str,
    /// What is lost without it, as a sentence.
    pub loses: &'static str,
    /// How badly it is needed.
    pub need: Need,
    /// Ways to attach, for kernels before 7.0 in order of preference.
    pub forms: &'static [Form],
}

/// How badly a hook is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Without it the eBPF source is no better than /proc.
    Required,
    /// Something is lost, the rest stays exact.
    Optional,
    /// Only when processes are followed that already run.
    Attach,
    /// As [`Need::Optional`], also when calls are not watched: the events are rare.
    Rare,
    /// As [`Need::Optional`], and only with vm.overcommit_memory = 2: in the other modes the figures decide.
    StrictOvercommit,
}

/// One way to attach.
pub struct Form {
    /// Program in the object.
    pub program: &'static str,
    /// Kind and place.
    pub via: Via,
    /// Arguments of mmap_lock_released that this program is written for; `None` = any.
    pub released_arguments: Option<u32>,
    /// The program that asks for the answers of calls, in place of the one that does not.
    pub asks: bool,
    /// For kernels where programs can look for mappings, or for those where they cannot; `None` = any.
    pub finds_mappings: Option<bool>,
    /// What it gives over to.
    pub next: Option<Next>,
}

/// The program that another gives over to (bpf_tail_call).
#[derive(Clone, Copy)]
pub struct Next {
    /// In the object.
    pub program: &'static str,
    /// The array through which it does.
    pub array: &'static str,
}

impl Form {
    /// All programs that it takes, what takes longest to load first.
    pub fn programs(&self) -> impl Iterator<Item = &'static str> + use<> {
        self.next.map(|next| next.program).into_iter().chain([self.program])
    }
}

/// Kind of attachment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Via {
    /// Raw tracepoint.
    Raw(&'static str),
    /// Classic tracepoint: category, name.
    Classic(&'static str, &'static str),
    /// BPF iterator.
    Iter(&'static str),
    /// Return of a kernel function, by trampoline.
    FExit(&'static str),
    /// Entry of a kernel function, by breakpoint.
    KProbe(&'static str),
    /// Its return.
    KRetProbe(&'static str),
}

impl Via {
    /// Short name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Raw(_) => "raw_tp",
            Self::Classic(..) => "tracepoint",
            Self::Iter(_) => "iter",
            Self::FExit(_) => "fexit",
            Self::KProbe(_) => "kprobe",
            Self::KRetProbe(_) => "kretprobe",
        }
    }
}

pub const fn raw(program: &'static str, event: &'static str) -> Form {
    of(program, Via::Raw(event))
}

const fn classic(program: &'static str, category: &'static str, name: &'static str) -> Form {
    of(program, Via::Classic(category, name))
}

/// A program at this place, wherever it is to be had.
pub const fn of(program: &'static str, via: Via) -> Form {
    Form { program, via, released_arguments: None, asks: false, finds_mappings: None, next: None }
}

const fn for_arguments(form: Form, arguments: u32) -> Form {
    Form { released_arguments: Some(arguments), ..form }
}

const fn asking(form: Form) -> Form {
    Form { asks: true, ..form }
}

const fn giving_over(form: Form, program: &'static str, array: &'static str) -> Form {
    Form { next: Some(Next { program, array }), ..asking(form) }
}

const fn finding_mappings(form: Form, finds: bool) -> Form {
    Form { finds_mappings: Some(finds), ..form }
}

/// The table.
pub const HOOKS: &[Row] = &[
    Row {
        name: LOCK_RELEASED,
        gives: "the VMA count after every change, and so the true peak",
        loses: "peaks are samples: a burst between two looks at /proc is missed",
        need: Need::Required,
        forms: &[
            giving_over(for_arguments(raw("asking_raw2", "mmap_lock_released"), 2), "ask_raw", "ASK_RAW"),
            giving_over(
                for_arguments(classic("asking_classic24", "mmap_lock", "mmap_lock_released"), 2),
                "ask_classic",
                "ASK_CLASSIC",
            ),
            for_arguments(raw("released_raw2", "mmap_lock_released"), 2),
            for_arguments(raw("released_raw3", "mmap_lock_released"), 3),
            for_arguments(classic("released_classic24", "mmap_lock", "mmap_lock_released"), 2),
            for_arguments(classic("released_classic20", "mmap_lock", "mmap_lock_released"), 3),
        ],
    },
    Row {
        name: EXIT_MMAP,
        gives: "the end of an address space, so that a reused one starts anew",
        loses: "figures of a process can run into those of a later one",
        need: Need::Required,
        forms: &[raw("exit_mmap_raw", "exit_mmap"), classic("exit_mmap_classic", "mmap", "exit_mmap")],
    },
    Row {
        name: FORK,
        gives: "children, followed from their first instruction",
        loses: "children are not followed",
        need: Need::Required,
        forms: &[
            raw("fork_raw", "sched_process_fork"),
            classic("fork_classic", "sched", "sched_process_fork"),
        ],
    },
    Row {
        name: EXEC,
        gives: "the name and path of each new image",
        loses: "images are not told apart and keep their parent's name",
        need: Need::Required,
        forms: &[
            raw("exec_raw", "sched_process_exec"),
            classic("exec_classic", "sched", "sched_process_exec"),
        ],
    },
    Row {
        name: EXIT,
        gives: "the end of a process, so that a reused pid is another process",
        loses: "a process that reuses a pid can be followed by mistake",
        need: Need::Required,
        forms: &[
            raw("exit_raw", "sched_process_exit"),
            classic("exit_classic", "sched", "sched_process_exit"),
        ],
    },
    Row {
        name: CALL_EXIT,
        gives: "how many calls were made, which were refused, and why",
        loses: "refused calls are not seen and calls are not counted; peaks stay exact",
        need: Need::Optional,
        forms: &[
            // Attached when a limit is near: the right to open a tracepoint's event (kernel/events/core.c:perf_event_open,
            // CAP_PERFMON) is gone by then, and a raw one takes none (kernel/bpf/syscall.c:bpf_raw_tracepoint_open).
            asking(raw("unasked_raw", "sys_exit")),
            raw("sys_exit_raw", "sys_exit"),
            classic("sys_exit_classic", "raw_syscalls", "sys_exit"),
        ],
    },
    Row {
        name: ADDRESS_SEARCH,
        gives: "whether a refused call found a free range of addresses",
        loses: "no free range and other reasons for a refused mmap or mremap cannot always be told apart",
        need: Need::Optional,
        forms: &[
            raw("searched_raw", "vm_unmapped_area"),
            classic("searched_classic", "mmap", "vm_unmapped_area"),
        ],
    },
    Row {
        name: HEAP_GROWTH,
        gives: "whether a refused brk got past the mappings above the heap",
        loses: "a refused brk has a certain cause only where nothing above the heap can be in its way",
        need: Need::Optional,
        forms: &[of("heap_kprobe", Via::KProbe("do_brk_flags"))],
    },
    Row {
        name: OVERCOMMIT,
        gives: "whether overcommit accounting refused, with vm.overcommit_memory = 2",
        loses: "with vm.overcommit_memory = 2 a refusal by overcommit accounting is never certain",
        need: Need::StrictOvercommit,
        forms: &[
            of("overcommit_fexit", Via::FExit("__vm_enough_memory")),
            of("overcommit_kretprobe", Via::KRetProbe("__vm_enough_memory")),
        ],
    },
    Row {
        name: SIGNAL,
        gives: "who sent the signal that a process died of, and what was at the address of a fault",
        loses: "of a process that died of a signal, who sent it, or what its fault was, is not known",
        need: Need::Rare,
        forms: &[
            finding_mappings(raw("signal_raw", "signal_generate"), true),
            finding_mappings(raw("signal_plain_raw", "signal_generate"), false),
            classic("signal_classic", "signal", "signal_generate"),
        ],
    },
    Row {
        name: VICTIM,
        gives: "which processes the OOM killer chose",
        loses: "a process that the OOM killer ended cannot be told from others that the kernel killed",
        need: Need::Rare,
        forms: &[raw("victim_raw", "mark_victim"), classic("victim_classic", "oom", "mark_victim")],
    },
    Row {
        name: SNAPSHOT,
        gives: "the counts of processes that already run, without reading /proc",
        loses: "a process that already runs is known only from its next change on",
        need: Need::Attach,
        forms: &[of("snapshot", Via::Iter("task"))],
    },
];

/// Every row as missing for the same reason: eBPF as a whole is not to be had.
pub fn all_missing(why: &str) -> Vec<Hook> {
    HOOKS
        .iter()
        .map(|row| Hook {
            name: row.name.into(),
            state: HookState::Missing,
            via: None,
            loses: Some(row.loses.into()),
            reason: Some(why.into()),
            skipped: None,
        })
        .collect()
}

/// From this version on tracing programs can be preempted and then skipped (measured on 7.0 to 7.3; neither BTF nor
/// attach results tell).
const PREEMPTIBLE_PROGRAMS: (u32, u32) = (7, 0);

/// The kernel skips tracing programs at all, and then counts it per program (kernel/bpf/syscall.c:
/// bpf_prog_show_fdinfo, 5.12). Classic tracepoints' it always did, see [`counts_classic_skips`].
pub fn skips_programs(facts: &Facts) -> bool {
    facts.version >= (5, 12)
}

/// The kernel counts how often it skips a classic tracepoint's program (kernel/trace/bpf_trace.c:trace_call_bpf, 6.12).
pub fn counts_classic_skips(facts: &Facts) -> bool {
    facts.version >= (6, 12)
}

/// The variable that leaves out programs by name, separated by commas, as if the kernel had refused them. For tests: a
/// machine seldom lacks what one wants to see missing. The only such switch; it is nothing to a process that was given
/// rights its caller lacks.
const LEFT_OUT: &str = "VMAUDIT_WITHOUT";

/// The program is left out on request.
pub fn left_out(program: &str) -> bool {
    !crate::os::rights::lent()
        && std::env::var(LEFT_OUT).is_ok_and(|list| list.split(',').any(|name| name == program))
}

/// Write sections are numbered, so that the programs notice which address space missed a change (mm_struct.mm_lock_seq,
/// 6.4 and later with CONFIG_PER_VMA_LOCK).
pub fn numbers_sections(facts: &Facts) -> bool {
    facts.layout.as_ref().is_ok_and(|layout| layout.mm_lock_seq != ABSENT)
}

/// What an attached row may still miss on this kernel, given the ways in which it is attached; `None`: nothing.
pub fn blind_spot(row: &Row, facts: &Facts, vias: &[Via]) -> Option<String> {
    let preemptible = facts.version >= PREEMPTIBLE_PROGRAMS;
    let classic = vias.iter().any(|via| matches!(via, Via::Classic(..)));
    let raw = vias.iter().any(|via| matches!(via, Via::Raw(_)));
    let (skipped, counted) = match (raw, classic) {
        (true, false) if preemptible => {
            ("the kernel skips it on a CPU while another task is preempted inside this program", true)
        }
        (false, true) => (
            "the kernel skips it on a CPU while a bpf() map call of anybody's is preempted",
            counts_classic_skips(facts),
        ),
        (true, true) if preemptible => {
            ("beside many bpf() map calls the kernel can skip both of its programs at once", true)
        }
        _ => return None,
    };
    let cost = cost_of_a_skip(row.name, numbers_sections(facts), counted)?;
    let more = match row.name {
        FORK if !raw => "; a child that changes the count that it is born with is not called exact at all",
        EXEC if !raw => "; the paths of new images are not known at all",
        _ => "",
    };
    Some(format!("{skipped}: {cost}{more}"))
}

/// What a report says where the kernel skipped the programs of a row (source/live/skips.rs). `numbered`: see
/// [`numbers_sections`]. `counted`: the kernel counts how often.
pub fn cost_of_a_skip(row: &str, numbered: bool, counted: bool) -> Option<&'static str> {
    Some(match (row, numbered, counted) {
        (LOCK_RELEASED | EXIT_MMAP | SNAPSHOT, true, _) => {
            "a process that misses a change by that is not called exact"
        }
        (LOCK_RELEASED | EXIT_MMAP | SNAPSHOT, false, true) => {
            "that is counted as program_skipped, and then no peak is called exact"
        }
        (LOCK_RELEASED | EXIT_MMAP | SNAPSHOT, false, false) => {
            "this kernel does not count that, so no peak is called exact"
        }
        (FORK | EXEC | EXIT, _, true) => {
            "that is counted as program_skipped, and then the list of processes is not called complete"
        }
        (FORK | EXEC | EXIT, _, false) => {
            "this kernel does not count that, so the list of processes is not called complete"
        }
        (CALL_EXIT, _, true) => {
            "that is counted as program_skipped, and then counts of calls are not called complete and no cause certain"
        }
        (CALL_EXIT, _, false) => {
            "this kernel does not count that, so counts of calls are not called complete and no cause certain"
        }
        (ADDRESS_SEARCH, _, true) => "then no cause is called certain",
        (SIGNAL | VICTIM, _, true) => "then who killed a process may not be known",
        (SIGNAL | VICTIM, _, false) => {
            "this kernel does not count that, so who killed a process may not be known"
        }
        (ADDRESS_SEARCH, _, false) => "this kernel does not count that, so no cause is called certain",
        _ => return None,
    })
}

/// Which forms of a row to attach on this kernel, best first; with `all`, every one of them, else the first that works.
pub struct Choice {
    /// Forms to try.
    pub forms: Vec<&'static Form>,
    /// Attach all of them: each covers the other's blind spot.
    pub all: bool,
    /// Why some forms cannot be tried.
    pub reasons: Vec<String>,
}

/// How many ways of attaching are made ready.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    /// What is tried first: each program that is not read makes the start shorter.
    First,
    /// Also what comes in its place.
    All,
}

impl Choice {
    /// The forms to make ready.
    pub fn to_try(&self, extent: Extent) -> Vec<&'static Form> {
        let most = if self.all || extent == Extent::All { self.forms.len() } else { 1 };
        self.forms.iter().copied().take(most).collect()
    }
}

/// Answers of calls can be asked for at the releases of the lock, in place of a program at the exit of every call: the
/// kernel can put off a work to a task's way back, and numbers the sections in the way that the programs rely on.
pub fn can_ask(facts: &Facts) -> bool {
    let layout = facts.layout.as_ref();
    facts.task_work.is_some()
        && layout.is_ok_and(|layout| {
            layout.mm_lock_seq_begins == 1 && ![layout.mm_exec_vm, layout.mm_brk].contains(&ABSENT)
        })
}

/// What is not watched where answers are asked for.
pub const UNWATCHED: &str = "shmget, io_setup and a few other calls (vmaudit doctor lists them) are not watched without `--calls all`";

/// What a limit that was reached before its refusals were watched ([`vmaudit_common::LIMIT_NEAR`]) may have cost.
pub fn met_unwatched(limits_met: u32) -> Option<&'static str> {
    if limits_met & LIMIT_ON_TASKS_MET != 0 {
        Some("a limit on tasks was reached before its refusals were watched, so some may be missing")
    } else if limits_met & LIMIT_ON_VMAS_MET != 0 {
        Some(
            "vm.max_map_count was reached before refused calls of mremap were watched, so some may be missing",
        )
    } else {
        None
    }
}

/// The same call by call: refusals that come without a section of writing in the caller's own address space, or before it
/// (ipc/shm.c, mm/msync.c, mm/mincore.c, kernel/fork.c:copy_process, fs/aio.c:ioctx_alloc, mm/mlock.c:can_do_mlock,
/// mm/mprotect.c:do_mprotect_pkey, mm/mremap.c:check_mremap_params; 6.18 to 7.3).
pub const UNWATCHED_CALLS: [&str; 6] = [
    "clone, clone3, fork and vfork for want of the kernel's own memory, and at a limit on tasks that was not near before",
    "shmget, shmctl, msync, mincore, bpf, userfaultfd, io_uring_setup, io_uring_register",
    "io_setup at fs.aio-max-nr",
    "mlock, mlock2 and mlockall where nothing may be locked",
    "a range that goes past the last address (mprotect and others)",
    "mremap to an address of one's own, at the limit of VMAs",
];

/// The decision for one row. `asks`: answers are asked for.
pub fn choose(row: &'static Row, facts: &Facts, asks: bool) -> Choice {
    let mut reasons = Vec::new();
    if row.name == LOCK_RELEASED && facts.released_arguments.is_none() && facts.layout.is_ok() {
        reasons.push(
            "this kernel has no mmap_lock_released event (it came with 5.11 and needs CONFIG_TRACING)".into(),
        );
    }
    let mut forms: Vec<&'static Form> = row
        .forms
        .iter()
        .filter(|form| ![LOCK_RELEASED, CALL_EXIT].contains(&row.name) || form.asks == asks)
        .filter(|form| {
            form.released_arguments.is_none() || form.released_arguments == facts.released_arguments
        })
        .filter(|form| form.finds_mappings.is_none_or(|finds| finds == facts.finds_mappings))
        .filter(|form| {
            let usable = !matches!(form.via, Via::Classic(..)) || facts.tracefs.is_ok();
            if !usable && let Err(reason) = &facts.tracefs {
                reasons.push(reason.clone());
            }
            usable
        })
        .collect();
    let preemptible = facts.version >= PREEMPTIBLE_PROGRAMS;
    if preemptible {
        forms.sort_by_key(|form| !matches!(form.via, Via::Classic(..)));
    }
    // The rare events are cheap to listen to twice. Of the frequent ones only the releases are: where write sections are
    // numbered, the second program sees at once that it has nothing to do. An exit of a call has no number.
    let twice = match row.name {
        LOCK_RELEASED => numbers_sections(facts),
        CALL_EXIT | ADDRESS_SEARCH => false,
        _ => true,
    };
    Choice { forms, all: preemptible && twice, reasons }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vmaudit_common::Layout;

    fn facts(version: (u32, u32), released_arguments: Option<u32>, tracefs: bool) -> Facts {
        Facts {
            release: format!("{}.{}", version.0, version.1),
            version,
            arch: "x86_64".into(),
            layout: Ok(bytemuck::Zeroable::zeroed()),
            released_arguments,
            task_work: None,
            finds_mappings: version >= (5, 17),
            tracefs: if tracefs {
                Ok(crate::os::kernel::Tracefs::Mounted("/nowhere".into()))
            } else {
                Err("tracefs is not readable".into())
            },
        }
    }

    fn programs(row: &str, facts: &Facts) -> (Vec<&'static str>, bool) {
        let row = HOOKS.iter().find(|r| r.name == row).unwrap();
        let choice = choose(row, facts, false);
        (choice.forms.iter().map(|f| f.program).collect(), choice.all)
    }

    #[test]
    fn the_prototype_decides_which_program_reads_the_release() {
        let _: Layout = bytemuck::Zeroable::zeroed();
        assert_eq!(
            programs(LOCK_RELEASED, &facts((6, 18), Some(2), true)).0,
            ["released_raw2", "released_classic24"]
        );
        assert_eq!(
            programs(LOCK_RELEASED, &facts((6, 1), Some(3), true)).0,
            ["released_raw3", "released_classic20"]
        );
        assert!(programs(LOCK_RELEASED, &facts((5, 10), None, true)).0.is_empty());
    }

    #[test]
    fn preemptible_kernels_get_classic_programs_first_and_both_for_rare_events() {
        let seven = facts((7, 2), Some(2), true);
        assert_eq!(programs(LOCK_RELEASED, &seven), (vec!["released_classic24", "released_raw2"], true));
        assert_eq!(programs(CALL_EXIT, &seven), (vec!["sys_exit_classic", "sys_exit_raw"], false));
        let exits = HOOKS.iter().find(|row| row.name == CALL_EXIT).unwrap();
        let later = choose(exits, &seven, true).forms;
        let (later, vias): (Vec<_>, Vec<_>) = later.iter().map(|form| (form.program, form.via)).unzip();
        assert_eq!(later, ["unasked_raw"]);
        assert!(matches!(vias[..], [Via::Raw(_)]), "it needs no right");
        let mut unnumbered = facts((7, 2), Some(2), true);
        unnumbered.layout.as_mut().unwrap().mm_lock_seq = ABSENT;
        assert!(
            !programs(LOCK_RELEASED, &unnumbered).1,
            "the second program would overwrite what the first kept"
        );
        assert_eq!(programs("sched_process_fork", &seven), (vec!["fork_classic", "fork_raw"], true));
        assert_eq!(
            programs("sched_process_fork", &facts((6, 19), Some(2), true)),
            (vec!["fork_raw", "fork_classic"], false)
        );
    }

    #[test]
    fn an_attachment_with_a_blind_spot_says_so() {
        let [one, eleven, nineteen, seven] =
            [(6, 1), (6, 11), (6, 19), (7, 0)].map(|version| facts(version, Some(2), true));
        let mut unnumbered = facts((6, 1), Some(2), true);
        unnumbered.layout.as_mut().unwrap().mm_lock_seq = ABSENT;
        let (raw, classic) = (Via::Raw("x"), Via::Classic("x", "x"));
        let said = |row: &Row, facts: &Facts, vias: &[Via]| blind_spot(row, facts, vias).unwrap_or_default();
        for row in HOOKS.iter().filter(|row| row.forms.iter().any(|form| matches!(form.via, Via::Raw(_)))) {
            assert_eq!(blind_spot(row, &nineteen, &[raw]), None, "{}", row.name);
            assert!(said(row, &seven, &[raw]).contains("preempted inside this program"), "{}", row.name);
            assert!(said(row, &seven, &[classic, raw]).contains("both of its programs"), "{}", row.name);
            assert!(said(row, &nineteen, &[classic]).contains("map call"), "{}", row.name);
            let counted = !said(row, &unnumbered, &[classic]).contains("does not count");
            assert!(!counted, "{}: before 6.12 nobody counts", row.name);
        }
        let row = |name| HOOKS.iter().find(|row| row.name == name).unwrap();
        assert!(said(row(LOCK_RELEASED), &eleven, &[classic]).contains("misses a change"), "sections tell");
        assert!(said(row(LOCK_RELEASED), &unnumbered, &[classic]).ends_with("no peak is called exact"));
        assert!(said(row(FORK), &one, &[classic]).contains("born"));
        assert!(said(row(EXEC), &one, &[classic]).contains("paths"));
    }

    #[test]
    fn without_tracefs_only_raw_programs_are_tried_and_the_reason_is_kept() {
        let seven = facts((7, 2), Some(2), false);
        assert_eq!(programs(LOCK_RELEASED, &seven).0, ["released_raw2"]);
        let row = HOOKS.iter().find(|r| r.name == LOCK_RELEASED).unwrap();
        assert!(choose(row, &seven, false).reasons.iter().any(|r| r.contains("tracefs")));
    }
}
