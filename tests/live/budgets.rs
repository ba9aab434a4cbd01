//! `--max-peak`, `--max-percent`, `--fail-on`: a breach shows in the exit status, but never hides CMD's own.

use vmaudit_tests::{Done, LowerLimit, Session};

#[track_caller]
fn run(options: &[&str], words: &[&str], code: i32) -> Done {
    let done = Session::run(options, words).go().ended_with(code);
    let breach = done.report().session.breach;
    let broken = code != 0;
    assert_eq!(breach.is_some(), broken, "breach: {breach:?} with {options:?}");
    let breaches = done.report().breaches;
    assert_eq!(breaches.first().map(|breach| breach.sentence.clone()), breach);
    // Each has its line, also beside `-o`.
    let said = done.stderr_text();
    let lines: Vec<&str> = said.lines().filter(|line| line.starts_with("vmaudit: budget broken")).collect();
    assert_eq!(lines.len(), breaches.len(), "{said}");
    for breach in &breaches {
        assert!(lines.iter().any(|line| line.ends_with(&breach.sentence)), "{breach:?} in {said}");
    }
    done
}

#[test]
fn a_peak_above_the_budget_gives_86() {
    run(&["--max-peak", "50"], &["burst", "100"], 86);
}

#[test]
fn a_peak_within_the_budget_gives_0() {
    run(&["--max-peak", "500"], &["burst", "100"], 0);
}

#[test]
fn the_budget_is_broken_by_one_more_and_not_by_equal() {
    let (own, _) = Session::run(&[], &["burst", "100"]).go().succeeded().only();
    run(&["--max-peak", &own.peak.to_string()], &["burst", "100"], 0);
    run(&["--max-peak", &(own.peak - 1).to_string()], &["burst", "100"], 86);
}

#[test]
fn a_share_of_the_limit_is_a_budget_too() {
    run(&["--max-percent", "1"], &["burst", "5000"], 86);
    run(&["--max-percent", "50"], &["burst", "5000"], 0);
}

#[test]
fn the_status_of_a_breach_can_be_chosen() {
    run(&["--max-peak", "50", "--breach-exit-code", "7"], &["burst", "100"], 7);
}

#[test]
fn the_commands_own_failure_wins_over_a_breach() {
    run(&["--max-peak", "1"], &["exit", "3"], 3);
    let done = Session::run(&["--max-peak", "1"], &["kill-self", "15"]).go().died_of(15);
    assert!(done.report().session.breach.is_some());
}

#[test]
fn any_refused_call_can_be_a_breach() {
    let _lower = LowerLimit::new();
    run(&["--fail-on", "failure"], &["limit", "munmap"], 86);
    run(&["--fail-on", "failure"], &["burst", "100"], 0);
}

#[test]
fn an_ordinary_answer_is_no_breach() {
    run(&["--fail-on", "failure"], &["causes", "blocked-mremap"], 0);
}

#[test]
fn a_peak_at_the_limit_can_be_a_breach() {
    let _lower = LowerLimit::new();
    run(&["--fail-on", "peak"], &["limit", "munmap"], 86);
    run(&["--fail-on", "peak"], &["burst", "5000"], 0);
}

#[test]
fn an_ordinary_answer_breaks_a_budget_on_any_refusal() {
    let done = run(&["--fail-on", "failure,any-refusal"], &["causes", "blocked-mremap"], 86);
    let [breach] = &done.report().breaches[..] else { panic!("{:?}", done.report().breaches) };
    assert_eq!((breach.budget.as_str(), breach.shown), ("fail_on_any_refusal", true));
    run(&["--fail-on", "any-refusal"], &["burst", "100"], 0);
}

/// Several at once, with a quiet report and with none.
#[test]
fn each_broken_budget_has_its_line_and_a_headline_that_agrees() {
    let budget = ["--max-peak", "50", "--max-percent", "0.01"];
    let done = run(&[&budget[..], &["-q"]].concat(), &["burst", "100"], 86);
    let (own, report) = (done.own().remove(0), done.report());
    let told: Vec<_> = report.breaches.iter().map(|it| (it.budget.as_str(), it.pid, it.shown)).collect();
    assert_eq!(told, [("max_peak", Some(own.pid), true), ("max_percent", Some(own.pid), true)]);
    let limit = report.breaches[0].limit.unwrap();
    assert_eq!(serde_json::to_value(limit).unwrap(), 50);
    assert_eq!(serde_json::to_value(report.breaches[0].actual.unwrap()).unwrap(), own.peak);

    let words = [&["run", "-q"], &budget[..], &["--"]].concat();
    let quiet = Session::vmaudit(&words).then_workload(&["burst", "100"]).go().ended_with(86);
    assert_eq!(quiet.stderr_text().lines().count(), 2, "{}", quiet.said());

    let words = [&["run"], &budget[..], &["--"]].concat();
    let screen = Session::vmaudit(&words).then_workload(&["burst", "100"]).go().ended_with(86).stderr_text();
    assert!(screen.starts_with("vmaudit: Budget broken: "), "{screen}");
    assert_eq!(screen.matches("Budget broken: ").count(), 2, "{screen}");
}

/// A row for each kind of process; a recording has them too (asserted for every session).
#[test]
fn a_budgets_file_holds_processes_of_each_name_to_their_own() {
    let with = |text: &str, code: i32| {
        let session = Session::run(&["--budget"], &[]);
        let file = session.file("budgets.toml");
        std::fs::write(&file, text).unwrap();
        let session = Session::run(&["--budget", file.to_str().unwrap()], &["burst", "100"]);
        session.go().ended_with(code)
    };
    let row = |process: &str, rest: &str| format!("[[budget]]\nprocess = \"{process}\"\n{rest}\n");
    let held = with(&row("work*", "max_peak = \"1k\"\nmax_failures = 0"), 0).report();
    assert!(
        held.breaches.is_empty() && held.budgets.len() == 1 && held.budgets[0].held,
        "{:?}",
        held.budgets
    );
    let broken =
        with(&(row("java", "max_peak = 1\noptional = true") + &row("*/workload", "max_peak = 50")), 86)
            .report();
    assert_eq!(broken.breaches.len(), 1);
    assert_eq!(broken.breaches[0].row.as_deref(), Some("*/workload"));
    assert!(broken.breaches[0].sentence.contains("row \"*/workload\" (line 5)"), "{:?}", broken.breaches);
    let unmatched = with(&row("java", "max_peak = 1"), 86).report();
    assert_eq!(unmatched.breaches[0].budget, "unmatched");
    let expired = with(&row("*", "max_peak = 1000\nexpires = 2020-01-01"), 86).report();
    assert_eq!(expired.breaches[0].budget, "expired");
}

#[test]
fn a_wrong_budgets_file_is_told_with_its_line_and_starts_nothing() {
    let session = Session::vmaudit(&["run", "--budget"]);
    let (file, mark) = (session.file("budgets.toml"), session.file("mark"));
    std::fs::write(&file, "[[budget]]\nprocess = \"a\"\nmax_peek = 7\n").unwrap();
    let done = session.words(&[&file]).words(&["--", "touch"]).words(&[&mark]).go().ended_with(125);
    assert!(
        done.stderr_text().contains("budgets.toml: line 3, column 1: unknown field `max_peek`"),
        "{}",
        done.said()
    );
    assert!(!mark.exists());
    let none = Session::vmaudit(&["run", "--budget", "/dev/zero", "--", "true"]).go().ended_with(125);
    assert!(none.stderr_text().contains("it is a device"), "{}", none.said());
}
