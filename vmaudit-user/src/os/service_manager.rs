//! What a service manager is told (sd_notify(3)), and whether its journal reads.

use std::io;
use std::os::fd::AsFd as _;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// Tells it, if there is one: `READY=1`, `STOPPING=1`. Whether it was told.
pub fn tell(state: &str) -> bool {
    let Some(name) = std::env::var_os("NOTIFY_SOCKET") else { return false };
    let address = match name.as_bytes().split_first() {
        Some((b'@', rest)) => SocketAddr::from_abstract_name(rest),
        Some(_) => SocketAddr::from_pathname(&name),
        None => return false,
    };
    let told = || {
        let socket = UnixDatagram::unbound()?;
        // It reads when it likes; nobody waits for it.
        socket.set_nonblocking(true)?;
        socket.send_to_addr(state.as_bytes(), &address?)
    };
    told().is_ok()
}

/// It started this process, and wants to be told when it is ready.
pub fn is_there() -> bool {
    std::env::var_os("NOTIFY_SOCKET").is_some()
}

/// Standard error is read by the journal (systemd.exec(5), `JOURNAL_STREAM`).
pub fn journal_reads_stderr() -> bool {
    let Ok(named) = std::env::var("JOURNAL_STREAM") else { return false };
    let Ok(is) = rustix::fs::fstat(io::stderr().as_fd()) else { return false };
    named == format!("{}:{}", is.st_dev, is.st_ino)
}
