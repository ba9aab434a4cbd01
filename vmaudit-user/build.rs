//! Refuses to build when the committed eBPF object was changed, or does not belong to the eBPF sources beside it. It does
//! not build the object: that needs more than stable Rust (`cargo xtask ebpf build`).

use std::env;
use std::path::Path;

#[path = "bpf_digest.rs"]
mod bpf_digest;

fn main() {
    println!("cargo::rerun-if-env-changed=VMAUDIT_EBPF_UNCHECKED");
    for file in ["build.rs", "bpf_digest.rs", "bpf/vmaudit.bpf.o", "bpf/object.sha256", "bpf/sources.sha256"]
    {
        println!("cargo::rerun-if-changed={file}");
    }
    let workspace = Path::new("..");
    let checked = if workspace.join("vmaudit-ebpf/src").is_dir() {
        for source in bpf_digest::SOURCES {
            println!("cargo::rerun-if-changed=../{source}");
        }
        println!("cargo::rerun-if-changed=../Cargo.lock");
        // While the object itself is being built, it belongs to other sources.
        match env::var_os("VMAUDIT_EBPF_UNCHECKED").is_some_and(|value| value == "1") {
            true => Ok(()),
            false => bpf_digest::check(workspace),
        }
    } else {
        // Packaged alone, there are no sources to compare with.
        bpf_digest::check_object(Path::new("bpf/vmaudit.bpf.o"), Path::new("bpf/object.sha256"))
    };
    if let Err(sentence) = checked {
        println!("cargo::error={sentence}");
    }
}
