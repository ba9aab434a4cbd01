//! The examples of the help texts and of the README are run, as they stand there, in a folder that has what they name.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use vmaudit_tests::{Scratch, Session, send_signal, vmaudit, wait_for};

use crate::typed::standing;

/// Nobody else has these names, of either test.
const NAME: &str = "vma-example";
const OTHER: &str = "vma-of-options";
/// Programs that examples name; each does as little as it can.
const PROGRAMS: [&str; 6] = ["make", "tests", "server", "wine", "redis-server", "python3"];

/// A folder with those programs, `vmaudit`, and a `sudo` for whom everybody is root already.
fn folder() -> Scratch {
    let scratch = Scratch::new();
    let program = |name: &str, text: &str| {
        let path = scratch.path(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    };
    PROGRAMS.into_iter().for_each(|name| program(name, "#!/bin/sh\nexit 0\n"));
    let budgets = "[[budget]]\nprocess = \"*\"\nmax_peak = 65000\n";
    std::fs::write(scratch.path("budgets.toml"), budgets).unwrap();
    program("sudo", "#!/bin/sh\nexec \"$@\"\n");
    std::os::unix::fs::symlink(vmaudit(), scratch.path("vmaudit")).unwrap();
    scratch
}

/// Lines that call vmaudit, each once, in their order: a later one may read what an earlier one wrote.
fn calls(text: &str) -> Vec<&str> {
    let is_call =
        |line: &&str| ["vmaudit ", "sudo vmaudit", "cat /proc"].iter().any(|start| line.starts_with(start));
    // A report in the README begins with the program's name and a colon.
    text.lines().map(str::trim).filter(is_call).filter(|line| !line.starts_with("vmaudit: ")).collect()
}

/// The same call where it does no harm, needs no software and comes to its end.
fn harmless(call: &str, pid: u32, comm: &str) -> String {
    let pid = pid.to_string();
    // A core is made, and explained, in `explain.rs`.
    let mut call = call.replace("/var/crash/core.812", "./maps.txt");
    // The number itself comes last: it may have one of these in it.
    for number in ["812,java", "1234,java", "812", "1234", "4711"] {
        call = call.replace(number, "PID");
    }
    let mut call = call.replace("PID", &pid).replace("postgres", "root").replace("java", comm);
    for changing in ["limit --apply", "limit --undo"] {
        if call.contains(changing) && !call.contains("--dry-run") {
            call.push_str(" --dry-run");
        }
    }
    for command in ["vmaudit trace", "vmaudit watch"] {
        if call.contains(command) && !call.contains(" -d ") {
            call = call.replace(command, &format!("{command} -d 200ms"));
        }
    }
    // Somebody may have these already.
    for taken in ["127.0.0.1:9747", "127.0.0.1:9999"] {
        call = call.replace(taken, "127.0.0.1:0");
    }
    if call.contains("vmaudit serve") && !call.contains("--listen") {
        call.push_str(" --listen 127.0.0.1:0");
    }
    call.replace("unix:/run/", "unix:./")
        .replace("-d 60s", "-d 200ms")
        .replace("-d 5s", "-d 200ms")
        .replace("-d 10s", "-d 200ms")
        .replace("-d 1m", "-d 200ms")
}

fn run(call: &str, folder: &Path) -> (Option<i32>, String) {
    if call.contains("vmaudit serve") {
        return serve(call, folder);
    }
    let path = format!("{}:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", folder.display());
    let done = Command::new("sh")
        .args(["-c", call])
        .current_dir(folder)
        .env("PATH", path)
        .stdin(Stdio::null())
        .output()
        .expect("a shell starts");
    let said = String::from_utf8_lossy(&done.stderr).into_owned();
    (done.status.code(), said)
}

/// As [`run`], of what does not end by itself: it is ended when it serves.
fn serve(call: &str, folder: &Path) -> (Option<i32>, String) {
    let path = format!("{}:/usr/bin:/bin:/usr/sbin:/sbin", folder.display());
    let said = folder.join("said");
    let mut server = Command::new("sh")
        .args(["-c", &format!("exec {call}")])
        .current_dir(folder)
        .env("PATH", path)
        .stdin(Stdio::null())
        .stderr(std::fs::File::create(&said).unwrap())
        .spawn()
        .expect("a shell starts");
    let ended = wait_for("it serves or ends", || {
        let serves = std::fs::read_to_string(&said).unwrap().contains("serving ");
        server.try_wait().unwrap().map(Some).or_else(|| serves.then_some(None))
    });
    let status = ended.unwrap_or_else(|| {
        send_signal(server.id(), libc::SIGTERM);
        server.wait().unwrap()
    });
    (status.code(), std::fs::read_to_string(said).unwrap())
}

/// Commands, each with what may stand behind the example of one of its options.
const COMMANDS: [(&str, &[&str]); 10] = [
    ("scan", &[""]),
    ("run", &["true"]),
    ("watch", &["", "-p PID"]),
    ("trace", &["true", "-d 200ms", "--record r.vma true"]),
    ("explain", &["", "PID", "--maps maps.txt"]),
    ("limit", &[""]),
    ("report", &["session.vma"]),
    ("diff", &["session.vma session.vma"]),
    ("doctor", &[""]),
    ("serve", &["", "-p PID"]),
];

/// The example of each option is run, too, with what its command needs beside it.
#[test]
fn the_example_of_every_option_is_taken_and_does_what_it_says() {
    let folder = folder();
    let target = standing(OTHER, None);
    for (file, copy) in [("maps", "maps"), ("smaps", "smaps"), ("numa_maps", "numa")] {
        let text = std::fs::read(format!("/proc/{}/{file}", target.pid())).unwrap_or_default();
        std::fs::write(folder.path(&format!("{copy}.txt")), text).unwrap();
    }
    let place = folder.path("");
    assert_eq!(run("vmaudit run -q --record session.vma true", &place).0, Some(0));
    let mut examples = 0;
    for (command, tails) in COMMANDS {
        let help = Session::vmaudit(&[command, "-h"]).go().succeeded();
        let help = String::from_utf8(help.stdout).unwrap().split_whitespace().collect::<Vec<_>>().join(" ");
        for example in help.split("[example: ").skip(1).filter_map(|rest| rest.split(']').next()) {
            examples += 1;
            let call =
                |tail: &&str| harmless(&format!("vmaudit {command} {example} {tail}"), target.pid(), OTHER);
            let answers: Vec<_> = tails.iter().map(call).map(|call| (run(&call, &place), call)).collect();
            let fine = answers.iter().any(|((status, said), _)| {
                // Nobody is in that cgroup here, and /proc shows no changes.
                let nobody = ["--cgroup", "--unit", "--container", "--pod", "--exe"];
                let nobody = nobody.iter().any(|option| example.starts_with(option));
                let only_ebpf = example == "--source proc" && said.contains("trace needs eBPF");
                *status == Some(0) || *status == Some(1) && (nobody || only_ebpf)
            });
            assert!(fine, "{command} {example}: {answers:?}");
        }
    }
    assert!(examples > 40, "{examples}");
}

#[test]
fn every_example_of_help_and_readme_does_what_it_says() {
    let folder = folder();
    let target = standing(NAME, None);
    // Copies that an example reads and none writes.
    for file in ["maps", "smaps", "numa_maps"] {
        let text = std::fs::read(format!("/proc/{}/{file}", target.pid())).unwrap_or_default();
        std::fs::write(folder.path(&format!("{file}.txt")), text).unwrap();
    }
    let maps = std::fs::read_to_string(folder.path("maps.txt")).unwrap();
    let log = format!(
        "#\n# A fatal error has been detected by the Java Runtime Environment:\n#\n\nDynamic libraries:\n{maps}\n"
    );
    std::fs::write(folder.path(&format!("hs_err_pid{}.log", target.pid())), log).unwrap();
    for file in ["--record old.vma", "--record new.vma", "-o old.json", "-o new.json"] {
        assert_eq!(run(&format!("vmaudit run -q {file} true"), &folder.path("")).0, Some(0), "{file}");
    }
    let mut text = String::new();
    for command in [
        "scan",
        "run",
        "watch",
        "trace",
        "explain",
        "limit",
        "mark",
        "report",
        "diff",
        "doctor",
        "serve",
        "completions",
        "man",
        "--help",
    ] {
        let help = Session::vmaudit(&[command, "--help"]).go().succeeded();
        let help = String::from_utf8(help.stdout).unwrap();
        let (_, examples) = help.split_once("\nExamples:\n").expect("each help has examples");
        text.extend(examples.split("\n\n").next());
        text.push('\n');
    }
    // What stands between fences.
    text.extend(include_str!("../../README.md").split("```").skip(1).step_by(2));
    let calls = calls(&text);
    assert!(calls.len() > 25, "{calls:?}");
    for call in calls {
        let typed = harmless(call, target.pid(), NAME);
        let (status, said) = run(&typed, folder.path("").as_path());
        // Nothing was applied here, so there is nothing to take back; and a gate is no promise that the machine is quiet.
        let nothing = typed.contains("--undo") && said.contains("nothing to undo");
        let gate = typed.contains("--fail-on") && status == Some(86);
        assert!(status == Some(0) || nothing || gate, "{typed}: {status:?}\n{said}");
    }
}

/// A guest has no bash.
mod native_only {
    use super::*;

    /// What a shell does with the script at the Tab key.
    #[test]
    fn bash_completes_commands_and_options() {
        let folder = folder();
        let place = folder.path("");
        assert_eq!(run("vmaudit completions bash > words", &place).0, Some(0));
        let completed = |typed: &str| {
            let count = typed.split(' ').count() - 1;
            let script = format!(
                ". ./words; COMP_WORDS=({typed}); COMP_CWORD={count}; _vmaudit vmaudit \"${{COMP_WORDS[-1]}}\"; \
                 printf '%s ' \"${{COMPREPLY[@]}}\""
            );
            let done =
                Command::new("bash").args(["-c", &script]).current_dir(&place).output().expect("bash starts");
            assert!(done.stderr.is_empty(), "{}", String::from_utf8_lossy(&done.stderr));
            String::from_utf8(done.stdout).unwrap().trim().to_owned()
        };
        assert_eq!(completed("vmaudit wa"), "watch");
        assert_eq!(completed("vmaudit run --max-pea"), "--max-peak");
    }
}
