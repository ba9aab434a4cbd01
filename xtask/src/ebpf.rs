//! The eBPF object: made from `vmaudit-ebpf`, kept in the tree, the same bytes wherever it is built.
//!
//! What decides the bytes: the sources, Cargo.lock, `[profile.bpf]`, the flags below, and the toolchain, which is
//! therefore pinned. What must not: folders, so they are mapped to names of our own and DWARF (the only other place
//! that could hold one) is stripped; `.BTF` and `.BTF.ext` stay.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, anyhow, bail};

use crate::bpf_digest::{self, OBJECT, OBJECT_DIGEST, SOURCES_DIGEST};
use crate::command::{TempDir, cargo_home, find, quiet_output, run, say, workspace};

/// The compiler that makes the committed object.
pub const RUSTC: &str = "1.95.0";
/// The linker that makes the committed object.
pub const BPF_LINKER: &str = "0.13.0";
/// LLVM's major version; the linker reads rustc's bitcode, so it is the one of [`RUSTC`].
pub const LLVM: &str = "22";

/// Builds the object and writes it, its digest and that of its sources into the tree.
pub fn build(arch: &str) -> Result<()> {
    let workspace = workspace()?;
    let object = compile(arch, &workspace.join("target/bpf"))?;
    let digest = bpf_digest::of_sources(&workspace)?;
    let path = workspace.join(OBJECT);
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::write(&path, &object).with_context(|| format!("cannot write {}", path.display()))?;
    fs::write(workspace.join(OBJECT_DIGEST), format!("{}\n", bpf_digest::of_object(&object)))?;
    fs::write(workspace.join(SOURCES_DIGEST), format!("{digest}\n"))?;
    say!("{OBJECT}: {} bytes", object.len());
    Ok(())
}

/// Builds the object from nothing and compares it with the one in the tree.
pub fn check(arch: &str) -> Result<()> {
    let workspace = workspace()?;
    let Ok(committed) = fs::read(workspace.join(OBJECT)) else {
        bail!("{OBJECT} is missing: run `cargo xtask ebpf build` and commit the result");
    };
    // First, because it takes no time.
    bpf_digest::check(&workspace).map_err(|sentence| anyhow!(sentence))?;
    let folder = TempDir::new("bpf-check")?;
    let fresh = compile(arch, folder.path())?;
    if fresh != committed {
        bail!(
            "{OBJECT} ({} bytes) is not what its sources give ({} bytes{}): run `cargo xtask ebpf build` and commit \
             the result",
            committed.len(),
            fresh.len(),
            first_difference(&committed, &fresh)
        );
    }
    say!("{OBJECT} is what its sources give ({} bytes)", fresh.len());
    Ok(())
}

/// Lints the eBPF crate as strictly as the others; clippy needs neither the linker nor objcopy.
pub fn lint(arch: &str) -> Result<()> {
    let workspace = workspace()?;
    let through_rustup = !is_default_rustc();
    if !sysroot(through_rustup).as_deref().is_some_and(has_rust_src) {
        bail!("rust-src {RUSTC} is missing: `cargo xtask setup --ebpf` installs it");
    }
    let mut clippy = for_bpf(rust_command("cargo", through_rustup), "clippy", &[architecture(arch)]);
    run(clippy
        .current_dir(&workspace)
        .arg("--target-dir")
        .arg(workspace.join("target/bpf-lint"))
        .args(["--", "--deny", "warnings"]))
}

fn architecture(arch: &str) -> String {
    format!("--cfg=bpf_target_arch=\"{arch}\"")
}

/// A cargo command that compiles the eBPF crate, with these flags for the compiler and none of the caller's.
fn for_bpf(mut cargo: Command, task: &str, flags: &[String]) -> Command {
    for (name, _) in env::vars_os() {
        // The caller's wishes for other builds: profiles, flags, wrappers.
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_PROFILE_")
            || text.starts_with("CARGO_BUILD_")
            || text.ends_with("RUSTFLAGS")
        {
            cargo.env_remove(name);
        }
    }
    cargo
        .args([task, "--locked", "--profile", "bpf", "--package", "vmaudit-ebpf"])
        .args(["--target", "bpfel-unknown-none", "-Zbuild-std=core"])
        .env("RUSTC_BOOTSTRAP", "1") // build-std and the bpf target need it on a stable compiler
        .env("VMAUDIT_EBPF_UNCHECKED", "1")
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"));
    cargo
}

fn first_difference(one: &[u8], other: &[u8]) -> String {
    one.iter()
        .zip(other)
        .position(|(a, b)| a != b)
        .map(|at| format!(", first difference at byte {at}"))
        .unwrap_or_default()
}

fn compile(arch: &str, target_dir: &Path) -> Result<Vec<u8>> {
    let workspace = workspace()?;
    let toolchain = Toolchain::find()?;
    let mut flags = vec![
        architecture(arch),
        "-Ctarget-cpu=v3".to_owned(), // 32-bit arithmetic, and the atomics that give back the old value
        "-Cdebuginfo=2".to_owned(),
        "-Clink-arg=--btf".to_owned(),
        format!("-Clinker={}", toolchain.linker.display()),
    ];
    // So that the folders of the crates exist and can be named below.
    run(toolchain.command("cargo").current_dir(&workspace).args(["fetch", "--quiet", "--locked"]))?;
    for (folder, name) in mapped_folders(&workspace, &toolchain.sysroot, target_dir)? {
        flags.push(format!("--remap-path-prefix={}={name}", folder.display()));
    }
    let mut cargo = for_bpf(toolchain.command("cargo"), "build", &flags);
    run(cargo.current_dir(&workspace).arg("--target-dir").arg(target_dir))?;
    let linked = target_dir.join("bpfel-unknown-none/bpf/vmaudit-ebpf");
    let stripped = target_dir.join("vmaudit.bpf.o");
    run(Command::new(&toolchain.objcopy).arg("--strip-debug").arg(&linked).arg(&stripped))?;
    fs::read(&stripped).with_context(|| format!("cannot read {}", stripped.display()))
}

/// Folders that differ between machines, and what the object calls them instead. The last match counts, so wide ones
/// come first.
fn mapped_folders(
    workspace: &Path,
    sysroot: &Path,
    target_dir: &Path,
) -> Result<Vec<(PathBuf, &'static str)>> {
    let cargo_home = cargo_home().context("neither CARGO_HOME nor HOME is set")?;
    let mut folders = vec![(cargo_home.clone(), "/cargo")];
    // One per registry, with a hash in its name; a mirror has another one than the registry itself.
    for registry in
        fs::read_dir(cargo_home.join("registry/src")).context("cargo keeps no sources of crates")?
    {
        folders.push((registry?.path(), "/crates"));
    }
    folders.push((sysroot.to_owned(), "/rust"));
    folders.push((workspace.to_owned(), "/vmaudit"));
    folders.push((target_dir.to_owned(), "/target"));
    Ok(folders)
}

/// The pinned programs, found on this machine.
#[derive(Debug)]
struct Toolchain {
    /// The compiler is not the caller's default one, but one that rustup keeps beside it.
    through_rustup: bool,
    sysroot: PathBuf,
    linker: PathBuf,
    objcopy: PathBuf,
}

impl Toolchain {
    /// Finds all parts, or says in one sentence which are missing.
    fn find() -> Result<Self> {
        let mut missing = Vec::new();
        let through_rustup = !is_default_rustc();
        if through_rustup && !rustup_has_rustc() {
            missing.push(format!("rustc {RUSTC}"));
        }
        let sysroot = sysroot(through_rustup);
        if !sysroot.as_deref().is_some_and(has_rust_src) {
            missing.push(format!("rust-src {RUSTC}"));
        }
        let linker = linker();
        if linker.is_none() {
            missing.push(format!("bpf-linker {BPF_LINKER} built with LLVM {LLVM}"));
        }
        let objcopy = objcopy();
        if objcopy.is_none() {
            missing.push(format!("llvm-objcopy of LLVM {LLVM}"));
        }
        match (sysroot, linker, objcopy) {
            (Some(sysroot), Some(linker), Some(objcopy)) if missing.is_empty() => {
                Ok(Self { through_rustup, sysroot, linker, objcopy })
            }
            _ => bail!(
                "the pinned eBPF toolchain is not complete here, missing: {}; `cargo xtask setup --ebpf` installs it",
                missing.join(", ")
            ),
        }
    }

    fn command(&self, program: &str) -> Command {
        rust_command(program, self.through_rustup)
    }
}

/// `program` of the pinned Rust, through rustup when the default one is another version.
pub fn rust_command(program: &str, through_rustup: bool) -> Command {
    if through_rustup {
        let mut rustup = Command::new("rustup");
        rustup.args(["run", RUSTC, program]);
        return rustup;
    }
    Command::new(program)
}

/// Whether the caller's compiler is the pinned one.
pub fn is_default_rustc() -> bool {
    quiet_output(Command::new("rustc").arg("-V")).is_some_and(|text| is_version(&text, RUSTC))
}

/// Whether rustup keeps the pinned compiler beside the default one.
pub fn rustup_has_rustc() -> bool {
    quiet_output(rust_command("rustc", true).arg("-V")).is_some_and(|text| is_version(&text, RUSTC))
}

/// Where the pinned compiler keeps its libraries.
pub fn sysroot(through_rustup: bool) -> Option<PathBuf> {
    let text = quiet_output(rust_command("rustc", through_rustup).args(["--print", "sysroot"]))?;
    Some(PathBuf::from(text.trim()))
}

/// Whether the sources of `core` are there.
pub fn has_rust_src(sysroot: &Path) -> bool {
    sysroot.join("lib/rustlib/src/rust/library/core/src/lib.rs").is_file()
}

/// The pinned linker; one of another version, or for another LLVM, gives other bytes.
pub fn linker() -> Option<PathBuf> {
    let linker = find("bpf-linker")?;
    let version = quiet_output(Command::new(&linker).arg("--version"))?;
    let libraries = quiet_output(Command::new("ldd").arg(&linker)).unwrap_or_default();
    // Linked statically, it does not say its LLVM: then the comparison of the bytes decides.
    let other_llvm = libraries.contains("libLLVM") && !libraries.contains(&format!("libLLVM.so.{LLVM}"));
    (is_version(&version, BPF_LINKER) && !other_llvm).then_some(linker)
}

/// llvm-objcopy of the pinned LLVM.
pub fn objcopy() -> Option<PathBuf> {
    let candidates = [
        find(&format!("llvm-objcopy-{LLVM}")),
        Some(PathBuf::from(format!("/usr/lib/llvm-{LLVM}/bin/llvm-objcopy"))),
        find("llvm-objcopy"),
    ];
    candidates.into_iter().flatten().find(|file| {
        quiet_output(Command::new(file).arg("--version"))
            .is_some_and(|text| text.contains(&format!("version {LLVM}.")))
    })
}

/// `NAME VERSION ...`, as rustc and bpf-linker print it.
fn is_version(text: &str, version: &str) -> bool {
    text.split_whitespace().nth(1) == Some(version)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_compared_as_a_whole_word() {
        assert!(is_version("rustc 1.95.0 (59807616e 2026-04-14)", "1.95.0"));
        assert!(!is_version("rustc 1.95.0-nightly (59807616e 2026-04-14)", "1.95.0"));
        assert!(!is_version("bpf-linker 0.13.01", "0.13.0"));
    }

    /// What builds, builds only with the very bytes that were built from the sources.
    #[test]
    fn one_flipped_byte_of_the_object_is_refused() -> Result<()> {
        let folder = TempDir::new("object-test")?;
        let put = |path: &str, content: &[u8]| -> Result<()> {
            let file = folder.path().join(path);
            fs::create_dir_all(file.parent().context("no parent")?)?;
            Ok(fs::write(file, content)?)
        };
        for source in bpf_digest::SOURCES {
            put(source, b"a source")?;
        }
        put("Cargo.lock", b"")?;
        let refused = || bpf_digest::check(folder.path()).err().unwrap_or_default();
        assert!(refused().contains("is missing"), "{}", refused());
        let mut object = fs::read(workspace()?.join(OBJECT))?;
        put(OBJECT, &object)?;
        put(OBJECT_DIGEST, format!("{}\n", bpf_digest::of_object(&object)).as_bytes())?;
        assert!(refused().contains("other eBPF sources"), "{}", refused());
        put(SOURCES_DIGEST, bpf_digest::of_sources(folder.path())?.as_bytes())?;
        assert_eq!(refused(), "");
        let middle = object.len() / 2;
        object[middle] ^= 1;
        put(OBJECT, &object)?;
        assert!(refused().contains("is not what was built from its sources"), "{}", refused());
        fs::remove_file(folder.path().join(OBJECT_DIGEST))?;
        object[middle] ^= 1;
        put(OBJECT, &object)?;
        assert!(
            refused().contains("is not what was built"),
            "without a digest nothing is proven: {}",
            refused()
        );
        Ok(())
    }

    #[test]
    fn the_object_in_the_tree_is_the_committed_one() -> Result<()> {
        bpf_digest::check(&workspace()?).map_err(|sentence| anyhow!(sentence))
    }

    #[test]
    fn the_digest_changes_with_each_thing_the_object_is_made_of() -> Result<()> {
        let folder = TempDir::new("digest-test")?;
        let put = |path: &str, text: &str| -> Result<()> {
            let file = folder.path().join(path);
            fs::create_dir_all(file.parent().context("no parent")?)?;
            Ok(fs::write(file, text)?)
        };
        let lock = |version| format!("[[package]]\nname = \"aya-ebpf\"\nversion = \"{version}\"\n");
        put("vmaudit-ebpf/Cargo.toml", "")?;
        put("vmaudit-ebpf/src/main.rs", "a")?;
        put("vmaudit-common/Cargo.toml", "")?;
        put("vmaudit-common/src/lib.rs", "b")?;
        put("Cargo.lock", &lock("0.2.1"))?;
        let mut seen = vec![bpf_digest::of_sources(folder.path())?];
        for (path, text) in [
            ("vmaudit-ebpf/src/main.rs", "b"),
            ("vmaudit-common/src/deep/file.rs", "c"),
            ("vmaudit-ebpf/Cargo.toml", "[package]"),
            ("Cargo.lock", &lock("0.2.2")),
        ] {
            put(path, text)?;
            let now = bpf_digest::of_sources(folder.path())?;
            assert!(!seen.contains(&now), "{path} does not count");
            seen.push(now);
        }
        put("README.md", "not a source")?;
        assert_eq!(seen.last(), Some(&bpf_digest::of_sources(folder.path())?));
        Ok(())
    }
}
