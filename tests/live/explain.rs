//! `vmaudit explain`: a process whose VMAs are known, recorded files, and files that nobody should have sent.

use std::io::Write as _;
use std::process::Stdio;

use serde_json::Value;
use vmaudit_tests::{Done, Scratch, Session, own, workload};

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
    assert!(text.lines().count() <= 24 && text.lines().all(|line| line.chars().count() <= 100), "{text}");
    assert!(text.starts_with("vmaudit: "), "{text}");
    let text = String::from_utf8(explain(&[&pid, "-v"]).succeeded().stdout).unwrap();
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
    let done = explain(&["no such name"]).ended_with(1);
    assert_eq!(done.stderr_text(), "vmaudit: no process is named no such name\n");
    explain(&["--maps", "/nonexistent/maps"]).ended_with(1);
}

/// A copy of the workload with a name that no other test has.
fn of_a_name(scratch: &Scratch) -> (Session, String) {
    let name = format!("vl{}", std::process::id());
    let path = scratch.path(&name);
    if !path.exists() {
        std::fs::copy(workload(), &path).unwrap();
    }
    (Session::other(path).words(&["attach", "5"]), name)
}

#[test]
fn a_name_is_taken_when_one_process_has_it_and_listed_when_several_do() {
    let scratch = Scratch::new();
    let (session, name) = of_a_name(&scratch);
    let mut first = session.start_with_pipe();
    first.wait_for_stdout("standing");
    let it = json(&[&name]);
    assert_eq!(
        (it["pid"].as_u64(), it["origin"].as_str()),
        (Some(first.pid().into()), Some("process")),
        "{it}"
    );
    // A part of a name is enough when nothing is called so.
    assert_eq!(json(&[&name[..name.len() - 1]])["pid"], first.pid());
    let mut second = of_a_name(&scratch).0.start_with_pipe();
    second.wait_for_stdout("standing");
    let done = explain(&[&name]).ended_with(1);
    let said = done.stderr_text();
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines[0], format!("vmaudit: 2 processes are named {name}; say one by its number:"));
    assert_eq!(lines.len(), 3, "{said}");
    for running in [&first, &second] {
        let pid = running.pid().to_string();
        let line = lines.iter().find(|line| line.split_whitespace().next() == Some(&pid)).unwrap();
        assert!(line.contains(" VMAs ") && line.ends_with(&name), "{line}");
    }
}

/// Whoever may not look into a process still learns its number.
#[test]
fn names_are_found_without_rights() {
    let scratch = Scratch::new();
    let (session, name) = of_a_name(&scratch);
    let mut running = session.start_with_pipe();
    running.wait_for_stdout("standing");
    let done = Session::vmaudit(&["explain", &name]).as_user(NOBODY).go().ended_with(1);
    let said = done.stderr_text();
    assert!(
        said.contains(&format!("process {}", running.pid())) && said.contains("may not be read"),
        "{said}"
    );
}

#[test]
fn what_is_no_file_of_mappings_ends_with_one_sentence() {
    let scratch = Scratch::new();
    let path = |name: &str| scratch.path(name).display().to_string();
    let fifo = std::ffi::CString::new(path("fifo")).unwrap();
    // SAFETY: the name lives through the call.
    assert_eq!(unsafe { libc::mkfifo(fifo.as_ptr(), 0o600) }, 0);
    std::os::unix::fs::symlink(path("fifo"), path("link")).unwrap();
    std::fs::write(path("text"), "no mapping\n").unwrap();
    std::fs::write(path("packed"), b"\x28\xb5\x2f\xfd\0\0").unwrap();
    let program = workload().display().to_string();
    let (fifo, link, text, packed) = (path("fifo"), path("link"), path("text"), path("packed"));
    let files = [
        (fifo.as_str(), "it is a FIFO, no regular file"),
        (&link, "it is a FIFO, no regular file"),
        ("/dev/zero", "it is a device, no regular file"),
        ("/dev/tty", "it is a device, no regular file"),
        ("/proc", "it is a directory, no regular file"),
        ("/nonexistent/x", "No such file"),
        (&text, "it is no copy of maps or smaps"),
        (&packed, "unpack it first"),
        (&program, "no core file"),
    ];
    for (file, why) in files {
        for words in [&[file][..], &["--maps", file]] {
            let done = explain(words).ended_with(1);
            let said = done.stderr_text();
            assert!(said.contains(why) && said.lines().count() == 1, "{words:?}: {said}");
            assert!(done.stdout.is_empty());
        }
    }
}

/// What a JVM writes when it dies, around the mappings of a process that is at hand.
#[test]
fn a_log_of_a_jvm_tells_the_limit_that_it_died_at() {
    let mut running = Session::workload(&["attach", "3000"]).start_with_pipe();
    running.wait_for_stdout("standing");
    let known = own::parse(&running.stdout_so_far()).remove(0).last.unwrap();
    let maps = std::fs::read_to_string(format!("/proc/{}/maps", running.pid())).unwrap();
    for (limit, died) in [(known - 1, true), (known * 2, false)] {
        let log = format!(
            "#\n# There is insufficient memory for the Java Runtime Environment to continue.\n#\n\
             #  Out of Memory Error (os_linux.cpp:2800), pid=24064, tid=24065\n#\n\
             Time: Wed Nov 25 22:16:16 2026 UTC elapsed time: 12.1 seconds (0d 0h 0m 12s)\n\n\
             Dynamic libraries:\n{maps}\n\n/proc/sys/vm/max_map_count (maximum number of memory map areas a \
             process may own): {limit}\n\nEND.\n"
        );
        let (_scratch, path) = recorded(log.as_bytes());
        let it = json(&[&path]);
        assert_sums(&it);
        assert_eq!(
            (&it["vmas"], &it["max_map_count"], &it["pid"]),
            (&known.into(), &limit.into(), &24064.into())
        );
        assert_eq!(it["origin"], "jvm_log");
        let verdict = it["verdict"].to_string();
        assert_eq!(verdict.contains("It died AT vm.max_map_count"), died, "{verdict}");
        assert_eq!(verdict.contains("however much memory is free"), died, "{verdict}");
        let text = String::from_utf8(explain(&[&path]).succeeded().stdout).unwrap();
        assert!(text.starts_with("vmaudit: JVM that died, Wed Nov 25 22:16:16 2026 UTC: "), "{text}");
    }
}

/// What bash makes of `explain <(cat maps)`.
#[test]
fn a_pipe_that_the_caller_has_open_is_read() {
    let session = Session::vmaudit(&["explain", "/dev/stdin", "--format", "json"]);
    let done = session.stdin(b"1000-2000 rw-p 00000000 00:00 0 \n").go().succeeded();
    let it: Value = serde_json::from_slice(&done.stdout).unwrap();
    assert_eq!((&it["vmas"], &it["origin"]), (&1.into(), &"copy".into()));
}

#[test]
fn what_runs_at_the_limit_holds_no_file_when_it_holds_shared_memory() {
    let session = Session::run(&[], &["--linger", "1500", "shared-until-refused"]);
    let report = session.go().succeeded().report();
    let [failure] = report.failures.as_slice() else { panic!("{:?}", report.failures) };
    let sentence = &failure.holders.as_ref().expect("it lived long enough to be looked at").sentence;
    assert!(sentence.contains("separate pieces of shared anonymous memory"), "{sentence}");
    assert!(!sentence.contains("file"), "{sentence}");
}
