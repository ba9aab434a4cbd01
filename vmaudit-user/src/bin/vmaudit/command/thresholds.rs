//! `--at` and `--exec`: what is told, and run, when a process has passed a share of the limit.

use std::time::Duration;

use vmaudit_user::domain::audit::Audit;
use vmaudit_user::domain::shares::{Passed, Shares};
use vmaudit_user::launch::alarms::Alarms;
use vmaudit_user::model::event::Event;
use vmaudit_user::output::say;
use vmaudit_user::session::Sink;
use vmaudit_user::text::{clean, count, grouped};

/// Between two looks: a peak is kept by the kernel meanwhile, so none is missed, only told so much later.
const EVERY: Duration = Duration::from_millis(500);

/// Watches for shares of the limit.
pub struct Thresholds {
    shares: Shares,
    alarms: Option<Alarms>,
    quiet: bool,
    failed: bool,
}

impl Thresholds {
    /// `at`: percent. `exec`: program and arguments, parted by spaces. `None`: nothing is asked for.
    pub fn new(at: &[f64], exec: Option<&str>, quiet: bool) -> Option<Self> {
        let alarms = exec.map(|line| Alarms::new(line.split_whitespace().map(Into::into).collect()));
        Some(Self { shares: Shares::new(at)?, alarms, quiet, failed: false })
    }

    fn tell(&mut self, passed: &Passed) {
        let Passed { process, comm, peak, limit, percent, at, first } = passed;
        if !self.quiet {
            say(&format!(
                "{} (pid {}) has passed {at} % of vm.max_map_count: {} at its peak, {percent:.1} % of {}",
                clean(comm),
                process.tgid,
                count(*peak, "VMA", "VMAs"),
                grouped(*limit)
            ));
        }
        // Once for each process.
        if let Some(alarms) = self.alarms.as_mut().filter(|_| *first) {
            alarms.raise(vec![
                ("VMAUDIT_PID", process.tgid.to_string()),
                ("VMAUDIT_COMM", comm.clone()),
                ("VMAUDIT_PEAK", peak.to_string()),
                ("VMAUDIT_LIMIT", limit.to_string()),
                ("VMAUDIT_PERCENT", format!("{percent:.1}")),
            ]);
        }
    }
}

impl Sink for Thresholds {
    fn event(&mut self, event: &Event, _: &Audit) {
        if let Some(passed) = self.shares.take(event) {
            self.tell(&passed);
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
