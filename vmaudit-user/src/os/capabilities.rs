//! The capabilities that vmaudit uses: one table, from which `doctor`, the README and the dropping of rights are made.
//!
//! The command gets what the caller would have given it directly, minus what the caller gave vmaudit by the ambient set
//! ([`withhold`]). Rights by file capabilities or by `sudo` are not inherited over exec anyway, and root stays root.

use caps::{CapSet, Capability};

/// One capability and what it is for.
pub struct Right {
    /// Which.
    pub capability: Capability,
    /// What it is for.
    pub gives: &'static str,
    /// What is lost without it, as a sentence.
    pub loses: &'static str,
    /// Without it there is no eBPF at all.
    pub required: bool,
    /// CAP_SYS_ADMIN does as well.
    pub admin_does: bool,
    /// Still needed when the programs are attached.
    pub later: bool,
}

/// The table.
pub const RIGHTS: [Right; 8] = [
    Right {
        capability: Capability::CAP_BPF,
        gives: "loading the eBPF programs and their tables",
        loses: "no eBPF: counts are samples from /proc, failed calls are not seen",
        required: true,
        admin_does: true,
        later: false,
    },
    Right {
        capability: Capability::CAP_PERFMON,
        gives: "attaching the programs, and what they read of the kernel's memory",
        loses: "no eBPF: counts are samples from /proc, failed calls are not seen",
        required: true,
        admin_does: true,
        later: false,
    },
    Right {
        capability: Capability::CAP_SYS_PTRACE,
        gives: "the mappings and files of other users' processes, for names in stacks and for explain",
        loses: "stacks of other users' processes stay addresses; scan and explain see one's own processes only",
        required: false,
        admin_does: false,
        later: true,
    },
    Right {
        capability: Capability::CAP_DAC_READ_SEARCH,
        gives: "reading tracefs, and program files that only their owner may read",
        loses: "classic tracepoints are out of reach unless tracefs is opened to the user; names from unreadable files \
                are missing",
        required: false,
        admin_does: false,
        later: true,
    },
    Right {
        capability: Capability::CAP_CHECKPOINT_RESTORE,
        gives: "the very file that was mapped, also a deleted one (/proc/PID/map_files)",
        loses: "files of stacks are found by path only",
        required: false,
        admin_does: true,
        later: true,
    },
    Right {
        capability: Capability::CAP_SYS_ADMIN,
        gives: "a private mount of tracefs where it is not mounted",
        loses: "tracefs must be mounted by somebody else for classic tracepoints",
        required: false,
        admin_does: true,
        later: false,
    },
    Right {
        capability: Capability::CAP_SYS_RESOURCE,
        gives: "a larger RLIMIT_MEMLOCK, which kernels before 5.11 ask for",
        loses: "before 5.11 the caller must raise RLIMIT_MEMLOCK (ulimit -l) himself",
        required: false,
        admin_does: false,
        later: false,
    },
    Right {
        capability: Capability::CAP_KILL,
        gives: "passing signals on to a command that runs as another user",
        loses: "signals sent to vmaudit do not reach a command of another user",
        required: false,
        admin_does: false,
        later: true,
    },
];

impl Right {
    /// This process has it.
    pub fn held(&self) -> bool {
        let has = |capability| caps::has_cap(None, CapSet::Effective, capability).unwrap_or(false);
        has(self.capability) || self.admin_does && has(Capability::CAP_SYS_ADMIN)
    }
}

/// The required rights that are missing here, as `CAP_BPF and CAP_PERFMON`; `None` when all are there.
pub fn missing() -> Option<String> {
    let names: Vec<String> =
        RIGHTS.iter().filter(|r| r.required && !r.held()).map(|r| r.capability.to_string()).collect();
    (!names.is_empty()).then(|| names.join(" and "))
}

/// Gives up everything, for good.
pub fn drop_all() -> Result<(), caps::errors::CapsError> {
    keep_only(|_| false)
}

/// Gives up, for good, all that is not needed once the programs are attached. The command must have been forked before.
pub fn drop_unneeded() -> Result<(), caps::errors::CapsError> {
    // Root's process for strangers' files becomes another user (symbols/locked.rs).
    let root = nix::unistd::geteuid().is_root();
    let to_become_nobody = [Capability::CAP_SETUID, Capability::CAP_SETGID];
    keep_only(|capability| {
        RIGHTS.iter().any(|r| r.later && r.capability == *capability)
            || root && to_become_nobody.contains(capability)
    })?;
    // Rights from the file's capabilities make a process undumpable, and its own /proc/self root's. Whoever may trace
    // this one must still hold all that it holds (security/commoncap.c:cap_ptrace_access_check).
    // SAFETY: takes numbers only.
    unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 1, 0, 0, 0) };
    Ok(())
}

fn keep_only(kept: impl Fn(&Capability) -> bool) -> Result<(), caps::errors::CapsError> {
    let permitted = caps::read(None, CapSet::Permitted)?;
    let keep: caps::CapsHashSet = permitted.iter().copied().filter(&kept).collect();
    if permitted.contains(&Capability::CAP_SETPCAP) {
        caps::raise(None, CapSet::Effective, Capability::CAP_SETPCAP)?;
        for capability in caps::read(None, CapSet::Bounding)?.into_iter().filter(|c| !kept(c)) {
            caps::drop(None, CapSet::Bounding, capability)?;
        }
    }
    // The kernel keeps effective and ambient inside permitted, so the order matters.
    caps::set(None, CapSet::Effective, &keep)?;
    caps::set(None, CapSet::Permitted, &keep)
}

/// Which of the caller's ambient capabilities are vmaudit's own and no matter of the command's.
///
/// None for root: it is root with and without them.
pub fn withheld() -> Vec<Capability> {
    const SECBIT_NOROOT: libc::c_int = 1;
    // SAFETY: takes no pointers.
    let securebits = unsafe { libc::prctl(libc::PR_GET_SECUREBITS) };
    if nix::unistd::geteuid().is_root() && securebits & SECBIT_NOROOT == 0 {
        return Vec::new();
    }
    let ambient = caps::read(None, CapSet::Ambient).unwrap_or_default();
    RIGHTS.iter().map(|r| r.capability).filter(|c| ambient.contains(c)).collect()
}

/// In the command's process, before exec: takes them out of the sets that exec passes on.
pub fn withhold(capabilities: &[Capability]) -> Result<(), caps::errors::CapsError> {
    for capability in capabilities {
        caps::drop(None, CapSet::Ambient, *capability)?;
        caps::drop(None, CapSet::Inheritable, *capability)?;
    }
    Ok(())
}

/// Rights over this machine's kernel: inside a user namespace a capability is one over the namespace only. The first
/// one has a fixed inode number (include/linux/proc_ns.h:PROC_USER_INIT_INO, all versions); unreadable counts as yes.
pub fn in_first_user_namespace() -> bool {
    std::fs::read_link("/proc/self/ns/user").map_or(true, |link| link.as_os_str() == "user:[4026531837]")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_right_has_its_row_once_and_says_what_it_is_for() {
        for (n, right) in RIGHTS.iter().enumerate() {
            assert!(RIGHTS.iter().skip(n + 1).all(|other| other.capability != right.capability));
            assert!(!right.gives.is_empty() && !right.loses.is_empty());
            assert!(!(right.required && right.later), "what loads and attaches is not needed later");
        }
    }

    #[test]
    fn the_readme_lists_the_same_rights() {
        let readme = include_str!("../../../README.md");
        for right in &RIGHTS {
            let row = format!("| {} | {} | {} |", right.capability, right.gives, right.loses);
            assert!(readme.contains(&row), "README.md lacks the row\n{row}");
        }
    }
}
