//! The screen of `trace` in the situations that people meet, as it is kept in `snapshots/`. Times are left out.

use std::cell::RefCell;
use std::io::Write;
use std::rc::Rc;

use vmaudit_common::call::{MMAP, MPROTECT, MUNMAP};
use vmaudit_common::{CLASS_MC1_SHIFT, CLASS_SECTION};
use vmaudit_user::domain::report;
use vmaudit_user::model::event::{CallStat, Kept, MmState, Needed, ProcessId, RefusalGroup};
use vmaudit_user::model::report::{Hook, HookState, Host, Limits, SourceKind};
use vmaudit_user::model::session::{Budget, Header, KernelRules, MarginAsked, Sight};
use vmaudit_user::output::text::verdict;

use super::*;
use crate::cli::{self, Command};

fn header() -> Header {
    Header {
        vmaudit: "0.1.0".into(),
        host: Host {
            name: Some("here".into()),
            kernel: "6.18".into(),
            arch: "x86_64".into(),
            cpus: 2,
            page_size: 4096,
        },
        source: SourceKind::Ebpf,
        sight: Sight { changes: true, exits: true, locking: false, ends: true },
        rules: KernelRules::for_release("6.18"),
        started: "2026-11-26T00:00:00Z".into(),
        start_ns: 0,
        command: Vec::new(),
        margin: MarginAsked { headroom: 1.5, round: 10_000 },
        budget: Budget::default(),
        all_rows: false,
        watched: None,
        stretch: None,
        attached_ns: None,
    }
}

#[derive(Clone, Default)]
struct Shared(Rc<RefCell<Vec<u8>>>);

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.borrow_mut().write(bytes)
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// The count stood above the limit when the call took the lock, and when it let go.
const AT_LIMIT: u64 = CLASS_SECTION | 8 | 8 << CLASS_MC1_SHIFT;
/// Nobody's: larger than any (include/linux/threads.h:PID_MAX_LIMIT).
const TGID: u32 = 9_999_999;

fn change(call: u8, (before, after): (u32, u32), at_us: u64) -> Event {
    let comm = "G1 \x1b[31mService".into();
    Event::Change(Change {
        at_ns: at_us * 1000,
        generation: 1,
        tgid: TGID,
        tid: TGID,
        comm,
        before,
        after,
        call,
    })
}

fn refused(at_us: u64) -> Event {
    let args = [0, 4096, 1, 1, 4, 535_216_128];
    let (class, comm) = (AT_LIMIT, "java".into());
    Event::Refused(Box::new(Refused {
        at_ns: at_us * 1000,
        tgid: TGID,
        tid: TGID,
        comm,
        call: MMAP,
        class,
        args,
        generation: 1,
        errno: libc::ENOMEM as u8,
        ret: -i64::from(libc::ENOMEM),
        section: None,
        max_map_count: 65530,
        rlimits: [u64::MAX; 4],
        start_brk: 0,
        hole: None,
        tasks: None,
        commit: None,
        caller: None,
        site: 0,
        stack: Vec::new(),
    }))
}

/// The sums that the kernel keeps.
fn state(failed: u64) -> MmState {
    let kind = RefusalGroup {
        call: MMAP,
        errno: libc::ENOMEM as u8,
        class: AT_LIMIT,
        count: failed,
        first_ns: 2_000_000,
        last_ns: 2_040_000,
        kept_bytes: 0,
        recovered: 0,
        needed: Needed::default(),
        sites: Vec::new(),
    };
    let calls = |added, removed, failed| CallStat { calls: 1000, added, removed, failed };
    let peak = if failed > 0 { 65_531 } else { 31 };
    MmState {
        generation: 1,
        process: ProcessId { tgid: TGID, start_ns: 1 },
        ppid: 1,
        uid: 0,
        comm: "java".into(),
        first: 1,
        last: 30,
        peak,
        born_ns: 1,
        peak_ns: 1,
        dead_ns: None,
        from_birth: true,
        from_snapshot: false,
        from_exec: false,
        shared: false,
        gaps: Some(0),
        open_end: false,
        most: None,
        kept: Some(Kept::default()),
        calls: vec![(MMAP, calls(1000, 0, failed)), (MUNMAP, calls(0, 1000, 0)), (MPROTECT, calls(30, 0, 0))],
        refusals: if failed > 0 { vec![kind] } else { Vec::new() },
        untold: Vec::new(),
        host: None,
        tasks: None,
        ledger: None,
        joined: None,
    }
}

/// What a terminal of this width, or a file, is given.
fn screen(words: &[&str], columns: Option<usize>, events: &[Event]) -> String {
    let words = ["vmaudit", "trace"].iter().chain(words).map(Into::into).collect();
    let Ok(Command::Trace(args)) = cli::parse(words) else { panic!("it is a trace") };
    let mut stream = Stream::new(&args, (Format::Text, Destination::Stdout), 0);
    let shared = Shared::default();
    stream.out = Lines::of_width(Box::new(shared.clone()), columns);
    let header = header();
    let mut audit = Audit::of(&header);
    let limits =
        Limits { max_map_count: Some(65_530), overcommit_memory: Some(0), overcommit_ratio: Some(50) };
    audit.apply(Event::Limits(limits));
    let hook = Hook { state: HookState::Attached, ..Hook::unused("sys_exit") };
    audit.apply(Event::Hooks(vec![hook]));
    audit.apply(Event::Mm(Box::new(state(
        events.iter().filter(|it| matches!(it, Event::Refused(_))).count() as u64,
    ))));
    for event in events {
        audit.apply(event.clone());
        stream.event(event, &audit);
    }
    stream.turn(&audit, true);
    let mut report = report::report(&header, &audit).unwrap();
    let verdict = verdict(&report);
    stream.sum_up(&mut report);
    stream.end(&audit, &Last { verdict: Some(&verdict), stacks: "", failures: None, echoed: false }).unwrap();
    let text = String::from_utf8(shared.0.borrow().clone()).unwrap();
    let untimed = |line: &str| match line.as_bytes() {
        [_, _, b':', _, _, b':', ..] => format!("HH:MM:SS.mmm{}\n", &line[12..]),
        _ => format!("{line}\n"),
    };
    text.lines().map(untimed).collect()
}

#[test]
fn screens_of_traces() {
    let growth = (0..30).map(|n| change(MPROTECT, (n, n + 1), n.into()));
    let churn = (0..2000).map(|n| match n % 2 {
        0 => change(MMAP, (30, 31), n),
        _ => change(MUNMAP, (31, 30), n),
    });
    let clean: Vec<Event> = growth.chain(churn).collect();
    let at_limit: Vec<Event> = clean.iter().cloned().chain((0..40).map(|n| refused(2000 + n))).collect();
    for (how, columns) in [("80", Some(80)), ("120", Some(120)), ("piped", None)] {
        insta::assert_snapshot!(format!("trace clean {how}"), screen(&["--all"], columns, &clean));
        insta::assert_snapshot!(format!("trace at the limit {how}"), screen(&["--all"], columns, &at_limit));
        insta::assert_snapshot!(format!("trace -c {how}"), screen(&["--all", "-c"], columns, &at_limit));
    }
}
