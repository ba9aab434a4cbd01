//! The path of the cgroup whose pids.max allowed no task more, or leaves least room: the programs know how far above the
//! process's own it is.

use crate::model::shortage::Tasks;
use crate::os::procfs::Proc;

/// Looks in one session.
const LOOKS: usize = 100;

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
            tasks.cgroup_path = path.and_then(|path| ancestor(&path, figure.level));
        }
    }
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
    use super::*;

    #[test]
    fn a_cgroup_above() {
        assert_eq!(ancestor("/a/b/c", 0).as_deref(), Some("/a/b/c"));
        assert_eq!(ancestor("/a/b/c", 2).as_deref(), Some("/a"));
        for (path, levels) in [("/a/b", 2), ("/a", 9), ("/", 0), ("/../a", 0), ("a", 0), ("", 0)] {
            assert_eq!(ancestor(path, levels), None, "{path} {levels}");
        }
    }
}
