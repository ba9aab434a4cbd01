//! Where refused calls were made.

use std::path::Path;

use vmaudit_tests::{Session, workload};
use vmaudit_user::model::report::{Frame, Report};

/// Of a process with few mappings, which any kernel shows at once.
fn stack(options: &[&str]) -> Vec<Frame> {
    // Mappings are read while the process lives.
    let report =
        Session::run(options, &["--linger", "1500", "causes", "rlimit-as"]).go().succeeded().report();
    assert!(!says_why_not(&report), "{:?}", report.coverage.notes);
    report.failures[0].example.clone().expect("an example arrived").stack
}

fn says_why_not(report: &Report) -> bool {
    report.coverage.notes.iter().any(|note| note.contains("stack"))
}

/// Before 6.11 all mappings are read one by one, for a short time only; what was not reached is said.
#[test]
fn a_process_at_the_limit_has_names_or_a_sentence_why_not() {
    let report = Session::run(&[], &["--linger", "1500", "stackoverflow"]).go().succeeded().report();
    let stack = report.failures[0].example.clone().expect("an example arrived").stack;
    assert!(!stack.is_empty());
    let named = stack[0].symbol.as_deref() == Some("syscall") && stack.iter().all(|f| f.module.is_some());
    assert!(named || !vmaudit_tests::has_mapping_query(), "{stack:?} {:?}", report.coverage.notes);
    assert_eq!(says_why_not(&report), !named, "{stack:?} {:?}", report.coverage.notes);
}

/// The innermost frame needs no frame pointers, so it is there however the C library was built.
#[test]
fn a_refused_call_has_the_function_that_made_it() {
    let stack = stack(&["--no-anonymize"]);
    let innermost = stack.first().expect("a stack was taken");
    assert_eq!(innermost.symbol.as_deref(), Some("syscall"), "{stack:?}");
    let module = innermost.module.as_deref().expect("the innermost frame is in a file");
    // Linked statically, the C library is in the workload's own file.
    assert!(module.contains("libc") || *module == *workload().to_string_lossy(), "{stack:?}");
    assert!(innermost.offset.is_some(), "{stack:?}");
    // The C library's syscall() has no frame, so its caller needs no frame pointers either: it is a function of the
    // workload (memory::call, or what that was inlined into).
    assert!(caller(&stack).starts_with("workload::"), "{stack:?}");
}

/// The function that the second address of a stack is in, whatever was inlined there.
fn caller(stack: &[Frame]) -> &str {
    let second = stack.iter().filter(|frame| !frame.inlined).nth(1);
    second.and_then(|frame| frame.symbol.as_deref()).unwrap_or_default()
}

/// What a walk over frame pointers finds in code that has none must not be shown as a caller.
#[test]
fn every_frame_lies_in_an_executable_mapping() {
    for frame in stack(&[]) {
        assert!(frame.module.is_some(), "{frame:?}");
    }
}

#[test]
fn without_symbols_the_addresses_stay() {
    for frame in stack(&["--no-symbols"]) {
        assert!(frame.symbol.is_none() && frame.module.is_none(), "{frame:?}");
        assert!(frame.ip.as_deref().is_some_and(|ip| ip.starts_with("0x")), "{frame:?}");
    }
}

/// A call refused so many callers deep; before Linux 6.11 mappings of a small process are read in time.
fn callers(words: &[&str]) -> (Vec<Frame>, Vec<String>) {
    let words = [&["--linger", "1500", "callers"], words].concat();
    let report = Session::run(&["--no-anonymize"], &words).go().succeeded().report();
    assert_eq!(report.failures.len(), 1, "{:?}", report.failures);
    let example = report.failures[0].example.clone().expect("an example arrived");
    (example.stack, example.stack_notes)
}

fn named_below(stack: &[Frame]) -> usize {
    stack.iter().filter(|frame| frame.symbol.as_deref() == Some("workload::callers::below")).count()
}

/// Rust's programs keep no frame pointers, nor do C libraries.
#[test]
fn a_stack_without_frame_pointers_reaches_its_first_function() {
    let (stack, notes) = callers(&["5"]);
    assert_eq!((named_below(&stack), notes.as_slice()), (6, [].as_slice()), "{stack:?}");
    let names: Vec<&str> = stack.iter().filter_map(|frame| frame.symbol.as_deref()).collect();
    assert!(names.contains(&"workload::main") && names.last() == Some(&"_start"), "{names:?}");
}

#[test]
fn a_thread_s_stack_reaches_its_first_function() {
    let (stack, notes) = callers(&["5", "thread"]);
    assert_eq!((named_below(&stack), notes.as_slice()), (6, [].as_slice()), "{stack:?}");
    let last = stack.last().and_then(|frame| frame.symbol.as_deref()).unwrap_or_default();
    assert!(last.contains("clone"), "{stack:?}");
}

#[test]
fn a_stack_that_is_longer_than_its_copy_says_where_it_is_cut() {
    let (stack, notes) = callers(&["100"]);
    let [note] = notes.as_slice() else { panic!("{notes:?} {stack:?}") };
    assert!(note.starts_with("The stack is cut here: its innermost 3") && note.contains(" KiB"), "{note}");
    assert!((20..80).contains(&named_below(&stack)), "{} of {stack:?}", named_below(&stack));
    assert_eq!(stack.last().and_then(|frame| frame.symbol.as_deref()), Some("workload::callers::below"));
}

/// In the moment after its refused call. The workload stops vmaudit meanwhile, so that nobody looks while it lives.
const ENDS: [&str; 3] = ["abort", "kill", "exit"];
/// Often enough that no luck of the scheduler makes this pass.
const TIMES: usize = 20;

fn of_the_dead(session: Session) -> Report {
    let report = session.go().report();
    assert_eq!(report.failures.len(), 1, "{:?}", report.failures);
    report
}

fn frames(report: &Report) -> &[Frame] {
    &report.failures[0].example.as_ref().expect("an example arrived").stack
}

fn named(report: &Report) {
    // A file whose lines were not read in time leaves names without lines: that is told, and is another failure.
    let told = |note: &String| note.contains("stack") || note.contains("The symbols of");
    assert!(!report.coverage.notes.iter().any(told), "{:?}", report.coverage.notes);
    assert!(report.coverage.lost.iter().all(|(_, &n)| n == 0), "{:?}", report.coverage.lost);
}

#[test]
fn a_process_that_ends_at_once_has_names_in_its_stack() {
    // Where the instruction of the call stands.
    let source = include_str!("../src/bin/workload/dies.rs");
    let line =
        |text| 1 + source.lines().position(|line| line.contains(text)).expect("the source has it") as u32;
    let inlined = line("fn inlined_here() {")..line("svc 0");
    for n in 0..TIMES {
        let end = ENDS[n % ENDS.len()];
        let report = of_the_dead(Session::run(&["--no-anonymize"], &["dies", end]));
        let stack = frames(&report);
        named(&report);
        let [inner, outer] = &stack[..2] else { panic!("{n} {end}: {stack:?}") };
        for frame in [inner, outer] {
            assert_eq!(frame.module.as_deref().map(Path::new), Some(&*workload()), "{stack:?}");
            assert!(
                frame.file.as_deref().is_some_and(|file| file.ends_with("workload/dies.rs")),
                "{stack:?}"
            );
        }
        assert!(
            inner.inlined && inner.symbol.as_deref().is_some_and(|it| it.ends_with("inlined_here")),
            "{stack:?}"
        );
        assert!(inner.line.is_some_and(|line| inlined.contains(&line)), "{stack:?}");
        assert_eq!(outer.symbol.as_deref(), Some("workload::dies::refused_here"), "{n} {end}: {stack:?}");
        assert_eq!((outer.inlined, outer.line), (false, Some(line("    inlined_here();"))), "{stack:?}");
    }
}

/// In a shared library, and above it in the program: two files, and a caller that has no frame.
#[test]
fn a_process_that_ends_at_once_has_names_of_its_libraries() {
    for n in 0..TIMES {
        let end = ENDS[n % ENDS.len()];
        let report = of_the_dead(Session::run(&["--no-anonymize"], &["dies", end, "libc"]));
        named(&report);
        let stack = frames(&report);
        assert_eq!(stack[0].symbol.as_deref(), Some("syscall"), "{n} {end}: {stack:?}");
        let module = stack[0].module.as_deref().unwrap_or_default();
        // Linked statically, the C library is in the workload's own file.
        assert!(module.contains("libc") || *module == *workload().to_string_lossy(), "{stack:?}");
        assert!(caller(stack).starts_with("workload::"), "{stack:?}");
        // What the kernel told of the innermost ones is all that the others lie in.
        assert!(stack.iter().any(|frame| frame.symbol.as_deref() == Some("workload::main")), "{stack:?}");
    }
}

/// The process itself puts another file in place of its own, or takes its own away, before its call is refused. The other
/// is a copy, so that whoever believes the path finds a name.
#[test]
fn a_file_that_was_exchanged_gives_no_names() {
    for n in 0..4 {
        let session = Session::vmaudit(&["run", "--no-anonymize", "-o"]);
        let (report, program, other) =
            (session.file("report.json"), session.file("program"), session.file("other"));
        std::fs::copy(workload(), &program).expect("the workload can be copied");
        if n % 2 == 0 {
            std::fs::copy(workload(), &other).expect("the workload can be copied");
        }
        let words = [report.as_os_str(), "--".as_ref(), program.as_os_str()];
        let session = session.words(&words).words(&["dies", "kill", "without"]).words(&[&program, &other]);
        let report = of_the_dead(session);
        named(&report);
        let innermost = &frames(&report)[0];
        assert_eq!(innermost.module.as_deref().map(Path::new), Some(&*program), "{innermost:?}");
        assert!(innermost.offset.is_some_and(|offset| offset > 0), "{innermost:?}");
        assert_eq!((&innermost.symbol, &innermost.file, innermost.line), (&None, &None, None));
    }
}
