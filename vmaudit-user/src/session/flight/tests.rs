use super::kept::Kept;
use super::*;
use crate::domain::report::report;
use crate::model::event::{
    CallStat, CommandLine, Credit, End, Interval, LimitSeen, Losses, MmState, Place, ProcessId, Reached,
    RefusalGroup, Refused, StackName, UserName,
};
use crate::model::loss::LossReason;
use crate::model::report::Report;
use crate::model::session::Gone;
use crate::model::test::{TestOf, WithoutTest};
use crate::os::flight_folder::FlightFolder;
use crate::session::replay::replay;
use crate::source::recording::Reader;
use crate::strangers::recordings;

struct Scratch(std::path::PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("vmaudit-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn reports(&self) -> Vec<Report> {
        let mut files: Vec<_> =
            std::fs::read_dir(&self.0).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.sort();
        let read = |file: std::path::PathBuf| {
            let bytes = std::fs::read(file).unwrap();
            let (header, audit) = replay(Reader::new(bytes.as_slice()).unwrap()).unwrap();
            assert_eq!(audit.cut(), None, "a whole recording");
            report(&header, &audit).unwrap()
        };
        files.into_iter().map(read).collect()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn header() -> Header {
    Header { stretch: None, ..recordings::header() }
}

fn flight(scratch: &Scratch, length: Length) -> Flight {
    Flight::new(&header(), length, &[], FlightFolder::open(&scratch.0).unwrap())
}

/// What a session's end tells.
fn end() -> [Event; 2] {
    [Event::FiguresEnd, Event::End(End { at_ns: 1 << 40, exit: None, still_running: 1 })]
}

fn interval(n: u64, count: u32) -> Event {
    let of = vec![Reached(7, count + 1, count)];
    Event::Interval(Box::new(Interval {
        every_ns: 100,
        from_ns: 2_000 + n * 100,
        to_ns: 2_100 + n * 100,
        of,
        by: Vec::new(),
    }))
}

/// Whatever was dropped, who it was and what the kernel kept is there.
#[test]
fn a_stretch_has_all_names_and_the_figures_that_the_kernel_keeps() {
    let scratch = Scratch::new("stretch");
    let mut flight = flight(&scratch, Length::Size(64_000));
    let audit = Audit::of(&header());
    for mut event in recordings::events() {
        match &mut event {
            Event::End(_) | Event::Gone(_) => continue,
            // Who ended before the stretch is not in it.
            Event::Mm(state) => state.dead_ns = None,
            _ => {}
        }
        flight.event(&event, &audit);
    }
    for n in 0..200_000 {
        // Counts that no zlib makes small.
        flight.event(&interval(n, (n as u32).wrapping_mul(2_654_435_761) % 60_000), &audit);
    }
    // Twice as much: a call was refused, which waits for its file.
    assert!(flight.bytes <= 128_000 && flight.from_ns > header().start_ns, "{}", flight.bytes);
    flight.keep(true, &end());
    flight.desk.finish();
    let all = scratch.reports();
    let [report] = all.as_slice() else { panic!("{} files", all.len()) };
    assert!(report.session.stretch.as_ref().is_some_and(|it| it.from_s > 0.0));
    let row = report.processes.iter().find(|row| row.pid == 10).expect("its row");
    assert_eq!(row.map_count.peak, Some(65530));
    assert_eq!(row.exe.as_deref(), Some("/bin/a"));
    assert!(!report.failures.is_empty());
}

/// Who is asked again and again writes once a second, who finds the folder gone says so once.
#[test]
fn asking_does_not_write_without_end_and_a_failure_is_told() {
    let scratch = Scratch::new("asked");
    let mut it = flight(&scratch, Length::Time(Duration::from_secs(60)));
    for _ in 0..50 {
        it.keep(true, &end());
        it.desk.finish();
    }
    assert!(scratch.reports().len() <= 2);
    assert_eq!(it.complaint(), None);
    let gone = Scratch::new("gone");
    let mut it = flight(&gone, Length::Size(64_000));
    std::fs::remove_dir_all(&gone.0).unwrap();
    it.keep(true, &[]);
    it.desk.finish();
    assert!(it.complaint().is_some_and(|why| why.contains("could not write to")));
}

fn named(mut state: MmState, tgid: u32, generation: u64) -> MmState {
    (state.process, state.generation) = (ProcessId { tgid, start_ns: tgid.into() }, generation);
    (state.dead_ns, state.host, state.peak) = (None, None, 100);
    state
}

fn any_mm() -> MmState {
    let mm = recordings::events().into_iter().find_map(|event| match event {
        Event::Mm(state) => Some(*state),
        _ => None,
    });
    mm.expect("an address space")
}

fn mm(tgid: u32, generation: u64, dead_ns: Option<u64>) -> Event {
    Event::Mm(Box::new(MmState { dead_ns, ..named(any_mm(), tgid, generation) }))
}

fn frame(generation: u64, ip: u64) -> Event {
    let frame = crate::model::report::Frame {
        symbol: Some(format!("f{ip}")),
        ..crate::model::report::Frame::bare(ip)
    };
    Event::Frame(Box::new(StackName { generation, ip, frame, inlined: Vec::new() }))
}

fn place(generation: u64, place: u32) -> Event {
    Event::Place(Box::new(Place { generation, place, caller: None, stack: vec![place.into()] }))
}

fn credit(generation: u64, base: u32, level: u32) -> Event {
    let (tgid, tid, call, caller, stack) = (1, 1, vmaudit_common::call::MMAP, None, Vec::new());
    Event::Credit(Box::new(Credit {
        at_ns: 1,
        generation,
        tgid,
        tid,
        base,
        level,
        call,
        place: 1,
        caller,
        stack,
        key: 0,
    }))
}

fn lost(at_ns: u64, lost: u64) -> Event {
    Event::Lost(Losses { at_ns, counters: [(LossReason::RingFull, lost)].into(), ..Losses::default() })
}

fn count(kept: &Kept, which: impl Fn(&Event) -> bool) -> usize {
    let carried = kept.carried();
    let remarks = kept.remarks();
    kept.first().chain(&carried).chain(kept.latest()).chain(&remarks).filter(|event| which(event)).count()
}

fn note(kept: &Kept, part: &str) -> Option<String> {
    kept.remarks().into_iter().find_map(|event| match event {
        Event::Note(note) if note.contains(part) => Some(note),
        _ => None,
    })
}

/// Beyond each bound, which have to be told.
#[test]
fn memory_is_bounded_whatever_comes() {
    let scratch = Scratch::new("bounded");
    let mut it = flight(&scratch, Length::Time(Duration::from_millis(1)));
    let audit = Audit::of(&header());
    for n in 0..100_000 {
        it.event(&Event::LimitSeen(LimitSeen { at_ns: n, max_map_count: (n % 3) as u32 + 9 }), &audit);
        it.event(&Event::Note(n.to_string()), &audit);
    }
    it.close();
    while !it.frames.is_empty() {
        it.shorten();
    }
    assert!(it.frames.is_empty() && it.bytes == 0);
    assert!(it.kept.carried().len() <= 100 && it.kept.latest().count() <= 200);
}

#[test]
fn what_is_known_of_processes_is_bounded_and_what_is_dropped_is_told() {
    let mut kept = Kept::default();
    let state = any_mm();
    // Those that ended, with a few images each.
    for n in 0..30_000u32 {
        for image in 0..2 {
            let mm = MmState {
                dead_ns: Some(1_000 + u64::from(n)),
                ..named(state.clone(), n, u64::from(n * 2 + image))
            };
            kept.take(&Event::Mm(Box::new(mm)));
        }
        kept.take(&Event::AddressesHidden(n));
    }
    // One with many.
    for generation in 0..1_000 {
        kept.take(&Event::Mm(Box::new(named(state.clone(), 77_777, 1 << 40 | generation))));
    }
    // And those of which nobody knows more than an address space, or that there is one.
    for n in 0..30_000 {
        kept.take(&frame(1 << 50 | n, 1));
        let process = ProcessId { tgid: 1 << 20 | n as u32, start_ns: 1 };
        kept.take(&Event::CommandLine(Box::new(CommandLine { process, arguments: Vec::new() })));
        kept.take(&Event::User(UserName { uid: n as u32, name: n.to_string() }));
        let refused = Refused { generation: 1 << 40 | 999, site: n, ..Refused::example() };
        kept.before(Event::Refused(Box::new(refused)));
    }
    kept.clear(500);
    let mms = count(&kept, |event| matches!(event, Event::Mm(_)));
    assert!((10_000..=20_000 + 64).contains(&mms), "{mms}");
    assert!(
        note(&kept, "had no room for 20,000 processes that ended in this stretch").is_some(),
        "{:?}",
        kept.remarks()
    );
    assert_eq!(kept.gone(), Gone::default());
    for (bound, which) in [
        (10_000, (|event| matches!(event, Event::Frame(_))) as fn(&Event) -> bool),
        (10_000, |event| matches!(event, Event::CommandLine(_))),
        (10_000, |event| matches!(event, Event::User(_))),
        (10_000, |event| matches!(event, Event::AddressesHidden(_))),
        (2_000, |event| matches!(event, Event::Refused(_))),
    ] {
        let n = count(&kept, which);
        assert!(n <= bound && n >= bound / 2, "{n} of {bound}");
    }
    // Later the stretch is past all of them.
    kept.clear(1 << 60);
    assert_eq!(note(&kept, "that ended in this stretch"), None, "they are not in this one");
    for part in
        ["the details of 28,000 refused calls", "20,000 names of users and some processes whose addresses"]
    {
        assert!(note(&kept, part).is_some(), "{part}: {:?}", kept.remarks());
    }
    assert_eq!(kept.gone().processes, 30_000);
    assert_eq!(
        count(&kept, |event| matches!(event, Event::AddressesHidden(_))),
        0,
        "their numbers are others' by now"
    );
    assert_eq!(count(&kept, |event| matches!(event, Event::Mm(_))), 64);
}

#[test]
fn names_and_credits_are_bounded_the_newest_stay_and_it_is_told() {
    let mut kept = Kept::default();
    for generation in 0..60 {
        kept.take(&mm(generation as u32 + 1, generation, None));
        for n in 0..6_000u32 {
            kept.take(&frame(generation, n.into()));
            kept.take(&place(generation, n));
        }
    }
    let names = count(&kept, |event| matches!(event, Event::Frame(_) | Event::Place(_)));
    assert!(names <= 200_000 && names > 100_000, "{names}");
    let last = |event: &Event| matches!(event, Event::Frame(it) if it.generation == 59 && it.frame.symbol.as_deref() == Some("f5999"));
    assert_eq!(count(&kept, last), 1, "the newest");
    assert!(note(&kept, "for all names").is_some(), "{:?}", kept.remarks());
    for generation in 0..10 {
        for n in 0..60_000 {
            kept.before(credit(generation, n, n + 1));
        }
        // What takes no level is no credit, and takes the place of none.
        kept.before(credit(generation, 10, 10));
    }
    let credits = count(&kept, |event| matches!(event, Event::Credit(_)));
    assert!(credits <= 500_000 && credits > 300_000, "{credits}");
    assert!(note(&kept, "who made VMAs").is_some(), "{:?}", kept.remarks());
}

/// A place is told once, and the figures of its process come a second later.
#[test]
fn names_that_come_before_the_first_figures_stay() {
    let mut kept = Kept::default();
    kept.take(&place(7, 1));
    kept.clear(now_ns());
    kept.take(&mm(3, 7, None));
    kept.clear(now_ns());
    assert_eq!(count(&kept, |event| matches!(event, Event::Place(_))), 1);
    let gone = now_ns();
    kept.take(&mm(3, 7, Some(gone)));
    kept.clear(gone + 1);
    assert_eq!(count(&kept, |event| matches!(event, Event::Place(_))), 0);
}

/// As it is told in a report of the stretch.
#[test]
fn who_ended_before_the_stretch_is_counted_with_its_refused_calls() {
    let scratch = Scratch::new("gone");
    let mut it = flight(&scratch, Length::Size(64_000));
    let audit = Audit::of(&header());
    let group = RefusalGroup { count: 5, ..any_mm().refusals.remove(0) };
    for tgid in 1..=3 {
        let state = MmState { refusals: vec![group.clone()], ..named(any_mm(), tgid, tgid.into()) };
        it.event(&Event::Mm(Box::new(MmState { dead_ns: Some(header().start_ns + 1), ..state })), &audit);
    }
    it.event(&mm(10, 7, None), &audit);
    for n in 0..200_000 {
        it.event(&interval(n, (n as u32).wrapping_mul(2_654_435_761) % 60_000), &audit);
    }
    it.keep(true, &end());
    it.desk.finish();
    let report = scratch.reports().remove(0);
    let stretch = report.session.stretch.as_ref().expect("a stretch");
    assert_eq!((stretch.gone_processes, stretch.gone_refused), (3, 15));
    assert_eq!(report.processes.iter().map(|row| row.pid).collect::<Vec<_>>(), [10]);
    let said = crate::output::text::headline::stretched(stretch);
    assert!(said.contains("of the processes that lived in it"), "{said}");
    assert!(said.contains("without 3 processes that ended before it, with 15 refused calls"), "{said}");
}

/// One that execs all the time: what its images did is added up, as in the session's own report.
#[test]
fn images_beyond_those_kept_apart_are_counted_with_their_refused_calls() {
    let scratch = Scratch::new("images");
    let mut it = flight(&scratch, Length::Size(64_000));
    let mut audit = Audit::of(&header());
    let group = any_mm().refusals.remove(0);
    let RefusalGroup { call, errno, class, .. } = group;
    let site = group.sites.first().map_or(0, |site| site.site);
    let mut take = |event: Event| {
        audit.apply(event.clone());
        it.event(&event, &audit);
    };
    for n in 0..100 {
        let at_ns = header().start_ns + n;
        // Of all but the last few only one is refused, in the middle.
        let refusals =
            if n == 30 || n > 95 { vec![RefusalGroup { count: 5, ..group.clone() }] } else { Vec::new() };
        if n == 30 {
            let refused =
                Refused { generation: n, tgid: 10, call, errno, class, site, at_ns, ..Refused::example() };
            take(Event::Refused(Box::new(refused)));
        }
        let calls = vec![(
            call,
            CallStat { calls: 7, failed: if refusals.is_empty() { 0 } else { 5 }, ..CallStat::default() },
        )];
        let dead_ns = (n < 99).then_some(at_ns + 1);
        let peak = if n == 40 { 900 } else { 100 + n as u32 % 9 };
        take(Event::Mm(Box::new(MmState { calls, refusals, dead_ns, peak, ..named(any_mm(), 10, n) })));
    }
    it.keep(true, &end());
    it.desk.finish();
    let report = scratch.reports().remove(0);
    end().into_iter().for_each(|event| audit.apply(event));
    let whole = crate::domain::report::report(&header(), &audit).unwrap();
    let told = |report: &Report| {
        let row = report.processes.first().cloned().expect("its row");
        let sums: Vec<_> =
            row.calls.iter().map(|(call, sum)| (call.clone(), sum.calls, sum.failed)).collect();
        let failed: Vec<_> = report.failures.iter().map(|it| (it.count, it.example.is_some())).collect();
        (row.map_count.peak, row.images.len() as u64 + row.images_folded, sums, failed)
    };
    assert_eq!(told(&report), told(&whole));
    assert_eq!(told(&report).1, 100);
    let failed = told(&report).3;
    assert_eq!(failed.iter().map(|(count, _)| count).sum::<u64>(), 25);
    assert!(failed.iter().any(|(_, has_example)| *has_example), "of an image that was added to another");
}

/// The makers of the older image did not make the larger peak of the newer one.
#[test]
fn an_image_that_was_outgrown_has_no_makers() {
    let mut kept = Kept::default();
    let peaks = (0..100).map(|n| 100 + n);
    for (n, peak) in peaks.enumerate() {
        let n = n as u64;
        kept.take(&place(n, 1));
        kept.before(credit(n, 0, 50));
        kept.take(&Event::Mm(Box::new(MmState { peak, dead_ns: Some(n + 1), ..named(any_mm(), 10, n) })));
    }
    let credited: Vec<u64> = kept
        .carried()
        .into_iter()
        .filter_map(|event| match event {
            Event::Credit(it) => Some(it.generation),
            _ => None,
        })
        .collect();
    // The first was put together with others, each larger than itself.
    assert!(!credited.contains(&0) && credited.contains(&99), "{credited:?}");
    assert_eq!(count(&kept, |event| matches!(event, Event::Place(it) if it.generation == 0)), 0);
    assert_eq!(count(&kept, |event| matches!(event, Event::Credit(_))), credited.len());
}

/// Entries of ledgers are of whole sessions.
#[test]
fn a_stretch_has_no_ledgers_and_says_so() {
    let mut kept = Kept::default();
    assert_eq!(note(&kept, "--stacks"), None);
    let Event::Credit(entry) = credit(7, 0, 1) else { unreachable!() };
    let entry = Event::Credit(Box::new(Credit { key: 3, ..*entry }));
    assert!(kept.take(&entry), "no part of the time line either");
    kept.take(&Event::Mm(Box::new(MmState { ledger: Some(Vec::new()), ..named(any_mm(), 10, 7) })));
    assert_eq!(count(&kept, |event| matches!(event, Event::Mm(it) if it.ledger.is_some())), 0);
    assert_eq!(count(&kept, |event| matches!(event, Event::Credit(_))), 0);
    assert!(note(&kept, "--stacks").is_some());
}

/// It may be asked again at its next image, when it is gone.
#[test]
fn a_test_that_was_named_stays() {
    let process = ProcessId { tgid: 10, start_ns: 1 };
    let named = TestOf::named(process, "t".into());
    let [unknown, none] = [WithoutTest::Unknown, WithoutTest::None].map(|why| TestOf::without(process, why));
    for (told, stays) in [
        ([&named, &unknown, &none], &named),
        ([&none, &unknown, &named], &named),
        ([&none, &unknown, &none], &unknown),
    ] {
        let mut kept = Kept::default();
        assert!(told.into_iter().all(|it| kept.take(&Event::Test(Box::new(it.clone())))));
        assert_eq!(count(&kept, |event| matches!(event, Event::Test(it) if **it == *stays)), 1, "{told:?}");
    }
}

/// What was lost before it is none of its losses, what is lost in it has its time.
#[test]
fn a_loss_in_the_stretch_is_a_gap_there() {
    let scratch = Scratch::new("loss");
    let mut it = flight(&scratch, Length::Size(64_000));
    let audit = Audit::of(&header());
    it.event(&mm(10, 7, None), &audit);
    for n in 0..200_000 {
        if n == 1_000 {
            it.event(&lost(2_000 + n * 100, 40), &audit);
        }
        if n == 199_900 {
            it.event(&lost(2_000 + n * 100, 40), &audit);
        }
        if n == 199_950 {
            it.event(&lost(2_000 + n * 100, 47), &audit);
        }
        it.event(&interval(n, (n as u32).wrapping_mul(2_654_435_761) % 60_000), &audit);
    }
    it.keep(true, &end());
    it.desk.finish();
    let report = scratch.reports().remove(0);
    let gaps: Vec<u64> = report.coverage.gaps.iter().map(|gap| gap.lost).collect();
    assert_eq!(gaps, [7], "{:?}", report.coverage.gaps);
}

/// A file a minute: what happens meanwhile waits, and the stretch holds it as long.
#[test]
fn what_waits_for_its_file_stays_in_the_stretch() {
    let scratch = Scratch::new("waits");
    let mut it = flight(&scratch, Length::Time(Duration::from_millis(1)));
    let audit = Audit::of(&header());
    it.event(&interval(1, 5), &audit);
    it.triggers.happens_now(9, "was refused mmap");
    it.event(&interval(2, 6), &audit);
    for n in 3..10 {
        // Longer than the stretch.
        std::thread::sleep(Duration::from_millis(2));
        it.event(&interval(n, 7), &audit);
        it.close();
    }
    let before = it.frames.len();
    assert!(before >= 7, "{before}");
    let why = it.triggers.left().expect("it waits");
    it.write(why, &end());
    it.desk.finish();
    let report = scratch.reports().remove(0);
    let why = report.session.stretch.map(|it| it.why).unwrap_or_default();
    assert!(why.ends_with("was refused mmap"), "{why}");
    it.shorten();
    assert!(it.frames.len() < before, "nothing waits any more");
}

/// What the stretch could not hold so long is said, and is news when it happens again.
#[test]
fn what_is_older_than_its_file_says_so() {
    let scratch = Scratch::new("older");
    let mut it = flight(&scratch, Length::Size(64_000));
    let audit = Audit::of(&header());
    it.triggers.happens_now(9, "was refused mmap");
    it.triggers.happens_now(10, "was refused brk");
    for n in 0..400_000 {
        it.event(&interval(n, (n as u32).wrapping_mul(2_654_435_761) % 60_000), &audit);
    }
    assert!(it.bytes <= 128_000 && it.bytes > 64_000, "{}", it.bytes);
    it.triggers.happens_now(11, "was refused mremap");
    let why = it.triggers.left().expect("it waits");
    it.write(why, &end());
    it.desk.finish();
    let report = scratch.reports().remove(0);
    let why = report.session.stretch.map(|it| it.why).unwrap_or_default();
    assert!(why.contains("was refused mmap, before this stretch begins"), "{why}");
    it.triggers.happens_now(11, "was refused mremap");
    assert!(it.triggers.left().is_none(), "it is in the file");
    for pid in [9, 10] {
        it.triggers.happens_now(pid, "was refused again");
        assert!(it.triggers.left().is_some(), "{pid}");
        it.triggers.happens_now(pid, "was refused again");
        assert!(it.triggers.left().is_none(), "once an hour");
    }
}

/// Its end comes while another file is being written.
#[test]
fn the_last_stretch_is_written_behind_the_one_before_it() {
    let scratch = Scratch::new("last");
    let mut it = flight(&scratch, Length::Size(64_000));
    let audit = Audit::of(&header());
    it.event(&mm(10, 7, None), &audit);
    let busy = it.desk.busy_for_test();
    it.triggers.happens_now(9, "was refused mmap");
    let done = std::thread::spawn(move || busy.send(Ok("there".into())));
    end().iter().for_each(|event| it.event(event, &audit));
    done.join().unwrap().unwrap();
    assert_eq!(it.complaint(), None);
    assert_eq!(scratch.reports().len(), 1);
}

#[test]
fn the_largest_stretch_fits_its_folder() {
    use crate::os::flight_folder::MOST_BYTES;
    let scratch = Scratch::new("largest");
    let folder = FlightFolder::open(&scratch.0).unwrap();
    let part: Arc<[u8]> = vec![7; 1_000_000].into();
    // With what waits, and what is told beside it.
    let mut parts = vec![Arc::clone(&part); (LONGEST + MOST) / 1_000_000 + 60];
    assert!(FlightFolder::fits(&parts), "without writing so much to a disk");
    parts.resize(MOST_BYTES as usize / 1_000_000 + 1, part);
    assert!(!FlightFolder::fits(&parts) && folder.write(&parts).is_err(), "there is a bound");
    assert_eq!(std::fs::read_dir(&scratch.0).unwrap().count(), 0);
}
