//! A process may call itself what it likes; a terminal must not have to obey.

use vmaudit_tests::{Done, Own, Session};

const NAMES: [&str; 3] = ["\u{1b}[31mred\n", "\u{7f}\u{9b}31mred\r", "red\u{202e}\"},{\"\\"];

#[track_caller]
fn assert_clean(text: &str) {
    for c in text.chars() {
        assert!(c == '\n' || !c.is_control(), "the control character {c:?} came through in {text:?}");
    }
}

/// A process of each name, in one session.
fn all_names() -> Vec<&'static str> {
    let mut words = vec!["each"];
    for name in NAMES {
        words.extend(["setname", name, "50", "--"]);
    }
    words.pop();
    words
}

/// Those that called themselves so.
fn named(done: &Done) -> Vec<Own> {
    let owns: Vec<Own> = done.own().into_iter().filter(|own| own.role != "parent").collect();
    assert_eq!(owns.len(), NAMES.len());
    owns
}

/// Each process's lines show its name, and nothing in the text steers a terminal.
#[track_caller]
fn assert_shown_and_clean(done: &Done, text: &str) {
    assert_clean(text);
    for own in named(done) {
        let pid = own.pid.to_string();
        let shown =
            |line: &str| line.contains("red") && line.split(|c: char| !c.is_ascii_digit()).any(|w| w == pid);
        assert!(text.lines().any(shown), "the name of {pid} is shown: {text}");
    }
}

#[test]
fn escape_sequences_never_reach_the_text_report() {
    let session = Session::vmaudit(&["run"]);
    let text = session.file("report.txt");
    let session = session.words(&["-o"]).words(&[text]).words(&["--"]);
    let done = session.then_workload(&all_names()).go().succeeded();
    assert_shown_and_clean(&done, &done.read("report.txt"));
    assert_clean(&done.stderr_text());
}

#[test]
fn escape_sequences_never_reach_a_report_on_stderr() {
    let done = Session::vmaudit(&["run", "--"]).then_workload(&all_names()).go().succeeded();
    assert_shown_and_clean(&done, &done.stderr_text());
}

#[test]
fn escape_sequences_leave_the_json_valid_and_one_row() {
    let done = Session::run(&[], &all_names()).go().succeeded();
    let (owns, report) = (done.own(), done.report());
    vmaudit_tests::rows::assert_each_has_its_row(&report, &owns.iter().collect::<Vec<_>>());
    for own in named(&done) {
        let row = report.processes.iter().find(|row| row.pid == own.pid).expect("each has its row");
        assert!(row.comm.contains("red"), "{:?}", row.comm);
    }
    // Reading it has shown that it is valid; raw escape characters would not have been.
    assert!(!done.read("report.json").contains(|c: char| c < ' ' && c != '\n'));
}

#[test]
fn escape_sequences_never_reach_the_trace() {
    let session = Session::vmaudit(&["trace", "-o"]);
    let lines = session.file("lines.txt");
    let done = session.words(&[lines]).words(&["--"]).then_workload(&all_names()).go().succeeded();
    assert_shown_and_clean(&done, &done.read("lines.txt"));
}

/// Whoever sends a report sends no name of a person with it, unless he asks for that.
#[test]
fn the_users_name_is_in_no_process_name_and_no_argument() {
    let report = |options: &[&str]| {
        let session = Session::run(options, &["setname", "mapper", "50"]).env("USER", "mapper");
        session.go().succeeded().report()
    };
    let hidden = report(&["--show-args"]);
    assert!(!serde_json::to_string(&hidden).unwrap().contains("mapper"), "{hidden:?}");
    assert_eq!(hidden.processes[0].comm, "<user>");
    assert_eq!(hidden.session.command[1..], ["setname", "<user>", "50"]);
    let plain = report(&["--show-args", "--no-anonymize"]);
    assert_eq!(plain.processes[0].comm, "mapper");
    assert_eq!(plain.session.command[1..], ["setname", "mapper", "50"]);
}

#[test]
fn owners_have_names_and_command_lines_are_told_to_those_who_ask() {
    let own = vmaudit_user::os::users::user_name(nix_uid());
    for (options, shown) in [(&["--no-anonymize"][..], false), (&["--no-anonymize", "--show-args"], true)] {
        let done = Session::run(options, &["--linger", "300", "attach", "3"]).go().succeeded();
        let report = done.report();
        let row = report.processes.first().expect("a process");
        assert_eq!(row.user.as_deref(), Some(own.as_str()));
        let args = row.args.as_ref().map(|args| args.iter().skip(1).cloned().collect::<Vec<_>>());
        let expected = shown.then(|| ["--linger", "300", "attach", "3"].map(str::to_owned).to_vec());
        assert_eq!(args, expected, "{options:?}");
    }
}

fn nix_uid() -> u32 {
    // SAFETY: no preconditions.
    unsafe { libc::getuid() }
}
