//! Refusals of calls that seldom are, and programs that enter the kernel by the 32-bit door.

use vmaudit_tests::rows::assert_nothing_lost;
use vmaudit_tests::{Done, Session};
use vmaudit_user::model::report::Failure;
#[cfg(target_arch = "x86_64")]
use vmaudit_user::model::report::Report;

/// What the program was refused is what the report counts, by call, errno and cause.
#[track_caller]
fn counted(case: &str, n: usize) -> (Done, Vec<Failure>) {
    let done = Session::run(&["--calls", "all"], &["more-calls", case, &n.to_string()]).go().succeeded();
    let (own, _) = done.only();
    let report = done.report();
    assert_nothing_lost(&report);
    let mut seen: Vec<_> = report
        .failures
        .iter()
        .chain(&report.ordinary_answers)
        .map(|it| (it.syscall.clone(), it.errno.clone(), it.cause.name().to_owned(), it.count))
        .collect();
    let mut made: Vec<_> = own
        .refused
        .iter()
        .map(|it| (it.syscall.clone(), it.errno.clone(), it.cause.clone(), it.count))
        .collect();
    seen.sort();
    made.sort();
    assert!(!made.is_empty(), "nothing was refused, so nothing was tested");
    assert_eq!(seen, made, "{case}: {:?}", report.failures);
    let failures = report.failures.clone();
    (done, failures)
}

#[test]
fn shared_memory_of_huge_pages_that_there_are_not() {
    let (_, failures) = counted("shmget-huge", 3);
    assert!(failures[0].certain, "{:?}", failures[0]);
}

#[test]
fn shared_memory_beyond_ram_and_swap() {
    let (_, failures) = counted("shmget-vast", 2);
    assert!(failures[0].certain, "{:?}", failures[0]);
}

#[test]
fn questions_about_a_range_with_a_gap_are_ordinary() {
    for case in ["mincore-gap", "msync-gap"] {
        let (done, failures) = counted(case, 2);
        assert!(failures.is_empty() && done.report().ordinary_answers.len() == 1, "{failures:?}");
    }
}

#[test]
fn locks_where_nothing_may_be_locked() {
    let (_, failures) = counted("lock-nothing", 2);
    assert_eq!(failures.len(), 3, "{failures:?}");
    for failure in failures {
        assert!(failure.certain, "{failure:?}");
        assert_eq!(failure.evidence["limit_bytes"], 0);
    }
}

/// A gate on failures watches these as well.
#[test]
fn a_gate_sees_what_takes_no_lock() {
    for case in ["shmget-huge", "lock-nothing"] {
        Session::run(&["--fail-on", "failure"], &["more-calls", case, "1"]).go().ended_with(86);
    }
}

/// What io_uring is asked for is not seen: that is said, and no budget on failures is shown to hold.
#[test]
fn whoever_uses_io_uring_is_told_of_and_fails_a_gate() {
    let words = ["more-calls", "by-io-uring", "1"];
    let report = Session::run(&["--calls", "all"], &words).go().succeeded().report();
    let told = |note: &String| note.contains("1 process used io_uring: a madvise()");
    assert!(report.coverage.notes.iter().any(told), "{:?}", report.coverage.notes);
    let gated = Session::run(&["--fail-on", "failure"], &words).go().ended_with(86);
    let breaches = gated.report().breaches;
    assert!(breaches.len() == 1 && !breaches[0].shown, "{breaches:?}");
}

#[cfg(target_arch = "x86_64")]
mod by_the_32_bit_door {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn refusals_in_a_64_bit_program() {
        let (done, failures) = counted("int80", 5);
        assert!(done.report().coverage.exact_calls);
        // Nearly all of what such a call may be given was in use, and hardly any of what the program has.
        assert!(!failures[0].sentence.contains(" TiB"), "{}", failures[0].sentence);
        Session::run(&["--fail-on", "failure"], &["more-calls", "int80", "1"]).go().ended_with(86);
    }

    /// A program for 32 bits: so many pages, each a mapping of its own, after so many refused calls.
    fn program(pages: u8, refused: u8) -> Vec<u8> {
        const BASE: u32 = 0x0804_8000;
        const HEADERS: u32 = 52 + 32;
        /// `times` calls of mmap2; `edx`: instructions that set the protection.
        fn calls(times: u8, length: u32, edx: &[u8], flags: u32) -> Vec<u8> {
            let number = |opcode: u8, value: u32| [&[opcode][..], &value.to_le_bytes()].concat();
            let body = [
                number(0xb8, 192),    // mov eax, mmap2
                vec![0x31, 0xdb],     // xor ebx, ebx
                number(0xb9, length), // mov ecx, length
                edx.to_vec(),
                number(0xbe, flags),          // mov esi, flags
                number(0xbf, u32::MAX),       // mov edi, -1
                vec![0x31, 0xed, 0xcd, 0x80], // xor ebp, ebp; int 0x80
                vec![0xff, 0x0c, 0x24],       // dec dword [esp]
            ]
            .concat();
            let back = (body.len() as u8 + 2).wrapping_neg();
            [vec![0x6a, times], body, vec![0x75, back]].concat() // push times; ...; jnz
        }
        // mov edx, [esp]; and edx, 1; lea edx, [edx + edx + 1]: 1 and 3 in turn, so that no two are alike.
        let alternating = [0x8b, 0x14, 0x24, 0x83, 0xe2, 0x01, 0x8d, 0x54, 0x12, 0x01];
        let mut code = calls(pages, 4096, &alternating, 0x21);
        if refused > 0 {
            code.extend(calls(refused, 0xffff_e000, &[0x31, 0xd2], 0x4022));
        }
        code.extend([0xb8, 1, 0, 0, 0, 0x31, 0xdb, 0xcd, 0x80]); // exit(0)
        let size = HEADERS + code.len() as u32;
        let header = [
            b"\x7fELF\x01\x01\x01\0\0\0\0\0\0\0\0\0".to_vec(),
            [2u16, 3].iter().flat_map(|half| half.to_le_bytes()).collect(), // ET_EXEC, EM_386
            [1, BASE + HEADERS, 52, 0, 0].iter().flat_map(|word: &u32| word.to_le_bytes()).collect(),
            [52u16, 32, 1, 0, 0, 0].iter().flat_map(|half| half.to_le_bytes()).collect(),
            // PT_LOAD: offset, address twice, size twice, readable and executable, alignment.
            [1, 0, BASE, BASE, size, size, 5, 0x1000]
                .iter()
                .flat_map(|word: &u32| word.to_le_bytes())
                .collect(),
        ]
        .concat();
        [header, code].concat()
    }

    fn run(options: &[&str], pages: u8, refused: u8) -> Done {
        let session = Session::vmaudit(&["run", "-o"]);
        let (report, file) = (session.file("report.json"), session.file("program32"));
        std::fs::write(&file, program(pages, refused)).expect("the program can be written");
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).expect("made executable");
        session.words(&[report]).words(options).words(&["--"]).words(&[file]).go()
    }

    fn of(done: &Done) -> Report {
        done.report()
    }

    #[test]
    fn a_32_bit_program_has_its_exact_peak_and_calls() {
        for options in [&["--calls", "all"][..], &["--calls", "locking"], &["--peaks-only"]] {
            let report = of(&run(options, 12, 0).succeeded());
            assert_nothing_lost(&report);
            let [row] = report.processes.as_slice() else { panic!("{:?}", report.processes) };
            assert!(row.map_count.exact, "{:?}", row.map_count);
            let figures = row.calls["mmap"];
            assert_eq!((figures.added, figures.removed), (12, 0), "{:?}", row.calls);
            assert!(!row.calls.contains_key("[32-bit]"), "{:?}", row.calls);
            if options != ["--peaks-only"] {
                assert_eq!(figures.calls, Some(12), "{options:?}");
            }
        }
    }

    #[test]
    fn refusals_of_a_32_bit_program_are_counted() {
        let report = of(&run(&["--calls", "all"], 3, 7).succeeded());
        assert_nothing_lost(&report);
        let [failure] = report.failures.as_slice() else { panic!("{:?}", report.failures) };
        assert_eq!((failure.syscall.as_str(), failure.count), ("mmap", 7));
        assert_eq!(failure.example.as_ref().expect("an example").args["len"], 0xffff_e000_u64);
        assert!(report.coverage.exact_calls, "{:?}", report.coverage);
        let notes = &failure.example.as_ref().expect("an example").stack_notes;
        assert!(!notes.iter().any(|note| note.contains("enerated code")), "{notes:?}");
        run(&["--fail-on", "failure"], 3, 7).ended_with(86);
        run(&["--fail-on", "failure", "--max-peak", "1000"], 3, 0).succeeded();
    }
}

/// Nothing of a process that unmaps its own code is missed.
#[test]
fn a_process_that_unmaps_everything_costs_nobody_exactness() {
    for options in [&["--calls", "all"][..], &["--calls", "locking"]] {
        let done = Session::run(options, &["unmap-everything"]).go();
        let report = done.report();
        assert_nothing_lost(&report);
        assert!(report.processes[0].map_count.exact, "{:?}", report.processes[0].map_count);
    }
}
