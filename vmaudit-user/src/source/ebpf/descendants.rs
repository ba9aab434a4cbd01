//! Following processes that already run, with the children that they have.

use std::collections::BTreeSet;

use anyhow::Context as _;
use aya::maps::MapError;
use nix::errno::Errno;
use vmaudit_common::Followed;

use super::Live;
use crate::os::procfs::Proc;
use crate::source::procfs_sampler::add_descendants;

/// bpf(2): a row that is there stays (include/uapi/linux/bpf.h:BPF_NOEXIST).
const NEW_ONLY: u64 = 1;
/// Looks at the tree before what goes on being born is left to the programs; each finds only what was born before its
/// parent was followed, so the second nearly always finds nobody.
const LOOKS: usize = 8;

impl Live {
    /// Follows the descendants of these processes, which are followed already. Whoever is born meanwhile is followed by the
    /// programs if its parent is, and found by the next look if it is not. vmaudit's own are left out. Errors: the
    /// table of followed processes takes no more.
    pub fn follow_descendants(&mut self, roots: &[u32], proc: &Proc) -> anyhow::Result<()> {
        let own: BTreeSet<u32> = [std::process::id()].into();
        let mut followed: BTreeSet<u32> = roots.iter().copied().collect();
        for _ in 0..LOOKS {
            let pairs: Vec<(u32, u32)> = proc
                .pids()
                .unwrap_or_default()
                .into_iter()
                .filter_map(|pid| Some((pid, proc.open(pid).ok()?.stat().ok()?.ppid)))
                .collect();
            let mut ours = own.clone();
            add_descendants(&mut ours, pairs.iter().copied());
            let others = pairs.iter().copied().filter(|(pid, _)| !ours.contains(pid));
            let before = followed.clone();
            add_descendants(&mut followed, others);
            let new: Vec<u32> = followed.difference(&before).copied().collect();
            if new.is_empty() {
                break;
            }
            for pid in new {
                // Whoever has gone meanwhile has no number.
                let Ok(pid) = self.kernels_number(pid) else { continue };
                match self.tell(pid, Followed { flags: 0, reserved: 0 }, NEW_ONLY) {
                    // Born since its parent was followed: the programs have it from its birth on.
                    Err(MapError::SyscallError(e))
                        if e.io_error.raw_os_error() == Some(Errno::EEXIST as i32) => {}
                    other => other.context("cannot tell the programs of all children")?,
                }
            }
        }
        Ok(())
    }
}
