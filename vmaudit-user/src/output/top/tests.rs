//! The screen, drawn into a buffer.

use super::*;
use crate::model::report::{Cause, Failure, Outcome};

/// The buffer as text, without colours.
fn drawn(top: &Top, width: u16, height: u16) -> String {
    let area = Rect::new(0, 0, width, height);
    let mut buffer = Buffer::empty(area);
    top.draw(area, &mut buffer);
    let mut text = String::new();
    for y in 0..height {
        let line: String = (0..width).map(|x| buffer[(x, y)].symbol()).collect();
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

pub(super) fn row(pid: u32, comm: &str, now: u64) -> Row {
    Row {
        which: Which { pid, started_us: u64::from(pid) },
        ppid: Some(1),
        comm: comm.into(),
        exe: Some(format!("/usr/bin/{comm}")),
        user: Some("alice".into()),
        unit: Some(format!("{comm}.service")),
        now: Some(now),
        peak: Some(now + 10),
        clipped: false,
        exact: true,
        refused: 0,
        refused_at_limit: 0,
        failures: Vec::new(),
        per_s: Some(0.0),
        full_in_s: None,
        makers: None,
        ended: None,
        history: vec![(1.0, now / 2), (3.0, now)],
    }
}

fn refused(count: u64) -> Failure {
    Failure {
        count,
        syscall: "mmap".into(),
        cause: Cause::MaxMapCount,
        outcome: Outcome::Unrecovered,
        sentence: "mmap() needs one more VMA than vm.max_map_count = 65,530 allows.".into(),
        ..crate::output::text::tests::clipped_run().failures.remove(0)
    }
}

fn four_situations() -> Top {
    let mut java = row(28_868, "java", 65_531);
    (java.clipped, java.refused, java.refused_at_limit) = (true, 334, 334);
    // It stands there, and keeps nobody else from being told.
    java.full_in_s = Some(0.0);
    java.failures = vec![refused(334)];
    let report = crate::output::makers::tests::grown_run();
    java.makers = Some(Makers::of(&report.processes[0]));
    let mut pool = row(31_044, "pool", 30_022);
    (pool.per_s, pool.full_in_s) = (Some(8870.0), Some(4.0));
    let mut game = row(30_917, "game.exe", 18_402);
    game.per_s = Some(0.7);
    let mut over = row(17_779, "orders", 40_000);
    (over.now, over.ended, over.refused) = (None, Some("ended 22:16:40, status 1".into()), 3);
    let mut rows = vec![row(812, "redis-server", 122), game, java, pool, over];
    rows.extend((0..40).map(|n| row(1000 + n, "worker", 20)));
    let mut top = Top::new(2);
    top.looked(Look {
        clock: "22:18:31".into(),
        limit: Some(65_530),
        sees_refusals: true,
        rests_on: "exact since 22:04:10 · nothing lost".into(),
        rows,
    });
    top
}

#[test]
fn the_list_the_details_the_filter_and_the_help() {
    let mut top = four_situations();
    let mut text = String::new();
    let mut show = |top: &Top, what: &str, (width, height): (u16, u16)| {
        text.push_str(&format!("=== {what}, {width}x{height}\n{}", drawn(top, width, height)));
    };
    show(&top, "list", (80, 24));
    show(&top, "list", (120, 20));
    show(&top, "list", (40, 10));
    show(&top, "list", (1, 1));
    assert_eq!(top.key(Key::Enter), Wish::Makers(Which { pid: 28_868, started_us: 28_868 }));
    show(&top, "details", (120, 40));
    show(&top, "details", (80, 24));
    show(&top, "details", (40, 10));
    show(&top, "details", (1, 1));
    top.key(Key::Esc);
    top.key(Key::Char('/'));
    "unit=pool* vmas>100".chars().for_each(|c| _ = top.key(Key::Char(c)));
    show(&top, "filter being typed", (80, 24));
    top.key(Key::Enter);
    show(&top, "filtered", (80, 12));
    top.key(Key::Char('?'));
    show(&top, "help", (80, 24));
    show(&top, "help", (1, 1));
    insta::assert_snapshot!(text);
}

#[test]
fn keys_choose_sort_turn_and_pause() {
    let mut top = four_situations();
    assert_eq!(top.key(Key::Char('e')), Wish::Explain(Which { pid: 28_868, started_us: 28_868 }));
    top.key(Key::Down);
    assert_eq!(top.key(Key::Char('e')), Wish::Draw, "of one that has ended nothing can be explained");
    top.key(Key::Enter);
    assert!(drawn(&top, 80, 24).contains("ended 22:16:40, status 1"));
    assert_eq!(top.key(Key::Char('e')), Wish::Draw);
    top.key(Key::Esc);
    top.key(Key::Down);
    assert_eq!(top.key(Key::Char('e')), Wish::Explain(Which { pid: 31_044, started_us: 31_044 }));
    top.key(Key::Last);
    assert!(drawn(&top, 80, 24).contains("▸"), "the chosen one is in sight");
    for _ in 0..20 {
        top.key(Key::Char('s'));
        top.key(Key::Char('r'));
        top.key(Key::PageUp);
        drawn(&top, 80, 24);
    }
    top.key(Key::Char(' '));
    top.looked(Look::default());
    assert!(drawn(&top, 80, 24).contains("PAUSED") && drawn(&top, 80, 24).contains("java"));
    top.key(Key::Char(' '));
    top.looked(Look::default());
    assert!(!drawn(&top, 80, 24).contains("java"));
    assert_eq!(top.key(Key::Char('+')), Wish::Every(5));
    assert_eq!(top.key(Key::Char('q')), Wish::Quit);
}

#[test]
fn a_filter_that_means_nothing_is_told_and_hides_nothing() {
    let filter = Filter::of("size>1k name=x vmas>many java");
    assert!(filter.complaint().is_some());
    assert!(filter.fits(&row(1, "java", 5)) && !filter.fits(&row(1, "redis", 5)));
    let fits = |text: &str| Filter::of(text).fits(&row(812, "java", 1500));
    for text in [
        "",
        "JAVA",
        "vmas>1k",
        "peak<2k",
        "unit=java",
        "unit=*.service",
        "comm=j*a",
        "pid=812",
        "user=alice",
        "refused<1",
    ] {
        assert!(fits(text), "{text}");
    }
    for text in ["vmas>1500", "growth>0", "comm=j*b", "comm=ava", "pid=81", "user=bob", "refused>0"] {
        assert!(!fits(text), "{text}");
    }
}

#[test]
fn names_are_strangers_and_trees_may_be_circles() {
    let mut top = Top::new(2);
    let (mut a, mut b) = (row(7, "a\x1b[2J\u{202e}b", 5), row(8, "日本語日本語日本語", 6));
    (a.ppid, b.ppid) = (Some(8), Some(7));
    let child = Row { ppid: Some(9), ..row(10, "child", 1) };
    top.looked(Look { limit: Some(65_530), rows: vec![a, b, row(9, "parent", 2), child], ..Look::default() });
    top.key(Key::Char('t'));
    let text = drawn(&top, 80, 24);
    assert!(!text.contains('\x1b') && !text.contains('\u{202e}'), "{text:?}");
    assert!(text.contains(" child") && text.contains("日"), "{text}");
    let at = |name: &str| text.find(name).unwrap_or_default();
    assert!(at("parent") < at("child"), "{text}");
    for key in [Key::Enter, Key::Char('?'), Key::Char('/')] {
        top.key(key);
        for size in [(1, 1), (3, 200), (200, 2), (40, 10)] {
            drawn(&top, size.0, size.1);
        }
        top.key(Key::Esc);
        top.key(Key::Esc);
    }
}

#[test]
fn looks_give_the_growth_and_stay_bounded() {
    let mut history = History::default();
    let mut process = crate::output::text::tests::clean_run().processes.remove(0);
    let mut last = None;
    for second in 0..3600_u32 {
        process.map_count.last = Some(100 + 7 * u64::from(second));
        last = Some(history.row(
            &process,
            &[(Outcome::Ordinary, refused(3)), (Outcome::Unrecovered, refused(2))],
            second.into(),
        ));
    }
    let row = last.unwrap();
    assert_eq!((row.per_s, row.refused, row.refused_at_limit), (Some(7.0), 2, 2));
    assert!(row.history.len() <= 240 && row.history[0].0 < 60.0, "{}", row.history.len());
    history.keep(&[]);
    process.pid = 2;
    assert_eq!(history.row(&process, &[], 1.0).per_s, None);
    assert_eq!(look::growth(8870.0), "+8,870/s");
    assert_eq!(look::growth(-0.7), "-42/min");
    assert_eq!(look::growth(0.001), "·");
    assert_eq!([12_345.0, 2.5e6, 1e12].map(look::growth), ["+12k/s", "+2m/s", "+>1g/s"]);
    assert_eq!(
        [0.0, 4.0, 700.0, 70_000.0, 1e9].map(look::duration),
        ["full", "4 s", "12 min", "19 h", "> 1000 d"]
    );
}
