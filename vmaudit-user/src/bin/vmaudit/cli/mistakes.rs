//! Command lines that people type by habit from other tools, each answered with one sentence that says the right one.

use clap::error::{ContextKind, ContextValue, ErrorKind};
use vmaudit_user::text::clean;

/// An option that a command does not have and people expect; `{}` in the sentence is the word behind it, or PID.
struct Habit {
    command: &'static str,
    options: &'static [&'static str],
    sentence: &'static str,
}

const FOLLOWS: &str = "children are followed unless --no-follow is given";

const HABITS: &[Habit] = &[
    Habit {
        command: "run",
        options: &["-p", "--pid", "--comm"],
        sentence: "run starts a command; what already runs is watched by: vmaudit watch -p {}",
    },
    Habit {
        command: "run",
        options: &["-a", "--all"],
        sentence: "run starts a command; all that runs is watched by: vmaudit watch",
    },
    Habit {
        command: "run",
        options: &["-u", "--user"],
        sentence: "--user chooses among processes by their owner; to run a command as a user: vmaudit run --as USER CMD",
    },
    Habit {
        command: "watch",
        options: &["-a"],
        sentence: "watch watches every process unless it is told which: vmaudit watch -d 60s",
    },
    Habit { command: "watch", options: &["-f", "-ff", "--follow", "--follow-forks"], sentence: FOLLOWS },
    Habit {
        command: "watch",
        options: &["-Z", "--failed"],
        sentence: "watch reports at its end; refused calls as they happen: vmaudit trace -Z -p PID",
    },
    Habit {
        command: "trace",
        options: &["-u"],
        sentence: "processes of a user are followed by: vmaudit trace --user USER; a command runs as a user by: vmaudit \
                   trace --as USER CMD",
    },
    Habit { command: "run", options: &["-f", "-ff", "--follow", "--follow-forks"], sentence: FOLLOWS },
    Habit { command: "trace", options: &["-f", "-ff", "--follow", "--follow-forks"], sentence: FOLLOWS },
    Habit {
        command: "run",
        options: &["-d", "--duration", "--timeout"],
        sentence: "run ends when its command does; to end that earlier: vmaudit run timeout 60 CMD",
    },
    Habit {
        command: "run",
        options: &["-Z", "--failed"],
        sentence: "run reports at its end; refused calls as they happen: vmaudit trace -Z CMD",
    },
    Habit {
        command: "trace",
        options: &["-e", "--trace", "--syscall"],
        sentence: "system calls are chosen by name: vmaudit trace --call mmap,munmap -p PID",
    },
    Habit {
        command: "scan",
        options: &["--watch", "-i", "--interval"],
        sentence: "scan says who grows with -d 10s; what happens over time is shown by: vmaudit watch -p PID -d 10s",
    },
    Habit {
        command: "scan",
        options: &["-a", "--all"],
        sentence: "scan looks at all processes; more rows of them: vmaudit scan -n 1000",
    },
    Habit {
        command: "explain",
        options: &["-p", "--pid"],
        sentence: "the process is named without an option: vmaudit explain {}",
    },
    Habit {
        command: "limit",
        options: &["-w", "--set", "--write", "--raise"],
        sentence: "the limit is changed by: vmaudit limit --apply N",
    },
];

/// Like those of commands (man, mark), and no mistyped ones.
const PROGRAMS: [&str; 3] = ["make", "cmake", "gmake"];

/// The word is like that of a command.
fn is_mistyped(error: &clap::Error) -> bool {
    let given = match error.get(ContextKind::InvalidSubcommand) {
        Some(ContextValue::String(word)) => word.as_str(),
        _ => "",
    };
    !PROGRAMS.contains(&given) && error.get(ContextKind::SuggestedSubcommand).is_some()
}

/// The sentence for a command line that was refused with `error`; `None` where what clap says is as good.
pub fn sentence(words: &[String], error: &clap::Error) -> Option<String> {
    let given = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.as_str()),
        _ => None,
    };
    let command = words.get(1).map_or("", String::as_str);
    match error.kind() {
        ErrorKind::InvalidSubcommand if !is_mistyped(error) => {
            Some(no_command(given(ContextKind::InvalidSubcommand)?))
        }
        ErrorKind::UnknownArgument => unknown(command, given(ContextKind::InvalidArg)?, words),
        ErrorKind::ArgumentConflict if command == "trace" && has(error, "--user") && has(error, "CMD") => Some(
            "--user chooses among processes by their owner; to run a command as a user: vmaudit trace --as USER CMD"
                .into(),
        ),
        ErrorKind::MissingRequiredArgument if command == "trace" && has(error, "--all") => {
            Some("say what to follow: vmaudit trace -p PID, vmaudit trace --all, or vmaudit trace CMD".into())
        }
        ErrorKind::MissingRequiredArgument if command == "run" => {
            Some("say what to run: vmaudit run CMD; what already runs is watched by: vmaudit watch -p PID".into())
        }
        ErrorKind::ValueValidation if command == "limit" && given(ContextKind::InvalidArg) == Some("[N]") => {
            let word = given(ContextKind::InvalidValue).filter(|word| word.starts_with(char::is_alphabetic))?;
            Some(format!("what software is said to need is shown by: vmaudit limit --for {}", clean(word)))
        }
        _ => None,
    }
}

/// The sentence for a command that is only a process's number, not said to be one by `--`.
pub fn number_for_command(words: &[String], command: &[std::ffi::OsString]) -> Option<String> {
    let [only] = command else { return None };
    let pid = only.to_str().filter(|word| is_number(word))?;
    if words.iter().any(|word| word == "--") {
        return None;
    }
    Some(format!(
        "{pid} stands where a command is expected; a process is followed by: vmaudit trace -p {pid}"
    ))
}

fn no_command(word: &str) -> String {
    let shown = clean(word);
    if is_number(word) {
        format!("who owns the VMAs of process {shown} is shown by: vmaudit explain {shown}")
    } else {
        format!(
            "vmaudit has no command {shown}; a program is run under it by: vmaudit run {shown}, processes of a name are shown \
             by: vmaudit scan -p {shown}"
        )
    }
}

fn unknown(command: &str, given: &str, words: &[String]) -> Option<String> {
    // As typed: `--pid=1` is told as `--pid`.
    let habit = HABITS.iter().find(|habit| habit.command == command && habit.options.contains(&given));
    if let Some(habit) = habit {
        return Some(habit.sentence.replace("{}", &value_of(given, words).unwrap_or_else(|| "PID".into())));
    }
    let word = clean(given);
    match command {
        "scan" if !given.starts_with('-') => {
            Some(format!("some processes only are shown by: vmaudit scan -p {word}"))
        }
        _ => None,
    }
}

/// The word that belongs to an option that is not known.
fn value_of(option: &str, words: &[String]) -> Option<String> {
    let place = words.iter().position(|word| word == option);
    let behind = place.and_then(|at| words.get(at + 1)).map(String::as_str);
    let glued = words.iter().find_map(|word| word.strip_prefix(option)?.strip_prefix('='));
    behind.or(glued).filter(|word| !word.starts_with('-') && !word.is_empty()).map(clean)
}

fn has(error: &clap::Error, part: &str) -> bool {
    [ContextKind::InvalidArg, ContextKind::PriorArg].into_iter().any(|kind| match error.get(kind) {
        Some(ContextValue::String(text)) => text.contains(part),
        Some(ContextValue::Strings(texts)) => texts.iter().any(|text| text.contains(part)),
        _ => false,
    })
}

fn is_number(word: &str) -> bool {
    !word.is_empty() && word.bytes().all(|b| b.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{self, Wrong};

    /// Each habit is one: the command does not have the option, and the sentence comes.
    #[test]
    fn every_habit_is_answered() {
        for habit in HABITS {
            for option in habit.options {
                let words = ["vmaudit", habit.command, option, "7", "true"].map(Into::into).to_vec();
                let Err(Wrong::Habit(said)) = cli::parse(words) else { panic!("{} {option}", habit.command) };
                assert_eq!(said, habit.sentence.replace("{}", "7"));
            }
        }
    }
}
