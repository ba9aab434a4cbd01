//! `vmaudit run CMD` is CMD, with a report beside it.

use std::io;
use std::os::unix::process::CommandExt as _;

use vmaudit_tests::{Scratch, Session, send_signal, workload};

/// The case with each source. Loading eBPF takes seconds on an emulated machine; what a case shares with the first one
/// up to its last moment is tried without.
fn ebpf_once<T>(cases: impl IntoIterator<Item = T>) -> impl Iterator<Item = (&'static [&'static str], T)> {
    let source = |n| if n == 0 { &["--source", "ebpf"][..] } else { &["--source", "proc"] };
    cases.into_iter().enumerate().map(move |(n, case)| (source(n), case))
}

#[test]
fn the_exit_status_is_the_commands_own() {
    for (source, code) in ebpf_once([7, 0, 1, 86, 125, 126, 127, 128, 255]) {
        let done = Session::run(source, &["exit", &code.to_string()]).go().ended_with(code);
        let exit = done.report().session.exit.unwrap();
        assert_eq!((exit.code, exit.signal), (Some(code), None));
    }
}

#[test]
fn death_by_a_signal_is_passed_on() {
    for (source, signal) in ebpf_once([
        libc::SIGKILL,
        libc::SIGTERM,
        libc::SIGINT,
        libc::SIGSEGV,
        libc::SIGABRT,
        libc::SIGPIPE,
        libc::SIGUSR1,
        // Real-time signals have no names.
        libc::SIGRTMIN(),
        libc::SIGRTMAX(),
    ]) {
        let done = Session::run(source, &["kill-self", &signal.to_string()]).go().died_of(signal);
        let exit = done.report().session.exit.unwrap();
        assert_eq!((exit.code, exit.signal), (None, Some(signal)));
    }
}

#[test]
fn a_command_that_does_not_exist_is_127() {
    for command in ["/nonexistent/program", "no-such-program-anywhere"] {
        let done = Session::vmaudit(&["run", "--", command]).go().ended_with(127);
        assert_eq!(done.stderr_text().lines().count(), 1, "one sentence: {}", done.said());
    }
}

#[test]
fn a_command_that_cannot_be_run_is_126() {
    let scratch = Scratch::new();
    let plain = scratch.path("plain");
    std::fs::write(&plain, "").unwrap();
    for command in [scratch.folder(), &plain] {
        let done = Session::vmaudit(&["run", "--"]).words(&[command]).go().ended_with(126);
        assert_eq!(done.stderr_text().lines().count(), 1, "one sentence: {}", done.said());
    }
}

#[test]
fn a_wrong_command_line_is_125() {
    for words in [
        &["run"][..],
        &["run", "--"],
        &["run", "--no-such-option", "--", "x"],
        &["run", "--max-peak", "x", "--", "x"],
    ] {
        let done = Session::vmaudit(words).go().ended_with(125);
        assert!(!done.stderr.is_empty());
        assert!(done.stdout.is_empty());
    }
}

#[test]
fn a_report_that_cannot_be_written_is_125_before_the_command_runs() {
    let session = Session::vmaudit(&["run", "-o", "/nonexistent/folder/report.json", "--"]);
    let done = session.then_workload(&["bytes"]).go().ended_with(125);
    assert!(done.stdout.is_empty(), "the command ran");
}

#[test]
fn a_lost_report_is_125_when_the_command_succeeded() {
    for (command, code) in [(["exit", "0"], 125), (["exit", "3"], 3)] {
        let session = Session::vmaudit(&["run", "--source", "proc", "-q", "-o", "/dev/full", "--"]);
        let done = session.then_workload(&command).go().ended_with(code);
        let said = done.stderr_text();
        assert!(said.contains("the report could not be written: No space left"), "{}", done.said());
    }
}

#[test]
fn an_earlier_report_survives_a_command_that_cannot_be_run() {
    let session = Session::vmaudit(&["run", "-o"]);
    let report = session.file("report.json");
    std::fs::write(&report, "an earlier one").unwrap();
    let done = session.words(&[report]).words(&["--", "/nonexistent/program"]).go().ended_with(127);
    assert_eq!(done.read("report.json"), "an earlier one");
}

#[test]
fn stdin_and_stdout_pass_every_byte() {
    let mut bytes: Vec<u8> = Vec::new();
    let mut state = 1_u32;
    for _ in 0..1_000_003 {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        bytes.push((state >> 24) as u8);
    }
    let done = Session::run(&[], &["cat"]).stdin(&bytes).go().succeeded();
    assert!(done.stdout == bytes, "{} bytes went in, {} came out", bytes.len(), done.stdout.len());
    let mut piped = Session::run(&["--source", "proc"], &["cat"]).start_with_pipe();
    assert!(piped.write(&bytes));
    let done = piped.wait().succeeded();
    assert!(done.stdout == bytes, "through a pipe {} of {} bytes came out", done.stdout.len(), bytes.len());
}

#[test]
fn stdout_and_stderr_are_the_commands_alone_when_the_report_goes_to_a_file() {
    let all: Vec<u8> = (0..=255).collect();
    let reversed: Vec<u8> = (0..=255).rev().collect();
    let done = Session::run(&["-q"], &["bytes"]).go().succeeded();
    assert_eq!(done.stdout, all);
    assert_eq!(done.stderr, reversed);
    done.report();
}

#[test]
fn the_text_report_goes_to_stderr_and_never_to_stdout() {
    let done = Session::vmaudit(&["run", "--"]).then_workload(&["burst", "300"]).go().succeeded();
    let own = done.own().remove(0);
    assert!(
        done.stderr_text().contains(&own.peak.to_string()),
        "the peak {} is shown: {}",
        own.peak,
        done.said()
    );
}

#[test]
fn several_formats_and_files_at_once_are_the_same_report() {
    let session = Session::vmaudit(&["run", "-o"]);
    let (json, text) = (session.file("report.json"), session.file("report.txt"));
    let session = session.words(&[json]).words(&["-o"]).words(&[text]).words(&["--"]);
    let done = session.then_workload(&["burst", "300"]).go().succeeded();
    let (own, row) = done.only();
    vmaudit_tests::rows::assert_exact(&row, &own);
    assert!(done.read("report.txt").contains(&own.peak.to_string()));
}

#[test]
fn a_file_has_the_format_of_its_ending_unless_it_is_said_outright_and_never_the_screens() {
    let session = Session::vmaudit(&["run", "--source", "proc", "--format", "json"]);
    let of = |format: &str, name: &str| format!("{format}{}", session.file(name).display());
    let files = ["", "text:", "json:", ""].into_iter().zip(["report.json", "plain.json", "data", "plain"]);
    let words: Vec<String> = files
        .flat_map(|(format, name)| ["-o".to_owned(), of(format, name)])
        .chain(["--".to_owned()])
        .collect();
    let done = session.words(&words).then_workload(&["exit", "0"]).go().succeeded();
    assert_eq!(done.read("data"), done.read("report.json"));
    done.report();
    for text in ["plain.json", "plain"] {
        assert!(done.read(text).starts_with("vmaudit: "), "{text}: {}", done.read(text));
    }
    let said = done.stderr_text();
    assert!(said.contains("plain.json is written as text: --format is for the screen"), "{said}");
}

#[test]
fn an_ending_that_nobody_knows_is_a_wrong_call_and_runs_nothing() {
    for (words, status) in
        [(["run", "-o", "x.lgo"], 125), (["trace", "-o", "csv:x"], 2), (["scan", "-o", "x.lgo"], 2)]
    {
        let session = Session::vmaudit(&words);
        let session =
            if words[0] == "scan" { session } else { session.words(&["--"]).then_workload(&["facts"]) };
        let done = session.go().ended_with(status);
        assert!(done.stdout.is_empty() && done.stderr_text().contains("text"), "{}", done.said());
    }
}

/// What the command says about its world; `change` is done to the process that becomes vmaudit, or the command itself.
fn facts(session: Session, change: fn() -> io::Result<()>) -> Vec<String> {
    use std::os::unix::process::CommandExt as _;
    let mut command = session.command();
    // The folder holds the session's name; show it as the same.
    let folder = session.file("").to_string_lossy().trim_end_matches('/').to_owned();
    command.env("VMAUDIT_TEST_FACT", "two words").current_dir("/proc");
    // SAFETY: system calls only.
    unsafe { command.pre_exec(change) };
    let done = session.start_as(&mut command).wait().succeeded();
    let text = String::from_utf8(done.stdout).unwrap();
    let kept = |l: &&str| !l.starts_with("parent ") && !l.starts_with("status SigQ");
    text.lines().filter(kept).map(|l| l.replace(&folder, "SCRATCH")).collect()
}

#[track_caller]
fn assert_same_world(change: fn() -> io::Result<()>) -> Vec<String> {
    let alone = facts(Session::workload(&["facts"]), change);
    let traced = facts(Session::run(&[], &["facts"]), change);
    assert!(alone.iter().any(|l| l.contains("VMAUDIT_TEST_FACT")));
    for (a, b) in alone.iter().zip(&traced) {
        assert_eq!(b, a, "with vmaudit and without");
    }
    assert_eq!(alone.len(), traced.len());
    alone
}

/// Environment, folder, limits, signals, descriptors, rights, session: all but the parent's id.
#[test]
fn the_command_finds_the_world_as_without_vmaudit() {
    let world = assert_same_world(|| Ok(()));
    let start = world.iter().find(|l| l.starts_with("start ")).unwrap();
    assert!(
        start.ends_with("ignored 0000000000000000 closed 0"),
        "a plain start is no test of others: {start}"
    );
}

#[test]
fn what_the_caller_ignores_the_command_ignores() {
    let world = assert_same_world(|| {
        for signal in [libc::SIGPIPE, libc::SIGCHLD, libc::SIGHUP, libc::SIGUSR2, libc::SIGTTOU] {
            // SAFETY: SIG_IGN installs no handler.
            unsafe { libc::signal(signal, libc::SIG_IGN) };
        }
        Ok(())
    });
    let bits = [libc::SIGPIPE, libc::SIGCHLD, libc::SIGHUP, libc::SIGUSR2, libc::SIGTTOU];
    let bits = bits.iter().fold(0u64, |all, s| all | 1 << (s - 1));
    assert!(world.contains(&format!("start ignored {bits:016x} closed 0")), "{world:?}");
}

#[test]
fn what_the_caller_blocks_the_command_blocks() {
    let world = assert_same_world(|| {
        // SAFETY: `set` is made valid by sigemptyset.
        unsafe {
            let mut set = std::mem::zeroed::<libc::sigset_t>();
            libc::sigemptyset(&raw mut set);
            libc::sigaddset(&raw mut set, libc::SIGUSR1);
            libc::sigaddset(&raw mut set, libc::SIGTERM);
            libc::sigaddset(&raw mut set, libc::SIGCHLD);
            libc::sigprocmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut());
        }
        Ok(())
    });
    assert!(world.contains(&"status SigBlk:\t0000000000014200".to_owned()), "{world:?}");
}

#[test]
fn a_descriptor_that_the_caller_closed_is_closed() {
    let world = assert_same_world(|| {
        // SAFETY: nothing of Rust's uses it between fork and exec.
        unsafe { libc::close(0) };
        Ok(())
    });
    assert!(world.iter().any(|l| l.starts_with("start ") && l.ends_with("closed 1")), "{world:?}");
}

/// The kernel reaps the children of whoever ignores SIGCHLD, and nobody learns how they ended.
#[test]
fn a_caller_that_ignores_sigchld_still_learns_the_status() {
    use std::os::unix::process::CommandExt as _;
    for (source, words) in ebpf_once([["exit", "7"], ["kill-self", "15"]]) {
        let session = Session::run(source, &words);
        let mut command = session.command();
        // SAFETY: SIG_IGN installs no handler.
        unsafe {
            command.pre_exec(|| {
                libc::signal(libc::SIGCHLD, libc::SIG_IGN);
                Ok(())
            });
        }
        let done = session.start_as(&mut command).wait();
        match words[0] {
            "exit" => done.ended_with(7),
            _ => done.died_of(15),
        };
    }
}

#[test]
fn a_signal_sent_to_the_whole_group_reaches_the_command_once() {
    use std::os::unix::process::CommandExt as _;
    for (source, signal) in ebpf_once([libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGUSR1]) {
        let session = Session::run(source, &["signals", "1"]);
        let mut command = session.command();
        command.process_group(0);
        let mut running = session.start_as(&mut command);
        running.wait_for_stdout("ready");
        // SAFETY: kill takes no pointers.
        assert_eq!(unsafe { libc::kill(-(running.pid() as i32), signal) }, 0);
        let done = running.wait().succeeded();
        assert_eq!(String::from_utf8_lossy(&done.stdout), format!("ready\nsignal {signal}\n"));
    }
}

/// Both kinds in turn: telling them apart once must not spoil the next time.
#[test]
fn signals_to_the_group_and_to_vmaudit_alone_are_told_apart() {
    use std::os::unix::process::CommandExt as _;
    let session = Session::run(&[], &["signals", "4"]);
    let mut command = session.command();
    command.process_group(0);
    let mut running = session.start_as(&mut command);
    running.wait_for_stdout("ready");
    let pid = running.pid() as i32;
    for (n, target) in [-pid, pid, -pid, pid].into_iter().enumerate() {
        // SAFETY: kill takes no pointers.
        assert_eq!(unsafe { libc::kill(target, libc::SIGTERM) }, 0);
        let so_far = "signal 15\n".repeat(n + 1);
        running.wait_for_stdout(&format!("ready\n{so_far}"));
        // Two signals of one kind that wait together are one.
        vmaudit_tests::wait_for("vmaudit to take its signal", || {
            let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            status.contains("ShdPnd:\t0000000000000000").then_some(())
        });
    }
    let done = running.wait().succeeded();
    assert_eq!(String::from_utf8_lossy(&done.stdout), format!("ready\n{}", "signal 15\n".repeat(4)));
}

#[test]
fn a_user_that_vmaudit_may_not_become_is_its_own_failure() {
    let done =
        Session::run(&["--as", "0", "--source", "proc"], &["bytes"]).as_user(65534).go().ended_with(125);
    assert!(done.stdout.is_empty(), "the command ran");
    assert!(done.stderr_text().contains("cannot become that user"), "{}", done.said());
}

#[test]
fn a_signal_sent_to_vmaudit_reaches_the_command_once_and_the_report_is_still_written() {
    for (source, signal) in ebpf_once([libc::SIGINT, libc::SIGTERM, libc::SIGHUP]) {
        let mut running = Session::run(source, &["signals", "1"]).start();
        running.wait_for_stdout("ready");
        send_signal(running.pid(), signal);
        let done = running.wait().succeeded();
        assert_eq!(String::from_utf8_lossy(&done.stdout), format!("ready\nsignal {signal}\n"));
        assert_eq!(done.report().session.exit.unwrap().code, Some(0));
    }
}

#[test]
fn a_signal_that_ends_the_command_ends_vmaudit_the_same_way_after_the_report() {
    for (source, signal) in ebpf_once([libc::SIGINT, libc::SIGTERM]) {
        let mut running = Session::run(source, &["sleep", "3600"]).start();
        running.wait_for_stdout("sleeping");
        send_signal(running.pid(), signal);
        let done = running.wait().died_of(signal);
        assert_eq!(done.report().session.exit.unwrap().signal, Some(signal));
    }
}

#[test]
fn the_command_can_run_as_another_user_while_vmaudit_keeps_its_rights() {
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    // A bare VM has no names.
    let user = if passwd.lines().any(|l| l.starts_with("nobody:")) { "nobody" } else { "65534" };
    let session = Session::run(&["--as", user], &["facts"]);
    let done = session.reachable().go().succeeded();
    let text = String::from_utf8(done.stdout.clone()).unwrap();
    assert!(text.contains("uid 65534 65534 "), "{text}");
    assert!(!text.contains(" gid 0"), "{text}");
    assert!(text.contains("status CapEff:\t0000000000000000"), "{text}");
    let report = done.report();
    assert_eq!(report.source, vmaudit_user::model::report::SourceKind::Ebpf);
    assert_eq!(report.processes[0].uid, Some(65534));
    assert!(report.processes[0].map_count.exact);
}

#[test]
fn the_workload_is_found_by_its_name_through_path() {
    let session = Session::vmaudit(&["run", "-q", "--", "workload", "exit", "9"]);
    let mut command = session.command();
    command.env("PATH", workload().parent().unwrap());
    session.start_as(&mut command).wait().ended_with(9);
}

/// Limits that the caller set for the command leave it and its status alone: at worst vmaudit says what it could not do.
#[test]
fn small_limits_on_descriptors_and_files_are_the_commands() {
    let limited = |resource, most, words: &[&str]| {
        let session = Session::run(&[], words).unrecorded();
        let mut command = session.command();
        // SAFETY: the limit lives through the call.
        unsafe {
            command.pre_exec(move || {
                let limit = libc::rlimit { rlim_cur: most, rlim_max: most };
                if libc::setrlimit(resource, &raw const limit) == 0 {
                    Ok(())
                } else {
                    Err(io::Error::last_os_error())
                }
            });
        }
        session.start_as(&mut command).wait()
    };
    // With 14 it has what it cannot do without, where it may not raise the limit for itself; with fewer it goes without a
    // report, or becomes the command.
    for most in [14, 12, 10, 7] {
        let done = limited(libc::RLIMIT_NOFILE, most, &["exit", "3"]).ended_with(3);
        assert!(!done.stderr_text().contains("panicked"), "{}", done.said());
    }
    // No file has room for the report, nor for what is said of that.
    limited(libc::RLIMIT_FSIZE, 0, &["exit", "0"]).ended_with(125);
    limited(libc::RLIMIT_FSIZE, 0, &["exit", "3"]).ended_with(3);
}
