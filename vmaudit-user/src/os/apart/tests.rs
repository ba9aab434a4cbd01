//! Children that answer, that are silent, that die.

use std::io::Read as _;
use std::os::fd::AsRawFd as _;

use super::desk::{Desk, Turn};
use super::*;

/// Waits for ever, as a child of vmaudit does over a locked memory map, but can be killed.
fn silence() -> ! {
    loop {
        std::thread::park();
    }
}

#[test]
fn answers_come_in_order_from_several_children_and_none_is_lost() {
    let items: Vec<u64> = (0..1000).collect();
    let own = std::process::id();
    let work = |item: &u64, seen: &mut u64, _: &Beat| {
        *seen += 1;
        (item * 2, *seen, std::process::id())
    };
    let answers = each(&items, &Patience::default(), || 0, work);
    let answers: Vec<_> = answers.into_iter().map(Result::unwrap).collect();
    assert_eq!(
        answers.iter().map(|answer| answer.0).collect::<Vec<_>>(),
        (0..2000).step_by(2).collect::<Vec<_>>()
    );
    assert!(answers.iter().all(|answer| answer.2 != own), "nothing is read by vmaudit itself");
    assert!(answers.iter().any(|answer| answer.1 > 1), "a child keeps its state");
    assert!(each(&[0; 0], &Patience::default(), || (), |_, (), _| ()).is_empty());
}

#[test]
fn who_is_silent_or_kills_his_reader_is_left_out_and_nobody_else() {
    let items: Vec<u32> = (0..300).collect();
    let patience = Patience::default();
    let began = Instant::now();
    let answers = each(
        &items,
        &patience,
        || (),
        |&item, (), _| match item {
            7 | 150 => silence(),
            // SAFETY: raises a signal in the child.
            250 => unsafe { libc::abort() },
            other => other,
        },
    );
    for (item, answer) in answers.iter().enumerate() {
        let expected = match item {
            7 | 150 => Err(Unanswered::Silent),
            250 => Err(Unanswered::Died),
            item => Ok(item as u32),
        };
        assert_eq!(*answer, expected, "{item}");
    }
    assert!(began.elapsed() >= EACH, "a silent one has its second");
    let began = Instant::now();
    while patience.left_behind() > 0 {
        assert!(began.elapsed() < Duration::from_secs(60), "killed children that only sleep end");
    }
}

#[test]
fn what_is_longer_than_a_packet_arrives_whole() {
    let lengths = [0, 1, 32 << 10, 3 << 20];
    let answers = each(&lengths, &Patience::default(), || (), |&length, (), _| "x".repeat(length));
    assert_eq!(answers.into_iter().map(|answer| answer.unwrap().len()).collect::<Vec<_>>(), lengths);
}

#[test]
fn time_for_all_is_used_up_by_the_silent_and_the_rest_is_not_asked() {
    let patience = Patience::default();
    patience.0.waited.set(ALL);
    assert_eq!(each(&[1], &patience, || (), |&n, (), _| n), [Err(Unanswered::NotAsked)]);
    let mut desk: Desk<u8, u8> = Desk::new(&patience, |n, _| (n, Vec::new()));
    assert_eq!(desk.ask(&1), Err(Unanswered::NotAsked));
    assert!(desk.child.is_none());
}

/// What a child that is stuck could hold somebody up with.
#[test]
fn a_child_holds_nothing_of_ours() {
    let other = std::io::pipe().unwrap();
    let look = |_: &(), _: &mut (), _: &Beat| {
        let fds = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
        let mut targets: Vec<String> = fds
            .filter_map(|entry| std::fs::read_link(entry.path()).ok())
            .map(|target| target.to_string_lossy().into_owned())
            .filter(|target| !target.ends_with("/fd"))
            .collect();
        targets.sort();
        // SAFETY: asks for numbers only.
        let (session, dumpable) = unsafe { (libc::getsid(0), libc::prctl(libc::PR_GET_DUMPABLE)) };
        (targets, session == std::process::id() as i32, dumpable, std::env::current_dir().unwrap())
    };
    let (targets, own_session, dumpable, folder) =
        each(&[()], &Patience::default(), || (), look).remove(0).unwrap();
    assert_eq!(&targets[..3], ["/dev/null"; 3]);
    assert!(targets.len() == 4 && targets[3].starts_with("socket:"), "{targets:?}");
    assert_eq!((own_session, dumpable, folder.to_str()), (true, 0, Some("/")));
    drop(other);
}

fn answer<Q, A>(desk: &mut Desk<Q, A>) -> Turn<A>
where
    Q: serde::Serialize + serde::de::DeserializeOwned,
    A: serde::Serialize + serde::de::DeserializeOwned,
{
    let began = Instant::now();
    loop {
        match desk.turn(Duration::from_millis(20)) {
            Turn::Waiting => assert!(began.elapsed() < Duration::from_secs(60), "no answer"),
            turn => return turn,
        }
    }
}

#[test]
fn a_desk_answers_with_descriptors_and_goes_on_after_silence() {
    let mut desk: Desk<Option<String>, usize> =
        Desk::new(&Patience::default(), |path: Option<String>, beat: &Beat| {
            beat.begin(41);
            let Some(path) = path else { silence() };
            let file = std::fs::File::open(&path).unwrap();
            (path.len(), vec![file.into()])
        });
    assert!(matches!(desk.turn(Duration::ZERO), Turn::Waiting));
    for _ in 0..2 {
        desk.ask(&Some("/proc/self/comm".into())).unwrap();
        let child = desk.child.as_ref().unwrap().beat() as *const Beat;
        assert!(desk.busy() && desk.ask(&None).is_err(), "one question at a time");
        let Turn::Answer(15, mut files) = answer(&mut desk) else { panic!("no answer") };
        let mut text = String::new();
        std::fs::File::from(files.remove(0)).read_to_string(&mut text).unwrap();
        assert!(!text.is_empty());
        assert!(std::ptr::eq(child, desk.child.as_ref().unwrap().beat()), "the child stays");
        desk.ask(&None).unwrap();
        assert!(matches!(answer(&mut desk), Turn::Unanswered(Unanswered::Silent, 41)));
        assert!(!desk.busy() && desk.child.is_none());
    }
    desk.ask(&Some("/nonexistent".into())).unwrap();
    assert!(matches!(answer(&mut desk), Turn::Unanswered(Unanswered::Died, 41)));
    assert_eq!(desk.patience.0.waited.get(), 2 * EACH);
}

#[test]
fn a_reader_that_was_killed_between_two_questions_is_replaced() {
    let mut desk: Desk<u8, u32> = Desk::new(&Patience::default(), |_, _| (std::process::id(), Vec::new()));
    desk.ask(&1).unwrap();
    let Turn::Answer(first, _) = answer(&mut desk) else { panic!("no answer") };
    // SAFETY: plain numbers; the process is our own child.
    assert_eq!(unsafe { libc::kill(first as i32, libc::SIGKILL) }, 0);
    let socket = desk.child.as_ref().unwrap().socket().as_raw_fd();
    let mut poll = libc::pollfd { fd: socket, events: libc::POLLIN, revents: 0 };
    // SAFETY: one live pollfd.
    assert_eq!(unsafe { libc::poll(&raw mut poll, 1, 60_000) }, 1, "its end is seen");
    desk.ask(&1).unwrap();
    assert!(matches!(answer(&mut desk), Turn::Answer(second, _) if second != first));
}
