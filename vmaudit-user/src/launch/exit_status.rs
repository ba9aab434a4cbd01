//! What an exit status of `run` says: how the command ended, or why it could not be run.

use nix::errno::Errno;
use nix::sys::resource::{Resource, setrlimit};

use crate::model::report::Exit;

/// `run`: vmaudit itself failed, or was called wrongly.
pub const EXIT_OWN_FAILURE: i32 = 125;
/// The command was found but cannot be run.
pub const EXIT_NOT_EXECUTABLE: i32 = 126;
/// The command was not found.
pub const EXIT_NOT_FOUND: i32 = 127;

/// What the child could not do; sent with the errno.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Exec = 0,
    User = 1,
    Rights = 2,
    Terminal = 3,
}

/// What the child could not do, as an exit status and a reason.
pub(crate) fn refused(step: u8, errno: Errno) -> (i32, String) {
    let (status, why) = refused_with(step, errno);
    let what = match step {
        step if step == Step::User as u8 => "it cannot become that user: ",
        step if step == Step::Rights as u8 => "vmaudit's capabilities cannot be kept from it: ",
        step if step == Step::Terminal as u8 => "it cannot be kept from typing into this terminal: ",
        _ => "",
    };
    (status, format!("{what}{why}"))
}

/// The same without a word that needs memory.
pub(crate) fn refused_with(step: u8, errno: Errno) -> (i32, &'static str) {
    let own = [Step::User, Step::Rights, Step::Terminal].iter().any(|own| *own as u8 == step);
    let status = match errno {
        _ if own => EXIT_OWN_FAILURE,
        Errno::ENOENT => EXIT_NOT_FOUND,
        _ => EXIT_NOT_EXECUTABLE,
    };
    (status, errno.desc())
}

/// Ends vmaudit as the command ended: with its status, or by its signal.
pub fn end_like(exit: Exit) -> i32 {
    let Some(number) = exit.signal else { return exit.code.unwrap_or(EXIT_OWN_FAILURE) };
    // The core dump, if there is one to be had, is the command's.
    let _ = setrlimit(Resource::RLIMIT_CORE, 0, 0);
    // SAFETY: default disposition and an unblocked mask, then the signal to ourselves.
    unsafe {
        libc::signal(number, libc::SIG_DFL);
        let mut set = std::mem::zeroed::<libc::sigset_t>();
        libc::sigemptyset(&raw mut set);
        libc::sigaddset(&raw mut set, number);
        libc::sigprocmask(libc::SIG_UNBLOCK, &raw const set, std::ptr::null_mut());
        libc::raise(number);
    }
    128 + number // the signal does not kill by default
}
