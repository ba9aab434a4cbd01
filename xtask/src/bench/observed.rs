//! What /proc says of a vmaudit that runs: its memory, its processor time, the time of its eBPF programs; and a crowd that
//! stands still beside it.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use crate::command::{as_root, shown};

/// Ticks of /proc/PID/stat in a second (include/asm-generic/param.h: USER_HZ; so on x86-64 and arm64).
const TICKS: f64 = 100.0;

/// The process of vmaudit among `started` and its descendants: sudo may stand between.
pub fn vmaudit_of(started: u32) -> Option<u32> {
    let named = |pid: &u32| {
        fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm.trim_end() == "vmaudit")
    };
    std::iter::once(started).chain(descendants(started)).find(named)
}

/// Runs it to its end; the most memory that vmaudit had, in KiB.
pub fn most_memory(command: &mut Command) -> Result<u64> {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .with_context(|| format!("cannot start `{}`", shown(command)))?;
    let (mut vmaudit, mut most) = (None, None);
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        vmaudit = vmaudit.or_else(|| vmaudit_of(child.id()));
        let status = vmaudit.and_then(|pid| fs::read_to_string(format!("/proc/{pid}/status")).ok());
        // A high-water mark: the last one read is the one. It is read often, because the report is made at the very end.
        most = status.as_deref().and_then(|status| field(status, "VmHWM:")?.parse().ok()).or(most);
        thread::sleep(Duration::from_millis(5));
    };
    if !status.success() {
        bail!("`{}` failed ({status})", shown(command));
    }
    most.context("vmaudit's resident memory could not be read")
}

/// Processor time of a process, of the children that it has waited for, and of those that live; seconds.
///
/// That of the living is what the scheduler has counted: who wakes by the clock finds utime and stime rounded up to several times
/// as much.
pub fn processor_seconds(pid: u32) -> Result<f64> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).context("vmaudit has ended too early")?;
    let waited_for =
        ticks_of_children(&text).with_context(|| format!("a strange /proc/{pid}/stat: {text}"))?;
    let own = ran_ns(pid).context("vmaudit has ended too early")?;
    let others: u64 = descendants(pid).into_iter().filter_map(ran_ns).sum();
    Ok(waited_for as f64 / TICKS + (own + others) as f64 / 1e9)
}

/// cutime and cstime of /proc/PID/stat, added up.
fn ticks_of_children(stat: &str) -> Option<u64> {
    // A name may hold anything, also `)`.
    let (_, behind_name) = stat.rsplit_once(") ")?;
    let times: Vec<u64> =
        behind_name.split(' ').skip(13).take(2).filter_map(|word| word.parse().ok()).collect();
    (times.len() == 2).then(|| times.iter().sum())
}

/// How long the threads of a process have run, ns (/proc/PID/task/TID/schedstat).
fn ran_ns(pid: u32) -> Option<u64> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).ok()?;
    let of = |thread: fs::DirEntry| {
        fs::read_to_string(thread.path().join("schedstat")).ok()?.split(' ').next()?.parse::<u64>().ok()
    };
    let all: Vec<u64> = threads.flatten().filter_map(of).collect();
    (!all.is_empty()).then(|| all.iter().sum())
}

/// Time and runs of eBPF programs, since they were loaded and the kernel counts (kernel.bpf_stats_enabled).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Runs {
    pub ns: u64,
    pub count: u64,
}

/// The programs that a process holds, by where they are attached. Answers on the way back to user space
/// (bpf_task_work_schedule_resume) are no runs of a program, and are not in it.
pub fn programs_of(pid: u32) -> Result<BTreeMap<String, Runs>> {
    // One process that reads all: it is a birth as well. What is closed meanwhile makes its status one of failure.
    let done =
        as_root("grep").args(["-r", "", &format!("/proc/{pid}/fdinfo")]).stderr(Stdio::null()).output()?;
    let programs = programs_in(&String::from_utf8_lossy(&done.stdout));
    if programs.is_empty() {
        bail!("the descriptors of vmaudit tell nothing of its programs' time");
    }
    Ok(programs)
}

/// Reads lines `/proc/PID/fdinfo/FD:KEY:<tab>VALUE`.
fn programs_in(lines: &str) -> BTreeMap<String, Runs> {
    let mut descriptors: BTreeMap<&str, BTreeMap<&str, &str>> = BTreeMap::new();
    for line in lines.lines() {
        let mut parts = line.splitn(3, ':');
        if let (Some(file), Some(key), Some(value)) = (parts.next(), parts.next(), parts.next()) {
            descriptors.entry(file).or_default().insert(key, value.trim());
        }
    }
    // A link tells where the program of its number is attached, its program the time.
    let mut places: BTreeMap<&str, &str> = BTreeMap::new();
    let mut runs: BTreeMap<&str, Runs> = BTreeMap::new();
    for told in descriptors.values() {
        let Some(program) = told.get("prog_id") else { continue };
        if let Some(place) = told.get("tp_name").or_else(|| told.get("link_type")) {
            places.insert(program, place);
        }
        let number = |key| told.get(key).and_then(|value| value.parse().ok());
        if let (Some(ns), Some(count)) = (number("run_time_ns"), number("run_cnt")) {
            runs.insert(program, Runs { ns, count });
        }
    }
    let mut by_place: BTreeMap<String, Runs> = BTreeMap::new();
    for (program, Runs { ns, count }) in runs {
        let sum = by_place.entry((*places.get(program).unwrap_or(&"others")).to_owned()).or_default();
        *sum = Runs { ns: sum.ns + ns, count: sum.count + count };
    }
    by_place
}

/// Processes that stand still.
pub struct Crowd {
    child: Child,
    /// They stand until it ends.
    stdin: Option<ChildStdin>,
}

impl Crowd {
    /// `n` of them, with `vmas` VMAs each beside their program's; all stand.
    pub fn new(workload: &Path, n: usize, vmas: usize) -> Result<Self> {
        let mut command = Command::new(workload);
        command.args(["crowd", &n.to_string(), &vmas.to_string()]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let stdin = child.stdin.take();
        let told = child.stdout.take().context("the crowd has a stdout")?;
        let crowd = Self { child, stdin };
        let standing = BufReader::new(told).lines().take(n).collect::<std::io::Result<Vec<_>>>()?;
        if standing.len() < n {
            bail!("only {} of {n} processes stand", standing.len());
        }
        Ok(crowd)
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        drop(self.stdin.take());
        drop(self.child.wait());
    }
}

/// Children of a process, theirs, and so on.
fn descendants(pid: u32) -> Vec<u32> {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    let children = children.split_whitespace().filter_map(|word| word.parse().ok());
    children.flat_map(|child| std::iter::once(child).chain(descendants(child))).collect()
}

/// The first word of a line of /proc/PID/status.
fn field<'a>(status: &'a str, key: &str) -> Option<&'a str> {
    status.lines().find_map(|line| line.strip_prefix(key)?.split_whitespace().next())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_programs_time_goes_by_its_link() {
        let told = "/proc/7/fdinfo/40:prog_type:\t17\n/proc/7/fdinfo/40:prog_id:\t12\n/proc/7/fdinfo/40:run_time_ns:\t900\n\
                    /proc/7/fdinfo/40:run_cnt:\t3\n/proc/7/fdinfo/41:prog_id:\t12\n/proc/7/fdinfo/41:run_time_ns:\t900\n\
                    /proc/7/fdinfo/41:run_cnt:\t3\n/proc/7/fdinfo/42:prog_id:\t13\n/proc/7/fdinfo/42:run_time_ns:\t50\n\
                    /proc/7/fdinfo/42:run_cnt:\t1\n/proc/7/fdinfo/5:link_type:\traw_tracepoint\n/proc/7/fdinfo/5:prog_id:\t12\n\
                    /proc/7/fdinfo/5:tp_name:\texit_mmap\n/proc/7/fdinfo/6:pos:\t0\n";
        let runs = programs_in(told);
        assert_eq!(runs.get("exit_mmap"), Some(&Runs { ns: 900, count: 3 }));
        assert_eq!(runs.get("others"), Some(&Runs { ns: 50, count: 1 }));
        assert_eq!(runs.len(), 2);
    }

    #[test]
    fn processor_time_stands_behind_any_name() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194304 100 200 0 0 11 12 13 14 20 0 1 0 5";
        assert_eq!(ticks_of_children(stat), Some(27));
        assert_eq!(ticks_of_children("7 (a) S 1"), None);
    }
}
