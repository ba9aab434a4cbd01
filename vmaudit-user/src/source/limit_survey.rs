//! What is there to be known of the limit: processes, files that set it, installed software.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::domain::application::{Anonymizer, application, arguments};
use crate::domain::limit::{self as domain_limit, LimitOptions};
use crate::domain::requirements;
use crate::domain::requirements::Facts;
use crate::domain::vma_cost::{CACHES, price};
use crate::model::limit::{
    Applier, Found, KERNEL_DEFAULT, KERNEL_LARGEST, Known, Largest, LimitReport, Need, OtherFile, Plan,
};
use crate::model::unreadable::Unreadable;
use crate::os::apart::Patience;
use crate::os::procfs::{CountBuffer, Proc, host};
use crate::os::{apart, rights, sysctl_conf, sysctl_dropin};
use crate::source::ebpf::task_iter::{Census, Task};
use crate::text;

/// One process, as far as it matters here.
#[derive(Debug, Serialize, Deserialize)]
struct Running {
    pid: u32,
    comm: String,
    arguments: Vec<String>,
    app: String,
    vmas: Option<u64>,
}

/// A machine as it was found.
#[derive(Debug)]
pub struct Machine {
    root: PathBuf,
    proc: Proc,
    applier: Applier,
    processes: Vec<Running>,
    /// A sentence about those that did not answer.
    silent: Option<String>,
}

impl Machine {
    /// Looks at this one.
    pub fn look() -> Self {
        let tasks = Census::open().ok().and_then(|census| census.take().ok());
        Self::at(Path::new("/"), tasks)
    }

    fn at(root: &Path, tasks: Option<Vec<Task>>) -> Self {
        let proc = Proc::new(root.join("proc"));
        let (processes, silent) = processes(&proc, tasks);
        Self { root: root.to_owned(), proc, applier: sysctl_conf::applier(root), processes, silent }
    }

    /// What must be written for this value. Errors: the kernel would refuse it, a process has more already, or a file that
    /// is not vmaudit's is in the way.
    pub fn plan_apply(&self, value: u64) -> anyhow::Result<Plan> {
        let held = largest(&self.processes)
            .map(|process| (process.app.clone(), process.pid, process.vmas.unwrap_or(0)));
        let version = env!("CARGO_PKG_VERSION");
        let mut plan = sysctl_dropin::plan_apply(&self.root, self.applier, value, held.as_ref(), version)?;
        plan.notes.extend(container(&self.root).map(|sign| {
            format!("This looks like a container ({sign}): the file is its own, and the limit belongs to the host.")
        }));
        Ok(plan)
    }

    /// What must be written to take that back. Errors: there is nothing to take back.
    pub fn plan_undo(&self) -> anyhow::Result<Plan> {
        sysctl_dropin::plan_undo(&self.root, self.applier)
    }

    /// Does it. Errors: without root, or where the kernel or the file system refuses.
    pub fn carry_out(&self, plan: &Plan) -> anyhow::Result<()> {
        use anyhow::Context as _;
        sysctl_dropin::carry_out(&self.root, plan).with_context(|| "it was not changed")
    }
}

/// Every process, and a sentence about those that did not answer. `tasks`: the kernel's own counts.
fn processes(proc: &Proc, tasks: Option<Vec<Task>>) -> (Vec<Running>, Option<String>) {
    let counted = tasks.map(|tasks| {
        tasks.into_iter().map(|task| (task.pid, task.vmas)).collect::<HashMap<u32, Option<u64>>>()
    });
    let pids = proc.pids().unwrap_or_default();
    let answers = apart::each(&pids, &Patience::default(), CountBuffer::default, |&pid, buffer, _| {
        let handle = proc.open(pid).ok()?;
        let stat = handle
            .stat()
            .ok()
            .filter(|stat| !(stat.kernel_thread || stat.state == 'Z' && stat.threads <= 1))?;
        let arguments = arguments(&handle.cmdline().unwrap_or_default());
        let vmas = match &counted {
            Some(counts) => counts.get(&pid).copied().flatten(),
            None => handle.count(&stat, buffer).ok(),
        };
        let app = application(handle.exe().as_deref(), &arguments, &stat.comm);
        Some(Running { pid, comm: stat.comm, arguments, app, vmas })
    });
    let mut silent: Vec<(Running, Unreadable)> = Vec::new();
    let mut all = Vec::new();
    for (&pid, answer) in pids.iter().zip(answers) {
        match answer {
            Ok(process) => all.extend(process),
            Err(why) => {
                // Never blocks: see `scan`.
                let Ok(stat) = proc.open(pid).and_then(|handle| handle.stat()) else { continue };
                let vmas = counted.as_ref().and_then(|counts| counts.get(&pid).copied().flatten());
                let app = application(None, &[], &stat.comm);
                silent.push((Running { pid, comm: stat.comm, arguments: Vec::new(), app, vmas }, why.into()));
            }
        }
    }
    let sentence = silent.first().map(|(first, why)| {
        format!(
            "{} known by name only; {} (pid {}){} {}.",
            text::count(silent.len() as u64, "process is", "processes are"),
            first.comm,
            first.pid,
            if silent.len() > 1 { ", the first," } else { "" },
            why.sentence()
        )
    });
    all.extend(silent.into_iter().map(|(process, _)| process));
    (all, sentence)
}

fn largest(running: &[Running]) -> Option<&Running> {
    // vmaudit itself is no reason for anything.
    let own = std::process::id();
    running
        .iter()
        .filter(|process| process.vmas.is_some() && process.pid != own)
        .max_by_key(|process| process.vmas)
}

/// What was found, and what follows from it.
pub fn report(
    machine: &Machine,
    all: &[Known],
    options: &LimitOptions,
    anonymizer: &Anonymizer,
) -> LimitReport {
    let Machine { root, proc, applier, processes, .. } = machine;
    let (root, applier) = (root.as_path(), *applier);
    let root_reads = nix::unistd::geteuid().is_root();
    let running = proc.limits().max_map_count;
    let boot = sysctl_conf::read(root, applier, None);
    let after_boot = boot.value.or(boot.command_line).unwrap_or(KERNEL_DEFAULT);
    let other_files: Vec<OtherFile> = sysctl_conf::others(root)
        .into_iter()
        .map(|(file, line, text)| OtherFile { file, line, text })
        .collect();
    let needs = find_needs(machine, all, options, running);
    let largest = largest(processes).and_then(|process| {
        Some(Largest {
            app: anonymizer.apply(&process.app).into_owned(),
            pid: process.pid,
            vmas: process.vmas?,
        })
    });
    let other = if applier == Applier::Procps { Applier::SystemdSysctl } else { Applier::Procps };
    let otherwise = sysctl_conf::read(root, other, None);
    let mut warnings = domain_limit::warnings(&boot, &otherwise, running, after_boot, &other_files);
    warnings.extend(boot.unread.iter().map(|file| file.sentence() + "."));
    warnings.extend(machine.silent.clone());

    let (suggested, commands) =
        domain_limit::advice(&needs, largest.as_ref().map(|it| it.vmas), running, after_boot, root_reads);
    LimitReport {
        schema: "vmaudit.limit",
        version: 1,
        running,
        kernel_default: KERNEL_DEFAULT,
        kernel_largest: KERNEL_LARGEST,
        boot,
        after_boot,
        other_files,
        warnings,
        container: container(root),
        shipped: os_release(root).as_deref().and_then(domain_limit::shipped).copied(),
        not_counted: processes.iter().filter(|process| process.vmas.is_none()).count() as u64,
        price: {
            let _rights = rights::raised(&rights::PROCESSES);
            price(&proc.object_sizes(&CACHES), host().page_size)
        },
        largest,
        needs,
        suggested,
        commands,
    }
}

/// As os-release(5) orders them; no more of it than such a file has.
fn os_release(root: &Path) -> Option<String> {
    use std::io::Read as _;
    let file = ["etc/os-release", "usr/lib/os-release"].into_iter().find_map(|path| {
        let file = std::fs::File::open(root.join(path)).ok()?;
        file.metadata().ok()?.is_file().then_some(file)
    })?;
    let mut text = String::new();
    file.take(64 * 1024).read_to_string(&mut text).ok()?;
    Some(text)
}

fn container(root: &Path) -> Option<String> {
    [".dockerenv", "run/.containerenv", "run/systemd/container"]
        .into_iter()
        .find(|path| root.join(path).exists())
        .map(|path| format!("/{path} exists"))
}

fn find_needs(machine: &Machine, all: &[Known], options: &LimitOptions, limit: Option<u64>) -> Vec<Need> {
    let Machine { root, proc, processes, .. } = machine;
    let mut found = Vec::new();
    for known in all {
        let own: Vec<&Running> =
            processes.iter().filter(|process| known.matches(&process.comm, &process.arguments)).collect();
        let named = options
            .software
            .iter()
            .any(|name| requirements::named(all, name).is_ok_and(|it| it.name == known.name));
        let why = if !own.is_empty() {
            Found::Running(own.iter().map(|process| process.pid).collect())
        } else if named {
            Found::Named
        } else if let Some(path) = installed(root, known) {
            Found::Installed(path)
        } else {
            continue;
        };
        let facts = Facts {
            heap_bytes: options.heap.or_else(|| {
                own.iter()
                    .filter_map(|process| requirements::java_heap(&process.arguments))
                    .max()
                    // Without -Xmx a JVM takes a quarter of the memory.
                    .or_else(|| {
                        (!own.is_empty()).then(|| proc.memory_bytes().map(|bytes| bytes / 4)).flatten()
                    })
            }),
            items: options.items,
            memory_bytes: proc.memory_bytes(),
        };
        let vmas = known.vmas(&facts);
        let measured = own.iter().filter_map(|process| process.vmas).max();
        let missing = known.missing(&facts);
        let sentence = domain_limit::sentence(known, vmas, measured, limit);
        found.push(Need { known: known.clone(), found: why, vmas, missing, measured, sentence });
    }
    found
}

fn installed(root: &Path, known: &Known) -> Option<PathBuf> {
    known.installed.iter().find_map(|path| {
        let full = root.join(path);
        let there = match &known.installed_contains {
            Some(words) => std::fs::read_to_string(&full).is_ok_and(|text| text.contains(words.as_str())),
            None => full.exists(),
        };
        there.then(|| Path::new("/").join(path))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::format::{self, Document, Format};
    use crate::output::text::page::Style;

    #[test]
    fn three_files_a_running_game_and_a_named_database() {
        let root = std::env::temp_dir().join(format!("vmaudit-limit-{}", std::process::id()));
        let put = |path: &str, text: &str| {
            let path = root.join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        put("proc/sys/vm/max_map_count", "1048576\n");
        put("proc/meminfo", "MemTotal:       16777216 kB\n");
        put("proc/9/stat", "9 (java) S 1 1 1 0 -1 4194304 0 0 0 0 0 0 0 0 20 0 1 0 5 0 0");
        put("proc/9/cmdline", "java\0-XX:+UseZGC\0-Xmx120832m\0");
        put("proc/9/maps", &"1000-2000 rw-p 00000000 00:00 0 \n".repeat(500));
        put("etc/sysctl.d/10-es.conf", "vm.max_map_count=1048576\n");
        put("usr/lib/sysctl.d/90-game.conf", "vm.max_map_count=262144\n");
        put("etc/sysctl.conf", "vm.max_map_count=70000\n");
        put("run/systemd/system/x", "");
        let options = LimitOptions { software: vec!["vertica".to_owned()], ..LimitOptions::default() };
        let all = requirements::known().unwrap();
        let machine = Machine::at(&root, None);
        let report = report(&machine, &all, &options, &Anonymizer::off());
        assert_eq!((report.running, report.after_boot), (Some(1_048_576), 262_144));
        assert!(
            report.warnings[0].contains("fall to 262,144: /usr/lib/sysctl.d/90-game.conf:1"),
            "{:?}",
            report.warnings
        );
        assert!(report.warnings[1].contains("lowers the limit"), "{:?}", report.warnings);
        assert!(
            report.warnings[2].contains("/etc/sysctl.conf:1 would win with 70000"),
            "{:?}",
            report.warnings
        );
        let names: Vec<&str> = report.needs.iter().map(|need| need.known.name.as_str()).collect();
        assert_eq!(names, ["zgc", "vertica"]);
        assert_eq!((report.needs[0].vmas, report.needs[0].measured), (Some(217_497), Some(500)));
        assert_eq!(report.needs[1].vmas, Some(1_048_576));
        assert_eq!(report.suggested, None);
        for format in [Format::Text, Format::Json, Format::Csv] {
            let mut out = Vec::new();
            format::write(&Document::Limit(&report), format, &Style::default(), &mut out).unwrap();
            assert!(!out.is_empty());
            let text = String::from_utf8_lossy(&out);
            assert!(
                format != Format::Text
                    || text
                        .split_whitespace()
                        .collect::<Vec<_>>()
                        .join(" ")
                        .contains("measured now: 500, 1/434 of that,"),
                "{text}"
            );
        }
        std::fs::remove_dir_all(root).unwrap();
    }
}
