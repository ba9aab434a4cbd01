//! How many tasks can still be made: as far as files tell, which name a limit and what counts against it.

use std::fs;
use std::path::Path;

use nix::sys::resource::{Resource, getrlimit};

use crate::os::procfs::Proc;

/// Where the hierarchies that can count tasks are mounted: version 2, version 1.
const MOUNTS: [&str; 2] = ["/sys/fs/cgroup", "/sys/fs/cgroup/pids"];

/// This process could make at least so many tasks; what cannot be told is no room. Of a user's tasks and of the numbers in
/// use only the sum over the machine is known, so there may be more room than this says.
pub fn is_at_least(tasks: u64) -> bool {
    let Some(all) = fs::read_to_string("/proc/loadavg").ok().and_then(|text| tasks_of(&text)) else {
        return false;
    };
    let of_machine =
        ["/proc/sys/kernel/threads-max", "/proc/sys/kernel/pid_max"].map(|file| number(file.as_ref()));
    let of_user = getrlimit(Resource::RLIMIT_NPROC).ok().map(|(soft, _)| soft);
    let path = Proc::default().open(std::process::id()).ok().and_then(|process| process.cgroup_of("pids"));
    let in_cgroup = path.map_or(u64::MAX, |path| room_in(&MOUNTS.map(Path::new), &path));
    in_cgroup >= tasks
        && [of_user]
            .iter()
            .chain(&of_machine)
            .all(|limit| limit.is_some_and(|limit| limit.saturating_sub(all) >= tasks))
}

/// "0.00 0.00 0.00 running/all last": tasks of the machine.
fn tasks_of(loadavg: &str) -> Option<u64> {
    loadavg.split_ascii_whitespace().nth(3)?.split_once('/')?.1.parse().ok()
}

fn number(file: &Path) -> Option<u64> {
    fs::read_to_string(file).ok()?.trim().parse().ok()
}

/// What the cgroups from this one upwards leave; those without a limit, or out of sight, leave all.
fn room_in(mounts: &[&Path], path: &str) -> u64 {
    if path.split('/').any(|part| part == "..") {
        return 0;
    }
    let folders = mounts.iter().flat_map(|mount| {
        Path::new(path).ancestors().map(move |above| mount.join(above.strip_prefix("/").unwrap_or(above)))
    });
    let rooms = folders.filter_map(|folder| {
        Some(number(&folder.join("pids.max"))?.saturating_sub(number(&folder.join("pids.current"))?))
    });
    rooms.min().unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tasks_of_the_machine_are_the_fourth_words_second_part() {
        assert_eq!(tasks_of("4.11 3.50 2.95 3/254 12345\n"), Some(254));
        assert_eq!(tasks_of("4.11 3.50"), None);
    }

    #[test]
    fn the_cgroup_that_leaves_least_counts() {
        let mount = std::env::temp_dir().join(format!("vmaudit-room-{}", std::process::id()));
        for (path, max, current) in [("", "max", "900"), ("a", "100", "40"), ("a/b", "80", "10")] {
            fs::create_dir_all(mount.join(path)).unwrap();
            fs::write(mount.join(path).join("pids.max"), max).unwrap();
            fs::write(mount.join(path).join("pids.current"), current).unwrap();
        }
        assert_eq!(room_in(&[mount.as_path()], "/a/b"), 60);
        assert_eq!(room_in(&[mount.as_path()], "/c"), u64::MAX);
        assert_eq!(room_in(&[mount.as_path()], "/../x"), 0);
        fs::remove_dir_all(mount).unwrap();
    }

    #[test]
    fn no_machine_has_room_for_all() {
        assert!(!is_at_least(u64::MAX));
        assert!(is_at_least(0));
    }
}
