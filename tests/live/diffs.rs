//! `vmaudit diff`: a regression is caught, noise is not, whatever was recorded.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use vmaudit_tests::{Done, Session, vmaudit};

/// A session of so many mappings, and the file that it leaves.
fn left(maps: &str, name: &str) -> (Done, PathBuf) {
    let session = Session::vmaudit(&["run", if name.ends_with(".vma") { "--record" } else { "-o" }]);
    let file = session.file(name);
    let done = session.words(&[&file]).words(&["--"]).then_workload(&["burst", maps]).go().succeeded();
    (done, file)
}

fn diff(old: &Path, new: &Path, options: &[&str]) -> Output {
    Command::new(vmaudit())
        .arg("diff")
        .args([old, new])
        .args(options)
        .output()
        .expect("vmaudit can be started")
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn a_regression_closes_the_gate_and_twenty_repetitions_do_not() {
    let gate = ["--fail-over", "10%"];
    let (_old, old) = left("1000", "old.vma");
    for number in 0..20 {
        let (_new, new) = left("1000", if number % 2 == 0 { "new.vma" } else { "new.json" });
        let same = diff(&old, &new, &gate);
        assert_eq!(same.status.code(), Some(0), "{number}: {same:?}");
        assert!(
            said(&same).starts_with("vmaudit: Nothing became worse in 1 application."),
            "{}",
            said(&same)
        );
    }
    let (_new, new) = left("1200", "new.json");
    let worse = diff(&old, &new, &gate);
    assert_eq!(worse.status.code(), Some(86), "{worse:?}");
    assert!(said(&worse).starts_with("vmaudit: Worse: workload: 1,0"), "{}", said(&worse));
    assert!(said(&worse).contains("\n  workload: mmap +2"), "{}", said(&worse));
    assert_eq!(diff(&new, &old, &gate).status.code(), Some(0), "less is better");
    let annotations = said(&diff(&old, &new, &["--fail-over", "10%", "--format", "github"]));
    assert!(annotations.starts_with("::error title=vmaudit diff%3A workload::"), "{annotations}");
}

#[test]
fn samples_are_never_shown_to_hold() {
    let (_old, old) = left("1000", "old.json");
    let session = Session::vmaudit(&["run", "--source", "proc", "-o"]);
    let new = session.file("new.json");
    let _done = session.words(&[&new]).words(&["--", "sleep", "0.5"]).go().succeeded();
    let output = diff(&old, &new, &["--fail-over", "10%"]);
    assert_eq!(output.status.code(), Some(86), "{output:?}");
    assert!(said(&output).contains("nothing is shown to hold"), "{}", said(&output));
    assert_eq!(diff(&old, &new, &[]).status.code(), Some(0), "without a gate it only tells");
}
