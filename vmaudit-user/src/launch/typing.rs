//! Keeps a command that runs as another user from typing into the caller's terminal.
//!
//! Whoever has a terminal as his controlling one may push characters into its input (the ioctls TIOCSTI, and TIOCLINUX
//! with a selection on a console), and what reads them afterwards is the caller's shell, with the caller's rights. A
//! filter that answers EPERM to these two leaves job control as it is; where no filter is to be had, the command gets a
//! session of its own, without the terminal.

use nix::errno::Errno;

use crate::launch::user::User;
use crate::os::kernel;

/// What is done about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Typing {
    /// Nothing: it is no other user, there is no terminal, or the kernel itself does not let it.
    Allowed,
    /// A filter.
    Filtered,
    /// Its own session.
    Detached,
}

impl Typing {
    /// What a command of this user needs.
    pub fn of(user: &User) -> Self {
        if user.uid == nix::unistd::getuid() || user.uid.is_root() || !has_terminal() || kernel_refuses() {
            return Self::Allowed;
        }
        if filters_are_allowed() { Self::Filtered } else { Self::Detached }
    }

    /// A sentence for the report and the caller; `None` when nothing is lost.
    pub fn note(self) -> Option<&'static str> {
        (self == Self::Detached).then_some(
            "The command of another user was started without the terminal (no job control, no reading from it), \
             because this kernel or these rights allow no filter that would keep it from typing into it",
        )
    }

    /// In the command's process, before it gives up root.
    pub fn forbid(self) -> Result<(), Errno> {
        match self {
            Self::Allowed => Ok(()),
            Self::Filtered => install(),
            Self::Detached => nix::unistd::setsid().map(drop),
        }
    }
}

fn has_terminal() -> bool {
    use nix::{fcntl::OFlag, sys::stat::Mode};
    let flags = OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    // ENXIO: there is none (drivers/tty/tty_io.c:tty_open_current_tty, all versions). ENOENT: there is no such file, and
    // the terminal may be there all the same.
    match nix::fcntl::open("/dev/tty", flags, Mode::empty()) {
        Err(Errno::ENXIO) => false,
        Err(_) => std::fs::read_to_string("/proc/self/stat").map_or(true, |stat| terminal_of(&stat)),
        Ok(_) => true,
    }
}

/// The seventh field of /proc/PID/stat is not 0 (man 5 proc).
fn terminal_of(stat: &str) -> bool {
    let after_name = stat.rsplit_once(") ").map(|(_, rest)| rest).unwrap_or_default();
    after_name.split(' ').nth(4) != Some("0")
}

/// TIOCSTI is for CAP_SYS_ADMIN only where this is 0 (6.2 and later), and so is pasting a selection since 6.7
/// (drivers/tty/vt/vt.c:tioclinux).
fn kernel_refuses() -> bool {
    let legacy = std::fs::read_to_string("/proc/sys/dev/tty/legacy_tiocsti");
    let release = nix::sys::utsname::uname().map(|name| name.release().to_string_lossy().into_owned());
    legacy.is_ok_and(|value| value.trim() == "0")
        && release.is_ok_and(|release| kernel::version_of(&release) >= (6, 7))
}

/// Filters without no_new_privs, which would be the command's for good, are for CAP_SYS_ADMIN (kernel/seccomp.c:
/// seccomp_prepare_filter, all versions).
fn filters_are_allowed() -> bool {
    const SECCOMP_GET_ACTION_AVAIL: libc::c_ulong = 2; // 4.14
    let action = libc::SECCOMP_RET_ERRNO;
    // SAFETY: the third argument points at a u32 that lives through the call.
    let known =
        unsafe { libc::syscall(libc::SYS_seccomp, SECCOMP_GET_ACTION_AVAIL, 0, &raw const action) } == 0;
    known && caps::has_cap(None, caps::CapSet::Effective, caps::Capability::CAP_SYS_ADMIN).unwrap_or(false)
}

const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
const AND: u16 = (libc::BPF_ALU | libc::BPF_AND | libc::BPF_K) as u16;
const EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;

// include/uapi/linux/audit.h
const X86_64: u32 = 0xc000_003e;
const I386: u32 = 0x4000_0003;
const AARCH64: u32 = 0xc000_00b7;
const ARM: u32 = 0x4000_0028;

// include/uapi/asm-generic/ioctls.h, the same on all of these.
const TIOCSTI: u32 = 0x5412;
const TIOCLINUX: u32 = 0x541c;

/// The program: for each way into the kernel its number of ioctl, then the request.
fn filter() -> [libc::sock_filter; 18] {
    let put = |code, k, jt, jf| libc::sock_filter { code, jt, jf, k };
    // struct seccomp_data: number, architecture, instruction pointer, arguments. The request is an unsigned int, so the
    // upper half of the argument is nothing to the kernel, and must be nothing here.
    let (number, architecture, request) = (0, 4, 24);
    [
        put(LOAD, architecture, 0, 0),
        put(EQUAL, X86_64, 3, 0),
        put(EQUAL, AARCH64, 6, 0),
        put(EQUAL, I386, 7, 0),
        put(EQUAL, ARM, 6, 11),
        // 5, x86-64: x32's entry has a bit of its own and another number (arch/x86/entry/syscalls/syscall_64.tbl).
        put(LOAD, number, 0, 0),
        put(AND, !0x4000_0000, 0, 0),
        put(EQUAL, 16, 5, 0),
        put(EQUAL, 514, 4, 7),
        // 9, arm64
        put(LOAD, number, 0, 0),
        put(EQUAL, 29, 2, 5),
        // 11, 32 bits of both
        put(LOAD, number, 0, 0),
        put(EQUAL, 54, 0, 3),
        // 13, an ioctl
        put(LOAD, request, 0, 0),
        put(EQUAL, TIOCSTI, 2, 0),
        put(EQUAL, TIOCLINUX, 1, 0),
        put(RETURN, libc::SECCOMP_RET_ALLOW, 0, 0),
        put(RETURN, libc::SECCOMP_RET_ERRNO | libc::EPERM as u32, 0, 0),
    ]
}

fn install() -> Result<(), Errno> {
    let filter = filter();
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_ptr().cast_mut() };
    // SAFETY: the kernel reads `len` instructions, which live through the call.
    let answer =
        unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program, 0, 0) };
    Errno::result(answer).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the kernel's interpreter makes of a call.
    fn answer(architecture: u32, number: u32, request: u64) -> u32 {
        let program = filter();
        let (mut at, mut accumulator) = (0, 0u32);
        loop {
            let step = program[at];
            at += 1;
            match step.code {
                LOAD => {
                    accumulator = match step.k {
                        0 => number,
                        4 => architecture,
                        24 => request as u32,
                        other => panic!("offset {other}"),
                    }
                }
                AND => accumulator &= step.k,
                EQUAL => at += usize::from(if accumulator == step.k { step.jt } else { step.jf }),
                RETURN => return step.k,
                other => panic!("code {other}"),
            }
        }
    }

    #[test]
    fn the_two_requests_are_refused_by_every_way_into_the_kernel_and_nothing_else_is() {
        let entries = [(X86_64, 16), (X86_64, 0x4000_0000 | 514), (X86_64, 0x4000_0000 | 16), (AARCH64, 29)];
        let ways = entries.into_iter().chain([(I386, 54), (ARM, 54)]);
        for (architecture, number) in ways {
            for request in [0x5412, 0x541c, 0xffff_ffff_0000_5412] {
                let denied = libc::SECCOMP_RET_ERRNO | libc::EPERM as u32;
                assert_eq!(
                    answer(architecture, number, request),
                    denied,
                    "{architecture:x} {number} {request:x}"
                );
            }
            for request in [0x5401, 0x5410, 0x5413] {
                assert_eq!(answer(architecture, number, request), libc::SECCOMP_RET_ALLOW);
            }
            assert_eq!(answer(architecture, number + 1, 0x5412), libc::SECCOMP_RET_ALLOW);
        }
        assert_eq!(answer(0xc000_0016, 54, 0x5412), libc::SECCOMP_RET_ALLOW, "another machine");
    }

    #[test]
    fn the_terminal_of_a_process_is_the_seventh_field() {
        assert!(!terminal_of("7 (a) b) S 1 7 7 0 -1 4194304 0"));
        assert!(terminal_of("7 (a) b) S 1 7 7 34816 -1 4194304 0"));
    }

    #[test]
    fn the_kernel_takes_the_filter() {
        // SAFETY: the child makes system calls only and leaves through _exit.
        match unsafe { nix::unistd::fork() }.unwrap() {
            nix::unistd::ForkResult::Child => {
                // SAFETY: numbers only, and a byte that lives through the call.
                let codes = unsafe {
                    libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
                    let put_in = install().is_ok();
                    let letter = 0u8;
                    let asked = |request: u64| {
                        libc::syscall(libc::SYS_ioctl, -1, request, &raw const letter);
                        Errno::last()
                    };
                    put_in
                        && [asked(0x5412), asked(0x541c), asked(0x5401)]
                            == [Errno::EPERM, Errno::EPERM, Errno::EBADF]
                };
                // SAFETY: ends the child.
                unsafe { libc::_exit(i32::from(!codes)) }
            }
            nix::unistd::ForkResult::Parent { child } => {
                let status = nix::sys::wait::waitpid(child, None).unwrap();
                assert_eq!(status, nix::sys::wait::WaitStatus::Exited(child, 0));
            }
        }
    }
}
