//! Made-up maps files, from their lines to the verdict and to every format.

use std::io::BufReader;

use crate::domain::application::Anonymizer;
use crate::domain::vma_layout::analysis::{Analysis, Beside, policies, read};
use crate::domain::vma_layout::classify::MIB;
use crate::domain::vma_layout::maps_parser::Parser;
use crate::domain::vma_layout::names::MAX_OWNERS;
use crate::domain::vma_layout::verdict::conclude;
use crate::model::vma_layout::{Explanation, Kind, Tally};
use crate::output::format::{self, Document, Format};
use crate::output::text::page::Style;

fn explain(text: &str) -> Explanation {
    explain_with(text, None)
}

fn explain_with(text: &str, threads: Option<u64>) -> Explanation {
    let mut notes = Vec::new();
    let beside = Beside { max_vmas: u64::MAX, ..Beside::default() };
    let mut it = read(text.as_bytes(), beside, threads, &mut notes).unwrap();
    it.notes = notes;
    conclude(&mut it);
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
    assert!(
        it.advice[0].text.contains("MADV_DONTNEED") && it.advice[0].fewer == Some(499),
        "{:?}",
        it.advice
    );
}

#[test]
fn stacks_and_their_guards() {
    let mut text = String::new();
    for thread in 0..100u64 {
        let start = 0x7f00_0000_0000 + thread * 0x10_1000;
        text.push_str(&format!("{start:x}-{:x} ---p 00000000 00:00 0 \n", start + 0x1000));
        text.push_str(&format!("{:x}-{:x} rw-p 00000000 00:00 0 \n", start + 0x1000, start + 0x10_1000));
    }
    for (threads, whose) in [(None, "100 threads or fibers"), (Some(101), "100 threads")] {
        let it = explain_with(&text, threads);
        check_sums(&it);
        let expected = format!(
            "200 of 200 VMAs (100.0%) are stacks behind guard pages: two for each of {whose}, its stack and the guard page."
        );
        assert_eq!(it.verdict[0], expected);
        assert_eq!(it.verdict.concat().contains("Their shape says so"), threads.is_none());
        assert_eq!(it.advice[0].fewer, Some(100));
        assert_eq!(it.kinds.iter().map(|(kind, _)| *kind).collect::<Vec<_>>(), [Kind::Stack, Kind::Guard]);
    }
    // In a process with one thread the same is no stack.
    let it = explain_with(&text, Some(1));
    check_sums(&it);
    assert!(it.verdict.concat().contains("one thread: these are no stacks"), "{:?}", it.verdict);
}

/// A region whose pieces have as many sizes as an allocator gives, with holes decommitted by mmap(PROT_NONE).
#[test]
fn decommitted_holes_are_no_stacks() {
    let mut dice = Dice(7);
    let (mut text, mut at) = (String::new(), 0x7f00_0000_0000u64);
    for _ in 0..1000 {
        let (live, hole) = (4096 * (4 + dice.next(24) as u64), 4096 * (1 + dice.next(3) as u64));
        text.push_str(&format!("{at:x}-{:x} rw-p 00000000 00:00 0 \n", at + live));
        text.push_str(&format!("{:x}-{:x} ---p 00000000 00:00 0 \n", at + live, at + live + hole));
        at += live + hole;
    }
    for threads in [None, Some(1), Some(2000)] {
        let it = explain_with(&text, threads);
        check_sums(&it);
        assert_eq!(it.stacks.stacks, 0, "{threads:?}");
        let said = it.verdict.concat();
        assert!(said.contains("999 short ranges without access inside it"), "{said}");
        assert!(it.advice[0].text.contains("jemalloc"), "{:?}", it.advice);
        assert!(it.advice[0].fewer >= Some(1990), "{:?}", it.advice);
    }
}

#[test]
fn single_protected_pages_are_no_stacks() {
    for (page, threads) in [(0x1000u64, None), (0x1000, Some(8)), (0x10000, Some(8))] {
        let mut text = String::new();
        for piece in 0..500u64 {
            let at = 0x7f00_0000_0000 + piece * (page + 0x1000);
            text.push_str(&format!("{at:x}-{:x} ---p 00000000 00:00 0 \n", at + 0x1000));
            text.push_str(&format!("{:x}-{:x} rw-p 00000000 00:00 0 \n", at + 0x1000, at + 0x1000 + page));
        }
        let it = explain_with(&text, threads);
        check_sums(&it);
        assert_eq!(it.stacks.stacks, 0);
        assert!(it.verdict[0].contains("500 short ranges without access"), "{:?}", it.verdict);
    }
}

#[test]
fn threads_of_rust_are_four_vmas() {
    let (mut text, mut at) = (String::new(), 0x7f00_0000_0000u64);
    for _ in 0..100 {
        for (bytes, mode) in [(0x1000, "---p"), (0x2000, "rw-p"), (0x1000, "---p"), (8 << 20, "rw-p")] {
            text.push_str(&format!("{at:x}-{:x} {mode} 00000000 00:00 0 \n", at + bytes));
            at += bytes;
        }
    }
    let mut it = explain_with(&text, Some(101));
    check_sums(&it);
    it.max_map_count = Some(65_530);
    conclude(&mut it);
    assert_eq!(
        it.verdict,
        [
            "400 of 400 VMAs (100.0%) are stacks behind guard pages: four for each of 100 threads, its stack, an alternate signal stack and a guard page of each.",
            "About 16,382 such fit into the limit of 65,530."
        ]
    );
    assert_eq!(it.advice[0].fewer, Some(200));
}

#[test]
fn separate_shared_objects_are_no_file() {
    for name in ["/dev/zero (deleted)", "/memfd:x (deleted)", "/SYSV00000000 (deleted)"] {
        let mut text = String::new();
        for piece in 0..500u64 {
            let at = 0x7f00_0000_0000 + piece * 0x1000;
            let mode = if piece % 2 == 0 { "r--s" } else { "rw-s" };
            text.push_str(&format!("{at:x}-{:x} {mode} 00000000 00:01 {} {name}\n", at + 0x1000, piece + 1));
        }
        let it = explain(&text);
        check_sums(&it);
        assert!(it.verdict[0].contains("are 500 separate pieces of"), "{:?}", it.verdict);
        let all = format!("{:?} {:?} {:?} {:?}", it.verdict, it.advice, it.owners, it.patterns);
        assert!(!all.contains("file,") && !all.contains("deleted"), "{all}");
        assert_eq!(it.advice[0].fewer, Some(499));
    }
}

#[test]
fn pieces_of_a_file_in_ascending_order_never_merge() {
    let mut text = String::new();
    for piece in 0..500u64 {
        let (at, offset) = (0x7f00_0000_0000 + piece * 0x1000, (500 - piece) * 0x1000);
        text.push_str(&format!("{at:x}-{:x} r--s {offset:08x} 08:01 7 /srv/data.bin\n", at + 0x1000));
    }
    let it = explain(&text);
    check_sums(&it);
    assert!(it.verdict[0].contains("ascending order, each placed below the last (499)"), "{:?}", it.verdict);
    assert!(it.advice[0].text.contains("from the file's end to its beginning"), "{:?}", it.advice);
    assert_eq!(it.advice[0].fewer, Some(499));
}

#[test]
fn large_reservations_with_a_small_beginning() {
    let mut text = String::new();
    for memory in 0..100u64 {
        let at = 0x7000_0000_0000 + memory * (10 << 30);
        text.push_str(&format!("{at:x}-{:x} rw-p 00000000 00:00 0 \n", at + 0x10000));
        text.push_str(&format!("{:x}-{:x} ---p 00000000 00:00 0 \n", at + 0x10000, at + (10 << 30)));
    }
    let it = explain(&text);
    check_sums(&it);
    assert!(it.verdict[0].contains("are 100 reservations of 10 GiB"), "{:?}", it.verdict);
    assert!(
        it.verdict[1].contains("1,000 GiB of address space; 128 TiB have room for 13,107"),
        "{:?}",
        it.verdict
    );
    assert_eq!(it.advice[0].fewer, Some(100));
}

#[test]
fn a_reservation_is_told_to_be_noreserve_only_when_it_is_not() {
    let pieces = |flags: [&str; 2]| {
        let mut text = String::new();
        for piece in 0..200u64 {
            let at = 0x7f00_0000_0000 + piece * 0x20000;
            let flags = flags[piece as usize % 2];
            text.push_str(&format!("{at:x}-{:x} ---p 00000000 00:00 0 \nVmFlags: {flags}\n", at + 0x20000));
        }
        format!("{:?}", explain(&text).advice)
    };
    assert!(pieces(["mr mw", "mr mw ac"]).contains("reserve with MAP_NORESERVE"));
    assert!(!pieces(["mr mw nr", "mr mw ac"]).contains("reserve with MAP_NORESERVE"));
    let mut text = String::new();
    for piece in 0..200u64 {
        let at = 0x7f00_0000_0000 + piece * 0x20000;
        let (mode, flags) = if piece % 2 == 0 { ("rw-p", "rd wr nr") } else { ("---p", "mr mw nr") };
        text.push_str(&format!("{at:x}-{:x} {mode} 00000000 00:00 0 \nVmFlags: {flags}\n", at + 0x20000));
    }
    let said = format!("{:?}", explain(&text));
    assert!(!said.contains("NORESERVE"), "{said}");
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
    assert!(it.advice[0].text.contains("MAP_NORESERVE"), "{:?}", it.advice);
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
        it.verdict[0].ends_with("map files /d/_*.dvd (deleted).") && it.verdict[1].contains("still mapped"),
        "{:?}",
        it.verdict
    );
    assert_eq!(it.advice[0].fewer, Some(300));
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
    let names = &analysis.names;
    assert!(
        [names.owners.len(), names.extensions.len(), names.patterns.len()]
            .iter()
            .all(|&n| n <= MAX_OWNERS + 1)
    );
    check_sums(&analysis.finish(None, &Anonymizer::off()));
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
        let anonymizer = Anonymizer::new(["x".to_owned()]);
        let threads = [None, Some(1), Some(3)][dice.next(3)];
        let beside = Beside { max_vmas: u64::MAX, policies, anonymizer };
        let mut it = read(reader, beside, threads, &mut notes).unwrap();
        conclude(&mut it);
        check_sums(&it);
        let style = Style {
            colour: false,
            width: [usize::MAX, 1, 80][dice.next(3)],
            top: 1 + dice.next(20),
            frames: 1 + dice.next(20),
            verbose: false,
        };
        for format in [Format::Text, Format::Json, Format::Csv] {
            let mut out = Vec::new();
            format::write(&Document::Explanation(&it, run % 2 == 0), format, &style, &mut out).unwrap();
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
