//! Prometheus' text format, for node_exporter's textfile collector: what one session found, by group.

use std::collections::BTreeMap;
use std::io::{self, Write};

use crate::model::cause::Cause;
use crate::model::report::{Failure, Process, Report};
use crate::output::document::Document;
use crate::output::exposition::label;
use crate::output::text::page::Style;

/// Groups told apart; further ones, those with the smallest peaks, are `other`.
const GROUPS: usize = 1000;

/// Writes a report. Errors: those of `out`, and another document.
pub(crate) fn write(document: &Document<'_>, _: &Style, out: &mut dyn Write) -> io::Result<()> {
    let Document::Report(report) = document else { return Err(io::Error::other("it is no report")) };
    let groups = groups(report);
    if let Some(limit) = report.limits.max_map_count {
        family(
            out,
            "vmaudit_memory_map_areas_limit",
            "gauge",
            "vm.max_map_count: VMAs that a process may have.",
        )?;
        writeln!(out, "vmaudit_memory_map_areas_limit {limit}")?;
    }
    let peak = "vmaudit_process_memory_map_areas_peak";
    family(out, peak, "gauge", "Largest number of VMAs of a process of the group in the session.")?;
    for (group, figures) in &groups {
        if let Some(value) = figures.peak {
            writeln!(out, "{peak}{{group=\"{group}\"}} {value}")?;
        }
    }
    failures(report, &groups, out)?;
    let lost = "vmaudit_events_lost_total";
    family(out, lost, "counter", "What the session lost, by reason.")?;
    let reasons: BTreeMap<String, u64> =
        report.coverage.lost.iter().map(|(reason, count)| (label(reason), *count)).collect();
    for (reason, count) in reasons {
        writeln!(out, "{lost}{{reason=\"{reason}\"}} {count}")?;
    }
    session(report, out)
}

/// What is known of a group.
#[derive(Clone, Debug, Default)]
struct Figures {
    peak: Option<u64>,
    /// By call, errno and cause.
    failures: BTreeMap<(String, String, Cause), u64>,
}

/// A process's systemd unit, else its application, else its name.
fn group_of(process: &Process) -> &str {
    process.unit.as_deref().or(process.app.as_deref()).unwrap_or(&process.comm)
}

fn groups(report: &Report) -> Vec<(String, Figures)> {
    let mut groups: BTreeMap<String, Figures> = BTreeMap::new();
    for process in &report.processes {
        let figures = groups.entry(label(group_of(process))).or_default();
        figures.peak = figures.peak.max(process.map_count.peak);
    }
    for sum in &report.folded {
        let name = if sum.various { "other" } else { sum.app.as_deref().unwrap_or(&sum.comm) };
        let figures = groups.entry(label(name)).or_default();
        figures.peak = figures.peak.max(sum.peak_max);
    }
    for failure in report.unrecovered() {
        let group = report.processes.iter().find(|process| failure.is_of(process)).map(group_of);
        let group = group.unwrap_or(if failure.various { "other" } else { &failure.comm });
        let Failure { syscall, errno, cause, count, .. } = failure;
        let figures = groups.entry(label(group)).or_default();
        let sum = figures.failures.entry((label(syscall), label(errno), *cause)).or_default();
        *sum = sum.saturating_add(*count);
    }
    let mut all: Vec<(String, Figures)> = groups.into_iter().collect();
    if all.len() > GROUPS {
        all.sort_by(|(a, one), (b, other)| {
            (!other.failures.is_empty(), other.peak)
                .cmp(&(!one.failures.is_empty(), one.peak))
                .then_with(|| a.cmp(b))
        });
        let mut other = Figures::default();
        let (rest, mut kept): (Vec<_>, Vec<_>) = all
            .into_iter()
            .enumerate()
            .partition(|(place, (name, _))| *place >= GROUPS - 1 || name == "other");
        for (_, (_, figures)) in rest {
            other.peak = other.peak.max(figures.peak);
            for (kind, count) in figures.failures {
                let sum = other.failures.entry(kind).or_default();
                *sum = sum.saturating_add(count);
            }
        }
        kept.push((usize::MAX, ("other".to_owned(), other)));
        all = kept.into_iter().map(|(_, group)| group).collect();
    }
    all
}

/// Also 0 of what the limit most often refuses: a rule on an increase needs a beginning.
fn failures(report: &Report, groups: &[(String, Figures)], out: &mut dyn Write) -> io::Result<()> {
    if report.processes.iter().all(|process| process.unmap_leaked_bytes.is_none()) {
        // Nobody could see them: no figure, rather than 0.
        return Ok(());
    }
    let name = "vmaudit_memory_syscall_failures_total";
    family(out, name, "counter", "Memory calls that were refused in the session.")?;
    let write = |out: &mut dyn Write, group: &str, syscall: &str, errno: &str, cause: &str, count: u64| {
        writeln!(
            out,
            "{name}{{group=\"{group}\",syscall=\"{syscall}\",errno=\"{errno}\",cause=\"{cause}\"}} {count}"
        )
    };
    for (group, figures) in groups {
        for syscall in ["mmap", "munmap", "mprotect"] {
            let key = (syscall.to_owned(), "ENOMEM".to_owned(), Cause::MaxMapCount);
            if !figures.failures.contains_key(&key) {
                write(out, group, syscall, "ENOMEM", Cause::MaxMapCount.name(), 0)?;
            }
        }
        for ((syscall, errno, cause), count) in &figures.failures {
            write(out, group, syscall, errno, cause.name(), *count)?;
        }
    }
    Ok(())
}

fn session(report: &Report, out: &mut dyn Write) -> io::Result<()> {
    let broken = "vmaudit_session_budgets_broken";
    family(out, broken, "gauge", "Budgets that were broken, or not shown to hold.")?;
    writeln!(out, "{broken} {}", report.breaches.len())?;
    if let Ok(started) = report.session.started.parse::<jiff::Timestamp>() {
        let start = "vmaudit_session_start_time_seconds";
        family(out, start, "gauge", "When the session began, seconds since 1970.")?;
        writeln!(out, "{start} {}", started.as_second())?;
    }
    let exact = "vmaudit_session_peaks_exact";
    family(out, exact, "gauge", "1: every peak is the true one, and no process is missing; 0: else.")?;
    writeln!(out, "{exact} {}", u8::from(report.coverage.exact_peaks))?;
    let all = "vmaudit_session_refusals_by_limit_exact";
    family(out, all, "gauge", "1: every call that vm.max_map_count refused was seen; 0: else.")?;
    writeln!(out, "{all} {}", u8::from(!report.limit_failures_may_be_missing()))?;
    let build = "vmaudit_build_info";
    family(out, build, "gauge", "The vmaudit that measured.")?;
    writeln!(out, "{build}{{version=\"{}\"}} 1", label(&report.vmaudit))
}

fn family(out: &mut dyn Write, name: &str, kind: &str, help: &str) -> io::Result<()> {
    writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}")
}
