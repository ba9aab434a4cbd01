//! What vmaudit takes of a processor while nothing happens.

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::command::{as_root, say, shown};

use super::observed::{Crowd, processor_seconds, vmaudit_of};
use super::{Bench, processes};

/// Processes that sleep.
pub const SLEEPERS: usize = 500;
/// From vmaudit's first line on, which comes when all hooks are attached, until it is looked at.
const SETTLED: Duration = Duration::from_secs(2);
/// It ends by itself so long after it was looked at.
const AFTERWARDS: Duration = Duration::from_secs(5);

impl Bench<'_> {
    /// `vmaudit WORDS` beside the sleepers, in percent of one processor. Its first line begins with `ready`.
    pub(super) fn idle(&mut self, words: &[&str], ready: &str) -> Result<String> {
        let seconds = Duration::from_secs(self.options.idle);
        let _crowd = Crowd::new(&self.workload, SLEEPERS, 10)?;
        let lasts = (SETTLED + seconds + AFTERWARDS).as_secs();
        let mut command = as_root(&self.vmaudit);
        command.args(words).args(["--source", "ebpf", "-d", &format!("{lasts}s")]);
        if words[0] == "watch" {
            command.arg("-o").arg(self.report());
        }
        say!("`{}`", shown(&command));
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
        let mut stderr = BufReader::new(child.stderr.take().context("vmaudit has a stderr")?);
        let mut told = String::new();
        let mut line = String::new();
        while !line.starts_with(ready) {
            line.clear();
            if stderr.read_line(&mut line)? == 0 {
                bail!("`{}` ended ({}) and said: {}", shown(&command), child.wait()?, told.trim());
            }
            told += &line;
        }
        // It must not wait for us.
        let rest = thread::spawn(move || stderr.lines().map_while(Result::ok).collect::<Vec<_>>().join("\n"));
        thread::sleep(SETTLED);
        let looked = || -> Result<f64> {
            let vmaudit = vmaudit_of(child.id()).context("no process is called vmaudit")?;
            let (begin, before) = (Instant::now(), processor_seconds(vmaudit)?);
            thread::sleep(seconds);
            let (after, passed) = (processor_seconds(vmaudit)?, begin.elapsed());
            Ok((after - before) / passed.as_secs_f64() * 100.0)
        };
        let percent = looked();
        let status = child.wait()?;
        let said = rest.join().unwrap_or_default();
        if !status.success() {
            bail!("`{}` failed ({status}) and said: {}", shown(&command), said.trim());
        }
        if words[0] == "watch" {
            let watched = processes(&self.reported()?);
            if watched < SLEEPERS as u64 {
                bail!("vmaudit watched {watched} of {SLEEPERS} processes");
            }
        }
        Ok(format!("{:.2} % of one CPU, in {} s", percent?, seconds.as_secs()))
    }
}
