//! Running other programs: what failed is said in one sentence, root is asked for only where it is needed.

use std::env;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

/// Says what happens next, on stderr: stdout is for results.
macro_rules! say {
    ($($part:tt)*) => { eprintln!("xtask: {}", format_args!($($part)*)) };
}
pub(crate) use say;

/// The workspace's folder.
pub fn workspace() -> Result<PathBuf> {
    let here =
        env::var_os("CARGO_MANIFEST_DIR").context("xtask must be started by cargo: `cargo xtask ...`")?;
    let parent = Path::new(&here).parent().context("the xtask folder has no parent")?;
    Ok(parent.to_owned())
}

/// Where cargo puts its results (the default members' target folder).
pub fn target_dir() -> Result<PathBuf> {
    match env::var_os("CARGO_TARGET_DIR") {
        Some(dir) => Ok(env::current_dir()?.join(dir)),
        None => Ok(workspace()?.join("target")),
    }
}

/// Cargo, as the caller started it, in the workspace's folder.
pub fn cargo() -> Result<Command> {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(workspace()?);
    // Set by `cargo run` for xtask alone; a build script of the workspace must not take them for its own.
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_PKG_") || text == "CARGO_MANIFEST_DIR" || text == "CARGO_MANIFEST_PATH" {
            cargo.env_remove(name);
        }
    }
    Ok(cargo)
}

/// Whether we are root already.
pub fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0)
}

/// `program`, started through sudo when we are not root.
pub fn as_root(program: impl AsRef<OsStr>) -> Command {
    if is_root() {
        return Command::new(program);
    }
    let mut sudo = Command::new("sudo");
    sudo.args(["--preserve-env", "--"]).arg(program);
    sudo
}

/// The command as a person would type it.
pub fn shown(command: &Command) -> String {
    let mut words = vec![command.get_program().to_string_lossy().into_owned()];
    words.extend(command.get_args().map(|word| word.to_string_lossy().into_owned()));
    words.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" ")
}

fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,+@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

/// Runs to the end; any other status than success is an error.
pub fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("cannot start `{}`", shown(command)))?;
    if !status.success() {
        bail!("`{}` failed ({status})", shown(command));
    }
    Ok(())
}

/// Runs to the end and returns what it printed; its stderr is passed through.
pub fn output(command: &mut Command) -> Result<String> {
    let done = command
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("cannot start `{}`", shown(command)))?;
    if !done.status.success() {
        bail!("`{}` failed ({})", shown(command), done.status);
    }
    Ok(String::from_utf8_lossy(&done.stdout).into_owned())
}

/// What a program says, or `None` if it is missing or fails; for looking around without noise.
pub fn quiet_output(command: &mut Command) -> Option<String> {
    let done = command.stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    done.status.success().then(|| String::from_utf8_lossy(&done.stdout).into_owned())
}

/// Where `program` is: on PATH, or in cargo's own folder of programs.
pub fn find(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let own = cargo_home().map(|home| home.join("bin"));
    env::split_paths(&path).chain(own).map(|folder| folder.join(program)).find(|file| file.is_file())
}

/// Cargo's home folder.
pub fn cargo_home() -> Option<PathBuf> {
    let home = || env::var_os("HOME").map(|home| Path::new(&home).join(".cargo"));
    env::var_os("CARGO_HOME").map(PathBuf::from).or_else(home)
}

/// A folder that goes away with its owner.
#[derive(Debug)]
pub struct TempDir(PathBuf);

impl TempDir {
    /// Makes an empty folder `NAME-PID` below cargo's target folder (not in /tmp, which may be small).
    pub fn new(name: &str) -> Result<Self> {
        let path = target_dir()?.join(format!("{name}-{}", std::process::id()));
        fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))?;
        Ok(Self(path))
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.0)); // left-overs below target/ harm nobody
    }
}
