//! Builds what the tests, the VMs and the benchmarks run, and says where it is.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::arch::Arch;
use crate::command::{cargo, output, workspace};

/// How programs are linked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Linking {
    /// As users do it.
    Usual,
    /// Without any library beside them, for a guest of this architecture, which has none.
    Guest(Arch),
}

/// A built test program.
#[derive(Clone, Debug)]
pub struct Suite {
    /// The cargo target's name.
    pub name: String,
    /// An end-to-end suite (`[[test]]`), not the unit tests of a library or program.
    pub end_to_end: bool,
    /// The executable.
    pub path: PathBuf,
}

/// Profile of the programs that test.
const FOR_TESTS: &str = "e2e";
/// The package of the test programs.
const TESTS: &str = "vmaudit-tests";
/// Names another profile for the `vmaudit` under test: `e2e` builds in a fraction of the time.
const PROFILE: &str = "VMAUDIT_PROFILE";

/// `vmaudit` itself, as released, unless [`PROFILE`] says otherwise. In a guest nothing is measured.
pub fn vmaudit(linking: Linking) -> Result<PathBuf> {
    let released = match linking {
        Linking::Usual => std::env::var(PROFILE).unwrap_or_else(|_| "release".to_owned()),
        Linking::Guest(_) => FOR_TESTS.to_owned(),
    };
    bin(linking, &released, "vmaudit-user", "vmaudit")
}

/// A program of the package `vmaudit-tests`.
pub fn of_tests(linking: Linking, name: &str) -> Result<PathBuf> {
    bin(linking, FOR_TESTS, TESTS, name)
}

/// The test programs of the package `vmaudit-tests`.
pub fn suites(linking: Linking) -> Result<Vec<Suite>> {
    let mut cargo = cargo_for(linking)?;
    cargo
        .args(["test", "--profile", FOR_TESTS, "--no-run", "--package", TESTS])
        .args(features(linking, TESTS));
    let suite = |target: &Value, path| Suite {
        name: text(target, "name"),
        end_to_end: target["kind"].as_array().is_some_and(|kinds| kinds.iter().any(|kind| kind == "test")),
        path,
    };
    let built = build(cargo)?;
    Ok(built
        .into_iter()
        .filter(|built| built.is_test)
        .map(|built| suite(&built.target, built.path))
        .collect())
}

fn bin(linking: Linking, profile: &str, package: &str, name: &str) -> Result<PathBuf> {
    let mut cargo = cargo_for(linking)?;
    cargo.args(["build", "--profile", profile, "--package", package, "--bin", name]);
    cargo.args(features(linking, package));
    let built = build(cargo)?;
    let is_it = |built: &Built| !built.is_test && text(&built.target, "name") == name;
    let found =
        built.into_iter().find(is_it).with_context(|| format!("cargo did not build {package}'s {name}"))?;
    Ok(found.path)
}

/// Documents are held to their schemas where they are made by the release build: on this machine.
fn features(linking: Linking, package: &str) -> &'static [&'static str] {
    if linking == Linking::Usual && package == TESTS { &["--features", "schemas"] } else { &[] }
}

struct Built {
    target: Value,
    is_test: bool,
    path: PathBuf,
}

fn cargo_for(linking: Linking) -> Result<Command> {
    let mut cargo = cargo()?;
    if let Linking::Guest(arch) = linking {
        // An explicit target keeps the flag from proc macros, which cannot be static; a folder of its own keeps the
        // usual build's results.
        cargo.env("CARGO_BUILD_TARGET", format!("{}-unknown-linux-gnu", arch.rust()));
        cargo.env_remove("CARGO_ENCODED_RUSTFLAGS");
        if arch.is_native() {
            cargo.env("RUSTFLAGS", "-Ctarget-feature=+crt-static");
        } else {
            // Its standard library is built from rust-src: rustup, if there is one, need not be able to fetch.
            cargo.env("RUSTFLAGS", "-Ctarget-feature=+crt-static -Crelocation-model=static");
            cargo.env("RUSTC_BOOTSTRAP", "1").env("CARGO_UNSTABLE_BUILD_STD", "std,panic_unwind,test");
            let linker = format!("CARGO_TARGET_{}_UNKNOWN_LINUX_GNU_LINKER", arch.rust().to_uppercase());
            cargo.env(linker, arch.gcc());
        }
        cargo.env("CARGO_TARGET_DIR", workspace()?.join(format!("target/static-{}", arch.debian())));
    }
    Ok(cargo)
}

fn build(mut cargo: Command) -> Result<Vec<Built>> {
    let messages = output(cargo.arg("--message-format=json-render-diagnostics"))?;
    let mut all = Vec::new();
    for line in messages.lines() {
        let Ok(message) = serde_json::from_str::<Value>(line) else { continue };
        if let Some(path) = message["executable"].as_str() {
            let is_test = message["profile"]["test"] == true;
            all.push(Built { target: message["target"].clone(), is_test, path: PathBuf::from(path) });
        }
    }
    Ok(all)
}

fn text(value: &Value, key: &str) -> String {
    value[key].as_str().unwrap_or_default().to_owned()
}
