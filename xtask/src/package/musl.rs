//! The C library and the unwinder of the static program, where rustup has no musl target: those of Debian's packages.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use super::Place;
use crate::apt::Apt;
use crate::command::{find, run, say};

/// Debian's release whose packages are taken for another processor than this machine's.
const SUITE: &str = "bookworm";
/// What they are in, whose it is, and what it is distributed under.
const PACKAGES: [(&str, &str, &str); 2] = [
    ("musl-dev", "the C library musl", "usr/share/doc/musl-dev/copyright"),
    ("libunwind-16-dev", "LLVM's libunwind", "usr/share/doc/libunwind-16-dev/copyright"),
];
const UNWINDER: &str = "usr/lib/llvm-16/lib/libunwind.a";
/// Debian's unwinder was built against glibc's checking variants of functions, which musl lacks; and musl before 1.2.4 has no
/// statx().
const BRIDGE: &str = "#include <stdarg.h>\n#include <stdio.h>\n#include <sys/syscall.h>\n#include <unistd.h>\n\
    __attribute__((weak)) int statx(int folder, const char *path, int flags, unsigned mask, void *into) {\n\
    return syscall(SYS_statx, folder, path, flags, mask, into); }\n\
    int __fprintf_chk(FILE *f, int flag, const char *format, ...) {\n\
    va_list all; va_start(all, format); int n = vfprintf(f, format, all); va_end(all); (void)flag; return n; }\n";

/// Where they are, and what links with them.
pub(super) struct Musl {
    /// Below it the packages have their files.
    root: PathBuf,
    /// The compiler driver.
    driver: String,
    /// What it has to be told.
    option: Option<String>,
}

impl Musl {
    /// This machine's, or those for another processor, which are fetched and not installed.
    pub(super) fn find(place: &Place) -> Result<Self> {
        let musl = match place.arch.is_native() {
            true => Self { root: "/".into(), driver: "musl-gcc".to_owned(), option: None },
            false => Self::foreign(place)?,
        };
        let files = PACKAGES.iter().map(|(_, _, notice)| notice).chain([&UNWINDER]);
        let missing = files.map(|file| musl.root.join(file)).find(|file| !file.is_file());
        if let Some(missing) = missing {
            bail!(
                "{} is missing: the archive holds it, or its licence (cargo xtask setup --packages)",
                missing.display()
            );
        }
        Ok(musl)
    }

    fn foreign(place: &Place) -> Result<Self> {
        let (debian, rust) = (place.arch.debian(), place.arch.rust());
        let root = place.target.join(format!("musl-{debian}"));
        if !root.is_dir() {
            let part = root.with_extension("part");
            drop(fs::remove_dir_all(&part)); // of an attempt that was broken off
            let apt = Apt::update(&place.target.join(format!("apt-{debian}")), &[SUITE], debian)?;
            for (name, _, _) in PACKAGES {
                let package = apt.newest(&format!("^{name}$"))?;
                let package = package.with_context(|| format!("{SUITE} has no {name} for {debian}"))?;
                say!("fetching {} {} for {debian}", package.name, package.version);
                apt.unpack(&package, &part)?;
            }
            fs::rename(&part, &root)?;
        }
        // Debian's own list for the driver, which has the paths of an installed package.
        let list = root.join(format!("usr/lib/{rust}-linux-musl/musl-gcc.specs"));
        let text = fs::read_to_string(&list).with_context(|| format!("cannot read {}", list.display()))?;
        let moved = root.join("musl-gcc.specs");
        fs::write(&moved, text.replace("/usr/", &format!("{}/usr/", root.display())))?;
        Ok(Self { root, driver: place.arch.gcc(), option: Some(format!("-specs={}", moved.display())) })
    }

    /// Whose they are, and the files that say under which licence.
    pub(super) fn notices(&self) -> [(&'static str, PathBuf); 2] {
        PACKAGES.map(|(_, name, notice)| (name, self.root.join(notice)))
    }

    /// For rustc, so that it links with them. Debian's driver knows no position-independent static programs.
    pub(super) fn flags(&self, place: &Place) -> Result<String> {
        if find(&self.driver).is_none() {
            bail!("{} is missing: cargo xtask setup --packages (with --arm64 for arm64)", self.driver);
        }
        let folder = place.target.join("unwinder").join(place.arch.debian());
        fs::create_dir_all(&folder)?;
        let (source, object) = (folder.join("bridge.c"), folder.join("bridge.o"));
        fs::write(&source, BRIDGE)?;
        let mut compiler = Command::new(&self.driver);
        compiler.args(&self.option).args(["-O2", "-fPIC", "-c", "-o"]);
        run(compiler.arg(&object).arg(&source))?;
        let library = folder.join("libunwind.a");
        fs::copy(self.root.join(UNWINDER), &library)?;
        run(Command::new("ar").arg("rD").arg(&library).arg(&object))?;
        Ok(rustc_flags(&self.driver, self.option.as_deref(), &folder))
    }
}

fn rustc_flags(driver: &str, option: Option<&str>, libraries: &Path) -> String {
    let mut flags = format!(
        "-Ctarget-feature=+crt-static -Crelocation-model=static -Clinker={driver} -Clink-self-contained=no -Lnative={}",
        libraries.display()
    );
    flags.extend(option.map(|option| format!(" -Clink-arg={option}")));
    flags
}
