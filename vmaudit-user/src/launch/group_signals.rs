//! Tells a signal that was sent to vmaudit alone from one that was sent to its whole process group.
//!
//! The command is in the same group and has the second kind already; passing it on would deliver it twice, and many
//! programs take a second SIGTERM for "at once". Nothing in a siginfo tells the two apart. So a small process sits in
//! the group with every signal blocked: what is pending there was sent to the group. (The kernel walks a group newest
//! member first, kernel/signal.c:__kill_pgrp_info, so it has the signal before vmaudit sees its own.)

use std::{
    io::{Read as _, Write as _},
    os::{
        fd::{AsRawFd as _, RawFd},
        unix::net::UnixStream,
    },
    time::Duration,
};

use nix::{
    sys::{signal::kill, wait::waitpid},
    unistd::{ForkResult, Pid, fork},
};

use crate::os::{own_children, rights};

/// Longest wait for an answer: somebody may have stopped the witness. Then signals are passed on unasked.
const PATIENCE: Duration = Duration::from_millis(200);

/// An order in the place of a signal's number: the command's process id follows.
const WAKE: u8 = u8::MAX;
/// Between two looks at who is stopped, ms.
const LOOKS: i32 = 100;
/// Looks until vmaudit is stopped, or will not be.
const PATIENT_LOOKS: u32 = 10;

/// A process that only looks which signals it was sent.
pub struct Witness {
    pid: Pid,
    line: UnixStream,
    mute: bool,
}

impl Witness {
    /// Must be called before threads exist.
    pub fn start() -> std::io::Result<Self> {
        let (line, theirs) = UnixStream::pair()?;
        line.set_read_timeout(Some(PATIENCE))?;
        // SAFETY: no other thread exists yet; the child only makes system calls and leaves through _exit.
        match unsafe { fork() }? {
            ForkResult::Parent { child } => {
                own_children::note(child.as_raw());
                Ok(Self { pid: child, line, mute: false })
            }
            ForkResult::Child => watch(theirs.as_raw_fd()),
        }
    }

    /// Whether the whole group was sent this signal since the last question about it.
    pub fn saw(&mut self, signal: i32) -> bool {
        let mut answer = [0];
        let asked = !self.mute && self.line.write_all(&[signal as u8]).is_ok();
        let answered = asked && self.line.read_exact(&mut answer).is_ok();
        // A late answer would be taken for that to the next question.
        self.mute |= !answered;
        answered && answer == [1]
    }
}

impl Witness {
    /// Has vmaudit, which is about to stop with the command, continued when the command is. Nothing is answered.
    pub fn wake_with(&mut self, command: i32) {
        let mut order = [WAKE; 5];
        order[1..].copy_from_slice(&command.to_ne_bytes());
        self.mute |= !self.mute && self.line.write_all(&order).is_err();
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        let _ = kill(self.pid, nix::sys::signal::Signal::SIGKILL);
        let _ = waitpid(self.pid, None);
        own_children::forget(self.pid.as_raw());
    }
}

/// The witness: answers until its line is closed, which happens when vmaudit ends, however it ends.
fn watch(line: RawFd) -> ! {
    // It lives as long as the session and needs no right at all. Refused (by a seccomp policy), it goes on with them.
    let _ = rights::drop_all();
    // SAFETY: plain system calls on memory of this function. The line becomes descriptor 0 and all others are closed,
    // so that no pipe of the caller's stays open through this process.
    unsafe {
        let mut set = std::mem::zeroed::<libc::sigset_t>();
        libc::sigfillset(&raw mut set);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const set, std::ptr::null_mut());
        libc::prctl(libc::PR_SET_NAME, c"vmaudit-witness".as_ptr());
        if libc::dup2(line, 0) < 0 {
            libc::_exit(1);
        }
        libc::syscall(libc::SYS_close_range, 1, libc::c_uint::MAX, 0);
        let mut question = 0u8;
        while libc::read(0, (&raw mut question).cast(), 1) == 1 {
            if question == WAKE {
                let mut command = [0; 4];
                if libc::read(0, command.as_mut_ptr().cast(), command.len()) == 4 {
                    wake_with(i32::from_ne_bytes(command));
                }
                continue;
            }
            libc::sigemptyset(&raw mut set);
            libc::sigaddset(&raw mut set, question.into());
            let now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
            let pending = libc::sigtimedwait(&raw const set, std::ptr::null_mut(), &raw const now) > 0;
            let answer = u8::from(pending);
            libc::write(0, (&raw const answer).cast(), 1);
        }
        libc::_exit(0)
    }
}

/// Continues vmaudit when it is stopped and the command is not, or is gone. Ends when vmaudit goes on, or asks something.
fn wake_with(command: i32) {
    // SAFETY: takes nothing.
    let vmaudit = unsafe { libc::getppid() };
    let mut patience = PATIENT_LOOKS;
    loop {
        let mut line = libc::pollfd { fd: 0, events: libc::POLLIN, revents: 0 };
        // SAFETY: one live pollfd.
        if unsafe { libc::poll(&raw mut line, 1, LOOKS) } > 0 {
            return;
        }
        match (is_stopped(command), is_stopped(vmaudit)) {
            (_, false) if patience <= 1 => return,
            (_, false) => patience -= 1,
            (true, true) => patience = 1,
            (false, true) => {
                // SAFETY: takes numbers only.
                unsafe { libc::kill(vmaudit, libc::SIGCONT) };
                return;
            }
        }
    }
}

/// By /proc/PID/stat; asks for no memory. What cannot be read is not stopped.
fn is_stopped(pid: i32) -> bool {
    let mut path = [0_u8; 32];
    let mut text = [0_u8; 512];
    let mut rest = path.as_mut_slice();
    if write!(rest, "/proc/{pid}/stat\0").is_err() {
        return false;
    }
    // SAFETY: the path ends in NUL, and `text` has room for what is read.
    let read = unsafe {
        let fd = libc::open(path.as_ptr().cast(), libc::O_RDONLY | libc::O_CLOEXEC);
        let read = libc::read(fd, text.as_mut_ptr().cast(), text.len());
        libc::close(fd);
        read
    };
    let text = usize::try_from(read).ok().and_then(|read| text.get(..read)).unwrap_or_default();
    // The name in the parentheses may hold any byte.
    let end = text.iter().rposition(|&byte| byte == b')').unwrap_or(text.len());
    text.get(end + 2) == Some(&b'T')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alone::alone;

    // Both fork, so each is in a process without other threads.

    #[test]
    fn it_tells_its_own_signals() {
        alone(concat!(module_path!(), "::it_tells_its_own_signals"), tells_its_own_signals);
    }

    fn tells_its_own_signals() {
        let mut witness = Witness::start().unwrap();
        assert!(!witness.saw(libc::SIGUSR1));
        kill(witness.pid, nix::sys::signal::Signal::SIGUSR1).unwrap();
        assert!(!witness.saw(libc::SIGTERM));
        assert!(witness.saw(libc::SIGUSR1));
        assert!(!witness.saw(libc::SIGUSR1), "each signal is told once");
    }

    #[test]
    fn a_witness_that_is_gone_says_no() {
        alone(concat!(module_path!(), "::a_witness_that_is_gone_says_no"), gone_says_no);
    }

    fn gone_says_no() {
        let mut witness = Witness::start().unwrap();
        kill(witness.pid, nix::sys::signal::Signal::SIGKILL).unwrap();
        waitpid(witness.pid, None).unwrap();
        assert!(!witness.saw(libc::SIGUSR1));
    }
}
