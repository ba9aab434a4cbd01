//! Which tests processes belong to, where the source does not tell: see [`crate::domain::test_name`].

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::exec_looks;
use crate::domain::test_name::{is_runner, of_go, program, test_of};
use crate::model::event::{ProcessFacts, ProcessId};
use crate::model::test::{TestOf, WithoutTest};
use crate::os::apart::Patience;
use crate::os::procfs::Proc;
use crate::os::rights;

/// Processes of which is remembered that the source has told.
const REMEMBERED: usize = 256;

/// Looks for the tests of processes, once a runner was seen.
#[derive(Debug)]
pub struct Looks {
    looks: exec_looks::Looks<Asked>,
    /// A runner is at work that tells by the environment.
    runs: bool,
    /// The source tells of most: only of those of which it did not is /proc asked, a moment later.
    told: bool,
    /// The last ones of which it did: it may be sooner than others tell of the process.
    told_of: VecDeque<ProcessId>,
}

/// What a process answers that is there.
#[derive(Debug, Serialize, Deserialize)]
enum Asked {
    Test(String),
    NoTest,
}

impl Looks {
    /// Costs nothing until a runner comes.
    pub fn new(patience: &Patience) -> Self {
        Self {
            looks: exec_looks::Looks::new(patience, read),
            runs: false,
            told: false,
            told_of: VecDeque::new(),
        }
    }

    /// A process has begun, or has another image now.
    pub fn notice(&mut self, facts: &ProcessFacts) {
        let path = facts.exe.as_deref().unwrap_or_default();
        self.runs |= is_runner(path);
        if !self.runs && !of_go(program(path)) || self.told_of.contains(&facts.process) {
            return;
        }
        if self.told {
            self.looks.wait_for(facts.process);
        } else {
            self.looks.notice(facts.process);
        }
    }

    /// The source tells of this process: nothing has to be looked at.
    pub fn told(&mut self, process: ProcessId) {
        self.told = true;
        self.looks.forget(process);
        self.told_of.truncate(REMEMBERED);
        self.told_of.push_front(process);
    }

    /// Goes on.
    pub fn look(&mut self) {
        self.looks.look();
    }

    /// Goes on until all have an answer, for a while.
    pub fn settle(&mut self) {
        self.looks.settle();
    }

    /// Goes on no more.
    pub fn end(&mut self) {
        self.looks.end();
    }

    /// What was found since the last time, also that there is nothing.
    pub fn take(&mut self) -> Vec<TestOf> {
        let told = |(process, asked)| match asked {
            Some(Asked::Test(test)) => TestOf::named(process, test),
            Some(Asked::NoTest) => TestOf::without(process, WithoutTest::None),
            None => TestOf::without(process, WithoutTest::Unknown),
        };
        self.looks.take().into_iter().map(told).collect()
    }

    /// Processes whose answer is not told yet.
    pub fn awaited(&self) -> impl Iterator<Item = ProcessId> {
        self.looks.awaited()
    }

    /// There is something to go on with.
    pub fn busy(&self) -> bool {
        self.looks.busy()
    }
}

fn read(pid: u32) -> Option<Asked> {
    // What others were started with is not the caller's to know.
    let _rights = (!rights::lent()).then(|| rights::raised(&rights::PROCESSES));
    let process = Proc::default().open(pid).ok()?;
    let (environment, path) = (process.environment()?, process.exe()?);
    let test = test_of(&environment, &path, process.directory().as_deref());
    Some(test.map_or(Asked::NoTest, Asked::Test))
}
