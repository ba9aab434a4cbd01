//! A process that whoever looks at it waits for: it holds its own mmap lock over a page fault in a file of a file system
//! that never answers.
//!
//! Needs root, who mounts a FUSE file system in a mount namespace of its own and then becomes another user: any user could
//! do the same in a user namespace, where the host lets him. The file system's server is a child, and ends with its parent
//! or after [`MOST_S`] seconds: then everybody who waits goes on.

use std::ffi::CString;
use std::sync::atomic::{AtomicU32, Ordering};

use libc::{MAP_NORESERVE, PROT_READ};

use crate::makers::pause_ms;
use crate::memory::{PAGE, call, die, errno, mmap, write_all};
use crate::own::count;

/// nobody.
const USER: u32 = 65534;
/// Backstop: nothing stays stuck on the machine for longer.
const MOST_S: u32 = 120;

/// Both processes see it: whether the server answers reads, and how many it has left without an answer.
struct Shared {
    silent: AtomicU32,
    unanswered: AtomicU32,
}

/// The file system, mounted at a folder; its only file is this program.
struct FileSystem {
    shared: &'static Shared,
    server: i32,
    file: CString,
}

/// Stands with its mmap lock held. Prints `stuck PID VMAS`, the count as it stays.
pub fn lock(folder: &str) -> ! {
    let held = FileSystem::mount(folder).prepare();
    held.take(count());
    stay()
}

/// Holds its lock, and is refused a fork from then on, which is refused before it takes the lock
/// (kernel/fork.c:copy_process).
pub fn refused(folder: &str) -> ! {
    let held = FileSystem::mount(folder).prepare();
    let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: a limit that lives through the call.
    unsafe { libc::setrlimit(libc::RLIMIT_NPROC, &raw const none) };
    held.take(count());
    match call(libc::SYS_clone, [libc::SIGCHLD as usize, 0, 0, 0, 0, 0]) {
        Err(libc::EAGAIN) => stay(),
        other => die(99, format_args!("a fork without room gave {other:?}")),
    }
}

/// Execs this program from the file system, with `words`, after which SIGUSR1 to the server makes it silent. Prints
/// `server PID` before.
pub fn exec(folder: &str, words: &[&str]) -> ! {
    let files = FileSystem::mount(folder);
    write_all(1, format!("server {}\n", files.server).as_bytes());
    let words: Vec<CString> = std::iter::once("prog").chain(words.iter().copied()).map(string).collect();
    let mut argv: Vec<*const libc::c_char> = words.iter().map(|word| word.as_ptr()).collect();
    argv.push(std::ptr::null());
    // SAFETY: strings that end in NUL, and an array that ends in null.
    unsafe { libc::execv(files.file.as_ptr(), argv.as_ptr()) };
    die(99, format_args!("the program on FUSE cannot be run: errno {}", errno()))
}

fn stay() -> ! {
    loop {
        pause_ms(1000);
    }
}

fn string(text: &str) -> CString {
    CString::new(text).unwrap_or_else(|_| die(2, format_args!("a NUL in an argument")))
}

/// An unprivileged process from here on, which may look at itself.
fn become_the_user() {
    // SAFETY: numbers only.
    unsafe {
        if libc::setresgid(USER, USER, USER) != 0 || libc::setresuid(USER, USER, USER) != 0 {
            die(99, format_args!("cannot become another user: errno {}", errno()));
        }
        libc::prctl(libc::PR_SET_DUMPABLE, 1);
    }
}

/// And not later than the backstop.
fn end_with_the_parent() {
    // SAFETY: takes numbers only.
    unsafe {
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
        libc::alarm(MOST_S);
    }
}

impl FileSystem {
    fn mount(folder: &str) -> Self {
        let own = std::fs::read("/proc/self/exe").unwrap_or_default();
        let flags = libc::MAP_ANONYMOUS | libc::MAP_SHARED;
        // SAFETY: a fresh mapping; all zero is a valid Shared.
        let shared = unsafe {
            let page = libc::mmap(std::ptr::null_mut(), PAGE, PROT_READ | libc::PROT_WRITE, flags, -1, 0);
            &*page.cast::<Shared>()
        };
        let target = string(folder);
        // SAFETY: numbers and strings that end in NUL.
        let fuse = unsafe {
            let private = libc::MS_REC | libc::MS_PRIVATE;
            if libc::unshare(libc::CLONE_NEWNS) != 0
                || libc::mount(std::ptr::null(), c"/".as_ptr(), std::ptr::null(), private, std::ptr::null())
                    != 0
            {
                die(99, format_args!("a mount namespace: errno {}", errno()));
            }
            libc::open(c"/dev/fuse".as_ptr(), libc::O_RDWR | libc::O_CLOEXEC)
        };
        let options = string(&format!("fd={fuse},rootmode=40000,user_id={USER},group_id={USER},allow_other"));
        // SAFETY: strings that end in NUL.
        let mounted = unsafe {
            let kind = c"fuse".as_ptr();
            libc::mount(
                kind,
                target.as_ptr(),
                kind,
                libc::MS_NOSUID | libc::MS_NODEV,
                options.as_ptr().cast(),
            )
        };
        if mounted != 0 {
            die(99, format_args!("FUSE cannot be mounted: errno {}", errno()));
        }
        // SAFETY: the child has one thread, as this process has.
        let server = unsafe { libc::fork() };
        if server == 0 {
            // Else the parent would not be allowed to end it.
            become_the_user();
            end_with_the_parent();
            serve(fuse, &own, shared);
        }
        // SAFETY: numbers only.
        unsafe {
            libc::close(fuse);
            libc::alarm(MOST_S);
        }
        become_the_user();
        Self { shared, server, file: string(&format!("{folder}/prog")) }
    }

    /// Everything that needs the lock once more.
    fn prepare(&self) -> Held {
        // SAFETY: a string that ends in NUL; a fresh mapping.
        let page = unsafe {
            let file = libc::open(self.file.as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC);
            libc::mmap(std::ptr::null_mut(), PAGE, PROT_READ, libc::MAP_PRIVATE, file, PAGE as i64)
        };
        if page == libc::MAP_FAILED {
            die(99, format_args!("a file on FUSE cannot be mapped: errno {}", errno()));
        }
        self.shared.silent.store(1, Ordering::SeqCst);
        static GO: AtomicU32 = AtomicU32::new(0);
        static READY: AtomicU32 = AtomicU32::new(0);
        let wait_for = |step: u32| {
            READY.fetch_add(1, Ordering::SeqCst);
            while GO.load(Ordering::SeqCst) < step {
                pause_ms(1);
            }
        };
        let at = page as i64;
        // The first holds the lock for reading over its fault, the second waits for it to write: everybody behind waits too.
        let reader = move || {
            wait_for(1);
            let mut byte = 0u8;
            // SAFETY: strings that end in NUL, a byte that lives through the call.
            unsafe {
                let memory = libc::open(c"/proc/self/mem".as_ptr(), libc::O_RDONLY);
                libc::pread(memory, (&raw mut byte).cast(), 1, at);
            }
        };
        let writer = move || {
            wait_for(2);
            let _ = mmap(PAGE, PROT_READ, MAP_NORESERVE);
        };
        let start =
            |work: Box<dyn FnOnce() + Send>| std::thread::Builder::new().stack_size(1 << 16).spawn(work);
        if start(Box::new(reader)).is_err() || start(Box::new(writer)).is_err() {
            die(99, format_args!("no thread"));
        }
        // Both have mapped by then what a thread maps at its start.
        while READY.load(Ordering::SeqCst) < 2 {
            pause_ms(1);
        }
        Held { go: &GO, shared: self.shared }
    }
}

/// The two threads, ready.
struct Held {
    go: &'static AtomicU32,
    shared: &'static Shared,
}

impl Held {
    /// Lets them go and says so when the lock is theirs. Nothing may be mapped any more.
    fn take(self, vmas: u64) {
        let line = format!("stuck {} {vmas}\n", std::process::id());
        self.go.store(1, Ordering::SeqCst);
        while self.shared.unanswered.load(Ordering::SeqCst) == 0 {
            pause_ms(1);
        }
        self.go.store(2, Ordering::SeqCst);
        // A moment for the writer to queue behind the reader; that it did, the looker finds out.
        pause_ms(20);
        write_all(1, line.as_bytes());
    }
}

/// Answers requests of the kernel (include/uapi/linux/fuse.h); never returns.
fn serve(fuse: i32, content: &[u8], shared: &Shared) -> ! {
    extern "C" fn fall_silent(_: i32) {
        SILENT.store(1, Ordering::SeqCst);
    }
    static SILENT: AtomicU32 = AtomicU32::new(0);
    // SAFETY: the handler stores into a static.
    unsafe { libc::signal(libc::SIGUSR1, fall_silent as extern "C" fn(i32) as usize) };
    let mut request = vec![0u8; 1 << 18];
    loop {
        // SAFETY: a buffer of that length.
        let read = unsafe { libc::read(fuse, request.as_mut_ptr().cast(), request.len()) };
        if read < 0 && [libc::EINTR, libc::ENOENT].contains(&errno()) {
            continue;
        }
        if read < 40 {
            // Unmounted.
            // SAFETY: ends this process.
            unsafe { libc::_exit(0) }
        }
        let word = |at: usize| u32::from_le_bytes(request[at..at + 4].try_into().unwrap_or_default());
        let long = |at: usize| u64::from_le_bytes(request[at..at + 8].try_into().unwrap_or_default());
        let (operation, unique, node) = (word(4), long(8), long(16));
        let silent = SILENT.load(Ordering::SeqCst) != 0;
        let answer = match operation {
            READ | OPEN if silent => None,
            READ if shared.silent.load(Ordering::SeqCst) != 0 => {
                shared.unanswered.fetch_add(1, Ordering::SeqCst);
                None
            }
            READ => {
                let from = (long(48) as usize).min(content.len());
                let to = from.saturating_add(word(56) as usize).min(content.len());
                Some((0, content[from..to].to_vec()))
            }
            LOOKUP => {
                Some((0, [words(&[2, 0, 0, 0, 3600, 0, 3600, 0, 0, 0]), attributes(2, content)].concat()))
            }
            GETATTR => Some((0, [words(&[3600, 0, 0, 0]), attributes(node, content)].concat())),
            OPEN | OPENDIR => Some((0, words(&[0; 4]))),
            INIT => Some((0, words(&[7, 31, 0, 0, 0, 1 << 16, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]))),
            FORGET | INTERRUPT | BATCH_FORGET => None,
            RELEASE | FLUSH | ACCESS => Some((0, Vec::new())),
            _ => Some((-libc::ENOSYS, Vec::new())),
        };
        if let Some((error, body)) = answer {
            let mut reply = words(&[16 + body.len() as u32, error as u32]);
            reply.extend(unique.to_le_bytes());
            reply.extend(body);
            // SAFETY: a buffer of that length. A request that was given up is no matter.
            unsafe { libc::write(fuse, reply.as_ptr().cast(), reply.len()) };
        }
    }
}

const LOOKUP: u32 = 1;
const FORGET: u32 = 2;
const GETATTR: u32 = 3;
const OPEN: u32 = 14;
const READ: u32 = 15;
const RELEASE: u32 = 18;
const FLUSH: u32 = 25;
const INIT: u32 = 26;
const OPENDIR: u32 = 27;
const ACCESS: u32 = 34;
const INTERRUPT: u32 = 36;
const BATCH_FORGET: u32 = 42;

fn words(all: &[u32]) -> Vec<u8> {
    all.iter().flat_map(|word| word.to_le_bytes()).collect()
}

/// struct fuse_attr: the root is a folder, all else is the file.
fn attributes(node: u64, content: &[u8]) -> Vec<u8> {
    let folder = node == 1;
    let size = if folder { 0 } else { content.len() as u32 };
    let mode = if folder { libc::S_IFDIR | 0o755 } else { libc::S_IFREG | 0o755 };
    // ino, size, blocks, atime, mtime, ctime: 64 bits each.
    let mut all = words(&[node as u32, 0, size, 0, size.div_ceil(512), 0, 0, 0, 1, 0, 1, 0]);
    // Their nanoseconds, mode, links, uid, gid, device, block size, flags.
    all.extend(words(&[0, 0, 0, mode, 1, USER, USER, 0, 4096, 0]));
    all
}
