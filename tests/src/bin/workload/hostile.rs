//! Names that would harm whoever shows them as they are: of the process, of its threads, of what it maps. The program's own
//! file bears whatever name the test gave it.

use std::ffi::CStr;

use libc::{MAP_PRIVATE, PROT_READ};

use crate::memory::{call, die, errno, leave, must, read, write_all};

/// Of the process, and of a thread: 15 bytes at most. Escapes, a change of direction, no UTF-8, a formula, JSON's end.
const PROCESS: &CStr = c"=1\x1b[31m\n\xff,\"}";
const THREAD: &CStr = c"@\xe2\x80\xaeT\x1b]0;\r\"";
/// Of anonymous memory; the kernel takes printable ones only (mm/madvise.c:is_valid_name_char).
const MEMORY: &CStr = c"=1+1,{'@}";

fn named(name: &CStr) {
    must(
        call(libc::SYS_prctl, [libc::PR_SET_NAME as usize, name.as_ptr() as usize, 0, 0, 0, 0]),
        "PR_SET_NAME",
    );
}

/// Takes its names, maps its own file, is refused a call in a thread of another name, and stands until stdin ends; with
/// each byte from there it is refused one more.
pub fn hostile() -> ! {
    named(PROCESS);
    // SAFETY: a string that lives through the call.
    let file = unsafe { libc::open(c"/proc/self/exe".as_ptr(), libc::O_RDONLY) };
    // SAFETY: a new mapping touches nothing that exists.
    let mapped =
        unsafe { libc::mmap(std::ptr::null_mut(), crate::memory::PAGE, PROT_READ, MAP_PRIVATE, file, 0) };
    if mapped == libc::MAP_FAILED {
        die(99, format_args!("cannot map its own file: {}", errno()));
    }
    name_memory();
    refused();
    write_all(1, b"standing\n");
    let mut byte = [0; 1];
    while read(0, &mut byte) == 1 {
        refused();
        write_all(1, b"refused\n");
    }
    leave(0)
}

/// Where the kernel can (5.17 with CONFIG_ANON_VMA_NAME).
fn name_memory() {
    const PR_SET_VMA: usize = 0x5356_4d41;
    let page = must(crate::memory::mmap(crate::memory::PAGE, PROT_READ, 0), "mmap of a page");
    let _ = call(libc::SYS_prctl, [PR_SET_VMA, 0, page, crate::memory::PAGE, MEMORY.as_ptr() as usize, 0]);
}

/// A thread that asks for more than there are addresses.
fn refused() {
    let thread = std::thread::spawn(|| {
        named(THREAD);
        let answer = crate::memory::mmap(1 << 60, PROT_READ, 0);
        if answer != Err(libc::ENOMEM) {
            die(99, format_args!("2^60 bytes were answered with {answer:?}"));
        }
    });
    if thread.join().is_err() {
        leave(99);
    }
}
