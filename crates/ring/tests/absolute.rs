//! Records with absolute time stamps, as a kernel writes them where it cannot know a delta, read back.

use outlive_ring::extension::Layout;
use outlive_ring::layout::SUBBUF_DATA;
use outlive_ring::subbuf::{Events, absolute_time_stamp};
use outlive_ring::{Geometry, HeapMemory, LiveReader, Recovery, Region};
use proptest::prelude::*;

mod support;

/// An event, and whether its time stands before it or in its delta.
#[derive(Debug, Clone)]
struct Planned {
    step: u64,
    is_absolute: bool,
    words: usize,
}

/// Steps of up to so many bits; a delta has 27.
fn planned(bits: u32) -> impl Strategy<Value = Vec<Planned>> {
    let step = prop_oneof![4 => 0..1u64 << 20, 1 => 0..1u64 << 27, 1 => 0..1u64 << bits];
    let event = (step, any::<bool>(), 1..40usize);
    let event = event.prop_map(|(step, is_absolute, words)| Planned {
        step,
        is_absolute: is_absolute || step >= 1 << 27,
        words,
    });
    prop::collection::vec(event, 1..300)
}

/// The records of an event at `time`, whose payload is its number.
fn records(event: &Planned, time: u64, number: u32) -> Vec<u8> {
    let (mut records, delta) = match event.is_absolute {
        true => (absolute_time_stamp(time).to_vec(), 0),
        false => (Vec::new(), event.step as u32),
    };
    let bytes = 4 * event.words as u32;
    match event.words {
        words @ 1..=28 => records.extend((words as u32 | delta << 5).to_le_bytes()),
        _ => {
            records.extend((delta << 5).to_le_bytes());
            records.extend((bytes + 4).to_le_bytes());
        }
    }
    records.extend(number.to_le_bytes().repeat(event.words));
    records
}

type Expected = Vec<(u64, usize, u32)>;

/// The sub-buffers of events that begin behind `start`: the time of each, and its records.
fn subbufs(start: u64, planned: &[Planned]) -> (Vec<(u64, Vec<u8>)>, Expected) {
    let mut subbufs = vec![(start, Vec::new())];
    let (mut time, mut expected) = (start, Vec::new());
    for (event, number) in planned.iter().zip(0..) {
        let before = time;
        time += event.step;
        let records = records(event, time, number);
        let (_, last) = subbufs.last_mut().unwrap();
        match last.len() + records.len() <= SUBBUF_DATA {
            true => last.extend(records),
            false => subbufs.push((before, records)),
        }
        expected.push((time, 4 * event.words, number));
    }
    (subbufs, expected)
}

fn read(time_stamp: u64, data: &[u8]) -> impl Iterator<Item = (u64, usize, u32)> {
    Events::new(time_stamp, data).map(|event| {
        let event = event.unwrap();
        let number = u32::from_le_bytes(*event.payload.first_chunk().unwrap());
        assert_eq!(event.text_time_stamp, event.time_stamp);
        (event.time_stamp, event.payload.len(), number)
    })
}

proptest! {
    /// Also beyond the 59 bits that a record holds.
    #[test]
    fn absolute_times_are_read_as_they_were_written(
        start in prop_oneof![0..1u64 << 50, (1u64 << 59)..1 << 62],
        planned in planned(50),
    ) {
        let (subbufs, expected) = subbufs(start, &planned);
        let read: Expected = subbufs
            .iter()
            .flat_map(|(time_stamp, data)| read(*time_stamp, data))
            .collect();
        prop_assert_eq!(read, expected);
    }

    #[test]
    fn absolute_times_in_a_region_are_recovered_and_followed(planned in planned(40)) {
        let geometry = Geometry::new(256 << 10, 1).unwrap();
        let layout = Layout::new(&geometry, 0, 0);
        let memory = HeapMemory::new(layout.area_size() as usize);
        let region = Region::format(&memory, geometry, Some(layout)).unwrap();
        let mut reader = LiveReader::new(&memory, geometry, Some(layout), 0).unwrap();
        let (subbufs, expected) = subbufs(1000, &planned);
        let mut writer = region.writer(0).unwrap();
        for (time_stamp, records) in &subbufs {
            writer.begin(*time_stamp).unwrap();
            writer.append(records, |_| ()).unwrap();
        }
        let recovery = Recovery::new(&memory).unwrap();
        prop_assert!(recovery.is_whole());
        let kept = support::kept_events(&recovery, &memory, 0).into_iter();
        let kept = kept.map(|event| {
            let number = u32::from_le_bytes(*event.payload.first_chunk().unwrap());
            (event.time_stamp, event.payload.len(), number)
        });
        prop_assert!(kept.eq(expected.iter().copied()));
        let mut followed = Expected::new();
        while let Some(chunk) = reader.next_chunk() {
            prop_assert_eq!(chunk.missed, None);
            followed.extend(chunk.events().map(|event| {
                let event = event.unwrap();
                let number = u32::from_le_bytes(*event.payload.first_chunk().unwrap());
                (event.time_stamp, event.payload.len(), number)
            }));
        }
        prop_assert_eq!(followed, expected);
    }
}
