//! Which signals vmaudit takes for the command, and what each is about. No memory is asked for here: see
//! [`crate::launch::last_resort`].

use std::mem::MaybeUninit;

/// What a signal asks of whoever waits for the command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// A child changed its state.
    Child,
    /// Somebody sent this signal to vmaudit; it is meant for the command.
    PassOn(i32),
    /// The kernel sent it: of the terminal the whole foreground group has it, and what is about vmaudit's own use of
    /// the CPU is nobody else's.
    Kernel(i32),
    /// Vmaudit's own doing.
    Nothing,
}

/// Every signal that somebody may send and that is not about a fault of vmaudit's own. Those that stop are not among
/// them: vmaudit stops as well.
const ANSWERED: [libc::c_int; 20] = [
    libc::SIGCHLD,
    libc::SIGINT,
    libc::SIGTERM,
    libc::SIGHUP,
    libc::SIGQUIT,
    libc::SIGUSR1,
    libc::SIGUSR2,
    libc::SIGALRM,
    libc::SIGVTALRM,
    libc::SIGPROF,
    libc::SIGIO,
    libc::SIGPWR,
    libc::SIGSTKFLT,
    libc::SIGXCPU,
    libc::SIGPIPE,
    libc::SIGABRT,
    libc::SIGTRAP,
    libc::SIGSYS,
    libc::SIGURG,
    libc::SIGWINCH,
];

/// They, and the real-time signals.
pub fn answered() -> libc::sigset_t {
    let mut set = MaybeUninit::uninit();
    // SAFETY: sigemptyset makes it valid before anything reads it.
    unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        for signal in ANSWERED.into_iter().chain(libc::SIGRTMIN()..=libc::SIGRTMAX()) {
            libc::sigaddset(set.as_mut_ptr(), signal);
        }
        set.assume_init()
    }
}

/// What a signal is about, by its siginfo.
pub fn meaning(number: i32, code: i32, sender: u32) -> Asked {
    match number {
        libc::SIGCHLD => Asked::Child,
        // A reader of vmaudit's own that has gone: the kernel lets the writer send it (fs/pipe.c, net/core/stream.c).
        libc::SIGPIPE if sender == std::process::id() => Asked::Nothing,
        // SI_USER and below come from a process, positive codes from the kernel.
        _ if code > 0 => Asked::Kernel(number),
        _ => Asked::PassOn(number),
    }
}

/// Its default is that nothing happens, so it is no wish that anything ends.
pub fn is_harmless(number: i32) -> bool {
    [libc::SIGURG, libc::SIGWINCH].contains(&number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_sent_it_says_what_it_is_about() {
        let (user, kernel, own) = (libc::SI_USER, libc::SI_KERNEL, std::process::id());
        assert_eq!(meaning(libc::SIGALRM, user, 1), Asked::PassOn(libc::SIGALRM));
        assert_eq!(meaning(libc::SIGINT, kernel, 0), Asked::Kernel(libc::SIGINT));
        assert_eq!(meaning(libc::SIGPIPE, user, own), Asked::Nothing);
        assert_eq!(meaning(libc::SIGPIPE, user, 1), Asked::PassOn(libc::SIGPIPE));
        assert_eq!(meaning(libc::SIGCHLD, libc::CLD_EXITED, 1), Asked::Child);
    }
}
