//! Values of options, and the options that several commands share.

use clap::builder::{OsStringValueParser, PossibleValuesParser, TypedValueParser};
use vmaudit_user::output::format::{self, Format, Kind, Named};

/// Understands `-o` for such a document.
pub fn output(kind: Kind) -> impl TypedValueParser<Value = Named> {
    OsStringValueParser::new().try_map(move |asked| format::named(&asked, kind))
}

/// Understands `--format` for such a document.
pub fn screen(kind: Kind) -> impl TypedValueParser<Value = Format> {
    PossibleValuesParser::new(format::names(kind))
        .try_map(|name| Format::named(&name).ok_or_else(|| format!("there is no format {name}")))
}
