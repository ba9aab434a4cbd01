//! What others wrote and is linked in: licences, versions, where it comes from, known holes; by cargo-deny with deny.toml.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::command::{cargo, find, quiet_output, run, say, workspace};

/// The cargo-deny that is asked: a newer one may judge otherwise.
const CARGO_DENY: &str = "0.20.2";

/// Fails when something is linked in that deny.toml does not allow.
pub fn run_all() -> Result<()> {
    let program = match pinned() {
        Some(program) => program,
        None => install()?,
    };
    let deny = |words: &[&str]| {
        let mut deny = Command::new(&program);
        if let Ok(workspace) = workspace() {
            deny.current_dir(workspace);
        }
        deny.arg("--locked").args(words);
        // Whoever has no credentials for it is not asked for them, and a server that says nothing is left.
        deny.env("GIT_TERMINAL_PROMPT", "0")
            .env("GIT_HTTP_LOW_SPEED_LIMIT", "1")
            .env("GIT_HTTP_LOW_SPEED_TIME", "30");
        deny
    };
    run(&mut deny(&["check", "--hide-inclusion-graph", "licenses", "bans", "sources"]))?;
    // They change every day, so a change here must not fail for want of a network.
    if quiet_output(&mut deny(&["fetch", "db"])).is_none() {
        say!("known holes were NOT looked for: the database of advisories cannot be fetched from here");
        return Ok(());
    }
    run(&mut deny(&["check", "--disable-fetch", "--hide-inclusion-graph", "advisories"]))
}

/// cargo-deny, if it is the pinned one.
fn pinned() -> Option<PathBuf> {
    let program = find("cargo-deny")?;
    is_pinned(&quiet_output(Command::new(&program).arg("--version"))?).then_some(program)
}

/// `cargo-deny VERSION`.
fn is_pinned(text: &str) -> bool {
    text.split_whitespace().nth(1) == Some(CARGO_DENY)
}

fn install() -> Result<PathBuf> {
    say!("building cargo-deny {CARGO_DENY} (about 3 minutes on 2 CPUs, once)");
    run(cargo()?
        .args([
            "install",
            "--quiet",
            "--locked",
            "--force",
            "--no-default-features",
            "cargo-deny",
            "--version",
        ])
        .arg(format!("={CARGO_DENY}")))
    .with_context(|| format!("cargo-deny {CARGO_DENY} cannot be installed"))?;
    let Some(program) = pinned() else {
        bail!("cargo-deny {CARGO_DENY} was built but is not the first one on PATH");
    };
    Ok(program)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_pinned_one_is_asked() {
        assert!(is_pinned("cargo-deny 0.20.2\n"));
        assert!(!is_pinned("cargo-deny 0.20.20\n") && !is_pinned("cargo-deny 0.19.0\n") && !is_pinned(""));
    }
}
