use std::os::unix::fs::{OpenOptionsExt as _, symlink};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use super::*;

struct Folder(PathBuf);

impl Folder {
    fn new(mode: u32) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("vmaudit-destination-{}-{n}", std::process::id()));
        std::fs::create_dir(&path).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
        Self(path)
    }
    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
    fn names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(&self.0).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn whole(path: &Path) -> io::Result<Destination> {
    Destination::open(path, Writing::Whole)
}

#[test]
fn an_earlier_report_stays_until_the_new_one_is_complete() {
    let folder = Folder::new(0o755);
    let path = folder.path("report");
    std::fs::write(&path, "an earlier and longer report").unwrap();
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o640)).unwrap();
    let mut destination = whole(&path).unwrap();
    destination.write_all(b"a new").unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), b"an earlier and longer report");
    drop(destination);
    assert_eq!(std::fs::read(&path).unwrap(), b"an earlier and longer report");
    let mut destination = whole(&path).unwrap();
    destination.write_all(b"a new").unwrap();
    destination.write_all(b" one").unwrap();
    destination.flush().unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), b"a new one");
    assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o640);
    whole(&path).unwrap().flush().unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), b"");
    assert_eq!(folder.names(), ["report"]);
}

#[test]
fn a_new_file_is_there_when_it_is_complete_and_lines_are_there_at_once() {
    let folder = Folder::new(0o755);
    let mut destination = whole(&folder.path("new")).unwrap();
    destination.write_all(b"half").unwrap();
    assert!(folder.names().is_empty());
    destination.flush().unwrap();
    let mut lines = Destination::open(&folder.path("lines"), Writing::Lines).unwrap();
    lines.write_all(b"one\n").unwrap();
    assert_eq!(std::fs::read(folder.path("lines")).unwrap(), b"one\n");
    assert_eq!(folder.names(), ["lines", "new"]);
}

#[test]
fn where_files_have_names_from_the_start_none_is_left() {
    let folder = Folder::new(0o755);
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY;
    let at = || nix::fcntl::open(&folder.0, flags, Mode::empty()).unwrap();
    let file = || File::options().write(true).create_new(true).mode(0o600).open(folder.path(".t")).unwrap();
    let target = || Target {
        file: file(),
        state: State::Beside(Beside {
            folder: at(),
            name: "report".into(),
            temporary: Some(".t".into()),
            rights: &[],
        }),
    };
    drop(target());
    assert!(folder.names().is_empty());
    let mut destination = Destination::File(target());
    destination.write_all(b"x").unwrap();
    destination.flush().unwrap();
    drop(destination);
    assert_eq!(folder.names(), ["report"]);
}

#[test]
fn links_and_fifos_of_a_folder_of_ones_own_are_used() {
    let folder = Folder::new(0o755);
    symlink("there/../target", folder.path("link")).unwrap();
    std::fs::create_dir(folder.path("there")).unwrap();
    whole(&folder.path("link")).unwrap().flush().unwrap();
    assert_eq!(folder.names(), ["link", "target", "there"]);
    symlink("loop", folder.path("loop")).unwrap();
    assert_eq!(whole(&folder.path("loop")).unwrap_err().raw_os_error(), Some(libc::ELOOP));
    nix::unistd::mkfifo(&folder.path("fifo"), Mode::S_IRWXU).unwrap();
    let reader = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(folder.path("fifo")).unwrap();
    let mut destination = whole(&folder.path("fifo")).unwrap();
    destination.write_all(b"through").unwrap();
    destination.flush().unwrap();
    drop(destination);
    assert_eq!(io::read_to_string(reader).unwrap(), "through");
}

#[test]
fn what_may_be_planted_in_a_shared_folder_is_refused() {
    let folder = Folder::new(0o777);
    nix::unistd::mkfifo(&folder.path("fifo"), Mode::S_IRWXU).unwrap();
    std::fs::write(folder.path("one"), "kept").unwrap();
    std::fs::hard_link(folder.path("one"), folder.path("two")).unwrap();
    for (name, what) in [("fifo", "a FIFO"), ("two", "several names")] {
        for writing in [Writing::Whole, Writing::Lines] {
            let error = Destination::open(&folder.path(name), writing).unwrap_err().to_string();
            assert!(error.contains(what) && error.contains("others can write to"), "{error}");
        }
    }
    assert_eq!(std::fs::read(folder.path("one")).unwrap(), b"kept");
    // One's own link is one's own wish.
    symlink("/dev/null", folder.path("own")).unwrap();
    whole(&folder.path("own")).unwrap();
}

#[test]
fn a_bad_path_fails_when_it_is_opened() {
    for bad in
        ["/nonexistent/report", "/tmp", "/tmp/", "/tmp/.", "/tmp/..", "/", "", "/dev/fd/999999", "/dev/fd/-1"]
    {
        assert!(whole(Path::new(bad)).is_err(), "{bad}");
    }
    assert!(matches!(whole(Path::new("-")), Ok(Destination::Stdout)));
}

#[test]
fn devices_and_own_descriptors_are_what_they_are() {
    let mut full = whole(Path::new("/dev/full")).unwrap();
    assert_eq!(full.write_all(b"x").unwrap_err().raw_os_error(), Some(libc::ENOSPC));
    whole(Path::new("/dev/null")).unwrap().write_all(b"x").unwrap();
    let (mut reader, writer) = io::pipe().unwrap();
    for path in ["/dev/fd/", "/proc/self/fd/", "/proc/thread-self/fd/"] {
        let mut destination = whole(Path::new(&format!("{path}{}", writer.as_raw_fd()))).unwrap();
        destination.write_all(b"x").unwrap();
        destination.flush().unwrap();
    }
    drop(writer);
    let mut all = String::new();
    io::Read::read_to_string(&mut reader, &mut all).unwrap();
    assert_eq!(all, "xxx");
}

#[test]
fn an_empty_no_color_is_none() {
    let wanted =
        |no_color: Option<&str>, term: &str| colour_wanted(no_color.map(OsStr::new), Some(OsStr::new(term)));
    assert!(wanted(None, "xterm") && wanted(Some(""), "xterm") && colour_wanted(None, None));
    assert!(!wanted(Some("0"), "xterm") && !wanted(None, "dumb"));
}
