//! Tests of `scan` on a made-up /proc.

use super::*;
use crate::domain::cgroup::GroupWanted;
use crate::domain::process_filter::NamePattern;
use crate::domain::recommend::Margin;
use crate::domain::scan::Key;
use crate::model::report::{Report, SourceKind};
use crate::model::scan::{AppFigures, Scan};
use crate::output::format::{self, Document, Format};
use crate::output::text::page::Style;
use crate::source::ebpf::task_iter::{Place, Task};
use std::path::{Path, PathBuf};

fn any() -> ProcessFilter {
    ProcessFilter::default()
}

fn plain() -> ScanOptions {
    ScanOptions {
        margin: Margin::default(),
        vma: None,
        sort: Key::Count,
        reverse: false,
        show_args: false,
        top: 10,
    }
}

fn ann() -> Anonymizer {
    Anonymizer::new(["ann".to_owned()])
}

/// A /proc made of files, removed at the end of the test.
struct Fake(PathBuf);
impl Drop for Fake {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
impl Fake {
    fn new(name: &str) -> Self {
        let root = std::env::temp_dir().join(format!("vmaudit-scan-{name}-{}", std::process::id()));
        std::fs::create_dir_all(root.join("sys/vm")).unwrap();
        std::fs::write(root.join("sys/vm/max_map_count"), "65530\n").unwrap();
        Self(root)
    }

    fn process(&self, pid: u32, comm: &str, cmdline: &str, cgroup: &str, vmas: usize) {
        let own = self.0.join(pid.to_string());
        std::fs::create_dir_all(&own).unwrap();
        let stat = format!("{pid} ({comm}) S 1 1 1 0 -1 4194304 0 0 0 0 0 0 0 0 20 0 1 0 5 0 0");
        std::fs::write(own.join("stat"), stat).unwrap();
        std::fs::write(own.join("cmdline"), cmdline).unwrap();
        std::fs::write(own.join("cgroup"), format!("0::{cgroup}\n")).unwrap();
        std::fs::write(own.join("maps"), "1000-2000 rw-p 00000000 00:00 0 \n".repeat(vmas)).unwrap();
    }
}

fn run(root: &Path, filter: &ProcessFilter, options: &ScanOptions) -> Scan {
    from(&Wanted { filter, details: true, units: 10 }, options, &Proc::new(root), None, &ann()).unwrap()
}

fn by_pid(reverse: bool) -> ScanOptions {
    ScanOptions { sort: Key::Pid, reverse, ..plain() }
}

fn pids(scan: &Scan) -> Vec<u32> {
    scan.report.processes.iter().map(|process| process.pid).collect()
}

#[test]
fn rows_filters_and_order() {
    let fake = Fake::new("rows");
    fake.process(10, "java", "/usr/bin/java\0-jar\0", "/docker/3f2a", 50);
    fake.process(11, "java", "/usr/bin/java\0-jar\0", "/docker/3f2b", 61);
    fake.process(12, "x) (y", "python3\0-u\0/home/ann/a.py\0", "/user.slice/home/ann/x", 61);
    let scan = run(&fake.0, &any(), &plain());
    assert_eq!(pids(&scan), [12, 11, 10]);
    assert_eq!(scan.total_vmas, 172);
    assert_eq!(scan.report.processes[0].app.as_deref(), Some("/home/<user>/a.py"));
    assert_eq!(scan.report.processes[0].cgroup.as_deref(), Some("/user.slice/home/<user>/x"));
    let wanted = Wanted { filter: &any(), details: true, units: 10 };
    let open = from(&wanted, &plain(), &Proc::new(&fake.0), None, &Anonymizer::off()).unwrap();
    assert_eq!(open.report.processes[0].cgroup.as_deref(), Some("/user.slice/home/ann/x"));
    assert_eq!(
        scan.applications[1],
        AppFigures {
            app: "/usr/bin/java".into(),
            instances: 2,
            max: 61,
            avg: 56, // 55.5
            min: 50
        }
    );
    assert_eq!(scan.largest.as_ref().unwrap().recommended, 65530);
    assert_eq!(pids(&run(&fake.0, &any(), &by_pid(false))), [10, 11, 12]);
    assert_eq!(pids(&run(&fake.0, &any(), &by_pid(true))), [12, 11, 10]);
    assert_eq!(
        pids(&run(&fake.0, &ProcessFilter { comm: vec![NamePattern::new("jav*")], ..any() }, &plain())),
        [11, 10]
    );
    assert_eq!(
        pids(&run(
            &fake.0,
            &ProcessFilter { cgroups: vec![GroupWanted::Part("3f2a".into())], ..any() },
            &plain()
        )),
        [10]
    );
    assert_eq!(pids(&run(&fake.0, &ProcessFilter { pids: vec![12, 10], ..any() }, &plain())), [12, 10]);
    assert_eq!(pids(&run(&fake.0, &ProcessFilter { uids: vec![4_294_967_294], ..any() }, &plain())), [0; 0]);
}

#[test]
fn a_process_that_is_gone_is_a_row_with_its_reason() {
    let fake = Fake::new("gone");
    fake.process(10, "a", "a\0", "/", 3);
    fake.process(11, "b", "b\0", "/", 0);
    let scan = run(&fake.0, &ProcessFilter { pids: vec![9, 10, 11], ..any() }, &plain());
    let without: Vec<_> = scan.report.not_counted.iter().map(|it| (it.pid, it.forbidden)).collect();
    assert_eq!((pids(&scan), without), (vec![10], vec![(9, false), (11, false)]));
    assert!(scan.report.not_counted.iter().all(|it| it.reason.contains("ended while")), "{scan:?}");
    assert_eq!(scan.applications.len(), 1);
}

fn task(pid: u32, vmas: Option<u64>, start_ns: u64) -> Task {
    let (comm, place) = (format!("c{pid}"), Place::default());
    Task { pid, kernels_pid: pid, vmas, ppid: 1, uid: 5, start_ns, zombie: false, comm, place }
}

#[test]
fn counts_of_the_kernel_replace_those_of_proc() {
    let fake = Fake::new("kernel");
    fake.process(10, "a", "a\0", "/", 3);
    fake.process(11, "b", "b\0", "/", 4);
    let wanted = Wanted { filter: &any(), details: false, units: 10 };
    let zombie = Task { zombie: true, ..task(12, None, 3) };
    let walk = || Ok(vec![task(10, Some(65530), 1), task(11, None, 2), zombie.clone()]);
    let scan = from(&wanted, &plain(), &Proc::new(&fake.0), Some(&walk), &ann()).unwrap();
    let row = &scan.report.processes[0].map_count;
    assert_eq!(
        (row.last, row.exact, row.clipped, row.percent_of_limit),
        (Some(65530), true, true, Some(100.0))
    );
    assert_eq!(scan.report.processes[0].uid, Some(5));
    // In the middle of an exec: counted in the other way, and not called the kernel's count.
    let row = &scan.report.processes[1].map_count;
    assert_eq!((row.last, row.exact), (Some(4), false));
    let ended = scan.report.not_counted.iter().find(|it| it.pid == 12).unwrap();
    assert!(ended.reason.contains("waits for its parent") && !ended.forbidden);
    assert_eq!((ended.uid, ended.user.as_deref().map(str::is_empty)), (Some(5), Some(false)));
    assert_eq!(scan.report.source, SourceKind::Ebpf);
    assert_eq!(scan.report.recommendation.value, Some(100_000));
}

#[test]
fn a_pid_that_changed_its_owner_lends_no_name() {
    let fake = Fake::new("reused");
    fake.process(10, "new", "/usr/bin/new\0", "/", 3);
    let wanted = Wanted { filter: &any(), details: false, units: 10 };
    let looks = std::cell::Cell::new(0);
    let walk = || {
        looks.set(looks.get() + 1);
        Ok(vec![task(10, Some(7), looks.get())])
    };
    let scan = from(&wanted, &plain(), &Proc::new(&fake.0), Some(&walk), &ann()).unwrap();
    assert_eq!(scan.report.processes[0].app.as_deref(), Some("c10"));
    // The walk left the first process out: it is named, with its reason.
    assert_eq!((pids(&scan), scan.report.not_counted[0].pid), (vec![10], 1));
}

/// Two were seen to run the same program; by the second look the one that was asked for both runs another.
#[test]
fn who_runs_another_program_by_now_lends_no_name() {
    let fake = Fake::new("lent");
    for pid in [10, 11] {
        fake.process(pid, "x", "x\0", &format!("/{pid}.service"), 3);
        std::os::unix::fs::symlink(format!("/bin/{pid}"), fake.0.join(format!("{pid}/exe"))).unwrap();
    }
    let of = |moved: u32, filter: &ProcessFilter| {
        let looks = std::cell::Cell::new(0);
        let walk = || {
            looks.set(looks.get() + 1);
            let at = |pid| if pid == moved && looks.get() > 1 { 8 } else { 7 };
            let place = |pid| Place { execs: 0, file: Some((1, at(pid))), groups: Some(at(pid)) };
            Ok([10, 11].map(|pid| Task { place: place(pid), ..task(pid, Some(7), 1) }).to_vec())
        };
        let wanted = Wanted { filter, details: true, units: 10 };
        let scan = from(&wanted, &by_pid(false), &Proc::new(&fake.0), Some(&walk), &ann()).unwrap();
        let rows = scan.report.processes.into_iter();
        (rows.map(|row| (row.exe.unwrap(), row.unit.unwrap())).collect::<Vec<_>>(), looks.get())
    };
    let named = |pids: [u32; 2]| pids.map(|pid| (format!("/bin/{pid}"), format!("{pid}.service"))).to_vec();
    assert_eq!(of(0, &any()), (named([10, 10]), 2));
    for moved in [10, 11] {
        assert_eq!(of(moved, &any()), (named([10, 11]), 3));
    }
    let of_unit = ProcessFilter { units: vec![GroupWanted::unit("10.service").unwrap()], ..any() };
    assert_eq!(
        of(10, &of_unit),
        (named([10, 11])[..1].to_vec(), 2),
        "nobody is left out for what another is"
    );
}

#[test]
fn many_processes_are_read_by_several_threads_and_none_is_lost() {
    let fake = Fake::new("many");
    (1000..1700).for_each(|pid| fake.process(pid, "a", "a\0", "/", pid as usize % 7 + 1));
    let scan = run(&fake.0, &any(), &by_pid(false));
    let counts: Vec<_> = scan.report.processes.iter().map(|p| (p.pid, p.map_count.last)).collect();
    assert_eq!(counts, (1000..1700).map(|pid| (pid, Some(u64::from(pid) % 7 + 1))).collect::<Vec<_>>());
}

#[test]
fn every_format_is_whole_and_harmless() {
    let fake = Fake::new("formats");
    fake.process(10, "\x1b[2J,\"x", "\x1b]0;evil\x07\0--password=1\0", "/", 3);
    let wide = Style { width: usize::MAX, ..Style::default() };
    let custom = ScanOptions { vma: Some(70_000), ..plain() };
    for options in [custom.clone(), ScanOptions { show_args: true, ..plain() }] {
        let scan = run(&fake.0, &any(), &options);
        for format in [Format::Text, Format::Json, Format::Csv] {
            let mut out = Vec::new();
            format::write(&Document::Scan(&scan), format, &wide, &mut out).unwrap();
            let text = String::from_utf8(out).unwrap();
            assert!(!text.contains('\x1b'), "{text}");
            assert_eq!(text.contains("--password"), options.show_args && format != Format::Csv, "{text}");
            assert!(text.ends_with('\n'));
        }
    }
    let scan = run(&fake.0, &any(), &custom);
    let json = serde_json::to_value(&scan).unwrap();
    assert_eq!(
        (&json["schema"], &json["custom"]["recommended"]),
        (&"vmaudit.report".into(), &110_000.into())
    );
    let back: Report = serde_json::from_value(json).unwrap();
    assert_eq!(back, scan.report);
}

#[test]
fn one_application_is_one_however_it_was_called() {
    let fake = Fake::new("united");
    let link =
        |pid: u32, exe: &str| std::os::unix::fs::symlink(exe, fake.0.join(format!("{pid}/exe"))).unwrap();
    for (pid, first, exe) in [
        (10, "bash", "/usr/bin/bash"),
        (11, "/bin/bash", "/usr/bin/bash"),
        (12, "-bash", "/usr/bin/bash (deleted)"),
        (13, "sh", "/usr/bin/dash"),
        (14, "/bin/sh", "/usr/bin/dash"),
        (15, "/srv/a/tool", "/usr/bin/elsewhere"),
    ] {
        fake.process(pid, "x", &format!("{first}\0-c\0"), "/system.slice/a.service/x", 3);
        link(pid, exe);
    }
    let scan = run(&fake.0, &any(), &by_pid(false));
    let apps: Vec<_> = scan.applications.iter().map(|app| (app.app.as_str(), app.instances)).collect();
    assert_eq!(apps, [("/bin/sh", 2), ("/srv/a/tool", 1), ("/usr/bin/bash", 3)]);
    assert!(scan.report.processes.iter().all(|row| row.unit.as_deref() == Some("a.service")));
    assert!(scan.report.processes.iter().all(|row| row.user.is_some()));
}

#[test]
fn vmaudit_itself_is_no_reason_for_advice() {
    let fake = Fake::new("itself");
    fake.process(std::process::id(), "vmaudit", "vmaudit\0", "/", 60_000);
    let scan = run(&fake.0, &any(), &plain());
    assert_eq!((scan.largest, scan.report.recommendation.value), (None, None));
    fake.process(1_000_000, "a", "a\0", "/", 3);
    let scan = run(&fake.0, &any(), &plain());
    assert_eq!(scan.largest.map(|need| need.vmas), Some(3));
}

/// The cgroup is read of those that people look at, and of all where all is asked for.
#[test]
fn units_are_read_of_the_largest() {
    let fake = Fake::new("units");
    (10..20).for_each(|pid| fake.process(pid, "a", "a\0", "/x.service", 3));
    let walk = || Ok((10..20).map(|pid| task(pid, Some(pid.into()), 1)).collect());
    let with_unit = |details, units| {
        let wanted = Wanted { filter: &any(), details, units };
        let scan = from(&wanted, &plain(), &Proc::new(&fake.0), Some(&walk), &ann()).unwrap();
        scan.report.processes.iter().filter(|row| row.unit.is_some()).map(|row| row.pid).collect::<Vec<_>>()
    };
    assert_eq!(with_unit(false, 3), [19, 18, 17]);
    assert_eq!(with_unit(false, 0), [0; 0]);
    assert_eq!(with_unit(true, 0).len(), 10);
    assert_eq!(with_unit(false, usize::MAX).len(), 10);
}
