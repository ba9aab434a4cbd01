//! The forms in which `scan`, `explain` and `limit` show what they found, and the files these go to.

use std::io;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use super::Destination;
use super::table::Look;
use crate::output::destination::open_each;
use crate::text::clean;

/// Form of the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Form {
    /// For people.
    Text,
    /// One JSON document.
    Json,
    /// Lines of comma-separated fields under one line of names.
    Csv,
}

impl Form {
    /// The form that a file's name promises.
    pub fn of(file: &Path) -> Self {
        match file.extension().and_then(|extension| extension.to_str()) {
            Some("json") => Self::Json,
            Some("csv") => Self::Csv,
            _ => Self::Text,
        }
    }
}

/// Every form asked for with its open destination.
#[derive(Debug)]
pub struct Outputs(Vec<(Form, Destination)>);

impl Outputs {
    /// Pairs forms and files by their places: a form without a file goes to standard output, a file without a form
    /// takes its form from its name. Files are made now, so that a bad path fails before anything is read.
    pub fn open(forms: &[Form], files: &[PathBuf]) -> anyhow::Result<Self> {
        let of_name = |file: Option<&Path>| file.map_or(Form::Text, Form::of);
        let pairs = open_each(forms, files, of_name, || Destination::Stdout)?;
        Ok(Self(pairs.into_iter().map(|(form, destination, _)| (form, destination)).collect()))
    }

    /// What root must keep until they are written, see [`Destination::rights`].
    pub fn rights(&self) -> Vec<caps::Capability> {
        self.0.iter().flat_map(|(_, destination)| destination.rights()).copied().collect()
    }

    /// One of them is in this form.
    pub fn any(&self, of: impl Fn(Form) -> bool) -> bool {
        self.0.iter().any(|(form, _)| of(*form))
    }

    /// Lets `write` write each one in one piece. A reader that has seen enough (`| head`) is no failure.
    pub fn write(
        self,
        mut write: impl FnMut(Form, &Look, &mut Vec<u8>) -> io::Result<()>,
    ) -> anyhow::Result<()> {
        for (form, mut destination) in self.0 {
            let mut whole = Vec::new();
            write(form, &Look::of(&destination), &mut whole)?;
            let sent = io::Write::write_all(&mut destination, &whole)
                .and_then(|()| io::Write::flush(&mut destination));
            match sent {
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
                other => other.context("the output could not be written")?,
            }
        }
        Ok(())
    }
}

/// A field of CSV. Control characters are made visible, and a text that a spreadsheet would take for a formula gets
/// an apostrophe: names come from strangers.
pub fn csv_text(text: Option<&str>) -> String {
    let safe = clean(text.unwrap_or_default());
    let safe = if safe.starts_with(['=', '+', '-', '@']) { format!("'{safe}") } else { safe };
    if safe.contains([',', '"']) { format!("\"{}\"", safe.replace('"', "\"\"")) } else { safe }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn csv_is_safe_in_a_spreadsheet() {
        assert_eq!(csv_text(Some("=cmd|'x'")), "'=cmd|'x'");
        assert_eq!(csv_text(Some("a,\"b\"\n")), "\"a,\"\"b\"\"\\x0a\"");
        assert_eq!(csv_text(None), "");
    }

    #[test]
    fn forms_and_files_are_paired_by_their_places() {
        let folder = std::env::temp_dir().join(format!("vmaudit-form-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let files = ["a.json", "b.csv", "c"].map(|name| folder.join(name));
        let forms = |outputs: Outputs| outputs.0.iter().map(|(form, _)| *form).collect::<Vec<_>>();
        assert_eq!(forms(Outputs::open(&[], &[]).unwrap()), [Form::Text]);
        assert_eq!(forms(Outputs::open(&[], &files).unwrap()), [Form::Json, Form::Csv, Form::Text]);
        let two = [Form::Csv, Form::Json];
        assert_eq!(forms(Outputs::open(&two, &files[..1]).unwrap()), two);
        let bad = Outputs::open(&[], &[PathBuf::from("/nonexistent/x")]).unwrap_err();
        assert!(format!("{bad:#}").starts_with("cannot write /nonexistent/x: "));
        std::fs::remove_dir_all(folder).unwrap();
    }
}
