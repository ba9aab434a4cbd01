//! What a stack does not show is said beside it: where it is cut and why, and how names could be had.

use std::collections::HashMap;

use super::generated::{FramePointers, RUNTIMES, Runtime, may_be_jitted};
use super::unwind::{End, FUNCTIONS, Followed};
use super::{Image, Taken, inside};
use crate::model::event::FollowedStack;
use crate::model::makers::UNCOPIED;
use crate::model::report::Frame;

/// How the names of Python's generated entries begin.
const PYTHON: &str = "py::";
/// The name of all code of Java that is not compiled.
const INTERPRETER: &str = "Interpreter";
const NARROW: &str = "Stacks of 32-bit code are not followed: its unwind information is not read.";

fn numbered(index: usize) -> String {
    format!("address {} of the stack", index + 1)
}

/// The event of a stack, with its sentences.
pub fn noted(
    taken: &Taken,
    followed: Option<Followed>,
    image: &Image,
    named: &HashMap<(u64, u64), &Frame>,
) -> FollowedStack {
    let runtime = RUNTIMES.iter().find(|runtime| runtime.runs_in(image));
    let mut notes = Vec::new();
    let cut = followed.as_ref().is_none_or(Followed::is_cut);
    let addresses = match followed {
        Some(followed) => {
            notes.extend(end(&followed, image, runtime));
            notes.extend(python_entries(taken, &followed, named));
            match followed.end {
                // All of it: with the word beside it, as if there were no copy.
                End::FramePointers { from: 0, .. } => Vec::new(),
                _ => followed.addresses,
            }
        }
        None => {
            notes.push(if taken.narrow { NARROW } else { UNCOPIED }.to_owned());
            Vec::new()
        }
    };
    let shown = if addresses.is_empty() { &taken.stack } else { &addresses };
    if !taken.narrow {
        notes.extend(names(taken, shown, image, named, runtime));
    }
    let Taken { generation, tid, at_ns, .. } = *taken;
    FollowedStack { generation, tid, at_ns, addresses, notes, place: taken.place, cut }
}

/// Python names its entries; of generated code without such a name it is not certain that it was one.
fn python_entries(taken: &Taken, followed: &Followed, named: &HashMap<(u64, u64), &Frame>) -> Option<String> {
    let from = followed.by_python?;
    let name = |ip| named.get(&(taken.generation, ip)).and_then(|frame| frame.symbol.as_deref());
    let python =
        followed.addresses.get(from).and_then(|&ip| name(ip)).is_some_and(|it| it.starts_with(PYTHON));
    (!python).then(|| format!("Beyond {} followed as Python's generated code would be.", numbered(from)))
}

/// How it ends, if there is something to say of it.
fn end(followed: &Followed, image: &Image, runtime: Option<&Runtime>) -> Option<String> {
    let last = followed.addresses.last().and_then(|&ip| image.area(inside(ip)));
    let file = last.map(|area| area.name.rsplit('/').next().unwrap_or_default());
    let file = file.filter(|name| !name.is_empty()).unwrap_or("the file");
    Some(match &followed.end {
        End::First => {
            let keeps =
                runtime.is_some_and(|runtime| matches!(runtime.frame_pointers, FramePointers::Always));
            let from = followed.by_frame_pointer.filter(|_| !keeps)?;
            format!(
                "Beyond {} its callers were found by frame pointers: where code keeps none, some are missing.",
                numbered(from)
            )
        }
        End::FramePointers { certain: true, .. } => return None,
        End::FramePointers { from: 0, .. } => UNCOPIED.to_owned(),
        End::FramePointers { from, .. } => {
            format!("Beyond {} found by frame pointers: callers that keep none are missing.", numbered(*from))
        }
        End::NoFramePointer => {
            let how = match runtime.map(|runtime| &runtime.frame_pointers) {
                Some(FramePointers::If(how)) => format!(": {how}"),
                _ => String::new(),
            };
            let what = match runtime {
                Some(runtime) => runtime.code,
                None if last.is_some_and(|area| !area.name.is_empty()) => file,
                None => "generated code",
            };
            format!("The stack is cut here, at {what} without frame pointers{how}.")
        }
        End::Contradiction => {
            format!("The stack is cut here: what {file} says of this function does not fit the stack.")
        }
        End::NotCopied(bytes) => format!(
            "The stack is cut here: its innermost {} KiB were copied, and the next caller lies further out.",
            bytes / 1024
        ),
        End::NoCode if image.unread.is_some() => {
            "The stack is cut here: there were so many mappings that that of the next address was \
             not read in time."
                .to_owned()
        }
        End::NoCode => {
            "The stack is cut here: the next address lies in no code that vmaudit knows of.".to_owned()
        }
        End::Deep => format!("The stack goes on: its innermost {FUNCTIONS} functions are kept."),
    })
}

/// How functions without a name could have one.
fn names(
    taken: &Taken,
    stack: &[u64],
    image: &Image,
    named: &HashMap<(u64, u64), &Frame>,
    runtime: Option<&Runtime>,
) -> Option<String> {
    let generated = |ip: &&u64| image.area(inside(**ip)).is_some_and(|area| may_be_jitted(&area.name));
    let has_name = |ip: &u64| named.get(&(taken.generation, *ip)).is_some_and(|frame| frame.symbol.is_some());
    let (with, without): (Vec<&u64>, Vec<&u64>) = stack.iter().filter(generated).partition(|ip| has_name(ip));
    let what = runtime.map_or("Generated code", |runtime| runtime.code);
    let how = runtime.map(|runtime| runtime.names.replace("PID", &taken.tgid.to_string()));
    if !without.is_empty() {
        let how = how.unwrap_or_else(|| {
            "a program that makes code can write its names to /tmp/perf-PID.map".to_owned()
        });
        let which =
            if with.is_empty() { what.to_owned() } else { format!("{what} without a name is among it") };
        let has_none = if with.is_empty() { " has no names here" } else { "" };
        return Some(format!("{which}{has_none}: {how}."));
    }
    let symbol = |ip: &&u64| named.get(&(taken.generation, **ip)).and_then(|frame| frame.symbol.as_deref());
    if with.iter().filter_map(symbol).any(|name| name == INTERPRETER) {
        return Some(
            "Interpreter: a method of Java that was not compiled; such have no names of their own.".into(),
        );
    }
    // An interpreter's functions are one loop in C.
    let interprets = runtime.is_some_and(|runtime| runtime.interprets() && runtime.on(stack, image));
    (interprets && with.is_empty())
        .then(|| format!("{what} is not told apart here: {}.", how.unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::enrich::symbols::Area;

    fn area(start: u64, name: &str) -> Area {
        Area { start, end: start + 0x100, offset: 0, name: name.into(), module: None }
    }

    fn notes(files: &[&str], followed: Option<Followed>, named: &[u64]) -> Vec<String> {
        let mut areas = vec![area(0x9000, "")];
        areas.extend(files.iter().zip(1..).map(|(name, n)| area(0x1000 * n, name)));
        let image = Image { areas, ..Image::default() };
        let taken = Taken {
            generation: 1,
            tgid: 7,
            tid: 7,
            at_ns: 0,
            stack: vec![0x1001],
            copy: None,
            narrow: false,
            place: None,
            tries: 0,
        };
        let frame = Frame { symbol: Some("f".into()), ..Frame::bare(1) };
        let named = named.iter().map(|&ip| ((1, ip), &frame)).collect();
        noted(&taken, followed, &image, &named).notes
    }

    fn stack(addresses: &[u64], end: End, by_frame_pointer: Option<usize>) -> Option<Followed> {
        Some(Followed { addresses: addresses.to_vec(), end, by_frame_pointer, by_python: None })
    }

    #[test]
    fn code_of_32_bits_is_no_generated_code() {
        let image = Image { areas: vec![area(0x9000, "")], ..Image::default() };
        let stack = vec![0x9001];
        let taken = Taken {
            generation: 1,
            tgid: 7,
            tid: 7,
            at_ns: 0,
            stack,
            copy: None,
            narrow: true,
            place: None,
            tries: 0,
        };
        assert_eq!(noted(&taken, None, &image, &HashMap::new()).notes, [NARROW]);
    }

    #[test]
    fn a_whole_stack_needs_no_words_and_one_without_a_copy_does() {
        assert_eq!(notes(&["/bin/a"], stack(&[0x1001], End::First, None), &[]), [""; 0]);
        assert_eq!(notes(&["/bin/a"], None, &[]), [UNCOPIED]);
        let go = End::FramePointers { from: 0, certain: true };
        assert_eq!(notes(&["/bin/a"], stack(&[0x1001], go, None), &[]), [""; 0]);
    }

    #[test]
    fn code_that_was_not_read_is_no_absent_code() {
        let said = |unread| {
            let image = Image { areas: vec![area(0x1000, "/bin/a")], unread, ..Image::default() };
            let followed = stack(&[0x1001], End::NoCode, None).expect("a stack");
            end(&followed, &image, None).expect("a sentence")
        };
        assert!(said(Some(std::time::Instant::now())).contains("so many mappings"));
        assert!(said(None).contains("no code that vmaudit knows of"));
    }

    #[test]
    fn each_runtime_is_told_how_its_code_gets_names() {
        let java = ["/usr/lib/jvm/libjvm.so"];
        let cut = notes(&java, stack(&[0x1001, 0x9001], End::NoFramePointer, Some(1)), &[]);
        assert_eq!(cut.len(), 2);
        assert!(cut[0].contains("cut here, at Java code") && cut[0].contains("-XX:+PreserveFramePointer"));
        assert!(cut[1].starts_with("Java code has no names here: run `jcmd 7 Compiler.perfmap`"), "{cut:?}");
        let some = notes(&java, stack(&[0x9001, 0x9009], End::First, None), &[0x9001]);
        assert!(some[0].starts_with("Java code without a name is among it: run"), "{some:?}");
        assert_eq!(notes(&java, stack(&[0x9001], End::First, None), &[0x9001]), [""; 0]);
        // V8's code keeps frame pointers.
        let node = notes(&["/usr/bin/node"], stack(&[0x1001, 0x9001], End::First, Some(1)), &[]);
        assert!(node.len() == 1 && node[0].contains("--perf-basic-prof-only-functions"), "{node:?}");
        let python = notes(&["/usr/lib/libpython3.12.so.1.0"], stack(&[0x1001], End::First, None), &[]);
        assert!(python.len() == 1 && python[0].contains("-X perf"), "{python:?}");
        let other = notes(&["/usr/bin/qemu"], stack(&[0x9001], End::First, Some(0)), &[]);
        assert!(other.len() == 2 && other[0].starts_with("Beyond address 1 of the stack"), "{other:?}");
        assert!(other[1].contains("/tmp/perf-PID.map"), "{other:?}");
    }
}
