//! The command runs also when vmaudit gets no memory (RLIMIT_DATA, RLIMIT_AS): instead of aborting, it goes on as a
//! process that only waits. Nothing here asks for memory.

use std::alloc::{GlobalAlloc, Layout, System};
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicI32, Ordering};

use nix::errno::Errno;

use crate::launch::exit_status::{EXIT_OWN_FAILURE, end_like, refused_with};
use crate::launch::job;
use crate::model::report::Exit;
use crate::os::{inherited, rights};

/// The process that runs a command; 0: none does, or it has no last resort any more.
static ARMED: AtomicI32 = AtomicI32::new(0);
/// The command's process; 0: there is none yet.
static CHILD: AtomicI32 = AtomicI32::new(0);
/// Where it is let go, and where it says why it could not run; -1: it needs neither.
static GO: AtomicI32 = AtomicI32::new(-1);
static REFUSED: AtomicI32 = AtomicI32::new(-1);
/// What the command ended with: a status, or a signal below 0.
static ENDED: AtomicI32 = AtomicI32::new(NOT_ENDED);
const NOT_ENDED: i32 = i32::MIN;

/// From here on this process is there for a command. To be called before anything else asks for memory.
pub fn arm() {
    ARMED.store(own_pid(), Ordering::Relaxed);
}

/// The command's process waits to be let go.
pub fn waits(pid: i32, go: RawFd, refused: RawFd) {
    GO.store(go, Ordering::Relaxed);
    REFUSED.store(refused, Ordering::Relaxed);
    CHILD.store(pid, Ordering::Relaxed);
    arm();
}

/// It was let go.
pub fn runs() {
    GO.store(-1, Ordering::Relaxed);
}

/// It has ended, with this.
pub fn ended(exit: Exit) {
    let told = exit.code.or(exit.signal.map(|signal| -signal)).unwrap_or(EXIT_OWN_FAILURE);
    ENDED.store(told, Ordering::Relaxed);
}

/// The usual memory, with a last resort.
pub struct Memory;

// SAFETY: the system's allocator, whose answers are passed on unchanged.
unsafe impl GlobalAlloc for Memory {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller keeps the promises that the system's allocator wants.
        unsafe { or_last_resort(System.alloc(layout)) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as above.
        unsafe { or_last_resort(System.alloc_zeroed(layout)) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: as above.
        unsafe { or_last_resort(System.realloc(memory, layout, size)) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(memory, layout) }
    }
}

fn or_last_resort(memory: *mut u8) -> *mut u8 {
    // A helper that was forked has no command.
    if memory.is_null() && ARMED.load(Ordering::Relaxed) == own_pid() {
        ARMED.store(0, Ordering::Relaxed);
        only_the_command();
    }
    memory
}

fn own_pid() -> i32 {
    // SAFETY: takes nothing.
    unsafe { libc::getpid() }
}

fn say(text: &str) {
    // SAFETY: `text` lives through the call; there is nobody to tell of an error.
    unsafe { libc::write(2, text.as_ptr().cast(), text.len()) };
}

/// Does what is left to do for the command, and ends. Returns when there is no command that could be run.
fn only_the_command() {
    let told = ENDED.load(Ordering::Relaxed);
    if told != NOT_ENDED {
        say("vmaudit: there is no memory for the report\n");
        let (code, signal) = if told < 0 { (None, Some(-told)) } else { (Some(told), None) };
        end(Exit { code, signal });
    }
    let (child, go) = (CHILD.load(Ordering::Relaxed), GO.load(Ordering::Relaxed));
    if child == 0 {
        return run_it();
    }
    let what = if go < 0 { "goes on" } else { "runs" };
    say("vmaudit: there is no memory to watch in (RLIMIT_DATA or RLIMIT_AS): the command ");
    say(what);
    say(" without being watched, and there is no report\n");
    if go >= 0 {
        // SAFETY: one byte; a child that is gone is an answer.
        unsafe { libc::write(go, c"!".as_ptr().cast(), 1) };
    }
    let exit = job::only_wait(child);
    let mut refusal = [0_u8; 2];
    // SAFETY: `refusal` lives through the call.
    if unsafe { libc::read(REFUSED.load(Ordering::Relaxed), refusal.as_mut_ptr().cast(), 2) } == 2 {
        let [step, errno] = refusal;
        let (status, why) = refused_with(step, Errno::from_raw(errno.into()));
        for part in ["vmaudit: cannot run the command: ", why, "\n"] {
            say(part);
        }
        end_with(status);
    }
    end(exit)
}

/// Runs the command of the command line, which nobody has read yet.
fn run_it() {
    // What is lent to vmaudit is not the command's, and to take it away needs memory.
    let Some(argv) = inherited::plain_command().filter(|_| !rights::lent()) else {
        return say("vmaudit: there is no memory to run the command in\n");
    };
    say(
        "vmaudit: there is no memory to watch in (RLIMIT_DATA or RLIMIT_AS): the command runs without being watched, and \
         there is no report\n",
    );
    // SAFETY: no other thread exists; the child only makes system calls.
    let child = unsafe { libc::fork() };
    if child > 0 {
        end(job::only_wait(child));
    }
    inherited::put_back();
    // SAFETY: the kernel's own argument vector, which ends with null.
    unsafe { libc::execvp(*argv, argv) };
    let errno = Errno::last();
    let (status, why) = refused_with(u8::MAX, errno);
    for part in ["vmaudit: cannot run the command: ", why, "\n"] {
        say(part);
    }
    end_with(status)
}

/// Ends as the command did, and never with 0: there is no report.
fn end(exit: Exit) -> ! {
    end_with(if exit.code == Some(0) { EXIT_OWN_FAILURE } else { end_like(exit) })
}

fn end_with(status: i32) -> ! {
    // SAFETY: ends the process.
    unsafe { libc::_exit(status) }
}
