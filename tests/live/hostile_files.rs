//! Programs that name files for vmaudit to open. Which files were opened, the kernel says (inotify); to look a file up
//! without opening it (O_PATH) is no harm and is not told.

use std::ffi::CString;
use std::fs::Permissions;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};

use vmaudit_tests::elf::{self, Section};
use vmaudit_tests::{Scratch, Session, workload};
use vmaudit_user::model::report::{Frame, Report};

const NOBODY: u32 = 65534;

/// Told of each opening of these files.
struct Watched {
    inotify: OwnedFd,
    files: Vec<(i32, PathBuf)>,
}

impl Watched {
    fn new(files: &[&Path]) -> Self {
        // SAFETY: takes numbers only.
        let fd = unsafe { libc::inotify_init1(libc::IN_NONBLOCK | libc::IN_CLOEXEC) };
        assert!(fd >= 0, "{}", std::io::Error::last_os_error());
        // SAFETY: a new descriptor that nobody else owns.
        let inotify = unsafe { OwnedFd::from_raw_fd(fd) };
        let watch = |path: &&Path| {
            let name = CString::new(path.as_os_str().as_encoded_bytes()).unwrap();
            // SAFETY: a string that lives through the call.
            let id = unsafe { libc::inotify_add_watch(fd, name.as_ptr(), libc::IN_OPEN) };
            assert!(id >= 0, "{}: {}", path.display(), std::io::Error::last_os_error());
            (id, path.to_path_buf())
        };
        Self { files: files.iter().map(watch).collect(), inotify }
    }

    /// Those that were opened so far.
    fn opened(&self) -> Vec<&Path> {
        let mut bytes = vec![0u8; 1 << 16];
        // SAFETY: a buffer that lives through the call and is as long as it says.
        let read = unsafe { libc::read(self.inotify.as_raw_fd(), bytes.as_mut_ptr().cast(), bytes.len()) };
        // Events of watched files have no name, so all are of one size.
        let events = bytes[..read.max(0) as usize].chunks_exact(size_of::<libc::inotify_event>());
        let ids = events.map(|event| i32::from_ne_bytes(event[..4].try_into().unwrap()));
        ids.map(|id| &*self.files.iter().find(|(of, _)| *of == id).expect("one of ours").1).collect()
    }
}

/// The workload with more sections, and without lines of its own: those it has bear names that nobody looks for.
fn program(scratch: &Scratch, name: &str, sections: &[Section]) -> PathBuf {
    const OWN: &[u8] = b".debug_";
    let mut bytes = std::fs::read(workload()).expect("the workload is readable");
    let places: Vec<usize> =
        bytes.windows(OWN.len()).enumerate().filter(|(_, part)| *part == OWN).map(|(at, _)| at).collect();
    for at in places {
        bytes[at..at + OWN.len()].copy_from_slice(b".other_");
    }
    let path = scratch.path(name);
    std::fs::write(&path, elf::with(&bytes, sections)).unwrap();
    std::fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
    path
}

/// What vmaudit says of a refused call of this program.
fn report(program: &Path) -> Report {
    let session = Session::vmaudit(&["run", "--no-anonymize", "-o"]);
    let report = session.file("report.json");
    let words = [report.as_os_str(), "--".as_ref(), program.as_os_str()];
    session.words(&words).words(&["--linger", "1500", "causes", "rlimit-as"]).go().succeeded().report()
}

/// The frame in the program itself.
fn frame<'a>(report: &'a Report, program: &Path) -> &'a Frame {
    let stack = &report.failures[0].example.as_ref().expect("an example arrived").stack;
    let of_program = |frame: &&Frame| frame.module.as_deref().map(Path::new) == Some(program);
    stack.iter().find(of_program).unwrap_or_else(|| panic!("{stack:?} {:?}", report.coverage.notes))
}

fn make_node(path: &Path, kind: libc::mode_t, device: libc::dev_t) {
    let name = CString::new(path.as_os_str().as_encoded_bytes()).unwrap();
    // SAFETY: a string that lives through the call.
    let made = unsafe { libc::mknod(name.as_ptr(), kind | 0o666, device) };
    assert_eq!(made, 0, "{}: {}", path.display(), std::io::Error::last_os_error());
    std::fs::set_permissions(path, Permissions::from_mode(0o666)).unwrap();
}

/// A FIFO, a device, root's secret, and a file that everybody may read but that lies elsewhere.
#[test]
fn no_file_is_opened_because_a_program_names_it() {
    let scratch = Scratch::new();
    let [fifo, device, secret] = ["fifo", "device", "secret"].map(|name| scratch.path(name));
    make_node(&fifo, libc::S_IFIFO, 0);
    make_node(&device, libc::S_IFCHR, libc::makedev(1, 3));
    std::fs::write(&secret, "root's").unwrap();
    std::fs::set_permissions(&secret, Permissions::from_mode(0o600)).unwrap();
    let elsewhere = Scratch::new();
    let public = elsewhere.path("public");
    std::fs::write(&public, "anybody's").unwrap();
    // With both ends held, nobody waits in open(), of which nothing would be told.
    let _ends = std::fs::File::options().read(true).write(true).open(&fifo).unwrap();
    let watched = Watched::new(&[&fifo, &device, &secret, &public]);

    let folder = elsewhere.folder().file_name().unwrap().to_str().unwrap();
    let up = format!("../{folder}/public");
    let names: [&[u8]; 8] = [
        fifo.as_os_str().as_encoded_bytes(),
        device.as_os_str().as_encoded_bytes(),
        secret.as_os_str().as_encoded_bytes(),
        public.as_os_str().as_encoded_bytes(),
        up.as_bytes(),
        b"fifo",
        b"device",
        b"secret",
    ];
    for name in names {
        let said = String::from_utf8_lossy(name);
        let program =
            program(&scratch, "program", &[elf::debug_link(name, 0), elf::debug_altlink(name, &[7; 20])]);
        chown(&program, Some(NOBODY), Some(NOBODY)).unwrap();
        let report = report(&program);
        assert_eq!(watched.opened(), Vec::<&Path>::new(), "{said}");
        let frame = frame(&report, &program);
        assert!(
            frame.symbol.as_deref().is_some_and(|s| s.starts_with("workload::") || s == "syscall"),
            "{said}: {frame:?}"
        );
    }
}

#[test]
fn a_debug_file_beside_the_program_gives_lines_if_it_is_the_one_asked_for() {
    let scratch = Scratch::new();
    let mut sections = elf::symbols(&[("only_in_the_debug_file", 0, 1 << 40, 2)]).to_vec();
    sections.extend(elf::lines(1 << 40, 42));
    let debug = elf::file(&sections);
    let path = scratch.path("its.debug");
    std::fs::write(&path, &debug).unwrap();
    let watched = Watched::new(&[&path]);
    for (sum, right) in [(elf::sum(&debug), true), (elf::sum(&debug) ^ 1, false)] {
        let program = program(&scratch, "program", &[elf::debug_link(b"its.debug", sum)]);
        let report = report(&program);
        assert!(!watched.opened().is_empty(), "what the other test relies on is told");
        let frame = frame(&report, &program);
        let of_debug_file = frame.symbol.as_deref() == Some("only_in_the_debug_file");
        let place = (frame.file.as_deref(), frame.line);
        assert_eq!(of_debug_file, right, "{frame:?}");
        assert_eq!(place, if right { (Some("made.c"), Some(42)) } else { (None, None) }, "{frame:?}");
    }
}
