//! Whether the memory cgroup of a process whose call was refused has run out of memory: then allocations inside the kernel
//! fail, and the call with them.
//!
//! Bounds: one look for each address space, [`LOOKS`] in a session, of at most [`LEVELS`] levels of the hierarchy.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use vmaudit_common::{
    CLASS_GAP, CLASS_MC0_MASK, CLASS_NO_HOLE, CLASS_OVER_AS, CLASS_OVER_DATA, CLASS_OVER_MEMLOCK,
    CLASS_OVERCOMMIT_REFUSED, CLASS_SECTION,
};

use crate::domain::cgroup::Groups;
use crate::model::event::{MemoryCgroup, Refused};
use crate::os::procfs::Proc;

/// Looks in one session.
const LOOKS: usize = 20;
/// Levels looked at, from the process's own cgroup upwards.
pub const LEVELS: usize = 32;
/// Bytes read of one file.
const MOST: u64 = 4096;
/// A v1 limit above this is none (mm/page_counter.c: PAGE_COUNTER_MAX, in bytes).
pub const NO_LIMIT: u64 = 1 << 62;

/// Looks at the cgroups of processes with refused calls.
#[derive(Debug)]
pub struct Looks {
    root: PathBuf,
    /// By generation.
    found: HashMap<u64, Option<MemoryCgroup>>,
}

impl Default for Looks {
    fn default() -> Self {
        Self { root: "/".into(), found: HashMap::new() }
    }
}

impl Looks {
    /// Looks, the first time that a call was refused in this address space for no reason that its figures show. `named`: the
    /// cgroup it was seen in before, for a process that has died of the shortage meanwhile.
    pub fn notice(&mut self, refused: &Refused, named: Option<&str>) {
        const SHOWN: u64 = CLASS_GAP
            | CLASS_NO_HOLE
            | CLASS_OVER_AS
            | CLASS_OVER_DATA
            | CLASS_OVER_MEMLOCK
            | CLASS_OVERCOMMIT_REFUSED;
        let near = refused.class & CLASS_SECTION != 0 && refused.class & CLASS_MC0_MASK != 0;
        if near || refused.class & SHOWN != 0 || self.found.len() >= LOOKS {
            return;
        }
        let root = &self.root;
        self.found.entry(refused.generation).or_insert_with(|| {
            let process = Proc::new(root.join("proc")).open(refused.tgid).ok();
            let now = process.and_then(|process| Groups::parse(&process.cgroups()?).shown);
            // A process that is being killed may already have left.
            [now.as_deref(), named].into_iter().flatten().find_map(|path| look(root, path))
        });
    }

    /// What was found, by generation.
    pub fn take(&mut self) -> HashMap<u64, MemoryCgroup> {
        self.found.drain().filter_map(|(generation, cgroup)| Some((generation, cgroup?))).collect()
    }
}

/// The nearest cgroup from `path` upwards that has a limit and has run out of memory.
fn look(root: &Path, path: &str) -> Option<MemoryCgroup> {
    // Outside of our own cgroup namespace: not to be found below the mount.
    if path.split('/').any(|part| part == "..") {
        return None;
    }
    [("sys/fs/cgroup", &V2), ("sys/fs/cgroup/memory", &V1)].into_iter().find_map(|(mount, files)| {
        let mount = root.join(mount);
        let folder = mount.join(path.trim_start_matches('/'));
        folder
            .ancestors()
            .take_while(|folder| folder.starts_with(&mount))
            .take(LEVELS)
            .find_map(|folder| files.read(folder).filter(|cgroup| cgroup.out_of_memory > 0))
    })
}

/// Where a version of cgroups keeps its figures.
struct Files {
    limit: &'static str,
    used: &'static str,
    /// File and key, the first that exists.
    out_of_memory: [(&'static str, &'static str); 2],
}

const V2: Files = Files {
    limit: "memory.max",
    used: "memory.current",
    out_of_memory: [("memory.events.local", "oom"), ("memory.events", "oom")],
};
const V1: Files = Files {
    limit: "memory.limit_in_bytes",
    used: "memory.usage_in_bytes",
    out_of_memory: [("memory.oom_control", "oom_kill"); 2],
};

impl Files {
    fn read(&self, folder: &Path) -> Option<MemoryCgroup> {
        let number = |name: &str| read(&folder.join(name))?.trim().parse::<u64>().ok();
        let key = |(file, key): (&str, &str)| {
            read(&folder.join(file))?
                .lines()
                .find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.trim().parse::<u64>().ok())
        };
        Some(MemoryCgroup {
            limit_bytes: number(self.limit).filter(|limit| *limit < NO_LIMIT)?,
            used_bytes: number(self.used)?,
            out_of_memory: self.out_of_memory.into_iter().find_map(key)?,
        })
    }
}

/// The beginning of a file.
pub fn read(path: &Path) -> Option<String> {
    let mut bytes = Vec::new();
    File::open(path).ok()?.take(MOST).read_to_end(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// A made-up machine, removed at the end of the test.
    struct Machine(PathBuf);
    impl Drop for Machine {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn machine(name: &str, files: &[(&str, &str)]) -> Machine {
        let root = std::env::temp_dir().join(format!("vmaudit-cgroup-{name}-{}", std::process::id()));
        for (path, text) in files {
            let path = root.join("sys/fs/cgroup").join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        Machine(root)
    }

    #[test]
    fn the_nearest_cgroup_that_ran_out_counts() {
        let root = machine(
            "nearest",
            &[
                ("a/b/memory.max", "max\n"),
                ("a/b/memory.current", "5\n"),
                ("a/b/memory.events.local", "max 9\noom 9\noom_kill 0\n"),
                ("a/memory.max", "8388608\n"),
                ("a/memory.current", "8388000\n"),
                ("a/memory.events", "low 0\nmax 40\noom 3\noom_kill 1\n"),
            ],
        );
        let found = look(&root.0, "/a/b");
        let expected = MemoryCgroup { limit_bytes: 8_388_608, used_bytes: 8_388_000, out_of_memory: 3 };
        assert_eq!(found, Some(expected), "the own one has no limit");
    }

    #[test]
    fn version_1_has_other_names() {
        let files = [
            ("memory/x/memory.limit_in_bytes", "4096\n"),
            ("memory/x/memory.usage_in_bytes", "4000\n"),
            ("memory/x/memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n"),
            ("memory/memory.limit_in_bytes", "9223372036854771712\n"),
        ];
        let root = machine("v1", &files);
        let expected = MemoryCgroup { limit_bytes: 4096, used_bytes: 4000, out_of_memory: 2 };
        assert_eq!(look(&root.0, "/x"), Some(expected));
    }

    #[test]
    fn no_limit_no_shortage_or_no_such_place_is_nothing() {
        let calm = [
            ("a/memory.max", "8388608\n"),
            ("a/memory.current", "1\n"),
            ("a/memory.events", "max 40\noom 0\n"),
        ];
        let machine = machine("calm", &calm);
        assert_eq!(look(&machine.0, "/a"), None, "reclaim helped each time");
        for odd in ["", "/", "/../a", "/a/../../etc", "//", "/no/such/place"] {
            assert_eq!(look(&machine.0, odd), None, "{odd}");
        }
    }
}
