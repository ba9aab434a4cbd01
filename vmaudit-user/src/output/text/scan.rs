//! `vmaudit scan` for people.

use std::collections::BTreeMap;
use std::io::{self, Write};

use crate::model::limit::origin;
use crate::model::report::Process;
use crate::model::scan::{Need, Scan};
use crate::output::text::page::{Colour, Style};
use crate::text::{bytes, clean, count, grouped, shell};

/// Writes `scan`.
pub(crate) fn write(scan: &Scan, style: &Style, out: &mut dyn Write) -> io::Result<()> {
    let bold = |text: &str| style.paint(Colour::Bold, text);
    for note in &scan.report.coverage.notes {
        writeln!(out, "{}", style.paint(Colour::Yellow, &clean(note)))?;
    }
    processes(scan, style, out)?;

    writeln!(out, "\n{}", bold("Applications"))?;
    writeln!(out, "{:>10} {:>10} {:>10} {:>10}  application", "instances", "max", "avg", "min")?;
    for app in &scan.applications {
        let figures = [app.instances, app.max, app.avg, app.min]
            .map(|figure| format!("{:>10}", grouped(figure)))
            .join(" ");
        writeln!(out, "{figures}  {}", style.fit(&app.app, 45))?;
    }
    let readable =
        scan.report.processes.iter().filter(|process| process.map_count.last.is_some()).count() as u64;
    writeln!(
        out,
        "Together {} in {}. The limit holds for each process by itself, not for this sum.",
        count(scan.total_vmas, "VMA", "VMAs"),
        count(readable, "process", "processes")
    )?;

    writeln!(out, "\n{}", bold("Kernel"))?;
    match &scan.slab {
        Some(slab) => writeln!(
            out,
            "  vm_area_struct    {} active, {} allocated, {} each",
            grouped(slab.active),
            grouped(slab.total),
            bytes(slab.object_bytes)
        )?,
        None => writeln!(out, "  vm_area_struct    not shown to you: /proc/slabinfo needs root")?,
    }
    match scan.report.limits.max_map_count {
        Some(limit) => writeln!(out, "  vm.max_map_count  {} ({})", grouped(limit), origin(limit))?,
        None => writeln!(out, "  vm.max_map_count  could not be read")?,
    }
    advice(scan, style, out)
}

fn processes(scan: &Scan, style: &Style, out: &mut dyn Write) -> io::Result<()> {
    let top = style.top.max(1);
    let with_arguments = !scan.arguments.is_empty();
    let all = &scan.report.processes;
    let readable: Vec<(usize, &Process)> =
        all.iter().enumerate().filter(|(_, process)| process.map_count.last.is_some()).collect();
    writeln!(
        out,
        "{}",
        style.paint(
            Colour::Bold,
            &format!("Processes by VMA count ({} of {})", top.min(readable.len()), readable.len())
        )
    )?;
    if with_arguments {
        writeln!(
            out,
            "{}",
            style.paint(
                Colour::Red,
                "Command lines may hold secrets: look through them before you share this."
            )
        )?;
    }
    let user_width =
        scan.users.values().map(|name| clean(name).chars().count()).max().unwrap_or(0).clamp(4, 12);
    let what = if with_arguments { "command" } else { "application" };
    writeln!(out, "{:>10} {:>8} {:>8}  {:<user_width$}  {what}", "VMAs", "of limit", "PID", "user")?;
    for (place, process) in readable.iter().take(top) {
        let now = process.map_count.last.unwrap_or(0);
        let used = process.map_count.percent_of_limit;
        let share = format!("{:>8}", used.map_or_else(|| "-".to_owned(), |used| format!("{used:.1}%")));
        let share = match used {
            Some(used) => style.paint(room_colour(100.0 - used), &share),
            None => share,
        };
        let user = process
            .uid
            .and_then(|uid| scan.users.get(&uid))
            .map_or_else(|| "?".to_owned(), |name| clean(name));
        let shown = match scan.arguments.get(*place).filter(|arguments| !arguments.is_empty()) {
            Some(arguments) => shell::quoted(arguments),
            None => process.app.clone().unwrap_or_default(),
        };
        writeln!(
            out,
            "{:>10} {share} {:>8}  {user:<user_width$}  {}",
            grouped(now),
            process.pid,
            style.fit(&shown, 32 + user_width)
        )?;
    }
    // Every process that gives no count is accounted for, grouped by reason.
    let mut reasons: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for process in all.iter().filter(|process| process.map_count.last.is_none()) {
        let reason = process.unreadable.as_deref().unwrap_or("unknown");
        reasons.entry(reason).or_default().push(process.pid.to_string());
    }
    for (reason, pids) in reasons {
        let shown: Vec<&str> = pids.iter().map(String::as_str).take(8).collect();
        let more = pids.len().saturating_sub(shown.len());
        let more = if more > 0 { format!(" and {} more", grouped(more as u64)) } else { String::new() };
        let line = format!(
            "Not counted: {} ({}{more}): {}",
            count(pids.len() as u64, "process", "processes"),
            shown.join(", "),
            clean(reason)
        );
        writeln!(out, "{}", style.paint(Colour::Dim, &line))?;
    }
    Ok(())
}

fn advice(scan: &Scan, style: &Style, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "\n{}", style.paint(Colour::Bold, "Recommendation"))?;
    for need in scan.largest.iter().chain(&scan.custom) {
        writeln!(out, "  {:<16} {}", "largest", style.fit(&need.who, 20))?;
        writeln!(out, "  {:<16} {}", "VMAs", grouped(need.vmas))?;
        if let Some(limit) = scan.report.limits.max_map_count {
            limit_line("current limit", limit, need, style, out)?;
        }
        limit_line("recommended", need.recommended, need, style, out)?;
        writeln!(out)?;
    }
    for sentence in &scan.report.recommendation.sentences {
        writeln!(out, "  {}", clean(sentence))?;
    }
    for command in &scan.report.recommendation.commands {
        writeln!(out, "    {}", clean(command))?;
    }
    Ok(())
}

fn limit_line(title: &str, limit: u64, need: &Need, style: &Style, out: &mut dyn Write) -> io::Result<()> {
    let free = i128::from(limit) - i128::from(need.vmas);
    let share = if limit == 0 { 0.0 } else { free as f64 * 100.0 / limit as f64 };
    let sign = if free < 0 { "-" } else { "" };
    let room = format!("{sign}{} free, {share:.1}%", grouped(free.unsigned_abs() as u64));
    writeln!(
        out,
        "  {title:<16} vm.max_map_count={limit} ({}), {}",
        origin(limit),
        style.paint(room_colour(share), &room)
    )
}

/// Colour for the room that is left, in percent: the thresholds people know from the Python tool.
fn room_colour(percent: f64) -> Colour {
    if percent >= 20.0 {
        Colour::Green
    } else if percent >= 5.0 {
        Colour::Yellow
    } else {
        Colour::Red
    }
}
