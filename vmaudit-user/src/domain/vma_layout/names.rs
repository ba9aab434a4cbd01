//! Whose mappings they are, by name: files, folders with a pattern of names, shared memory that is no file. In bounded
//! memory, whatever the names.

use std::collections::{HashMap, HashSet};

use crate::domain::application::Anonymizer;
use crate::domain::vma_layout::classify::extension;
use crate::domain::vma_layout::maps_parser::Mapping;
use crate::domain::vma_layout::shared_memory::shared_memory;
use crate::model::vma_layout::{Row, SharedMemory, Tally};

/// Distinct names and endings that are told apart; what comes later is put together as the rest.
pub(crate) const MAX_OWNERS: usize = 20_000;
/// Bytes of all names together.
const MAX_OWNER_BYTES: usize = 8 << 20;
/// The same of patterns, of which there are few where they say something.
const MAX_PATTERNS: usize = 4_000;
const MAX_PATTERN_BYTES: usize = 1 << 20;
/// Objects that are told apart beyond the first of each name.
const MAX_OBJECTS: usize = 100_000;
/// Rows of a table that are kept.
const MAX_ROWS: usize = 1000;
/// Name of the row of all that had no room of their own.
const REST: &str = "(others)";

/// Device and inode.
type Object = ((u32, u32), u64);

#[derive(Debug, Default)]
pub(crate) struct Owner {
    tally: Tally,
    first: Object,
    /// Other objects of that name.
    more: u64,
}

/// Files of one folder with one ending.
#[derive(Debug)]
pub(crate) struct Pattern {
    tally: Tally,
    /// What all their names begin with, and whether they differ behind it.
    prefix: String,
    differ: bool,
}

/// Collects while mappings stream by.
#[derive(Debug, Default)]
pub(crate) struct Names {
    pub(crate) owners: HashMap<String, Owner>,
    owner_bytes: usize,
    pub(crate) extensions: HashMap<String, Tally>,
    pub(crate) patterns: HashMap<(String, String), Pattern>,
    pattern_bytes: usize,
    /// Objects that are not the first of their name.
    others: HashSet<Object>,
    shared: SharedMemory,
}

/// What it leaves.
pub(crate) struct Named {
    pub(crate) owners: Vec<Row>,
    pub(crate) extensions: Vec<Row>,
    pub(crate) patterns: Vec<Row>,
    pub(crate) shared: SharedMemory,
}

impl Names {
    pub(crate) fn add(&mut self, mapping: &Mapping, resident: u64) {
        let bytes = mapping.bytes();
        let object = (mapping.device, mapping.inode);
        if !mapping.name.is_empty() {
            let room = self.owners.len() < MAX_OWNERS && self.owner_bytes < MAX_OWNER_BYTES;
            let name = if room || self.owners.contains_key(&mapping.name) { &mapping.name } else { REST };
            let new = !self.owners.contains_key(name);
            if new {
                self.owner_bytes += name.len();
            }
            let owner = self.owners.entry(name.to_owned()).or_default();
            owner.tally.add(bytes, resident);
            if new {
                owner.first = object;
            }
            let other =
                owner.first != object && self.others.len() < MAX_OBJECTS && self.others.insert(object);
            owner.more += u64::from(other);
            if mapping.has_file() && shared_memory(&mapping.name).is_some() {
                self.shared.vmas += 1;
                self.shared.objects += u64::from(new || other);
            }
        }
        if let Some(extension) = extension(mapping).filter(|_| shared_memory(&mapping.name).is_none()) {
            self.add_pattern(&mapping.name, &extension, resident, bytes);
            let room = self.extensions.len() < MAX_OWNERS || self.extensions.contains_key(&extension);
            let key = if room { extension } else { REST.to_owned() };
            self.extensions.entry(key).or_default().add(bytes, resident);
        }
    }

    fn add_pattern(&mut self, name: &str, extension: &str, resident: u64, bytes: u64) {
        let bare = name.strip_suffix(" (deleted)").unwrap_or(name);
        let (folder, file) = bare.rsplit_once('/').unwrap_or(("", bare));
        let ending = extension.split(' ').next().filter(|ending| ending.starts_with('.')).unwrap_or("");
        // `libc.so.6` has more behind its ending.
        let stem = file.strip_suffix(ending).unwrap_or(file);
        let key = (folder.to_owned(), extension.to_owned());
        if let Some(pattern) = self.patterns.get_mut(&key) {
            pattern.tally.add(bytes, resident);
            let common = pattern.prefix.char_indices().zip(stem.chars()).take_while(|((_, a), b)| a == b);
            let common = common.last().map_or(0, |((at, a), _)| at + a.len_utf8());
            pattern.differ |= common != stem.len() || common != pattern.prefix.len();
            pattern.prefix.truncate(common);
            return;
        }
        if self.patterns.len() >= MAX_PATTERNS || self.pattern_bytes >= MAX_PATTERN_BYTES {
            let rest = self.patterns.entry((REST.to_owned(), String::new()));
            rest.or_insert_with(|| Pattern { tally: Tally::default(), prefix: String::new(), differ: false })
                .tally
                .add(bytes, resident);
            return;
        }
        self.pattern_bytes += name.len();
        let mut tally = Tally::default();
        tally.add(bytes, resident);
        self.patterns.insert(key, Pattern { tally, prefix: stem.to_owned(), differ: false });
    }

    pub(crate) fn finish(self, anonymizer: &Anonymizer) -> Named {
        let named = |name: &str, tally: Tally, objects: Option<u64>| Row {
            name: anonymizer.apply(name).into_owned(),
            tally,
            objects,
        };
        let owners = self.owners.into_iter().map(|(name, Owner { tally, first, more })| {
            let file = first != Object::default();
            let title = shared_memory(&name).filter(|_| file);
            named(title.as_deref().unwrap_or(&name), tally, (file && name != REST).then_some(1 + more))
        });
        let patterns = self.patterns.into_iter().map(|((folder, extension), pattern)| {
            let Pattern { tally, prefix, differ } = pattern;
            let name = match (folder.as_str(), extension.strip_prefix("(no ending)")) {
                (REST, _) => REST.to_owned(),
                (_, Some(deleted)) => format!("{folder}/{prefix}{}{deleted}", if differ { "*" } else { "" }),
                (_, None) if differ => format!("{folder}/{prefix}*{extension}"),
                (_, None) => format!("{folder}/{prefix}{extension}"),
            };
            named(&name, tally, None)
        });
        let extensions = self.extensions.into_iter().map(|(name, tally)| named(&name, tally, None));
        Named {
            owners: sorted(owners.collect()),
            extensions: sorted(extensions.collect()),
            patterns: sorted(patterns.collect()),
            shared: self.shared,
        }
    }
}

/// Largest first, so many as are kept.
pub(crate) fn sorted(mut rows: Vec<Row>) -> Vec<Row> {
    rows.sort_by(|a, b| b.tally.vmas.cmp(&a.tally.vmas).then_with(|| a.name.cmp(&b.name)));
    rows.truncate(MAX_ROWS);
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(lines: &[(&str, u64)]) -> Named {
        let mut names = Names::default();
        for &(name, inode) in lines {
            let mapping = Mapping {
                start: 0x1000,
                end: 0x2000,
                device: (0, 1),
                inode,
                name: name.to_owned(),
                ..Mapping::default()
            };
            names.add(&mapping, 0);
        }
        names.finish(&Anonymizer::off())
    }

    #[test]
    fn names_that_are_no_files() {
        let found = names(&[
            ("/dev/zero (deleted)", 1),
            ("/dev/zero (deleted)", 2),
            ("/memfd:x (deleted)", 3),
            ("/memfd:x (deleted)", 3),
            ("/SYSV00000000 (deleted)", 4),
        ]);
        let titles: Vec<(&str, u64, Option<u64>)> =
            found.owners.iter().map(|row| (row.name.as_str(), row.tally.vmas, row.objects)).collect();
        assert_eq!(
            titles,
            [
                ("memfd x", 2, Some(1)),
                ("shared anonymous memory (MAP_SHARED | MAP_ANONYMOUS)", 2, Some(2)),
                ("System V shared memory (key 0x00000000)", 1, Some(1))
            ]
        );
        assert_eq!((found.shared.vmas, found.shared.objects), (5, 4));
        assert!(found.patterns.is_empty() && found.extensions.is_empty());
        // A file of such a name elsewhere is a file.
        assert_eq!(shared_memory("/srv/dev/zero (deleted)"), None);
    }

    #[test]
    fn files_go_by_folder_and_pattern() {
        let found = names(&[
            ("/d/_1a.dvd (deleted)", 1),
            ("/d/_2.dvd (deleted)", 2),
            ("/e/_2.dvd (deleted)", 3),
            ("/d/_3.dvd", 4),
            ("/tmp/jna12 (deleted)", 5),
            ("/tmp/jna7 (deleted)", 6),
            ("/lib/libc.so.6", 7),
            ("/lib/libä.so", 8),
        ]);
        let patterns: Vec<(&str, u64)> =
            found.patterns.iter().map(|row| (row.name.as_str(), row.tally.vmas)).collect();
        assert_eq!(
            patterns,
            [
                ("/d/_*.dvd (deleted)", 2),
                ("/lib/lib*.so", 2),
                ("/tmp/jna* (deleted)", 2),
                ("/d/_3.dvd", 1),
                ("/e/_2.dvd (deleted)", 1)
            ]
        );
    }

    #[test]
    fn one_name_of_many_files_is_not_one_file() {
        let found = names(&[("/t/x (deleted)", 1), ("/t/x (deleted)", 2), ("/t/x (deleted)", 3)]);
        assert_eq!(found.owners[0].objects, Some(3));
    }
}
