//! The records of a sub-buffer: any bytes end, and every event lies inside them.
#![no_main]

use libfuzzer_sys::fuzz_target;
use outlive_ring::Events;
use outlive_ring::subbuf::{Commit, walk};

fuzz_target!(|input: (u64, u64, &[u8])| {
    let (time_stamp, commit, data) = input;
    let mut bytes = 0;
    let mut events = Events::new(time_stamp, data);
    while let Some(Ok(event)) = events.next() {
        bytes += event.payload.len();
    }
    assert!(bytes <= data.len() && events.position().offset <= data.len());
    let summary = walk(time_stamp, data);
    assert!(summary.size <= data.len() && summary.entries as usize <= data.len() / 8);
    let _ = Commit(commit).missed(data);
});
