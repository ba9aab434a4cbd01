//! vmaudit's own code as it lies in memory.

use std::fs::File;
use std::io::{self, BufReader};

use crate::domain::vma_layout::maps_parser::{Mapping, Parser};

/// Has what is mapped of vmaudit's own files, code and constants, not count as its memory until it is needed again: a start
/// reads ten times as much of them as the session after it. It stays in the system's cache of files, from where it comes back
/// in pieces of 64 KiB, some microseconds each. Error: /proc does not tell what is mapped, and nothing is changed.
pub fn let_go() -> io::Result<()> {
    let mut maps = Parser::new(BufReader::new(File::open("/proc/self/smaps")?));
    while let Some(mapping) = maps.next_mapping()? {
        if comes_back(&mapping) {
            // SAFETY: pages of a file that were not written to here: whoever reads them next finds the same. A kernel that
            // does not do it changes nothing.
            unsafe {
                libc::madvise(
                    mapping.start as *mut libc::c_void,
                    mapping.bytes() as usize,
                    libc::MADV_DONTNEED,
                )
            };
        }
    }
    Ok(())
}

/// It is as its file, and stays so: neither a linker nor a debugger has changed any of it.
fn comes_back(mapping: &Mapping) -> bool {
    let Mapping { permissions, details, .. } = mapping;
    let unchanged = details.as_ref().is_some_and(|details| details.anonymous_bytes == 0);
    mapping.has_file() && unchanged && !permissions.write && !permissions.shared
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::vma_layout::maps_parser::Details;

    static CONSTANT: &[u8] = include_bytes!("../../bpf/vmaudit.bpf.o");

    /// Bytes of the mapping with this address that are resident, and whether it may be let go.
    fn mapping_of(address: u64) -> (u64, bool) {
        let mut maps = Parser::new(BufReader::new(File::open("/proc/self/smaps").unwrap()));
        while let Some(mapping) = maps.next_mapping().unwrap() {
            if (mapping.start..mapping.end).contains(&address) {
                return (mapping.details.as_ref().unwrap().rss_bytes, comes_back(&mapping));
            }
        }
        panic!("no mapping at {address:x}");
    }

    #[test]
    fn what_is_let_go_comes_back_as_it_was() {
        let sum = || CONSTANT.iter().fold(0u64, |sum, byte| sum.rotate_left(5) ^ u64::from(*byte));
        let before = sum();
        let (all, may_go) = mapping_of(CONSTANT.as_ptr() as u64);
        assert!(all >= CONSTANT.len() as u64 && may_go, "{all}");
        let_go().unwrap();
        let (less, _) = mapping_of(CONSTANT.as_ptr() as u64);
        assert!(less < all, "{less} of {all} bytes");
        assert_eq!(sum(), before);
    }

    #[test]
    fn what_could_not_come_back_stays() {
        let value = 7u64;
        assert!(!mapping_of(&raw const value as u64).1, "the stack");
        let file = |anonymous_bytes, write, shared| {
            let mut it = Mapping { inode: 5, name: "/usr/bin/vmaudit".into(), ..Mapping::default() };
            (it.permissions.write, it.permissions.shared) = (write, shared);
            it.details = Some(Details { anonymous_bytes, ..Details::default() });
            it
        };
        assert!(comes_back(&file(0, false, false)));
        assert!(!comes_back(&file(4096, false, false)), "a breakpoint, or what the linker filled in");
        assert!(!comes_back(&file(0, true, false)) && !comes_back(&file(0, false, true)));
        assert!(!comes_back(&Mapping { details: None, ..file(0, false, false) }));
        assert!(!comes_back(&Mapping { inode: 0, name: String::new(), ..file(0, false, false) }));
    }
}
