//! Recordings: a session's header and events in a file, from which the same reports can be made again.
//!
//! [`mod@format`] says how the bytes lie, [`packed`] how events are packed, [`mod@framer`] puts them into frames, [`writer`] writes them as a session goes on,
//! [`reader`] reads them: as a source like the others, from strangers, and up to where the file is whole.

pub(crate) mod format;
pub(crate) mod framer;
mod numbers;
pub(crate) mod packed;
pub(crate) mod reader;
pub(crate) mod writer;

pub use reader::{ReadError, Reader};
pub use writer::Writer;
