//! Measures how many lines a second the text formatter writes.
//!
//! ```text
//! cargo run --release -p outlive-event --example text_speed
//! ```

use std::hint::black_box;
use std::time::Instant;

use outlive_event::{Catalog, CatalogError, EventFormat, Formatter, TextOptions};

const EVENTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/6.18.44/events");
const ROUNDS: u64 = 3_000_000;

fn main() -> Result<(), CatalogError> {
    let mut catalog = Catalog::from_events_dir(EVENTS)?;
    for pid in 1..2000 {
        catalog
            .tasks_mut()
            .set_comm(pid, format!("task/{pid}").as_bytes());
    }
    let mut raw = TextOptions::default();
    raw.raw_fields = true;
    for name in ["sched_switch", "sched_waking", "sched_stat_runtime"] {
        let Some(event) = catalog.find_event("sched", name) else {
            continue;
        };
        measure(name, &catalog, event, TextOptions::default());
    }
    for (system, name) in [
        ("irq", "softirq_entry"),
        ("timer", "timer_start"),
        ("timer", "hrtimer_start"),
    ] {
        let Some(event) = catalog.find_event(system, name) else {
            continue;
        };
        measure(name, &catalog, event, TextOptions::default());
    }
    if let Some(event) = catalog.find_event("sched", "sched_switch") {
        measure("sched_switch (fields)", &catalog, event, raw);
    }
    Ok(())
}

fn measure(label: &str, catalog: &Catalog, event: &EventFormat, options: TextOptions) {
    let mut payload = sample(event);
    let formatter = Formatter::new(catalog, options);
    let mut out = Vec::with_capacity(1 << 16);
    let mut bytes = 0;
    let start = Instant::now();
    for round in 0..ROUNDS {
        payload[4..8].copy_from_slice(&((round % 2000) as u32).to_le_bytes());
        formatter.record(
            &mut out,
            (round & 1) as u32,
            4_000_000_000 + round * 1700,
            &payload,
        );
        if out.len() > 60_000 {
            bytes += black_box(&out).len();
            out.clear();
        }
    }
    let seconds = start.elapsed().as_secs_f64();
    let lines = ROUNDS as f64 / seconds / 1e6;
    println!(
        "{label}: {lines:.2} million lines/s, {:.0} MB/s",
        bytes as f64 / seconds / 1e6
    );
}

/// A record with plausible values in every field.
fn sample(event: &EventFormat) -> Vec<u8> {
    let end = event
        .fields
        .iter()
        .map(|f| (f.offset + f.size) as usize)
        .max()
        .unwrap_or(8);
    let mut payload = vec![0; end];
    payload[..2].copy_from_slice(&event.id.to_le_bytes());
    payload[2..4].copy_from_slice(&[1, 2]);
    for field in &event.fields {
        let at = field.offset as usize;
        match (field.name.as_str(), field.size) {
            ("prev_state", 8) => payload[at] = 1,
            (_, 16) => payload[at..at + 11].copy_from_slice(b"rcu_preempt"),
            (_, 4) => payload[at..at + 4].copy_from_slice(&1234u32.to_le_bytes()),
            (_, 8) => payload[at..at + 8].copy_from_slice(&123_456_789_012u64.to_le_bytes()),
            _ => {}
        }
    }
    payload
}
