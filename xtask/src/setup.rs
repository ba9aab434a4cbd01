//! What building the eBPF object and booting test kernels need, on a bare Debian machine. Looks first, so that it is
//! quick when nothing is missing.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

use crate::apt::Apt;
use crate::command::{TempDir, as_root, find, is_root, quiet_output, run, say};
use crate::ebpf::{self, BPF_LINKER, LLVM, RUSTC};

/// The pinned toolchain of `cargo xtask ebpf`.
pub fn ebpf() -> Result<()> {
    let through_rustup = !ebpf::is_default_rustc();
    if through_rustup && !ebpf::rustup_has_rustc() {
        say!("installing rustc {RUSTC}");
        run(Command::new("rustup").args(["toolchain", "install", RUSTC, "--profile", "minimal"]))
            .with_context(|| {
                format!("rustc {RUSTC}, which makes the committed eBPF object, cannot be installed")
            })?;
    }
    let sysroot = ebpf::sysroot(through_rustup).context("rustc does not say where its libraries are")?;
    if !ebpf::has_rust_src(&sysroot) {
        rust_src(&sysroot)?;
    }
    if ebpf::linker().is_none() || ebpf::objcopy().is_none() {
        packages(&[&format!("llvm-{LLVM}-dev"), "zlib1g-dev", "libzstd-dev", "libxml2-dev", "g++"])?;
        if ebpf::objcopy().is_none() {
            bail!("llvm-objcopy of LLVM {LLVM} is still missing after installing llvm-{LLVM}-dev");
        }
    }
    if ebpf::linker().is_none() {
        say!("building bpf-linker {BPF_LINKER} (about a minute)");
        run(ebpf::rust_command("cargo", through_rustup)
            .env("LLVM_PREFIX", format!("/usr/lib/llvm-{LLVM}"))
            .args(["install", "--quiet", "--locked", "--force", "bpf-linker", "--version"])
            .args([
                &format!("={BPF_LINKER}"),
                "--no-default-features",
                "--features",
                &format!("llvm-{LLVM}"),
            ]))?;
        if ebpf::linker().is_none() {
            bail!("bpf-linker {BPF_LINKER} was built but is not the first one on PATH");
        }
    }
    say!("the eBPF toolchain is complete: rustc {RUSTC}, rust-src, bpf-linker {BPF_LINKER}, LLVM {LLVM}");
    Ok(())
}

/// What `cargo xtask vm` needs.
pub fn vm() -> Result<()> {
    if find("qemu-system-x86_64").is_none() || find("busybox").is_none() {
        packages(&["qemu-system-x86", "busybox-static"])?;
    }
    say!("QEMU is there; kernels come with `cargo xtask vm fetch`");
    Ok(())
}

/// What `cargo xtask vm --arch arm64` and `cargo xtask package build --arch arm64` need.
pub fn arm64() -> Result<()> {
    packages(&["qemu-system-arm", "qemu-user", "gcc-aarch64-linux-gnu", "libc6-dev-arm64-cross"])?;
    let sysroot = ebpf::sysroot(false).context("rustc does not say where its libraries are")?;
    if !ebpf::has_rust_src(&sysroot) {
        rust_src(&sysroot)?;
    }
    say!(
        "QEMU, rust-src and the C compiler for arm64 are there; kernels come with `cargo xtask vm fetch --arch arm64`"
    );
    Ok(())
}

/// What `cargo xtask package` needs, and its `check`, `boot` and `image`.
pub fn for_packages() -> Result<()> {
    let sysroot = ebpf::sysroot(false).context("rustc does not say where its libraries are")?;
    if !ebpf::has_rust_src(&sysroot) {
        rust_src(&sysroot)?;
    }
    packages(&[
        "musl-tools",
        "libunwind-16-dev",
        "dpkg-dev",
        "lintian",
        "rpm",
        "mmdebstrap",
        "cpio",
        "qemu-system-x86",
        "docker.io",
    ])
}

/// Installs Debian packages unless all are there.
fn packages(names: &[&str]) -> Result<()> {
    let missing: Vec<&str> = names.iter().copied().filter(|name| !is_installed(name)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    if find("apt-get").is_none() {
        bail!("apt-get is missing; install what these Debian packages hold by hand: {}", missing.join(" "));
    }
    if !is_root() && find("sudo").is_none() {
        bail!("neither root nor sudo; as root, run: apt-get install {}", missing.join(" "));
    }
    say!("installing {}", missing.join(" "));
    let known = |name: &&str| quiet_output(Command::new("apt-cache").args(["show", name])).is_some();
    if !missing.iter().all(known) {
        run(as_root("apt-get").args(["-qq", "update"]))?;
    }
    let mut install = as_root("env"); // sudo may drop the variable
    install.args(["DEBIAN_FRONTEND=noninteractive", "apt-get", "-qq", "install", "--no-install-recommends"]);
    run(install.args(&missing).stdin(Stdio::null()).stdout(Stdio::null()))
}

fn is_installed(package: &str) -> bool {
    quiet_output(Command::new("dpkg-query").args(["-W", "-f", "${Status}", package]))
        .is_some_and(|status| status.trim() == "install ok installed")
}

/// The sources of `core`: from rustup, or, where rustup can fetch nothing, from Debian, which has them as a plain archive.
fn rust_src(sysroot: &Path) -> Result<()> {
    say!("installing rust-src {RUSTC}");
    let toolchain = sysroot.file_name().context("the sysroot has no name")?;
    let by_rustup = Command::new("rustup")
        .args(["component", "add", "rust-src", "--toolchain"])
        .arg(toolchain)
        .stderr(Stdio::null())
        .status();
    if by_rustup.is_ok_and(|status| status.success()) && ebpf::has_rust_src(sysroot) {
        return Ok(());
    }
    say!("rustup cannot; taking Debian's package");
    let folder = TempDir::new("rust-src")?;
    let apt = Apt::update(&folder.path().join("apt"), &["trixie-backports"], "amd64")?;
    let wanted = apt
        .versions("rust-src")?
        .into_iter()
        .find(|package| package.version.starts_with(&format!("{RUSTC}+")))
        .with_context(|| format!("neither rustup nor Debian has rust-src {RUSTC}"))?;
    let unpacked = folder.path().join("files");
    apt.unpack(&wanted, &unpacked)?;
    let library = unpacked.join(format!("usr/src/rustc-{RUSTC}/library"));
    let into = sysroot.join("lib/rustlib/src/rust");
    fs::create_dir_all(&into).with_context(|| format!("cannot write to {}", into.display()))?;
    copy_tree(&library, &into.join("library"))?;
    if !ebpf::has_rust_src(sysroot) {
        bail!("{} {} does not hold the sources of core", wanted.name, wanted.version);
    }
    Ok(())
}

fn copy_tree(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from).with_context(|| format!("cannot read {}", from.display()))? {
        let entry = entry?;
        let (kind, target) = (entry.file_type()?, to.join(entry.file_name()));
        if kind.is_dir() {
            copy_tree(&entry.path(), &target)?;
        } else if kind.is_symlink() {
            symlink(fs::read_link(entry.path())?, &target)?;
        } else {
            fs::copy(entry.path(), &target)?;
        }
    }
    Ok(())
}
