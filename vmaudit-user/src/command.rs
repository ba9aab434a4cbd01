//! The command under test: started stopped, let go when the hooks are on, as transparent as `env` would be.
//!
//! The child is forked before the runtime and before any thread exist, so it inherits the caller's signal mask,
//! dispositions, descriptors, terminal and limits unchanged. It waits for one byte; if vmaudit dies first, it ends
//! without having run anything.

use std::{
    ffi::{CString, OsStr, OsString},
    io,
    os::{fd::OwnedFd, unix::ffi::OsStrExt},
};

use anyhow::{Context as _, anyhow};
use nix::{
    errno::Errno,
    fcntl::OFlag,
    sys::{
        signal::{SigHandler, Signal, signal},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::{ForkResult, Gid, Pid, Uid, fork, pipe2},
};

use crate::report::Exit;

/// vmaudit itself failed, or was called wrongly.
pub const EXIT_OWN_FAILURE: i32 = 125;
/// The command was found but cannot be run.
pub const EXIT_NOT_EXECUTABLE: i32 = 126;
/// The command was not found.
pub const EXIT_NOT_FOUND: i32 = 127;

/// Whom the command runs as.
#[derive(Clone, Debug)]
pub struct User {
    name: CString,
    uid: Uid,
    gid: Gid,
}

impl User {
    /// Looks a user up by name or number. Errors: unknown user, unreadable user database.
    pub fn find(name: &str) -> anyhow::Result<Self> {
        let user = match (nix::unistd::User::from_name(name), name.parse().ok()) {
            (Ok(Some(user)), _) => Some(user),
            (_, Some(uid)) => nix::unistd::User::from_uid(Uid::from_raw(uid)).ok().flatten(),
            (Err(e), None) => return Err(e).context("cannot read the user database"),
            (Ok(None), None) => None,
        };
        match (user, name.parse()) {
            (Some(user), _) => Ok(Self { name: CString::new(user.name)?, uid: user.uid, gid: user.gid }),
            // A number without an entry is still a valid id, as for chown.
            (None, Ok(id)) => {
                Ok(Self { name: CString::new(name)?, uid: Uid::from_raw(id), gid: Gid::from_raw(id) })
            }
            (None, Err(_)) => Err(anyhow!("there is no user named {name}")),
        }
    }
}

/// The command, waiting or at work.
pub struct Child {
    /// Its process id.
    pub pid: Pid,
    go: Option<OwnedFd>,
    refused: OwnedFd,
}

impl Child {
    /// Forks the child; it waits for [`Child::go`]. Must be called before threads exist.
    pub fn prepare(command: &[OsString], user: Option<&User>) -> anyhow::Result<Self> {
        let args = command
            .iter()
            .map(|arg| CString::new(arg.as_bytes()).context("an argument contains a NUL byte"))
            .collect::<anyhow::Result<Vec<_>>>()?;
        let file = args.first().context("no command was given")?.clone();
        let mut argv: Vec<*const libc::c_char> = args.iter().map(|arg| arg.as_ptr()).collect();
        argv.push(std::ptr::null());
        let (wait, go) = pipe2(OFlag::O_CLOEXEC).context("cannot make a pipe")?;
        let (refused, refusal) = pipe2(OFlag::O_CLOEXEC).context("cannot make a pipe")?;
        // SAFETY: no other thread exists yet; the child only makes system calls and execvp.
        match unsafe { fork() }.context("cannot start a process")? {
            ForkResult::Parent { child } => Ok(Self { pid: child, go: Some(go), refused }),
            ForkResult::Child => {
                drop(go);
                let errno = become_command(&wait, user, &file, &argv);
                let _ = nix::unistd::write(&refusal, &(errno as i32).to_ne_bytes());
                // SAFETY: ends the child without running the parent's destructors or flushing its buffers twice.
                unsafe { libc::_exit(EXIT_NOT_FOUND) }
            }
        }
    }

    /// Lets the command run. `Err` holds the exit status for the caller (126 or 127) and the reason.
    pub fn go(&mut self) -> Result<(), (i32, io::Error)> {
        let own = |e: Errno| (EXIT_OWN_FAILURE, io::Error::from(e));
        if let Some(go) = self.go.take() {
            nix::unistd::write(&go, b"!").map_err(own)?;
        }
        let mut errno = [0; 4];
        // End of file: the exec closed the pipe. Four bytes: it failed.
        loop {
            match nix::unistd::read(&self.refused, &mut errno) {
                Ok(4) => break,
                Ok(_) => return Ok(()),
                Err(Errno::EINTR) => {}
                Err(e) => return Err(own(e)),
            }
        }
        let _ = waitpid(self.pid, None);
        let error = io::Error::from_raw_os_error(i32::from_ne_bytes(errno));
        let status =
            if error.kind() == io::ErrorKind::NotFound { EXIT_NOT_FOUND } else { EXIT_NOT_EXECUTABLE };
        Err((status, error))
    }

    /// What has happened to the command since the last look, without waiting.
    pub fn look(&self) -> Look {
        match waitpid(self.pid, Some(WaitPidFlag::WNOHANG | WaitPidFlag::WUNTRACED)) {
            Ok(WaitStatus::Exited(_, code)) => Look::Ended(Exit { code: Some(code), signal: None }),
            Ok(WaitStatus::Signaled(_, signal, _)) => {
                Look::Ended(Exit { code: None, signal: Some(signal as i32) })
            }
            // Stopped as a shell's job; a SIGSTOP from somewhere is not ours to imitate.
            Ok(WaitStatus::Stopped(_, Signal::SIGTSTP | Signal::SIGTTIN | Signal::SIGTTOU)) => Look::Stopped,
            // Signals without a name in nix (real-time ones) end up here when they kill: ECHILD at the next look.
            Err(Errno::ECHILD) => Look::Ended(Exit { code: None, signal: None }),
            _ => Look::Running,
        }
    }

    /// Sends it a signal; that it may be gone already is no error.
    pub fn signal(&self, number: i32) {
        // SAFETY: plain integers; the pid is our child, which stays ours until `look` has seen its end.
        unsafe { libc::kill(self.pid.as_raw(), number) };
    }
}

/// See [`Child::look`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// Nothing new.
    Running,
    /// Stopped by a signal.
    Stopped,
    /// Ended.
    Ended(Exit),
}

/// In the child: waits, changes identity, execs. Returns only on failure.
fn become_command(
    wait: &OwnedFd,
    user: Option<&User>,
    file: &CString,
    argv: &[*const libc::c_char],
) -> Errno {
    let mut byte = [0];
    loop {
        match nix::unistd::read(wait, &mut byte) {
            Ok(1) => break,
            Err(Errno::EINTR) => {}
            // SAFETY: vmaudit is gone or gave up before anything ran.
            _ => unsafe { libc::_exit(EXIT_OWN_FAILURE) },
        }
    }
    // Rust ignores SIGPIPE in its own process; the command expects the usual.
    // SAFETY: SIG_DFL installs no handler.
    let _ = unsafe { signal(Signal::SIGPIPE, SigHandler::SigDfl) };
    if let Some(user) = user {
        let changed = nix::unistd::initgroups(&user.name, user.gid)
            .and_then(|()| nix::unistd::setgid(user.gid))
            .and_then(|()| nix::unistd::setuid(user.uid));
        if let Err(errno) = changed {
            return errno;
        }
    }
    // SAFETY: `argv` is null-terminated and points at strings that live in the caller.
    unsafe { libc::execvp(file.as_ptr(), argv.as_ptr()) };
    Errno::last()
}

/// Ends vmaudit as the command ended: with its status, or by its signal.
pub fn end_like(exit: Exit) -> i32 {
    let Some(number) = exit.signal else { return exit.code.unwrap_or(EXIT_OWN_FAILURE) };
    // The core dump, if there is one to be had, is the command's.
    let _ = nix::sys::resource::setrlimit(nix::sys::resource::Resource::RLIMIT_CORE, 0, 0);
    // SAFETY: default disposition and an unblocked mask, then the signal to ourselves.
    unsafe {
        libc::signal(number, libc::SIG_DFL);
        let mut set = std::mem::zeroed::<libc::sigset_t>();
        libc::sigemptyset(&raw mut set);
        libc::sigaddset(&raw mut set, number);
        libc::sigprocmask(libc::SIG_UNBLOCK, &raw const set, std::ptr::null_mut());
        libc::raise(number);
    }
    128 + number // the signal does not kill by default
}

/// Name of the command for reports: the last part of its path.
pub fn short_name(command: &OsStr) -> String {
    std::path::Path::new(command).file_name().unwrap_or(command).to_string_lossy().into_owned()
}
