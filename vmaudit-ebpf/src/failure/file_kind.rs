//! What kind of file a refused mmap was of.

use vmaudit_common::{CLASS_DRIVER, CLASS_HUGE};

use crate::{
    control::layout,
    kernel::{self, peek},
};

// include/uapi/linux/magic.h, include/uapi/linux/stat.h.
const HUGETLBFS: u64 = 0x9584_58f6;
const ANONYMOUS_INODES: u64 = 0x0904_1934;
const KIND: u16 = 0xf000;
const REGULAR: u16 = 0x8000;

/// Class bits of the file behind a descriptor of `current`. The call is over, so another thread may have closed it: then
/// nothing is said.
// SAFETY: no other symbol of the object has this name.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn file_kind(descriptor: u64) -> u64 {
    of_descriptor(descriptor as u32).unwrap_or(0)
}

#[inline(always)]
fn of_descriptor(descriptor: u32) -> Option<u64> {
    let files: u64 = peek(kernel::current(), layout!(kind.task_files))?;
    let table: u64 = peek(files, layout!(kind.files_table))?;
    if descriptor >= peek::<u32>(table, layout!(kind.table_size))? {
        return None;
    }
    let all: u64 = peek(table, layout!(kind.table_files))?;
    let file: u64 = peek(all + u64::from(descriptor) * 8, 0)?;
    let inode: u64 = peek(file, layout!(kind.inode))?;
    let superblock: u64 = peek(inode, layout!(kind.superblock))?;
    let magic: u64 = peek(superblock, layout!(kind.magic))?;
    let mode: u16 = peek(inode, layout!(kind.mode))?;
    Some(match magic {
        HUGETLBFS => CLASS_HUGE,
        ANONYMOUS_INODES => CLASS_DRIVER,
        _ if mode & KIND != REGULAR => CLASS_DRIVER,
        _ => 0,
    })
}
