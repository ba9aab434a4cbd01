//! A process may call itself what it likes; a terminal must not have to obey.

use vmaudit_tests::{Done, Session};

const NAMES: [&str; 3] = ["\u{1b}[31mred\n", "\u{7f}\u{9b}31mred\r", "red\u{202e}\"},{\"\\"];

#[track_caller]
fn assert_clean(text: &str) {
    for c in text.chars() {
        assert!(c == '\n' || !c.is_control(), "the control character {c:?} came through in {text:?}");
    }
}

fn with_name(options: &[&str], name: &str) -> (Done, String) {
    let session = Session::vmaudit(&["run"]);
    let text = session.file("report.txt");
    let session = session.words(options).words(&["-o"]).words(&[text]).words(&["--format", "text", "--"]);
    let done = session.then_workload(&["setname", name, "50"]).go().succeeded();
    let text = done.read("report.txt");
    (done, text)
}

#[test]
fn escape_sequences_never_reach_the_text_report() {
    for name in NAMES {
        let (done, text) = with_name(&[], name);
        assert!(text.contains("red"), "the name is shown: {text}");
        assert_clean(&text);
        assert_clean(&done.stderr_text());
    }
}

#[test]
fn escape_sequences_never_reach_a_report_on_stderr() {
    for name in NAMES {
        let done = Session::vmaudit(&["run", "--"]).then_workload(&["setname", name, "50"]).go().succeeded();
        let text = done.stderr_text();
        assert!(text.contains("red"), "the name is shown: {text}");
        assert_clean(&text);
    }
}

#[test]
fn escape_sequences_leave_the_json_valid_and_one_row() {
    for name in NAMES {
        let done = Session::run(&[], &["setname", name, "50"]).go().succeeded();
        let (own, row) = done.only();
        vmaudit_tests::rows::assert_exact(&row, &own);
        assert!(row.comm.contains("red"), "{:?}", row.comm);
        // Reading it has shown that it is valid; raw escape characters would not have been.
        assert!(!done.read("report.json").contains(|c: char| c < ' ' && c != '\n'));
    }
}

#[test]
fn escape_sequences_never_reach_the_trace() {
    for name in NAMES {
        let session = Session::vmaudit(&["trace", "-o"]);
        let lines = session.file("lines.txt");
        let done =
            session.words(&[lines]).words(&["--"]).then_workload(&["setname", name, "50"]).go().succeeded();
        let text = done.read("lines.txt");
        assert!(text.contains("red"), "the name is shown: {text}");
        assert_clean(&text);
    }
}
