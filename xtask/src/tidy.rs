//! `cargo xtask tidy`: what the compiler does not hold. Layers of `vmaudit-user`, the size of rooms, length of functions,
//! a head for each file.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use crate::command::{say, workspace};

/// Folders of the library, and which of them each may import. The order is that of the layers, low to high.
const LAYERS: [(&str, &[&str]); 9] = [
    ("text", &["text"]),
    ("model", &["text", "model"]),
    ("domain", &["text", "model", "domain"]),
    ("os", &["text", "model", "domain", "os"]),
    ("source", &["text", "model", "domain", "os", "source"]),
    ("enrich", &["text", "model", "domain", "os", "source", "enrich"]),
    ("launch", &["text", "model", "domain", "os", "source", "launch"]),
    ("session", &["text", "model", "domain", "os", "source", "enrich", "launch", "session"]),
    ("output", &["text", "model", "output"]),
];
/// All that the top of the repository holds, but for hidden files and what is built: what is written there by mistake stands
/// out.
const TOP: [&str; 15] = [
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE-APACHE",
    "LICENSE-GPL2",
    "LICENSE-MIT",
    "README.md",
    "SECURITY.md",
    "clippy.toml",
    "deny.toml",
    "rustfmt.toml",
    "target",
    "tests",
    "xtask",
];
/// Most lines of a file, its unit tests not counted.
const ROOM: usize = 500;
/// Most lines of a file of tests.
const TESTS: usize = 800;

/// Reads the sources; the error lists everything that is wrong.
pub fn run() -> Result<()> {
    let root = workspace()?;
    let mut tops = BTreeSet::new();
    for entry in fs::read_dir(&root)? {
        tops.insert(entry?.file_name().to_string_lossy().into_owned());
    }
    let mut wrong = strange_at_top(&tops);
    let mut files = Vec::new();
    for part in ["vmaudit-common/src", "vmaudit-ebpf/src", "vmaudit-user/src", "xtask/src", "tests"] {
        rust_files(&root.join(part), &mut files)?;
    }
    for file in &files {
        let text = fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
        let shown = file.strip_prefix(&root).unwrap_or(file).display().to_string();
        wrong.extend(complaints(&shown, &text).into_iter().map(|why| format!("{shown}: {why}")));
    }
    if !wrong.is_empty() {
        bail!("{} things are out of order:\n  {}", wrong.len(), wrong.join("\n  "));
    }
    say!("{} files are in order", files.len());
    Ok(())
}

fn strange_at_top(names: &BTreeSet<String>) -> Vec<String> {
    let known = |name: &str| name.starts_with('.') || name.starts_with("vmaudit-") || TOP.contains(&name);
    let strange = names.iter().filter(|name| !known(name));
    strange.map(|name| format!("{name}: nothing of that name belongs at the top")).collect()
}

fn rust_files(folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    let entries = fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    for entry in entries {
        let path = entry?.path();
        if path.is_dir() {
            if !path.ends_with("target") {
                rust_files(&path, files)?;
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files.sort();
    Ok(())
}

/// What is wrong with a file.
fn complaints(path: &str, text: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    let is_test = path.starts_with("tests/") || path.ends_with("tests.rs") || path.contains("/tests/");
    let code = code_of(text);
    let (lines, most) = if is_test { (text.lines().count(), TESTS) } else { (code.lines().count(), ROOM) };
    if lines > most {
        wrong.push(format!("{lines} lines, more than {most}: is it still one room?"));
    }
    if !is_test && !text.starts_with("//!") {
        wrong.push("it does not begin by saying what it is for (//!)".to_owned());
    }
    if let Some(inside) = path.strip_prefix("vmaudit-user/src/")
        && !is_test
    {
        let room = inside.split(['/', '.']).next().unwrap_or_default();
        if let Some((_, allowed)) = LAYERS.iter().find(|(layer, _)| *layer == room) {
            for used in imports(code) {
                if !allowed.contains(&used.as_str()) {
                    wrong.push(format!("{room} must not import {used}"));
                }
            }
        }
    }
    wrong
}

/// The part before the unit tests.
fn code_of(text: &str) -> &str {
    text.find("#[cfg(test)]\nmod tests").map_or(text, |at| &text[..at])
}

/// Top folders that `crate::` paths name outside of comments.
fn imports(code: &str) -> BTreeSet<String> {
    let code: String =
        code.lines().map(|line| line.split("//").next().unwrap_or_default()).collect::<Vec<_>>().join("\n");
    let mut found = BTreeSet::new();
    for (at, _) in code.match_indices("crate::") {
        let before = code[..at].chars().next_back();
        if before.is_some_and(|c| c.is_alphanumeric() || c == '_') {
            continue;
        }
        let rest = &code[at + "crate::".len()..];
        if let Some(group) = rest.strip_prefix('{') {
            found.extend(heads(group));
        } else {
            found.extend(head(rest));
        }
    }
    found
}

/// First segments of the members of a `use` group, whose opening brace has been read.
fn heads(group: &str) -> Vec<String> {
    let mut depth = 0;
    let mut heads = Vec::new();
    let mut start = 0;
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => {
                heads.extend(head(group[start..at].trim_start()));
                break;
            }
            '}' => depth -= 1,
            ',' if depth == 0 => {
                heads.extend(head(group[start..at].trim_start()));
                start = at + 1;
            }
            _ => {}
        }
    }
    heads
}

fn head(path: &str) -> Option<String> {
    let head: String = path.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
    (!head.is_empty()).then_some(head)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_else_at_the_top() {
        let names = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
        assert_eq!(
            strange_at_top(&names(&["README.md", ".git", "target", "tests", "vmaudit-user"])),
            [""; 0]
        );
        assert_eq!(strange_at_top(&names(&["9", "README.md"])).len(), 1);
    }

    #[test]
    fn imports_are_seen_however_they_are_written() {
        let code = "use crate::{\n    output::{self, json},\n    text,\n};\nuse crate::model::report;\nfn f() { crate::os::x() } // crate::not_me\nuse aya_crate::y;";
        let expected = ["model", "os", "output", "text"].map(str::to_owned);
        assert_eq!(imports(code), BTreeSet::from(expected));
    }

    #[test]
    fn an_arrow_upwards_is_seen() {
        let wrong = complaints("vmaudit-user/src/domain/x.rs", "//! X.\nuse crate::output::say;\n");
        assert_eq!(wrong, ["domain must not import output"]);
        assert!(complaints("vmaudit-user/src/output/x.rs", "//! X.\nuse crate::model::report;\n").is_empty());
        let in_tests = "//! X.\n#[cfg(test)]\nmod tests {\n    use crate::output::x;\n}\n";
        assert!(complaints("vmaudit-user/src/domain/x.rs", in_tests).is_empty());
    }

    #[test]
    fn long_rooms_are_seen() {
        let long = format!("//! X.\n{}", "fn f() {}\n".repeat(ROOM));
        assert_eq!(complaints("xtask/src/x.rs", &long).len(), 1);
        let tested = format!("//! X.\n#[cfg(test)]\nmod tests {{\n{}}}\n", "fn f() {}\n".repeat(ROOM));
        assert!(complaints("xtask/src/x.rs", &tested).is_empty());
    }
}
