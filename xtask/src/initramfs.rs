//! The guest's file system: a cpio archive in the kernel's "newc" format (Documentation/driver-api/early-userspace/
//! buffer-format.rst), written in memory, so that device nodes need no root.

use std::collections::BTreeSet;

const FOLDER: u32 = 0o040_755;
const PROGRAM: u32 = 0o100_755;
const TEXT: u32 = 0o100_644;
const CHARACTER_DEVICE: u32 = 0o020_600;

/// An archive being written.
#[derive(Debug, Default)]
pub struct Initramfs {
    bytes: Vec<u8>,
    entries: u32,
    folders: BTreeSet<String>,
}

impl Initramfs {
    /// Adds an empty folder, and those above it. Paths have no leading slash.
    pub fn folder(&mut self, path: &str) {
        let ends = path.match_indices('/').map(|(at, _)| at).chain([path.len()]);
        for end in ends {
            if self.folders.insert(path[..end].to_owned()) {
                self.entry(&path[..end], FOLDER, 2, (0, 0), &[]);
            }
        }
    }

    /// Adds an executable file.
    pub fn program(&mut self, path: &str, content: &[u8]) {
        self.file(path, PROGRAM, content);
    }

    /// Adds a file.
    pub fn text(&mut self, path: &str, content: &str) {
        self.file(path, TEXT, content.as_bytes());
    }

    /// Adds a character device.
    pub fn device(&mut self, path: &str, major: u32, minor: u32) {
        self.above(path);
        self.entry(path, CHARACTER_DEVICE, 1, (major, minor), &[]);
    }

    /// Ends the archive.
    pub fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, 1, (0, 0), &[]);
        self.bytes
    }

    fn file(&mut self, path: &str, mode: u32, content: &[u8]) {
        self.above(path);
        self.entry(path, mode, 1, (0, 0), content);
    }

    fn above(&mut self, path: &str) {
        if let Some((folder, _)) = path.rsplit_once('/') {
            self.folder(folder);
        }
    }

    fn entry(&mut self, path: &str, mode: u32, links: u32, device: (u32, u32), content: &[u8]) {
        self.entries += 1;
        // inode, mode, uid, gid, links, mtime, size, device of the file system (2), device (2), length of name, checksum
        let numbers = [
            self.entries,
            mode,
            0,
            0,
            links,
            0,
            content.len() as u32,
            0,
            0,
            device.0,
            device.1,
            path.len() as u32 + 1,
            0,
        ];
        self.bytes.extend(b"070701");
        for number in numbers {
            self.bytes.extend(format!("{number:08x}").into_bytes());
        }
        self.bytes.extend(path.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend(content);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq)]
    struct Entry {
        inode: u32,
        path: String,
        mode: u32,
        device: (u32, u32),
        content: Vec<u8>,
    }

    /// Reads an archive as the kernel does (init/initramfs.c).
    fn read(mut bytes: &[u8]) -> Vec<Entry> {
        let mut entries = Vec::new();
        loop {
            assert_eq!(&bytes[..6], b"070701");
            let number = |index: usize| {
                let text = str::from_utf8(&bytes[6 + 8 * index..14 + 8 * index]).unwrap();
                u32::from_str_radix(text, 16).unwrap()
            };
            let (size, name_len) = (number(6) as usize, number(11) as usize);
            let path = str::from_utf8(&bytes[110..110 + name_len]).unwrap();
            let path = path.strip_suffix('\0').expect("a name ends with a zero").to_owned();
            let start = (110 + name_len).next_multiple_of(4);
            if path == "TRAILER!!!" {
                assert_eq!(bytes.len(), start, "nothing follows the trailer");
                return entries;
            }
            let content = bytes[start..start + size].to_vec();
            entries.push(Entry {
                inode: number(0),
                path,
                mode: number(1),
                device: (number(9), number(10)),
                content,
            });
            bytes = &bytes[(start + size).next_multiple_of(4)..];
        }
    }

    #[test]
    fn an_archive_reads_back_as_it_was_written() {
        let mut archive = Initramfs::default();
        archive.device("dev/console", 5, 1);
        archive.folder("sys/fs/bpf");
        archive.program("init", b"\x7fELF!");
        archive.text("sys/fs/note", "");
        let entries = read(&archive.finish());
        let found: Vec<_> =
            entries.iter().map(|e| (e.path.as_str(), e.mode, e.device, e.content.as_slice())).collect();
        assert_eq!(
            found,
            [
                ("dev", 0o040_755, (0, 0), &b""[..]),
                ("dev/console", 0o020_600, (5, 1), b""),
                ("sys", 0o040_755, (0, 0), b""),
                ("sys/fs", 0o040_755, (0, 0), b""),
                ("sys/fs/bpf", 0o040_755, (0, 0), b""),
                ("init", 0o100_755, (0, 0), b"\x7fELF!"),
                ("sys/fs/note", 0o100_644, (0, 0), b""),
            ]
        );
    }

    #[test]
    fn no_two_entries_share_an_inode() {
        // The kernel takes equal inodes for hard links.
        let mut archive = Initramfs::default();
        for path in ["a", "b/c", "b/d"] {
            archive.text(path, path);
        }
        let inodes: BTreeSet<u32> = read(&archive.finish()).iter().map(|entry| entry.inode).collect();
        assert_eq!(inodes.len(), 4);
    }
}
