//! The stack of a refused call, innermost function first.

use std::io;

use unicode_width::UnicodeWidthStr as _;

use crate::model::report::Frame;
use crate::output::text::page::{Colour, Page, without_middle};
use crate::text::{clean, count};

/// In place of an address that is not the caller's to know.
const HIDDEN: &str = "?";
const HEAD: &str = "    at ";
/// Of what goes on below it.
const INDENT: &str = "       ";
/// Names are not shortened below this, columns: the place goes to a line of its own instead.
const NAME: usize = 32;
/// Names of mapped files are shortened above this, columns.
const MODULE: usize = 32;
/// Paths of sources are not shortened below this, columns.
const PATH: usize = 24;

pub(crate) fn stack(stack: &[Frame], notes: &[String], page: &mut Page<'_>) -> io::Result<()> {
    let most = page.style.frames.max(1);
    let mut shown = 0;
    let mut rest = stack;
    while let Some((frame, after)) = rest.split_first().filter(|_| shown < most) {
        // What a language's own library is made of says nothing of the program: one line for all of it.
        let folded = rest.iter().take_while(|frame| is_of_library(frame)).count();
        if folded > 1 {
            let what = count(folded as u64, "inlined function", "inlined functions");
            page.line(&format!("{INDENT}({what} of the language's library)"), Some(Colour::Dim))?;
            rest = rest.get(folded..).unwrap_or_default();
            continue;
        }
        for line in lines(frame, page.width) {
            page.line(&line, Some(Colour::Dim))?;
        }
        shown += 1;
        rest = after;
    }
    if !rest.is_empty() {
        let more = count(rest.len() as u64, "more frame", "more frames");
        page.line(&format!("    and {more}"), Some(Colour::Dim))?;
    }
    for note in notes {
        page.paragraph("    ", "    ", &clean(note), Some(Colour::Dim))?;
    }
    Ok(())
}

/// An inlined function of the libraries of Rust or C++ themselves.
pub(crate) fn is_of_library(frame: &Frame) -> bool {
    const SOURCES: [&str; 4] =
        ["/library/core/src/", "/library/alloc/src/", "/library/std/src/", "/include/c++/"];
    frame.inlined
        && frame.file.as_deref().is_some_and(|file| SOURCES.iter().any(|folder| file.contains(folder)))
}

/// One line, or two where a frame is too long for one: a name may lose its middle, never its module and line.
fn lines(frame: &Frame, width: usize) -> Vec<String> {
    let (name, place) = (name(frame), place(frame, width.saturating_sub(INDENT.width())));
    let room = width.saturating_sub(HEAD.width());
    if place.is_empty() {
        return vec![format!("{HEAD}{}", without_middle(&name, room))];
    }
    let beside = room.saturating_sub(1 + place.width());
    if name.width() <= beside || beside >= NAME {
        vec![format!("{HEAD}{} {place}", without_middle(&name, beside))]
    } else {
        vec![format!("{HEAD}{}", without_middle(&name, room)), format!("{INDENT}{place}")]
    }
}

/// What a frame is called, with its module where it has no function.
pub(crate) fn name(frame: &Frame) -> String {
    let address = || frame.ip.clone().unwrap_or_else(|| HIDDEN.to_owned());
    match (&frame.symbol, module(frame)) {
        (Some(symbol), _) => clean(symbol),
        (None, Some(module)) => match frame.offset {
            Some(offset) => format!("{module}+{offset:#x}"),
            None => format!("{module} {}", address()),
        },
        (None, None) => clean(&address()),
    }
}

/// Module, source and line of a function in so many columns: the path of the source loses its middle.
fn place(frame: &Frame, columns: usize) -> String {
    if frame.symbol.is_none() {
        return String::new();
    }
    let module = module(frame).map(|module| format!("({module})"));
    let line = frame.line.map(|line| format!(":{line}")).unwrap_or_default();
    let mark = frame.inlined.then_some("(inlined)");
    let around = |it: Option<&str>| it.map_or(0, |it| it.width() + 1);
    let room = columns.saturating_sub(around(module.as_deref()) + around(mark) + line.width()).max(PATH);
    let file = frame.file.as_deref().map(|file| without_middle(&clean(file), room) + &line);
    [module.as_deref(), file.as_deref(), mark].into_iter().flatten().collect::<Vec<_>>().join(" ")
}

/// The last part of its path.
fn module(frame: &Frame) -> Option<String> {
    let path = frame.module.as_deref()?;
    Some(without_middle(&clean(path.rsplit('/').next().unwrap_or(path)), MODULE))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::text::page::Style;

    fn frame(symbol: &str, file: &str) -> Frame {
        Frame {
            symbol: Some(symbol.into()),
            module: Some("/usr/lib/node".into()),
            file: Some(file.into()),
            line: Some(1203),
            ..Frame::bare(1)
        }
    }

    #[test]
    fn what_fits_is_one_line() {
        assert_eq!(lines(&frame("f", "a.c"), 80), ["    at f (node) a.c:1203"]);
        let inlined = Frame { inlined: true, ..frame("f", "a.c") };
        assert_eq!(lines(&inlined, 80), ["    at f (node) a.c:1203 (inlined)"]);
        assert_eq!(lines(&Frame::bare(0x12), 80), ["    at 0x12"]);
        let unnamed = Frame { module: Some("/x/libffi.so.8".into()), offset: Some(16), ..Frame::bare(1) };
        assert_eq!(lines(&unnamed, 80), ["    at libffi.so.8+0x10"]);
    }

    #[test]
    fn a_long_name_keeps_its_module_and_line() {
        let name = "v8::internal::PagedSpace<v8::internal::OldSpace>::AllocateRawSlow(int, Alignment)";
        let [line] = lines(&frame(name, "heap.cc"), 80).try_into().unwrap();
        assert_eq!(line.width(), 80);
        assert!(
            line.starts_with("    at v8::internal::") && line.ends_with("Alignment) (node) heap.cc:1203")
        );
        let path = "/builds/of/somebody/with/a/very/long/path/to/the/sources/of/this/program/heap.cc";
        for width in [40, 60, 80, 100] {
            let lines = lines(&frame(name, path), width);
            assert!(lines.iter().any(|line| line.contains("(node)")), "{lines:?}");
            assert!(lines.last().unwrap().ends_with("heap.cc:1203"), "{lines:?}");
            assert!(width < 60 || lines.iter().all(|line| line.width() <= width), "{lines:?}");
        }
    }

    fn shown(stack: &[Frame], frames: usize) -> String {
        let mut out = Vec::new();
        let style = Style { frames, ..Style::default() };
        let mut page = Page { out: &mut out, style, width: style.width };
        super::stack(stack, &["Cut.".into()], &mut page).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn as_many_frames_as_wanted_without_what_the_library_inlined() {
        let library = Frame { inlined: true, ..frame("fold", "/x/library/core/src/iter.rs") };
        let stack = [
            frame("a", "a.c"),
            library.clone(),
            library.clone(),
            frame("b", "b.c"),
            library,
            frame("c", "c.c"),
        ];
        let all = "    at a (node) a.c:1203\n       (2 inlined functions of the language's library)\n    \
                   at b (node) b.c:1203\n    at fold (node) /x/library/core/src/iter.rs:1203 (inlined)\n    \
                   at c (node) c.c:1203\n    Cut.\n";
        assert_eq!(shown(&stack, 4), all);
        let two = "    at a (node) a.c:1203\n       (2 inlined functions of the language's library)\n    \
                   at b (node) b.c:1203\n    and 2 more frames\n    Cut.\n";
        assert_eq!(shown(&stack, 2), two);
    }

    #[test]
    fn strangers_names_stay_on_their_line() {
        let hostile = frame("a\x1b[2J\nb", "x\ny");
        assert!(lines(&hostile, 80).iter().all(|line| !line.contains(['\x1b', '\n'])));
    }
}
