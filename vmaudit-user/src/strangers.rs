//! What reads strangers' bytes: each input as one function of bytes, with what must hold whatever they are.
//!
//! `cargo test strangers` calls them on random bytes and on damaged samples, `fuzz/` on what a fuzzer makes of these. A
//! property that does not hold is a panic, so that both notice.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "a property that does not hold fails by panicking, and this is in no build for users"
)]

mod programs;
pub(crate) mod recordings;
mod talk;
#[cfg(test)]
mod tests;

use std::io::{BufReader, Read};

use vmaudit_common::call::CALLS;

use crate::domain::application::{Anonymizer, application, arguments};
use crate::domain::arguments as call_arguments;
use crate::domain::cgroup::Groups;
use crate::domain::vma_layout::analysis::{self, Beside, Mappings};
use crate::domain::vma_layout::maps_parser::{Flag, Mapping, Parser};
use crate::domain::vma_layout::verdict::conclude;
use crate::model::limit::Fate;
use crate::model::vma_layout::Damage;
use crate::os::{procfs, slabs, sysctl_conf};
use crate::output::format::{Document, Format, write};
use crate::output::text::page::Style;
use crate::source::vma_layout::core::Core;
use crate::source::vma_layout::jvm_log::JvmLog;
use crate::text::sanitize::steers;

pub use programs::{btf, perf_map, program, ring_record};
pub use recordings::{
    json_report, recorded_changes, recorded_events, recorded_header, recorded_packed, recording,
};
pub use talk::{budgets, environment, flight, pattern, request, symbol_answers, wish};

/// An input's name and its function.
pub type Input = (&'static str, fn(&[u8]));

/// All of them; the targets of `fuzz/` bear these names.
pub const INPUTS: [Input; 27] = [
    ("maps", maps),
    ("explained", explained),
    ("numa_maps", numa_maps),
    ("jvm_log", jvm_log),
    ("core_file", core_file),
    ("stat", stat),
    ("cgroup", cgroup),
    ("cmdline", cmdline),
    ("slabinfo", slabinfo),
    ("sysctl_file", sysctl_file),
    ("perf_map", perf_map),
    ("program", program),
    ("btf", btf),
    ("ring_record", ring_record),
    ("recording", recording),
    ("recorded_header", recorded_header),
    ("recorded_events", recorded_events),
    ("recorded_packed", recorded_packed),
    ("recorded_changes", recorded_changes),
    ("json_report", json_report),
    ("budgets", budgets),
    ("pattern", pattern),
    ("environment", environment),
    ("wish", wish),
    ("request", request),
    ("symbol_answers", symbol_answers),
    ("flight", flight),
];

/// Nothing in a text for people steers their terminal.
#[track_caller]
pub(crate) fn assert_harmless(text: &str) {
    let bad = text.chars().find(|&c| c != '\n' && steers(c));
    assert_eq!(bad, None, "a character that steers a terminal came through: {text:?}");
}

/// A line is cut by the parser there (bytes).
const LONG: usize = 20 * 1024;

fn parsed(reader: impl std::io::BufRead) -> (Vec<Mapping>, Damage) {
    let mut parser = Parser::new(reader);
    let mut all = Vec::new();
    while let Some(mapping) = parser.next_mapping().expect("bytes in memory can be read") {
        all.push(mapping);
    }
    (all, parser.damage())
}

/// As the kernel prints it (fs/proc/task_mmu.c:show_map_vma, show_smap).
fn printed(mapping: &Mapping) -> String {
    let Mapping { start, end, permissions, offset, device: (major, minor), inode, name, .. } = mapping;
    let mut text =
        format!("{start:08x}-{end:08x} {permissions} {offset:08x} {major:02x}:{minor:02x} {inode} {name}\n");
    if let Some(details) = &mapping.details {
        for (key, bytes) in
            [("Rss", details.rss_bytes), ("Anonymous", details.anonymous_bytes), ("Swap", details.swap_bytes)]
        {
            // What is larger than a number of bytes is held as the largest one.
            text += &format!("{key}: {} kB\n", bytes.div_ceil(1024));
        }
        if let Some(key) = details.protection_key {
            text += &format!("ProtectionKey: {key}\n");
        }
        if details.has_flags {
            let flags: Vec<&str> = details.flags.iter().map(Flag::name).collect();
            text += &format!("VmFlags: {}\n", flags.join(" "));
        }
    }
    text
}

/// /proc/PID/maps and smaps: what is understood is printed and understood as the same; no more mappings and no more
/// damage than lines; pieces in which the bytes come make no difference; a beginning gives the beginning.
pub fn maps(bytes: &[u8]) {
    let (all, damage) = parsed(bytes);
    let lines = bytes.split(|&b| b == b'\n').count() as u64;
    assert!(all.len() as u64 + damage.lines <= lines && damage.cut <= lines, "{damage:?}");
    assert_eq!(parsed(BufReader::with_capacity(7, bytes)), (all.clone(), damage));
    for mapping in &all {
        assert!(mapping.start < mapping.end && !mapping.name.contains('\n'));
        let text = printed(mapping);
        if text.len() < LONG {
            assert_eq!(parsed(text.as_bytes()), (vec![mapping.clone()], Damage::default()), "{text:?}");
        }
    }
    let half = bytes.len() / 2;
    let whole_lines = bytes[..half].iter().rposition(|&b| b == b'\n').map_or(0, |at| at + 1);
    let (some, _) = parsed(&bytes[..whole_lines]);
    // Fields of the last one may follow.
    let settled = some.len().saturating_sub(1);
    assert_eq!(some[..settled], all[..settled]);
}

/// The same as `explain` shows it: each sum is the whole, and what is shown steers no terminal.
pub fn explained(bytes: &[u8]) {
    let (all, _) = parsed(bytes);
    let policies = analysis::policies(bytes);
    let mut notes = Vec::new();
    let beside = Beside { max_vmas: 1000, policies, anonymizer: Anonymizer::new(["ann".to_owned()]) };
    let threads = bytes.first().map(|&byte| u64::from(byte)).filter(|&threads| threads > 0);
    let mut it = analysis::read(bytes, beside, threads, &mut notes).expect("bytes in memory");
    assert_eq!(it.vmas, all.len().min(1000) as u64);
    let sums = [
        it.kinds.iter().map(|(_, tally)| tally.vmas).sum::<u64>(),
        it.permissions.iter().map(|row| row.tally.vmas).sum(),
        it.sizes.iter().map(|row| row.tally.vmas).sum(),
        it.picture.iter().map(|row| row.vmas).sum(),
        it.picture.iter().flat_map(|row| &row.cells).sum(),
        it.boundaries.iter().map(|row| row.boundaries).sum::<u64>() + u64::from(it.vmas > 0),
        it.total.vmas,
    ];
    assert_eq!(sums, [it.vmas; 7]);
    assert!(it.owners.iter().map(|row| row.tally.vmas).sum::<u64>() <= it.vmas);
    it.notes = notes;
    conclude(&mut it);
    for format in [Format::Text, Format::Json, Format::Csv] {
        let mut shown = Vec::new();
        write(&Document::Explanation(&it, true), format, &Style::default(), &mut shown)
            .expect("memory can be written to");
        assert_harmless(std::str::from_utf8(&shown).expect("text"));
    }
}

fn all_of(mappings: &mut impl Mappings) -> Vec<Mapping> {
    let mut all = Vec::new();
    while let Some(mapping) = mappings.next_mapping().expect("bytes in memory can be read") {
        assert!(mapping.start < mapping.end && !mapping.name.contains('\n'));
        all.push(mapping);
    }
    all
}

/// A JVM's log: no more mappings than lines, the same in whatever pieces its bytes come; what it tells is short.
pub fn jvm_log(bytes: &[u8]) {
    let mut log = JvmLog::new(bytes);
    let all = all_of(&mut log);
    assert!(all.len() <= bytes.split(|&b| b == b'\n').count());
    let mut again = JvmLog::new(BufReader::with_capacity(7, bytes));
    assert_eq!(all_of(&mut again), all);
    assert_eq!((again.facts(), again.damage()), (log.facts(), log.damage()));
    assert!(log.facts().time.as_ref().is_none_or(|time| time.chars().count() <= 64));
}

/// A core file: no more mappings than there is room for in it, whatever number it claims.
pub fn core_file(bytes: &[u8]) {
    let Ok(mut core) = Core::new(bytes) else { return };
    assert!(core.facts.threads <= bytes.len() as u64 / 12);
    assert!(all_of(&mut core).len() <= bytes.len() / 56);
}

/// /proc/PID/numa_maps: no more policies than lines, each of which is read again as it is.
pub fn numa_maps(bytes: &[u8]) {
    let found = analysis::policies(bytes);
    assert!(found.len() <= bytes.split(|&b| b == b'\n').count());
    for (address, policy) in found {
        assert!(!policy.is_empty() && policy != "default" && !policy.contains([' ', '\n']), "{policy:?}");
        let line = format!("{address:x} {policy} file=/x\n");
        // Longer ones are cut.
        if line.len() <= 256 {
            assert_eq!(analysis::policies(line.as_bytes()).get(&address), Some(&policy));
        }
    }
}

/// /proc/PID/stat: what is understood is printed and understood as the same.
pub fn stat(bytes: &[u8]) {
    let Some(it) = procfs::parse_stat(bytes) else { return };
    let procfs::Stat { comm, state, ppid, kernel_thread, exiting, threads, start_ticks, image } = &it;
    let (code, stack) = image;
    let flags = if *kernel_thread { 0x0020_0000 } else { 0 } | if *exiting { 4 } else { 0 };
    let text = format!(
        "1 ({comm}) {state} {ppid} 1 1 0 -1 {flags} 0 0 0 0 0 0 0 0 20 0 {threads} 0 {start_ticks} 0 0 0 {code} 0 {stack}\n"
    );
    assert_eq!(procfs::parse_stat(text.as_bytes()).as_ref(), Some(&it), "{text:?}");
}

/// /proc/PID/cgroup: the path is a line's end as it stands there, and is read again from a line of its own.
pub fn cgroup(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let Some(path) = Groups::parse(&text).shown else { return };
    assert!(text.split('\n').any(|line| line.ends_with(&format!(":{path}"))), "{path:?} is not in {text:?}");
    assert_eq!(Groups::parse(&format!("0::{path}\n")).shown, Some(path));
}

/// /proc/PID/cmdline: arguments hold nothing that was not there; what hides users' names leaves none, however often.
pub fn cmdline(bytes: &[u8]) {
    let all = arguments(bytes);
    assert!(!all.iter().any(|argument| argument.contains('\0')), "{all:?}");
    // Each byte that is no UTF-8 becomes three.
    assert!(all.iter().map(String::len).sum::<usize>() <= 3 * bytes.len());
    let text = String::from_utf8_lossy(bytes);
    for exe in [None, Some(text.as_ref())] {
        let app = application(exe, &all, &text);
        for names in [["ann"], ["user"], ["a"]] {
            let hidden = Anonymizer::new(names.map(str::to_owned));
            let once = hidden.apply(&app).into_owned();
            assert_eq!(hidden.apply(&once), once, "of {app:?}");
        }
    }
    // The rest is arguments of system calls.
    let mut numbers = [0u64; 6];
    for (slot, bytes) in numbers.iter_mut().zip(bytes.chunks_exact(8)) {
        *slot = u64::from_le_bytes(bytes.try_into().expect("eight"));
    }
    let call = usize::from(bytes.first().copied().unwrap_or(0)) % CALLS.len();
    let mut named = call_arguments::by_name(call as u8, &numbers);
    assert!(named.len() <= 6);
    call_arguments::hide_addresses(&mut named);
    assert!(named.get("addr").is_none_or(serde_json::Value::is_null), "{named:?}");
}

/// /proc/slabinfo: what is understood is printed and understood as the same. Counted as lines of maps as well: however
/// the bytes come, there are as many.
pub fn slabinfo(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    for line in text.lines() {
        if let Some(slab) = slabs::row(line, "maple_node") {
            let printed = format!(
                "maple_node {} {} {} {} {} : tunables 0 0 0",
                slab.active,
                slab.total,
                slab.size.object_bytes,
                slab.size.objects_per_slab,
                slab.size.pages_per_slab
            );
            assert_eq!(slabs::row(&printed, "maple_node"), Some(slab));
        }
    }
    let mut buffer = procfs::CountBuffer::default();
    let lines = buffer.count(&mut &*bytes).expect("bytes in memory");
    let newlines = bytes.iter().filter(|&&b| b == b'\n').count() as u64;
    assert!(lines <= newlines && newlines <= lines + 1);
    assert_eq!(buffer.count(&mut Few(bytes)).expect("bytes in memory"), lines);
}

/// Gives its bytes seven by seven.
struct Few<'a>(&'a [u8]);

impl Read for Few<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let room = buffer.len().min(7);
        self.0.read(&mut buffer[..room])
    }
}

/// A file of sysctl.d: a line that sets the limit says so in its text, is read again from a line of its own, and one
/// line at most wins, with the value that is applied last.
pub fn sysctl_file(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let mut settings = Vec::new();
    let excluded = sysctl_conf::parse("etc/sysctl.d/x.conf", &text, Fate::Replaced, &mut settings);
    sysctl_conf::decide(&mut settings, excluded);
    assert!(settings.iter().filter(|it| it.fate == Fate::Wins).count() <= 1);
    assert_eq!(
        settings.iter().any(|it| it.fate == Fate::Wins),
        settings.iter().any(|it| !(it.pattern && excluded))
    );
    for it in &settings {
        let line = text.lines().nth(it.line as usize - 1).expect("its line is there");
        assert!(line.trim_end().ends_with(&it.text));
        assert!(it.value.is_none_or(|value| value <= i32::MAX as u64));
        let mut again = Vec::new();
        let alone = format!("vm.max_map_count = {}", it.text);
        assert!(!sysctl_conf::parse("x", &alone, Fate::Replaced, &mut again));
        assert_eq!(again.iter().map(|it| it.value).collect::<Vec<_>>(), [it.value], "{alone:?}");
    }
    // The same as a pattern, against the plainest way to match one.
    let mut halves = bytes.splitn(2, |&b| b == b'=');
    let (pattern, key) = (halves.next().unwrap_or_default(), halves.next().unwrap_or_default());
    if pattern.len() <= 12 && key.len() <= 12 {
        assert_eq!(sysctl_conf::matches(pattern, key), plainly(pattern, key), "{pattern:?} {key:?}");
    }
}

/// A shell pattern by trying everything.
fn plainly(pattern: &[u8], text: &[u8]) -> bool {
    match pattern.split_first() {
        None => text.is_empty(),
        Some((b'*', rest)) => {
            (0..=text.len()).take_while(|&n| !text[..n].contains(&b'/')).any(|n| plainly(rest, &text[n..]))
        }
        Some((b'[', rest)) => {
            let Some(end) = rest.iter().position(|&b| b == b']') else { return false };
            text.first().is_some_and(|&b| b != b'/') && plainly(&rest[end + 1..], &text[1..])
        }
        Some((b'?', rest)) => text.first().is_some_and(|&b| b != b'/') && plainly(rest, &text[1..]),
        Some((letter, rest)) => text.first() == Some(letter) && plainly(rest, &text[1..]),
    }
}
