//! `cargo xtask package`: what is given to users. A .deb, an .rpm, an archive with a static program, notices, a bill of
//! materials. The same commit gives the same bytes, in whatever folder it is built.

mod bill;
mod boot;
mod chroot;
mod dashboard;
mod image;
mod linked;
mod musl;
mod notices;
mod rpm;
mod static_program;

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use clap::Subcommand;
use sha2::{Digest as _, Sha256};

use crate::arch::Arch;
use crate::command::{cargo, cargo_home, output, quiet_output, run, say, target_dir, workspace};
use crate::ebpf::has_rust_src;
use crate::pinned::Program;

const CARGO_DEB: Program =
    Program { name: "cargo-deb", version: "3.8.0", options: &["--no-default-features"] };
/// Shells, and where their completions are staged.
const SHELLS: [(&str, &str); 3] = [("bash", "vmaudit.bash"), ("zsh", "_vmaudit"), ("fish", "vmaudit.fish")];

/// What the .rpm takes from the sources.
const OF_SOURCES: [&str; 10] = [
    "LICENSE-MIT",
    "LICENSE-APACHE",
    "LICENSE-GPL2",
    "README.md",
    "SECURITY.md",
    "vmaudit-user/packaging/systemd/vmaudit.service",
    "vmaudit-user/packaging/systemd/vmaudit.socket",
    "vmaudit-user/packaging/systemd/default",
    "vmaudit-user/packaging/prometheus/vmaudit.rules.yml",
    "vmaudit-user/packaging/grafana/vmaudit.dashboard.json",
];

/// What to do.
#[derive(Clone, Debug, Subcommand)]
pub enum Task {
    /// Build them (without a word)
    Build {
        /// Leave out the archive with the static program: half of the time
        #[arg(long)]
        no_static: bool,
        /// The processor that they are for (for arm64: `cargo xtask setup --packages --arm64`)
        #[arg(long, default_value = "x86_64")]
        arch: Arch,
    },
    /// Build them a second time, from a clone in another folder, and compare each byte
    Twice,
    /// Whether it compiles for the static program's target; nothing is built
    Musl {
        /// The processor
        #[arg(long, default_value = "x86_64")]
        arch: Arch,
    },
    /// Ask lintian, then install, upgrade, remove and purge the .deb in a new Debian (as root; needs mmdebstrap)
    Check,
    /// Install, upgrade and erase the .rpm in a root of its own (as root; needs mmdebstrap and rpm)
    Rpm,
    /// Boot a Debian with systemd that has the .deb: its units, their rights, an upgrade (as root; needs QEMU and cpio)
    Boot {
        /// Kernel, by id (`cargo xtask vm fetch --help`)
        #[arg(default_value = "6.1")]
        kernel: String,
    },
    /// Build the container image and run it with the real Docker engine (as root); hold the manifests for Kubernetes to its
    /// schemas
    Image,
    /// Hold the dashboard to Grafana's own types (fetches them with pip)
    Dashboard,
}

/// Does it.
pub fn perform(task: Option<Task>) -> Result<()> {
    let usual = || Place::new(Arch::X86);
    match task.unwrap_or(Task::Build { no_static: false, arch: Arch::X86 }) {
        Task::Build { no_static, arch } => build(&Place::new(arch)?, !no_static),
        Task::Musl { arch } => static_program::compiles(arch),
        Task::Twice => twice(&usual()?),
        Task::Check => chroot::check(&usual()?),
        Task::Rpm => rpm::check(&usual()?),
        Task::Image => {
            let place = usual()?;
            image::manifests(&place)?;
            image::image(&place)
        }
        Task::Dashboard => dashboard::check(&usual()?),
        Task::Boot { kernel } => boot::boot(&usual()?, &kernel),
    }
}

/// Where packages are made.
struct Place {
    /// The processor that they are for.
    arch: Arch,
    /// Cargo's target folder for them.
    target: PathBuf,
    /// What is given to users.
    out: PathBuf,
    version: String,
}

impl Place {
    fn new(arch: Arch) -> Result<Self> {
        let target = target_dir()?.join("package");
        let manifest = fs::read_to_string(workspace()?.join("Cargo.toml"))?;
        let version = manifest.lines().find_map(|line| line.strip_prefix("version = \"")?.strip_suffix('"'));
        let version = version.context("the workspace has no version")?.to_owned();
        let out = target.join(if arch == Arch::X86 { "out" } else { "out-arm64" });
        Ok(Self { arch, out, target, version })
    }

    /// What the programs of the .deb and the .rpm are built for: they need its C library.
    fn usual(&self) -> String {
        format!("{}-unknown-linux-gnu", self.arch.rust())
    }

    /// The same, where it has to be named: for another processor than this machine's.
    fn foreign(&self) -> Option<String> {
        (!self.arch.is_native()).then(|| self.usual())
    }

    /// Programs for the usual target, and below it what is made of them.
    fn release(&self) -> PathBuf {
        self.foreign().map_or_else(|| self.target.clone(), |target| self.target.join(target)).join("release")
    }

    fn stage(&self) -> PathBuf {
        self.release().join("stage")
    }

    /// The .deb; `revision` as Debian's changelog has it.
    fn deb(&self) -> PathBuf {
        self.out.join(format!("vmaudit_{}-1_{}.deb", self.version, self.arch.debian()))
    }
}

fn build(place: &Place, with_static: bool) -> Result<()> {
    let epoch = epoch()?;
    drop(fs::remove_dir_all(&place.out));
    fs::create_dir_all(&place.out).with_context(|| format!("cannot make {}", place.out.display()))?;
    changelog_of(&place.version)?;
    let rustc = output(Command::new("rustc").arg("--version"))?;
    let rustc = rustc.split_whitespace().nth(1).unwrap_or_default();

    program(place)?;
    // Pages and completions are what a program says that can be started here.
    let native = Place::new(Arch::native()?)?;
    if place.foreign().is_some() {
        program(&native)?;
    }
    let linked = linked::all(&place.usual())?;
    stage(place, &native, &epoch, &notices::text(&linked, rustc, &[])?)?;
    let time =
        output(Command::new("date").args(["-u", "+%Y-%m-%dT%H:%M:%SZ", "-d"]).arg(format!("@{epoch}")))?;
    let bill = place.out.join(format!("vmaudit-{}.cdx.json", place.version));
    fs::write(&bill, bill::of(&linked, time.trim()))?;

    deb(place, &epoch, None)?;
    rpm::make(place, &epoch, None)?;

    if with_static {
        static_program::archive(place, &epoch, rustc)?;
    }
    let sums = sums(&place.out)?;
    fs::write(place.out.join("SHA256SUMS"), &sums)?;
    println!("{sums}");
    say!("they are in {}", place.out.display());
    Ok(())
}

/// Builds the program of the .deb and the .rpm.
fn program(place: &Place) -> Result<()> {
    say!("building vmaudit {} for {}", place.version, place.usual());
    let build = ["build", "--release", "--locked", "--package", "vmaudit-user"];
    let Some(target) = place.foreign() else { return run(cargo_for(place, "")?.args(build)) };
    let mut cargo = cargo_for(place, &format!("-Clinker={}", place.arch.gcc()))?;
    if !has_target(&target)? {
        with_own_library(&mut cargo)?;
    }
    run(cargo.args(build).args(["--target", &target]))
}

/// rustup has its standard library.
fn has_target(target: &str) -> Result<bool> {
    let folder = output(Command::new("rustc").args(["--print", "target-libdir", "--target", target]))?;
    Ok(Path::new(folder.trim()).is_dir())
}

/// Where it has not: cargo builds the standard library, too, from rust-src.
fn with_own_library(cargo: &mut Command) -> Result<()> {
    let sysroot = output(Command::new("rustc").args(["--print", "sysroot"]))?;
    if !has_rust_src(Path::new(sysroot.trim())) {
        bail!("rust-src is missing: cargo xtask setup --ebpf");
    }
    cargo.env("RUSTC_BOOTSTRAP", "1").env("CARGO_UNSTABLE_BUILD_STD", "std,panic_unwind");
    Ok(())
}

/// Seconds since 1970 that the packages bear: those of the commit.
fn epoch() -> Result<String> {
    if let Ok(given) = env::var("SOURCE_DATE_EPOCH") {
        return Ok(given);
    }
    let mut git = Command::new("git");
    let said = quiet_output(git.current_dir(workspace()?).args(["log", "-1", "--format=%ct"]));
    Ok(said.context("neither git nor SOURCE_DATE_EPOCH says from when the sources are")?.trim().to_owned())
}

/// Cargo, so that neither the folder nor this machine shows in what it builds. `flags`: further ones for rustc.
fn cargo_for(place: &Place, flags: &str) -> Result<Command> {
    let mut mapped = vec![(workspace()?, "/vmaudit")];
    let crates = cargo_home().context("cargo has no home")?.join("registry/src");
    let registries = fs::read_dir(&crates).with_context(|| format!("cannot read {}", crates.display()))?;
    for registry in registries {
        mapped.push((registry?.path(), "/crates"));
    }
    let sysroot = PathBuf::from(output(Command::new("rustc").args(["--print", "sysroot"]))?.trim());
    if has_rust_src(&sysroot) {
        mapped.push((sysroot.join("lib/rustlib/src/rust"), "/rust"));
    }
    let mut all = OsString::new();
    for (from, to) in &mapped {
        all.push("--remap-path-prefix=");
        all.push(from);
        all.push(format!("={to} "));
    }
    all.push(flags);
    let mut cargo = cargo()?;
    cargo.env("CARGO_TARGET_DIR", &place.target).env("RUSTFLAGS", all).env_remove("CARGO_ENCODED_RUSTFLAGS");
    // Symbols are for those who work on it: they build it themselves.
    cargo.env("CARGO_PROFILE_RELEASE_STRIP", "symbols").env("CARGO_PROFILE_RELEASE_DEBUG", "0");
    Ok(cargo)
}

/// The .deb's own changelog begins with this version.
fn changelog_of(version: &str) -> Result<()> {
    let path = workspace()?.join("vmaudit-user/packaging/deb/changelog");
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let begins = format!("vmaudit ({version}-1) ");
    if !text.starts_with(&begins) {
        bail!("{} does not begin with {begins}", path.display());
    }
    Ok(())
}

/// What is made of the program, for all packages; `native` is where one is that can be started.
fn stage(place: &Place, native: &Place, epoch: &str, notices: &str) -> Result<()> {
    let stage = place.stage();
    drop(fs::remove_dir_all(&stage));
    for folder in ["man", "completions", "sources"] {
        fs::create_dir_all(stage.join(folder))?;
    }
    let program = native.release().join("vmaudit");
    run(Command::new(&program).arg("man").arg(stage.join("man")))?;
    for (shell, file) in SHELLS {
        let script = output(Command::new(&program).args(["completions", shell]))?;
        fs::write(stage.join("completions").join(file), script)?;
    }
    fs::write(stage.join("third-party.txt"), notices)?;
    fs::copy(workspace()?.join("CHANGELOG.md"), stage.join("changelog"))?;
    // Those that the .rpm has as they are: with the date of the commit, not of a checkout.
    for file in OF_SOURCES {
        let from = workspace()?.join(file);
        let name = from.file_name().context("a file")?;
        fs::copy(&from, stage.join("sources").join(name)).with_context(|| format!("cannot copy {file}"))?;
    }
    run(Command::new("gzip").args(["-9nr"]).arg(stage.join("man")))?;
    run(Command::new("gzip").args(["-9n"]).args([stage.join("third-party.txt"), stage.join("changelog")]))?;
    // The date in a package is that of its file.
    run(Command::new("find")
        .arg(&stage)
        .args(["-exec", "touch", "--date"])
        .arg(format!("@{epoch}"))
        .args(["{}", "+"]))
}

/// Makes the .deb of what is built and staged; `version`: another than Cargo's, for tests of upgrades.
fn deb(place: &Place, epoch: &str, version: Option<&str>) -> Result<PathBuf> {
    let path = match version {
        None => place.deb(),
        Some(version) => place.target.join(format!("vmaudit_{version}_{}.deb", place.arch.debian())),
    };
    let mut deb = Command::new(CARGO_DEB.path()?);
    deb.current_dir(workspace()?.join("vmaudit-user"))
        .env("CARGO_TARGET_DIR", &place.target)
        .env("SOURCE_DATE_EPOCH", epoch);
    deb.args(["deb", "--no-build", "--quiet", "--output"]).arg(&path);
    if let Some(target) = place.foreign() {
        deb.args(["--target", &target]);
    }
    if let Some(version) = version {
        deb.args(["--deb-version", version]);
    }
    // Whoever gives it to others answers for it, not the address in the manifest, which is nobody's (RFC 2606).
    if let Ok(address) = env::var("DEBEMAIL") {
        let name = env::var("DEBFULLNAME").unwrap_or_else(|_| "The vmaudit maintainers".to_owned());
        deb.args(["--maintainer", &maintainer(&name, &address)?]);
    }
    run(&mut deb)?;
    Ok(path)
}

/// As Debian's field has it. Errors: it would say something else.
fn maintainer(name: &str, address: &str) -> Result<String> {
    let plain =
        |text: &str| !text.trim().is_empty() && !text.contains(|c: char| c.is_control() || "<>,".contains(c));
    if !plain(name) || !plain(address) || address.contains(' ') || !address.contains('@') {
        bail!("DEBFULLNAME and DEBEMAIL are to be a name and an address, and are {name:?} and {address:?}");
    }
    Ok(format!("{name} <{address}>"))
}

/// As `sha256sum` writes them.
fn sums(folder: &Path) -> Result<String> {
    let mut lines = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name != "SHA256SUMS" {
            let digest = Sha256::digest(fs::read(entry.path())?);
            let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
            lines.push((name.clone(), format!("{hex}  {name}\n")));
        }
    }
    lines.sort();
    Ok(lines.into_iter().map(|(_, line)| line).collect())
}

fn twice(place: &Place) -> Result<()> {
    let first =
        fs::read_to_string(place.out.join("SHA256SUMS")).context("run `cargo xtask package` first")?;
    let clone = place.target.join("another-folder/vmaudit");
    drop(fs::remove_dir_all(&clone));
    run(Command::new("git").args(["clone", "--quiet", "--shared"]).arg(workspace()?).arg(&clone))?;
    let mut again = cargo()?;
    again.current_dir(&clone).env("CARGO_TARGET_DIR", clone.join("target"));
    again.args(["run", "--quiet", "--package", "xtask", "--", "package", "build"]);
    if !first.contains(&static_program::target(place.arch)) {
        say!("without the static program, which the first has not either");
        again.arg("--no-static");
    }
    run(&mut again)?;
    let second = fs::read_to_string(clone.join("target/package/out/SHA256SUMS"))?;
    let differ: Vec<&str> =
        first.lines().filter(|line| !second.lines().any(|other| other == *line)).collect();
    if !differ.is_empty() || first.lines().count() != second.lines().count() {
        bail!(
            "the two builds differ (both are kept, the other one in {}):\n{}",
            clone.display(),
            differ.join("\n")
        );
    }
    say!("two builds in two folders gave the same bytes:\n{first}");
    Ok(fs::remove_dir_all(clone)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_maintainer_is_one_name_and_one_address() {
        assert_eq!(maintainer("A B", "a@b.example").ok().as_deref(), Some("A B <a@b.example>"));
        for (name, address) in [
            ("", "a@b"),
            ("A", "ab"),
            ("A\nDepends: x", "a@b"),
            ("A", "a@b>, c@d"),
            ("A, B", "a@b"),
            ("A", "a @b"),
        ] {
            assert!(maintainer(name, address).is_err(), "{name} {address}");
        }
    }
}
