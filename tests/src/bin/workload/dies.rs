//! Processes that end in the moment after a refused call, before anybody can look at them. Not for use without vmaudit: the
//! parent is stopped meanwhile.

use libc::{PROT_NONE, RLIMIT_AS};

use crate::memory::{PRIVATE, call, die};

/// Larger than the limit, smaller than what a process has of addresses.
const TOO_MUCH: usize = 1 << 33;

/// Is refused a mapping, made by an instruction of this program itself or (`by_libc`) by the C library's, and ends at
/// once.
pub fn run(how: &str, by_libc: bool) -> ! {
    let end: fn() = match how {
        // Like abort(), without its handlers.
        "abort" => || signal(libc::SIGABRT),
        "kill" => || signal(libc::SIGKILL),
        // SAFETY: ends the process, runs nothing of it.
        "exit" => || unsafe { libc::_exit(1) },
        _ => die(2, format_args!("no such end: {how}")),
    };
    let limit = libc::rlimit { rlim_cur: 1 << 32, rlim_max: 1 << 32 };
    // SAFETY: a valid limit; a core file of 0 bytes is none.
    unsafe {
        libc::setrlimit(RLIMIT_AS, &raw const limit);
        libc::setrlimit(libc::RLIMIT_CORE, &libc::rlimit { rlim_cur: 0, rlim_max: 0 });
    }
    stop_the_tracer();
    if by_libc {
        let _ = call(libc::SYS_mmap, ARGUMENTS);
    } else {
        refused_here();
    }
    end();
    die(99, format_args!("still there"))
}

/// The same after OTHER was put in the place of PROGRAM; without an OTHER, PROGRAM is removed.
pub fn without(how: &str, program: &str, other: &str) -> ! {
    if std::fs::rename(other, program).is_err() && std::fs::remove_file(program).is_err() {
        die(99, format_args!("{program} stays"));
    }
    run(how, false)
}

const ARGUMENTS: [usize; 6] = [0, TOO_MUCH, PROT_NONE as usize, PRIVATE as usize, usize::MAX, 0];

/// Stops the parent, which is vmaudit, until this process has ended, so that nobody looks at it while it lives.
fn stop_the_tracer() {
    // SAFETY: takes nothing, touches no memory.
    let (tracer, own) = unsafe { (libc::getppid(), libc::getpid()) };
    // SAFETY: the child makes system calls only and leaves through _exit.
    if unsafe { libc::fork() } == 0 {
        // SAFETY: as above; the parent of this process changes when it has ended.
        unsafe {
            while libc::getppid() == own {
                libc::usleep(10_000);
            }
            libc::kill(tracer, libc::SIGCONT);
            libc::_exit(0)
        }
    }
    stop(tracer);
}

/// Stops the parent, which is vmaudit, for so long.
pub fn stop_the_tracer_until(done: impl FnOnce()) {
    // SAFETY: takes nothing, touches no memory.
    let tracer = unsafe { libc::getppid() };
    stop(tracer);
    done();
    // SAFETY: sends a signal, touches no memory.
    unsafe { libc::kill(tracer, libc::SIGCONT) };
}

fn stop(tracer: libc::pid_t) {
    // SAFETY: sends a signal, touches no memory.
    unsafe { libc::kill(tracer, libc::SIGSTOP) };
    let stopped = |stat: String| stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('T'));
    while !std::fs::read_to_string(format!("/proc/{tracer}/stat")).is_ok_and(stopped) {
        std::thread::yield_now();
    }
}

fn signal(number: i32) {
    // SAFETY: sends a signal, touches no memory.
    unsafe { libc::syscall(libc::SYS_kill, libc::getpid(), number) };
}

#[inline(never)]
fn refused_here() {
    inlined_here();
}

/// Part of the function above: the line of the refused call is one of these.
#[inline(always)]
fn inlined_here() {
    let [a0, a1, a2, a3, a4, a5] = ARGUMENTS;
    // SAFETY: the kernel refuses this mapping; the registers are those of the call convention.
    unsafe {
        #[cfg(target_arch = "x86_64")]
        std::arch::asm!(
            "syscall",
            inlateout("rax") libc::SYS_mmap => _,
            in("rdi") a0, in("rsi") a1, in("rdx") a2, in("r10") a3, in("r8") a4, in("r9") a5,
            lateout("rcx") _, lateout("r11") _,
        );
        #[cfg(target_arch = "aarch64")]
        std::arch::asm!(
            "svc 0",
            in("x8") libc::SYS_mmap,
            inlateout("x0") a0 => _,
            in("x1") a1, in("x2") a2, in("x3") a3, in("x4") a4, in("x5") a5,
        );
    }
}
