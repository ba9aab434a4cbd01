//! What the endings of `run -o` say until `run` asks [`super::format::named`]; goes with `session::open_outputs`.

use std::path::Path;

use super::Format;

pub(crate) type Form = Format;

impl Format {
    /// The format that a file's name promises.
    pub(crate) fn of(file: &Path) -> Self {
        match file.extension().and_then(|extension| extension.to_str()) {
            Some("json") => Self::Json,
            _ => Self::Text,
        }
    }
}
