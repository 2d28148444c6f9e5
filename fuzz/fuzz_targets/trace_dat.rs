//! `trace.dat`: any bytes are read or refused, in memory that does not depend on what they claim.
#![no_main]

use libfuzzer_sys::fuzz_target;
use outlive_import::Recording;

fuzz_target!(|input: &[u8]| {
    let Ok(recording) = Recording::from_trace_dat(&input) else {
        return;
    };
    for buffer in &recording.buffers {
        for (cpu, pages) in &buffer.cpus {
            let mut bytes = 0;
            let _ = pages.for_each(&input, buffer.page_size, &mut |page| bytes += page.len());
            assert!(*cpu < 8192);
        }
    }
});
