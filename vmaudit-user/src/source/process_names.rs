//! Which processes bear a name. Reads nothing that can block: no file here asks for a process's mmap lock
//! (fs/proc/array.c:do_task_stat, fs/proc/base.c:proc_exe_link, all versions).

use crate::domain::process_filter::NamePattern;
use crate::os::procfs::Proc;
use crate::os::rights;

/// One process, or all that bear a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProcessNamed {
    /// By number.
    Pid(u32),
    /// By its own name, or by that of its executable.
    Name(String),
}

impl ProcessNamed {
    /// A number or a name. Errors, as a sentence: neither.
    pub fn read(text: &str) -> Result<Self, String> {
        match text.parse() {
            Ok(0) => Err("there is no process 0".into()),
            Ok(pid) => Ok(Self::Pid(pid)),
            Err(_) if text.is_empty() || text.bytes().all(|b| b.is_ascii_digit()) => {
                Err("write a process's number or its name".into())
            }
            Err(_) => Ok(Self::Name(text.to_owned())),
        }
    }
}

/// The numbers of all that are meant, each once, vmaudit's own left out of what a name means. Errors, as a sentence: a name
/// that no process bears.
pub fn pids_of(asked: &[ProcessNamed]) -> Result<Vec<u32>, String> {
    pids_at(asked, &Proc::default(), std::process::id())
}

fn pids_at(asked: &[ProcessNamed], proc: &Proc, own: u32) -> Result<Vec<u32>, String> {
    let mut found = Vec::new();
    for one in asked {
        match one {
            ProcessNamed::Pid(pid) => found.push(*pid),
            ProcessNamed::Name(name) => {
                let before = found.len();
                let pattern = NamePattern::new(name);
                let pids = proc.pids().unwrap_or_default();
                found.extend(pids.into_iter().filter(|&pid| pid != own && bears(proc, pid, name, &pattern)));
                if found.len() == before {
                    let shown = crate::text::clean(name);
                    return Err(format!("no process is named {shown} (* stands for any text: '*{shown}*')"));
                }
            }
        }
    }
    found.sort_unstable();
    found.dedup();
    Ok(found)
}

fn bears(proc: &Proc, pid: u32, name: &str, pattern: &NamePattern) -> bool {
    let Ok(handle) = proc.open(pid) else { return false };
    let Ok(stat) = handle.stat() else { return false };
    if pattern.fits(&stat.comm) {
        return true;
    }
    let exe = {
        let _rights = rights::raised(&rights::PROCESSES);
        handle.exe()
    };
    exe.is_some_and(|exe| exe.rsplit('/').next() == Some(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_mean_all_that_bear_them() {
        let root = std::env::temp_dir().join(format!("vmaudit-names-{}", std::process::id()));
        for (pid, comm, exe) in [
            (7, "java", "/usr/bin/java"),
            (8, "MainThread", "/opt/node"),
            (9, "elasticsearch-s", "/x"),
            (10, "java", "/usr/bin/java"),
        ] {
            let folder = root.join(pid.to_string());
            std::fs::create_dir_all(&folder).unwrap();
            let stat = format!("{pid} ({comm}) S 1 1 1 0 -1 4194304 0 0 0 0 0 0 0 0 20 0 1 0 5 0 0");
            std::fs::write(folder.join("stat"), stat).unwrap();
            std::os::unix::fs::symlink(exe, folder.join("exe")).unwrap();
        }
        let proc = Proc::new(&root);
        let of = |words: &[&str]| {
            let asked: Vec<_> = words.iter().map(|word| ProcessNamed::read(word).unwrap()).collect();
            pids_at(&asked, &proc, 10)
        };
        assert_eq!(of(&["java"]), Ok(vec![7]));
        assert_eq!(of(&["node", "3", "java", "7"]), Ok(vec![3, 7, 8]));
        assert_eq!(of(&["elasticsearch-server"]), Ok(vec![9]));
        assert_eq!(of(&["*a*"]), Ok(vec![7, 8, 9]));
        assert!(of(&["nope"]).unwrap_err().starts_with("no process is named nope"));
        for bad in ["", "0", "99999999999"] {
            assert!(ProcessNamed::read(bad).is_err(), "{bad}");
        }
        std::fs::remove_dir_all(root).unwrap();
    }
}
