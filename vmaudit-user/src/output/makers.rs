//! Who made the VMAs of a process, as rows: what every output shows of it, each in its own form.

use unicode_width::UnicodeWidthStr as _;

use super::places::{UNKNOWN, function as whole_name, named};
use super::text::page::without_middle;
use super::text::stack::{is_of_library, name};
use crate::model::report::{Cause, Failure, Frame, Maker, Nobody, Process, Report, Since};
use crate::text::function::without_types;
use crate::text::{clean, grouped, total};

/// A process with this part of the limit or more is told of, one in so many.
const PART: u64 = 10;
/// Places named of one process.
pub(crate) const PLACES: usize = 6;
/// Functions named of one place.
const FUNCTIONS: usize = 5;
/// Functions shown inside of those that an interpreter runs.
const NATIVE: usize = 2;
/// How the names of Python's functions begin.
const PYTHON: &str = "py::";
/// Longer names lose their types, columns.
const LONG: usize = 40;
/// What the table of places is.
pub(crate) const WHAT: &str =
    "The table: who raised the count to its peak. Where VMAs were freed, those who came last have lost them.";

/// VMAs from one place, or of nobody.
#[derive(Debug)]
pub(crate) struct Row<'m> {
    /// At the peak.
    pub(crate) count: u64,
    /// All that the process had then.
    all: u64,
    /// Whoever made them; `None`: nobody is credited.
    maker: Option<&'m Maker>,
    /// Why nobody is.
    pub(crate) nobody: Option<&'static str>,
    /// Sentences about the stack, clean.
    pub(crate) notes: Vec<String>,
}

/// The processes whose makers a page tells.
pub(crate) fn told(report: &Report) -> Vec<&Process> {
    let processes = report.processes.iter();
    processes.filter(|process| of_interest(process, report) && !process.makers.is_empty()).collect()
}

/// Processes that people are told the makers of: above a tenth of the limit, refused for it, or growing steadily.
pub(crate) fn of_interest(process: &Process, report: &Report) -> bool {
    let limit = report.limits.max_map_count;
    let large = process.map_count.peak.zip(limit).is_some_and(|(peak, limit)| peak >= (limit / PART).max(1));
    let refused = |failure: &Failure| failure.is_of(process) && failure.cause == Cause::MaxMapCount;
    let grows = process.growth.as_ref().is_some_and(|growth| growth.steady);
    large || grows || process.map_count.clipped || report.unrecovered().any(refused)
}

/// All that the process had at its peak: up to so many places, then what is left. Empty where nobody looked.
pub(crate) fn rows(process: &Process, most: usize) -> Vec<Row<'_>> {
    let (makers, nobody): (Vec<&Maker>, Vec<&Maker>) =
        process.makers.iter().partition(|maker| maker.nobody.is_none());
    let all = total(process.makers.iter().map(|maker| maker.count));
    let places = joined(&makers);
    // What is less than a thousandth is no news beside what is not.
    let shown = places.iter().take(most).take_while(|place| place.count >= all / 1000).count();
    let mut rows: Vec<Row<'_>> = Vec::new();
    for place in places.iter().take(shown) {
        let more = (place.cut > 0 && !place.maker.cut)
            .then(|| format!("Of {} of them the callers further out are not known.", grouped(place.cut)));
        let wanted = place.count >= all / 100;
        let notes = place.maker.stack_notes.iter().filter(|_| wanted).map(|note| clean(note));
        let notes = notes.chain(more).collect();
        rows.push(Row { count: place.count, all, maker: Some(place.maker), nobody: None, notes });
    }
    let rest = |why| nobody.iter().filter(move |it| it.nobody == Some(why)).map(|it| it.count);
    let others = places.iter().skip(shown).map(|place| place.count).chain(rest(Nobody::OtherPlaces));
    // Of who was seen from its start these are what every program begins with.
    let before = if process.since == Some(Since::Start) { AT_START } else { BEFORE };
    let left = [
        (total(others), "other places"),
        (total(rest(Nobody::Before)), before),
        (total(rest(Nobody::NotSampled)), NOT_SAMPLED),
    ];
    let left = left.into_iter().filter(|(count, _)| *count > 0);
    rows.extend(left.map(|(count, why)| Row {
        count,
        all,
        maker: None,
        nobody: Some(why),
        notes: Vec::new(),
    }));
    rows
}

const BEFORE: &str = "there before vmaudit looked";
const AT_START: &str = "there when it began";
const NOT_SAMPLED: &str = "not sampled";

/// Why nobody is credited, as the innermost part of a stack.
fn reason(nobody: Nobody) -> &'static str {
    match nobody {
        Nobody::OtherPlaces => "[other places]",
        Nobody::Before => "[there before]",
        Nobody::NotSampled => "[not sampled]",
    }
}

/// Of a stack whose outer end is missing.
pub(crate) const CUT: &str = "[callers not known]";

/// What stands between the process and the functions of a maker: why nobody is credited, or that callers are missing.
pub(crate) fn above(maker: &Maker) -> Option<&'static str> {
    match maker.nobody {
        Some(why) => Some(reason(why)),
        None if maker.stack.is_empty() => Some(UNKNOWN),
        None => maker.cut.then_some(CUT),
    }
}

/// The VMAs of all peaks: the process, its functions from the outermost to the innermost, the call; and how many.
pub(crate) fn stacks(report: &Report) -> impl Iterator<Item = (Vec<String>, u64)> {
    report.processes.iter().flat_map(stacks_of)
}

/// Those of one process.
pub(crate) fn stacks_of(process: &Process) -> impl Iterator<Item = (Vec<String>, u64)> {
    process.makers.iter().map(|maker| {
        let mut names = vec![named(process.peak_comm())];
        names.extend(above(maker).map(str::to_owned));
        names.extend(maker.stack.iter().rev().map(whole_name));
        names.extend(maker.syscall.as_deref().map(named));
        (names, maker.count)
    })
}

impl Row<'_> {
    /// `99.7 %`, rounded down: a part is never the whole.
    pub(crate) fn share(&self) -> String {
        format!("{} %", tenths(self.count, self.all))
    }

    /// The call in few columns; empty where nobody is credited. A stranger's word: it may come from a file.
    pub(crate) fn call(&self) -> &str {
        short(self.maker.and_then(|maker| maker.syscall.as_deref()).unwrap_or_default())
    }

    /// The innermost functions of the program, or why there are none; each in at most so many columns.
    pub(crate) fn place(&self, room: usize) -> Vec<String> {
        match (self.nobody, self.maker) {
            (Some(why), _) => vec![why.to_owned()],
            (None, maker) => where_from(maker.map_or(&[], |maker| &maker.stack), room),
        }
    }
}

/// Makers from one place, as far as can be seen.
struct Place<'m> {
    /// The one that shows most of the stack.
    maker: &'m Maker,
    count: u64,
    /// Of these the outer callers are not known.
    cut: u64,
}

/// A stack without its outer callers goes to the largest one that begins like it: the function that called is the same.
fn joined<'m>(makers: &[&'m Maker]) -> Vec<Place<'m>> {
    let mut places: Vec<Place<'_>> = Vec::new();
    let (mut cut, mut all): (Vec<&Maker>, Vec<&Maker>) = makers.iter().partition(|maker| maker.cut);
    all.sort_by_key(|maker| std::cmp::Reverse(maker.count));
    // The longer one first, so that a shorter one finds it.
    cut.sort_by_key(|maker| std::cmp::Reverse(maker.stack.len()));
    all.extend(cut);
    for maker in all {
        let of = |it: &&mut Place<'_>| {
            maker.cut
                && !maker.stack.is_empty()
                && it.maker.syscall == maker.syscall
                && it.maker.stack.len() >= maker.stack.len()
                && it.maker.stack.iter().zip(&maker.stack).all(|(a, b)| a.is_like(b))
        };
        match places.iter_mut().find(of) {
            Some(place) => {
                place.count = place.count.saturating_add(maker.count);
                place.cut = place.cut.saturating_add(maker.count);
            }
            None => places.push(Place { maker, count: maker.count, cut: 0 }),
        }
    }
    places.sort_by_key(|place| std::cmp::Reverse(place.count));
    places
}

/// The innermost functions of the program.
pub(crate) fn where_from(stack: &[Frame], room: usize) -> Vec<String> {
    // The call is named already, and whoever maps does so through the C library.
    let of_library = |frame: &&Frame| is_of_c_library(frame) || is_of_library(frame) || is_of_go(frame);
    let inner = stack.iter().take_while(of_library).count();
    let shown = stack.get(inner..).filter(|rest| !rest.is_empty()).unwrap_or(stack);
    // What an interpreter runs says more than the interpreter.
    let is_script = |frame: &&Frame| frame.symbol.as_deref().is_some_and(|name| name.starts_with(PYTHON));
    let scripts = shown.iter().filter(is_script).count();
    let native = shown.iter().take_while(|frame| !is_script(frame)).count();
    let shown: Vec<&Frame> = match scripts {
        0 => shown.iter().collect(),
        _ => shown.iter().take(native.min(NATIVE)).chain(shown.iter().filter(is_script)).collect(),
    };
    let left_out = |n: usize| scripts > 0 && native > NATIVE && n == NATIVE;
    let mut places: Vec<String> = Vec::new();
    for (n, frame) in shown.iter().enumerate() {
        if n >= FUNCTIONS {
            places.push("…".into());
            break;
        }
        places.extend(left_out(n).then(|| "…".to_owned()));
        places.push(without_middle(&function(frame, room), room));
    }
    if places.is_empty() { vec!["its stack is not known".into()] } else { places }
}

/// Go's own way into the kernel.
fn is_of_go(frame: &Frame) -> bool {
    const PACKAGES: [&str; 2] = ["runtime/internal/syscall.", "internal/runtime/syscall."];
    const FUNCTIONS: [&str; 4] =
        ["syscall.RawSyscall6", "syscall.Syscall", "syscall.Syscall6", "syscall.rawSyscallNoError"];
    frame.symbol.as_deref().is_some_and(|name| {
        PACKAGES.iter().any(|package| name.starts_with(package)) || FUNCTIONS.contains(&name)
    })
}

/// Of the C library.
fn is_of_c_library(frame: &Frame) -> bool {
    const FILES: [&str; 4] = ["libc.so", "libc-2.", "ld-musl", "libc.musl"];
    let file = frame.module.as_deref().map(|path| path.rsplit('/').next().unwrap_or(path));
    file.is_some_and(|file| FILES.iter().any(|start| file.starts_with(start)))
}

/// A function with its line, or where its code is.
fn function(frame: &Frame, room: usize) -> String {
    let name = name(frame);
    let line = |file: &str, line: Option<u32>| {
        let file = clean(file.rsplit('/').next().unwrap_or(file));
        line.map_or_else(|| format!(" {file}"), |line| format!(" {file}:{line}"))
    };
    if let Some((function, file)) = name.strip_prefix(PYTHON).and_then(|rest| rest.rsplit_once(':')) {
        return function.to_owned() + &line(file, None);
    }
    let place = match (&frame.file, frame.line) {
        (Some(file), Some(number)) if frame.symbol.is_some() => line(file, Some(number)),
        _ => String::new(),
    };
    let room = room.saturating_sub(place.width());
    let generated = frame.module.is_none() && frame.symbol.is_some();
    let name = if generated || name.width() > room.min(LONG) { without_types(&name) } else { name };
    without_middle(&name, room) + &place
}

pub(crate) fn tenths(part: u64, whole: u64) -> String {
    let tenths = u128::from(part) * 1000 / u128::from(whole.max(1));
    format!("{}.{}", tenths / 10, tenths % 10)
}

/// A call in a column.
fn short(name: &str) -> &str {
    match name {
        "[other]" => "others",
        "[32-bit]" => "32-bit",
        name => name,
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::output::text::tests::clipped_run;

    /// A process at the limit with places that are whole, cut and not known.
    pub(crate) fn grown_run() -> Report {
        let mut report = clipped_run();
        let process = &mut report.processes[0];
        let inlined = Frame { inlined: true, ..frame("guard_page", "/srv/pool", 9) };
        let grow = frame("grow_arena", "/srv/pool", 13);
        let whole = vec![
            frame("__mprotect", "/lib/libc.so.6", 0),
            inlined.clone(),
            grow.clone(),
            frame("void pool::handle<std::vector<int> >(int)", "/srv/pool", 16),
            frame("main", "/srv/pool", 20),
        ];
        let cut = whole.iter().take(3).cloned().collect();
        let peak = process.map_count.peak.unwrap();
        let nobody =
            |count, why| Maker { syscall: None, nobody: Some(why), ..maker(count, Vec::new(), false) };
        let note = "The stack is cut here, at Java code without frame pointers.".to_owned();
        process.makers = vec![
            maker(59_000, whole, false),
            maker(5_000, cut, true),
            Maker { stack_notes: vec![note], ..maker(1_400, vec![frame("open", "", 0)], true) },
            maker(40, Vec::new(), true),
            nobody(31, Nobody::Before),
            nobody(peak - 65_471, Nobody::NotSampled),
        ];
        report
    }

    #[test]
    fn rows_and_stacks_add_up_to_the_peak() {
        let report = grown_run();
        let peak = report.processes[0].map_count.peak.unwrap();
        for most in [0, 1, 2, 9] {
            assert_eq!(total(rows(&report.processes[0], most).iter().map(|row| row.count)), peak);
        }
        assert_eq!(total(stacks(&report).map(|(_, count)| count)), peak);
        let roots: Vec<String> = stacks(&report).map(|(names, _)| names[1].clone()).collect();
        assert_eq!(roots[..4], ["main", CUT, CUT, UNKNOWN]);
    }

    fn frame(name: &str, module: &str, line: u32) -> Frame {
        let file = (line > 0).then(|| "pool.c".to_owned());
        Frame {
            symbol: Some(name.into()),
            module: (!module.is_empty()).then(|| module.into()),
            file,
            line: (line > 0).then_some(line),
            ..Frame::bare(u64::from(line))
        }
    }

    fn maker(count: u64, stack: Vec<Frame>, cut: bool) -> Maker {
        let syscall = Some("mmap".into());
        Maker { count, share: 0.0, syscall, stack, stack_notes: Vec::new(), cut, nobody: None }
    }

    fn counts(makers: &[Maker]) -> Vec<(u64, u64)> {
        joined(&makers.iter().collect::<Vec<_>>()).iter().map(|place| (place.count, place.cut)).collect()
    }

    #[test]
    fn a_stack_without_its_callers_goes_to_the_largest_that_begins_like_it() {
        let [a, b, c] = [1, 2, 3].map(|line| frame("f", "/bin/a", line));
        let whole = [
            maker(50, vec![a.clone(), b.clone()], false),
            maker(60, vec![a.clone(), c.clone()], false),
            maker(1, vec![c.clone()], false),
        ];
        assert_eq!(counts(&whole), [(60, 0), (50, 0), (1, 0)], "whole ones stay apart");
        let cut = maker(7, vec![a.clone()], true);
        let all = [&whole[..], &[cut, maker(9, vec![b], true), maker(3, Vec::new(), true)]].concat();
        assert_eq!(counts(&all), [(67, 7), (50, 0), (9, 0), (3, 0), (1, 0)]);
        let other = Maker { syscall: Some("brk".into()), ..maker(7, vec![a], true) };
        assert_eq!(counts(&[&whole[..], &[other]].concat()), [(60, 0), (50, 0), (7, 0), (1, 0)]);
    }

    fn shown(stack: &[Frame], room: usize) -> String {
        where_from(stack, room).join(" < ")
    }

    #[test]
    fn the_functions_of_the_program_stand_first() {
        let libc = frame("mprotect", "/lib/libc.so.6", 0);
        let go = [
            frame("runtime/internal/syscall.Syscall6", "/bin/go", 0),
            frame("syscall.Mprotect", "/bin/go", 0),
        ];
        assert_eq!(shown(&[libc.clone(), frame("grow", "/bin/a", 9)], 60), "grow pool.c:9");
        assert_eq!(shown(std::slice::from_ref(&libc), 60), "mprotect", "better than nothing");
        assert_eq!(shown(&go, 60), "syscall.Mprotect");
        let java = frame("void a.b.Node.open(java.io.File, long)", "", 0);
        assert_eq!(shown(&[java], 60), "Node.open");
        let mut python = vec![
            frame("f1", "/l/libffi.so", 0),
            frame("f2", "/l/libffi.so", 0),
            frame("f3", "/l/libpython3.12.so", 0),
        ];
        python.extend(
            ["py::grow:/srv/a b/pool.py", "eval", "py::<module>:/srv/pool.py"].map(|name| frame(name, "", 0)),
        );
        assert_eq!(shown(&python, 60), "f1 < f2 < … < grow pool.py < <module> pool.py");
    }
}
