//! A program that is run when something is noticed: as the caller, with figures in its environment, and by no shell.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};

/// At one time.
const AT_ONCE: usize = 8;
/// Waiting for their turn; more are told as left out.
const WAITING: usize = 1000;

/// Runs it, each time with other figures.
#[derive(Debug)]
pub struct Alarms {
    command: Vec<OsString>,
    waiting: VecDeque<Vec<(&'static str, String)>>,
    running: Vec<Child>,
    left_out: u64,
}

impl Alarms {
    /// `command`: the program and its arguments.
    pub fn new(command: Vec<OsString>) -> Self {
        Self { command, waiting: VecDeque::new(), running: Vec::new(), left_out: 0 }
    }

    /// Has it run with this in its environment. Values come from strangers, and are nothing but values there.
    pub fn raise(&mut self, environment: Vec<(&'static str, String)>) {
        if self.waiting.len() < WAITING {
            self.waiting.push_back(environment);
        } else {
            self.left_out += 1;
        }
    }

    /// Takes note of those that have ended, and starts others. Returns what could not be started, as a sentence.
    pub fn turn(&mut self) -> Option<String> {
        self.running.retain_mut(|child| matches!(child.try_wait(), Ok(None)));
        while self.running.len() < AT_ONCE {
            let environment = self.waiting.pop_front()?;
            match self.start(environment) {
                Ok(child) => self.running.push(child),
                Err(e) => {
                    let name = self.command.first().map(|name| name.to_string_lossy().into_owned());
                    return Some(format!(
                        "cannot run {}: {e}",
                        crate::text::clean(&name.unwrap_or_default())
                    ));
                }
            }
        }
        None
    }

    /// Alarms that found too many waiting.
    pub fn left_out(&self) -> u64 {
        self.left_out
    }

    fn start(&self, environment: Vec<(&'static str, String)>) -> std::io::Result<Child> {
        let mut words = self.command.iter();
        let mut command = Command::new(words.next().map(OsString::as_os_str).unwrap_or_default());
        command.args(words).envs(environment).stdin(Stdio::null());
        // Standard output is the report's.
        command.stdout(std::io::stderr());
        // SAFETY: one system call, on numbers.
        unsafe {
            command.pre_exec(|| {
                const CLEAR_ALL: libc::c_ulong = libc::PR_CAP_AMBIENT_CLEAR_ALL as libc::c_ulong;
                // Capabilities that were given to vmaudit are its own. Kernels without these have none to take.
                libc::prctl(libc::PR_CAP_AMBIENT, CLEAR_ALL, 0, 0, 0);
                Ok(())
            });
        }
        command.spawn()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alone::alone;

    /// It forks.
    #[test]
    fn figures_are_values_and_nothing_is_run_by_a_shell() {
        alone(concat!(module_path!(), "::figures_are_values_and_nothing_is_run_by_a_shell"), || {
            let file = std::env::temp_dir().join(format!("vmaudit-alarm-{}", std::process::id()));
            let script = format!("printf %s \"$VMAUDIT_COMM\" > {}", file.display());
            let mut alarms = Alarms::new(["/bin/sh", "-c", &script].map(OsString::from).to_vec());
            alarms.raise(vec![("VMAUDIT_COMM", "$(touch /nonexistent/x); `id`".into())]);
            assert_eq!(alarms.turn(), None);
            while !alarms.running.is_empty() {
                alarms.turn();
            }
            assert_eq!(std::fs::read_to_string(&file).unwrap(), "$(touch /nonexistent/x); `id`");
            std::fs::remove_file(file).unwrap();
            let mut nobody = Alarms::new(vec!["/nonexistent/program".into()]);
            nobody.raise(Vec::new());
            assert!(nobody.turn().is_some_and(|said| said.starts_with("cannot run /nonexistent/program: ")));
            (0..=WAITING).for_each(|_| nobody.raise(Vec::new()));
            assert_eq!(nobody.left_out(), 1);
        });
    }
}
