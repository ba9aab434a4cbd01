//! With a terminal: a real Ctrl-C, and reading from it.
//!
//! The pseudo terminals come from a devpts instance of our own in a mount namespace of one thread, because a bare VM
//! has none mounted.

use std::ffi::CString;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::process::CommandExt as _;
use std::sync::{Arc, Mutex};

use vmaudit_tests::{Done, Scratch, Session, vmaudit, wait_for};

#[path = "terminal/top.rs"]
mod top;

/// The keyboard and the screen.
struct Terminal {
    keyboard: File,
    screen: Arc<Mutex<Vec<u8>>>,
    slave: File,
}

impl Terminal {
    /// Must be called in a thread of its own: it changes the thread's mounts.
    fn open(scratch: &Scratch) -> Self {
        let folder = scratch.path("pts");
        std::fs::create_dir(&folder).unwrap();
        let target = CString::new(folder.to_str().unwrap()).unwrap();
        // SAFETY: all strings end in NUL and live through the calls; only this thread's view of mounts changes.
        let answers = unsafe {
            let none = std::ptr::null();
            [
                libc::unshare(libc::CLONE_NEWNS),
                libc::mount(none, c"/".as_ptr(), none, libc::MS_REC | libc::MS_PRIVATE, none.cast()),
                libc::mount(
                    c"devpts".as_ptr(),
                    target.as_ptr(),
                    c"devpts".as_ptr(),
                    0,
                    c"newinstance,ptmxmode=0666,mode=0620".as_ptr().cast(),
                ),
            ]
        };
        assert_eq!(answers, [0; 3], "a devpts of our own: {}", std::io::Error::last_os_error());
        let open =
            |path| File::options().read(true).write(true).open(path).expect("a terminal can be opened");
        let master = open(folder.join("ptmx"));
        let (unlock, mut number) = (0_i32, 0_i32);
        // SAFETY: both pointers are valid ints.
        let answers = unsafe {
            [
                libc::ioctl(master.as_raw_fd(), libc::TIOCSPTLCK, &raw const unlock),
                libc::ioctl(master.as_raw_fd(), libc::TIOCGPTN, &raw mut number),
            ]
        };
        assert_eq!(answers, [0; 2], "the slave's name: {}", std::io::Error::last_os_error());
        let slave = open(folder.join(number.to_string()));
        let screen = Arc::new(Mutex::new(Vec::new()));
        let (mut reader, seen) = (master.try_clone().unwrap(), Arc::clone(&screen));
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(n @ 1..) = reader.read(&mut buffer) {
                seen.lock().unwrap().extend_from_slice(&buffer[..n]);
            }
        });
        Self { keyboard: master, screen, slave }
    }

    fn resize(&self, rows: u16, columns: u16) {
        let size = libc::winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        // SAFETY: reads one winsize.
        let answer = unsafe { libc::ioctl(self.keyboard.as_raw_fd(), libc::TIOCSWINSZ, &raw const size) };
        assert_eq!(answer, 0, "the terminal's size: {}", std::io::Error::last_os_error());
    }

    fn press(&mut self, keys: &[u8]) {
        self.keyboard.write_all(keys).expect("keys can be pressed");
    }

    fn wait_for(&self, text: &str) {
        wait_for(&format!("{text:?} on the terminal"), || self.text().contains(text).then_some(()));
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.screen.lock().unwrap()).into_owned()
    }
}

/// Runs the session as the leader of a session on a terminal of its own; `play` types and reads. The result's stdout is
/// what the screen showed.
fn on_a_terminal(
    session: impl FnOnce() -> Session + Send + 'static,
    play: impl FnOnce(&mut Terminal) + Send + 'static,
) -> Done {
    on_the_terminal_of(0, session, play)
}

/// The same on a terminal that belongs to somebody else, as that of sudo's caller does.
fn on_the_terminal_of(
    owner: u32,
    session: impl FnOnce() -> Session + Send + 'static,
    play: impl FnOnce(&mut Terminal) + Send + 'static,
) -> Done {
    let scratch = Scratch::new();
    let thread = std::thread::spawn(move || {
        let mut terminal = Terminal::open(&scratch);
        std::os::unix::fs::fchown(&terminal.slave, Some(owner), None).expect("root gives it away");
        let session = session();
        let mut command = session.command();
        let end = || terminal.slave.try_clone().unwrap();
        command.stdin(end()).stdout(end()).stderr(end());
        // SAFETY: setsid and ioctl are allowed between fork and exec.
        unsafe {
            command.pre_exec(|| {
                if libc::setsid() < 0 || libc::ioctl(0, libc::TIOCSCTTY, 0) < 0 {
                    return Err(std::io::Error::last_os_error());
                }
                Ok(())
            });
        }
        let running = session.start_as(&mut command);
        drop(command);
        play(&mut terminal);
        let mut done = running.wait();
        // What was written last may still be on its way to the screen; a mark behind it says when it is all there.
        terminal.slave.write_all(b"[end]").unwrap();
        terminal.wait_for("[end]");
        done.stdout = terminal.text().into_bytes();
        done
    });
    thread.join().expect("the terminal's thread")
}

#[test]
fn ctrl_c_reaches_the_command_exactly_once_and_the_report_is_written() {
    let session = || Session::run(&[], &["signals", "1"]);
    let done = on_a_terminal(session, |terminal| {
        terminal.wait_for("ready");
        terminal.keyboard.write_all(b"\x03").unwrap();
    });
    let done = done.succeeded();
    let screen = String::from_utf8_lossy(&done.stdout);
    assert_eq!(screen.matches("signal 2").count(), 1, "{screen}");
    assert_eq!(done.report().session.exit.unwrap().code, Some(0));
}

#[test]
fn ctrl_c_ends_a_command_that_does_not_catch_it_and_vmaudit_with_it() {
    let session = || Session::run(&[], &["sleep", "3600"]);
    let done = on_a_terminal(session, |terminal| {
        terminal.wait_for("sleeping");
        terminal.keyboard.write_all(b"\x03").unwrap();
    });
    let done = done.died_of(libc::SIGINT);
    let report = done.report();
    assert_eq!(report.session.exit.unwrap().signal, Some(libc::SIGINT));
    let end = report.session.end.expect("an end");
    assert!(end.sentence.contains("sent by its terminal, as at Ctrl-C"), "{end:?}");
}

/// The terminal shows `^C`, and what comes next would stand behind it.
#[test]
fn a_report_begins_on_its_own_line_after_ctrl_c() {
    let session = || Session::vmaudit(&["run", "--"]).then_workload(&["sleep", "3600"]);
    let done = on_a_terminal(session, |terminal| {
        terminal.wait_for("sleeping");
        terminal.keyboard.write_all(b"\x03").unwrap();
    });
    let screen = String::from_utf8_lossy(&done.stdout);
    assert!(screen.contains("^C\r\n"), "{screen}");
    let line = screen.lines().find(|line| line.contains("vmaudit: ")).expect("a report");
    // Colours come before it.
    assert!(!line.contains("^C") && screen.contains("Nothing lost."), "{screen}");
}

/// People see that something goes on; what the command writes scrolls above it, and the report finds a terminal as it was.
#[test]
fn a_silent_command_has_a_status_line_that_is_gone_before_the_report() {
    let session = || {
        Session::vmaudit(&["run", "--"]).then_workload(&["sleep", "3600"]).env("TERM", "xterm").unrecorded()
    };
    let done = on_a_terminal(session, |terminal| {
        terminal.resize(24, 80);
        terminal.wait_for(": 1 process, largest workload ");
        terminal.keyboard.write_all(b"\x03").unwrap();
    });
    let screen = String::from_utf8_lossy(&done.stdout).into_owned();
    let (before, after) = screen.rsplit_once("\x1b7\x1b[24;1H\x1b[2K\x1b[r\x1b8").expect("it is taken away");
    assert!(before.contains("\x1b7\x1b[1;23r\x1b8\x1b7\x1b[24;1H\x1b[2Kvmaudit 0:"), "{before:?}");
    assert!(
        after.contains("Nothing lost.") && !after.contains("largest workload ") && !after.contains("\x1b7")
    );
}

/// Under sudo the terminal is its caller's: what is read and set of it needs a right that root keeps for that alone.
#[test]
fn roots_session_on_the_terminal_of_another_user_has_its_status_line() {
    let session = || {
        Session::vmaudit(&["run", "--"]).then_workload(&["sleep", "3600"]).env("TERM", "xterm").unrecorded()
    };
    let done = on_the_terminal_of(65534, session, |terminal| {
        terminal.resize(24, 80);
        terminal.wait_for(": 1 process, largest workload ");
        terminal.keyboard.write_all(b"\x03").unwrap();
    });
    let screen = String::from_utf8_lossy(&done.stdout).into_owned();
    let (_, after) = screen.rsplit_once("\x1b7\x1b[24;1H\x1b[2K\x1b[r\x1b8").expect("it is taken away");
    assert!(after.contains("Nothing lost.") && !after.contains("largest workload "), "{screen:?}");
}

/// Under su to a user without rights the terminal stays root's: its times cannot be set, so no line is drawn blindly.
#[test]
fn a_users_session_on_roots_terminal_draws_nothing_and_reports() {
    let session = || {
        let session = Session::vmaudit(&["run", "--"]).then_workload(&["sleep", "5"]).env("TERM", "xterm");
        session.unrecorded().as_user(65534)
    };
    let done = on_a_terminal(session, |terminal| terminal.resize(24, 80)).succeeded();
    let screen = String::from_utf8_lossy(&done.stdout).into_owned();
    assert!(screen.contains("Largest process: workload") && !screen.contains("\x1b7"), "{screen:?}");
}

#[test]
fn nobody_who_did_not_ask_or_types_blindly_gets_a_status_line() {
    for option in ["-q", "--top=5"] {
        let session = match option {
            "-q" => {
                || Session::vmaudit(&["run", "-q", "--"]).then_workload(&["sleep", "5"]).env("TERM", "xterm")
            }
            _ => || Session::vmaudit(&["run", "--"]).then_workload(&["sleep", "5"]).env("TERM", "xterm"),
        };
        let no_echo = |terminal: &mut Terminal| {
            terminal.resize(24, 80);
            // SAFETY: a zeroed termios is filled in before it is used.
            let answers = unsafe {
                let mut mode: libc::termios = std::mem::zeroed();
                let got = libc::tcgetattr(terminal.slave.as_raw_fd(), &raw mut mode);
                mode.c_lflag &= !libc::ECHO;
                [got, libc::tcsetattr(terminal.slave.as_raw_fd(), libc::TCSANOW, &raw const mode)]
            };
            assert_eq!(answers, [0; 2]);
        };
        let quiet = |terminal: &mut Terminal| terminal.resize(24, 80);
        let done = on_a_terminal(session, if option == "-q" { quiet } else { no_echo }).succeeded();
        let screen = String::from_utf8_lossy(&done.stdout).into_owned();
        assert!(!screen.contains("\x1b7") && !screen.contains("vmaudit 0:"), "{option}: {screen:?}");
    }
}

#[test]
fn the_command_reads_from_the_terminal() {
    let session = || Session::run(&[], &["cat"]);
    let done = on_a_terminal(session, |terminal| {
        terminal.keyboard.write_all(b"hello\n\x04").unwrap();
        terminal.wait_for("hello\r\nhello\r\n");
    });
    done.succeeded();
}

/// A command of another user shares the terminal and must not type into it: the caller's shell would read that.
#[test]
fn a_command_of_another_user_types_nothing_into_the_terminal_and_still_reads_from_it() {
    let session = || Session::run(&["--as", "65534"], &["type-ahead"]).reachable();
    let done = on_a_terminal(session, |terminal| terminal.wait_for("typed")).succeeded();
    let screen = String::from_utf8_lossy(&done.stdout);
    // EPERM of the filter; EIO and EPERM of a kernel that lets nobody do it.
    let refused = |line: &str| line.starts_with("typed ") && !line.contains(" 0");
    assert!(screen.lines().any(|line| refused(line.trim())), "{screen}");

    let session = || Session::run(&["--as", "65534"], &["cat"]).reachable();
    let done = on_a_terminal(session, |terminal| {
        terminal.keyboard.write_all(b"hello\n\x04").unwrap();
        terminal.wait_for("hello\r\nhello\r\n");
    });
    done.succeeded();
}

/// The caller's own command may do what it always could.
#[test]
fn a_command_of_the_caller_types_as_without_vmaudit() {
    let alone = on_a_terminal(|| Session::workload(&["type-ahead"]), |terminal| terminal.wait_for("typed"));
    let traced = on_a_terminal(|| Session::run(&[], &["type-ahead"]), |terminal| terminal.wait_for("typed"));
    // The terminal shows what was typed into it, somewhere.
    let said = |done: &Done| {
        let screen = String::from_utf8_lossy(&done.stdout).into_owned();
        screen.split_once("typed ").map(|(_, rest)| rest.lines().next().unwrap_or_default().trim().to_owned())
    };
    assert_eq!(said(&alone), said(&traced));
    assert!(said(&alone).is_some_and(|said| said.starts_with("0 0 ")), "{:?}", said(&alone));
}

/// The report's file, chosen here because the session is the shell's.
fn under_a_shell(words: &[&str]) -> Session {
    let session = Session::workload(&["job-shell"]);
    let report = session.file("report.json");
    let session = session.words(&[vmaudit()]).words(&["run", "-o"]).words(&[report]);
    session.words(&["--"]).then_workload(words)
}

#[test]
fn ctrl_z_stops_the_whole_job_and_the_shell_can_continue_it() {
    let session = || under_a_shell(&["signals", "1"]);
    let done = on_a_terminal(session, |terminal| {
        terminal.wait_for("ready");
        terminal.keyboard.write_all(b"\x1a").unwrap();
        terminal.wait_for("continued");
        terminal.keyboard.write_all(b"\x03").unwrap();
    });
    let done = done.succeeded();
    let screen = String::from_utf8_lossy(&done.stdout);
    assert_eq!(screen.matches("stopped").count(), 1, "{screen}");
    assert_eq!(screen.matches("signal 2").count(), 1, "{screen}");
    assert_eq!(done.report().session.exit.unwrap().code, Some(0));
}

#[test]
fn a_shell_sees_ctrl_c_end_the_job_by_the_signal() {
    let session = || under_a_shell(&["sleep", "3600"]);
    let done = on_a_terminal(session, |terminal| {
        terminal.wait_for("sleeping");
        terminal.keyboard.write_all(b"\x03").unwrap();
    });
    done.ended_with(128 + libc::SIGINT);
}

#[test]
fn a_job_in_the_foreground_reads_from_the_terminal() {
    let session = || under_a_shell(&["cat"]);
    let done = on_a_terminal(session, |terminal| {
        terminal.keyboard.write_all(b"hello\n\x04").unwrap();
        terminal.wait_for("hello\r\nhello\r\n");
    });
    done.succeeded();
}

/// A command that stops by itself (sudo and su do, when what they run stops).
#[test]
fn a_command_that_stops_itself_gives_the_shell_its_prompt_and_goes_on_with_it() {
    let session = || under_a_shell(&["stop-self"]);
    let done = on_a_terminal(session, |terminal| terminal.wait_for("went on")).succeeded();
    let screen = String::from_utf8_lossy(&done.stdout);
    assert_eq!(screen.matches("stopped").count(), 1, "{screen}");
    assert!(screen.contains("stopping\r\nstopped\r\n"), "{screen}");
    assert_eq!(done.report().session.exit.unwrap().code, Some(0));
}
