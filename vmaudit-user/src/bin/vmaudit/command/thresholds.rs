//! `--at` and `--exec`: what is told, and run, when a process has passed a share of the limit.

use std::collections::HashMap;
use std::time::Duration;

use vmaudit_user::domain::audit::Audit;
use vmaudit_user::launch::alarms::Alarms;
use vmaudit_user::model::event::{Event, ProcessId};
use vmaudit_user::output::say;
use vmaudit_user::session::Sink;
use vmaudit_user::text::{clean, count, grouped};

/// Between two looks: a peak is kept by the kernel meanwhile, so none is missed, only told so much later.
const EVERY: Duration = Duration::from_millis(500);
/// Processes that are remembered.
const REMEMBERED: usize = 100_000;

/// Watches for shares of the limit.
pub struct Thresholds {
    /// Percent, ascending.
    at: Vec<f64>,
    alarms: Option<Alarms>,
    limit: Option<u64>,
    /// How many of `at` each process has passed.
    passed: HashMap<ProcessId, usize>,
    quiet: bool,
    failed: bool,
}

impl Thresholds {
    /// `exec`: program and arguments, parted by spaces. `None`: nothing is asked for.
    pub fn new(at: &[f64], exec: Option<&str>, quiet: bool) -> Option<Self> {
        let mut at = at.to_vec();
        at.sort_by(f64::total_cmp);
        at.dedup();
        let alarms = exec.map(|line| Alarms::new(line.split_whitespace().map(Into::into).collect()));
        (!at.is_empty()).then_some(Self {
            at,
            alarms,
            limit: None,
            passed: HashMap::new(),
            quiet,
            failed: false,
        })
    }

    fn look(&mut self, process: ProcessId, comm: &str, peak: u64) {
        let Some(limit) = self.limit.filter(|limit| *limit > 0) else { return };
        let percent = peak as f64 * 100.0 / limit as f64;
        let now = self.at.iter().filter(|at| percent >= **at).count();
        let before = self.passed.get(&process).copied().unwrap_or(0);
        if now <= before {
            return;
        }
        if self.passed.len() >= REMEMBERED {
            self.passed.clear();
        }
        self.passed.insert(process, now);
        let Some(at) = self.at.get(now - 1) else { return };
        if !self.quiet {
            say(&format!(
                "{} (pid {}) has passed {at} % of vm.max_map_count: {} at its peak, {percent:.1} % of {}",
                clean(comm),
                process.tgid,
                count(peak, "VMA", "VMAs"),
                grouped(limit)
            ));
        }
        // Once for each process.
        if let Some(alarms) = self.alarms.as_mut().filter(|_| before == 0) {
            alarms.raise(vec![
                ("VMAUDIT_PID", process.tgid.to_string()),
                ("VMAUDIT_COMM", comm.to_owned()),
                ("VMAUDIT_PEAK", peak.to_string()),
                ("VMAUDIT_LIMIT", limit.to_string()),
                ("VMAUDIT_PERCENT", format!("{percent:.1}")),
            ]);
        }
    }
}

impl Sink for Thresholds {
    fn event(&mut self, event: &Event, _: &Audit) {
        match event {
            Event::Limits(limits) => self.limit = limits.max_map_count.or(self.limit),
            Event::LimitSeen(seen) => self.limit = Some(seen.max_map_count.into()),
            Event::Mm(state) if state.host.is_none() => {
                self.look(state.process, &state.comm, state.peak.into())
            }
            Event::Sample(sample) => {
                if let Some(vmas) = sample.map_count {
                    self.look(sample.process, &sample.comm, vmas.into());
                }
            }
            _ => {}
        }
    }

    fn turn(&mut self, _: &Audit, _: bool) {
        let Some(alarms) = &mut self.alarms else { return };
        if let Some(complaint) = alarms.turn().filter(|_| !self.failed) {
            self.failed = true;
            say(&complaint);
        }
    }

    fn checkpoints(&self) -> Option<Duration> {
        Some(EVERY)
    }

    fn complaint(&self) -> Option<String> {
        let left_out = self.alarms.as_ref().map_or(0, Alarms::left_out);
        (left_out > 0).then(|| format!("--exec was not run for {}", count(left_out, "process", "processes")))
    }
}
