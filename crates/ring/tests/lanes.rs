//! What of many threads' events stays in a region whose lanes take turns.

use outlive_ring::extension::Layout;
use outlive_ring::layout::SUBBUF_DATA;
use outlive_ring::{
    Barrier, Geometry, HeapMemory, Lanes, Owner, Recovery, Region, Slot, ThreadSlot,
};

mod support;

const LANES: u32 = 8;
/// A record of this many bytes, with its header.
const PAYLOAD: usize = 20;
const PER_SUBBUF: usize = SUBBUF_DATA / (PAYLOAD + 4);

/// Threads record in turn, each with its own number, so many events in all; before them so many others
/// record one event each, and no more. What a recovery keeps of the first, in the order of time: thread
/// and number of the event. A lane has `full` sub-buffers between two turns.
fn kept(full: usize, threads: &[u64], idle: usize, events: usize) -> Vec<(u64, u64)> {
    // And the reader's, which is never written, and the tail.
    let size = Geometry::size_for(LANES, full as u64 + 2);
    let geometry = Geometry::new(size, LANES).unwrap();
    let layout = Layout::new(&geometry, 0, 0);
    let memory = HeapMemory::new(layout.area_size() as usize);
    let region = Region::format(&memory, geometry, Some(layout)).unwrap();
    let owners: Vec<_> = (0..LANES).map(|_| Owner::default()).collect();
    let slots: Vec<_> = (0..threads.len() + idle).map(|_| Slot::default()).collect();
    let lanes = Lanes::open(&region, &owners, &slots, Barrier::Own);
    let places: Vec<_> = threads.iter().map(|_| ThreadSlot::new()).collect();
    let idle: Vec<_> = (0..idle).map(|_| ThreadSlot::new()).collect();
    for place in &idle {
        let mut lane = lanes.enter(place).unwrap();
        lane.writer().record(&[0; PAYLOAD], 1000).unwrap();
    }
    for number in 0..events as u64 {
        let which = (number % threads.len() as u64) as usize;
        let mut payload = [0; PAYLOAD];
        payload[4..12].copy_from_slice(&threads[which].to_le_bytes());
        payload[12..].copy_from_slice(&number.to_le_bytes());
        let time = 1000 + number;
        if !lanes.record_own(&places[which], &payload, || time) {
            let mut lane = lanes.enter(&places[which]).unwrap();
            lane.writer().record(&payload, time).unwrap();
        }
    }
    let recovery = Recovery::new(&memory).unwrap();
    assert!(recovery.is_whole());
    let word = |payload: &[u8], at: usize| {
        let word = payload[at..].first_chunk().unwrap();
        u64::from_le_bytes(*word)
    };
    let mut kept: Vec<_> = (0..LANES)
        .flat_map(|cpu| support::kept_events(&recovery, &memory, cpu))
        .map(|event| (word(&event.payload, 4), word(&event.payload, 12)))
        .filter(|(thread, _)| threads.contains(thread))
        .collect();
    kept.sort_by_key(|&(_, number)| number);
    kept
}

/// Also beside threads that keep a lane and record nothing more into it.
#[test]
fn one_thread_uses_all_of_the_region_that_is_not_anothers_but_half_a_lane() {
    for (full, idle) in [1, 2, 3, 10, 11]
        .map(|full| [0, 1, 3, 5].map(|idle| (full, idle)))
        .concat()
    {
        let lanes = LANES as usize - idle;
        let capacity = full * PER_SUBBUF * lanes;
        // Of an odd number there is no half.
        let turn = (full / 2).max(1);
        let sure = (full / turn * turn * lanes - turn) * PER_SUBBUF;
        for events in (0..12).map(|i| 3 * capacity + i * capacity / 5) {
            let kept = kept(full, &[7], idle, events);
            let newest = kept.iter().rev().map(|&(_, number)| number);
            let unbroken = (0..events as u64).rev().zip(newest);
            let unbroken = unbroken.take_while(|(expected, is)| expected == is).count();
            assert!(
                unbroken >= sure,
                "{full} each, {idle} idle: of {events} events the newest {unbroken}, {sure} are sure"
            );
        }
    }
}

#[test]
fn threads_share_the_region_by_what_they_record() {
    let full = 10;
    let capacity = full * PER_SUBBUF * LANES as usize;
    let kept = kept(full, &[7, 8], 0, 5 * capacity);
    for thread in [7, 8] {
        let of_thread = kept.iter().filter(|&&(of, _)| of == thread).count();
        assert!(
            of_thread >= capacity / 2 - full * PER_SUBBUF,
            "{of_thread} of {capacity}"
        );
    }
}
