//! Which mappings addresses of a living process fall into. Reads /proc/PID only, never through the process's mounts, and
//! [apart](crate::os::apart), because all of it waits for the process's mmap lock.

use std::{
    fs::File,
    io::{BufReader, Read as _},
    os::fd::{AsRawFd as _, OwnedFd},
    os::unix::fs::OpenOptionsExt as _,
    time::{Duration, Instant},
};

use bytemuck::{Pod, Zeroable};
use nix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

use crate::domain::vma_layout::maps_parser::Parser;
use crate::enrich::symbols::BACKSTOP;
use crate::enrich::symbols::generated::may_be_jitted;
use crate::os::apart::{Beat, child};
use crate::os::rights;

/// What is asked of one process.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Question {
    pub tgid: u32,
    pub addresses: Vec<u64>,
    /// Words of a stack: the code among them is wanted.
    pub words: Vec<u64>,
    /// See [`Lookup::find`].
    pub text: bool,
    /// All code is wanted.
    pub code: bool,
    /// The root directory is wanted, if there is a use for it.
    pub root: bool,
}

/// What was found. Files and the root directory come beside it, as O_PATH descriptors.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Answer {
    /// `None` when the process is gone or hides its mappings.
    pub looked: Option<Looked>,
    /// Mappings whose file is held, by their first and last address, in the order of the descriptors.
    pub held: Vec<(u64, u64)>,
    /// The last descriptor is the root directory; with the process's id in its own pid namespace.
    pub root: Option<u32>,
}

/// Looks; in a child. Rights to other users' processes (CAP_SYS_PTRACE) and to map_files (CAP_CHECKPOINT_RESTORE) are
/// needed in here.
pub fn answer(question: &Question, beat: &Beat) -> (Answer, Vec<OwnedFd>) {
    let Question { tgid, ref addresses, ref words, text, code, root: root_wanted } = *question;
    beat.begin(tgid.into());
    let Some(looked) = Lookup::open(tgid).and_then(|lookup| {
        if code { lookup.find_code(addresses, CODE) } else { lookup.find(addresses, words, text) }
    }) else {
        return Default::default();
    };
    let found = || looked.found.iter().filter_map(|(_, found)| found.as_ref()).chain(&looked.more);
    let (mut held, mut descriptors) = (Vec::new(), Vec::new());
    for Found { start, end, .. } in found().filter(|found| found.inode != 0) {
        if !held.contains(&(*start, *end))
            && held.len() + 1 < child::DESCRIPTORS
            && let Some(fd) = hold(tgid, *start, *end)
        {
            held.push((*start, *end));
            descriptors.push(fd);
        }
    }
    let useful = found().any(|found| found.inode != 0 || may_be_jitted(&found.name));
    let root = if root_wanted && useful { root(tgid) } else { None };
    let root = root.map(|(fd, pid)| {
        descriptors.push(fd);
        pid
    });
    (Answer { looked: Some(looked), held, root }, descriptors)
}

/// An executable mapping.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Found {
    pub start: u64,
    pub end: u64,
    /// Of `start` in the file.
    pub offset: u64,
    pub device: (u32, u32),
    /// 0 = no file.
    pub inode: u64,
    pub name: String,
}

/// `struct procmap_query` of linux/fs.h (6.11).
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Query {
    size: u64,
    query_flags: u64,
    query_addr: u64,
    vma_start: u64,
    vma_end: u64,
    vma_flags: u64,
    vma_page_size: u64,
    vma_offset: u64,
    inode: u64,
    dev_major: u32,
    dev_minor: u32,
    vma_name_size: u32,
    build_id_size: u32,
    vma_name_addr: u64,
    build_id_addr: u64,
}

/// _IOWR('f', 17, struct procmap_query).
const PROCMAP_QUERY: libc::c_ulong = 0xc068_6611;
const VMA_EXECUTABLE: u64 = 4;
/// Query flag: the mapping of the address or else the next one.
const OR_NEXT: u64 = 16;
/// Query flag: executable mappings alone.
const EXECUTABLE_ONLY: u64 = 4;
/// Executable mappings told of one process.
const CODE: usize = 1000;
/// Questions about words of a stack: each says of a mapping, or of a gap between two, what lies there.
const ASKED: usize = 256;
/// Mappings that words lead to.
const MORE: usize = 64;
/// Where the query is not known, the text is read: this much of it, for this time of our own on a processor, which others
/// may keep busy, and this long in all; once per image.
const TEXT_BYTES: u64 = 16 << 20;
const TEXT_WORK: Duration = Duration::from_millis(100 * BACKSTOP);
const TEXT_TIME: Duration = Duration::from_millis(500 * BACKSTOP);

/// How long one reads.
struct Spent {
    began: Instant,
    worked: Duration,
}

impl Spent {
    fn begin() -> Self {
        Self { began: Instant::now(), worked: worked() }
    }

    /// No more is to be read.
    fn is_all(&self) -> bool {
        worked().saturating_sub(self.worked) > TEXT_WORK || self.began.elapsed() > TEXT_TIME
    }
}

/// Time that this thread has had on a processor.
fn worked() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map_or(Duration::ZERO, Duration::from)
}

/// What a look at the mappings gave.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Looked {
    /// The executable mapping of each address, `None` where there is none.
    pub found: Vec<(u64, Option<Found>)>,
    /// Addresses that are not in `found`: the text was not read that far, or not once more.
    pub unread: usize,
    /// Executable mappings that words lie in; some, because words are mostly no addresses.
    pub more: Vec<Found>,
    /// There is more than was read.
    pub cut: bool,
}

/// An open /proc/PID/maps: it stays with the address space that the process had when it was opened.
pub struct Lookup(File);

impl Lookup {
    /// `None` when the process is gone or hides its mappings.
    pub fn open(tgid: u32) -> Option<Self> {
        let _rights = rights::raised(&rights::PROCESSES);
        File::open(format!("/proc/{tgid}/maps")).ok().map(Self)
    }

    /// Looks for the mappings of these addresses, and of those of these words that are addresses of code. `text`: the whole
    /// file may be read where the kernel (before 6.11) cannot be asked for one address.
    pub fn find(&self, addresses: &[u64], words: &[u64], text: bool) -> Option<Looked> {
        let mut found = Vec::with_capacity(addresses.len());
        for &at in addresses {
            match self.query(at) {
                Ok(mapping) => found.push((at, mapping)),
                Err(libc::ENOTTY | libc::EINVAL | libc::ENOSYS) if text => {
                    return self.read(addresses, words);
                }
                Err(libc::ENOTTY | libc::EINVAL | libc::ENOSYS) => {
                    let unread = addresses.len() - found.len();
                    return Some(Looked { found, unread, ..Looked::default() });
                }
                Err(_) => return None,
            }
        }
        match self.fall_into(words) {
            Err(libc::ENOTTY | libc::EINVAL | libc::ENOSYS) if text => self.read(addresses, words),
            more => Some(Looked { found, unread: 0, more: more.unwrap_or_default(), cut: false }),
        }
    }

    /// Looks for the mappings of these addresses and for all code: so many mappings at most.
    pub fn find_code(&self, addresses: &[u64], most: usize) -> Option<Looked> {
        let mut more = Vec::new();
        let (mut at, mut cut) = (0, true);
        while more.len() < most {
            match self.ask(at, OR_NEXT | EXECUTABLE_ONLY) {
                Ok(Some((query, found))) => {
                    at = query.vma_end;
                    more.extend(found);
                }
                Ok(None) => {
                    cut = false;
                    break;
                }
                Err(libc::ENOTTY | libc::EINVAL | libc::ENOSYS) => return self.read_all(addresses, most),
                Err(_) => return None,
            }
        }
        let of = |at: u64| more.iter().find(|found| (found.start..found.end).contains(&at)).cloned();
        let found = addresses.iter().map(|&at| (at, of(at))).collect();
        // A process that has just ended has none.
        (!more.is_empty()).then_some(Looked { found, unread: 0, more, cut })
    }

    /// The same from the text.
    pub(super) fn read_all(&self, addresses: &[u64], most: usize) -> Option<Looked> {
        let spent = Spent::begin();
        let mut text = (&self.0).take(TEXT_BYTES);
        let mut parser = Parser::new(BufReader::with_capacity(1 << 16, &mut text));
        let (mut more, mut lines, mut cut) = (Vec::new(), 0u64, true);
        while more.len() < most {
            let Some(mapping) = parser.next_mapping().ok()? else {
                cut = false;
                break;
            };
            lines += 1;
            if lines.is_multiple_of(1024) && spent.is_all() {
                break;
            }
            if mapping.permissions.execute {
                more.push(Found {
                    start: mapping.start,
                    end: mapping.end,
                    offset: mapping.offset,
                    device: mapping.device,
                    inode: mapping.inode,
                    name: mapping.name.clone(),
                });
            }
        }
        drop(parser);
        // The end of what is read, not of the text.
        cut |= text.limit() == 0;
        let of = |at: u64| more.iter().find(|found| (found.start..found.end).contains(&at)).cloned();
        let found = addresses.iter().map(|&at| (at, of(at)));
        // Cut short: an address that was not met may still be mapped.
        let found: Vec<_> = found.filter(|(_, mapping)| mapping.is_some() || !cut).collect();
        let unread = addresses.len() - found.len();
        // A process that has just ended has none.
        (!more.is_empty() || cut && lines > 0).then_some(Looked { found, unread, more, cut })
    }

    /// The executable mappings that words lie in. What is learned of one word answers for all that lie beside it.
    fn fall_into(&self, words: &[u64]) -> Result<Vec<Found>, i32> {
        let mut more: Vec<Found> = Vec::new();
        let mut known: Vec<(u64, u64)> = Vec::new();
        let mut asked = 0;
        for &word in words {
            if known.iter().any(|&(start, end)| (start..end).contains(&word)) {
                continue;
            }
            if asked >= ASKED || more.len() >= MORE {
                break;
            }
            asked += 1;
            match self.ask(word, OR_NEXT)? {
                Some((query, _)) if query.vma_start > word => known.push((word, query.vma_start)),
                Some((query, found)) => {
                    known.push((query.vma_start, query.vma_end));
                    more.extend(found);
                }
                None => known.push((word, u64::MAX)),
            }
        }
        Ok(more)
    }

    fn query(&self, at: u64) -> Result<Option<Found>, i32> {
        Ok(self
            .ask(at, 0)?
            .and_then(|(_, found)| found)
            .filter(|found| (found.start..found.end).contains(&at)))
    }

    /// The kernel's answer, and the mapping if it is executable.
    fn ask(&self, at: u64, flags: u64) -> Result<Option<(Query, Option<Found>)>, i32> {
        // The kernel gives at most PATH_MAX bytes.
        let mut name = [0u8; 4096];
        let mut query = Query {
            size: size_of::<Query>() as u64,
            query_flags: flags,
            query_addr: at,
            vma_name_size: name.len() as u32,
            vma_name_addr: name.as_mut_ptr() as u64,
            ..Query::zeroed()
        };
        // SAFETY: both `query` and `name` are live, writable and as long as `query` says.
        let answer = unsafe { libc::ioctl(self.0.as_raw_fd(), PROCMAP_QUERY as _, &raw mut query) };
        if answer < 0 {
            return match std::io::Error::last_os_error().raw_os_error() {
                Some(libc::ENOENT) => Ok(None),
                errno => Err(errno.unwrap_or(0)),
            };
        }
        if query.vma_flags & VMA_EXECUTABLE == 0 {
            return Ok(Some((query, None)));
        }
        // Its length includes the final NUL.
        let length = (query.vma_name_size as usize).saturating_sub(1).min(name.len());
        let found = Found {
            start: query.vma_start,
            end: query.vma_end,
            offset: query.vma_offset,
            device: (query.dev_major, query.dev_minor),
            inode: query.inode,
            name: String::from_utf8_lossy(name.get(..length).unwrap_or_default()).into_owned(),
        };
        Ok(Some((query, Some(found))))
    }

    pub(super) fn read(&self, addresses: &[u64], words: &[u64]) -> Option<Looked> {
        let mut words = words.to_vec();
        words.sort_unstable();
        let mut more = Vec::new();
        let spent = Spent::begin();
        let mut found: Vec<(u64, Option<Found>)> = addresses.iter().map(|&at| (at, None)).collect();
        let last = *addresses.iter().chain(words.last()).max()?;
        let mut parser = Parser::new(BufReader::with_capacity(1 << 16, (&self.0).take(TEXT_BYTES)));
        let mut lines = 0u64;
        while let Some(mapping) = parser.next_mapping().ok()? {
            lines += 1;
            // Cut short: an address that was not met may still be mapped.
            if lines.is_multiple_of(1024) && spent.is_all() {
                found.retain(|(_, mapping)| mapping.is_some());
                let unread = addresses.len() - found.len();
                return Some(Looked { found, unread, more, cut: true });
            }
            let executable = || Found {
                start: mapping.start,
                end: mapping.end,
                offset: mapping.offset,
                device: mapping.device,
                inode: mapping.inode,
                name: mapping.name.clone(),
            };
            if mapping.permissions.execute {
                for (at, slot) in &mut found {
                    if (mapping.start..mapping.end).contains(at) {
                        *slot = Some(executable());
                    }
                }
                let next = words.get(words.partition_point(|&word| word < mapping.start));
                if next.is_some_and(|&word| word < mapping.end) && more.len() < MORE {
                    more.push(executable());
                }
            }
            if mapping.end > last {
                break;
            }
        }
        // A process that has just ended has an empty file, and that says nothing of its addresses.
        (lines > 0).then_some(Looked { found, unread: 0, more, cut: false })
    }
}

/// Takes hold of the file mapped there, without opening it. Needs CAP_CHECKPOINT_RESTORE or CAP_SYS_ADMIN.
fn hold(tgid: u32, start: u64, end: u64) -> Option<OwnedFd> {
    path_only(&format!("/proc/{tgid}/map_files/{start:x}-{end:x}"))
}

/// The process's root directory, and its id in its own pid namespace.
fn root(tgid: u32) -> Option<(OwnedFd, u32)> {
    let status = std::fs::read_to_string(format!("/proc/{tgid}/status")).ok()?;
    let inner = status
        .lines()
        .find_map(|line| line.strip_prefix("NSpid:"))
        .and_then(|ids| ids.split_ascii_whitespace().next_back()?.parse().ok());
    Some((path_only(&format!("/proc/{tgid}/root"))?, inner.unwrap_or(tgid)))
}

fn path_only(path: &str) -> Option<OwnedFd> {
    let _rights = rights::raised(&rights::PROCESSES);
    std::fs::OpenOptions::new().read(true).custom_flags(libc::O_PATH).open(path).ok().map(OwnedFd::from)
}
