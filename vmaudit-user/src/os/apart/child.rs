//! The child process itself: how it starts, what it keeps, how it and vmaudit talk.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd, RawFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::{SigHandler, Signal, kill, signal};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::time::{ClockId, clock_getcpuclockid, clock_gettime};
use nix::unistd::{ForkResult, Pid, fork};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};

use crate::os::procfs::Proc;
use crate::os::{inherited, own_children, rights};

/// Bytes of one packet.
const PACKET: usize = 32 << 10;
/// Bytes of one message; a longer one is none of ours.
const MESSAGE: usize = 16 << 20;
/// Descriptors in one message; the kernel takes 253 (include/net/scm.h:SCM_MAX_FD).
pub const DESCRIPTORS: usize = 200;
/// First byte of a packet: the message goes on in the next one, or ends with this one.
const MORE: u8 = 0;
const LAST: u8 = 1;

/// What the child is at, in a page that both processes see: the child writes it, and vmaudit needs no word from a child
/// that is stuck to know where.
#[derive(Debug)]
pub struct Beat(NonNull<Place>);

/// All zero at first.
struct Place {
    item: AtomicU64,
    /// CLOCK_MONOTONIC ns; 0: at nothing.
    since_ns: AtomicU64,
}

impl Beat {
    fn new() -> io::Result<Self> {
        use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous};
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a fresh mapping at a place of the kernel's choice.
        let page = unsafe {
            mmap_anonymous(std::ptr::null_mut(), size_of::<Place>(), protection, MapFlags::SHARED)
        }?;
        NonNull::new(page.cast()).map(Self).ok_or_else(|| io::ErrorKind::OutOfMemory.into())
    }

    fn place(&self) -> &Place {
        // SAFETY: the mapping lives as long as `self`, is zeroed, and holds atomics only.
        unsafe { self.0.as_ref() }
    }

    /// In the child: it begins with this item.
    pub fn begin(&self, item: u64) {
        self.place().since_ns.store(0, Ordering::Release);
        self.place().item.store(item, Ordering::Release);
        self.goes_on();
    }

    /// In the child: the item is answering, its second begins anew.
    pub fn goes_on(&self) {
        self.place().since_ns.store(now_ns(), Ordering::Release);
    }

    /// In the child: it waits for nobody but vmaudit.
    pub fn rest(&self) {
        self.place().since_ns.store(0, Ordering::Release);
    }

    /// The item, and for how long it has not answered; `None` when the child is at none.
    pub fn now(&self) -> Option<(u64, Duration)> {
        let since = self.place().since_ns.load(Ordering::Acquire);
        let item = self.place().item.load(Ordering::Acquire);
        let same = self.place().since_ns.load(Ordering::Acquire) == since;
        (since != 0 && same).then(|| (item, Duration::from_nanos(now_ns().saturating_sub(since))))
    }

    /// The item that the child began last.
    pub fn last(&self) -> u64 {
        self.place().item.load(Ordering::Acquire)
    }
}

impl Drop for Beat {
    fn drop(&mut self) {
        // SAFETY: our own mapping, not used after this. The child's view of it is its own.
        let _ = unsafe { rustix::mm::munmap(self.0.as_ptr().cast(), size_of::<Place>()) };
    }
}

/// CLOCK_MONOTONIC, ns: the same in both processes.
fn now_ns() -> u64 {
    clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(0, |now| Duration::from(now).as_nanos() as u64)
}

/// The child's end of the line.
#[derive(Debug)]
pub struct Line(OwnedFd);

impl Line {
    /// Sends a message. Waits while vmaudit is behind; an error when it is gone.
    pub fn send(&self, message: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        send(&self.0, message, descriptors, SendFlags::NOSIGNAL)
    }

    /// The next message; `None` when vmaudit has closed its end.
    pub fn receive(&self) -> Option<Vec<u8>> {
        let mut message = Vec::new();
        loop {
            match receive(&self.0, &mut message, &mut Vec::new(), RecvFlags::empty()) {
                Ok(Some(true)) => return Some(message),
                Ok(Some(false)) => {}
                _ => return None,
            }
        }
    }
}

/// What has come from the child.
pub enum Taken {
    /// A message and the descriptors that came with it.
    Message(Vec<u8>, Vec<OwnedFd>),
    /// Nothing, or not all of a message.
    Nothing,
    /// It has ended, or what it says makes no sense.
    End,
}

/// A child at work, or waiting for work.
#[derive(Debug)]
pub struct Child {
    pid: Pid,
    socket: OwnedFd,
    beat: Beat,
    message: Vec<u8>,
    descriptors: Vec<OwnedFd>,
}

impl Child {
    /// Starts a child that does `work` and ends. It keeps open nothing but its line and the descriptors `kept`, all
    /// others are closed in it: `work` must not use them.
    ///
    /// vmaudit must have one thread, because a lock that another one held would stay held in the child for ever. (The
    /// C library makes its own allocator good after a fork, which is what unit tests, in several threads, live on.)
    pub fn start(kept: &[RawFd], work: impl FnOnce(&Line, &Beat)) -> io::Result<Self> {
        if inherited::sigchld_ignored() {
            // The kernel would reap it unasked, and its number could be a stranger's when it is to be killed.
            // SAFETY: SIG_DFL installs no handler.
            unsafe { signal(Signal::SIGCHLD, SigHandler::SigDfl) }?;
        }
        let (ours, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        let beat = Beat::new()?;
        let parent = nix::unistd::getpid();
        // SAFETY: vmaudit has one thread, see above; the child leaves through _exit.
        match unsafe { fork() }? {
            ForkResult::Parent { child } => {
                own_children::note(child.as_raw());
                Ok(Self { pid: child, socket: ours, beat, message: Vec::new(), descriptors: Vec::new() })
            }
            ForkResult::Child => {
                let line = Line(theirs);
                let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                    confine(parent, &line, kept);
                    // All that is read in here is other processes'.
                    let _rights = rights::raised(&rights::PROCESSES);
                    work(&line, &beat);
                }));
                // SAFETY: ends this process without running anything of vmaudit's.
                unsafe { libc::_exit(0) }
            }
        }
    }

    /// Sends it a message. It must be waiting for one; never waits.
    pub fn send(&self, message: &[u8]) -> io::Result<()> {
        send(&self.socket, message, &[], SendFlags::NOSIGNAL | SendFlags::DONTWAIT)
    }

    /// Takes what has come, without waiting.
    pub fn take(&mut self) -> Taken {
        loop {
            match receive(&self.socket, &mut self.message, &mut self.descriptors, RecvFlags::DONTWAIT) {
                Ok(Some(true)) => {
                    let message = std::mem::take(&mut self.message);
                    return Taken::Message(message, std::mem::take(&mut self.descriptors));
                }
                Ok(Some(false)) if self.message.len() <= MESSAGE => {}
                Err(rustix::io::Errno::AGAIN) => return Taken::Nothing,
                Err(rustix::io::Errno::INTR) => {}
                _ => return Taken::End,
            }
        }
    }

    /// Readable when something has come.
    pub fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Where it is.
    pub fn beat(&self) -> &Beat {
        &self.beat
    }

    /// Processor time that it has used.
    pub fn worked(&self) -> Duration {
        let used = clock_getcpuclockid(self.pid).and_then(clock_gettime);
        used.map_or(Duration::ZERO, Duration::from)
    }

    /// It is computing, or waits for a processor: who does that is not kept waiting by a stranger.
    pub fn runs(&self) -> bool {
        let stat = Proc::default().open(self.pid.as_raw() as u32).and_then(|handle| handle.stat());
        stat.is_ok_and(|stat| stat.state == 'R')
    }

    /// Kills it and does not wait for its end: one that sleeps uninterruptibly ends when what it waits for does.
    pub fn kill(self) -> Killed {
        // Ours until it has been waited for, so the number is nobody else's.
        let _ = kill(self.pid, Signal::SIGKILL);
        Killed(self.pid)
    }
}

/// A child that has been killed.
#[derive(Clone, Copy, Debug)]
pub struct Killed(Pid);

impl Killed {
    /// It has ended. Never waits.
    pub fn ended(&self) -> bool {
        let ended = !matches!(waitpid(self.0, Some(WaitPidFlag::WNOHANG)), Ok(WaitStatus::StillAlive));
        if ended {
            own_children::forget(self.0.as_raw());
        }
        ended
    }
}

/// Leaves the child nothing by which it could hold somebody up when it is stuck, and nothing to be got from it.
fn confine(parent: Pid, line: &Line, kept: &[RawFd]) {
    // Out of the caller's job and off its terminal.
    let _ = rustix::process::setsid();
    let _ = rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL));
    if nix::unistd::getppid() != parent {
        // SAFETY: vmaudit ended before it could be heard of.
        unsafe { libc::_exit(0) }
    }
    // SAFETY: a string that ends in NUL.
    unsafe { libc::prctl(libc::PR_SET_NAME, c"vmaudit-reader".as_ptr()) };
    let _ = rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable);
    let _ = setrlimit(Resource::RLIMIT_CORE, 0, 0);
    let _ = std::env::set_current_dir("/");
    if let Ok(null) = std::fs::File::options().read(true).write(true).open("/dev/null") {
        for standard in 0..=2 {
            // SAFETY: no Rust object owns the standard descriptors.
            unsafe { libc::dup2(null.as_raw_fd(), standard) };
        }
    }
    let mut open: Vec<RawFd> = kept.iter().copied().chain([0, 1, 2, line.0.as_raw_fd()]).collect();
    open.sort_unstable();
    open.dedup();
    let ends = open.iter().skip(1).map(|next| next - 1).chain([RawFd::MAX]);
    for (first, last) in open.iter().map(|fd| fd + 1).zip(ends).filter(|(first, last)| first <= last) {
        close(first, last);
    }
}

/// Closes descriptors from `first` to `last`.
fn close(first: RawFd, last: RawFd) {
    // SAFETY: takes numbers only. The objects that own these descriptors are vmaudit's and are never dropped here.
    if unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) } == 0 {
        return;
    }
    // Before 5.9.
    let all = std::fs::read_dir("/proc/self/fd").into_iter().flatten().flatten();
    let numbers: Vec<RawFd> =
        all.filter_map(|entry| entry.file_name().to_str().and_then(|name| name.parse().ok())).collect();
    for fd in numbers.into_iter().filter(|fd| (first..=last).contains(fd)) {
        // SAFETY: as above.
        unsafe { libc::close(fd) };
    }
}

fn send(
    socket: &OwnedFd,
    message: &[u8],
    descriptors: &[BorrowedFd<'_>],
    flags: SendFlags,
) -> io::Result<()> {
    let mut rest = message;
    loop {
        let (now, later) = rest.split_at(rest.len().min(PACKET - 1));
        let last = later.is_empty();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if last && !descriptors.is_empty() {
            let few = descriptors.get(..descriptors.len().min(DESCRIPTORS)).unwrap_or_default();
            control.push(SendAncillaryMessage::ScmRights(few));
        }
        let head = [if last { LAST } else { MORE }];
        match sendmsg(socket, &[IoSlice::new(&head), IoSlice::new(now)], &mut control, flags) {
            Ok(_) if last => return Ok(()),
            Ok(_) => rest = later,
            Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
}

/// Takes one packet: whether the message is whole now; `None` at the end.
fn receive(
    socket: &OwnedFd,
    message: &mut Vec<u8>,
    descriptors: &mut Vec<OwnedFd>,
    flags: RecvFlags,
) -> Result<Option<bool>, rustix::io::Errno> {
    let mut packet = [0; PACKET];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = flags | RecvFlags::CMSG_CLOEXEC;
    let got = recvmsg(socket, &mut [IoSliceMut::new(&mut packet)], &mut control, flags)?;
    for ancillary in control.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = ancillary {
            descriptors.extend(received);
        }
    }
    let Some((head, part)) = packet.get(..got.bytes).and_then(<[u8]>::split_first) else { return Ok(None) };
    message.extend_from_slice(part);
    Ok(Some(*head == LAST))
}
