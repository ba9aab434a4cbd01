//! Processes that live in the address space of another.

use std::ffi::{c_int, c_void};

use libc::{MAP_HUGETLB, MAP_NORESERVE, PROT_READ, PROT_WRITE};

use crate::memory::{Holes, call, die, errno, leave, mmap, must};
use crate::own::{Own, count};
use crate::processes::{End, Exec, expect_end, reap, this_program};

/// Bytes of the child's stack.
const STACK: usize = 64 * 1024;
/// More than any machine promises, less than there are addresses.
const TOO_MUCH: usize = 1 << 42;
const HUGE_PAGE: usize = 2 << 20;

/// What the child does.
struct Lodger {
    refusals: usize,
    parent: usize,
    room: Holes,
    outlives: bool,
    exec: Option<Exec>,
}

fn too_much(own: &mut Own) {
    match mmap(TOO_MUCH, PROT_READ | PROT_WRITE, 0) {
        Ok(_) => die(99, format_args!("a mapping of {TOO_MUCH} bytes was granted")),
        Err(errno) => own.refuse("mmap", errno, "overcommit"),
    }
}

extern "C" fn live(lodger: *mut c_void) -> c_int {
    // SAFETY: the parent passes a `Lodger` that lies in memory of both.
    let lodger = unsafe { &*lodger.cast::<Lodger>() };
    must(
        call(libc::SYS_prctl, [libc::PR_SET_NAME as usize, c"lodger".as_ptr() as usize, 0, 0, 0, 0]),
        "prctl",
    );
    let first = count();
    (0..lodger.room.pages()).for_each(|i| lodger.room.map(i));
    let mut own = Own::new("lodger", first, first + lodger.room.pages() as u64);
    own.first = Some(first);
    own.last = Some(own.peak);
    (0..lodger.refusals).for_each(|_| too_much(&mut own));
    // The same without huge pages is granted: this one is recovered.
    if mmap(HUGE_PAGE, PROT_READ | PROT_WRITE, MAP_HUGETLB).is_ok() {
        die(99, format_args!("a huge page was granted"));
    }
    must(mmap(HUGE_PAGE, PROT_READ | PROT_WRITE, 0), "mmap of small pages");
    own.last = Some(count());
    own.peak = count().max(own.peak);
    while lodger.outlives && call(libc::SYS_getppid, [0; 6]) == Ok(lodger.parent) {
        must(call(libc::SYS_sched_yield, [0; 6]), "sched_yield");
    }
    own.print();
    if let Some(exec) = &lodger.exec {
        exec.go();
        die(99, format_args!("exec failed"));
    }
    leave(0)
}

/// A child that is refused `lodger` calls for want of memory, and one more that it recovers from, in the address space of this
/// process, which then is refused `own` calls. `how`: `beside` this process, waited for by `vfork`, with an `exec` after that,
/// or `outlives` it.
pub fn lodger(how: &str, lodger: usize, own: usize) -> ! {
    let exec = (how == "exec").then(|| Exec::new(&this_program(), &["burst", "40", "after-exec"]));
    let beside = match how {
        "beside" | "outlives" => 0,
        "vfork" | "exec" => libc::CLONE_VFORK,
        _ => die(2, format_args!("no such lodger: {how}")),
    };
    let stack = must(mmap(STACK, PROT_READ | PROT_WRITE, MAP_NORESERVE), "mmap of the child's stack");
    let (parent, room) = (std::process::id() as usize, Holes::find(3));
    let mut child = Lodger { refusals: lodger, parent, room, outlives: how == "outlives", exec };
    let base = count();
    let mut line = Own::new("host", base, base + 3);
    let flags = libc::CLONE_VM | beside | libc::SIGCHLD;
    let top = (stack + STACK) as *mut c_void;
    // SAFETY: the stack is the child's own, and the argument lives as long as the address space.
    let pid = unsafe { libc::clone(live, top, flags, (&raw mut child).cast()) };
    if pid < 0 {
        die(99, format_args!("clone failed with errno {}", errno()));
    }
    if child.outlives {
        (0..own).for_each(|_| too_much(&mut line));
        line.print();
        leave(0);
    }
    expect_end(pid, reap(pid), End::Exit);
    line.last = Some(count());
    line.peak = count().max(line.peak);
    (0..own).for_each(|_| too_much(&mut line));
    line.print();
    leave(0)
}
