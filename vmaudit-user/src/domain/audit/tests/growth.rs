//! What a limit that changes, and one that was met long ago, say of growth.

use super::*;
use crate::domain::recommend::delays::{grows, of_growth};
use crate::model::event::{Interval, LimitSeen, Reached};
use crate::model::report::{Action, Growth, Recommendation};

const STEP: u64 = 100_000_000;

/// A process whose count at the end of each tenth of a second is what `count` says, from `limits` on: at which step, which.
fn session(steps: u64, limits: &[(u64, u32)], count: impl Fn(u64) -> u32, ended: bool) -> Audit {
    let mut audit = audit();
    for n in 1..=steps {
        let in_force = limits.iter().rev().find(|(from, _)| *from < n).unwrap();
        audit.apply(Event::LimitSeen(LimitSeen { at_ns: n * STEP, max_map_count: in_force.1 }));
        let (before, last) = (count(n - 1), count(n));
        audit.apply(Event::Interval(Box::new(Interval {
            every_ns: STEP,
            from_ns: (n - 1) * STEP,
            to_ns: n * STEP,
            of: vec![Reached(1, before.max(last), last)],
            by: Vec::new(),
        })));
    }
    process(&mut audit, 1, 0, 0, ended);
    let mm = audit.processes.values_mut().next().unwrap().mms.first_mut().unwrap();
    mm.peak = (0..=steps).map(&count).max().unwrap();
    mm.peak_ns = (0..=steps).find(|n| count(*n) == mm.peak).unwrap() * STEP;
    (mm.born_ns, mm.last) = (0, count(steps));
    if ended {
        mm.dead_ns = Some(steps * STEP);
        audit.processes.values_mut().next().unwrap().ended_ns = Some(steps * STEP);
    }
    audit
}

fn growth(audit: &Audit) -> Growth {
    audit.rows().processes.first().unwrap().growth.unwrap()
}

fn advice(audit: &Audit) -> Option<String> {
    let none = Recommendation {
        setting: String::new(),
        current: None,
        value: None,
        basis: None,
        action: Action::Leave,
        sentences: Vec::new(),
        commands: Vec::new(),
    };
    let rows = audit.rows().processes;
    let told = of_growth(&rows, &none).map(|(_, sentence)| sentence);
    assert_eq!(told.is_some(), grows(&rows), "one is not said without the other");
    told
}

/// 1,000 a second; somebody makes room at 30,000, and nothing is refused.
#[test]
fn a_leak_that_passes_the_limit_that_was_is_not_stopped_by_it() {
    let leak = |n: u64| 20 + n as u32 * 100;
    let audit = session(400, &[(0, 35_000), (300, 262_144)], leak, false);
    let grows = growth(&audit);
    let left = grows.reaches_limit_in_s.unwrap();
    assert!(grows.steady && (left - (262_144.0 - 40_020.0) / 1000.0).abs() < 3.0, "{grows:?}");
    assert!(advice(&audit).unwrap().contains("grows steadily"));
    // And below it the time is counted to the one in force.
    let early = growth(&session(200, &[(0, 35_000), (100, 262_144)], leak, false));
    assert!(early.reaches_limit_in_s.unwrap() > 200.0, "{early:?}");
    let ended = session(400, &[(0, 35_000), (300, 262_144)], leak, true);
    assert!(growth(&ended).goes_on(), "{:?}", growth(&ended));
    assert!(advice(&ended).unwrap().contains("until it ended"), "{:?}", advice(&ended));
}

#[test]
fn who_was_stopped_and_lives_is_judged_by_what_it_does_now() {
    let stopped = |n: u64| (20 + n as u32 * 1_000).min(50_000);
    let stands = growth(&session(90, &[(0, 50_000)], stopped, false));
    assert!(stands.steady && stands.reaches_limit_in_s == Some(0.0) && !stands.goes_on(), "{stands:?}");
    // It frees what it has and rests.
    let freed = |n: u64| if n > 60 { 300 } else { stopped(n) };
    let rests = growth(&session(90, &[(0, 50_000)], freed, false));
    assert!(!rests.steady, "{rests:?}");
    let ended = session(90, &[(0, 50_000)], freed, true);
    assert_eq!(growth(&ended).reaches_limit_in_s, Some(0.0));
    assert!(advice(&ended).unwrap().contains("until the limit stopped it"));
    // Room is made, and it stays where it was.
    let raised = growth(&session(120, &[(0, 50_000), (60, 262_144)], stopped, false));
    assert!(!raised.steady, "{raised:?}");
}
