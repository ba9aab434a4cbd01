//! Which memory cgroup ran out of memory when the OOM killer chose a process.
//!
//! The kernel side tells which cgroups the victim was in, which of them are in the hands of the OOM killer, and their
//! limits, as the choice is made: the process and its cgroup can be gone a moment later. What else there is to know is
//! read here. The counters of each cgroup are read when the session first meets it, and again as soon as one of its
//! processes is chosen; what is made of them is decided in `domain::end`.
//!
//! Bounds: [`CGROUPS`] cgroups met, [`LOOKS`] looks, [`LEVELS`] levels each.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::memory_cgroup::{LEVELS, NO_LIMIT, read};
use crate::domain::cgroup::Groups;
use crate::model::end::{CgroupLevel, OomCgroups, OomSeen, OomVictim};
use crate::os::procfs::Proc;

/// Cgroups met in one session.
const CGROUPS: usize = 512;
/// Looks in one session.
const LOOKS: usize = 256;

/// Counters of the memory cgroups of followed processes.
#[derive(Debug)]
pub struct OomLooks {
    root: PathBuf,
    /// Paths whose levels were met.
    met: HashSet<String>,
    /// By folder: how often it ran out of memory, and how many were killed in it.
    before: HashMap<PathBuf, (u64, Option<u64>)>,
    looks: usize,
}

impl Default for OomLooks {
    fn default() -> Self {
        Self { root: "/".into(), met: HashSet::new(), before: HashMap::new(), looks: 0 }
    }
}

impl OomLooks {
    /// A process was seen in this cgroup.
    pub fn meet(&mut self, path: &str) {
        if self.met.len() >= CGROUPS || self.met.contains(path) {
            return;
        }
        self.met.insert(path.to_owned());
        let Some(found) = levels(&self.root, path) else { return };
        for (folder, level) in found.levels {
            self.before.entry(folder).or_insert((level.out_of_memory, level.killed));
        }
    }

    /// Looks may be spent anew, and cgroups that are gone make room.
    pub fn renew(&mut self) {
        self.looks = 0;
        if self.met.len() >= CGROUPS {
            // Those that are still there keep their counters.
            self.met.clear();
            self.before.retain(|folder, _| folder.exists());
        }
    }

    /// The OOM killer has chosen this process. `named`: the cgroup it was seen in before.
    pub fn look(&mut self, victim: &OomVictim, named: Option<&str>) -> Option<OomCgroups> {
        if self.looks >= LOOKS {
            return None;
        }
        self.looks += 1;
        let (found, inside) = match victim.memory.as_deref() {
            Some(seen) => (told(&self.root, seen), seen.inside),
            None => (self.by_paths(victim, named)?, false),
        };
        let levels = found.levels.into_iter().map(|(folder, level)| CgroupLevel {
            out_of_memory_before: self.before.get(&folder).map(|(times, _)| *times),
            ..level
        });
        let levels: Vec<CgroupLevel> = levels.collect();
        // The next one to be chosen is compared with what was true after this one.
        for level in levels.iter().filter(|level| level.killed.is_some()) {
            let folder = folder_of(&self.root, level.v1, &level.path);
            self.before.insert(folder, (level.out_of_memory, level.killed));
        }
        Some(OomCgroups { process: victim.process, levels, complete: found.complete, inside })
    }

    /// Where the kernel side could not tell: by what /proc says of the process, which is on its way out.
    fn by_paths(&self, victim: &OomVictim, named: Option<&str>) -> Option<Found> {
        let proc = Proc::new(self.root.join("proc"));
        let now = proc.open(victim.process.tgid).ok().and_then(|process| process.cgroups());
        let now = now.and_then(|text| Groups::parse(&text).shown);
        // In version 1 a task on its way out is in the root, wherever it was (kernel/cgroup/cgroup.c:proc_cgroup_show).
        let now = now.filter(|path| !(is_v1(&self.root) && path == "/"));
        let found = now.as_deref().and_then(|path| levels(&self.root, path));
        found.or_else(|| levels(&self.root, named?).filter(|found| self.was_killed_in(found)))
    }

    /// Somebody was killed in the innermost of them since it was last looked at: each victim counts in its own, whoever ran out
    /// of memory, before it is told of (mm/oom_kill.c:__oom_kill_process). A process may have moved since it was seen in one.
    fn was_killed_in(&self, found: &Found) -> bool {
        let Some((folder, level)) = found.levels.first() else { return false };
        let before = self.before.get(folder).and_then(|(_, killed)| *killed);
        before.zip(level.killed).is_some_and(|(before, now)| now > before)
    }
}

struct Found {
    levels: Vec<(PathBuf, CgroupLevel)>,
    complete: bool,
}

fn mount(v1: bool) -> &'static str {
    if v1 { "sys/fs/cgroup/memory" } else { "sys/fs/cgroup" }
}

/// Memory is limited by version 1.
fn is_v1(root: &Path) -> bool {
    root.join(mount(true)).join("memory.limit_in_bytes").exists()
}

fn folder_of(root: &Path, v1: bool, path: &str) -> PathBuf {
    root.join(mount(v1)).join(path.trim_start_matches('/'))
}

/// What the kernel side has told, with the counters of those that are there still and can be seen.
fn told(root: &Path, seen: &OomSeen) -> Found {
    let v1 = is_v1(root);
    let beginning = if seen.whole { "" } else { "..." };
    let path = |from: usize| {
        let names = seen.names.iter().skip(from).rev();
        names.fold(beginning.to_owned(), |path, name| format!("{path}/{name}"))
    };
    let there = fs::metadata(folder_of(root, v1, &path(0))).is_ok_and(|it| it.ino() == seen.inode);
    let levels = seen.figures.iter().enumerate().map(|(n, figures)| {
        let path = path(n);
        let folder = folder_of(root, v1, &path);
        let counters = if there { level(&folder, &root.join(mount(v1)), v1) } else { None };
        let told = CgroupLevel {
            path,
            v1,
            limit_bytes: Some(figures.limit_bytes).filter(|limit| *limit < NO_LIMIT),
            out_of_memory: counters.as_ref().map_or(0, |counters| counters.out_of_memory),
            out_of_memory_before: None,
            killed: counters.and_then(|counters| counters.killed),
            used_bytes: Some(figures.used_bytes),
            acting: figures.acting,
        };
        (folder, told)
    });
    Found { levels: levels.collect(), complete: seen.whole }
}

/// The cgroup at this path and all above it; `None` when there is no such one.
fn levels(root: &Path, path: &str) -> Option<Found> {
    // Outside of our own cgroup namespace: not to be found below the mount.
    if path.split('/').any(|part| part == "..") {
        return None;
    }
    [false, true].into_iter().find_map(|v1| {
        let mount = root.join(mount(v1));
        let relative = path.trim_start_matches('/');
        // The root of version 2 has no files of its own; these are there in each cgroup.
        let (any, of_root) = if v1 {
            ("memory.limit_in_bytes", mount.join("release_agent").exists())
        } else {
            ("cgroup.procs", mount.join("cgroup.controllers").exists() && !mount.join("memory.max").exists())
        };
        let folder = mount.join(relative);
        if !folder.join(any).exists() {
            return None;
        }
        let mut complete = of_root;
        let mut levels = Vec::new();
        for (n, folder) in folder.ancestors().take_while(|folder| folder.starts_with(&mount)).enumerate() {
            if n >= LEVELS {
                complete = false;
                break;
            }
            // Nothing limits the root.
            if folder == mount && of_root {
                break;
            }
            match level(folder, &mount, v1) {
                Some(level) => levels.push((folder.to_owned(), level)),
                // Without the memory controller it belongs to the nearest one above that has it.
                None if !v1 && !folder.join("memory.max").exists() => {}
                None => complete = false,
            }
        }
        Some(Found { levels, complete })
    })
}

fn level(folder: &Path, mount: &Path, v1: bool) -> Option<CgroupLevel> {
    let key = |file: &str, key: &str| {
        read(&folder.join(file))?
            .lines()
            .find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.trim().parse::<u64>().ok())
    };
    let number = |name: &str| read(&folder.join(name))?.trim().parse::<u64>().ok();
    let path = format!("/{}", folder.strip_prefix(mount).ok()?.to_string_lossy());
    Some(if v1 {
        CgroupLevel {
            path,
            v1,
            limit_bytes: number("memory.limit_in_bytes").filter(|limit| *limit < NO_LIMIT),
            out_of_memory: number("memory.failcnt")?,
            out_of_memory_before: None,
            killed: key("memory.oom_control", "oom_kill"),
            used_bytes: None,
            acting: None,
        }
    } else {
        CgroupLevel {
            path,
            v1,
            limit_bytes: number("memory.max"),
            out_of_memory: key("memory.events.local", "oom").or_else(|| key("memory.events", "oom"))?,
            out_of_memory_before: None,
            killed: key("memory.events", "oom_kill"),
            used_bytes: None,
            acting: None,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::end::OomFigures;
    use crate::model::event::ProcessId;

    /// A made-up machine, removed at the end of the test.
    struct Machine(PathBuf);
    impl Drop for Machine {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    impl Machine {
        fn new(name: &str) -> Self {
            Self(std::env::temp_dir().join(format!("vmaudit-oom-{name}-{}", std::process::id())))
        }

        fn put(&self, path: &str, text: &str) {
            let path = self.0.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
    }

    fn victim() -> OomVictim {
        OomVictim { process: ProcessId { tgid: 7, start_ns: 1 }, at_ns: 2, memory: None }
    }

    #[test]
    fn the_counters_of_all_levels_are_compared_with_those_when_they_were_met() {
        let machine = Machine::new("v2");
        machine.put("sys/fs/cgroup/cgroup.controllers", "memory\n");
        machine.put("sys/fs/cgroup/cgroup.procs", "");
        for (path, limit, oom) in [("a", "20971520", 5), ("a/b", "max", 0)] {
            machine.put(&format!("sys/fs/cgroup/{path}/cgroup.procs"), "");
            machine.put(&format!("sys/fs/cgroup/{path}/memory.max"), limit);
            machine.put(&format!("sys/fs/cgroup/{path}/memory.events"), &format!("oom {oom}\noom_kill 0\n"));
        }
        let mut looks = OomLooks { root: machine.0.clone(), ..OomLooks::default() };
        looks.meet("/a/b");
        machine.put("sys/fs/cgroup/a/memory.events", "oom 6\noom_kill 1\n");
        machine.put("sys/fs/cgroup/a/b/memory.events", "oom 0\noom_kill 1\n");
        let found = looks.look(&victim(), Some("/a/b")).unwrap();
        assert!(found.complete);
        let of = |n: usize| {
            let CgroupLevel { path, limit_bytes, out_of_memory, out_of_memory_before, killed, .. } =
                found.levels[n].clone();
            (path, limit_bytes, out_of_memory_before, out_of_memory, killed)
        };
        assert_eq!(of(0), ("/a/b".into(), None, Some(0), 0, Some(1)));
        assert_eq!(of(1), ("/a".into(), Some(20_971_520), Some(5), 6, Some(1)));
        assert_eq!(found.levels.len(), 2);
        assert_eq!(
            looks.look(&victim(), Some("/a/b")),
            None,
            "it was another's: nobody more was killed there"
        );
        machine.put("sys/fs/cgroup/a/b/memory.events", "oom 0\noom_kill 2\n");
        let again = looks.look(&victim(), Some("/a/b")).unwrap();
        assert_eq!(
            again.levels[1].out_of_memory_before,
            Some(6),
            "each choice is compared with the one before"
        );
    }

    #[test]
    fn a_container_does_not_see_what_is_above_it() {
        let machine = Machine::new("container");
        machine.put("sys/fs/cgroup/cgroup.controllers", "memory\n");
        machine.put("sys/fs/cgroup/cgroup.procs", "");
        machine.put("sys/fs/cgroup/memory.max", "max\n");
        machine.put("sys/fs/cgroup/memory.events", "oom 0\noom_kill 1\n");
        machine.put("proc/7/cgroup", "0::/\n");
        let mut looks = OomLooks { root: machine.0.clone(), ..OomLooks::default() };
        let found = looks.look(&victim(), None).unwrap();
        assert!(!found.complete);
        assert_eq!(found.levels.len(), 1);
        for odd in ["/../a", "/no/such", "/a/../.."] {
            machine.put("proc/7/cgroup", &format!("0::{odd}\n"));
            assert_eq!(looks.look(&victim(), Some(odd)), None, "{odd}");
        }
    }

    #[test]
    fn version_1_counts_how_often_the_limit_was_met() {
        let machine = Machine::new("v1");
        for (path, limit) in [("", "9223372036854771712"), ("x/", "4096")] {
            machine.put(&format!("sys/fs/cgroup/memory/{path}memory.limit_in_bytes"), limit);
            machine.put(&format!("sys/fs/cgroup/memory/{path}memory.failcnt"), "3\n");
            machine.put(&format!("sys/fs/cgroup/memory/{path}memory.oom_control"), "oom_kill 2\n");
        }
        machine.put("sys/fs/cgroup/memory/release_agent", "");
        machine.put("proc/7/cgroup", "4:memory:/x\n");
        let mut looks = OomLooks { root: machine.0.clone(), ..OomLooks::default() };
        let found = looks.look(&victim(), None).unwrap();
        assert!(found.complete);
        assert_eq!(found.levels.len(), 1, "nothing limits the root");
        assert_eq!(
            (found.levels[0].limit_bytes, found.levels[0].out_of_memory_before, found.levels[0].killed),
            (Some(4096), None, Some(2))
        );
        // On its way out: where it was is not known, and the root that is shown ran out of nothing.
        machine.put("proc/7/cgroup", "4:memory:/\n");
        for named in [None, Some("/x"), Some("/")] {
            assert_eq!(looks.look(&victim(), named), None, "{named:?}");
        }
        machine.put("sys/fs/cgroup/memory/x/memory.oom_control", "oom_kill 3\n");
        assert_eq!(looks.look(&victim(), Some("/x")).unwrap().levels[0].killed, Some(3));
    }

    #[test]
    fn what_the_kernel_side_told_needs_no_process_and_no_folder() {
        let machine = Machine::new("told");
        machine.put("sys/fs/cgroup/a/b/cgroup.procs", "");
        machine.put("sys/fs/cgroup/a/b/memory.events", "oom 2\noom_kill 3\n");
        let inode = fs::metadata(machine.0.join("sys/fs/cgroup/a/b")).unwrap().ino();
        let figures =
            |limit_bytes, acting| OomFigures { limit_bytes, used_bytes: 4096, acting: Some(acting) };
        let seen = |inode| OomSeen {
            inode,
            names: vec!["b".into(), "a".into()],
            figures: vec![figures(8192, true), figures(1 << 62, false)],
            whole: true,
            inside: true,
        };
        let mut looks = OomLooks { root: machine.0.clone(), ..OomLooks::default() };
        let mut of = |seen: OomSeen| {
            looks.look(&OomVictim { memory: Some(Box::new(seen)), ..victim() }, Some("/other")).unwrap()
        };
        let found = of(seen(inode));
        let level = |n: usize| {
            let CgroupLevel { path, limit_bytes, killed, acting, .. } = found.levels[n].clone();
            (path, limit_bytes, killed, acting)
        };
        assert_eq!(level(0), ("/a/b".into(), Some(8192), Some(3), Some(true)));
        assert_eq!(level(1), ("/a".into(), None, None, Some(false)));
        assert!(found.complete && found.inside);
        let gone = of(seen(inode + 1));
        assert_eq!(
            (gone.levels[0].path.as_str(), gone.levels[0].killed),
            ("/a/b", None),
            "another of the name"
        );
        let cut = of(OomSeen { whole: false, ..seen(inode) });
        assert_eq!((cut.levels[1].path.as_str(), cut.complete), (".../a", false));
        let root = of(OomSeen { whole: true, ..OomSeen::default() });
        assert_eq!((root.levels, root.complete), (vec![], true));
    }
}
