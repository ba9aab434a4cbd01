//! What the caller gave this process, read before Rust's runtime changes it: the runtime ignores SIGPIPE and opens
//! /dev/null for standard descriptors that are closed (library/std/src/sys/pal/unix/mod.rs:init). The command must find
//! both as the caller left them.

use std::ffi::CStr;
use std::sync::atomic::{AtomicBool, AtomicPtr, Ordering};

static SIGPIPE_IGNORED: AtomicBool = AtomicBool::new(false);
static SIGCHLD_IGNORED: AtomicBool = AtomicBool::new(false);
static CLOSED: [AtomicBool; 3] = [const { AtomicBool::new(false) }; 3];

/// The C library calls this before `main`, in which Rust's runtime starts.
#[used]
#[unsafe(link_section = ".init_array")]
static LOOK: extern "C" fn(libc::c_int, *mut *const libc::c_char) = look;

/// The arguments, as the kernel laid them down; null where the C library does not give them.
static ARGUMENTS: AtomicPtr<*const libc::c_char> = AtomicPtr::new(std::ptr::null_mut());

/// glibc gives what `main` gets (csu/libc-start.c:call_init).
extern "C" fn look(_: libc::c_int, arguments: *mut *const libc::c_char) {
    if cfg!(target_env = "gnu") {
        ARGUMENTS.store(arguments, Ordering::Relaxed);
    }
    SIGPIPE_IGNORED.store(ignored(libc::SIGPIPE), Ordering::Relaxed);
    SIGCHLD_IGNORED.store(ignored(libc::SIGCHLD), Ordering::Relaxed);
    for (fd, closed) in (0..).zip(&CLOSED) {
        // SAFETY: asks for the descriptor's flags; an invalid descriptor is an answer.
        closed.store(unsafe { libc::fcntl(fd, libc::F_GETFD) } < 0, Ordering::Relaxed);
    }
}

fn ignored(signal: libc::c_int) -> bool {
    // SAFETY: all zero is a valid sigaction, and with a null new action the call only reads.
    unsafe {
        let mut now = std::mem::zeroed::<libc::sigaction>();
        libc::sigaction(signal, std::ptr::null(), &raw mut now) == 0 && now.sa_sigaction == libc::SIG_IGN
    }
}

/// The caller ignores SIGPIPE.
pub fn sigpipe_ignored() -> bool {
    SIGPIPE_IGNORED.load(Ordering::Relaxed)
}

/// The caller ignores SIGCHLD: the kernel then reaps children by itself, and nobody can learn how they ended.
pub fn sigchld_ignored() -> bool {
    SIGCHLD_IGNORED.load(Ordering::Relaxed)
}

/// Those of the descriptors 0, 1 and 2 that the caller had closed.
pub fn closed_descriptors() -> impl Iterator<Item = libc::c_int> {
    (0..).zip(&CLOSED).filter(|(_, closed)| closed.load(Ordering::Relaxed)).map(|(fd, _)| fd)
}

/// Puts back what Rust's start and the wait for a command have changed.
pub fn put_back() {
    if !sigpipe_ignored() {
        // SAFETY: SIG_DFL installs no handler.
        unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
    }
    if sigchld_ignored() {
        // SAFETY: SIG_IGN installs no handler.
        unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) };
    }
    for fd in closed_descriptors() {
        // SAFETY: in this process nothing is written to the standard descriptors any more.
        unsafe { libc::close(fd) };
    }
}

/// Options of `run` whose value is the next word, and those that have none. Behind another one nobody can tell.
const WITH_VALUE: [&[u8]; 17] = [
    b"-o",
    b"--output",
    b"--format",
    b"--max-peak",
    b"--max-percent",
    b"--max-growth",
    b"--fail-on",
    b"--budget",
    b"--breach-exit-code",
    b"--linger",
    b"--headroom",
    b"--round",
    b"-n",
    b"--top",
    b"--record",
    b"--record-max",
    b"--source",
];
const WITHOUT_VALUE: [&[u8]; 9] = [
    b"-q",
    b"--quiet",
    b"--all-rows",
    b"--no-symbols",
    b"--no-follow",
    b"--peaks-only",
    b"--show-args",
    b"--no-anonymize",
    b"--json",
];

/// The command in the arguments of a `vmaudit run` that runs it as the caller himself, found without asking for memory;
/// `None` where that is not plain. It ends with null, as execvp wants it.
pub fn plain_command() -> Option<*const *const libc::c_char> {
    let start = ARGUMENTS.load(Ordering::Relaxed).cast_const();
    if start.is_null() {
        return None;
    }
    // SAFETY: the kernel's own vector of strings, which ends with null, and is not read behind that.
    let word =
        |place: usize| unsafe { (*start.add(place)).as_ref().map(|word| CStr::from_ptr(word).to_bytes()) };
    word(0)?;
    if word(1)? != b"run" {
        return None;
    }
    let mut before: &[u8] = b"-q";
    for place in 2.. {
        let now = word(place)?;
        let value = WITH_VALUE.contains(&before);
        let place = match now {
            _ if value => None,
            b"--" => word(place + 1).map(|_| place + 1),
            _ if now.starts_with(b"-") => {
                let inline = now.starts_with(b"--") && now.contains(&b'=');
                let other = [&b"--user"[..], b"--as", b"--keep-caps"].iter().any(|it| now.starts_with(it));
                if other || !inline && !WITH_VALUE.contains(&now) && !WITHOUT_VALUE.contains(&now) {
                    return None;
                }
                None
            }
            _ => Some(place),
        };
        if let Some(place) = place {
            // SAFETY: as above.
            return Some(unsafe { start.add(place) });
        }
        before = if value { b"-q" } else { now };
    }
    None
}
