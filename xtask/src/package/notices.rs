//! The licences of what is linked in, in full, as most of them ask for.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::linked::Linked;

/// Beginnings of the names of files that hold a licence or a notice.
const NAMES: [&str; 6] = ["license", "licence", "copying", "notice", "copyright", "unlicense"];

/// The text; `beside`: other files that have to be in it, with what they are of.
pub fn text(linked: &[Linked], rustc: &str, beside: &[(&str, PathBuf)]) -> Result<String> {
    let mut texts: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut table = String::new();
    for one in linked.iter().filter(|one| !one.builds_only && !one.is_own()) {
        let name = format!("{} {}", one.name, one.version);
        let found = files(&one.sources)?;
        let without = if found.is_empty() { "; its archive has no file of it" } else { "" };
        let _ = writeln!(table, "  {name}: {}{without}", one.license);
        for text in found {
            texts.entry(text).or_default().push(name.clone());
        }
    }
    for (name, path) in beside {
        let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        let _ = writeln!(table, "  {name}: see below");
        texts.entry(text.trim().to_owned()).or_default().push((*name).to_owned());
    }
    let mut all = format!(
        "What others wrote and is linked into vmaudit, with its licence (SPDX). Where a licence gives a choice,\n\
         vmaudit is distributed under any of them.\n\n{table}  the standard library of Rust {rustc}: MIT OR Apache-2.0, \
         copyright The Rust Project Developers\n"
    );
    for (text, names) in &texts {
        let _ = write!(all, "\n{}\n{}:\n\n{text}\n", "-".repeat(80), names.join(", "));
    }
    Ok(all)
}

/// Texts of the files of licences in a folder.
fn files(folder: &Path) -> Result<Vec<String>> {
    let entries = fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().to_lowercase();
        if NAMES.iter().any(|start| name.starts_with(start)) && entry.path().is_file() {
            let text = fs::read(entry.path())?;
            found.push(String::from_utf8_lossy(&text).replace('\r', "").trim().to_owned());
        }
    }
    found.sort();
    Ok(found)
}
