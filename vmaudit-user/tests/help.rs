//! What `--help` and a wrong command line say, as it is kept in `snapshots/`.

use std::process::{Command, Stdio};

const COMMANDS: [&str; 14] = [
    "scan",
    "run",
    "watch",
    "top",
    "trace",
    "explain",
    "limit",
    "report",
    "diff",
    "mark",
    "serve",
    "doctor",
    "completions",
    "man",
];

/// Everything said, at a width that is no terminal's.
fn said(words: &[&str], status: i32) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_vmaudit"))
        .args(words)
        .env("COLUMNS", "100")
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|e| panic!("{words:?}: {e}"));
    assert_eq!(output.status.code(), Some(status), "{words:?}");
    assert!(output.stdout.is_empty() || output.stderr.is_empty(), "{words:?}: help is one text");
    String::from_utf8_lossy(&[output.stdout, output.stderr].concat())
        .replace(env!("CARGO_PKG_VERSION"), "VERSION")
}

#[test]
fn help_of_each_command() {
    insta::assert_snapshot!("help", said(&["--help"], 0));
    insta::assert_snapshot!("short help", said(&["-h"], 0));
    for command in COMMANDS {
        insta::assert_snapshot!(format!("help of {command}"), said(&[command, "--help"], 0));
    }
    let all = said(&["--help"], 0);
    let commands = all.split("\nOptions:").next().unwrap_or_default();
    let listed = commands.lines().filter(|line| {
        line.strip_prefix("  ").is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_lowercase()))
    });
    let listed: Vec<&str> = listed.filter_map(|line| line.split_whitespace().next()).collect();
    assert_eq!(listed, [&COMMANDS[..], &["help"]].concat(), "each command is here");
}

#[test]
fn a_wrong_command_line_says_what_is_right() {
    for (name, words, status) in [
        ("an unknown option", &["scan", "--nope"][..], 2),
        ("an unknown command", &["nope"], 2),
        ("an unknown format", &["explain", "1", "--format", "nope"], 2),
        ("run without a command", &["run"], 125),
        ("a wrong time", &["trace", "-d", "1w", "--all"], 2),
    ] {
        insta::assert_snapshot!(name, said(words, status));
    }
}
