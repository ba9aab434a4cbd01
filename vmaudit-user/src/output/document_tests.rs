//! `scan`, `explain` and `limit` in each format, as they are kept in `snapshots/`, see [`super::snapshots`].

use unicode_width::UnicodeWidthStr;

use super::format::{Document, Done, Format, Kind, write};
use super::makers::tests::grown_run;
use super::text::page::Style;
use super::text::tests::{clean_run, clipped_run, proc_source};
use crate::domain::application::Anonymizer;
use crate::domain::compare;
use crate::domain::fleet::Collected;
use crate::domain::recommend::Margin;
use crate::domain::scan::{self as domain, Key, ScanOptions};
use crate::domain::vma_layout::analysis::{self, Beside};
use crate::domain::vma_layout::verdict::conclude;
use crate::model::difference::Tolerance;
use crate::model::doctor::{CallsFound, Doctor, HookFound};
use crate::model::limit::{
    Applier, Boot, Fate, Found, KERNEL_DEFAULT, KERNEL_LARGEST, Known, Largest, LimitReport, Need, OtherFile,
    Plan, Price, Rule, Setting,
};
use crate::model::report::{Condition, HookState};
use crate::model::scan::{self, AppFigures, NoSlab, ObjectSize, Row, Scan, Slab};
use crate::model::unreadable::Unreadable;
use crate::model::vma_layout::{Explanation, Origin};
use crate::model::within::Within;

/// Each format that can show it, for people also in the width of a small terminal.
fn each(name: &str, kind: Kind, document: &Document<'_>) {
    for (how, format, width) in [
        ("80", Format::Text, 80),
        ("unlimited", Format::Text, usize::MAX),
        ("json", Format::Json, 80),
        ("csv", Format::Csv, 80),
    ] {
        if format.must_show(kind).is_ok() {
            let mut out = Vec::new();
            write(document, format, &Style { width, top: 12, ..Style::default() }, &mut out).unwrap();
            insta::assert_snapshot!(format!("{name} {how}"), String::from_utf8(out).unwrap());
        }
    }
}

fn found() -> Scan {
    let mut report = clean_run();
    report.processes.truncate(3);
    for row in &mut report.processes {
        row.app = Some("/usr/bin/java, with a comma".to_owned());
        row.cgroup = Some("/system.slice/\u{1b}[31mdb.service".to_owned());
    }
    let apps = [("/usr/bin/java", 3, 52_344), ("=1+1,\"x\"\n\u{202e}", 1, 20)];
    let figures = |(app, instances, max): (&str, u64, u64)| AppFigures {
        app: app.into(),
        instances,
        max,
        avg: max / 2,
        min: 7,
    };
    let need = |who: &str, vmas| scan::Need { who: who.into(), vmas, recommended: vmas * 3 / 2 };
    Scan {
        applications: apps.map(figures).to_vec(),
        total_vmas: 52_400,
        slab: Some(Slab {
            active: 52_400,
            total: 53_000,
            size: ObjectSize { object_bytes: 256, objects_per_slab: 16, pages_per_slab: 1 },
        }),
        no_slab: None,
        custom: Some(need("--vma", 200_000)),
        largest: Some(need("/usr/bin/java", 52_344)),
        arguments: report.processes.iter().map(|_| vec!["java".into(), "-jar\u{1b}".into()]).collect(),
        own: 1,
        root: true,
        report,
    }
}

#[test]
fn scans() {
    let scan = found();
    each("scan", Kind::Scan, &Document::Scan(&scan));
}

fn explained() -> Explanation {
    explained_of(200, KERNEL_DEFAULT)
}

/// Of so many pieces, at this limit.
fn explained_of(pieces: u64, limit: u64) -> Explanation {
    let mut text = String::from("400000-401000 r-xp 00000000 08:01 7 /usr/lib/libx.so.1\n");
    for piece in 0..pieces {
        let start = 0x7f00_0000_0000 + piece * 0x10000;
        let mode = if piece % 2 == 0 { "rw-p" } else { "r--p" };
        text.push_str(&format!("{start:x}-{:x} {mode} 00000000 00:00 0 \n", start + 0x10000));
    }
    text.push_str(
        "7f1000000000-7f1000001000 rw-s 0 08:01 9 /home/ann/=1,\"q\"\\012\u{1b}[31m\u{202e}\nrubbish\n",
    );
    let mut notes = Vec::new();
    let beside = Beside { max_vmas: 1000, anonymizer: Anonymizer::new([]), ..Beside::default() };
    let mut it = analysis::read(text.as_bytes(), beside, Some(1), &mut notes).unwrap();
    it.notes = notes;
    it.pid = Some(812);
    it.origin = Origin::Process;
    it.subject = "/usr/bin/java".into();
    it.max_map_count = Some(limit);
    conclude(&mut it);
    it
}

#[test]
fn explanations() {
    let it = explained();
    each("explain", Kind::Explanation, &Document::Explanation(&it, false));
    let mut out = Vec::new();
    write(&Document::Explanation(&it, true), Format::Text, &Style::default(), &mut out).unwrap();
    insta::assert_snapshot!("explain -v", String::from_utf8(out).unwrap());
    // One more than the limit allows to a call that splits: the kernel's mappings are more by one now and then.
    for (name, pieces, limit) in
        [("clean", 3, KERNEL_DEFAULT), ("at the limit", 200, 202), ("near the limit", 190, 202)]
    {
        let it = explained_of(pieces, limit);
        at_each_width(&format!("explain {name}"), &Document::Explanation(&it, false));
    }
}

fn limited() -> LimitReport {
    let setting = |file: &str, line, text: &str, fate| Setting {
        file: file.into(),
        line,
        text: text.into(),
        value: text.parse().ok(),
        pattern: false,
        fate,
        lowers: false,
    };
    let known = Known {
        name: "elasticsearch".into(),
        title: "Elasticsearch".into(),
        arguments: vec!["org.elasticsearch.bootstrap.Elasticsearch".into()],
        comm: Vec::new(),
        installed: Vec::new(),
        installed_contains: None,
        rule: Rule::Fixed { vmas: 262_144 },
        otherwise: None,
        enforced: Some(262_144),
        note: "bootstrap check".into(),
        source: "https://example.org/es".into(),
    };
    LimitReport {
        schema: "vmaudit.limit",
        version: 1,
        running: Some(KERNEL_DEFAULT),
        kernel_default: KERNEL_DEFAULT,
        kernel_largest: KERNEL_LARGEST,
        boot: Boot {
            applier: Applier::SystemdSysctl,
            settings: vec![
                setting("/usr/lib/sysctl.d/10-a.conf", 2, "1048576", Fate::Replaced),
                setting("/etc/sysctl.d/=x,\"y\u{1b}[2J.conf", 1, "=1+1,\u{7}", Fate::NotRead),
                Setting { lowers: true, ..setting("/etc/sysctl.d/90-b.conf", 1, "262144", Fate::Wins) },
            ],
            value: Some(262_144),
            command_line: None,
            unread: Vec::new(),
        },
        after_boot: 262_144,
        other_files: vec![OtherFile {
            file: "/etc/tuned/db/tuned.conf".into(),
            line: 3,
            text: "2147483647".into(),
        }],
        warnings: vec!["The running value is not what the files set.".into()],
        container: None,
        shipped: None,
        not_counted: 0,
        price: Some(Price { least: 190.0, usual: 270.1, most: 330.0 }),
        largest: Some(Largest { app: "/usr/bin/java".into(), pid: 812, vmas: 52_344 }),
        needs: vec![Need {
            known,
            found: Found::Running(vec![812]),
            vmas: Some(262_144),
            missing: None,
            measured: Some(52_344),
            sentence: "refuses to start below 262,144".into(),
        }],
        suggested: Some(262_144),
        commands: vec!["sudo vmaudit limit --apply 262144".into()],
    }
}

#[test]
fn limits() {
    let report = limited();
    each("limit", Kind::Limit, &Document::Limit(&report));
    let needs: Vec<Known> = report.needs.into_iter().map(|need| need.known).collect();
    each("known software", Kind::Known, &Document::Known(&needs));
}

/// The screens of `limit` in the situations that people meet.
#[test]
fn limits_of_machines() {
    let quiet = || LimitReport {
        boot: Boot { settings: Vec::new(), value: None, ..limited().boot },
        after_boot: KERNEL_DEFAULT,
        warnings: Vec::new(),
        other_files: Vec::new(),
        largest: Some(Largest { app: "/usr/bin/java".into(), pid: 812, vmas: 122 }),
        needs: Vec::new(),
        suggested: None,
        commands: Vec::new(),
        ..limited()
    };
    let at_limit = LimitReport {
        largest: Some(Largest { app: "/usr/bin/java".into(), pid: 812, vmas: 65_530 }),
        needs: Vec::new(),
        suggested: Some(100_000),
        commands: vec!["vmaudit limit --apply 100000".into()],
        ..quiet()
    };
    let lost_at_boot = LimitReport {
        running: Some(262_144),
        shipped: crate::domain::limit::shipped("ID=fedora\nVERSION_ID=41\n").copied(),
        commands: vec!["vmaudit limit --apply 262144".into()],
        ..quiet()
    };
    let unreadable = LimitReport { largest: None, not_counted: 49, price: None, ..quiet() };
    for (name, report) in [
        ("limit at the limit", at_limit),
        ("limit clean", quiet()),
        ("limit that the next boot takes", lost_at_boot),
        ("limit many unreadable", unreadable),
    ] {
        at_each_width(name, &Document::Limit(&report));
    }
}

/// As text at two widths, which no line of prose passes, and in a pipe.
fn at_each_width(name: &str, document: &Document<'_>) {
    for (how, width) in [("80", 80), ("120", 120), ("piped", usize::MAX)] {
        let mut out = Vec::new();
        write(document, Format::Text, &Style { width, ..Style::default() }, &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        let widest = text.lines().map(UnicodeWidthStr::width).max();
        assert!(widest <= Some(width), "{name} {how}: {widest:?}\n{text}");
        insta::assert_snapshot!(format!("{name} {how}"), text);
    }
}

#[test]
fn fleets() {
    let mut collected = Collected::default();
    let mut strange = clean_run();
    strange.processes[0].comm = "x\u{1b}[31m\n".into();
    strange.host.name = Some("db\u{1b}[2J\n2".into());
    let mut again = clean_run();
    again.host.name = Some("web1".into());
    let mut older = proc_source();
    older.host.name = None;
    let files = [("a.vma", clipped_run()), ("b/\u{202e}.json", strange), ("c.vma", older), ("d.json", again)];
    for (file, report) in &files {
        collected.take(file, report, *file == "c.vma");
    }
    let fleet = collected.summary();
    let failed: u64 = clipped_run().unrecovered().map(|it| it.count).sum();
    assert_eq!(fleet.files.iter().map(|it| it.failed).sum::<u64>(), failed);
    assert_eq!(fleet.applications.iter().map(|it| it.sums.failed).sum::<u64>(), failed);
    let processes: usize = files.iter().map(|(_, report)| report.processes.len()).sum();
    let folded: u64 = files.iter().flat_map(|(_, report)| &report.folded).map(|sum| sum.processes).sum();
    let counted: u64 = fleet.applications.iter().map(|it| it.sums.processes).sum();
    assert_eq!(counted, processes as u64 + folded);
    let hosts: Vec<_> = fleet.hosts.iter().map(|it| (it.host.as_deref(), it.files)).collect();
    assert_eq!(hosts[0], (Some("web1"), 2), "what failed comes first");
    assert!(hosts.contains(&(None, 1)) && hosts.contains(&(Some("db\u{1b}[2J\n2"), 1)), "{hosts:?}");
    assert_eq!(fleet.hosts.iter().map(|it| it.sums.processes).sum::<u64>(), counted);
    assert_eq!(fleet.hosts.iter().map(|it| it.sums.failed).sum::<u64>(), failed);
    assert!(
        fleet.applications[0].sums.clipped > 0 && fleet.files[0].file == "a.vma",
        "what failed comes first"
    );
    at_each_width("fleet", &Document::Fleet(&fleet));
    let mut out = Vec::new();
    write(&Document::Fleet(&fleet), Format::Json, &Style::default(), &mut out).unwrap();
    insta::assert_snapshot!("fleet json", String::from_utf8(out).unwrap());
    // Each tells its machine: there is a number of them.
    let mut collected = Collected::default();
    files.iter().filter(|(_, report)| report.host.name.is_some()).for_each(|(file, report)| {
        collected.take(file, report, false);
    });
    let fleet = collected.summary();
    let mut out = Vec::new();
    write(&Document::Fleet(&fleet), Format::Text, &Style::default(), &mut out).unwrap();
    insta::assert_snapshot!("fleet with names", String::from_utf8(out).unwrap());
}

#[test]
fn plans() {
    let plan = Plan {
        file: "/etc/sysctl.d/99-vmaudit.conf".into(),
        content: Some("vm.max_map_count = 262144\n".into()),
        running: Some(262_144),
        notes: vec!["A note.".into()],
    };
    each("plan", Kind::Plan, &Document::Plan(&plan, Done::Not));
    let undo = Plan { content: None, ..plan };
    each("plan to undo", Kind::Plan, &Document::Plan(&undo, Done::Yes));
}

#[test]
fn doctors() {
    let report = clean_run();
    let condition = |name: &str, met, loses: Option<&str>| Condition {
        name: name.into(),
        met,
        found: "as it was found".into(),
        loses: loses.map(str::to_owned),
        cure: loses.map(|_| "sudo".to_owned()),
    };
    let hooks = report.coverage.hooks.into_iter().map(|hook| HookFound { hook, gives: "exact peaks" });
    let doctor = Doctor {
        schema: "vmaudit.doctor",
        version: 1,
        vmaudit: "0.1.0",
        kernel: "6.18".into(),
        arch: "x86_64".into(),
        exact_peaks: true,
        verdict: "Peaks are exact here.".into(),
        reason: None,
        max_map_count: Some(65_530),
        conditions: vec![
            condition("BTF", Some(true), None),
            condition("CAP_SYS_PTRACE", Some(false), Some("names in stacks of others")),
            condition("lockdown", None, None),
        ],
        hooks: hooks.collect(),
        calls: vec![
            CallsFound { arrangement: "all", not_watched: vec!["madvise through io_uring".into()] },
            CallsFound {
                arrangement: "locking",
                not_watched: ["shmget, msync", "io_setup at fs.aio-max-nr", "madvise through io_uring"]
                    .map(Into::into)
                    .into(),
            },
        ],
        given_away: Some("how many VMAs each process has"),
    };
    each("doctor", Kind::Doctor, &Document::Doctor(&doctor));
    let met = |doctor: &Doctor| -> Vec<Condition> {
        let rows = doctor.conditions.iter().cloned();
        rows.map(|row| Condition { met: Some(true), loses: None, cure: None, ..row }).collect()
    };
    let clean = Doctor { conditions: met(&doctor), given_away: None, ..doctor.clone() };
    let why = "pid namespace: vmaudit runs inside one (a container); run it on the host";
    let refused = |name: &str| Condition {
        cure: Some("run it on the host".into()),
        ..condition(name, Some(false), Some("run and trace -p: no eBPF, counts are samples from /proc"))
    };
    let contained = Doctor {
        exact_peaks: false,
        verdict: format!("Peaks are samples here: {why}."),
        reason: Some(why.into()),
        calls: Vec::new(),
        conditions: [met(&clean), vec![refused("CAP_SYS_PTRACE"), refused("pid namespace")]].concat(),
        ..clean.clone()
    };
    let mut bare = contained.clone();
    for found in &mut bare.hooks {
        found.hook.state = HookState::Missing;
        found.hook.via = None;
        found.hook.loses = Some("peaks are samples".into());
        found.hook.reason = bare.reason.clone();
    }
    for (name, doctor) in
        [("doctor clean", clean), ("doctor in a pid namespace", contained), ("doctor without rights", bare)]
    {
        at_each_width(name, &Document::Doctor(&doctor));
    }
}

fn row(pid: u32, comm: &str, (user, unit): (&str, Option<&str>), vmas: u64) -> Row {
    Row {
        ppid: Some(1),
        uid: Some(if user == "root" { 0 } else { 1000 }),
        comm: comm.into(),
        exe: Some(format!("/usr/bin/{comm}")),
        app: format!("/usr/bin/{comm}"),
        cgroup: Some(unit.map_or_else(|| "/docker/3f2a".into(), |unit| format!("/system.slice/{unit}"))),
        within: Within { unit: unit.map(str::to_owned), ..Within::default() },
        count: Ok(vmas),
        exact: true,
        ..Row::unread(pid, Unreadable::Gone)
    }
}

/// A machine with a service that has so many VMAs, as seen with these rights.
fn machine(java: u64, root: bool) -> Scan {
    let mut rows = vec![
        row(28868, "java", ("search", Some("searchnode-of-the-second-floor.service")), java),
        row(811, "postgres", ("root", Some("postgresql.service")), 248),
        row(812, "postgres", ("root", Some("postgresql.service")), 231),
        Row { comm: "Web Content".into(), ..row(901, "firefox-esr", ("search", None), 710) },
        row(7, "vmaudit", ("root", None), 29),
    ];
    if !root {
        rows.truncate(1);
        rows.extend((2..50).map(|pid| Row::unread(pid, Unreadable::Forbidden)));
        rows.push(Row::unread(60, Unreadable::Zombie));
    }
    let options = ScanOptions {
        margin: Margin::default(),
        vma: None,
        sort: Key::Count,
        reverse: false,
        show_args: false,
        top: 10,
    };
    let report = clean_run();
    let facts = domain::Facts {
        limits: report.limits,
        slab: Err(NoSlab::Hidden),
        object_sizes: Vec::new(),
        by_kernel: true,
        root,
        host: report.host,
        started: report.session.started,
        duration_s: 0.01,
        users: [(0, "root".to_owned()), (1000, "search".to_owned())].into(),
        own: 7,
    };
    domain::build(&options, facts, rows, &Anonymizer::new([]))
}

/// The screens of `scan` in the situations that people meet.
#[test]
fn scans_of_machines() {
    let nobody = Scan { own: 28868, ..machine(29, false) };
    for (name, scan) in [
        ("scan at the limit", machine(65_530, true)),
        ("scan near the limit", machine(60_218, true)),
        ("scan with little room", machine(50_000, true)),
        ("scan clean", machine(300, true)),
        ("scan many unreadable", machine(300, false)),
        ("scan of vmaudit alone", nobody),
    ] {
        at_each_width(name, &Document::Scan(&scan));
    }
}

/// The screens of `diff`.
#[test]
fn differences() {
    let tolerance = Tolerance { percent: 5.0, vmas: 10 };
    let asked = |fail_over| compare::Asked { tolerance, fail_over };
    let (clean, limited) = (clean_run(), clipped_run());
    let mut grown = clean_run();
    grown.processes[0].map_count.peak = Some(3000);
    grown.processes[0].comm = "java \u{1b}[31m|".into();
    let mut before = clean_run();
    before.processes[0].comm.clone_from(&grown.processes[0].comm);
    let (mut had, mut has) = (grown_run(), grown_run());
    had.processes[0].map_count.clipped = false;
    had.processes[0].makers[0].count = 20_000;
    let mut hostile = has.processes[0].makers[0].clone();
    hostile.count = 9_000;
    hostile.stack[2].symbol = Some("evil\u{1b}[31m|<b>::error::\n".into());
    has.processes[0].makers.push(hostile);
    for (name, old, new, gate) in [
        ("makers", &had, &has, None),
        ("clean", &clean, &clean, Some(10.0)),
        ("worse", &before, &grown, Some(10.0)),
        ("at the limit", &clean, &limited, None),
        ("sampled", &clean, &proc_source(), Some(10.0)),
    ] {
        let it = compare::compare(("old.vma", old), ("new.vma", new), &asked(gate));
        let document = Document::Difference(&it);
        at_each_width(&format!("diff {name}"), &document);
        for format in [Format::Json, Format::Markdown, Format::Github] {
            let mut out = Vec::new();
            write(&document, format, &Style::default(), &mut out).unwrap();
            insta::assert_snapshot!(
                format!("diff {name} {}", format.name()),
                String::from_utf8(out).unwrap()
            );
        }
    }
}
