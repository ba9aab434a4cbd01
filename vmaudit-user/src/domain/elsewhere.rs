//! Programs that ask somebody else to do the work: what they start is no child of theirs, and not in their report.

use crate::model::report::Process;
use crate::text::clean;

/// Names of programs, and what follows the work that they ask for.
const CLIENTS: &[(&[&str], &str)] = &[
    (
        &["docker", "docker-compose", "nerdctl", "podman-remote"],
        "what runs in a container is a child of the engine and not in this report; watch it by its id: sudo vmaudit watch \
         --container ID",
    ),
    (
        &["ctr", "crictl", "kubectl", "oc"],
        "what runs in a container is a child of its engine and not in this report; watch it on its node: sudo vmaudit \
         watch --pod NAMESPACE/NAME",
    ),
    (
        &["systemd-run", "systemctl"],
        "what runs in a unit is a child of systemd and not in this report; watch it: sudo vmaudit watch --unit NAME",
    ),
    (
        &["machinectl", "lxc", "incus", "virsh"],
        "what runs in a machine is no child of this command and not in this report; watch it: sudo vmaudit watch \
         --container NAME",
    ),
    (&["ssh", "mosh"], "what runs on another machine is not in this report"),
];

/// What has to be known of a session with such a program in it, as a sentence. Whoever became another program by exec
/// (`systemd-run --scope CMD`) did the work itself.
pub fn elsewhere(processes: &[Process]) -> Option<String> {
    let name = |process: &Process| {
        let exe = process.exe.as_deref().and_then(|exe| exe.rsplit('/').next()).map(str::to_owned);
        exe.unwrap_or_else(|| process.comm.clone())
    };
    processes.iter().find_map(|process| {
        let name = name(process);
        let (_, sentence) = CLIENTS.iter().find(|(names, _)| names.contains(&name.as_str()))?;
        Some(format!("{} hands its work on: {sentence}.", clean(&name)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::report::MapCount;

    #[test]
    fn a_client_at_its_end_hands_on_and_one_that_became_another_does_not() {
        let row = serde_json::json!({
            "pid": 1, "ppid": null, "comm": "sh", "exe": null, "app": null, "cgroup": null, "started_s": null,
            "ended_s": null, "map_count": MapCount::default(), "images": [], "calls": {}, "unmap_leaked_bytes": null
        });
        let mut rows: Vec<Process> = vec![serde_json::from_value(row).unwrap()];
        assert_eq!(elsewhere(&rows), None);
        rows[0].comm = "systemd-run".into();
        rows[0].exe = Some("/usr/bin/make".into());
        assert_eq!(elsewhere(&rows), None);
        for (name, filter) in [
            ("docker", "--container ID"),
            ("kubectl", "--pod NAMESPACE/NAME"),
            ("systemd-run", "--unit NAME"),
            ("ssh", "another machine"),
        ] {
            rows[0].exe = Some(format!("/usr/bin/{name}"));
            let said = elsewhere(&rows).unwrap();
            assert!(
                said.starts_with(&format!("{name} hands its work on: ")) && said.contains(filter),
                "{said}"
            );
        }
    }
}
