//! The command lines of processes, where the caller asked for them: they may hold secrets. Read [apart](crate::os::apart),
//! because a command line lies in its process's own memory.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::model::event::{CommandLine, ProcessFacts, ProcessId};
use crate::os::apart::Patience;
use crate::os::apart::desk::{Desk, MOMENT, Turn};
use crate::os::procfs::Proc;
use crate::os::rights;

/// Processes that wait for a look; a crowd of more has no command lines.
const WAITING: usize = 1000;
/// Bytes kept of one, and arguments.
const MOST: (usize, usize) = (4096, 256);
/// Time for those that still wait at the end.
const AT_THE_END: Duration = Duration::from_millis(200);

/// Looks at the command line of each process that execs.
#[derive(Debug)]
pub struct Looks {
    desk: Desk<u32, Option<Vec<String>>>,
    under_way: Option<ProcessId>,
    queue: VecDeque<ProcessId>,
    found: Vec<CommandLine>,
}

impl Looks {
    /// Nothing is looked at yet.
    pub fn new(patience: &Patience) -> Self {
        let serve = |pid: u32, beat: &crate::os::apart::Beat| {
            beat.begin(pid.into());
            (read(pid), Vec::new())
        };
        Self { desk: Desk::new(patience, serve), under_way: None, queue: VecDeque::new(), found: Vec::new() }
    }

    /// A process has begun, or has another image now.
    pub fn notice(&mut self, facts: &ProcessFacts) {
        if self.queue.len() < WAITING && !self.queue.contains(&facts.process) {
            self.queue.push_back(facts.process);
        }
        self.look();
    }

    /// Goes on; waits for [`MOMENT`] at most.
    pub fn look(&mut self) {
        let until = Instant::now() + MOMENT;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if let Some(process) = self.under_way {
                match self.desk.turn(left) {
                    Turn::Waiting => return,
                    Turn::Answer(arguments, _) => {
                        self.found.extend(arguments.map(|arguments| CommandLine { process, arguments }));
                    }
                    Turn::Unanswered(..) => {}
                }
                self.under_way = None;
            }
            if left.is_zero() {
                return;
            }
            let Some(process) = self.queue.pop_front() else { return };
            if self.desk.ask(&process.tgid).is_ok() {
                self.under_way = Some(process);
            }
        }
    }

    /// There is something to go on with.
    pub fn busy(&self) -> bool {
        self.under_way.is_some() || !self.queue.is_empty()
    }

    /// Goes on until all have an answer, for a while.
    pub fn settle(&mut self) {
        let until = Instant::now() + AT_THE_END;
        while self.busy() && Instant::now() < until {
            self.look();
        }
    }

    /// What was found since the last time.
    pub fn take(&mut self) -> Vec<CommandLine> {
        std::mem::take(&mut self.found)
    }
}

/// Its arguments as they are now, bounded; `None` when it is gone or may not be read, or has none.
fn read(pid: u32) -> Option<Vec<String>> {
    let _rights = rights::raised(&rights::PROCESSES);
    let mut bytes = Proc::default().open(pid).ok()?.cmdline()?;
    bytes.truncate(MOST.0);
    let words = bytes.strip_suffix(b"\0").unwrap_or(&bytes).split(|&b| b == 0);
    let words: Vec<String> =
        words.take(MOST.1).map(|word| String::from_utf8_lossy(word).into_owned()).collect();
    words.iter().any(|word| !word.is_empty()).then_some(words)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alone::alone;

    /// It forks.
    #[test]
    fn the_command_line_of_a_process_is_read_as_it_is_and_nobodys_is_none() {
        alone(
            concat!(module_path!(), "::the_command_line_of_a_process_is_read_as_it_is_and_nobodys_is_none"),
            || {
                let mut looks = Looks::new(&Patience::default());
                let own = ProcessId { tgid: std::process::id(), start_ns: 0 };
                for process in [own, ProcessId { tgid: u32::MAX / 2, ..own }] {
                    looks.notice(&ProcessFacts {
                        process,
                        at_ns: 0,
                        exe: None,
                        cgroup: None,
                        within: Default::default(),
                    });
                }
                looks.settle();
                let arguments: Vec<String> = std::env::args().collect();
                assert_eq!(looks.take(), [CommandLine { process: own, arguments }]);
            },
        );
    }
}
