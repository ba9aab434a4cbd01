//! Threads of vmaudit's own. Signals are the session's, which takes them in its own thread: one that another thread had not
//! blocked yet would end vmaudit.

use std::io;
use std::thread::{Builder, JoinHandle};

use nix::sys::signal::{SigSet, SigmaskHow};

/// Begins a thread to which no signal is delivered, from its first moment on.
pub fn deaf(name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    // It inherits what is blocked here (man 3 pthread_create).
    let before = SigSet::all().thread_swap_mask(SigmaskHow::SIG_BLOCK)?;
    let begun = Builder::new().name(name.into()).spawn(work);
    before.thread_set_mask()?;
    begun
}

#[cfg(test)]
mod tests {
    use nix::sys::signal::Signal;

    use super::*;

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
