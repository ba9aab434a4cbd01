//! What people read: the report's text, held to the JSON of the same session.

use vmaudit_tests::{Done, Session};

/// `vmaudit run` with both, on this workload.
fn both(words: &[&str]) -> (Done, String) {
    let session = Session::vmaudit(&["run"]);
    let files = ["report.json", "report.txt"].map(|name| session.file(name));
    let session = session.words(&["-o"]).words(&files[..1]).words(&["-o"]).words(&files[1..]);
    let done = session.words(&["--"]).then_workload(words).go().succeeded();
    let text = done.read("report.txt").replace("\n    ", " ");
    (done, text)
}

#[test]
fn a_process_at_the_limit_is_told_with_the_calls_that_made_its_vmas_and_what_they_are() {
    let (done, text) = both(&["--linger", "1500", "stacks", "2"]);
    let report = done.report();
    let row = report.processes.first().expect("a process");
    let (call, figures) = row.calls.iter().max_by_key(|(_, figures)| figures.added).expect("it made some");
    let grouped = vmaudit_user::text::grouped(figures.added);
    let line = format!("\nWho made the VMAs\n  {} (pid {}): added by {call} {grouped}", row.comm, row.pid);
    assert!(text.contains(&line), "{line:?} in {text}");
    let look = report.failures[0].holders.as_ref().expect("the process lived long enough to be looked at");
    let said = text.replace("\n  ", " ");
    assert!(said.contains(&format!("Its VMAs then: {}", look.sentence.trim_end_matches('.'))), "{text}");
}

#[test]
fn a_clean_report_is_short_and_names_no_counter_and_no_hook() {
    let (done, text) = both(&["attach", "1"]);
    let report = done.report();
    if report.coverage.lost.values().all(|lost| *lost == 0) {
        assert!(text.contains("\nNothing lost.\n"), "{text}");
    }
    for name in report.coverage.hooks.iter().filter(|hook| hook.loses.is_none()).map(|hook| &hook.name) {
        assert!(!text.contains(name.as_str()), "{name} in {text}");
    }
    assert!(!text.contains("Who made the VMAs"), "{text}");
}

/// A line of a refused call: everything that strace would show, and whose it is.
#[test]
fn a_trace_writes_calls_as_strace_does_with_process_and_thread_and_ends_with_the_sum() {
    let session = Session::vmaudit(&["trace", "-Z", "-k", "-o"]);
    let lines = session.file("lines.txt");
    let session = session.words(&[lines]).words(&["--"]).then_workload(&["causes", "rlimit-as", "5"]);
    let done = session.go().succeeded();
    let (text, own) = (done.read("lines.txt"), done.own().remove(0));
    let head = text.lines().find(|line| line.starts_with("TIME ")).expect("a head");
    assert_eq!(head.split_whitespace().collect::<Vec<_>>(), ["TIME", "PID", "PROCESS", "THREAD", "CALL"]);
    let call = "mmap(NULL, 4194304, PROT_NONE, MAP_PRIVATE|MAP_ANONYMOUS|MAP_NORESERVE, -1, 0) = -1 ENOMEM: ";
    let line = text.lines().find(|line| line.contains(call)).unwrap_or_else(|| panic!("{text}"));
    let [time, pid, process, thread, ..] = line.split_whitespace().collect::<Vec<_>>()[..] else {
        panic!("{line}")
    };
    assert!(time.len() >= 12 && time.matches(':').count() == 2, "{line}");
    assert_eq!((pid, process, thread), (own.pid.to_string().as_str(), "workload", "workload"));
    let all: u64 = own.refused.iter().map(|refused| refused.count).sum();
    assert!(text.contains(&format!("\n--- {all} refused calls in 1 process\n")), "{text}");
    assert!(
        text.contains(&format!("\nvmaudit: {all} memory calls failed in workload (pid {})", own.pid)),
        "{text}"
    );
    assert!(text.contains("\n    at "), "stacks: {text}");
}

#[test]
fn a_count_alone_has_no_lines_and_all_figures() {
    let done =
        Session::vmaudit(&["trace", "-c", "-o", "-", "--"]).then_workload(&["burst", "300"]).go().succeeded();
    let text = String::from_utf8_lossy(&done.stdout).into_owned();
    let ours = text.split_once("--- no memory call was refused\n").expect("the sum").1;
    assert!(!text.contains("TIME "), "{text}");
    let mmap = ours.lines().find(|line| line.ends_with("  mmap")).unwrap_or_else(|| panic!("{text}"));
    let added: u64 =
        mmap.split_whitespace().nth(1).and_then(|word| word.replace(',', "").parse().ok()).expect("a figure");
    assert!(added >= 300, "{mmap}");
}

/// Somebody who waits is told that it is on, and for whom; what was lost is no line of the trace.
#[test]
fn a_trace_that_waits_says_so() {
    let done = Session::vmaudit(&["trace", "-Z", "--all", "-d", "100ms"]).go().succeeded();
    let said = done.stderr_text();
    assert!(
        said.starts_with("vmaudit: tracing refused memory calls of ") && said.contains("; Ctrl-C "),
        "{said}"
    );
    let text = String::from_utf8_lossy(&done.stdout).into_owned();
    assert!(!text.contains("lost: ") && text.contains("\n--- ") | text.starts_with("--- "), "{text}");
}

#[test]
fn a_trace_of_a_cgroup_that_nobody_is_in_shows_nothing() {
    let session = Session::vmaudit(&["trace", "--cgroup", "/no/such/group", "--"]);
    let done = session.then_workload(&["burst", "300"]).go().succeeded();
    let text = String::from_utf8_lossy(&done.stdout).into_owned();
    assert!(!text.contains("TIME ") && text.contains("--- no memory call was refused"), "{text}");
}
