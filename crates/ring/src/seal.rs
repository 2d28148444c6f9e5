//! Seals: a checksum per sub-buffer, in the extension.
//!
//! A sub-buffer is sealed when it is closed, before the commit page moves on. So in a region with
//! an extension every sub-buffer but the commit page is sealed, and one that does not match its
//! seal is damaged. When a sub-buffer is begun it gets an *open* seal, which says what was missed
//! before it but not what is in it. A seal that names another time stamp is of an older lap.

use crate::extension::{Layout, SEAL};
use crate::subbuf::Missed;
use crate::{Memory, MemoryMut, crc32c};

const FLAG_CLOSED: u16 = 1;
const FLAG_MISSED: u16 = 2;
const FLAG_COUNTED: u16 = 4;

/// What outlive knows of a sub-buffer apart from what the sub-buffer says itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seal {
    /// Time stamp of the sub-buffer.
    pub time_stamp: u64,
    /// Bytes of valid data; 0 in an open seal.
    pub size: u32,
    /// Entries in the data; 0 in an open seal.
    pub entries: u16,
    /// What was lost before the sub-buffer.
    pub missed: Option<Missed>,
    /// CRC32C of time stamp, size and data; `None` in an open seal.
    pub crc: Option<u32>,
}

/// The checksum of a sub-buffer's contents.
#[must_use]
pub fn checksum(time_stamp: u64, data: &[u8]) -> u32 {
    checksum_by(time_stamp, data.len(), |crc| crc32c(crc, data))
}

/// The checksum of `size` bytes of data, by what continues one over them.
pub(crate) fn checksum_by(
    time_stamp: u64,
    size: usize,
    continue_over_data: impl FnOnce(u32) -> u32,
) -> u32 {
    let crc = crc32c(0, &time_stamp.to_le_bytes());
    continue_over_data(crc32c(crc, &(size as u32).to_le_bytes()))
}

impl Seal {
    /// Reads the seal of a sub-buffer, if there is a whole one.
    #[must_use]
    pub fn load(layout: &Layout, memory: &impl Memory, cpu: u32, subbuf: u32) -> Option<Self> {
        let mut bytes = [0; SEAL];
        memory.read(layout.seal(cpu, subbuf), &mut bytes);
        Self::decode(&bytes)
    }

    /// Stores the seal of a sub-buffer.
    pub(crate) fn store(&self, layout: &Layout, memory: &impl MemoryMut, cpu: u32, subbuf: u32) {
        memory.write(layout.seal(cpu, subbuf), &self.encode());
    }

    fn encode(&self) -> [u8; SEAL] {
        let (flags, count) = match self.missed {
            None => (0, 0),
            Some(Missed::Unknown) => (FLAG_MISSED, 0),
            Some(Missed::Events(count)) => (FLAG_MISSED | FLAG_COUNTED, count),
        };
        let flags = flags | if self.crc.is_some() { FLAG_CLOSED } else { 0 };
        let mut bytes = [0; SEAL];
        bytes[..8].copy_from_slice(&self.time_stamp.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.size.to_le_bytes());
        bytes[12..14].copy_from_slice(&flags.to_le_bytes());
        bytes[14..16].copy_from_slice(&self.entries.to_le_bytes());
        bytes[16..24].copy_from_slice(&count.to_le_bytes());
        bytes[24..28].copy_from_slice(&self.crc.unwrap_or(0).to_le_bytes());
        let crc = !crc32c(0, &bytes[..28]);
        bytes[28..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    fn decode(bytes: &[u8; SEAL]) -> Option<Self> {
        let u16_at = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        let u32_at = |at: usize| u32::from(u16_at(at)) | u32::from(u16_at(at + 2)) << 16;
        let u64_at = |at: usize| u64::from(u32_at(at)) | u64::from(u32_at(at + 4)) << 32;
        if u32_at(28) != !crc32c(0, &bytes[..28]) {
            return None;
        }
        let flags = u16_at(12);
        let missed = (flags & FLAG_MISSED != 0).then(|| match flags & FLAG_COUNTED {
            0 => Missed::Unknown,
            _ => Missed::Events(u64_at(16)),
        });
        Some(Self {
            time_stamp: u64_at(0),
            size: u32_at(8),
            entries: u16_at(14),
            missed,
            crc: (flags & FLAG_CLOSED != 0).then(|| u32_at(24)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seal_round_trips_and_any_flipped_bit_voids_it() {
        for missed in [None, Some(Missed::Unknown), Some(Missed::Events(77))] {
            for crc in [None, Some(0x1234_5678)] {
                let seal = Seal {
                    time_stamp: 1 << 40,
                    size: 4080,
                    entries: 85,
                    missed,
                    crc,
                };
                let bytes = seal.encode();
                assert_eq!(Seal::decode(&bytes), Some(seal));
                for bit in 0..SEAL * 8 {
                    let mut damaged = bytes;
                    damaged[bit / 8] ^= 1 << (bit % 8);
                    assert_eq!(Seal::decode(&damaged), None);
                }
            }
        }
        assert_eq!(Seal::decode(&[0; SEAL]), None);
    }
}
