//! Makes the audit of a recorded session: `report = render(replay(events))`.

use std::io::{self, Read};

use crate::domain::audit::Audit;
use crate::model::session::Header;
use crate::source::Source as _;
use crate::source::recording::Reader;

/// Reads the recording to its end, or to where it is cut. Errors: the file cannot be read.
pub fn replay(mut recording: Reader<impl Read>) -> io::Result<(Header, Audit)> {
    let header = recording.header().clone();
    let mut audit = Audit::of(&header);
    while recording.drain(usize::MAX, &mut |event| audit.apply(event)) {}
    match recording.failure() {
        Some(e) => Err(io::Error::new(e.kind(), e.to_string())),
        None => Ok((header, audit)),
    }
}
