//! The .deb in a Debian that was made a minute ago: what lintian says, and what installing, using, upgrading, removing and
//! purging it leaves behind.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

use super::{Place, deb, epoch};
use crate::command::{find, is_root, output, run, say, shown};

/// What the Debian has beside the least: readers of man pages, shells, a service manager.
const WITH: &str = "man-db,bash-completion,zsh,fish,systemd,systemd-sysv,dbus";
/// An older version than any that was given to users.
pub(super) const OLDER: &str = "0.0.1-1";
/// Folders whose content is not the package's doing.
const OTHERS: [&str; 11] = [
    "proc",
    "sys",
    "dev",
    "run",
    "tmp",
    // The package managers' own books.
    "var/lib/rpm",
    "root/.rpmdb",
    "var/lib/dpkg",
    "var/lib/apt",
    "var/log",
    "var/cache",
];
const UNITS: [&str; 2] = ["vmaudit.service", "vmaudit.socket"];

/// Does all of it; needs root.
pub fn check(place: &Place) -> Result<()> {
    let newer = place.deb();
    if !newer.is_file() {
        bail!("{} is missing: run `cargo xtask package` first", newer.display());
    }
    lintian(&newer)?;
    let older = deb(place, &epoch()?, Some(OLDER))?;
    let root = Debian::unpacked(place)?;
    root.life(&older, &newer)?;
    say!("the .deb was installed, used, upgraded, removed and purged, and nothing of it is left");
    Ok(())
}

fn lintian(deb: &Path) -> Result<()> {
    if find("lintian").is_none() {
        bail!("lintian is missing: install Debian's package lintian");
    }
    let mut lintian = Command::new("lintian");
    lintian.args(["--allow-root", "--fail-on", "error", "--tag-display-limit", "0", "--info"]).arg(deb);
    run(&mut lintian).context("lintian found errors")
}

/// A Debian in a folder.
pub(super) struct Debian(PathBuf);

impl Debian {
    /// As Debian's packages make it, from the archive that is made when it is missing.
    pub(super) fn unpacked(place: &Place) -> Result<Self> {
        if !is_root() {
            bail!("a Debian in a folder needs root");
        }
        let archive = place.target.join("debian.tar");
        if !archive.is_file() {
            if find("mmdebstrap").is_none() {
                bail!("mmdebstrap is missing: install Debian's package mmdebstrap");
            }
            say!("making a Debian with {WITH}");
            let part = archive.with_extension("part.tar");
            let mut make = Command::new("mmdebstrap");
            make.args(["--quiet", "--mode=root", "--variant=minbase", "--include", WITH, "bookworm"]);
            run(make.arg(&part).stdin(Stdio::null()))?;
            fs::rename(&part, &archive)?;
        }
        let root = place.target.join("debian");
        drop(fs::remove_dir_all(&root));
        fs::create_dir_all(&root)?;
        run(Command::new("tar").arg("-C").arg(&root).arg("-xf").arg(&archive))?;
        Ok(Self(root))
    }

    /// Its folder.
    pub(super) fn folder(&self) -> &Path {
        &self.0
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new("chroot");
        command.arg(&self.0).args([
            "env",
            "-i",
            "PATH=/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME=/tmp",
            "LC_ALL=C.UTF-8",
        ]);
        command.args(["DEBIAN_FRONTEND=noninteractive", "MANPAGER=cat", program]).stdin(Stdio::null());
        command
    }

    /// What a shell in it says.
    pub(super) fn says(&self, shell: &str, script: &str) -> Result<String> {
        output(self.command(shell).args(["-c", script]))
    }

    pub(super) fn has(&self, shell: &str, script: &str, part: &str) -> Result<()> {
        let said = self.says(shell, script)?;
        if !said.contains(part) {
            bail!("`{script}` of {shell} does not say {part:?}, but {said:?}");
        }
        Ok(())
    }

    /// `apt-get install ./FILE`.
    pub(super) fn install(&self, deb: &Path) -> Result<()> {
        let name = deb.file_name().context("a file")?;
        fs::copy(deb, self.0.join("tmp").join(name))?;
        let mut install = self.command("apt-get");
        install.args(["-qq", "-o", "Dpkg::Use-Pty=0", "-o", "Dpkg::Options::=--force-confold", "install"]);
        run(install.arg(Path::new("/tmp").join(name)).stdout(Stdio::null()))?;
        Ok(fs::remove_file(self.0.join("tmp").join(name))?)
    }

    /// Every path, but for those of others.
    pub(super) fn files(&self) -> Result<BTreeSet<String>> {
        let mut find = Command::new("find");
        find.current_dir(&self.0).arg(".");
        for other in OTHERS {
            find.args(["-path", &format!("./{other}"), "-prune", "-o"]);
        }
        Ok(output(find.args(["-printf", "%P %y %l\n"]))?.lines().map(str::to_owned).collect())
    }

    fn life(&self, older: &Path, newer: &Path) -> Result<()> {
        let before = self.files()?;
        self.install(older)?;
        self.is_version(OLDER)?;
        self.works()?;
        self.completes_in_zsh()?;
        for unit in UNITS {
            let mut asked = self.command("systemctl");
            let said = asked.args(["is-enabled", unit]).output()?;
            let said = String::from_utf8_lossy(&said.stdout).trim().to_owned();
            if said != "disabled" {
                bail!("{unit} is {said:?} after the installation, not disabled");
            }
        }
        // What the administrator has decided stays so.
        let options = self.0.join("etc/default/vmaudit");
        fs::write(&options, "VMAUDIT_OPTIONS=--group-by=app\n")?;
        run(self.command("systemctl").args(["--quiet", "enable", "vmaudit.service"]))?;
        self.install(newer)?;
        let name = newer.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        self.is_version(name.split('_').nth(1).unwrap_or_default())?;
        self.works()?;
        if fs::read_to_string(&options)? != "VMAUDIT_OPTIONS=--group-by=app\n" {
            bail!("the upgrade changed /etc/default/vmaudit");
        }
        for unit in UNITS {
            self.has("sh", &format!("systemctl is-enabled {unit}"), "enabled")?;
        }
        self.has("sh", "dpkg --verify vmaudit; echo verified", "verified")?;
        run(self
            .command("apt-get")
            .args(["-qq", "-o", "Dpkg::Use-Pty=0", "remove", "vmaudit"])
            .stdout(Stdio::null()))?;
        if !options.exists() || self.0.join("usr/bin/vmaudit").exists() {
            bail!("removed, it must leave its configuration and nothing else");
        }
        run(self
            .command("apt-get")
            .args(["-qq", "-o", "Dpkg::Use-Pty=0", "purge", "vmaudit"])
            .stdout(Stdio::null()))?;
        let after = self.files()?;
        let left: Vec<&String> = after.symmetric_difference(&before).collect();
        if !left.is_empty() {
            bail!("purged, it leaves or takes with it: {left:?}");
        }
        Ok(())
    }

    fn is_version(&self, version: &str) -> Result<()> {
        self.has(
            "sh",
            "dpkg-query -W -f '${Version} ${Status}' vmaudit",
            &format!("{version} install ok installed"),
        )
    }

    /// The program, each page, and what a shell completes.
    pub(super) fn works(&self) -> Result<()> {
        self.has("sh", "vmaudit --version", "vmaudit ")?;
        let help = self.says("sh", "vmaudit --help")?;
        let (_, commands) = help.split_once("\nCommands:\n").context("vmaudit --help lists commands")?;
        let commands = commands.lines().take_while(|line| line.starts_with("  "));
        // What stands further in goes on with the line before.
        let commands = commands.filter(|line| !line.starts_with("   "));
        let names: Vec<&str> = commands.filter_map(|line| line.split_whitespace().next()).collect();
        let pages = names.iter().filter(|name| **name != "help");
        let mut read = 0;
        for name in pages {
            let mut man = self.command("man");
            let page = output(man.arg(format!("vmaudit-{name}")))?;
            if !page.contains("NAME\n") || !page.contains("SYNOPSIS\n") {
                bail!("`{}` shows {page:?}", shown(&man));
            }
            read += 1;
        }
        if read < 10 {
            bail!("only {read} commands have a page: {names:?}");
        }
        self.has("sh", "man vmaudit-run", "sudo vmaudit run")?;
        let bash = ". /usr/share/bash-completion/bash_completion; _completion_loader vmaudit; COMP_WORDS=(vmaudit wa); \
                    COMP_CWORD=1; _vmaudit vmaudit wa; echo ${COMPREPLY[@]}";
        self.has("bash", bash, "watch")?;
        self.has("fish", "complete --do-complete 'vmaudit wa'", "watch")
    }

    /// Where Debian's zsh looks.
    fn completes_in_zsh(&self) -> Result<()> {
        self.has("zsh", "autoload -Uz compinit; compinit -u -D; print -r -- $_comps[vmaudit]", "_vmaudit")
    }
}
