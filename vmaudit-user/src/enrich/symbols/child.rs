//! A child process that can be left behind: whatever it waits for, nobody waits for it without an end, and it holds
//! nothing that others wait for (no output, no pipe but its own).

use std::{
    fs::File,
    io,
    os::fd::{AsRawFd as _, RawFd},
    panic::{AssertUnwindSafe, catch_unwind},
    time::{Duration, Instant},
};

use nix::{
    sys::{
        resource::{Resource, setrlimit},
        signal::{SigHandler, SigSet, Signal, kill},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::{ForkResult, Pid, fork},
};

use super::BACKSTOP;
use crate::os::own_children;

/// Time for a killed child to end. One in state D, as over a dead file server, does not.
const PATIENCE: Duration = Duration::from_secs(BACKSTOP);

/// Signals by which a child ends: faults in a mapped file or of its own, out of memory, out of time.
const ENDS: [Signal; 7] = [
    Signal::SIGSEGV,
    Signal::SIGBUS,
    Signal::SIGILL,
    Signal::SIGFPE,
    Signal::SIGABRT,
    Signal::SIGPROF,
    Signal::SIGXCPU,
];

/// A child process of ours.
#[derive(Debug)]
pub struct Child(Pid);

impl Child {
    /// Starts one that does `work` with no other descriptors than `keep`, and standard ones that lead nowhere.
    pub fn start(keep: &[RawFd], work: impl FnOnce()) -> io::Result<Self> {
        // SAFETY: vmaudit has one thread here, so no lock is held by another one; the child leaves through _exit.
        match unsafe { fork() }? {
            ForkResult::Child => {
                let _ = catch_unwind(AssertUnwindSafe(|| {
                    std::panic::set_hook(Box::new(|_| {}));
                    alone(keep);
                    work();
                }));
                // SAFETY: ends this process without running anything of the parent's.
                unsafe { libc::_exit(0) }
            }
            ForkResult::Parent { child } => {
                own_children::note(child.as_raw());
                Ok(Self(child))
            }
        }
    }

    /// Its process id.
    #[cfg(test)]
    pub fn id(&self) -> i32 {
        self.0.as_raw()
    }

    /// Asks the kernel to end it.
    pub fn kill(&self) {
        let _ = kill(self.0, Signal::SIGKILL);
    }

    /// Kills it and waits for its end. `false`: it does not end, and is left behind.
    pub fn end(self) -> bool {
        self.kill();
        let until = Instant::now() + PATIENCE;
        loop {
            match waitpid(self.0, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::StillAlive) if Instant::now() >= until => return false,
                Ok(WaitStatus::StillAlive) => std::thread::sleep(Duration::from_millis(1)),
                Err(nix::errno::Errno::EINTR) => {}
                _ => {
                    own_children::forget(self.0.as_raw());
                    return true;
                }
            }
        }
    }
}

/// In the child: nothing of the parent's but `keep`.
fn alone(keep: &[RawFd]) {
    dies_with_parent();
    let _ = setrlimit(Resource::RLIMIT_CORE, 0, 0);
    // What a file or a limit does to it ends it; a handler could not, where system calls are refused.
    let mut own = SigSet::empty();
    for signal in ENDS {
        // SAFETY: no handler is set.
        let _ = unsafe { nix::sys::signal::signal(signal, SigHandler::SigDfl) };
        own.add(signal);
    }
    let _ = own.thread_unblock();
    if let Ok(null) = File::options().read(true).write(true).open("/dev/null") {
        for fd in 0..=2 {
            // SAFETY: no Rust object owns the standard descriptors.
            unsafe { libc::dup2(null.as_raw_fd(), fd) };
        }
    } else {
        close(0, 2);
    }
    let mut keep: Vec<RawFd> = keep.iter().copied().filter(|&fd| fd > 2).collect();
    keep.sort_unstable();
    let mut from = 3;
    for fd in keep {
        if from < fd {
            close(from, fd - 1);
        }
        from = fd + 1;
    }
    close(from, RawFd::MAX);
}

/// Changes of user or rights take this back, so it is said again after them (kernel/cred.c:commit_creds, all versions).
pub fn dies_with_parent() {
    // SAFETY: takes numbers only.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL, 0, 0, 0) };
}

fn close(first: RawFd, last: RawFd) {
    // SAFETY: takes numbers only; nothing of the parent's that these descriptors belong to is used in the child.
    if unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) } == 0 {
        return;
    }
    // Before Linux 5.9.
    let open = std::fs::read_dir("/proc/self/fd").into_iter().flatten().flatten();
    let open: Vec<RawFd> = open.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    for fd in open.into_iter().filter(|fd| (first..=last).contains(fd)) {
        // SAFETY: as above.
        unsafe { libc::close(fd) };
    }
}
