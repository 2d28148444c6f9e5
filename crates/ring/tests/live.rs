//! A reader beside a writer that runs at full speed: what was written is delivered once and in order,
//! or counted as missed.

use std::sync::atomic::{AtomicBool, Ordering};

use outlive_ring::extension::{Counters, Layout};
use outlive_ring::{Geometry, HeapMemory, LiveReader, Missed, Recovery, Region};

const CPU: u32 = 0;

fn ring(pages: u64) -> (HeapMemory, Geometry, Layout) {
    let geometry = Geometry::new((pages + 3) * 4096, 1).unwrap();
    let layout = Layout::new(&geometry, 0, 0);
    (
        HeapMemory::new(layout.area_size() as usize),
        geometry,
        layout,
    )
}

/// What a reader was told: each event once and in order, or that it was missed.
#[derive(Debug, Default)]
struct Told {
    delivered: u64,
    missed: u64,
}

impl Told {
    /// Takes one chunk; returns how many events it had, or `None` if there was none.
    fn take(&mut self, reader: &mut LiveReader<&HeapMemory>) -> Option<u64> {
        let chunk = reader.next_chunk()?;
        match chunk.missed {
            Some(Missed::Events(missed)) => self.missed += missed,
            Some(Missed::Unknown) => panic!("losses are counted here"),
            None => {}
        }
        let mut events = 0;
        for event in chunk.events() {
            let event = event.expect("a proven copy has no bad record");
            let id = u64::from_le_bytes(event.payload[..8].try_into().unwrap());
            assert_eq!(
                id,
                self.delivered + self.missed,
                "in order, and nothing twice"
            );
            assert_eq!(event.time_stamp, time_of(id));
            assert!(
                event.payload[8..len_of(id)]
                    .iter()
                    .all(|&byte| byte == id as u8)
            );
            self.delivered += 1;
            events += 1;
        }
        Some(events)
    }
}

/// Times that need an extend now and then.
fn time_of(id: u64) -> u64 {
    1 + id * 10 + ((id / 1000) << 28)
}

fn len_of(id: u64) -> usize {
    8 + (id * 37 % 301) as usize
}

/// Writes events with their number, some of them nested, some discarded.
fn write(region: &Region<&HeapMemory>, events: u64) {
    let mut writer = region.writer(CPU).unwrap();
    let mut payload = [0; 512];
    let mut id = 0;
    while id < events {
        let mut reserve = |writer: &mut outlive_ring::CpuWriter<'_, _>, id: u64| {
            let event = writer.reserve(len_of(id), time_of(id)).unwrap();
            payload[..8].copy_from_slice(&id.to_le_bytes());
            payload[8..].fill(id as u8);
            writer.write(&event, 0, &payload[..len_of(id)]);
            event
        };
        let outer = reserve(&mut writer, id);
        id += 1;
        if id % 5 == 0 {
            let inner = reserve(&mut writer, id);
            id += 1;
            writer.commit(inner);
        }
        if id % 7 == 0 {
            let inner = reserve(&mut writer, id);
            writer.discard(inner);
        }
        writer.commit(outer);
    }
}

fn read_beside_a_writer(pages: u64, events: u64, mut pause: impl FnMut(u64)) -> Told {
    let (memory, geometry, layout) = ring(pages);
    let region = Region::format(&memory, geometry, Some(layout)).unwrap();
    let done = AtomicBool::new(false);
    let mut told = Told::default();
    let mut reader = LiveReader::new(&memory, geometry, Some(layout), CPU).unwrap();
    // In the ring before the first event: it misses none that it does not count.
    assert!(told.take(&mut reader).is_none());
    std::thread::scope(|scope| {
        scope.spawn(|| {
            write(&region, events);
            done.store(true, Ordering::Release);
        });
        loop {
            let was_done = done.load(Ordering::Acquire);
            if told.take(&mut reader).is_none() {
                if was_done {
                    break;
                }
                std::thread::yield_now();
            }
            pause(told.delivered);
        }
    });
    let written = told.delivered + told.missed;
    assert!(written == events || written == events + 1, "{told:?}");
    told
}

#[test]
fn a_fast_writer_laps_the_reader_and_each_event_is_delivered_or_missed() {
    for pages in [3, 4, 9, 200] {
        let told = read_beside_a_writer(pages, 200_000, |_| ());
        assert!(told.delivered > 0, "{pages} pages: {told:?}");
    }
}

#[test]
fn a_slow_reader_of_a_tiny_ring_misses_most_and_counts_it() {
    let told = read_beside_a_writer(3, 200_000, |delivered| {
        if delivered % 16 == 0 {
            std::thread::sleep(std::time::Duration::from_micros(200));
        }
    });
    assert!(told.missed > told.delivered, "{told:?}");
}

/// Each reader consumes some chunks and is gone; the next one goes on behind what was consumed.
#[test]
fn consuming_readers_go_on_where_the_last_one_stopped() {
    const EVENTS: u64 = 300_000;
    for pages in [3, 12, 300] {
        let (memory, geometry, layout) = ring(pages);
        let region = Region::format(&memory, geometry, Some(layout)).unwrap();
        let done = AtomicBool::new(false);
        let mut told = Told::default();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                write(&region, EVENTS);
                done.store(true, Ordering::Release);
            });
            let mut is_over = false;
            for life in 0.. {
                let mut reader = LiveReader::new(&memory, geometry, Some(layout), CPU).unwrap();
                reader.resume();
                for _ in 0..life % 7 {
                    let was_done = done.load(Ordering::Acquire);
                    match told.take(&mut reader) {
                        Some(events) => reader.consume(events),
                        None => is_over |= was_done,
                    }
                }
                if is_over {
                    break;
                }
            }
        });
        let written = told.delivered + told.missed;
        assert!(written == EVENTS || written == EVENTS + 1, "{told:?}");
        let counters = Counters::load(&layout, &memory, CPU);
        assert_eq!(counters.read, told.delivered);
    }
}

/// A reader that is killed before it consumed what it was given is given it again.
#[test]
fn what_was_read_and_not_consumed_comes_again() {
    let (memory, geometry, layout) = ring(20);
    let region = Region::format(&memory, geometry, Some(layout)).unwrap();
    write(&region, 200);
    let open = || {
        let mut reader = LiveReader::new(&memory, geometry, Some(layout), CPU).unwrap();
        reader.resume();
        reader
    };
    let mut told = Told::default();
    let mut reader = open();
    let first = told.take(&mut reader).unwrap();
    reader.consume(first);
    told.take(&mut reader).unwrap();
    let mut again = Told {
        delivered: first,
        missed: 0,
    };
    let mut reader = open();
    while again.take(&mut reader).is_some() {}
    assert!(again.delivered >= 200, "{again:?}");
}

/// The mark of a loss stays with its place, also if what came first behind it was discarded.
#[test]
fn losses_are_told_before_the_next_event() {
    let (memory, geometry, layout) = ring(20);
    let region = Region::format(&memory, geometry, Some(layout)).unwrap();
    let mut writer = region.writer(CPU).unwrap();
    let mut reader = LiveReader::new(&memory, geometry, Some(layout), CPU).unwrap();
    let mut event = |len: usize, now: u64, keep: bool| {
        let event = writer.reserve(len, now).unwrap();
        match keep {
            true => writer.commit(event),
            false => writer.discard(event),
        }
    };
    event(8, 1, true);
    assert_eq!(reader.next_chunk().unwrap().missed, None);
    writer.lost(Missed::Events(7));
    let mut event = |len: usize, now: u64, keep: bool| {
        let event = writer.reserve(len, now).unwrap();
        match keep {
            true => writer.commit(event),
            false => writer.discard(event),
        }
    };
    event(8, 2, false);
    assert!(reader.next_chunk().is_none());
    event(4072, 1 << 40, true);
    let chunk = reader.next_chunk().unwrap();
    assert_eq!(chunk.missed, Some(Missed::Events(7)));
    assert_eq!(chunk.events().next().unwrap().unwrap().time_stamp, 1 << 40);
    let recovery = Recovery::new(&memory).unwrap();
    assert_eq!(recovery.cpu(CPU).entries, 2);
    assert_eq!(recovery.cpu(CPU).holes.len(), 1);
    assert_eq!(recovery.cpu(CPU).holes[0].missed, Missed::Events(7));
}

/// Without an extension nobody counts: the loss is told without a number.
#[test]
fn a_lapped_reader_of_a_bare_ring_says_that_it_missed_events() {
    let geometry = Geometry::new(7 * 4096, 1).unwrap();
    let memory = HeapMemory::new(geometry.size() as usize);
    let region = Region::format(&memory, geometry, None).unwrap();
    let mut writer = region.writer(CPU).unwrap();
    let mut reader = LiveReader::new(&memory, geometry, None, CPU).unwrap();
    assert!(reader.next_chunk().is_none());
    for i in 0..100 {
        let event = writer.reserve(1000, 1 + i).unwrap();
        writer.commit(event);
        if i == 0 {
            assert_eq!(reader.next_chunk().unwrap().missed, None);
        }
    }
    assert_eq!(reader.next_chunk().unwrap().missed, Some(Missed::Unknown));
}
