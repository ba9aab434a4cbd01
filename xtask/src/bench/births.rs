//! What vmaudit's programs take of the life of a short process, by the kernel's own count of their time.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write as _};
use std::process::{Child, ChildStdin, Stdio};

use anyhow::{Context as _, Result, bail};

use crate::command::{as_root, say, shown};

use super::observed::{Runs, programs_of, vmaudit_of};
use super::{Bench, Spread, processes};

const SWITCH: &str = "/proc/sys/kernel/bpf_stats_enabled";
/// Says `on` when the kernel counts; puts the switch back as it was when stdin ends, that is also when we are killed.
const COUNTING: &str = "trap '' INT TERM HUP; was=$(cat \"$0\") && echo 1 >\"$0\" && echo on && read -r end; echo \"$was\" >\"$0\"";
/// Says when the births begin and when they are over, and waits for a line each time.
const LIFE: &str = "echo ready; read -r go; \"$0\" bench births \"$1\" >&2; echo over; read -r go";

/// Holds the kernel's count of the time of eBPF programs.
struct Counting {
    shell: Child,
    stdin: Option<ChildStdin>,
}

impl Counting {
    fn on() -> Result<Self> {
        let mut command = as_root("sh");
        command.args(["-c", COUNTING, SWITCH]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut shell = command.spawn().with_context(|| format!("cannot start `{}`", shown(&command)))?;
        let stdin = shell.stdin.take();
        let stdout = shell.stdout.take().context("the shell has a stdout")?;
        let counting = Self { shell, stdin };
        awaited(&mut BufReader::new(stdout), "on").context("kernel.bpf_stats_enabled cannot be set")?;
        Ok(counting)
    }
}

impl Drop for Counting {
    fn drop(&mut self) {
        drop(self.stdin.take());
        drop(self.shell.wait());
    }
}

/// Microseconds of a birth, by where the program is attached.
type PerBirth = BTreeMap<String, f64>;

impl Bench<'_> {
    /// All turns in one cell: the sum, and its largest parts.
    pub(super) fn births(&mut self) -> Result<String> {
        let _counting = Counting::on()?;
        let mut turns = Vec::new();
        for round in 0..self.options.rounds {
            say!("time in programs, turn {} of {}", round + 1, self.options.rounds);
            turns.push(self.time_in_programs()?);
        }
        let sums: Vec<f64> = turns.iter().map(|turn| turn.values().sum()).collect();
        let places = turns.first().into_iter().flat_map(BTreeMap::keys);
        let median = |place: &String| {
            Spread::of(&turns.iter().filter_map(|turn| turn.get(place).copied()).collect::<Vec<_>>()).median
        };
        let mut parts: Vec<(&String, f64)> = places.map(|place| (place, median(place))).collect();
        parts.sort_by(|one, other| other.1.total_cmp(&one.1));
        let parts = parts.iter().filter(|(_, us)| *us >= 0.05).map(|(place, us)| format!("{place} {us:.1}"));
        Ok(format!("{}: {}", Spread::of(&sums).shown(1, " us"), parts.collect::<Vec<_>>().join(", ")))
    }

    /// One session. What other processes of the machine make the programs do in this time is in it.
    fn time_in_programs(&mut self) -> Result<PerBirth> {
        let mut command = self.vmaudit_run(&[]);
        command.args(["sh", "-c", LIFE]).arg(&self.workload).arg(self.options.seconds.to_string());
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let mut stdin = child.stdin.take().context("the session has a stdin")?;
        let mut stdout = BufReader::new(child.stdout.take().context("the session has a stdout")?);
        let mut during = || -> Result<_> {
            awaited(&mut stdout, "ready")?;
            let vmaudit = vmaudit_of(child.id()).context("no process is called vmaudit")?;
            let before = programs_of(vmaudit)?;
            stdin.write_all(b"\n")?;
            awaited(&mut stdout, "over")?;
            let after = programs_of(vmaudit)?;
            stdin.write_all(b"\n")?;
            Ok((before, after))
        };
        let counted = during();
        // Without it the shell goes on, however that ended.
        drop(stdin);
        let status = child.wait()?;
        let (before, after) = counted?;
        if !status.success() {
            bail!("`{}` failed ({status})", shown(&command));
        }
        // The shell is the only one that is none.
        let births = processes(&self.reported()?) - 1;
        if births == 0 {
            bail!("nothing was born");
        }
        per_birth(&before, &after, births)
    }
}

fn per_birth(
    before: &BTreeMap<String, Runs>,
    after: &BTreeMap<String, Runs>,
    births: u64,
) -> Result<PerBirth> {
    let since = |place: &String, now: &Runs| {
        let then = before.get(place).copied().unwrap_or_default();
        Runs { ns: now.ns.saturating_sub(then.ns), count: now.count.saturating_sub(then.count) }
    };
    let runs: BTreeMap<&String, Runs> = after.iter().map(|(place, now)| (place, since(place, now))).collect();
    if runs.values().map(|runs| runs.count).sum::<u64>() < births {
        bail!("the programs ran less often than processes were born: the kernel did not count");
    }
    Ok(runs.into_iter().map(|(place, runs)| (place.clone(), runs.ns as f64 / births as f64 / 1e3)).collect())
}

/// Reads up to this line.
fn awaited(from: &mut impl BufRead, line: &str) -> Result<()> {
    let mut read = String::new();
    while from.read_line(&mut read)? > 0 {
        if read.trim_end() == line {
            return Ok(());
        }
        read.clear();
    }
    bail!("it ended before it said `{line}`")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_ran_in_between_counts() -> Result<()> {
        let runs = |ns, count| Runs { ns, count };
        let before = BTreeMap::from([("exec".to_owned(), runs(5_000, 9))]);
        let after =
            BTreeMap::from([("exec".to_owned(), runs(25_000, 19)), ("exit".to_owned(), runs(4_000, 10))]);
        let expected = BTreeMap::from([("exec".to_owned(), 2.0), ("exit".to_owned(), 0.4)]);
        assert_eq!(per_birth(&before, &after, 10)?, expected);
        assert!(per_birth(&after, &after, 10).is_err());
        Ok(())
    }
}
