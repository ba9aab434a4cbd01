//! What is linked in, of which version and under which licence: from cargo's own answer, for the notices and for the bill
//! of materials.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::command::{cargo, output, workspace};

/// The packages whose code is in the program: its own, and the eBPF object's.
const ROOTS: [&str; 2] = ["vmaudit-user", "vmaudit-ebpf"];

/// A crate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Linked {
    /// Name.
    pub name: String,
    /// Version.
    pub version: String,
    /// SPDX expression.
    pub license: String,
    /// Where its sources are kept.
    pub repository: Option<String>,
    /// Of its archive, as Cargo.lock has it; `None` of this workspace's own.
    pub sha256: Option<String>,
    /// Folder of its sources here.
    pub sources: PathBuf,
    /// Runs while it is built, and is not in the result.
    pub builds_only: bool,
    /// Its dependencies, by name and version.
    pub needs: BTreeSet<(String, String)>,
}

impl Linked {
    /// Of this workspace.
    pub fn is_own(&self) -> bool {
        self.sha256.is_none()
    }
}

/// All, by name and version.
pub fn all(target: &str) -> Result<Vec<Linked>> {
    let mut cargo = cargo()?;
    cargo.args(["metadata", "--locked", "--format-version=1", "--filter-platform", target]);
    let metadata: Value = serde_json::from_str(&output(&mut cargo)?).context("cargo's metadata")?;
    let lock = std::fs::read_to_string(workspace()?.join("Cargo.lock")).context("Cargo.lock")?;
    Ok(walk(&metadata, &checksums(&lock)))
}

/// Checksums by name and version.
fn checksums(lock: &str) -> BTreeMap<(String, String), String> {
    let mut found = BTreeMap::new();
    for package in lock.split("[[package]]").skip(1) {
        let value = |key: &str| {
            let line = package.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(" = \""));
            line.map(|line| line.trim_end_matches('"').to_owned())
        };
        if let (Some(name), Some(version), Some(sum)) = (value("name"), value("version"), value("checksum")) {
            found.insert((name, version), sum);
        }
    }
    found
}

fn walk(metadata: &Value, checksums: &BTreeMap<(String, String), String>) -> Vec<Linked> {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let packages: BTreeMap<String, Value> =
        list(&metadata["packages"]).into_iter().map(|package| (text(&package["id"]), package)).collect();
    let nodes: BTreeMap<String, Value> =
        list(&metadata["resolve"]["nodes"]).into_iter().map(|node| (text(&node["id"]), node)).collect();
    let key = |id: &str| packages.get(id).map(|package| (text(&package["name"]), text(&package["version"])));
    let is_macro = |id: &str| {
        let targets = packages.get(id).map(|package| list(&package["targets"])).unwrap_or_default();
        targets.iter().any(|target| list(&target["kind"]).iter().any(|kind| kind == "proc-macro"))
    };
    // What a macro or a build script needs is in nothing either.
    let mut builds_only: BTreeMap<String, bool> = BTreeMap::new();
    let roots = packages.iter().filter(|(_, package)| ROOTS.contains(&text(&package["name"]).as_str()));
    let mut open: Vec<(String, bool)> = roots.map(|(id, _)| (id.clone(), false)).collect();
    let mut needs: BTreeMap<String, BTreeSet<(String, String)>> = BTreeMap::new();
    while let Some((id, building)) = open.pop() {
        let building = building || is_macro(&id);
        match builds_only.get(&id) {
            Some(known) if building || !known => continue,
            _ => {}
        }
        builds_only.insert(id.clone(), building);
        for dependency in nodes.get(&id).map(|node| list(&node["deps"])).unwrap_or_default() {
            let kinds: Vec<Value> =
                list(&dependency["dep_kinds"]).iter().map(|kind| kind["kind"].clone()).collect();
            let (normal, build) =
                (kinds.iter().any(Value::is_null), kinds.iter().any(|kind| kind == "build"));
            if !normal && !build {
                continue;
            }
            let of = text(&dependency["pkg"]);
            needs.entry(id.clone()).or_default().extend(key(&of));
            open.push((of, building || !normal));
        }
    }
    let mut all: Vec<Linked> = Vec::new();
    for (id, builds_only) in builds_only {
        let Some(package) = packages.get(&id) else { continue };
        let (name, version) = (text(&package["name"]), text(&package["version"]));
        let manifest = PathBuf::from(text(&package["manifest_path"]));
        all.push(Linked {
            sha256: checksums.get(&(name.clone(), version.clone())).cloned(),
            // Older crates write a slash.
            license: text(&package["license"]).replace('/', " OR ").replace("  ", " "),
            repository: package["repository"].as_str().map(str::to_owned),
            sources: manifest.parent().map(PathBuf::from).unwrap_or_default(),
            needs: needs.remove(&id).unwrap_or_default(),
            name,
            version,
            builds_only,
        });
    }
    all.sort_by(|a, b| (&a.name, &a.version).cmp(&(&b.name, &b.version)));
    all
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_only_builds_and_what_only_tests_is_told_apart() {
        let package = |name: &str, kind: &str| {
            json!({"id": name, "name": name, "version": "1.0.0", "license": "MIT/Apache-2.0",
                "manifest_path": format!("/x/{name}/Cargo.toml"), "targets": [{"kind": [kind]}]})
        };
        let dependency = |name: &str, kind: Value| json!({"pkg": name, "dep_kinds": [{"kind": kind}]});
        let metadata = json!({
            "packages": [package("vmaudit-user", "bin"), package("a", "lib"), package("m", "proc-macro"),
                package("q", "lib"), package("b", "lib"), package("t", "lib")],
            "resolve": {"nodes": [
                {"id": "vmaudit-user", "deps": [dependency("a", Value::Null), dependency("m", Value::Null),
                    dependency("b", json!("build")), dependency("t", json!("dev"))]},
                {"id": "m", "deps": [dependency("q", Value::Null), dependency("a", Value::Null)]},
            ]},
        });
        let lock = "[[package]]\nname = \"a\"\nversion = \"1.0.0\"\nchecksum = \"0a\"\n";
        let all = walk(&metadata, &checksums(lock));
        let told: Vec<(&str, bool)> = all.iter().map(|one| (one.name.as_str(), one.builds_only)).collect();
        assert_eq!(told, [("a", false), ("b", true), ("m", true), ("q", true), ("vmaudit-user", false)]);
        assert_eq!((all[0].sha256.as_deref(), all[0].license.as_str()), (Some("0a"), "MIT OR Apache-2.0"));
        assert!(all[4].is_own() && all[4].needs.len() == 3, "{:?}", all[4]);
    }
}
