//! The bill of materials (SBOM) in CycloneDX 1.5: <https://cyclonedx.org/docs/1.5/json/>.

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::linked::Linked;

/// The document; `time` is RFC 3339. The same input gives the same bytes.
pub fn of(linked: &[Linked], time: &str) -> String {
    let reference = |name: &str, version: &str| format!("pkg:cargo/{name}@{version}");
    let component = |one: &Linked| {
        let purl = reference(&one.name, &one.version);
        let mut component = json!({
            "type": "library", "bom-ref": purl, "name": one.name, "version": one.version, "purl": purl,
            // What only builds is in no program.
            "scope": if one.builds_only { "excluded" } else { "required" },
        });
        if !one.license.is_empty() {
            component["licenses"] = json!([{ "expression": one.license }]);
        }
        if let Some(sum) = &one.sha256 {
            component["hashes"] = json!([{ "alg": "SHA-256", "content": sum }]);
        }
        if let Some(url) = &one.repository {
            component["externalReferences"] = json!([{ "type": "vcs", "url": url }]);
        }
        component
    };
    let main = linked.iter().find(|one| one.name == "vmaudit-user");
    let version = main.map_or("", |main| &main.version);
    let components: Vec<Value> =
        linked.iter().filter(|one| one.name != "vmaudit-user").map(component).collect();
    let dependencies: Vec<Value> = linked
        .iter()
        .map(|one| {
            let on: Vec<String> = one.needs.iter().map(|(name, version)| reference(name, version)).collect();
            json!({ "ref": reference(&one.name, &one.version), "dependsOn": on })
        })
        .collect();
    let mut document = json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {
            "timestamp": time,
            "component": {
                "type": "application", "bom-ref": reference("vmaudit-user", version), "name": "vmaudit",
                "version": version, "purl": reference("vmaudit-user", version),
                "licenses": [{ "expression": "(MIT OR Apache-2.0) AND GPL-2.0-only" }],
            },
        },
        "components": components,
        "dependencies": dependencies,
    });
    let digest = Sha256::digest(document.to_string().as_bytes());
    document["serialNumber"] = Value::from(format!("urn:uuid:{}", uuid(&digest)));
    format!("{document:#}\n")
}

/// A UUID that comes of the content (version 8, RFC 9562), so that it is the same for the same content.
fn uuid(digest: &[u8]) -> String {
    let mut bytes: Vec<u8> = digest.iter().copied().take(16).collect();
    if let [_, _, _, _, _, _, version, _, variant, ..] = bytes.as_mut_slice() {
        *version = *version & 0x0f | 0x80;
        *variant = *variant & 0x3f | 0x80;
    }
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::PathBuf;

    use super::*;

    #[test]
    fn each_reference_leads_somewhere() {
        let one = |name: &str, needs: &[&str]| Linked {
            name: name.into(),
            version: "1.0.0".into(),
            license: "MIT".into(),
            repository: None,
            sha256: (name != "vmaudit-user").then(|| "0a".into()),
            sources: PathBuf::new(),
            builds_only: name == "b",
            needs: needs.iter().map(|need| ((*need).to_owned(), "1.0.0".to_owned())).collect(),
        };
        let linked = [one("a", &[]), one("b", &["a"]), one("vmaudit-user", &["a", "b"])];
        let text = of(&linked, "2026-11-26T00:00:00Z");
        assert_eq!(text, of(&linked, "2026-11-26T00:00:00Z"));
        let document: Value = serde_json::from_str(&text).unwrap();
        let mut known: BTreeSet<&str> = document["components"]
            .as_array()
            .unwrap()
            .iter()
            .filter_map(|one| one["bom-ref"].as_str())
            .collect();
        known.extend(document["metadata"]["component"]["bom-ref"].as_str());
        for dependency in document["dependencies"].as_array().unwrap() {
            let on = dependency["dependsOn"].as_array().unwrap().iter();
            for named in on.chain([&dependency["ref"]]) {
                assert!(known.contains(named.as_str().unwrap()), "{named}");
            }
        }
        assert_eq!(document["components"][1]["scope"], "excluded");
        let serial = document["serialNumber"].as_str().unwrap();
        assert!(serial.len() == 45 && serial.as_bytes()[23] == b'8', "{serial}");
    }
}
