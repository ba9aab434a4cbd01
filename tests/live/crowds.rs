//! Crowds: tens of thousands of processes, each called otherwise and refused something, cost bounded memory and a report
//! of bounded size, and every one of them is counted.

use vmaudit_tests::{Session, in_guest};
use vmaudit_user::model::report::{CallFigures, Report};

/// Size of the crowd.
fn many() -> usize {
    if in_guest() { 3000 } else { 30_000 }
}

/// Calls of one name, over all processes.
fn figures<'a>(report: &'a Report, call: &str) -> Vec<&'a CallFigures> {
    let calls =
        report.processes.iter().map(|row| &row.calls).chain(report.folded.iter().map(|sum| &sum.calls));
    calls.filter_map(|calls| calls.get(call)).collect()
}

/// Processes, calls and failures of the report are the workload's own, whether their process has a row or not.
#[track_caller]
fn assert_all_counted(done: &vmaudit_tests::Done, n: usize) -> Report {
    let report = done.report();
    let own = done.own().remove(0);
    // Details of single calls may get lost in a crowd (section_lost, ring_full), figures may not.
    let coverage = &report.coverage;
    assert!(coverage.exact_peaks && coverage.exact_locking_calls, "{coverage:?}");
    assert_eq!(coverage.lost["examples_full"], 0, "{:?}", coverage.lost);
    let processes =
        report.processes.len() as u64 + report.folded.iter().map(|sum| sum.processes).sum::<u64>();
    assert_eq!(processes, n as u64 + 1);
    for refused in &own.refused {
        let failures = report.failures.iter().chain(&report.ordinary_answers);
        let of_call = failures.filter(|f| f.syscall == refused.syscall && f.errno == refused.errno);
        assert_eq!(of_call.map(|f| f.count).sum::<u64>(), refused.count, "{}", refused.syscall);
        let failed = figures(&report, &refused.syscall).iter().filter_map(|it| it.failed).sum::<u64>();
        assert_eq!(failed, refused.count, "{}", refused.syscall);
    }
    // Each child maps one page more than its number modulo 17, and a fifth of them call mmap in vain, up to three times.
    let mmaps = (0..n as u64).map(|i| 1 + i % 17).sum::<u64>() + own.refused[0].count;
    let of_children = figures(&report, "mmap").iter().filter_map(|it| it.calls).sum::<u64>();
    assert!(
        (mmaps..mmaps + 500).contains(&of_children),
        "{of_children} calls of mmap, the children's {mmaps}"
    );
    // Largest sizes are told of those without a row as well, as far as they are told at all.
    for sum in &report.folded {
        let told = sum.memory.is_some_and(|memory| memory.address_space_peak_bytes > 0 && memory.exact);
        assert_eq!(told, vmaudit_tests::has_lock_events(), "{sum:?}");
    }
    let peaks = report.processes.iter().map(|row| row.map_count.peak);
    let largest = peaks.chain(report.folded.iter().map(|sum| sum.peak_max)).max().flatten();
    assert_eq!(report.processes[0].map_count.peak, largest, "the largest has a row");
    report
}

#[test]
fn strangers_of_all_names_and_failures_cost_little_and_are_all_counted() {
    let n = many();
    let session = Session::run_as_usual(&[], &["strangers", &n.to_string()]);
    let (done, most_memory) = session.start().wait_measured();
    let done = done.succeeded();
    // A third of it on a quiet machine; on a busy one thousands are alive, or dead and not yet taken, at one time. Without
    // a bound, 30,000 cost 275 MiB.
    assert!(most_memory < 160 << 20, "{} MiB resident", most_memory >> 20);
    let size = done.read("report.json").len();
    assert!(size < 10_000_000, "a report of {size} bytes");
    let report = assert_all_counted(&done, n);
    assert_eq!(report.processes.len(), 1000);
    let command = report.processes.iter().find(|row| row.pid == done.own()[0].pid);
    assert!(
        command.is_some_and(|row| row.comm == "workload"),
        "the command has a row, however small its peak"
    );
    let various = report.folded.iter().find(|sum| sum.various).expect("names that came once go by no name");
    assert!(various.processes > n as u64 / 2, "{various:?}");
    assert!(various.exact && report.folded.len() <= 401);
}

/// A crowd is refused more kinds of calls than examples are kept. What decides a cause is counted with the calls, so that
/// those without an example have the same one, and a whole sentence.
#[test]
fn a_lost_example_leaves_the_cause_as_it_is() {
    let n = if in_guest() { 1500 } else { 3000 };
    let done =
        Session::run_as_usual(&["--ring-bytes", "16777216"], &["needy", &n.to_string()]).go().succeeded();
    let report = done.report();
    let own = done.own().remove(0);
    assert!(report.coverage.lost["examples_full"] > 0, "too few for the test: {:?}", report.coverage.lost);
    let all = || report.failures.iter().chain(&report.ordinary_answers);
    let mut wrong = Vec::new();
    for failure in all() {
        let refused = |it: &&vmaudit_tests::own::Refused| {
            it.syscall == failure.syscall && it.cause == failure.cause.name()
        };
        // Other limits could not be told from it where the mappings in the range cannot be looked at.
        let certain = failure.certain || vmaudit_tests::kernel_version() < (6, 4);
        if own.refused.iter().find(refused).is_none() || !certain || failure.sentence.contains(" for of ") {
            wrong.push((failure.syscall.clone(), failure.cause, failure.certain, failure.sentence.clone()));
        }
    }
    wrong.sort();
    wrong.dedup();
    assert!(wrong.is_empty(), "{wrong:#?}");
    for refused in &own.refused {
        let alike = all().filter(|it| it.syscall == refused.syscall && it.cause.name() == refused.cause);
        assert_eq!(alike.map(|it| it.count).sum::<u64>(), n, "{} {}", refused.syscall, refused.cause);
    }
}

#[test]
fn whoever_asks_gets_a_row_for_every_stranger() {
    let n = 3000;
    let done = Session::run(&[], &["strangers", &n.to_string()]).go().succeeded();
    let report = assert_all_counted(&done, n);
    assert_eq!((report.processes.len(), report.folded.len()), (n + 1, 0));
}

#[test]
fn a_family_of_one_name_is_one_line_for_people() {
    let done = Session::vmaudit(&["run", "--"]).then_workload(&["children", "3000"]).go().succeeded();
    let text = done.stderr_text();
    assert!(text.contains("3,001 processes in "), "{text}");
    let line = text.lines().find(|line| line.contains(" others named workload, peaks ")).expect(&text);
    assert!(line.starts_with("and 2,00"), "{line}");
}
