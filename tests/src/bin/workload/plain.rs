//! Programs that only show whether the tracer is in the way.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::makers::pause_ms;
use crate::memory::{Line, call, die, errno, leave, must, write_all};

/// Prints each pair as a line.
pub fn lines<'a>(pairs: impl Iterator<Item = (&'a str, &'a str)>) -> ! {
    let mut line = Line::new();
    for (a, b) in pairs {
        let _ = writeln!(line, "{a} {b}");
    }
    write_all(1, line.bytes());
    leave(0)
}

/// Dies of `signal` by its default action.
pub fn kill_self(signal: i32) -> ! {
    // SAFETY: setting the default action touches no memory.
    unsafe { libc::signal(signal, libc::SIG_DFL) };
    // No core file, whatever the signal.
    must(call(libc::SYS_prctl, [libc::PR_SET_DUMPABLE as usize, 0, 0, 0, 0, 0]), "PR_SET_DUMPABLE");
    must(call(libc::SYS_kill, [std::process::id() as usize, signal as usize, 0, 0, 0, 0]), "kill");
    pause_ms(60_000);
    leave(99)
}

/// Stops as a shell's job would by itself, and says so when somebody continues it.
pub fn stop_self() -> ! {
    write_all(1, b"stopping\n");
    must(call(libc::SYS_kill, [std::process::id() as usize, libc::SIGSTOP as usize, 0, 0, 0, 0]), "kill");
    write_all(1, b"went on\n");
    leave(0)
}

/// Says that it is there, then sleeps.
pub fn sleep(seconds: u64) -> ! {
    // Rust's start ignores it.
    // SAFETY: setting the default action touches no memory.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
    write_all(1, b"sleeping\n");
    pause_ms(seconds * 1000);
    leave(0)
}

/// Takes `count` signals of SIGINT, SIGTERM, SIGHUP, SIGUSR1 and SIGWINCH and prints the number of each; then waits a
/// moment for one too many.
pub fn signals(count: u32) -> ! {
    // SAFETY: `set` is made valid by sigemptyset before anything reads it.
    let set = unsafe {
        let mut set = std::mem::zeroed::<libc::sigset_t>();
        libc::sigemptyset(&raw mut set);
        for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGUSR1, libc::SIGWINCH] {
            libc::sigaddset(&raw mut set, signal);
        }
        libc::sigprocmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut());
        set
    };
    write_all(1, b"ready\n");
    for i in 0..=count {
        let seconds = if i < count { 60 } else { 1 };
        let time = libc::timespec { tv_sec: seconds, tv_nsec: 0 };
        let signal = loop {
            // SAFETY: set and time are valid; no siginfo is asked for.
            let signal = unsafe { libc::sigtimedwait(&raw const set, std::ptr::null_mut(), &raw const time) };
            // Being stopped and continued interrupts the wait.
            if signal != -1 || errno() != libc::EINTR {
                break signal;
            }
        };
        match (signal, i < count) {
            (-1, false) => break,
            (-1, true) => die(99, format_args!("no signal came in {seconds} s")),
            (signal, _) => {
                let mut line = Line::new();
                let _ = writeln!(line, "signal {signal}");
                write_all(1, line.bytes());
            }
        }
    }
    leave(0)
}

/// Signals ignored and standard descriptors closed at the start, as bits; read before Rust's runtime changes both.
static IGNORED: AtomicU64 = AtomicU64::new(0);
static CLOSED: AtomicU64 = AtomicU64::new(0);

#[used]
#[unsafe(link_section = ".init_array")]
static LOOK: extern "C" fn() = look_at_the_start;

extern "C" fn look_at_the_start() {
    for signal in 1..=64 {
        // SAFETY: all zero is a valid sigaction; with a null new action the call only reads.
        let ignored = unsafe {
            let mut now = std::mem::zeroed::<libc::sigaction>();
            libc::sigaction(signal, std::ptr::null(), &raw mut now) == 0 && now.sa_sigaction == libc::SIG_IGN
        };
        IGNORED.fetch_or(u64::from(ignored) << (signal - 1), Ordering::Relaxed);
    }
    for fd in 0..3 {
        // SAFETY: asks for flags only.
        let closed = unsafe { libc::fcntl(fd, libc::F_GETFD) } < 0;
        CLOSED.fetch_or(u64::from(closed) << fd, Ordering::Relaxed);
    }
}

/// What a program can tell about where and as whom it runs, one fact per line.
pub fn facts() -> ! {
    let mut text = String::new();
    // SAFETY: these calls take no pointers.
    let (uid, euid, gid, sid, pgid, ppid) = unsafe {
        (libc::getuid(), libc::geteuid(), libc::getgid(), libc::getsid(0), libc::getpgid(0), libc::getppid())
    };
    let _ = writeln!(text, "uid {uid} {euid} gid {gid}\nsession {sid}\ngroup {pgid}\nparent {ppid}");
    let (ignored, closed) = (IGNORED.load(Ordering::Relaxed), CLOSED.load(Ordering::Relaxed));
    let _ = writeln!(text, "start ignored {ignored:016x} closed {closed:x}");
    let _ = writeln!(text, "cwd {:?}", std::env::current_dir());
    let mut environment: Vec<_> = std::env::vars_os().collect();
    environment.sort();
    for (name, value) in environment {
        let _ = writeln!(text, "env {name:?}={value:?}");
    }
    for file in ["limits", "status"] {
        let content = std::fs::read_to_string(format!("/proc/self/{file}")).unwrap_or_default();
        let kept = |l: &&str| {
            file == "limits"
                || ["Sig", "Shd", "Cap", "NoNewPrivs", "Groups", "Umask"].iter().any(|p| l.starts_with(p))
        };
        for line in content.lines().filter(kept) {
            let _ = writeln!(text, "{file} {line}");
        }
    }
    let mut open: Vec<_> =
        std::fs::read_dir("/proc/self/fd").into_iter().flatten().flatten().map(|e| e.path()).collect();
    open.sort();
    for fd in open {
        // Our own look at the folder shows itself.
        if let Some(target) = std::fs::read_link(&fd).ok().filter(|t| !t.starts_with("/proc/")) {
            let _ = writeln!(text, "open {} -> {}", fd.display(), target.display());
        }
    }
    write_all(1, text.as_bytes());
    leave(0)
}

/// Tries to push a character into the terminal's input and to paste a selection, and says what came of it: 0 or the errno.
pub fn type_ahead() -> ! {
    const TIOCSTI: u64 = 0x5412;
    const TIOCLINUX: u64 = 0x541c;
    const TIOCL_PASTESEL: u8 = 3;
    // The upper half of a request is nothing to the kernel, and may be used to slip past a filter.
    let requests = [(TIOCSTI, b'x'), (0xffff_ffff_0000_0000 | TIOCSTI, b'x'), (TIOCLINUX, TIOCL_PASTESEL)];
    let [first, second, pasted] = requests.map(|(request, byte)| {
        // SAFETY: the byte lives through the call.
        let answer = unsafe { libc::syscall(libc::SYS_ioctl, 0, request, &raw const byte) };
        if answer == 0 { 0 } else { errno() }
    });
    write_all(1, format!("typed {first} {second} pasted {pasted}\n").as_bytes());
    leave(0)
}

/// Execs this program again and again, `n` times.
pub fn exec_loop(n: u32) -> ! {
    if n == 0 {
        leave(0);
    }
    let Ok(program) = std::ffi::CString::new("/proc/self/exe") else { leave(99) };
    let Ok(next) = std::ffi::CString::new((n - 1).to_string()) else { leave(99) };
    let argv = [c"workload".as_ptr(), c"exec-loop".as_ptr(), next.as_ptr(), std::ptr::null()];
    // SAFETY: null-terminated arrays of strings that live through the call.
    unsafe { libc::execve(program.as_ptr(), argv.as_ptr(), [std::ptr::null()].as_ptr()) };
    die(99, format_args!("exec failed with errno {}", errno()))
}

/// Every byte value on stdout and, in reverse, on stderr.
pub fn bytes() -> ! {
    let mut all: Vec<u8> = (0..=255).collect();
    write_all(1, &all);
    all.reverse();
    write_all(2, &all);
    leave(0)
}
