//! The little of a sub-buffer's encoding that following a ring needs: its header, and where the
//! records in it end.
//!
//! Seen on v6.18 and v7.3: 16 bytes of header (time stamp, commit word), then records of a 32-bit
//! header each, 5 bits of type and 27 bits of time delta.

/// Bytes of a sub-buffer's header: time stamp and commit word.
pub const HEADER_BYTES: usize = 16;
/// Bytes of data in a sub-buffer of 4 KiB.
pub const DATA_BYTES: usize = 4080;
/// Bytes of the words in which a mapping is read.
pub(crate) const WORD_BYTES: usize = 8;

/// The commit word's bits 0..29: the size.
const COMMIT_SIZE: u64 = 0x3fff_ffff;
/// Bit 30: the number of lost events is stored behind the data (only in copies for readers).
const MISSED_STORED: u64 = 1 << 30;
/// Bit 31: events were lost before this sub-buffer (only in copies for readers).
const MISSED_EVENTS: u64 = 1 << 31;

/// Bits 0..4 of a record's header: its type.
const TYPE_LEN_MASK: u32 = 0x1f;
/// Bits 5..31 of a record's header: its time delta.
const TIME_DELTA_SHIFT: u32 = 5;
const TIME_DELTA_BITS: u32 = 27;
const TYPE_DATA_MAX: u32 = 28;
const TYPE_PADDING: u32 = 29;
const TYPE_TIME_EXTEND: u32 = 30;
const RECORD_HEADER_BYTES: usize = 4;

/// The number of a sub-buffer in a mapping: its place behind the meta page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct SubbufId(pub(crate) u32);

/// A sub-buffer's header, its commit word taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SubbufHeader {
    /// The time of the first record, in units of the trace clock.
    pub(crate) time_stamp: u64,
    /// Bytes of valid data, at most [`DATA_BYTES`].
    pub(crate) size: usize,
    /// Whether events were lost before this sub-buffer.
    pub(crate) has_missed_events: bool,
    /// Whether the number of lost events is stored behind the data.
    pub(crate) has_missed_count: bool,
}

impl SubbufHeader {
    /// Takes a commit word apart. A size that cannot be is taken as full.
    pub(crate) fn new(time_stamp: u64, commit: u64) -> Self {
        Self {
            time_stamp,
            size: ((commit & COMMIT_SIZE) as usize).min(DATA_BYTES),
            has_missed_events: commit & MISSED_EVENTS != 0,
            has_missed_count: commit & MISSED_STORED != 0,
        }
    }
}

/// What the records in a stretch of data amount to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Records {
    /// Data records. Discarded ones, padding and time records are none, as in `entries` of `stats`.
    pub(crate) events: u64,
    /// How far the time goes, in the way of the kernel's raw reader: padding counts nothing.
    /// `None` if an absolute time stamp or damage makes it unknown.
    pub(crate) duration: Option<u64>,
}

impl Records {
    /// Walks whole records. Stops at what cannot be a record and says so by no duration.
    pub(crate) fn count(data: &[u8]) -> Self {
        let mut this = Self {
            events: 0,
            duration: Some(0),
        };
        let mut rest = data;
        while !rest.is_empty() {
            let Some(record) = Record::first(rest) else {
                this.duration = None;
                break;
            };
            this.events += u64::from(record.is_event);
            this.duration = this
                .duration
                .zip(record.delta)
                .and_then(|(sum, d)| sum.checked_add(d));
            rest = &rest[record.len..];
        }
        this
    }
}

/// One record: how long it is and what it counts for.
struct Record {
    len: usize,
    is_event: bool,
    delta: Option<u64>,
}

impl Record {
    /// The record that `data` begins with; `None` if its length cannot be.
    fn first(data: &[u8]) -> Option<Self> {
        let header = u32_at(data, 0)?;
        let (type_len, delta) = (
            header & TYPE_LEN_MASK,
            u64::from(header >> TIME_DELTA_SHIFT),
        );
        let array_0 = || u32_at(data, RECORD_HEADER_BYTES);
        let (len, is_event, delta) = match type_len {
            0 => (RECORD_HEADER_BYTES + array_0()? as usize, true, Some(delta)),
            1..=TYPE_DATA_MAX => (
                RECORD_HEADER_BYTES * (1 + type_len as usize),
                true,
                Some(delta),
            ),
            TYPE_PADDING if delta == 0 => return None,
            TYPE_PADDING => (RECORD_HEADER_BYTES + array_0()? as usize, false, Some(0)),
            TYPE_TIME_EXTEND => {
                let extend = u64::from(array_0()?) << TIME_DELTA_BITS;
                (2 * RECORD_HEADER_BYTES, false, Some(extend + delta))
            }
            _ => (2 * RECORD_HEADER_BYTES, false, None),
        };
        (len > RECORD_HEADER_BYTES && len <= data.len()).then_some(Self {
            len,
            is_event,
            delta,
        })
    }
}

fn u32_at(data: &[u8], offset: usize) -> Option<u32> {
    let bytes = data.get(offset..offset + 4)?;
    Some(u32::from_le_bytes(bytes.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(words: &[u32]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_le_bytes()).collect()
    }

    #[test]
    fn commit_word_has_size_and_two_flags() {
        let plain = SubbufHeader::new(7, 0xff0);
        assert_eq!(
            (plain.size, plain.has_missed_events, plain.has_missed_count),
            (4080, false, false)
        );
        let counted = SubbufHeader::new(7, 0xffff_ffff_c000_0010);
        assert_eq!(
            (
                counted.size,
                counted.has_missed_events,
                counted.has_missed_count
            ),
            (16, true, true)
        );
        assert_eq!(SubbufHeader::new(7, 0x3fff_ffff).size, DATA_BYTES);
    }

    #[test]
    fn only_data_records_are_events() {
        let mut data = words(&[1 | 5 << 5, 0]);
        data.extend(words(&[6 << 5, 8, 0])); // data with a length word
        data.extend(words(&[29 | 9 << 5, 4])); // discarded
        data.extend(words(&[30 | 3 << 5, 1])); // time extend
        data.extend(words(&[28])); // the longest data without a length word
        data.extend([0; 28 * 4]);
        let records = Records::count(&data);
        assert_eq!(
            records,
            Records {
                events: 3,
                duration: Some(5 + 6 + 3 + (1 << 27))
            }
        );
    }

    #[test]
    fn absolute_time_stamp_makes_the_duration_unknown() {
        let records = Records::count(&words(&[31, 1, 1, 0]));
        assert_eq!(
            records,
            Records {
                events: 1,
                duration: None
            }
        );
    }

    #[test]
    fn damaged_records_end_the_walk() {
        for data in [
            words(&[0, 0]),
            words(&[0, 400]),
            words(&[29, 4]),
            words(&[2, 0]),
            vec![1, 2],
        ] {
            assert_eq!(
                Records::count(&data),
                Records {
                    events: 0,
                    duration: None
                },
                "{data:?}"
            );
        }
    }

    proptest::proptest! {
        #[test]
        fn walk_over_any_bytes_ends(data in proptest::collection::vec(0_u8.., 0..DATA_BYTES)) {
            assert!(Records::count(&data).events <= data.len() as u64);
        }

        #[test]
        fn walk_over_any_headers_ends(headers in proptest::collection::vec(0_u32..64, 0..1020)) {
            let events = Records::count(&words(&headers)).events;
            assert!(events <= headers.len() as u64);
        }
    }
}
