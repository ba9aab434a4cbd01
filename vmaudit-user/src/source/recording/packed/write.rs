//! The writing side.

use std::collections::HashMap;
use std::fmt;

use serde::ser::{self, Serialize};

use super::super::numbers::{difference, signed, unsigned};
use super::{FAR, FULL, FULL_TOLD, MOST_TEXT, tag};

/// Values on their way into a frame.
#[derive(Debug, Default)]
pub struct Packer {
    out: Vec<u8>,
    texts: Vec<String>,
    numbers: HashMap<String, usize>,
    /// Names of their fields.
    shapes: Vec<Vec<&'static str>>,
    /// By where a struct's name lies, the shape that it had last.
    latest: Vec<(*const u8, usize)>,
    /// Names of the fields of structs that are being written.
    fields: Vec<&'static str>,
    last_far: u64,
    /// Bytes of the tables.
    tables: usize,
    /// Bytes of the texts of all values so far, each as often as it stands there.
    told: usize,
}

/// A value that does not fit a frame, or is none of those that can be packed.
#[derive(Debug)]
pub struct Unpackable(String);

impl fmt::Display for Unpackable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for Unpackable {}

impl ser::Error for Unpackable {
    fn custom<T: fmt::Display>(msg: T) -> Self {
        Self(msg.to_string())
    }
}

impl Packer {
    /// No value waits.
    pub fn is_empty(&self) -> bool {
        self.out.is_empty()
    }

    /// Plain bytes of the frame as it is now.
    pub fn len(&self) -> usize {
        self.out.len() + self.tables + 20
    }

    /// The frame should be taken before another value comes.
    pub fn is_full(&self) -> bool {
        self.len() >= FULL || self.told >= FULL_TOLD
    }

    /// Adds a value; `Ok(false)`: it takes more than `most` bytes and was left out. Errors: it cannot be packed.
    pub fn push(&mut self, value: &impl Serialize, most: usize) -> Result<bool, Unpackable> {
        let length = self.len();
        let before = (self.out.len(), self.texts.len(), self.shapes.len());
        let sums = (self.last_far, self.tables, self.told);
        let packed = value.serialize(&mut *self);
        if packed.is_err() || self.len() - length > most || self.told - sums.2 > MOST_TEXT / 2 {
            self.take_back(before);
            (self.last_far, self.tables, self.told) = sums;
            return packed.map(|()| false);
        }
        Ok(true)
    }

    /// Also what a value brought to the tables: a frame would grow without bound by what is not in it.
    fn take_back(&mut self, (out, texts, shapes): (usize, usize, usize)) {
        self.out.truncate(out);
        self.fields.clear();
        for text in self.texts.drain(texts..) {
            self.numbers.remove(&text);
        }
        self.shapes.truncate(shapes);
        self.latest.retain(|(_, shape)| *shape < shapes);
    }

    /// The frame; the next one begins anew.
    pub fn take(&mut self) -> Vec<u8> {
        let mut frame = Vec::with_capacity(self.len());
        unsigned(&mut frame, self.texts.len() as u64);
        for text in &self.texts {
            unsigned(&mut frame, text.len() as u64);
            frame.extend_from_slice(text.as_bytes());
        }
        unsigned(&mut frame, self.shapes.len() as u64);
        for shape in &self.shapes {
            unsigned(&mut frame, shape.len() as u64);
            for name in shape {
                unsigned(&mut frame, self.numbers.get(*name).map_or(0, |number| *number as u64));
            }
        }
        frame.append(&mut self.out);
        self.texts.clear();
        self.shapes.clear();
        self.numbers.clear();
        self.latest.clear();
        (self.last_far, self.tables, self.told) = (0, 0, 0);
        frame
    }

    fn text(&mut self, text: &str) -> usize {
        if let Some(known) = self.numbers.get(text) {
            return *known;
        }
        let number = self.texts.len();
        // Its length takes up to three bytes.
        self.tables += text.len() + 3;
        self.texts.push(text.to_owned());
        self.numbers.insert(text.to_owned(), number);
        number
    }

    /// The shape with these fields.
    fn shape(&mut self, of: *const u8, fields: &[&'static str]) -> usize {
        let latest = self.latest.iter().position(|(known, _)| *known == of);
        let last = latest.and_then(|at| self.latest.get(at)).map(|(_, shape)| *shape);
        let same = |shape: &Vec<&'static str>| {
            shape.len() == fields.len()
                && shape.iter().zip(fields).all(|(a, b)| std::ptr::eq(*a, *b) || a == b)
        };
        if let Some(last) = last.filter(|last| self.shapes.get(*last).is_some_and(same)) {
            return last;
        }
        let number = self.shapes.iter().position(same).unwrap_or_else(|| {
            self.tables += 4 * (fields.len() + 1);
            for name in fields {
                let _number = self.text(name);
            }
            self.shapes.push(fields.to_vec());
            self.shapes.len() - 1
        });
        match latest.and_then(|at| self.latest.get_mut(at)) {
            Some(latest) => latest.1 = number,
            None => self.latest.push((of, number)),
        }
        number
    }

    fn number(&mut self, n: u64) {
        if n >= FAR {
            self.out.push(tag::FAR);
            signed(&mut self.out, difference(n, self.last_far));
            self.last_far = n;
        } else if n <= u64::from(tag::SMALL) {
            self.out.push(n as u8);
        } else {
            self.out.push(tag::NUMBER);
            unsigned(&mut self.out, n);
        }
    }

    fn told_text(&mut self, number: usize, bytes: usize) {
        self.told += bytes;
        self.short(tag::TEXTS, tag::LISTS, tag::TEXT, number);
    }

    /// A number in the tag, or behind the long tag.
    fn short(&mut self, from: u8, to: u8, long: u8, number: usize) {
        if number < usize::from(to - from) {
            self.out.push(from + number as u8);
        } else {
            self.out.push(long);
            unsigned(&mut self.out, number as u64);
        }
    }

    fn list(&mut self, length: usize) {
        if length <= usize::from(u8::MAX - tag::LISTS) {
            self.out.push(tag::LISTS + length as u8);
        } else {
            self.out.push(tag::LIST);
            unsigned(&mut self.out, length as u64);
        }
    }

    fn variant(&mut self, name: &'static str) {
        let number = self.text(name);
        self.out.push(tag::VARIANT);
        unsigned(&mut self.out, number as u64);
    }
}

/// A struct on its way: its values stand behind `start` already, its shape is put before them.
pub struct Fields<'p> {
    packer: &'p mut Packer,
    start: usize,
    fields: usize,
    /// Where its name lies.
    of: *const u8,
}

impl Fields<'_> {
    fn field(&mut self, name: &'static str, value: &(impl Serialize + ?Sized)) -> Result<(), Unpackable> {
        self.packer.fields.push(name);
        value.serialize(&mut *self.packer)
    }

    fn finish(self) {
        let Self { packer, start, fields, of } = self;
        let mut all = std::mem::take(&mut packer.fields);
        let number = packer.shape(of, all.get(fields..).unwrap_or_default());
        all.truncate(fields);
        packer.fields = all;
        let values = packer.out.len();
        packer.short(tag::SHAPES, tag::TEXTS, tag::SHAPE, number);
        let added = packer.out.len() - values;
        packer.out.get_mut(start..).unwrap_or_default().rotate_right(added);
    }
}

impl ser::SerializeStruct for Fields<'_> {
    type Ok = ();
    type Error = Unpackable;

    fn serialize_field<T: Serialize + ?Sized>(
        &mut self,
        name: &'static str,
        value: &T,
    ) -> Result<(), Unpackable> {
        self.field(name, value)
    }

    fn end(self) -> Result<(), Unpackable> {
        self.finish();
        Ok(())
    }
}

impl ser::SerializeStructVariant for Fields<'_> {
    type Ok = ();
    type Error = Unpackable;

    fn serialize_field<T: Serialize + ?Sized>(
        &mut self,
        name: &'static str,
        value: &T,
    ) -> Result<(), Unpackable> {
        self.field(name, value)
    }

    fn end(self) -> Result<(), Unpackable> {
        self.finish();
        Ok(())
    }
}

macro_rules! elements {
    ($($kind:ident $element:ident),*) => {
        $(impl ser::$kind for &mut Packer {
            type Ok = ();
            type Error = Unpackable;

            fn $element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Unpackable> {
                value.serialize(&mut **self)
            }

            fn end(self) -> Result<(), Unpackable> {
                Ok(())
            }
        })*
    };
}

elements!(
    SerializeSeq serialize_element,
    SerializeTuple serialize_element,
    SerializeTupleStruct serialize_field,
    SerializeTupleVariant serialize_field
);

impl ser::SerializeMap for &mut Packer {
    type Ok = ();
    type Error = Unpackable;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), Unpackable> {
        key.serialize(&mut **self)
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Unpackable> {
        value.serialize(&mut **self)
    }

    fn end(self) -> Result<(), Unpackable> {
        Ok(())
    }
}

impl<'p> ser::Serializer for &'p mut Packer {
    type Ok = ();
    type Error = Unpackable;
    type SerializeSeq = Self;
    type SerializeTuple = Self;
    type SerializeTupleStruct = Self;
    type SerializeTupleVariant = Self;
    type SerializeMap = Self;
    type SerializeStruct = Fields<'p>;
    type SerializeStructVariant = Fields<'p>;

    fn serialize_bool(self, value: bool) -> Result<(), Unpackable> {
        self.out.push(if value { tag::TRUE } else { tag::FALSE });
        Ok(())
    }

    fn serialize_i8(self, value: i8) -> Result<(), Unpackable> {
        self.serialize_i64(value.into())
    }

    fn serialize_i16(self, value: i16) -> Result<(), Unpackable> {
        self.serialize_i64(value.into())
    }

    fn serialize_i32(self, value: i32) -> Result<(), Unpackable> {
        self.serialize_i64(value.into())
    }

    fn serialize_i64(self, value: i64) -> Result<(), Unpackable> {
        match u64::try_from(value) {
            Ok(value) => self.number(value),
            Err(_) => {
                self.out.push(tag::NEGATIVE);
                unsigned(&mut self.out, !value as u64);
            }
        }
        Ok(())
    }

    fn serialize_u8(self, value: u8) -> Result<(), Unpackable> {
        self.serialize_u64(value.into())
    }

    fn serialize_u16(self, value: u16) -> Result<(), Unpackable> {
        self.serialize_u64(value.into())
    }

    fn serialize_u32(self, value: u32) -> Result<(), Unpackable> {
        self.serialize_u64(value.into())
    }

    fn serialize_u64(self, value: u64) -> Result<(), Unpackable> {
        self.number(value);
        Ok(())
    }

    fn serialize_f32(self, value: f32) -> Result<(), Unpackable> {
        self.serialize_f64(value.into())
    }

    fn serialize_f64(self, value: f64) -> Result<(), Unpackable> {
        self.out.push(tag::FLOAT);
        self.out.extend_from_slice(&value.to_le_bytes());
        Ok(())
    }

    fn serialize_char(self, value: char) -> Result<(), Unpackable> {
        self.serialize_str(value.encode_utf8(&mut [0; 4]))
    }

    fn serialize_str(self, value: &str) -> Result<(), Unpackable> {
        let number = self.text(value);
        self.told_text(number, value.len());
        Ok(())
    }

    fn serialize_bytes(self, value: &[u8]) -> Result<(), Unpackable> {
        self.collect_seq(value)
    }

    fn serialize_none(self) -> Result<(), Unpackable> {
        self.serialize_unit()
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), Unpackable> {
        value.serialize(self)
    }

    fn serialize_unit(self) -> Result<(), Unpackable> {
        self.out.push(tag::NULL);
        Ok(())
    }

    fn serialize_unit_struct(self, _: &'static str) -> Result<(), Unpackable> {
        self.serialize_unit()
    }

    fn serialize_unit_variant(self, _: &'static str, _: u32, name: &'static str) -> Result<(), Unpackable> {
        let number = self.text(name);
        self.told_text(number, name.len());
        Ok(())
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        value: &T,
    ) -> Result<(), Unpackable> {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        name: &'static str,
        value: &T,
    ) -> Result<(), Unpackable> {
        self.variant(name);
        value.serialize(self)
    }

    fn serialize_seq(self, length: Option<usize>) -> Result<Self, Unpackable> {
        let length = length.ok_or_else(|| ser::Error::custom("a list of unknown length"))?;
        self.list(length);
        Ok(self)
    }

    fn serialize_tuple(self, length: usize) -> Result<Self, Unpackable> {
        self.serialize_seq(Some(length))
    }

    fn serialize_tuple_struct(self, _: &'static str, length: usize) -> Result<Self, Unpackable> {
        self.serialize_seq(Some(length))
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        name: &'static str,
        length: usize,
    ) -> Result<Self, Unpackable> {
        self.variant(name);
        self.serialize_seq(Some(length))
    }

    fn serialize_map(self, length: Option<usize>) -> Result<Self, Unpackable> {
        let length = length.ok_or_else(|| ser::Error::custom("a map of unknown length"))?;
        self.out.push(tag::MAP);
        unsigned(&mut self.out, length as u64);
        Ok(self)
    }

    fn serialize_struct(self, name: &'static str, _: usize) -> Result<Fields<'p>, Unpackable> {
        let (start, fields) = (self.out.len(), self.fields.len());
        Ok(Fields { packer: self, start, fields, of: name.as_ptr() })
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        name: &'static str,
        length: usize,
    ) -> Result<Fields<'p>, Unpackable> {
        self.variant(name);
        self.serialize_struct(name, length)
    }

    fn is_human_readable(&self) -> bool {
        true
    }
}
