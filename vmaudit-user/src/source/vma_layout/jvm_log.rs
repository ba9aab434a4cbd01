//! The log that a JVM writes when it dies (hs_err_pidN.log): it holds the mappings and the limit.
//!
//! Written by HotSpot's src/hotspot/share/utilities/vmError.cpp and os_linux.cpp, 8 to 25; the words are looked for where
//! they stand in a line, and a line that is none of them is passed over.

use std::io::{self, BufRead};

use crate::domain::vma_layout::analysis::Mappings;
use crate::domain::vma_layout::maps_parser::{Lines, Mapping, is_vma, parse_header};
use crate::model::vma_layout::Damage;

/// What the log tells beside the mappings.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Facts {
    pub(crate) pid: Option<u32>,
    /// Wall time as it stands there.
    pub(crate) time: Option<String>,
    pub(crate) max_map_count: Option<u64>,
    /// Its own words are that memory is short.
    pub(crate) says_memory: bool,
}

/// Reads the mappings and meets the facts on its way.
#[derive(Debug)]
pub(crate) struct JvmLog<R> {
    lines: Lines<R>,
    facts: Facts,
    within: bool,
    /// It ends among the mappings.
    cut: bool,
    /// The number stands on the next line.
    limit_follows: bool,
}

/// Bytes of a time that are kept.
const TIME: usize = 64;

/// The beginning of a file is that of such a log.
pub(crate) fn is_one(head: &[u8]) -> bool {
    let runtime = b"Java Runtime Environment";
    head.split(|&b| b == b'\n')
        .take(16)
        .any(|line| line.starts_with(b"#") && line.windows(runtime.len()).any(|part| part == runtime))
}

impl<R: BufRead> JvmLog<R> {
    pub(crate) fn new(reader: R) -> Self {
        Self {
            lines: Lines::new(reader),
            facts: Facts::default(),
            within: false,
            cut: false,
            limit_follows: false,
        }
    }

    /// What was met so far.
    pub(crate) fn facts(&self) -> &Facts {
        &self.facts
    }

    fn note(&mut self) {
        let text = String::from_utf8_lossy(self.lines.line());
        let number = |text: &str| {
            let digits = text.trim_start().split(|c: char| !c.is_ascii_digit()).next()?;
            digits.parse::<u64>().ok()
        };
        if std::mem::take(&mut self.limit_follows) {
            self.facts.max_map_count = self.facts.max_map_count.or_else(|| number(&text));
        }
        if text.starts_with('#') {
            self.facts.says_memory |= text.contains("insufficient memory");
            let pid = text.split_once(" pid=").and_then(|(_, rest)| number(rest));
            self.facts.pid = self.facts.pid.or(pid.and_then(|pid| u32::try_from(pid).ok()));
        } else if let Some(rest) = text.strip_prefix("/proc/sys/vm/max_map_count") {
            match rest.rsplit_once(':').map(|(_, value)| number(value)) {
                Some(Some(limit)) => {
                    self.facts.max_map_count.get_or_insert(limit);
                }
                _ => self.limit_follows = true,
            }
        } else if let Some(rest) = text.strip_prefix("Time: ") {
            let time = rest.split(" elapsed").next().unwrap_or(rest).trim();
            self.facts.time.get_or_insert_with(|| time.chars().take(TIME).collect());
        }
    }
}

impl<R: BufRead> Mappings for JvmLog<R> {
    fn next_mapping(&mut self) -> io::Result<Option<Mapping>> {
        while self.lines.read()? {
            if self.within {
                match parse_header(self.lines.line()) {
                    Some(mapping) if is_vma(&mapping) => return Ok(Some(mapping)),
                    Some(_) => continue,
                    None => (self.within, self.cut) = (false, self.lines.truncated()),
                }
            }
            if self.lines.line().starts_with(b"Dynamic libraries:") {
                self.within = true;
            } else {
                self.note();
            }
        }
        self.cut |= self.within;
        Ok(None)
    }

    /// Only that it ends among the mappings: all else is no damage.
    fn damage(&self) -> Damage {
        Damage { truncated: self.cut, ..Damage::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "#\n# There is insufficient memory for the Java Runtime Environment to continue.\n#\n\
#  Out of Memory Error (os_linux.cpp:2800), pid=24064, tid=24065\n\
Time: Wed Nov 25 22:16:16 2026 UTC elapsed time: 12.1 seconds\n\
1000-2000 rw-p 00000000 00:00 0 \n\
Dynamic libraries:\n\
7f0000000000-7f0000001000 r--s 00000000 08:01 7                          /srv/a b.bin\n\
7f0000001000-7f0000002000 rw-p 00000000 00:00 0 \n\
ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0                  [vsyscall]\n\
Total number of mappings: 3\n\n\
/proc/sys/vm/max_map_count (maximum number of memory map areas a process may own): 65530\n\
/proc/sys/vm/swappiness (control): 60\n";

    fn read(text: &str) -> (Vec<Mapping>, Facts, Damage) {
        let mut log = JvmLog::new(text.as_bytes());
        let mut all = Vec::new();
        while let Some(mapping) = log.next_mapping().unwrap() {
            all.push(mapping);
        }
        let damage = log.damage();
        (all, log.facts, damage)
    }

    #[test]
    fn mappings_and_limit_are_found() {
        assert!(is_one(LOG.as_bytes()) && !is_one(b"1000-2000 rw-p 0 0:0 0\n"));
        let (all, facts, damage) = read(LOG);
        assert_eq!(all.len(), 2);
        assert_eq!(all[0].name, "/srv/a b.bin");
        let expected = Facts {
            pid: Some(24064),
            time: Some("Wed Nov 25 22:16:16 2026 UTC".to_owned()),
            max_map_count: Some(65530),
            says_memory: true,
        };
        assert_eq!((facts, damage), (expected, Damage::default()));
    }

    #[test]
    fn older_ones_have_the_number_on_a_line_of_its_own() {
        let (_, facts, _) = read("/proc/sys/vm/max_map_count (maximum number):\n65530\n\n262144\n");
        assert_eq!(facts.max_map_count, Some(65530));
        let (_, facts, _) = read("/proc/sys/vm/max_map_count: none\n\n7\n");
        assert_eq!(facts.max_map_count, None);
    }

    #[test]
    fn one_that_ends_among_its_mappings_is_cut() {
        let at = LOG.find("7f0000001000-").unwrap();
        let (all, _, damage) = read(&LOG[..at + 30]);
        assert!(damage.truncated);
        assert_eq!(all.len(), 1);
    }
}
