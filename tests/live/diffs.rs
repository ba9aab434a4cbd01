//! `vmaudit diff`: a regression is caught, noise is not, whatever was recorded.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use vmaudit_tests::{Done, Session, send_signal, vmaudit};

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

/// The same in one line.
fn words(output: &Output) -> String {
    said(output).split_whitespace().collect::<Vec<_>>().join(" ")
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

/// A session of a history, and the report that it leaves.
fn history(name: &str) -> (Done, PathBuf) {
    // Room for each copy of a stack, however slow the machine is.
    let session = Session::vmaudit(&["run", "--ring-bytes", "16777216", "-o"]);
    let file = session.file("new.json");
    let words = ["--linger", "500", "credits", name];
    let done = session.words(&[&file]).words(&["--"]).then_workload(&words).go().succeeded();
    (done, file)
}

/// Who made the difference.
fn makers(old: &Path, new: &Path) -> Vec<serde_json::Value> {
    let said: serde_json::Value =
        serde_json::from_slice(&diff(old, new, &["--format", "json"]).stdout).expect("a comparison in JSON");
    said["makers"].as_array().expect("makers").clone()
}

/// Seven sessions of the same history, in 21 pairs, and one in which a place makes so many more. Gives what was told of these.
fn histories((same, more): (&str, &str), by: u64) -> Vec<serde_json::Value> {
    let same: Vec<_> = (0..7).map(|_| history(same)).collect();
    for (n, (_, new)) in same.iter().enumerate() {
        for (_, old) in same.iter().take(n) {
            assert_eq!(makers(old, new), Vec::<serde_json::Value>::new());
        }
    }
    let (_more, more) = history(more);
    let mut all = Vec::new();
    for (_, old) in &same {
        let told = makers(old, &more);
        assert_eq!(told.len(), 1, "{told:#?}");
        let [before, now, noise] = ["old", "new", "noise"].map(|of| told[0][of].as_u64().expect("a number"));
        assert!(now > before && (now - before).abs_diff(by) <= noise && noise < by, "{told:#?}");
        let text = said(&diff(old, &more, &[]));
        assert!(text.contains("Who made the difference"), "{text}");
        all.extend(told);
    }
    all
}

mod lock_events_only {
    use super::*;

    #[test]
    fn who_makes_more_is_named_and_who_does_not_is_not() {
        for row in histories(("few", "few-more"), 100) {
            assert!(row["stack"].to_string().contains("site_d"), "{row:#}");
        }
    }

    /// 57,000 VMAs, of which one in 16 is looked at. On a slow machine not each of these stacks is copied: then the call is told,
    /// and the place as far as it is known.
    #[test]
    fn chance_is_nobody() {
        for row in histories(("random", "more"), 3000) {
            // Where its loop is a function of its own, that is another way to the place.
            assert!(row["change"] == "more" || row["change"] == "new", "{row:#}");
            assert_eq!(row["syscall"], "mmap");
        }
    }
    /// What was freed is taken from who came last: of the same history it is the same, and beside another one that ended with
    /// about as many VMAs nothing is told, but that.
    #[test]
    fn what_was_freed_in_between_is_no_difference() {
        let none = Vec::<serde_json::Value>::new();
        let ([(_a, first), (_b, second)], (_c, never)) = (["saw-tooth"; 2].map(history), history("random"));
        assert_eq!(makers(&first, &second), none);
        assert_eq!((makers(&first, &never), makers(&never, &second)), (none.clone(), none.clone()));
        // All of one place, and hardly any of it.
        let ((_d, shift), (_e, regrow)) = (history("shift"), history("regrow"));
        for (old, new) in [(&shift, &regrow), (&regrow, &shift)] {
            assert_eq!(makers(old, new), none);
            let text = words(&diff(old, new, &[]));
            assert!(text.contains("VMAs that are freed are taken from who came last"), "{text}");
        }
        // Where one peak is far above the other somebody made that.
        let rows = makers(&shift, &never);
        assert!(!rows.is_empty());
        let mut perhaps = false;
        for row in &rows {
            let [old, new, noise, freed] =
                ["old", "new", "noise", "freed"].map(|of| row[of].as_u64().expect("a number"));
            assert!(new > old && freed >= 20_000, "{row:#}");
            perhaps |= new - old <= noise + freed;
        }
        let text = words(&diff(&shift, &never, &[]));
        assert!(text.contains("Who made the difference"), "{text}");
        assert_eq!(text.contains("perhaps all by what was freed"), perhaps, "{text}");
    }

    /// One session saw the start, and the other came when half of it was there.
    #[test]
    fn what_was_there_before_the_attach_is_no_difference() {
        let session = Session::run(&[], &["attach", "5000"]).stdin(b"x");
        let whole = session.file("report.json");
        let _whole = session.go().succeeded();
        let mut target = Session::workload(&["attach", "5000"]).start_with_pipe();
        target.wait_for_stdout("standing");
        let mut watch = Session::watch(&["-p", &target.pid().to_string()]).start();
        let half = watch.file("report.json");
        watch.wait_for_stderr("watching ");
        assert!(target.write(b"x"), "the workload is gone");
        target.wait_for_stdout("after-burst");
        send_signal(watch.pid(), libc::SIGTERM);
        let _half = watch.wait().succeeded();
        target.wait().succeeded();
        for (old, new) in [(&whole, &half), (&half, &whole)] {
            assert_eq!(makers(old, new), Vec::<serde_json::Value>::new());
            let text = words(&diff(old, new, &[]));
            assert!(text.contains("that were there before vmaudit looked, up to "), "{text}");
        }
    }
}
