//! What takes the place of the hooks that need the lock events, on kernels without them.

use crate::model::hook::{
    ADDRESS_SEARCH, CALL_EXIT, EXEC, EXIT, EXIT_MMAP, FORK, LOCK_RELEASED, SIGNAL, SNAPSHOT, VICTIM,
};
use crate::source::ebpf::hooks::{Form, Via, of, raw};

/// The programs for kernels without the lock events (vmaudit-ebpf/src/hooks/sampled.rs), and what takes the place of what.
/// In the order of [`super::hooks::HOOKS`]; a row that is not here has no substitute and is not needed.
pub const SUBSTITUTES: &[Substitute] = &[
    Substitute {
        row: LOCK_RELEASED,
        form: Some(raw("sampled_exit", "sys_exit")),
        via: "sys_exit",
        loses: Some(
            "counts are read when a call returns; peaks stay exact as long as one task alone can change an address \
             space, and are samples (not called exact) once it has several threads",
        ),
    },
    Substitute {
        row: EXIT_MMAP,
        form: None,
        via: "sched_process_exit",
        loses: Some("an address space counts as ended when its process does, or calls exec"),
    },
    Substitute { row: FORK, form: Some(raw("sampled_newtask", "task_newtask")), via: "raw_tp", loses: None },
    Substitute {
        row: EXEC,
        form: Some(raw("sampled_exec", "sched_process_exec")),
        via: "raw_tp",
        loses: None,
    },
    Substitute {
        row: EXIT,
        form: Some(raw("sampled_end", "sched_process_exit")),
        via: "raw_tp",
        loses: None,
    },
    // The program of the first row counts the calls too.
    Substitute { row: CALL_EXIT, form: None, via: "raw_tp", loses: None },
    Substitute {
        row: ADDRESS_SEARCH,
        form: Some(raw("sampled_search", "vm_unmapped_area")),
        via: "raw_tp",
        loses: None,
    },
    Substitute {
        row: SIGNAL,
        form: Some(raw("signal_plain_raw", "signal_generate")),
        via: "raw_tp",
        loses: None,
    },
    Substitute { row: VICTIM, form: Some(raw("victim_raw", "mark_victim")), via: "raw_tp", loses: None },
    Substitute {
        row: SNAPSHOT,
        form: Some(of("sampled_snapshot", Via::Iter("task"))),
        via: "iter",
        loses: None,
    },
];

/// What does a row's work where the lock events are missing.
pub struct Substitute {
    /// Name of the row.
    pub row: &'static str,
    /// What to attach; `None` when another row's program does the work.
    pub form: Option<Form>,
    /// Name of the way in reports.
    pub via: &'static str,
    /// What is lost against the row itself; `None`: nothing.
    pub loses: Option<&'static str>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::hook::{HEAP_GROWTH, OVERCOMMIT};
    use crate::source::ebpf::hooks::HOOKS;

    #[test]
    fn each_row_that_a_figure_rests_on_has_one_substitute() {
        let rows: Vec<&str> = HOOKS
            .iter()
            .map(|row| row.name)
            .filter(|name| ![HEAP_GROWTH, OVERCOMMIT].contains(name))
            .collect();
        let substitutes: Vec<&str> = SUBSTITUTES.iter().map(|substitute| substitute.row).collect();
        assert_eq!(rows, substitutes);
    }
}
