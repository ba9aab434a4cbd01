//! Made-up maps files, from their lines to the verdict and to every format.

use std::collections::HashMap;
use std::io::BufReader;

use crate::domain::application::Anonymizer;
use crate::domain::vma_layout::analysis::{Analysis, MAX_OWNERS, policies, stream};
use crate::domain::vma_layout::classify::MIB;
use crate::domain::vma_layout::maps_parser::Parser;
use crate::domain::vma_layout::verdict::verdict;
use crate::model::vma_layout::{Explanation, Kind, Tally};
use crate::output::format::{self, Document, Format};
use crate::output::text::page::Style;

fn explain(text: &str) -> Explanation {
    let mut notes = Vec::new();
    let mut it = stream(text.as_bytes(), u64::MAX, HashMap::new(), &Anonymizer::off(), &mut notes).unwrap();
    it.notes = notes;
    it.verdict = verdict(&it);
    it
}

fn check_sums(it: &Explanation) {
    assert_eq!(it.kinds.iter().map(|(_, tally)| tally.vmas).sum::<u64>(), it.vmas);
    assert_eq!(it.permissions.iter().map(|row| row.tally.vmas).sum::<u64>(), it.vmas);
    assert_eq!(it.sizes.iter().map(|row| row.tally.vmas).sum::<u64>(), it.vmas);
    assert_eq!(it.boundaries.iter().map(|row| row.boundaries).sum::<u64>(), it.vmas.saturating_sub(1));
    assert_eq!(it.picture.iter().map(|row| row.vmas).sum::<u64>(), it.vmas);
}

#[test]
fn one_region_split_by_mprotect() {
    let mut text = String::from("400000-401000 r-xp 00000000 08:01 7 /bin/x\n");
    for piece in 0..1000u64 {
        let start = 0x7f00_0000_0000 + piece * 0x10000;
        let mode = if piece % 2 == 0 { "rw-p" } else { "r--p" };
        text.push_str(&format!("{start:x}-{:x} {mode} 00000000 00:00 0 \n", start + 0x10000));
    }
    let it = explain(&text);
    check_sums(&it);
    assert_eq!(
        it.verdict[0],
        "1,000 of 1,001 VMAs (99.9%) are 64 KiB pieces of one anonymous region of 62.5 MiB at 0x7f0000000000, kept apart by: permissions rw-p | r--p (999)."
    );
}

#[test]
fn holes_punched_into_a_region() {
    let mut text = String::new();
    for piece in 0..500u64 {
        let start = 0x7f00_0000_0000 + piece * 0x2000;
        text.push_str(&format!("{start:x}-{:x} rw-p 00000000 00:00 0 \n", start + 0x1000));
    }
    let it = explain(&text);
    check_sums(&it);
    assert!(
        it.verdict[0].contains("4 KiB pieces") && it.verdict[0].contains("small hole"),
        "{:?}",
        it.verdict
    );
    assert!(it.verdict[1].contains("MADV_DONTNEED"));
}

#[test]
fn stacks_and_their_guards() {
    let mut text = String::new();
    for thread in 0..100u64 {
        let start = 0x7f00_0000_0000 + thread * 0x10_1000;
        text.push_str(&format!("{start:x}-{:x} ---p 00000000 00:00 0 \n", start + 0x1000));
        text.push_str(&format!("{:x}-{:x} rw-p 00000000 00:00 0 \n", start + 0x1000, start + 0x10_1000));
    }
    let it = explain(&text);
    check_sums(&it);
    assert!(
        it.verdict[0].starts_with("200 of 200 VMAs (100.0%) are 100 stacks behind guard pages"),
        "{:?}",
        it.verdict
    );
}

#[test]
fn reserve_and_commit_in_equal_pieces_is_no_stack() {
    let mut text = String::new();
    for piece in 0..800u64 {
        let start = 0x7f00_0000_0000 + piece * 0x10000;
        let (mode, flags) =
            [("rw-p", "rd wr ac"), ("---p", ""), ("---p", "ac"), ("---p", "")][piece as usize % 4];
        let line =
            format!("{start:x}-{:x} {mode} 00000000 00:00 0 \nVmFlags: mr mw {flags}\n", start + 0x10000);
        text.push_str(&line);
    }
    let it = explain(&text);
    check_sums(&it);
    assert_eq!(it.kinds[0], (Kind::Reserved, Tally { vmas: 600, bytes: 600 << 16, resident_bytes: 0 }));
    let first = &it.verdict[0];
    assert!(first.contains("flags differ: ac (VM_ACCOUNT) (400); a reserved range"), "{first}");
    assert!(it.verdict[1].contains("MAP_NORESERVE"), "{:?}", it.verdict);
}

#[test]
fn arenas_are_no_stacks() {
    let text = "7f0000000000-7f0000021000 rw-p 0 00:00 0 \n7f0000021000-7f0004000000 ---p 0 00:00 0 \n";
    assert_eq!(explain(text).kinds, [(Kind::Arena, Tally { vmas: 2, bytes: 64 * MIB, resident_bytes: 0 })]);
}

#[test]
fn deleted_files_of_one_kind() {
    let mut text = String::new();
    for file in 0..300u64 {
        let start = 0x7f00_0000_0000 + file * 0x1_0000_0000;
        text.push_str(&format!(
            "{start:x}-{:x} r--s 0 08:01 {} /d/_{file}.dvd (deleted)\n",
            start + 0x1000,
            file + 1
        ));
    }
    let it = explain(&text);
    check_sums(&it);
    assert!(
        it.verdict[0].contains("ending .dvd (deleted)") && it.verdict[1].contains("still mapped"),
        "{:?}",
        it.verdict
    );
}

#[test]
fn owners_without_end_take_bounded_memory() {
    let mut text = String::new();
    for file in 0..50_000u64 {
        let start = 0x1000 + file * 0x1000;
        text.push_str(&format!("{start:x}-{:x} r--s 0 08:01 {} /{file}.{file}\n", start + 0x1000, file + 1));
    }
    let mut analysis = Analysis::default();
    let mut parser = Parser::new(text.as_bytes());
    while let Some(mapping) = parser.next_mapping().unwrap() {
        analysis.push(mapping);
    }
    assert!(analysis.owners.len() <= MAX_OWNERS + 1 && analysis.extensions.len() <= MAX_OWNERS + 1);
    check_sums(&analysis.finish(&Anonymizer::off()));
}

/// xorshift64*: the same sequence everywhere.
struct Dice(u64);
impl Dice {
    fn next(&mut self, below: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % below.max(1)
    }
}

/// A file out of real lines, odd lines and rubbish, then bytes changed, removed, doubled and cut.
fn hostile(dice: &mut Dice) -> Vec<u8> {
    const LINES: [&str; 22] = [
        "1000-2000 rw-p 00000000 00:00 0 ",
        "2000-3000 ---p 00000000 00:00 0 ",
        "3000-13000 rw-p 00000000 00:00 0 ",
        "2000-3000 rw-s 00000000 00:01 5 /dev/zero (deleted)",
        "7f0000000000-7f0000021000 rw-p 00000000 00:00 0 ",
        "7f0000021000-7f0004000000 ---p 00000000 00:00 0 ",
        "7f0004000000-7f0004001000 r-xp 00001000 fe:01 99 /lib/a b.so.6",
        "7f0004001000-7f0004002000 r--p 00002000 fe:01 99 /lib/a b.so.6",
        "7f0004002000-7f0004003000 rw-p 00000000 00:00 0 [anon:x\x1b]0;y\x07]",
        "0-ffffffffffffffff rwxp ffffffffffffffff ffffffff:ffffffff 18446744073709551615 /x",
        "ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0                  [vsyscall]",
        "fffffffffffff000-ffffffffffffffff rw-p fffffffffffff000 08:01 7 /wrap",
        "Rss:                99999999999999999999 kB",
        "Rss:                18446744073709551615 kB",
        "Anonymous:             4 kB",
        "VmFlags: rd wr mr mw me ac sd ?? ",
        "VmFlags: rd hg de io pf mm nr \u{202e}",
        "ProtectionKey:         -1",
        "10000000000000000000-2 rw-p 0 0:0 0",
        "1000-2000 rw-p 0 0:0 99999999999999999999999 /y",
        "",
        "\u{0}\u{0}: \u{feff}-\u{202e} rwxp",
    ];
    let mut bytes = Vec::new();
    for _ in 0..dice.next(40) {
        bytes.extend_from_slice(LINES[dice.next(LINES.len())].as_bytes());
        bytes.push(b'\n');
    }
    for _ in 0..dice.next(12) {
        let length = bytes.len();
        if length == 0 {
            break;
        }
        let at = dice.next(length);
        match dice.next(5) {
            0 => bytes[at] = dice.next(256) as u8,
            1 => drop(bytes.drain(at..(at + dice.next(30)).min(length))),
            2 => {
                let piece = bytes[at..(at + dice.next(60)).min(length)].to_vec();
                let to = dice.next(length);
                bytes.splice(to..to, piece);
            }
            3 => bytes.truncate(at),
            _ => bytes.insert(at, b"\n -:0f[]()"[dice.next(10)]),
        }
    }
    bytes
}

/// Fuzzing without a fuzzer: VMAUDIT_FUZZ_RUNS sets the number of executions, VMAUDIT_FUZZ_SEED the sequence.
#[test]
fn hostile_files_neither_panic_nor_lose_count() {
    let number = |name: &str, default: u64| {
        std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
    };
    let mut dice = Dice(number("VMAUDIT_FUZZ_SEED", 0x5eed) | 1);
    for run in 0..number("VMAUDIT_FUZZ_RUNS", 3_000) {
        let input = hostile(&mut dice);
        let mut notes = Vec::new();
        // In pieces of any length, as a pipe gives them.
        let reader = BufReader::with_capacity(1 + dice.next(100), input.as_slice());
        let policies = policies(input.as_slice());
        let mut it =
            stream(reader, u64::MAX, policies, &Anonymizer::new(["x".to_owned()]), &mut notes).unwrap();
        it.verdict = verdict(&it);
        check_sums(&it);
        let style = Style { colour: false, width: [usize::MAX, 1, 80][dice.next(3)], top: 1 + dice.next(20) };
        for format in [Format::Text, Format::Json, Format::Csv] {
            let mut out = Vec::new();
            format::write(&Document::Explanation(&it), format, &style, &mut out).unwrap();
            let text = String::from_utf8(out).unwrap();
            assert!(!text.contains(['\x1b', '\x07']), "run {run}");
            assert!(format == Format::Json || !text.contains('\u{202e}'), "run {run}");
        }
    }
}

#[test]
fn policies_are_found_also_behind_a_line_that_is_too_long() {
    let long = format!("{}5000 bind:1 and more\n", "x".repeat(1 << 16));
    let input = format!(
        "1000 default anon=1\n{long}2000 bind:0 anon=1\n3000 interleave:0-1\nrubbish\n\n4000 prefer:1"
    );
    let found = policies(input.as_bytes());
    let mut found: Vec<_> = found.into_iter().collect();
    found.sort();
    let expected = [(0x2000, "bind:0"), (0x3000, "interleave:0-1"), (0x4000, "prefer:1")];
    assert_eq!(found, expected.map(|(at, policy)| (at, policy.to_owned())));
}

#[test]
fn a_cut_file_gets_no_shares_of_the_whole() {
    let mut text = String::new();
    for piece in 0..500u64 {
        let start = 0x7f00_0000_0000 + piece * 0x2000;
        text.push_str(&format!("{start:x}-{:x} rw-p 00000000 00:00 0 \n", start + 0x1000));
    }
    let whole = explain(&text);
    assert!(whole.complete && whole.verdict[0].starts_with("500 of 500 VMAs (100.0%) are"), "{whole:?}");
    text.push_str("7f00");
    let cut = explain(&text);
    assert!(!cut.complete && cut.verdict[0].starts_with("500 of the 500 VMAs read are"), "{cut:?}");
    assert!(!cut.verdict.concat().contains('%'), "{cut:?}");
}
