//! What a command asks the source to load.

use vmaudit_user::session::opening::Whom;
use vmaudit_user::source::ebpf;

use crate::cli::values::Common;

/// For what already runs: counts, peaks and refused calls, and no stack. `children`: those of whoever is named, too.
pub fn of_running(common: &Common, whom: &Whom, children: bool) -> ebpf::Options {
    ebpf::Options {
        watch_all: whom.pids.is_empty(),
        follow_children: children,
        stream_changes: false,
        stream_failures: false,
        attach: true,
        calls: true,
        exits: false,
        stacks: false,
        makers: false,
        ledger: false,
        ring_bytes: common.ring_bytes.unwrap_or(4 << 20),
        slots: common.slots,
        debug: common.debug_bpf,
        interval: common.interval,
        namespace: None,
    }
}
