//! Format files and records of such an event: whatever they are, a line comes out.
#![no_main]

use libfuzzer_sys::fuzz_target;
use outlive_event::{Catalog, Formatter, TextOptions};

fuzz_target!(|input: (&str, &[u8])| {
    let (text, payload) = input;
    let mut catalog = Catalog::new();
    if catalog.add_format("fuzz", text).is_err() {
        return;
    }
    let Some(id) = catalog.events().next().map(|event| event.id) else { return };
    let mut record = id.to_le_bytes().to_vec();
    record.extend_from_slice(payload);
    let mut out = Vec::new();
    for raw_fields in [false, true] {
        let mut options = TextOptions::default();
        options.raw_fields = raw_fields;
        Formatter::new(&catalog, options).record(&mut out, 0, 0, &record);
    }
    assert_eq!(out.last(), Some(&b'\n'));
});
