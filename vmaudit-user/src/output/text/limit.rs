//! `vmaudit limit` for people.

use std::io::{self, Write};

use crate::model::limit::{Fate, Found, Known, LimitReport, Plan, Rule, SAFE_VMA_BYTES, SCOPE, origin};
use crate::output::text::page::{Colour, Style};
use crate::text::{bytes, clean, grouped, percent};

/// Writes the report.
pub(crate) fn write(report: &LimitReport, style: &Style, out: &mut dyn Write) -> io::Result<()> {
    let bold = |text: &str| style.paint(Colour::Bold, text);
    match report.running {
        Some(limit) => {
            writeln!(out, "{}", bold(&format!("vm.max_map_count = {} ({})", grouped(limit), origin(limit))))?
        }
        None => writeln!(out, "{}", style.paint(Colour::Red, "vm.max_map_count cannot be read here"))?,
    }
    writeln!(out, "  {SCOPE}")?;
    if let Some(sign) = &report.container {
        writeln!(
            out,
            "  This looks like a container ({}): then change the limit on its host; the files below are the container's own.",
            clean(sign)
        )?;
    }
    writeln!(
        out,
        "  Kernel default {}, largest possible {}.",
        grouped(report.kernel_default),
        grouped(report.kernel_largest)
    )?;
    if let (Some(largest), Some(limit)) = (&report.largest, report.running) {
        writeln!(
            out,
            "  Largest process now: {} (pid {}), {} VMAs, {}% of the limit.",
            clean(&largest.app),
            largest.pid,
            grouped(largest.vmas),
            percent(largest.vmas, limit)
        )?;
    }

    writeln!(out, "\n{}", bold(&format!("At boot: {}", grouped(report.after_boot))))?;
    if report.boot.settings.is_empty() && report.boot.command_line.is_none() {
        writeln!(out, "  No file sets it.")?;
    }
    if let Some(value) = report.boot.command_line {
        writeln!(out, "  {:>13}  kernel command line, before any file", grouped(value))?;
    }
    for setting in &report.boot.settings {
        let value = setting.value.map_or_else(|| format!("{:?}?", setting.text), grouped);
        let mut line = format!(
            "  {:>13}  {}:{}  {}",
            clean(&value),
            clean(&setting.file.to_string_lossy()),
            setting.line,
            clean(&setting.fate.sentence())
        );
        if setting.lowers {
            line.push_str(", lowers an earlier value");
        }
        writeln!(out, "{}", if setting.fate == Fate::Wins { bold(&line) } else { line })?;
    }
    if !report.boot.settings.is_empty() {
        writeln!(out, "  In the order in which {} applies them.", report.boot.applier.name())?;
    }
    for warning in &report.warnings {
        writeln!(out, "  {} {}", style.paint(Colour::Yellow, "!"), clean(warning))?;
    }

    writeln!(out, "\n{}", bold("Price"))?;
    price(report, out)?;

    if !report.needs.is_empty() {
        writeln!(out, "\n{}", bold("Known needs"))?;
    }
    for need in &report.needs {
        let why = match &need.found {
            Found::Running(pids) => {
                let shown: Vec<String> = pids.iter().take(5).map(u32::to_string).collect();
                format!("running, pid {}{}", shown.join(" "), if pids.len() > 5 { " ..." } else { "" })
            }
            Found::Installed(path) => format!("installed, {}", clean(&path.to_string_lossy())),
            Found::Named => "asked for".to_owned(),
        };
        writeln!(out, "  {} ({why}) {}", need.known.title, need.sentence)?;
        if let Some(missing) = &need.missing {
            writeln!(out, "      To apply its rule {missing}.")?;
        }
        writeln!(out, "      {}. {}", need.known.note, style.paint(Colour::Dim, &need.known.source))?;
    }

    writeln!(out, "\n{}", bold("To change it"))?;
    match report.suggested {
        Some(value) => writeln!(out, "  {} satisfies what is listed above:", grouped(value))?,
        None if report.commands.is_empty() => {
            writeln!(
                out,
                "  Nothing listed above needs a change. `vmaudit limit --apply N --dry-run` shows how one is made."
            )?;
        }
        None => writeln!(out, "  The running value is enough; to keep it at the next boot:")?,
    }
    for command in &report.commands {
        writeln!(out, "    {command}")?;
    }
    Ok(())
}

fn price(report: &LimitReport, out: &mut dyn Write) -> io::Result<()> {
    let total = |each: f64, vmas: u64| bytes((each * vmas as f64) as u64);
    match &report.price {
        Some(price) => {
            writeln!(
                out,
                "  {:.0} to {:.0} bytes of kernel memory per VMA by this kernel's slab sizes; it cannot be swapped and is charged to the process's cgroup.",
                price.least, price.most
            )?;
            for (name, value) in
                [("at the running limit", report.running), ("at the suggested one", report.suggested)]
            {
                if let Some(value) = value {
                    writeln!(
                        out,
                        "  A process {name} of {} VMAs holds {} to {}.",
                        grouped(value),
                        total(price.least, value),
                        total(price.most, value)
                    )?;
                }
            }
        }
        None => {
            writeln!(
                out,
                "  About {SAFE_VMA_BYTES:.0} bytes of kernel memory per VMA, which cannot be swapped (a safe estimate; root can read this kernel's own sizes)."
            )?;
            if let Some(limit) = report.running {
                writeln!(out, "  A process at the limit holds {}.", total(SAFE_VMA_BYTES, limit))?;
            }
        }
    }
    writeln!(out, "  A higher limit costs nothing until a process uses it.")
}

/// Writes what was done, or would be.
pub(crate) fn plan(plan: &Plan, dry: bool, out: &mut dyn Write) -> io::Result<()> {
    let file = clean(&plan.file.to_string_lossy());
    match (&plan.content, dry) {
        (Some(content), dry) => {
            writeln!(out, "{} {file}:", if dry { "Would write" } else { "Wrote" })?;
            for line in content.lines() {
                writeln!(out, "    {}", clean(line))?;
            }
        }
        (None, true) => writeln!(out, "Would remove {file}")?,
        (None, false) => writeln!(out, "Removed {file}")?,
    }
    match (plan.running, dry) {
        (Some(value), true) => writeln!(out, "Would set the running value to {}", grouped(value))?,
        (Some(value), false) => writeln!(out, "The running value is now {}", grouped(value))?,
        (None, _) => writeln!(out, "The running value stays as it is")?,
    }
    for note in &plan.notes {
        writeln!(out, "! {}", clean(note))?;
    }
    Ok(())
}

/// Writes the list of known needs.
pub(crate) fn known(all: &[Known], style: &Style, out: &mut dyn Write) -> io::Result<()> {
    for known in all {
        let rule = match &known.rule {
            Rule::Fixed { vmas } => grouped(*vmas),
            Rule::PerHeap { granule_bytes, factor } => {
                format!("{factor} per {} of heap", bytes(*granule_bytes))
            }
            Rule::PerItem { item, factor } => format!("{factor} per {item}"),
            Rule::MemoryDivided { bytes: size, least } => {
                format!("1 per {} of memory, at least {}", bytes(*size), grouped(*least))
            }
            Rule::Unknown => "no number".to_owned(),
        };
        writeln!(out, "{:<16} {}: {rule}", known.name, style.paint(Colour::Bold, &known.title))?;
        writeln!(out, "{:<16} {}", "", known.note)?;
        writeln!(out, "{:<16} {}", "", style.paint(Colour::Dim, &known.source))?;
    }
    Ok(())
}
