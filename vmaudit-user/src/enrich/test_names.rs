//! Which tests processes belong to, where the source does not tell: see [`crate::domain::test_name`].

use super::exec_looks;
use crate::domain::test_name::{is_runner, of_go, program, test_of};
use crate::model::event::ProcessFacts;
use crate::os::apart::Patience;
use crate::os::procfs::Proc;
use crate::os::rights;

/// Looks for the tests of processes, once a runner was seen.
#[derive(Debug)]
pub struct Looks {
    looks: exec_looks::Looks<String>,
    /// A runner is at work that tells by the environment.
    runs: bool,
    /// The source knows better.
    told: bool,
}

impl Looks {
    /// Costs nothing until a runner comes.
    pub fn new(patience: &Patience) -> Self {
        Self { looks: exec_looks::Looks::new(patience, read), runs: false, told: false }
    }

    /// A process has begun, or has another image now.
    pub fn notice(&mut self, facts: &ProcessFacts) {
        let path = facts.exe.as_deref().unwrap_or_default();
        self.runs |= is_runner(path);
        if !self.told && (self.runs || of_go(program(path))) {
            self.looks.notice(facts.process);
        }
    }

    /// The source tells of tests: nothing has to be looked at.
    pub fn told(&mut self) {
        self.told = true;
    }

    /// What goes on, and what was found.
    pub fn looks(&mut self) -> &mut exec_looks::Looks<String> {
        &mut self.looks
    }

    /// There is something to go on with.
    pub fn busy(&self) -> bool {
        self.looks.busy()
    }
}

fn read(pid: u32) -> Option<String> {
    // What others were started with is not the caller's to know.
    let _rights = (!rights::lent()).then(|| rights::raised(&rights::PROCESSES));
    let process = Proc::default().open(pid).ok()?;
    let environment = process.environment().unwrap_or_default();
    test_of(&environment, &process.exe()?, process.directory().as_deref())
}
