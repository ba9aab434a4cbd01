//! Threads of vmaudit's own. Signals are the session's, which takes them in its own thread: one that another thread had not
//! blocked yet would end vmaudit.

use std::io;
use std::panic::resume_unwind;
use std::thread::{self, Builder, JoinHandle};

use nix::sys::signal::{SigSet, SigmaskHow};

/// Begins a thread to which no signal is delivered, from its first moment on.
pub fn deaf(name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    // It inherits what is blocked here (man 3 pthread_create).
    let before = SigSet::all().thread_swap_mask(SigmaskHow::SIG_BLOCK)?;
    let begun = Builder::new().name(name.into()).spawn(work);
    before.thread_set_mask()?;
    begun
}

/// Two works at once, the second in a thread like that of [`deaf`]; where none is to be had, one after the other.
pub fn beside<A, B: Send>(name: &str, here: impl FnOnce() -> A, there: impl Fn() -> B + Sync) -> (A, B) {
    thread::scope(|scope| {
        let before = SigSet::all().thread_swap_mask(SigmaskHow::SIG_BLOCK);
        let thread = Builder::new().name(name.into()).spawn_scoped(scope, &there);
        if let Ok(before) = before {
            let _ = before.thread_set_mask();
        }
        let first = here();
        let second = match thread {
            Ok(thread) => thread.join().unwrap_or_else(|panic| resume_unwind(panic)),
            Err(_) => there(),
        };
        (first, second)
    })
}

#[cfg(test)]
mod tests {
    use nix::sys::signal::Signal;

    use super::*;

    #[test]
    fn both_are_done_and_signals_are_heard_as_before() {
        let before = SigSet::thread_get_mask().unwrap();
        let own = thread::current().id();
        let (first, second) = beside("beside", || thread::current().id(), || thread::current().id());
        assert_eq!(first, own);
        assert_ne!(second, own);
        assert_eq!(SigSet::thread_get_mask().unwrap(), before);
    }

    #[test]
    fn it_hears_nothing_and_who_began_it_hears_as_before() {
        let before = SigSet::thread_get_mask().unwrap();
        let (tell, told) = std::sync::mpsc::channel();
        let work = move || tell.send(SigSet::thread_get_mask().unwrap().contains(Signal::SIGUSR2)).unwrap();
        deaf("deaf", work).unwrap().join().unwrap();
        assert_eq!(told.recv(), Ok(true));
        assert_eq!(SigSet::thread_get_mask().unwrap(), before);
    }
}
