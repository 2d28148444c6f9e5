//! A copy of a region that is being written, as it was at about one instant.
//!
//! A sub-buffer that the writer begins anew while it is copied must neither be shown half old and
//! half new nor be called damaged. The parts are copied in this order:
//!
//! 1. the time stamp of each sub-buffer, the newest last;
//! 2. the CPUs' metas with the commit pointers;
//! 3. the extension with the seals;
//! 4. the sub-buffers, the newest first, each commit word before its data; then the time stamp is
//!    looked at again.
//!
//! The writer changes a sub-buffer's time stamp before its data, so one whose time stamp is still
//! that of step 1 is whole up to the commit word. Any other is made blank. The writer goes forwards
//! and the copy backwards: where they meet, everything older is blank, however fast the writer is,
//! so what is missing is the oldest of the ring, which was about to be overwritten anyway. Where
//! step 1 itself was overtaken, so that it saw one sub-buffer before the writer came to it and a
//! later one after, everything older than that is made blank too. A seal is never newer than the
//! sub-buffer that was copied, so it matches or is of an older lap.

use std::sync::atomic::{Ordering, fence};

use outlive_ring::extension::Layout;
use outlive_ring::layout::{SUBBUF_HEADER, SUBBUF_SIZE};
use outlive_ring::{Geometry, HeapMemory, Memory, MemoryMut};

/// How often the copy is tried again when a writer laps the whole ring before the first sub-buffer
/// is copied, so that nothing is left.
const TRIES: u32 = 8;
/// A time stamp that is newer than any seal's: what a blank sub-buffer gets.
const BLANK: u64 = u64::MAX;

/// Copies a region and its extension.
pub(super) fn of(memory: &impl Memory, layout: &Layout) -> HeapMemory {
    let copy = HeapMemory::new(memory.len());
    for _ in 0..TRIES {
        if try_copy(memory, layout, &copy) {
            break;
        }
    }
    copy
}

/// Whether a time stamp is that of a sub-buffer which was made blank.
pub(super) fn is_blank(time_stamp: u64) -> bool {
    time_stamp == BLANK
}

/// Copies once. Returns whether something of each CPU that has something could be copied.
fn try_copy(memory: &impl Memory, layout: &Layout, copy: &HeapMemory) -> bool {
    let ring = layout.ring();
    let nr_cpus = 0..ring.nr_cpus();
    let stamps: Vec<Stamps> = nr_cpus
        .clone()
        .map(|cpu| Stamps::read(memory, ring, cpu))
        .collect();
    copy_range(memory, copy, 0, ring.meta_offset(0));
    for cpu in nr_cpus.clone() {
        let meta = ring.meta_offset(cpu);
        copy_range(memory, copy, meta, ring.subbuf_offset(cpu, 0));
    }
    copy_range(memory, copy, ring.size() as usize, memory.len());
    let mut was_lapped = false;
    for (cpu, stamps) in nr_cpus.zip(&stamps) {
        was_lapped |= !stamps.copy_subbufs(memory, ring, cpu, copy);
    }
    !was_lapped
}

/// Copies the bytes from `start` to `end`.
fn copy_range(memory: &impl Memory, copy: &HeapMemory, start: usize, end: usize) {
    let mut buffer = vec![0; SUBBUF_SIZE];
    let mut at = start;
    while at < end {
        let piece = &mut buffer[..(end - at).min(SUBBUF_SIZE)];
        memory.read(at, piece);
        copy.write(at, piece);
        at += piece.len();
    }
}

/// The time stamps of one CPU's sub-buffers before the copy.
struct Stamps {
    by_subbuf: Vec<u64>,
    newest: usize,
    /// What is older is not copied: between it and the newest one is missing.
    oldest: u64,
}

impl Stamps {
    fn read(memory: &impl Memory, ring: &Geometry, cpu: u32) -> Self {
        let n = ring.nr_subbufs() as usize;
        let stamp = |subbuf: usize| memory.load_u64_acquire(ring.subbuf_offset(cpu, subbuf as u32));
        let mut by_subbuf: Vec<u64> = (0..n).map(stamp).collect();
        let newest_of = |stamps: &[u64]| (0..n).max_by_key(|&i| stamps[i]).unwrap_or(0);
        // Against the writer's direction: if one is seen as begun, so are those before it.
        let start = newest_of(&by_subbuf) + n / 2;
        for i in 0..n {
            let subbuf = (start + n - i) % n;
            by_subbuf[subbuf] = stamp(subbuf);
        }
        let newest = newest_of(&by_subbuf);
        // Begun since it was looked at, but before the newest was.
        let is_missed = |&(i, now): &(usize, u64)| now != by_subbuf[i] && now < by_subbuf[newest];
        let now = (0..n).map(|i| (i, stamp(i))).filter(is_missed);
        let oldest = now.map(|(_, now)| now).max().unwrap_or(0);
        Self {
            by_subbuf,
            newest,
            oldest,
        }
    }

    /// Returns whether the newest sub-buffer was still there.
    fn copy_subbufs(
        &self,
        memory: &impl Memory,
        ring: &Geometry,
        cpu: u32,
        copy: &HeapMemory,
    ) -> bool {
        let mut data = [0; SUBBUF_SIZE - SUBBUF_HEADER];
        let mut is_newest_kept = true;
        let n = self.by_subbuf.len();
        for i in 0..n {
            let subbuf = (self.newest + n - i) % n;
            let before = self.by_subbuf[subbuf];
            let at = ring.subbuf_offset(cpu, subbuf as u32);
            let commit = memory.load_u64_acquire(at + 8);
            let is_used = before != 0 || commit != 0;
            if is_used {
                memory.read(at + SUBBUF_HEADER, &mut data);
            }
            fence(Ordering::Acquire);
            if memory.load_u64(at) != before || is_used && before < self.oldest {
                copy.store_u64(at, BLANK);
                copy.store_u64(at + 8, 0);
                is_newest_kept &= subbuf != self.newest;
            } else if is_used {
                copy.store_u64(at, before);
                copy.store_u64(at + 8, commit);
                copy.write(at + SUBBUF_HEADER, &data);
            }
        }
        is_newest_kept
    }
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};

    use outlive_ring::subbuf::Events;
    use outlive_ring::{Recovery, Region};

    use super::*;

    /// Memory in which a writer goes on for a while when a certain word is about to be loaded: what
    /// is copied before that is older than what is copied after it.
    struct Overtaken<'a, F> {
        memory: &'a HeapMemory,
        loads_before: Cell<Option<usize>>,
        write: RefCell<F>,
    }

    impl<F: FnMut()> Overtaken<'_, F> {
        fn load(&self) {
            match self.loads_before.get() {
                Some(0) => {
                    self.loads_before.set(None);
                    (self.write.borrow_mut())();
                }
                loads => self.loads_before.set(loads.map(|loads| loads - 1)),
            }
        }
    }

    impl<F: FnMut()> Memory for Overtaken<'_, F> {
        fn len(&self) -> usize {
            self.memory.len()
        }

        fn load_u32(&self, offset: usize) -> u32 {
            self.load();
            self.memory.load_u32(offset)
        }

        fn load_u64(&self, offset: usize) -> u64 {
            self.load();
            self.memory.load_u64(offset)
        }

        fn read(&self, offset: usize, out: &mut [u8]) {
            self.load();
            self.memory.read(offset, out);
        }
    }

    /// A writer goes on by a part of a sub-buffer up to more than two laps, before each of the words
    /// that are loaded for a copy.
    #[test]
    fn copy_of_a_busy_ring_is_whole_and_without_gaps_wherever_it_is_overtaken() {
        let ring = Geometry::new(40 << 10, 1).unwrap();
        let layout = Layout::new(&ring, 4096, 16);
        let (per_subbuf, len) = (10, 400);
        let lap = u64::from(ring.nr_subbufs()) * per_subbuf;
        for events in [
            1,
            per_subbuf,
            3 * per_subbuf,
            lap / 2,
            lap - 1,
            lap + per_subbuf,
            5 * lap / 2,
        ] {
            for loads_before in 0.. {
                let memory = HeapMemory::new(layout.area_size() as usize);
                let region = Region::format(&memory, ring, Some(layout)).unwrap();
                let mut writer = region.writer(0).unwrap();
                let mut numbers = 0u64..;
                let mut write = |events: u64| {
                    for number in numbers.by_ref().take(events as usize) {
                        let event = writer.reserve(len, 1000 + number).unwrap();
                        writer.write(&event, 0, &number.to_le_bytes());
                        writer.commit(event);
                    }
                };
                write(3 * lap / 2);
                let overtaken = Overtaken {
                    memory: &memory,
                    loads_before: Cell::new(Some(loads_before)),
                    write: RefCell::new(|| write(events)),
                };
                let copy = of(&overtaken, &layout);
                if overtaken.loads_before.get().is_some() {
                    break;
                }
                let entries = checked_entries(&copy);
                let is_little = events <= per_subbuf;
                assert!(entries >= if is_little { lap / 2 } else { 1 }, "{entries}");
            }
        }
    }

    fn checked_entries(copy: &HeapMemory) -> u64 {
        let recovery = Recovery::new(copy).unwrap();
        let cpu = recovery.cpu(0);
        assert!(recovery.is_whole(), "{:?} {:?}", cpu.rejected, cpu.damage);
        assert!(cpu.holes.is_empty(), "{:?}", cpu.holes);
        let mut expected = None;
        for page in &cpu.pages {
            let mut buffer = [0; SUBBUF_SIZE - SUBBUF_HEADER];
            let data = page.read(&recovery.geometry, copy, 0, &mut buffer);
            for event in Events::new(page.time_stamp, data) {
                let event = event.unwrap();
                let number = u64::from_le_bytes(event.payload[..8].try_into().unwrap());
                assert_eq!(event.time_stamp, 1000 + number);
                assert_eq!(expected.unwrap_or(number), number);
                expected = Some(number + 1);
            }
        }
        cpu.entries
    }
}
