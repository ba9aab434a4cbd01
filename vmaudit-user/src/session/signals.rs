//! What wakes a session: signals, and a source that has something.

use std::os::fd::OwnedFd;

use anyhow::{Context as _, anyhow};
use nix::sys::signal::SigSet;
use nix::sys::signalfd::{SfdFlags, SignalFd};
use tokio::io::unix::AsyncFd;

use super::marks::Marks;
use crate::launch::signals;
pub use crate::launch::signals::Asked;

/// The signals that a session answers, readable as a descriptor. They are blocked from here on, so the command must
/// have been forked before.
pub struct Signals(AsyncFd<SignalFd>);

impl Signals {
    /// Must be called inside the runtime.
    pub fn take() -> anyhow::Result<Self> {
        // SAFETY: made by sigemptyset and sigaddset.
        let set = unsafe { SigSet::from_sigset_t_unchecked(signals::answered()) };
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
                    return Ok(signals::meaning(number, info.ssi_code, info.ssi_pid));
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

    /// The same of who asks for marks. Must be called inside the runtime.
    pub(super) fn of(marks: Option<&Marks>) -> anyhow::Result<Self> {
        Self::new(marks.map(Marks::wake_fd).transpose().context("cannot wait for marks")?)
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
