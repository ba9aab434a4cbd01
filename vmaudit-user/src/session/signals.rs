//! What wakes a session: signals, and a source that has something.

use std::os::fd::OwnedFd;

use anyhow::{Context as _, anyhow};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use tokio::io::unix::AsyncFd;

/// The signals that a session answers, readable as a descriptor. They are blocked from here on, so the command must
/// have been forked before.
pub struct Signals(AsyncFd<SignalFd>);

/// What a signal asks of the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// A child changed its state.
    Child,
    /// Somebody sent this signal to vmaudit; it is meant for the command.
    PassOn(i32),
    /// The terminal sent it to the whole foreground group; the command has it already.
    Terminal(i32),
}

/// Every signal that would end vmaudit and is not about a fault of its own.
fn answered() -> SigSet {
    let mut set = SigSet::empty();
    for signal in [
        Signal::SIGCHLD,
        Signal::SIGINT,
        Signal::SIGTERM,
        Signal::SIGHUP,
        Signal::SIGQUIT,
        Signal::SIGUSR1,
        Signal::SIGUSR2,
        Signal::SIGALRM,
        Signal::SIGVTALRM,
        Signal::SIGPROF,
        Signal::SIGIO,
        Signal::SIGPWR,
        Signal::SIGSTKFLT,
        Signal::SIGXCPU,
    ] {
        set.add(signal);
    }
    set
}

impl Signals {
    /// Must be called inside the runtime.
    pub fn take() -> anyhow::Result<Self> {
        let set = answered();
        set.thread_block().context("cannot block signals")?;
        let fd = SignalFd::with_flags(&set, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)
            .context("cannot listen to signals")?;
        // SAFETY: the descriptor is owned by what is registered and closed only with it.
        Ok(Self(unsafe { AsyncFd::register(fd) }.context("cannot wait for signals")?))
    }

    /// Waits for the next one.
    pub async fn next(&mut self) -> anyhow::Result<Asked> {
        loop {
            let mut guard = self.0.readable_mut().await.context("cannot wait for signals")?;
            match guard.get_inner_mut().read_signal() {
                Ok(Some(info)) => {
                    let number = i32::try_from(info.ssi_signo).unwrap_or(0);
                    return Ok(match number {
                        libc::SIGCHLD => Asked::Child,
                        // SI_USER and below come from a process, positive codes from the kernel.
                        _ if info.ssi_code > 0 => Asked::Terminal(number),
                        _ => Asked::PassOn(number),
                    });
                }
                Ok(None) => guard.clear_ready(),
                Err(e) => return Err(anyhow!(e)).context("cannot read a signal"),
            }
        }
    }
}

/// Readiness of a source.
pub struct Wake(Option<AsyncFd<OwnedFd>>);

impl Wake {
    /// Ready whenever the source has something; without a descriptor, ticks alone tell. Must be called inside the runtime.
    pub fn new(fd: Option<OwnedFd>) -> anyhow::Result<Self> {
        let register = |fd| {
            // SAFETY: as above.
            unsafe { AsyncFd::register_with_interest(fd, tokio::io::Interest::READABLE) }
        };
        fd.map(register).transpose().map(Self).context("cannot wait for records")
    }

    /// Waits until there may be something.
    pub async fn ready(&self) {
        let Some(fd) = &self.0 else { return std::future::pending().await };
        match fd.readable().await {
            Ok(mut guard) => guard.clear_ready(),
            // Without readiness the tick alone drains; nothing is lost but time.
            Err(_) => std::future::pending().await,
        }
    }
}
