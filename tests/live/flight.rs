//! The flight recorder: the last stretch is written when something happens, as a recording like any other, and neither its
//! folder nor whoever is refused all day harms anybody.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use vmaudit_tests::own::{self, Own};
use vmaudit_tests::{Running, Scratch, Session, mount_small, send_signal, vmaudit, wait_for, workload};
use vmaudit_user::model::report::Report;

/// A shell that does this when it is let go, so that a watch can be there before.
fn gated(script: &str) -> Running {
    let script = format!("read go; {script}");
    Session::other("/bin/sh".into()).words(&["-c", &script]).words(&[workload()]).start_with_pipe()
}

fn folder(scratch: &Scratch) -> PathBuf {
    let folder = scratch.path("kept");
    std::fs::create_dir(&folder).unwrap();
    folder
}

/// A watch of this process that keeps the last stretch.
fn watching(pid: u32, length: &str, folder: &Path, options: &[&str]) -> Running {
    let pid = pid.to_string();
    let session = Session::vmaudit(&["watch", "--source", "ebpf", "-p", &pid, "--flight", length]);
    let mut watch = session.words(&["--flight-dir"]).words(&[folder]).words(options).start();
    watch.wait_for_stderr("watching ");
    watch
}

fn kept(folder: &Path) -> Vec<PathBuf> {
    let mut all: Vec<PathBuf> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    all.sort();
    all
}

fn first_kept(watch: &mut Running, folder: &Path) -> PathBuf {
    watch.wait_for_stderr("the flight recorder kept ");
    let all = kept(folder);
    assert_eq!(all.len(), 1, "{all:?}");
    all.into_iter().next().unwrap()
}

fn whole_report_of(file: &Path) -> Option<Report> {
    let output = Command::new(vmaudit())
        .arg("report")
        .arg(file)
        .args(["--format", "json"])
        .output()
        .expect("vmaudit can be started");
    let whole = output.status.success() && output.stderr.is_empty();
    whole.then(|| serde_json::from_slice(&output.stdout).expect("a report"))
}

fn report_of(file: &Path) -> Report {
    whole_report_of(file).expect("a whole recording")
}

fn ended(watch: Running) -> String {
    send_signal(watch.pid(), libc::SIGTERM);
    watch.wait().succeeded().said()
}

#[test]
fn a_refused_call_is_kept_with_its_cause_and_names() {
    let scratch = Scratch::new();
    let folder = folder(&scratch);
    let mut target = gated("exec \"$0\" --linger 600000 causes rlimit-as");
    let mut watch = watching(target.pid(), "10min", &folder, &[]);
    assert!(target.write(b"\n"));
    let file = first_kept(&mut watch, &folder);
    let found = std::fs::metadata(&file).unwrap();
    assert_eq!((found.permissions().mode() & 0o777, found.uid()), (0o600, 0));
    let report = report_of(&file);
    let stretch = report.session.stretch.as_ref().expect("it says what it is");
    assert_eq!(stretch.from_s, 0.0, "nothing was dropped yet");
    let why = format!("workload (pid {}) was refused mmap: the address space limit RLIMIT_AS", target.pid());
    assert_eq!(stretch.why, why);
    let failure = &report.failures[0];
    assert!(failure.certain && failure.cause == vmaudit_user::model::report::Cause::RlimitAs, "{failure:?}");
    let example = failure.example.as_ref().expect("an example");
    assert!(example.stack.iter().any(|frame| frame.symbol.is_some()), "names are looked up: {example:?}");
    let row = report.processes.iter().find(|row| row.pid == target.pid()).expect("its row");
    assert!(row.map_count.exact && row.comm == "workload" && row.exe.is_some(), "{row:?}");
    assert!(report.coverage.exact_peaks && report.session.watched.is_some());
    let text = Command::new(vmaudit()).arg("report").arg(&file).output().unwrap();
    let text = String::from_utf8_lossy(&text.stdout).replace("\n  ", " ");
    assert!(text.contains("kept by the flight recorder, from its start: workload (pid "), "{text}");
    // The session's own report is as ever.
    let said = ended(watch);
    assert!(said.contains("RLIMIT_AS") && !said.contains("flight recorder could not"), "{said}");
    send_signal(target.pid(), libc::SIGKILL);
}

/// What somebody is refused all day is one file, not a thousand.
#[test]
fn many_refusals_write_few_files() {
    let scratch = Scratch::new();
    let folder = folder(&scratch);
    let mut target = gated("for i in 1 2 3 4 5 6 7 8 9 10; do \"$0\" causes rlimit-as 500; done; read on");
    let mut watch = watching(target.pid(), "1M", &folder, &[]);
    assert!(target.write(b"\n"));
    watch.wait_for_stderr("the flight recorder kept ");
    let lines = |target: &Running| own::parse(&target.stdout_so_far()).len();
    wait_for("all of them", || (lines(&target) >= 10).then_some(()));
    let said = ended(watch);
    let all = kept(&folder);
    // At the end one more of what happened since.
    assert!((1..=2).contains(&all.len()), "{all:?} {said}");
    let last = report_of(all.last().unwrap());
    assert!(last.failures.iter().map(|failure| failure.count).sum::<u64>() > 500, "{:?}", last.failures);
    target.wait();
}

#[test]
fn a_share_of_the_limit_is_kept() {
    let scratch = Scratch::new();
    let folder = folder(&scratch);
    let mut target = gated("exec \"$0\" --linger 600000 burst 2000");
    let mut watch = watching(target.pid(), "10min", &folder, &["--at", "1"]);
    assert!(target.write(b"\n"));
    let report = report_of(&first_kept(&mut watch, &folder));
    let why = report.session.stretch.unwrap().why;
    assert!(why.contains("has passed 1 % of vm.max_map_count"), "{why}");
    assert!(report.processes[0].map_count.peak > Some(2000));
    ended(watch);
    send_signal(target.pid(), libc::SIGKILL);
}

/// What came before a stretch is not made up: peaks are the kernel's, the curve begins where it is known.
#[test]
fn a_signal_asks_for_the_stretch_and_peaks_of_before_it_stay_exact() {
    let scratch = Scratch::new();
    let folder = folder(&scratch);
    let mut target = Session::workload(&["attach", "3000"]).start_with_pipe();
    target.wait_for_stdout("standing");
    let standing: Own = own::parse(&target.stdout_so_far()).remove(0);
    let watch = watching(target.pid(), "1s", &folder, &[]);
    assert!(target.write(b"x"));
    wait_for("a burst", || (own::parse(&target.stdout_so_far()).len() > 1).then_some(()));
    let burst = own::parse(&target.stdout_so_far()).pop().unwrap();
    let report = wait_for("a stretch that does not hold the burst", || {
        send_signal(watch.pid(), libc::SIGUSR2);
        // One that is being written ends before its session did.
        let report = whole_report_of(kept(&folder).last()?)?;
        (report.session.stretch.as_ref()?.from_s > 1.5).then_some(report)
    });
    assert_eq!(report.session.stretch.as_ref().unwrap().why, "asked for by SIGUSR2");
    let row = report.processes.iter().find(|row| row.pid == target.pid()).expect("its row");
    assert_eq!((row.map_count.peak, row.map_count.exact), (Some(burst.peak), true), "{row:?}");
    let series = row.series.as_ref().expect("a curve");
    let told = series.peak.iter().max() == Some(&burst.peak);
    assert_eq!(series.exact, told, "{series:?}");
    assert!(series.peak.iter().all(|peak| *peak <= burst.peak), "{series:?}");
    assert_eq!(series.last.last(), Some(&standing.base), "{series:?}");
    assert!(row.makers.is_empty(), "who made it was before: {:?}", row.makers);
    let said = ended(watch);
    assert!(said.contains("the flight recorder kept"), "{said}");
    target.wait().succeeded();
}

#[test]
fn a_server_keeps_it_too() {
    let scratch = Scratch::new();
    let folder = folder(&scratch);
    let target = gated("exec \"$0\" sleep 3600");
    let session = Session::vmaudit(&["serve", "--listen", "127.0.0.1:0", "-p", &target.pid().to_string()]);
    let mut server = session.words(&["--flight", "1M", "--flight-dir"]).words(&[&folder]).start();
    server.wait_for_stderr("serving ");
    send_signal(server.pid(), libc::SIGUSR2);
    let report = report_of(&first_kept(&mut server, &folder));
    assert_eq!(report.processes.len(), 1);
    send_signal(server.pid(), libc::SIGTERM);
    server.wait().succeeded();
    send_signal(target.pid(), libc::SIGKILL);
}

/// Also of a process that a server has let go of by then.
#[test]
fn a_servers_file_has_callers_as_that_of_a_watch() {
    let scratch = Scratch::new();
    let folder = folder(&scratch);
    let mut target = gated("\"$0\" causes rlimit-as; read on");
    let session = Session::vmaudit(&["serve", "--listen", "127.0.0.1:0", "-p", &target.pid().to_string()]);
    let mut server = session.words(&["--flight", "1M", "--flight-dir"]).words(&[&folder]).start();
    server.wait_for_stderr("serving ");
    assert!(target.write(b"\n"));
    let report = report_of(&first_kept(&mut server, &folder));
    let example = report.failures.iter().find_map(|failure| failure.example.as_ref()).expect("an example");
    assert!(example.stack.iter().any(|frame| frame.symbol.is_some()), "{example:?}");
    send_signal(server.pid(), libc::SIGTERM);
    server.wait().succeeded();
    send_signal(target.pid(), libc::SIGKILL);
}

#[test]
fn a_folder_that_cannot_be_written_to_is_told_before_anything_begins() {
    let scratch = Scratch::new();
    let shared = scratch.path("shared");
    std::fs::create_dir(&shared).unwrap();
    std::fs::set_permissions(&shared, PermissionsExt::from_mode(0o1777)).unwrap();
    let link = shared.join("link");
    symlink(folder(&scratch), &link).unwrap();
    std::os::unix::fs::lchown(&link, Some(65_534), None).unwrap();
    std::fs::write(scratch.path("file"), "x").unwrap();
    for bad in [link, scratch.path("file"), scratch.path("nowhere"), PathBuf::from("/proc/self")] {
        let session = Session::vmaudit(&["watch", "-d", "1ms", "--flight", "1M", "--flight-dir"]);
        let said = session.words(&[&bad]).go().ended_with(1).stderr_text();
        assert!(said.contains("the flight recorder cannot write to"), "{}: {said}", bad.display());
        assert!(!said.contains("watching"), "{said}");
    }
    for wrong in [&["--flight", "1M"][..], &["--flight-dir", "/"], &["--flight", "7", "--flight-dir", "/"]] {
        Session::vmaudit(&["watch"]).words(wrong).go().ended_with(2);
    }
}

/// It is told, nothing is left behind, and the session goes on.
#[test]
fn a_full_disk_costs_the_file_and_nothing_else() {
    let scratch = Scratch::new();
    let folder = folder(&scratch);
    let disk = mount_small(&folder, 16 << 10);
    std::fs::write(folder.join("fill"), vec![0; 12 << 10]).unwrap();
    let target = gated("exec \"$0\" sleep 3600");
    let mut watch = watching(target.pid(), "1M", &folder, &[]);
    // The rest goes when it has begun.
    let _ = std::fs::write(folder.join("rest"), vec![0; 16 << 10]);
    send_signal(watch.pid(), libc::SIGUSR2);
    watch.wait_for_stderr("the flight recorder could not write to ");
    assert_eq!(kept(&folder).len(), 2, "{:?}", kept(&folder));
    send_signal(watch.pid(), libc::SIGTERM);
    let said = watch.wait().ended_with(1).said();
    assert!(said.contains("failed. Largest process"), "the report is there: {said}");
    send_signal(target.pid(), libc::SIGKILL);
    drop(disk);
}
