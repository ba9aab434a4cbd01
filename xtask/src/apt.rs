//! The ordinary apt client with a configuration of its own: it reads other Debian suites than the machine's, and changes
//! nothing that belongs to the machine.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::command::{find, is_root, output, quiet_output, run};

const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// An apt client with its own sources, lists and cache.
#[derive(Debug)]
pub struct Apt {
    state: PathBuf,
    config: PathBuf,
}

impl Apt {
    /// Reads the lists of `suites`, for packages of `arch`, into `state`. `NAME-security` comes from the security mirror.
    pub fn update(state: &Path, suites: &[&str], arch: &str) -> Result<Self> {
        if !Path::new(KEYRING).is_file() {
            bail!("{KEYRING} is missing: packages can only be fetched on a Debian machine");
        }
        let apt = Self { state: state.to_owned(), config: state.join("apt.conf") };
        for folder in ["lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(state.join(folder))
                .with_context(|| format!("cannot make {}", state.display()))?;
        }
        let main = mirror("Debian")?;
        let mut lines = String::new();
        for suite in suites {
            let uri = if suite.ends_with("-security") { &mirror("Debian-Security")? } else { &main };
            // target: only the packages' index, not the descriptions that the machine's configuration may add.
            lines += &format!("deb [signed-by={KEYRING} arch={arch} target=Packages] {uri} {suite} main\n");
        }
        fs::write(state.join("sources.list"), lines)?;
        fs::write(&apt.config, configuration(state, arch))?;
        run(apt.command("apt-get").args(["-qq", "update"])).context("cannot read Debian's package lists")?;
        Ok(apt)
    }

    /// The newest package whose name matches the extended regular expression, and its version, if there is one.
    pub fn newest(&self, name: &str) -> Result<Option<Package>> {
        let found = output(self.command("apt-cache").args(["search", "--names-only", name]))?;
        let names: Vec<&str> = found.lines().filter_map(|line| line.split_whitespace().next()).collect();
        if names.is_empty() {
            return Ok(None);
        }
        let listed = output(self.command("apt-cache").arg("madison").args(names))?;
        let mut best: Option<Package> = None;
        for package in listed.lines().filter_map(Package::parse) {
            if best.as_ref().is_none_or(|best| is_newer(&package.version, &best.version)) {
                best = Some(package);
            }
        }
        Ok(best)
    }

    /// Versions of one package.
    pub fn versions(&self, name: &str) -> Result<Vec<Package>> {
        Ok(output(self.command("apt-cache").args(["madison", name]))?
            .lines()
            .filter_map(Package::parse)
            .collect())
    }

    /// Fetches a package and unpacks its files below `into`, which is made; nothing is installed.
    pub fn unpack(&self, package: &Package, into: &Path) -> Result<()> {
        let archives = self.state.join("download");
        drop(fs::remove_dir_all(&archives)); // of an attempt that was broken off
        fs::create_dir_all(&archives)?;
        let wanted = format!("{}={}", package.name, package.version);
        run(self.command("apt-get").current_dir(&archives).args(["-qq", "download", &wanted]))?;
        let file =
            fs::read_dir(&archives)?.next().with_context(|| format!("apt did not fetch {wanted}"))??.path();
        fs::create_dir_all(into)?;
        run(Command::new("dpkg").arg("-x").arg(&file).arg(into))?;
        Ok(fs::remove_dir_all(&archives)?)
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.arg("--config-file").arg(&self.config); // read after the machine's own configuration
        command
    }
}

/// A package of one version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Package {
    /// Its name.
    pub name: String,
    /// Its Debian version.
    pub version: String,
}

impl Package {
    /// A line of `apt-cache madison`: `name | version | source`.
    fn parse(line: &str) -> Option<Self> {
        let mut parts = line.split('|').map(str::trim);
        let (name, version) = (parts.next()?, parts.next()?);
        Some(Self { name: name.to_owned(), version: version.to_owned() })
    }
}

/// Keeps everything below `state`; hooks that tidy up after an update would tidy up the machine's own apt.
fn configuration(state: &Path, arch: &str) -> String {
    let state = state.display();
    let mut lines = vec![
        "#clear APT::Update::Post-Invoke;".to_owned(),
        "#clear APT::Update::Post-Invoke-Success;".to_owned(),
        format!("Dir::State \"{state}\";"),
        format!("Dir::State::Lists \"{state}/lists\";"),
        format!("Dir::Cache \"{state}/cache\";"),
        "Dir::Cache::pkgcache \"pkgcache.bin\";".to_owned(), // images for containers turn it off
        format!("Dir::Etc::SourceList \"{state}/sources.list\";"),
        "Dir::Etc::SourceParts \"/dev/null\";".to_owned(),
        "Acquire::Languages \"none\";".to_owned(),
        "#clear APT::Architectures;".to_owned(),
        format!("APT::Architecture \"{arch}\";"),
        format!("APT::Architectures {{ \"{arch}\"; }};"),
    ];
    if is_root() {
        lines.push("APT::Sandbox::User \"root\";".to_owned()); // apt's own user may not read the checkout's folder
    }
    lines.join("\n") + "\n"
}

fn is_newer(one: &str, other: &str) -> bool {
    quiet_output(Command::new("dpkg").args(["--compare-versions", one, "gt", other])).is_some()
}

/// The mirror this machine gets Debian from.
fn mirror(label: &str) -> Result<String> {
    find("apt-get").context("apt-get is missing: packages can only be fetched on a Debian machine")?;
    let label = format!("Label: {label}");
    let ask = || {
        output(Command::new("apt-get").args([
            "indextargets",
            "--format",
            "$(REPO_URI)",
            "Created-By: Packages",
            "Origin: Debian",
            &label,
        ]))
    };
    let mut uris = ask()?;
    if uris.trim().is_empty() {
        // A fresh image has no package lists yet, and without them apt does not know whose mirror is whose.
        run(crate::command::as_root("apt-get").args(["-qq", "update"]))?;
        uris = ask()?;
    }
    let mut uris: Vec<&str> = uris.lines().collect();
    uris.sort_unstable();
    uris.first().map(|uri| (*uri).to_owned()).with_context(|| format!("apt knows no Debian mirror ({label})"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_as_debian_does() {
        assert!(is_newer("7.3~rc7-1", "7.2.13-1"));
        assert!(is_newer("5.10.262-1", "5.10.99-1"));
        assert!(!is_newer("7.3~rc7-1", "7.3-1"));
    }
}
