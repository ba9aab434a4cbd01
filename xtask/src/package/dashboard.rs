//! The dashboard, held to the types that Grafana publishes: each of its fields is one that Grafana knows.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use super::Place;
use crate::command::{output, run, say, workspace};

/// Those of Grafana 10.1; newer ones read what older ones wrote.
const TYPES: &str = "grafana-foundation-sdk==1769699998!10.1.0";
const PROGRAM: &str = include_str!("dashboard.py");

/// Fetches the types with pip, once, and reads the dashboard.
pub fn check(place: &Place) -> Result<()> {
    let environment = place.target.join("grafana-types");
    let installed = environment.join("installed");
    if !fs::read_to_string(&installed).is_ok_and(|said| said == TYPES) {
        say!("fetching {TYPES}");
        run(Command::new("python3").args(["-m", "venv"]).arg(&environment))?;
        let mut pip = Command::new(environment.join("bin/pip"));
        run(pip.args(["install", "--quiet", "--disable-pip-version-check", TYPES]))?;
        fs::write(&installed, TYPES)?;
    }
    let reader = |file: &Path| {
        let mut python = Command::new(environment.join("bin/python"));
        python.args(["-c", PROGRAM]).arg(file);
        python
    };
    let dashboard = workspace()?.join("vmaudit-user/packaging/grafana/vmaudit.dashboard.json");
    let panels = output(&mut reader(&dashboard))?;
    // It sees what is wrong.
    let wrong = place.target.join("wrong.json");
    let text = fs::read_to_string(&dashboard)?;
    for (from, to) in [("\"fieldConfig\"", "\"fieldConfigs\""), ("\"expr\"", "\"expression\"")] {
        fs::write(&wrong, text.replace(from, to))?;
        let told = reader(&wrong).output().context("python starts")?;
        if told.status.success() || !String::from_utf8_lossy(&told.stderr).contains("Grafana does not know") {
            bail!("with {to} for {from} the dashboard is read as if nothing were the matter: {told:?}");
        }
    }
    say!("{} panels, and each field is one of Grafana's", panels.trim());
    Ok(())
}
