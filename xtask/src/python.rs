//! The Python vmaudit from its registry, for comparison. It is fetched, run and thrown away; nothing of it is in the tree.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::command::{run, say, target_dir};

/// The end-to-end suite that needs it.
pub const SUITE: &str = "against_python";
/// Version and content (SHA-256 of its wheel), as pip wants them in a file of requirements.
const PACKAGE: &str =
    "vmaudit==1.0.1 --hash=sha256:fdef4438c124048032614fff24112d8247fe2524d465b366257c5ed870b9bd9b\n";

/// The folder that holds the package; fetched with pip when it is not there yet.
pub fn package() -> Result<PathBuf> {
    let folder = target_dir()?.join("python-vmaudit-1.0.1");
    if folder.join("vmaudit/app.py").is_file() {
        return Ok(folder);
    }
    say!("fetching the Python vmaudit, to compare with");
    fs::create_dir_all(&folder)?;
    let requirements = folder.join("requirements.txt");
    fs::write(&requirements, PACKAGE)?;
    let mut pip = Command::new("python3");
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]);
    pip.args(["--only-binary", ":all:", "--upgrade", "--require-hashes", "--target"]).arg(&folder);
    pip.arg("--requirement").arg(&requirements).env("PIP_ROOT_USER_ACTION", "ignore");
    run(&mut pip).context("the Python vmaudit is needed to compare with: python3, pip and its registry")?;
    Ok(folder)
}
