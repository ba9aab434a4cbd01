//! `vmaudit scan` against the Python tool, beside a crowd that stands still.

use std::ffi::OsString;
use std::process::Stdio;

use anyhow::Result;

use crate::command::{as_root, say};
use crate::python;

use super::observed::Crowd;
use super::{Bench, Spread, milliseconds};

/// Processes of the crowd.
const CROWD: usize = 1000;
/// VMAs of each of them.
const VMAS: usize = 1000;

impl Bench<'_> {
    /// The table.
    pub(super) fn scan(&self) -> Result<String> {
        let package = python::package()?;
        let _crowd = Crowd::new(&self.workload, CROWD, VMAS)?;
        let python = || {
            let mut path = OsString::from("PYTHONPATH=");
            path.push(&package);
            let mut command = as_root("env");
            command.arg(path).args(["python3", "-m", "vmaudit"]);
            command
        };
        let ours = |source: &str| {
            let mut command = as_root(&self.vmaudit);
            command.args(["scan", "--source", source]);
            command
        };
        let mut times: [Vec<f64>; 3] = Default::default();
        for round in 0..self.options.rounds {
            say!("scan, turn {} of {}", round + 1, self.options.rounds);
            for (times, mut command) in times.iter_mut().zip([python(), ours("ebpf"), ours("proc")]) {
                times.push(milliseconds(command.stdout(Stdio::null()))?);
            }
        }
        let [old, kernel, lines] = &times;
        let row = |title: &str, new: &[f64], bar: &str| {
            let (time, ratio) = (Spread::of(new).shown(0, " ms"), Spread::of_ratios(old, new).shown(0, "x"));
            format!("| {title} | {time} | {ratio} | {bar} |")
        };
        let all = CROWD * VMAS;
        Ok([
            format!("| scan of {CROWD} processes, {all} VMAs | time, median (min..max) | faster than Python | bar |"),
            "|--|--|--|--|".to_owned(),
            row("the Python vmaudit 1.0.1", old, "-"),
            row("`vmaudit scan`", kernel, "80x"),
            row("`vmaudit scan --source proc` (without rights)", lines, "-"),
        ]
        .join("\n"))
    }
}
