//! Helpers of the end-to-end tests: they start the real `vmaudit` on the `workload` program and read what both say.
//!
//! Nothing here is skipped: what a test needs and does not find ends it with a sentence. Deadlines are backstops for
//! a hanging program, never an expectation of speed.
#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test helper fails by panicking")]

pub mod elf;
pub mod own;
pub mod rows;
pub mod session;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

pub use own::Own;
pub use session::{Done, Running, Session};

/// How long anything may take before it counts as hanging (VMs without hardware help are slow).
pub const BACKSTOP: Duration = Duration::from_secs(300);

/// What workloads and tests call a page, bytes: on arm64 that of the kernels with the larger ones, which is whole pages on
/// all of them.
pub const PAGE: u64 = if cfg!(target_arch = "aarch64") { 16384 } else { 4096 };

/// The program under test.
pub fn vmaudit() -> PathBuf {
    program("VMAUDIT_BIN", "vmaudit")
}

/// The program that makes VMAs.
pub fn workload() -> PathBuf {
    let path = program("WORKLOAD_BIN", "workload");
    assert!(
        path.ends_with("workload"),
        "WORKLOAD_BIN must be named `workload`: tests expect that process name"
    );
    path
}

fn program(variable: &str, name: &str) -> PathBuf {
    let Some(value) = std::env::var_os(variable) else {
        panic!("{variable} must hold the absolute path of `{name}`; `cargo xtask test` sets it");
    };
    let path = PathBuf::from(value);
    assert!(path.is_absolute(), "{variable} must be absolute, it is {}", path.display());
    assert!(path.is_file(), "{variable}: there is no file {}", path.display());
    path
}

/// vm.max_map_count.
pub fn max_map_count() -> u64 {
    let text = std::fs::read_to_string("/proc/sys/vm/max_map_count").expect("vm.max_map_count is readable");
    text.trim().parse().expect("vm.max_map_count is a number")
}

/// This is a test VM of `cargo xtask vm`.
pub fn in_guest() -> bool {
    Path::new("/vm.conf").exists()
}

/// What a test does first that changes the machine. Such tests are in a module `guest_only`, which `cargo xtask test`
/// leaves out and counts.
#[track_caller]
pub fn assert_guest() {
    assert!(in_guest(), "this test changes the machine, so it runs in a test VM only: `cargo xtask vm`");
}

/// A smaller vm.max_map_count for the life of this value, in a guest only: filling a process up to the limit is most of
/// the time of such a test there, and a guest runs one test at a time. Elsewhere nothing is changed.
pub struct LowerLimit(Option<String>);

impl LowerLimit {
    const PATH: &str = "/proc/sys/vm/max_map_count";

    /// Lowers it.
    #[expect(clippy::new_without_default, reason = "it changes the machine")]
    pub fn new() -> Self {
        if !in_guest() {
            return Self(None);
        }
        let before = std::fs::read_to_string(Self::PATH).expect("vm.max_map_count is readable");
        std::fs::write(Self::PATH, "8192").expect("the guest's limit can be changed");
        Self(Some(before))
    }
}

impl Drop for LowerLimit {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            std::fs::write(Self::PATH, before).expect("the guest's limit can be changed back");
        }
    }
}

/// Major and minor version of the running kernel. Needs neither memory nor /proc, so it may be asked after a fork.
pub fn kernel_version() -> (u32, u32) {
    // SAFETY: all zero is a valid utsname, which the call fills.
    let name = unsafe {
        let mut name: libc::utsname = std::mem::zeroed();
        libc::uname(&raw mut name);
        name
    };
    let (mut numbers, mut n) = ([0; 2], 0);
    for byte in name.release {
        match byte as u8 {
            digit @ b'0'..=b'9' => numbers[n] = numbers[n] * 10 + u32::from(digit - b'0'),
            b'.' if n == 0 => n = 1,
            _ => break,
        }
    }
    (numbers[0], numbers[1])
}

/// This kernel charges eBPF to RLIMIT_MEMLOCK (before 5.11), so a caller without CAP_SYS_RESOURCE must have raised it.
pub fn charges_memlock() -> bool {
    kernel_version() < (5, 11)
}

/// This kernel can be asked which mapping an address is in (PROCMAP_QUERY, 6.11); before, all are read one by one.
pub fn has_mapping_query() -> bool {
    kernel_version() >= (6, 11)
}

/// This kernel can run the programs on its lock events: the events came with 5.11, the last helper that the programs
/// call with 5.15, the event of an address space's end with 6.1. Known from its sources, not from what vmaudit says.
pub fn has_lock_events() -> bool {
    kernel_version() >= (6, 1)
}

/// This kernel lets programs have the answer of a call read on the task's way back (bpf_task_work_schedule_resume, 6.18), so
/// that the exits of calls are left alone. Known from its version, not from what vmaudit says.
pub fn answers_can_be_asked_for() -> bool {
    kernel_version() >= (6, 18)
}

/// This kernel tells the mapping of one address (PROCMAP_QUERY, 6.11); before, all mappings are read, for a time.
pub fn mappings_can_be_asked_for() -> bool {
    kernel_version() >= (6, 11)
}

/// This kernel preempts tracing programs, and then skips them (measured: 7.0 and later). Known from its version, not from
/// what vmaudit says.
pub fn preempts_programs() -> bool {
    kernel_version() >= (7, 0)
}

/// This kernel was built with kprobes that perf_event_open attaches (4.17 and later with CONFIG_KPROBE_EVENTS).
pub fn has_kprobes() -> bool {
    Path::new("/sys/bus/event_source/devices/kprobe").exists()
}

/// A folder that everybody may write to, gone when dropped.
pub struct Scratch(PathBuf);

impl Scratch {
    /// Makes it.
    #[expect(clippy::new_without_default, reason = "it touches the file system")]
    pub fn new() -> Self {
        use std::os::unix::fs::PermissionsExt as _;
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("vmaudit-live-{}-{n}", std::process::id()));
        std::fs::create_dir(&path).expect("the scratch folder can be made");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o777))
            .expect("chmod of the scratch folder");
        Self(path)
    }

    /// Path of `name` in it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A tmpfs of so many bytes, gone when dropped.
pub struct SmallDisk(std::ffi::CString);

/// Mounts one.
pub fn mount_small(folder: &Path, bytes: u64) -> SmallDisk {
    use std::os::unix::ffi::OsStrExt as _;
    let at = std::ffi::CString::new(folder.as_os_str().as_bytes()).expect("a path without NUL");
    let options = std::ffi::CString::new(format!("size={bytes},mode=755")).expect("no NUL");
    // SAFETY: all strings end in NUL and live through the call.
    let answer =
        unsafe { libc::mount(c"none".as_ptr(), at.as_ptr(), c"tmpfs".as_ptr(), 0, options.as_ptr().cast()) };
    assert_eq!(answer, 0, "a small disk: {}", std::io::Error::last_os_error());
    SmallDisk(at)
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // SAFETY: the string ends in NUL.
        unsafe { libc::umount2(self.0.as_ptr(), libc::MNT_DETACH) };
    }
}

/// Looks every few milliseconds until there is an answer; panics with `what` at the backstop.
pub fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(start.elapsed() < BACKSTOP, "waited {BACKSTOP:?} for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Sends a signal.
pub fn send_signal(pid: u32, signal: i32) {
    // SAFETY: kill takes no pointers.
    let answer = unsafe { libc::kill(pid as i32, signal) };
    assert_eq!(answer, 0, "kill({pid}, {signal}): {}", std::io::Error::last_os_error());
}

/// Does the process exist and is it no zombie?
pub fn alive(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| stat.rsplit(") ").next().is_some_and(|rest| !rest.starts_with(['Z', 'X'])))
}
