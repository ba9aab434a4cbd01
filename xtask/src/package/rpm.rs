//! The .rpm: made, and installed, upgraded and erased by rpm itself in a root of its own.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use super::chroot::Debian;
use super::{Place, epoch};
use crate::command::{find, output, run, say, workspace};
use crate::pinned::Program;

const CARGO_RPM: Program =
    Program { name: "cargo-generate-rpm", version: "0.21.1", options: &["--no-default-features"] };
/// Older than any that was given to users.
const OLDER: &str = "0.0.1";
/// Folders that distributions with rpm have of other packages.
const OF_OTHERS: [&str; 2] = ["usr/share/licenses d ", "usr/share/zsh/site-functions d "];
const CONFIGURATION: &str = "etc/default/vmaudit";

/// Makes it of what is built and staged; `version`: another than Cargo's, for tests of upgrades.
pub(super) fn make(place: &Place, epoch: &str, version: Option<&str>) -> Result<PathBuf> {
    let path = match version {
        None => of(place),
        Some(version) => place.target.join(format!("vmaudit-{version}-1.{}.rpm", place.arch.rust())),
    };
    let mut rpm = Command::new(CARGO_RPM.path()?);
    rpm.current_dir(workspace()?).env("CARGO_TARGET_DIR", &place.target).env("SOURCE_DATE_EPOCH", epoch);
    rpm.args(["generate-rpm", "--package", "vmaudit-user", "--payload-compress", "gzip"]);
    if let Some(target) = place.foreign() {
        rpm.args(["--target", &target]);
    }
    if let Some(version) = version {
        rpm.args(["--set-metadata", &format!("version = \"{version}\"")]);
    }
    run(rpm.arg("--output").arg(&path))?;
    Ok(path)
}

fn of(place: &Place) -> PathBuf {
    place.out.join(format!("vmaudit-{}-1.{}.rpm", place.version, place.arch.rust()))
}

/// Its life in a Debian, whose own books know nothing of it; needs root.
pub(super) fn check(place: &Place) -> Result<()> {
    let newer = of(place);
    if !newer.is_file() {
        bail!("{} is missing: run `cargo xtask package` first", newer.display());
    }
    if find("rpm").is_none() {
        bail!("rpm is missing: install Debian's package rpm");
    }
    let older = make(place, &epoch()?, Some(OLDER))?;
    let root = Debian::unpacked(place)?;
    let before = root.files()?;
    rpm(&root, &["--install"], Some(&older))?;
    installed(&root, OLDER)?;
    for unit in ["vmaudit.service", "vmaudit.socket"] {
        let said = root.says("sh", &format!("systemctl is-enabled {unit} || true"))?;
        if said.trim() != "disabled" {
            bail!("{unit} is {said:?} after the installation, not disabled");
        }
    }
    // What the administrator has decided stays so.
    let options = root.folder().join(CONFIGURATION);
    fs::write(&options, "VMAUDIT_OPTIONS=--group-by=app\n")?;
    root.says("sh", "systemctl --quiet enable vmaudit.service")?;
    rpm(&root, &["--upgrade"], Some(&newer))?;
    installed(&root, &place.version)?;
    if fs::read_to_string(&options)? != "VMAUDIT_OPTIONS=--group-by=app\n" {
        bail!("the upgrade changed /{CONFIGURATION}");
    }
    root.has("sh", "systemctl is-enabled vmaudit.service", "enabled")?;
    rpm(&root, &["--erase", "vmaudit"], None)?;
    // A configuration that was changed is kept under another name, as rpm does.
    let kept = root.folder().join(format!("{CONFIGURATION}.rpmsave"));
    fs::remove_file(&kept).with_context(|| format!("{} was not kept", kept.display()))?;
    let after = root.files()?;
    let mut left: Vec<&String> = after.symmetric_difference(&before).collect();
    left.retain(|path| !OF_OTHERS.contains(&path.as_str()));
    if !left.is_empty() {
        bail!("erased, it leaves or takes with it: {left:?}");
    }
    say!("the .rpm was installed, used, upgraded and erased, and nothing of it is left");
    Ok(())
}

fn command(root: &Debian, words: &[&str]) -> Command {
    let mut rpm = Command::new("rpm");
    // Debian's rpm installs on a Debian only when it is told so. What is needed comes from packages that are not rpm's.
    rpm.arg("--root").arg(root.folder()).args(words);
    rpm
}

fn rpm(root: &Debian, words: &[&str], file: Option<&Path>) -> Result<()> {
    let mut rpm = command(root, words);
    rpm.args(["--force-debian", "--nodeps"]).args(file);
    let said = output(&mut rpm)?;
    if !said.trim().is_empty() {
        bail!("rpm {words:?} says {said:?}");
    }
    Ok(())
}

/// The version, each file as it was packed, and what it is for.
fn installed(root: &Debian, version: &str) -> Result<()> {
    let said = output(
        command(root, &["--query", "--queryformat", "%{VERSION}-%{RELEASE}", "vmaudit"])
            .stdin(std::process::Stdio::null()),
    )?;
    if said != format!("{version}-1") {
        bail!("rpm knows version {said:?}, not {version}");
    }
    let listed = output(&mut command(root, &["--query", "--list", "vmaudit"]))?;
    let listed: BTreeSet<&str> = listed.lines().collect();
    for name in ["/usr/bin/vmaudit", "/usr/share/licenses/vmaudit/LICENSE-GPL2", "/etc/default/vmaudit"] {
        if !listed.contains(name) {
            bail!("{name} is not in the .rpm: {listed:?}");
        }
    }
    let mut verify = command(root, &["--verify", "--nodeps", "vmaudit"]);
    let found = verify.output().context("cannot start rpm")?;
    // Only the configuration may differ.
    let found = String::from_utf8_lossy(&found.stdout).into_owned();
    if let Some(line) = found.lines().find(|line| !line.ends_with(&format!(" c /{CONFIGURATION}"))) {
        bail!("a file is not as it was packed: {line}");
    }
    root.works()?;
    let zsh = "fpath=(/usr/share/zsh/site-functions $fpath); autoload -Uz compinit; compinit -u -D; print -r -- \
               $_comps[vmaudit]";
    root.has("zsh", zsh, "_vmaudit")
}
