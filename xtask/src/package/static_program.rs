//! The archive with a program that needs nothing beside it: with musl, whose C library looks users up in /etc/passwd alone.
//! (A static glibc loads libraries for it, and crashes where they need others.)

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, bail};

use super::{Place, cargo_for, linked, notices};
use crate::command::{cargo, output, quiet_output, run, say, workspace};
use crate::ebpf::has_rust_src;

pub(super) const TARGET: &str = "x86_64-unknown-linux-musl";
/// Where Debian's packages musl-dev and libunwind-16-dev have what is linked in, and what it is distributed under.
const UNWINDER: &str = "/usr/lib/llvm-16/lib/libunwind.a";
const NOTICES: [(&str, &str); 2] = [
    ("the C library musl", "/usr/share/doc/musl-dev/copyright"),
    ("LLVM's libunwind", "/usr/share/doc/libunwind-16-dev/copyright"),
];
/// Debian's unwinder was built against glibc's checking variants of functions, which musl lacks; and musl before 1.2.4 has no
/// statx().
const BRIDGE: &str = "#include <stdarg.h>\n#include <stdio.h>\n#include <sys/syscall.h>\n#include <unistd.h>\n\
    __attribute__((weak)) int statx(int folder, const char *path, int flags, unsigned mask, void *into) {\n\
    return syscall(SYS_statx, folder, path, flags, mask, into); }\n\
    int __fprintf_chk(FILE *f, int flag, const char *format, ...) {\n\
    va_list all; va_start(all, format); int n = vfprintf(f, format, all); va_end(all); (void)flag; return n; }\n";

/// The folder in the archive, and the archive before it is compressed, for this processor.
fn names(version: &str, arch: &str) -> (String, String) {
    (format!("vmaudit-{version}"), format!("vmaudit-{version}-{arch}-unknown-linux-musl.tar"))
}

/// Builds it and packs it.
pub fn archive(place: &Place, epoch: &str, rustc: &str) -> Result<()> {
    say!("building vmaudit {} for {TARGET}", place.version);
    let mut cargo = match has_target()? {
        true => cargo_for(place, "")?,
        false => with_own_library(place)?,
    };
    run(cargo.args(["build", "--release", "--locked", "--package", "vmaudit-user", "--target", TARGET]))?;
    let program = place.target.join(TARGET).join("release/vmaudit");
    check(&program, &place.version)?;

    let (name, packed) = names(&place.version, "x86_64");
    let folder = place.target.join("archive").join(&name);
    drop(fs::remove_dir_all(&folder));
    fs::create_dir_all(&folder)?;
    fs::copy(&program, folder.join("vmaudit"))?;
    let root = workspace()?;
    for file in ["README.md", "CHANGELOG.md", "SECURITY.md", "LICENSE-MIT", "LICENSE-APACHE", "LICENSE-GPL2"]
    {
        fs::copy(root.join(file), folder.join(file))?;
    }
    let beside = NOTICES.map(|(name, path)| (name, Path::new(path)));
    if let Some((name, path)) = beside.iter().find(|(_, path)| !path.is_file()) {
        bail!(
            "{} is missing: the archive has to hold the licence of {name}; install Debian's packages musl-dev and \
             libunwind-16-dev",
            path.display()
        );
    }
    fs::write(folder.join("third-party.txt"), notices::text(&linked::all(TARGET)?, rustc, &beside)?)?;
    run(Command::new("cp")
        .arg("-r")
        .args([place.stage().join("man"), place.stage().join("completions")])
        .arg(&folder))?;
    let packed = place.out.join(packed);
    let mut tar = Command::new("tar");
    tar.args(["--sort=name", "--owner=0", "--group=0", "--numeric-owner", "--mode=u+w,go-w", "--format=gnu"]);
    tar.arg(format!("--mtime=@{epoch}")).arg("-C").arg(place.target.join("archive")).arg("-cf").arg(&packed);
    run(tar.arg(&name))?;
    run(Command::new("gzip").arg("-9nf").arg(&packed))
}

/// Type by type, without a linker or a C library: what one C library has and the other has not shows here, in CI.
pub fn compiles() -> Result<()> {
    let mut cargo = cargo()?;
    if !has_target()? {
        let sysroot = output(Command::new("rustc").args(["--print", "sysroot"]))?;
        if !has_rust_src(Path::new(sysroot.trim())) {
            bail!("rust-src is missing: cargo xtask setup --ebpf");
        }
        cargo.env("RUSTC_BOOTSTRAP", "1").env("CARGO_UNSTABLE_BUILD_STD", "std,panic_unwind");
    }
    run(cargo.args(["check", "--quiet", "--locked", "--package", "vmaudit-user", "--target", TARGET]))?;
    say!("it compiles for {TARGET}");
    Ok(())
}

/// rustup has its standard library.
fn has_target() -> Result<bool> {
    let folder = output(Command::new("rustc").args(["--print", "target-libdir", "--target", TARGET]))?;
    Ok(Path::new(folder.trim()).is_dir())
}

/// Where it has not: the standard library is built from rust-src, with the C library of Debian's musl-tools.
/// Its compiler driver knows no position-independent static programs.
fn with_own_library(place: &Place) -> Result<Command> {
    let sentence =
        format!("without rustup's {TARGET} Debian's packages musl-tools and libunwind-16-dev are needed");
    if quiet_output(Command::new("musl-gcc").arg("--version")).is_none() || !Path::new(UNWINDER).is_file() {
        bail!(sentence);
    }
    let folder = place.target.join("unwinder");
    fs::create_dir_all(&folder)?;
    let (source, object): (PathBuf, PathBuf) = (folder.join("bridge.c"), folder.join("bridge.o"));
    fs::write(&source, BRIDGE)?;
    run(Command::new("musl-gcc").args(["-O2", "-fPIC", "-c", "-o"]).arg(&object).arg(&source))?;
    let library = folder.join("libunwind.a");
    fs::copy(UNWINDER, &library)?;
    run(Command::new("ar").arg("rD").arg(&library).arg(&object))?;
    let flags = format!(
        "-Ctarget-feature=+crt-static -Crelocation-model=static -Clinker=musl-gcc -Clink-self-contained=no -Lnative={}",
        folder.display()
    );
    let mut cargo = cargo_for(place, &flags)?;
    cargo.env("RUSTC_BOOTSTRAP", "1").env("CARGO_UNSTABLE_BUILD_STD", "std,panic_unwind");
    Ok(cargo)
}

/// It needs no library, knows a user, and says its version.
fn check(program: &Path, version: &str) -> Result<()> {
    let headers =
        output(Command::new("readelf").args(["--program-headers", "--dynamic", "--wide"]).arg(program))?;
    if headers.contains("INTERP") || headers.contains("(NEEDED)") {
        bail!("{} is not static:\n{headers}", program.display());
    }
    let said = output(Command::new(program).arg("--version"))?;
    if !is_version(&said, version) {
        bail!("it says {said:?}, not that it is {version}");
    }
    for (user, known) in [("root", true), ("no-such-user", false)] {
        let done = Command::new(program).args(["scan", "--user", user]).output()?;
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
        let value = |key: &str| {
            let line = binstall.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(" = "));
            let words = [
                ("{ version }", "1.2.3"),
                ("{ target-arch }", "x86_64"),
                ("{ bin }", "vmaudit"),
                ("{ binary-ext }", ""),
            ];
            let line = line.expect("a key").trim_matches('"').to_owned();
            words.iter().fold(line, |line, (name, value)| line.replace(name, value))
        };
        let (folder, packed) = names("1.2.3", "x86_64");
        assert_eq!(value("pkg-url"), format!("{{ repo }}/releases/download/v1.2.3/{packed}.gz"));
        assert_eq!(value("bin-dir"), format!("{folder}/vmaudit"));
        assert!(packed.contains(TARGET), "{packed}");
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
