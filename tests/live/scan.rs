//! `vmaudit scan`: counts of processes whose counts are known, filters, forms, and what cannot be seen.

use std::collections::BTreeMap;
use std::os::unix::process::CommandExt as _;

use vmaudit_tests::session::Running;
use vmaudit_tests::{Done, Own, Session, own, wait_for};
use vmaudit_user::model::report::{Process, Report, SourceKind};

/// nobody.
const NOBODY: u32 = 65534;
/// A name that a spreadsheet, a terminal and a line-wise reader would each stumble over.
const HOSTILE: &str = "=1+1,\"q\"\n\x1b]0;x\x07\u{202e}'";

/// `vmaudit scan OPTIONS` as JSON.
fn scan(options: &[&str]) -> Report {
    let done = Session::vmaudit(&["scan", "--format", "json"]).words(options).go();
    serde_json::from_slice(&done.stdout).unwrap_or_else(|e| panic!("{e}: {}", done.said()))
}

fn text(options: &[&str]) -> (Done, String) {
    let done = Session::vmaudit(&["scan"]).words(options).go();
    let text = String::from_utf8(done.stdout.clone()).expect("the text is UTF-8");
    (done, text)
}

/// A crowd that stands still, and what each of its members knows about itself.
fn crowd(n: usize, vmas: usize) -> (Running, Vec<Own>) {
    let running = Session::workload(&["crowd", &n.to_string(), &vmas.to_string()]).start_with_pipe();
    let lines = wait_for("the crowd to stand", || {
        let out = running.stdout_so_far();
        (out.ends_with(b"\n") && out.split(|&b| b == b'\n').count() == n + 1).then_some(out)
    });
    (running, own::parse(&lines))
}

fn rows(report: &Report) -> BTreeMap<u32, &Process> {
    let rows: BTreeMap<u32, &Process> = report.processes.iter().map(|row| (row.pid, row)).collect();
    assert_eq!(rows.len(), report.processes.len(), "one row a process");
    rows
}

/// The workload standing still as `attach 5`, under a command line made up by the caller.
fn standing(change: impl FnOnce(&mut std::process::Command)) -> Running {
    let session = Session::workload(&[]).env("WORKLOAD_WORDS", "attach 5");
    let mut command = session.command();
    command.stdin(std::process::Stdio::piped());
    change(&mut command);
    let mut running = session.start_as(&mut command);
    running.wait_for_stdout("standing");
    running
}

#[test]
fn the_kernels_counts_are_those_that_the_processes_know() {
    let (_crowd, known) = crowd(300, 40);
    let report = scan(&["--source", "ebpf"]);
    assert_eq!(report.source, SourceKind::Ebpf);
    let rows = rows(&report);
    for own in &known {
        let row = rows.get(&own.pid).unwrap_or_else(|| panic!("no row of {own:?}"));
        assert_eq!((row.map_count.last, row.map_count.exact), (own.last, true), "{row:?}");
        assert_eq!((row.uid, row.comm.as_str()), (Some(0), "workload"), "{row:?}");
    }
}

#[test]
fn the_lines_of_maps_give_the_same_counts() {
    let (_crowd, known) = crowd(300, 40);
    let report = scan(&["--source", "proc"]);
    assert_eq!(report.source, SourceKind::Proc);
    let rows = rows(&report);
    for own in &known {
        assert_eq!(rows.get(&own.pid).map(|row| row.map_count.last), Some(own.last), "{own:?}");
    }
}

#[test]
fn who_has_no_memory_is_a_row_with_its_reason() {
    let mut zombie = std::process::Command::new("/proc/self/exe")
        .arg("--list")
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    wait_for("the child's end", || (!vmaudit_tests::alive(zombie.id())).then_some(()));
    for source in ["ebpf", "proc"] {
        let pids = format!("{},2,{}", zombie.id(), u32::MAX / 4);
        let report = scan(&["--source", source, "-p", &pids]);
        let why: Vec<&str> = report.not_counted.iter().map(|it| it.reason.as_str()).collect();
        assert_eq!((report.processes.len(), why.len()), (0, 3), "{source}: {why:?}");
        for part in ["waits for its parent", "kernel thread", "ended while it was being read"] {
            assert!(why.iter().any(|why| why.contains(part)), "{source}: {part} is not in {why:?}");
        }
    }
    zombie.wait().unwrap();
}

#[test]
fn the_first_process_is_a_row_and_kernel_threads_are_none() {
    for source in ["ebpf", "proc"] {
        let report = scan(&["--source", source]);
        let rows = rows(&report);
        let without = report.not_counted.iter().any(|it| it.pid == 1 && !it.reason.is_empty());
        assert_ne!(rows.contains_key(&1), without, "{source}: process 1 is there once");
        assert!(report.processes.iter().all(|row| row.map_count.last.is_some()), "{source}");
        assert!(!rows.contains_key(&2), "{source}: kthreadd is shown");
    }
}

#[test]
fn filters_leave_what_they_promise() {
    let mut other = Session::workload(&["attach", "5"]).as_user(NOBODY).start_with_pipe();
    other.wait_for_stdout("standing");
    let (_crowd, known) = crowd(3, 5);
    let pids = |options: &[&str]| -> Vec<u32> { scan(options).processes.iter().map(|row| row.pid).collect() };
    for source in ["ebpf", "proc"] {
        let of = |options: &[&str]| pids(&[&["--source", source], options].concat());
        for user in ["nobody", "65534"] {
            let found = of(&["--user", user]);
            assert!(found.contains(&other.pid()), "{source} {user}");
            assert!(!found.contains(&known[0].pid), "{source} {user}");
        }
        let named = of(&["--comm", "*orkloa*"]);
        assert!(named.contains(&other.pid()) && known.iter().all(|own| named.contains(&own.pid)));
        assert!(!named.contains(&1));
        assert_eq!(of(&["--comm", "*orkloa*", "-p", &known[1].pid.to_string()]), [known[1].pid]);
        assert_eq!(of(&["--cgroup", "no such group anywhere"]), [0; 0]);
        let group = scan(&["-p", &known[0].pid.to_string()]).processes[0].cgroup.clone().expect("a cgroup");
        let part = group.trim_start_matches('/').split('/').next_back().filter(|part| !part.is_empty());
        for path in [Some(group.as_str()), part, Some("/")].into_iter().flatten() {
            assert!(of(&["--cgroup", path]).contains(&known[0].pid), "{source} {path}");
        }
        assert_eq!(of(&["--container", "0000no"]), [0; 0]);
        let exe = of(&["--exe", "workloa?", "--user", "root"]);
        assert!(exe.contains(&known[0].pid) && !exe.contains(&other.pid()), "{source}");
        let ascending = of(&["--comm", "workload", "--sort", "pid"]);
        assert!(ascending.is_sorted());
        let mut descending = of(&["--comm", "workload", "--sort", "pid", "--reverse"]);
        descending.retain(|pid| ascending.contains(pid));
        assert!(descending.is_sorted_by(|a, b| a > b));
    }
    let counts = scan(&["--comm", "workload"]).processes;
    assert!(counts.is_sorted_by(|a, b| a.map_count.last >= b.map_count.last));
}

#[test]
fn hostile_names_break_no_form() {
    let hostile = standing(|command| {
        command.arg0(HOSTILE).args(["--secret=7", "a b"]);
    });
    let pid = hostile.pid().to_string();
    for source in ["ebpf", "proc"] {
        let options = ["--source", source, "-p", &pid];
        let report = scan(&options);
        assert_eq!(report.processes[0].app.as_deref(), Some(HOSTILE));
        let (_, text) = text(&options);
        assert!(!text.contains(['\x1b', '\x07', '\u{202e}']) && text.contains("\\x1b]0;x"), "{text}");
        assert!(!text.contains("secret"), "arguments are shown though nobody asked: {text}");
        let done = Session::vmaudit(&["scan", "--format", "csv"]).words(&options).go().succeeded();
        let csv = String::from_utf8(done.stdout).unwrap();
        let lines: Vec<&str> = csv.lines().collect();
        assert_eq!(lines.len(), 2, "{csv}");
        assert!(lines[1].contains(",\"'=1+1,\"\"q\"\"\\x0a\\x1b]0;x\\x07\\u{202e}'\","), "{csv}");
    }
    let (_, shown) = text(&["-p", &pid, "--show-args"]);
    assert!(shown.contains("--secret=7 'a b'") && shown.contains("may hold secrets"), "{shown}");
}

#[test]
fn without_a_command_it_scans_and_speaks_of_now() {
    let done = Session::vmaudit::<&str>(&[]).go().succeeded();
    let plain = String::from_utf8(done.stdout).unwrap();
    let (_, scan) = text(&[]);
    for text in [&plain, &scan] {
        assert!(text.starts_with("vmaudit: ") && text.contains("vm.max_map_count = "), "{text}");
        for title in ["\nProcesses (", "\nApplications ("] {
            assert!(text.contains(title), "{title} is missing: {text}");
        }
        assert!(text.contains("What has ended is not here"), "{text}");
        assert!(!text.contains("peaked") && !text.contains("sampled") && !text.contains('\x1b'), "{text}");
    }
}

#[test]
fn without_rights_it_counts_ones_own_and_says_what_it_cannot_see() {
    let done = Session::vmaudit(&["scan", "-n", "1000"]).as_user(NOBODY).go().succeeded();
    let lines = String::from_utf8(done.stdout).unwrap();
    let text = lines.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(!text.contains("Not root"), "what is not seen is told once: {text}");
    assert!(lines.lines().any(|line| line.ends_with("vmaudit") && line.contains(" nobody ")), "{lines}");
    assert!(text.contains("sudo vmaudit sees"), "{text}");
    assert!(text.contains("Not counted: ") && text.contains("may not be read"), "{text}");
    assert!(text.contains("not shown to you: /proc/slabinfo needs root"), "{text}");
    let refused = Session::vmaudit(&["scan", "--source", "ebpf"]).as_user(NOBODY).go().ended_with(1);
    assert!(refused.stderr_text().contains("--source ebpf"), "{}", refused.said());
}

#[test]
fn several_formats_go_to_their_files_and_a_bad_request_is_status_2() {
    let session = Session::vmaudit(&["scan", "-o"]);
    let (json, csv) = (session.file("a.json"), session.file("b.csv"));
    let done = session.words(&[json, "-o".into(), csv]).go().succeeded();
    assert!(done.stdout.is_empty() && done.stderr.is_empty(), "{}", done.said());
    let report: Report = serde_json::from_str(&done.read("a.json")).unwrap();
    assert_eq!(report.schema, "vmaudit.report");
    assert!(done.read("b.csv").starts_with("pid,ppid,uid,user,comm,app,exe,cgroup,vmas,"));
    for wrong in [&["--headroom", "x"][..], &["--no-such-option"], &["--vma", "0"], &["-o", "x.lgo"]] {
        Session::vmaudit(&["scan"]).words(wrong).go().ended_with(2);
    }
    Session::vmaudit(&["scan", "--headroom", "1.1"]).go().ended_with(1);
    Session::vmaudit(&["scan", "-o", "/nonexistent/x"]).go().ended_with(1);
}
