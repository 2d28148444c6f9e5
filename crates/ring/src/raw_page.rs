//! Sub-buffers as `trace_pipe_raw` of any instance hands them out.
//!
//! Ordinary instances may have larger sub-buffers than persistent ones: 4 KiB << order, order 0 to
//! 7 (`buffer_subbuf_size_kb`; `kernel/trace/ring_buffer.c`, v7.3.4). Header and records are the
//! same; the number of lost events, if it is known, is stored behind the data.

use core::fmt;

use crate::layout::{SUBBUF_HEADER, SUBBUF_SIZE};
use crate::subbuf::{Events, Missed, header};

/// Largest order of a sub-buffer.
const ORDER_MAX: u32 = 7;

/// One sub-buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RawPage<'a> {
    /// Time of the first record.
    pub time_stamp: u64,
    /// What was lost before it.
    pub missed: Option<Missed>,
    data: &'a [u8],
}

/// Bytes are no sub-buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum RawPageError {
    /// Their number is not 4096 << 0 to 7.
    Size {
        /// Bytes given.
        len: usize,
    },
    /// The commit word claims more data than there is room for.
    Commit {
        /// Bytes claimed.
        size: usize,
        /// Bytes there are.
        room: usize,
    },
}

impl fmt::Display for RawPageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Size { len } => {
                write!(
                    f,
                    "{len} bytes are no sub-buffer: 4096 << 0 to {ORDER_MAX} are possible"
                )
            }
            Self::Commit { size, room } => {
                write!(
                    f,
                    "the sub-buffer claims {size} bytes of data, and has room for {room}"
                )
            }
        }
    }
}

impl core::error::Error for RawPageError {}

impl<'a> RawPage<'a> {
    /// Reads the header of a whole sub-buffer.
    ///
    /// # Errors
    ///
    /// See [`RawPageError`]. The records are judged when they are walked.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, RawPageError> {
        let is_possible = (0..=ORDER_MAX).any(|order| bytes.len() == SUBBUF_SIZE << order);
        let parts = bytes.split_first_chunk::<SUBBUF_HEADER>();
        let Some((first, data)) = parts.filter(|_| is_possible) else {
            return Err(RawPageError::Size { len: bytes.len() });
        };
        let (time_stamp, commit) = header(first);
        let valid = data.get(..commit.size()).ok_or(RawPageError::Commit {
            size: commit.size(),
            room: data.len(),
        })?;
        Ok(Self {
            time_stamp,
            missed: commit.missed(data),
            data: valid,
        })
    }

    /// The events.
    #[must_use]
    pub fn events(&self) -> Events<'a> {
        Events::new(self.time_stamp, self.data)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    #[test]
    fn sub_buffers_of_all_orders_are_read() {
        for order in 0..=ORDER_MAX {
            let mut bytes = vec![0; SUBBUF_SIZE << order];
            let size = bytes.len() - SUBBUF_HEADER - 8;
            bytes[..8].copy_from_slice(&77u64.to_le_bytes());
            let commit = 0xffff_ffff_c000_0000 | size as u64;
            bytes[8..16].copy_from_slice(&commit.to_le_bytes());
            // One event that fills it, and the count behind it.
            bytes[20..24].copy_from_slice(&(size as u32 - 4).to_le_bytes());
            bytes[SUBBUF_HEADER + size..].copy_from_slice(&5u64.to_le_bytes());
            let page = RawPage::parse(&bytes).unwrap();
            assert_eq!(
                (page.time_stamp, page.missed),
                (77, Some(Missed::Events(5)))
            );
            let event = page.events().next().unwrap().unwrap();
            assert_eq!(event.payload.len(), size - 8);
        }
    }

    #[test]
    fn what_is_no_sub_buffer_is_refused() {
        for len in [0, 15, 16, 4095, 4097, 12288, 4096 << 8] {
            assert_eq!(
                RawPage::parse(&vec![0; len]),
                Err(RawPageError::Size { len })
            );
        }
        let mut bytes = [0; 4096];
        bytes[8..16].copy_from_slice(&4081u64.to_le_bytes());
        assert_eq!(
            RawPage::parse(&bytes),
            Err(RawPageError::Commit {
                size: 4081,
                room: 4080
            })
        );
    }
}
