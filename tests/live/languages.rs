//! 20,000 VMAs from one line of a program: the report names that line, whatever the program is written in. The programs
//! are in tests/examples/makers. Guests have no compilers.

use std::path::{Path, PathBuf};
use std::process::Command;

use vmaudit_tests::{Done, Scratch, Session};
use vmaudit_user::model::report::{Frame, Maker, Process};

/// VMAs that the line makes.
const MADE: u64 = 20_000;
/// Share of them that the place has at least: the rest was sampled before it, or is what a library did meanwhile.
const LEAST: f64 = 0.9;

fn example(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/makers").join(name)
}

/// The line of an example that has this text.
fn line(example_name: &str, text: &str) -> u32 {
    let source = std::fs::read_to_string(example(example_name)).unwrap();
    1 + source.lines().position(|line| line.contains(text)).expect("the source has it") as u32
}

fn succeeded(command: &mut Command) -> String {
    let answer = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    assert!(answer.status.success(), "{command:?}: {answer:?}");
    String::from_utf8_lossy(&answer.stdout).into_owned()
}

/// A session with a command; its report names places.
fn run(command: &[&str]) -> Done {
    Session::run_command(&[]).words(command).go().succeeded()
}

/// The process with the most VMAs.
fn largest(done: &Done) -> Process {
    let report = done.report();
    let it = report.processes.into_iter().max_by_key(|process| process.map_count.peak).expect("a process");
    let sum: u64 = it.makers.iter().map(|maker| maker.count).sum();
    assert_eq!(Some(sum), it.map_count.peak, "the rows add up: {:#?}", it.makers);
    it
}

/// The functions of a stack without the C library's own, innermost first; how the compiler changed their names is no matter.
fn functions(stack: &[Frame]) -> Vec<&str> {
    stack.iter().filter_map(|frame| frame.symbol.as_deref()).collect()
}

/// Those whose stack has a frame like this.
fn made_by(process: &Process, is: impl Fn(&Frame) -> bool + Copy) -> Vec<&Maker> {
    process.makers.iter().filter(|maker| maker.stack.iter().any(is)).collect()
}

fn count(makers: &[&Maker]) -> u64 {
    makers.iter().map(|maker| maker.count).sum()
}

/// Nearly all VMAs come from this call at this line of this file, within this function.
fn assert_named(process: &Process, call: &str, function: &str, file: &str, line: u32) {
    let at_line = |frame: &Frame| {
        frame.symbol.as_deref().is_some_and(|name| name.contains(function))
            && frame.file.as_deref().is_some_and(|path| path.ends_with(file))
            && frame.line == Some(line)
    };
    let makers = made_by(process, at_line);
    let named = count(&makers) as f64;
    assert!(named >= MADE as f64 * LEAST, "{named} at {function} {file}:{line}: {:#?}", process.makers);
    assert!(makers.iter().all(|maker| maker.syscall.as_deref() == Some(call)), "{makers:#?}");
}

/// The text says it in the first row of the table.
fn assert_told(done: &Done, parts: &[&str]) {
    let json = done.scratch.path("report.json");
    let text = Session::vmaudit(&["report", "-o", "-"]).words(&[json]).go().succeeded().stdout;
    let text = String::from_utf8_lossy(&text).into_owned();
    let table = text.split_once(" AT PEAK ").unwrap_or_else(|| panic!("no table: {text}")).1;
    // As one line, wherever it was broken.
    let first = table.lines().skip(1).take(4).flat_map(str::split_whitespace).collect::<Vec<_>>().join(" ");
    assert!(parts.iter().all(|part| first.contains(part)), "{parts:?}: {first}");
}

fn compiled(compiler: &str, source: &str, options: &[&str]) -> (Scratch, String) {
    let scratch = Scratch::new();
    let program = scratch.path("every_second").to_str().expect("a plain path").to_owned();
    let words = ["-O2", "-g", "-fomit-frame-pointer", "-pthread", "-o", &program];
    succeeded(Command::new(compiler).args(words).args(options).arg(example(source)));
    (scratch, program)
}

mod with_gcc {
    use super::*;

    /// Neither the program nor the C library keeps frame pointers.
    #[test]
    fn c_without_frame_pointers() {
        let (_folder, program) = compiled("gcc", "every_second.c", &[]);
        let done = run(&[&program]);
        let source = "every_second.c";
        let line = line(source, "if (mprotect(");
        assert_named(&largest(&done), "mprotect", "protect_every_second", source, line);
        let place = format!("protect_every_second every_second.c:{line} < handle_request every_second.c:");
        assert_told(&done, &["mprotect", &place]);
    }
}

mod with_cxx {
    use super::*;

    /// Through a lambda that was inlined, templates and a thread.
    #[test]
    fn a_lambda_of_cxx() {
        let (_folder, program) = compiled("g++", "every_second.cc", &["-std=c++17"]);
        let done = run(&[&program]);
        let source = "every_second.cc";
        let line = line(source, "// this line");
        assert_named(&largest(&done), "mprotect", "operator()", source, line);
        assert_told(
            &done,
            &[
                "pool::Arena<…>::guard::{lambda#1}::operator()",
                &format!("every_second.cc:{line}"),
                "pool::for_every_second<…>",
            ],
        );
    }
}

mod with_go {
    use super::*;

    /// Go keeps frame pointers and has no unwind information; its second stack is in no copy.
    #[test]
    fn a_goroutine() {
        let scratch = Scratch::new();
        let program = scratch.path("every_second").to_str().expect("a plain path").to_owned();
        let mut build = Command::new("go");
        build.args(["build", "-o", &program]).arg(example("every_second.go"));
        succeeded(
            build.env("HOME", scratch.path("home")).env("GOFLAGS", "-mod=mod").env("GO111MODULE", "off"),
        );
        let done = run(&[&program]);
        let source = "every_second.go";
        let line = line(source, "// this line");
        let process = largest(&done);
        assert_named(&process, "mprotect", "main.protectEverySecond", source, line);
        let of_it = |frame: &Frame| frame.symbol.as_deref() == Some("main.protectEverySecond");
        let maker = made_by(&process, of_it)[0];
        let names = functions(&maker.stack);
        assert!(
            names.contains(&"main.handleRequest") && names.last() == Some(&"runtime.goexit"),
            "{names:?}"
        );
        assert!(!maker.cut && maker.stack_notes.is_empty(), "{maker:?}");
        assert_told(
            &done,
            &[&format!("main.protectEverySecond every_second.go:{line} < main.handleRequest")],
        );
    }
}

mod with_python {
    use super::*;

    /// The functions in C, up to the first one; and it is said that those in Python are not told apart.
    #[test]
    fn python_s_native_side() {
        let script = example("every_second.py").to_str().expect("a plain path").to_owned();
        let process = largest(&run(&["python3", &script]));
        let of_it = |frame: &Frame| frame.symbol.as_deref() == Some("ffi_call");
        let makers = made_by(&process, of_it);
        assert!(count(&makers) as f64 >= MADE as f64 * LEAST, "{:#?}", process.makers);
        let whole = makers.iter().find(|maker| !maker.cut).expect("one was followed to its end");
        assert_eq!(functions(&whole.stack).last(), Some(&"_start"), "{whole:?}");
        let said = |note: &String| note.contains("Python code") && note.contains("-X perf");
        assert!(whole.stack_notes.iter().any(said), "{whole:?}");
    }
}

mod with_python_perf {
    use super::*;

    /// Python's generated entries have names, and are followed.
    #[test]
    fn functions_of_python() {
        let script = example("every_second.py").to_str().expect("a plain path").to_owned();
        let done = run(&["python3.12", "-X", "perf", &script]);
        let process = largest(&done);
        let of_it = |frame: &Frame| {
            frame.symbol.as_deref().is_some_and(|name| name.starts_with("py::protect_every_second:"))
        };
        let makers = made_by(&process, of_it);
        assert!(count(&makers) as f64 >= MADE as f64 * LEAST, "{:#?}", process.makers);
        let whole = makers.iter().find(|maker| !maker.cut).expect("one was followed to its end");
        let names = functions(&whole.stack);
        let python: Vec<&str> =
            names.iter().filter_map(|name| name.strip_prefix("py::")?.split(':').next()).collect();
        assert_eq!(python, ["protect_every_second", "handle_request", "<module>"], "{names:?}");
        assert_eq!(names.last(), Some(&"_start"));
        assert_told(&done, &["protect_every_second every_second.py", "handle_request every_second.py"]);
    }
}

mod with_java {
    use super::*;

    fn java(options: &[&str]) -> Done {
        let scratch = Scratch::new();
        let classes = scratch.path("classes");
        succeeded(Command::new("javac").arg("-d").arg(&classes).arg(example("EverySecond.java")));
        let classes = classes.to_str().expect("a plain path").to_owned();
        run(&[&["java"], options, &["-cp", &classes, "EverySecond"]].concat())
    }

    /// Names of compiled methods, of a map that the program writes at its end. (-Xbatch: whoever calls waits for the compiler.)
    #[test]
    fn a_method_of_java_by_its_map() {
        let perf = [
            "-Xbatch",
            "-XX:+PreserveFramePointer",
            "-XX:+UnlockDiagnosticVMOptions",
            "-XX:+DumpPerfMapAtExit",
        ];
        let done = java(&perf);
        let process = largest(&done);
        std::fs::remove_file(format!("/tmp/perf-{}.map", process.pid)).expect("java has written it");
        let of_it = |frame: &Frame| {
            frame.symbol.as_deref().is_some_and(|name| name.contains("EverySecond.openSegment"))
        };
        let makers = made_by(&process, of_it);
        assert!(count(&makers) as f64 >= MADE as f64 * LEAST, "{:#?}", process.makers);
        assert!(makers.iter().all(|maker| maker.syscall.as_deref() == Some("mmap")));
        assert_told(&done, &["mmap", "EverySecond.openSegment"]);
    }

    /// Without: the native function is named, and how the methods would be.
    #[test]
    fn why_a_method_of_java_has_no_name() {
        let process = largest(&java(&[]));
        let of_it = |frame: &Frame| frame.symbol.as_deref() == Some("Java_sun_nio_ch_FileChannelImpl_map0");
        let makers = made_by(&process, of_it);
        assert!(count(&makers) as f64 >= MADE as f64 * LEAST, "{:#?}", process.makers);
        let notes: Vec<&str> =
            makers.iter().flat_map(|maker| &maker.stack_notes).map(String::as_str).collect();
        for part in ["jcmd", "-XX:+PreserveFramePointer"] {
            assert!(notes.iter().any(|note| note.contains(part)), "{part}: {notes:?}");
        }
    }
}

mod with_gdb {
    use super::*;

    /// What gdb shows at the same place, function by function, inlined ones too.
    #[test]
    fn gdb_shows_the_same_stack() {
        let (_folder, program) = compiled("gcc", "every_second.c", &[]);
        let mut gdb = Command::new("gdb");
        gdb.args([
            "-q",
            "-nx",
            "-batch",
            "-ex",
            "set debuginfod enabled off",
            "-ex",
            "break protect_every_second",
        ]);
        gdb.args(["-ex", "run", "-ex", "break mprotect", "-ex", "continue", "-ex", "backtrace", &program]);
        let said = succeeded(&mut gdb);
        // `#1  0x... in handle_request (pages=20000) at ...`
        let function = |line: &str| {
            let rest = line.strip_prefix('#')?.split_once(' ')?.1.trim_start();
            let rest = rest.split_once(" in ").map_or(rest, |(_, rest)| rest);
            rest.split([' ', '(']).next().map(str::to_owned)
        };
        let last = said.rfind("#0 ").expect("a stack");
        let theirs: Vec<String> = said[last..].lines().filter_map(function).collect();
        let process = largest(&run(&[&program]));
        let of_it = |frame: &Frame| frame.symbol.as_deref() == Some("protect_every_second");
        let whole = made_by(&process, of_it).into_iter().find(|maker| !maker.cut).expect("a whole one");
        let ours = functions(&whole.stack);
        let until_main =
            |names: &[String]| names.iter().take_while(|name| *name != "main").cloned().collect::<Vec<_>>();
        let ours: Vec<String> = ours.iter().map(|name| (*name).to_owned()).collect();
        // The library has several names for its function.
        let (theirs, ours) = (until_main(&theirs), until_main(&ours));
        assert!(
            theirs.len() >= 3 && theirs[0].contains("mprotect") && ours[0].contains("mprotect"),
            "{theirs:?} {ours:?}"
        );
        assert_eq!(theirs[1..], ours[1..]);
    }
}
