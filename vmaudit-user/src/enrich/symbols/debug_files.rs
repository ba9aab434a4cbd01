//! Debug information in files of its own: which file may be taken for a program's, on both sides.
//!
//! A program names such a file itself (`.gnu_debuglink`, `.gnu_debugaltlink`, its build id), and programs are
//! strangers. So the name is a plain one, the file lies beside the program or below /usr/lib/debug, everybody may read
//! it or it is the program owner's, and its contents are those that the program asks for.

use std::{
    fs::File,
    io::{self, Read as _},
    os::fd::{AsFd as _, OwnedFd},
};

use rustix::fs::{Mode, ResolveFlags, Stat};

use super::{
    channel::{Ask, Place},
    checked_open::{below, reopen, stat},
};

/// Below the root directory in which the program was found.
const DEBUG: &str = "usr/lib/debug";
/// The longest file name (include/uapi/linux/limits.h:NAME_MAX, all versions).
const NAME: usize = 255;
/// Bytes of a build id. Linkers make 8 to 32.
const ID: std::ops::RangeInclusive<usize> = 4..=64;
/// The largest file whose sum is made.
const SUMMED: u64 = 2 << 30;

/// Where a program lies.
pub struct Home {
    folder: OwnedFd,
    /// Of the folder, below the root.
    path: String,
    debug: Option<OwnedFd>,
    owner: u32,
}

/// Beside the program and below it; no link, no way up, nothing that was mounted there.
pub const STRICT: ResolveFlags =
    ResolveFlags::BENEATH.union(ResolveFlags::NO_SYMLINKS).union(ResolveFlags::NO_XDEV);
/// Below /usr/lib/debug, where distributions use links among their own files.
const BENEATH: ResolveFlags =
    ResolveFlags::BENEATH.union(ResolveFlags::NO_MAGICLINKS).union(ResolveFlags::NO_XDEV);

/// Opener's side: `None` if this program does not stand by this path below this root.
pub fn home(root: &OwnedFd, path: &str, program: &Stat) -> Option<Home> {
    let relative = path.strip_prefix('/')?;
    let (folder_path, _) = relative.rsplit_once('/').unwrap_or(("", relative));
    let in_root = ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS;
    let there = stat(below(root.as_fd(), relative, in_root)?.as_fd())?;
    if (there.st_dev, there.st_ino) != (program.st_dev, program.st_ino) {
        return None;
    }
    let folder = if folder_path.is_empty() { "." } else { folder_path };
    Some(Home {
        folder: below(root.as_fd(), folder, in_root)?,
        path: folder_path.to_owned(),
        debug: below(root.as_fd(), DEBUG, in_root),
        owner: program.st_uid,
    })
}

/// Opener's side.
pub fn by_name(home: &Home, name: &str, place: Place) -> Option<File> {
    if !plain(name) {
        return None;
    }
    let found = match place {
        Place::Beside => below(home.folder.as_fd(), name, STRICT),
        Place::Below => below(home.folder.as_fd(), &format!(".debug/{name}"), STRICT),
        Place::Global => {
            let path = [home.path.as_str(), name].join("/");
            followed(home, path.trim_start_matches('/'))
        }
    };
    checked(home, &found?)
}

/// Opener's side.
pub fn by_build_id(home: &Home, id: &[u8]) -> Option<File> {
    if !ID.contains(&id.len()) {
        return None;
    }
    let hex: String = id.iter().map(|byte| format!("{byte:02x}")).collect();
    let (first, rest) = hex.split_at(2);
    checked(home, &followed(home, &format!(".build-id/{first}/{rest}.debug"))?)
}

/// O_PATH below /usr/lib/debug; links are followed inside it.
fn followed(home: &Home, path: &str) -> Option<OwnedFd> {
    use rustix::fs::OFlags;
    rustix::fs::openat2(home.debug.as_ref()?, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), BENEATH)
        .ok()
}

/// Everybody may read this file, or it is the program owner's; root's are lent to nobody, because root owns files of
/// all kinds beside programs.
fn checked(home: &Home, found: &OwnedFd) -> Option<File> {
    let stat = stat(found.as_fd())?;
    let owners = stat.st_uid == home.owner && stat.st_uid != 0;
    (stat.st_mode & 0o004 != 0 || owners).then(|| reopen(found.as_fd()))?
}

/// A name in a folder, and nothing that leads to another one.
pub fn plain(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= NAME
        && !matches!(name, "." | "..")
        && !name.bytes().any(|byte| byte == b'/' || byte < b' ')
}

/// Reader's side: what a program says of its debug information.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    pub build_id: Option<Vec<u8>>,
    /// Plain name and CRC.
    pub link: Option<(String, u32)>,
}

impl Wanted {
    /// The questions to the opener, best first.
    pub fn questions(&self, module: usize) -> Vec<Ask> {
        let by_id = self.build_id.clone().map(|id| Ask::BuildId { module, id });
        let places = [Place::Beside, Place::Below, Place::Global];
        let by_name = self
            .link
            .iter()
            .flat_map(|(name, _)| places.map(|place| Ask::Link { module, name: name.clone(), place }));
        by_id.into_iter().chain(by_name).collect()
    }

    /// This file is what was asked for: by the same build id, or, where one of both has none, by its sum.
    pub fn is(&self, file: &File, build_id: Option<&[u8]>, ask: &Ask) -> bool {
        match (self.build_id.as_deref(), build_id, ask, &self.link) {
            (Some(wanted), Some(is), ..) => wanted == is,
            (_, _, Ask::Link { .. }, Some((_, sum))) => crc(file).is_ok_and(|is| is == *sum),
            _ => false,
        }
    }
}

/// Of the whole file, read piece by piece.
fn crc(file: &File) -> io::Result<u32> {
    let mut hasher = crc32fast::Hasher::new();
    let mut piece = vec![0; 1 << 16];
    let mut file = file.take(SUMMED);
    loop {
        match file.read(&mut piece)? {
            0 if file.limit() == 0 => return Err(io::ErrorKind::FileTooLarge.into()),
            0 => return Ok(hasher.finalize()),
            read => hasher.update(piece.get(..read).unwrap_or_default()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_names_are_names() {
        for name in ["g.debug", "...", "a b", "libc-2.41.so", &"x".repeat(255)] {
            assert!(plain(name), "{name}");
        }
        for name in
            ["", ".", "..", "/dev/ptmx", "../x", "a/b", "a/", "x\0y", "x\ny", "\x1b[2J", &"x".repeat(256)]
        {
            assert!(!plain(name), "{name:?}");
        }
    }

    #[test]
    fn a_build_id_comes_first_and_both_must_agree() {
        let mut wanted = Wanted { build_id: Some(vec![7; 20]), link: Some(("g".into(), 0x352441c2)) };
        let questions = wanted.questions(3);
        assert_eq!(questions.len(), 4);
        assert_eq!(questions[0], Ask::BuildId { module: 3, id: vec![7; 20] });
        let path = std::env::temp_dir().join(format!("vmaudit-crc-{}", std::process::id()));
        std::fs::write(&path, "abc").unwrap();
        let file = || File::open(&path).unwrap();
        assert!(wanted.is(&file(), Some(&[7; 20]), &questions[1]));
        assert!(!wanted.is(&file(), Some(&[8; 20]), &questions[1]), "another build");
        assert!(wanted.is(&file(), None, &questions[1]), "by its sum");
        assert!(!wanted.is(&file(), None, &questions[0]), "by build id, and it has none");
        wanted.link = Some(("g".into(), 0x352441c3));
        assert!(!wanted.is(&file(), None, &questions[1]), "another sum");
        std::fs::remove_file(&path).unwrap();
    }
}
