//! Mappings that stand in a file: a copy of maps or smaps, the log of a JVM that died, a core file.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Cursor, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};

use super::ExplainOptions;
use super::core::{self, Core};
use super::jvm_log::{self, JvmLog};
use crate::domain::application::Anonymizer;
use crate::domain::vma_layout::analysis::{self, Beside, Mappings as _, policies};
use crate::domain::vma_layout::maps_parser::parse_header;
use crate::domain::vma_layout::verdict::conclude;
use crate::model::vma_layout::{Explanation, Origin};
use crate::os::input::{self, Input};

/// What is read instead of a process; `-` is standard input.
#[derive(Clone, Debug)]
pub struct Recorded {
    /// A file of any of the kinds, told by what it holds.
    pub any: Option<PathBuf>,
    /// A copy of /proc/PID/maps.
    pub maps: Option<PathBuf>,
    /// A copy of /proc/PID/smaps; it holds all that maps holds, so it is used alone.
    pub smaps: Option<PathBuf>,
    /// A copy of /proc/PID/numa_maps beside it.
    pub numa_maps: Option<PathBuf>,
}

/// Bytes by which its kind is told.
const HEAD: u64 = 64 << 10;

/// What such a file may be packed by: what it begins with, and who unpacks it.
const PACKED: [(&[u8], &str); 4] = [
    (&[0x28, 0xb5, 0x2f, 0xfd], "zstd -d"),
    (&[0x1f, 0x8b], "gunzip"),
    (&[0xfd, b'7', b'z', b'X', b'Z'], "unxz"),
    (&[0x04, 0x22, 0x4d, 0x18], "lz4 -d"),
];

/// Explains what was recorded. Errors: no file was named, it cannot be read, or it holds no mappings.
pub fn recorded(
    files: &Recorded,
    options: &ExplainOptions,
    anonymizer: &Anonymizer,
) -> anyhow::Result<Explanation> {
    let named = files.any.as_deref().or(files.smaps.as_deref()).or(files.maps.as_deref());
    let path = named.context("neither a process nor a file was given")?;
    let policies = match &files.numa_maps {
        Some(path) => policies(open(path).with_context(|| format!("cannot read {}", path.display()))?.1),
        None => HashMap::new(),
    };
    let mut notes = Vec::new();
    if files.smaps.is_some() && files.maps.is_some() {
        notes.push("smaps holds all that maps holds: the maps file was not read.".to_owned());
    }
    let beside = Beside { max_vmas: options.max_vmas, policies, anonymizer: anonymizer.clone() };
    let explanation = read(path, beside, &mut notes, files.any.is_some());
    let mut explanation = explanation.with_context(|| format!("cannot read {}", path.display()))?;
    if explanation.vmas == 0 {
        bail!("{} holds no mappings: it is {NO_KIND}", path.display());
    }
    let subject = format!("{}{}", explanation.subject, path.display());
    explanation.subject = anonymizer.apply(&subject).into_owned();
    explanation.notes.extend(notes);
    Ok(explanation)
}

const NO_KIND: &str = "no copy of maps or smaps, no log of a JVM that died and no core file";

/// Opens a file: the file itself, if it can be read anywhere, and all that is in it.
fn open(path: &Path) -> std::io::Result<(Option<File>, Box<dyn BufRead>)> {
    Ok(match input::open(path)? {
        Input::File(file) => {
            let again = file.try_clone().ok();
            (again, Box::new(BufReader::with_capacity(256 << 10, file)))
        }
        Input::Stream(file) => (None, Box::new(BufReader::with_capacity(256 << 10, file))),
    })
}

/// `by_content`: a text is one of mappings only if its beginning shows one.
fn read(
    path: &Path,
    beside: Beside,
    notes: &mut Vec<String>,
    by_content: bool,
) -> anyhow::Result<Explanation> {
    let (file, mut reader) = open(path)?;
    let mut head = Vec::new();
    reader.by_ref().take(HEAD).read_to_end(&mut head)?;
    if let Some((_, tool)) = PACKED.iter().find(|(magic, _)| head.starts_with(magic)) {
        bail!("it is packed: unpack it first ({tool}; systemd's cores by coredumpctl dump)");
    }
    if head.starts_with(core::MAGIC) {
        let file = file.context("a core file cannot be read from a pipe: give its name")?;
        return of_core(&file, beside, notes);
    }
    let log = jvm_log::is_one(&head);
    if by_content && !log && !head.split(|&b| b == b'\n').any(|line| parse_header(line).is_some()) {
        bail!("it is {NO_KIND}");
    }
    let text = Cursor::new(head).chain(reader);
    if log {
        return of_jvm(text, beside, notes);
    }
    let mut explanation = analysis::read(text, beside, None, notes)?;
    conclude(&mut explanation);
    Ok(explanation)
}

fn of_jvm(text: impl BufRead, beside: Beside, notes: &mut Vec<String>) -> anyhow::Result<Explanation> {
    let mut log = JvmLog::new(text);
    let mut explanation = analysis::stream(&mut log, beside, |_| None, notes)?;
    // The limit stands behind the mappings: so many more lines are read as there are.
    while log.next_mapping()?.is_some() {}
    if explanation.vmas == 0 {
        bail!("it is the log of a JVM, but its mappings (\"Dynamic libraries:\") are not in it");
    }
    let facts = log.facts();
    explanation.origin = Origin::JvmLog;
    explanation.max_map_count = facts.max_map_count;
    explanation.pid = facts.pid;
    let time = facts.time.as_ref().map(|time| format!(", {time}")).unwrap_or_default();
    explanation.subject = format!("JVM that died{time}: ");
    conclude(&mut explanation);
    match facts.max_map_count {
        None => explanation.notes.push("The log does not hold vm.max_map_count.".to_owned()),
        Some(limit) if facts.says_memory && explanation.vmas.saturating_add(64) >= limit => {
            let why = "Its own text, that memory is insufficient, does not name it: at this limit mmap fails however much memory is free.";
            explanation.verdict.insert(1.min(explanation.verdict.len()), why.to_owned());
        }
        Some(_) => {}
    }
    Ok(explanation)
}

fn of_core(file: &File, beside: Beside, notes: &mut Vec<String>) -> anyhow::Result<Explanation> {
    let mut core = Core::new(file)?;
    let threads = |core: &Core<'_, File>| Some(core.facts.threads).filter(|&threads| threads > 0);
    let mut explanation = analysis::stream(&mut core, beside, threads, notes)?;
    explanation.origin = Origin::Core;
    explanation.pid = core.facts.pid;
    let comm = core.facts.comm.as_deref().unwrap_or("an unknown program");
    explanation.subject = format!("core of {comm}: ");
    // One name is taken for one file there.
    explanation.owners.iter_mut().for_each(|row| row.objects = None);
    explanation.notes.push(
        "A core file tells neither the limit nor which mappings are shared; memory is called anonymous if it has no file."
            .to_owned(),
    );
    conclude(&mut explanation);
    if !explanation.permissions.iter().any(|row| row.name == "---p") {
        let why = "No range without access is in it, which every program has: gdb writes them as read-only (r--p), so what is r--p here may be without access, and nothing is advised.";
        explanation.notes.push(why.to_owned());
        explanation.advice.clear();
    }
    Ok(explanation)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &[u8], any: bool) -> anyhow::Result<Explanation> {
        let mut path = std::env::temp_dir();
        path.push(format!("vmaudit-file-{}-{:x}", std::process::id(), text.len()));
        std::fs::write(&path, text)?;
        let (any, maps) = if any { (Some(path.clone()), None) } else { (None, Some(path.clone())) };
        let files = Recorded { any, maps, smaps: None, numa_maps: None };
        let options = ExplainOptions { details: super::super::Details::Auto, max_vmas: 1000 };
        let found = recorded(&files, &options, &Anonymizer::off());
        std::fs::remove_file(path)?;
        found
    }

    #[test]
    fn what_holds_no_mappings_is_said_in_one_sentence() {
        for (text, why) in [
            (&b"root:x:0:0\n"[..], "no copy of maps"),
            (b"", "no copy of maps"),
            (b"\x28\xb5\x2f\xfdrest", "unpack it first (zstd -d"),
            (b"\x7fELF", "ends in its header"),
            (&[b"\x7fELF\x02\x01", &[0; 100][..]].concat(), "no core file"),
        ] {
            let error = format!("{:#}", shown(text, true).unwrap_err());
            assert!(error.contains(why) && error.lines().count() == 1, "{error}");
        }
        assert!(format!("{:#}", shown(b"junk\n", false).unwrap_err()).contains("holds no mappings"));
    }

    #[test]
    fn a_copy_with_a_prompt_above_it_is_one() {
        let it = shown(b"$ cat /proc/7/maps\n1000-2000 rw-p 00000000 00:00 0 \n", true).unwrap();
        assert_eq!((it.vmas, it.damage.lines, it.origin), (1, 1, Origin::Copy));
    }
}
