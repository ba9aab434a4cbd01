//! What the programs cannot tell of a process: its cgroups, and a path of which they have only a part.

use std::time::Instant;

use vmaudit_common::SLOT_LIVE;

use super::Live;
use crate::domain::cgroup::Groups;
use crate::model::event::{Event, ProcessFacts};
use crate::os::clock::{now_ns, same_start};
use crate::os::procfs::{Handle, Proc};
use crate::os::rights;

/// Looks into /proc for what the programs cannot tell, at most so many in a second.
pub(super) struct Names {
    pub(super) proc: Proc,
    pub(super) second: Instant,
    pub(super) looks: u32,
}

impl Names {
    const LOOKS_PER_SECOND: u32 = 100;

    /// Fills in the cgroup, and all of a path of which only a part is known. A path that does not fit it is another
    /// file's, a script's interpreter for one.
    pub(super) fn complete(&mut self, named: &mut ProcessFacts, is_part: bool) {
        let part = if is_part { named.exe.take() } else { None };
        let _rights = rights::raised(&rights::PROCESSES);
        let Some(process) = self.open(named.process.tgid) else { return };
        if let Some(groups) = process.cgroups().map(|text| Groups::parse(&text)) {
            named.within = groups.within();
            named.cgroup = groups.shown;
        }
        if let Some(part) = part {
            named.exe = process.exe().filter(|path| fits(path, &part));
        }
    }

    fn open(&mut self, pid: u32) -> Option<Handle> {
        if self.second.elapsed().as_secs() > 0 {
            self.second = Instant::now();
            self.looks = 0;
        }
        self.looks += 1;
        if self.looks > Self::LOOKS_PER_SECOND {
            return None;
        }
        self.proc.open(pid).ok()
    }
}

/// Whether the path begins with this part, or, if that is relative to a folder that nobody knows, has its last name.
fn fits(path: &str, part: &str) -> bool {
    let name = |path: &str| path.rsplit('/').next().map(str::to_owned);
    if part.starts_with('/') { path.starts_with(part) } else { name(path) == name(part) }
}

impl Live {
    /// What /proc tells of every process that lives.
    pub(super) fn tell_facts(&mut self, sink: &mut dyn FnMut(Event)) {
        let _rights = rights::raised(&rights::PROCESSES);
        for process in self.in_slots(&[SLOT_LIVE]) {
            let Ok(handle) = self.names.proc.open(process.tgid) else { continue };
            let Ok(stat) = handle.stat() else { continue };
            if !same_start(stat.start_ticks, process.start_ns) {
                continue;
            }
            let groups = handle.cgroups().map(|text| Groups::parse(&text));
            let facts = ProcessFacts {
                process,
                at_ns: now_ns(),
                exe: handle.exe(),
                within: groups.as_ref().map(Groups::within).unwrap_or_default(),
                cgroup: groups.and_then(|groups| groups.shown),
            };
            self.may_run_tests(&facts);
            sink(Event::Process(facts));
        }
    }
}
