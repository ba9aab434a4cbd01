//! Opens a file that somebody named to be read: a regular one, and nothing that could make us wait or that acts when it
//! is opened.

use std::fs::{File, Metadata};
use std::io::{self, Read as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use crate::os::destination::walk::own_descriptor;

/// What was opened.
#[derive(Debug)]
pub(crate) enum Input {
    /// A regular file; it can be read anywhere.
    File(File),
    /// Standard input, or a descriptor that the caller opened: read from where it stands.
    Stream(File),
}

/// Opens `path`; `-` is standard input. What it leads to is looked at before it is opened. Errors: the system's, and a
/// sentence about what is no regular file.
pub(crate) fn open(path: &Path) -> io::Result<Input> {
    let standard = path.as_os_str() == "-" || path == Path::new("/dev/stdin");
    let own = own_descriptor(if standard { Path::new("/dev/fd/0") } else { path })?;
    if let Some(file) = own {
        let found = file.metadata()?;
        return match kind(&found) {
            None => Ok(Input::File(file)),
            // A pipe that the caller has open: `explain <(cat FILE)`. What comes on standard input is his to choose.
            Some(_) if found.file_type().is_fifo() || standard && !found.is_dir() => Ok(Input::Stream(file)),
            Some(kind) => Err(refused(kind)),
        };
    }
    let there = File::options().read(true).custom_flags(libc::O_PATH).open(path)?;
    let found = there.metadata()?;
    if let Some(kind) = kind(&found) {
        return Err(refused(kind));
    }
    // What has been looked at is what is opened.
    let open =
        |path: &Path| File::options().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path);
    let file = match open(Path::new(&format!("/proc/self/fd/{}", there.as_raw_fd()))) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => open(path)?,
        opened => opened?,
    };
    let now = file.metadata()?;
    if (now.dev(), now.ino()) != (found.dev(), found.ino()) {
        return Err(io::Error::other("it was replaced by another file meanwhile"));
    }
    Ok(Input::File(file))
}

/// The text of a file of at most so many bytes. Errors: see [`open`]; it is larger, or no text.
pub fn text(path: &Path, most: u64) -> io::Result<String> {
    let (Input::File(file) | Input::Stream(file)) = open(path)?;
    let mut bytes = Vec::new();
    file.take(most + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > most {
        return Err(io::Error::other("it is too large"));
    }
    String::from_utf8(bytes).map_err(|_| io::Error::other("it is no text (UTF-8)"))
}

fn refused(kind: &str) -> io::Error {
    io::Error::other(format!("it is {kind}, no regular file"))
}

/// What it is, if it is no regular file.
fn kind(found: &Metadata) -> Option<&'static str> {
    let kind = found.file_type();
    if kind.is_file() {
        None
    } else if kind.is_dir() {
        Some("a directory")
    } else if kind.is_fifo() {
        Some("a FIFO")
    } else if kind.is_socket() {
        Some("a socket")
    } else {
        Some("a device")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_regular_files_are_opened() {
        let folder = std::env::temp_dir().join(format!("vmaudit-input-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let fifo = folder.join("fifo");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let link = folder.join("link");
        std::os::unix::fs::symlink(&fifo, &link).unwrap();
        for (path, why) in [
            (fifo.as_path(), "a FIFO"),
            (&link, "a FIFO"),
            (&folder, "a directory"),
            (Path::new("/dev/zero"), "a device"),
        ] {
            let error = open(path).unwrap_err().to_string();
            assert_eq!(error, format!("it is {why}, no regular file"));
        }
        assert!(matches!(open(Path::new("/proc/self/maps")), Ok(Input::File(_))));
        assert_eq!(open(&folder.join("none")).unwrap_err().kind(), io::ErrorKind::NotFound);
        std::fs::remove_dir_all(folder).unwrap();
    }
}
