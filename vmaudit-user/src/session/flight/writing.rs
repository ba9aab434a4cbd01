//! Writes a stretch to its folder beside the session: a slow disk holds up nobody.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, TryRecvError};
use std::time::Duration;

use crate::os::flight_folder::FlightFolder;
use crate::os::own_threads;
use crate::text::MESSAGES;

/// How long a session waits at its end for the last file.
const PATIENCE: Duration = Duration::from_secs(5);

pub type Written = io::Result<PathBuf>;

/// At most one file is written at one time.
pub struct Desk {
    folder: Arc<FlightFolder>,
    at_work: Option<Receiver<Written>>,
    failed: u64,
    first_failure: Option<String>,
}

impl Desk {
    /// Writes there.
    pub fn new(folder: FlightFolder) -> Self {
        Self { folder: Arc::new(folder), at_work: None, failed: 0, first_failure: None }
    }

    /// Nothing is being written.
    pub fn is_free(&self) -> bool {
        self.at_work.is_none()
    }

    /// Begins to write these parts as one file.
    pub fn write(&mut self, parts: Vec<Arc<[u8]>>) {
        self.turn();
        if self.at_work.is_some() {
            return self.note(Err(io::Error::other("the last one is not written yet")));
        }
        let (tell, told) = mpsc::channel();
        let folder = Arc::clone(&self.folder);
        let began = own_threads::deaf("vmaudit-flight", move || {
            // Nobody waits any more: nothing to tell.
            let _ = tell.send(folder.write(&parts));
        });
        match began {
            Ok(_) => self.at_work = Some(told),
            Err(e) => self.note(Err(e)),
        }
    }

    /// Takes what has been done.
    pub fn turn(&mut self) {
        let Some(told) = &self.at_work else { return };
        match told.try_recv() {
            Ok(written) => {
                self.at_work = None;
                self.note(written);
            }
            Err(TryRecvError::Empty) => {}
            Err(TryRecvError::Disconnected) => self.at_work = None,
        }
    }

    /// Waits for the last file.
    pub fn finish(&mut self) {
        let Some(told) = self.at_work.take() else { return };
        match told.recv_timeout(PATIENCE) {
            Ok(written) => self.note(written),
            Err(RecvTimeoutError::Timeout) => {
                self.note(Err(io::Error::other("the folder does not answer")));
            }
            Err(RecvTimeoutError::Disconnected) => {}
        }
    }

    fn note(&mut self, written: Written) {
        match written {
            Ok(path) => log::info!(target: MESSAGES, "the flight recorder kept {}", path.display()),
            Err(e) => {
                self.failed += 1;
                if self.first_failure.is_none() {
                    let why = format!("the flight recorder could not write to {}: {e}", self.folder.shown());
                    log::warn!(target: MESSAGES, "{why}");
                    self.first_failure = Some(why);
                }
            }
        }
    }

    /// What did not work.
    pub fn complaint(&self) -> Option<String> {
        let first = self.first_failure.as_ref()?;
        Some(match self.failed {
            1 => first.clone(),
            failed => format!("{first} (and {} more)", failed - 1),
        })
    }

    /// A file is being written that is done when this is told.
    #[cfg(test)]
    pub fn busy_for_test(&mut self) -> mpsc::Sender<Written> {
        let (tell, told) = mpsc::channel();
        self.at_work = Some(told);
        tell
    }
}
