//! `vmaudit doctor`: what this kernel, these rights and this build allow, hook by hook, in sentences.

use std::{fs, io::Write as _};

use serde_json::json;

use crate::{
    cli::{DoctorArgs, ReportFormat},
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
    let (hooks, why) = match Live::open(&facts, &options) {
        Ok(live) => (live.hooks().to_vec(), None),
        Err(Unavailable(why)) => (hooks::all_missing(&why), Some(why)),
    };
    let skippable = hooks.iter().any(|hook| hook.state == HookState::Attached && hook.loses.is_some());
    let mut out = Destination::Stdout;
    match args.format {
        ReportFormat::Json => {
            let document = json!({
                "schema": "vmaudit.doctor", "version": 1, "vmaudit": env!("CARGO_PKG_VERSION"),
                "kernel": facts.release, "arch": facts.arch, "exact_peaks": why.is_none(), "reason": why,
                "facts": checks(&facts).into_iter().map(|(name, value)| (name.to_owned(), value.into())).collect::<serde_json::Map<_, _>>(),
                "hooks": hooks,
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
                    _ => {
                        writeln!(out, "  NO   {:<20} {}", hook.name, row.loses)?;
                        if let Some(reason) = hook.reason.as_ref().filter(|r| Some(*r) != why.as_ref()) {
                            writeln!(out, "       {:<20} because {}", "", output::clean(reason))?;
                        }
                    }
                }
            }
            writeln!(out)?;
            for (name, value) in checks(&facts) {
                writeln!(out, "  {name:<26} {}", output::clean(&value))?;
            }
        }
    }
    Ok(i32::from(why.is_some()))
}

fn checks(facts: &Facts) -> Vec<(&'static str, String)> {
    let file = |path: &str| {
        fs::read_to_string(path)
            .map(|text| text.trim().to_owned())
            .unwrap_or_else(|e| format!("not readable: {e}"))
    };
    let caps = fs::read_to_string("/proc/self/status").ok().and_then(|s| {
        s.lines()
            .find_map(|l| l.strip_prefix("CapEff:").and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()))
    });
    let has = |bit: u32| caps.is_some_and(|caps| caps >> bit & 1 == 1);
    vec![
        ("kernel type information", facts.layout.as_ref().map_or_else(Clone::clone, |_| "readable".into())),
        (
            "mmap_lock_released",
            facts.released_arguments.map_or("not in this kernel".into(), |n| format!("{n} arguments")),
        ),
        ("tracefs", facts.tracefs.as_ref().map_or_else(Clone::clone, |_| "readable".into())),
        ("CAP_BPF", if has(39) || has(21) { "yes" } else { "no: needed to load the programs" }.into()),
        ("CAP_PERFMON", if has(38) || has(21) { "yes" } else { "no: needed to attach them" }.into()),
        (
            "vm.max_map_count",
            proc_max_map_count().map_or("not readable".into(), |n| output::grouped(n.into())),
        ),
        ("kernel.unprivileged_bpf", file("/proc/sys/kernel/unprivileged_bpf_disabled")),
        ("lockdown", file("/sys/kernel/security/lockdown")),
    ]
}
