//! Where reports are rendered and where they go. Nothing here opens /proc or decides anything.

pub mod explain_text;
pub mod form;
pub mod json;
pub mod limit_text;
pub mod scan_text;
#[cfg(test)]
mod snapshots;
pub mod table;
pub mod text;

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::path::Path;

use crate::model::report::Report;
use crate::text::clean;
use text::page::Style;

/// How a report is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// For people.
    Text,
    /// One JSON document.
    Json,
}

/// Where a report goes. A file is created when the destination is opened, before any workload runs, so that a bad
/// path fails early; what was in it goes when the first byte is written.
#[derive(Debug)]
pub enum Destination {
    /// Standard error: the default of `run`, whose standard output belongs to the workload.
    Stderr,
    /// Standard output.
    Stdout,
    /// A file, as it was found.
    Found(File),
    /// A file that is being written.
    File(File),
}

impl Destination {
    /// Opens `path`; `-` is standard output.
    pub fn open(path: &Path) -> io::Result<Self> {
        if path.as_os_str() == "-" {
            return Ok(Self::Stdout);
        }
        // An earlier report stays until there is a new one.
        File::options().write(true).create(true).truncate(false).open(path).map(Self::Found)
    }

    /// Takes away what a file held before.
    fn begin(&mut self) -> io::Result<()> {
        if let Self::Found(file) = self {
            let file = file.try_clone()?;
            if file.metadata()?.is_file() {
                file.set_len(0)?;
            }
            *self = Self::File(file);
        }
        Ok(())
    }

    /// Whether people look at it directly.
    pub fn is_terminal(&self) -> bool {
        match self {
            Self::Stderr => io::stderr().is_terminal(),
            Self::Stdout => io::stdout().is_terminal(),
            Self::Found(_) | Self::File(_) => false,
        }
    }

    /// Whether colour is allowed: on a terminal that knows it, and not against NO_COLOR.
    pub fn colour(&self) -> bool {
        let (no_color, term) = (std::env::var_os("NO_COLOR"), std::env::var_os("TERM"));
        self.is_terminal() && colour_wanted(no_color.as_deref(), term.as_deref())
    }

    /// Width of its terminal in columns; `None` when it is no terminal.
    pub fn columns(&self) -> Option<usize> {
        self.is_terminal().then(|| terminal_columns(self.raw_fd())).flatten()
    }

    fn raw_fd(&self) -> RawFd {
        match self {
            Self::Stderr => io::stderr().as_raw_fd(),
            Self::Stdout => io::stdout().as_raw_fd(),
            Self::Found(file) | Self::File(file) => file.as_raw_fd(),
        }
    }
}

impl Write for Destination {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.begin()?;
        match self {
            Self::Stderr => io::stderr().write(bytes),
            Self::Stdout => io::stdout().write(bytes),
            Self::Found(file) | Self::File(file) => file.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        // Whoever flushes has said all, be it nothing.
        self.begin()?;
        match self {
            Self::Stderr => io::stderr().flush(),
            Self::Stdout => io::stdout().flush(),
            Self::Found(file) | Self::File(file) => file.flush(),
        }
    }
}

/// no-color.org: NO_COLOR counts when it is set and not empty.
fn colour_wanted(no_color: Option<&OsStr>, term: Option<&OsStr>) -> bool {
    no_color.is_none_or(OsStr::is_empty) && term.is_none_or(|term| term != "dumb")
}

fn terminal_columns(fd: RawFd) -> Option<usize> {
    let mut size = libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: TIOCGWINSZ writes one winsize to the address it is given, and `size` is one that outlives the call.
    let answer = unsafe { libc::ioctl(fd, libc::TIOCGWINSZ, &raw mut size) };
    (answer == 0 && size.ws_col > 0).then_some(usize::from(size.ws_col))
}

/// Writes `report` in one piece, so that a report and the workload's own messages do not mix line by line.
pub fn write(report: &Report, format: Format, style: &Style, out: &mut dyn Write) -> io::Result<()> {
    let mut whole = Vec::new();
    match format {
        Format::Text => text::write(report, style, &mut whole)?,
        Format::Json => json::write(report, &mut whole)?,
    }
    out.write_all(&whole)?;
    out.flush()
}

/// Says one line on standard error. Errors are ignored: there is nobody left to tell.
pub fn say(message: &str) {
    let line = format!("vmaudit: {}\n", clean(message));
    let _ = io::stderr().write_all(line.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_no_color_is_none() {
        let wanted = |no_color: Option<&str>, term: &str| {
            colour_wanted(no_color.map(OsStr::new), Some(OsStr::new(term)))
        };
        assert!(wanted(None, "xterm") && wanted(Some(""), "xterm") && colour_wanted(None, None));
        assert!(!wanted(Some("0"), "xterm") && !wanted(None, "dumb"));
    }

    #[test]
    fn an_earlier_report_stays_until_there_is_a_new_one() {
        let path = std::env::temp_dir().join(format!("vmaudit-output-{}", std::process::id()));
        std::fs::write(&path, "an earlier and longer report").unwrap();
        drop(Destination::open(&path).unwrap());
        assert_eq!(std::fs::read(&path).unwrap(), b"an earlier and longer report");
        let mut destination = Destination::open(&path).unwrap();
        destination.write_all(b"a new").unwrap();
        destination.write_all(b" one").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"a new one");
        Destination::open(&path).unwrap().flush().unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"");
        std::fs::remove_file(&path).unwrap();
    }

    #[test]
    fn a_bad_path_fails_when_it_is_opened() {
        assert!(Destination::open(Path::new("/nonexistent/report")).is_err());
        assert!(matches!(Destination::open(Path::new("-")), Ok(Destination::Stdout)));
    }
}
