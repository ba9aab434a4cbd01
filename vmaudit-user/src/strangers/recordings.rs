//! Recordings: as files, and what stands in their frames, which a checksum keeps most damage from.

use std::io::Write as _;
use std::sync::OnceLock;

use flate2::{Compression, write::ZlibEncoder};
use vmaudit_common::call::{CALLS, Call, MMAP, MUNMAP};
use vmaudit_common::{CLASS_OVER_DATA, CLASS_SECTION};

use super::assert_harmless;
use crate::domain::compare::{Asked, compare};
use crate::domain::fleet::Collected;
use crate::domain::{audit::Audit, report::report};
use crate::model::difference::Tolerance;
use crate::model::end::{
    CgroupLevel, Ended, Fault, FaultFile, FaultMapping, OomCgroups, OomVictim, OwnState, Raised, Sender,
};
use crate::model::event::{
    CallStat, Change, Cut, End, Event, Interval, LimitSeen, Losses, MmState, Needed, ProcessFacts, ProcessId,
    Reached, RefusalGroup, Refused, Sample, Section,
};
use crate::model::loss::LossReason;
use crate::model::mark::{MarkDoubt, MarkSet};
use crate::model::report::{Host, Limits, Report, SourceKind};
use crate::model::session::{Budget, Gone, Header, KernelRules, MarginAsked, Sight, Stretch};
use crate::model::shortage::{Commit, TaskFigure, Tasks};
use crate::model::test::{TestOf, WithoutTest};
use crate::model::within::Within;
use crate::output::format::{Document, Format, write};
use crate::output::text::page::Style;
use crate::session::left::of_json;
use crate::source::recording::format::{self, Changes, Head, Kind, MAGIC, VERSION};
use crate::source::recording::{Reader, Writer};

/// The header of a session of nothing special.
pub(crate) fn header() -> Header {
    Header {
        vmaudit: "0.1.0".into(),
        host: Host {
            name: Some("here".into()),
            kernel: "6.18".into(),
            arch: "x86_64".into(),
            cpus: 2,
            page_size: 4096,
        },
        source: SourceKind::Ebpf,
        sight: Sight { changes: true, exits: true, locking: false, ends: true },
        rules: KernelRules::for_release("6.18"),
        started: "2026-11-26T00:00:00Z".into(),
        start_ns: 1_000,
        command: vec!["sh".into()],
        margin: MarginAsked { headroom: 1.5, round: 10_000 },
        budget: Budget { max_peak: Some(1), ..Budget::default() },
        all_rows: false,
        stretch: Some(Stretch {
            from_ns: 1_500,
            why: "a\u{1b}".into(),
            gone: Gone { processes: 3, refused: 2 },
        }),
        watched: Some("unit \u{1b}x".into()),
        attached_ns: Some(7),
    }
}

/// A process that died of a fault in a mapped file.
fn ended(process: ProcessId) -> Ended {
    let file = FaultFile { offset: 8192, size: 4096, magic: 0x0102_1994, blocks: Some(4) };
    let mapping = FaultMapping { start: 0x1000, flags: 3, file: Some(file) };
    let raised = Raised {
        at_ns: 2,
        code: 2,
        tid: 8,
        by: Sender { tgid: process.tgid, tid: 8, comm: "\u{1b}x".into() },
        oom: false,
        in_exec: false,
        own: Some(OwnState { stack: Some([1, 2]), ..OwnState::default() }),
        fault: Some(Fault { address: 0x2000, looked: true, mapping: Some(mapping) }),
    };
    let signal = Some(Box::new(raised));
    Ended { process, at_ns: 3, ppid: 1, comm: "\u{1b}x".into(), status: 7, signal }
}

fn cgroups(process: ProcessId) -> OomCgroups {
    let level = CgroupLevel {
        path: "/\u{1b}x".into(),
        v1: false,
        limit_bytes: Some(4096),
        out_of_memory: 2,
        out_of_memory_before: Some(1),
        killed: Some(1),
        used_bytes: Some(4096),
        acting: Some(true),
    };
    OomCgroups { process, levels: vec![level], complete: true, inside: true }
}

/// A whole frame of these plain bytes.
fn frame(kind: Kind, plain: &[u8]) -> Vec<u8> {
    let mut zlib = ZlibEncoder::new(Vec::new(), Compression::fast());
    zlib.write_all(plain).expect("memory can be written to");
    let stored = zlib.finish().expect("memory can be written to");
    [&Head::of(kind, plain.len(), &stored).bytes()[..], &stored].concat()
}

fn begun() -> Vec<u8> {
    let plain = serde_json::to_vec(&header()).expect("a header can be written");
    [&MAGIC[..], &[VERSION], &frame(Kind::Header, &plain)].concat()
}

/// Header, events and end of what can be read of a recording; `None` for what is none.
fn read(bytes: &[u8]) -> Option<(Header, Vec<Event>, Option<Cut>)> {
    let mut reader = Reader::new(bytes).ok()?;
    let mut events = Vec::new();
    while reader.next_frame(&mut |event| events.push(event)).expect("bytes in memory") {}
    let cut = reader.cut();
    if let Some(cut) = cut {
        assert!(cut.whole_bytes <= bytes.len() as u64, "{cut:?}");
        assert_eq!(events.pop(), Some(Event::Cut(cut)), "told once, as the last event");
    }
    Some((reader.header().clone(), events, cut))
}

/// A recording as a file: a beginning of it gives a beginning of its events and says that it is cut; written again they
/// are read as the same; their report can be made, and steers no terminal.
pub fn recording(bytes: &[u8]) {
    let Some((header, events, _)) = read(bytes) else { return };
    if let Some((same, some, cut)) = read(&bytes[..bytes.len() / 2]) {
        assert_eq!(same, header);
        assert!(events.starts_with(&some) && (cut.is_some() || some == events), "{cut:?}");
    }
    written_again(&header, &events);
    assert_report(&header, events);
}

/// The header frame of a recording.
pub fn recorded_header(bytes: &[u8]) {
    static EVENTS: OnceLock<Vec<u8>> = OnceLock::new();
    let events = EVENTS.get_or_init(|| frame(Kind::Events, &lines(&events()[..FEW])));
    recording(&[&MAGIC[..], &[VERSION], &frame(Kind::Header, bytes), events].concat());
}

/// Events that are enough for a report.
pub(crate) const FEW: usize = 14;

/// As they stand in a frame.
pub(crate) fn lines(events: &[Event]) -> Vec<u8> {
    let line = |event: &Event| serde_json::to_vec(event).expect("an event can be written");
    events.iter().map(line).collect::<Vec<_>>().join(&b'\n')
}

/// A frame of events as JSON, as version 1 wrote them.
pub fn recorded_events(bytes: &[u8]) {
    recording(&[begun(), frame(Kind::Events, bytes)].concat());
}

/// The same, packed.
pub fn recorded_packed(bytes: &[u8]) {
    recording(&[begun(), frame(Kind::Packed, bytes)].concat());
}

/// Events as they stand in a frame, packed.
#[cfg(test)]
pub(crate) fn packed(events: &[Event]) -> Vec<u8> {
    let mut packer = crate::source::recording::packed::Packer::default();
    for event in events {
        assert!(packer.push(event, usize::MAX).expect("an event can be packed"));
    }
    packer.take()
}

/// A frame of changes of map_count.
pub fn recorded_changes(bytes: &[u8]) {
    let mut all = Vec::new();
    let whole = format::changes(bytes, |change| all.push(change));
    // Each takes eight numbers, of a byte at least.
    assert!(all.len() * 8 <= bytes.len());
    let mut frame = Changes::default();
    all.iter().for_each(|change| frame.push(change));
    let mut again: Vec<Change> = Vec::new();
    assert_eq!(format::changes(&frame.take(), |change| again.push(change)), Some(()));
    // A name is kept up to a length; one with bytes that are no UTF-8 was made longer by reading it.
    if all.iter().all(|change| change.comm.len() <= 255) {
        assert_eq!(again, all);
    }
    if whole.is_some() {
        recording(&[begun(), self::frame(Kind::Changes, bytes)].concat());
    }
}

/// Changes come in frames of their own, so only their order among themselves stays; mappings are not written down.
fn apart(events: &[Event]) -> [Vec<&Event>; 2] {
    let kept = events.iter().filter(|event| !matches!(event, Event::Mapped(_) | Event::StackPiece(_)));
    let (changes, others) = kept.partition(|event| matches!(event, Event::Change(_)));
    [changes, others]
}

fn written_again(header: &Header, events: &[Event]) {
    let mut writer = Writer::new(Vec::new(), header, None).expect("memory can be written to");
    for event in events {
        writer.event(event).expect("memory can be written to");
    }
    writer.flush().expect("memory can be written to");
    let long = events.iter().any(|event| matches!(event, Event::Change(it) if it.comm.len() > 255));
    let too_long = writer.too_long() > 0;
    let (same, again, _) = read(&writer.into_inner()).expect("what was written is a recording");
    assert_eq!(&same, header);
    if !long && !too_long {
        assert_eq!(apart(&again), apart(events));
    }
}

fn assert_report(header: &Header, events: Vec<Event>) {
    let mut audit = Audit::of(header);
    for event in events {
        audit.apply(event);
    }
    let Ok(report) = report(header, &audit) else { return };
    assert_shown(&report);
}

/// It can be shown in every format, and steers no terminal.
fn assert_shown(report: &Report) {
    for format in Format::of_reports() {
        let mut shown = Vec::new();
        write(&Document::Report(report), format, &Style::default(), &mut shown)
            .expect("memory can be written to");
        if format.is_text() {
            assert_harmless(std::str::from_utf8(&shown).expect("text"));
        }
    }
}

/// A report in JSON: what is understood can be shown, and written again it is read as the same.
pub fn json_report(bytes: &[u8]) {
    let Ok(report) = of_json(bytes) else { return };
    assert_shown(&report);
    beside_another(&report);
    let text = serde_json::to_vec(&report).expect("a report can be written");
    assert_eq!(of_json(&text).expect("it was one"), report);
}

/// In a summary of several, and compared with another one: nothing gets lost, and nothing steers a terminal.
fn beside_another(report: &Report) {
    static OTHER: OnceLock<Report> = OnceLock::new();
    let other = OTHER.get_or_init(|| of_json(&sample_report()).expect("a report"));
    let mut collected = Collected::default();
    for (file, report) in [("a\u{1b}.json", report), ("b.json", other)] {
        collected.take(file, report, false);
    }
    let fleet = collected.summary();
    let sum = |rows: &mut dyn Iterator<Item = u64>| rows.fold(0_u64, u64::saturating_add);
    let by_file = sum(&mut fleet.files.iter().map(|row| row.processes));
    assert_eq!(sum(&mut fleet.applications.iter().map(|row| row.sums.processes)), by_file);
    assert_eq!(sum(&mut fleet.hosts.iter().map(|row| row.sums.processes)), by_file);
    let asked = Asked { tolerance: Tolerance { percent: 5.0, vmas: 10 }, fail_over: Some(10.0) };
    let difference = compare(("a", other), ("b", report), &asked);
    assert!(compare(("a", report), ("a", report), &asked).makers.is_empty(), "it is the same");
    let formats = [Format::Text, Format::Json, Format::Markdown, Format::Github];
    for (document, formats) in
        [(Document::Fleet(&fleet), &formats[..2]), (Document::Difference(&difference), &formats[..])]
    {
        for format in formats {
            let mut shown = Vec::new();
            write(&document, *format, &Style::default(), &mut shown).expect("memory can be written to");
            assert_harmless(std::str::from_utf8(&shown).expect("text"));
        }
    }
}

/// A report of nearly everything, as JSON.
pub(crate) fn sample_report() -> Vec<u8> {
    let header = header();
    let mut audit = Audit::of(&header);
    events().into_iter().for_each(|event| audit.apply(event));
    serde_json::to_vec(&report(&header, &audit).expect("its margin is right")).expect("it can be written")
}

/// One event of nearly each kind, and a refusal of each call.
pub(crate) fn events() -> Vec<Event> {
    let process = ProcessId { tgid: 10, start_ns: 4 };
    let kind = RefusalGroup {
        call: MMAP,
        errno: 12,
        class: refused(MMAP).class,
        count: 3,
        first_ns: 5,
        last_ns: 9,
        kept_bytes: 4096,
        recovered: 0,
        needed: Needed::default(),
        sites: Vec::new(),
    };
    let image = |generation: u64| MmState {
        generation,
        process,
        ppid: 1,
        uid: 0,
        comm: "a\nb\u{1b}".into(),
        first: 1,
        last: 2,
        peak: 65530,
        born_ns: 4,
        peak_ns: 5,
        dead_ns: Some(9),
        from_birth: true,
        from_snapshot: false,
        from_exec: true,
        shared: false,
        gaps: Some(1),
        most: None,
        kept: None,
        open_end: false,
        calls: vec![(MUNMAP, CallStat { calls: 4, added: 2, removed: 1, failed: 3 })],
        refusals: vec![kind.clone()],
        untold: Vec::new(),
        host: None,
        tasks: None,
        ledger: None,
        joined: None,
    };
    let change = |n: u32| {
        Event::Change(Change {
            at_ns: 2_000 + u64::from(n),
            generation: 7,
            tgid: 10,
            tid: 11,
            comm: "a".into(),
            before: n,
            after: n + 1,
            call: MUNMAP,
        })
    };
    let limits = Limits { max_map_count: Some(65530), ..Limits::default() };
    let facts = ProcessFacts {
        process,
        at_ns: 3,
        exe: Some("/bin/a".into()),
        cgroup: Some("/x".into()),
        within: Within { unit: Some("a.service".into()), container: Some("c".into()), pod: None },
    };
    let some = vec![
        Event::Limits(limits),
        change(1),
        Event::Refused(Box::new(refused(MMAP))),
        Event::Mm(Box::new(image(7))),
        Event::Mm(Box::new(image(8))),
        Event::Process(facts),
        Event::Test(Box::new(TestOf::named(process, "a\u{1b} b".into()))),
        Event::Test(Box::new(TestOf::without(process, WithoutTest::Unknown))),
        Event::Ended(Box::new(ended(process))),
        Event::OomVictim(Box::new(OomVictim { process, at_ns: 4, memory: None })),
        Event::OomCgroups(Box::new(cgroups(process))),
        change(2),
        Event::LimitSeen(LimitSeen { at_ns: 5, max_map_count: 65530 }),
        boundary(1, true),
        boundary(2, false),
        boundary(3, true),
        Event::Interval(Box::new(interval(4, 9))),
        Event::Sample(sample(12, 5)),
        Event::Sample(sample(12, 7)),
        Event::Lost(Losses { counters: [(LossReason::RingFull, 2)].into(), ..Losses::default() }),
        Event::Gone(vec![process]),
        Event::Note("a note".into()),
    ];
    let each = (0..CALLS.len() as u8).flat_map(|call| {
        let group = RefusalGroup { call, class: refused(call).class, ..kind.clone() };
        let of_it = MmState { refusals: vec![group], ..image(7) };
        [Event::Refused(Box::new(refused(call))), Event::Mm(Box::new(of_it))]
    });
    let end = [Event::FiguresEnd, Event::End(End { at_ns: 3_000, exit: None, still_running: 1 })];
    some.into_iter().chain(each).chain(end).collect()
}

/// In the first of the images above.
pub(crate) fn interval(from_ns: u64, to_ns: u64) -> Interval {
    Interval { every_ns: 1, from_ns, to_ns, of: vec![Reached(7, 65530, 3)], by: Vec::new() }
}

/// Of a process without an address space that is followed.
pub(crate) fn sample(tgid: u32, at_ns: u64) -> Sample {
    let process = ProcessId { tgid, start_ns: 1 };
    Sample { at_ns, process, ppid: 1, comm: "s".into(), map_count: Some(tgid + at_ns as u32 % 7) }
}

fn boundary(number: u64, begins: bool) -> Event {
    let doubt = begins.then_some(MarkDoubt::Late);
    let number = number.div_ceil(2);
    Event::Mark(Box::new(MarkSet {
        at_ns: 6 + number,
        number,
        begins,
        name: "a\u{1b}".into(),
        by: 10,
        cut_ns: number.is_multiple_of(2).then_some(6),
        doubt,
    }))
}

fn refused(call: Call) -> Refused {
    Refused {
        site: 0,
        at_ns: 1,
        generation: 7,
        tgid: 10,
        tid: 11,
        comm: "a".into(),
        call,
        errno: 12,
        class: CLASS_SECTION | CLASS_OVER_DATA | 7,
        ret: -12,
        args: [0x1000, 0x2000, 3, 0x22, 5, 0],
        section: Some(Section { mc0: 65530, mc1: 65530, total_vm: 7, ..Section::default() }),
        max_map_count: 65530,
        rlimits: [1 << 40; 4],
        start_brk: 0x5000,
        hole: None,
        tasks: Some(Box::new(Tasks {
            user: Some(TaskFigure { count: 1 << 40, limit: None, level: 3 }),
            cgroup: Some(TaskFigure { count: 2, limit: Some(2), level: 0 }),
            cgroup_path: Some("/\u{1b}[2J".into()),
            ..Tasks::default()
        })),
        commit: Some(Commit { limit_bytes: 1 << 40, committed_bytes: u64::MAX, after_us: 3 }),
        caller: Some(9),
        stack: vec![1, 2],
    }
}
