//! `trace`: the stream of changes, for a command and for processes that already run.

use std::io::Read as _;
use std::time::{Duration, Instant};

use serde_json::Value;
use vmaudit_tests::own::{self, Own};
use vmaudit_tests::{LowerLimit, Session, wait_for, workload};

/// Each line is one JSON object.
pub fn objects(text: &str) -> Vec<Value> {
    let parse = |line: &str| -> Value {
        let value = serde_json::from_str(line).unwrap_or_else(|e| panic!("{e} in the line {line:?}"));
        assert!(matches!(value, Value::Object(_)), "a line is an object: {line}");
        value
    };
    text.lines().map(parse).collect()
}

/// The first value with one of these names, at any depth.
pub fn find<'a>(value: &'a Value, names: &[&str]) -> Option<&'a Value> {
    match value {
        Value::Object(members) => {
            let here = names.iter().find_map(|name| members.get(*name));
            here.or_else(|| members.values().find_map(|v| find(v, names)))
        }
        Value::Array(items) => items.iter().find_map(|v| find(v, names)),
        _ => None,
    }
}

/// (before, after) of every change of process `pid`.
fn changes(text: &str, pid: u32) -> Vec<(u64, u64)> {
    let of_pid = |line: &&Value| find(line, &["pid", "tgid"]).and_then(Value::as_u64) == Some(u64::from(pid));
    objects(text)
        .iter()
        .filter(of_pid)
        .filter_map(|line| Some((find(line, &["before"])?.as_u64()?, find(line, &["after"])?.as_u64()?)))
        .collect()
}

#[test]
fn a_process_that_already_runs_is_traced_with_its_true_counts() {
    let mut target = Session::workload(&["attach", "300"]).start_with_pipe();
    target.wait_for_stdout("standing");
    let standing: Own = own::parse(&target.stdout_so_far()).remove(0);

    let session = Session::vmaudit(&[
        "trace",
        "--all-lines",
        "--format",
        "json",
        "-d",
        "2s",
        "-p",
        &target.pid().to_string(),
        "-o",
    ]);
    let lines = session.file("lines.json");
    let mut trace = session.words(&[lines]).start();
    // Bursts go on for as long as the trace does, so it is no matter when it begins. Each is asked for when the one
    // before it is over, and a while later: on a slow machine they would pile up, and keep vmaudit from starting.
    const PAUSE: Duration = Duration::from_millis(100);
    let (mut asked, mut over) = (0, Instant::now());
    wait_for("the end of the trace", || {
        let said = target.stdout_so_far().iter().filter(|&&byte| byte == b'\n').count();
        if said > asked && over.elapsed() > PAUSE {
            assert!(target.write(b"x"), "the workload is gone");
            asked += 1;
        } else if said <= asked {
            over = Instant::now();
        }
        trace.ended().then_some(())
    });
    let done = trace.wait().succeeded();
    let ended = target.wait().succeeded();
    let burst = ended.own().pop().unwrap();
    assert_eq!(burst.role, "after-burst");

    let changes = changes(&done.read("lines.json"), standing.pid);
    assert!(changes.len() >= 600, "{} changes of at least one whole burst", changes.len());
    assert_eq!(changes.iter().map(|c| c.1).max(), Some(burst.peak), "the peak of a burst");
    assert_eq!(changes.iter().map(|c| c.1).min(), Some(standing.base), "between the bursts");
}

#[test]
fn the_stream_of_a_command_has_every_change_in_order() {
    let session = Session::vmaudit(&["trace", "-o"]);
    let lines = session.file("lines.json");
    let done = session.words(&[lines]).words(&["--"]).then_workload(&["holes", "300"]).go().succeeded();
    let own = done.own().remove(0);
    let changes = changes(&done.read("lines.json"), own.pid);
    for pair in changes.windows(2) {
        assert_eq!(pair[0].1, pair[1].0, "each change starts where the one before it ended: {pair:?}");
    }
    assert_eq!(changes.last().map(|c| c.1), own.last);
    assert_eq!(changes.iter().map(|c| c.1).max(), Some(own.peak));
}

#[test]
fn only_failures_means_only_failures() {
    let _lower = LowerLimit::new();
    let session = Session::vmaudit(&["trace", "-Z", "-o"]);
    let lines = session.file("lines.json");
    let done = session.words(&[lines]).words(&["--"]).then_workload(&["limit", "munmap"]).go().succeeded();
    let own = done.own().remove(0);
    let text = done.read("lines.json");
    assert_eq!(changes(&text, own.pid), []);
    assert_eq!(refused(&text), own.refused[0].count);
}

/// Refused calls in the stream, each line as many as it stands for.
fn refused(text: &str) -> u64 {
    let times = |line: &Value| line.get("times").map_or(1, |times| times.as_u64().expect("a number"));
    objects(text).iter().filter(|line| find(line, &["errno"]).is_some()).map(times).sum()
}

/// A program that is refused the same call again and again writes no log.
#[test]
fn a_loop_of_refused_calls_is_a_line_a_second_with_its_number() {
    // So that no record is lost, whatever the machine is at.
    const RING: &str = "16777216";
    for (option, most) in [(None, 100), (Some("--all-lines"), 0)] {
        let words = ["trace", "-Z", "--ring-bytes", RING, "--format", "json"];
        let session = Session::vmaudit(&words).words(option.as_slice()).words(&["-o"]);
        let lines = session.file("lines.json");
        let began = Instant::now();
        let session = session.words(&[lines]).words(&["--"]).then_workload(&["causes", "rlimit-as", "5000"]);
        let done = session.go().succeeded();
        let own = done.own().remove(0);
        let text = done.read("lines.json");
        let all: u64 = own.refused.iter().map(|refused| refused.count).sum();
        assert!(all >= 5000 && refused(&text) == all, "{} of {all}", refused(&text));
        // A line in a second for each of the few kinds.
        let seconds = began.elapsed().as_secs() as usize + 1;
        let count = text.lines().count();
        assert!(if option.is_none() { count < most * seconds } else { count as u64 >= all }, "{count} lines");
    }
}

#[test]
fn a_run_of_changes_is_one_line_that_says_from_where_to_where() {
    let done =
        Session::vmaudit(&["trace", "-o", "-", "--"]).then_workload(&["burst", "3000"]).go().succeeded();
    let text = String::from_utf8_lossy(&done.stdout);
    let up = text.lines().find(|line| line.contains("+2999 ")).unwrap_or_else(|| panic!("{text}"));
    assert!(up.contains("  \u{d7} 2,999 more in "), "{up}");
    assert!(text.lines().count() < 200, "{text}");
}

/// One who traces a server means its workers, too: those that it has.
#[test]
fn children_that_a_process_has_are_traced_with_it() {
    for (option, followed) in [(None, true), (Some("--no-follow"), false)] {
        let parent = Session::other("/bin/sh".into()).words(&["-c", "\"$0\" attach 50; true"]);
        let mut parent = parent.words(&[workload()]).start_with_pipe();
        parent.wait_for_stdout("standing");
        let child = own::parse(&parent.stdout_so_far()).remove(0).pid;
        assert_ne!(child, parent.pid(), "the shell stays");
        let session =
            Session::vmaudit(&["trace", "--all-lines", "--format", "json"]).words(option.as_slice());
        let lines = session.file("lines.json");
        let mut trace = session.words(&["-p", &parent.pid().to_string(), "-o"]).words(&[&lines]).start();
        // Nobody's changes are shown before it began, and nothing tells when that was; so bursts go on.
        let mut asked = 0;
        let deadline = Instant::now() + Duration::from_secs(if followed { 60 } else { 2 });
        let seen = loop {
            let over = parent.stdout_so_far().iter().filter(|&&byte| byte == b'\n').count();
            if over > asked {
                assert!(parent.write(b"x"), "the workload is gone");
                asked += 1;
            }
            let text = std::fs::read_to_string(&lines).unwrap_or_default();
            let whole = text.rfind('\n').map_or("", |end| &text[..end]);
            if !changes(whole, child).is_empty() {
                break true;
            }
            assert!(!trace.ended(), "the trace ended by itself");
            if Instant::now() > deadline {
                break false;
            }
            std::thread::yield_now();
        };
        assert_eq!(seen, followed, "{option:?}");
    }
}

/// `-c` takes the sums of the kernel: a buffer that is too small for anything makes no figure less.
#[test]
fn counts_alone_lose_nothing_whatever_happens_to_the_lines() {
    let _lower = LowerLimit::new();
    let words = ["trace", "-c", "--ring-bytes", "4096", "--format", "json", "-o"];
    for narrow in [None, Some("--call=munmap,mmap,brk")] {
        let session = Session::vmaudit(&words);
        let lines = session.file("lines.json");
        let session = session.words(&[lines]).words(narrow.as_slice()).words(&["--"]);
        let done = session.then_workload(&["limit", "munmap", "2000"]).go().succeeded();
        let own = done.own().remove(0);
        let end = objects(&done.read("lines.json")).pop().expect("an end");
        let count = |rows: &Value, name: &str| -> u64 {
            let rows = rows.as_array().expect("rows").iter();
            rows.filter(|row| row["syscall"] == "munmap").filter_map(|row| row[name].as_u64()).sum()
        };
        assert_eq!(count(&end["refused"], "count"), own.refused[0].count, "{end}");
        assert_eq!(count(&end["calls"], "failed"), own.refused[0].count, "{end}");
        assert!(
            count(&end["calls"], "calls") >= own.refused[0].count && count(&end["calls"], "added") > 0,
            "{end}"
        );
        assert_eq!(end["complete"], true, "{end}");
        assert_eq!(narrow.is_some(), end["calls"].as_array().expect("rows").len() <= 3, "{end}");
    }
}

/// What is not written is counted, and the end is said all the same.
#[test]
fn the_output_ends_at_its_size_and_the_session_goes_on() {
    let words = ["trace", "--all-lines", "--max-bytes", "20k", "--format", "json", "-o"];
    let session = Session::vmaudit(&words);
    let lines = session.file("lines.json");
    let done = session.words(&[lines]).words(&["--"]).then_workload(&["burst", "2000"]).go().succeeded();
    let text = done.read("lines.json");
    assert!(text.len() <= 20_000, "{} bytes", text.len());
    let all = objects(&text);
    let [lines @ .., missing, end] = all.as_slice() else { panic!("{text}") };
    assert!(!lines.is_empty() && lines.iter().all(|line| line["type"] == "change"));
    assert_eq!((missing["type"].as_str(), end["type"].as_str()), (Some("max_bytes"), Some("end")));
    let left_out = missing["lines"].as_u64().expect("a number");
    assert!(lines.len() as u64 + left_out >= 4000, "{} and {left_out}", lines.len());
}

#[test]
fn the_stream_can_be_narrowed_to_one_call() {
    let session = Session::vmaudit(&["trace", "--all-lines", "--format", "json", "--call", "munmap", "-o"]);
    let lines = session.file("lines.json");
    let done = session.words(&[lines]).words(&["--"]).then_workload(&["burst", "300"]).go().succeeded();
    let text = done.read("lines.json");
    let calls = objects(&text).into_iter().filter_map(|l| l.get("syscall").cloned()).collect::<Vec<_>>();
    assert!(calls.iter().all(|c| c == "munmap"), "{calls:?}");
    // The reservation that found the room, and the burst; a dynamic loader's own munmap comes earlier, below the base.
    let base = done.own().remove(0).base;
    let above = |line: &Value| find(line, &["before"]).and_then(|n| n.as_u64()) > Some(base);
    assert_eq!(objects(&text).into_iter().filter(|line| above(line)).count(), 301);
}

#[test]
fn a_whole_family_is_in_the_stream() {
    let session = Session::vmaudit(&["trace", "-o"]);
    let lines = session.file("lines.json");
    let done = session.words(&[lines]).words(&["--"]).then_workload(&["children", "20"]).go().succeeded();
    let text = done.read("lines.json");
    for own in done.own() {
        assert_eq!(changes(&text, own.pid).iter().map(|c| c.1).max(), Some(own.peak), "{own:?}");
    }
}

#[test]
fn tracing_a_process_that_does_not_exist_is_an_error_in_one_sentence() {
    let done = Session::vmaudit(&["trace", "-p", "4194304", "-d", "1s"]).go();
    assert_eq!(done.status.code(), Some(1), "{}", done.said());
    assert_eq!(done.stderr_text().lines().count(), 1, "{}", done.said());
}

#[test]
fn a_command_that_cannot_be_traced_gives_the_status_that_shells_give() {
    let folder = std::env::temp_dir();
    for (command, status) in [("/nonexistent/program", 127), (folder.to_str().unwrap(), 126)] {
        let done = Session::vmaudit(&["trace", "--", command]).go().ended_with(status);
        assert!(done.stderr_text().contains(command), "{}", done.said());
        assert_eq!(done.stderr_text().lines().count(), 1, "{}", done.said());
    }
}

#[test]
fn the_status_of_a_traced_command_is_its_own_affair() {
    Session::vmaudit(&["trace", "-Z", "--"]).then_workload(&["exit", "7"]).go().succeeded();
}

#[test]
fn a_user_that_trace_may_not_become_is_a_plain_failure() {
    // CAP_BPF, CAP_PERFMON: enough to trace, and no right to become anybody.
    let session = Session::vmaudit(&["trace", "--as", "0", "--"]).then_workload(&["bytes"]);
    let done = session.as_user_with(65534, &[39, 38]).go().ended_with(1);
    assert!(done.stderr_text().contains("cannot become that user"), "{}", done.said());
}

#[test]
fn trace_refuses_what_means_nothing_to_it() {
    for option in ["--headroom", "--round"] {
        Session::vmaudit(&["trace", option, "2", "--", "true"]).go().ended_with(2);
    }
}

/// Between two images a process has no address space that anybody follows; the trace must not take that for its end.
#[test]
fn a_process_that_execs_all_the_time_is_traced_until_it_ends() {
    let target = Session::workload(&["exec-loop", "4000000000"]).start();
    let session = Session::vmaudit(&["trace", "--format", "json", "-p", &target.pid().to_string(), "-o"]);
    let lines = session.file("lines.json");
    let mut trace = session.words(&[&lines]).start();
    // A change that does not start where the one before it ended is the first of a new image.
    let (mut file, mut text) = (None, Vec::new());
    let (mut images, mut last) = (0, None);
    wait_for("three hundred images", || {
        assert!(!trace.ended(), "the trace ended while its process was alive");
        if file.is_none() {
            file = std::fs::File::open(&lines).ok();
        }
        file.as_mut()?.read_to_end(&mut text).expect("the lines are readable");
        let whole = text.iter().rposition(|&b| b == b'\n').map_or(0, |at| at + 1);
        let complete: Vec<u8> = text.drain(..whole).collect();
        for (before, after) in changes(&String::from_utf8_lossy(&complete), target.pid()) {
            images += u32::from(last != Some(before));
            last = Some(after);
        }
        (images > 300).then_some(())
    });
    vmaudit_tests::send_signal(target.pid(), libc::SIGKILL);
    target.wait().died_of(libc::SIGKILL);
    trace.wait().succeeded();
}
