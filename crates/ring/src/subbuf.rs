//! One sub-buffer: its header, and the records in it.
//!
//! The header is 16 bytes: the time stamp of the first record, and the commit word, whose low 30
//! bits are the bytes of valid data. Records follow, each with a header word of 5 bits `type_len`
//! and 27 bits time delta. (`kernel/trace/ring_buffer.c`, v7.3.4; drawing in `docs/design.md`.)
//!
//! The kernel's readers disagree about the delta of discarded records: its text ignores it, its
//! validator adds it. Both times are kept here: [`Event::time_stamp`] is true, and
//! [`Event::text_time_stamp`] is what the kernel's `trace` shows.

use core::fmt;

use crate::layout::{SUBBUF_DATA, SUBBUF_HEADER, SUBBUF_SIZE};

/// Bits of the commit word that are the size.
const SIZE_MASK: u64 = 0x3fff_ffff;
/// Bit of the commit word: the number of missed events is stored behind the data.
pub const MISSED_STORED: u64 = 1 << 30;
/// Bit of the commit word: events were missed before this sub-buffer.
pub const MISSED_EVENTS: u64 = 1 << 31;
/// Commit of a sub-buffer that a kernel's validator dropped: the flag, sign-extended, and size 0.
pub const DROPPED: u64 = 0xffff_ffff_8000_0000;

const TYPE_DATA_MAX: u32 = 28;
const TYPE_PADDING: u32 = 29;
const TYPE_TIME_EXTEND: u32 = 30;
const TYPE_TIME_STAMP: u32 = 31;
/// Bits of a time delta in a record's header.
const DELTA_BITS: u32 = 27;
/// Bits 59..63 of a time stamp are not in an absolute record.
const ABSOLUTE_TOP: u64 = 0xf800_0000_0000_0000;
/// Largest payload that has no length word.
pub(crate) const SMALL_MAX: usize = 4 * TYPE_DATA_MAX as usize;
/// Bytes of a time extend or absolute time stamp record.
pub(crate) const TIME_RECORD: usize = 8;
/// Longest payload: one record must fit a sub-buffer.
pub const PAYLOAD_MAX: usize = SUBBUF_DATA - 8;

/// Events that were lost before a place in the ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missed {
    /// As many.
    Events(u64),
    /// Nobody counted them.
    Unknown,
}

impl Missed {
    /// Both losses together.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Events(these), Self::Events(others)) => {
                Self::Events(these.saturating_add(others))
            }
            _ => Self::Unknown,
        }
    }

    /// Two losses that may not be, together.
    #[must_use]
    pub fn sum(one: Option<Self>, other: Option<Self>) -> Option<Self> {
        match (one, other) {
            (Some(one), Some(other)) => Some(one.and(other)),
            (one, other) => one.or(other),
        }
    }

    /// How many, if they were counted.
    #[must_use]
    pub fn count(self) -> Option<u64> {
        match self {
            Self::Events(count) => Some(count),
            Self::Unknown => None,
        }
    }
}

/// The commit word of a sub-buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Commit(pub u64);

impl Commit {
    /// Bytes of valid data that the word claims; not checked against the sub-buffer's size.
    #[must_use]
    pub fn size(self) -> usize {
        (self.0 & SIZE_MASK) as usize
    }

    /// What the word says was lost before the sub-buffer. A stored count is at `data[size]`.
    #[must_use]
    pub fn missed(self, data: &[u8]) -> Option<Missed> {
        if self.0 & MISSED_EVENTS == 0 {
            return None;
        }
        let count = data
            .get(self.size()..)
            .and_then(|rest| rest.first_chunk::<8>());
        match count {
            // A loss of unknown size is stored as -1 by the kernel.
            Some(count) if self.0 & MISSED_STORED != 0 && *count != [0xff; 8] => {
                Some(Missed::Events(u64::from_le_bytes(*count)))
            }
            _ => Some(Missed::Unknown),
        }
    }

    /// Whether bits are set that no kernel and no outlive sets: the flags are sign-extended, so
    /// the upper half is all zeros without and all ones with a flag.
    #[must_use]
    pub fn has_stray_bits(self) -> bool {
        let upper = self.0 >> 32;
        let flagged = self.0 & MISSED_EVENTS != 0;
        !(upper == 0 || (flagged && upper == 0xffff_ffff))
            || (self.0 & MISSED_STORED != 0 && !flagged)
    }
}

/// Puts the header on a sub-buffer with so many bytes of records, and zeros behind them. What is missing
/// before it is in its commit word, and the number behind the records, if it is known and there is room.
pub fn finish(page: &mut [u8; SUBBUF_SIZE], time_stamp: u64, size: usize, missed: Option<Missed>) {
    let (header, data) = page.split_at_mut(SUBBUF_HEADER);
    let behind = &mut data[size..];
    behind.fill(0);
    let mut commit = size as u64;
    if missed.is_some() {
        commit |= MISSED_EVENTS;
    }
    if let Some(count) = missed.and_then(Missed::count)
        && let Some(place) = behind.first_chunk_mut()
    {
        *place = count.to_le_bytes();
        commit |= MISSED_STORED;
    }
    header[..8].copy_from_slice(&time_stamp.to_le_bytes());
    header[8..].copy_from_slice(&commit.to_le_bytes());
}

/// What is wrong with the records of a sub-buffer, and at which byte of its data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum BadRecord {
    /// The commit word claims more bytes than a sub-buffer holds.
    Commit {
        /// The word.
        commit: u64,
    },
    /// A record is longer than the rest of the data, or shorter than a record can be.
    Length {
        /// Offset in the data.
        offset: usize,
        /// The length that the record claims, in bytes.
        length: u64,
    },
    /// A record of padding without a length lies in the valid data.
    NullPadding {
        /// Offset in the data.
        offset: usize,
    },
    /// From here on the data is zero: it was never written.
    Unwritten {
        /// Offset in the data.
        offset: usize,
    },
    /// An absolute time stamp goes back.
    TimeGoesBack {
        /// Offset in the data.
        offset: usize,
    },
}

impl fmt::Display for BadRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Commit { commit } => {
                write!(
                    f,
                    "commit {commit:#x} is more than the {SUBBUF_DATA} bytes of a sub-buffer"
                )
            }
            Self::Length { offset, length } => {
                write!(
                    f,
                    "record at {offset:#x} has an impossible length of {length} bytes"
                )
            }
            Self::NullPadding { offset } => {
                write!(
                    f,
                    "padding without a length at {offset:#x} inside the valid data"
                )
            }
            Self::Unwritten { offset } => write!(f, "unwritten from {offset:#x} on"),
            Self::TimeGoesBack { offset } => {
                write!(f, "absolute time stamp at {offset:#x} goes back")
            }
        }
    }
}

impl core::error::Error for BadRecord {}

/// A record's header, decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Record {
    Data {
        delta: u64,
        payload: usize,
        len: usize,
    },
    Padding {
        delta: u64,
        len: usize,
    },
    TimeExtend {
        delta: u64,
    },
    TimeStamp {
        absolute: u64,
    },
}

/// Decodes the record at `offset`; the second value is the offset of the next one, which is
/// larger and not beyond `data`.
#[inline]
fn decode(data: &[u8], offset: usize) -> Result<(Record, usize), BadRecord> {
    let rest = data.get(offset..).unwrap_or_default();
    let word = |at: usize| Some(u32::from_le_bytes(*rest.get(at..)?.first_chunk()?));
    let bad_length = |length: u64| BadRecord::Length { offset, length };
    let header = word(0).ok_or(bad_length(rest.len() as u64))?;
    let (type_len, delta) = (header & 0x1f, u64::from(header >> 5));
    if (1..=TYPE_DATA_MAX).contains(&type_len) {
        let len = 4 * type_len as usize;
        if 4 + len > rest.len() {
            return Err(bad_length(4 + len as u64));
        }
        return Ok((
            Record::Data {
                delta,
                payload: offset + 4,
                len,
            },
            offset + 4 + len,
        ));
    }
    if type_len == TYPE_PADDING && delta == 0 {
        return Err(BadRecord::NullPadding { offset });
    }
    let array = word(4).ok_or(bad_length(8))?;
    match type_len {
        TYPE_TIME_EXTEND => {
            let delta = (u64::from(array) << DELTA_BITS) + delta;
            Ok((Record::TimeExtend { delta }, offset + TIME_RECORD))
        }
        TYPE_TIME_STAMP => {
            let absolute = (u64::from(array) << DELTA_BITS) + delta;
            Ok((Record::TimeStamp { absolute }, offset + TIME_RECORD))
        }
        _ => {
            if header == 0 && array == 0 && rest.iter().all(|&byte| byte == 0) {
                return Err(BadRecord::Unwritten { offset });
            }
            // The kernel's validator follows odd lengths, and lets a length word of 0 pass, which
            // makes four bytes of zeros an event. Its writer makes neither.
            let total = 4 + u64::from(array);
            if array < 4 || !array.is_multiple_of(4) || total > rest.len() as u64 {
                return Err(bad_length(total));
            }
            let next = offset + total as usize;
            Ok(match type_len {
                TYPE_PADDING => (
                    Record::Padding {
                        delta,
                        len: array as usize - 4,
                    },
                    next,
                ),
                _ => (
                    Record::Data {
                        delta,
                        payload: offset + 8,
                        len: array as usize - 4,
                    },
                    next,
                ),
            })
        }
    }
}

/// The time delta and the payload of the record at `offset`, if it is an event whose length is in its
/// header.
#[inline]
fn small_data(data: &[u8], offset: usize) -> Option<(u64, &[u8])> {
    let (header, rest) = data.get(offset..)?.split_first_chunk()?;
    let header = u32::from_le_bytes(*header);
    let type_len = header & 0x1f;
    if !(1..=TYPE_DATA_MAX).contains(&type_len) {
        return None;
    }
    Some((u64::from(header >> 5), rest.get(..4 * type_len as usize)?))
}

/// Puts the upper five bits back that an absolute record has no room for.
fn fix_absolute(stored: u64, previous: u64) -> u64 {
    let top = previous & ABSOLUTE_TOP;
    if top == 0 {
        return stored;
    }
    let value = stored | top;
    if value < previous {
        value.wrapping_add(1 << 59)
    } else {
        value
    }
}

/// One event of a sub-buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Event<'a> {
    /// True time, in the unit of the trace clock.
    pub time_stamp: u64,
    /// The time that the kernel's text shows: without the deltas of discarded records.
    pub text_time_stamp: u64,
    /// The trace entry (type, flags, preempt count, pid, fields), rounded up to 4 bytes. It may
    /// be shorter than an entry's 8 bytes.
    pub payload: &'a [u8],
}

/// The events in the data of a sub-buffer, in order. After an error it is done.
#[derive(Debug, Clone)]
pub struct Events<'a> {
    data: &'a [u8],
    offset: usize,
    time_stamp: u64,
    text_time_stamp: u64,
    entries: u32,
    /// Whether an event's length was in a word of its own, and would have fit its header.
    has_long_form: bool,
}

impl<'a> Events<'a> {
    /// Events of `data`, which is the valid data of a sub-buffer whose time stamp is given.
    #[must_use]
    pub fn new(time_stamp: u64, data: &'a [u8]) -> Self {
        Self::resume(
            Position {
                time_stamp,
                text_time_stamp: time_stamp,
                offset: 0,
            },
            data,
        )
    }

    /// Continues at a place that [`Events::position`] gave for a shorter part of the same data.
    #[must_use]
    pub fn resume(position: Position, data: &'a [u8]) -> Self {
        let Position {
            offset,
            time_stamp,
            text_time_stamp,
        } = position;
        Self {
            data,
            offset,
            time_stamp,
            text_time_stamp,
            entries: 0,
            has_long_form: false,
        }
    }

    /// Where the next record begins.
    #[must_use]
    pub fn position(&self) -> Position {
        Position {
            offset: self.offset,
            time_stamp: self.time_stamp,
            text_time_stamp: self.text_time_stamp,
        }
    }

    /// Entries passed, as the kernel counts them: events, and discarded records but for fillers.
    #[must_use]
    pub fn entries(&self) -> u32 {
        self.entries
    }

    /// Passes records until so many entries are passed, or the data or the good records end.
    pub(crate) fn pass(&mut self, entries: u64) {
        while u64::from(self.entries) < entries
            && self.offset < self.data.len()
            && self.step().is_ok()
        {}
    }

    fn step(&mut self) -> Result<Option<Event<'a>>, BadRecord> {
        let (record, next) = decode(self.data, self.offset)?;
        match record {
            Record::Data {
                delta,
                payload,
                len,
            } => {
                self.time_stamp = self.time_stamp.wrapping_add(delta);
                self.text_time_stamp = self.text_time_stamp.wrapping_add(delta);
                self.entries += 1;
                self.has_long_form |= payload == self.offset + 8 && len <= SMALL_MAX;
                self.offset = next;
                return Ok(Some(Event {
                    time_stamp: self.time_stamp,
                    text_time_stamp: self.text_time_stamp,
                    payload: &self.data[payload..payload + len],
                }));
            }
            // Delta 1 marks the filler at the end of a sub-buffer.
            Record::Padding { delta: 1, .. } => {}
            Record::Padding { delta, .. } => {
                self.time_stamp = self.time_stamp.wrapping_add(delta);
                self.entries += 1;
            }
            Record::TimeExtend { delta } => {
                self.time_stamp = self.time_stamp.wrapping_add(delta);
                self.text_time_stamp = self.text_time_stamp.wrapping_add(delta);
            }
            Record::TimeStamp { absolute } => {
                let absolute = fix_absolute(absolute, self.time_stamp);
                if absolute < self.time_stamp {
                    return Err(BadRecord::TimeGoesBack {
                        offset: self.offset,
                    });
                }
                self.time_stamp = absolute;
                self.text_time_stamp = absolute;
            }
        }
        self.offset = next;
        Ok(None)
    }
}

impl<'a> Iterator for Events<'a> {
    type Item = Result<Event<'a>, BadRecord>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        // Nearly every record: the others have a function of their own, out of the way.
        if let Some((delta, payload)) = small_data(self.data, self.offset) {
            self.time_stamp = self.time_stamp.wrapping_add(delta);
            self.text_time_stamp = self.text_time_stamp.wrapping_add(delta);
            self.entries += 1;
            self.offset += size_of::<u32>() + payload.len();
            return Some(Ok(Event {
                time_stamp: self.time_stamp,
                text_time_stamp: self.text_time_stamp,
                payload,
            }));
        }
        // By value, so that in the caller's loop all of this stays in registers.
        let (events, item) = self.clone().next_of_any_kind();
        *self = events;
        item
    }
}

impl<'a> Events<'a> {
    #[inline(never)]
    fn next_of_any_kind(mut self) -> (Self, Option<Result<Event<'a>, BadRecord>>) {
        while self.offset < self.data.len() {
            match self.step() {
                Ok(Some(event)) => return (self, Some(Ok(event))),
                Ok(None) => {}
                Err(error) => {
                    // Done: nothing after a bad record can be found reliably.
                    self.data = &self.data[..self.offset];
                    return (self, Some(Err(error)));
                }
            }
        }
        (self, None)
    }
}

/// A place between two records of a sub-buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Position {
    /// Offset in the data.
    pub offset: usize,
    /// Time of the record before.
    pub time_stamp: u64,
    /// The same as the kernel's text has it.
    pub text_time_stamp: u64,
}

/// What a walk over the records of a sub-buffer found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Summary {
    /// Entries as the kernel counts them.
    pub entries: u32,
    /// Time of the last record.
    pub last: u64,
    /// Bytes of valid records.
    pub size: usize,
    /// Why the walk ended before the end of the data.
    pub error: Option<BadRecord>,
    /// Whether an event has a form in which no kernel writes it: 12 bytes in all, or its length in a word
    /// of its own though the header has room for it.
    pub has_odd_form: bool,
}

/// Bytes of the payload of a record of 12 bytes (see [`record_size`]).
const ODD_PAYLOAD: usize = 8;

/// Walks over the records of `data` and counts.
#[must_use]
pub fn walk(time_stamp: u64, data: &[u8]) -> Summary {
    let mut events = Events::new(time_stamp, data);
    let mut has_odd_length = false;
    let error = events.by_ref().find_map(|event| match event {
        Ok(event) => {
            has_odd_length |= event.payload.len() == ODD_PAYLOAD;
            None
        }
        Err(error) => Some(error),
    });
    Summary {
        entries: events.entries,
        last: events.time_stamp,
        size: events.offset,
        error,
        has_odd_form: has_odd_length || events.has_long_form,
    }
}

/// Bytes that memory keeps or loses together.
const CACHE_LINE: usize = 64;

/// What is whole before the zeros that end `data`: where a cache line was lost, or the rest of a page,
/// the last record may end in zeros that are not its own. `behind` is the word behind the data.
pub(crate) fn without_torn(time_stamp: u64, data: &[u8], walked: Summary, behind: u32) -> Summary {
    let end = SUBBUF_HEADER + walked.size;
    let written = data[..walked.size].iter().rposition(|&byte| byte != 0);
    let zeros_from = SUBBUF_HEADER + written.map_or(0, |last| last + 1);
    // The kernel keeps the record if it can read the zeros as records: then only a line's begin tells.
    let torn_from = match passes_kernel(data, walked.size, behind) {
        true => zeros_from.next_multiple_of(CACHE_LINE),
        false => zeros_from.next_multiple_of(4),
    };
    if torn_from >= end {
        return walked;
    }
    let mut events = Events::new(time_stamp, &data[..walked.size]);
    let mut before = Summary {
        entries: 0,
        last: time_stamp,
        size: 0,
        ..walked
    };
    while events.next().is_some() && events.offset < walked.size {
        before = Summary {
            entries: events.entries,
            last: events.time_stamp,
            size: events.offset,
            ..before
        };
    }
    before
}

/// Whether the kernel's validator passes the records of `data` from `offset` on, with the word `behind`
/// the data. It follows lengths that its writer never writes: 4, and those that are no multiple of 4.
pub(crate) fn passes_kernel(data: &[u8], mut offset: usize, behind: u32) -> bool {
    while offset < data.len() {
        let rest = &data[offset..];
        let word = |at: usize| {
            let bytes = rest.get(at..).and_then(|rest| rest.first_chunk());
            bytes.map_or(behind, |bytes| u32::from_le_bytes(*bytes))
        };
        let (header, array) = (word(0), word(4));
        let len = match header & 0x1f {
            TYPE_PADDING if header >> 5 == 0 => return false,
            0 | TYPE_PADDING => 4 + i64::from(array.cast_signed()),
            len @ 1..=TYPE_DATA_MAX => 4 + 4 * i64::from(len),
            _ => TIME_RECORD as i64,
        };
        if len <= 0 || len > rest.len() as i64 {
            return false;
        }
        offset += len as usize;
    }
    true
}

/// A sub-buffer's header word pair from its bytes.
#[must_use]
pub fn header(page: &[u8; SUBBUF_HEADER]) -> (u64, Commit) {
    let (time_stamp, commit) = page.split_at(8);
    let word = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().unwrap_or_default());
    (word(time_stamp), Commit(word(commit)))
}

/// Bytes that a record takes for a payload of `len` bytes, as the kernel rounds it: never 12, so
/// that a time extend and a record can always be turned into padding.
#[inline]
#[must_use]
pub fn record_size(len: usize) -> usize {
    let len = len.max(1);
    let with_header = len + if len > SMALL_MAX { 8 } else { 4 };
    match with_header.next_multiple_of(4) {
        12 => 16,
        size => size,
    }
}

/// The record that gives the next one an absolute time: all but its upper five bits, which are those of
/// the time before. A kernel writes it where it cannot know a delta; outlive's writer always knows it.
#[must_use]
pub fn absolute_time_stamp(time_stamp: u64) -> [u8; TIME_RECORD] {
    encode::time_stamp(time_stamp & !ABSOLUTE_TOP)
}

/// Header words of records, for the writer.
pub(crate) mod encode {
    use super::{DELTA_BITS, SMALL_MAX, TYPE_PADDING, TYPE_TIME_EXTEND, TYPE_TIME_STAMP};

    /// Largest delta that a record's header holds, plus one.
    pub(crate) const DELTA_END: u64 = 1 << DELTA_BITS;

    fn header(type_len: u32, delta: u64) -> [u8; 4] {
        word(type_len, delta).to_le_bytes()
    }

    fn word(type_len: u32, delta: u64) -> u32 {
        debug_assert!(delta < DELTA_END);
        type_len | (delta as u32) << 5
    }

    /// The header word of a data record of `size` bytes in all, whose payload is a small one.
    #[inline]
    pub(crate) fn small(size: usize, delta: u64) -> u32 {
        word((size - 4) as u32 / 4, delta)
    }

    fn with_array(type_len: u32, delta: u64, array: u32) -> [u8; 8] {
        let mut words = [0; 8];
        words[..4].copy_from_slice(&header(type_len, delta));
        words[4..].copy_from_slice(&array.to_le_bytes());
        words
    }

    /// The header of a data record of `size` bytes in all, and how many of its bytes count.
    pub(crate) fn data(size: usize, delta: u64) -> ([u8; 8], usize) {
        let payload = size - 4;
        if payload <= SMALL_MAX {
            (with_array(payload as u32 / 4, delta, 0), 4)
        } else {
            (with_array(0, delta, size as u32 - 4), 8)
        }
    }

    /// Padding of `size` bytes in all, 8 at least.
    pub(crate) fn padding(size: usize, delta: u64) -> [u8; 8] {
        with_array(TYPE_PADDING, delta, size as u32 - 4)
    }

    /// The padding that ends a page in which fewer than 8 bytes are left.
    pub(crate) fn null_padding() -> [u8; 4] {
        header(TYPE_PADDING, 0)
    }

    /// A time extend.
    pub(crate) fn time_extend(delta: u64) -> [u8; 8] {
        with_time(TYPE_TIME_EXTEND, delta)
    }

    /// An absolute time stamp of 59 bits.
    pub(super) fn time_stamp(absolute: u64) -> [u8; 8] {
        with_time(TYPE_TIME_STAMP, absolute)
    }

    fn with_time(type_len: u32, time: u64) -> [u8; 8] {
        let array = (time >> DELTA_BITS) as u32;
        with_array(type_len, time & (DELTA_END - 1), array)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    fn bytes(words: &[u32]) -> Vec<u8> {
        words.iter().flat_map(|w| w.to_le_bytes()).collect()
    }

    #[test]
    fn data_of_both_lengths_extends_and_absolute_stamps_are_read() {
        let data = bytes(&[
            2 | 5 << 5,
            0x11,
            0x12, // payload of 8 bytes, delta 5
            30 | 3 << 5,
            1, // extend by 2^27 + 3
            1 << 5,
            4 + 4,
            0x21, // length word: payload of 4 bytes
            31 | 7 << 5,
            2, // absolute 2^28 + 7
            1,
            0x31, // delta 0
        ]);
        let events: Vec<_> = Events::new(100, &data).map(Result::unwrap).collect();
        let times: Vec<_> = events.iter().map(|e| e.time_stamp).collect();
        assert_eq!(times, [105, 105 + (1 << 27) + 3 + 1, (1 << 28) + 7]);
        assert_eq!(events[1].payload, 0x21u32.to_le_bytes());
    }

    #[test]
    fn forms_that_no_kernel_writes_are_noted() {
        let is_odd = |words: &[u32]| {
            let summary = walk(0, &bytes(words));
            assert_eq!(summary.error, None);
            summary.has_odd_form
        };
        let long = |payload: u32| {
            let words = [1 << 5, 4 + payload].into_iter();
            words
                .chain((0..payload / 4).map(|_| 7))
                .collect::<Vec<u32>>()
        };
        assert!(!is_odd(&[1, 7, 3, 7, 7, 7, 30, 1]));
        assert!(!is_odd(&long(116)));
        assert!(is_odd(&[1, 7, 2, 7, 7]));
        assert!(is_odd(&long(112)));
    }

    #[test]
    fn discarded_records_move_the_true_time_but_not_the_texts() {
        let data = bytes(&[1, 0, 29 | 50 << 5, 4, 1 | 10 << 5, 0, 29 | 1 << 5, 4]);
        let mut events = Events::new(1000, &data);
        let second = events.by_ref().nth(1).unwrap().unwrap();
        assert_eq!((second.time_stamp, second.text_time_stamp), (1060, 1010));
        assert!(events.next().is_none());
        // The kernel counts the discarded record, not the filler.
        assert_eq!(events.entries(), 3);
    }

    #[test]
    fn bad_records_end_the_walk() {
        let good = [1, 0xaaaa];
        for (bad, expected) in [
            (&[29u32, 0][..], BadRecord::NullPadding { offset: 8 }),
            (&[0, 0, 0], BadRecord::Unwritten { offset: 8 }),
            (
                &[5],
                BadRecord::Length {
                    offset: 8,
                    length: 24,
                },
            ),
            (
                &[30],
                BadRecord::Length {
                    offset: 8,
                    length: 8,
                },
            ),
            (
                &[0, 5, 0, 0],
                BadRecord::Length {
                    offset: 8,
                    length: 9,
                },
            ),
            (
                &[0, u32::MAX],
                BadRecord::Length {
                    offset: 8,
                    length: 4 + u64::from(u32::MAX),
                },
            ),
            (&[31, 0], BadRecord::TimeGoesBack { offset: 8 }),
        ] {
            let data = bytes(&[&good[..], bad].concat());
            let summary = walk(7, &data);
            assert_eq!(summary.error, Some(expected));
            assert_eq!((summary.entries, summary.size), (1, 8));
        }
    }

    /// The words that `crates/vm/tests/ours_there.rs` has kernels read.
    #[test]
    fn absolute_stamps_are_written_as_they_are_read() {
        assert_eq!(
            absolute_time_stamp((2 << 27) + 7)[..],
            bytes(&[31 | 7 << 5, 2])
        );
        assert_eq!(
            absolute_time_stamp(u64::MAX)[..],
            bytes(&[u32::MAX, u32::MAX])
        );
    }

    #[test]
    fn absolute_stamps_get_their_upper_bits_back() {
        assert_eq!(fix_absolute(10, 5), 10);
        let previous = (1 << 60) + 100;
        assert_eq!(fix_absolute(200, previous), (1 << 60) + 200);
        assert_eq!(fix_absolute(50, previous), (1 << 60) + (1 << 59) + 50);
    }

    #[test]
    fn record_sizes_are_the_kernels() {
        for (payload, size) in [
            (0, 8),
            (1, 8),
            (4, 8),
            (5, 16),
            (8, 16),
            (12, 16),
            (13, 20),
            (112, 116),
            (113, 124),
        ] {
            assert_eq!(record_size(payload), size, "payload of {payload}");
        }
    }

    #[test]
    fn commit_words_are_read_with_sign_extended_flags() {
        let plain = Commit(0xff0);
        assert_eq!(
            (plain.size(), plain.missed(&[]), plain.has_stray_bits()),
            (4080, None, false)
        );
        let flagged = Commit(0xffff_ffff_8000_0010);
        assert_eq!(flagged.missed(&[0; 16]), Some(Missed::Unknown));
        let mut data = [0; 24];
        data[16] = 9;
        assert_eq!(
            Commit(0xffff_ffff_c000_0010).missed(&data),
            Some(Missed::Events(9))
        );
        assert!(!Commit(DROPPED).has_stray_bits());
        assert!(Commit(1 << 40).has_stray_bits());
    }
}
