//! Test runners that know nothing of vmaudit: the test that is to blame is named all the same.

use std::path::Path;

use vmaudit_tests::{Done, Scratch, Session, in_guest, workload};
use vmaudit_user::model::report::{Process, Report};

fn write(folder: &Path, files: &[(&str, &str)]) {
    for (name, text) in files {
        let path = folder.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
}

/// The session of this command in a folder, with its report as JSON, JUnit and annotations.
fn session(folder: &Path, command: &str) -> (Done, Report) {
    let session = Session::vmaudit(&["run", "--source", "ebpf", "--fail-on", "failure", "--quiet"]);
    let outputs = ["r.json", "r.xml"].map(|name| session.file(name));
    let annotations = format!("github:{}", session.file("annotations").display());
    let script = format!("cd '{}' && {command}", folder.display());
    let done = session
        .words(&["-o"])
        .words(&outputs[..1])
        .words(&["-o"])
        .words(&outputs[1..])
        .words(&["-o", &annotations, "--", "sh", "-c", &script])
        .go()
        .ended_with(86);
    let report = serde_json::from_str(&done.read("r.json")).expect("a report");
    (done, report)
}

fn of<'r>(report: &'r Report, test: &str) -> Vec<&'r Process> {
    let named = |row: &&Process| row.test.as_deref().is_some_and(|name| name.contains(test));
    report.processes.iter().filter(named).collect()
}

/// A runner of a thousand tests that are over at once; the program that names them is attached while the first ones run.
#[test]
fn tests_that_are_over_at_once_have_their_names() {
    let n = if in_guest() { 300 } else { 1000 };
    let scratch = Scratch::new();
    let script = format!(
        "#!/bin/sh\ni=0; while [ $i -lt {n} ]; do NEXTEST_TEST_NAME=case$i '{}' burst 1; i=$((i + 1)); done\n",
        workload().display()
    );
    write(scratch.folder(), &[("cargo-nextest", &script)]);
    let runner = scratch.folder().join("cargo-nextest");
    std::fs::set_permissions(&runner, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let report = Session::run_command(&["--all-rows"]).words(&[runner]).go().succeeded().report();
    let named =
        |i: usize| report.processes.iter().any(|row| row.test.as_deref() == Some(&*format!("case{i}")));
    let unnamed: Vec<usize> = (n / 2..n).filter(|&i| !named(i)).collect();
    // 5.10 does not take that program: there /proc is asked, which may be too late, and no other name is told.
    if vmaudit_tests::kernel_version() >= (5, 11) {
        assert!(unnamed.is_empty(), "{unnamed:?} of {n}");
    }
    let strange = |name: &str| name.strip_prefix("case").is_none_or(|n| n.parse::<usize>().is_err());
    assert!(report.processes.iter().filter_map(|row| row.test.as_deref()).all(|name| !strange(name)));
    // What /proc was asked for too late is counted.
    let nameless = (0..n).filter(|&i| !named(i)).count() as u64;
    assert!(report.coverage.lost["test_unknown"] >= nameless, "{nameless}: {:?}", report.coverage.lost);
}

/// The program takes none of so many bytes, also when it has told of tests before.
#[test]
fn a_test_with_a_large_environment_has_its_name_or_is_counted() {
    let scratch = Scratch::new();
    let small = format!("NEXTEST_TEST_NAME=small '{}' burst 1\n", workload().display());
    let script = format!(
        "#!/bin/sh\n{}LARGE=$(printf %020000d 7) NEXTEST_TEST_NAME=large '{}' burst 1\n",
        small.repeat(100),
        workload().display()
    );
    write(scratch.folder(), &[("cargo-nextest", &script)]);
    let runner = scratch.folder().join("cargo-nextest");
    std::fs::set_permissions(&runner, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let report = Session::run_command(&["--all-rows"]).words(&[runner]).go().succeeded().report();
    let named = report.processes.iter().any(|row| row.test.as_deref() == Some("large"));
    assert!(named || report.coverage.lost["test_unknown"] > 0, "{:?}", report.coverage.lost);
}

mod with_nextest {
    use super::*;

    const TESTS: &str = r#"
        extern "C" {
            fn mmap(at: *mut u8, bytes: usize, access: i32, flags: i32, fd: i32, from: i64) -> *mut u8;
        }
        fn map(bytes: usize, access: i32) -> bool {
            unsafe { mmap(std::ptr::null_mut(), bytes, access, 0x22, -1, 0) as isize != -1 }
        }
        #[test]
        fn a_test_with_a_long_name_that_is_refused_and_passes() {
            assert!(!map(1 << 47, 3));
        }
        #[test]
        fn grows() {
            (0..3000).for_each(|n| assert!(map(4096, 1 + 2 * (n % 2))));
        }
        #[test]
        fn small() {
            assert!(map(4096, 3));
        }
    "#;

    #[test]
    fn each_test_has_its_peak_and_the_one_that_was_refused_is_blamed() {
        let scratch = Scratch::new();
        let manifest = "[package]\nname = \"tried\"\nversion = \"0.1.0\"\nedition = \"2021\"\n[workspace]\n";
        write(scratch.folder(), &[("Cargo.toml", manifest), ("src/lib.rs", ""), ("tests/it.rs", TESTS)]);
        let (done, report) = session(scratch.folder(), "cargo nextest run --offline");
        let grows = of(&report, "tried::it grows");
        assert!(!grows.is_empty(), "{:?}", report.processes.iter().map(|row| &row.test).collect::<Vec<_>>());
        let peak = grows.iter().filter_map(|row| row.map_count.peak).max();
        assert!(peak > Some(3000) && grows.iter().all(|row| row.map_count.exact), "{grows:?}");
        let small = of(&report, "tried::it small");
        assert!(small.iter().all(|row| row.map_count.peak < Some(1000)) && !small.is_empty(), "{small:?}");
        let name = "tried::it a_test_with_a_long_name_that_is_refused_and_passes";
        let junit = done.read("r.xml");
        let case =
            junit.split("<testcase").find(|case| case.contains(&format!("test {name}"))).expect("its case");
        assert!(case.contains("<failure") && case.contains("1 memory call failed in test"), "{case}");
        let grows =
            junit.split("<testcase").find(|case| case.contains("test tried::it grows")).expect("a case");
        assert!(!grows.contains("<failure"), "{grows}");
        let annotations = done.read("annotations");
        assert!(annotations.contains("a_test_with_a_long_name_that_is_refused_and_passes"), "{annotations}");
    }
}

mod with_go {
    use super::*;

    const TEST: &str = r#"package leaks
import ("syscall"; "testing")
func TestGrows(t *testing.T) {
    for n := 0; n < 3000; n++ {
        if _, err := syscall.Mmap(-1, 0, 4096, 1+2*(n%2), 0x22); err != nil { t.Fatal(err) }
    }
}
func TestRefused(t *testing.T) {
    if _, _, errno := syscall.Syscall6(syscall.SYS_MMAP, 0, 1<<47, 3, 0x22, ^uintptr(0), 0); errno != syscall.ENOMEM { t.Fatal(errno) }
}
"#;
    const SMALL: &str = "package small\nimport \"testing\"\nfunc TestNothing(t *testing.T) {}\n";

    #[test]
    fn each_package_has_its_peak_and_the_one_that_was_refused_is_blamed() {
        let scratch = Scratch::new();
        let files = [
            ("go.mod", "module tried\n\ngo 1.19\n"),
            ("leaks/leaks_test.go", TEST),
            ("small/small_test.go", SMALL),
        ];
        write(scratch.folder(), &files);
        let (done, report) = session(scratch.folder(), "GOFLAGS=-mod=mod go test -count=1 ./...");
        let leaks = of(&report, "leaks.test in ");
        assert!(!leaks.is_empty(), "{:?}", report.processes.iter().map(|row| &row.test).collect::<Vec<_>>());
        assert!(leaks.iter().filter_map(|row| row.map_count.peak).max() > Some(3000), "{leaks:?}");
        assert!(
            leaks[0].test.as_deref().is_some_and(|name| name.ends_with("/leaks")),
            "where it ran: {leaks:?}"
        );
        let junit = done.read("r.xml");
        let case =
            junit.split("<testcase").find(|case| case.contains("test leaks.test in ")).expect("its case");
        assert!(case.contains("<failure"), "{case}");
        assert!(done.read("annotations").contains("failed in test leaks.test in "));
    }
}
