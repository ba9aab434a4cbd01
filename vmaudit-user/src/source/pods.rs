//! Pods of this machine by name.

use std::path::Path;

use crate::domain::cgroup::GroupWanted;
use crate::os::rights;

/// Where the kubelet keeps the logs of its pods: one folder each, `NAMESPACE_NAME_UID`
/// (kubernetes/kubernetes:pkg/kubelet/kuberuntime/helpers.go:BuildPodLogsDirectory).
const LOGS: &str = "/var/log/pods";

/// A pod that was named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PodNamed {
    /// By its uid.
    Uid(GroupWanted),
    /// By namespace and name.
    Name(String, String),
}

impl PodNamed {
    /// A uid, or NAMESPACE/NAME. Errors, as a sentence: neither.
    pub fn read(text: &str) -> Result<Self, String> {
        match text.split_once('/') {
            Some((namespace, name)) if !namespace.is_empty() && !name.is_empty() && !name.contains('/') => {
                Ok(Self::Name(namespace.to_owned(), name.to_owned()))
            }
            Some(_) => Err("write a pod's uid, or NAMESPACE/NAME".into()),
            None => GroupWanted::pod_uid(text).map(Self::Uid),
        }
    }

    /// As it was written.
    pub fn words(&self) -> String {
        match self {
            Self::Uid(uid) => uid.to_string(),
            Self::Name(namespace, name) => format!("pod {namespace}/{name}"),
        }
    }

    /// The pod, or those that bore the name one after the other. Errors, as a sentence: nobody here knows the name.
    pub fn find(&self) -> Result<Vec<GroupWanted>, String> {
        self.find_in(Path::new(LOGS))
    }

    fn find_in(&self, logs: &Path) -> Result<Vec<GroupWanted>, String> {
        let (namespace, name) = match self {
            Self::Uid(uid) => return Ok(vec![uid.clone()]),
            Self::Name(namespace, name) => (namespace, name),
        };
        let _rights = rights::raised(&rights::PROCESSES);
        let wanted = format!("{namespace}_{name}_");
        let folders = std::fs::read_dir(logs).map_err(|e| {
            format!("pods have names only where {} can be read ({e}); --pod UID needs none", logs.display())
        })?;
        let names = folders.flatten().filter_map(|entry| entry.file_name().into_string().ok());
        let uids = names.filter_map(|folder| folder.strip_prefix(&wanted).map(str::to_owned));
        let found: Vec<GroupWanted> = uids.filter_map(|uid| GroupWanted::pod_uid(&uid).ok()).collect();
        if found.is_empty() {
            let (namespace, name) = (crate::text::clean(namespace), crate::text::clean(name));
            return Err(format!("there is no pod {namespace}/{name} in {}", logs.display()));
        }
        Ok(found)
    }
}

/// The pod of this uid as NAMESPACE/NAME; `None`: nobody here knows it.
pub fn name_of(uid: &str) -> Option<String> {
    name_in(Path::new(LOGS), uid)
}

fn name_in(logs: &Path, uid: &str) -> Option<String> {
    let _rights = rights::raised(&rights::PROCESSES);
    std::fs::read_dir(logs).ok()?.flatten().find_map(|entry| {
        let folder = entry.file_name().into_string().ok()?;
        let (namespace, name) = folder.strip_suffix(uid)?.strip_suffix('_')?.split_once('_')?;
        (!namespace.is_empty() && !name.is_empty()).then(|| format!("{namespace}/{name}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_is_found_by_its_name() {
        const UID: &str = "12345678-9abc-def0-1234-56789abcdef0";
        let logs = std::env::temp_dir().join(format!("vmaudit-pods-{}", std::process::id()));
        for folder in [format!("web_nginx_{UID}"), "web_nginx-2_x".into(), "web_nginx_no uid".into()] {
            std::fs::create_dir_all(logs.join(folder)).unwrap();
        }
        let find = |text: &str| PodNamed::read(text).unwrap().find_in(&logs);
        let uid = GroupWanted::pod_uid(UID).unwrap();
        assert_eq!(find("web/nginx"), Ok(vec![uid.clone()]));
        assert_eq!(find(UID), Ok(vec![uid]));
        assert!(find("web/ngin").unwrap_err().starts_with("there is no pod web/ngin in "));
        assert!(
            PodNamed::read("web/nginx").unwrap().find_in(&logs.join("no")).unwrap_err().contains("--pod UID")
        );
        assert_eq!(name_in(&logs, UID).as_deref(), Some("web/nginx"));
        for nobody in ["", "x", "2_x", "56789abcdef0"] {
            assert_eq!(
                name_in(&logs, nobody).as_deref(),
                (nobody == "x").then_some("web/nginx-2"),
                "{nobody}"
            );
        }
        for bad in ["", "/", "a/", "/b", "a/b/c", "web"] {
            assert!(PodNamed::read(bad).is_err(), "{bad}");
        }
        std::fs::remove_dir_all(logs).unwrap();
    }
}
