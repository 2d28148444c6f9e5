//! Images of memory: the headers of an ELF core, and regions in it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use outlive_import::{Segment, load_segments, memory};

fuzz_target!(|input: &[u8]| {
    let len = input.len() as u64;
    let whole = Segment {
        offset: 0,
        len,
        missing: 0,
        address: 0,
    };
    let segments = load_segments(&input).unwrap_or(vec![whole]);
    for segment in &segments {
        assert!(segment.offset <= len && segment.len <= len - segment.offset);
    }
    for region in memory::find(&input, &segments).unwrap_or_default().regions {
        assert!(region.offset <= len && region.len <= len - region.offset);
    }
});
