//! What the path of a cgroup says: the container and the pod that its processes are in. The forms are those of the
//! runtimes; a hybrid host has several paths for each process, and any of them may be the one that tells.

use super::unit::unit_of;
use crate::model::within::Within;

/// Digits of an id as Docker, containerd, CRI-O and Podman make them.
const ID_DIGITS: usize = 64;
/// Digits of the first part of an id in Amazon's ECS, and of a static pod's.
const SHORT_ID_DIGITS: usize = 32;

/// The cgroups of one process, one in each hierarchy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Groups {
    /// The one that is shown: of version 2; where that hierarchy is not used, the memory controller's.
    pub shown: Option<String>,
    /// All of them, each once.
    paths: Vec<String>,
}

impl Groups {
    /// Of the text of /proc/PID/cgroup: lines of `number:controllers:path` (version 2: `0::path`).
    pub fn parse(text: &str) -> Self {
        let mut paths: Vec<String> = Vec::new();
        let (mut unified, mut memory) = (None, None);
        // Not `lines()`: a carriage return at the end is the name's.
        for line in text.split('\n') {
            let mut parts = line.splitn(3, ':');
            let (Some(id), Some(controllers), Some(path)) = (parts.next(), parts.next(), parts.next()) else {
                continue;
            };
            if id == "0" && controllers.is_empty() {
                unified = Some(path);
            } else if controllers.split(',').any(|name| name == "memory") {
                memory = Some(path);
            }
            // A group that was removed keeps its last processes (kernel/cgroup/cgroup.c:proc_cgroup_show).
            let path = path.strip_suffix(" (deleted)").unwrap_or(path);
            if !paths.iter().any(|known| known == path) {
                paths.push(path.to_owned());
            }
        }
        let shown = match (unified, memory) {
            (Some("/") | None, Some(path)) => Some(path),
            (path, _) => path,
        };
        Self { shown: shown.map(str::to_owned), paths }
    }

    /// The systemd unit; `None` outside of any.
    pub fn unit(&self) -> Option<&str> {
        self.shown.as_deref().and_then(unit_of).or_else(|| self.paths.iter().find_map(|path| unit_of(path)))
    }

    /// The container; of one inside another, the inner one.
    pub fn container(&self) -> Option<String> {
        self.paths.iter().find_map(|path| containers_of(path).pop())
    }

    /// The uid of the Kubernetes pod.
    pub fn pod(&self) -> Option<String> {
        self.paths.iter().find_map(|path| pod_of(path))
    }

    /// What these say.
    pub fn within(&self) -> Within {
        Within { unit: self.unit().map(str::to_owned), container: self.container(), pod: self.pod() }
    }

    fn any(&self, fits: impl Fn(&str) -> bool) -> bool {
        self.paths.iter().any(|path| fits(path))
    }
}

/// A group of processes that is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GroupWanted {
    /// At or below this path, which begins with a slash.
    Below(String),
    /// The path contains this.
    Part(String),
    /// In this unit, or in one below it.
    Unit(String),
    /// In a container of this name, or whose id begins so.
    Container(String),
    /// In the pod with this uid.
    Pod(String),
}

impl GroupWanted {
    /// A path: with a slash in front the group itself and all below, by its path from the root of the hierarchy or from
    /// the root of the machine; without, any path that contains it. Error: nothing.
    pub fn path(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Err("write a cgroup's path, for example /system.slice/postgresql.service".into());
        }
        let Some(below) = text.strip_prefix('/') else { return Ok(Self::Part(text.to_owned())) };
        let mounted =
            below.strip_prefix("sys/fs/cgroup").filter(|rest| rest.is_empty() || rest.starts_with('/'));
        let path = match mounted.map(|rest| rest.trim_start_matches('/')) {
            // The first folder there is a hierarchy's, or, where version 2 alone is mounted, a group's.
            Some(rest) => match rest.split_once('/') {
                Some((first, path)) if is_hierarchy(first) => path,
                None if is_hierarchy(rest) => "",
                _ => rest,
            },
            None => below,
        };
        Ok(Self::Below(format!("/{}", path.trim_matches('/'))))
    }

    /// A unit, with or without `.service`. Error: no name of one.
    pub fn unit(text: &str) -> Result<Self, String> {
        if text.is_empty() || text.contains('/') {
            return Err("write a unit's name, for example postgresql.service".into());
        }
        Ok(Self::Unit(text.to_owned()))
    }

    /// A container, by the beginning of its id (also as `containerd://ID`) or by its name. Error: neither.
    pub fn container(text: &str) -> Result<Self, String> {
        let id = text.split_once("://").map_or(text, |(_, id)| id);
        if id.is_empty() || id.contains('/') {
            return Err(
                "write the beginning of a container's id, as docker ps, podman ps and crictl ps show it, or \
                        the name of one of LXC or systemd-nspawn"
                    .into(),
            );
        }
        Ok(Self::Container(id.to_owned()))
    }

    /// A pod's uid. Error: none.
    pub fn pod_uid(text: &str) -> Result<Self, String> {
        let uid = text.replace('_', "-");
        if is_pod_uid(&uid) { Ok(Self::Pod(uid)) } else { Err("write a pod's uid, or NAMESPACE/NAME".into()) }
    }

    /// A process of these groups is asked for.
    pub fn fits(&self, groups: &Groups) -> bool {
        match self {
            Self::Below(wanted) => groups.any(|path| {
                wanted == "/"
                    || path
                        .strip_prefix(wanted.as_str())
                        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            }),
            Self::Part(wanted) => groups.any(|path| path.contains(wanted.as_str())),
            Self::Unit(wanted) => groups.any(|path| path.split('/').any(|part| is_unit(part, wanted))),
            Self::Container(wanted) => groups.any(|path| {
                containers_of(path)
                    .iter()
                    .any(|it| it == wanted || is_id(it) && it.starts_with(wanted.as_str()))
            }),
            Self::Pod(wanted) => groups.any(|path| pod_of(path).as_ref() == Some(wanted)),
        }
    }
}

impl std::fmt::Display for GroupWanted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Below(path) => write!(f, "cgroup {path}"),
            Self::Part(part) => write!(f, "a cgroup with {part} in its path"),
            Self::Unit(unit) => write!(f, "unit {unit}"),
            Self::Container(id) => write!(f, "container {id}"),
            Self::Pod(uid) => write!(f, "pod {uid}"),
        }
    }
}

/// Names under which hierarchies are mounted below /sys/fs/cgroup (systemd's; kernel/cgroup/cgroup.c has the controllers).
fn is_hierarchy(folder: &str) -> bool {
    const NAMES: [&str; 15] = [
        "unified",
        "systemd",
        "memory",
        "cpu",
        "cpuacct",
        "cpuset",
        "pids",
        "blkio",
        "devices",
        "freezer",
        "hugetlb",
        "net_cls",
        "net_prio",
        "perf_event",
        "rdma",
    ];
    folder.split(',').all(|name| NAMES.contains(&name) || name == "misc" && folder != "misc")
}

fn is_unit(part: &str, wanted: &str) -> bool {
    part == wanted || part.strip_suffix(".service").is_some_and(|stem| stem == wanted)
}

fn is_hex(text: &str, digits: usize) -> bool {
    text.len() == digits && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

/// An id, of which people write the beginning; else a name.
fn is_id(container: &str) -> bool {
    is_hex(container, ID_DIGITS) || is_ecs(container)
}

/// `<task of 32 digits>-<number>`, as Amazon's ECS on Fargate names its containers.
fn is_ecs(part: &str) -> bool {
    part.split_once('-').is_some_and(|(task, number)| {
        is_hex(task, SHORT_ID_DIGITS) && !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit())
    })
}

/// The containers that a path lies in, the outermost first.
fn containers_of(path: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut before = "";
    for part in path.split('/') {
        found.extend(container_in(before, part));
        before = part;
    }
    found
}

/// The container that one part of a path stands for, given the part before it.
fn container_in(before: &str, part: &str) -> Option<String> {
    // `system.slice:docker:<id>`: what the systemd driver would write, given to the other driver.
    let last = part.rsplit(':').next().unwrap_or(part);
    let stem = last.strip_suffix(".scope").unwrap_or(last);
    if is_id(stem) {
        return Some(stem.to_owned());
    }
    // `docker-<id>`, `cri-containerd-<id>`, `crio-<id>`, `libpod-<id>`, `nerdctl-<id>` and others to come; conmon is the
    // one who watches a container, and not in it.
    if let Some((runtime, id)) = stem.rsplit_once('-')
        && is_hex(id, ID_DIGITS)
    {
        return (!runtime.is_empty() && !runtime.ends_with("conmon")).then(|| id.to_owned());
    }
    let named = |name: &str| (!name.is_empty()).then(|| unescaped(name));
    if let Some(name) = part.strip_prefix("lxc.payload.") {
        return named(name);
    }
    if before == "lxc.payload" || before == "lxc" {
        return named(part);
    }
    if let Some(name) = part.strip_prefix("systemd-nspawn@").and_then(|rest| rest.strip_suffix(".service")) {
        return named(name);
    }
    // machined's scopes; QEMU's are of whole machines.
    let machine = part.strip_prefix("machine-").and_then(|rest| rest.strip_suffix(".scope"))?;
    named(machine).filter(|name| !name.starts_with("qemu-"))
}

/// systemd writes what a name of a unit cannot hold as `\x2d`.
fn unescaped(name: &str) -> String {
    let mut plain = String::with_capacity(name.len());
    let mut rest = name;
    while let Some((before, behind)) = rest.split_once("\\x") {
        plain.push_str(before);
        let digits = behind.get(..2).and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match digits.filter(|byte| (0x20..0x7f).contains(byte)) {
            Some(byte) => {
                plain.push(char::from(byte));
                rest = behind.get(2..).unwrap_or_default();
            }
            None => {
                plain.push_str("\\x");
                rest = behind;
            }
        }
    }
    plain.push_str(rest);
    plain
}

/// A uid as the API server makes them, or the hash of a static pod's file.
fn is_pod_uid(uid: &str) -> bool {
    let groups: Vec<&str> = uid.split('-').collect();
    let uuid = groups.len() == 5
        && [8, 4, 4, 4, 12].iter().zip(&groups).all(|(digits, group)| is_hex(group, *digits));
    uuid || is_hex(uid, SHORT_ID_DIGITS)
}

/// The uid of the Kubernetes pod that a path lies in.
fn pod_of(path: &str) -> Option<String> {
    let mut kubernetes = false;
    for part in path.split('/') {
        kubernetes |= part.contains("kubepods");
        if !kubernetes {
            continue;
        }
        // `kubepods-burstable-pod<uid>.slice`, also before `:cri-containerd:<id>`; `pod<uid>`.
        let first = part.split(':').next().unwrap_or(part);
        let stem = first.strip_suffix(".slice").unwrap_or(first);
        let uid = stem.strip_prefix("pod").or_else(|| stem.rsplit_once("-pod").map(|(_, uid)| uid));
        if let Some(uid) = uid.map(|uid| uid.replace('_', "-")).filter(|uid| is_pod_uid(uid)) {
            return Some(uid);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0a1b2c3d4e5f60718293a4b5c6d7e8f90a1b2c3d4e5f60718293a4b5c6d7e8f9";
    const OTHER: &str = "ffff2c3d4e5f60718293a4b5c6d7e8f90a1b2c3d4e5f60718293a4b5c6d7ffff";
    const UID: &str = "12345678-9abc-def0-1234-56789abcdef0";
    const HASH: &str = "0a1b2c3d4e5f60718293a4b5c6d7e8f9";

    type Form = (&'static str, Option<&'static str>, Option<&'static str>, Option<&'static str>);

    /// Real forms: the path (ID, OTHER, UID, UID_ and HASH are filled in), unit, container, pod.
    const FORMS: &[Form] = &[
        ("/system.slice/docker-ID.scope", Some("docker-ID.scope"), Some("ID"), None),
        ("/system.slice/docker-ID.scope/init", Some("docker-ID.scope"), Some("ID"), None),
        ("/docker/ID", None, Some("ID"), None),
        ("/docker/ID/system.slice/nginx.service", Some("nginx.service"), Some("ID"), None),
        ("/docker/buildkit/xzyz1234", None, None, None),
        ("/actions_job/ID", None, Some("ID"), None),
        ("/ID", None, Some("ID"), None),
        ("/docker/OTHER/docker/ID", None, Some("ID"), None),
        ("/system.slice:docker:ID", None, Some("ID"), None),
        (
            "/user.slice/user-1000.slice/user@1000.service/user.slice/docker-ID.scope",
            Some("docker-ID.scope"),
            Some("ID"),
            None,
        ),
        (
            "/system.slice/containerd.service/kubepods-burstable-podUID_.slice:cri-containerd:ID",
            Some("containerd.service"),
            Some("ID"),
            Some("UID"),
        ),
        (
            "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podUID_.slice/cri-containerd-ID.scope",
            Some("cri-containerd-ID.scope"),
            Some("ID"),
            Some("UID"),
        ),
        (
            "/kubepods.slice/kubepods-podUID_.slice/crio-ID.scope/container",
            Some("crio-ID.scope"),
            Some("ID"),
            Some("UID"),
        ),
        (
            "/kubepods.slice/kubepods-podUID_.slice/crio-conmon-ID.scope",
            Some("crio-conmon-ID.scope"),
            None,
            Some("UID"),
        ),
        (
            "/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-besteffort.slice/kubelet-kubepods-besteffort-podUID_.slice/cri-containerd-ID.scope",
            Some("cri-containerd-ID.scope"),
            Some("ID"),
            Some("UID"),
        ),
        ("/kubepods/besteffort/podUID/ID", None, Some("ID"), Some("UID")),
        ("/kubepods/podHASH/ID", None, Some("ID"), Some("HASH")),
        ("/kubepods/burstable/podUID/crio-ID", None, Some("ID"), Some("UID")),
        ("/kubepods/burstable/podUID", None, None, Some("UID")),
        ("/podUID/ID", None, Some("ID"), None),
        ("/machine.slice/libpod-ID.scope/container", Some("libpod-ID.scope"), Some("ID"), None),
        ("/machine.slice/libpod-conmon-ID.scope", Some("libpod-conmon-ID.scope"), None, None),
        (
            "/machine.slice/machine-libpod_pod_OTHER.slice/libpod-ID.scope",
            Some("libpod-ID.scope"),
            Some("ID"),
            None,
        ),
        (
            "/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-ID.scope/container",
            Some("libpod-ID.scope"),
            Some("ID"),
            None,
        ),
        ("/libpod_parent/libpod-ID", None, Some("ID"), None),
        ("/libpod_parent/conmon", None, None, None),
        ("/system.slice/nerdctl-ID.scope", Some("nerdctl-ID.scope"), Some("ID"), None),
        ("/ecs/HASH/ID", None, Some("ID"), None),
        ("/ecs/HASH/HASH-3141592653", None, Some("HASH-3141592653"), None),
        ("/lxc.payload.web1/system.slice/cron.service", Some("cron.service"), Some("web1"), None),
        ("/lxc.monitor.web1", None, None, None),
        ("/lxc/web1", None, Some("web1"), None),
        (
            "/machine.slice/systemd-nspawn@web\\x2d1.service/payload",
            Some("systemd-nspawn@web\\x2d1.service"),
            Some("web-1"),
            None,
        ),
        ("/machine.slice/machine-web\\x2d1.scope", Some("machine-web\\x2d1.scope"), Some("web-1"), None),
        (
            "/machine.slice/machine-qemu\\x2d1\\x2dvm.scope",
            Some("machine-qemu\\x2d1\\x2dvm.scope"),
            None,
            None,
        ),
        (
            "/user.slice/user-1000.slice/user@1000.service/app.slice/vte-spawn-UID.scope",
            Some("vte-spawn-UID.scope"),
            None,
            None,
        ),
        ("/user.slice/user-1000.slice/session-2.scope", Some("session-2.scope"), None, None),
        ("/system.slice/postgresql@15-main.service", Some("postgresql@15-main.service"), None, None),
        ("/../../system.slice/docker-ID.scope", Some("docker-ID.scope"), Some("ID"), None),
        ("/../..", None, None, None),
        ("/", None, None, None),
        ("/-ID", None, None, None),
        ("/docker/IDa", None, None, None),
        ("/docker/0A1B", None, None, None),
        ("/lxc.payload.", None, None, None),
        ("/web\\x", None, None, None),
    ];

    #[test]
    fn each_runtime_has_its_forms() {
        for (path, unit, container, pod) in FORMS.iter().copied() {
            let filled = |text: &str| {
                let text =
                    text.replace("UID_", &UID.replace('-', "_")).replace("UID", UID).replace("HASH", HASH);
                text.replace("OTHER", OTHER).replace("ID", ID)
            };
            let path = filled(path);
            let groups = Groups::parse(&format!("0::{path}\n"));
            let expected = (unit.map(filled), container.map(filled), pod.map(filled));
            let found = (groups.unit().map(str::to_owned), groups.container(), groups.pod());
            assert_eq!(found, expected, "{path}");
            assert_eq!(groups.shown, Some(path.clone()));
            // What is shown can be asked for.
            for (wanted, shown) in [
                (GroupWanted::unit as fn(&str) -> _, &found.0),
                (GroupWanted::container, &found.1),
                (GroupWanted::pod_uid, &found.2),
            ] {
                if let Some(name) = shown {
                    assert!(wanted(name).unwrap().fits(&groups), "{name} in {path}");
                    assert!(!wanted(name).unwrap().fits(&Groups::default()));
                }
            }
        }
    }

    #[test]
    fn on_a_hybrid_host_the_path_that_tells_is_found_whichever_it_is() {
        let text = format!(
            "12:memory:/docker/{ID}\n9:name=systemd:/system.slice/db.service\n1:cpu,cpuacct:/x\n0::/\n"
        );
        let groups = Groups::parse(&text);
        assert_eq!(groups.shown, Some(format!("/docker/{ID}")));
        assert_eq!(groups.container().as_deref(), Some(ID));
        assert_eq!(groups.unit(), Some("db.service"));
        let fits = |wanted: Result<GroupWanted, String>| wanted.unwrap().fits(&groups);
        assert!(fits(GroupWanted::unit("db")) && fits(GroupWanted::unit("db.service")));
        assert!(!fits(GroupWanted::unit("d")) && fits(GroupWanted::unit("system.slice")));
        assert!(
            fits(GroupWanted::container(&ID[..12]))
                && fits(GroupWanted::container(&format!("docker://{ID}")))
        );
        assert!(!fits(GroupWanted::container("ffff")));
        for (path, fitting) in [
            ("/", true),
            ("/docker", true),
            ("/docker/", true),
            ("/dock", false),
            ("/sys/fs/cgroup/memory/docker", true),
            ("/sys/fs/cgroup/cpu,cpuacct/x", true),
            ("/sys/fs/cgroup/unified/system.slice/db.service", true),
            ("/sys/fs/cgroup/system.slice/db.service", true),
            ("/sys/fs/cgroup/system.slice/d", false),
            ("/sys/fs/cgroupx/docker", false),
            ("ocker/0a1b", true),
            ("ocker/ffff", false),
        ] {
            assert_eq!(fits(GroupWanted::path(path)), fitting, "{path}");
        }
    }

    #[test]
    fn a_part_of_a_name_is_no_name_and_what_is_none_is_refused() {
        let lxc = Groups::parse("0::/lxc.payload.web1\n");
        assert!(GroupWanted::container("web1").unwrap().fits(&lxc));
        assert!(!GroupWanted::container("web").unwrap().fits(&lxc));
        for wrong in [
            GroupWanted::unit(""),
            GroupWanted::unit("a/b"),
            GroupWanted::container("a/b"),
            GroupWanted::container("docker://"),
            GroupWanted::path(""),
            GroupWanted::pod_uid("web"),
        ] {
            assert!(wrong.is_err_and(|said| said.starts_with("write ")));
        }
    }

    #[test]
    fn strangers_write_their_own_cgroups() {
        for text in ["", ":", "::", "0::", "0:::", "x", "0::/\u{1b}[2J", "\\x\\x2", "9:memory"] {
            let groups = Groups::parse(text);
            let _ = (groups.unit(), groups.container(), groups.pod());
        }
        assert_eq!(unescaped("a\\x1bb\\x2\\xzz\\x2d"), "a\\x1bb\\x2\\xzz-");
    }
}
