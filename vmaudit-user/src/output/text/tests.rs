//! Golden texts. [`clipped_run`] and its siblings are also what the other outputs are tested with.

use std::collections::BTreeMap;

use unicode_width::UnicodeWidthStr as _;

use super::failures::looked;
use super::headline::verdict;
use super::*;
use crate::domain::recommend::{Failed, Measured, recommend};
use crate::model::breach::Bound;
use crate::model::cause::because;
use crate::model::report::*;
use crate::output::text::crowd::distinct_processes;
use crate::output::text::page::{Colour, shortened};
use crate::output::text::processes::failed_calls;
use crate::text::grouped;

fn process(pid: u32, comm: &str, first: u64, last: u64, peak: u64) -> Process {
    Process {
        pid,
        ppid: Some(1),
        comm: comm.into(),
        exe: None,
        app: None,
        cgroup: None,
        uid: Some(1000),
        user: None,
        args: None,
        test: None,
        unit: None,
        container: None,
        pod: None,
        since: Some(Since::Start),
        started_s: Some(0.01),
        ended_s: None,
        map_count: MapCount {
            first: Some(first),
            last: Some(last),
            peak: Some(peak),
            peak_at_s: Some(0.5),
            exact: true,
            clipped: false,
            percent_of_limit: Some(peak as f64 * 100.0 / 65530.0),
        },
        images: Vec::new(),
        images_folded: 0,
        calls: BTreeMap::new(),
        unmap_leaked_bytes: Some(0),
        unmap_leaked_bound: Some(Accuracy::Exact),
        memory: None,
        end: None,
        makers: Vec::new(),
        layout: None,
        changes: Vec::new(),
        unreadable: None,
        shares_address_space_of: None,
        tasks: Vec::new(),
        series: None,
        growth: None,
    }
}

/// Processes of one name, as one row.
pub(crate) fn alike(comm: &str, processes: u64, (peak_min, peak_max): (u64, u64)) -> FoldedProcesses {
    FoldedProcesses {
        comm: comm.into(),
        app: None,
        various: false,
        processes,
        still_running: 0,
        peak_min: Some(peak_min),
        peak_max: Some(peak_max),
        exact: true,
        clipped: 0,
        killed: 0,
        end_unknown: 0,
        stopped: 0,
        failing: 0,
        failed: Some(0),
        first_started_s: Some(0.1),
        last_ended_s: Some(0.2),
        tasks: Vec::new(),
        memory: None,
        calls: BTreeMap::new(),
        unmap_leaked_bytes: Some(0),
        unmap_leaked_bound: Some(Accuracy::Exact),
    }
}

fn report(processes: Vec<Process>, measured: Measured) -> Report {
    let lost = ["ring_full", "table_full", "stack_missing", "program_skipped"];
    Report {
        schema: SCHEMA.into(),
        version: VERSION,
        vmaudit: "0.1.0".into(),
        host: Host {
            name: Some("web1".into()),
            kernel: "6.18.44".into(),
            arch: "x86_64".into(),
            cpus: 2,
            page_size: 4096,
        },
        session: Session {
            watched: None,
            stretch: None,
            elsewhere: None,
            command: vec!["./holes".into()],
            started: "2026-11-21T01:12:00Z".into(),
            duration_s: 12.3,
            exit: Some(Exit { code: Some(0), signal: None }),
            end: None,
            breach: None,
            rlimits: None,
            still_running: 0,
        },
        source: SourceKind::Ebpf,
        coverage: Coverage {
            exact_peaks: true,
            exact_calls: true,
            exact_locking_calls: true,
            exact_limit_calls: true,
            hooks: vec![Hook {
                name: "sys_exit".into(),
                state: HookState::Attached,
                via: Some("raw_tp".into()),
                loses: None,
                reason: None,
                skipped: Some(0),
            }],
            lost: lost.map(|name| (name.into(), 0)).into(),
            ..Coverage::default()
        },
        limits: Limits { max_map_count: Some(65530), overcommit_memory: Some(0), overcommit_ratio: Some(50) },
        recommendation: recommend(&measured),
        processes,
        folded: Vec::new(),
        not_counted: Vec::new(),
        failures: Vec::new(),
        ordinary_answers: Vec::new(),
        marks: Vec::new(),
        budgets: Vec::new(),
        breaches: Vec::new(),
    }
}

/// A broken budget.
fn breach(sentence: &str) -> Breach {
    Breach {
        budget: "max_peak".into(),
        row: None,
        limit: Some(Bound::Count(100)),
        actual: Some(Bound::Count(200)),
        pid: Some(1),
        comm: Some(sentence.into()),
        shown: true,
        sentence: sentence.into(),
    }
}

fn measured(who: &str, pid: u32, peak: u64) -> Measured {
    Measured {
        peak: Some(peak),
        exact: true,
        who: Some((who.into(), pid)),
        current: Some(65530),
        ..Measured::default()
    }
}

fn failure(pid: u32, comm: &str, syscall: &str, cause: Cause, count: u64, sentence: &str) -> Failure {
    Failure {
        outcome: Outcome::Unrecovered,
        sites: Vec::new(),
        elsewhere: 0,
        pid,
        started_s: Some(0.01),
        comm: comm.into(),
        syscall: syscall.into(),
        errno: "ENOMEM".into(),
        cause,
        certain: true,
        count,
        processes: 1,
        various: false,
        first_at_s: Some(0.8),
        last_at_s: Some(0.9),
        example: None,
        evidence: BTreeMap::new(),
        sentence: sentence.into(),
        cure: None,
        holders: None,
        address_space_of: None,
    }
}

fn failed(cause: Cause, count: u64) -> Failed {
    Failed { cause, reason: because(cause), count, limit_excluded: cause != Cause::MaxMapCount }
}

fn refused(count: u64) -> CallFigures {
    CallFigures { calls: Some(count), added: 0, removed: 0, failed: Some(count) }
}

fn made(added: u64, removed: u64) -> CallFigures {
    CallFigures { calls: Some(added), added, removed, failed: Some(0) }
}

/// A budget that did not hold where nothing was refused.
pub(crate) fn budget_broken() -> Report {
    let mut report = clean_run();
    report.processes.truncate(3);
    report.ordinary_answers.clear();
    report.breaches = vec![breach("java (pid 4242) peaked at 1,204 VMAs, more than --max-peak 100")];
    report.session.breach = report.breaches.first().map(|breach| breach.sentence.clone());
    let demand = |budget: &str, option: &str, held| Demand {
        budget: budget.into(),
        row: None,
        limit: Some(Bound::Count(100)),
        option: option.into(),
        held,
    };
    report.budgets = vec![
        demand("fail_on_failure", "--fail-on failure", true),
        demand("max_peak", "--max-peak 100", false),
    ];
    report
}

pub(crate) fn clean_run() -> Report {
    let processes = (0..2001).map(|i| {
        if i == 0 { process(4242, "java", 21, 900, 1204) } else { process(4242 + i, "worker", 21, 30, 31) }
    });
    let mut report = report(processes.collect(), measured("java", 4242, 1204));
    report.ordinary_answers = vec![
        failure(4242, "java", "mremap", Cause::NoAddressRange, 12, ""),
        failure(4242, "java", "madvise", Cause::RangeNotMapped, 3, ""),
    ];
    report
}

pub(crate) fn clipped_run() -> Report {
    let mut holes = process(123, "holes", 21, 65530, 65530);
    holes.map_count.clipped = true;
    holes.unmap_leaked_bytes = Some(94208);
    holes.calls.insert("munmap".into(), refused(23));
    holes.calls.insert("mprotect".into(), made(65_505, 12));
    holes.calls.insert("[other]".into(), made(4, 0));
    let clipped = Measured {
        clipped: true,
        failures: vec![failed(Cause::MaxMapCount, 23)],
        ..measured("holes", 123, 65530)
    };
    let mut report = report(vec![holes, process(100, "sh", 20, 28, 28)], clipped);
    let mut refused = failure(
        123,
        "holes",
        "munmap",
        Cause::MaxMapCount,
        23,
        "munmap() had to split a mapping in two, which needs one more VMA than vm.max_map_count = 65,530 allows; in all, 92 KiB stay mapped.",
    );
    refused.cure = Some("Raise vm.max_map_count, or make fewer mappings.".into());
    let frame = |symbol: Option<&str>, module: &str, line: Option<u32>| Frame {
        ip: Some("0x7f00".into()),
        symbol: symbol.map(Into::into),
        module: Some(module.into()),
        offset: Some(0x1234),
        file: line.map(|_| "holes.c".into()),
        line,
        inlined: false,
    };
    refused.example = Some(Example {
        tid: 123,
        args: serde_json::Map::new(),
        stack: vec![
            frame(Some("__munmap"), "/lib/libc.so.6", None),
            frame(Some("main"), "/tmp/holes", Some(20)),
            frame(None, "/tmp/holes", None),
        ],
        stack_notes: vec!["The stack is cut here: holes has no unwind information for it.".into()],
    });
    report.failures.push(refused);
    report
}

pub(crate) fn other_cause() -> Report {
    let mut python = process(77, "python3", 40, 61, 61);
    python.calls.insert("mmap".into(), refused(5));
    let other = Measured { failures: vec![failed(Cause::RlimitAs, 5)], ..measured("python3", 77, 61) };
    let mut report = report(vec![python], other);
    report.session.exit = Some(Exit { code: None, signal: Some(6) });
    report.failures.push(failure(
        77,
        "python3",
        "mmap",
        Cause::RlimitAs,
        5,
        "mmap() asked for 2 GiB, and 190 MiB were in use: more than RLIMIT_AS = 1 GiB allows.",
    ));
    report
}

pub(crate) fn proc_source() -> Report {
    let mut java = process(4242, "java", 21, 900, 1204);
    java.map_count.exact = false;
    java.unmap_leaked_bytes = None;
    let mut report =
        report(vec![java], Measured { exact: false, sampled: true, ..measured("java", 4242, 1204) });
    report.source = SourceKind::Proc;
    report.coverage = Coverage {
        conditions: Vec::new(),
        lost: [("samples_missed".into(), 3)].into(),
        hooks: vec![Hook {
            name: "mmap_lock_released".into(),
            state: HookState::Missing,
            via: None,
            loses: Some("exact peaks".into()),
            reason: Some("no CAP_BPF".into()),
            skipped: None,
        }],
        gaps: Vec::new(),
        notes: vec!["Without CAP_BPF and CAP_PERFMON vmaudit looks at /proc every 100 ms.".into()],
        exact_peaks: false,
        exact_calls: false,
        exact_locking_calls: false,
        exact_limit_calls: false,
    };
    report
}

pub(crate) fn nothing() -> Report {
    let mut report = report(Vec::new(), Measured::default());
    report.session.command.clear();
    report.session.exit = None;
    report
}

fn text_of(report: &Report, style: &Style) -> String {
    let mut out = Vec::new();
    write(report, style, &mut out).unwrap();
    String::from_utf8(out).unwrap()
}

fn text(report: &Report) -> String {
    text_of(report, &Style { top: 3, ..Style::default() })
}

#[test]
fn no_line_is_wider_than_asked() {
    for report in [clean_run(), clipped_run(), other_cause(), proc_source(), nothing()] {
        for width in [60, 80, 120] {
            for line in text_of(&report, &Style { width, ..Style::default() }).lines() {
                assert!(line.width() <= width, "{width}: {line}");
            }
        }
    }
}

#[test]
fn a_hostile_name_never_reaches_the_terminal_raw() {
    let evil = "\x1b]0;x\x07\n\u{202e}evil";
    let mut report = clipped_run();
    for process in &mut report.processes {
        process.comm = evil.into();
    }
    report.session.command = vec![evil.into()];
    report.session.breach = Some(evil.into());
    report.breaches = vec![breach(evil); 2];
    report.host.kernel = evil.into();
    report.coverage.notes.push(evil.into());
    report.coverage.lost.insert(evil.into(), 1);
    report.recommendation.sentences.push(evil.into());
    report.recommendation.commands.push(evil.into());
    for failure in &mut report.failures {
        failure.comm = evil.into();
        failure.syscall = evil.into();
        failure.sentence = evil.into();
        failure.cure = Some(evil.into());
        if let Some(example) = &mut failure.example {
            for frame in &mut example.stack {
                frame.symbol = Some(evil.into());
                frame.module = Some(evil.into());
                frame.file = Some(evil.into());
            }
        }
    }
    report.ordinary_answers = report.failures.clone();
    report.processes[0].calls.insert(evil.into(), made(9, 9));
    let lines = text(&clipped_run()).lines().count();
    let text = text(&report);
    assert!(!text.contains(['\x1b', '\x07', '\u{202e}']));
    assert!(text.lines().all(|line| !line.starts_with("evil")));
    assert!(text.lines().count() < lines + 40);
    assert!(text.contains("\\x1b]0;x"));
}

#[test]
fn colour_is_only_around_the_text() {
    let plain = text(&clipped_run());
    let mut coloured = text_of(&clipped_run(), &Style { colour: true, top: 3, ..Style::default() });
    let colours = [Colour::Bold, Colour::Red, Colour::Green, Colour::Yellow, Colour::Dim];
    for code in colours.map(Colour::code).into_iter().chain(["0"]) {
        coloured = coloured.replace(&format!("\x1b[{code}m"), "");
    }
    assert_eq!(plain, coloured);
    assert!(!plain.contains('\x1b'));
}

#[test]
fn long_and_wide_names_are_cut() {
    assert_eq!(shortened("abcdef", 6), "abcdef");
    assert_eq!(shortened("abcdefg", 6), "abcde…");
    assert_eq!(shortened("日本語", 5), "日本…");
    assert_eq!(shortened("日本語", 4), "日…");
}

#[test]
fn failures_that_differ_only_in_their_process_are_one_block() {
    let mut report = clipped_run();
    for pid in 200..400 {
        let mut other = report.failures[0].clone();
        other.pid = pid;
        other.count = 1;
        report.failures.push(other);
        report.processes.push(process(pid, "holes", 20, 20, 20));
    }
    let text = text(&report);
    assert!(
        text.starts_with("vmaudit: 201 processes hit vm.max_map_count = 65,530: 223 calls failed, most of\n"),
        "{text}"
    );
    assert!(
        text.contains("\n223 x munmap ENOMEM in 201 processes named holes, cause max_map_count\n"),
        "{text}"
    );
}

#[test]
fn a_loss_takes_the_certainty_out_of_the_verdict() {
    let mut report = clean_run();
    report.ordinary_answers.clear();
    assert!(text(&report).starts_with("vmaudit: No memory call failed. Largest"));
    report.coverage.exact_calls = false;
    report.coverage.exact_locking_calls = false;
    let said = text(&report);
    assert!(said.starts_with("vmaudit: No failed memory call was seen, but not all could be seen (below)."));
    assert!(said.contains("  ~0\n") && said.contains("~ in FAILED: not all calls were seen"), "{said}");
    report.coverage.hooks[0].state = HookState::Unused;
    let said = text(&report);
    assert!(said.contains("  -\n"), "calls that nobody watched have no number: {said}");
    assert!(said.contains("Failed calls were not watched."), "{said}");
    let mut report = clipped_run();
    report.coverage.exact_calls = false;
    assert!(!text(&report).contains(": at least "), "all that the limit refused was seen: {}", text(&report));
    report.coverage.exact_limit_calls = false;
    report.coverage.exact_locking_calls = false;
    assert!(text(&report).contains(": at least "), "{}", text(&report));
}

#[test]
fn one_reason_for_all_is_said_once() {
    let mut report = proc_source();
    let hook = report.coverage.hooks[0].clone();
    for name in ["exit_mmap", "sys_exit", "task_iterator"] {
        report.coverage.hooks.push(Hook { name: name.into(), ..hook.clone() });
    }
    let said = text(&report).replace("\n  ", " ");
    assert_eq!(said.matches("Missing: ").count(), 1, "{said}");
    assert!(
        said.contains("all 4 kernel hooks, from mmap_lock_released to task_iterator (no CAP_BPF)"),
        "{said}"
    );
    report.coverage.hooks[1].reason = None;
    assert_eq!(text(&report).matches("Missing: ").count(), 4);
}

#[test]
fn exact_rows_are_not_all_rows_where_a_process_may_be_missing() {
    let mut report = clean_run();
    report.coverage.exact_peaks = false;
    assert!(text(&report).contains("all peaks here exact, but a process may be missing"));
    report.processes[0].map_count.exact = false;
    assert!(text(&report).contains("peaks marked ~ are not exact"));
}

#[test]
fn the_verdict_excludes_the_limit_only_where_it_is_excluded() {
    let mut report = other_cause();
    report.failures[0].certain = false;
    assert!(text(&report).starts_with(
        "vmaudit: 5 memory calls failed in python3 (pid 77), probably for: the address\n  space limit RLIMIT_AS.\n"
    ));
    report.failures[0].cause = Cause::Unknown;
    assert!(text(&report).starts_with(
        "vmaudit: 5 memory calls failed in python3 (pid 77): a cause that could not be\n  told.\n"
    ));
}

#[test]
fn names_of_threads_are_told_where_several_made_much() {
    let named = |name: &str, added| TaskFigures {
        name: Some(name.into()),
        added: Some(added),
        removed: Some(0),
        failed: Some(0),
        peak: None,
    };
    let said = |tasks: &[TaskFigures]| {
        let mut report = clipped_run();
        report.processes[0].tasks = tasks.to_vec();
        text(&report).split_whitespace().collect::<Vec<_>>().join(" ")
    };
    let rest = TaskFigures { name: None, ..named("", 3) };
    let two = said(&[named("a\x1b[2J", 60_000), named("main", 5_000), named("b", 9), rest.clone()]);
    assert!(
        two.contains("By name of the thread: a\\x1b[2J 60,000 (92.2 %), main 5,000, b 9, other names 3."),
        "{two}"
    );
    let one = said(&[named("a", 60_000), named("main", 3_000), rest]);
    assert!(!one.contains("By name"), "{one}");
    let nothing = TaskFigures { added: None, ..named("a", 0) };
    assert!(!said(&[nothing.clone(), nothing]).contains("By name"));
}

#[test]
fn counts_that_are_another_s_are_marked() {
    let mut report = clipped_run();
    let [first, second, ..] = report.processes.as_mut_slice() else { panic!("two processes") };
    let host = first.pid;
    second.shares_address_space_of = Some(host);
    let pid = second.pid;
    let failure = &mut report.failures[0];
    (failure.pid, failure.address_space_of) = (pid, Some(host));
    let text = text(&report).split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(text.contains(&format!("counted there: {pid} in that of {host}")), "{text}");
    assert!(text.contains(&format!("(pid {pid}), in the address space of {host}")), "{text}");
    assert!(text.contains(" ="), "{text}");
}

#[test]
fn the_peak_is_the_image_s_that_had_it() {
    let mut report = clean_run();
    report.processes[0].images =
        vec![Image { comm: "sh".into(), peak: 1204 }, Image { comm: "java".into(), peak: 1204 }];
    let said = text(&report);
    assert!(said.contains("Largest process: sh, 1,204 VMAs"), "{said}");
    assert!(said.contains("4242  sh -> java "), "{said}");
    assert!(said.contains("\na -> b: the peak is of a, which became b\n"), "{said}");
}

#[test]
fn a_limit_on_tasks_is_named_in_the_headline_too() {
    let mut report = other_cause();
    let failure = &mut report.failures[0];
    (failure.syscall, failure.errno) = ("clone3".into(), "EAGAIN".into());
    (failure.cause, failure.certain) = (Cause::Unknown, false);
    let said = text(&report).replace("\n  ", " ");
    assert!(
        said.starts_with(
            "vmaudit: 5 memory calls failed in python3 (pid 77): a limit on the number of tasks."
        )
    );
    assert!(said.contains("(pid 77), cause: a limit on the number of tasks, 0.800"), "{said}");
}

#[test]
fn a_peak_at_the_limit_is_marked_where_refusals_were_not_seen() {
    let mut report = clipped_run();
    report.failures.clear();
    report.coverage.exact_calls = false;
    report.coverage.exact_locking_calls = false;
    report.coverage.hooks[0].state = HookState::Unused;
    let said = text(&report).replace("\n  ", " ");
    assert!(
        said.contains("of the limit 65,530. It reached the limit, and whether it was refused more"),
        "{said}"
    );
    assert!(
        said.contains("  65,530+ ") && said.contains("\n+ at the limit: the demand may be higher"),
        "{said}"
    );
}

#[test]
fn a_look_that_ran_out_of_time_says_so() {
    let whole = look();
    assert_eq!(looked(&whole), "seen at 0.340 s, 3 ms after a refused munmap");
    let cut = Holders { vmas_read: 1_413, complete: false, after_ms: 0, ..whole };
    assert_eq!(
        looked(&cut),
        "seen at 0.340 s, less than 1 ms after a refused munmap; the first 1,413 of about 65,530 were read, there was no \
         time for more"
    );
    let ended = looked(&Holders { ended: true, vmas_expected: None, ..cut });
    assert!(ended.ends_with("; the first 1,413 VMAs were read, the process ended meanwhile"), "{ended}");
}

fn look() -> Holders {
    Holders {
        vmas_read: 65_531,
        complete: true,
        by_size: false,
        vmas_expected: Some(65_530),
        ended: false,
        at_s: 0.34,
        syscall: "munmap".into(),
        after_ms: 3,
        sentence: "All are pages.".into(),
    }
}

/// A failure that came after the look must not be shown as if the look had followed it.
#[test]
fn one_look_is_shown_once_with_its_own_time() {
    let mut report = clipped_run();
    report.failures[0].holders = Some(look());
    let mut later = report.failures[0].clone();
    (later.syscall, later.count) = ("mmap".into(), 2);
    report.failures.push(later);
    let said = text(&report).replace("\n  ", " ");
    let sentence = "Its VMAs then: All are pages (seen at 0.340 s, 3 ms after a refused munmap).";
    assert_eq!(said.matches(sentence).count(), 1, "{said}");
    assert_eq!(said.matches("VMAs then:").count(), 1, "{said}");
}

/// One number, two processes one after the other: each has its own figures, and they count as two.
#[test]
fn processes_that_had_the_same_number_are_kept_apart() {
    let mut report = clean_run();
    report.processes = vec![process(7, "a", 1, 2, 30), process(7, "a", 1, 2, 20)];
    for (row, (started_s, failed)) in report.processes.iter_mut().zip([(0.01, 5), (0.5, 2)]) {
        row.started_s = Some(started_s);
        row.calls.insert("mremap".into(), refused(failed));
    }
    report.ordinary_answers = vec![failure(7, "a", "mremap", Cause::NoAddressRange, 4, "")];
    let failed: Vec<_> = report.processes.iter().map(|row| failed_calls(row, &report)).collect();
    assert_eq!(failed, [Some(1), Some(2)]);
    let mut later = failure(7, "a", "munmap", Cause::MaxMapCount, 1, "");
    later.started_s = Some(0.5);
    let first = failure(7, "b", "munmap", Cause::MaxMapCount, 1, "");
    let again = failure(7, "a", "mmap", Cause::MaxMapCount, 1, "");
    let distinct = |report: &Report| distinct_processes(report, &[&first, &later, &again], |sum| sum.stopped);
    assert_eq!(distinct(&report), 2);
    report.processes.pop();
    report.folded = vec![FoldedProcesses { stopped: 4, ..alike("a", 9, (1, 20)) }];
    assert_eq!(distinct(&report), 5, "those without a row are known by number");
}

#[test]
fn processes_without_a_row_are_shown_by_name() {
    let mut report = clean_run();
    report.folded = vec![
        alike("x\x1b[31m", 29_990, (3, 20)),
        FoldedProcesses { failing: 1, failed: Some(2), clipped: 1, ..alike("y", 1, (9, 9)) },
        FoldedProcesses { various: true, exact: false, ..alike("z", 7, (2, 5)) },
        alike("u", 2, (1, 4)),
        alike("v", 1, (1, 8)),
        alike("w", 2, (1, 6)),
    ];
    let text = text_of(&report, &Style { width: 100, ..Style::default() });
    for line in [
        "and 29,990 others named x\\x1b[31m, peaks 3 to 20\n",
        "and 1 other named y, peak 9, 2 calls failed, 1 at the limit\n",
        "and 7 others of various names, peaks 2 to ~5\n",
        "and 5 others of 3 more names, with at most 8 VMAs\n",
    ] {
        assert!(text.contains(line), "{line:?} in {text}");
    }
    let processes = report.processes.len() + 30_003;
    assert!(text.contains(&format!("{} processes in", grouped(processes as u64))), "{text}");
}

#[test]
fn bytes_beyond_all_numbers_do_not_overflow() {
    let mut report = clipped_run();
    for row in &mut report.processes {
        row.unmap_leaked_bytes = Some(u64::MAX);
    }
    assert!(verdict(&report).1.contains("stay mapped"));
}

#[test]
fn a_report_without_losses_has_one_line_for_them_and_details_for_who_asks() {
    let mut report = clean_run();
    assert!(text(&report).contains("\nNothing lost.\n"), "{}", text(&report));
    let verbose = Style { verbose: true, ..Style::default() };
    let said = text_of(&report, &verbose);
    assert!(said.contains("\nNothing lost: program_skipped 0, ring_full 0, "), "{said}");
    report.coverage.lost.insert("ring_full".into(), 3);
    let said = text(&report);
    assert!(said.contains("\nLost: 3 x details that found the ring buffer full (ring_full).\n"), "{said}");
    assert!(!said.contains("Nothing lost"), "{said}");
    let said = text_of(&report, &verbose).replace("\n  ", " ");
    assert!(said.contains("(ring_full). All that is counted: program_skipped 0, ring_full 3, "), "{said}");
}

/// A gap of the kernel is told where it touches what is shown, and to who asks.
#[test]
fn a_missing_hook_that_touches_nothing_is_not_told() {
    use crate::model::hook;
    let missing = |name: &str| {
        let mut report = clipped_run();
        report.coverage.hooks.push(Hook {
            state: HookState::Missing,
            loses: Some("what".into()),
            ..Hook::unused(name)
        });
        report
    };
    let told = |report: &Report| text(report).contains("\nMissing: ");
    for name in hook::SETTLING {
        let report = missing(name);
        assert!(!told(&report), "{name}: {}", text(&report));
        let verbose = text_of(&report, &Style { verbose: true, ..Style::default() });
        assert!(verbose.contains(&format!("\nMissing: {name}: what\n")), "{verbose}");
    }
    for name in [hook::LOCK_RELEASED, hook::CALL_EXIT, hook::EXIT, hook::SNAPSHOT, "one of tomorrow"] {
        assert!(told(&missing(name)), "{name}");
    }
    let refused = |name, syscall: &str, cause, certain| {
        let mut report = missing(name);
        let refused = failure(123, "holes", syscall, cause, 1, "");
        report.ordinary_answers.push(Failure { certain, ..refused });
        report
    };
    for (name, syscall, cause) in [
        (hook::HEAP_GROWTH, "brk", Cause::Unknown),
        (hook::ADDRESS_SEARCH, "mremap", Cause::NoAddressRange),
        (hook::OVERCOMMIT, "mmap", Cause::Overcommit),
    ] {
        assert!(told(&refused(name, syscall, cause, false)), "{name}");
        assert!(!told(&refused(name, syscall, cause, true)), "{name}: it is certain");
        assert!(!told(&refused(name, "munlock", Cause::Sealed, false)), "{name}: another call");
    }
    let killed = |name, signal| {
        let mut report = missing(name);
        report.folded = vec![FoldedProcesses { killed: u64::from(signal), ..alike("x", 2, (1, 2)) }];
        told(&report)
    };
    assert!(killed(hook::SIGNAL, true) && killed(hook::VICTIM, true));
    assert!(!killed(hook::SIGNAL, false) && !killed(hook::VICTIM, false));
}

#[test]
fn who_made_the_vmas_is_said_of_processes_near_the_limit_by_call() {
    let said = |report: &Report| text(report).replace("\n    ", " ");
    let mut report = clipped_run();
    let line = "\nWho made the VMAs\n  holes (pid 123): added by mprotect 65,505 (99.9 %), page faults and other calls 4; removed by mprotect 12.\n";
    assert!(said(&report).contains(line), "{}", said(&report));
    report.processes[0].map_count.exact = false;
    assert!(
        said(&report).contains("removed by mprotect 12 (not all changes were seen).\n"),
        "{}",
        said(&report)
    );
    // Without the entries of calls nobody knows which it was.
    report.processes[0].calls.retain(|name, _| name == "[other]");
    assert!(!said(&report).contains("Who made"), "{}", said(&report));
    let mut small = clean_run();
    small.processes.truncate(2);
    small.processes[0].calls.insert("mmap".into(), made(1_204, 0));
    assert!(!said(&small).contains("Who made"), "{}", said(&small));
    small.limits.max_map_count = Some(12_040);
    assert!(said(&small).contains("  java (pid 4242): added by mmap 1,204.\n"), "{}", said(&small));
    // Many calls are few words.
    for n in 0..9 {
        small.processes[0].calls.insert(format!("call{n}"), made(10, 0));
    }
    assert!(said(&small).contains("mmap 1,204 (93.0 %), call0 10, call1 10, call2 10, other calls 60.\n"));
}
