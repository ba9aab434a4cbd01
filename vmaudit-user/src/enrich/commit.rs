//! What all processes together were promised, read soon after a call that strict overcommit accounting may have refused.

use vmaudit_common::call;

use crate::model::event::Refused;
use crate::model::shortage::Commit;
use crate::os::clock::now_ns;
use crate::os::procfs::Proc;

/// Looks in one session, each some ten microseconds.
const LOOKS: usize = 200;
/// vm.overcommit_memory under which the sum of all promises counts.
const STRICT: u64 = 2;

/// Reads /proc/meminfo.
#[derive(Debug, Default)]
pub struct Looks {
    made: usize,
}

impl Looks {
    /// `mode`: vm.overcommit_memory.
    pub fn notice(&mut self, refused: &mut Refused, mode: Option<u64>) {
        let charged = matches!(
            refused.call,
            call::MMAP
                | call::MPROTECT
                | call::PKEY_MPROTECT
                | call::MREMAP
                | call::BRK
                | call::CLONE
                | call::CLONE3
                | call::FORK
                | call::SHMAT
        );
        let asked = charged && mode == Some(STRICT) && i32::from(refused.errno) == libc::ENOMEM;
        if !asked || self.made >= LOOKS {
            return;
        }
        self.made += 1;
        let read = Proc::new("/proc").promised_bytes();
        let after_us = now_ns().saturating_sub(refused.at_ns) / 1000;
        refused.commit =
            read.map(|(limit_bytes, committed_bytes)| Commit { limit_bytes, committed_bytes, after_us });
    }
}
