use vmaudit_common::call::MUNMAP;

use super::*;
use crate::model::event::{
    CallStat, Change, Doubt, End, Losses, MmState, Needed, ProcessId, RefusalGroup, Refused,
};
use crate::model::loss::LossReason;
use crate::model::report::Limits;
use crate::source::recording::Writer;
use crate::strangers::recordings;

fn header() -> Header {
    Header { command: vec!["größe".into()], ..recordings::header() }
}

fn sample() -> Vec<Event> {
    let kind = RefusalGroup {
        call: MUNMAP,
        errno: 12,
        class: 0x8000_0177,
        count: 3,
        first_ns: 5,
        last_ns: 9,
        kept_bytes: u64::MAX,
        recovered: 0,
        needed: Needed::default(),
        sites: Vec::new(),
    };
    let mm = MmState {
        generation: 7,
        process: ProcessId { tgid: 10, start_ns: 4 },
        ppid: 1,
        uid: 0,
        comm: "a\nb\u{1b}".into(),
        first: 1,
        last: 2,
        peak: 3,
        born_ns: 4,
        peak_ns: 5,
        dead_ns: None,
        from_birth: true,
        from_snapshot: false,
        from_exec: true,
        shared: false,
        gaps: Some(0),
        most: None,
        kept: None,
        open_end: false,
        calls: vec![(MUNMAP, CallStat { calls: 4, added: 0, removed: 1, failed: 3 })],
        refusals: vec![kind.clone()],
        untold: Vec::new(),
        host: None,
        tasks: None,
        ledger: None,
        joined: None,
    };
    let change = |n: u32| Change {
        at_ns: 2_000 + u64::from(n),
        generation: 7,
        tgid: 10,
        tid: 11,
        comm: "a".into(),
        before: n,
        after: n + 1,
        call: MUNMAP,
    };
    vec![
        Event::Limits(Limits { max_map_count: Some(65530), ..Limits::default() }),
        Event::Change(change(1)),
        Event::Change(change(2)),
        Event::Refused(Box::new(Refused { args: [u64::MAX; 6], stack: vec![1, 2], ..Refused::example() })),
        Event::Mm(Box::new(mm)),
        Event::Lost(Losses {
            at_ns: 7,
            counters: [(LossReason::RingFull, 2)].into(),
            doubt: Doubt::default(),
            shares: Vec::new(),
        }),
        Event::Note("a note".into()),
        Event::VmaBytes(270.1),
        Event::End(End { at_ns: 3_000, exit: None, still_running: 1 }),
    ]
}

fn written(events: &[Event]) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new(), &header(), None).unwrap();
    for (n, event) in events.iter().enumerate() {
        writer.event(event).unwrap();
        if n % 3 == 0 {
            writer.flush().unwrap();
        }
    }
    writer.flush().unwrap();
    writer.into_inner()
}

/// What of a file can be read, and where it is cut.
fn read(bytes: &[u8]) -> Result<(Vec<Event>, Option<Cut>), ReadError> {
    let mut reader = Reader::new(bytes)?;
    let mut events = Vec::new();
    while reader.next_frame(&mut |event| events.push(event))? {}
    let cut = events.pop_if(|event| matches!(event, Event::Cut(_)));
    assert_eq!(cut, reader.cut().map(Event::Cut), "told once, as the last event");
    Ok((events, reader.cut()))
}

/// A text that a frame tells once may be in many events, and each audit keeps its own.
#[test]
fn no_more_names_are_read_than_a_reader_keeps() {
    let mut file = Vec::new();
    let mut writer = Writer::new(&mut file, &header(), None).unwrap();
    for n in 0..40 {
        writer.event(&Event::Note("n".repeat(100))).unwrap();
        writer.event(&sample()[1]).unwrap();
        if n % 10 == 9 {
            writer.flush().unwrap();
        }
    }
    let notes = |most: usize| {
        let mut reader = Reader::new(file.as_slice()).unwrap();
        reader.most_names = most;
        let mut notes = 0;
        while reader.next_frame(&mut |event| notes += u32::from(matches!(event, Event::Note(_)))).unwrap() {}
        (notes, reader.cut().unwrap())
    };
    let (all, end) = notes(MOST_NAMES);
    assert_eq!((all, end.too_many_names), (40, false));
    let (some, end) = notes(2_500);
    assert!((20..=25).contains(&some), "{some}");
    assert!(end.too_many_names && end.leaves_some() && end.whole_bytes < file.len() as u64, "{end:?}");
}

/// Nothing happens behind the end of a session, and of its own cut no recording tells.
#[test]
fn what_comes_behind_the_end_is_damage() {
    let events = sample();
    let whole = written(&events);
    let cut = Event::Cut(Cut::at(1));
    for more in [events[6].clone(), events[8].clone(), cut.clone()] {
        let together = written(&[&events[..], &[more]].concat());
        let (read, cut) = read(&together).unwrap();
        assert!(cut.is_some_and(|cut| cut.damaged), "{cut:?}");
        assert_eq!(read.len(), events.len());
    }
    // In a frame of its own.
    let last = written(&events[6..7]);
    let (read, cut_at) = read(&[&whole, &last[written(&[]).len()..]].concat()).unwrap();
    assert_eq!(cut_at, Some(Cut { damaged: true, ..Cut::at(whole.len() as u64) }));
    assert_eq!(read.len(), events.len());
    let (read, cut_at) = self::read(&written(&[cut, events[6].clone()])).unwrap();
    assert!(read.is_empty() && cut_at.is_some_and(|cut| cut.damaged));
}

#[test]
fn what_is_written_is_read_again() {
    let bytes = written(&sample());
    assert_eq!(Reader::new(bytes.as_slice()).unwrap().header(), &header());
    let (events, cut) = read(&bytes).unwrap();
    assert_eq!(cut, None);
    // Changes come in frames of their own, so only their order among themselves stays.
    let apart = |events: &[Event]| {
        let (changes, others): (Vec<Event>, Vec<Event>) =
            events.iter().cloned().partition(|event| matches!(event, Event::Change(_)));
        [changes, others]
    };
    assert_eq!(apart(&events), apart(&sample()));
}

#[test]
fn no_name_of_a_machine_is_longer_than_a_machine_has() {
    let named = |name: &str| {
        let mut told = header();
        told.host.name = Some(name.to_owned());
        let file = Writer::new(Vec::new(), &told, None).unwrap().into_inner();
        Reader::new(file.as_slice()).unwrap().header().host.name.clone().unwrap()
    };
    assert_eq!(named(&"n".repeat(64)), "n".repeat(64));
    assert_eq!(named(&format!("n{}", "\u{f6}".repeat(1000))), format!("n{}", "\u{f6}".repeat(127)));
}

/// Files of earlier versions are read for ever.
#[test]
fn a_recording_of_version_1_gives_the_report_that_it_gave() {
    let bytes = include_bytes!("version-1.vma");
    assert_eq!(bytes[MAGIC.len()], 1);
    let (events, cut) = read(bytes).unwrap();
    assert_eq!((events.len(), cut), (430, None));
    let (header, audit) = crate::session::replay::replay(Reader::new(bytes.as_slice()).unwrap()).unwrap();
    let report = crate::domain::report::report(&header, &audit).unwrap();
    let process = &report.processes[0];
    assert_eq!((process.map_count.peak, process.map_count.exact), (Some(108), true));
    assert_eq!(report.failures.iter().map(|group| group.count).sum::<u64>(), 11);
    // Written again, as this version does, it is the same report.
    let mut writer = Writer::new(Vec::new(), &header, None).unwrap();
    events.iter().for_each(|event| writer.event(event).unwrap());
    writer.flush().unwrap();
    let again = writer.into_inner();
    let (header, audit) = crate::session::replay::replay(Reader::new(again.as_slice()).unwrap()).unwrap();
    assert_eq!(crate::domain::report::report(&header, &audit).unwrap(), report);
}

#[test]
fn every_beginning_of_a_file_is_readable() {
    let bytes = written(&sample());
    let (whole, _) = read(&bytes).unwrap();
    let mut seen = 0;
    for length in 0..bytes.len() {
        match read(&bytes[..length]) {
            Ok((events, Some(cut))) => {
                assert!(!cut.damaged && cut.whole_bytes <= length as u64, "{length}");
                assert!(events.len() >= seen && whole.starts_with(&events), "{length}");
                seen = events.len();
            }
            Ok((_, None)) => panic!("{length}: a file without its end counts as whole"),
            Err(ReadError::NotOne | ReadError::Header) => assert_eq!(seen, 0, "{length}"),
            Err(e) => panic!("{length}: {e}"),
        }
    }
    assert!(seen > 0);
}

#[test]
fn every_flipped_bit_shows() {
    let bytes = written(&sample());
    let (whole, _) = read(&bytes).unwrap();
    let header = written(&[]).len();
    for at in 0..bytes.len() {
        for bit in 0..8 {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1 << bit;
            match read(&flipped) {
                Ok((events, Some(_))) => assert!(whole.starts_with(&events), "{at}.{bit}"),
                // The kind of a frame is in its checksum, so no frame is passed over.
                Ok((_, None)) => panic!("{at}.{bit}: unseen"),
                Err(ReadError::Io(e)) => panic!("{at}.{bit}: {e}"),
                Err(_) => assert!(at < header, "{at}.{bit}: only what stands first refuses the whole file"),
            }
        }
    }
}

#[test]
fn lengths_are_not_believed() {
    let good = written(&[]);
    for (plain, stored) in [(u32::MAX, 1), (1, u32::MAX), (1 << 20, 1 << 20), (5, 0)] {
        let mut head = Head { kind: b'E', plain, stored, crc: 0 };
        head.crc = head.checksum(&[]);
        let mut bytes = good.clone();
        bytes.extend_from_slice(&head.bytes());
        let (events, cut) = read(&bytes).unwrap();
        assert!(events.is_empty() && cut.is_some());
    }
    // A frame that inflates to more than it says.
    let stored = {
        let mut zlib = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::best());
        io::Write::write_all(&mut zlib, &vec![b'\n'; 900 << 10]).unwrap();
        zlib.finish().unwrap()
    };
    let mut bytes = good;
    bytes.extend_from_slice(&Head::of(Kind::Events, 10, &stored).bytes());
    bytes.extend_from_slice(&stored);
    assert!(read(&bytes).unwrap().1.is_some_and(|cut| cut.damaged));
}

#[test]
fn other_files_and_newer_ones_are_refused_with_a_sentence() {
    for other in [&b""[..], b"{}", b"PK\x03\x04 something", &MAGIC] {
        let why = read(other).unwrap_err().to_string();
        assert_eq!(why, "it is no recording of vmaudit", "{other:?}");
    }
    let mut newer = written(&[]);
    newer[MAGIC.len()] = VERSION + 1;
    assert!(read(&newer).unwrap_err().to_string().contains("a newer vmaudit wrote it (format 3;"));
}

#[test]
fn changes_beyond_the_size_asked_for_are_left_out_and_counted() {
    let mut writer = Writer::new(Vec::new(), &header(), Some(0)).unwrap();
    for event in sample() {
        writer.event(&event).unwrap();
    }
    writer.flush().unwrap();
    assert_eq!(writer.left_out(), 2);
    let (events, cut) = read(&writer.into_inner()).unwrap();
    assert_eq!((events.len(), cut), (sample().len() - 2, None));
}

/// A file that ends where the disk was full.
struct Full(Vec<u8>, usize);

impl io::Write for Full {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = self.1 - self.0.len();
        if room == 0 {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let n = bytes.len().min(room);
        self.0.extend_from_slice(&bytes[..n]);
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_full_disk_leaves_what_was_framed() {
    let whole = written(&sample()).len();
    let room = whole - 20;
    let mut writer = Writer::new(Full(Vec::new(), room), &header(), None).unwrap();
    let mut failed = None;
    for (n, event) in sample().iter().enumerate() {
        let done = writer.event(event).and_then(|()| if n % 3 == 0 { writer.flush() } else { Ok(()) });
        if let Err(e) = done {
            failed.get_or_insert(e);
        }
    }
    let failed = failed.or(writer.flush().err()).expect("the disk is full");
    assert_eq!(failed.kind(), io::ErrorKind::StorageFull);
    let (events, cut) = read(&writer.into_inner().0).unwrap();
    assert!(!events.is_empty() && cut.is_some());
}
