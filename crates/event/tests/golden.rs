//! Texts of a 7.3.4 kernel against ours: a persistent buffer before and after a reset, and an
//! ordinary one with overruns. See `data/README.md`.

mod common;

use std::fs;

use common::{Record, walk};
use outlive_event::{Catalog, CatalogRecord, Formatter, HeaderCounts, TextOptions};

const DATA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/7.3.4");
const PRINT: u16 = 5;

fn records(folder: &str, cpus: u32) -> Vec<Record> {
    let mut all = Vec::new();
    for cpu in 0..cpus {
        let pages = fs::read(format!("{DATA}/{folder}/raw-cpu{cpu}.bin")).unwrap();
        for page in pages.chunks(4096) {
            walk(page, cpu, &mut all);
        }
    }
    all.sort_by_key(|r| r.ts);
    all
}

/// The formats of that kernel, and the one symbol that its texts contain.
fn catalog(records: &[Record]) -> Catalog {
    let mut catalog = Catalog::from_events_dir(format!("{DATA}/events")).unwrap();
    let print = records
        .iter()
        .find(|r| outlive_event::event_id(&r.payload) == Some(PRINT));
    let ip = print.and_then(|r| r.payload[8..].first_chunk()).unwrap();
    let symbol = CatalogRecord::Symbol {
        address: u64::from_le_bytes(*ip) & !0xfff,
        size: 0x1000,
        name: "tracing_mark_write",
        module: "",
    };
    catalog.apply_record(&symbol).unwrap();
    catalog
}

fn lines(catalog: &Catalog, options: TextOptions, records: &[Record]) -> Vec<String> {
    let formatter = Formatter::new(catalog, options);
    let mut out = Vec::new();
    for record in records {
        formatter.record(&mut out, record.cpu, record.ts, &record.payload);
    }
    String::from_utf8(out)
        .unwrap()
        .lines()
        .map(str::to_owned)
        .collect()
}

#[test]
fn records_of_the_previous_boot_print_from_their_fields() {
    let expected = fs::read_to_string(format!("{DATA}/region/fields.txt")).unwrap();
    let records = records("region", 2);
    let mut options = TextOptions::default();
    options.raw_fields = true;
    let ours = lines(&catalog(&records), options, &records);
    assert!(ours.len() >= expected.lines().count());
    for (ours, kernel) in ours.iter().zip(expected.lines()) {
        assert_eq!(ours, kernel);
    }
}

#[test]
fn records_of_the_live_instance_print_by_their_print_format() {
    let expected = fs::read_to_string(format!("{DATA}/region/print-fmt.txt")).unwrap();
    let records = records("region", 2);
    let consumed = 21;
    let catalog = catalog(&records);
    let ours = lines(&catalog, TextOptions::default(), &records[consumed..]);
    for (ours, kernel) in ours.iter().zip(expected.lines()) {
        assert_eq!(ours[16..], kernel[16..]);
    }
    assert!(ours.len() >= expected.lines().count());
}

#[test]
fn names_in_the_records_name_the_tasks_of_the_text() {
    let expected = fs::read_to_string(format!("{DATA}/region/print-fmt.txt")).unwrap();
    let records = records("region", 2);
    let mut catalog = catalog(&records);
    let mut names = Vec::new();
    for record in &records {
        let id = outlive_event::event_id(&record.payload).unwrap();
        let event = catalog.event(id).unwrap();
        names.extend(
            event
                .task_names(&record.payload)
                .map(|(pid, c)| (pid, c.to_vec())),
        );
    }
    names
        .iter()
        .for_each(|(pid, comm)| catalog.tasks_mut().set_comm(*pid, comm));
    let ours = lines(&catalog, TextOptions::default(), &records[21..]);
    let unnamed = ours
        .iter()
        .take(expected.lines().count())
        .filter(|l| l.contains("<...>"));
    assert_eq!(unnamed.count(), 0);
    assert_eq!(catalog.tasks().comm(16), Some(&b"rcu_preempt"[..]));
}

#[test]
fn the_whole_text_of_a_buffer_with_overruns_is_equal() {
    let expected = fs::read_to_string(format!("{DATA}/overrun/trace.txt")).unwrap();
    let records = records("overrun", 1);
    let catalog = catalog(&records);
    let formatter = Formatter::new(&catalog, TextOptions::default());
    let mut out = Vec::new();
    let entries = records.len() as u64;
    formatter.header(
        &mut out,
        &HeaderCounts {
            entries,
            written: 300,
            cpus: Some(1),
        },
    );
    for record in &records {
        formatter.record(&mut out, record.cpu, record.ts, &record.payload);
    }
    assert_eq!(String::from_utf8(out).unwrap(), expected);
}
