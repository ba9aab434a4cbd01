//! The path of the cgroup whose pids.max allowed no task more, or leaves least room: the programs know how far above the
//! process's own it is.

use std::path::Path;

use crate::enrich::memory_cgroup::LEVELS;
use crate::model::shortage::Tasks;
use crate::os::procfs::Proc;

/// Looks in one session.
const LOOKS: usize = 100;
/// Where the hierarchies that can count tasks are mounted: version 2, version 1.
const MOUNTS: [&str; 2] = ["/sys/fs/cgroup", "/sys/fs/cgroup/pids"];

/// Names cgroups.
#[derive(Debug, Default)]
pub struct Looks {
    made: usize,
}

impl Looks {
    /// Looks where the process is; it may have gone meanwhile, then nothing is said.
    pub fn notice(&mut self, tgid: u32, tasks: &mut Tasks) {
        let Some(figure) = tasks.cgroup.filter(|figure| figure.limit.is_some()) else { return };
        if self.made < LOOKS {
            self.made += 1;
            let path = Proc::new("/proc").open(tgid).ok().and_then(|process| process.cgroup_of("pids"));
            tasks.cgroup_path =
                path.and_then(|path| ancestor(counting(&MOUNTS.map(Path::new), &path)?, figure.level));
        }
    }
}

/// The nearest cgroup from `path` upwards that counts tasks of its own: those below it are counted there (version 2, where
/// its cgroup.subtree_control does not name the controller). `None`: it cannot be seen.
fn counting<'a>(mounts: &[&Path], path: &'a str) -> Option<&'a str> {
    if path.split('/').any(|part| part == "..") {
        return None;
    }
    Path::new(path).ancestors().take(LEVELS).filter_map(Path::to_str).find(|path| {
        mounts.iter().any(|mount| mount.join(path.trim_start_matches('/')).join("pids.max").exists())
    })
}

/// The cgroup so many levels above; `None` for one outside of our own cgroup namespace.
fn ancestor(path: &str, levels: u64) -> Option<String> {
    if !path.starts_with('/') || path.split('/').any(|part| part == "..") {
        return None;
    }
    let mut path = path.trim_end_matches('/');
    for _ in 0..levels {
        path = path.rsplit_once('/')?.0;
    }
    (!path.is_empty()).then(|| path.to_owned())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_cgroup_above() {
        assert_eq!(ancestor("/a/b/c", 0).as_deref(), Some("/a/b/c"));
        assert_eq!(ancestor("/a/b/c", 2).as_deref(), Some("/a"));
        for (path, levels) in [("/a/b", 2), ("/a", 9), ("/", 0), ("/../a", 0), ("a", 0), ("", 0)] {
            assert_eq!(ancestor(path, levels), None, "{path} {levels}");
        }
    }

    #[test]
    fn tasks_count_where_the_controller_is() {
        let mount = std::env::temp_dir().join(format!("vmaudit-pids-{}", std::process::id()));
        fs::create_dir_all(mount.join("a/b")).unwrap();
        fs::write(mount.join("a/pids.max"), "3").unwrap();
        let of = |path| counting(&[&mount], path);
        assert_eq!((of("/a/b"), of("/a"), of("/c"), of("/a/../a")), (Some("/a"), Some("/a"), None, None));
        fs::remove_dir_all(&mount).unwrap();
    }
}
