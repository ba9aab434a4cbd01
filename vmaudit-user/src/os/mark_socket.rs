//! The datagram socket by which processes of a session name stretches of time: its file, what it receives, its answers; and how
//! `vmaudit mark` asks.

use std::io;
use std::mem::{size_of, zeroed};
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, anyhow};

/// Name of the environment variable that holds the socket's path.
pub const VARIABLE: &str = "VMAUDIT_MARKS";
/// Bytes of a datagram that are read.
const LONGEST: usize = 1024;
/// How long `vmaudit mark` waits for its answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// The socket, with its file, which goes with it.
#[derive(Debug)]
pub struct MarkSocket {
    socket: UnixDatagram,
    folder: PathBuf,
}

/// One datagram.
pub struct Asked {
    /// What it says.
    pub text: String,
    /// Who sent it, as the kernel says; 0: nobody that it can name here.
    pub pid: u32,
    /// How long it lay there.
    pub waited: Duration,
    from: Option<(libc::sockaddr_un, libc::socklen_t)>,
}

impl Asked {
    /// Somebody waits for the answer.
    pub fn waits(&self) -> bool {
        self.from.is_some()
    }
}

impl MarkSocket {
    /// Makes it, in a folder of its own. `owner`: the user and group who may write to it, if not the caller.
    pub fn open(owner: Option<(u32, u32)>) -> anyhow::Result<Self> {
        let opened = Self::open_in(&std::env::temp_dir(), owner);
        opened.or_else(|_| Self::open_in(Path::new("/tmp"), owner)).context("cannot make a socket for marks")
    }

    fn open_in(place: &Path, owner: Option<(u32, u32)>) -> anyhow::Result<Self> {
        // Nobody else gets into it before the socket has its rights.
        let folder = nix::unistd::mkdtemp(&place.join("vmaudit-marks-XXXXXX"))?;
        let path = folder.join(NAME);
        let socket = UnixDatagram::bind(&path).inspect_err(|_| drop(std::fs::remove_dir(&folder)))?;
        let opened = Self { socket, folder };
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
        if let Some((user, group)) = owner {
            chown(&path, Some(user), Some(group))?;
            std::fs::set_permissions(&opened.folder, std::fs::Permissions::from_mode(0o711))?;
        }
        opened.socket.set_nonblocking(true)?;
        opened.ask_for(libc::SO_PASSCRED)?;
        opened.ask_for(libc::SO_TIMESTAMPNS)?;
        Ok(opened)
    }

    /// Tells whatever is started from here on where it is.
    pub fn tell(&self) {
        // SAFETY: called by `run` before there is any other thread: the command is forked later, the runtime is made later.
        unsafe { std::env::set_var(VARIABLE, self.path()) };
    }

    fn ask_for(&self, option: libc::c_int) -> io::Result<()> {
        let on: libc::c_int = 1;
        // SAFETY: a live descriptor and a number of the length that is said.
        let answer = unsafe {
            libc::setsockopt(
                self.socket.as_raw_fd(),
                libc::SOL_SOCKET,
                option,
                (&raw const on).cast(),
                size_of::<libc::c_int>() as libc::socklen_t,
            )
        };
        if answer == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    /// Its file.
    pub fn path(&self) -> PathBuf {
        self.folder.join(NAME)
    }

    /// The next datagram; `None`: there is none now.
    pub fn receive(&self) -> Option<Asked> {
        let mut bytes = [0_u8; LONGEST];
        let mut part = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
        let mut control = [0_u64; 16];
        // SAFETY: all zeros are values of these plain structures.
        let (mut from, mut head): (libc::sockaddr_un, libc::msghdr) = unsafe { (zeroed(), zeroed()) };
        head.msg_name = (&raw mut from).cast();
        head.msg_namelen = size_of::<libc::sockaddr_un>() as libc::socklen_t;
        head.msg_iov = &raw mut part;
        head.msg_iovlen = 1;
        head.msg_control = control.as_mut_ptr().cast();
        head.msg_controllen = size_of_val(&control);
        let flags = libc::MSG_DONTWAIT | libc::MSG_CMSG_CLOEXEC;
        // SAFETY: everything that `head` points to lives on, with the lengths that it says.
        let length = unsafe { libc::recvmsg(self.socket.as_raw_fd(), &raw mut head, flags) };
        let text = bytes.get(..usize::try_from(length).ok()?)?;
        let (pid, sent) = beside(&head);
        let named = head.msg_namelen as usize > size_of::<libc::sa_family_t>();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Some(Asked {
            text: String::from_utf8_lossy(text).into_owned(),
            pid,
            waited: sent.map_or(Duration::ZERO, |sent| now.saturating_sub(sent)),
            from: named.then_some((from, head.msg_namelen)),
        })
    }

    /// Answers, if somebody waits; never itself.
    pub fn answer(&self, asked: &Asked, text: &str) {
        let Some((address, length)) = &asked.from else { return };
        let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
        // SAFETY: bytes and address live on, with the lengths that are said. Whether anybody reads it is not our concern.
        unsafe {
            libc::sendto(
                self.socket.as_raw_fd(),
                text.as_ptr().cast(),
                text.len(),
                flags,
                (&raw const *address).cast(),
                *length,
            )
        };
    }
}

const NAME: &str = "socket";

impl Drop for MarkSocket {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(self.path());
        let _ = std::fs::remove_dir(&self.folder);
    }
}

impl AsFd for MarkSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Who sent it, and when (CLOCK_REALTIME). Descriptors that a stranger sent along are closed.
fn beside(head: &libc::msghdr) -> (u32, Option<Duration>) {
    let (mut pid, mut sent) = (0, None);
    // SAFETY: `head` was filled by recvmsg, and its control buffer lives on.
    let mut next = unsafe { libc::CMSG_FIRSTHDR(head) };
    while !next.is_null() {
        // SAFETY: CMSG_FIRSTHDR and CMSG_NXTHDR give whole headers inside of the buffer; what is read behind one is what the
        // kernel puts there for its type (net/core/scm.c, net/socket.c).
        unsafe {
            let data = libc::CMSG_DATA(next);
            let length = (*next).cmsg_len.saturating_sub(libc::CMSG_LEN(0) as usize);
            match ((*next).cmsg_level, (*next).cmsg_type) {
                (libc::SOL_SOCKET, libc::SCM_CREDENTIALS) if length >= size_of::<libc::ucred>() => {
                    pid = u32::try_from(data.cast::<libc::ucred>().read_unaligned().pid).unwrap_or(0);
                }
                (libc::SOL_SOCKET, libc::SO_TIMESTAMPNS) if length >= size_of::<libc::timespec>() => {
                    let at = data.cast::<libc::timespec>().read_unaligned();
                    sent = Some(Duration::new(at.tv_sec as u64, at.tv_nsec as u32));
                }
                (libc::SOL_SOCKET, libc::SCM_RIGHTS) => {
                    for place in 0..length / size_of::<libc::c_int>() {
                        libc::close(data.cast::<libc::c_int>().add(place).read_unaligned());
                    }
                }
                _ => {}
            }
            next = libc::CMSG_NXTHDR(head, next);
        }
    }
    (pid, sent)
}

/// Sends `text` to the socket with this path and waits for the answer. Errors, as a sentence: nobody listens there, nobody
/// answers.
pub fn ask(path: &Path, text: &str) -> anyhow::Result<String> {
    let own = format!("vmaudit-mark-{}-{}", std::process::id(), crate::os::clock::now_ns());
    let socket = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(own)?)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.set_write_timeout(Some(PATIENCE))?;
    socket
        .send_to(text.as_bytes(), path)
        .map_err(|e| anyhow!("no session of vmaudit listens for marks any more: {e}"))?;
    let mut answer = [0; LONGEST];
    let length = socket.recv(&mut answer).map_err(|e| anyhow!("the session does not answer: {e}"))?;
    Ok(String::from_utf8_lossy(answer.get(..length).unwrap_or_default()).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_asks_is_known_and_answered_and_the_file_goes_with_the_socket() {
        let socket = MarkSocket::open(None).unwrap();
        let path = socket.path();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(socket.receive().is_none());
        let there = path.clone();
        let asks = std::thread::spawn(move || ask(&there, "begin a").unwrap());
        let asked = loop {
            if let Some(asked) = socket.receive() {
                break asked;
            }
            std::thread::yield_now();
        };
        assert_eq!((asked.text.as_str(), asked.pid), ("begin a", std::process::id()));
        assert!(asked.waits() && asked.waited < Duration::from_secs(60));
        socket.answer(&asked, "ok");
        assert_eq!(asks.join().unwrap(), "ok");
        drop(socket);
        assert!(!path.exists() && !path.parent().unwrap().exists());
        assert!(ask(&path, "begin a").unwrap_err().to_string().contains("no session of vmaudit"));
    }

    #[test]
    fn a_stranger_may_send_anything() {
        let socket = MarkSocket::open(None).unwrap();
        let nameless = UnixDatagram::unbound().unwrap();
        for bytes in [&b""[..], b"\xff\x00\x1b", &[b'x'; 4000]] {
            nameless.send_to(bytes, socket.path()).unwrap();
            let asked = socket.receive().unwrap();
            assert!(asked.text.len() <= 3 * LONGEST && !asked.waits());
            socket.answer(&asked, "ok");
        }
    }
}
