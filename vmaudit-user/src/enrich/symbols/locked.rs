//! What the process that reads strangers' files gives up, for good: every right, and every system call that it does not
//! need. Whoever takes it over by a crafted file holds the descriptors it was given, and a pipe.

use std::collections::BTreeMap;

use caps::{CapSet, Capability};
use nix::{
    sys::resource::{Resource, setrlimit},
    unistd::{Gid, Uid, setgroups, setresgid, setresuid},
};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
};

/// Heap.
const MEMORY: u64 = 1 << 30;
/// Processor time, in seconds; a timer ends single pieces of work earlier.
const PROCESSOR: u64 = 10;
/// Descriptors open at once.
const DESCRIPTORS: u64 = 64;
/// The user and group without rights; the kernel's overflow ids (kernel/sys.c, all versions).
const NOBODY: u32 = 65534;

/// `None` when rights are left: then nothing may be read.
pub fn give_up() -> Option<()> {
    let _ = setrlimit(Resource::RLIMIT_DATA, MEMORY, MEMORY);
    let _ = setrlimit(Resource::RLIMIT_CPU, PROCESSOR, PROCESSOR);
    let _ = setrlimit(Resource::RLIMIT_FSIZE, 0, 0);
    let _ = setrlimit(Resource::RLIMIT_NOFILE, DESCRIPTORS, DESCRIPTORS);
    rights()?;
    let _ = setrlimit(Resource::RLIMIT_NPROC, 0, 0);
    super::child::dies_with_parent();
    // SAFETY: takes numbers only.
    unsafe {
        libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0);
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    }
    // Kernels and containers without seccomp: no rights, all the same.
    if let Some(filter) = filter() {
        let _ = seccompiler::apply_filter(&filter);
    }
    Some(())
}

fn rights() -> Option<()> {
    for capability in [Capability::CAP_SETPCAP, Capability::CAP_SETGID, Capability::CAP_SETUID] {
        let _ = caps::raise(None, CapSet::Effective, capability);
    }
    for capability in caps::read(None, CapSet::Bounding).unwrap_or_default() {
        let _ = caps::drop(None, CapSet::Bounding, capability);
    }
    if Uid::effective().is_root() {
        // Not possible in a user namespace of one user, nor without the right to.
        let _ = setgroups(&[]);
        let nobody = Gid::from_raw(NOBODY);
        let _ = setresgid(nobody, nobody, nobody);
        let nobody = Uid::from_raw(NOBODY);
        let _ = setresuid(nobody, nobody, nobody);
    }
    for set in [CapSet::Ambient, CapSet::Effective, CapSet::Inheritable, CapSet::Permitted] {
        let _ = caps::clear(None, set);
    }
    let none = |set| caps::read(None, set).is_ok_and(|rights| rights.is_empty());
    (none(CapSet::Permitted) && none(CapSet::Effective)).then_some(())
}

/// System calls of a reader of descriptors that it is given. None opens, starts, sends or signals anything.
const ALLOWED: [i64; 25] = [
    libc::SYS_read,
    libc::SYS_pread64,
    libc::SYS_lseek,
    libc::SYS_fstat,
    libc::SYS_close,
    libc::SYS_write,
    libc::SYS_sendmsg,
    libc::SYS_recvmsg,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_madvise,
    libc::SYS_brk,
    libc::SYS_futex,
    libc::SYS_sched_yield,
    libc::SYS_rt_sigreturn,
    libc::SYS_rt_sigprocmask,
    libc::SYS_restart_syscall,
    libc::SYS_sigaltstack,
    libc::SYS_setitimer,
    libc::SYS_clock_gettime,
    libc::SYS_getrandom,
    libc::SYS_getpid,
    libc::SYS_gettid,
    libc::SYS_exit,
    libc::SYS_exit_group,
];

fn filter() -> Option<BpfProgram> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = ALLOWED.iter().map(|&call| (call, Vec::new())).collect();
    for call in [libc::SYS_mmap, libc::SYS_mprotect] {
        let not_executable = SeccompCondition::new(
            2,
            SeccompCmpArgLen::Dword,
            SeccompCmpOp::MaskedEq(libc::PROT_EXEC as u64),
            0,
        );
        rules.insert(call, vec![SeccompRule::new(vec![not_executable.ok()?]).ok()?]);
    }
    let refused = SeccompAction::Errno(libc::EPERM as u32);
    let filter =
        SeccompFilter::new(rules, refused, SeccompAction::Allow, std::env::consts::ARCH.try_into().ok()?);
    filter.ok()?.try_into().ok()
}
