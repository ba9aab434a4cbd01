//! Makes the audit of a recorded session: `report = render(replay(events))`.

use std::io::{self, Read};

use crate::domain::audit::Audit;
use crate::model::session::Header;
use crate::source::Source as _;
use crate::source::recording::Reader;

/// Bytes of memory that an audit of a recording may take, more than a session has processes for.
const MOST: usize = 1 << 30;
/// It is weighed when so much was told since the last time: some KB of a file can tell a gigabyte, and a byte of that can
/// take a hundred.
const EVERY: usize = 1 << 20;
/// Of a large audit that is this part of what it takes: to weigh it takes as long as it is large.
const PART: usize = 256;

/// Reads the recording to its end, or to where it is cut. Errors: the file cannot be read.
pub fn replay(recording: Reader<impl Read>) -> io::Result<(Header, Audit)> {
    within(recording, MOST, EVERY)
}

fn within(mut recording: Reader<impl Read>, most: usize, every: usize) -> io::Result<(Header, Audit)> {
    let header = recording.header().clone();
    let mut audit = Audit::of(&header);
    let mut weighed_at = every as u64;
    while recording.drain(usize::MAX, &mut |event| audit.apply(event)) {
        if recording.told_bytes() < weighed_at {
            continue;
        }
        let bytes = audit.bytes();
        if bytes > most {
            recording.stop(&mut |event| audit.apply(event));
        }
        weighed_at = recording.told_bytes() + (bytes / PART).max(every) as u64;
    }
    match recording.failure() {
        Some(e) => Err(io::Error::new(e.kind(), e.to_string())),
        None => Ok((header, audit)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::report::report;
    use crate::model::event::{Event, MmState, ProcessId};
    use crate::model::makers::Entered;
    use crate::source::recording::Writer;
    use crate::strangers::recordings;

    /// A recording of processes with so many entries of the ledger each.
    fn hostile(processes: u32, entries: usize) -> Vec<u8> {
        let header = Header { stretch: None, ..recordings::header() };
        let mut writer = Writer::new(Vec::new(), &header, None).unwrap();
        let events = recordings::events();
        let state = events.iter().find_map(|event| match event {
            Event::Mm(mm) => Some(mm.as_ref().clone()),
            _ => None,
        });
        let entry = Entered { key: 1, call: 0, added: 1, removed: 0 };
        for tgid in 0..processes {
            let state = MmState {
                generation: tgid.into(),
                process: ProcessId { tgid, start_ns: 1 },
                ledger: Some(vec![entry; entries]),
                ..state.clone().unwrap()
            };
            writer.event(&Event::Mm(Box::new(state))).unwrap();
            writer.flush().unwrap();
        }
        let end = events.into_iter().find(|event| matches!(event, Event::End(_)));
        writer.event(&end.unwrap()).unwrap();
        writer.flush().unwrap();
        writer.into_inner()
    }

    #[test]
    fn a_recording_that_tells_more_than_memory_holds_is_read_no_further_and_that_is_said() {
        const ENTRIES: usize = 4096;
        let file = hostile(30, ENTRIES);
        let bytes = 30 * ENTRIES * size_of::<Entered>();
        assert!(file.len() * 100 < bytes, "{} say {bytes}", file.len());
        let of = |most: usize| within(Reader::new(file.as_slice()).unwrap(), most, 1 << 14).unwrap();
        let (header, audit) = of(MOST);
        assert!(audit.cut().is_none() && audit.bytes() > bytes);
        assert!(!report(&header, &audit).unwrap().coverage.lost.contains_key("recording_cut"));
        let (header, audit) = of(bytes / 3);
        let cut = audit.cut().unwrap();
        assert!(cut.too_much && cut.leaves_some() && cut.whole_bytes < file.len() as u64, "{cut:?}");
        assert!((bytes / 3..bytes / 2).contains(&audit.bytes()), "{}", audit.bytes());
        let report = report(&header, &audit).unwrap();
        assert_eq!(report.coverage.lost["recording_cut"], 1);
        let said =
            report.coverage.notes.iter().filter(|note| note.contains("takes more than 1 GiB of memory"));
        assert_eq!(said.count(), 1, "{:?}", report.coverage.notes);
        assert!((9..15).contains(&report.processes.len()), "{}", report.processes.len());
    }

    /// It is whole, whatever it takes: there is nothing more to read.
    #[test]
    fn one_whose_end_was_told_is_not_cut() {
        let file = hostile(3, 64);
        let mut whole = Reader::new(file.as_slice()).unwrap();
        while whole.drain(usize::MAX, &mut |_| {}) {}
        // Weighed behind the last frame alone.
        let told = whole.told_bytes() as usize;
        let (_, audit) = within(Reader::new(file.as_slice()).unwrap(), 1, told).unwrap();
        assert!(audit.bytes() > 1 && audit.cut().is_none(), "{:?}", audit.cut());
    }
}
