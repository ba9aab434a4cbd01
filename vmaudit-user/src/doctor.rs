//! `vmaudit doctor`: what this kernel, these rights and this build allow, hook by hook, in sentences.

use std::io::Write as _;

use serde_json::json;

use crate::{
    cli::{DoctorArgs, ReportFormat},
    conditions,
    output::{self, Destination},
    report::HookState,
    source::{
        hooks::{self, HOOKS},
        kernel::Facts,
        live::{self, Live, Unavailable},
        proc_max_map_count,
    },
};

/// `vmaudit doctor`: 0 when peaks are exact here, 1 when only /proc is left.
pub fn doctor(args: &DoctorArgs) -> anyhow::Result<i32> {
    let facts = Facts::gather();
    let options = live::Options {
        watch_all: false,
        follow_children: true,
        stream_changes: false,
        stream_failures: false,
        attach: true,
        calls: true,
        stacks: false,
        ring_bytes: 1 << 16,
        slots: 64,
        debug: false,
    };
    let (hooks, conditions, why) = match Live::open(&facts, &options) {
        Ok(live) => (live.hooks(), conditions::look(&facts, Some(&live.hooks())), None),
        Err(Unavailable(why)) => {
            let why = conditions::blocking(&facts).unwrap_or(why);
            (hooks::all_missing(&why), conditions::look(&facts, None), Some(why))
        }
    };
    let sampled =
        hooks.iter().any(|hook| hook.name == hooks::LOCK_RELEASED && hook.state == HookState::Missing);
    let skippable = hooks.iter().any(|hook| hook.state == HookState::Attached && hook.loses.is_some());
    // `run` and `trace -p` do not work there, the hooks do.
    let why = why.or_else(|| conditions::pid_namespace(&conditions));
    let mut out = Destination::Stdout;
    match args.format {
        ReportFormat::Json => {
            let document = json!({
                "schema": "vmaudit.doctor", "version": 1, "vmaudit": env!("CARGO_PKG_VERSION"),
                "kernel": facts.release, "arch": facts.arch, "exact_peaks": why.is_none() && !sampled, "reason": why,
                "max_map_count": proc_max_map_count(), "conditions": conditions, "hooks": hooks,
            });
            output::json::document(&document, &mut out)?;
        }
        ReportFormat::Text => {
            writeln!(
                out,
                "vmaudit {} on Linux {} ({})\n",
                env!("CARGO_PKG_VERSION"),
                output::clean(&facts.release),
                facts.arch
            )?;
            match &why {
                None if sampled => writeln!(
                    out,
                    "Peaks of processes with one thread are exact here; those of others are samples, and say so.\n"
                )?,
                None if skippable => writeln!(
                    out,
                    "Peaks are exact here in sessions in which the kernel skips no program (program_skipped 0).\n"
                )?,
                None => writeln!(out, "Peaks are exact here.\n")?,
                Some(why) => writeln!(
                    out,
                    "Peaks are samples here: {}.\nWhat is left: looks at /proc, for one's own processes without any right.\n",
                    output::clean(why)
                )?,
            }
            for (hook, row) in hooks.iter().zip(HOOKS) {
                match hook.state {
                    HookState::Attached => {
                        let via = hook.via.as_deref().unwrap_or("?");
                        writeln!(out, "  yes  {:<20} {} [{via}]", hook.name, row.gives)?;
                        if let Some(loses) = &hook.loses {
                            writeln!(out, "       {:<20} but {loses}", "")?;
                        }
                        if let Some(reason) = &hook.reason {
                            writeln!(out, "       {:<20} because {}", "", output::clean(reason))?;
                        }
                    }
                    HookState::Unused => {
                        writeln!(out, "  -    {:<20} not needed now: {}", hook.name, row.gives)?;
                    }
                    HookState::Missing => {
                        match &hook.via {
                            Some(via) => writeln!(out, "  NO   {:<20} by {via} instead", hook.name)?,
                            None => writeln!(out, "  NO   {:<20} {}", hook.name, row.loses)?,
                        }
                        if let (Some(_), Some(loses)) = (&hook.via, &hook.loses) {
                            writeln!(out, "       {:<20} {loses}", "")?;
                        }
                        if let Some(reason) = hook.reason.as_ref().filter(|r| Some(*r) != why.as_ref()) {
                            writeln!(out, "       {:<20} because {}", "", output::clean(reason))?;
                        }
                    }
                }
            }
            writeln!(out)?;
            for condition in &conditions {
                let word = match condition.met {
                    Some(true) => "yes",
                    Some(false) => "NO ",
                    None => "?  ",
                };
                writeln!(out, "  {word}  {:<34} {}", condition.name, output::clean(&condition.found))?;
                for line in [&condition.loses, &condition.cure].into_iter().flatten() {
                    writeln!(out, "       {:<34} {}", "", output::clean(line))?;
                }
            }
            writeln!(
                out,
                "\n  vm.max_map_count is {}.",
                proc_max_map_count().map_or("not readable".into(), |n| output::grouped(n.into()))
            )?;
        }
    }
    Ok(i32::from(why.is_some()))
}
