//! Protocol buffers, as far as a writer needs them: <https://protobuf.dev/programming-guides/encoding/>.

const VARINT: u32 = 0;
const FIXED64: u32 = 1;
const LEN: u32 = 2;

/// The bytes of a message that is being written.
#[derive(Debug, Default)]
pub(super) struct Message(Vec<u8>);

impl Message {
    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    fn tag(&mut self, field: u32, wire: u32) {
        self.varint(u64::from(field << 3 | wire));
    }

    /// A field of type `uint32`, `uint64`, `bool` or an enumeration.
    pub(super) fn uint(&mut self, field: u32, value: u64) {
        self.tag(field, VARINT);
        self.varint(value);
    }

    /// A field of type `int32` or `int64`.
    pub(super) fn int(&mut self, field: u32, value: i64) {
        self.uint(field, value as u64);
    }

    /// A field of type `double`.
    pub(super) fn double(&mut self, field: u32, value: f64) {
        self.tag(field, FIXED64);
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    /// A field of type `bytes`, or a message that was written elsewhere.
    pub(super) fn bytes(&mut self, field: u32, bytes: &[u8]) {
        self.tag(field, LEN);
        self.varint(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    /// A field of type `string`, which must be UTF-8: other bytes are replaced.
    pub(super) fn text(&mut self, field: u32, text: &[u8]) {
        match std::str::from_utf8(text) {
            Ok(_) => self.bytes(field, text),
            Err(_) => self.bytes(field, String::from_utf8_lossy(text).as_bytes()),
        }
    }

    /// A message that `write` writes. Most are short: their length takes one byte.
    pub(super) fn message(&mut self, field: u32, write: impl FnOnce(&mut Self)) {
        self.tag(field, LEN);
        self.0.push(0);
        let start = self.0.len();
        write(self);
        let len = self.0.len() - start;
        if len < 0x80 {
            self.0[start - 1] = len as u8;
            return;
        }
        let mut length = Self::default();
        length.varint(len as u64);
        self.0.splice(start - 1..start, length.0);
    }

    /// Bytes that are fields already.
    pub(super) fn fields(&mut self, fields: &Self) {
        self.0.extend_from_slice(&fields.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_those_of_the_encoding_guide() {
        let mut message = Message::default();
        message.uint(1, 150);
        message.text(2, b"testing");
        message.message(3, |m| m.int(1, -2));
        message.text(4, b"a\xff");
        let mut expected = vec![0x08, 0x96, 0x01, 0x12, 7];
        expected.extend_from_slice(b"testing");
        expected.extend_from_slice(&[0x1a, 11, 0x08, 0xfe]);
        expected.extend_from_slice(&[0xff; 8]);
        expected.extend_from_slice(&[1, 0x22, 4, b'a', 0xef, 0xbf, 0xbd]);
        assert_eq!(message.as_bytes(), expected);
    }

    #[test]
    fn a_long_message_has_a_long_length() {
        let mut message = Message::default();
        message.message(1, |m| m.bytes(2, &[7; 300]));
        assert_eq!(
            &message.as_bytes()[..6],
            [0x0a, 0xaf, 0x02, 0x12, 0xac, 0x02]
        );
        assert_eq!(message.len(), 306);
    }
}
