//! Which test a process belongs to, as its runner tells without knowing of vmaudit: cargo-nextest by the environment of
//! each test's process, which its children have too; `go test` by the program, one for each package, and where it runs.

use super::exec_looks;
use crate::model::event::ProcessFacts;
use crate::os::apart::Patience;
use crate::os::procfs::Proc;
use crate::os::rights;

/// Longest name kept, bytes.
const MOST: usize = 512;
/// What cargo-nextest sets for each test: the test binary, and the test (since 0.9.116 or so).
const OF_NEXTEST: [&str; 2] = ["NEXTEST_BINARY_ID", "NEXTEST_TEST_NAME"];

/// Looks for the tests of processes, once a runner was seen.
#[derive(Debug)]
pub struct Looks {
    looks: exec_looks::Looks<String>,
    /// cargo-nextest is at work.
    nextest: bool,
}

impl Looks {
    /// Costs nothing until a runner comes.
    pub fn new(patience: &Patience) -> Self {
        Self { looks: exec_looks::Looks::new(patience, read), nextest: false }
    }

    /// A process has begun, or has another image now.
    pub fn notice(&mut self, facts: &ProcessFacts) {
        let program = facts.exe.as_deref().and_then(|exe| exe.rsplit('/').next()).unwrap_or_default();
        self.nextest |= program == "cargo-nextest";
        if self.nextest || of_go(program) {
            self.looks.notice(facts.process);
        }
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

/// `go test` links a program for each package, named after it.
fn of_go(program: &str) -> bool {
    program.ends_with(".test") && program.len() > ".test".len()
}

fn read(pid: u32) -> Option<String> {
    let _rights = rights::raised(&rights::PROCESSES);
    let process = Proc::default().open(pid).ok()?;
    let mut name = process.environment().as_deref().and_then(of_nextest);
    if name.is_none() {
        let exe = process.exe()?;
        let program = exe.rsplit('/').next().filter(|program| of_go(program))?;
        name = process.directory().map(|folder| format!("{program} in {folder}"));
    }
    name.map(shortened)
}

/// `binary name`, of the variables of an environment.
fn of_nextest(environment: &[u8]) -> Option<String> {
    let value = |name: &str| {
        environment
            .split(|&b| b == 0)
            .filter_map(|line| line.strip_prefix(name.as_bytes())?.strip_prefix(b"="))
            .map(|value| String::from_utf8_lossy(value).into_owned())
            .next()
            .filter(|value| !value.is_empty())
    };
    let [binary, test] = OF_NEXTEST.map(value);
    let test = test?;
    Some(binary.map_or_else(|| test.clone(), |binary| format!("{binary} {test}")))
}

fn shortened(mut name: String) -> String {
    let mut end = name.len().min(MOST);
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    name.truncate(end);
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_test_is_named_by_the_variables_that_its_runner_sets() {
        let environment = b"A=1\0NEXTEST_TEST_NAME=mod::leaks\0NEXTEST_BINARY_ID=pkg::it\0";
        assert_eq!(of_nextest(environment).as_deref(), Some("pkg::it mod::leaks"));
        assert_eq!(of_nextest(b"NEXTEST_TEST_NAME=x\0").as_deref(), Some("x"));
        for none in [&b""[..], b"NEXTEST_TEST_NAME=\0", b"XNEXTEST_TEST_NAME=x\0", b"NEXTEST_BINARY_ID=a\0"] {
            assert_eq!(of_nextest(none), None);
        }
        assert_eq!(shortened("ß".repeat(400)).len(), MOST);
    }

    #[test]
    fn programs_of_go_test_end_so() {
        assert!(of_go("a.test") && !of_go(".test") && !of_go("test") && !of_go("a.test.sh"));
    }
}
