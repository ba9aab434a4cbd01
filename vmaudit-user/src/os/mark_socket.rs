//! The datagram socket by which processes of a session name stretches of time: its file, what it receives, its answers; and how
//! `vmaudit mark` asks.

use std::ffi::OsString;
use std::io;
use std::mem::{offset_of, size_of, zeroed};
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, anyhow, bail, ensure};
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sys::stat::{FchmodatFlags, Mode, fchmod, fchmodat, fstat};
use nix::unistd::{Gid, Uid, UnlinkatFlags, fchownat, geteuid, mkdtemp, unlinkat};

use super::destination::walk::{Found, find, is_shared};

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
    folder: Folder,
}

/// The folder of the file, which nobody else can change or replace. It is reached by descriptors alone: root's rights must
/// not follow a name to what somebody else has put in its place.
#[derive(Debug)]
struct Folder {
    /// Where it is.
    place: OwnedFd,
    name: OsString,
    itself: OwnedFd,
    path: PathBuf,
}

impl Folder {
    fn new(place: &Path) -> anyhow::Result<Self> {
        let place = std::path::absolute(place)?;
        let Found::Name(at, _) = find(&place.join(NAME))? else { bail!("{} is no folder", place.display()) };
        let stat = fstat(&at)?;
        let [own, root] = [geteuid().as_raw(), 0];
        let each_their_own = stat.st_mode & libc::S_ISVTX != 0 && [own, root].contains(&stat.st_uid);
        ensure!(!is_shared(&stat) || each_their_own, "others can rename what is in {}", place.display());
        // Nobody else gets into it before the socket has its rights.
        let made = mkdtemp(&through(&at).join("vmaudit-marks-XXXXXX"))?;
        let name = made.file_name().context("a folder without a name")?.to_owned();
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let itself = openat(&at, name.as_os_str(), flags, Mode::empty()).inspect_err(|_| {
            let _ = unlinkat(&at, name.as_os_str(), UnlinkatFlags::RemoveDir);
        })?;
        let folder = Self { path: place.join(&name), place: at, name, itself };
        let stat = fstat(&folder.itself)?;
        ensure!(stat.st_uid == own && stat.st_mode & 0o7777 == 0o700, "the folder is another one");
        Ok(folder)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = unlinkat(&self.itself, NAME, UnlinkatFlags::NoRemoveDir);
        let _ = unlinkat(&self.place, self.name.as_os_str(), UnlinkatFlags::RemoveDir);
    }
}

/// A path to what a folder holds, whatever its name is by now.
fn through(folder: &OwnedFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", folder.as_raw_fd()))
}

/// One datagram.
pub struct Asked {
    /// What it says.
    pub text: String,
    /// Who sent it, as the kernel says; 0: nobody that it can name here.
    pub pid: u32,
    /// How long it lay there.
    pub waited: Duration,
    /// It came from a socket with a path, which gets no answer: whoever sends chooses the path, and it is not for the
    /// session's rights to find out what is there.
    pub from_file: bool,
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
        let folder = Folder::new(place)?;
        let socket = UnixDatagram::bind(through(&folder.itself).join(NAME))?;
        let opened = Self { socket, folder };
        let itself = &opened.folder.itself;
        fchmodat(itself, NAME, Mode::from_bits_truncate(0o600), FchmodatFlags::FollowSymlink)?;
        if let Some((user, group)) = owner {
            let (user, group) = (Some(Uid::from_raw(user)), Some(Gid::from_raw(group)));
            fchownat(itself, NAME, user, group, AtFlags::AT_SYMLINK_NOFOLLOW)?;
            fchmod(itself, Mode::from_bits_truncate(0o711))?;
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
        self.folder.path.join(NAME)
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
        head.msg_controllen = number(size_of_val(&control));
        let flags = libc::MSG_DONTWAIT | libc::MSG_CMSG_CLOEXEC;
        // SAFETY: everything that `head` points to lives on, with the lengths that it says.
        let length = unsafe { libc::recvmsg(self.socket.as_raw_fd(), &raw mut head, flags) };
        let text = bytes.get(..usize::try_from(length).ok()?)?;
        let (pid, sent) = beside(&head);
        let named = head.msg_namelen as usize > offset_of!(libc::sockaddr_un, sun_path);
        let from_file = named && from.sun_path[0] != 0;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Some(Asked {
            text: String::from_utf8_lossy(text).into_owned(),
            pid,
            waited: sent.map_or(Duration::ZERO, |sent| now.saturating_sub(sent)),
            from_file,
            from: (named && !from_file).then_some((from, head.msg_namelen)),
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

impl AsFd for MarkSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// A length of a socket's structure, of which each C library has types of its own.
fn number<A, B: TryFrom<A> + Default>(of: A) -> B {
    B::try_from(of).unwrap_or_default()
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
            let length = number::<_, usize>((*next).cmsg_len).saturating_sub(libc::CMSG_LEN(0) as usize);
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
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    fn own_place(mode: u32) -> PathBuf {
        let place = mkdtemp(&std::env::temp_dir().join("vmaudit-test-XXXXXX")).unwrap();
        std::fs::set_permissions(&place, std::fs::Permissions::from_mode(mode)).unwrap();
        place
    }

    #[test]
    fn it_lies_where_nobody_else_can_replace_it() {
        let open = own_place(0o777);
        let why = MarkSocket::open_in(&open, None).unwrap_err().to_string();
        assert!(why.contains("others can rename"), "{why}");
        assert_eq!(std::fs::read_dir(&open).unwrap().count(), 0);
        for mode in [0o700, 0o1777] {
            let place = own_place(mode);
            drop(MarkSocket::open_in(&place, None).unwrap());
            std::fs::remove_dir(place).unwrap();
        }
        std::fs::remove_dir(open).unwrap();
    }

    #[test]
    fn what_takes_its_name_stays_as_it_is() {
        let (place, others) = (own_place(0o700), own_place(0o700));
        let theirs = others.join(NAME);
        std::fs::write(&theirs, "theirs").unwrap();
        let socket = MarkSocket::open_in(&place, None).unwrap();
        let folder = socket.folder.path.clone();
        std::fs::rename(&folder, place.join("moved")).unwrap();
        symlink(&others, &folder).unwrap();
        drop(socket);
        assert_eq!(std::fs::read_to_string(theirs).unwrap(), "theirs");
        assert!(!place.join("moved").join(NAME).exists(), "its own file is gone");
        std::fs::remove_dir_all(place).unwrap();
        std::fs::remove_dir_all(others).unwrap();
    }

    #[test]
    fn a_path_that_the_sender_chose_gets_no_answer() {
        let (socket, place) = (MarkSocket::open(None).unwrap(), own_place(0o700));
        let named = UnixDatagram::bind(place.join("x")).unwrap();
        named.send_to(b"begin a", socket.path()).unwrap();
        let asked = socket.receive().unwrap();
        assert!(asked.from_file && !asked.waits());
        socket.answer(&asked, "ok");
        named.set_nonblocking(true).unwrap();
        assert_eq!(named.recv(&mut [0; 9]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        std::fs::remove_dir_all(place).unwrap();
    }

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
