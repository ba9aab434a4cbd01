//! One line for people on the terminal of standard error, below what the command writes there and out of its way.
//!
//! The terminal is the command's, and nothing tells where its cursor stands. So the line is drawn in the last row, and all
//! else scrolls above it meanwhile (DECSTBM, as apt does it): what the command writes never meets it. It is there only while
//! the command is silent: the kernel keeps when somebody last wrote to a terminal and read from it
//! (drivers/tty/tty_io.c:tty_update_time, all versions; to 8 s), and a time that is set far back shows the next writing at
//! once. It is never drawn when keys are read one by one or are not echoed (editors, passwords), from the background, or
//! while the screen is held (Ctrl-S).

use std::io::{self, IsTerminal as _, Write as _};
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd};
use std::time::{Duration, Instant};

use caps::Capability;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::stat::{FileStat, fstat, futimens};
use nix::sys::termios::{LocalFlags, tcgetattr};
use nix::sys::time::{TimeSpec, TimeValLike as _};
use nix::unistd::{geteuid, getpgrp, tcgetpgrp};

use super::destination::terminal_size;
use super::rights;

/// So far back the terminal's time is set, seconds; more than the 8 within which the kernel leaves it alone.
const BACK: i64 = 64;
/// So long the command has to be silent.
const SILENT: Duration = Duration::from_secs(2);

/// Rows of the smallest terminal that has room for it.
const FEWEST_ROWS: usize = 5;

/// The line, and what is known of the terminal.
#[derive(Debug)]
pub struct StatusLine {
    /// Times as they were last set here: of reading, of writing.
    set: (TimeSpec, TimeSpec),
    /// When somebody was last seen to write or read, and what the terminal's time of writing was then.
    used: (Instant, TimeSpec),
    shown: bool,
}

/// The right that root needs for a terminal that somebody else owns, as sudo's caller does.
pub fn right() -> Option<Capability> {
    let stderr = io::stderr();
    let foreign = fstat(stderr.as_fd()).is_ok_and(|stat| stat.st_uid != geteuid().as_raw());
    (geteuid().is_root() && stderr.is_terminal() && foreign).then_some(Capability::CAP_FOWNER)
}

impl StatusLine {
    /// `None` where there is no such terminal, or its times cannot be set.
    pub fn new() -> Option<Self> {
        let stderr = io::stderr();
        let term = std::env::var_os("TERM").unwrap_or_default();
        if !stderr.is_terminal() || term.is_empty() || term == "dumb" {
            return None;
        }
        let now = fstat(stderr.as_fd()).ok()?;
        let mut line = Self { set: times(&now), used: (Instant::now(), times(&now).1), shown: false };
        line.wind_back(stderr.as_fd(), &now).then_some(line)
    }

    /// Sets the time back, so that the next use is seen. `false`: that is not allowed.
    fn wind_back(&mut self, terminal: BorrowedFd<'_>, now: &FileStat) -> bool {
        let (read, written) = times(now);
        let back = TimeSpec::seconds(written.tv_sec().saturating_sub(BACK).max(0));
        let _rights = rights::raised(&[Capability::CAP_FOWNER]);
        let done = futimens(terminal, &read, &back).is_ok();
        self.set = (read, back);
        done
    }

    /// Looks whether somebody has used the terminal since; if so, what is left of the line goes.
    pub fn look(&mut self) {
        let stderr = io::stderr();
        let Ok(now) = fstat(stderr.as_fd()) else { return };
        if times(&now) == self.set {
            return;
        }
        self.used = (Instant::now(), times(&now).1);
        self.wind_back(stderr.as_fd(), &now);
        self.clear();
    }

    /// It may be drawn now.
    pub fn is_free(&self) -> bool {
        self.used.0.elapsed() >= SILENT && may_write(io::stderr().as_fd())
    }

    /// Draws it; the caller has cut it to the terminal's width.
    pub fn draw(&mut self, text: &str) {
        let stderr = io::stderr();
        let Some((rows, _)) = terminal_size(stderr.as_raw_fd()) else { return };
        let Some(above) = rows.checked_sub(1).filter(|_| rows >= FEWEST_ROWS) else { return };
        // Room below the cursor (IND, CUU); the cursor is kept (DECSC), because setting the region moves it.
        let region = if self.shown { String::new() } else { format!("\x1bD\x1b[A\x1b7\x1b[1;{above}r\x1b8") };
        self.say(&format!("{region}\x1b7\x1b[{rows};1H\x1b[2K{text}\x1b8"));
        self.shown = true;
    }

    /// Takes it away, as soon as the terminal can be written to.
    pub fn clear(&mut self) {
        let stderr = io::stderr();
        if !self.shown || !may_write(stderr.as_fd()) {
            return;
        }
        self.shown = false;
        let rows = terminal_size(stderr.as_raw_fd()).map_or(9999, |(rows, _)| rows);
        self.say(&format!("\x1b7\x1b[{rows};1H\x1b[2K\x1b[r\x1b8"));
    }

    /// Writing of our own is nobody's use of the terminal.
    fn say(&mut self, text: &str) {
        let mut stderr = io::stderr();
        let _ = stderr.write_all(text.as_bytes()).and_then(|()| stderr.flush());
        if let Ok(now) = fstat(stderr.as_fd()) {
            self.wind_back(stderr.as_fd(), &now);
        }
    }
}

impl Drop for StatusLine {
    fn drop(&mut self) {
        self.clear();
        let stderr = io::stderr();
        if let Ok(now) = fstat(stderr.as_fd()) {
            let _rights = rights::raised(&[Capability::CAP_FOWNER]);
            let _ = futimens(stderr.as_fd(), &times(&now).0, &self.used.1);
        }
    }
}

/// Of reading, of writing.
fn times(stat: &FileStat) -> (TimeSpec, TimeSpec) {
    (TimeSpec::new(stat.st_atime, stat.st_atime_nsec), TimeSpec::new(stat.st_mtime, stat.st_mtime_nsec))
}

/// Writing waits for nobody and disturbs nobody.
fn may_write(terminal: BorrowedFd<'_>) -> bool {
    let in_front = tcgetpgrp(terminal).is_ok_and(|group| group == getpgrp());
    let plain = LocalFlags::ICANON | LocalFlags::ECHO;
    let by_lines = tcgetattr(terminal).is_ok_and(|mode| mode.local_flags.contains(plain));
    let mut room = [PollFd::new(terminal, PollFlags::POLLOUT)];
    let held = poll(&mut room, PollTimeout::ZERO).is_err()
        || !room[0].revents().is_some_and(|seen| seen.contains(PollFlags::POLLOUT));
    in_front && by_lines && !held
}
