//! Facts about the running kernel: offsets for the programs, prototypes, what tracefs offers. Facts only; what is done
//! about them is decided in [`crate::source::ebpf::hooks`].

use std::{
    ffi::CString,
    fs,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    path::{Path, PathBuf},
    ptr::NonNull,
};

use vmaudit_common::Layout;

use crate::os::btf::Btf;
use crate::os::kernel_layout::layout;
use crate::os::rights;

/// Where the kernel shows its type information.
pub const BTF_PATH: &str = "/sys/kernel/btf/vmlinux";

/// What is known of the kernel.
pub struct Facts {
    /// `uname -r`.
    pub release: String,
    /// Major and minor version, (0, 0) when the release does not begin with them.
    pub version: (u32, u32),
    /// `uname -m`.
    pub arch: String,
    /// Offsets; `Err` says which type information is missing.
    pub layout: Result<Layout, String>,
    /// Arguments of mmap_lock_released: 2 (6.14 and later), 3 (before), `None` when the kernel has no such event.
    pub released_arguments: Option<u32>,
    /// Programs can have a task do something on its way back to user space.
    pub task_work: Option<TaskWork>,
    /// Programs can look for the mapping at an address (kernel/bpf/task_iter.c:bpf_find_vma, 5.17 and later).
    pub finds_mappings: bool,
    /// tracefs, for classic tracepoints.
    pub tracefs: Result<Tracefs, String>,
}

/// Functions of the kernel for programs, by their type's id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TaskWork {
    /// bpf_task_work_schedule_resume, under whichever name.
    pub schedule: u32,
    /// bpf_preempt_disable.
    pub preempt_disable: u32,
    /// bpf_preempt_enable.
    pub preempt_enable: u32,
}

impl TaskWork {
    /// `None` where a function is missing, and on PREEMPT_RT, where a thread puts the works to the tasks, perhaps too late
    /// (kernel/irq_work.c:irq_work_queue, run_irq_workd).
    fn find(btf: &Btf<'_>, build: &str) -> Option<Self> {
        if build.contains("PREEMPT_RT") {
            return None;
        }
        Some(Self {
            schedule: SCHEDULE.iter().find_map(|name| btf.function(name))?,
            preempt_disable: btf.function("bpf_preempt_disable")?,
            preempt_enable: btf.function("bpf_preempt_enable")?,
        })
    }
}

/// The kernel's type information: mapped where the kernel can (6.16 and later, kernel/bpf/sysfs_btf.c), else read.
pub struct BtfBytes(Held);

enum Held {
    /// First byte and length of a mapping of the file, which never changes while the kernel runs. Nobody but
    /// [`BtfBytes`] sees the pointer, so no slice of it can outlive the mapping.
    Mapped(NonNull<u8>, usize),
    /// A copy.
    Read(Vec<u8>),
}

impl BtfBytes {
    /// Opens [`BTF_PATH`].
    pub fn open() -> std::io::Result<Self> {
        let file = fs::File::open(BTF_PATH)?;
        let length = file.metadata()?.len() as usize;
        // SAFETY: a new private read-only mapping where the kernel likes; nothing else refers to it.
        let at = unsafe {
            libc::mmap(std::ptr::null_mut(), length, libc::PROT_READ, libc::MAP_PRIVATE, file.as_raw_fd(), 0)
        };
        match NonNull::new(at.cast()).filter(|_| length > 0 && at != libc::MAP_FAILED) {
            Some(first) => Ok(Self(Held::Mapped(first, length))),
            None => Ok(Self(Held::Read(fs::read(BTF_PATH)?))),
        }
    }
}

impl Drop for BtfBytes {
    fn drop(&mut self) {
        if let Held::Mapped(first, length) = self.0 {
            // SAFETY: made by `open`; slices of it were borrowed from this value, so none is left.
            unsafe { libc::munmap(first.as_ptr().cast(), length) };
        }
    }
}

impl std::ops::Deref for BtfBytes {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        match &self.0 {
            // SAFETY: the mapping has so many bytes, is never written, and lives as long as this value.
            Held::Mapped(first, length) => unsafe { std::slice::from_raw_parts(first.as_ptr(), *length) },
            Held::Read(bytes) => bytes,
        }
    }
}

/// The names of one function: from 7.0 on, and in 6.18 and 6.19. The later kernels' types have both, the second for the
/// verifier alone (kernel/bpf/verifier.c: KF_IMPLICIT_ARGS): there is no such function.
const SCHEDULE: [&str; 2] = ["bpf_task_work_schedule_resume", "bpf_task_work_schedule_resume_impl"];

const NAMES: [&str; 41] = [
    "mm_struct",
    "vm_area_struct",
    "task_struct",
    "signal_struct",
    "pt_regs",
    "linux_binprm",
    "cred",
    "file",
    "inode",
    "dentry",
    "vfsmount",
    "mount",
    "sighand_struct",
    "super_block",
    "shmem_sb_info",
    "files_struct",
    "fdtable",
    "user_struct",
    "user_namespace",
    "ucounts",
    "ucount_type",
    "rlimit_type",
    "pid",
    "upid",
    "pid_namespace",
    "nsproxy",
    "css_set",
    "cgroup_subsys_state",
    "pids_cgroup",
    "cgroup_subsys_id",
    "cgroup",
    "kernfs_node",
    "mem_cgroup",
    "rb_node",
    "btf_trace_mmap_lock_released",
    SCHEDULE[0],
    SCHEDULE[1],
    "bpf_preempt_disable",
    "bpf_preempt_enable",
    "btf_trace_mark_victim",
    "bpf_find_vma",
];

impl Facts {
    /// Asks the kernel. Never fails: what cannot be learned is a fact of its own.
    pub fn gather() -> Self {
        let _rights = rights::raised(&rights::EBPF);
        let uname = nix::sys::utsname::uname();
        let text =
            |s: Option<&std::ffi::OsStr>| s.map(|s| s.to_string_lossy().into_owned()).unwrap_or_default();
        let release = text(uname.as_ref().ok().map(|u| u.release()));
        let arch = text(uname.as_ref().ok().map(|u| u.machine()));
        let build = text(uname.as_ref().ok().map(|u| u.version()));
        let bytes = BtfBytes::open();
        let btf = bytes.as_ref().ok().and_then(|b| Btf::parse(b, &NAMES));
        let layout = match (&bytes, &btf) {
            (Err(e), _) => Err(format!("{BTF_PATH} cannot be read ({e})")),
            (Ok(_), None) => Err(format!("{BTF_PATH} has a form that vmaudit does not know")),
            (Ok(_), Some(btf)) => layout(btf, &arch),
        };
        Self {
            version: version_of(&release),
            release,
            arch,
            layout,
            released_arguments: btf
                .as_ref()
                .and_then(|b| b.tracepoint_arguments("btf_trace_mmap_lock_released")),
            task_work: btf.as_ref().and_then(|btf| TaskWork::find(btf, &build)),
            finds_mappings: btf.as_ref().is_some_and(|b| b.function("bpf_find_vma").is_some()),
            tracefs: Tracefs::find(),
        }
    }
}

/// Process numbers here are the ones the kernel's programs see. The first pid namespace has a fixed inode number
/// (include/linux/proc_ns.h:PROC_PID_INIT_INO, all versions); unreadable counts as yes.
pub fn in_first_pid_namespace() -> bool {
    fs::read_link("/proc/self/ns/pid").map_or(true, |link| link.as_os_str() == "pid:[4026531836]")
}

/// The /proc that is mounted here is that of this process's pid namespace, so its numbers are ours; unreadable counts as yes.
pub fn proc_is_ours() -> bool {
    fs::read_link("/proc/self").map_or(true, |link| link.to_str() == Some(&std::process::id().to_string()))
}

/// Major and minor number at the start of a release string.
pub fn version_of(release: &str) -> (u32, u32) {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|n| n.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

/// A way to read tracefs that leaves no mount behind.
pub enum Tracefs {
    /// It is mounted here.
    Mounted(PathBuf),
    /// A mount of our own that is attached nowhere and vanishes with the descriptor.
    Private(OwnedFd),
}

impl Tracefs {
    fn find() -> Result<Self, String> {
        let mut refused = String::new();
        for path in ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"] {
            match fs::metadata(Path::new(path).join("events")) {
                Ok(_) => return Ok(Self::Mounted(path.into())),
                Err(e) if refused.is_empty() => refused = format!("{path}: {e}"),
                Err(_) => {}
            }
        }
        private_mount(c"tracefs")
            .map(Self::Private)
            .map_err(|e| format!("tracefs is not readable ({refused}) and cannot be mounted privately ({e})"))
    }

    /// Reads a file below `events/`.
    fn read(&self, relative: &str) -> std::io::Result<String> {
        match self {
            Self::Mounted(root) => fs::read_to_string(root.join("events").join(relative)),
            Self::Private(fd) => read_below(fd, &format!("events/{relative}")),
        }
    }

    /// Number by which perf_event_open knows an event.
    pub fn event_id(&self, category: &str, name: &str) -> Result<u64, String> {
        let text =
            self.read(&format!("{category}/{name}/id")).map_err(|e| format!("{category}:{name}: {e}"))?;
        text.trim().parse().map_err(|_| format!("{category}:{name} has an odd id"))
    }

    /// Byte offset of a field in an event's record.
    pub fn field_offset(&self, category: &str, name: &str, field: &str) -> Option<u32> {
        field_offset(&self.read(&format!("{category}/{name}/format")).ok()?, field)
    }
}

/// `field:TYPE NAME; offset:N; ...` lines of a format file.
fn field_offset(format: &str, field: &str) -> Option<u32> {
    format.lines().find_map(|line| {
        let mut parts = line.trim().strip_prefix("field:")?.split(';');
        let declared = parts.next()?.rsplit([' ', '*']).next()?;
        let declared = declared.split('[').next()?;
        let offset = parts.next()?.trim().strip_prefix("offset:")?.parse().ok()?;
        (declared == field).then_some(offset)
    })
}

/// Reads a file below an open directory; /proc/self/fd would need /proc, openat does not.
fn read_below(directory: &OwnedFd, path: &str) -> std::io::Result<String> {
    let path = CString::new(path)?;
    // SAFETY: `path` is a valid C string, `directory` an open directory.
    let file =
        unsafe { libc::openat(directory.as_raw_fd(), path.as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC) };
    if file < 0 {
        return Err(std::io::Error::last_os_error());
    }
    // SAFETY: a fresh descriptor that nobody else owns.
    let file = unsafe { OwnedFd::from_raw_fd(file) };
    std::io::read_to_string(fs::File::from(file))
}

/// The lockdown mode in force: `none`, `integrity` or `confidentiality`; `None` when it cannot be read. With `mount`,
/// securityfs is mounted privately where it is not mounted.
pub fn lockdown(mount: bool) -> Option<String> {
    let text = match fs::read_to_string("/sys/kernel/security/lockdown") {
        Err(_) if mount => read_below(&private_mount(c"securityfs").ok()?, "lockdown").ok()?,
        answer => answer.ok()?,
    };
    // `none [integrity] confidentiality`
    let (_, rest) = text.split_once('[')?;
    rest.split_once(']').map(|(mode, _)| mode.to_owned())
}

/// errno of making the smallest map there is; `None` when that works.
pub fn bpf_refused() -> Option<i32> {
    const BPF_MAP_CREATE: libc::c_int = 0;
    const BPF_MAP_TYPE_ARRAY: u32 = 2;
    // union bpf_attr: type, bytes of a key, bytes of a value, entries, flags.
    let attr = [BPF_MAP_TYPE_ARRAY, 4, 4, 1, 0];
    // SAFETY: `attr` has the size it is said to have.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, BPF_MAP_CREATE, attr.as_ptr(), size_of_val(&attr)) };
    if fd < 0 {
        return std::io::Error::last_os_error().raw_os_error();
    }
    // SAFETY: a fresh descriptor that nobody else owns.
    drop(unsafe { OwnedFd::from_raw_fd(fd as i32) });
    None
}

/// errno with which raw tracepoints are refused as such; `None` when they are not. Asks for one without a program: the
/// kernel then says EBADF (kernel/bpf/syscall.c:bpf_raw_tracepoint_open, all versions), a policy something else.
pub fn raw_tracepoints_refused() -> Option<i32> {
    const BPF_RAW_TRACEPOINT_OPEN: libc::c_int = 17;
    // union bpf_attr: name (8 bytes), descriptor of the program.
    let attr = [0u32, 0, u32::MAX, 0];
    // SAFETY: `attr` has the size it is said to have.
    let fd =
        unsafe { libc::syscall(libc::SYS_bpf, BPF_RAW_TRACEPOINT_OPEN, attr.as_ptr(), size_of_val(&attr)) };
    let error = std::io::Error::last_os_error().raw_os_error();
    error.filter(|errno| fd < 0 && [libc::EPERM, libc::EACCES, libc::ENOSYS].contains(errno))
}

/// fsopen, fsmount (5.2 and later): a mount that no namespace sees.
fn private_mount(kind: &std::ffi::CStr) -> std::io::Result<OwnedFd> {
    const FSOPEN_CLOEXEC: libc::c_uint = 1;
    const FSCONFIG_CMD_CREATE: libc::c_uint = 6;
    const FSMOUNT_CLOEXEC: libc::c_uint = 1;
    let owned = |fd: libc::c_long| {
        if fd < 0 {
            return Err(std::io::Error::last_os_error());
        }
        // SAFETY: a fresh descriptor that nobody else owns.
        Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
    };
    // SAFETY: a valid C string; the call has no other preconditions.
    let context = owned(unsafe { libc::syscall(libc::SYS_fsopen, kind.as_ptr(), FSOPEN_CLOEXEC) })?;
    // SAFETY: CMD_CREATE takes null key and value.
    let created = unsafe {
        libc::syscall(
            libc::SYS_fsconfig,
            context.as_raw_fd(),
            FSCONFIG_CMD_CREATE,
            std::ptr::null::<u8>(),
            std::ptr::null::<u8>(),
            0,
        )
    };
    if created < 0 {
        return Err(std::io::Error::last_os_error());
    }
    // SAFETY: plain integers.
    owned(unsafe { libc::syscall(libc::SYS_fsmount, context.as_raw_fd(), FSMOUNT_CLOEXEC, 0) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_of_all_distributions_give_their_version() {
        for (release, version) in [
            ("6.18.44-fc-v657", (6, 18)),
            ("7.3-cloud-amd64", (7, 3)),
            ("5.10.0-32-cloud-amd64", (5, 10)),
            ("6.12.107+deb13-cloud-amd64", (6, 12)),
            ("7.3-rc7", (7, 3)),
            ("odd", (0, 0)),
            ("", (0, 0)),
        ] {
            assert_eq!(version_of(release), version, "{release}");
        }
    }

    #[test]
    fn offsets_come_from_the_format_file() {
        let format = "name: sched_process_fork\nID: 1\nformat:\n\tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;\n\n\tfield:__data_loc char[] parent_comm;\toffset:8;\tsize:4;\n\tfield:pid_t child_pid;\toffset:20;\tsize:4;\tsigned:1;\n\tfield:char child_comm[16];\toffset:24;\tsize:16;\n";
        assert_eq!(field_offset(format, "child_pid"), Some(20));
        assert_eq!(field_offset(format, "child_comm"), Some(24));
        assert_eq!(field_offset(format, "parent"), None);
    }
}
