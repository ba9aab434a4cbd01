//! Which processes are meant.

use super::cgroup::{GroupWanted, Groups};

/// Bytes of a task's name that the kernel keeps (include/linux/sched.h:TASK_COMM_LEN, all versions, less the NUL).
const NAME_BYTES: usize = 15;

/// What a process must be like; everything that is not said fits. Of each kind one has to fit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProcessFilter {
    /// One of these, or one of `called`; both empty = any.
    pub pids: Vec<u32>,
    /// Its own name or its executable's is one of these.
    pub called: Vec<Called>,
    /// Of one of these owners; empty = any.
    pub uids: Vec<u32>,
    /// Its name, or that of one of its threads, fits one of these patterns; empty = any.
    pub comm: Vec<NamePattern>,
    /// Its executable; empty = any.
    pub exe: Vec<FilePattern>,
    /// By path.
    pub cgroups: Vec<GroupWanted>,
    /// Units.
    pub units: Vec<GroupWanted>,
    /// Containers.
    pub containers: Vec<GroupWanted>,
    /// Pods.
    pub pods: Vec<GroupWanted>,
}

impl ProcessFilter {
    /// More must be known of a process than its number.
    pub fn asks_for_more(&self) -> bool {
        !self.uids.is_empty() || !self.comm.is_empty() || self.asks_for_file() || self.asks_for_group()
    }

    /// Something is asked.
    pub fn asks(&self) -> bool {
        self.asks_for_more() || !self.pids.is_empty()
    }

    /// Its executable must be known.
    pub fn asks_for_file(&self) -> bool {
        !self.exe.is_empty() || !self.called.is_empty()
    }

    /// This process is one of those that were named.
    pub fn one_of(&self, pid: u32, comm: &str, exe: Option<&str>) -> bool {
        self.pids.is_empty() && self.called.is_empty()
            || self.pids.contains(&pid)
            || self.called.iter().any(|called| called.fits(comm, exe))
    }

    /// Its cgroup must be known.
    pub fn asks_for_group(&self) -> bool {
        self.groups().any(|wanted| !wanted.is_empty())
    }

    fn groups(&self) -> impl Iterator<Item = &Vec<GroupWanted>> {
        [&self.cgroups, &self.units, &self.containers, &self.pods].into_iter()
    }

    /// This owner fits.
    pub fn owner(&self, uid: u32) -> bool {
        self.uids.is_empty() || self.uids.contains(&uid)
    }

    /// This name fits.
    pub fn name(&self, comm: &str) -> bool {
        self.comm.is_empty() || self.comm.iter().any(|pattern| pattern.fits(comm))
    }

    /// This executable fits; an unknown one only where none is asked for.
    pub fn file(&self, exe: Option<&str>) -> bool {
        self.exe.is_empty() || exe.is_some_and(|exe| self.exe.iter().any(|pattern| pattern.fits(exe)))
    }

    /// These cgroups fit; unknown ones only where none are asked for.
    pub fn group(&self, groups: Option<&Groups>) -> bool {
        self.groups().all(|wanted| {
            wanted.is_empty() || groups.is_some_and(|groups| wanted.iter().any(|one| one.fits(groups)))
        })
    }
}

/// A process by the name that people call it by: its own, with wildcards, or its executable's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Called {
    name: String,
    pattern: NamePattern,
}

impl Called {
    /// One that was typed.
    pub fn new(name: &str) -> Self {
        Self { name: name.to_owned(), pattern: NamePattern::new(name) }
    }

    /// A process of this name and this executable is meant.
    pub fn fits(&self, comm: &str, exe: Option<&str>) -> bool {
        self.pattern.fits(comm) || exe.is_some_and(|exe| exe.rsplit('/').next() == Some(&self.name))
    }
}

/// Paths of executables: `*` stands for any text, `?` for any character. One without a slash means the last part of the path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilePattern {
    pattern: NamePattern,
    whole: bool,
}

impl FilePattern {
    /// One that was typed.
    pub fn new(text: &str) -> Self {
        Self { pattern: NamePattern(text.chars().collect()), whole: text.contains('/') }
    }

    /// Fits this path, whether or not the file is still there.
    pub fn fits(&self, exe: &str) -> bool {
        let exe = exe.strip_suffix(" (deleted)").unwrap_or(exe);
        self.pattern.fits(if self.whole { exe } else { exe.rsplit('/').next().unwrap_or(exe) })
    }
}

/// Names of tasks: `*` stands for any text, `?` for any character.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamePattern(Vec<char>);

impl NamePattern {
    /// One that was typed. A name without wildcards that is longer than the kernel's names means the beginning of it
    /// that the kernel keeps.
    pub fn new(text: &str) -> Self {
        let plain = !text.contains(['*', '?']);
        let mut kept = text;
        while plain && kept.len() > NAME_BYTES {
            let last = kept.char_indices().next_back().map_or(0, |(at, _)| at);
            kept = kept.get(..last).unwrap_or_default();
        }
        Self(kept.chars().collect())
    }

    /// One for texts that are no names of tasks, and may be longer.
    pub fn whole(text: &str) -> Self {
        Self(text.chars().collect())
    }

    /// Fits the whole of `name`. Takes no longer than the product of both lengths.
    pub fn fits(&self, name: &str) -> bool {
        let pattern = &self.0;
        let name: Vec<char> = name.chars().collect();
        let (mut at, mut place) = (0, 0);
        // Behind the last star, and where in the name it was tried.
        let mut again: Option<(usize, usize)> = None;
        while let Some(&c) = name.get(place) {
            match pattern.get(at) {
                Some('*') => {
                    at += 1;
                    again = Some((at, place));
                }
                Some(&wanted) if wanted == '?' || wanted == c => {
                    at += 1;
                    place += 1;
                }
                _ => match &mut again {
                    Some((star, tried)) => {
                        *tried += 1;
                        (at, place) = (*star, *tried);
                    }
                    None => return false,
                },
            }
        }
        pattern.iter().skip(at).all(|&c| c == '*')
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_fit_whole_names() {
        for (pattern, name, fits) in [
            ("java", "java", true),
            ("java", "javac", false),
            ("java*", "javac", true),
            ("*", "", true),
            ("", "", true),
            ("", "a", false),
            ("*Serv*", "G1 Service", true),
            ("?1 *", "G1 Service", true),
            ("a*b*c", "aXbYbZc", true),
            ("a*b*c", "aXbYbZ", false),
            ("elasticsearch-server", "elasticsearch-s", true),
            ("日*語", "日本語", true),
            ("?", "語", true),
        ] {
            assert_eq!(NamePattern::new(pattern).fits(name), fits, "{pattern} {name}");
        }
    }

    #[test]
    fn executables_are_meant_by_path_or_by_file() {
        for (pattern, exe, fits) in [
            ("java", "/usr/lib/jvm/bin/java", true),
            ("jav?", "/usr/lib/jvm/bin/java (deleted)", true),
            ("java", "/java/bin/node", false),
            ("/usr/*/java", "/usr/lib/jvm/bin/java", true),
            ("bin/java", "/usr/bin/java", false),
            ("*/bin/java", "/usr/bin/java", true),
            ("elasticsearch-server", "/elasticsearch-server", true),
            ("elasticsearch-server", "/elasticsearch-s", false),
        ] {
            assert_eq!(FilePattern::new(pattern).fits(exe), fits, "{pattern} {exe}");
        }
    }

    #[test]
    fn each_kind_must_fit_and_of_a_kind_one() {
        let filter = ProcessFilter {
            uids: vec![1, 2],
            units: vec![GroupWanted::Unit("a".into()), GroupWanted::Unit("b".into())],
            ..ProcessFilter::default()
        };
        let groups = |text: &str| Groups::parse(&format!("0::{text}"));
        assert!(filter.owner(2) && !filter.owner(3) && filter.file(None) && filter.name("x"));
        assert!(filter.group(Some(&groups("/b.service"))) && !filter.group(Some(&groups("/c.service"))));
        assert!(!filter.group(None) && ProcessFilter::default().group(None));
    }

    #[test]
    fn a_hostile_pattern_takes_no_time() {
        let pattern = NamePattern::new(&"*a".repeat(2000));
        assert!(!pattern.fits(&"a".repeat(1999)));
    }
}
