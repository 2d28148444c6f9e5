//! A format file and, behind a NUL, a record of such an event: whatever they are, a line comes out.
#![no_main]

use libfuzzer_sys::fuzz_target;
use outlive_event::{Catalog, Formatter, TextOptions};

fuzz_target!(|input: &[u8]| {
    let mut parts = input.splitn(2, |&byte| byte == 0);
    let Ok(text) = std::str::from_utf8(parts.next().unwrap_or_default()) else { return };
    let payload = parts.next().unwrap_or_default();
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
