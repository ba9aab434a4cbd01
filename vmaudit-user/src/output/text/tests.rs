//! Golden texts. [`clipped_run`] and its siblings are also what the other outputs are tested with.

use super::*;
use crate::recommend::{Failed, Measured, recommend};
use crate::report::*;

fn process(pid: u32, comm: &str, first: u64, last: u64, peak: u64) -> Process {
    Process {
        pid,
        ppid: Some(1),
        comm: comm.into(),
        exe: None,
        app: None,
        cgroup: None,
        uid: Some(1000),
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
        unreadable: None,
    }
}

fn report(processes: Vec<Process>, measured: Measured) -> Report {
    let lost = ["ring_full", "table_full", "stack_missing", "program_skipped"];
    Report {
        schema: SCHEMA.into(),
        version: VERSION,
        vmaudit: "0.1.0".into(),
        host: Host { kernel: "6.18.44".into(), arch: "x86_64".into(), cpus: 2, page_size: 4096 },
        session: Session {
            command: vec!["./holes".into()],
            started: "2026-11-21T01:12:00Z".into(),
            duration_s: 12.3,
            exit: Some(Exit { code: Some(0), signal: None }),
            breach: None,
            still_running: 0,
        },
        source: SourceKind::Ebpf,
        coverage: Coverage {
            exact_peaks: true,
            exact_calls: true,
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
        failures: Vec::new(),
        ordinary_answers: Vec::new(),
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
        pid,
        started_s: Some(0.01),
        comm: comm.into(),
        syscall: syscall.into(),
        errno: "ENOMEM".into(),
        cause,
        certain: true,
        count,
        first_at_s: Some(0.8),
        last_at_s: Some(0.9),
        example: None,
        evidence: BTreeMap::new(),
        sentence: sentence.into(),
        cure: None,
        holders: None,
    }
}

fn failed(cause: Cause, count: u64) -> Failed {
    Failed { cause, reason: because(cause), count, limit_excluded: cause != Cause::MaxMapCount }
}

fn refused(count: u64) -> CallFigures {
    CallFigures { calls: Some(count), added: 0, removed: 0, failed: Some(count) }
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
        "munmap() had to split a mapping in two, which needs one more VMA than vm.max_map_count = 65,530 allows; in all, 92 KiB were not unmapped.",
    );
    refused.cure = Some("Raise vm.max_map_count, or make fewer mappings.".into());
    let frame = |symbol: Option<&str>, module: &str, line: Option<u32>| Frame {
        ip: Some("0x7f00".into()),
        symbol: symbol.map(Into::into),
        module: Some(module.into()),
        offset: Some(0x1234),
        file: line.map(|_| "holes.c".into()),
        line,
    };
    refused.example = Some(Example {
        tid: 123,
        args: serde_json::Map::new(),
        stack: vec![
            frame(Some("__munmap"), "/lib/libc.so.6", None),
            frame(Some("main"), "/tmp/holes", Some(20)),
            frame(None, "/tmp/holes", None),
        ],
    });
    report.failures.push(refused);
    report
}

fn other_cause() -> Report {
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

fn proc_source() -> Report {
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
        notes: vec!["Without CAP_BPF and CAP_PERFMON vmaudit looks at /proc every 100 ms.".into()],
        exact_peaks: false,
        exact_calls: false,
    };
    report
}

fn nothing() -> Report {
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

#[track_caller]
fn same(text: &str, golden: &str) {
    assert!(text == golden.strip_prefix('\n').unwrap(), "got:\n{text}");
}

#[test]
fn golden_clean() {
    same(
        &text(&clean_run()),
        r"
vmaudit: No incident; 15 calls were refused as ordinary answers (mremap 12,
  madvise 3), see below. Largest process: java, 1,204 VMAs at its peak, 1.8 % of
  the limit 65,530.
2,001 processes in 12.3 s; ./holes ended with status 0; followed in the kernel,
  all peaks exact; Linux 6.18.44.

 PID  NAME    FIRST  LAST   PEAK  % LIMIT  FAILED
4242  java       21   900  1,204      1.8       0
4243  worker     21    30     31      0.0       0
4244  worker     21    30     31      0.0       0
and 1,998 more processes

No incidents, ordinary answers: mremap 12 (no room to grow in place), madvise 3
  (a range that is not mapped).
Lost: nothing (program_skipped 0, ring_full 0, stack_missing 0, table_full 0).

Recommendation
  Leave vm.max_map_count at 65,530: java (pid 4242) peaked at 1,204 VMAs, 1.8 %
  of it.
",
    );
}

#[test]
fn golden_clipped() {
    same(
        &text(&clipped_run()),
        r"
vmaudit: holes (pid 123) hit vm.max_map_count = 65,530: 23 calls failed, 92 KiB
  were not unmapped.
2 processes in 12.3 s; ./holes ended with status 0; followed in the kernel, all
  peaks exact; Linux 6.18.44.

PID  NAME   FIRST    LAST     PEAK  % LIMIT  FAILED
123  holes     21  65,530  65,530+    100.0      23
100  sh        20      28       28      0.0       0
+ stopped by the limit: the demand is higher

23 x munmap ENOMEM in holes (pid 123), cause max_map_count, 0.800 to 0.900 s
  munmap() had to split a mapping in two, which needs one more VMA than
  vm.max_map_count = 65,530 allows; in all, 92 KiB were not unmapped.
  one of them:
    at __munmap (libc.so.6)
    at main (holes) holes.c:20
    at holes+0x1234

Lost: nothing (program_skipped 0, ring_full 0, stack_missing 0, table_full 0).

Recommendation
  The limit stopped holes (pid 123) at 65,530 VMAs, so its demand is not known
  yet: raise vm.max_map_count to 100,000 and run again.
  Its price: a process that uses all of them holds 28.6 MiB of kernel memory
  that cannot be swapped (300 B per VMA, a safe estimate).
  The command lasts until the next boot; a line `vm.max_map_count = 100000` in a
  file in /etc/sysctl.d keeps it.
    sysctl -w vm.max_map_count=100000
",
    );
}

#[test]
fn golden_another_cause() {
    same(
        &text(&other_cause()),
        r"
vmaudit: 5 memory calls failed in python3 (pid 77): the address space limit
  RLIMIT_AS. Not vm.max_map_count.
1 process in 12.3 s; ./holes died of SIGABRT; followed in the kernel, all peaks
  exact; Linux 6.18.44.

PID  NAME     FIRST  LAST  PEAK  % LIMIT  FAILED
 77  python3     40    61    61      0.1       5

5 x mmap ENOMEM in python3 (pid 77), cause rlimit_as, 0.800 to 0.900 s
  mmap() asked for 2 GiB, and 190 MiB were in use: more than RLIMIT_AS = 1 GiB
  allows.

Lost: nothing (program_skipped 0, ring_full 0, stack_missing 0, table_full 0).

Recommendation
  Raising vm.max_map_count will not help 5 failed calls, because the reason is
  another: 5 x the address space limit RLIMIT_AS.
  The limit 65,530 itself is high enough: python3 (pid 77) peaked at 61 VMAs,
  0.1 % of it.
",
    );
}

#[test]
fn golden_sampled() {
    same(
        &text(&proc_source()),
        r"
vmaudit: Largest process: java, 1,204 VMAs in the largest sample, 1.8 % of the
  limit 65,530. Sampled: the true peak may be higher, and failed calls were not
  seen.
1 process in 12.3 s; ./holes ended with status 0; sampled from /proc; Linux
  6.18.44.

 PID  NAME  FIRST  LAST    PEAK  % LIMIT  FAILED
4242  java     21   900  ~1,204      1.8       -
~ sampled or seen only in part: the true peak may be higher

Lost: samples_missed 3.
Missing: mmap_lock_released: exact peaks (no CAP_BPF)
Note: Without CAP_BPF and CAP_PERFMON vmaudit looks at /proc every 100 ms.

Recommendation
  Nothing seen asks for more than vm.max_map_count = 65,530: java (pid 4242) was
  seen with 1,204 VMAs, 1.8 % of it.
  The peak was sampled, so the true one may be higher; run as root, or with
  CAP_BPF and CAP_PERFMON, and with eBPF to know it.
",
    );
}

#[test]
fn golden_nothing_measured() {
    same(
        &text(&nothing()),
        r"
vmaudit: Nothing was measured: no process's VMAs could be counted.
0 processes in 12.3 s; followed in the kernel; Linux 6.18.44.

Lost: nothing (program_skipped 0, ring_full 0, stack_missing 0, table_full 0).

Recommendation
  No VMA count was measured, so there is nothing to recommend.
",
    );
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
    for code in [BOLD, RED, GREEN, YELLOW, DIM, "0"] {
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
    let said = text(&report);
    assert!(said.starts_with("vmaudit: No failed memory call was seen, but not all could be seen (below)."));
    assert!(said.contains("  ~0\n") && said.contains("~ in FAILED: not all calls were seen"), "{said}");
    report.coverage.hooks[0].state = HookState::Unused;
    let said = text(&report);
    assert!(said.contains("  -\n"), "calls that nobody watched have no number: {said}");
    assert!(said.contains("Failed calls were not watched."), "{said}");
    let mut report = clipped_run();
    report.coverage.exact_calls = false;
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
    assert_eq!(looked(&whole), "at 0.340 s, 3 ms after a refused munmap");
    let cut = Holders { vmas_read: 1_413, complete: false, after_ms: 0, ..whole };
    assert_eq!(
        looked(&cut),
        "at 0.340 s, less than 1 ms after a refused munmap, at the first 1,413 of about 65,530 VMAs; there was no \
         time for more"
    );
    let ended = looked(&Holders { ended: true, vmas_expected: None, ..cut });
    assert!(ended.ends_with(", at the first 1,413 VMAs; the process ended meanwhile"), "{ended}");
}

fn look() -> Holders {
    Holders {
        vmas_read: 65_531,
        complete: true,
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
    let sentence = "Looked at 0.340 s, 3 ms after a refused munmap: All are pages.";
    assert_eq!(said.matches(sentence).count(), 1, "{said}");
    assert_eq!(said.matches("Looked").count(), 1, "{said}");
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
    assert_eq!(distinct_processes(&[&first, &later, &again]), 2);
}

#[test]
fn bytes_beyond_all_numbers_do_not_overflow() {
    let mut report = clipped_run();
    for row in &mut report.processes {
        row.unmap_leaked_bytes = Some(u64::MAX);
    }
    assert!(verdict(&report).1.contains("were not unmapped"));
}
