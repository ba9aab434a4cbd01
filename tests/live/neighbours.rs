//! Processes beside the one that matters, of other users and of ill will: what they do is theirs, and what they take is
//! said to be theirs.

use serde_json::Value;
use vmaudit_tests::session::Running;
use vmaudit_tests::{Session, send_signal, wait_for};
use vmaudit_user::model::report::Cause;

use crate::attach::{find, objects};

/// A user that no machine has.
const STRANGER: u32 = 54_321;

/// What is known of a task's call must not be overwritten by another whose id has the same low bits, whatever it does.
#[test]
fn a_task_id_like_ours_does_not_make_our_causes_uncertain() {
    const CALLS: u64 = 2_000;
    let n = CALLS.to_string();
    let done = Session::run(&[], &["beside-thief", "causes", "rlimit-as", &n]).go().succeeded();
    let (own, report) = (done.own().remove(0), done.report());
    assert_eq!(report.coverage.lost["section_lost"], 0, "{:?}", report.coverage.lost);
    let of_mmap = || report.failures.iter().filter(|f| f.pid == own.pid && f.syscall == "mmap");
    let certain = of_mmap().filter(|f| f.certain && f.cause == Cause::RlimitAs).map(|f| f.count).sum::<u64>();
    assert_eq!(certain, CALLS, "{:?}", of_mmap().collect::<Vec<_>>());
}

/// Another vmaudit that follows the same process looks at its mappings on the task's way back, and so lets go of its lock in
/// the midst of the same call.
#[test]
fn refusals_that_another_session_sees_too_are_counted_once() {
    let session = Session::vmaudit(&["run", "--all-rows", "-q", "-o"]);
    let (outer, inner) = (session.file("outer.json"), session.file("report.json"));
    let session = session.words(&[&outer]).words(&["--"]).words(&[vmaudit_tests::vmaudit()]);
    let session = session.words(&["run", "--all-rows", "-q", "-o"]).words(&[&inner]).words(&["--"]);
    let done = session.then_workload(&["causes", "gap", "5"]).go().succeeded();
    let own = done.own().remove(0);
    for report in [done.report(), serde_json::from_str(&done.read("outer.json")).unwrap()] {
        for refused in &own.refused {
            let groups = report.failures.iter().chain(&report.ordinary_answers);
            let ours = groups.filter(|group| group.pid == own.pid && group.syscall == refused.syscall);
            assert_eq!(ours.map(|group| group.count).sum::<u64>(), refused.count, "{refused:?}");
        }
    }
}

/// Processes of one user that stand still, all alive.
fn crowd_of(user: u32, n: usize) -> Running {
    let session = Session::workload(&["crowd", &n.to_string(), "1"]).as_user(user);
    let mut running = session.start_with_pipe();
    running.wait_for_stdout("standing");
    running
}

/// `trace --all`, at work.
fn trace_all(options: &[&str]) -> Running {
    let session = Session::vmaudit(&["trace", "--all", "--format", "json"]).words(options).start();
    wait_until_told_of_ours(&session);
    session
}

/// Until it has told of a refused call of ours.
fn wait_until_told_of_ours(session: &Running) {
    wait_for("a refused call of a process that started later", || {
        let own = Session::workload(&["causes", "rlimit-as", "1"]).go().succeeded().own().remove(0);
        told_of(session, own.pid).then_some(())
    });
}

fn told_of(session: &Running, pid: u32) -> bool {
    let text = String::from_utf8_lossy(&session.stdout_so_far()).into_owned();
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    objects(whole).iter().any(|line| {
        line["type"] == "failure" && find(line, &["pid", "tgid"]).and_then(Value::as_u64) == Some(pid.into())
    })
}

/// The last line of a trace.
fn end_of(session: Running) -> Value {
    send_signal(session.pid(), libc::SIGINT);
    let done = session.wait();
    objects(&String::from_utf8_lossy(&done.stdout)).pop().expect("a line")
}

fn note_of(end: &Value, user: u32) -> Option<String> {
    let notes = end["notes"].as_array().expect("notes");
    let of_user = format!("uid {user} used its share");
    notes.iter().filter_map(Value::as_str).find(|note| note.starts_with(&of_user)).map(str::to_owned)
}

/// One user's 1,100 processes would fill half a table of 2,048. He has no more of it than is free then, whatever the others have,
/// and they are followed.
#[test]
fn one_user_cannot_take_all_address_spaces() {
    let session = trace_all(&["--failed", "--slots", "2048"]);
    let crowd = crowd_of(STRANGER, 1_100);
    wait_until_told_of_ours(&session);
    let end = end_of(session);
    drop(crowd);
    let note = note_of(&end, STRANGER).unwrap_or_else(|| panic!("{end}"));
    let times = note.split(' ').rev().nth(1).and_then(|n| n.parse().ok());
    let times: u64 = times.unwrap_or_else(|| panic!("{note}"));
    // 1,101 of them, less half of the table at the most. One that changes something tries again.
    assert!(times >= 1_101 - 1_024, "{note}");
    assert!(end["lost"]["table_full"].as_u64() >= Some(times), "{end}");
}

/// One user's 40,000 changes are more than a buffer of 16 KiB holds until it is read.
#[test]
fn one_user_cannot_take_all_of_the_ring_buffer() {
    let session = trace_all(&["--ring-bytes", "16384"]);
    let mut end = None;
    for _ in 0..20 {
        Session::workload(&["flood", "20000"]).as_user(STRANGER).go().succeeded();
        let text = String::from_utf8_lossy(&session.stdout_so_far()).into_owned();
        if text.contains("\"type\":\"lost\"") || text.contains("\"type\": \"lost\"") {
            end = Some(end_of(session));
            break;
        }
    }
    let end = end.expect("no loss of 800,000 changes through 16 KiB is mentioned");
    assert!(note_of(&end, STRANGER).is_some_and(|note| note.contains("details dropped")), "{end}");
}

/// Ends are told now and then, not each by itself, and still no child lacks its place: 3,000 of them, one after the other,
/// through 256 slots.
#[test]
fn a_burst_of_short_lives_finds_its_places() {
    const CHILDREN: u64 = 3_000;
    let done = Session::run(&["--slots", "256"], &["one-by-one", &CHILDREN.to_string()]).go().succeeded();
    let report = done.report();
    assert_eq!(report.coverage.lost["table_full"], 0, "{:?}", report.coverage.lost);
    assert_eq!(report.processes.len() as u64, CHILDREN + 1);
}
