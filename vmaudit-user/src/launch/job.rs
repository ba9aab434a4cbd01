//! The command as a shell's job: when it stops, vmaudit stops, so that the shell sees a stopped job; and when either is
//! continued, so is the other. No memory is asked for here: see [`crate::launch::last_resort`].

use std::mem::MaybeUninit;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::errno::Errno;

use crate::launch::signals::{self, Asked};
use crate::model::report::Exit;

/// What has happened to the command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// Nothing new.
    Running,
    /// Stopped by a signal.
    Stopped,
    /// Ended.
    Ended(Exit),
}

/// What has happened to a child since the last look, without waiting.
pub fn look(pid: i32) -> Look {
    let mut status = 0;
    // nix knows no real-time signals and would turn a death by one into an error, after the fact was taken.
    // SAFETY: `status` lives through the call.
    match unsafe { libc::waitpid(pid, &raw mut status, libc::WNOHANG | libc::WUNTRACED) } {
        0 => Look::Running,
        n if n < 0 && Errno::last() == Errno::ECHILD => Look::Ended(Exit { code: None, signal: None }),
        n if n < 0 => Look::Running,
        _ if libc::WIFEXITED(status) => {
            Look::Ended(Exit { code: Some(libc::WEXITSTATUS(status)), signal: None })
        }
        _ if libc::WIFSIGNALED(status) => {
            Look::Ended(Exit { code: None, signal: Some(libc::WTERMSIG(status)) })
        }
        _ if libc::WIFSTOPPED(status) => Look::Stopped,
        _ => Look::Running,
    }
}

/// Somebody has continued this process.
static CONTINUED: AtomicBool = AtomicBool::new(false);

extern "C" fn continued(_: libc::c_int) {
    CONTINUED.store(true, Ordering::Relaxed);
}

/// Stops this process until somebody continues it. By SIGTSTP, because the kernel ignores it where no shell is there to
/// do that (an orphaned group, kernel/signal.c:get_signal); then this returns `false` at once.
pub fn stop_too() -> bool {
    CONTINUED.store(false, Ordering::Relaxed);
    // SAFETY: all zero is a valid sigaction; the handler only stores.
    unsafe {
        let mut action = std::mem::zeroed::<libc::sigaction>();
        action.sa_sigaction = continued as extern "C" fn(libc::c_int) as libc::sighandler_t;
        action.sa_flags = libc::SA_RESTART;
        libc::sigaction(libc::SIGCONT, &raw const action, std::ptr::null_mut());
        libc::raise(libc::SIGTSTP);
    }
    CONTINUED.load(Ordering::Relaxed)
}

/// Waits for the end of a child and does nothing else but to pass signals on and to stop with it.
pub fn only_wait(pid: i32) -> Exit {
    let set = signals::answered();
    // SAFETY: `set` is valid, and nobody wants the old mask.
    unsafe { libc::sigprocmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()) };
    loop {
        match look(pid) {
            Look::Ended(exit) => return exit,
            Look::Stopped if stop_too() => send(pid, libc::SIGCONT),
            Look::Stopped | Look::Running => {}
        }
        let mut info = MaybeUninit::<libc::siginfo_t>::uninit();
        // A backstop: every change of a child's state sends SIGCHLD.
        let while_nothing_comes = libc::timespec { tv_sec: 1, tv_nsec: 0 };
        // SAFETY: all three live through the call; `info` is filled when the answer is a signal.
        unsafe {
            let number =
                libc::sigtimedwait(&raw const set, info.as_mut_ptr(), &raw const while_nothing_comes);
            if number > 0 {
                let info = info.assume_init();
                if let Asked::PassOn(number) =
                    signals::meaning(number, info.si_code, info.si_pid().cast_unsigned())
                {
                    send(pid, number);
                }
            }
        }
    }
}

fn send(pid: i32, number: i32) {
    // SAFETY: plain integers; that it may be gone already is no error.
    unsafe { libc::kill(pid, number) };
}
