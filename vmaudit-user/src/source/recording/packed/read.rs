//! The reading side. Its bytes may come from anybody: no length is believed, nothing nests deep, and a long text that is
//! told once is not copied without end.

use std::fmt;

use serde::de::{self, Deserialize, DeserializeSeed, Visitor, value::BorrowedStrDeserializer};

use super::super::numbers::{add, read_signed, read_unsigned};
use super::{MOST_TEXT, MOST_TOLD, tag};

/// Values lie in one another so deep at most.
const DEPTH: usize = 32;

/// Gives each value of a frame to `sink`, and how many bytes of text it holds. `None`: the bytes are not what a writer
/// writes.
pub fn values<'de, T: Deserialize<'de>>(bytes: &'de [u8], mut sink: impl FnMut(T, usize)) -> Option<()> {
    let mut unpacker = Unpacker::new(bytes)?;
    while !unpacker.from.is_empty() {
        unpacker.begun = unpacker.told;
        let value = T::deserialize(&mut unpacker).ok()?;
        sink(value, unpacker.told - unpacker.begun);
    }
    Some(())
}

/// What is left of a frame, and its tables.
struct Unpacker<'de> {
    from: &'de [u8],
    texts: Vec<&'de str>,
    /// Names of the fields of all shapes, one behind the other.
    fields: Vec<&'de str>,
    /// Where in `fields` the names of each shape end.
    shapes: Vec<usize>,
    last_far: u64,
    depth: usize,
    /// Bytes of the texts of all values so far, each as often as it was referred to.
    told: usize,
    /// The same when this value began.
    begun: usize,
}

/// The bytes are not what a writer writes.
#[derive(Debug)]
struct Wrong;

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no packed value")
    }
}

impl std::error::Error for Wrong {}

impl de::Error for Wrong {
    fn custom<T: fmt::Display>(_: T) -> Self {
        Self
    }
}

impl<'de> Unpacker<'de> {
    fn new(mut from: &'de [u8]) -> Option<Self> {
        let mut texts: Vec<&'de str> = Vec::new();
        for _ in 0..length(&mut from)? {
            let bytes = length(&mut from)?;
            let (text, rest) = from.split_at_checked(bytes)?;
            texts.push(std::str::from_utf8(text).ok()?);
            from = rest;
        }
        let (mut fields, mut shapes) = (Vec::new(), Vec::new());
        for _ in 0..length(&mut from)? {
            for _ in 0..length(&mut from)? {
                let name = usize::try_from(read_unsigned(&mut from)?).ok()?;
                fields.push(*texts.get(name)?);
            }
            shapes.push(fields.len());
        }
        Some(Self { from, texts, fields, shapes, last_far: 0, depth: 0, told: 0, begun: 0 })
    }

    fn byte(&mut self) -> Result<u8, Wrong> {
        let (byte, rest) = self.from.split_first().ok_or(Wrong)?;
        self.from = rest;
        Ok(*byte)
    }

    fn index(&mut self) -> Result<usize, Wrong> {
        let number = read_unsigned(&mut self.from).ok_or(Wrong)?;
        usize::try_from(number).map_err(|_| Wrong)
    }

    fn text(&mut self, number: usize) -> Result<&'de str, Wrong> {
        let text = *self.texts.get(number).ok_or(Wrong)?;
        self.told += text.len();
        let too_much = self.told - self.begun > MOST_TEXT || self.told > MOST_TOLD;
        if too_much { Err(Wrong) } else { Ok(text) }
    }

    /// Where in `fields` the names of a shape lie.
    fn shape(&self, number: usize) -> Result<(usize, usize), Wrong> {
        let end = *self.shapes.get(number).ok_or(Wrong)?;
        let begin =
            number.checked_sub(1).and_then(|before| self.shapes.get(before)).map_or(0, |begin| *begin);
        Ok((begin, end))
    }

    /// Reads what lies in another value.
    fn inside<T>(&mut self, read: impl FnOnce(&mut Self) -> Result<T, Wrong>) -> Result<T, Wrong> {
        if self.depth >= DEPTH {
            return Err(Wrong);
        }
        self.depth += 1;
        let read = read(self)?;
        self.depth -= 1;
        Ok(read)
    }

    fn list<V: Visitor<'de>>(&mut self, length: usize, visitor: V) -> Result<V::Value, Wrong> {
        self.inside(|from| {
            let mut left = Left { from, left: length };
            let value = visitor.visit_seq(&mut left)?;
            if left.left == 0 { Ok(value) } else { Err(Wrong) }
        })
    }

    fn fields<V: Visitor<'de>>(&mut self, shape: usize, visitor: V) -> Result<V::Value, Wrong> {
        let (next, end) = self.shape(shape)?;
        self.inside(|from| {
            let mut fields = Fields { from, next, end };
            let value = visitor.visit_map(&mut fields)?;
            if fields.next == fields.end { Ok(value) } else { Err(Wrong) }
        })
    }
}

/// A number of things that are still to come, which take a byte each at least.
fn length(from: &mut &[u8]) -> Option<usize> {
    usize::try_from(read_unsigned(from)?).ok().filter(|length| *length <= from.len())
}

impl<'de> de::Deserializer<'de> for &mut Unpacker<'de> {
    type Error = Wrong;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        match self.byte()? {
            small @ 0..=tag::SMALL => visitor.visit_u64(small.into()),
            tag::NULL => visitor.visit_unit(),
            tag::FALSE => visitor.visit_bool(false),
            tag::TRUE => visitor.visit_bool(true),
            tag::NUMBER => visitor.visit_u64(read_unsigned(&mut self.from).ok_or(Wrong)?),
            tag::NEGATIVE => {
                let less = i64::try_from(read_unsigned(&mut self.from).ok_or(Wrong)?).map_err(|_| Wrong)?;
                visitor.visit_i64(!less)
            }
            tag::FAR => {
                self.last_far = add(self.last_far, read_signed(&mut self.from).ok_or(Wrong)?);
                visitor.visit_u64(self.last_far)
            }
            tag::FLOAT => {
                let (bytes, rest) = self.from.split_first_chunk().ok_or(Wrong)?;
                self.from = rest;
                visitor.visit_f64(f64::from_le_bytes(*bytes))
            }
            tag::TEXT => {
                let number = self.index()?;
                visitor.visit_borrowed_str(self.text(number)?)
            }
            tag::LIST => {
                let length = length(&mut self.from).ok_or(Wrong)?;
                self.list(length, visitor)
            }
            tag::MAP => {
                let length = length(&mut self.from).ok_or(Wrong)?;
                self.inside(|from| {
                    let mut left = Left { from, left: length };
                    let value = visitor.visit_map(&mut left)?;
                    if left.left == 0 { Ok(value) } else { Err(Wrong) }
                })
            }
            tag::SHAPE => {
                let number = self.index()?;
                self.fields(number, visitor)
            }
            tag::VARIANT => {
                let number = self.index()?;
                let name = self.text(number)?;
                self.inside(|from| visitor.visit_enum(Variant { from, name }))
            }
            shape @ tag::SHAPES..tag::TEXTS => self.fields((shape - tag::SHAPES).into(), visitor),
            text @ tag::TEXTS..tag::LISTS => {
                visitor.visit_borrowed_str(self.text((text - tag::TEXTS).into())?)
            }
            list @ tag::LISTS.. => self.list((list - tag::LISTS).into(), visitor),
            _ => Err(Wrong),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        match self.from.split_first() {
            Some((&tag::NULL, rest)) => {
                self.from = rest;
                visitor.visit_none()
            }
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Wrong> {
        let number = match self.byte()? {
            tag::VARIANT => {
                let number = self.index()?;
                let name = self.text(number)?;
                return self.inside(|from| visitor.visit_enum(Variant { from, name }));
            }
            tag::TEXT => self.index()?,
            text @ tag::TEXTS..tag::LISTS => (text - tag::TEXTS).into(),
            _ => return Err(Wrong),
        };
        visitor.visit_enum(BorrowedStrDeserializer::new(self.text(number)?))
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Wrong> {
        self.inside(|from| visitor.visit_newtype_struct(from))
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 u8 u16 u32 u64 f32 f64 char str string bytes byte_buf unit unit_struct seq tuple
        tuple_struct map struct identifier ignored_any
    }
}

/// What is left of a list or a map.
struct Left<'u, 'de> {
    from: &'u mut Unpacker<'de>,
    left: usize,
}

impl<'de> de::SeqAccess<'de> for &mut Left<'_, 'de> {
    type Error = Wrong;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Wrong> {
        let Some(left) = self.left.checked_sub(1) else { return Ok(None) };
        self.left = left;
        seed.deserialize(&mut *self.from).map(Some)
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.left)
    }
}

impl<'de> de::MapAccess<'de> for &mut Left<'_, 'de> {
    type Error = Wrong;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Wrong> {
        de::SeqAccess::next_element_seed(self, seed)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Wrong> {
        seed.deserialize(&mut *self.from)
    }
}

/// What is left of a struct.
struct Fields<'u, 'de> {
    from: &'u mut Unpacker<'de>,
    next: usize,
    end: usize,
}

impl<'de> de::MapAccess<'de> for &mut Fields<'_, 'de> {
    type Error = Wrong;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Wrong> {
        if self.next >= self.end {
            return Ok(None);
        }
        let name = *self.from.fields.get(self.next).ok_or(Wrong)?;
        self.next += 1;
        seed.deserialize(BorrowedStrDeserializer::new(name)).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Wrong> {
        seed.deserialize(&mut *self.from)
    }
}

/// A variant with a value.
struct Variant<'u, 'de> {
    from: &'u mut Unpacker<'de>,
    name: &'de str,
}

impl<'u, 'de> de::EnumAccess<'de> for Variant<'u, 'de> {
    type Error = Wrong;
    type Variant = &'u mut Unpacker<'de>;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Self::Variant), Wrong> {
        Ok((seed.deserialize(BorrowedStrDeserializer::new(self.name))?, self.from))
    }
}

impl<'de> de::VariantAccess<'de> for &mut Unpacker<'de> {
    type Error = Wrong;

    fn unit_variant(self) -> Result<(), Wrong> {
        Deserialize::deserialize(self)
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, Wrong> {
        seed.deserialize(self)
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, Wrong> {
        de::Deserializer::deserialize_any(self, visitor)
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Wrong> {
        de::Deserializer::deserialize_any(self, visitor)
    }
}
