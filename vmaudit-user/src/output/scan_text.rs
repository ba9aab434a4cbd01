//! `vmaudit scan` for people, as JSON and as CSV.

use std::collections::BTreeMap;
use std::io::{self, Write};

use crate::model::limit::origin;
use crate::model::report::Process;
use crate::model::scan::{Need, Scan};
use crate::output::form::{Form, csv_text};
use crate::output::json;
use crate::output::table::{Colour, Look, room_colour};
use crate::text::{bytes, clean, count, grouped, shell};

/// Writes `scan`; `top` limits the processes of the text.
pub fn write(scan: &Scan, form: Form, top: usize, look: &Look, out: &mut Vec<u8>) -> io::Result<()> {
    match form {
        Form::Text => text(scan, top, look, out),
        Form::Json => json::document(scan, out),
        Form::Csv => csv(scan, out),
    }
}

fn text(scan: &Scan, top: usize, look: &Look, out: &mut Vec<u8>) -> io::Result<()> {
    let bold = |text: &str| look.paint(Colour::Bold, text);
    for note in &scan.report.coverage.notes {
        writeln!(out, "{}", look.paint(Colour::Yellow, &clean(note)))?;
    }
    processes(scan, top.max(1), look, out)?;

    writeln!(out, "\n{}", bold("Applications"))?;
    writeln!(out, "{:>10} {:>10} {:>10} {:>10}  application", "instances", "max", "avg", "min")?;
    for app in &scan.applications {
        let figures = [app.instances, app.max, app.avg, app.min]
            .map(|figure| format!("{:>10}", grouped(figure)))
            .join(" ");
        writeln!(out, "{figures}  {}", look.fit(&app.app, 45))?;
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
    advice(scan, look, out)
}

fn processes(scan: &Scan, top: usize, look: &Look, out: &mut Vec<u8>) -> io::Result<()> {
    let with_arguments = !scan.arguments.is_empty();
    let all = &scan.report.processes;
    let readable: Vec<(usize, &Process)> =
        all.iter().enumerate().filter(|(_, process)| process.map_count.last.is_some()).collect();
    writeln!(
        out,
        "{}",
        look.paint(
            Colour::Bold,
            &format!("Processes by VMA count ({} of {})", top.min(readable.len()), readable.len())
        )
    )?;
    if with_arguments {
        writeln!(
            out,
            "{}",
            look.paint(
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
            Some(used) => look.paint(room_colour(100.0 - used), &share),
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
            look.fit(&shown, 32 + user_width)
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
        writeln!(out, "{}", look.paint(Colour::Dim, &line))?;
    }
    Ok(())
}

fn advice(scan: &Scan, look: &Look, out: &mut Vec<u8>) -> io::Result<()> {
    writeln!(out, "\n{}", look.paint(Colour::Bold, "Recommendation"))?;
    for need in scan.largest.iter().chain(&scan.custom) {
        writeln!(out, "  {:<16} {}", "largest", look.fit(&need.who, 20))?;
        writeln!(out, "  {:<16} {}", "VMAs", grouped(need.vmas))?;
        if let Some(limit) = scan.report.limits.max_map_count {
            limit_line("current limit", limit, need, look, out)?;
        }
        limit_line("recommended", need.recommended, need, look, out)?;
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

fn limit_line(title: &str, limit: u64, need: &Need, look: &Look, out: &mut Vec<u8>) -> io::Result<()> {
    let free = i128::from(limit) - i128::from(need.vmas);
    let share = if limit == 0 { 0.0 } else { free as f64 * 100.0 / limit as f64 };
    let sign = if free < 0 { "-" } else { "" };
    let room = format!("{sign}{} free, {share:.1}%", grouped(free.unsigned_abs() as u64));
    writeln!(
        out,
        "  {title:<16} vm.max_map_count={limit} ({}), {}",
        origin(limit),
        look.paint(room_colour(share), &room)
    )
}

fn csv(scan: &Scan, out: &mut Vec<u8>) -> io::Result<()> {
    writeln!(out, "pid,ppid,uid,user,comm,app,exe,cgroup,vmas,percent_of_limit,exact,unreadable")?;
    let number = |value: Option<u64>| value.map(|value| value.to_string()).unwrap_or_default();
    for process in &scan.report.processes {
        let user = process.uid.and_then(|uid| scan.users.get(&uid)).map(String::as_str);
        let fields = [
            process.pid.to_string(),
            number(process.ppid.map(u64::from)),
            number(process.uid.map(u64::from)),
            csv_text(user),
            csv_text(Some(&process.comm)),
            csv_text(process.app.as_deref()),
            csv_text(process.exe.as_deref()),
            csv_text(process.cgroup.as_deref()),
            number(process.map_count.last),
            process.map_count.percent_of_limit.map(|percent| percent.to_string()).unwrap_or_default(),
            process.map_count.exact.to_string(),
            csv_text(process.unreadable.as_deref()),
        ];
        writeln!(out, "{}", fields.join(","))?;
    }
    Ok(())
}
