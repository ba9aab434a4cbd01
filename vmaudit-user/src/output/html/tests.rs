use sha2::{Digest as _, Sha256};

use super::*;
use crate::domain::vma_layout::address_map::{CELLS, ROWS};
use crate::model::report::{Coverage, Layout, Moment, Process};
use crate::model::vma_layout::Cluster;
use crate::output::text::tests::{
    alike, budget_broken, clean_run, clipped_run, nothing, other_cause, proc_source,
};

fn page(report: &Report) -> String {
    let mut out = Vec::new();
    write(&Document::Report(report), &Style::default(), &mut out).unwrap();
    String::from_utf8(out).unwrap()
}

/// RFC 4648.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let of = |part: &[u8]| {
        let word =
            part.iter().fold(0_u32, |word, byte| word << 8 | u32::from(*byte)) << (8 * (3 - part.len()));
        let digit = |place: usize| match place <= part.len() {
            true => char::from(DIGITS[(word >> (18 - 6 * place)) as usize & 63]),
            false => '=',
        };
        (0..4).map(digit).collect::<String>()
    };
    bytes.chunks(3).map(of).collect()
}

#[test]
fn the_policy_allows_this_style_and_this_script() {
    assert_eq!(base64(b"any carnal pleas"), "YW55IGNhcm5hbCBwbGVhcw==");
    assert_eq!(STYLE_HASH, base64(&Sha256::digest(STYLE)));
    assert_eq!(SCRIPT_HASH, base64(&Sha256::digest(SCRIPT)));
    let page = page(&clipped_run());
    // Neither is changed by what stands around it, and there is no other of either.
    assert!(
        page.contains(&format!("<style>{STYLE}</style>"))
            && page.contains(&format!("<script>{SCRIPT}</script>"))
    );
    assert_eq!((page.matches("<style").count(), page.matches("<script").count()), (1, 2));
    for forbidden in [" style=", " onclick", " onload", " src=", "http://", "https://", "url(", "@import"] {
        assert!(!page.contains(forbidden), "{forbidden}");
    }
}

/// Markup, quotes, escapes and directions in everything that can be a stranger's.
fn hostile() -> Report {
    const EVIL: &str = "</td></script><img src=x onerror=alert(1)>\"'&\u{202e}\x1b[2J";
    let mut report = clipped_run();
    report.session.command = vec![EVIL.into()];
    report.session.started = EVIL.into();
    report.host.kernel = EVIL.into();
    report.vmaudit = EVIL.into();
    for process in &mut report.processes {
        process.comm = EVIL.into();
        process.app = Some(EVIL.into());
        process.user = Some(EVIL.into());
        process.unit = Some(EVIL.into());
        process.calls = process.calls.values().map(|made| (EVIL.to_owned(), *made)).collect();
    }
    report.folded = vec![alike(EVIL, 7, (1, 2))];
    for failure in &mut report.failures {
        failure.comm = EVIL.into();
        failure.syscall = EVIL.into();
        failure.sentence = EVIL.into();
        failure.cure = Some(EVIL.into());
        for frame in failure.example.iter_mut().flat_map(|example| &mut example.stack) {
            (frame.symbol, frame.module) = (Some(EVIL.into()), Some(EVIL.into()));
            (frame.file, frame.line) = (Some(EVIL.into()), Some(1));
        }
    }
    report.coverage.notes = vec![EVIL.into()];
    report.coverage.lost.insert(EVIL.into(), 1);
    report.recommendation.sentences.push(EVIL.into());
    report.recommendation.commands.push(EVIL.into());
    report.breaches = budget_broken().breaches;
    report.breaches.iter_mut().for_each(|breach| breach.sentence = EVIL.into());
    report
}

#[test]
fn a_strangers_name_is_text_wherever_it_stands() {
    let page = page(&hostile());
    assert!(!page.contains("<img") && !page.contains("</td></script>"), "{page}");
    assert!(!page.chars().any(|c| c != '\n' && crate::text::sanitize::steers(c)));
    assert_eq!(page.matches("</script>").count(), 2);
    assert!(page.matches("&lt;img").count() > 10);
    let (_, figures) = page.split_once("id=\"figures\">").unwrap();
    let figures: serde_json::Value =
        serde_json::from_str(figures.split_once("</script>").unwrap().0).unwrap();
    assert!(figures["processes"][0]["comm"].as_str().unwrap().contains("</td>"));
    well_formed(&page);
}

/// Every element that is opened is closed, in order.
fn well_formed(page: &str) {
    let mut open: Vec<&str> = Vec::new();
    let mut rest = page;
    while let Some((_, after)) = rest.split_once('<') {
        let (tag, behind) = after.split_once('>').expect("a tag ends");
        rest = behind;
        let name = tag.split([' ', '\n', '/']).find(|part| !part.is_empty()).unwrap_or_default();
        if tag.starts_with('!') || ["meta"].contains(&name) || tag.ends_with('/') {
            continue;
        }
        if tag.starts_with('/') {
            assert_eq!(open.pop(), Some(name), "{tag}");
        } else {
            open.push(name);
            if ["style", "script"].contains(&name) {
                rest = &rest[rest.find(&format!("</{name}>")).expect("it ends")..];
            }
        }
    }
    assert!(open.is_empty(), "{open:?}");
}

#[test]
fn every_situation_is_a_whole_page_with_the_verdict_first() {
    for report in [budget_broken(), clean_run(), clipped_run(), nothing(), other_cause(), proc_source()] {
        let page = page(&report);
        well_formed(&page);
        assert_eq!(page.matches("<h1>").count(), 1);
        let heading = page.find("<h1>").unwrap();
        assert!(page.find("<h2>").is_some_and(|next| heading < next));
    }
}

#[test]
fn each_section_has_a_link_and_each_link_its_place() {
    for report in [budget_broken(), clean_run(), clipped_run(), nothing(), other_cause(), hostile()] {
        let page = page(&report);
        let parts = |of: &str| -> Vec<String> {
            let parts = page.split(of).skip(1);
            parts.map(|part| part.split_once('"').unwrap().0.to_owned()).collect()
        };
        let ids = parts(" id=\"");
        let (links, sections) = (parts("<a href=\"#"), parts("<section id=\""));
        assert!(links.starts_with(&sections) && !sections.is_empty(), "{links:?}");
        assert_eq!(sections.len(), page.matches("<section").count());
        assert!(links.iter().all(|link| ids.iter().filter(|id| *id == link).count() == 1), "{ids:?}");
    }
}

#[test]
fn a_name_that_is_not_told_is_no_event_that_was_lost() {
    let mut report = clean_run();
    let said = |report: &Report, lost: &[(&str, u64)]| {
        let lost = lost.iter().map(|(name, times)| ((*name).to_owned(), *times)).collect();
        let coverage = Coverage { lost, ..report.coverage.clone() };
        let page = page(&Report { coverage, ..report.clone() });
        let (_, trust) = page.split_once("<h2>How far to trust this</h2>").unwrap();
        trust.split_once("<details>").map_or(trust, |(trust, _)| trust).to_owned()
    };
    assert!(said(&report, &[("test_unknown", 0)]).contains("nothing was lost."));
    let names = said(&report, &[("test_unknown", 3), ("credits_lost", 1)]);
    assert!(
        names.contains("no event was lost.")
            && names.contains(": 1 \u{d7} a sample of who made VMAs, 3 \u{d7} the name of a process's test.")
            && !names.contains("events were"),
        "{names}"
    );
    let both = said(&report, &[("test_unknown", 3), ("ring_full", 2), ("of a later version", 2)]);
    assert!(both.contains("4 events were lost, which touch no peak.") && both.contains("3 \u{d7}"), "{both}");
    report.coverage.exact_peaks = false;
    assert!(said(&report, &[("test_unknown", 3)]).contains("largest sample.</p>\n<p>Not told"));
}

fn crowd(processes: u32) -> Report {
    let mut report = clipped_run();
    let long = "x".repeat(200);
    let one = report.processes[0].clone();
    let row = |n: u64| Cluster {
        start: Some(u64::MAX - n),
        end: Some(u64::MAX),
        bytes: u64::MAX,
        vmas: 65_530 - n,
        mapped_bytes: u64::MAX,
        cell_bytes: u64::MAX / CELLS as u64,
        cells: (0..CELLS as u64).map(|cell| 60_000 + cell * n).collect(),
    };
    let layout = Layout {
        at_s: 0.123_456,
        moment: Moment::Refusal,
        vmas_read: 65_530,
        complete: true,
        rows: (0..ROWS as u64).map(row).collect(),
    };
    report.processes = (0..processes)
        .map(|pid| Process {
            pid,
            comm: long.clone(),
            unit: Some(long.clone()),
            user: Some(long.clone()),
            // As many as an audit keeps.
            layout: (pid < 64).then(|| layout.clone()),
            ..one.clone()
        })
        .collect();
    report.folded = (0..400).map(|n| alike(&format!("{n}{long}"), 100, (1, 2))).collect();
    let refused = report.failures[0].clone();
    report.failures =
        (0..processes).map(|pid| Failure { pid, comm: long.clone(), ..refused.clone() }).collect();
    report
}

#[test]
fn rows_that_say_little_are_folded_away() {
    let mut report = clean_run();
    let one = report.processes[0].clone();
    let row = |pid: u32, peak: u64| {
        let mut row = Process { pid, ..one.clone() };
        row.map_count.peak = Some(peak);
        row.map_count.percent_of_limit = Some(peak as f64 * 100.0 / 65_530.0);
        row
    };
    report.processes = (0..30).map(|pid| row(pid, 5000 - 160 * u64::from(pid))).collect();
    let rows = |report: &Report| {
        let page = page(report);
        let (_, table) = page.split_once("<h2>Processes</h2>").unwrap();
        let (open, rest) = table.split_once("<details>").unwrap();
        let count = |part: &str| part.matches("<span class=\"sub\">pid ").count();
        assert!(rest.starts_with("<summary>"), "{rest}");
        (count(open), count(rest.split_once("</section>").unwrap().0))
    };
    assert_eq!(rows(&report), (20, 10));
    report.processes = (0..30).map(|pid| row(pid, if pid < 2 { 700 } else { 42 })).collect();
    assert_eq!(rows(&report), (2, 28), "a hundredth of the limit");
    report.processes = (0..30).map(|pid| row(pid, 42)).collect();
    assert_eq!(rows(&report), (10, 20), "some are shown where none stands out");
}

#[test]
fn a_page_is_small_whatever_there_was() {
    let hundred = page(&crowd(100));
    assert!(
        hundred.matches("<h2>Where the VMAs lay</h2>").count() == 1
            && hundred.contains("and 61 more processes")
    );
    let hundred = hundred.len();
    assert!(hundred < 300 << 10, "{hundred}");
    let many = page(&crowd(10_000)).len();
    assert!(many < 1 << 20, "{many}");
}
