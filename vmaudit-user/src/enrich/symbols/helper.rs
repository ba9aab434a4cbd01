//! Reads symbols in two child processes: one opens files, one reads them.
//!
//! An ELF file that shrinks under a mapping is a SIGBUS, one that lies is an endless loop or all memory, one on a
//! dead file server never opens, one made for it takes its reader over. So the reader (`parser`) has no rights at all,
//! and the opener (`opener`) reads nothing. Both have deadlines; when one of them dies or hangs, the next two go on
//! behind the file that did it.

use std::{
    collections::{HashMap, VecDeque},
    io::{self, PipeReader, Read as _},
    os::fd::{AsRawFd as _, OwnedFd},
    time::{Duration, Instant},
};

use super::{
    BACKSTOP, Image, Module, channel,
    child::Child,
    demangle::cut,
    locked,
    opener::Opener,
    parser,
    question::{Address, Answer, Name, Task, Work},
    unwind::{FUNCTIONS, Followed, Stack},
};

/// Pairs of children after the first.
const RETRIES: usize = 4;
/// All that a child may answer.
const ANSWER: usize = 16 << 20;
/// A piece of work has its share of the time that is left, but this long at least: on a busy machine a process may wait
/// for its turn longer than it works, and work without an end is stopped by processor time (`parser`).
const SHARE: Duration = Duration::from_secs(BACKSTOP);
/// And this long at most where no more is done than to open a file and to go through its symbols once.
const CHEAP: Duration = Duration::from_millis(1500 * BACKSTOP);

/// What came of it.
#[derive(Debug, Default)]
pub struct Names {
    /// By index of the address.
    pub names: HashMap<usize, Name>,
    /// By index of the stack.
    pub stacks: HashMap<usize, Followed>,
    /// Files that could not be read to the end, as their processes name them.
    pub given_up: Vec<String>,
    /// Children that did not end when they were killed.
    pub left_behind: u64,
}

/// Names for these addresses, in this time.
pub fn names(
    modules: &[Module],
    images: &HashMap<u64, Image>,
    addresses: &[Address],
    time: Duration,
) -> Names {
    run(modules, &Work { addresses, stacks: &[], images }, tasks(addresses), time)
}

/// Follows these stacks, in this time. Those that are not among the answers could not be followed.
pub fn follow(modules: &[Module], images: &HashMap<u64, Image>, stacks: &[Stack], time: Duration) -> Names {
    let tasks =
        stacks.iter().enumerate().map(|(index, stack)| Task::Stack(index, stack.generation)).collect();
    let mut answers = run(modules, &Work { addresses: &[], stacks, images }, tasks, time);
    answers.given_up.clear();
    answers
}

fn run(modules: &[Module], work: &Work<'_>, mut todo: VecDeque<Task>, time: Duration) -> Names {
    let images = work.images;
    let deadline = Instant::now() + time;
    let mut result = Names::default();
    let mut given_up: Vec<Task> = Vec::new();
    for _ in 0..=RETRIES {
        if todo.is_empty() {
            break;
        }
        let opener = Opener { modules, images };
        let Ok(mut pair) = Pair::start(&opener, work, todo.make_contiguous()) else { break };
        take(&mut pair.answers, &mut todo, &mut result, deadline, (SHARE, CHEAP));
        result.left_behind += pair.end();
        if let Some(deadly) = todo.pop_front() {
            given_up.push(deadly.file());
            todo.retain(|task| task.file() != deadly.file());
        }
        if Instant::now() >= deadline {
            break;
        }
    }
    // What nobody came to: no time was left, too many children died, or none could be started.
    for task in todo.into_iter().map(Task::file) {
        if !given_up.contains(&task) {
            given_up.push(task);
        }
    }
    result.given_up = given_up.into_iter().map(|task| called(task, modules, images)).collect();
    result
}

/// A file as its processes name it.
fn called(task: Task, modules: &[Module], images: &HashMap<u64, Image>) -> String {
    match task {
        Task::Elf(index) | Task::Dwarf(index) => {
            modules.get(index).map(|module| cut(&module.key.name)).unwrap_or_default()
        }
        Task::Stack(..) => String::new(),
        Task::PerfMap(generation) => {
            let pid = images.get(&generation).and_then(|image| Some(image.root.as_ref()?.1));
            format!("/tmp/perf-{}.map", pid.unwrap_or(0))
        }
    }
}

fn tasks(addresses: &[Address]) -> VecDeque<Task> {
    let mut modules: Vec<usize> = addresses.iter().filter_map(|address| address.module).collect();
    modules.sort_unstable();
    modules.dedup();
    let mut jitted: Vec<u64> = addresses.iter().filter(|a| a.jitted).map(|a| a.generation).collect();
    jitted.sort_unstable();
    jitted.dedup();
    let elf = modules.iter().copied().map(Task::Elf);
    let dwarf = modules.iter().copied().map(Task::Dwarf);
    elf.chain(jitted.into_iter().map(Task::PerfMap)).chain(dwarf).collect()
}

/// Opener and reader, and what the reader says.
struct Pair {
    opener: Child,
    reader: Child,
    answers: PipeReader,
}

impl Pair {
    fn start(opener: &Opener<'_>, work: &Work<'_>, tasks: &[Task]) -> io::Result<Self> {
        let (answers, mut out) = io::pipe()?;
        let (questions, files): (OwnedFd, OwnedFd) = channel::pair()?;
        let reader = Child::start(&[out.as_raw_fd(), questions.as_raw_fd()], || {
            if locked::give_up().is_some() {
                let _ = parser::work(work, tasks, &questions, &mut out);
            }
        })?;
        let mut keep = opener.descriptors();
        keep.push(files.as_raw_fd());
        match Child::start(&keep, || opener.serve(&files)) {
            Ok(opener) => Ok(Self { opener, reader, answers }),
            Err(e) => {
                reader.end();
                Err(e)
            }
        }
    }

    /// How many of them did not end.
    fn end(self) -> u64 {
        self.opener.kill();
        [self.reader, self.opener].into_iter().map(|child| u64::from(!child.end())).sum()
    }
}

/// Reads answers until all is done, the reader is gone, or time or space ran out; takes what is done from `todo`. `least`,
/// `cheap`: see [`SHARE`] and [`CHEAP`].
pub(super) fn take(
    from: &mut PipeReader,
    todo: &mut VecDeque<Task>,
    result: &mut Names,
    deadline: Instant,
    (least, cheap): (Duration, Duration),
) {
    let mut line = Vec::new();
    let mut buffer = [0; 4096];
    let mut total = 0;
    let mut last = Instant::now();
    while !todo.is_empty() && total <= ANSWER {
        let now = Instant::now();
        let share = deadline.saturating_duration_since(last) / u32::try_from(todo.len()).unwrap_or(u32::MAX);
        let most = if matches!(todo.front(), Some(Task::Elf(_))) { cheap } else { Duration::MAX };
        let until = deadline.min(last + share.clamp(least, most));
        let left = until.saturating_duration_since(now).as_millis();
        let mut poll = libc::pollfd { fd: from.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: one live pollfd.
        let ready = unsafe { libc::poll(&raw mut poll, 1, i32::try_from(left).unwrap_or(i32::MAX)) };
        if left == 0 || ready == 0 {
            return;
        }
        if ready < 0 {
            // Interrupted by a signal; nothing else goes wrong with one descriptor of ours.
            continue;
        }
        let read = match from.read(&mut buffer) {
            Ok(0) => return,
            Ok(read) => buffer.get(..read).unwrap_or_default(),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(_) => return,
        };
        total += read.len();
        for &byte in read {
            if byte != b'\n' {
                line.push(byte);
                continue;
            }
            match serde_json::from_slice(&line) {
                Ok(Answer::Done) => {
                    todo.pop_front();
                    last = Instant::now();
                }
                // Whoever took the reader over may say anything; it stays short.
                Ok(Answer::Name(index, name)) => {
                    result.names.insert(index, name.cut());
                }
                Ok(Answer::Stack(index, mut followed)) => {
                    followed.addresses.truncate(FUNCTIONS);
                    result.stacks.insert(index, followed);
                }
                Err(_) => {}
            }
            line.clear();
        }
    }
}

/// What is taken of these bytes, fewer than a pipe has room for, where three tasks are to be done: names, lengths of stacks, and
/// how many tasks are done.
#[cfg(any(test, fuzzing))]
pub(crate) fn taken(bytes: &[u8]) -> io::Result<(Vec<Name>, Vec<usize>, usize)> {
    use std::io::Write as _;

    let (mut from, mut to) = io::pipe()?;
    to.write_all(bytes)?;
    drop(to);
    let mut todo: VecDeque<Task> = (0..3).map(Task::Elf).collect();
    let mut names = Names::default();
    let time = Duration::from_secs(60);
    take(&mut from, &mut todo, &mut names, Instant::now() + time, (time, time));
    let stacks = names.stacks.values().map(|stack| stack.addresses.len()).collect();
    Ok((names.names.into_values().collect(), stacks, 3 - todo.len()))
}
