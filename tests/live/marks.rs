//! Stretches of a session that its command names have figures of their own.

use std::os::unix::fs::MetadataExt as _;

use vmaudit_tests::{Done, Own, Session, has_lock_events, vmaudit};
use vmaudit_user::model::report::{Accuracy, Mark, Report};

const PAGES: u64 = 300;

#[track_caller]
fn mark<'a>(report: &'a Report, name: &str) -> &'a Mark {
    let found: Vec<&Mark> = report.marks.iter().filter(|mark| mark.name == name).collect();
    assert_eq!(found.len(), 1, "{name} in {:?}", report.marks);
    found[0]
}

#[track_caller]
fn own(done: &Done, role: &str) -> Own {
    done.own().into_iter().find(|own| own.role == role).unwrap_or_else(|| panic!("{role}: {}", done.said()))
}

/// What the program did between its own questions, to the last VMA.
#[test]
fn each_stretch_has_its_own_peak_changes_and_refusals() {
    let options = ["--marks", "--calls", "all"];
    let done = Session::run(&options, &["marked", &PAGES.to_string()]).go().succeeded();
    let (report, base) = (done.report(), own(&done, "marked").base);
    let names: Vec<&str> = report.marks.iter().map(|mark| mark.name.as_str()).collect();
    assert_eq!(
        names,
        ["first", "up", "down", "burst", "hidden", "outer", "third", "fifth", "refused", "child", "open"]
    );
    assert!(report.marks.iter().all(|mark| mark.exact), "{:?}", report.marks);
    let failed: Vec<Option<u64>> = report.marks.iter().map(|mark| mark.failed).collect();
    assert_eq!(failed[..9], [0, 0, 0, 0, 0, 0, 0, 0, 3].map(Some), "{:?}", report.marks);
    let open = mark(&report, "open");
    assert!(open.ended_s.is_none() && open.begun_s >= mark(&report, "child").ended_s.unwrap());
    if !has_lock_events() {
        // Counts are read when calls return; what is called exact has to be.
        for (name, more) in
            [("up", PAGES), ("down", PAGES), ("burst", 2 * PAGES), ("hidden", PAGES), ("refused", 0)]
        {
            let mark = mark(&report, name);
            let exact = mark.peak_bound == Some(Accuracy::Exact);
            assert!(!exact || mark.peak == Some(base + more), "{mark:?}");
        }
        return;
    }
    let exactly = |name: &str| {
        let mark = mark(&report, name);
        assert_eq!(mark.peak_bound, Some(Accuracy::Exact), "{mark:?}");
        (mark.peak.unwrap() - base, mark.added.unwrap(), mark.removed.unwrap())
    };
    assert_eq!(exactly("up"), (PAGES, PAGES, 0));
    assert_eq!(exactly("down"), (PAGES, 0, PAGES));
    assert_eq!(exactly("burst"), (2 * PAGES, 2 * PAGES, 2 * PAGES));
    assert_eq!(exactly("refused"), (0, 0, 0));
    // Up and down again, less than before: only the intervals between its boundaries know.
    assert_eq!(exactly("hidden"), (PAGES, PAGES, PAGES));
    let (third, fifth) = (PAGES / 3, PAGES / 5);
    assert_eq!(exactly("third"), (third, third, third));
    assert_eq!(exactly("fifth"), (fifth, fifth, fifth));
    assert_eq!(exactly("outer"), (third, third + fifth, third + fifth));
    let child = mark(&report, "child");
    let own = own(&done, "burst");
    assert_eq!((child.peak, child.peak_bound), (Some(own.peak), Some(Accuracy::Exact)));
    assert_eq!(child.pid, Some(own.pid));
    assert!(child.processes.iter().any(|it| it.pid == own.pid && it.peak == child.peak), "{child:?}");
}

#[test]
fn whatever_is_sent_to_the_socket_the_session_goes_on() {
    let done = Session::run(&["--marks"], &["rude", "40"]).go().succeeded();
    let report = done.report();
    assert!(!report.marks.is_empty() && report.marks.len() <= 40, "{:?}", report.marks);
    // Nobody waited for the beginnings.
    assert!(report.marks.iter().all(|mark| !mark.exact), "{:?}", report.marks);
    assert!(!done.said().contains('\u{1b}'), "{}", done.said());
}

/// The session sees the end of its command, and its own, though there is always one more datagram.
#[test]
fn who_sends_to_the_socket_without_end_keeps_nothing_from_ending() {
    let done = Session::run(&["--marks", "--linger", "100ms"], &["rude", "on"]).go().succeeded();
    let report = done.report();
    assert_eq!(report.marks.iter().map(|mark| mark.name.as_str()).collect::<Vec<_>>(), ["amid the noise"]);
    // What the others did meanwhile was taken.
    assert!(report.processes.len() >= 3, "{:?}", report.processes.len());
}

#[test]
fn the_command_mark_sets_a_boundary_or_says_why_not() {
    let script = "\"$V\" mark begin 'a b' && \"$V\" mark end 'a b' && ! \"$V\" mark end 'a b' 2>wrong && \
        stat -c '%a %u' \"$VMAUDIT_MARKS\" >socket && echo \"$VMAUDIT_MARKS\" >path";
    let session = Session::vmaudit(&["run", "--marks", "-o"]);
    let (json, folder) = (session.file("r.json"), session.file(""));
    let session = session.words(&[&json]).words(&["--", "sh", "-c"]);
    let script = format!("cd {} && {script}", folder.display());
    // The folder goes with it.
    let _done = session.words(&[script]).env("V", vmaudit().to_str().unwrap()).go().succeeded();
    let text = |name: &str| std::fs::read_to_string(folder.join(name)).unwrap();
    let report: Report = serde_json::from_str(&text("r.json")).unwrap();
    assert_eq!(report.marks.len(), 1);
    assert!(mark(&report, "a b").exact, "{:?}", report.marks);
    assert_eq!(text("wrong").trim(), "vmaudit: no mark of this name runs");
    assert_eq!(text("socket").trim(), format!("600 {}", std::fs::metadata(&folder).unwrap().uid()));
    // It went with the session.
    assert!(!std::path::Path::new(text("path").trim()).exists());
    let outside = Session::vmaudit(&["mark", "begin", "x"]).go().ended_with(1);
    assert!(outside.said().contains("VMAUDIT_MARKS is not set"), "{}", outside.said());
}

/// Who runs as somebody else may name stretches too.
#[test]
fn the_socket_is_of_the_user_whom_the_command_runs_as() {
    let done = Session::run(&["--marks", "--as", "65534"], &["marked", "10"]).go().succeeded();
    assert_eq!(done.report().marks.len(), 11);
}
