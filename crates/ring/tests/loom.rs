//! The writer beside a live reader, and writers beside each other, under the model checker: every
//! order of their stores and loads that the memory model allows, up to some preemptions, for a minute.
//!
//!     RUSTFLAGS="--cfg loom" cargo test --release -p outlive-ring --test loom
//!
//! `LOOM_MAX_PREEMPTIONS` and `LOOM_MAX_DURATION` (in seconds) look further. A run finds the loss of an
//! event within a second if the store of the zero commit word is not a release store.
//!
//! The ring is the smallest: two sub-buffers that are overwritten in turn. The checker knows the
//! words on which the protocol rests (head mark, head and commit buffer, and each sub-buffer's time
//! stamp, commit and first data); seals are left out, they carry no order.
#![allow(unexpected_cfgs, reason = "`loom` is set by RUSTFLAGS alone")]
#![cfg(loom)]

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU8, Ordering as StdOrdering};
use std::time::Duration;

use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::sync::atomic::{AtomicU64, Ordering};
use outlive_ring::extension::Layout;
use outlive_ring::layout::SUBBUF_HEADER;
use outlive_ring::{
    Barrier, Geometry, HeapMemory, Lanes, LiveReader, Memory, MemoryMut, Missed, Owner, Region,
    Slot, ThreadSlot,
};

const CPU: u32 = 0;
/// One event per sub-buffer: two do not fit.
const LEN: usize = 2100;

/// Memory of which the checker follows some words.
#[derive(Clone)]
struct Shared(Arc<CheckedMemory>);

struct CheckedMemory {
    words: BTreeMap<usize, AtomicU64>,
    /// The rest, which one thread alone looks at or which carries no order.
    others: Box<[AtomicU8]>,
}

impl Shared {
    /// Zeros.
    fn new(len: usize, words: &[usize]) -> Self {
        Self(Arc::new(CheckedMemory {
            words: words.iter().map(|&at| (at, AtomicU64::new(0))).collect(),
            others: (0..len).map(|_| AtomicU8::new(0)).collect(),
        }))
    }
}

impl Memory for Shared {
    fn len(&self) -> usize {
        self.0.others.len()
    }
    fn load_u32(&self, offset: usize) -> u32 {
        let mut bytes = [0; 4];
        self.read(offset, &mut bytes);
        u32::from_le_bytes(bytes)
    }
    fn load_u64(&self, offset: usize) -> u64 {
        if let Some(word) = self.0.words.get(&offset) {
            return word.load(Ordering::Relaxed);
        }
        let mut bytes = [0; 8];
        self.read(offset, &mut bytes);
        u64::from_le_bytes(bytes)
    }
    fn read(&self, offset: usize, out: &mut [u8]) {
        for (i, byte) in out.iter_mut().enumerate() {
            *byte = self.0.others[offset + i].load(StdOrdering::Relaxed);
        }
        let end = (offset + out.len()).saturating_sub(7).max(offset);
        for (&at, word) in self.0.words.range(offset..end) {
            let value = word.load(Ordering::Relaxed).to_le_bytes();
            out[at - offset..at - offset + 8].copy_from_slice(&value);
        }
    }
}

impl MemoryMut for Shared {
    fn store_u32(&self, offset: usize, value: u32) {
        self.write(offset, &value.to_le_bytes());
    }
    fn store_u64(&self, offset: usize, value: u64) {
        match self.0.words.get(&offset) {
            Some(word) => word.store(value, Ordering::Relaxed),
            None => self.write(offset, &value.to_le_bytes()),
        }
    }
    fn write(&self, offset: usize, bytes: &[u8]) {
        for (&at, word) in self
            .0
            .words
            .range(offset.saturating_sub(7)..offset + bytes.len())
        {
            // A part of a word: the writer is alone, so it may be put together.
            let mut value = word.load(Ordering::Relaxed).to_le_bytes();
            for (i, byte) in value.iter_mut().enumerate() {
                if let Some(new) = (at + i).checked_sub(offset).and_then(|i| bytes.get(i)) {
                    *byte = *new;
                }
            }
            word.store(u64::from_le_bytes(value), Ordering::Relaxed);
        }
        for (i, &byte) in bytes.iter().enumerate() {
            self.0.others[offset + i].store(byte, StdOrdering::Relaxed);
        }
    }
}

/// The layout of a ring of two sub-buffers, and the words that are checked.
fn ring() -> (Geometry, Layout, Vec<usize>) {
    let geometry = Geometry::new(24 << 10, 1).unwrap();
    let layout = Layout::new(&geometry, 0, 0);
    let meta = geometry.meta_offset(CPU);
    // The head mark is the seventh counter, two pages of run records, heartbeat and clock pairs on.
    let head_mark = geometry.size() as usize + 4 * 4096 + 6 * 8;
    let mut words = vec![head_mark, meta + 8, meta + 16];
    for subbuf in 1..3 {
        let page = geometry.subbuf_offset(CPU, subbuf);
        // Header, the record's two header words, and the first payload word.
        words.extend([
            page,
            page + 8,
            page + SUBBUF_HEADER,
            page + SUBBUF_HEADER + 8,
        ]);
    }
    (geometry, layout, words)
}

/// Writes events 1 to `last`, each with its number as time and payload.
fn write(region: &Region<Shared>, last: u64) {
    let mut writer = region.writer(CPU).unwrap();
    for id in 1..=last {
        let event = writer.reserve(LEN, id).unwrap();
        writer.write(&event, 0, &id.to_le_bytes());
        writer.commit(event);
    }
}

/// Reads until nothing is new; returns how many events were delivered or missed.
fn read(reader: &mut LiveReader<Shared>, mut told: u64) -> u64 {
    while let Some(chunk) = reader.next_chunk() {
        match chunk.missed {
            Some(Missed::Events(missed)) => told += missed,
            Some(Missed::Unknown) => panic!("losses are counted here"),
            None => {}
        }
        for event in chunk.events() {
            let event = event.expect("a proven copy has no bad record");
            told += 1;
            assert_eq!(event.time_stamp, told, "in order, and nothing twice");
            assert_eq!(event.payload[..8], told.to_le_bytes(), "not torn");
        }
    }
    told
}

#[test]
fn each_event_is_delivered_or_missed_and_never_torn() {
    const EVENTS: u64 = 4;
    let (geometry, layout, words) = ring();
    let mut model = loom::model::Builder::new();
    model.preemption_bound = model.preemption_bound.or(Some(2));
    model.max_duration = model.max_duration.or(Some(Duration::from_secs(60)));
    model.check(move || {
        let memory = Shared::new(layout.area_size() as usize, &words);
        let region = Region::format(memory.clone(), geometry, Some(layout)).unwrap();
        let mut reader = LiveReader::new(memory, geometry, Some(layout), CPU).unwrap();
        reader.resume();
        let writer = loom::thread::spawn(move || write(&region, EVENTS));
        let told = read(&mut reader, 0);
        writer.join().unwrap();
        assert_eq!(read(&mut reader, told), EVENTS);
    });
}

/// A thread's part of a model: the lanes, its place among their threads, and the lanes' cells, into which
/// it counts each time that it is inside of one. Returns how often that was.
type Part = fn(&Lanes<'static, HeapMemory>, &ThreadSlot<'static>, &Cells) -> usize;

/// Threads that do this beside each other, with so many lanes. Nobody is inside of a lane beside another
/// one, and whoever comes next sees what the last one did: the checker's cells tell.
///
/// The barrier is [`Barrier::Own`], a fence on both sides. That is what `membarrier` in one thread is to
/// the others that run: a full barrier at some place of theirs, which each may take to be the one between
/// its store and its load. What the compiler may do is not modelled.
fn lanes_are_exclusive(nr_lanes: u32, threads: usize, part: Part) {
    let geometry = Geometry::new(u64::from(nr_lanes) * (16 << 10) + (12 << 10), nr_lanes).unwrap();
    let mut model = loom::model::Builder::new();
    model.preemption_bound = model.preemption_bound.or(Some(3));
    model.max_duration = model.max_duration.or(Some(Duration::from_secs(60)));
    model.check(move || {
        let size = usize::try_from(geometry.size()).unwrap();
        let region = Region::format(HeapMemory::new(size), geometry, None).unwrap();
        let owners: Vec<_> = (0..nr_lanes).map(|_| Owner::default()).collect();
        let slots: Vec<_> = (0..threads).map(|_| Slot::default()).collect();
        let parts = Box::into_raw(Box::new((region, owners, slots)));
        // SAFETY: until all that borrows it is gone, at the end.
        let (region, owners, slots) = unsafe { &*parts };
        let cells: Vec<_> = (0..nr_lanes).map(|_| UnsafeCell::new(0usize)).collect();
        let lanes = Lanes::open(region, owners, slots, Barrier::Own);
        let shared = Arc::new((lanes, Cells(cells)));
        let threads: Vec<_> = (0..threads)
            .map(|_| {
                let shared = shared.clone();
                loom::thread::spawn(move || {
                    let (lanes, cells) = &*shared;
                    let thread = ThreadSlot::new();
                    let counted = part(lanes, &thread, cells);
                    lanes.leave(&thread);
                    counted
                })
            })
            .collect();
        let written: usize = threads.into_iter().map(|t| t.join().unwrap()).sum();
        let (_, cells) = &*shared;
        // SAFETY: the threads have ended.
        let counted: usize = cells
            .0
            .iter()
            .map(|cell| cell.with(|count| unsafe { *count }))
            .sum();
        assert_eq!(counted, written);
        drop(shared);
        // SAFETY: made of a box, and not borrowed any more.
        drop(unsafe { Box::from_raw(parts) });
    });
}

/// Cells of which the checker says who may look into them.
struct Cells(Vec<UnsafeCell<usize>>);

// SAFETY: that they are used by one thread at a time is what is tested.
unsafe impl Sync for Cells {}
// SAFETY: as above.
unsafe impl Send for Cells {}

impl Cells {
    /// Counts, with the lane for itself for as long as `f` takes.
    fn inside<R>(&self, lane: u32, f: impl FnOnce() -> R) -> R {
        self.0[lane as usize].with_mut(|count| {
            // SAFETY: that nobody else is here is what is tested.
            unsafe { *count += 1 };
            f()
        })
    }
}

/// Every other event begins a sub-buffer, so that the lane is given up.
fn write_long(
    lanes: &Lanes<'static, HeapMemory>,
    thread: &ThreadSlot<'static>,
    cells: &Cells,
) -> usize {
    let written = (0..2).filter(|_| {
        let Ok(mut inside) = lanes.enter(thread) else {
            return false;
        };
        inside.writer().record(&[0; LEN], 1).unwrap();
        cells.inside(inside.writer().cpu(), || true)
    });
    written.count()
}

/// As the recorder does: quickly, in the only lane, if it is the thread's own, else by the long way.
fn write_own(
    lanes: &Lanes<'static, HeapMemory>,
    thread: &ThreadSlot<'static>,
    cells: &Cells,
) -> usize {
    let mut counted = 0;
    for _ in 0..3 {
        let is_done = lanes.record_own(thread, &[0; 8], || {
            counted += 1;
            cells.inside(0, || 1)
        });
        if !is_done && let Ok(mut inside) = lanes.enter(thread) {
            counted += 1;
            cells
                .inside(0, || inside.writer().record(&[0; 8], 1))
                .unwrap();
        }
    }
    counted
}

/// Inside of its lane a signal handler of the thread comes, which writes too.
fn write_from_inside(
    lanes: &Lanes<'static, HeapMemory>,
    thread: &ThreadSlot<'static>,
    cells: &Cells,
) -> usize {
    let Ok(mut inside) = lanes.enter(thread) else {
        return 0;
    };
    let lane = inside.writer().cpu();
    let borrowed = cells.inside(lane, || {
        let Ok(mut borrowed) = lanes.enter(thread) else {
            return 0;
        };
        assert_ne!(borrowed.writer().cpu(), lane);
        let written = borrowed.writer().record(&[0; 8], 1);
        cells.inside(borrowed.writer().cpu(), || written).unwrap();
        1
    });
    inside.writer().record(&[0; 8], 1).unwrap();
    1 + borrowed
}

#[test]
fn two_threads_share_one_lane_and_neither_waits() {
    lanes_are_exclusive(1, 2, write_long);
}

#[test]
fn three_threads_share_two_lanes() {
    lanes_are_exclusive(2, 3, write_long);
}

#[test]
fn the_quick_way_into_a_lane_excludes_who_takes_it() {
    lanes_are_exclusive(1, 2, write_own);
}

#[test]
fn a_lane_is_borrowed_from_inside_of_another_one() {
    lanes_are_exclusive(2, 2, write_from_inside);
}
