//! `vmaudit run CMD` is CMD, with a report beside it.

use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::CommandExt as _;

use vmaudit_tests::{Scratch, Session, send_signal, workload};
use vmaudit_user::model::report::SourceKind;

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

/// Starts it with a standard descriptor closed, or open for reading only.
fn without(fd: i32, readable: bool, session: Session) -> vmaudit_tests::Done {
    let mut command = session.command();
    // SAFETY: system calls only; nothing of Rust's uses the descriptor between fork and exec.
    unsafe {
        command.pre_exec(move || {
            libc::close(fd);
            // The lowest number that is free.
            if readable && libc::open(c"/dev/null".as_ptr(), libc::O_RDONLY) != fd {
                return Err(io::Error::last_os_error());
            }
            Ok(())
        });
    }
    session.start_as(&mut command).wait()
}

#[test]
fn a_report_that_finds_its_descriptor_closed_is_lost_with_125_or_1() {
    for readable in [false, true] {
        for (command, code) in [(["exit", "0"], 125), (["exit", "3"], 3)] {
            let session = Session::vmaudit(&["run", "--source", "proc", "--"]).then_workload(&command);
            without(2, readable, session).ended_with(code);
        }
        // Nobody asked for what would have been there.
        let session = Session::vmaudit(&["run", "--source", "proc", "-q", "--"]);
        without(2, readable, session.then_workload(&["exit", "0"])).succeeded();
        for words in [&["scan", "--format", "json"][..], &["limit"], &["doctor"], &["--help"]] {
            let session = Session::vmaudit(words);
            let done = without(1, readable, session);
            // The standard library hides it from clap's own printing.
            if words != ["--help"] || !readable {
                done.ended_with(1);
            }
        }
    }
}

/// A disk with room for a page: neither half a report nor a file of vmaudit's own is left, and the one before stays.
#[test]
fn a_full_disk_leaves_the_earlier_report_and_nothing_else() {
    let scratch = Scratch::new();
    let folder = scratch.path("disk");
    std::fs::create_dir(&folder).unwrap();
    let disk = vmaudit_tests::mount_small(&folder, 16 << 10);
    std::fs::write(folder.join("old.json"), "an earlier one").unwrap();
    // Root gives the new one to the owner of the earlier one.
    std::os::unix::fs::chown(folder.join("old.json"), Some(65534), Some(65534)).unwrap();
    std::fs::write(folder.join("fill"), vec![0; 8 << 10]).unwrap();
    let run = |name: &str, code| {
        let session = Session::vmaudit(&["run", "--source", "proc", "-q", "-o"]).words(&[folder.join(name)]);
        session.words(&["--"]).then_workload(&["exit", "0"]).go().ended_with(code);
        let mut names: Vec<_> =
            std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    for name in ["new.json", "old.json"] {
        assert_eq!(run(name, 125), ["fill", "old.json"], "{name}");
        assert_eq!(std::fs::read_to_string(folder.join("old.json")).unwrap(), "an earlier one");
    }
    std::fs::remove_file(folder.join("fill")).unwrap();
    run("old.json", 0);
    let (text, meta) = (folder.join("old.json"), folder.join("old.json").metadata().unwrap());
    assert!(std::fs::read_to_string(text).unwrap().ends_with("}\n"));
    assert_eq!((meta.uid(), meta.gid()), (65534, 65534));
    drop(disk);
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

/// All that would end vmaudit, had it not taken them for the command.
#[test]
fn every_signal_is_passed_on_and_leaves_a_report() {
    let all = [
        libc::SIGALRM,
        libc::SIGVTALRM,
        libc::SIGPROF,
        libc::SIGUSR1,
        libc::SIGUSR2,
        libc::SIGPIPE,
        libc::SIGXCPU,
        libc::SIGQUIT,
        libc::SIGIO,
        libc::SIGPWR,
        libc::SIGSTKFLT,
        libc::SIGABRT,
        libc::SIGTRAP,
        libc::SIGSYS,
        libc::SIGRTMIN(),
        libc::SIGRTMAX(),
    ];
    for (source, signal) in ebpf_once(all) {
        let session = Session::run(source, &["sleep", "3600"]);
        let mut command = session.command();
        // SAFETY: the limit lives through the call.
        unsafe {
            command.pre_exec(|| {
                let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
                libc::setrlimit(libc::RLIMIT_CORE, &raw const none);
                Ok(())
            });
        }
        let mut running = session.start_as(&mut command);
        running.wait_for_stdout("sleeping");
        send_signal(running.pid(), signal);
        let report = running.wait().died_of(signal).report();
        assert_eq!(report.session.exit.unwrap().signal, Some(signal));
        // Samples may have come too late for one that ends so soon.
        assert!(report.processes.len() == 1 || report.source == SourceKind::Proc, "signal {signal}");
    }
    // Nobody ends for it, and it is the command's all the same.
    let mut running = Session::run(&["--source", "proc"], &["signals", "1"]).start();
    running.wait_for_stdout("ready");
    send_signal(running.pid(), libc::SIGWINCH);
    running.wait_for_stdout(&format!("signal {}", libc::SIGWINCH));
    running.wait().succeeded().report();
}

/// `alarm 1; exec CMD`: an exec keeps the caller's timer, a fork does not.
#[test]
fn a_timer_of_the_callers_is_the_commands() {
    for (source, kind) in ebpf_once([libc::ITIMER_REAL, libc::ITIMER_PROF]) {
        // The second kind runs while the command computes.
        let words: &[&str] =
            if kind == libc::ITIMER_REAL { &["sleep", "3600"] } else { &["exec-loop", "100000"] };
        let session = Session::run_as_usual(source, words);
        let mut command = session.command();
        // SAFETY: the timer lives through the call.
        unsafe {
            command.pre_exec(move || {
                let timer = libc::itimerval {
                    it_interval: libc::timeval { tv_sec: 0, tv_usec: 0 },
                    it_value: libc::timeval { tv_sec: 1, tv_usec: 0 },
                };
                libc::syscall(libc::SYS_setitimer, kind, &raw const timer, 0);
                Ok(())
            });
        }
        let signal = if kind == libc::ITIMER_REAL { libc::SIGALRM } else { libc::SIGPROF };
        let done = session.start_as(&mut command).wait().died_of(signal);
        assert_eq!(done.report().session.exit.unwrap().signal, Some(signal));
    }
}

/// The state letter of a process (man 5 proc_pid_stat).
fn state(pid: u32) -> Option<char> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit(") ").next()?.chars().next()
}

fn child_of(pid: u32) -> Option<u32> {
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
    let is_it = |child: &u32| {
        std::fs::read_to_string(format!("/proc/{child}/comm")).is_ok_and(|comm| comm.trim() == "workload")
    };
    children.split_ascii_whitespace().filter_map(|child| child.parse().ok()).find(is_it)
}

/// Somebody else stops the command and continues it. With a shell above, vmaudit stops and goes on with it; without one,
/// where nobody could continue vmaudit, it does not stop, and leaves the command as it is.
#[test]
fn a_command_that_is_continued_alone_takes_vmaudit_with_it() {
    for shell in [true, false] {
        let session = Session::run(&["--source", "proc"], &["stop-self"]);
        let mut command = session.command();
        if shell {
            command.process_group(0);
        } else {
            // SAFETY: takes nothing.
            unsafe {
                command
                    .pre_exec(|| if libc::setsid() < 0 { Err(io::Error::last_os_error()) } else { Ok(()) });
            }
        }
        let mut running = session.start_as(&mut command);
        running.wait_for_stdout("stopping");
        let vmaudit = running.pid();
        let cmd = vmaudit_tests::wait_for("the command to stop", || {
            child_of(vmaudit).filter(|cmd| state(*cmd) == Some('T'))
        });
        if shell {
            vmaudit_tests::wait_for("vmaudit to stop", || (state(vmaudit) == Some('T')).then_some(()));
        } else {
            // It has had its turn when the next samples are taken.
            std::thread::sleep(std::time::Duration::from_millis(500));
            assert_eq!((state(cmd), state(vmaudit) == Some('T')), (Some('T'), false));
        }
        send_signal(cmd, libc::SIGCONT);
        let done = running.wait().succeeded();
        assert_eq!(String::from_utf8_lossy(&done.stdout), "stopping\nwent on\n");
        done.report();
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
    assert_eq!(report.source, SourceKind::Ebpf);
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
    // What vmaudit has not got the command may have; 125 in place of 0, because there is no report. In less than 18 MB of
    // addresses nobody can load it.
    // A guest's program brings its libraries along, and the data that they begin with.
    let (least_data, least) = if vmaudit_tests::in_guest() { (700, 25_000) } else { (400, 19_000) };
    let data = [least_data, 1000, 2048, 3072].map(|kib| (libc::RLIMIT_DATA, kib));
    let addresses = [least, 30_000, 40_000].map(|kib| (libc::RLIMIT_AS, kib));
    for (resource, kib) in data.into_iter().chain(addresses) {
        let done = limited(resource, kib << 10, &["exit", "3"]).ended_with(3);
        assert!(done.stderr_text().lines().count() <= 1, "{kib} KiB: {}", done.said());
    }
    let with_least = limited(libc::RLIMIT_DATA, least_data << 10, &["exit", "0"]);
    if vmaudit_tests::in_guest() && with_least.status.success() {
        // A static program may get by with what it can be loaded with; then nothing is missing.
        assert!(!with_least.report().processes.is_empty());
    } else {
        with_least.ended_with(125);
    }
    // No file has room for the report, nor for what is said of that.
    limited(libc::RLIMIT_FSIZE, 0, &["exit", "0"]).ended_with(125);
    limited(libc::RLIMIT_FSIZE, 0, &["exit", "3"]).ended_with(3);
}
