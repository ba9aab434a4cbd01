//! Programs of cargo's that the developer commands need, each in one version: a newer one may judge, or write, otherwise.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::command::{cargo, find, quiet_output, run, say};

/// A program that cargo installs.
#[derive(Debug)]
pub struct Program {
    /// Its name and its crate's.
    pub name: &'static str,
    /// The only version that is taken.
    pub version: &'static str,
    /// Features, for `cargo install`.
    pub options: &'static [&'static str],
}

impl Program {
    /// Where it is; built first when it is missing or another version.
    pub fn path(&self) -> Result<PathBuf> {
        if let Some(path) = self.installed() {
            return Ok(path);
        }
        let Self { name, version, options } = self;
        say!("building {name} {version} (some minutes on 2 CPUs, once)");
        run(cargo()?
            .args(["install", "--quiet", "--locked", "--force", name, "--version"])
            .arg(format!("={version}"))
            .args(*options))
        .with_context(|| format!("{name} {version} cannot be installed"))?;
        let Some(path) = self.installed() else {
            bail!("{name} {version} was built but is not the first one on PATH");
        };
        Ok(path)
    }

    fn installed(&self) -> Option<PathBuf> {
        let path = find(self.name)?;
        self.is_in(&quiet_output(Command::new(&path).arg("--version"))?).then_some(path)
    }

    /// `NAME VERSION`, or the version alone.
    fn is_in(&self, said: &str) -> bool {
        said.split_whitespace().find(|word| *word != self.name) == Some(self.version)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_pinned_one_is_taken() {
        let deny = Program { name: "cargo-deny", version: "0.20.2", options: &[] };
        assert!(deny.is_in("cargo-deny 0.20.2\n") && deny.is_in("0.20.2\n"));
        assert!(!deny.is_in("cargo-deny 0.20.20\n") && !deny.is_in("cargo-deny 0.19.0\n") && !deny.is_in(""));
    }
}
