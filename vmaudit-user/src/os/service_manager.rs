//! What a service manager is told (sd_notify(3)).

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
