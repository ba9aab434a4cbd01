//! Events in few bytes, read without a look at each letter.
//!
//! What a struct's fields are called is told once a frame, so a reader of another version passes over fields that it does
//! not know, and fields that it misses have their defaults, as in JSON. A frame begins with two tables: texts (their number,
//! then length and bytes of each) and shapes (their number, then of each the number of its fields and their names as
//! numbers of texts). Values follow until the frame ends, each of a byte ([`tag`]) and what belongs to it; numbers are as
//! in [`super::numbers`].

mod read;
mod write;

pub use read::values;
pub use write::Packer;

/// First bytes of values.
mod tag {
    /// Up to this one a number is its own tag.
    pub const SMALL: u8 = 0x7f;
    /// Nothing.
    pub const NULL: u8 = 0x80;
    /// A truth value.
    pub const FALSE: u8 = 0x81;
    /// A truth value.
    pub const TRUE: u8 = 0x82;
    /// A number follows.
    pub const NUMBER: u8 = 0x83;
    /// A negative number: of -1, how much less it is.
    pub const NEGATIVE: u8 = 0x84;
    /// A number of at least [`super::FAR`]: its difference from the last such one of the frame (0 at first), signed.
    pub const FAR: u8 = 0x85;
    /// Eight bytes of an IEEE 754 number, the least first.
    pub const FLOAT: u8 = 0x86;
    /// The number of a text.
    pub const TEXT: u8 = 0x87;
    /// A number of values, and these.
    pub const LIST: u8 = 0x88;
    /// A number of pairs, and these.
    pub const MAP: u8 = 0x89;
    /// The number of a shape, and its values.
    pub const SHAPE: u8 = 0x8a;
    /// A variant: the number of the text that it is called, and its value.
    pub const VARIANT: u8 = 0x8b;
    /// From here on shapes in one byte.
    pub const SHAPES: u8 = 0x90;
    /// From here on texts in one byte.
    pub const TEXTS: u8 = 0xb0;
    /// From here on short lists in one byte.
    pub const LISTS: u8 = 0xf0;
}

/// Times and addresses; most are near the one before.
const FAR: u64 = 1 << 28;

/// A value of such texts, lists and fields holds no more than this in all, bytes of text: a frame can tell a long text once
/// and refer to it very often.
const MOST_TEXT: usize = super::format::MOST_PLAIN;

/// Nor do all values of a frame hold more than this together: of small values there are very many.
const MOST_TOLD: usize = 16 * MOST_TEXT;

/// A writer closes its frame at so many plain bytes,
const FULL: usize = 64 << 10;
/// or at so many bytes of text that its values hold.
const FULL_TOLD: usize = MOST_TOLD / 4;

#[cfg(test)]
mod tests;
