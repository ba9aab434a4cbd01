//! The command lines of processes, where the caller asked for them: they may hold secrets.

use super::exec_looks;
use crate::os::apart::Patience;
use crate::os::procfs::Proc;
use crate::os::rights;

/// Bytes kept of one, and arguments.
const MOST: (usize, usize) = (4096, 256);

/// Looks at the command line of each process that execs.
pub type Looks = exec_looks::Looks<Vec<String>>;

/// Nothing is looked at yet.
pub fn looks(patience: &Patience) -> Looks {
    Looks::new(patience, read)
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
    use crate::model::event::ProcessId;

    /// It forks.
    #[test]
    fn the_command_line_of_a_process_is_read_as_it_is_and_nobodys_is_none() {
        alone(
            concat!(module_path!(), "::the_command_line_of_a_process_is_read_as_it_is_and_nobodys_is_none"),
            || {
                let mut looks = looks(&Patience::default());
                let own = ProcessId { tgid: std::process::id(), start_ns: 0 };
                for process in [own, ProcessId { tgid: u32::MAX / 2, ..own }] {
                    looks.notice(process);
                }
                looks.settle();
                let arguments: Vec<String> = std::env::args().collect();
                let nobody = ProcessId { tgid: u32::MAX / 2, ..own };
                assert_eq!(looks.take(), [(own, Some(arguments)), (nobody, None)]);
            },
        );
    }
}
