//! A program may call itself, its threads, its file, its memory and its cgroup what it likes: no output of any command
//! obeys a name, in no format.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;
use std::path::PathBuf;

use vmaudit_tests::session::Running;
use vmaudit_tests::{Done, Scratch, Session, workload};
use vmaudit_user::text::sanitize::steers;

/// A file's name: escapes of two kinds, changes of direction, a line's end, CSV, JSON, and bytes that are no UTF-8.
const FILE: &[u8] = b"=1+1,\"q\"\n\x1b]0;x\x07\xe2\x80\xae\xc2\x9b31m\xff'\xe2\x80\xa8}";

/// The workload's file under that name.
fn program(scratch: &Scratch) -> PathBuf {
    let path = scratch.folder().join(OsString::from_vec(FILE.to_vec()));
    std::fs::copy(workload(), &path).expect("the workload can be copied");
    path
}

#[track_caller]
fn assert_text(what: &str, bytes: &[u8]) {
    let text = std::str::from_utf8(bytes).unwrap_or_else(|e| panic!("{what} is no UTF-8: {e}"));
    let bad = text.chars().find(|&c| c != '\n' && steers(c));
    assert_eq!(bad, None, "{what} holds it as it is: {text:?}");
    assert!(text.len() > 1, "{what} is empty");
}

/// Fields of each record, by the rules of RFC 4180.
fn records(text: &str) -> Vec<Vec<String>> {
    let (mut all, mut record, mut field, mut quoted) = (Vec::new(), Vec::new(), String::new(), false);
    let mut rest = text.chars().peekable();
    while let Some(c) = rest.next() {
        match c {
            '"' if quoted && rest.peek() == Some(&'"') => field.extend(rest.next()),
            '"' => quoted = !quoted,
            ',' if !quoted => record.push(std::mem::take(&mut field)),
            '\n' if !quoted => {
                record.push(std::mem::take(&mut field));
                all.push(std::mem::take(&mut record));
            }
            c => field.push(c),
        }
    }
    assert!(!quoted && field.is_empty() && record.is_empty(), "the last record is whole: {text:?}");
    all
}

#[track_caller]
fn assert_csv(what: &str, bytes: &[u8]) {
    assert_text(what, bytes);
    let all = records(std::str::from_utf8(bytes).unwrap());
    let columns = all[0].len();
    for record in &all {
        assert_eq!(record.len(), columns, "{what}: {record:?}");
        let formula = record.iter().find(|field| field.starts_with(['=', '+', '-', '@', '\t', '\r']));
        assert_eq!(formula, None, "{what}: a spreadsheet computes it");
    }
}

/// Each line of `lines`, or the whole.
#[track_caller]
fn assert_json(what: &str, bytes: &[u8], lines: bool) {
    assert_text(what, bytes);
    let text = std::str::from_utf8(bytes).unwrap();
    let documents: Vec<&str> = if lines { text.lines().collect() } else { vec![text] };
    for document in documents {
        let read = serde_json::from_str::<serde_json::Value>(document);
        assert!(read.is_ok_and(|value| value.is_object()), "{what}: {document}");
    }
}

fn out(words: &[&str]) -> Vec<u8> {
    let done = Session::vmaudit(words).go();
    assert_text_or_nothing(words[0], &done.stderr);
    assert!(!done.stdout.is_empty(), "{words:?}: {}", done.said());
    done.stdout
}

fn assert_text_or_nothing(what: &str, bytes: &[u8]) {
    if !bytes.is_empty() {
        assert_text(what, bytes);
    }
}

/// A session of vmaudit on the program of that name; its words come before the program.
fn on_the_program(words: &[&str], format: &str, source: &str) -> (Done, Vec<u8>) {
    let session = Session::vmaudit(words);
    let scratch = Scratch::new();
    let program = program(&scratch);
    let report = format!("{format}:{}", session.file("out").display());
    let session = session.words(&["--source", source, "-o"]).words(&[report]).words(&["--"]);
    let done = session.words(&[program]).words(&["hostile"]).go().succeeded();
    assert_text_or_nothing("stderr", &done.stderr);
    let bytes = std::fs::read(done.scratch.path("out")).unwrap();
    (done, bytes)
}

#[test]
fn reports_of_a_session_obey_no_name() {
    for source in ["ebpf", "proc"] {
        let (_, text) = on_the_program(&["run", "--show-args"], "text", source);
        assert_text("the report", &text);
        let (_, json) = on_the_program(&["run", "--show-args", "--all-rows"], "json", source);
        assert_json("the report as JSON", &json, false);
        if source == "ebpf" {
            let json = String::from_utf8(json).unwrap();
            assert!(json.contains("=1\\u001b[31m\\n"), "the name is all there: {json}");
            assert!(String::from_utf8(text).unwrap().contains("=1\\x1b[31m\\x0a"), "made visible");
        }
    }
    // The report that nobody asked to be written anywhere.
    let scratch = Scratch::new();
    let session = Session::vmaudit(&["run", "--show-args", "--"]).words(&[program(&scratch)]);
    assert_text("the report on stderr", &session.words(&["hostile"]).go().succeeded().stderr);
}

#[test]
fn a_trace_obeys_no_name() {
    let (_, lines) = on_the_program(&["trace"], "text", "ebpf");
    assert_text("the trace", &lines);
    assert!(
        String::from_utf8(lines).unwrap().contains("\\x1b]0;"),
        "the thread's name is there, made visible"
    );
    let (_, lines) = on_the_program(&["trace"], "json", "ebpf");
    assert_json("the trace as JSON", &lines, true);
}

fn standing(scratch: &Scratch) -> Running {
    let mut running = Session::other(program(scratch)).words(&["hostile"]).start_with_pipe();
    running.wait_for_stdout("standing");
    running
}

#[test]
fn looks_at_a_process_obey_no_name() {
    let scratch = Scratch::new();
    let running = standing(&scratch);
    let pid = running.pid().to_string();
    for words in [&["scan", "--show-args", "-p", &pid][..], &["explain", &pid]] {
        let of = |format| out(&[words, &["--format", format]].concat());
        assert_text(words[0], &of("text"));
        assert_json(words[0], &of("json"), false);
        assert_csv(words[0], &of("csv"));
    }
    // A recorded file whose own name is such a name, too.
    let maps = scratch.folder().join(OsString::from_vec([FILE, b".txt"].concat()));
    std::fs::copy(format!("/proc/{pid}/smaps"), &maps).unwrap();
    for format in ["text", "json", "csv"] {
        let session = Session::vmaudit(&["explain", "--format", format, "--smaps"]).words(&[&maps]);
        let done = session.go().succeeded();
        assert_text(format, &done.stdout);
    }
    // In sentences about what went wrong.
    let gone = scratch.folder().join(OsString::from_vec([FILE, b".gone"].concat()));
    for words in [&["explain", "--maps"][..], &["run", "--"], &["trace", "-o"]] {
        let done = Session::vmaudit(words).words(&[&gone]).words(if words[0] == "trace" {
            &["/x/"][..]
        } else {
            &[]
        });
        let done = done.go();
        assert_ne!(done.status.code(), Some(0));
        assert_text(words[0], &done.stderr);
    }
}

#[test]
fn doctor_and_limit_show_nothing_that_steers() {
    for words in [&["doctor"][..], &["limit"], &["limit", "--for", "\x1b[31m\u{202e}"]] {
        for format in ["text", "json"] {
            let done = Session::vmaudit(words).words(&["--format", format]).go();
            assert_text_or_nothing(words[0], &done.stdout);
            assert_text_or_nothing(words[0], &done.stderr);
            assert!(!done.stdout.is_empty() || !done.stderr.is_empty());
        }
    }
    assert_csv("limit", &out(&["limit", "--format", "csv"]));
}
