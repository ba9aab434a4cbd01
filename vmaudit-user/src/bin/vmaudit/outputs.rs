//! Where the documents of a command go: each is opened before anything is read, so that a bad path costs nothing.

use std::io::{self, Write as _};

use anyhow::Context as _;
use caps::Capability;
use vmaudit_user::os::destination::{Destination, Writing};
use vmaudit_user::os::rights;
use vmaudit_user::output::format::{self, Document, Format, Kind, Named};
use vmaudit_user::output::say;
use vmaudit_user::output::text::page::{FRAMES, Style};

/// The command was called wrongly; the sentence says how.
#[derive(Debug)]
pub struct Usage(String);

impl std::fmt::Display for Usage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Usage {}

/// What `-o` and `--format` ask for.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// Each `-o`.
    pub named: &'a [Named],
    /// `--format`.
    pub screen: Option<Format>,
    /// What will be written.
    pub kind: Kind,
}

/// Every format asked for with its open destination.
#[derive(Debug)]
pub struct Outputs {
    all: Vec<(Format, Destination)>,
    /// By `-o`.
    named: bool,
}

impl Outputs {
    /// Opens what `-o` names, or else standard output in the format of `--format`. Errors: a format that cannot show such
    /// a document ([`Usage`]), and a file that cannot be written.
    pub fn open(asked: &Asked<'_>) -> anyhow::Result<Self> {
        Self::open_or(asked, Writing::Whole, Destination::Stdout)
    }

    /// The same with another place for what nobody named, or another way of writing.
    pub fn open_or(asked: &Asked<'_>, writing: Writing, usual: Destination) -> anyhow::Result<Self> {
        let Asked { named, screen, kind } = *asked;
        let on_screen = screen.unwrap_or(Format::Text);
        on_screen.must_show(kind).map_err(Usage)?;
        if named.is_empty() {
            fits(on_screen, &usual)?;
            return Ok(Self { all: vec![(on_screen, usual)], named: false });
        }
        if let Some(unheard) = unheard(named, screen) {
            say(&unheard);
        }
        let open = |Named { format, file }: &Named| {
            let format = format.unwrap_or(on_screen);
            format.must_show(kind).map_err(Usage)?;
            let destination = Destination::open(file, writing)
                .with_context(|| format!("cannot write {}", file.display()))?;
            fits(format, &destination)?;
            Ok((format, destination))
        };
        Ok(Self { all: named.iter().map(open).collect::<anyhow::Result<_>>()?, named: true })
    }

    /// Text there, as nobody asked for anything.
    pub fn on_screen(screen: Destination) -> Self {
        Self { all: vec![(Format::Text, screen)], named: false }
    }

    /// Somebody named a file, or `-`.
    pub fn named(&self) -> bool {
        self.named
    }

    /// The first, for a command that has only one.
    pub fn into_first(self) -> Option<(Format, Destination)> {
        self.all.into_iter().next()
    }

    /// What root must keep until they are written, see [`Destination::rights`].
    pub fn rights(&self) -> Vec<Capability> {
        self.all.iter().flat_map(|(_, destination)| destination.rights()).copied().collect()
    }

    /// Something is written in another format than text.
    pub fn more_than_text(&self) -> bool {
        self.all.iter().any(|(format, _)| *format != Format::Text)
    }

    /// Gives up all rights, since everything was read, and writes. `shown`: how much of it. Errors: the system's; a
    /// reader that has seen enough (`| head`) is none.
    pub fn write(self, document: &Document<'_>, shown: impl Into<Shown>) -> anyhow::Result<()> {
        rights::finish(&self.rights());
        self.write_each(document, shown)
            .into_iter()
            .next()
            .map_or(Ok(()), Err)
            .context("the output could not be written")
    }

    /// Writes to each, also after one could not take it. Returns what they answered; a reader that has seen enough is no
    /// failure.
    pub fn write_each(self, document: &Document<'_>, shown: impl Into<Shown>) -> Vec<io::Error> {
        let shown = shown.into();
        let write = |(format, mut destination): (Format, Destination)| {
            if shown.echoed && destination.is_terminal() {
                let _ = destination.write_all(b"\n");
            }
            let style = style(&destination, document, shown);
            let write = if destination.is_unseen() { format::write_unseen } else { format::write };
            write(document, format, &style, &mut destination).err()
        };
        let errors = self.all.into_iter().filter_map(write);
        errors.filter(|error| error.kind() != io::ErrorKind::BrokenPipe).collect()
    }
}

/// A terminal shows nothing of what only programs can read, and may obey it.
fn fits(format: Format, destination: &Destination) -> Result<(), Usage> {
    if format.is_text() || !destination.is_terminal() {
        return Ok(());
    }
    let name = format.name();
    Err(Usage(format!("{name} is not for a terminal; name a file: -o {name}:FILE")))
}

/// How much of a document a text shows.
#[derive(Clone, Copy, Debug)]
pub struct Shown {
    /// Of each table.
    pub rows: usize,
    /// Of each stack.
    pub frames: usize,
    /// Also what touches nothing that is shown.
    pub verbose: bool,
    /// The terminal stands behind the echo of a key, not at the beginning of a line.
    pub echoed: bool,
}

impl From<usize> for Shown {
    fn from(rows: usize) -> Self {
        Self { rows, frames: FRAMES, verbose: false, echoed: false }
    }
}

/// A sentence when `--format` is without effect and its caller may have meant something else by it.
fn unheard(named: &[Named], screen: Option<Format>) -> Option<String> {
    let screen = screen?;
    if named.iter().any(|named| named.format.is_none()) {
        return None;
    }
    let Named { format: Some(format), file } = named.iter().find(|named| named.format != Some(screen))?
    else {
        return None;
    };
    let (format, file, screen) = (format.name(), file.display(), screen.name());
    Some(format!(
        "{file} is written as {format}: --format is for the screen, -o {screen}:{file} for the file"
    ))
}

/// Reports are wrapped on a terminal and in a pipe; the tables of the others are cut where a terminal ends, and nowhere in a
/// pipe.
fn style(destination: &Destination, document: &Document<'_>, shown: Shown) -> Style {
    let without_terminal = if matches!(
        document,
        Document::Report(_)
            | Document::Doctor(_)
            | Document::Explanation(..)
            | Document::Difference(_)
            | Document::Fleet(_)
    ) {
        100
    } else {
        usize::MAX
    };
    let width = destination.columns().unwrap_or(without_terminal);
    Style {
        colour: destination.colour(),
        width,
        top: shown.rows,
        frames: shown.frames,
        verbose: shown.verbose,
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;

    use super::*;

    fn named(asked: &[&str]) -> Vec<Named> {
        asked.iter().map(|asked| format::named(OsStr::new(asked), Kind::Scan).unwrap()).collect()
    }

    #[test]
    fn files_have_their_own_format_and_the_screen_has_that_of_the_option() {
        let folder = std::env::temp_dir().join(format!("vmaudit-outputs-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let formats = |files: &[&str], screen| {
            let outputs = Outputs::open(&Asked { named: &named(files), screen, kind: Kind::Scan }).unwrap();
            outputs.all.iter().map(|(format, _)| *format).collect::<Vec<_>>()
        };
        assert_eq!(formats(&[], None), [Format::Text]);
        assert_eq!(formats(&[], Some(Format::Csv)), [Format::Csv]);
        let (a, b) = (folder.join("a.json"), folder.join("b"));
        let files = [a.to_str().unwrap(), b.to_str().unwrap(), "-"];
        assert_eq!(formats(&files, Some(Format::Csv)), [Format::Json, Format::Text, Format::Csv]);
        assert_eq!(formats(&files, None), [Format::Json, Format::Text, Format::Text]);
        std::fs::remove_dir_all(folder).unwrap();
        let bad =
            Outputs::open(&Asked { named: &named(&["/nonexistent/x"]), screen: None, kind: Kind::Scan })
                .unwrap_err();
        assert!(format!("{bad:#}").starts_with("cannot write /nonexistent/x: "));
    }

    #[test]
    fn a_table_is_not_asked_of_what_has_none() {
        let wrong =
            Outputs::open(&Asked { named: &[], screen: Some(Format::Csv), kind: Kind::Plan }).unwrap_err();
        assert!(wrong.is::<Usage>(), "{wrong}");
    }

    #[test]
    fn an_option_without_effect_is_said() {
        let said = unheard(&named(&["now"]), Some(Format::Json));
        let expected = "now is written as text: --format is for the screen, -o json:now for the file";
        assert_eq!(said.as_deref(), Some(expected));
        for (files, screen) in
            [(&["now.json"][..], Some(Format::Json)), (&["now", "-"], Some(Format::Json)), (&["now"], None)]
        {
            assert_eq!(unheard(&named(files), screen), None, "{files:?}");
        }
    }
}
