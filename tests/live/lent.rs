//! vmaudit has rights, its caller has ideas: a copy with capabilities of the file lends them to nobody.

use std::ffi::CString;
use std::io::{Read as _, Write as _};
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt, chown, symlink};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};

use vmaudit_tests::session::Running;
use vmaudit_tests::{Done, Scratch, Session, wait_for, workload};
use vmaudit_user::model::report::SourceKind;

use crate::rights::{bits, give_to_file, set};

/// A user that nobody has.
const USER: u32 = 61_234;
const CAP_DAC_OVERRIDE: u32 = 1;
const CAP_DAC_READ_SEARCH: u32 = 2;
/// What the README's table names (but CAP_SYS_ADMIN), and one that it does not: none is lent, whatever there is.
const ALL: [u32; 8] = [CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH, 5, 19, 24, 38, 39, 40];
const SECRET: &str = "the secret of root";

/// As USER, with a copy of vmaudit that has the capabilities of [`ALL`].
fn capable(session: Session) -> Session {
    let session = session.unrecorded().as_user(USER);
    let own = std::fs::read_to_string("/proc/self/status").unwrap();
    // Some machines withhold a few from everybody; a program that has one of those is not started at all.
    let given = bits(&ALL) & set(&own, "CapBnd");
    give_to_file(&session.file("vmaudit"), given).expect("file capabilities can be set");
    session
}

/// What of a session the test must not have broken: it has rights.
fn capable_vmaudit(words: &[&str]) -> Session {
    capable(Session::vmaudit(words))
}

fn mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
}

/// A folder that only root may enter, with something in it.
fn roots_folder() -> (Scratch, PathBuf) {
    let scratch = Scratch::new();
    let folder = scratch.path("roots");
    std::fs::create_dir(&folder).unwrap();
    mode(&folder, 0o700);
    std::fs::write(folder.join("secret"), format!("{SECRET}\n")).unwrap();
    std::fs::write(folder.join("maps"), "1000-2000 rw-p 00000000 00:00 0  /the/secret/of/root\n").unwrap();
    std::fs::copy(workload(), folder.join("tool")).unwrap();
    (scratch, folder)
}

#[test]
fn there_is_no_other_proc_and_no_other_root() {
    let (_scratch, folder) = roots_folder();
    let folder = folder.to_str().unwrap();
    for words in [
        &["explain", "1", "--proc-root", folder][..],
        &["scan", "--proc-root", folder],
        &["limit", "--root", folder],
        &["limit", "--root", folder, "--apply", "300000"],
    ] {
        capable_vmaudit(words).go().ended_with(2);
        Session::vmaudit(words).go().ended_with(2);
    }
}

/// With capabilities of the file, and with those that a caller gave by the ambient set.
#[test]
fn files_that_the_caller_names_are_read_with_his_rights() {
    let (scratch, folder) = roots_folder();
    let own = scratch.path("own");
    std::fs::write(&own, "1000-2000 rw-p 00000000 00:00 0 \n").unwrap();
    let linked = scratch.path("linked");
    symlink(folder.join("maps"), &linked).unwrap();
    let private = scratch.path("private");
    std::fs::copy(folder.join("maps"), &private).unwrap();
    mode(&private, 0o600);
    for file in
        [folder.join("maps"), linked, private, PathBuf::from(format!("/proc/{}/maps", std::process::id()))]
    {
        let (file, own) = (file.to_str().unwrap(), own.to_str().unwrap());
        for words in [
            &["explain", "--maps", file][..],
            &["explain", "--smaps", file],
            &["explain", "--maps", own, "--numa-maps", file],
        ] {
            for session in [
                capable_vmaudit(words),
                Session::vmaudit(words).as_user_with(USER, &[CAP_DAC_READ_SEARCH, CAP_DAC_OVERRIDE, 19]),
            ] {
                let done = session.go().ended_with(1);
                assert!(done.stderr_text().contains("ermission denied"), "{words:?}: {}", done.said());
                assert!(!done.said().contains("secret"), "{words:?}: {}", done.said());
            }
            // The file is a good one.
            if file.contains("maps") {
                Session::vmaudit(words).go().succeeded();
            }
        }
    }
}

/// Each command with `-o`; the last two run a command, which must not have run.
fn writers() -> [Vec<&'static str>; 6] {
    static OWN: std::sync::OnceLock<String> = std::sync::OnceLock::new();
    let own = OWN.get_or_init(|| std::process::id().to_string());
    [
        vec!["scan", "-o"],
        vec!["explain", own.as_str(), "-o"],
        vec!["limit", "-o"],
        vec!["limit", "--known", "-o"],
        vec!["run", "--source", "proc", "-o"],
        vec!["trace", "-o"],
    ]
}

fn writing(words: &[&str], to: &Path, as_whom: fn(Session) -> Session) -> Done {
    let session = Session::vmaudit(words).words(&[to]);
    let session = match words[0] {
        "run" | "trace" => session.words(&["--"]).then_workload(&["bytes"]),
        _ => session,
    };
    as_whom(session).go()
}

#[track_caller]
fn assert_refused(done: &Done, words: &[&str], why: &str) {
    assert_eq!(
        done.status.code(),
        Some(if words[0] == "run" { 125 } else { 1 }),
        "{words:?}: {}",
        done.said()
    );
    assert!(done.stdout.is_empty(), "{words:?} ran its command: {}", done.said());
    let said = done.stderr_text();
    assert!(said.contains(why) && said.lines().count() == 1, "{words:?}: {}", done.said());
}

#[test]
fn files_that_the_caller_names_are_written_with_his_rights() {
    let (scratch, folder) = roots_folder();
    let private = scratch.path("private");
    std::fs::write(&private, SECRET).unwrap();
    mode(&private, 0o644);
    let closed = scratch.path("closed");
    std::fs::create_dir(&closed).unwrap();
    let before = || {
        let mut names: Vec<_> = [&folder, &closed]
            .iter()
            .flat_map(|folder| std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name()))
            .collect();
        names.sort();
        names
    };
    let names = before();
    for words in writers() {
        for file in [folder.join("new"), folder.join("secret"), closed.join("new"), private.clone()] {
            assert_refused(&writing(&words, &file, capable), &words, "ermission denied");
        }
    }
    assert_eq!(before(), names);
    assert_eq!(std::fs::read_to_string(&private).unwrap(), SECRET);
    assert_eq!(std::fs::read_to_string(folder.join("secret")).unwrap().trim(), SECRET);
}

#[test]
fn a_program_out_of_the_callers_reach_is_not_run() {
    let (scratch, folder) = roots_folder();
    // Of root's own rights, which no caller has, only its owner may read this one.
    let readable_by_none = scratch.path("unreachable");
    std::fs::copy(workload(), &readable_by_none).unwrap();
    mode(&readable_by_none, 0o700);
    let trace = ["trace", "-o", "/dev/null", "--"];
    for command in [folder.join("tool"), readable_by_none] {
        for words in [&["run", "-q", "--"][..], &["run", "-q", "--source", "proc", "--"], &trace] {
            let done =
                capable(Session::vmaudit(words).words(&[&command]).words(&["bytes"])).go().ended_with(126);
            assert!(
                done.stdout.is_empty() && done.stderr_text().contains("ermission denied"),
                "{}",
                done.said()
            );
        }
        let given = [CAP_DAC_READ_SEARCH, CAP_DAC_OVERRIDE, 38, 39];
        let session = Session::vmaudit(&["run", "-q", "--"]).words(&[&command]).words(&["bytes"]);
        // DAC_OVERRIDE is none of vmaudit's own, so the command has it as without vmaudit; the other one does not do.
        let done = session.as_user_with(USER, &given[..1]).go().ended_with(126);
        assert!(done.stdout.is_empty(), "{}", done.said());
    }
    let session = capable(Session::vmaudit(&["run", "-q", "--", "tool", "exit", "9"]));
    let mut command = session.command();
    command.env("PATH", &folder);
    session.start_as(&mut command).wait().ended_with(126);
    let session = capable(Session::vmaudit(&["run", "-q", "--", "workload", "exit", "9"]));
    let mut command = session.command();
    command.env("PATH", format!("{}:{}", folder.display(), session.file("").display()));
    std::fs::copy(workload(), session.file("workload")).unwrap();
    session.start_as(&mut command).wait().ended_with(9);
}

/// Rights, descriptors (one that the caller passes on, too), signals, limits.
#[test]
fn the_command_of_a_capable_vmaudit_finds_the_world_as_without_it() {
    let facts = |session: Session| {
        let mut command = session.command();
        let folder = session.file("").to_string_lossy().trim_end_matches('/').to_owned();
        // The C library takes these from every program with capabilities of its file.
        command.env_remove("TMPDIR").env_remove("LD_LIBRARY_PATH");
        // Beyond those that the one who starts it uses itself, to tell that exec was refused.
        // SAFETY: system calls only; a jobserver or LISTEN_FDS leaves descriptors open like this.
        unsafe {
            command.pre_exec(|| {
                if libc::dup2(0, 207) == 207 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
            })
        };
        let done = session.start_as(&mut command).wait().succeeded();
        let text = String::from_utf8(done.stdout.clone()).unwrap();
        let kept = |l: &&str| !l.starts_with("parent ") && !l.starts_with("status SigQ");
        let lines: Vec<String> = text.lines().filter(kept).map(|l| l.replace(&folder, "SCRATCH")).collect();
        (done, lines)
    };
    let (_, alone) = facts(Session::workload(&["facts"]).as_user(USER));
    let (done, traced) = facts(capable(Session::run(&[], &["facts"])));
    assert!(alone.iter().any(|line| line.starts_with("open /proc/self/fd/207 ")), "{alone:?}");
    let differ: Vec<_> = alone.iter().zip(&traced).filter(|(a, b)| a != b).collect();
    assert!(alone.len() == traced.len() && differ.is_empty(), "{differ:?}");
    let report = done.report();
    assert_eq!((report.source, report.coverage.lost["skips_unreadable"]), (SourceKind::Ebpf, 0));
}

/// A capable vmaudit at work, and what its caller can see of it.
fn at_work(session: Session) -> Running {
    let mut running = session.start_with_pipe();
    running.wait_for_stdout("standing");
    running
}

fn status(pid: u32) -> String {
    std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap()
}

/// Bits of what a process of this user could do to another one: 1 ptrace, 2 memory, 4 mappings, 8 environment.
fn harm(pid: u32) -> i32 {
    let names = ["mem", "maps", "environ"].map(|name| CString::new(format!("/proc/{pid}/{name}")).unwrap());
    // SAFETY: between fork and exit the child makes system calls only, on strings made before.
    unsafe {
        let child = libc::fork();
        if child == 0 {
            let none: *const libc::gid_t = std::ptr::null();
            if libc::setgroups(0, none) != 0
                || libc::setresgid(USER, USER, USER) != 0
                || libc::setresuid(USER, USER, USER) != 0
            {
                libc::_exit(64);
            }
            let traced = libc::ptrace(libc::PTRACE_SEIZE, pid as libc::pid_t, 0, 0) == 0;
            let mut found = i32::from(traced);
            for (n, name) in names.iter().enumerate() {
                found |= i32::from(libc::open(name.as_ptr(), libc::O_RDONLY) >= 0) << (n + 1);
            }
            libc::_exit(found);
        }
        let mut status = 0;
        assert_eq!(libc::waitpid(child, &raw mut status, 0), child);
        libc::WEXITSTATUS(status)
    }
}

#[test]
fn the_caller_of_a_capable_vmaudit_cannot_look_into_it() {
    let own = at_work(Session::workload(&["attach", "5"]).as_user(USER));
    assert_eq!(harm(own.pid()), 15, "one's own process is open to one");
    let ambient = Session::run(&[], &["attach", "5"]).as_user_with(USER, &[19, 38, 39]);
    for session in [capable(Session::run(&[], &["attach", "5"])), ambient] {
        let running = at_work(session);
        let pid = running.pid();
        let [command, others] = wait_for("the command and the witness", || {
            let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
            let children = children.split_whitespace().map(|child| child.parse::<u32>().unwrap());
            // A reader may end meanwhile.
            let name = |child: &u32| std::fs::read_to_string(format!("/proc/{child}/comm")).ok();
            let (command, others): (Vec<u32>, Vec<u32>) =
                children.partition(|child| name(child).is_some_and(|name| name.starts_with("workload")));
            (!command.is_empty() && !others.is_empty()).then_some([command, others])
        });
        command.into_iter().for_each(|child| assert_eq!(harm(child), 15));
        others.into_iter().for_each(|child| assert_eq!(harm(child), 0, "{child}"));
        assert_eq!(harm(pid), 0);
        // One is raised for as long as something needs it.
        wait_for("rights that are lowered again", || (set(&status(pid), "CapEff") == 0).then_some(()));
        running.wait().succeeded();
    }
}

#[test]
fn no_core_file_is_written_of_what_holds_data_of_others() {
    let core_of = |session: Session| {
        let mut command = session.command();
        command.current_dir(session.file(""));
        // SAFETY: the limit lives through the call.
        unsafe {
            command.pre_exec(|| {
                let most = libc::rlimit { rlim_cur: libc::RLIM_INFINITY, rlim_max: libc::RLIM_INFINITY };
                libc::setrlimit(libc::RLIMIT_CORE, &raw const most);
                Ok(())
            });
        }
        command.stdin(std::process::Stdio::piped());
        let mut running = session.start_as(&mut command);
        running.wait_for_stdout("standing");
        // One that `run` does not take for its command.
        vmaudit_tests::send_signal(running.pid(), libc::SIGILL);
        running.wait().died_of(libc::SIGILL).status.core_dumped()
    };
    assert!(core_of(Session::workload(&["attach", "5"]).as_user(USER)), "a plain program leaves one here");
    assert!(!core_of(capable(Session::run(&[], &["attach", "5"]))));
    assert!(!core_of(Session::run(&[], &["attach", "5"])), "root's");
}

/// What was read is rendered and written without any right: held up in its first write, each command has none.
#[test]
fn rights_are_gone_before_anything_is_rendered() {
    for words in [
        &["scan", "--format", "json"][..],
        &["explain", &std::process::id().to_string(), "--format", "json"],
        &["limit", "--known"],
        &["limit", "--for", "elasticsearch", "--format", "json"],
        &["doctor", "--format", "json"],
    ] {
        let (mut reader, mut writer) = std::io::pipe().unwrap();
        // SAFETY: takes numbers only.
        let size = unsafe { libc::fcntl(writer.as_raw_fd(), libc::F_SETPIPE_SZ, 4096) };
        writer.write_all(&vec![b' '; usize::try_from(size).unwrap()]).unwrap();
        let session = capable_vmaudit(words);
        let mut command = session.command();
        command.stdout(writer);
        let running = session.start_as(&mut command);
        drop(command);
        let writing = format!("{} 0x1 ", libc::SYS_write);
        wait_for("it to write", || {
            let call = std::fs::read_to_string(format!("/proc/{}/syscall", running.pid())).unwrap();
            call.starts_with(&writing).then_some(())
        });
        let status = status(running.pid());
        for name in ["CapPrm", "CapEff", "CapAmb"] {
            assert_eq!(set(&status, name), 0, "{words:?} {name}");
        }
        reader.read_to_end(&mut Vec::new()).unwrap();
        drop(running);
    }
}

#[test]
fn addresses_are_shown_to_whom_they_could_not_be_hidden_from() {
    let mut roots = Session::workload(&["attach", "50"]).start_with_pipe();
    roots.wait_for_stdout("standing");
    let mut own = Session::workload(&["attach", "50"]).as_user(USER).start_with_pipe();
    own.wait_for_stdout("standing");
    let json = |session: Session| -> serde_json::Value {
        let done = session.go().succeeded();
        serde_json::from_slice(&done.stdout).unwrap_or_else(|e| panic!("{e}: {}", done.said()))
    };
    for (pid, capable, hidden) in
        [(roots.pid(), true, true), (own.pid(), true, false), (roots.pid(), false, false)]
    {
        let pid = pid.to_string();
        let session = |options: &[&str]| {
            let session = Session::vmaudit(&["explain", &pid]).words(options);
            if capable { self::capable(session) } else { session }
        };
        let it = json(session(&["--format", "json"]));
        for at in ["/boundaries/0/example", "/regions/0/start", "/picture/0/start", "/picture/0/end"] {
            assert_eq!(it.pointer(at).expect(at).is_null(), hidden, "{at}: {it}");
        }
        assert!(it["vmas"].as_u64().unwrap() > 50 && it["regions"][0]["vmas"].as_u64().unwrap() > 40, "{it}");
        for form in ["text", "csv"] {
            let text = String::from_utf8(session(&["--format", form]).go().succeeded().stdout).unwrap();
            assert_eq!(!text.contains("0x"), hidden, "{text}");
            assert!(!hidden || form == "csv" || text.contains("Addresses are left out"), "{text}");
        }
    }
}

/// A setuid program's layout is not its caller's to know, and vmaudit follows it all the same.
#[test]
fn addresses_of_a_setuid_program_are_left_out_of_failures() {
    let session = Session::vmaudit(&["run", "-o"]);
    let report = session.file("report.json");
    let setuid = session.file("setuid");
    std::fs::copy(workload(), &setuid).unwrap();
    mode(&setuid, 0o4755);
    let session = capable(session.words(&[&report]).words(&["--"]).words(&[&setuid]).words(&[
        "--linger",
        "1500",
        "causes",
        "rlimit-as",
    ]));
    let done = session.go().succeeded();
    let report = done.report();
    let example = report.failures[0].example.as_ref().expect("an example");
    assert!(example.args["addr"].is_null() && example.args["len"].is_u64(), "{example:?}");
    assert!(!example.stack.is_empty() && example.stack.iter().all(|frame| frame.ip.is_none()), "{example:?}");
    assert!(
        report.coverage.notes.iter().any(|note| note.contains("Addresses are left out")),
        "{:?}",
        report.coverage.notes
    );

    let done = capable(Session::run(&[], &["causes", "rlimit-as"])).go().succeeded();
    let report = done.report();
    let example = report.failures[0].example.as_ref().expect("an example");
    assert!(example.args["addr"].is_string() && example.stack[0].ip.is_some(), "{example:?}");
}

/// It would hold addresses of processes that the caller may not look into.
#[test]
fn a_capable_vmaudit_writes_no_recording() {
    let session = capable_vmaudit(&["run", "--record", "r.vma", "--"]).then_workload(&["facts"]);
    let said = session.go().ended_with(125).stderr_text();
    assert!(said.contains("--record is refused: a recording holds addresses"), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
}

#[test]
fn doctor_says_what_capabilities_of_the_file_give_away() {
    let says = |session: Session| {
        let text = String::from_utf8(session.go().succeeded().stdout).unwrap();
        text.split_whitespace().collect::<Vec<_>>().join(" ").contains("chmod 0750")
    };
    assert!(says(capable_vmaudit(&["doctor"])));
    assert!(!says(Session::vmaudit(&["doctor"])));
}

#[test]
fn the_switch_for_tests_is_nothing_to_a_capable_vmaudit() {
    let left_out = |session: Session| {
        let done = session.without(&["fork_raw", "fork_classic"]).go().succeeded();
        done.read("report.json").contains("left out on request")
    };
    assert!(left_out(Session::run(&[], &["exit", "0"])));
    assert!(!left_out(capable(Session::run(&[], &["exit", "0"]))));
}

#[test]
fn a_setuid_copy_is_refused() {
    for (bits, words, code) in [
        (0o4755, &["run", "--", "/bin/true"][..], 125),
        (0o4755, &["scan"], 1),
        (0o2755, &["limit", "--apply", "300000"], 1),
    ] {
        let session = Session::vmaudit(words).as_user(USER);
        mode(&session.file("vmaudit"), bits);
        let done = session.go().ended_with(code);
        assert!(done.stdout.is_empty() && done.stderr_text().contains("setuid or setgid"), "{}", done.said());
    }
}

/// Folders of a stranger: his own one, and one with a sticky bit that both may write to.
fn strangers_folders(scratch: &Scratch) -> [PathBuf; 2] {
    let [his, sticky] = ["his", "sticky"].map(|name| scratch.path(name));
    for folder in [&his, &sticky] {
        std::fs::create_dir(folder).unwrap();
    }
    chown(&his, Some(USER), Some(USER)).unwrap();
    mode(&sticky, 0o1777);
    [his, sticky]
}

/// As root: what a stranger planted is neither followed nor waited for, by whichever command.
#[test]
fn what_a_stranger_planted_is_refused() {
    let scratch = Scratch::new();
    let private = scratch.path("private");
    std::fs::create_dir(&private).unwrap();
    mode(&private, 0o700);
    let victim = private.join("victim");
    std::fs::write(&victim, SECRET).unwrap();
    let new = private.join("new");
    for folder in strangers_folders(&scratch) {
        let at = |name: &str| folder.join(name);
        for (name, target) in [("link", &victim), ("to-new", &new), ("way", &private)] {
            symlink(target, at(name)).unwrap();
            std::os::unix::fs::lchown(at(name), Some(USER), Some(USER)).unwrap();
        }
        let fifo = CString::new(at("fifo").as_os_str().as_encoded_bytes()).unwrap();
        // SAFETY: a string that lives through the call.
        assert_eq!(unsafe { libc::mkfifo(fifo.as_ptr(), 0o666) }, 0);
        std::fs::write(at("foreign"), SECRET).unwrap();
        chown(at("foreign"), Some(USER), Some(USER)).unwrap();
        std::fs::hard_link(&victim, at("hard")).unwrap();
        for words in writers() {
            for (name, why) in [
                ("link", "symbolic link"),
                ("to-new", "symbolic link"),
                ("way/victim", "symbolic link"),
                ("way/../private/new", "symbolic link"),
                ("fifo", "a FIFO"),
                ("foreign", "a file of another user"),
                ("hard", "several names"),
            ] {
                let done = writing(&words, &at(name), |session| session);
                assert_refused(&done, &words, why);
                assert!(done.stderr_text().contains("others can write to"), "{}", done.said());
            }
        }
        assert_eq!(std::fs::read_to_string(at("foreign")).unwrap(), SECRET);
    }
    assert_eq!(std::fs::read_to_string(&victim).unwrap(), SECRET);
    assert!(!new.exists());
}

/// A new report of root's is root's alone, wherever it lies; one that is there keeps its mode; nothing else is left.
#[test]
fn a_report_is_whole_and_its_owners() {
    let scratch = Scratch::new();
    for folder in strangers_folders(&scratch) {
        for words in writers() {
            let file = folder.join(words[0]);
            std::fs::remove_file(&file).ok();
            let done = writing(&words, &file, |session| session);
            assert_eq!(done.status.code(), Some(0), "{words:?}: {}", done.said());
            let meta = std::fs::metadata(&file).unwrap();
            assert_eq!((meta.uid(), meta.mode() & 0o777), (0, 0o600), "{words:?}");
            assert!(meta.len() > 0, "{words:?}");
            mode(&file, 0o644);
            std::fs::write(&file, "an earlier one").unwrap();
            let done = writing(&words, &file, |session| session);
            assert_eq!(done.status.code(), Some(0), "{words:?}: {}", done.said());
            let text = std::fs::read_to_string(&file).unwrap();
            assert!(!text.contains("an earlier one") && !text.is_empty(), "{words:?}");
            assert_eq!(std::fs::metadata(&file).unwrap().mode() & 0o777, 0o644, "{words:?}");
        }
        let names: Vec<_> = std::fs::read_dir(&folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        assert!(names.iter().all(|name| !name.starts_with('.')), "{names:?}");
    }
}

/// Between the start and the end of a session the folder holds the earlier report or nothing.
#[test]
fn no_half_report_is_ever_seen() {
    let session = Session::run(&[], &["attach", "5"]);
    let report = session.file("report.json");
    std::fs::write(&report, "an earlier one").unwrap();
    let mut running = at_work(session);
    assert_eq!(std::fs::read_to_string(&report).unwrap(), "an earlier one");
    vmaudit_tests::send_signal(running.pid(), libc::SIGKILL);
    wait_for("its end", || running.ended().then_some(()));
    assert_eq!(std::fs::read_to_string(&report).unwrap(), "an earlier one");
    let names: Vec<_> =
        std::fs::read_dir(report.parent().unwrap()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert!(names.iter().all(|name| !name.to_string_lossy().starts_with(".vmaudit")), "{names:?}");
    drop(running);
}

/// No room for all of it: the earlier one is not lost for a part of the new one.
#[test]
fn a_report_that_does_not_fit_leaves_the_earlier_one() {
    for words in [["scan", "-o"], ["run", "-o"]] {
        let session = Session::vmaudit(&words);
        let report = session.file("report.txt");
        std::fs::write(&report, "an earlier one").unwrap();
        let session = session.words(&[&report]);
        let session = if words[0] == "run" { session.words(&["--", "true"]) } else { session };
        let mut command = session.command();
        // SAFETY: the limit lives through the call.
        unsafe {
            command.pre_exec(|| {
                libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
                let most = libc::rlimit { rlim_cur: 64, rlim_max: 64 };
                libc::setrlimit(libc::RLIMIT_FSIZE, &raw const most);
                Ok(())
            });
        }
        let done = session.start_as(&mut command).wait();
        assert_ne!(done.status.code(), Some(0), "{words:?}: {}", done.said());
        assert_eq!(done.read("report.txt"), "an earlier one", "{words:?}");
    }
}

#[test]
fn devices_pipes_and_descriptors_are_written_to_as_ever() {
    for as_whom in [capable as fn(Session) -> Session, |session| session] {
        for words in writers() {
            for file in ["/dev/null", "/dev/stdout", "/dev/stderr", "/dev/fd/1", "/proc/self/fd/2"] {
                let done = writing(&words, Path::new(file), as_whom);
                assert_eq!(done.status.code(), Some(0), "{words:?} {file}: {}", done.said());
                let (out, err) = (done.stdout.len(), done.stderr.len());
                match file {
                    "/dev/null" => {}
                    "/dev/stdout" | "/dev/fd/1" => {
                        assert!(out > 256 || words[0] == "trace" && out > 0, "{words:?}")
                    }
                    _ => assert!(err > 0, "{words:?} {file}"),
                }
            }
        }
        let session = Session::vmaudit(&["limit", "--known", "-o", "/dev/fd/209"]);
        let (mut reader, writer) = std::io::pipe().unwrap();
        let session = as_whom(session);
        let mut command = session.command();
        let fd = writer.as_raw_fd();
        // SAFETY: takes numbers only.
        unsafe {
            command.pre_exec(move || {
                if libc::dup2(fd, 209) == 209 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
            })
        };
        let running = session.start_as(&mut command);
        // SAFETY: closed here and nowhere else.
        drop(unsafe { OwnedFd::from_raw_fd(std::os::fd::IntoRawFd::into_raw_fd(writer)) });
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert!(text.contains("elasticsearch"), "{text}");
        running.wait().succeeded();
    }
}
