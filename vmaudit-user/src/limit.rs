//! `vmaudit limit`: the running limit, who sets it at boot, what it costs, what software is said to need, and how to
//! change it.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use serde::{Deserialize, Serialize};

use crate::domain::application::{Anonymizer, application, arguments};
use crate::domain::recommend::Margin;
use crate::domain::requirements;
use crate::domain::requirements::Facts;
use crate::domain::vma_cost::{CACHES, price};
use crate::model::limit::{
    Applier, Boot, Fate, Found, KERNEL_DEFAULT, KERNEL_LARGEST, Known, Largest, LimitReport, Need, OtherFile,
    Setting,
};
use crate::os::apart::Patience;
use crate::os::procfs::{CountBuffer, Proc, Unreadable};
use crate::os::{apart, rights, sysctl_conf, sysctl_dropin};
use crate::output::form::{Form, Outputs};
use crate::scan::own_names;
use crate::source::ebpf::page_size;
use crate::source::ebpf::task_iter::{Census, Task};
use crate::text::grouped;
use crate::{output, text};

/// Options of `vmaudit limit`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Examples:\n  vmaudit limit\n  vmaudit limit --for elasticsearch\n  \
    vmaudit limit --for zgc --heap 64g\n  vmaudit limit --apply 262144 --dry-run\n  vmaudit limit --undo")]
pub struct LimitArgs {
    /// What this software is said to need, running or not; may be repeated. Example: --for elasticsearch
    #[arg(long = "for", value_name = "NAME")]
    pub software: Vec<String>,
    /// Maximum heap for rules that go by it. Example: --for zgc --heap 64g
    #[arg(long, value_name = "SIZE", value_parser = requirements::parse_size)]
    pub heap: Option<u64>,
    /// Number of what a rule counts: connections, threads, log segments. Example: --for kafka --items 152892
    #[arg(long, value_name = "N")]
    pub items: Option<u64>,
    /// List all software whose needs are known, with the source of each rule.
    #[arg(long)]
    pub known: bool,
    /// Set the limit now and, by a file of its own in /etc/sysctl.d, at every boot. Example: --apply 262144
    #[arg(long, value_name = "N", conflicts_with = "undo")]
    pub apply: Option<u64>,
    /// Take back what --apply did.
    #[arg(long)]
    pub undo: bool,
    /// Show what --apply or --undo would do, and do nothing.
    #[arg(long)]
    pub dry_run: bool,
    /// Form of the output. Example: --format json
    #[arg(long, value_enum, value_name = "FORM")]
    pub format: Vec<Form>,
    /// Write to this file instead of standard output.
    #[arg(short, long, value_name = "FILE")]
    pub output: Vec<PathBuf>,
    /// Leave users' names in paths instead of writing <user>.
    #[arg(long)]
    pub no_anonymize: bool,
}

/// One process, as far as it matters here.
#[derive(Serialize, Deserialize)]
struct Running {
    pid: u32,
    comm: String,
    arguments: Vec<String>,
    app: String,
    vmas: Option<u64>,
}

/// Runs the command.
pub fn limit_command(args: &LimitArgs) -> anyhow::Result<ExitCode> {
    let all = requirements::known()?;
    // A wrong name is found before anything is read.
    for name in &args.software {
        requirements::named(&all, name)?;
    }
    let outputs = Outputs::open(&args.format, &args.output)?;
    if args.known {
        rights::finish(&outputs.rights());
        outputs.write(|form, look, out| output::limit_text::write_known(&all, form, look, out))?;
        return Ok(ExitCode::SUCCESS);
    }
    let root = Path::new("/");
    let proc = Proc::new(root.join("proc"));
    let tasks = Census::open().ok().and_then(|census| census.take().ok());
    let (running, silent) = processes(&proc, tasks);
    let applier = sysctl_conf::applier(root);
    if args.undo || args.apply.is_some() {
        let held =
            largest(&running).map(|process| (process.app.clone(), process.pid, process.vmas.unwrap_or(0)));
        let plan = match args.apply {
            Some(value) => {
                sysctl_dropin::plan_apply(root, applier, value, held.as_ref(), env!("CARGO_PKG_VERSION"))?
            }
            None => sysctl_dropin::plan_undo(root, applier)?,
        };
        if !args.dry_run {
            sysctl_dropin::carry_out(root, &plan).with_context(|| {
                if nix::unistd::geteuid().is_root() {
                    "it was not changed"
                } else {
                    "changing the limit needs root"
                }
            })?;
        }
        rights::finish(&outputs.rights());
        outputs.write(|form, _, out| output::limit_text::write_plan(&plan, args.dry_run, form, out))?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut report = report(args, &all, root, (&proc, applier), &running);
    rights::finish(&outputs.rights());
    report.warnings.extend(silent);
    outputs.write(|form, look, out| output::limit_text::write(&report, form, look, out))?;
    Ok(ExitCode::SUCCESS)
}

/// Every process, and a sentence about those that did not answer. `tasks`: the kernel's own counts.
fn processes(proc: &Proc, tasks: Option<Vec<Task>>) -> (Vec<Running>, Option<String>) {
    let counted = tasks.map(|tasks| {
        tasks.into_iter().map(|task| (task.pid, task.vmas)).collect::<HashMap<u32, Option<u64>>>()
    });
    let pids = proc.pids().unwrap_or_default();
    let answers = apart::each(&pids, &Patience::default(), CountBuffer::default, |&pid, buffer, _| {
        let handle = proc.open(pid).ok()?;
        let stat = handle.stat().ok().filter(|stat| !stat.kernel_thread)?;
        let arguments = arguments(&handle.cmdline().unwrap_or_default());
        let vmas = match &counted {
            Some(counts) => counts.get(&pid).copied().flatten(),
            None => handle.count(&stat, buffer).ok(),
        };
        let app = application(None, &arguments, &stat.comm);
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
    running.iter().filter(|process| process.vmas.is_some()).max_by_key(|process| process.vmas)
}

fn report(
    args: &LimitArgs,
    all: &[Known],
    root: &Path,
    (proc, applier): (&Proc, Applier),
    running: &[Running],
) -> LimitReport {
    let anonymizer = if args.no_anonymize { Anonymizer::off() } else { Anonymizer::new(own_names()) };
    let limit = proc.limits().max_map_count;
    let boot = sysctl_conf::read(root, applier, None);
    let after_boot = boot.value.or(boot.command_line).unwrap_or(KERNEL_DEFAULT);
    let other_files: Vec<OtherFile> = sysctl_conf::others(root)
        .into_iter()
        .map(|(file, line, text)| OtherFile { file, line, text })
        .collect();
    let needs = find_needs(args, all, (root, proc), running, limit);
    let largest = largest(running).and_then(|process| {
        Some(Largest {
            app: anonymizer.apply(&process.app).into_owned(),
            pid: process.pid,
            vmas: process.vmas?,
        })
    });
    let warnings = warnings(root, applier, &boot, limit, after_boot, &other_files);

    // What a program checks is needed; what is merely said about it is shown and weighed by people.
    let measured = largest.as_ref().map(|largest| Margin::default().limit_for(largest.vmas));
    let demanded = needs.iter().filter_map(|need| match need.found {
        Found::Named => need.vmas,
        _ => need.known.enforced,
    });
    let wanted = demanded.chain(measured).max().filter(|&wanted| limit.is_some_and(|limit| wanted > limit));
    let (suggested, commands) = match wanted {
        Some(value) => (Some(value), commands(value)),
        // The running value is enough and does not outlive a boot.
        None => match limit.filter(|&limit| limit > after_boot) {
            Some(limit) => (None, commands(limit).split_off(1)),
            None => (None, Vec::new()),
        },
    };
    LimitReport {
        schema: "vmaudit.limit",
        version: 1,
        running: limit,
        kernel_default: KERNEL_DEFAULT,
        kernel_largest: KERNEL_LARGEST,
        boot,
        after_boot,
        other_files,
        warnings,
        container: container(root),
        price: {
            let _rights = rights::raised(&rights::PROCESSES);
            price(&proc.slabs(&CACHES), page_size())
        },
        largest,
        needs,
        suggested,
        commands,
    }
}

fn commands(value: u64) -> Vec<String> {
    vec![
        format!("sysctl -w vm.max_map_count={value}"),
        // Not the name of our own drop-in: `--apply` takes that for its own only if it wrote it.
        format!("echo 'vm.max_map_count = {value}' > /etc/sysctl.d/99-max-map-count.conf"),
        format!("vmaudit limit --apply {value}   # both, checked and with a way back"),
    ]
}

fn warnings(
    root: &Path,
    applier: Applier,
    boot: &Boot,
    running: Option<u64>,
    after_boot: u64,
    others: &[OtherFile],
) -> Vec<String> {
    let mut warnings = Vec::new();
    let place = |setting: &Setting| format!("{}:{}", setting.file.display(), setting.line);
    if let Some(running) = running
        && running != after_boot
    {
        let source = match boot.winner() {
            Some(winner) => format!("{} sets it", place(winner)),
            None if boot.command_line.is_some() => "the kernel's command line sets it".to_owned(),
            None => "no file sets it, so it is the kernel's default".to_owned(),
        };
        let direction = if after_boot < running { "fall to" } else { "rise to" };
        warnings.push(format!(
            "The next boot will let the limit {direction} {}: {source}, and the running value {} was set in another way.",
            grouped(after_boot),
            grouped(running)
        ));
    }
    if let Some(winner) = boot.winner() {
        if winner.lowers
            && let Some(highest) = boot
                .settings
                .iter()
                .take_while(|setting| *setting != winner)
                .filter(|setting| setting.fate == Fate::Replaced)
                .max_by_key(|setting| setting.value)
        {
            warnings.push(format!(
                "{} lowers the limit: it sets {} after {} set {}.",
                place(winner),
                winner.text,
                place(highest),
                highest.text
            ));
        }
        if winner.value.is_none() {
            warnings.push(format!(
                "{} decides, and the kernel refuses its value {:?}.",
                place(winner),
                winner.text
            ));
        }
    }
    let other = if applier == Applier::Procps { Applier::SystemdSysctl } else { Applier::Procps };
    let otherwise = sysctl_conf::read(root, other, None);
    if otherwise.winner().map(|winner| &winner.text) != boot.winner().map(|winner| &winner.text) {
        let says = otherwise.winner().map_or_else(
            || "nothing would set it".to_owned(),
            |winner| format!("{} would win with {}", place(winner), winner.text),
        );
        warnings.push(format!(
            "The boot of this machine uses {}; somebody who runs {} gets another value: {says}.",
            applier.name(),
            other.name()
        ));
    }
    for other in others {
        warnings.push(format!(
            "{}:{} sets {} when its service starts, after the files above.",
            other.file.display(),
            other.line,
            other.text
        ));
    }
    warnings
}

fn container(root: &Path) -> Option<String> {
    [".dockerenv", "run/.containerenv", "run/systemd/container"]
        .into_iter()
        .find(|path| root.join(path).exists())
        .map(|path| format!("/{path} exists"))
}

fn find_needs(
    args: &LimitArgs,
    all: &[Known],
    (root, proc): (&Path, &Proc),
    running: &[Running],
    limit: Option<u64>,
) -> Vec<Need> {
    let mut found = Vec::new();
    for known in all {
        let own: Vec<&Running> =
            running.iter().filter(|process| known.matches(&process.comm, &process.arguments)).collect();
        let named = args
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
            heap_bytes: args.heap.or_else(|| {
                own.iter()
                    .filter_map(|process| requirements::java_heap(&process.arguments))
                    .max()
                    // Without -Xmx a JVM takes a quarter of the memory.
                    .or_else(|| {
                        (!own.is_empty()).then(|| proc.memory_bytes().map(|bytes| bytes / 4)).flatten()
                    })
            }),
            items: args.items,
            memory_bytes: proc.memory_bytes(),
        };
        let vmas = known.vmas(&facts);
        let measured = own.iter().filter_map(|process| process.vmas).max();
        let missing = known.missing(&facts);
        let sentence = sentence(known, vmas, measured, limit);
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

fn sentence(known: &Known, vmas: Option<u64>, measured: Option<u64>, limit: Option<u64>) -> String {
    let mut text = match (vmas, limit) {
        (Some(vmas), Some(limit)) if limit >= vmas => {
            format!("is said to need {}; the limit {} is enough", grouped(vmas), grouped(limit))
        }
        (Some(vmas), Some(limit)) => {
            format!("is said to need {}; the limit {} is lower", grouped(vmas), grouped(limit))
        }
        (Some(vmas), None) => format!("is said to need {}", grouped(vmas)),
        (None, _) => "has no published number that could be applied".to_owned(),
    };
    if let (Some(enforced), Some(limit)) = (known.enforced, limit)
        && limit < enforced
    {
        text.push_str(&format!(", and it refuses to work below {}", grouped(enforced)));
    }
    if let Some(measured) = measured {
        text.push_str(&format!("; measured now: {}", grouped(measured)));
        if let Some(vmas) = vmas.filter(|&vmas| measured > 0 && vmas / measured >= 10) {
            text.push_str(&format!(", a {}th of that", grouped(vmas / measured)));
        }
    }
    text.push('.');
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::table::Look;
    use clap::Parser as _;

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        args: LimitArgs,
    }

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
        let args = Line::parse_from(["limit", "--for", "vertica"]).args;
        let all = requirements::known().unwrap();
        let proc = Proc::new(root.join("proc"));
        let (running, _) = processes(&proc, None);
        let report = report(&args, &all, &root, (&proc, sysctl_conf::applier(&root)), &running);
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
        for form in [Form::Text, Form::Json, Form::Csv] {
            let mut out = Vec::new();
            output::limit_text::write(&report, form, &Look::default(), &mut out).unwrap();
            assert!(!out.is_empty());
        }
        std::fs::remove_dir_all(root).unwrap();
    }
}
