//! Pods by name: cgroups as the kubelet and its runtimes lay them, and the folder of logs that has the names.

use std::path::PathBuf;

use vmaudit_tests::{Session, own, wait_for};

use crate::serve::{ask, ended, must, serving};

/// Where the kubelet keeps logs, NAMESPACE_NAME_UID.
const LOGS: &str = "var/log/pods";
const ID: &str = "5f60718293a4b5c6d7e8f90a1b2c3d4e5f60718293a4b5c6d7e8f90a1b2c3d4e";

/// Folders that go with it, the last that was made first.
#[derive(Default)]
struct Folders(Vec<PathBuf>);

impl Folders {
    /// Makes what is not there of `path`, which begins below `root`.
    fn make(&mut self, root: &str, path: &str) -> PathBuf {
        let mut at = PathBuf::from(root);
        for part in path.split('/') {
            at.push(part);
            if std::fs::create_dir(&at).is_ok() {
                self.0.push(at.clone());
            }
        }
        assert!(at.is_dir(), "{} can be made", at.display());
        at
    }
}

impl Drop for Folders {
    fn drop(&mut self) {
        for folder in self.0.iter().rev() {
            wait_for("the folder to be empty", || std::fs::remove_dir(folder).ok());
        }
    }
}

fn cgroups() -> &'static str {
    let folders = ["/sys/fs/cgroup/pids", "/sys/fs/cgroup/unified", "/sys/fs/cgroup"];
    folders
        .into_iter()
        .find(|folder| std::fs::exists(format!("{folder}/cgroup.procs")).unwrap_or(false))
        .expect("cgroups are mounted")
}

/// With both drivers, of each class, one that is there before `serve` and one that comes later; one that nobody has a
/// name for.
#[test]
fn pods_are_groups_by_name() {
    let pid = std::process::id();
    let uid = |n: u32| format!("0b0cf0de-0000-4000-8000-{:012x}", u64::from(pid) << 8 | u64::from(n));
    let slice = |n| uid(n).replace('-', "_");
    let systemd = format!(
        "kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{}.slice/cri-containerd-{ID}.scope",
        slice(1)
    );
    let guaranteed = format!("kubepods.slice/kubepods-pod{}.slice/crio-{ID}.scope", slice(2));
    let cgroupfs = format!("kubepods/besteffort/pod{}/{ID}", uid(3));
    let nameless = format!("kubepods.slice/kubepods-pod{}.slice/cri-containerd-{ID}.scope", slice(4));
    let mut folders = Folders::default();
    for (n, name) in [(1, "shop_web-0"), (2, "kube-system_dns-7d9"), (3, "batch_report")] {
        folders.make("/", &format!("{LOGS}/{name}_{}", uid(n)));
    }
    let cases = [
        (systemd, "shop/web-0".to_owned(), true),
        (guaranteed, "kube-system/dns-7d9".to_owned(), false),
        (cgroupfs, "batch/report".to_owned(), true),
        (nameless, uid(4), false),
    ];
    let groups: Vec<_> = cases.iter().map(|(path, ..)| folders.make(cgroups(), path)).collect();
    let join = |at: &PathBuf, n: usize| {
        let script = format!("echo $$ > {}/cgroup.procs; exec \"$0\" attach {}", at.display(), 100 * (n + 1));
        let mut one = Session::other("/bin/sh".into())
            .words(&["-c", &script])
            .words(&[vmaudit_tests::workload()])
            .start_with_pipe();
        one.wait_for_stdout("standing");
        let standing = own::parse(&one.stdout_so_far()).remove(0);
        (one, standing)
    };
    let mut all: Vec<_> = cases
        .iter()
        .zip(&groups)
        .enumerate()
        .map(|(n, ((_, _, first), at))| first.then(|| join(at, n)))
        .collect();
    let (server, address) = serving(&["--group-by", "pod"]);
    for (n, one) in all.iter_mut().enumerate() {
        one.get_or_insert_with(|| join(&groups[n], n));
    }
    for ((_, name, _), one) in cases.iter().zip(&all) {
        let (_, standing) = one.as_ref().expect("all are there");
        let page = wait_for("the pod's group", || {
            let page = ask(&address, "");
            page.contains(&format!("areas{{group=\"{name}\"}}")).then_some(page)
        });
        assert_eq!(
            must(&page, &format!("vmaudit_process_memory_map_areas{{group=\"{name}\"}}")),
            standing.base
        );
        let peak = format!("vmaudit_process_memory_map_areas_peak{{group=\"{name}\"}}");
        assert_eq!(must(&page, &peak), standing.base, "{page}");
    }
    for (one, _) in all.into_iter().flatten() {
        one.wait().succeeded();
    }
    ended(server);
}
