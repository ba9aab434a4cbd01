//! The command under test: started stopped, let go when the hooks are on, as transparent as `env` would be.
//!
//! The child is forked before the runtime and before any thread exist, so it inherits the caller's signal mask,
//! descriptors, terminal and limits unchanged; what Rust's start has changed by then is put back ([`crate::os::inherited`]). It waits
//! for one byte; if vmaudit dies first, it ends without having run anything.

use std::{
    ffi::{CString, OsStr, OsString},
    os::{
        fd::{AsRawFd as _, OwnedFd},
        unix::ffi::OsStrExt,
    },
};

use anyhow::Context as _;
use nix::{
    errno::Errno,
    fcntl::OFlag,
    sys::{
        resource::{RLIM_INFINITY, Resource, getrlimit, setrlimit},
        signal::{SigHandler, Signal, signal},
    },
    unistd::{ForkResult, Pid, fork, getpgid, getpgrp, pipe2},
};

use crate::launch::exit_status::{EXIT_NOT_FOUND, EXIT_OWN_FAILURE, Step, refused};
use crate::launch::group_signals::Witness;
pub use crate::launch::job::Look;
use crate::launch::timers::Timers;
use crate::launch::typing::Typing;
use crate::launch::user::User;
use crate::launch::{job, last_resort};
use crate::model::report::{Exit, Rlimit, Rlimits};
use crate::os::inherited;
use crate::os::rights;
use crate::os::rights::Passed;

/// The command, waiting or at work.
pub struct Child {
    /// Its process id.
    pub pid: Pid,
    /// Capabilities that the caller gave vmaudit and that the command does not get.
    pub withheld: Vec<caps::Capability>,
    /// Limits that it begins with.
    pub rlimits: Option<Rlimits>,
    /// What keeps it from typing into the caller's terminal.
    pub terminal: Typing,
    go: Option<OwnedFd>,
    refused: OwnedFd,
    witness: Option<Witness>,
}

impl Child {
    /// Forks the child; it waits for [`Child::go`]. Must be called before threads exist.
    /// `keep_caps`: also with the caller's ambient capabilities that vmaudit itself uses.
    pub fn prepare(command: &[OsString], user: Option<&User>, keep_caps: bool) -> anyhow::Result<Self> {
        let args = command
            .iter()
            .map(|arg| CString::new(arg.as_bytes()).context("an argument contains a NUL byte"))
            .collect::<anyhow::Result<Vec<_>>>()?;
        let file = args.first().context("no command was given")?.clone();
        let mut argv: Vec<*const libc::c_char> = args.iter().map(|arg| arg.as_ptr()).collect();
        argv.push(std::ptr::null());
        let passed = Passed::new(keep_caps);
        let terminal = user.map_or(Typing::Allowed, Typing::of);
        if inherited::sigchld_ignored() {
            // The kernel would reap the command unasked.
            // SAFETY: SIG_DFL installs no handler.
            unsafe { signal(Signal::SIGCHLD, SigHandler::SigDfl) }.context("cannot wait for children")?;
        }
        // Before the pipes, so that it holds no end of them. Without it signals to the group arrive twice, no more.
        let witness = Witness::start().ok();
        let (wait, go) = pipe2(OFlag::O_CLOEXEC).context("cannot make a pipe")?;
        let (refused, refusal) = pipe2(OFlag::O_CLOEXEC).context("cannot make a pipe")?;
        let rlimits = rlimits();
        let timers = Timers::take();
        // SAFETY: no other thread exists yet; the child only makes system calls and execvp.
        let forked = unsafe { fork() };
        if forked.is_err() {
            timers.give();
        }
        match forked.context("cannot start a process")? {
            ForkResult::Parent { child } => {
                last_resort::waits(child.as_raw(), go.as_raw_fd(), refused.as_raw_fd());
                lift_own_limits();
                let Passed { withheld, .. } = passed;
                Ok(Self { pid: child, withheld, rlimits, terminal, go: Some(go), refused, witness })
            }
            ForkResult::Child => {
                drop(go);
                let (step, errno) = become_command(&wait, user, (&passed, terminal, timers), &file, &argv);
                let _ = nix::unistd::write(&refusal, &[step as u8, errno as i32 as u8]);
                // SAFETY: ends the child without running the parent's destructors or flushing its buffers twice.
                unsafe { libc::_exit(EXIT_NOT_FOUND) }
            }
        }
    }

    /// Lets the command run. Whether it could is told by [`Child::refusal`] when it has ended. Errors: the child is gone.
    pub fn go(&mut self) -> Result<(), Errno> {
        last_resort::runs();
        match self.go.take() {
            Some(go) => nix::unistd::write(&go, b"!").map(drop),
            None => Ok(()),
        }
    }

    /// To be asked when the child has ended: why the command could not be run, with the exit status for the caller (125,
    /// 126 or 127); `None` when it did run.
    pub fn refusal(&self) -> Option<(i32, String)> {
        // End of file: the exec closed the pipe. Two bytes: it failed (errnos fit one byte, include/uapi/asm-generic).
        let mut refusal = [0; 2];
        if nix::unistd::read(&self.refused, &mut refusal) != Ok(2) {
            return None;
        }
        let [step, errno] = refusal;
        Some(refused(step, Errno::from_raw(errno.into())))
    }

    /// Waits for the command's end and does nothing else but what a shell expects of it.
    pub fn wait(&self) -> Exit {
        job::only_wait(self.pid.as_raw())
    }

    /// What has happened to the command since the last look, without waiting.
    pub fn look(&self) -> Look {
        job::look(self.pid.as_raw())
    }

    /// The command was stopped: stops vmaudit as well, where somebody is there to continue it, and then the command.
    pub fn stop_too(&mut self) {
        // Whoever continues the command alone means vmaudit too.
        if let Some(witness) = &mut self.witness {
            witness.wake_with(self.pid.as_raw());
        }
        if job::stop_too() {
            self.signal(libc::SIGCONT);
        }
    }

    /// The terminal's line is cut: the kernel tells the leader of its session alone, which may be vmaudit in the
    /// command's place (drivers/tty/tty_jobctrl.c:tty_signal_session_leader).
    pub fn hung_up(&mut self) {
        // SAFETY: takes a number.
        let leads = unsafe { libc::getsid(0) } == Pid::this().as_raw();
        if leads && !self.witness.as_mut().is_none_or(|witness| witness.saw(libc::SIGHUP)) {
            self.signal(libc::SIGHUP);
        }
    }

    /// Passes on a signal that somebody sent to vmaudit, unless the command was sent it too.
    pub fn pass_on(&mut self, number: i32) {
        let in_group = getpgid(Some(self.pid)) == Ok(getpgrp());
        let has_it = self.witness.as_mut().is_some_and(|witness| witness.saw(number));
        if !(in_group && has_it) {
            self.signal(number);
        }
    }

    /// Sends it a signal; that it may be gone already is no error.
    pub fn signal(&self, number: i32) {
        let _rights = rights::raised(&[caps::Capability::CAP_KILL]);
        // SAFETY: plain integers; the pid is our child, which stays ours until `look` has seen its end.
        unsafe { libc::kill(self.pid.as_raw(), number) };
    }
}

/// Runs the command without anything of vmaudit's beside it but one process that waits, and without that in vmaudit's
/// place, because vmaudit itself cannot go on. Returns how it ended, or why it cannot be run: the exit status and the
/// reason.
pub fn run_instead(
    command: &[OsString],
    user: Option<&User>,
    keep_caps: bool,
) -> Result<Exit, (i32, String)> {
    // SAFETY: no other thread exists yet, and the child goes on as this process would.
    match unsafe { fork() } {
        Ok(ForkResult::Parent { child }) => Ok(job::only_wait(child.as_raw())),
        Ok(ForkResult::Child) | Err(_) => Err(become_instead(command, user, keep_caps)),
    }
}

/// Becomes the command. Returns only when it cannot be run.
fn become_instead(command: &[OsString], user: Option<&User>, keep_caps: bool) -> (i32, String) {
    let args: Option<Vec<CString>> = command.iter().map(|arg| CString::new(arg.as_bytes()).ok()).collect();
    let args = args.unwrap_or_default();
    let Some(file) = args.first() else {
        return (EXIT_OWN_FAILURE, "an argument contains a NUL byte".to_owned());
    };
    let mut argv: Vec<*const libc::c_char> = args.iter().map(|arg| arg.as_ptr()).collect();
    argv.push(std::ptr::null());
    let passed = Passed::new(keep_caps);
    let terminal = user.map_or(Typing::Allowed, Typing::of);
    let rights = passed.take_on().map_err(|_| Errno::last());
    let (step, errno) = exec(rights, user, terminal, file, &argv);
    refused(step as u8, errno)
}

/// In the child: takes on the command's rights, waits, changes identity, execs. Returns only on failure.
fn become_command(
    wait: &OwnedFd,
    user: Option<&User>,
    (passed, terminal, timers): (&Passed, Typing, Timers),
    file: &CString,
    argv: &[*const libc::c_char],
) -> (Step, Errno) {
    // Before it waits: nothing that is vmaudit's own is held for longer than it has to be.
    let rights = passed.take_on().map_err(|_| Errno::last());
    let mut byte = [0];
    loop {
        match nix::unistd::read(wait, &mut byte) {
            Ok(1) => break,
            Err(Errno::EINTR) => {}
            // SAFETY: vmaudit is gone or gave up before anything ran.
            _ => unsafe { libc::_exit(EXIT_OWN_FAILURE) },
        }
    }
    timers.give();
    exec(rights, user, terminal, file, argv)
}

/// The last steps, in the process that is to be the command. Returns only on failure.
fn exec(
    rights: Result<(), Errno>,
    user: Option<&User>,
    terminal: Typing,
    file: &CString,
    argv: &[*const libc::c_char],
) -> (Step, Errno) {
    if let Err(errno) = rights {
        return (Step::Rights, errno);
    }
    // While it is still root: the filter needs that.
    if let Err(errno) = terminal.forbid() {
        return (Step::Terminal, errno);
    }
    if let Some(user) = user {
        let changed = nix::unistd::initgroups(&user.name, user.gid)
            .and_then(|()| nix::unistd::setgid(user.gid))
            .and_then(|()| nix::unistd::setuid(user.uid));
        if let Err(errno) = changed {
            return (Step::User, errno);
        }
    }
    inherited::put_back();
    // SAFETY: `argv` is null-terminated and points at strings that live in the caller.
    unsafe { libc::execvp(file.as_ptr(), argv.as_ptr()) };
    (Step::Exec, Errno::last())
}

/// The limits of this process, which the command inherits.
fn rlimits() -> Option<Rlimits> {
    let of = |resource| {
        let limit = |value| (value != RLIM_INFINITY).then_some(value);
        getrlimit(resource).ok().map(|(soft, hard)| Rlimit { soft: limit(soft), hard: limit(hard) })
    };
    Some(Rlimits {
        address_space: of(Resource::RLIMIT_AS)?,
        data: of(Resource::RLIMIT_DATA)?,
        stack: of(Resource::RLIMIT_STACK)?,
        memlock: of(Resource::RLIMIT_MEMLOCK)?,
        nproc: of(Resource::RLIMIT_NPROC)?,
        nofile: of(Resource::RLIMIT_NOFILE)?,
    })
}

/// The caller's limits are meant for the command, which has them by now. vmaudit takes what it needs where it may, and is
/// told of a report that is too long by an error instead of a signal.
fn lift_own_limits() {
    const DESCRIPTORS: u64 = 4096;
    // SAFETY: SIG_IGN installs no handler.
    let _ = unsafe { signal(Signal::SIGXFSZ, SigHandler::SigIgn) };
    let _rights = rights::raised(&[caps::Capability::CAP_SYS_RESOURCE]);
    for resource in [Resource::RLIMIT_CPU, Resource::RLIMIT_DATA, Resource::RLIMIT_AS] {
        if let Ok((soft, hard)) = getrlimit(resource)
            && soft != RLIM_INFINITY
            && setrlimit(resource, RLIM_INFINITY, RLIM_INFINITY).is_err()
        {
            let _ = setrlimit(resource, hard, hard);
        }
    }
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE)
        && soft < DESCRIPTORS
        && setrlimit(Resource::RLIMIT_NOFILE, DESCRIPTORS, hard.max(DESCRIPTORS)).is_err()
    {
        // Without CAP_SYS_RESOURCE what is allowed must do.
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
}

/// Name of the command for reports: the last part of its path.
pub fn short_name(command: &OsStr) -> String {
    std::path::Path::new(command).file_name().unwrap_or(command).to_string_lossy().into_owned()
}
