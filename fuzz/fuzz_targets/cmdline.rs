//! Command lines: every span lies in the text, between characters.
#![no_main]

use libfuzzer_sys::fuzz_target;
use outlive_trace::cmdline::{CommandLine, EventToken};

fuzz_target!(|text: &str| {
    for parsed in [CommandLine::parse(text), CommandLine::parse_file(text)] {
        for diagnostic in &parsed.diagnostics {
            assert!(text.get(diagnostic.span.clone()).is_some());
        }
        for instance in &parsed.instances {
            assert!(text.get(instance.span.clone()).is_some() && !instance.name.contains('/'));
        }
        let _ = parsed.creation_order();
    }
    if let Ok(token) = EventToken::new(text) {
        let _ = token.matches("sched", "sched_switch");
    }
});
