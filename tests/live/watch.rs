//! `watch`: what already runs is attached to, told with its true figures from then on, and left alone.

use std::path::{Path, PathBuf};

use vmaudit_tests::own::{self, Own};
use vmaudit_tests::rows::{assert_exact_peak, assert_nothing_lost};
use vmaudit_tests::{Done, Running, Session, alive, in_guest, send_signal, wait_for, workload};
use vmaudit_user::model::report::{Moment, Process, Report, Since};

/// The workload stands with what it says it has.
fn standing(n: &str) -> (Running, Own) {
    let mut target = Session::workload(&["attach", n]).start_with_pipe();
    target.wait_for_stdout("standing");
    let own = own::parse(&target.stdout_so_far()).remove(0);
    (target, own)
}

/// One burst, from its beginning to its end.
fn burst(target: &mut Running) -> Own {
    let said = |target: &Running| target.stdout_so_far().iter().filter(|&&b| b == b'\n').count();
    let before = said(target);
    assert!(target.write(b"x"), "the workload is gone");
    wait_for("the end of a burst", || (said(target) > before).then_some(()));
    own::parse(&target.stdout_so_far()).pop().expect("a line")
}

/// A watch that is at work.
fn watching(session: Session) -> Running {
    let mut watch = session.start();
    watch.wait_for_stderr("watching ");
    watch
}

fn ended_by(watch: Running, signal: i32) -> Done {
    send_signal(watch.pid(), signal);
    watch.wait()
}

fn row(report: &Report, pid: u32) -> &Process {
    let rows: Vec<_> = report.processes.iter().filter(|row| row.pid == pid).collect();
    assert_eq!(rows.len(), 1, "rows of {pid}: {rows:?}");
    rows[0]
}

/// A shell that becomes the workload when it is let go, so that a watch can be there before.
fn gated(words: &str) -> Running {
    let script = format!("read go; exec \"$0\" {words}");
    Session::other("/bin/sh".into()).words(&["-c", &script]).words(&[workload()]).start_with_pipe()
}

#[test]
fn a_burst_under_way_is_attached_to_and_its_peak_is_exact() {
    let (mut target, standing) = standing("300");
    let pid = target.pid().to_string();
    let mut watch = Session::watch(&["-p", &pid]).start();
    // Bursts go on while it attaches.
    let said = watch.file("stderr");
    while !std::fs::read_to_string(&said).unwrap_or_default().contains("watching ") {
        assert!(!watch.ended(), "the watch ended by itself");
        burst(&mut target);
    }
    let last = burst(&mut target);
    let done = ended_by(watch, libc::SIGTERM).succeeded();
    let report = done.report();
    let row = row(&report, target.pid());
    assert_eq!(report.processes.len(), 1, "{:?}", report.processes);
    assert_eq!((row.since, row.ended_s), (Some(Since::Attach), None), "{row:?}");
    assert_exact_peak(row, &Own { peak: last.peak, last: Some(standing.base), ..standing.clone() });
    assert!(row.map_count.first >= Some(standing.base) && row.map_count.first <= Some(last.peak), "{row:?}");
    assert_nothing_lost(&report);
    assert_eq!((report.session.still_running, report.session.command.len()), (1, 0));
    assert_eq!(report.session.watched.as_deref(), Some(format!("process {pid}").as_str()));
    // It lives on, as it was.
    assert_eq!(burst(&mut target).peak, last.peak);
    target.wait().succeeded();
}

/// One that nobody touches is told as it was found.
#[test]
fn a_process_that_does_nothing_has_the_count_that_it_had() {
    let (target, standing) = standing("77");
    let done = Session::watch(&["-d", "300ms", "-p", &target.pid().to_string()]).go().succeeded();
    let report = done.report();
    assert_exact_peak(row(&report, target.pid()), &Own { first: Some(standing.base), ..standing });
    let name = row(&report, target.pid());
    assert!(name.exe.as_deref().is_some_and(|exe| exe.ends_with("/workload")), "{name:?}");
    target.wait().succeeded();
}

/// Who lives on with many VMAs is looked at when the session is over, and nobody else.
#[test]
fn where_the_vmas_of_who_lives_on_lie_is_told_as_of_the_end() {
    // A twentieth of the limit, and less.
    let targets = [standing("8000"), standing("100")];
    let pids = targets.iter().map(|(target, _)| target.pid().to_string()).collect::<Vec<_>>().join(",");
    let report = Session::watch(&["-d", "300ms", "-p", &pids]).go().succeeded().report();
    let [large, small] = [0, 1].map(|n| row(&report, targets[n].0.pid()).layout.clone());
    assert_eq!(small, None);
    let layout = large.expect("it was looked at");
    assert_eq!(layout.moment, Moment::SessionEnd);
    assert!(layout.at_s >= report.session.duration_s, "{layout:?}");
    // A look ends after 200 ms; [vsyscall] may be listed.
    let base = targets[0].1.base;
    assert!(!layout.complete || (base..=base + 1).contains(&layout.vmas_read), "{base}: {layout:?}");
    assert_eq!(layout.rows.iter().map(|row| row.vmas).sum::<u64>(), layout.vmas_read);
    targets.into_iter().for_each(|(target, _)| drop(target.wait().succeeded()));
}

/// The children that come are known from their birth, the images of one that execs are apart, and the end of the last one is
/// the session's.
#[test]
fn with_the_end_of_its_last_process_it_ends_and_each_child_has_its_own_peak() {
    for words in ["children 200", "reuse-pid 50", "one-by-one 300"] {
        let mut target = gated(words);
        let watch = watching(Session::watch(&["-p", &target.pid().to_string()]));
        assert!(target.write(b"\n"));
        let pid = target.pid();
        let owns = target.wait().succeeded().own();
        let report = watch.wait().succeeded().report();
        assert_nothing_lost(&report);
        assert_eq!((report.processes.len(), report.session.still_running), (owns.len(), 0), "{words}");
        let mut rows: Vec<&Process> = report.processes.iter().collect();
        rows.sort_by(|a, b| a.pid.cmp(&b.pid).then(a.started_s.partial_cmp(&b.started_s).expect("times")));
        let mut sorted: Vec<&Own> = owns.iter().collect();
        sorted.sort_by_key(|own| own.pid);
        for (row, own) in rows.into_iter().zip(sorted) {
            assert_eq!(row.pid, own.pid, "{words}");
            let since = if row.pid == pid { Since::Attach } else { Since::Start };
            assert_eq!(row.since, Some(since), "{words}: {row:?}");
            if row.pid != pid {
                assert_exact_peak(row, own);
            }
        }
    }
}

/// It forks, execs and dies while it is attached to: whatever was met of it, nothing is made up.
#[test]
fn a_target_that_dies_while_it_is_attached_to_is_no_failure() {
    for words in [&["exec-self", "40", "200"][..], &["one-by-one", "400"], &["vfork", "100"]] {
        let target = Session::workload(words).start();
        let pid = target.pid();
        let watch = Session::watch(&["-p", &pid.to_string()]).start();
        let owns = target.wait().succeeded().own();
        let done = watch.wait();
        match done.status.code() {
            // It was gone by then.
            Some(1) => assert!(
                done.stderr_text().contains("no process") || done.stderr_text().contains("nothing to watch"),
                "{}",
                done.said()
            ),
            _ => {
                let report = done.succeeded().report();
                for row in report.processes.iter().filter(|row| row.since == Some(Since::Start)) {
                    let own = owns.iter().find(|own| own.pid == row.pid);
                    let Some(own) = own.filter(|own| own.role == "child") else { continue };
                    assert!(row.map_count.peak == Some(own.peak) || !row.map_count.exact, "{row:?} {own:?}");
                }
            }
        }
    }
}

/// A copy of the workload that nobody else runs.
fn own_copy(session: &Session) -> PathBuf {
    let copy = session.file("workload");
    std::fs::copy(workload(), &copy).expect("a program can be copied");
    copy
}

#[test]
fn whoever_comes_later_is_waited_for_and_known_from_its_first_instruction() {
    let session = Session::watch(&["--wait"]);
    let copy = own_copy(&session);
    let watch = watching(session.words(&[Path::new("--exe"), &copy]));
    let done = Session::other(copy).words(&["children", "20"]).go().succeeded();
    let report = watch.wait().succeeded().report();
    let owns = done.own();
    assert_eq!(report.processes.len(), owns.len());
    for own in &owns {
        let row = row(&report, own.pid);
        assert_eq!(row.since, Some(Since::Start));
        assert_exact_peak(row, own);
    }
}

#[test]
fn what_fits_nobody_is_said_at_once_and_nothing_is_begun() {
    for (words, status, said) in [
        (
            &["--unit", "no-such-unit"][..],
            1,
            "nothing fits: no process that runs now is meant by unit no-such-unit",
        ),
        (&["--container", "web"], 1, "go by their ids"),
        (&["--cgroup", "/no/such/group"], 1, "meant by cgroup /no/such/group"),
        (&["--comm", "no such name"], 1, "nothing fits"),
        (&["-p", "no-such-name"], 1, "no process is named no-such-name"),
        (&["-p", "4194304999"], 1, "there is no process"),
        (&["--user", "no-such-user"], 1, "there is no user no-such-user"),
        (&["--pod", "no/such-pod"], 1, "pod"),
        (&["--unit", "a/b"], 2, "write a unit's name"),
        (&["--container", ""], 2, "write the beginning of a container's id"),
        (&["--pod", "web"], 2, "write a pod's uid, or NAMESPACE/NAME"),
        (&["-p", "0"], 2, "there is no process 0"),
    ] {
        for command in ["watch", "trace"] {
            let session = Session::vmaudit(&[command]).words(words).words(&["-o"]);
            let output = session.file("report.json");
            std::fs::write(&output, "before").unwrap();
            let done = session.words(&[&output]).go().ended_with(status);
            let stderr = done.stderr_text();
            assert!(stderr.contains(said), "{command} {words:?}: {stderr}");
            assert!(status == 2 || stderr.lines().count() == 1, "{stderr}");
            assert_eq!(std::fs::read_to_string(&output).unwrap(), "before");
        }
    }
}

#[test]
fn a_signal_asks_for_a_report_of_what_was_seen_so_far() {
    let (mut target, _) = standing("200");
    let mut watch = watching(Session::watch(&["-p", &target.pid().to_string()]));
    let last = burst(&mut target);
    send_signal(watch.pid(), libc::SIGUSR1);
    watch.wait_for_stderr("so far, and it goes on:");
    watch.wait_for_stderr("PEAK");
    burst(&mut target);
    let done = ended_by(watch, libc::SIGINT).succeeded();
    assert_eq!(row(&done.report(), target.pid()).map_count.peak, Some(last.peak));
    let shown = format!("{}", last.peak);
    assert!(done.stderr_text().contains(&shown), "{}", done.said());
    target.wait().succeeded();
}

#[test]
fn budgets_hold_for_what_is_watched() {
    let (target, standing) = standing("50");
    let pid = target.pid().to_string();
    let peak = standing.base.to_string();
    let most = |n: &str, code: i32| {
        let words = ["-q", "-d", "200ms", "-p", &pid, "--max-peak", n];
        Session::watch(&words).go().ended_with(code)
    };
    most(&peak, 0);
    let broken = most("40", 86);
    assert!(broken.stderr_text().contains("more than --max-peak 40"), "{}", broken.said());
    assert_eq!(broken.report().breaches.len(), 1);
    // Samples show no budget to hold.
    let words = ["-q", "-d", "200ms", "-p", &pid, "--max-peak", "10k", "--source", "proc"];
    Session::watch(&words).go().ended_with(86);
    assert!(alive(target.pid()));
    target.wait().succeeded();
}

#[test]
fn without_ebpf_counts_are_samples_and_say_so() {
    let (target, standing) = standing("60");
    let words = ["--source", "proc", "-d", "1s", "-p", &target.pid().to_string()];
    let done = Session::watch(&words).go().succeeded();
    assert!(done.stderr_text().contains("looking at /proc instead of eBPF"), "{}", done.said());
    let report = done.report();
    let row = row(&report, target.pid());
    assert_eq!((row.map_count.peak, row.map_count.exact), (Some(standing.base), false));
    assert_eq!(row.since, Some(Since::Attach));
    target.wait().succeeded();
}

/// A cgroup of this test's own, with the names of a unit and of a container in its path.
struct Group {
    root: PathBuf,
    unit: String,
    inner: PathBuf,
}

const ID: &str = "0a1b2c3d4e5f60718293a4b5c6d7e8f90a1b2c3d4e5f60718293a4b5c6d7e8f9";

impl Group {
    fn new() -> Self {
        let folders = ["/sys/fs/cgroup/pids", "/sys/fs/cgroup/unified", "/sys/fs/cgroup"];
        let root = folders.iter().map(PathBuf::from).find(|folder| folder.join("cgroup.procs").exists());
        let root = root.expect("cgroups are mounted");
        let unit = format!("vma-{}.service", std::process::id());
        let inner = root.join(&unit).join(format!("docker-{ID}.scope"));
        std::fs::create_dir_all(&inner).expect("a cgroup can be made");
        Self { root, unit, inner }
    }

    fn take(&self, pid: u32) {
        std::fs::write(self.inner.join("cgroup.procs"), pid.to_string()).expect("a process can be moved");
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        for folder in [self.inner.clone(), self.root.join(&self.unit)] {
            wait_for("the cgroup to be empty", || std::fs::remove_dir(&folder).ok());
        }
    }
}

/// Its peak, which may be called doubtful only where the kernel did not show everything.
fn assert_peak(row: &Process, own: &Own) {
    assert!(row.map_count.peak == Some(own.peak) || !row.map_count.exact, "{row:?} {own:?}");
}

/// By cgroup, unit and container: who is in it, who comes into it, whoever descends from them, and nobody else.
#[test]
fn a_unit_and_a_container_are_watched_with_whoever_joins() {
    let group = Group::new();
    let (target, standing) = standing("70");
    group.take(target.pid());
    let mounted = group.root.join(&group.unit);
    let (unit, id) = (group.unit.strip_suffix(".service").expect("a service"), &ID[..12]);
    let filters: [[&str; 2]; 3] =
        [["--unit", unit], ["--container", id], ["--cgroup", mounted.to_str().expect("a path")]];
    let outside = Session::workload(&["burst", "100"]).go().succeeded();
    for filter in filters {
        let mut watch = watching(Session::watch(&filter));
        // Comes in from outside, execs there, is met while it stands, and has children.
        let script = format!(
            "echo $$ > {}/cgroup.procs; exec /bin/sh -c 'read go; exec \"$0\" children 20' \"$0\"",
            group.inner.display()
        );
        let joined = Session::other("/bin/sh".into()).words(&["-c", &script]).words(&[workload()]);
        let mut joined = joined.start_with_pipe();
        let (stderr, pid) = (watch.file("stderr"), joined.pid());
        wait_for("the one who joined to be met", || {
            send_signal(watch.pid(), libc::SIGUSR1);
            let said = std::fs::read_to_string(&stderr).expect("stderr is text");
            said.lines().any(|line| line.split_whitespace().next() == Some(&pid.to_string())).then_some(())
        });
        assert!(joined.write(b"\n") && !watch.ended());
        let owns = joined.wait().succeeded().own();
        let report = ended_by(watch, libc::SIGTERM).succeeded().report();
        assert_peak(row(&report, target.pid()), &standing);
        assert_eq!(row(&report, target.pid()).since, Some(Since::Attach));
        let children = owns.iter().filter(|own| own.role == "child");
        children.for_each(|own| assert_peak(row(&report, own.pid), own));
        let row = row(&report, pid);
        assert_eq!((row.since, row.container.as_deref()), (Some(Since::Start), Some(ID)), "{row:?}");
        assert!(row.unit.as_deref().is_some_and(|unit| unit.starts_with("docker-")), "{row:?}");
        let pids: Vec<u32> = report.processes.iter().map(|row| row.pid).collect();
        assert!(!pids.contains(&outside.own()[0].pid) && pids.len() == 1 + owns.len(), "{filter:?} {pids:?}");
    }
    let scan = Session::vmaudit(&["scan", "--container", id, "--format", "json"]).go().succeeded();
    let found: Report = serde_json::from_slice(&scan.stdout).expect("a report");
    assert_eq!(found.processes.iter().map(|row| row.pid).collect::<Vec<_>>(), [target.pid()]);
    assert_eq!(found.processes[0].container.as_deref(), Some(ID));
    target.wait().succeeded();
}

/// Thousands at once, and thousands that come and go: each has its row or is counted as lost.
#[test]
fn a_crowd_that_stands_and_one_that_comes_and_goes_are_told_one_by_one() {
    let (stand, come) = if in_guest() { ("300", "1000") } else { ("2000", "10000") };
    let crowd = Session::workload(&["crowd", stand, "20"]).start_with_pipe();
    let lines = stand.parse::<usize>().expect("a number");
    wait_for("the crowd", || (own_lines(&crowd) >= lines).then_some(()));
    let mut coming = gated(&format!("one-by-one {come}"));
    let watch = watching(Session::watch::<&str>(&[]));
    assert!(coming.write(b"\n"));
    let came = coming.wait().succeeded().own();
    let stood = own::parse(&crowd.stdout_so_far());
    let report = ended_by(watch, libc::SIGTERM).succeeded().report();
    let lost = |name: &str| report.coverage.lost.get(name).copied().unwrap_or(0);
    // Who found no room is counted.
    let no_room = lost("table_full") + lost("birth_missed") + lost("death_missed");
    let mut without = 0;
    let mut rows: std::collections::HashMap<u32, Vec<&Process>> = std::collections::HashMap::new();
    report.processes.iter().for_each(|row| rows.entry(row.pid).or_default().push(row));
    let mut doubtful = 0;
    for own in stood.iter().chain(came.iter().filter(|own| own.role == "child")) {
        // A number may have been another one's before or after: every process of the machine is in the report.
        let Some(found) = rows.get(&own.pid) else {
            without += 1;
            continue;
        };
        let same = found.iter().any(|row| row.map_count.peak == Some(own.peak));
        let exact = found.iter().all(|row| row.map_count.exact);
        assert!(same || !exact, "{own:?} {found:?}");
        doubtful += usize::from(!exact);
    }
    assert!(without <= no_room, "{without} have no row: {:?}", report.coverage.lost);
    // What the kernel did not show is counted, and touches few.
    assert!(doubtful == 0 || no_room + lost("changes_missed") > 0, "{doubtful} {:?}", report.coverage.lost);
    crowd.wait().succeeded();
}

fn own_lines(running: &Running) -> usize {
    running.stdout_so_far().iter().filter(|&&byte| byte == b'\n').count()
}

/// Once for each process, whatever it is called, by no shell.
#[test]
fn a_share_of_the_limit_is_told_and_a_program_is_run_once() {
    let session = Session::workload(&["attach", "700"]);
    let program = session.file("page-me");
    let text = "#!/bin/sh\necho \"$VMAUDIT_PID $VMAUDIT_PEAK $VMAUDIT_LIMIT $VMAUDIT_COMM $1\" >> \"${0%/*}/paged\"\n";
    std::fs::write(&program, text).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&program, mode).unwrap();
    let paged = session.file("paged");
    let mut target = session.start_with_pipe();
    target.wait_for_stdout("standing");
    let pid = target.pid().to_string();
    let command = format!("{} $(id)", program.display());
    let mut watch =
        watching(Session::watch(&["-p", &pid, "--at", "0.5", "--at", "1", "--at", "90", "--exec", &command]));
    burst(&mut target);
    wait_for("the program to be run", || paged.exists().then_some(()));
    watch.wait_for_stderr("has passed 1 % of vm.max_map_count");
    burst(&mut target);
    let done = ended_by(watch, libc::SIGTERM).succeeded();
    let said = done.stderr_text();
    assert!(!said.contains("has passed 90 %"), "{said}");
    assert!(said.matches("has passed").count() <= 2, "{said}");
    let text = std::fs::read_to_string(&paged).unwrap();
    let words: Vec<&str> = text.split_whitespace().collect();
    assert_eq!(
        (words[0], words[3], words[4], text.lines().count()),
        (pid.as_str(), "workload", "$(id)", 1),
        "{text}"
    );
    assert!(words[1].parse::<u64>().unwrap() > 700, "{text}");
    target.wait().succeeded();
    Session::vmaudit(&["watch", "--exec", "true"]).go().ended_with(2);
}

/// `docker run` and its like only ask for the work.
#[test]
fn a_command_that_hands_its_work_on_says_what_follows_it() {
    let session = Session::vmaudit(&["run", "--"]);
    let client = session.file("docker");
    // Not /bin/true, which may be one of many names of one program, and be nothing by another.
    std::fs::copy(workload(), &client).expect("a program can be copied");
    let done = session.words(&[&client]).words(&["exit", "0"]).go().succeeded();
    let said = done.stderr_text().split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(said.starts_with("vmaudit: docker hands its work on: "), "{said}");
    assert!(said.contains("sudo vmaudit watch --container ID") && said.contains("Here: No "), "{said}");
}
