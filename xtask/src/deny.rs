//! What others wrote and is linked in: licences, versions, where it comes from, known holes; by cargo-deny with deny.toml.

use std::process::Command;

use anyhow::Result;

use crate::command::{quiet_output, run, say, workspace};
use crate::pinned::Program;

/// A newer one may judge otherwise.
const CARGO_DENY: Program =
    Program { name: "cargo-deny", version: "0.20.2", options: &["--no-default-features"] };

/// Fails when something is linked in that deny.toml does not allow.
pub fn run_all() -> Result<()> {
    let program = CARGO_DENY.path()?;
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
