//! The container image, built and run by the real Docker engine, without pulling anything; and the manifests for Kubernetes,
//! held to the schemas of its API.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use super::Place;
use super::static_program;
use crate::command::{find, is_root, output, quiet_output, run, say, workspace};

/// It brings the schemas of its version of Kubernetes with it.
const VALIDATOR: &str = "kubernetes-validate==1.37.0";
const MANIFESTS: [&str; 3] = ["namespace.yaml", "daemonset.yaml", "networkpolicy.yaml"];
/// How long the engine, and vmaudit in it, may take to begin.
const LIMIT: Duration = Duration::from_secs(120);

/// Holds the manifests to the schemas.
pub fn manifests(place: &Place) -> Result<()> {
    let folder = workspace()?.join("vmaudit-user/packaging/kubernetes");
    let image = fs::read_to_string(folder.join("kustomization.yaml"))?;
    if !image.contains(&format!("newTag: {}\n", place.version)) {
        bail!("kustomization.yaml names another image than that of {}", place.version);
    }
    let environment = place.target.join("kubernetes-validate");
    let program = environment.join("bin/kubernetes-validate");
    if !program.is_file() {
        say!("fetching {VALIDATOR}");
        run(Command::new("python3").args(["-m", "venv"]).arg(&environment))?;
        let mut pip = Command::new(environment.join("bin/pip"));
        run(pip.args(["install", "--quiet", "--disable-pip-version-check", VALIDATOR]))?;
    }
    let validate = |file: &Path| Command::new(&program).args(["--strict", "--quiet"]).arg(file).status();
    for name in MANIFESTS {
        if !validate(&folder.join(name))?.success() {
            bail!("{name} does not fit the schema");
        }
    }
    // The validator sees what is wrong.
    let wrong = place.target.join("wrong.yaml");
    let text = fs::read_to_string(folder.join("daemonset.yaml"))?;
    fs::write(&wrong, text.replace("hostPID: true", "hostPid: true"))?;
    if validate(&wrong)?.success() {
        bail!("the validator found nothing in a manifest with a field that does not exist");
    }
    say!("{} manifests fit the schemas of Kubernetes", MANIFESTS.len());
    if find("kubectl").is_none() {
        say!("kubectl is not here: what `kubectl apply -k` makes of them is NOT checked");
        return Ok(());
    }
    let all = output(Command::new("kubectl").arg("kustomize").arg(&folder))?;
    let rendered = place.target.join("rendered.yaml");
    fs::write(&rendered, &all)?;
    if !validate(&rendered)?.success() {
        bail!("{} does not fit the schema", rendered.display());
    }
    kustomized(&all, &place.version)?;
    say!("`kubectl kustomize` makes {} objects of them, all in the namespace vmaudit", MANIFESTS.len());
    Ok(())
}

/// Each object is there, in the namespace, with the image that is built.
fn kustomized(all: &str, version: &str) -> Result<()> {
    let objects: Vec<&str> = all.split("\n---\n").collect();
    for kind in ["Namespace", "DaemonSet", "NetworkPolicy"] {
        let is_it = |object: &&&str| object.lines().any(|line| line == format!("kind: {kind}"));
        let object = objects.iter().find(is_it).with_context(|| format!("no {kind} is in {all}"))?;
        let place = if kind == "Namespace" { "  name: vmaudit" } else { "  namespace: vmaudit" };
        if !object.lines().any(|line| line == place) {
            bail!("the {kind} is not in the namespace: {object}");
        }
    }
    if objects.len() != MANIFESTS.len() || !all.contains(&format!("image: vmaudit:{version}\n")) {
        bail!("another image, or other objects, than what is built: {all}");
    }
    Ok(())
}

/// Builds the image and runs it; nothing of the engine is left then.
pub fn image(place: &Place) -> Result<()> {
    let folder = place.target.join("docker");
    let done = built_and_run(place, &folder);
    let left = mounts_below(&folder)?;
    if !left.is_empty() || folder.exists() {
        bail!("the engine has left {} behind, and {} mounts: {left:?}", folder.display(), left.len());
    }
    done
}

fn built_and_run(place: &Place, folder: &Path) -> Result<()> {
    let program = place.target.join(static_program::target(place.arch)).join("release/vmaudit");
    if !program.is_file() {
        bail!("{} is missing: run `cargo xtask package` first", program.display());
    }
    if !is_root() || find("dockerd").is_none() || find("docker").is_none() {
        bail!("the real Docker engine is needed, and root: install Debian's package docker.io");
    }
    let context = place.target.join("image");
    drop(fs::remove_dir_all(&context));
    fs::create_dir_all(&context)?;
    fs::copy(&program, context.join("vmaudit"))?;
    let engine = Engine::start(folder)?;
    let dockerfile = workspace()?.join("vmaudit-user/packaging/container/Dockerfile");
    let tag = format!("vmaudit:{}", place.version);
    run(engine
        .docker()
        .args(["build", "--quiet", "--network", "none", "--tag", &tag, "--file"])
        .arg(dockerfile)
        .arg(&context))?;
    let said = output(engine.docker().args(["run", "--rm", "--network", "none", &tag, "--version"]))?;
    if said.trim() != format!("vmaudit {}", place.version) {
        bail!("the image says {said:?}");
    }
    // Somebody to be seen.
    let other = ["run", "--detach", "--network", "none", &tag, "serve", "--source", "proc"];
    let other = output(engine.docker().args(other))?;
    let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let listen = format!("127.0.0.1:{port}");
    let serve = ["serve", "--listen", &listen, "--source", "ebpf", "--group-by", "container"];
    let mut started = None;
    // Engines before 20.10.8, and machines without the capability, have only the older, larger one.
    for rights in [["BPF", "PERFMON"].as_slice(), &["SYS_ADMIN"]] {
        let mut docker = engine.docker();
        docker.args(["run", "--detach", "--network", "host", "--pid", "host", "--read-only"]);
        docker.args([
            "--security-opt",
            "seccomp=unconfined",
            "--security-opt",
            "no-new-privileges",
            "--cap-drop",
            "ALL",
        ]);
        for right in rights.iter().chain(&["SYS_PTRACE", "DAC_READ_SEARCH"]) {
            docker.args(["--cap-add", right]);
        }
        started = quiet_output(docker.arg(&tag).args(serve)).map(|id| (id, rights.join(" and CAP_")));
        if started.is_some() {
            break;
        }
    }
    let (id, rights) = started.context("the engine runs it with no rights that do")?;
    let group =
        format!("vmaudit_process_memory_map_areas{{group=\"{}", other.trim().get(..12).unwrap_or("?"));
    let begun = Instant::now();
    let page = loop {
        let page = page(port).unwrap_or_default();
        if page.contains("vmaudit_source_info{source=\"ebpf\"} 1") && page.contains(&group) {
            break page;
        }
        if begun.elapsed() > LIMIT {
            drop(run(engine.docker().args(["logs", id.trim()])));
            bail!("the page has not got {group:?}: {page}");
        }
        thread::sleep(Duration::from_millis(200));
    };
    say!(
        "the image was built and run with CAP_{rights}; it shows {} series, another container's too",
        page.lines().filter(|line| !line.starts_with('#')).count()
    );
    run(engine.docker().args(["rm", "--force", id.trim(), other.trim()]).stdout(Stdio::null()))
}

fn page(port: u16) -> Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(LIMIT))?;
    stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}

/// An engine of its own, which goes with all that it has.
struct Engine {
    daemon: Child,
    folder: PathBuf,
}

impl Engine {
    fn start(folder: &Path) -> Result<Self> {
        remove(folder);
        fs::create_dir_all(folder)?;
        let log = fs::File::create(folder.join("log"))?;
        let at = |name: &str| folder.join(name).display().to_string();
        let daemon = Command::new("dockerd")
            .args(["--data-root", &at("data"), "--exec-root", &at("exec"), "--pidfile", &at("pid")])
            .args(["-H", &format!("unix://{}", at("s.sock"))])
            .args(["--iptables=false", "--ip6tables=false", "--bridge=none"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .context("cannot start dockerd")?;
        let engine = Self { daemon, folder: folder.to_owned() };
        let begun = Instant::now();
        while quiet_output(engine.docker().arg("version")).is_none() {
            if begun.elapsed() > LIMIT {
                let log = fs::read_to_string(folder.join("log")).unwrap_or_default();
                bail!("dockerd does not answer: {}", log.lines().last().unwrap_or_default());
            }
            thread::sleep(Duration::from_millis(200));
        }
        Ok(engine)
    }

    fn docker(&self) -> Command {
        let mut docker = Command::new("docker");
        docker
            .arg("-H")
            .arg(format!("unix://{}", self.folder.join("s.sock").display()))
            .env("DOCKER_BUILDKIT", "0");
        docker
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        let all = quiet_output(self.docker().args(["ps", "--all", "--quiet"])).unwrap_or_default();
        let ids: Vec<&str> = all.split_whitespace().collect();
        if !ids.is_empty() {
            drop(quiet_output(self.docker().args(["rm", "--force"]).args(ids)));
        }
        // It takes its containerd with it.
        let daemon = nix::unistd::Pid::from_raw(self.daemon.id() as i32);
        let _ = nix::sys::signal::kill(daemon, nix::sys::signal::Signal::SIGTERM);
        drop(self.daemon.wait());
        remove(&self.folder);
    }
}

/// Takes away the folder, and before that what is mounted in it: the engine keeps the machine's network namespace at
/// exec/netns/default.
fn remove(folder: &Path) {
    for mount in mounts_below(folder).unwrap_or_default().iter().rev() {
        drop(quiet_output(Command::new("umount").arg(mount)));
    }
    drop(fs::remove_dir_all(folder));
}

/// What is mounted below, in the order in which it was.
fn mounts_below(folder: &Path) -> Result<Vec<PathBuf>> {
    let all = fs::read_to_string("/proc/self/mountinfo").context("cannot read what is mounted")?;
    Ok(below(&all, folder))
}

/// The fifth word is where it is mounted (Documentation/filesystems/proc.rst).
fn below(mountinfo: &str, folder: &Path) -> Vec<PathBuf> {
    let points = mountinfo.lines().filter_map(|line| line.split(' ').nth(4));
    points.map(PathBuf::from).filter(|point| point != folder && point.starts_with(folder)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_mounted_below_is_taken() {
        let all = "22 1 8:1 / / rw - ext4 /dev/vda rw\n\
                   30 22 0:4 net:[4026531840] /t/docker/exec/netns/default rw - nsfs nsfs rw\n\
                   31 22 0:5 / /t/docker-other rw - tmpfs tmpfs rw\n";
        assert_eq!(below(all, Path::new("/t/docker")), [Path::new("/t/docker/exec/netns/default")]);
    }
}
