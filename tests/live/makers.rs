//! Who made the VMAs: what is credited is what is held, and the rows add up.

use std::collections::BTreeMap;

use vmaudit_tests::{Done, Session, has_lock_events};
use vmaudit_user::model::report::{Maker, Nobody, Process, Report};

/// Worst error of a place, points of a hundred.
const POINTS: f64 = 3.0;

fn process(report: &Report) -> &Process {
    &report.processes[0]
}

fn sum<'m>(makers: impl Iterator<Item = &'m Maker>) -> u64 {
    makers.map(|maker| maker.count).sum()
}

fn nobodys(process: &Process, why: Nobody) -> u64 {
    sum(process.makers.iter().filter(|maker| maker.nobody == Some(why)))
}

/// The rows add up to the peak, and each share is that of its row.
fn assert_adds_up(process: &Process) {
    let peak = process.map_count.peak.expect("it is known");
    assert_eq!(sum(process.makers.iter()), peak, "{:#?}", process.makers);
    for maker in &process.makers {
        assert!((maker.share - maker.count as f64 / peak as f64).abs() < 1e-5, "{maker:?}");
        assert_eq!(maker.syscall.is_none(), maker.nobody.is_some(), "{maker:?}");
        assert!(maker.nobody.is_none() || maker.stack.is_empty());
    }
}

fn lost(report: &Report, what: &str) -> u64 {
    report.coverage.lost.get(what).copied().unwrap_or(0)
}

/// What the workload says of itself: the peak, and what each place holds.
fn book(done: &Done) -> (u64, BTreeMap<String, u64>) {
    let said: serde_json::Value = serde_json::from_slice(&done.stdout).expect("one line of JSON");
    let held = said["held"].as_object().expect("a book").iter();
    (said["peak"].as_u64().unwrap(), held.map(|(site, n)| (site.clone(), n.as_u64().unwrap())).collect())
}

/// Standard deviation of what is credited to a place: of the first 256 VMAs each is looked at, then one of so many
/// (vmaudit-common, makers.rs).
fn deviation(held: u64, peak: u64) -> f64 {
    let share = held as f64 / peak as f64;
    let (stratum, sampled) = ((peak / 256 + 1).min(16), peak.saturating_sub(256));
    ((stratum - 1) as f64 * sampled as f64 * share * (1.0 - share)).sqrt()
}

/// A history, as the workload did it and as the report tells it.
fn compare(words: &[&str]) {
    compare_with(&[], words);
}

/// Of a process that ends within a millisecond nobody could look at the mappings.
fn compare_slowly(name: &str) {
    compare_with(&["--linger", "500"], &[name]);
}

fn compare_with(options: &[&str], words: &[&str]) {
    let done = Session::run(&[], &[options, &["credits"], words].concat()).go().succeeded();
    let (peak, held) = book(&done);
    let report = done.report();
    let process = process(&report);
    assert_eq!(process.map_count.peak, Some(peak));
    assert_adds_up(process);
    let credited = |site: &str| {
        let of_site = |maker: &&Maker| {
            maker.stack.iter().any(|frame| frame.symbol.as_deref().is_some_and(|name| name.contains(site)))
        };
        sum(process.makers.iter().filter(of_site))
    };
    // What a busy machine has lost is said, and is nobody's.
    let unknown =
        peak - nobodys(process, Nobody::Before) - held.keys().map(|site| credited(site)).sum::<u64>();
    let excused = lost(&report, "credits_lost") + lost(&report, "stack_copy_missing");
    // Each loss excuses the longest stratum (vmaudit-common, makers.rs: 16, twice that after many falls).
    let bearable = (excused * 32) as f64 + peak as f64 * POINTS / 100.0;
    assert!(unknown as f64 <= bearable, "{unknown} of {peak}, {excused} lost: {:#?}", process.makers);
    // The first of a program are nobody's; a static one begins with so few that some of these are a place's.
    let began_with = peak.saturating_sub(held.values().sum());
    let early = nobodys(process, Nobody::Before).saturating_sub(began_with) as f64;
    for (site, &held) in &held {
        let error = held.abs_diff(credited(site)) as f64;
        let least = early + if excused > 0 { unknown as f64 } else { 0.0 };
        let most = least + (peak as f64 * POINTS / 100.0).max(4.0 * deviation(held, peak));
        assert!(
            error <= most,
            "{words:?}, {site}: {held} held, {} credited of {peak}, {unknown} unknown",
            credited(site)
        );
    }
    // A place that holds none has none.
    assert!(held.iter().all(|(site, held)| *held > 0 || credited(site) as f64 <= peak as f64 / 100.0));
}

mod lock_events_only {
    use super::*;

    #[test]
    fn a_random_mix() {
        compare(&["random"]);
    }

    #[test]
    fn few_vmas() {
        compare_slowly("few");
    }

    #[test]
    fn bursts() {
        compare(&["bursts"]);
    }

    /// A fixed step would meet the same place each time.
    #[test]
    fn periods() {
        compare(&["period-20"]);
        compare(&["period-16"]);
    }

    #[test]
    fn a_saw_tooth() {
        compare(&["saw-tooth"]);
    }

    /// Who took the count there first holds nothing any more.
    #[test]
    fn one_place_after_another() {
        compare(&["shift"]);
        compare(&["regrow"]);
    }

    #[test]
    fn up_and_down() {
        compare_slowly("swings");
    }

    #[test]
    fn threads_at_once() {
        compare(&["threads", "4"]);
    }
}

/// What was there before nobody is credited with.
#[test]
fn what_was_there_before_is_told_as_such() {
    let report = Session::run(&[], &["burst", "5000"]).go().succeeded().report();
    let process = process(&report);
    assert_adds_up(process);
    assert!((25..45).contains(&nobodys(process, Nobody::Before)), "{:?}", process.makers);
    if has_lock_events() {
        assert!(nobodys(process, Nobody::NotSampled) < 32 * (1 + lost(&report, "credits_lost")));
    }
}

/// In the text: the call, the line, what is left; and no word of it for a process that is small.
#[test]
fn the_text_names_the_place() {
    let done = Session::run(&["-o", "-"], &["credits", "shift"]).go().succeeded();
    let text = String::from_utf8_lossy(&done.stdout).into_owned();
    assert!(["Who made the VMAs", "site_b", "credits.rs:"].iter().all(|part| text.contains(part)), "{text}");
    assert!(text.contains("there when it began"), "{text}");
    let small = Session::run(&["-o", "-"], &["burst", "300"]).go().succeeded();
    assert!(!String::from_utf8_lossy(&small.stdout).contains("Who made the VMAs"));
}

/// Names are there for those who may know, addresses for nobody else; without symbols there are calls alone.
#[test]
fn without_symbols_the_calls_stay() {
    let report = Session::run(&["--no-symbols"], &["burst", "5000"]).go().succeeded().report();
    let process = process(&report);
    assert_adds_up(process);
    assert!(process.makers.iter().all(|maker| maker.stack.iter().all(|frame| frame.symbol.is_none())));
    let mmap = process.makers.iter().filter(|maker| maker.syscall.as_deref() == Some("mmap"));
    assert!(sum(mmap) >= 4900, "{:?}", process.makers);
}
