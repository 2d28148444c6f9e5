//! A print format over a fixed set of fields and, behind a NUL, a record; which is a catalog record
//! too.
#![no_main]

use libfuzzer_sys::fuzz_target;
use outlive_event::{Catalog, Formatter, TextOptions};

const FIELDS: &str = "name: fuzz\nID: 500\nformat:\n\
    \tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;\n\
    \tfield:unsigned char common_flags;\toffset:2;\tsize:1;\tsigned:0;\n\
    \tfield:unsigned char common_preempt_count;\toffset:3;\tsize:1;\tsigned:0;\n\
    \tfield:int common_pid;\toffset:4;\tsize:4;\tsigned:1;\n\n\
    \tfield:int a;\toffset:8;\tsize:4;\tsigned:1;\n\
    \tfield:unsigned long b;\toffset:16;\tsize:8;\tsigned:0;\n\
    \tfield:char c[16];\toffset:24;\tsize:16;\tsigned:0;\n\
    \tfield:__data_loc char[] d;\toffset:40;\tsize:4;\tsigned:0;\n\
    \tfield:__rel_loc u32[] e;\toffset:44;\tsize:4;\tsigned:0;\n\
    \tfield:u8 f[4];\toffset:48;\tsize:4;\tsigned:0;\n\nprint fmt: ";

fuzz_target!(|input: &[u8]| {
    let mut parts = input.splitn(2, |&byte| byte == 0);
    let Ok(print_fmt) = std::str::from_utf8(parts.next().unwrap_or_default()) else { return };
    let payload = parts.next().unwrap_or_default();
    let mut catalog = Catalog::new();
    let _ = catalog.add_format("fuzz", &format!("{FIELDS}{print_fmt}\n"));
    if let Some((&kind, record)) = payload.split_first() {
        let _ = catalog.apply(u16::from(kind % 12), record);
    }
    let mut bytes = 500u16.to_le_bytes().to_vec();
    bytes.extend_from_slice(payload);
    let mut out = Vec::new();
    Formatter::new(&catalog, TextOptions::default()).record(&mut out, 1, 1, &bytes);
    assert_eq!(out.last(), Some(&b'\n'));
});
