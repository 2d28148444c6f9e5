//! Storage of the catalog: a checked log of records, and a bounded table of task names.
//!
//! What the records mean is `outlive-event`'s business. The log only grows within a run: a record
//! is written whole and then linked by the log's length word, so a crash leaves the records before
//! it. Each has a magic and a checksum, so one damaged record costs only itself.

use alloc::vec::Vec;

use crate::extension::{Layout, NAME_SLOT};
use crate::{Memory, MemoryMut, crc32c};

/// First word of a record's header: `CATR`.
const MAGIC: u32 = u32::from_le_bytes(*b"CATR");
/// Bytes of a record's header: magic, checksum, kind, spare, length.
const HEADER: usize = 16;
/// The log's length word takes the first bytes of its section.
const LOG_HEADER: usize = 8;
/// Longest task name, as in `comm`.
pub const TASK_NAME_MAX: usize = 16;

/// Appends records to a catalog log.
#[derive(Debug)]
pub struct CatalogLog {
    at: usize,
    end: usize,
    next: usize,
}

impl CatalogLog {
    /// Opens the log of a fresh region for writing; what it held is forgotten.
    #[must_use]
    pub fn clear(layout: &Layout, memory: &impl MemoryMut) -> Self {
        let (at, len) = layout.log();
        memory.store_u64_release(at, 0);
        Self {
            at,
            end: at + len,
            next: at + LOG_HEADER,
        }
    }

    /// Opens a log that was written before, to go on behind its last record.
    #[must_use]
    pub fn open(layout: &Layout, memory: &impl Memory) -> Self {
        let (at, len) = layout.log();
        let used = memory.load_u64_acquire(at);
        let room = len - LOG_HEADER;
        Self {
            at,
            end: at + len,
            next: at + LOG_HEADER + usize::try_from(used).unwrap_or(room).min(room) / 8 * 8,
        }
    }

    /// Appends a record. Returns whether there was room.
    #[must_use]
    pub fn append(&mut self, memory: &impl MemoryMut, kind: u16, payload: &[u8]) -> bool {
        let size = (HEADER + payload.len()).next_multiple_of(8);
        if size > self.end - self.next {
            return false;
        }
        memory.write(self.next, &header(kind, payload));
        memory.write(self.next + HEADER, payload);
        self.next += size;
        let used = self.next - self.at - LOG_HEADER;
        memory.store_u64_release(self.at, used as u64);
        true
    }

    /// Copies the records that were appended so far to the same place of another region of this
    /// layout.
    pub fn copy(&self, from: &impl Memory, to: &impl MemoryMut) {
        let mut buffer = [0; 4096];
        let mut at = self.at + LOG_HEADER;
        while at < self.next {
            let piece = &mut buffer[..(self.next - at).min(4096)];
            from.read(at, piece);
            to.write(at, piece);
            at += piece.len();
        }
        let used = self.next - self.at - LOG_HEADER;
        to.store_u64_release(self.at, used as u64);
    }

    /// Bytes that are free.
    #[must_use]
    pub fn free(&self) -> usize {
        self.end - self.next
    }
}

fn header(kind: u16, payload: &[u8]) -> [u8; HEADER] {
    let mut bytes = [0; HEADER];
    bytes[..4].copy_from_slice(&MAGIC.to_le_bytes());
    bytes[8..10].copy_from_slice(&kind.to_le_bytes());
    bytes[12..].copy_from_slice(&(payload.len() as u32).to_le_bytes());
    let crc = crc32c(crc32c(0, &bytes[8..]), payload);
    bytes[4..8].copy_from_slice(&crc.to_le_bytes());
    bytes
}

/// What was read of a catalog log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CatalogRecords {
    /// Kind and payload of each record that is whole, in the order of writing.
    pub records: Vec<(u16, Vec<u8>)>,
    /// Stretches that hold no whole record.
    pub damaged: u32,
}

impl CatalogRecords {
    /// Reads the log.
    #[must_use]
    pub fn load(layout: &Layout, memory: &impl Memory) -> Self {
        let (at, len) = layout.log();
        let room = len - LOG_HEADER;
        // A damaged length word is no reason to lose the records: they are found by their magic.
        let used = usize::try_from(memory.load_u64_acquire(at))
            .unwrap_or(room)
            .min(room)
            / 8
            * 8;
        let mut log = alloc::vec![0; used];
        memory.read(at + LOG_HEADER, &mut log);
        let mut catalog = Self::default();
        let (mut rest, mut in_damage) = (&log[..], false);
        while rest.len() >= HEADER {
            let size = match whole_record(rest) {
                Some((kind, payload)) => {
                    catalog.records.push((kind, payload.to_vec()));
                    in_damage = false;
                    (HEADER + payload.len()).next_multiple_of(8)
                }
                None => {
                    catalog.damaged += u32::from(!in_damage);
                    in_damage = true;
                    8
                }
            };
            rest = rest.get(size..).unwrap_or_default();
        }
        catalog
    }
}

fn whole_record(log: &[u8]) -> Option<(u16, &[u8])> {
    let word = |at: usize| Some(u32::from_le_bytes(*log.get(at..)?.first_chunk()?));
    if word(0)? != MAGIC {
        return None;
    }
    let payload = log.get(HEADER..)?.get(..word(12)? as usize)?;
    let crc = crc32c(crc32c(0, &log[8..HEADER]), payload);
    (word(4)? == crc).then_some((word(8)? as u16, payload))
}

/// Writes the table of task names: the newest name of each pid, as far as they fit.
///
/// A slot is chosen by the pid, with some neighbours to go to; when all are taken the oldest is
/// overwritten, and counted.
#[derive(Debug)]
pub struct TaskNames {
    slots: Vec<(i32, u32)>,
    at: usize,
    clock: u32,
    overwritten: u64,
}

/// Neighbouring slots that a pid may go to.
const WAYS: usize = 16;

impl TaskNames {
    /// Opens the table of a fresh region for writing; what it held is forgotten.
    #[must_use]
    pub fn clear(layout: &Layout, memory: &impl MemoryMut) -> Self {
        let (at, slots) = layout.names();
        memory.zero(at, slots * NAME_SLOT);
        Self {
            slots: alloc::vec![(0, 0); slots],
            at,
            clock: 0,
            overwritten: 0,
        }
    }

    /// Opens a table that was written before. A damaged slot is free.
    #[must_use]
    pub fn open(layout: &Layout, memory: &impl Memory) -> Self {
        let (at, count) = layout.names();
        let slots: Vec<(i32, u32)> = (0..count)
            .map(|slot| {
                let mut bytes = [0; NAME_SLOT];
                memory.read(at + slot * NAME_SLOT, &mut bytes);
                decode_name(&bytes).map_or((0, 0), |(clock, pid, _)| (pid, clock))
            })
            .collect();
        let clock = slots.iter().map(|&(_, clock)| clock).max().unwrap_or(0);
        Self {
            slots,
            at,
            clock,
            overwritten: 0,
        }
    }

    /// Stores the name of a task. Longer names are cut.
    pub fn store(&mut self, memory: &impl MemoryMut, pid: i32, name: &[u8]) {
        let len = self.slots.len();
        let candidates = candidates(pid, len);
        let slots = &self.slots;
        let taken = candidates
            .clone()
            .find(|&i| slots[i].1 != 0 && slots[i].0 == pid);
        let Some(slot) = taken.or_else(|| candidates.min_by_key(|&i| slots[i].1)) else {
            return;
        };
        let (old_pid, age) = self.slots[slot];
        self.overwritten += u64::from(age != 0 && old_pid != pid);
        self.clock += 1;
        self.slots[slot] = (pid, self.clock);
        let name = &name[..name.len().min(TASK_NAME_MAX)];
        let mut bytes = [0; NAME_SLOT];
        bytes[..4].copy_from_slice(&pid.to_le_bytes());
        bytes[4..8].copy_from_slice(&self.clock.to_le_bytes());
        bytes[8..8 + name.len()].copy_from_slice(name);
        let crc = !crc32c(0, &bytes[..28]);
        bytes[28..].copy_from_slice(&crc.to_le_bytes());
        memory.write(self.at + slot * NAME_SLOT, &bytes);
    }

    /// Names of other tasks that had to go.
    #[must_use]
    pub fn overwritten(&self) -> u64 {
        self.overwritten
    }
}

/// The slots that a pid may go to. Not by the pid itself: tasks get theirs in a row, which would fill its
/// slots without a gap and have an older pid among them go while most of the table is free.
fn candidates(pid: i32, len: usize) -> impl Iterator<Item = usize> + Clone {
    // Fibonacci hashing, 2^32 over the golden ratio, which spreads a row evenly. By the upper bits: what is
    // left over from a division does so for some lengths only.
    let hash = pid.cast_unsigned().wrapping_mul(0x9e37_79b1);
    let first = (u64::from(hash) * len as u64) >> 32;
    (0..WAYS.min(len)).map(move |i| (first as usize + i) % len)
}

/// Reads the table of task names: each pid with its newest name, oldest first.
#[must_use]
pub fn task_names(layout: &Layout, memory: &impl Memory) -> Vec<(i32, Vec<u8>)> {
    let (at, slots) = layout.names();
    let mut table = alloc::vec![0; slots * NAME_SLOT];
    memory.read(at, &mut table);
    let (slots, _) = table.as_chunks::<NAME_SLOT>();
    let mut names: Vec<_> = slots.iter().filter_map(decode_name).collect();
    names.sort_unstable_by_key(|&(clock, ..)| clock);
    names
        .into_iter()
        .map(|(_, pid, name)| (pid, name))
        .collect()
}

fn decode_name(bytes: &[u8; NAME_SLOT]) -> Option<(u32, i32, Vec<u8>)> {
    let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap_or_default());
    if word(28) != !crc32c(0, &bytes[..28]) || word(4) == 0 {
        return None;
    }
    let name = bytes[8..8 + TASK_NAME_MAX]
        .split(|&b| b == 0)
        .next()
        .unwrap_or_default();
    Some((word(4), word(0).cast_signed(), name.to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Geometry, HeapMemory};

    fn region(log: usize, names: usize) -> (Layout, HeapMemory) {
        let layout = Layout::new(&Geometry::new(64 << 10, 1).unwrap(), log, names);
        (layout, HeapMemory::new(layout.area_size() as usize))
    }

    #[test]
    fn records_round_trip_until_the_log_is_full() {
        let (layout, memory) = region(4096, 0);
        let mut log = CatalogLog::clear(&layout, &memory);
        let mut written = Vec::new();
        for i in 0..u16::MAX {
            let payload = alloc::vec![i as u8; usize::from(i % 70)];
            if !log.append(&memory, i, &payload) {
                break;
            }
            written.push((i, payload));
        }
        assert!(written.len() > 40);
        assert_eq!(CatalogRecords::load(&layout, &memory).records, written);
    }

    #[test]
    fn a_damaged_record_costs_only_itself() {
        let (layout, memory) = region(4096, 0);
        let mut log = CatalogLog::clear(&layout, &memory);
        for i in 0..20 {
            assert!(log.append(&memory, i, b"some payload of a record"));
        }
        let all = CatalogRecords::load(&layout, &memory).records;
        let record = 8 + 40 * 7;
        for at in 0..40 {
            let (copy, offset) = (
                HeapMemory::from_bytes(&memory.to_vec()),
                layout.log().0 + record + at,
            );
            let mut byte = [0];
            copy.read(offset, &mut byte);
            copy.write(offset, &[byte[0] ^ 0x10]);
            let read = CatalogRecords::load(&layout, &copy);
            assert_eq!(read.damaged, 1, "byte {at}");
            assert_eq!(read.records, [&all[..7], &all[8..]].concat());
        }
        memory.store_u64(layout.log().0, u64::MAX);
        assert_eq!(CatalogRecords::load(&layout, &memory).records, all);
    }

    #[test]
    fn what_was_written_before_is_gone_on_with() {
        let (layout, memory) = region(4096, 128);
        assert!(CatalogLog::clear(&layout, &memory).append(&memory, 1, b"first"));
        assert!(CatalogLog::open(&layout, &memory).append(&memory, 2, b"second"));
        let kinds = CatalogRecords::load(&layout, &memory).records;
        assert_eq!(kinds, [(1, b"first".to_vec()), (2, b"second".to_vec())]);
        TaskNames::clear(&layout, &memory).store(&memory, 7, b"old");
        TaskNames::open(&layout, &memory).store(&memory, 8, b"other");
        TaskNames::open(&layout, &memory).store(&memory, 7, b"new");
        let names = [(8, b"other".to_vec()), (7, b"new".to_vec())];
        assert_eq!(task_names(&layout, &memory), names);
        // A length that cannot be leaves no room, and nothing outside of the log is written.
        memory.store_u64(layout.log().0, u64::MAX - 7);
        assert!(!CatalogLog::open(&layout, &memory).append(&memory, 3, b"third"));
    }

    /// A busy machine's tasks came in a row, over the pids of the row that began the table: names went
    /// though half of the table was free.
    #[test]
    fn no_name_goes_while_half_of_the_table_is_free() {
        let (layout, memory) = region(0, 4096);
        let mut names = TaskNames::clear(&layout, &memory);
        for row in [100..600, 4000..4500, 8292..8792, 20_580..20_880] {
            row.for_each(|pid| names.store(&memory, pid, b"task"));
        }
        assert_eq!(names.overwritten(), 0);
        assert_eq!(task_names(&layout, &memory).len(), 1800);
    }

    /// An import had a table of this length for a machine's names, and one of them went.
    #[test]
    fn no_name_of_a_row_goes_while_most_of_the_table_is_free_whatever_its_length() {
        for slots in (128..20_480).step_by(128).chain([20_352]) {
            let mut table = alloc::vec![false; slots];
            for pid in 9000..9000 + slots as i32 / 3 {
                let free = candidates(pid, slots).find(|&slot| !table[slot]);
                table[free.expect("a free slot")] = true;
            }
        }
    }

    #[test]
    fn the_newest_names_stay_when_the_table_is_full() {
        let (layout, memory) = region(0, 128);
        let mut names = TaskNames::clear(&layout, &memory);
        names.store(&memory, 7, b"first");
        names.store(&memory, 7, b"a name that is too long");
        assert_eq!(
            task_names(&layout, &memory),
            [(7, b"a name that is t".to_vec())]
        );
        for pid in 100..1100 {
            names.store(&memory, pid, b"task");
        }
        let kept = task_names(&layout, &memory);
        assert_eq!(kept.len(), 128);
        let newest = 1100 - 64..1100;
        assert!(
            newest
                .into_iter()
                .all(|pid| kept.iter().any(|kept| kept.0 == pid))
        );
        assert_eq!(names.overwritten(), 1001 - 128);
    }
}
