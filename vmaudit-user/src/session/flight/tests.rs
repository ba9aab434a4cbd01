use super::*;
use crate::domain::report::report;
use crate::model::event::{End, Interval, LimitSeen, Reached};
use crate::model::report::Report;
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
    assert!(flight.bytes <= 64_000 && flight.from_ns > header().start_ns, "{}", flight.bytes);
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
