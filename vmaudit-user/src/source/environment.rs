//! What this kernel, these rights and this container allow, row by row: what was found, what is lost by it, how to get it.
//! One table for `doctor`, the report's coverage and the sentence that says why eBPF is not to be had.

use std::fs;

use crate::model::report::{Condition, Hook, HookState};
use crate::os::kernel::Facts;
use crate::os::rights::{RIGHTS, Right};
use crate::os::{kernel, rights};
use crate::source::ebpf::{PidNamespace, hooks};
use crate::text;

const NO_EBPF: &str = "no eBPF: counts are samples from /proc, failed calls are not seen";

/// What was found; nothing in it is a judgement.
#[derive(Clone, Debug)]
struct Found {
    version: (u32, u32),
    /// See [`hooks::numbers_sections`].
    numbered: bool,
    /// Names of the rights of [`RIGHTS`] that this process has.
    held: Vec<String>,
    first_user_namespace: bool,
    /// Inside a pid namespace that is not the first one; error: why numbers there cannot be told from the kernel's.
    inside_pid_namespace: Result<bool, String>,
    type_information: Result<(), String>,
    tracefs: Result<(), String>,
    /// errno of a bpf() call that these rights should allow; `None` when it works or was not tried.
    bpf: Option<i32>,
    /// `none`, `integrity`, `confidentiality`; `None` when nobody says.
    lockdown: Option<String>,
    /// Soft RLIMIT_MEMLOCK, bytes; `None` = unlimited.
    memlock: Option<u64>,
    perf_event_paranoid: Option<String>,
    unprivileged_bpf_disabled: Option<String>,
    proc: ProcSeen,
    /// Why raw tracepoints did not do, where classic ones had to or would have had to.
    raw_refused: Option<String>,
    /// The kernel has the lock events; without them only raw tracepoints do.
    lock_events: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ProcSeen {
    Whole,
    /// Processes of others are hidden (hidepid).
    OwnOnly,
    /// Nothing of it can be read.
    Missing,
}

/// Every condition with what it means here. `hooks`: what became of the hooks, once eBPF is at work.
pub fn look(facts: &Facts, hooks: Option<&[Hook]>) -> Vec<Condition> {
    judge(&find(facts, hooks))
}

/// The first condition that rules eBPF out, as one sentence: what is missing and how to get it.
pub fn blocking(facts: &Facts) -> Option<String> {
    let rows = look(facts, None);
    let rules_out = |row: &Condition| {
        row.met == Some(false) && (row.name != RAW || row.loses.as_deref() == Some(NO_EBPF))
    };
    let row = BLOCKING.iter().find_map(|name| rows.iter().find(|r| r.name == *name && rules_out(r)))?;
    Some(sentence(row))
}

/// What is wrong with being inside a pid namespace, as one sentence; `None` outside.
pub fn pid_namespace(rows: &[Condition]) -> Option<String> {
    let row = rows.iter().find(|r| r.name == PID_NAMESPACE && r.met == Some(false))?;
    Some(sentence(row))
}

fn sentence(row: &Condition) -> String {
    match &row.cure {
        Some(cure) => format!("{}: {}; {cure}", row.name, row.found),
        None => format!("{}: {}", row.name, row.found),
    }
}

const USER_NAMESPACE: &str = "user namespace";
const PID_NAMESPACE: &str = "pid namespace";
const BTF: &str = "kernel type information (BTF)";
const BPF_CALL: &str = "bpf() system call";
const LOCKDOWN: &str = "lockdown";
const MEMLOCK: &str = "RLIMIT_MEMLOCK";
const TRACEFS: &str = "tracefs";
const RAW: &str = "raw tracepoints";
const PROC: &str = "/proc";

/// Conditions without which there is no eBPF, those first that explain the others.
const BLOCKING: [&str; 9] =
    [BTF, USER_NAMESPACE, "CAP_BPF", "CAP_PERFMON", LOCKDOWN, BPF_CALL, MEMLOCK, RAW, PID_NAMESPACE];

fn find(facts: &Facts, hooks: Option<&[Hook]>) -> Found {
    let _rights = rights::raised(&rights::EBPF);
    let word = |path: &str| fs::read_to_string(path).ok().map(|text| text.trim().to_owned());
    let first_user_namespace = rights::in_first_user_namespace();
    let may_bpf = first_user_namespace && rights::missing().is_none();
    Found {
        version: facts.version,
        numbered: hooks::numbers_sections(facts),
        held: RIGHTS.iter().filter(|r| r.held()).map(|r| r.capability.to_string()).collect(),
        first_user_namespace,
        inside_pid_namespace: PidNamespace::find().map(|it| it.is_some()),
        type_information: facts.layout.as_ref().map(|_| ()).map_err(Clone::clone),
        tracefs: facts.tracefs.as_ref().map(|_| ()).map_err(Clone::clone),
        bpf: if hooks.is_none() && may_bpf { kernel::bpf_refused() } else { None },
        lockdown: kernel::lockdown(hooks.is_none()),
        memlock: nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_MEMLOCK)
            .ok()
            .map(|(soft, _)| soft)
            .filter(|soft| *soft != nix::sys::resource::RLIM_INFINITY),
        perf_event_paranoid: word("/proc/sys/kernel/perf_event_paranoid"),
        unprivileged_bpf_disabled: word("/proc/sys/kernel/unprivileged_bpf_disabled"),
        proc: match (fs::metadata("/proc/self"), fs::metadata("/proc/1")) {
            (Err(_), _) => ProcSeen::Missing,
            (_, Err(_)) => ProcSeen::OwnOnly,
            _ => ProcSeen::Whole,
        },
        raw_refused: match hooks {
            Some(hooks) => hooks
                .iter()
                .filter(|h| h.state == HookState::Attached && h.via.as_deref() == Some("tracepoint"))
                .find_map(|h| h.reason.clone()),
            None if may_bpf && kernel::bpf_refused().is_none() => kernel::raw_tracepoints_refused()
                .map(|errno| format!("refused ({})", nix::errno::Errno::from_raw(errno).desc())),
            None => None,
        },
        lock_events: facts.released_arguments.is_some(),
    }
}

fn row(name: &str, met: bool, found: impl Into<String>, loses: &str, cure: &str) -> Condition {
    Condition {
        name: name.into(),
        met: Some(met),
        found: found.into(),
        loses: (!met).then(|| loses.to_owned()),
        cure: (!met && !cure.is_empty()).then(|| cure.to_owned()),
    }
}

fn judge(found: &Found) -> Vec<Condition> {
    let mut rows: Vec<Condition> = RIGHTS.iter().map(|right| right_held(found, right)).collect();
    rows.extend([user_namespace(found), in_pid_namespace(found), type_information(found), bpf_call(found)]);
    rows.extend([lockdown(found), memlock(found), tracefs(found), raw_tracepoints(found)]);
    for (name, value, right) in [
        ("kernel.perf_event_paranoid", &found.perf_event_paranoid, "CAP_PERFMON"),
        ("kernel.unprivileged_bpf_disabled", &found.unprivileged_bpf_disabled, "CAP_BPF"),
    ] {
        rows.push(sysctl(name, value.as_deref(), right, found.held(right)));
    }
    rows.push(proc(found));
    rows
}

impl Found {
    fn held(&self, name: &str) -> bool {
        self.held.iter().any(|held| held == name)
    }

    /// eBPF tables count against RLIMIT_MEMLOCK (kernel/bpf/syscall.c, until 5.11).
    fn charges_memlock(&self) -> bool {
        self.version < (5, 11)
    }
}

fn right_held(found: &Found, right: &Right) -> Condition {
    let name = right.capability.to_string();
    let needless = match name.as_str() {
        "CAP_SYS_RESOURCE" if !found.charges_memlock() => Some("this kernel does not ask for it"),
        "CAP_SYS_ADMIN" if found.tracefs.is_ok() => Some("tracefs is readable without it"),
        _ => None,
    };
    let words = match (found.held(&name), needless) {
        (true, _) if !found.first_user_namespace => "held, but over a user namespace only".to_owned(),
        (true, _) => format!("held, for {}", right.gives),
        (false, Some(why)) => format!("not held; {why}"),
        // What it is for is said by what is lost.
        (false, None) => "not held".to_owned(),
    };
    let cure = if right.required {
        "run vmaudit with sudo, or give it CAP_BPF and CAP_PERFMON".to_owned()
    } else {
        format!("run vmaudit with sudo, or give it {name} too")
    };
    row(&name, found.held(&name) || needless.is_some(), words, right.loses, &cure)
}

fn user_namespace(found: &Found) -> Condition {
    row(
        USER_NAMESPACE,
        found.first_user_namespace,
        if found.first_user_namespace {
            "the machine's first"
        } else {
            "vmaudit runs inside one (a rootless container), where capabilities have no power over eBPF"
        },
        NO_EBPF,
        "run it outside, with sudo or with CAP_BPF and CAP_PERFMON",
    )
}

fn in_pid_namespace(found: &Found) -> Condition {
    row(
        PID_NAMESPACE,
        found.inside_pid_namespace.is_ok(),
        match &found.inside_pid_namespace {
            Ok(false) => "the machine's first".to_owned(),
            Ok(true) => {
                "vmaudit runs inside one (a container): it sees that one's processes, by their numbers there"
                    .into()
            }
            Err(why) => {
                format!(
                    "vmaudit runs inside one (a container), where process numbers are not the kernel's: {why}"
                )
            }
        },
        "no eBPF: counts are samples from /proc, failed calls are not seen",
        "run it on the host, or in a container with the host's pid namespace (docker run --pid host)",
    )
}

fn type_information(found: &Found) -> Condition {
    row(
        BTF,
        found.type_information.is_ok(),
        found.type_information.clone().map_or_else(|e| e, |()| "readable".into()),
        NO_EBPF,
        "a kernel with CONFIG_DEBUG_INFO_BTF is needed, and /sys/kernel/btf/vmlinux must be visible in the container",
    )
}

fn bpf_call(found: &Found) -> Condition {
    row(
        BPF_CALL,
        found.bpf.is_none(),
        match found.bpf {
            None if found.held("CAP_BPF") => "not refused".to_owned(),
            None => "not tried without CAP_BPF".to_owned(),
            Some(libc::ENOSYS) => "blocked, or not in this kernel (ENOSYS)".to_owned(),
            Some(errno) => format!(
                "refused ({}) although the rights are there",
                nix::errno::Errno::from_raw(errno).desc()
            ),
        },
        NO_EBPF,
        "a seccomp policy does that: allow bpf and perf_event_open for this container, or run vmaudit on the host",
    )
}

fn tracefs(found: &Found) -> Condition {
    row(
        TRACEFS,
        found.tracefs.is_ok(),
        found.tracefs.clone().map_or_else(|e| e, |()| "readable".into()),
        if found.version >= (7, 0) {
            "raw tracepoints only: from 7.0 on the kernel skips such a program on a CPU while another task is preempted \
             inside it, and what that may have cost is not called exact or complete"
        } else {
            "raw tracepoints only: nothing is lost on this kernel, but there is no second way if they are refused"
        },
        "mount -t tracefs nodev /sys/kernel/tracing; a user also needs CAP_DAC_READ_SEARCH",
    )
}

fn raw_tracepoints(found: &Found) -> Condition {
    row(
        RAW,
        found.raw_refused.is_none(),
        found.raw_refused.clone().unwrap_or_else(|| "not refused".into()),
        if found.lock_events {
            match (found.version >= (6, 12), found.numbered) {
                (true, _) => {
                    "classic tracepoints only: the kernel skips such a program on a CPU while a bpf() map call of \
                     anybody's is preempted, and what that may have cost is not called exact or complete"
                }
                (false, true) => {
                    "classic tracepoints only: the kernel skips such a program on a CPU while a bpf() map call of \
                     anybody's is preempted, and does not count it before 6.12: neither the list of processes nor \
                     counts of calls are called complete"
                }
                (false, false) => {
                    "classic tracepoints only: the kernel skips such a program on a CPU while a bpf() map call of \
                     anybody's is preempted, and does not count it before 6.12: no peak is called exact"
                }
            }
        } else {
            // The programs for kernels without the lock events are raw ones.
            NO_EBPF
        },
        "a seccomp policy that blocks BPF_RAW_TRACEPOINT_OPEN does that",
    )
}

/// A setting that means something only where the right is missing.
fn sysctl(name: &str, value: Option<&str>, right: &str, held: bool) -> Condition {
    Condition {
        name: name.into(),
        met: held.then_some(true),
        found: match (value, held) {
            (None, _) => "not readable".into(),
            (Some(value), true) => format!("{value}; no matter with {right}"),
            (Some(value), false) => value.into(),
        },
        loses: None,
        cure: None,
    }
}

fn lockdown(found: &Found) -> Condition {
    match found.lockdown.as_deref() {
        Some(mode) => row(
            LOCKDOWN,
            mode != "confidentiality",
            if mode == "confidentiality" {
                "mode confidentiality: eBPF programs may not read the kernel's memory"
            } else {
                mode
            },
            NO_EBPF,
            "boot with lockdown=integrity, or without lockdown",
        ),
        None => Condition {
            name: LOCKDOWN.into(),
            met: None,
            found: "not known: securityfs is not readable, or this kernel has no lockdown".into(),
            loses: None,
            cure: None,
        },
    }
}

fn memlock(found: &Found) -> Condition {
    let words = match found.memlock {
        None => "unlimited".to_owned(),
        Some(bytes) => text::bytes(bytes),
    };
    let (met, words) = match (found.charges_memlock(), found.memlock) {
        (false, _) => (true, format!("{words}; this kernel does not charge eBPF to it")),
        (true, None) => (true, words),
        (true, Some(_)) if found.held("CAP_SYS_RESOURCE") => (true, format!("{words}; vmaudit raises it")),
        (true, Some(bytes)) => (bytes >= NEEDED_MEMLOCK, words),
    };
    row(MEMLOCK, met, words, NO_EBPF, "ulimit -l unlimited before vmaudit, or give it CAP_SYS_RESOURCE")
}

/// What the tables and the ring buffer take, with room to spare.
const NEEDED_MEMLOCK: u64 = 128 << 20;

fn proc(found: &Found) -> Condition {
    match found.proc {
        ProcSeen::Whole => row(PROC, true, "readable", "", ""),
        ProcSeen::OwnOnly => row(
            PROC,
            false,
            "processes of other users are hidden (hidepid)",
            "scan and stacks see one's own processes only; what eBPF counts is not touched",
            "CAP_SYS_PTRACE, or the group that the mount option gid= names",
        ),
        ProcSeen::Missing => row(
            PROC,
            false,
            "not mounted",
            "vm.max_map_count, cgroups and names in stacks are unknown; from 5.12 to 5.18, skipped programs cannot be \
             counted where kernel.unprivileged_bpf_disabled is set, so the report as a whole is not called exact",
            "mount -t proc proc /proc",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Root on a good machine.
    fn good() -> Found {
        Found {
            version: (6, 18),
            numbered: true,
            held: RIGHTS.iter().map(|r| r.capability.to_string()).collect(),
            first_user_namespace: true,
            inside_pid_namespace: Ok(false),
            type_information: Ok(()),
            tracefs: Ok(()),
            bpf: None,
            lockdown: Some("integrity".into()),
            memlock: None,
            perf_event_paranoid: Some("2".into()),
            unprivileged_bpf_disabled: Some("2".into()),
            proc: ProcSeen::Whole,
            raw_refused: None,
            lock_events: true,
        }
    }

    fn lost(found: &Found) -> Vec<String> {
        let rows = judge(found);
        for row in &rows {
            assert_eq!(row.loses.is_some(), row.met == Some(false), "{row:?}");
            assert!(!row.found.is_empty(), "{row:?}");
        }
        rows.into_iter().filter(|r| r.met == Some(false)).map(|r| r.name).collect()
    }

    #[test]
    fn each_condition_is_lost_alone() {
        assert_eq!(lost(&good()), Vec::<String>::new());
        let cases = [
            (Found { first_user_namespace: false, ..good() }, USER_NAMESPACE),
            (Found { inside_pid_namespace: Err("no".into()), ..good() }, PID_NAMESPACE),
            (Found { type_information: Err("no".into()), ..good() }, BTF),
            (Found { tracefs: Err("no".into()), ..good() }, TRACEFS),
            (Found { bpf: Some(libc::ENOSYS), ..good() }, BPF_CALL),
            (Found { lockdown: Some("confidentiality".into()), ..good() }, LOCKDOWN),
            (Found { raw_refused: Some("no".into()), ..good() }, RAW),
            (Found { proc: ProcSeen::Missing, ..good() }, PROC),
            (Found { proc: ProcSeen::OwnOnly, ..good() }, PROC),
        ];
        for (found, name) in cases {
            assert_eq!(lost(&found), [name]);
        }
    }

    #[test]
    fn rights_that_nothing_asks_for_are_not_called_lost() {
        let required = ["CAP_BPF", "CAP_PERFMON"].map(str::to_owned).to_vec();
        let user = Found { held: required, memlock: Some(64 << 10), ..good() };
        assert_eq!(
            lost(&user),
            ["CAP_SYS_PTRACE", "CAP_DAC_READ_SEARCH", "CAP_CHECKPOINT_RESTORE", "CAP_KILL"]
        );
        let old = Found { version: (5, 10), tracefs: Err("no".into()), ..user };
        let lost = lost(&old);
        for name in ["CAP_SYS_RESOURCE", "CAP_SYS_ADMIN", MEMLOCK] {
            assert!(lost.iter().any(|l| l == name), "{name} in {lost:?}");
        }
    }

    #[test]
    fn what_nobody_can_tell_is_unknown() {
        let rows = judge(&Found { lockdown: None, ..good() });
        assert_eq!(rows.iter().find(|r| r.name == LOCKDOWN).map(|r| r.met), Some(None));
    }

    #[test]
    fn every_blocking_condition_has_a_row() {
        let rows = judge(&good());
        for name in BLOCKING {
            assert!(rows.iter().any(|r| r.name == name), "{name}");
        }
    }
}
