//! The archive with a program that needs nothing beside it: with musl, whose C library looks users up in /etc/passwd alone.
//! (A static glibc loads libraries for it, and crashes where they need others.)

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Result, bail};

use super::musl::Musl;
use super::{Place, cargo_for, has_target, linked, notices, with_own_library};
use crate::arch::Arch;
use crate::command::{cargo, find, output, run, say, workspace};

/// What it is built for.
pub(super) fn target(arch: Arch) -> String {
    format!("{}-unknown-linux-musl", arch.rust())
}

/// The folder in the archive, and the archive before it is compressed.
fn names(version: &str, target: &str) -> (String, String) {
    (format!("vmaudit-{version}"), format!("vmaudit-{version}-{target}.tar"))
}

/// Builds it and packs it.
pub fn archive(place: &Place, epoch: &str, rustc: &str) -> Result<()> {
    let target = target(place.arch);
    say!("building vmaudit {} for {target}", place.version);
    let musl = Musl::find(place)?;
    let mut cargo = match has_target(&target)? {
        true => cargo_for(place, "")?,
        false => {
            let mut cargo = cargo_for(place, &musl.flags(place)?)?;
            with_own_library(&mut cargo)?;
            cargo
        }
    };
    run(cargo.args(["build", "--release", "--locked", "--package", "vmaudit-user", "--target", &target]))?;
    let program = place.target.join(&target).join("release/vmaudit");
    check(&program, place)?;

    let (name, packed) = names(&place.version, &target);
    let above = place.target.join("archive").join(place.arch.debian());
    let folder = above.join(&name);
    drop(fs::remove_dir_all(&folder));
    fs::create_dir_all(&folder)?;
    fs::copy(&program, folder.join("vmaudit"))?;
    let root = workspace()?;
    for file in ["README.md", "CHANGELOG.md", "SECURITY.md", "LICENSE-MIT", "LICENSE-APACHE", "LICENSE-GPL2"]
    {
        fs::copy(root.join(file), folder.join(file))?;
    }
    let text = notices::text(&linked::all(&target)?, rustc, &musl.notices())?;
    fs::write(folder.join("third-party.txt"), text)?;
    run(Command::new("cp")
        .arg("-r")
        .args([place.stage().join("man"), place.stage().join("completions")])
        .arg(&folder))?;
    let packed = place.out.join(packed);
    let mut tar = Command::new("tar");
    tar.args([
        "--sort=name",
        "--owner=0",
        "--group=0",
        "--numeric-owner",
        "--mode=a+rX,u+w,go-w",
        "--format=gnu",
    ]);
    tar.arg(format!("--mtime=@{epoch}")).arg("-C").arg(&above).arg("-cf").arg(&packed);
    run(tar.arg(&name))?;
    run(Command::new("gzip").arg("-9nf").arg(&packed))
}

/// Type by type, without a linker or a C library: what one C library has and the other has not shows here, in CI.
pub fn compiles(arch: Arch) -> Result<()> {
    let target = target(arch);
    let mut cargo = cargo()?;
    if !has_target(&target)? {
        with_own_library(&mut cargo)?;
    }
    run(cargo.args(["check", "--quiet", "--locked", "--package", "vmaudit-user", "--target", &target]))?;
    say!("it compiles for {target}");
    Ok(())
}

/// What starts it; another processor's is emulated, as far as system calls go.
fn starting(program: &Path, arch: Arch) -> Result<Command> {
    if arch.is_native() {
        return Ok(Command::new(program));
    }
    let emulator = format!("qemu-{}", arch.rust());
    if find(&emulator).is_none() {
        bail!("{emulator} is missing: cargo xtask setup --arm64");
    }
    let mut emulated = Command::new(emulator);
    emulated.arg(program);
    Ok(emulated)
}

/// It needs no library, knows a user, and says its version.
fn check(program: &Path, place: &Place) -> Result<()> {
    let version = &place.version;
    let headers =
        output(Command::new("readelf").args(["--program-headers", "--dynamic", "--wide"]).arg(program))?;
    if headers.contains("INTERP") || headers.contains("(NEEDED)") {
        bail!("{} is not static:\n{headers}", program.display());
    }
    let said = output(starting(program, place.arch)?.arg("--version"))?;
    if !is_version(&said, version) {
        bail!("it says {said:?}, not that it is {version}");
    }
    for (user, known) in [("root", true), ("no-such-user", false)] {
        let done = starting(program, place.arch)?.args(["scan", "--user", user]).output()?;
        let said = String::from_utf8_lossy(&done.stderr);
        if said.contains("there is no user") == known {
            bail!("asked for the processes of {user} it says {said:?} ({})", done.status);
        }
    }
    Ok(())
}

/// The whole version, not the beginning of another one.
fn is_version(said: &str, version: &str) -> bool {
    let mut words = said.split_whitespace();
    (words.next(), words.next()) == (Some("vmaudit"), Some(version))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `cargo binstall` asks for the archive by the name that stands in the manifest.
    #[test]
    fn the_archive_is_called_as_the_manifest_says() {
        let manifest = include_str!("../../../vmaudit-user/Cargo.toml");
        let (_, binstall) = manifest.split_once("[package.metadata.binstall]\n").expect("it has the table");
        let value = |key: &str, arch: Arch| {
            let line = binstall.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(" = "));
            let words = [
                ("{ version }", "1.2.3"),
                ("{ target-arch }", arch.rust()),
                ("{ bin }", "vmaudit"),
                ("{ binary-ext }", ""),
            ];
            let line = line.expect("a key").trim_matches('"').to_owned();
            words.iter().fold(line, |line, (name, value)| line.replace(name, value))
        };
        for arch in [Arch::X86, Arch::Arm] {
            let (folder, packed) = names("1.2.3", &target(arch));
            assert_eq!(value("pkg-url", arch), format!("{{ repo }}/releases/download/v1.2.3/{packed}.gz"));
            assert_eq!(value("bin-dir", arch), format!("{folder}/vmaudit"));
        }
    }

    #[test]
    fn another_version_is_not_this_one() {
        assert!(is_version("vmaudit 0.2.0\n", "0.2.0") && is_version("vmaudit 0.2.0 (x)\n", "0.2.0"));
        assert!(
            !["vmaudit 0.2.0-rc1\n", "vmaudit 0.2\n", "vmaudit \n", "0.2.0"]
                .iter()
                .any(|said| is_version(said, "0.2.0"))
        );
    }
}
