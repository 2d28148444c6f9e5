//! Texts of programs in the file: with a NUL behind each.
//!
//! A program's record has the lengths of its texts and no NUL behind them. trace-cmd 3.1.6 prints a text
//! up to its NUL, whatever the length says, and so would show what lies behind.

use outlive_event::{EventFormat, FieldKind};
use outlive_ring::layout::{SUBBUF_HEADER, SUBBUF_SIZE};

/// The longest record of a sub-buffer: an event has a header of 8 bytes then.
const RECORD_MAX: usize = SUBBUF_SIZE - SUBBUF_HEADER - 8;

/// Where the word of a field of variable length lies, and whether it is a text.
fn words(format: &EventFormat) -> impl Iterator<Item = (usize, bool)> {
    format.fields.iter().filter_map(|field| match field.kind {
        FieldKind::Dynamic {
            is_string,
            is_relative: false,
            ..
        } => Some((field.offset as usize, is_string)),
        _ => None,
    })
}

/// Offset and length that a word says, if the record has these bytes.
fn place(record: &[u8], word: usize) -> Option<(usize, usize)> {
    let word = record.get(word..)?.first_chunk()?;
    let word = u32::from_le_bytes(*word);
    let (offset, len) = ((word & 0xffff) as usize, (word >> 16) as usize);
    (len <= record.len().checked_sub(offset)?).then_some((offset, len))
}

/// Puts a NUL behind each text that has none. A record that is cut, or for which there is no room then,
/// stays as it is.
pub(super) fn end(format: &EventFormat, record: &mut Vec<u8>) {
    let has_end = |(offset, len): (usize, usize)| record[offset..offset + len].ends_with(&[0]);
    let mut places = words(format).map(|(word, is_text)| (place(record, word), is_text));
    let lacks = places.any(|(place, is_text)| is_text && place.is_some_and(|at| !has_end(at)));
    if lacks && let Some(ended) = ended(format, record) {
        *record = ended;
    }
}

fn ended(format: &EventFormat, record: &[u8]) -> Option<Vec<u8>> {
    let places = words(format).map(|(word, _)| place(record, word));
    let first = places.collect::<Option<Vec<_>>>()?.into_iter().min()?.0;
    let mut ended = record[..first].to_vec();
    for (word, is_text) in words(format) {
        let (offset, len) = place(record, word)?;
        let bytes = &record[offset..offset + len];
        let at = ended.len();
        ended.extend_from_slice(bytes);
        if is_text && !bytes.ends_with(&[0]) {
            ended.push(0);
        }
        let len = ended.len() - at;
        let new = (at as u32) | (len as u32) << 16;
        ended
            .get_mut(word..)?
            .first_chunk_mut()
            .map(|old| *old = new.to_le_bytes())?;
    }
    (ended.len() <= RECORD_MAX).then_some(ended)
}
