//! Processes that ran before the session.

use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};

use anyhow::anyhow;

/// A process that is followed, held by a descriptor so that a reused pid is nobody's.
pub struct Root(OwnedFd);

impl Root {
    /// Errors: no such process, or a thread's number.
    pub fn hold(pid: u32) -> anyhow::Result<Self> {
        let Ok(pid) = i32::try_from(pid) else { return Err(anyhow!("there is no process {pid}")) };
        // SAFETY: takes numbers only (Linux 5.3 and later; eBPF with a ring buffer needs 5.8 anyway).
        let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
        if fd < 0 {
            return Err(match io::Error::last_os_error() {
                e if e.raw_os_error() == Some(libc::ESRCH) => anyhow!("there is no process {pid}"),
                // EINVAL: such numbers belong to threads.
                e => anyhow!(e).context(format!("cannot follow process {pid}")),
            });
        }
        // SAFETY: a fresh descriptor that nobody else owns.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd as i32) }))
    }

    /// All its threads have ended.
    pub(super) fn ended(&self) -> bool {
        let mut poll = libc::pollfd { fd: self.0.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: one live pollfd.
        unsafe { libc::poll(&raw mut poll, 1, 0) > 0 }
    }
}
