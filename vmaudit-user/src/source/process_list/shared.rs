//! Names that processes share: those whose executable, or whose cgroups, the kernel's walk saw at the same place are
//! called the same there, and one of them is asked for all.
//!
//! Only of one owner, so that nobody lends his names to another's processes. Who was asked must be found at the same
//! place by a later walk; otherwise each is asked itself.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::Hash;
use std::os::fd::OwnedFd;

use nix::fcntl::readlinkat;

use crate::domain::cgroup::Groups;
use crate::os::procfs::Proc;
use crate::source::ebpf::task_iter::{Place, Task};

/// What is known of a process by its files that never block.
#[derive(Default)]
pub(super) struct Known {
    /// Path of the executable.
    pub(super) exe: Option<String>,
    /// Its cgroups, if they were asked for.
    pub(super) groups: Option<Groups>,
}

/// Names that were read, by owner and place, with the one who was asked.
pub(super) struct Names<'a> {
    proc: &'a Proc,
    folder: Option<OwnedFd>,
    files: HashMap<(u32, (u64, u64)), (Asked, String)>,
    groups: HashMap<(u32, u64), (Asked, Groups)>,
}

#[derive(Clone, Copy)]
struct Asked {
    pid: u32,
    start_ns: u64,
    place: Place,
}

impl Asked {
    fn of(task: &Task) -> Self {
        Self { pid: task.pid, start_ns: task.start_ns, place: task.place }
    }

    /// It was found again as it was.
    fn is_still(&self, now: &[Task]) -> bool {
        find(now, self.pid).is_some_and(|task| (task.start_ns, task.place) == (self.start_ns, self.place))
    }
}

/// The process of this number in what a walk found.
pub(super) fn find(tasks: &[Task], pid: u32) -> Option<&Task> {
    tasks.binary_search_by_key(&pid, |task| task.pid).ok().and_then(|at| tasks.get(at))
}

impl<'a> Names<'a> {
    pub(super) fn new(proc: &'a Proc) -> Self {
        Self { proc, folder: proc.folder().ok(), files: HashMap::new(), groups: HashMap::new() }
    }

    /// What the process is called, or another at the same place; `groups`: its cgroups as well.
    pub(super) fn of(&mut self, task: &Task, groups: bool) -> Known {
        let (proc, folder) = (self.proc, self.folder.as_ref());
        let file = task.place.file.map(|file| (task.uid, file));
        let within = task.place.groups.map(|set| (task.uid, set));
        Known {
            exe: once(&mut self.files, file, task, || exe_of(folder, task.pid)),
            groups: groups
                .then(|| once(&mut self.groups, within, task, || groups_of(proc, task.pid)))
                .flatten(),
        }
    }

    /// What itself is called now.
    pub(super) fn own(&self, pid: u32, groups: bool) -> Known {
        let groups = if groups { groups_of(self.proc, pid) } else { None };
        Known { exe: exe_of(self.folder.as_ref(), pid), groups }
    }

    /// Another was asked for it, and one of the two is not what it was. `now`: of a walk after that.
    pub(super) fn unsure(&self, task: &Task, now: &[Task]) -> bool {
        let file = task.place.file.and_then(|file| self.files.get(&(task.uid, file))).map(|(asked, _)| asked);
        let groups =
            task.place.groups.and_then(|set| self.groups.get(&(task.uid, set))).map(|(asked, _)| asked);
        let moved = find(now, task.pid).is_some() && !Asked::of(task).is_still(now);
        let mut lent = [file, groups].into_iter().flatten().filter(|asked| asked.pid != task.pid);
        lent.any(|asked| moved || !asked.is_still(now))
    }
}

/// What is known of this place; else what `read` tells of this process, which the place is known by from now on.
fn once<K: Eq + Hash, V: Clone>(
    known: &mut HashMap<K, (Asked, V)>,
    place: Option<K>,
    task: &Task,
    read: impl FnOnce() -> Option<V>,
) -> Option<V> {
    let Some(place) = place else { return read() };
    match known.entry(place) {
        Entry::Occupied(known) => Some(known.get().1.clone()),
        Entry::Vacant(place) => {
            let value = read()?;
            place.insert((Asked::of(task), value.clone()));
            Some(value)
        }
    }
}

fn exe_of(folder: Option<&OwnedFd>, pid: u32) -> Option<String> {
    let target = readlinkat(folder?, format!("{pid}/exe").as_str()).ok()?;
    Some(target.to_string_lossy().into_owned())
}

/// The cgroups of a process.
pub(super) fn groups_of(proc: &Proc, pid: u32) -> Option<Groups> {
    proc.open(pid).ok().and_then(|handle| handle.cgroups()).map(|text| Groups::parse(&text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(pid: u32, uid: u32, place: Place) -> Task {
        let (vmas, comm) = (Some(1), String::new());
        Task { pid, kernels_pid: pid, vmas, ppid: 1, uid, start_ns: 5, zombie: false, comm, place }
    }

    fn at(file: u64, groups: u64) -> Place {
        Place { execs: 3, file: Some((1, file)), groups: Some(groups) }
    }

    /// A /proc in which every process is called after its number; `silent` has no names.
    fn with_proc(name: &str, silent: &[u32], test: impl FnOnce(&Proc)) {
        let root = std::env::temp_dir().join(format!("vmaudit-shared-{name}-{}", std::process::id()));
        for pid in 1..10 {
            let own = root.join(pid.to_string());
            std::fs::create_dir_all(&own).unwrap();
            if !silent.contains(&pid) {
                std::os::unix::fs::symlink(format!("/exe{pid}"), own.join("exe")).unwrap();
                std::fs::write(own.join("cgroup"), format!("0::/group{pid}\n")).unwrap();
            }
        }
        test(&Proc::new(&root));
        std::fs::remove_dir_all(root).unwrap();
    }

    /// The number in the name of the executable and in that of the group.
    fn called(known: &Known) -> (Option<&str>, Option<&str>) {
        let group = known.groups.as_ref().and_then(|groups| groups.shown.as_deref());
        let exe = known.exe.as_deref();
        (exe.and_then(|exe| exe.strip_prefix("/exe")), group.and_then(|group| group.strip_prefix("/group")))
    }

    #[test]
    fn one_of_an_owner_is_asked_for_all_at_the_same_place() {
        with_proc("asked", &[1, 9], |proc| {
            let mut names = Names::new(proc);
            let nowhere = Place::default();
            let asked = [
                (task(1, 0, at(7, 7)), (None, None)), // says nothing, which is nobody else's answer
                (task(2, 0, at(7, 7)), (Some("2"), Some("2"))),
                (task(3, 0, at(7, 7)), (Some("2"), Some("2"))),
                (task(4, 0, at(8, 7)), (Some("4"), Some("2"))),
                (task(5, 0, at(7, 8)), (Some("2"), Some("5"))),
                (task(6, 1, at(7, 7)), (Some("6"), Some("6"))),
                (task(7, 0, nowhere), (Some("7"), Some("7"))),
                (task(8, 0, nowhere), (Some("8"), Some("8"))),
            ];
            for (task, expected) in asked {
                assert_eq!(called(&names.of(&task, true)), expected, "{}", task.pid);
            }
            assert_eq!(names.of(&task(3, 0, at(7, 7)), false).groups, None);
            assert_eq!(called(&names.own(3, true)), (Some("3"), Some("3")));
        });
    }

    #[test]
    fn a_name_that_was_lent_is_sure_while_both_are_where_they_were() {
        with_proc("sure", &[], |proc| {
            let mut names = Names::new(proc);
            let (asked, other, alone) = (task(2, 0, at(7, 7)), task(3, 0, at(7, 7)), task(4, 0, at(8, 8)));
            [&asked, &other, &alone].into_iter().for_each(|task| drop(names.of(task, true)));
            let unsure = |now: &[Task]| [&asked, &other, &alone].map(|task| names.unsure(task, now));
            let all = [asked.clone(), other.clone(), alone.clone()];
            assert_eq!(unsure(&all), [false; 3]);
            let with = |place: usize, change: &dyn Fn(&mut Task)| {
                let mut all = all.clone();
                change(&mut all[place]);
                unsure(&all)
            };
            for change in [
                &(|task: &mut Task| task.start_ns += 1) as &dyn Fn(&mut Task),
                &|task| task.place.execs += 1,
                &|task| task.place.file = Some((1, 9)),
                &|task| task.place.file = None,
                &|task| task.place.groups = None,
            ] {
                assert_eq!(with(0, change), [false, true, false], "the one who was asked");
                assert_eq!(with(1, change), [false, true, false], "the one for whom he was asked");
                assert_eq!(with(2, change), [false; 3], "who was asked for himself said what he is called");
            }
            assert_eq!(unsure(&all[1..]), [false, true, false], "the one who was asked has ended");
            assert_eq!(
                unsure(std::slice::from_ref(&asked)),
                [false; 3],
                "what one was called who has ended stays so"
            );
            assert_eq!(unsure(&[]), [false, true, false]);
        });
    }
}
