//! Recording an event in one go stores what reserving, writing and committing it stores.

use outlive_ring::extension::Layout;
use outlive_ring::subbuf::PAYLOAD_MAX;
use outlive_ring::{CpuWriter, Geometry, HeapMemory, Recovery, Region};
use proptest::prelude::*;

/// Lengths as they come, and times that stand still, go on, go back, or are far away.
fn events() -> impl Strategy<Value = Vec<(Vec<u8>, u64)>> {
    let len = prop_oneof![8 => 0..40usize, 2 => 100..130usize, 1 => 0..=PAYLOAD_MAX];
    let payload = len.prop_flat_map(|len| prop::collection::vec(any::<u8>(), len));
    let time = prop_oneof![8 => 0..1000u64, 2 => Just(0), 1 => 0..1u64 << 40];
    prop::collection::vec((payload, time), 0..200)
}

fn write(
    events: &[(Vec<u8>, u64)],
    mut record: impl FnMut(&mut CpuWriter<'_, &HeapMemory>, &[u8], u64),
) -> Vec<u8> {
    let geometry = Geometry::new(40 << 10, 1).unwrap();
    let layout = Layout::new(&geometry, 0, 0);
    let memory = HeapMemory::new(layout.area_size() as usize);
    let region = Region::format(&memory, geometry, Some(layout)).unwrap();
    let mut writer = region.writer(0).unwrap();
    let mut now = 1000u64;
    for (i, (payload, step)) in events.iter().enumerate() {
        // Now and then the clock is behind.
        let time = if i % 7 == 3 {
            now.saturating_sub(*step)
        } else {
            now + step
        };
        now = now.max(time);
        record(&mut writer, payload, time);
    }
    assert!(Recovery::new(&memory).unwrap().is_whole());
    memory.to_vec()
}

proptest! {
    #[test]
    fn an_event_in_one_go_is_the_event_in_steps(events in events()) {
        let in_one_go = write(&events, |writer, payload, now| {
            writer.record(payload, now).unwrap();
        });
        let in_steps = write(&events, |writer, payload, now| {
            let event = writer.reserve(payload.len(), now).unwrap();
            let mut padded = payload.to_vec();
            padded.resize(event.capacity(), 0);
            writer.write(&event, 0, &padded);
            writer.commit(event);
        });
        prop_assert!(in_one_go == in_steps);
    }
}
