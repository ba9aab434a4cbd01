//! The digests that tie the committed eBPF object to itself and to its sources. Included by this crate's build script
//! (which refuses an object that was changed, or that belongs to other sources) and by xtask (which writes the digests
//! beside the object): one function, so that the two cannot disagree.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

/// The object, relative to the workspace.
pub const OBJECT: &str = "vmaudit-user/bpf/vmaudit.bpf.o";
/// Its own digest, relative to the workspace.
pub const OBJECT_DIGEST: &str = "vmaudit-user/bpf/object.sha256";
/// The digest of its sources, relative to the workspace.
pub const SOURCES_DIGEST: &str = "vmaudit-user/bpf/sources.sha256";

/// Everything the object is made of, relative to the workspace.
pub const SOURCES: [&str; 4] =
    ["vmaudit-ebpf/Cargo.toml", "vmaudit-ebpf/src", "vmaudit-common/Cargo.toml", "vmaudit-common/src"];

/// Packages whose code ends up in the object; their pinned versions are part of the digest.
const LINKED_IN: [&str; 4] = ["aya-ebpf", "aya-log-common", "aya-log-ebpf", "bytemuck"];

/// That the object in the tree is the one that was committed, and made of the sources beside it; else one sentence.
pub fn check(workspace: &Path) -> Result<(), String> {
    if !workspace.join(OBJECT).is_file() {
        return Err(format!("the eBPF object {OBJECT} is missing: run `cargo xtask ebpf build`"));
    }
    let sources = of_sources(workspace).map_err(|error| format!("cannot read the eBPF sources: {error}"))?;
    // First, because whoever changes the sources has not changed the object yet.
    if written(&workspace.join(SOURCES_DIGEST)) != sources {
        return Err(format!(
            "{OBJECT} was built from other eBPF sources than those beside it: run `cargo xtask ebpf build`"
        ));
    }
    check_object(&workspace.join(OBJECT), &workspace.join(OBJECT_DIGEST))
}

/// That the object is the one whose digest was committed with it; else one sentence.
pub fn check_object(object: &Path, digest: &Path) -> Result<(), String> {
    let content = read(object).map_err(|error| format!("cannot read the eBPF object: {error}"))?;
    if written(digest) != of_object(&content) {
        return Err(format!(
            "{OBJECT} is not what was built from its sources: its SHA-256 is not the one in {OBJECT_DIGEST}. Take both \
             from a commit that you trust, or run `cargo xtask ebpf build`"
        ));
    }
    Ok(())
}

fn written(digest: &Path) -> String {
    fs::read_to_string(digest).unwrap_or_default().trim().to_owned()
}

/// SHA-256 of the object, in hexadecimal.
pub fn of_object(object: &[u8]) -> String {
    hexadecimal(Sha256::digest(object).as_slice())
}

fn hexadecimal(digest: &[u8]) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// SHA-256, in hexadecimal, over the sorted relative paths and contents of [`SOURCES`] and the versions of the packages
/// linked in.
pub fn of_sources(workspace: &Path) -> io::Result<String> {
    let mut files = Vec::new();
    for source in SOURCES {
        collect(&workspace.join(source), &mut files)?;
    }
    files.sort();
    let mut hash = Sha256::new();
    for file in &files {
        let relative = file.strip_prefix(workspace).unwrap_or(file);
        let content = read(file)?;
        // Lengths keep two different trees from giving the same stream of bytes.
        hash.update(format!("{}\0{}\0", relative.display(), content.len()));
        hash.update(content);
    }
    let lock = read(&workspace.join("Cargo.lock"))?;
    for pin in pins(&String::from_utf8_lossy(&lock)) {
        hash.update(format!("{pin}\0"));
    }
    Ok(hexadecimal(hash.finalize().as_slice()))
}

/// `name version` of each package of [`LINKED_IN`], in the order of Cargo.lock, which cargo keeps sorted.
fn pins(lock: &str) -> Vec<String> {
    let value = |line: &str, key: &str| Some(line.strip_prefix(key)?.trim().trim_matches('"').to_owned());
    let mut found = Vec::new();
    let mut lines = lock.lines();
    while let Some(line) = lines.next() {
        let Some(name) = value(line, "name = ") else { continue };
        if !LINKED_IN.iter().any(|prefix| name.starts_with(prefix)) {
            continue;
        }
        if let Some(version) = lines.next().and_then(|next| value(next, "version = ")) {
            found.push(format!("{name} {version}"));
        }
    }
    found
}

fn collect(path: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    if !path.is_dir() {
        files.push(path.to_owned());
        return Ok(());
    }
    for entry in fs::read_dir(path).map_err(|error| named(path, error))? {
        collect(&entry?.path(), files)?;
    }
    Ok(())
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    fs::read(path).map_err(|error| named(path, error))
}

fn named(path: &Path, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}
