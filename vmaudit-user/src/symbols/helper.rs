//! Reads symbols in a child process.
//!
//! An ELF file that shrinks under a mapping is a SIGBUS, one that lies is an endless loop or all memory, one on a
//! dead network mount never opens. So a child does it: it has a deadline, little memory and no output but a pipe. When
//! it dies, the next child goes on behind the file that killed it.

use std::{
    collections::{HashMap, HashSet},
    ffi::CString,
    fs::File,
    io::{BufRead as _, BufReader, Read, Write},
    os::fd::{AsFd as _, AsRawFd as _, FromRawFd as _, OwnedFd},
    time::{Duration, Instant},
};

use blazesym::symbolize::{
    Input, Symbolizer,
    source::{Elf, Source},
};
use nix::{
    fcntl::OFlag,
    sys::{
        resource::{Resource, setrlimit},
        signal::{Signal, kill},
        stat::Mode,
        wait::waitpid,
    },
    unistd::{ForkResult, Pid, fork},
};

use super::{
    Handle, Image, Module,
    told::{self, Stamp},
};

/// Heap of the child.
const MEMORY: u64 = 1 << 30;
/// Children after the first.
const RETRIES: usize = 4;
/// All that a child may answer.
const ANSWER: usize = 16 << 20;
/// Characters kept of a name or a path.
const NAME: usize = 1024;
/// Read of a perf map.
const PERF_MAP: u64 = 256 << 20;

/// An address to name.
#[derive(Clone, Copy, Debug)]
pub struct Address {
    pub at: u64,
    pub in_file: u64,
    pub module: Option<usize>,
    pub generation: u64,
    pub jitted: bool,
}

/// What an address is called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name {
    pub symbol: String,
    pub file: Option<String>,
    pub line: Option<u32>,
}

/// One piece of work, after which the child says that it lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Task {
    /// ELF symbols: cheap, so of all files first.
    Elf(usize),
    PerfMap(u64),
    /// ELF symbols, DWARF lines.
    Dwarf(usize),
}

impl Task {
    /// The same for all tasks on one file.
    fn file(&self) -> Self {
        match *self {
            Self::Dwarf(module) => Self::Elf(module),
            other => other,
        }
    }
}

/// Generated code lives in memory without a file, or with one that has no name.
pub fn may_be_jitted(mapping: &str) -> bool {
    mapping.is_empty()
        || ["[anon", "/memfd:", "//anon", "/dev/zero"].iter().any(|start| mapping.starts_with(start))
}

/// Names by index of the address, and how many files were given up.
pub fn names(
    modules: &[Module],
    images: &HashMap<u64, Image>,
    addresses: &[Address],
    time: Duration,
) -> (HashMap<usize, Name>, u64) {
    let deadline = Instant::now() + time;
    let mut of_modules: Vec<usize> = addresses.iter().filter_map(|address| address.module).collect();
    of_modules.sort_unstable();
    of_modules.dedup();
    let mut jitted: Vec<u64> = addresses.iter().filter(|a| a.jitted).map(|a| a.generation).collect();
    jitted.sort_unstable();
    jitted.dedup();
    let elf = of_modules.iter().map(|&m| Task::Elf(m));
    let dwarf = of_modules.iter().map(|&m| Task::Dwarf(m));
    let tasks: Vec<Task> = elf.chain(jitted.into_iter().map(Task::PerfMap)).chain(dwarf).collect();
    let mut names = HashMap::new();
    let mut next = 0;
    let mut given_up = HashSet::new();
    for _ in 0..=RETRIES {
        let Some(rest) = tasks.get(next..).filter(|rest| !rest.is_empty()) else { break };
        let work = |out: &mut dyn Write| work(modules, images, addresses, rest, out);
        let Some((answer, alive)) = in_child(work, deadline) else { break };
        next += take(&answer, &mut names);
        if let Some(deadly) = tasks.get(next) {
            given_up.insert(deadly.file());
            next += 1;
        }
        if !alive {
            break;
        }
    }
    // What nobody came to: no time was left, too many children died, or none could be started.
    given_up.extend(tasks.iter().skip(next).map(Task::file));
    (names, given_up.len() as u64)
}

/// Reads an answer; returns how many tasks were done.
fn take(answer: &[u8], names: &mut HashMap<usize, Name>) -> usize {
    let mut done = 0;
    for line in answer.split(|&b| b == b'\n') {
        if line == b"null" {
            done += 1;
        } else if let Ok((index, symbol, file, line)) = serde_json::from_slice::<(usize, _, _, _)>(line) {
            names.insert(index, Name { symbol, file, line });
        }
    }
    done
}

/// What `work` wrote, and whether there is time left.
fn in_child(work: impl Fn(&mut dyn Write), deadline: Instant) -> Option<(Vec<u8>, bool)> {
    let (mut from, mut to) = std::io::pipe().ok()?;
    // SAFETY: vmaudit has one thread here, so no lock is held by another one; the child leaves through _exit.
    match unsafe { fork() }.ok()? {
        ForkResult::Child => {
            drop(from);
            let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                confine();
                let _rights = crate::rights::raised(&crate::rights::PROCESSES);
                work(&mut to);
            }));
            // SAFETY: ends this process without running anything of the parent's.
            unsafe { libc::_exit(0) }
        }
        ForkResult::Parent { child } => {
            drop(to);
            let mut answer = Vec::new();
            let alive = read_until(&mut from, &mut answer, deadline);
            end(child);
            Some((answer, alive))
        }
    }
}

fn end(child: Pid) {
    let _ = kill(child, Signal::SIGKILL);
    let _ = waitpid(child, None);
}

/// False when time or space ran out.
fn read_until(from: &mut std::io::PipeReader, answer: &mut Vec<u8>, deadline: Instant) -> bool {
    let mut buffer = [0; 4096];
    loop {
        let left = deadline.saturating_duration_since(Instant::now()).as_millis();
        let mut poll = libc::pollfd { fd: from.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: one live pollfd.
        let ready = unsafe { libc::poll(&raw mut poll, 1, i32::try_from(left).unwrap_or(i32::MAX)) };
        if left == 0 || ready == 0 || answer.len() > ANSWER {
            return false;
        }
        match from.read(&mut buffer) {
            Ok(0) => return true,
            Ok(n) => answer.extend_from_slice(buffer.get(..n).unwrap_or_default()),
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(_) => return true,
        }
    }
}

/// No more than a reader of files needs; nothing on the workload's terminal.
fn confine() {
    let _ = setrlimit(Resource::RLIMIT_DATA, MEMORY, MEMORY);
    let _ = setrlimit(Resource::RLIMIT_CORE, 0, 0);
    let _ = setrlimit(Resource::RLIMIT_CPU, 10, 10);
    // SAFETY: takes a number only.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
    if let Ok(null) = File::options().read(true).write(true).open("/dev/null") {
        for fd in 0..=2 {
            // SAFETY: no Rust object owns the standard descriptors.
            unsafe { libc::dup2(null.as_raw_fd(), fd) };
        }
    }
}

fn work(
    modules: &[Module],
    images: &HashMap<u64, Image>,
    addresses: &[Address],
    tasks: &[Task],
    out: &mut dyn Write,
) {
    let symbolizer = Symbolizer::builder().enable_auto_reload(false).build();
    let mut files: HashMap<usize, Option<File>> = HashMap::new();
    for task in tasks {
        let mut lines = Vec::new();
        let mut say = |index: usize, name: Name| {
            if let Ok(line) = serde_json::to_vec(&(index, name.symbol, name.file, name.line)) {
                lines.extend_from_slice(&line);
                lines.push(b'\n');
            }
        };
        match *task {
            Task::Elf(index) | Task::Dwarf(index) => {
                let Some(module) = modules.get(index) else { continue };
                let file = files.entry(index).or_insert_with(|| open(module));
                let of_this = || addresses.iter().enumerate().filter(|(_, a)| a.module == Some(index));
                if let Some(file) = file {
                    let offsets: Vec<u64> = of_this().map(|(_, a)| a.in_file).collect();
                    let names = symbols(&symbolizer, file, &offsets, matches!(task, Task::Dwarf(_)));
                    for ((index, _), name) in of_this().zip(names) {
                        if let Some(name) = name {
                            say(index, name);
                        }
                    }
                }
            }
            Task::PerfMap(generation) => {
                let of_this =
                    || addresses.iter().enumerate().filter(|(_, a)| a.jitted && a.generation == generation);
                let map = images.get(&generation).and_then(|image| image.root.as_ref());
                if let Some(map) =
                    map.and_then(|(root, pid)| open_below(root, &format!("tmp/perf-{pid}.map")))
                {
                    let wanted: Vec<u64> = of_this().map(|(_, a)| a.at).collect();
                    for ((index, _), symbol) in of_this().zip(perf_map(map, &wanted)) {
                        if let Some(symbol) = symbol {
                            say(index, Name { symbol, file: None, line: None });
                        }
                    }
                }
            }
        }
        lines.extend_from_slice(b"null\n");
        if out.write_all(&lines).is_err() {
            return;
        }
    }
}

/// Opens a regular file and nothing else.
fn open(module: &Module) -> Option<File> {
    match &module.handle {
        Handle::Held(fd, stamp) => {
            let file = reopen(fd)?;
            // What was written into it since was not mapped by a process that is gone.
            stamp
                .is_none_or(|stamp| Stamp::of(&file.as_fd()).is_some_and(|now| now.same_content(&stamp)))
                .then_some(file)
        }
        Handle::Named => {
            let fd = told::find(&module.key.name, false).ok()?;
            let stamp = Stamp::of(&fd.as_fd())?;
            if !stamp.is(&module.key) {
                return None;
            }
            reopen(&fd)
        }
        Handle::Below(root, inode) => {
            use std::os::unix::fs::MetadataExt as _;
            let file = open_below(root, module.key.name.trim_start_matches('/'))?;
            // The device number of a mapping is not always that of stat, so the inode must do.
            (file.metadata().ok()?.ino() == *inode).then_some(file)
        }
    }
}

/// Opens for reading what is held, if it is a regular file; asks before it opens, because opening a device or a FIFO does
/// things.
fn reopen(held: &OwnedFd) -> Option<File> {
    let path = format!("/proc/self/fd/{}", held.as_raw_fd());
    std::fs::metadata(&path).ok().filter(std::fs::Metadata::is_file)?;
    let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC | OFlag::O_NOCTTY;
    nix::fcntl::open(path.as_str(), flags, Mode::empty()).ok().map(File::from)
}

/// Opens a regular file below another root directory; no link leads out of it.
fn open_below(root: &OwnedFd, path: &str) -> Option<File> {
    let path = CString::new(path).ok()?;
    // SAFETY: all bytes zero is a valid open_how.
    let mut how: libc::open_how = unsafe { std::mem::zeroed() };
    how.flags =
        (libc::O_RDONLY | libc::O_NONBLOCK | libc::O_CLOEXEC | libc::O_NOCTTY | libc::O_NOFOLLOW) as u64;
    how.resolve = libc::RESOLVE_IN_ROOT | libc::RESOLVE_NO_MAGICLINKS;
    // SAFETY: path and `how` are live, the size is that of `how`.
    let fd = unsafe {
        libc::syscall(libc::SYS_openat2, root.as_raw_fd(), path.as_ptr(), &raw const how, size_of_val(&how))
    };
    if fd < 0 {
        return None;
    }
    // SAFETY: a new descriptor that nobody else owns.
    let file = File::from(unsafe { OwnedFd::from_raw_fd(fd as i32) });
    file.metadata().ok()?.is_file().then_some(file)
}

fn symbols(symbolizer: &Symbolizer, file: &File, offsets: &[u64], lines: bool) -> Vec<Option<Name>> {
    // Another path for each kind, because the symbolizer keeps what it made of a path.
    let path = match lines {
        false => format!("/proc/self/fd/{}", file.as_raw_fd()),
        true => format!("/proc/self/fd/./{}", file.as_raw_fd()),
    };
    let source = Source::Elf(Elf { debug_syms: lines, ..Elf::new(path) });
    let Ok(found) = symbolizer.symbolize(&source, Input::FileOffset(offsets)) else { return Vec::new() };
    let name = |found: blazesym::symbolize::Symbolized<'_>| {
        let symbol = found.into_sym()?;
        let code = symbol.code_info.as_deref();
        Some(Name {
            // glibc's debug information names its functions by their inner aliases.
            symbol: cut(symbol.name.strip_prefix("__GI_").unwrap_or(&symbol.name)),
            file: code.map(|code| cut(&code.to_path().to_string_lossy())),
            line: code.and_then(|code| code.line),
        })
    };
    found.into_iter().map(name).collect()
}

/// Names of `wanted` by a perf map: lines of start and length in hexadecimal and a name; later lines win.
pub(super) fn perf_map(map: impl Read, wanted: &[u64]) -> Vec<Option<String>> {
    let mut names = vec![None; wanted.len()];
    let mut reader = BufReader::new(map.take(PERF_MAP));
    let mut line = Vec::new();
    loop {
        line.clear();
        let Ok(read) = reader.by_ref().take(4 * NAME as u64).read_until(b'\n', &mut line) else {
            return names;
        };
        if read == 0 {
            return names;
        }
        let text = String::from_utf8_lossy(&line);
        let mut parts = text.trim_end().splitn(3, ' ');
        let mut number = || u64::from_str_radix(parts.next()?.trim_start_matches("0x"), 16).ok();
        let (Some(start), Some(length)) = (number(), number()) else { continue };
        let Some(name) = parts.next() else { continue };
        for (at, slot) in wanted.iter().zip(&mut names) {
            if at.checked_sub(start).is_some_and(|inside| inside < length) {
                *slot = Some(cut(name));
            }
        }
    }
}

fn cut(text: &str) -> String {
    text.chars().take(NAME).collect()
}
