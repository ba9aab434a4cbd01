//! The kernels that `cargo xtask vm` boots, as data, and their cache. Adding one is one line.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use crate::apt::Apt;
use crate::arch::Arch;
use crate::command::{say, workspace};

/// A kernel of Debian's.
#[derive(Debug)]
pub struct Kernel {
    /// What it is called on the command line and in tables.
    pub id: &'static str,
    /// Suites it is looked for in; the newest matching package of all of them is taken.
    suites: &'static [&'static str],
    /// The package's name, an extended regular expression with ARCH for the architecture. Before 6.19 the image is in linux-image-*, from then on
    /// that package is empty and the image is in linux-binary-*.
    package: &'static str,
    /// Part of the small set that `cargo xtask vm` takes when no kernel is named.
    small: bool,
    /// The only architecture that has it.
    only: Option<Arch>,
}

const fn kernel(
    id: &'static str,
    suites: &'static [&'static str],
    package: &'static str,
    small: bool,
) -> Kernel {
    Kernel { id, suites, package, small, only: None }
}

const fn kernel_of_arm64(id: &'static str, suites: &'static [&'static str], package: &'static str) -> Kernel {
    Kernel { id, suites, package, small: false, only: Some(Arch::Arm) }
}

/// All of them, oldest first. Small set: before the mmap_lock tracepoints, both of their prototypes, and the newest.
pub const KERNELS: [Kernel; 15] = [
    kernel("5.10", &["bullseye", "bullseye-security"], r"^linux-image-5\.10\.0-[0-9]+-cloud-ARCH$", true),
    kernel("6.1", &["bookworm", "bookworm-security"], r"^linux-image-6\.1\.0-[0-9]+-cloud-ARCH$", true),
    kernel("6.12", &["trixie", "trixie-security"], r"^linux-image-6\.12\.[0-9]+\+deb13.*-cloud-ARCH$", false),
    // PREEMPT_RT: the locks of the address space and of the run queues sleep, and interrupts run in threads.
    kernel("6.1-rt", &["bookworm", "bookworm-security"], r"^linux-image-6\.1\.0-[0-9]+-rt-ARCH$", false),
    kernel("6.12-rt", &["trixie", "trixie-security"], r"^linux-image-6\.12\.[0-9]+\+deb13.*-rt-ARCH$", false),
    kernel("6.18-rt", &["trixie-backports"], r"^linux-image-6\.18\.[0-9]+.*-rt-ARCH$", false),
    kernel("7.2-rt", &["sid", "forky"], r"^linux-binary-7\.2\.[0-9]+.*-rt-ARCH$", false),
    // Pages of 16 KiB.
    kernel_of_arm64(
        "6.12-16k",
        &["trixie", "trixie-security"],
        r"^linux-image-6\.12\.[0-9]+\+deb13.*-arm64-16k$",
    ),
    kernel("6.16", &["trixie-backports"], r"^linux-image-6\.16\.[0-9]+.*-cloud-ARCH$", false),
    kernel("6.18", &["trixie-backports"], r"^linux-image-6\.18\.[0-9]+.*-cloud-ARCH$", true),
    kernel("6.19", &["trixie-backports"], r"^linux-binary-6\.19\.[0-9]+.*-cloud-ARCH$", false),
    kernel("7.0", &["trixie-backports"], r"^linux-binary-7\.0\.[0-9]+.*-cloud-ARCH$", false),
    kernel("7.1", &["trixie-backports"], r"^linux-binary-7\.1\.[0-9]+.*-cloud-ARCH$", false),
    kernel("7.2", &["sid", "forky"], r"^linux-binary-7\.2\.[0-9]+.*-cloud-ARCH$", true),
    kernel("7.3", &["experimental"], r"^linux-binary-7\.3[0-9.]*.*-cloud-ARCH$", false),
];

/// The kernels asked for: by name, all that this architecture has, or the small set.
pub fn select(names: &[String], all: bool, arch: Arch) -> Result<Vec<&'static Kernel>> {
    if let Some(unknown) = names.iter().find(|name| KERNELS.iter().all(|kernel| kernel.id != *name)) {
        let known: Vec<&str> = KERNELS.iter().map(|kernel| kernel.id).collect();
        bail!("no kernel is called {unknown}; there are {}", known.join(" "));
    }
    let has = |kernel: &&Kernel| kernel.only.is_none_or(|only| only == arch);
    if let Some(not) =
        KERNELS.iter().find(|kernel| !has(kernel) && names.iter().any(|name| name == kernel.id))
    {
        bail!("{} has no kernel {}", arch.debian(), not.id);
    }
    let wanted = |kernel: &&Kernel| match names {
        [] => all || kernel.small,
        names => all || names.iter().any(|name| name == kernel.id),
    };
    Ok(KERNELS.iter().filter(has).filter(wanted).collect())
}

/// The ids, for a help text.
pub fn listed() -> String {
    let all: Vec<&str> = KERNELS.iter().map(|kernel| kernel.id).collect();
    let small: Vec<&str> = KERNELS.iter().filter(|kernel| kernel.small).map(|kernel| kernel.id).collect();
    format!("Kernels: {}. Small set: {}.", all.join(" "), small.join(" "))
}

/// Where kernels and logs are kept: outside of what git sees.
pub fn cache() -> Result<PathBuf> {
    Ok(match env::var_os("VMAUDIT_VM_CACHE") {
        Some(folder) => env::current_dir()?.join(folder),
        None => workspace()?.join(".vm"),
    })
}

impl Kernel {
    fn folder(&self, arch: Arch) -> Result<PathBuf> {
        let kernels = cache()?.join("kernels");
        Ok(match arch {
            Arch::X86 => kernels.join(self.id),
            Arch::Arm => kernels.join(arch.debian()).join(self.id),
        })
    }

    /// Its image in the cache.
    pub fn image(&self, arch: Arch) -> Result<PathBuf> {
        let image = self.folder(arch)?.join("vmlinuz");
        if !image.is_file() {
            let option = if arch == Arch::X86 { "" } else { " --arch arm64" };
            bail!("kernel {} is not in the cache: run `cargo xtask vm fetch {}{option}`", self.id, self.id);
        }
        Ok(image)
    }

    /// Name and version of the package its image came from.
    pub fn package(&self, arch: Arch) -> Result<String> {
        let file = self.folder(arch)?.join("PACKAGE");
        Ok(fs::read_to_string(&file)
            .with_context(|| format!("cannot read {}", file.display()))?
            .trim()
            .to_owned())
    }
}

/// Where a busybox comes from that this machine cannot have of its own.
const BUSYBOX: (&str, &str) = ("bookworm", "busybox-static");

/// The guests' busybox in the cache, where it is not this machine's own.
pub fn foreign_busybox(arch: Arch) -> Result<Option<PathBuf>> {
    if arch == Arch::X86 {
        return Ok(None);
    }
    Ok(Some(cache()?.join(format!("busybox-{}", arch.debian()))))
}

/// Brings the newest packages of `kernels` into the cache.
pub fn fetch(kernels: &[&Kernel], arch: Arch) -> Result<()> {
    let cache = cache()?;
    let mut suites: Vec<&str> = kernels.iter().flat_map(|kernel| kernel.suites).copied().collect();
    let busybox = foreign_busybox(arch)?;
    if busybox.as_ref().is_some_and(|busybox| !busybox.is_file()) {
        suites.push(BUSYBOX.0);
    }
    suites.sort_unstable();
    suites.dedup();
    say!("reading the package lists of {}", suites.join(" "));
    let state = if arch == Arch::X86 { "apt" } else { "apt-arm64" };
    let apt = Apt::update(&cache.join(state), &suites, arch.debian())?;
    if let Some(busybox) = busybox.filter(|busybox| !busybox.is_file()) {
        let package = apt.newest(&format!("^{}$", BUSYBOX.1))?;
        let package = package.with_context(|| format!("{} has no {} any more", BUSYBOX.0, BUSYBOX.1))?;
        say!("fetching {} {} for {}", package.name, package.version, arch.debian());
        let unpacked = cache.join("unpacked");
        drop(fs::remove_dir_all(&unpacked));
        apt.unpack(&package, &unpacked)?;
        let program = ["bin/busybox", "usr/bin/busybox"].map(|path| unpacked.join(path));
        let program = program.iter().find(|path| path.is_file()).context("the package has no busybox")?;
        fs::copy(program, &busybox)?;
        fs::remove_dir_all(&unpacked)?;
    }
    let mut gone = Vec::new();
    for kernel in kernels {
        let wanted = kernel.package.replace("ARCH", arch.debian());
        let Some(package) = apt.newest(&wanted)? else {
            say!("{}: {} has no package {wanted} any more", kernel.id, kernel.suites.join(" "));
            gone.push(kernel.id);
            continue;
        };
        let described = format!("{} {}", package.name, package.version);
        if kernel.image(arch).is_ok() && kernel.package(arch).is_ok_and(|have| have == described) {
            say!("{}: {described} is there", kernel.id);
            continue;
        }
        say!("{}: fetching {described}", kernel.id);
        let unpacked = cache.join("unpacked");
        drop(fs::remove_dir_all(&unpacked)); // of an attempt that was broken off
        apt.unpack(&package, &unpacked)?;
        let folder = kernel.folder(arch)?;
        fs::create_dir_all(&folder)?;
        fs::copy(find_image(&unpacked)?, folder.join("vmlinuz"))?;
        fs::write(folder.join("PACKAGE"), format!("{described}\n"))?;
        fs::remove_dir_all(&unpacked)?;
    }
    if !gone.is_empty() {
        bail!("Debian does not have these kernels any more: {}", gone.join(" "));
    }
    Ok(())
}

/// The one image of an unpacked package: boot/vmlinuz-VERSION or usr/lib/modules/VERSION/vmlinuz.
fn find_image(unpacked: &Path) -> Result<PathBuf> {
    let mut images = Vec::new();
    for folder in ["boot", "usr/lib/modules", "lib/modules"] {
        let Ok(entries) = fs::read_dir(unpacked.join(folder)) else { continue };
        for entry in entries {
            let entry = entry?;
            if entry.file_name().to_string_lossy().starts_with("vmlinuz") {
                images.push(entry.path());
            }
            let inside = entry.path().join("vmlinuz");
            if inside.is_file() {
                images.push(inside);
            }
        }
    }
    match images.as_slice() {
        [image] => Ok(image.clone()),
        _ => bail!("expected one kernel image in the package, found {}", images.len()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(kernels: &[&Kernel]) -> Vec<&'static str> {
        kernels.iter().map(|kernel| kernel.id).collect()
    }

    #[test]
    fn kernels_are_chosen_by_name_or_as_a_set() -> Result<()> {
        assert_eq!(ids(&select(&["6.1".to_owned()], false, Arch::X86)?), ["6.1"]);
        assert_eq!(select(&[], true, Arch::Arm)?.len(), KERNELS.len());
        assert!(select(&[], true, Arch::X86)?.len() < KERNELS.len());
        assert!(select(&["6.12-16k".to_owned()], false, Arch::X86).is_err());
        let small = select(&[], false, Arch::X86)?;
        assert!(!small.is_empty() && small.len() < KERNELS.len());
        let error = select(&["6.1".to_owned(), "4.4".to_owned()], false, Arch::X86).map(|found| ids(&found));
        assert!(
            error.is_err_and(|error| error
                .to_string()
                .starts_with("no kernel is called 4.4; there are 5.10 "))
        );
        Ok(())
    }
}
