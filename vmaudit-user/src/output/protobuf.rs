//! Messages of Protocol Buffers, as far as profiles and traces need them: numbers, texts and messages inside of messages
//! (<https://protobuf.dev/programming-guides/encoding/>).

/// A message that is being written.
#[derive(Debug, Default)]
pub(crate) struct Message(Vec<u8>);

impl Message {
    /// A number or a truth value. One of 0 is written too: some fields are told apart from absent ones.
    pub(crate) fn number(mut self, field: u32, value: u64) -> Self {
        self.tag(field, 0);
        self.varint(value);
        self
    }

    /// A fraction.
    pub(crate) fn double(mut self, field: u32, value: f64) -> Self {
        self.tag(field, 1);
        self.0.extend(value.to_le_bytes());
        self
    }

    /// A text.
    pub(crate) fn text(self, field: u32, text: &str) -> Self {
        self.bytes(field, text.as_bytes())
    }

    /// A message inside of this one.
    pub(crate) fn message(self, field: u32, inner: &Self) -> Self {
        self.bytes(field, &inner.0)
    }

    /// Numbers in one piece.
    pub(crate) fn packed(self, field: u32, values: impl IntoIterator<Item = u64>) -> Self {
        let mut inner = Self::default();
        values.into_iter().for_each(|value| inner.varint(value));
        self.message(field, &inner)
    }

    /// What it is made of.
    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    fn bytes(mut self, field: u32, bytes: &[u8]) -> Self {
        self.tag(field, 2);
        self.varint(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
        self
    }

    fn tag(&mut self, field: u32, wire: u64) {
        self.varint(u64::from(field) << 3 | wire);
    }

    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The examples of the format's own description.
    #[test]
    fn as_the_format_says() {
        assert_eq!(Message::default().number(1, 150).into_bytes(), [0x08, 0x96, 0x01]);
        let testing = [0x12, 0x07, 0x74, 0x65, 0x73, 0x74, 0x69, 0x6e, 0x67];
        assert_eq!(Message::default().text(2, "testing").into_bytes(), testing);
        let inner = Message::default().number(1, 150);
        assert_eq!(Message::default().message(3, &inner).into_bytes(), [0x1a, 0x03, 0x08, 0x96, 0x01]);
        let packed = [0x32, 0x06, 0x03, 0x8e, 0x02, 0x9e, 0xa7, 0x05];
        assert_eq!(Message::default().packed(6, [3, 270, 86942]).into_bytes(), packed);
        assert_eq!(Message::default().number(1, u64::MAX).into_bytes().len(), 11);
        assert_eq!(Message::default().double(1, 1.0).into_bytes(), [9, 0, 0, 0, 0, 0, 0, 0xf0, 0x3f]);
    }
}
