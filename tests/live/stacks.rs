//! Where refused calls were made.

use vmaudit_tests::{Session, workload};
use vmaudit_user::report::{Frame, Report};

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
    let caller = stack.get(1).and_then(|frame| frame.symbol.as_deref()).unwrap_or_default();
    assert!(caller.starts_with("workload::"), "{stack:?}");
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
        assert!(frame.ip.starts_with("0x"), "{frame:?}");
    }
}
