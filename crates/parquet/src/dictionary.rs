//! The values of a column that come again and again, each once.
//!
//! The crate `parquet` hashes each value: for names of tasks, pids and priorities that took more time
//! than all else. Here a small cache in front of the map knows most of them.

use std::collections::HashMap;
use std::hash::Hash;

/// Different values from which on a chunk has no dictionary.
const DICTIONARY: usize = 1 << 13;
/// Different values that are found without hashing all of them; a power of two.
const RECENT: usize = 256;
/// Stands for a row without a value among the indices.
pub(crate) const NULL: u32 = u32::MAX;

/// What a dictionary may be of.
pub(crate) trait Key: Copy + Eq + Hash {
    /// Bits by which most values that are near one another differ.
    fn bits(self) -> u64;
}

impl Key for i64 {
    fn bits(self) -> u64 {
        self.cast_unsigned()
    }
}

impl Key for &[u8] {
    /// Texts of one dictionary mostly differ in how they begin or end.
    fn bits(self) -> u64 {
        let word = |bytes: Option<&[u8; 8]>| bytes.map(|bytes| u64::from_le_bytes(*bytes));
        match (word(self.first_chunk()), word(self.last_chunk())) {
            (Some(first), Some(last)) => first ^ last.rotate_left(29),
            _ => self
                .iter()
                .fold(0, |mixed, &byte| mixed << 8 | u64::from(byte)),
        }
    }
}

/// Each of a chunk's values once, and which of them each row has, or [`NULL`].
#[derive(Debug)]
pub(crate) struct Dictionary<K> {
    pub(crate) entries: Vec<K>,
    pub(crate) indices: Vec<u32>,
}

impl<K: Key> Dictionary<K> {
    /// `None` if there are too many different values.
    pub(crate) fn of(rows: impl ExactSizeIterator<Item = Option<K>>) -> Option<Self> {
        let (mut entries, mut indices) = (Vec::new(), Vec::with_capacity(rows.len()));
        let mut places: HashMap<K, u32> = HashMap::new();
        let mut recent = [0; RECENT];
        for row in rows {
            let Some(value) = row else {
                indices.push(NULL);
                continue;
            };
            let slot = &mut recent[slot(value)];
            if entries.get(*slot as usize) != Some(&value) {
                let next = entries.len() as u32;
                *slot = *places.entry(value).or_insert(next);
                if *slot == next {
                    entries.push(value);
                }
                if entries.len() > DICTIONARY {
                    return None;
                }
            }
            indices.push(*slot);
        }
        Some(Self { entries, indices })
    }
}

/// Where a value is in the cache.
fn slot(value: impl Key) -> usize {
    // The upper half of a product depends on all bits (Fibonacci hashing).
    let mixed = value.bits().wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
    mixed as usize % RECENT
}
