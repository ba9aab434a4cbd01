//! Reads /proc: processes, their names and their VMA counts, without any right beyond what /proc itself asks for.
//!
//! The root is a parameter, so tests give it a made-up /proc in a temporary directory. A process is held by the
//! descriptor of its directory: once it dies, every further read fails, so a reused pid can never lend its figures
//! to an older row.

mod origin;

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read, Seek as _};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat, readlinkat};
use nix::sys::stat::Mode;

use super::cgroup_file::{all_at_root, parse_cgroup_of};
use super::slabs;
use crate::model::report::{Host, Limits};
use crate::model::scan::{NoSlab, ObjectSize, Slab};
use crate::model::unreadable::Unreadable;

/// Bytes of one read of a maps file. The kernel fills one page of it per call; larger does not help it, and the
/// buffer is also that of small files.
const CHUNK: usize = 64 * 1024;

/// Command lines are cut here (bytes): enough for any Flatpak or JVM, and no gift to a hostile process.
const MAX_CMDLINE: u64 = 256 * 1024;

/// `flags` of /proc/PID/stat: the task is a kernel thread (include/linux/sched.h, PF_KTHREAD).
const PF_KTHREAD: u64 = 0x0020_0000;
/// The task is ending, or has ended (as above, PF_EXITING).
const PF_EXITING: u64 = 0x4;

impl From<Errno> for Unreadable {
    fn from(errno: Errno) -> Self {
        match errno {
            Errno::ENOENT | Errno::ESRCH => Self::Gone,
            Errno::EACCES | Errno::EPERM => Self::Forbidden,
            other => Self::Failed(other.desc().to_owned()),
        }
    }
}

impl From<io::Error> for Unreadable {
    fn from(error: io::Error) -> Self {
        match error.raw_os_error() {
            Some(code) => Self::from(Errno::from_raw(code)),
            None if error.kind() == io::ErrorKind::NotFound => Self::Gone,
            None => Self::Failed(error.to_string()),
        }
    }
}

/// What /proc/PID/stat tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stat {
    /// Name, as the kernel holds it (up to 15 bytes of anything).
    pub comm: String,
    /// One letter: `R`, `S`, `Z` ...
    pub state: char,
    /// Parent's process id.
    pub ppid: u32,
    /// Kernel thread.
    pub kernel_thread: bool,
    /// Its first thread is on its way out.
    pub exiting: bool,
    /// Threads.
    pub threads: u64,
    /// Start, clock ticks since boot.
    pub start_ticks: u64,
    /// Where code and stack begin: elsewhere after an exec. 0: not the caller's to know (fs/proc/array.c:do_task_stat).
    pub image: (u64, u64),
}

/// A /proc somewhere.
#[derive(Clone, Debug)]
pub struct Proc {
    root: PathBuf,
}

/// One process, held by the descriptor of its directory.
#[derive(Debug)]
pub struct Handle {
    /// Process id.
    pub pid: u32,
    /// Effective owner.
    pub uid: u32,
    directory: OwnedFd,
}

impl Default for Proc {
    fn default() -> Self {
        Self::new("/proc")
    }
}

impl Proc {
    /// A /proc mounted (or made up) at `root`.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        let root = root.into();
        // Children that read it stand elsewhere.
        Self { root: std::path::absolute(&root).unwrap_or(root) }
    }

    /// Where it is.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The root itself, for paths below it.
    pub fn folder(&self) -> io::Result<OwnedFd> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        Ok(nix::fcntl::open(&self.root, flags, Mode::empty())?)
    }

    /// Every process id, ascending.
    pub fn pids(&self) -> io::Result<Vec<u32>> {
        let mut pids = Vec::with_capacity(1024);
        for entry in std::fs::read_dir(&self.root)? {
            // An entry that vanishes while the directory is read is no error of the scan.
            if let Ok(entry) = entry
                && let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok())
            {
                pids.push(pid);
            }
        }
        pids.sort_unstable();
        Ok(pids)
    }

    /// This process's own children, the ended ones that were not waited for among them; none where the kernel was built
    /// without CONFIG_PROC_CHILDREN. This process must have one thread.
    pub fn own_children(&self) -> Vec<u32> {
        let pid = std::process::id();
        let path = self.root.join(format!("{pid}/task/{pid}/children"));
        let text = std::fs::read_to_string(path).unwrap_or_default();
        text.split_ascii_whitespace().filter_map(|pid| pid.parse().ok()).collect()
    }

    /// Takes hold of one process.
    pub fn open(&self, pid: u32) -> Result<Handle, Unreadable> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let path = self.root.join(pid.to_string());
        let directory = nix::fcntl::open(&path, flags, Mode::empty())?;
        // For /proc/PID itself the owner is the effective user whether or not the process is dumpable
        // (fs/proc/base.c, task_dump_owner), so this needs no look into `status`.
        let uid = nix::sys::stat::fstat(&directory)?.st_uid;
        Ok(Handle { pid, uid, directory })
    }

    /// System-wide limits; unknown ones are `None`.
    pub fn limits(&self) -> Limits {
        Limits {
            max_map_count: self.number("sys/vm/max_map_count"),
            overcommit_memory: self.number("sys/vm/overcommit_memory"),
            overcommit_ratio: self.number("sys/vm/overcommit_ratio"),
        }
    }

    /// Total memory in bytes.
    pub fn memory_bytes(&self) -> Option<u64> {
        self.meminfo_bytes("MemTotal:")
    }

    /// Total memory and swap in bytes: what one request may not exceed in overcommit mode 0.
    pub fn ram_and_swap_bytes(&self) -> Option<u64> {
        self.memory_bytes()?.checked_add(self.meminfo_bytes("SwapTotal:")?)
    }

    /// CommitLimit and Committed_AS in bytes.
    pub fn promised_bytes(&self) -> Option<(u64, u64)> {
        let text = std::fs::read_to_string(self.root.join("meminfo")).ok()?;
        kib_of(&text, "CommitLimit:").zip(kib_of(&text, "Committed_AS:"))
    }

    /// End of all addresses that a process can ask for; `None` where nobody tells.
    pub fn address_end(&self) -> Option<u64> {
        if !cfg!(target_arch = "x86_64") {
            return None;
        }
        // The kernel takes `la57` away from the flags where it does not use five levels of page tables.
        let cpuinfo = BufReader::new(File::open(self.root.join("cpuinfo")).ok()?);
        let flags = cpuinfo.lines().map_while(Result::ok).find(|line| line.starts_with("flags"))?;
        let five_levels = flags.split_ascii_whitespace().any(|flag| flag == "la57");
        // arch/x86/include/asm/page_64_types.h:TASK_SIZE_MAX.
        Some((1 << if five_levels { 56 } else { 47 }) - 4096)
    }

    /// End of the addresses that a process gets without asking for more.
    pub fn usual_address_end() -> u64 {
        if cfg!(target_arch = "x86_64") {
            // arch/x86/include/asm/page_64_types.h:TASK_SIZE_MAX with four levels.
            return (1 << 47) - 4096;
        }
        // arm64 is built for 36 to 48 bits (arch/arm64/include/asm/processor.h:DEFAULT_MAP_WINDOW_64), and nothing says for how
        // many. The stack, where the program's name stands, begins less than a sixteenth below the end.
        // SAFETY: no preconditions.
        let on_stack: u64 = unsafe { libc::getauxval(libc::AT_EXECFN) };
        1 << if on_stack == 0 { 48 } else { 64 - on_stack.leading_zeros() }
    }

    fn meminfo_bytes(&self, name: &str) -> Option<u64> {
        kib_of(&std::fs::read_to_string(self.root.join("meminfo")).ok()?, name)
    }

    /// See [`slabs::sizes`]. The mount of sysfs is the one beside.
    pub fn object_sizes(&self, caches: &[&str]) -> Vec<Option<ObjectSize>> {
        slabs::sizes(&self.root, &self.root.with_file_name("sys"), caches)
    }

    /// See [`slabs::counted`].
    pub fn slab(&self, cache: &str) -> Result<Slab, NoSlab> {
        slabs::counted(&self.root, &self.root.with_file_name("sys"), cache)
    }

    fn number(&self, path: &str) -> Option<u64> {
        std::fs::read_to_string(self.root.join(path)).ok()?.trim().parse().ok()
    }
}

/// The machine this program runs on.
pub fn host() -> Host {
    let name = nix::sys::utsname::uname();
    let of =
        |result: nix::Result<Option<libc::c_long>>| result.ok().flatten().and_then(|n| u64::try_from(n).ok());
    Host {
        name: name.as_ref().map(|n| n.nodename().to_string_lossy().into_owned()).ok(),
        kernel: name.as_ref().map(|n| n.release().to_string_lossy().into_owned()).unwrap_or_default(),
        arch: name.as_ref().map(|n| n.machine().to_string_lossy().into_owned()).unwrap_or_default(),
        cpus: of(nix::unistd::sysconf(nix::unistd::SysconfVar::_NPROCESSORS_ONLN)).unwrap_or(1) as u32,
        page_size: of(nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE)).unwrap_or(4096),
    }
}

impl Handle {
    /// Opens one file of the process.
    pub fn file(&self, name: &str) -> Result<File, Unreadable> {
        let fd = openat(&self.directory, name, OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())?;
        Ok(File::from(fd))
    }

    /// Name, parent, state.
    pub fn stat(&self) -> Result<Stat, Unreadable> {
        let mut bytes = [0u8; 2048];
        let mut file = self.file("stat")?;
        let mut filled = 0;
        while let Some(rest) = bytes.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match file.read(rest)? {
                0 => break,
                n => filled += n,
            }
        }
        parse_stat(bytes.get(..filled).unwrap_or_default())
            .ok_or_else(|| Unreadable::Failed("its stat file has another shape".to_owned()))
    }

    /// Path of the executable; `None` when it may not be read or there is none.
    pub fn exe(&self) -> Option<String> {
        let target = readlinkat(&self.directory, "exe").ok()?;
        Some(String::from_utf8_lossy(&target.into_vec()).into_owned())
    }

    /// The command line as it stands in memory: arguments ended by NUL, or whatever the process wrote over them.
    pub fn cmdline(&self) -> Option<Vec<u8>> {
        let mut bytes = Vec::new();
        self.file("cmdline").ok()?.take(MAX_CMDLINE).read_to_end(&mut bytes).ok()?;
        Some(bytes)
    }

    /// Its cgroups in all hierarchies, as the kernel writes them: see cgroups(7), /proc/PID/cgroup. `None` too for a process
    /// on its way out of a version 1 hierarchy: it is told to be in the root, wherever it was
    /// (kernel/cgroup/cgroup.c:proc_cgroup_show, PF_EXITING; 4.2 and later).
    pub fn cgroups(&self) -> Option<String> {
        let mut bytes = Vec::new();
        self.file("cgroup").ok()?.take(64 << 10).read_to_end(&mut bytes).ok()?;
        let text = String::from_utf8_lossy(&bytes);
        if all_at_root(&text) && self.stat().ok().is_none_or(|stat| stat.exiting) {
            return None;
        }
        Some(text.into())
    }

    /// The cgroup by which `controller` of version 1 counts, or that of version 2.
    pub fn cgroup_of(&self, controller: &str) -> Option<String> {
        parse_cgroup_of(&self.cgroups()?, controller)
    }

    /// Resident memory in bytes; `None` when unknown.
    pub fn resident_bytes(&self) -> Option<u64> {
        let mut text = String::new();
        self.file("statm").ok()?.take(4096).read_to_string(&mut text).ok()?;
        text.split_ascii_whitespace().nth(1)?.parse::<u64>().ok()?.checked_mul(host().page_size)
    }

    /// Number of VMAs by counting the lines of maps, `[vsyscall]` not counted. A process whose first thread has
    /// ended is asked through another thread, because its own maps file is empty.
    pub fn count(&self, stat: &Stat, buffer: &mut CountBuffer) -> Result<u64, Unreadable> {
        if stat.kernel_thread {
            return Err(Unreadable::KernelThread);
        }
        let mut file = self.maps(stat)?;
        match buffer.count(&mut file)? {
            0 if stat.state == 'Z' => Err(Unreadable::Zombie),
            // A user process without a mapping is one that is ending: exit_mm has run, the parent has not heard yet.
            0 => Err(Unreadable::Gone),
            n => Ok(n),
        }
    }

    /// Opens maps, through a living thread if the first one has ended.
    pub fn maps(&self, stat: &Stat) -> Result<File, Unreadable> {
        self.map_file(stat, "maps")
    }

    /// Opens `maps`, `smaps` or `numa_maps`, through a living thread if the first one has ended.
    pub fn map_file(&self, stat: &Stat, name: &str) -> Result<File, Unreadable> {
        if stat.state != 'Z' {
            return self.file(name);
        }
        if stat.threads <= 1 {
            return Err(Unreadable::Zombie);
        }
        for tid in self.threads().into_iter().filter(|&tid| tid != self.pid) {
            if let Ok(file) = self.file(&format!("task/{tid}/{name}")) {
                return Ok(file);
            }
        }
        Err(Unreadable::Zombie)
    }

    fn threads(&self) -> Vec<u32> {
        // A living thread is found among the first ones; a process with 30,000 threads costs no more.
        self.tasks().into_iter().flatten().take(64).collect()
    }

    /// One of its threads bears a name that fits. Never blocks.
    pub fn thread_named(&self, fits: impl Fn(&str) -> bool) -> bool {
        self.tasks().into_iter().flatten().any(|tid| {
            let mut name = [0; 64];
            let read =
                self.file(&format!("task/{tid}/comm")).ok().and_then(|mut file| file.read(&mut name).ok());
            let name =
                read.and_then(|n| name.get(..n)).map(|bytes| bytes.strip_suffix(b"\n").unwrap_or(bytes));
            name.is_some_and(|name| fits(&String::from_utf8_lossy(name)))
        })
    }

    fn tasks(&self) -> Option<impl Iterator<Item = u32>> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let fd = openat(&self.directory, "task", flags, Mode::empty()).ok()?;
        // By way of the descriptor, so that it is this process's folder even if the pid has a new owner by now.
        let entries = std::fs::read_dir(format!("/proc/self/fd/{}", fd.as_raw_fd())).ok()?;
        Some(
            entries
                .flatten()
                .filter_map(|entry| entry.file_name().to_str().and_then(|name| name.parse().ok())),
        )
    }
}

/// The address space behind an open maps file has not ended. An end in the middle looks like the end of the file.
pub fn still_there(mut file: &File) -> bool {
    file.rewind().is_ok() && file.read(&mut [0]).is_ok_and(|read| read > 0)
}

/// A read buffer, kept over a whole scan.
#[derive(Debug)]
pub struct CountBuffer {
    bytes: Vec<u8>,
    tail: Vec<u8>,
}

impl Default for CountBuffer {
    fn default() -> Self {
        Self { bytes: vec![0; CHUNK], tail: Vec::with_capacity(2 * TAIL) }
    }
}

/// Length kept of the end of a maps file: the line of `[vsyscall]` has 90 bytes.
const TAIL: usize = 256;

impl CountBuffer {
    /// Room for another small file; at most as long as the buffer, bytes.
    pub fn bytes(&mut self, most: usize) -> &mut [u8] {
        let most = most.min(self.bytes.len());
        self.bytes.get_mut(..most).unwrap_or_default()
    }

    /// Counts the lines of a maps file, except that of `[vsyscall]`, which is printed and is no VMA of the process.
    pub fn count(&mut self, reader: &mut impl Read) -> io::Result<u64> {
        let mut lines = 0u64;
        self.tail.clear();
        loop {
            let n = match reader.read(&mut self.bytes) {
                Ok(0) => break,
                Ok(n) => n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            let Some(chunk) = self.bytes.get(..n) else { break };
            lines += newlines(chunk);
            if n >= TAIL {
                self.tail.clear();
                self.tail.extend_from_slice(chunk.get(n - TAIL..).unwrap_or_default());
            } else {
                self.tail.extend_from_slice(chunk);
                let surplus = self.tail.len().saturating_sub(TAIL);
                self.tail.drain(..surplus);
            }
        }
        Ok(lines - u64::from(lines > 0 && ends_in_vsyscall(&self.tail)))
    }
}

fn ends_in_vsyscall(tail: &[u8]) -> bool {
    let tail = tail.strip_suffix(b"\n").unwrap_or(tail);
    let last = tail.rsplit(|&b| b == b'\n').next().unwrap_or_default();
    // Both ends are looked at: a file may be named `[vsyscall]`, but no process maps one at the gate's address.
    last.starts_with(b"ffffffffff600000-") && last.ends_with(b"[vsyscall]")
}

/// Newlines in `bytes`, in blocks whose sum fits a byte lane, which the compiler turns into vector code.
fn newlines(bytes: &[u8]) -> u64 {
    bytes
        .chunks(255)
        .map(|block| u64::from(block.iter().fold(0u8, |sum, &b| sum.wrapping_add(u8::from(b == b'\n')))))
        .sum()
}

/// A reader that never takes more than half of the time: after each slice of reading it rests as long, so that a
/// process of millions of VMAs is not held up by the one who looks at it.
#[derive(Debug)]
pub struct Paced<R> {
    inner: R,
    spent: Duration,
}

impl<R: Read> Paced<R> {
    /// Reading time after which a rest is due.
    const SLICE: Duration = Duration::from_millis(5);

    /// Paces `inner`.
    pub fn new(inner: R) -> Self {
        Self { inner, spent: Duration::ZERO }
    }
}

impl<R: Read> Read for Paced<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.spent >= Self::SLICE {
            std::thread::sleep(self.spent.min(Duration::from_millis(50)));
            self.spent = Duration::ZERO;
        }
        let begin = Instant::now();
        let n = self.inner.read(buffer)?;
        self.spent += begin.elapsed();
        Ok(n)
    }
}

pub(crate) fn parse_stat(bytes: &[u8]) -> Option<Stat> {
    // The name may hold spaces, parentheses and newlines: the last `)` ends it.
    let name = bytes.iter().position(|&b| b == b'(')? + 1;
    let close = bytes.iter().rposition(|&b| b == b')')?;
    // proc(5) counts from 1; the rest begins with field 3.
    let fields: Vec<_> = str::from_utf8(bytes.get(close + 1..)?).ok()?.split_ascii_whitespace().collect();
    let field = |number: usize| fields.get(number - 3);
    let flags: u64 = field(9)?.parse().ok()?;
    Some(Stat {
        comm: String::from_utf8_lossy(bytes.get(name..close)?).into_owned(),
        state: field(3)?.chars().next()?,
        ppid: field(4)?.parse().ok()?,
        kernel_thread: flags & PF_KTHREAD != 0,
        exiting: flags & PF_EXITING != 0,
        threads: field(20)?.parse().ok()?,
        start_ticks: field(22)?.parse().ok()?,
        image: [26, 28].map(|number| field(number)?.parse().ok()).map(Option::unwrap_or_default).into(),
    })
}

/// The figure of a line of meminfo, bytes.
fn kib_of(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find(|line| line.starts_with(name))?;
    line.split_ascii_whitespace().nth(1)?.parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    const VSYSCALL: &str =
        "ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0                  [vsyscall]\n";

    fn count(text: &str) -> u64 {
        CountBuffer::default().count(&mut text.as_bytes()).unwrap()
    }

    /// Gives its bytes in pieces of a fixed length, as the kernel does with pages.
    struct Pieces<'a>(&'a [u8], usize);
    impl Read for Pieces<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let n = self.1.min(self.0.len()).min(buffer.len());
            buffer[..n].copy_from_slice(&self.0[..n]);
            self.0 = &self.0[n..];
            Ok(n)
        }
    }

    #[test]
    fn vsyscall_is_not_counted_however_the_bytes_arrive() {
        let line = "7f0000000000-7f0000001000 rw-p 00000000 00:00 0 \n";
        for lines in [0usize, 1, 2, 81, 82, 700] {
            let text = format!("{}{VSYSCALL}", line.repeat(lines));
            for piece in [1, 7, 90, 255, 256, 257, 4096] {
                let n = CountBuffer::default().count(&mut Pieces(text.as_bytes(), piece)).unwrap();
                assert_eq!(n, lines as u64, "{lines} lines in pieces of {piece}");
            }
        }
        assert_eq!(count(""), 0);
        // A file of that name elsewhere is a VMA.
        assert_eq!(count("7f0000000000-7f0000001000 r--p 00000000 08:01 12      /tmp/[vsyscall]\n"), 1);
    }

    #[test]
    fn stat_with_a_hostile_name() {
        let text = b"42 (a) b (\nc) S 7 42 42 0 -1 4194304 1 2 3 4 5 6 7 8 20 0 3 0 998877 1 2 3";
        let stat = parse_stat(text).unwrap();
        assert_eq!(stat.comm, "a) b (\nc");
        assert_eq!((stat.state, stat.ppid, stat.threads, stat.start_ticks), ('S', 7, 3, 998_877));
        assert!(!stat.kernel_thread && !stat.exiting);
        assert!(
            parse_stat(b"42 (a) Z 7 42 42 0 -1 4194308 1 2 3 4 5 6 7 8 20 0 3 0 9 1 2 3").unwrap().exiting
        );
        for cut in 0..text.len() {
            let _ = parse_stat(&text[..cut]);
        }
    }

    #[test]
    fn cgroup_of_a_controller() {
        assert!(all_at_root("9:name=systemd:/\n4:memory:/\n0::/\n") && all_at_root("4:memory:/\n0::/u\n"));
        assert!(!all_at_root("0::/\n") && !all_at_root("4:memory:/a\n3:cpu:/\n") && !all_at_root(""));
        let both = "9:name=systemd:/\n4:memory:/box\n3:cpu,pids:/a:b\n0::/u\n";
        assert_eq!(parse_cgroup_of(both, "pids").as_deref(), Some("/a:b"));
        assert_eq!(parse_cgroup_of("4:memory:/box\n0::/u\n", "pids").as_deref(), Some("/u"));
        assert_eq!(parse_cgroup_of("rubbish\n1:", "pids"), None);
    }

    #[test]
    fn a_zombie_leader_is_read_through_another_thread() {
        let root = std::env::temp_dir().join(format!("vmaudit-proc-{}", std::process::id()));
        let own = root.join("77");
        std::fs::create_dir_all(own.join("task/77")).unwrap();
        std::fs::create_dir_all(own.join("task/78")).unwrap();
        std::fs::write(own.join("stat"), "77 (x) Z 1 1 1 0 -1 4194304 0 0 0 0 0 0 0 0 20 0 2 0 5 0 0")
            .unwrap();
        std::fs::write(own.join("maps"), "").unwrap();
        std::fs::write(own.join("task/78/maps"), "1000-2000 rw-p 00000000 00:00 0 \n".repeat(3)).unwrap();
        let proc = Proc::new(&root);
        assert_eq!(proc.pids().unwrap(), [77]);
        let handle = proc.open(77).unwrap();
        let stat = handle.stat().unwrap();
        assert_eq!(handle.count(&stat, &mut CountBuffer::default()), Ok(3));
        assert_eq!(proc.open(78).unwrap_err(), Unreadable::Gone);
        std::fs::remove_dir_all(root).unwrap();
    }

    #[test]
    fn a_process_that_stands_still_counts_like_its_own_maps() {
        use std::io::Write as _;
        let piped = std::process::Stdio::piped;
        let mut cat = std::process::Command::new("cat").stdin(piped()).stdout(piped()).spawn().unwrap();
        // Once it has answered it is loaded and waits.
        cat.stdin.as_mut().unwrap().write_all(b"!").unwrap();
        cat.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
        let handle = Proc::default().open(cat.id()).unwrap();
        let stat = handle.stat().unwrap();
        let ours = handle.count(&stat, &mut CountBuffer::default());
        let text = std::fs::read_to_string(format!("/proc/{}/maps", cat.id())).unwrap();
        let lines = text.lines().filter(|line| !line.ends_with("[vsyscall]")).count() as u64;
        drop(cat.stdin.take());
        assert!(cat.wait().unwrap().success());
        assert!(lines > 5, "{text}");
        assert_eq!(ours, Ok(lines));
    }

    #[test]
    fn the_end_of_an_address_space_is_told_from_the_end_of_the_file() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let mut file = File::open(format!("/proc/{}/maps", child.id())).unwrap();
        let mut all = Vec::new();
        file.read_to_end(&mut all).unwrap();
        assert!(still_there(&file));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!still_there(&file));
    }
}
