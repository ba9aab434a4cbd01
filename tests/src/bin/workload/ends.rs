//! Processes that end by a signal, or as another program than they began. None leaves a core file.

use std::ffi::CString;
use std::os::unix::process::CommandExt as _;

use libc::{MAP_ANONYMOUS, MAP_FAILED, MAP_PRIVATE, MAP_SHARED, PROT_NONE, PROT_READ, PROT_WRITE};

use crate::memory::{PAGE, die, kernel_page, leave, write_all};

const MIB: usize = 1 << 20;
const HUGE: usize = 2 * MIB;

/// Ends as `how` says; `more` words for it.
pub fn run(how: &str, more: &[&str]) -> ! {
    limit(libc::RLIMIT_CORE, 0, 0);
    match (how, more) {
        ("stack", []) => {
            limit(libc::RLIMIT_STACK, MIB, MIB);
            overflow()
        }
        ("stack-no-room", []) => stack_no_room(),
        ("stack-no-space", []) => {
            let size = own_bytes();
            limit(libc::RLIMIT_AS, size + MIB / 2, size + MIB / 2);
            overflow()
        }
        ("thread-stack", []) => {
            let thread = std::thread::Builder::new().stack_size(256 << 10);
            let _ = thread.spawn(|| {
                default_action(libc::SIGSEGV);
                overflow()
            });
            wait_for_ever()
        }
        ("null", []) => {
            default_action(libc::SIGSEGV);
            #[cfg(target_arch = "x86_64")]
            // SAFETY: it is none: this read ends the process, which is the purpose.
            unsafe {
                std::arch::asm!("mov {0}, [{0}]", inout(reg) 16usize => _)
            };
            #[cfg(target_arch = "aarch64")]
            // SAFETY: as above.
            unsafe {
                std::arch::asm!("ldr {0}, [{0}]", inout(reg) 16usize => _)
            };
            still_there()
        }
        ("abort", []) => std::process::abort(),
        ("file-cut", [folder]) => file_cut(&format!("{folder}/cut")),
        ("tmpfs", [folder]) => full_tmpfs(folder),
        ("huge-page", []) => huge_page(),
        ("cpu-soft", []) => burn(1, 60),
        ("cpu-hard", []) => burn(1, 1),
        ("kill-child", [signal]) => kill_child(signal.parse().unwrap_or(libc::SIGKILL)),
        ("child", words) => child(words),
        ("exec", [program, words @ ..]) => {
            let error = std::process::Command::new(program).args(words).exec();
            die(99, format_args!("{program}: {error}"))
        }
        ("handled", [n]) => handled(n.parse().unwrap_or(0)),
        ("cgroup", [folder]) => out_of_memory(folder),
        ("cgroup-gone", [folder]) => cgroup_gone(folder),
        _ => die(2, format_args!("no such end: {how}")),
    }
}

fn still_there() -> ! {
    die(99, format_args!("still there"))
}

fn wait_for_ever() -> ! {
    loop {
        // SAFETY: waits for a signal.
        unsafe { libc::pause() };
    }
}

fn limit(which: libc::__rlimit_resource_t, soft: usize, hard: usize) {
    let limit = libc::rlimit { rlim_cur: soft as u64, rlim_max: hard as u64 };
    // SAFETY: a valid limit.
    if unsafe { libc::setrlimit(which, &raw const limit) } != 0 {
        die(99, format_args!("a limit cannot be set"));
    }
}

/// Rust's runtime has a handler for faults, which says something and ends the process otherwise.
fn default_action(signal: i32) {
    // SAFETY: setting the default action touches no memory.
    unsafe { libc::signal(signal, libc::SIG_DFL) };
}

fn overflow() -> ! {
    #[inline(never)]
    fn deeper(n: u64) -> u64 {
        let page = std::hint::black_box([n as u8; 1024]);
        if n == u64::MAX { 0 } else { deeper(n + 1) + u64::from(page[(n % 1024) as usize]) }
    }
    default_action(libc::SIGSEGV);
    std::hint::black_box(deeper(0));
    still_there()
}

/// Size of the address space, bytes.
fn own_bytes() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    statm.split(' ').next().and_then(|pages| pages.parse::<usize>().ok()).unwrap_or(0) * kernel_page()
}

/// Start of the main stack's mapping.
fn stack_start() -> usize {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
    let line = maps.lines().find(|line| line.ends_with("[stack]"));
    line.and_then(|line| usize::from_str_radix(line.split('-').next()?, 16).ok())
        .unwrap_or_else(|| die(99, format_args!("no stack in /proc/self/maps")))
}

fn map(at: usize, length: usize, protection: i32, flags: i32, fd: i32) -> *mut u8 {
    // SAFETY: MAP_FIXED is not used, so no mapping of this program is replaced.
    let got = unsafe { libc::mmap(at as *mut _, length, protection, flags, fd, 0) };
    if got == MAP_FAILED {
        die(99, format_args!("mmap: {}", std::io::Error::last_os_error()));
    }
    got.cast()
}

/// Touches the memory at an address.
fn touch(at: *mut u8) {
    // SAFETY: mapped by the caller; that there is no page for it ends the process, which is the purpose.
    unsafe { at.write_volatile(1) };
}

/// A mapping stands in the stack's way, far from its limit.
fn stack_no_room() -> ! {
    limit(libc::RLIMIT_STACK, 64 * MIB, 64 * MIB);
    let at = stack_start() - 4 * MIB;
    map(at, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | libc::MAP_FIXED_NOREPLACE, -1);
    overflow()
}

fn open(path: &str, size: usize) -> i32 {
    let name = CString::new(path).unwrap_or_default();
    // SAFETY: a valid C string.
    let fd = unsafe { libc::open(name.as_ptr(), libc::O_RDWR | libc::O_CREAT, 0o600) };
    // SAFETY: sets a length.
    if fd < 0 || unsafe { libc::ftruncate(fd, size as i64) } != 0 {
        die(99, format_args!("{path}: {}", std::io::Error::last_os_error()));
    }
    fd
}

/// A file is cut under its mapping.
fn file_cut(path: &str) -> ! {
    let fd = open(path, 2 * PAGE);
    let at = map(0, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd);
    touch(at.wrapping_add(PAGE));
    // SAFETY: sets a length.
    unsafe { libc::ftruncate(fd, PAGE as i64) };
    default_action(libc::SIGBUS);
    touch(at.wrapping_add(PAGE));
    still_there()
}

/// A file system of 4 pages, and a file of 16 in it. Root, in a mount namespace of its own.
fn full_tmpfs(folder: &str) -> ! {
    let (kind, at) = (c"tmpfs", CString::new(folder).unwrap_or_default());
    let none = std::ptr::null();
    // SAFETY: valid C strings that live through the calls.
    let mounted = unsafe {
        libc::unshare(libc::CLONE_NEWNS) == 0
            && libc::mount(none, c"/".as_ptr(), none, libc::MS_REC | libc::MS_PRIVATE, none.cast()) == 0
            && libc::mount(kind.as_ptr(), at.as_ptr(), kind.as_ptr(), 0, c"size=16384".as_ptr().cast()) == 0
    };
    if !mounted {
        die(99, format_args!("tmpfs: {}", std::io::Error::last_os_error()));
    }
    let fd = open(&format!("{folder}/file"), 16 * PAGE);
    let at = map(0, 16 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd);
    default_action(libc::SIGBUS);
    (0..16).for_each(|page| touch(at.wrapping_add(page * PAGE)));
    still_there()
}

/// More huge pages than there are.
fn huge_page() -> ! {
    let flags = MAP_PRIVATE | MAP_ANONYMOUS | libc::MAP_HUGETLB | libc::MAP_NORESERVE;
    default_action(libc::SIGBUS);
    loop {
        touch(map(0, HUGE, PROT_READ | PROT_WRITE, flags, -1));
    }
}

fn burn(soft: usize, hard: usize) -> ! {
    limit(libc::RLIMIT_CPU, soft, hard);
    loop {
        std::hint::spin_loop();
    }
}

/// A child is killed, and this process goes on.
fn kill_child(signal: i32) -> ! {
    // SAFETY: the child waits only.
    let child = unsafe { libc::fork() };
    if child == 0 {
        default_action(signal);
        wait_for_ever();
    }
    // SAFETY: numbers only; null asks for no status.
    unsafe {
        libc::kill(child, signal);
        libc::waitpid(child, std::ptr::null_mut(), 0);
    }
    leave(0)
}

/// A child does what the words say; this process goes on.
fn child(words: &[&str]) -> ! {
    // SAFETY: this program has one thread.
    let child = unsafe { libc::fork() };
    if child == 0 {
        crate::dispatch(words);
    }
    write_all(1, format!("child {child}\n").as_bytes());
    // SAFETY: as above.
    unsafe { libc::waitpid(child, std::ptr::null_mut(), 0) };
    leave(0)
}

/// Handles `n` faults, as virtual machines do, then dies of one.
fn handled(n: usize) -> ! {
    use std::sync::atomic::{AtomicUsize, Ordering};
    static PAGE_AT: AtomicUsize = AtomicUsize::new(0);
    extern "C" fn allow(_: i32) {
        // SAFETY: the page was mapped below and holds nothing.
        unsafe { libc::mprotect(PAGE_AT.load(Ordering::Relaxed) as *mut _, PAGE, PROT_READ | PROT_WRITE) };
    }
    let at = map(0, PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1);
    PAGE_AT.store(at as usize, Ordering::Relaxed);
    // SAFETY: the handler makes a system call only.
    unsafe { libc::signal(libc::SIGSEGV, allow as extern "C" fn(i32) as libc::sighandler_t) };
    for _ in 0..n {
        touch(at);
        // SAFETY: as above.
        unsafe { libc::mprotect(at.cast(), PAGE, PROT_NONE) };
    }
    default_action(libc::SIGSEGV);
    touch(at);
    still_there()
}

/// Fills its memory cgroup.
fn out_of_memory(folder: &str) -> ! {
    if let Err(error) = std::fs::write(format!("{folder}/cgroup.procs"), "0") {
        die(99, format_args!("cannot join {folder}: {error}"));
    }
    // An exec, as programs that are put into a cgroup make it.
    let error = std::process::Command::new("/proc/self/exe").args(["fill"]).exec();
    die(99, format_args!("cannot start anew: {error}"))
}

/// A child fills its memory cgroup, which is removed before vmaudit, this process's parent, hears of it.
fn cgroup_gone(folder: &str) -> ! {
    crate::dies::stop_the_tracer_until(|| {
        // SAFETY: this program has one thread.
        let child = unsafe { libc::fork() };
        if child == 0 {
            out_of_memory(folder);
        }
        // SAFETY: as above.
        unsafe { libc::waitpid(child, std::ptr::null_mut(), 0) };
        // Who was in it leaves it a moment later.
        while let Err(error) = std::fs::remove_dir(folder) {
            if error.raw_os_error() != Some(libc::EBUSY) {
                die(99, format_args!("cannot remove {folder}: {error}"));
            }
            std::thread::yield_now();
        }
    });
    leave(0)
}

/// Takes all memory that there is.
pub fn fill() -> ! {
    const MOST: usize = 1 << 33;
    let at = map(0, MOST, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | libc::MAP_NORESERVE, -1);
    (0..MOST / PAGE).for_each(|page| touch(at.wrapping_add(page * PAGE)));
    still_there()
}
