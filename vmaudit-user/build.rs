//! Refuses to build when the committed eBPF object does not belong to the eBPF sources beside it. It does not build the
//! object: that needs more than stable Rust (`cargo xtask ebpf build`).

use std::env;
use std::fs;
use std::path::Path;

#[path = "bpf_digest.rs"]
mod bpf_digest;

fn main() {
    println!("cargo::rerun-if-env-changed=VMAUDIT_EBPF_UNCHECKED");
    for file in ["build.rs", "bpf_digest.rs", "bpf/vmaudit.bpf.o", "bpf/sources.sha256"] {
        println!("cargo::rerun-if-changed={file}");
    }
    // Packaged alone, there are no sources to compare with, and none to rebuild for.
    let workspace = Path::new("..");
    if workspace.join("vmaudit-ebpf/src").is_dir() {
        for source in bpf_digest::SOURCES {
            println!("cargo::rerun-if-changed=../{source}");
        }
        println!("cargo::rerun-if-changed=../Cargo.lock");
        if env::var_os("VMAUDIT_EBPF_UNCHECKED").is_none_or(|value| value != "1")
            && let Err(sentence) = check(workspace)
        {
            println!("cargo::error={sentence}");
        }
    }
}

fn check(workspace: &Path) -> Result<(), String> {
    if !Path::new("bpf/vmaudit.bpf.o").is_file() {
        return Err(
            "the eBPF object vmaudit-user/bpf/vmaudit.bpf.o is missing: run `cargo xtask ebpf build`"
                .to_owned(),
        );
    }
    let sources = bpf_digest::of_sources(workspace)
        .map_err(|error| format!("cannot read the eBPF sources: {error}"))?;
    let committed = fs::read_to_string("bpf/sources.sha256").unwrap_or_default();
    if committed.trim() != sources {
        return Err(
            "vmaudit-user/bpf/vmaudit.bpf.o was built from other eBPF sources than those beside it: run \
                    `cargo xtask ebpf build`"
                .to_owned(),
        );
    }
    Ok(())
}
