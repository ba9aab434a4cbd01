//! Which mappings hold most addresses: alike ones together, by what they are and how large each is.

use std::collections::HashMap;
use std::io::{self, BufRead};

use crate::domain::vma_layout::address_map::Picture;
use crate::domain::vma_layout::maps_parser::{Mapping, Parser};
use crate::text::{bytes, grouped};

/// Sizes kept apart; further ones count as one of their kind.
const MOST: usize = 4096;

/// What the mappings of a process add up to.
#[derive(Debug, Default)]
pub struct Sizes {
    /// Mappings read.
    pub vmas: u64,
    /// Addresses they hold.
    pub bytes: u64,
    /// By what they are, and how large: `None` for those beyond [`MOST`].
    alike: HashMap<(Kind, Option<u64>), (u64, u64)>,
    /// Where they lie.
    pub picture: Picture,
}

/// What a mapping is, as far as it tells who asked for it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Kind {
    /// No access at all: a reservation.
    closed: bool,
    /// Name of its file, or the kernel's for it; empty for plain memory.
    name: String,
}

impl Sizes {
    /// Reads maps up to so many mappings. Error: reading failed, with what was read until then.
    pub fn read(&mut self, maps: impl BufRead, most: u64) -> io::Result<()> {
        let mut parser = Parser::new(maps);
        while self.vmas < most {
            let Some(mapping) = parser.next_mapping()? else { return Ok(()) };
            self.add(&mapping);
        }
        Err(io::ErrorKind::FileTooLarge.into())
    }

    fn add(&mut self, mapping: &Mapping) {
        let size = mapping.bytes();
        // The kernel calls whatever touches the heap by its name (fs/proc/task_mmu.c:vma_is_initial_heap).
        let beside_heap = mapping.inaccessible() && mapping.name == "[heap]";
        let name = if beside_heap { String::new() } else { mapping.name.clone() };
        let kind = Kind { closed: mapping.inaccessible(), name };
        self.vmas += 1;
        self.bytes = self.bytes.saturating_add(size);
        self.picture.add(mapping.start, mapping.end);
        let known = self.alike.len() < MOST || self.alike.contains_key(&(kind.clone(), Some(size)));
        let key = if known {
            (kind, Some(size))
        } else {
            (Kind { closed: kind.closed, name: String::new() }, None)
        };
        let sum = self.alike.entry(key).or_default();
        *sum = (sum.0 + 1, sum.1.saturating_add(size));
    }

    /// "13,085 reservations (mappings without access) of 10 GiB each hold 127.8 TiB of addresses, 99.9 % of what is
    /// mapped."
    pub fn sentence(&self) -> Option<String> {
        let mut kinds: HashMap<&Kind, (u64, u64)> = HashMap::new();
        for ((kind, _), (vmas, held)) in &self.alike {
            let sum = kinds.entry(kind).or_default();
            *sum = (sum.0 + vmas, sum.1.saturating_add(*held));
        }
        // By bytes; of equals always the same one.
        let (kind, all) = kinds.into_iter().max_by_key(|(kind, sum)| (sum.1, &kind.name, kind.closed))?;
        let of_kind = self.alike.iter().filter(|((of, _), _)| of == kind);
        let ((_, size), one) = of_kind.max_by_key(|((_, size), sum)| (sum.1, *size))?;
        // A size of its own is said where it is most of the kind.
        let size = size.filter(|_| one.1 >= all.1 / 2);
        let (vmas, held) = if size.is_some() { *one } else { all };
        let what = match (kind.closed, kind.name.as_str()) {
            (true, "") => (
                "reservation (a mapping without access)".to_owned(),
                "reservations (mappings without access)".to_owned(),
            ),
            (false, "") => ("mapping of plain memory".to_owned(), "mappings of plain memory".to_owned()),
            (_, name) => (format!("mapping of {name}"), format!("mappings of {name}")),
        };
        let each = match (size, vmas) {
            (Some(size), 2..) => format!(" of {} each", bytes(size)),
            _ => String::new(),
        };
        let percent = held as f64 * 100.0 / self.bytes.max(1) as f64;
        let hold = if vmas == 1 { "holds" } else { "hold" };
        Some(format!(
            "{}{each} {hold} {} of addresses, {percent:.1} % of what is mapped.",
            if vmas == 1 { format!("1 {}", what.0) } else { format!("{} {}", grouped(vmas), what.1) },
            bytes(held)
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sizes(maps: &str) -> Sizes {
        let mut sizes = Sizes::default();
        sizes.read(maps.as_bytes(), 1000).unwrap();
        sizes
    }

    #[test]
    fn those_that_hold_most_are_named_with_their_size() {
        let mut maps = String::new();
        for n in 0..10u64 {
            let start = 0x1000_0000_0000 + n * 0x4_0000_0000;
            maps += &format!("{start:x}-{:x} ---p 00000000 00:00 0 \n", start + 0x2_8000_0000);
            maps +=
                &format!("{:x}-{:x} rw-p 00000000 00:00 0 \n", start + 0x2_8000_0000, start + 0x2_8000_1000);
        }
        assert_eq!(
            sizes(&maps).sentence().unwrap(),
            "10 reservations (mappings without access) of 10 GiB each hold 100 GiB of addresses, 100.0 % of what is mapped."
        );
        let one = "1000-3000 r--p 00000000 08:01 5 /lib/x\n4000-5000 rw-p 00000000 00:00 0 \n";
        assert_eq!(
            sizes(one).sentence().unwrap(),
            "1 mapping of /lib/x holds 8 KiB of addresses, 66.7 % of what is mapped."
        );
        let various = "1000-3000 rw-p 00000000 00:00 0 \n4000-5000 rw-p 00000000 00:00 0 \n\
                       6000-9000 rw-p 00000000 00:00 0 \na000-b000 rw-p 00000000 00:00 0 \n";
        let said = sizes(various).sentence().unwrap();
        assert_eq!(said, "4 mappings of plain memory hold 28 KiB of addresses, 100.0 % of what is mapped.");
        assert_eq!(sizes("").sentence(), None);
    }

    #[test]
    fn more_sizes_than_are_kept_apart_are_still_counted() {
        let mut sizes = Sizes::default();
        for n in 1..2 * MOST as u64 {
            sizes.add(&Mapping { start: 0, end: n << 12, ..Mapping::default() });
        }
        assert!(sizes.alike.len() <= MOST + 2);
        assert_eq!(sizes.alike.values().map(|sum| sum.0).sum::<u64>(), sizes.vmas);
        assert!(sizes.sentence().is_some());
    }
}
