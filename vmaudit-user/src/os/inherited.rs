//! What the caller gave this process, read before Rust's runtime changes it: the runtime ignores SIGPIPE and opens
//! /dev/null for standard descriptors that are closed (library/std/src/sys/pal/unix/mod.rs:init). The command must find
//! both as the caller left them.

use std::sync::atomic::{AtomicBool, Ordering};

static SIGPIPE_IGNORED: AtomicBool = AtomicBool::new(false);
static SIGCHLD_IGNORED: AtomicBool = AtomicBool::new(false);
static CLOSED: [AtomicBool; 3] = [const { AtomicBool::new(false) }; 3];

/// The C library calls this before `main`, in which Rust's runtime starts.
#[used]
#[unsafe(link_section = ".init_array")]
static LOOK: extern "C" fn() = look;

extern "C" fn look() {
    SIGPIPE_IGNORED.store(ignored(libc::SIGPIPE), Ordering::Relaxed);
    SIGCHLD_IGNORED.store(ignored(libc::SIGCHLD), Ordering::Relaxed);
    for (fd, closed) in (0..).zip(&CLOSED) {
        // SAFETY: asks for the descriptor's flags; an invalid descriptor is an answer.
        closed.store(unsafe { libc::fcntl(fd, libc::F_GETFD) } < 0, Ordering::Relaxed);
    }
}

fn ignored(signal: libc::c_int) -> bool {
    // SAFETY: all zero is a valid sigaction, and with a null new action the call only reads.
    unsafe {
        let mut now = std::mem::zeroed::<libc::sigaction>();
        libc::sigaction(signal, std::ptr::null(), &raw mut now) == 0 && now.sa_sigaction == libc::SIG_IGN
    }
}

/// The caller ignores SIGPIPE.
pub fn sigpipe_ignored() -> bool {
    SIGPIPE_IGNORED.load(Ordering::Relaxed)
}

/// The caller ignores SIGCHLD: the kernel then reaps children by itself, and nobody can learn how they ended.
pub fn sigchld_ignored() -> bool {
    SIGCHLD_IGNORED.load(Ordering::Relaxed)
}

/// Those of the descriptors 0, 1 and 2 that the caller had closed.
pub fn closed_descriptors() -> impl Iterator<Item = libc::c_int> {
    (0..).zip(&CLOSED).filter(|(_, closed)| closed.load(Ordering::Relaxed)).map(|(fd, _)| fd)
}
