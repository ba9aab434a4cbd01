//! Where a server listens: an address and port, a Unix socket, or a socket that the service manager hands over.

use std::fmt;
use std::io;
use std::net::TcpListener;
use std::os::fd::{AsFd as _, AsRawFd as _, FromRawFd as _, OwnedFd, RawFd};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Context as _, anyhow, bail};
use rustix::net::{AddressFamily, SocketType, sockopt};

use crate::text::clean;

/// The first descriptor that a service manager hands over (sd_listen_fds(3)).
const FIRST_HANDED_OVER: RawFd = 3;

/// Of a socket's path (struct sockaddr_un: 108 with the zero at its end).
const LONGEST_PATH: usize = 107;

/// What was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// `ADDR:PORT`, the address by number or name; an empty one: all.
    Tcp(String, u16),
    /// A path.
    Unix(PathBuf),
    /// The socket of the service manager.
    HandedOver,
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const RIGHT: &str = "write ADDRESS:PORT, unix:PATH or systemd, for example 127.0.0.1:9747";
        if text == "systemd" {
            return Ok(Self::HandedOver);
        }
        if let Some(path) = text.strip_prefix("unix:") {
            return match path {
                "" => Err(RIGHT.into()),
                path => Ok(Self::Unix(path.into())),
            };
        }
        let (host, port) = text.rsplit_once(':').ok_or(RIGHT)?;
        let port = port.parse().map_err(|_| format!("{} is no port: {RIGHT}", clean(port)))?;
        let host = match host.strip_prefix('[') {
            Some(inner) => inner.strip_suffix(']').ok_or(RIGHT)?,
            None if host.contains(':') => return Err("an IPv6 address stands in brackets: [::1]:9747".into()),
            None => host,
        };
        Ok(Self::Tcp(host.to_owned(), port))
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(host, port) if host.contains(':') => write!(f, "[{}]:{port}", clean(host)),
            Self::Tcp(host, port) => write!(f, "{}:{port}", clean(host)),
            Self::Unix(path) => write!(f, "unix:{}", clean(&path.to_string_lossy())),
            Self::HandedOver => f.write_str("the socket of systemd"),
        }
    }
}

/// A socket that listens.
#[derive(Debug)]
pub enum Listener {
    /// TCP.
    Tcp(TcpListener),
    /// Unix, with the file that goes with it, if it is ours.
    Unix(UnixListener, Option<SocketFile>),
}

impl Listener {
    /// Opens it, non-blocking. Errors, as a sentence: it is in use, or not to be had.
    pub fn open(address: &Address) -> anyhow::Result<Self> {
        let listener = match address {
            Address::Tcp(host, port) => {
                let tcp = match host.as_str() {
                    // A kernel may do without IPv6.
                    "" => TcpListener::bind(("::", *port)).or_else(|e| match e.raw_os_error() {
                        Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL) => {
                            TcpListener::bind(("0.0.0.0", *port))
                        }
                        _ => Err(e),
                    }),
                    host => TcpListener::bind((host, *port)),
                };
                Self::Tcp(
                    tcp.map_err(|e| not_to_be_had(e, *port))
                        .with_context(|| format!("cannot listen on {address}"))?,
                )
            }
            Address::Unix(path) => {
                let unix = give_way(path)
                    .and_then(|()| UnixListener::bind(path).map_err(plain))
                    .with_context(|| format!("cannot listen on {address}"))?;
                Self::Unix(unix, SocketFile::of(path))
            }
            Address::HandedOver => handed_over()?,
        };
        match &listener {
            Self::Tcp(tcp) => tcp.set_nonblocking(true),
            Self::Unix(unix, _) => unix.set_nonblocking(true),
        }
        .context("cannot listen")?;
        Ok(listener)
    }

    /// Others than this machine may reach it.
    pub fn is_open_to_others(&self) -> bool {
        match self {
            Self::Tcp(tcp) => {
                tcp.local_addr().is_ok_and(|address| !address.ip().to_canonical().is_loopback())
            }
            Self::Unix(..) => false,
        }
    }

    /// Where it listens, for people.
    pub fn words(&self) -> String {
        match self {
            Self::Tcp(tcp) => match tcp.local_addr() {
                Ok(address) => format!("http://{address}/metrics"),
                Err(_) => "TCP".to_owned(),
            },
            Self::Unix(unix, _) => {
                let address = unix.local_addr().ok();
                let path = address.as_ref().and_then(|address| address.as_pathname());
                path.map_or_else(|| "a Unix socket".into(), |path| format!("unix:{}", path.display()))
            }
        }
    }
}

/// The file of a Unix socket, which goes with it.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    identity: (u64, u64),
}

impl SocketFile {
    fn of(path: &Path) -> Option<Self> {
        identity(path).map(|identity| Self { path: path.to_owned(), identity })
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if identity(&self.path) == Some(self.identity) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    path.symlink_metadata().ok().map(|is| (is.dev(), is.ino()))
}

/// Removes a socket that a server of before has left there. Errors: one is there, or something else is.
fn give_way(path: &Path) -> anyhow::Result<()> {
    if path.as_os_str().len() > LONGEST_PATH {
        bail!(
            "the path of a socket may have {LONGEST_PATH} bytes, and this one has {}",
            path.as_os_str().len()
        );
    }
    let Ok(there) = path.symlink_metadata() else { return Ok(()) };
    if !there.file_type().is_socket() {
        bail!("something that is no socket is there already, and stays");
    }
    match UnixStream::connect(path) {
        Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => {
            std::fs::remove_file(path).map_err(plain).context("an old socket is in the way")
        }
        _ => bail!("somebody listens there already"),
    }
}

/// With what helps, where that is known.
fn not_to_be_had(error: io::Error, port: u16) -> anyhow::Error {
    let help = match error.raw_os_error() {
        Some(libc::EADDRINUSE) => {
            format!(": ss -ltnp 'sport = :{port}' names who has it; --listen takes another")
        }
        Some(libc::EACCES) if port < 1024 => {
            ": a port below 1024 takes root, or CAP_NET_BIND_SERVICE".to_owned()
        }
        _ => String::new(),
    };
    anyhow!("{}{help}", plain(error))
}

/// The words of the system without its number.
fn plain(error: io::Error) -> anyhow::Error {
    match error.raw_os_error() {
        Some(number) => anyhow!("{}", nix::errno::Errno::from_raw(number).desc()),
        None => anyhow!("{error}"),
    }
}

/// Takes the socket that the service manager has opened.
fn handed_over() -> anyhow::Result<Listener> {
    let number = |name: &str| std::env::var(name).ok().and_then(|value| value.parse::<u32>().ok());
    if number("LISTEN_PID") != Some(std::process::id()) {
        bail!("no socket was handed over: --listen systemd is for a service with a socket unit");
    }
    match number("LISTEN_FDS") {
        Some(1) => {}
        Some(0) | None => bail!("no socket was handed over: the socket unit gives none"),
        Some(_) => bail!("several sockets were handed over, and one is served"),
    }
    // SAFETY: by the protocol of sd_listen_fds(3) this descriptor is ours, and this is called once; a wrong one is told by
    // the checks below.
    let fd = unsafe { OwnedFd::from_raw_fd(FIRST_HANDED_OVER) };
    // SAFETY: asks for flags, and sets one.
    let flagged = unsafe {
        let flags = libc::fcntl(fd.as_raw_fd(), libc::F_GETFD);
        flags >= 0 && libc::fcntl(fd.as_raw_fd(), libc::F_SETFD, flags | libc::FD_CLOEXEC) == 0
    };
    let listens = sockopt::socket_acceptconn(fd.as_fd()).unwrap_or(false);
    let streams = sockopt::socket_type(fd.as_fd()).is_ok_and(|kind| kind == SocketType::STREAM);
    if !flagged || !listens || !streams {
        bail!("what was handed over is no listening stream socket");
    }
    match sockopt::socket_domain(fd.as_fd()) {
        Ok(AddressFamily::INET | AddressFamily::INET6) => Ok(Listener::Tcp(fd.into())),
        Ok(AddressFamily::UNIX) => Ok(Listener::Unix(fd.into(), None)),
        _ => bail!("what was handed over is neither a TCP nor a Unix socket"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read() {
        let tcp = |host: &str, port| Ok(Address::Tcp(host.to_owned(), port));
        let read = |text: &str| text.parse::<Address>();
        assert_eq!(read("127.0.0.1:9747"), tcp("127.0.0.1", 9747));
        assert_eq!(read("[::1]:0"), tcp("::1", 0));
        assert_eq!(read(":9747"), tcp("", 9747));
        assert_eq!(read("localhost:80"), tcp("localhost", 80));
        assert_eq!(read("unix:/run/x"), Ok(Address::Unix("/run/x".into())));
        assert_eq!(read("systemd"), Ok(Address::HandedOver));
        for wrong in
            ["", "9747", "127.0.0.1", "127.0.0.1:", "a:70000", "::1:9747", "[::1:9747", "unix:", "a:b"]
        {
            assert!(read(wrong).is_err(), "{wrong}");
        }
        for text in ["127.0.0.1:9747", "[::1]:0", "unix:/run/x"] {
            assert_eq!(read(text).map(|address| address.to_string()).as_deref(), Ok(text));
        }
    }

    #[test]
    fn a_socket_of_before_gives_way_and_another_file_does_not() {
        let folder = std::env::temp_dir().join(format!("vmaudit-listen-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder");
        let path = folder.join("socket");
        let address = Address::Unix(path.clone());
        let first = Listener::open(&address).expect("a socket");
        assert!(format!("{:#}", Listener::open(&address).expect_err("in use")).contains("already"));
        drop(first);
        assert!(!path.exists(), "it goes with its server");
        // Left by one that was killed.
        std::mem::forget(Listener::open(&address).map(|listener| match listener {
            Listener::Unix(unix, file) => {
                drop(unix);
                file
            }
            Listener::Tcp(_) => None,
        }));
        assert!(path.exists());
        let second = Listener::open(&address).expect("the old one gave way");
        assert!(second.words().ends_with("/socket"), "{}", second.words());
        drop(second);
        std::fs::write(&path, "mine").expect("a file");
        assert!(format!("{:#}", Listener::open(&address).expect_err("a file")).contains("no socket"));
        assert_eq!(std::fs::read(&path).expect("the file"), b"mine");
        let _ = std::fs::remove_dir_all(&folder);
    }

    #[test]
    fn what_is_not_to_be_had_is_one_sentence() {
        let why = Listener::open(&Address::Tcp("192.0.2.1".into(), 9747)).expect_err("not ours");
        assert_eq!(format!("{why:#}"), "cannot listen on 192.0.2.1:9747: Cannot assign requested address");
        assert!(Listener::open(&Address::HandedOver).is_err());
    }
}
