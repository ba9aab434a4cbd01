//! What vmaudit as a whole process takes: to start, in memory, in bytes of its report, of a processor while nothing
//! happens; and the time of its programs in the kernel.

use std::fs;
use std::process::Command;

use anyhow::{Result, bail};

use super::idle::SLEEPERS;
use super::observed::most_memory;
use super::{Bench, Spread, milliseconds, processes};

/// Processes of the row on memory: they live at one time.
const CROWD: u64 = 1000;

impl Bench<'_> {
    /// Prints the table, row by row as they are measured. Bars are those that the project has set itself.
    pub(super) fn whole(&mut self) -> Result<()> {
        println!("| whole process | figure | bar |\n|--|--|--|");
        let added = self.added();
        self.print("`vmaudit run -- true` over `true`", added, "45 ms");
        let births = self.births();
        self.print("time in vmaudit's programs, for each vfork + exec + exit", births, "20 us");
        let memory = self.beside_many();
        self.print(&format!("resident memory of vmaudit, {CROWD} processes traced"), memory, "15 MiB");
        let n = self.options.short_processes;
        for (workload, what) in
            [("children", "alike"), ("strangers", "each by another name, and refused calls")]
        {
            let figure = self.of_short_ones(workload, n);
            self.print(
                &format!("{n} short processes, {what}: memory of vmaudit, its JSON"),
                figure,
                "40 MB, 10 MB",
            );
        }
        let title = |what: &str| format!("`{what}` beside {SLEEPERS} processes that sleep");
        let idle = self.idle(&["watch"], "vmaudit: watching ");
        self.print(&title("vmaudit watch"), idle, "0.3 %");
        let idle = self.idle(&["trace", "-Z", "--all"], "vmaudit: tracing ");
        self.print(&title("vmaudit trace -Z --all"), idle, "0.3 %");
        // Of all that was measured, the works under tracers included.
        if self.reported > 0 {
            let exact = format!("{} of {}", self.exact, self.reported);
            self.print("sessions whose peaks are all exact", Ok(exact), "all");
        }
        println!();
        Ok(())
    }

    /// What vmaudit adds to a program that does nothing.
    fn added(&mut self) -> Result<String> {
        let mut added = Vec::new();
        for _ in 0..self.options.rounds.max(10) {
            let plain = milliseconds(&mut Command::new("true"))?;
            added.push(milliseconds(self.vmaudit_run(&[]).arg("true"))? - plain);
            self.reported()?;
        }
        Ok(Spread::of(&added).shown(0, " ms"))
    }

    /// Resident memory of vmaudit that follows many processes at once.
    fn beside_many(&mut self) -> Result<String> {
        let script = format!("i=0; while [ $i -lt {CROWD} ]; do sleep 5 & i=$((i+1)); done; wait");
        let kib = most_memory(self.vmaudit_run(&[]).args(["sh", "-c", &script]))?;
        let counted = processes(&self.reported()?);
        if counted < CROWD {
            bail!("vmaudit reports {counted} of {CROWD} processes");
        }
        Ok(format!("{:.1} MiB", kib as f64 / 1024.0))
    }

    /// Memory of vmaudit, and bytes of its report, after so many children of a workload, of which a few live at one time.
    fn of_short_ones(&mut self, workload: &str, n: usize) -> Result<String> {
        let mut command = self.vmaudit_run(&[]);
        let kib = most_memory(command.arg(&self.workload).args([workload, &n.to_string()]))?;
        let bytes = fs::metadata(self.report())?.len();
        let counted = processes(&self.reported()?);
        if counted != n as u64 + 1 {
            bail!("vmaudit reports {counted} processes, not {n} and their parent");
        }
        let megabytes = |bytes: u64| bytes as f64 / 1e6;
        Ok(format!("{:.1} MB, {:.2} MB", megabytes(kib << 10), megabytes(bytes)))
    }
}
