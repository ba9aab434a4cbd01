//! `vmaudit top` as a person sees it.

use std::fs::File;
use std::os::fd::AsRawFd as _;

use vmaudit_tests::{Running, Session, send_signal};

use super::on_a_terminal;

/// A process that stands with 60 VMAs more than it began with.
fn standing() -> Running {
    let mut running = Session::workload(&["layout", "every-second", "before", "60"]).start_with_pipe();
    running.wait_for_stdout("standing ");
    running
}

/// The terminal is as it was: lines are edited and echoed, the cursor is shown, the old screen is back.
fn assert_given_back(screen: &str) {
    for (taken, given) in [("\x1b[?1049h", "\x1b[?1049l"), ("\x1b[?25l", "\x1b[?25h")] {
        let last =
            |what: &str| screen.rfind(what).unwrap_or_else(|| panic!("{what:?} was never sent: {screen:?}"));
        assert!(last(taken) < last(given), "{taken:?} is the last word: {screen:?}");
    }
}

fn local_flags(terminal: &File) -> libc::tcflag_t {
    // SAFETY: all zero is a valid termios, and the call writes one.
    let mut modes: libc::termios = unsafe { std::mem::zeroed() };
    // SAFETY: as above.
    let answer = unsafe { libc::tcgetattr(terminal.as_raw_fd(), &raw mut modes) };
    assert_eq!(answer, 0, "{}", std::io::Error::last_os_error());
    modes.c_lflag
}

#[test]
fn a_key_ends_it_and_the_terminal_is_given_back() {
    let target = standing();
    let pid = target.pid().to_string();
    let done = on_a_terminal(
        move || Session::vmaudit(&["top", "--every", "1", "-p", &pid]),
        |terminal| {
            let before = local_flags(&terminal.slave);
            terminal.resize(24, 80);
            terminal.wait_for("workload is nearest");
            assert_eq!(local_flags(&terminal.slave) & libc::ECHO, 0);
            terminal.press(b"q");
            terminal.wait_for("\x1b[?25h");
            vmaudit_tests::wait_for("the terminal as it was", || {
                (local_flags(&terminal.slave) == before).then_some(())
            });
        },
    );
    assert_given_back(&String::from_utf8_lossy(&done.succeeded().stdout));
}

#[test]
fn a_signal_that_ends_it_gives_the_terminal_back_too() {
    for signal in [libc::SIGTERM, libc::SIGHUP] {
        let done = on_a_terminal(
            || Session::vmaudit(&["top", "--source", "proc"]),
            move |terminal| {
                terminal.resize(24, 80);
                terminal.wait_for("samples of /proc, not exact");
                let mut group = 0;
                // SAFETY: writes one int.
                let answer =
                    unsafe { libc::ioctl(terminal.keyboard.as_raw_fd(), libc::TIOCGPGRP, &raw mut group) };
                assert_eq!(answer, 0, "{}", std::io::Error::last_os_error());
                send_signal(group as u32, signal);
            },
        );
        assert_given_back(&String::from_utf8_lossy(&done.succeeded().stdout));
    }
}

#[test]
fn without_a_terminal_it_says_what_there_is_instead() {
    let done = Session::vmaudit(&["top"]).go().ended_with(1);
    let said = done.stderr_text();
    assert!(said.contains("top needs a terminal") && said.contains("vmaudit scan"), "{said}");
    assert!(done.stdout.is_empty());
}

/// `cargo xtask test` leaves these out where the program is missing, and says so.
mod with_tmux {
    use std::process::Command;

    use vmaudit_tests::{Scratch, Session, vmaudit, wait_for, workload};

    use super::standing;

    /// A server of our own, ended with the test.
    struct Tmux(std::path::PathBuf);

    impl Tmux {
        fn call(&self, words: &[&str]) -> String {
            let done =
                Command::new("tmux").arg("-S").arg(&self.0).args(["-f", "/dev/null"]).args(words).output();
            String::from_utf8_lossy(&done.expect("tmux starts").stdout).into_owned()
        }

        /// The screen, once this stands on it.
        fn with(&self, text: &str) -> String {
            wait_for(&format!("{text:?} on the screen"), || {
                Some(self.call(&["capture-pane", "-p"])).filter(|screen| screen.contains(text))
            })
        }
    }

    impl Drop for Tmux {
        fn drop(&mut self) {
            self.call(&["kill-server"]);
        }
    }

    /// A process at the limit: in the list, its makers with their line, the filter, the help; and when it has ended.
    #[test]
    fn a_process_at_the_limit_in_four_screens_and_after_its_end() {
        let script = "read x; \"$0\" --linger 600000 stackoverflow & read y; kill -9 $!; wait; read z";
        let mut shell =
            Session::other("/bin/sh".into()).words(&["-c", script]).words(&[workload()]).start_with_pipe();
        let scratch = Scratch::new();
        let tmux = Tmux(scratch.path("socket"));
        let call = format!("{} top --every 1 -p {}", vmaudit().display(), shell.pid());
        tmux.call(&["new-session", "-d", "-x", "100", "-y", "30", &call]);
        tmux.with("is nearest");
        assert!(shell.write(b"\n"));
        let screen = tmux.with("workload hit the limit of ");
        assert!(screen.lines().any(|line| line.contains("workload") && line.contains("100.0")), "{screen}");
        tmux.call(&["send-keys", "Enter"]);
        // Names come first, lines as soon as they are read.
        let screen = tmux.with("memory.rs:");
        for part in ["AT PEAK", "munmap", "workload::makers::stackoverflow", "makers.rs:", "99.", "now 65,"] {
            assert!(screen.contains(part), "{part}: {screen}");
        }
        // By itself: with what follows at once it would be another key.
        tmux.call(&["send-keys", "Escape"]);
        tmux.with("Enter details");
        tmux.call(&["send-keys", "/vmas>100"]);
        let screen = tmux.with("/vmas>100_");
        assert!(screen.contains("user=alice") && screen.contains("Enter keeps it"), "{screen}");
        tmux.call(&["send-keys", "Enter", "?"]);
        assert!(tmux.with("No key here ends or changes a process.").contains("who made the VMAs"));
        tmux.call(&["send-keys", "Escape"]);
        tmux.with("1 of 2 processes");
        tmux.call(&["send-keys", "Escape"]);
        tmux.with("2 processes");
        assert!(shell.write(b"\n"));
        let screen = tmux.with("it has ended");
        assert!(screen.contains("\u{d7} workload") && screen.contains(" · 1 ended"), "{screen}");
        tmux.call(&["send-keys", "q"]);
    }

    #[test]
    fn a_person_looks_at_a_process_and_leaves() {
        let target = standing();
        let scratch = Scratch::new();
        let tmux = Tmux(scratch.path("socket"));
        let call = format!("{} top -p {}; echo status $?; read end", vmaudit().display(), target.pid());
        tmux.call(&["new-session", "-d", "-x", "80", "-y", "24", &call]);
        let screen = tmux.with("▸");
        let lines: Vec<&str> = screen.lines().collect();
        assert!(lines[0].starts_with("No memory call refused; workload is nearest, 0."), "{screen}");
        assert!(
            lines[2].starts_with("1 process · limit ") && lines[2].contains(" · exact since "),
            "{screen}"
        );
        assert_eq!(
            lines[4].split_whitespace().collect::<Vec<_>>(),
            ["PID", "NAME", "UNIT", "VMAs↓", "%", "LIM", "GROWTH", "FULL", "IN", "REFUSED"]
        );
        let pid = target.pid().to_string();
        assert!(lines[5].starts_with('▸') && lines[5].contains(&pid), "{screen}");
        tmux.call(&["send-keys", "Enter"]);
        assert!(tmux.with("peak exact").contains(&format!("workload (pid {pid})")));
        tmux.call(&["send-keys", "Escape"]);
        tmux.with("Enter details");
        tmux.call(&["send-keys", "/nobody-is-called-so", "Enter"]);
        assert!(!tmux.with("No process matches").contains(&pid));
        tmux.call(&["send-keys", "Escape"]);
        tmux.with(&pid);
        tmux.call(&["resize-window", "-x", "40", "-y", "10"]);
        let screen = tmux.with("▸");
        assert!(screen.lines().count() <= 10, "{screen}");
        tmux.call(&["send-keys", "q"]);
        let screen = tmux.with("status ");
        assert!(screen.contains("status 0") && !screen.contains("GROWTH"), "{screen}");
    }
}
