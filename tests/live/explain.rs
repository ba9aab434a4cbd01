//! `vmaudit explain`: a process whose VMAs are known, recorded files, and files that nobody should have sent.

use std::io::Write as _;
use std::process::Stdio;

use serde_json::Value;
use vmaudit_tests::{Done, Scratch, Session, own};

/// nobody.
const NOBODY: u32 = 65534;

fn explain(words: &[&str]) -> Done {
    Session::vmaudit(&["explain"]).words(words).go()
}

fn json(words: &[&str]) -> Value {
    let done = explain(&[&["--format", "json"], words].concat()).succeeded();
    serde_json::from_slice(&done.stdout).unwrap_or_else(|e| panic!("{e}: {}", done.said()))
}

fn recorded(text: &[u8]) -> (Scratch, String) {
    let scratch = Scratch::new();
    let path = scratch.path("maps");
    std::fs::write(&path, text).unwrap();
    (scratch, path.display().to_string())
}

/// Every VMA is in exactly one kind, one size class and one row of permissions; every boundary has one reason.
#[track_caller]
fn assert_sums(it: &Value) {
    let vmas = it["vmas"].as_u64().unwrap();
    let sum = |key: &str, of: fn(&Value) -> u64| it[key].as_array().unwrap().iter().map(of).sum::<u64>();
    assert_eq!(sum("kinds", |row| row[1]["vmas"].as_u64().unwrap()), vmas);
    for key in ["sizes", "permissions"] {
        assert_eq!(sum(key, |row| row["vmas"].as_u64().unwrap()), vmas, "{key}");
    }
    assert_eq!(sum("boundaries", |row| row["boundaries"].as_u64().unwrap()), vmas.saturating_sub(1));
}

#[test]
fn a_process_is_explained_to_the_last_vma() {
    let mut running = Session::workload(&["attach", "3000"]).start_with_pipe();
    running.wait_for_stdout("standing");
    let known = own::parse(&running.stdout_so_far()).remove(0).last.unwrap();
    let pid = running.pid().to_string();
    let maps = format!("/proc/{pid}/maps");
    for words in [&[pid.as_str()][..], &[&pid, "--details", "always"], &["--maps", &maps]] {
        let it = json(words);
        assert_eq!(it["vmas"], known, "{words:?}");
        assert_sums(&it);
        // Single pages with a free page between them.
        let verdict = it["verdict"].to_string();
        assert!(
            verdict.contains("3,000 of ") && verdict.contains("4 KiB pieces of one anonymous region"),
            "{verdict}"
        );
        assert!(it["boundaries"][0]["boundaries"].as_u64() >= Some(2999), "{it}");
    }
    let text = String::from_utf8(explain(&[&pid]).succeeded().stdout).unwrap();
    for title in ["Kinds", "Why neighbours do not merge", "Regions of most pieces", "Address space"] {
        assert!(text.contains(title), "{title} is missing: {text}");
    }
}

#[test]
fn hostile_and_damaged_files_are_explained_and_said_to_be_damaged() {
    let good = "7f0000000000-7f0000001000 rw-p 00000000 00:00 0 \n";
    let text = [
        good,
        "7f0000001000-7f0000002000 r--p 00001000 08:01 12                         /tmp/a\\012b c\x1b]0;x\x07 (deleted)\n",
        "7f0000002000-7f0000003000 rw-p 00000000 00:00 0                          [anon:\x1b[31m] ,=1+1\u{202e}]\n",
        "7f0000003000-7f0000004000 rw-p 00000000 00:00 0                          [anon:]\n",
        "this is no mapping\n",
        "7f0000004000-7f00000",
    ]
    .concat();
    let (_scratch, path) = recorded(text.as_bytes());
    let it = json(&["--maps", &path]);
    assert_eq!(it["vmas"], 4);
    assert_sums(&it);
    let notes = it["notes"].to_string();
    assert!(
        notes.contains("could not be understood, the first is line 5") && notes.contains("was cut"),
        "{notes}"
    );
    for form in ["text", "csv", "json"] {
        let done = explain(&["--maps", &path, "--format", form]).succeeded();
        let shown = String::from_utf8(done.stdout).unwrap();
        assert!(!shown.contains(['\x1b', '\x07']), "{form}: {shown}");
    }
    for nothing in ["", "\n\n", "\0\0\0"] {
        let (_scratch, path) = recorded(nothing.as_bytes());
        explain(&["--maps", &path]).ended_with(1);
    }
}

/// 300,000 different files through a pipe: what is kept does not grow with what is read (a name and a row for each would
/// be more than is allowed).
#[test]
fn a_file_without_end_takes_bounded_memory() {
    const LINES: u64 = 300_000;
    const MOST_KIB: u64 = 20 * 1024;
    let session = Session::vmaudit(&["explain", "--maps", "-"]);
    let mut command = session.command();
    command.stdin(Stdio::piped());
    let mut running = session.start_as(&mut command);
    let mut text = Vec::new();
    for n in 0..LINES {
        let at = 0x10_0000_0000 + n * 0x2000;
        writeln!(text, "{at:x}-{:x} r--s 00000000 08:01 {n} /data/segments/{n:08}/{n}.index{n}", at + 0x1000)
            .unwrap();
        if text.len() > 60_000 || n + 1 == LINES {
            assert!(running.write(&text), "it stopped reading");
            text.clear();
        }
    }
    let status = std::fs::read_to_string(format!("/proc/{}/status", running.pid())).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let peak: u64 = peak.trim().trim_end_matches(" kB").parse().unwrap();
    assert!(peak < MOST_KIB, "{peak} KiB resident");
    let done = running.wait().succeeded();
    let text = String::from_utf8(done.stdout).unwrap();
    assert!(text.contains("300,000 VMAs"), "{text}");
}

#[test]
fn who_is_gone_or_forbidden_is_said() {
    let done = explain(&["4194305"]).ended_with(1);
    assert!(!done.stderr_text().trim().is_empty());
    let done = explain(&["2"]).ended_with(1);
    assert!(done.stderr_text().contains("kernel thread"), "{}", done.said());
    let mut running = Session::workload(&["attach", "5"]).start_with_pipe();
    running.wait_for_stdout("standing");
    let pid = running.pid().to_string();
    let done = Session::vmaudit(&["explain", &pid]).as_user(NOBODY).go().ended_with(1);
    assert!(done.stderr_text().contains("may not be read"), "{}", done.said());
    explain(&[]).ended_with(2);
    explain(&["--maps", "/nonexistent/maps"]).ended_with(1);
}
