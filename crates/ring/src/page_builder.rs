//! Encoding events into sub-buffers of their own, as `trace_pipe_raw` hands them out: for copies of
//! some of a ring's events.

use alloc::boxed::Box;

use crate::layout::{SUBBUF_DATA, SUBBUF_HEADER, SUBBUF_SIZE};
use crate::subbuf::encode::{self, DELTA_END};
use crate::subbuf::{self, Missed, SMALL_MAX, TIME_RECORD};

/// Bytes of the number of missed events behind the data.
const MISSED_COUNT: usize = 8;
/// Bits of a time extend's delta: those of its header and its second word.
const EXTEND_BITS: u32 = 27 + 32;

/// One sub-buffer that is being filled, and after it the next.
#[derive(Debug, Clone)]
pub struct PageBuilder {
    page: Box<[u8; SUBBUF_SIZE]>,
    /// Bytes of records.
    size: usize,
    /// Time of the first and of the last record.
    first: u64,
    last: u64,
    missed: Option<Missed>,
}

impl Default for PageBuilder {
    fn default() -> Self {
        Self {
            page: Box::new([0; SUBBUF_SIZE]),
            size: 0,
            first: 0,
            last: 0,
            missed: None,
        }
    }
}

impl PageBuilder {
    /// Whether no event was added since the last sub-buffer was finished.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.size == 0
    }

    /// Says what is missing before the sub-buffer, which must be empty yet.
    pub fn set_missed(&mut self, missed: Missed) {
        debug_assert!(self.is_empty());
        self.missed = Some(missed);
    }

    /// Adds an event. `false` if it does not fit behind the others, in length or in time: then the
    /// sub-buffer is to be finished. One that does not fit an empty sub-buffer fits none.
    #[must_use]
    pub fn push(&mut self, time_stamp: u64, payload: &[u8]) -> bool {
        let size = match payload.len().next_multiple_of(4) {
            0..=4 => 8,
            len @ ..=SMALL_MAX => 4 + len,
            len => 8 + len,
        };
        if self.is_empty() {
            (self.first, self.last) = (time_stamp, time_stamp);
        }
        let Some(delta) = time_stamp.checked_sub(self.last) else {
            return false;
        };
        let extend = if delta < DELTA_END { 0 } else { TIME_RECORD };
        let end = self.size + extend + size;
        if end > SUBBUF_DATA || delta >> EXTEND_BITS != 0 {
            return false;
        }
        if self.missed.and_then(Missed::count).is_some() && end > SUBBUF_DATA - MISSED_COUNT {
            if !self.is_empty() {
                return false;
            }
            // The event is worth more than the number.
            self.missed = Some(Missed::Unknown);
        }
        let delta = match extend {
            0 => delta,
            _ => {
                self.append(&encode::time_extend(delta));
                0
            }
        };
        let (header, len) = encode::data(size, delta);
        self.append(&header[..len]);
        self.append(payload);
        self.last = time_stamp;
        self.zero_to(end);
        true
    }

    /// Finishes the sub-buffer and returns it. The next event begins the next one.
    pub fn finish(&mut self) -> &[u8; SUBBUF_SIZE] {
        subbuf::finish(&mut self.page, self.first, self.size, self.missed);
        self.size = 0;
        self.missed = None;
        &self.page
    }

    fn append(&mut self, bytes: &[u8]) {
        let at = SUBBUF_HEADER + self.size;
        self.page[at..at + bytes.len()].copy_from_slice(bytes);
        self.size += bytes.len();
    }

    /// Fills up with zeros.
    fn zero_to(&mut self, end: usize) {
        self.page[SUBBUF_HEADER + self.size..SUBBUF_HEADER + end].fill(0);
        self.size = end;
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec;
    use alloc::vec::Vec;

    use super::*;
    use crate::raw_page::RawPage;

    type Decoded = (Option<Missed>, Vec<(u64, Vec<u8>)>);

    fn decode(page: &[u8; SUBBUF_SIZE]) -> Decoded {
        let page = RawPage::parse(page).unwrap();
        let events = page.events().map(|event| {
            let event = event.unwrap();
            (event.time_stamp, event.payload.to_vec())
        });
        (page.missed, events.collect())
    }

    #[test]
    fn events_of_all_lengths_and_distances_read_back() {
        let lengths = [4, 8, 12, 108, 112, 116, 120, 1000];
        let distances = [
            0,
            1,
            DELTA_END - 1,
            DELTA_END,
            1 << 40,
            (1 << EXTEND_BITS) - 1,
        ];
        let mut builder = PageBuilder::default();
        builder.set_missed(Missed::Events(7));
        let (mut time, mut expected) = (3, Vec::new());
        for (i, len) in lengths.into_iter().enumerate() {
            time += distances[i % distances.len()];
            let payload = vec![i as u8 + 1; len];
            assert!(builder.push(time, &payload), "{len}");
            expected.push((time, payload));
        }
        assert_eq!(
            decode(builder.finish()),
            (Some(Missed::Events(7)), expected)
        );
        // Nothing of it is in the next one.
        assert!(builder.push(1, &[1; 8]));
        assert_eq!(decode(builder.finish()), (None, vec![(1, vec![1; 8])]));
    }

    #[test]
    fn what_does_not_fit_is_for_the_next_one() {
        let mut builder = PageBuilder::default();
        let mut pushed = 0;
        while builder.push(pushed, &[9; 100]) {
            pushed += 1;
        }
        assert_eq!(pushed, (SUBBUF_DATA / 104) as u64);
        assert_eq!(decode(builder.finish()).1.len(), pushed as usize);
        assert!(builder.push(50, &[1; 4]));
        assert!(!builder.push(49, &[1; 4]), "time goes back");
        assert!(!builder.push(50 + (1 << EXTEND_BITS), &[1; 4]));
        builder.finish();
        assert!(!builder.push(0, &[0; SUBBUF_DATA - 4]), "fits none");
        assert!(builder.is_empty());
        builder.set_missed(Missed::Events(3));
        assert!(builder.push(0, &[0; SUBBUF_DATA - 8]));
        let (missed, events) = decode(builder.finish());
        assert_eq!((missed, events.len()), (Some(Missed::Unknown), 1));
    }
}
