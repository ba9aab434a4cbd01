//! The package in a Debian that boots: systemd as usual, on a kernel of Debian's, under QEMU.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use super::chroot::{Debian, OLDER};
use super::{Place, deb, epoch};
use crate::arch::Arch;
use crate::command::{find, run, say};
use crate::kernels;
use crate::vm::within;

/// What runs there.
const SCRIPT: &str = include_str!("in_guest.sh");
/// How it says something.
const MARK: &str = "vmaudit-systemd: ";
/// A file system in memory that the service manager can leave behind, as it can no initramfs.
const INIT: &str = "#!/bin/sh\nmount -t tmpfs -o mode=755 root /mnt\ncd /\n\
    for one in *; do [ \"$one\" = mnt ] || cp -a \"$one\" /mnt/; done\nmkdir /mnt/mnt\n\
    exec switch_root /mnt /lib/systemd/systemd\n";
const UNIT: &str = "[Unit]\nAfter=multi-user.target\n[Service]\nType=oneshot\nExecStart=/root/in_guest.sh\n";
/// Folders that only take room.
const NEEDLESS: [&str; 6] =
    ["usr/share/doc", "usr/share/man", "usr/share/locale", "usr/share/fish", "var/cache", "usr/share/zsh"];
/// A backstop.
const LIMIT: Duration = Duration::from_secs(1800);

/// Boots it on that kernel; needs root.
pub fn boot(place: &Place, kernel: &str) -> Result<()> {
    let newer = place.deb();
    if !newer.is_file() {
        bail!("{} is missing: run `cargo xtask package` first", newer.display());
    }
    for (program, package) in [("cpio", "cpio"), (Arch::X86.qemu(), "qemu-system-x86")] {
        if find(program).is_none() {
            bail!("{program} is missing: install Debian's package {package}");
        }
    }
    let kernels = kernels::select(&[kernel.to_owned()], false, Arch::X86)?;
    let image = kernels.first().context("a kernel")?.image(Arch::X86)?;
    let debian = Debian::unpacked(place)?;
    debian.install(&deb(place, &epoch()?, Some(OLDER))?)?;
    let initramfs = pack(place, debian.folder(), &newer)?;
    let console = place.target.join(format!("systemd-{kernel}.log"));
    say!("booting a Debian on {kernel}, log in {}", console.display());
    let mut qemu = Command::new(Arch::X86.qemu());
    qemu.args(["-accel", "tcg", "-machine", "pc", "-cpu", Arch::X86.emulated(), "-m", "3072", "-smp", "1"]);
    qemu.args(["-display", "none", "-no-reboot", "-nic", "none", "-monitor", "none", "-serial"]);
    qemu.arg(format!("file:{}", console.display())).arg("-kernel").arg(image).arg("-initrd").arg(&initramfs);
    qemu.args(["-append", "console=ttyS0 quiet loglevel=3 panic=-1 rdinit=/init systemd.show_status=0"]);
    let end = within(&mut qemu, LIMIT)?;
    let text = String::from_utf8_lossy(&fs::read(&console)?).into_owned();
    judge(&text, end)
}

/// The whole file system as an archive for the kernel.
fn pack(place: &Place, root: &Path, newer: &Path) -> Result<PathBuf> {
    for folder in NEEDLESS {
        drop(fs::remove_dir_all(root.join(folder)));
    }
    fs::create_dir_all(root.join("var/cache"))?;
    fs::copy(newer, root.join("root/newer.deb"))?;
    for (path, text) in [("init", INIT), ("root/in_guest.sh", SCRIPT)] {
        fs::write(root.join(path), text)?;
        run(Command::new("chmod").arg("755").arg(root.join(path)))?;
    }
    fs::write(root.join("etc/systemd/system/in-guest.service"), UNIT)?;
    // Not a part of multi-user.target, after which it comes.
    let wants = root.join("etc/systemd/system/default.target.wants");
    fs::create_dir_all(&wants)?;
    std::os::unix::fs::symlink("../in-guest.service", wants.join("in-guest.service"))?;
    let path = place.target.join("systemd.cpio");
    let mut find = Command::new("find");
    let mut listing = find.current_dir(root).arg(".").stdout(Stdio::piped()).spawn()?;
    let names = listing.stdout.take().context("a pipe")?;
    let mut cpio = Command::new("cpio");
    cpio.current_dir(root).args(["--create", "--format=newc", "--quiet"]).stdin(names);
    run(cpio.stdout(File::create(&path)?))?;
    let status = listing.wait()?;
    if !status.success() {
        bail!("find could not list {} ({status}): the archive is not whole", root.display());
    }
    Ok(path)
}

/// Each check of the script once, and none failed.
fn judge(console: &str, end: Option<String>) -> Result<()> {
    let said: Vec<&str> =
        console.lines().filter_map(|line| Some(line.split_once(MARK)?.1.trim_end())).collect();
    said.iter().for_each(|line| println!("{line}"));
    let failed: Vec<&&str> = said.iter().filter(|line| line.starts_with("failed ")).collect();
    if !failed.is_empty() {
        bail!("{} checks failed", failed.len());
    }
    let passed = said.iter().filter(|line| line.starts_with("ok ")).count();
    // Those of the loop over two capabilities stand there once.
    let asked = SCRIPT.lines().filter(|line| line.trim_start().starts_with("check ")).count() + 1;
    if said.last() != Some(&"end") || passed != asked {
        bail!("{passed} of {asked} checks passed, then {}", end.as_deref().unwrap_or("it ended"));
    }
    say!("{passed} checks passed under systemd");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_or_failed_is_a_failure() {
        let checks = SCRIPT.lines().filter(|line| line.trim_start().starts_with("check ")).count() + 1;
        let all = format!("{MARK}ok x\n").repeat(checks);
        assert!(judge(&format!("{all}{MARK}end\n"), None).is_ok());
        assert!(judge(&all, None).is_err());
        assert!(judge(&format!("{MARK}end\n"), None).is_err());
        assert!(judge(&format!("{all}{MARK}failed y: z\n{MARK}end\n"), None).is_err());
    }
}
