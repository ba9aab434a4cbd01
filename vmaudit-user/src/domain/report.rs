//! The report of a session: from its header and from what the audit made of its events, and from nothing else.

use std::time::{Duration, UNIX_EPOCH};

use crate::domain::audit::{Audit, Rows};
use crate::domain::elsewhere::elsewhere;
use crate::domain::recommend::{self, Margin, MarginError, Measured, delays, enough};
use crate::domain::{arguments, budget};
use crate::model::loss::LossReason;
use crate::model::report::{
    Action, Cause, Coverage, Failure, FoldedProcesses, Layout, Process, Report, SCHEMA, Session, SourceKind,
    Stretch, VERSION,
};
use crate::model::session::{self, Header};
use crate::text::time::{rfc3339, unix_ns};
use crate::text::{count, total};

/// A limit that may stay is no comfort where a budget does not hold.
const NOT_THE_LIMIT: &str =
    "Another vm.max_map_count mends no budget: what was measured has to change, or the budget.";

/// Makes the report. The only error: the header asks for a margin that is refused.
pub fn report(header: &Header, audit: &Audit) -> Result<Report, MarginError> {
    let margin = Margin::new(header.margin.headroom, header.margin.round)?;
    let ebpf = header.source == SourceKind::Ebpf;
    let mut rows = audit.rows();
    hide(&mut rows, audit);
    rows.notes.extend(unwatched(&rows.processes, &rows.folded));
    let marks = audit.marks(ebpf && rows.exact_peaks);
    let seen = audit.session();
    let rows_unseen = rows.lost.get(&LossReason::ProcessUnseen).copied().unwrap_or(0);
    let coverage = Coverage {
        exact_peaks: ebpf && rows.exact_peaks,
        exact_calls: ebpf && rows.exact_calls,
        exact_locking_calls: ebpf && rows.exact_locking_calls,
        exact_limit_calls: ebpf && rows.exact_limit_calls,
        hooks: seen.hooks.to_vec(),
        conditions: seen.conditions.to_vec(),
        lost: rows.lost.into_iter().map(|(reason, count)| (reason.name().to_owned(), count)).collect(),
        gaps: audit.gaps(),
        notes: seen.notes.iter().cloned().chain(rows.notes).collect(),
    };
    let top = speaks_for_all(&rows.processes, &rows.failures);
    let mut recommendation = recommend::recommend(&Measured {
        peak: top.and_then(|p| p.map_count.peak),
        exact: coverage.exact_peaks,
        sampled: !ebpf,
        unseen: rows_unseen,
        clipped: rows.processes.iter().any(|p| p.map_count.clipped)
            || rows.folded.iter().any(|sum| sum.clipped > 0),
        who: top.map(|p| (p.peak_comm().to_owned(), p.pid)),
        margin,
        current: rows.limits.max_map_count,
        grows: delays::grows(&rows.processes),
        failures: rows.kinds,
        vma_bytes: seen.vma_bytes,
        unread: 0,
        root: false,
    });
    if let Some((pid, delays)) = delays::of_growth(&rows.processes, &recommendation) {
        // Of another process than the advice is for, it is no more than a remark.
        let at = if top.is_some_and(|top| top.pid == pid) { 0 } else { recommendation.sentences.len() };
        recommendation.sentences.insert(at, delays);
    }
    recommendation.sentences.extend(enough::of_failures(&rows.failures, &rows.processes));
    let mut report = Report {
        schema: SCHEMA.into(),
        version: VERSION,
        vmaudit: header.vmaudit.clone(),
        host: header.host.clone(),
        session: Session {
            command: header.command.clone(),
            watched: header.watched.clone(),
            started: header.started.clone(),
            duration_s: seen.duration_s,
            exit: seen.exit,
            end: audit.command_end(header.command.first().map(String::as_str)),
            elsewhere: match header.command.is_empty() {
                true => None,
                false => elsewhere(&rows.processes),
            },
            breach: None,
            rlimits: seen.rlimits,
            still_running: seen.still_running,
            stretch: header.stretch.as_ref().map(|it| stretch(header, it)),
        },
        source: header.source,
        coverage,
        limits: rows.limits,
        processes: rows.processes,
        folded: rows.folded,
        not_counted: Vec::new(),
        failures: rows.failures,
        ordinary_answers: rows.ordinary,
        marks,
        budgets: Vec::new(),
        breaches: Vec::new(),
        recommendation,
    };
    report.breaches = budget::breaches(&header.budget, &report);
    report.budgets = budget::demands(&header.budget, &report.breaches);
    report.session.breach = report.breaches.first().map(|breach| breach.sentence.clone());
    if !report.breaches.is_empty() && report.recommendation.action == Action::Leave {
        report.recommendation.sentences.insert(0, NOT_THE_LIMIT.into());
    }
    Ok(report)
}

/// Takes out the addresses that the caller may not know.
fn hide(rows: &mut Rows, audit: &Audit) {
    let mut hidden = 0;
    for failure in
        rows.failures.iter_mut().chain(&mut rows.ordinary).filter(|it| audit.hides_addresses(it.pid))
    {
        hidden += u64::from(hide_addresses(failure));
    }
    if hidden > 0 {
        rows.notes.push(format!(
            "Addresses are left out of {}: they belong to processes that the caller may not look into, and vmaudit has \
             rights that he lacks",
            count(hidden, "example", "examples")
        ));
    }
    for process in rows.processes.iter_mut().filter(|it| audit.hides_addresses(it.pid)) {
        for maker in &mut process.makers {
            maker.stack_notes.clear();
            maker.stack.iter_mut().for_each(|frame| frame.ip = None);
        }
        process.layout.iter_mut().for_each(Layout::hide_addresses);
    }
}

fn stretch(header: &Header, it: &session::Stretch) -> Stretch {
    let after_ns = it.from_ns.saturating_sub(header.start_ns);
    let from = unix_ns(&header.started)
        .map_or(UNIX_EPOCH, |start| UNIX_EPOCH + Duration::from_nanos(start.saturating_add(after_ns)));
    Stretch {
        from_s: after_ns as f64 / 1e9,
        from: rfc3339(from),
        why: it.why.clone(),
        gone_processes: it.gone.processes,
        gone_refused: it.gone.refused,
    }
}

/// Takes the addresses out of its example; `false` when there are none.
fn hide_addresses(failure: &mut Failure) -> bool {
    // Notes may speak of addresses, as a stack that ends at one does.
    for site in &mut failure.sites {
        site.stack.iter_mut().for_each(|frame| frame.ip = None);
        site.stack_notes.clear();
    }
    let Some(example) = &mut failure.example else { return !failure.sites.is_empty() };
    example.stack_notes.clear();
    arguments::hide_addresses(&mut example.args);
    example.stack.iter_mut().for_each(|frame| frame.ip = None);
    true
}

/// What processes have used whose refusals nobody can see.
fn unwatched(processes: &[Process], folded: &[FoldedProcesses]) -> Vec<String> {
    let users = |call: &str| {
        let rows = processes.iter().filter(|row| row.calls.contains_key(call)).count() as u64;
        let sums = folded.iter().filter(|sum| sum.calls.contains_key(call)).map(|sum| sum.processes);
        total(sums.chain([rows]))
    };
    let used = |call: &str, what: &str| {
        let users = users(call);
        (users > 0).then(|| format!("{} used {what}", count(users, "process", "processes")))
    };
    let io_uring = "io_uring: a madvise() that is asked for through it is not watched";
    let compat = "calls of the 32-bit entry that are not watched (the older mmap, ipc)";
    used("io_uring_setup", io_uring).into_iter().chain(used("[32-bit]", compat)).collect()
}

/// The process that advice speaks of: one that the limit stopped, else one at the limit, else the largest.
fn speaks_for_all<'a>(processes: &'a [Process], failures: &[Failure]) -> Option<&'a Process> {
    let at_limit = || processes.iter().filter(|process| process.map_count.clipped);
    let stopped =
        |process: &&Process| failures.iter().any(|f| f.is_of(process) && f.cause == Cause::MaxMapCount);
    at_limit().find(stopped).or_else(|| at_limit().next()).or_else(|| processes.first())
}
