//! The capabilities that vmaudit uses: one table, from which `doctor`, the README and the dropping of rights are made.
//!
//! Capabilities of the file or of the ambient set are for vmaudit's own work and lent to nobody: [`begin`] lowers them
//! before anything else happens, so that whatever the caller names is opened with what the caller has. [`raised`] raises
//! a few around what needs them, [`keep`] gives up for good what is not needed any more, and the command gets what the
//! caller would have given it directly, minus what is vmaudit's ([`Passed`]). Root keeps its own.

use std::marker::PhantomData;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use caps::errors::CapsError;
use caps::{CapSet, Capability, CapsHashSet};
use nix::unistd::{getegid, geteuid, getgid, getuid};

use crate::text::MESSAGES;

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

/// What loading, attaching and reading eBPF programs needs, with the files of tracefs.
pub const EBPF: [Capability; 5] = [
    Capability::CAP_BPF,
    Capability::CAP_PERFMON,
    Capability::CAP_SYS_ADMIN,
    Capability::CAP_SYS_RESOURCE,
    Capability::CAP_DAC_READ_SEARCH,
];

/// What the /proc files and the program files of other users' processes need.
pub const PROCESSES: [Capability; 4] = [
    Capability::CAP_SYS_PTRACE,
    Capability::CAP_DAC_READ_SEARCH,
    Capability::CAP_CHECKPOINT_RESTORE,
    Capability::CAP_SYS_ADMIN, // in place of CAP_CHECKPOINT_RESTORE
];

impl Right {
    /// This process may raise it.
    pub fn held(&self) -> bool {
        let has = |capability| caps::has_cap(None, CapSet::Permitted, capability).unwrap_or(false);
        has(self.capability) || self.admin_does && has(Capability::CAP_SYS_ADMIN)
    }
}

/// The required rights that are missing here, as `CAP_BPF and CAP_PERFMON`; `None` when all are there.
pub fn missing() -> Option<String> {
    let names: Vec<String> =
        RIGHTS.iter().filter(|r| r.required && !r.held()).map(|r| r.capability.to_string()).collect();
    (!names.is_empty()).then(|| names.join(" and "))
}

/// What the process was started with.
#[derive(Debug, Default)]
struct Start {
    /// Root, or capabilities.
    had_any: bool,
    /// The caller's ambient set; `None` where nothing was lowered.
    ambient: Option<CapsHashSet>,
}

static START: OnceLock<Start> = OnceLock::new();
/// Something permitted is not in effect, so there is something to raise.
static LOWERED: AtomicBool = AtomicBool::new(false);

/// Lowers what is not the caller's to use as he likes. To be called first of all, in the only thread: before it, no
/// argument, no file and no variable of the environment may be looked at. Errors, as one sentence: a setuid or setgid
/// program, or a kernel that refuses.
pub fn begin() -> Result<(), String> {
    if getuid() != geteuid() || getgid() != getegid() {
        return Err(
            "vmaudit is not made to be setuid or setgid: run it with sudo, or give it capabilities".into()
        );
    }
    let refused = |e: CapsError| format!("vmaudit's capabilities cannot be lowered: {e}");
    let permitted = caps::read(None, CapSet::Permitted).map_err(refused)?;
    let mut start = Start { had_any: geteuid().is_root() || !permitted.is_empty(), ambient: None };
    if start.had_any {
        // What is read of others must not be had from vmaudit's memory: no ptrace, no /proc/PID/mem, no core file. Forks
        // inherit it, exec sets it anew (fs/exec.c:begin_new_exec, all versions).
        // SAFETY: takes numbers only.
        unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0) };
    }
    if !is_root() && !permitted.is_empty() {
        start.ambient = Some(caps::read(None, CapSet::Ambient).map_err(refused)?);
        LOWERED.store(true, Ordering::Relaxed);
        caps::clear(None, CapSet::Ambient)
            .and_then(|()| caps::clear(None, CapSet::Effective))
            .map_err(refused)?;
    }
    let _ = START.set(start);
    Ok(())
}

/// Root in the usual sense: its rights come with the user and are its own.
fn is_root() -> bool {
    const SECBIT_NOROOT: libc::c_int = 1;
    // SAFETY: takes no pointers.
    geteuid().is_root() && unsafe { libc::prctl(libc::PR_GET_SECUREBITS) } & SECBIT_NOROOT == 0
}

/// The process was started as root or with capabilities, whatever it has now.
pub fn had_any() -> bool {
    START.get().is_some_and(|start| start.had_any)
}

/// The process was started with rights that its caller lacks (AT_SECURE: capabilities of the file). Then it shows him
/// nothing that he could not learn otherwise and that is not vmaudit's purpose (addresses), and obeys no variable of the
/// environment that is there for tests.
pub fn lent() -> bool {
    // SAFETY: takes a number only.
    unsafe { libc::getauxval(libc::AT_SECURE) != 0 }
}

/// Capabilities in effect until this is dropped, in this thread and those that it starts.
#[must_use = "what is raised is lowered again when this is dropped"]
#[derive(Debug)]
pub struct Raised {
    before: Option<CapsHashSet>,
    /// Capabilities belong to a thread.
    thread: PhantomData<*const ()>,
}

/// Raises those of `wanted` that are permitted; those in effect already stay so. That one is missing is no error: what
/// needs it is refused by the kernel.
pub fn raised(wanted: &[Capability]) -> Raised {
    let raise = || {
        let permitted = caps::read(None, CapSet::Permitted).ok()?;
        let before = caps::read(None, CapSet::Effective).ok()?;
        let mut now = before.clone();
        now.extend(wanted.iter().filter(|capability| permitted.contains(capability)));
        (now != before && caps::set(None, CapSet::Effective, &now).is_ok()).then_some(before)
    };
    let before = if LOWERED.load(Ordering::Relaxed) { raise() } else { None };
    Raised { before, thread: PhantomData }
}

impl Drop for Raised {
    fn drop(&mut self) {
        if let Some(before) = &self.before
            && caps::set(None, CapSet::Effective, before).is_err()
        {
            // Some of it was given up for good meanwhile.
            let _ = caps::clear(None, CapSet::Effective);
        }
    }
}

/// Gives up everything, for good.
pub fn drop_all() -> Result<(), CapsError> {
    keep(&[], &[])
}

/// What a session still needs once its programs are attached.
pub fn of_a_session() -> Vec<Capability> {
    // Root's process that reads strangers' files becomes another user (enrich/symbols/locked.rs).
    let to_become_nobody = [Capability::CAP_SETUID, Capability::CAP_SETGID];
    let of_root = to_become_nobody.into_iter().filter(|_| is_root());
    RIGHTS.iter().filter(|right| right.later).map(|right| right.capability).chain(of_root).collect()
}

/// Gives up, for good, all but these. `lowered`: also kept, but not in effect until they are raised. The command must
/// have been forked before; other threads keep what they have, so there should be none.
pub fn keep(kept: &[Capability], lowered: &[Capability]) -> Result<(), CapsError> {
    let mut permitted = caps::read(None, CapSet::Permitted)?;
    let stays = |capability: &Capability| kept.contains(capability) || lowered.contains(capability);
    if permitted.contains(&Capability::CAP_SETPCAP) {
        caps::raise(None, CapSet::Effective, Capability::CAP_SETPCAP)?;
        for capability in caps::read(None, CapSet::Bounding)?.into_iter().filter(|c| !stays(c)) {
            caps::drop(None, CapSet::Bounding, capability)?;
        }
    }
    permitted.retain(stays);
    let mut effective = CapsHashSet::new();
    // What was lowered in the beginning stays so.
    if START.get().is_none_or(|start| start.ambient.is_none()) {
        effective = permitted.iter().copied().filter(|capability| kept.contains(capability)).collect();
        LOWERED.store(effective != permitted, Ordering::Relaxed);
    }
    // The kernel keeps effective and ambient inside permitted, so the order matters.
    caps::set(None, CapSet::Effective, &effective)?;
    caps::set(None, CapSet::Permitted, &permitted)
}

/// This thread alone gives up all but these.
pub fn keep_in_thread(kept: &[Capability]) -> Result<(), CapsError> {
    let permitted = caps::read(None, CapSet::Permitted)?;
    let stays: CapsHashSet = permitted.into_iter().filter(|capability| kept.contains(capability)).collect();
    caps::set(None, CapSet::Effective, &stays)?;
    caps::set(None, CapSet::Permitted, &stays)
}

/// As [`keep`], for commands that only have to write what they found; `lowered`: see
/// [`crate::os::destination::Destination::rights`]. That the kernel refuses is said by the log: whatever is lowered stays without effect.
pub fn finish(lowered: &[Capability]) {
    if let Err(e) = keep(&[], lowered) {
        log::error!(target: MESSAGES, "rights that are not needed any more could not be given up: {e}");
    }
}

/// What the command gets of the capabilities.
#[derive(Debug, Default)]
pub struct Passed {
    /// Permitted, effective and ambient; `None`: all that this process has.
    sets: Option<CapsHashSet>,
    /// Which of the caller's ambient capabilities are vmaudit's own and no matter of the command's.
    pub withheld: Vec<Capability>,
}

impl Passed {
    /// `all`: also those of the caller's ambient capabilities that vmaudit itself uses. None is withheld from root: it is
    /// root with and without them.
    pub fn new(all: bool) -> Self {
        let Some(ambient) = START.get().and_then(|start| start.ambient.as_ref()) else {
            return Self::default();
        };
        let own = |capability: &Capability| !all && RIGHTS.iter().any(|r| r.capability == *capability);
        Self {
            sets: Some(ambient.iter().copied().filter(|capability| !own(capability)).collect()),
            withheld: RIGHTS
                .iter()
                .map(|right| right.capability)
                .filter(|capability| ambient.contains(capability) && own(capability))
                .collect(),
        }
    }

    /// In the command's process, before it looks for its program: takes exactly these sets, those that exec passes on
    /// included.
    pub fn take_on(&self) -> Result<(), CapsError> {
        let Some(sets) = &self.sets else { return Ok(()) };
        for capability in &self.withheld {
            caps::drop(None, CapSet::Inheritable, *capability)?;
        }
        caps::clear(None, CapSet::Effective)?;
        caps::set(None, CapSet::Permitted, sets)?;
        caps::set(None, CapSet::Ambient, sets)?;
        caps::set(None, CapSet::Effective, sets)
    }
}

/// Addresses of this process are the caller's to know: he could read them himself, or vmaudit has nothing that he lacks.
/// `owner`: its user, for one that may be gone; a number alone may be another process's by now. A setuid program has its
/// caller's user in the kernel's records, so whoever lives is to be asked about by [`hides_addresses`] while it does. To
/// be asked with nothing raised.
pub fn may_know_addresses(pid: u32, owner: Option<u32>) -> bool {
    if !lent() {
        return true;
    }
    let opened = std::fs::File::open(format!("/proc/{pid}/maps")).map_err(|e| e.raw_os_error());
    match owner {
        Some(owner) => {
            owner == getuid().as_raw() && matches!(opened, Ok(_) | Err(Some(libc::ENOENT | libc::ESRCH)))
        }
        None => opened.is_ok(),
    }
}

/// This process lives and its addresses are not the caller's to know. To be asked with nothing raised.
pub fn hides_addresses(pid: u32) -> bool {
    let refused = |e: std::io::Error| matches!(e.raw_os_error(), Some(libc::EACCES | libc::EPERM));
    lent() && std::fs::File::open(format!("/proc/{pid}/maps")).is_err_and(refused)
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
