//! Which processes are meant.

/// Bytes of a task's name that the kernel keeps (include/linux/sched.h:TASK_COMM_LEN, all versions, less the NUL).
const NAME_BYTES: usize = 15;

/// What a process must be like; everything that is not said fits.
#[derive(Clone, Debug, Default)]
pub struct ProcessFilter {
    /// One of these; empty = any.
    pub pids: Vec<u32>,
    /// Of this owner.
    pub uid: Option<u32>,
    /// Its name, or that of one of its threads, fits one of these patterns; empty = any.
    pub comm: Vec<NamePattern>,
    /// Its cgroup's path contains this.
    pub cgroup: Option<String>,
}

impl ProcessFilter {
    /// More must be known of a process than its number.
    pub fn asks_for_more(&self) -> bool {
        self.uid.is_some() || !self.comm.is_empty() || self.cgroup.is_some()
    }

    /// Something is asked.
    pub fn asks(&self) -> bool {
        self.asks_for_more() || !self.pids.is_empty()
    }

    /// This owner fits.
    pub fn owner(&self, uid: u32) -> bool {
        self.uid.is_none_or(|wanted| wanted == uid)
    }

    /// This name fits.
    pub fn name(&self, comm: &str) -> bool {
        self.comm.is_empty() || self.comm.iter().any(|pattern| pattern.fits(comm))
    }

    /// This cgroup fits; an unknown one only where none is asked for.
    pub fn group(&self, cgroup: Option<&str>) -> bool {
        self.cgroup.as_ref().is_none_or(|wanted| cgroup.is_some_and(|path| path.contains(wanted.as_str())))
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
    fn a_hostile_pattern_takes_no_time() {
        let pattern = NamePattern::new(&"*a".repeat(2000));
        assert!(!pattern.fits(&"a".repeat(1999)));
    }
}
