use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::sync::atomic::{AtomicU32, Ordering};

use super::*;

struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("vmaudit-flight-test-{}-{n}", std::process::id()));
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(&self.0).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn parts(bytes: usize) -> Vec<Arc<[u8]>> {
    vec![vec![1; bytes / 2].into(), vec![2; bytes - bytes / 2].into()]
}

#[test]
fn the_newest_stay_and_files_of_others_are_not_touched() {
    let scratch = Scratch::new();
    let folder = FlightFolder::open(&scratch.0).unwrap();
    std::fs::write(scratch.0.join("vmaudit-flight-notes.txt"), "mine").unwrap();
    symlink("notes", scratch.0.join("vmaudit-flight-link.vma")).unwrap();
    let written: Vec<PathBuf> = (0..MOST_FILES + 4).map(|n| folder.write(&parts(100 + n)).unwrap()).collect();
    assert_eq!(scratch.names().len(), MOST_FILES + 2, "{:?}", scratch.names());
    let newest = written.last().unwrap();
    assert_eq!(std::fs::read(newest).unwrap().len(), 100 + MOST_FILES + 3);
    assert_eq!(std::fs::metadata(newest).unwrap().permissions().mode() & 0o777, 0o600);
    // Another program's start goes on where this one ended.
    FlightFolder::open(&scratch.0).unwrap().write(&parts(7)).unwrap();
    assert_eq!(scratch.names().len(), MOST_FILES + 2);
    assert!(scratch.names().contains(&"vmaudit-flight-notes.txt".to_owned()));
}

/// As somebody does who wants to keep one, or has files of his own that are called alike.
#[test]
fn only_what_is_called_as_the_recorder_calls_its_files_goes() {
    let scratch = Scratch::new();
    let folder = FlightFolder::open(&scratch.0).unwrap();
    let mine = [
        "vmaudit-flight-incident.vma",
        "vmaudit-flight-20260131.vma",
        "vmaudit-flight-20260131T235959Z-incident.vma",
        "vmaudit-flight-20260131T235959Z-7-0-1-2.vma",
        "vmaudit-flight-20260131T235959Z-7.vma",
        "vmaudit-flight-20260131T235959Z--0.vma",
        "vmaudit-flight-20260131T235959Z-7-0.vma.gz",
        "before-vmaudit-flight-20260131T235959Z-7-0.vma",
    ];
    mine.iter().for_each(|name| std::fs::write(scratch.0.join(name), "mine").unwrap());
    let first = folder.write(&parts(10)).unwrap();
    let renamed = scratch.0.join("vmaudit-flight-1-0.vma");
    std::fs::rename(&first, &renamed).unwrap();
    for _ in 0..2 * MOST_FILES {
        let written = folder.write(&parts(10)).unwrap();
        assert!(is_own(written.file_name().unwrap().as_bytes(), END), "{}", written.display());
    }
    assert_eq!(scratch.names().len(), MOST_FILES + mine.len() + 1, "{:?}", scratch.names());
    assert!(mine.iter().all(|name| scratch.0.join(name).exists()) && renamed.exists());
}

/// On a full disk, for example: what was kept of the hours before is still there.
#[test]
fn what_cannot_be_written_costs_no_earlier_file() {
    let name = concat!(module_path!(), "::what_cannot_be_written_costs_no_earlier_file");
    // The limit is that of a whole process.
    crate::alone::alone(name, || {
        let scratch = Scratch::new();
        let folder = FlightFolder::open(&scratch.0).unwrap();
        (0..MOST_FILES).for_each(|_| drop(folder.write(&parts(10)).unwrap()));
        let before = scratch.names();
        let most = libc::rlimit { rlim_cur: 1000, rlim_max: 1000 };
        // SAFETY: `most` lives through the call, and a handler for ignoring takes nothing.
        unsafe {
            libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
            assert_eq!(libc::setrlimit(libc::RLIMIT_FSIZE, &raw const most), 0);
        }
        assert!(folder.write(&parts(5000)).is_err());
        assert_eq!(scratch.names(), before);
        folder.write(&parts(500)).unwrap();
        assert_eq!(scratch.names().len(), MOST_FILES);
    });
}

/// A program that is killed in the middle leaves something that is no recording, and is called so.
#[test]
fn what_is_not_whole_has_another_name_and_goes_in_time() {
    let scratch = Scratch::new();
    let folder = FlightFolder::open(&scratch.0).unwrap();
    let old = scratch.0.join("vmaudit-flight-20260131T235959Z-7-0.vma.part");
    let at_work = scratch.0.join("vmaudit-flight-20260131T235959Z-8-0.vma.part");
    let stranger = scratch.0.join("notes.part");
    for path in [&old, &at_work, &stranger] {
        let file = File::create(path).unwrap();
        let long_ago = SystemTime::now() - std::time::Duration::from_secs(2 * LEFT as u64);
        file.set_modified(if path == &at_work { SystemTime::now() } else { long_ago }).unwrap();
    }
    folder.write(&parts(10)).unwrap();
    assert!(!old.exists() && at_work.exists() && stranger.exists());
    assert_eq!(scratch.names().iter().filter(|name| name.ends_with(PART)).count(), 2);
}

#[test]
fn all_of_them_together_are_bounded() {
    let scratch = Scratch::new();
    let folder = FlightFolder::open(&scratch.0).unwrap();
    // Files with holes take no room on the disk.
    for n in 0..3 {
        let name = format!("{BEGIN}2020010{n}T000000Z-7-0{END}");
        File::create(scratch.0.join(name)).unwrap().set_len(MOST_BYTES / 3).unwrap();
    }
    folder.write(&parts(1)).unwrap();
    assert_eq!(scratch.names().len(), 4, "{:?}", scratch.names());
    folder.write(&parts(10 << 20)).unwrap();
    assert_eq!(scratch.names().len(), 4, "the oldest went: {:?}", scratch.names());
}

/// As `watch` and a service do, both with their files there.
#[test]
fn what_another_recorder_has_let_go_of_is_gone_as_it_should_be() {
    let scratch = Scratch::new();
    let folder = FlightFolder::open(&scratch.0).unwrap();
    (0..MOST_FILES + 3).for_each(|n| {
        let name = format!("{BEGIN}20200101T0000{n:02}Z-7-0{END}");
        std::fs::write(scratch.0.join(name), "old").unwrap();
    });
    let part = format!("{BEGIN}20200101T000000Z-8-0{END}{PART}");
    let long_ago = SystemTime::now() - std::time::Duration::from_secs(2 * LEFT as u64);
    File::create(scratch.0.join(&part)).unwrap().set_modified(long_ago).unwrap();
    let seen = folder.own().unwrap();
    assert_eq!(seen.len(), MOST_FILES + 4);
    // The other one has seen the same, and was faster.
    folder.make_room_of(seen.clone(), OsStr::new("new")).unwrap();
    let left = scratch.names();
    assert_eq!(left.len(), MOST_FILES);
    folder.make_room_of(seen, OsStr::new("new")).unwrap();
    assert_eq!(scratch.names(), left);
}

/// A folder is tried the whole way, also where a file system knows neither links nor renames that spare what is there.
#[test]
fn names_are_given_where_neither_links_nor_careful_renames_are_known() {
    let scratch = Scratch::new();
    let folder = FlightFolder::open(&scratch.0).unwrap();
    assert!(folder.try_by(|_, _| Err(rustix::io::Errno::PERM)).is_err(), "before anything is attached");
    assert!(scratch.names().is_empty(), "{:?}", scratch.names());
    folder.try_by(|part, name| folder.reserved(part, name)).unwrap();
    assert!(scratch.names().is_empty(), "{:?}", scratch.names());
    let (mut file, part) = folder.make("x", PART).unwrap();
    file.write_all(b"whole").unwrap();
    let taken = part.to_str().unwrap().replace(PART, "");
    std::fs::write(scratch.0.join(&taken), "mine").unwrap();
    let name = folder.named(&part, |part, name| folder.reserved(part, name)).unwrap();
    assert_eq!(std::fs::read(scratch.0.join(&taken)).unwrap(), b"mine");
    assert_eq!(std::fs::read(scratch.0.join(&name)).unwrap(), b"whole");
    assert_eq!(scratch.names().len(), 2);
    // Whoever takes the whole file away leaves nothing empty behind.
    assert!(folder.reserved(OsStr::new("gone.part"), OsStr::new("gone")).is_err());
    assert_eq!(scratch.names().len(), 2);
}

#[test]
fn what_somebody_planted_is_neither_followed_nor_written_over() {
    let scratch = Scratch::new();
    let folder = FlightFolder::open(&scratch.0).unwrap();
    let victim = scratch.0.join("victim");
    std::fs::write(&victim, "kept").unwrap();
    let pid = std::process::id();
    symlink(&victim, scratch.0.join(format!("x-{pid}-0.vma"))).unwrap();
    std::fs::hard_link(&victim, scratch.0.join(format!("x-{pid}-1.vma"))).unwrap();
    let (mut file, name) = folder.make("x", "").unwrap();
    file.write_all(b"new").unwrap();
    assert_eq!(name, format!("x-{pid}-2.vma").as_str());
    assert_eq!(std::fs::read(&victim).unwrap(), b"kept");
}

#[test]
fn paths_are_what_they_say() {
    let scratch = Scratch::new();
    std::fs::write(scratch.0.join("file"), "x").unwrap();
    symlink(&scratch.0, scratch.0.join("link")).unwrap();
    for good in [scratch.0.clone(), scratch.0.join(""), scratch.0.join("."), scratch.0.join("link")] {
        FlightFolder::open(&good).unwrap();
    }
    for bad in ["file", "nowhere", "file/"] {
        assert!(FlightFolder::open(&scratch.0.join(bad)).is_err(), "{bad}");
    }
    assert_eq!(scratch.names(), ["file", "link"], "what was tried is gone");
}
