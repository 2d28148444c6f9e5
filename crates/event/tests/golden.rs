//! Texts of a 7.3.4 kernel against ours: a persistent buffer before and after a reset, and an
//! ordinary one with overruns. See `data/README.md`.

mod common;

use std::fs;

use common::{Record, walk};
use outlive_event::{Catalog, CatalogRecord, Formatter, HeaderCounts, HeaderPage, TextOptions};

const DATA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/7.3.4");
/// What the project has of that kernel, beside what is this crate's own.
const FIXTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures");
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

/// The records of `9-text-formats.txt`, from the numbers of its `raw` part: CPU, time and payload.
fn records_of_all_options() -> Vec<Record> {
    let record = |ts, cpu, id: u16, flags: [u8; 2], pid: i32, rest: &[u8]| Record {
        ts,
        cpu,
        payload: [&id.to_le_bytes()[..], &flags, &pid.to_le_bytes(), rest].concat(),
    };
    let comm = |name: &[u8]| {
        let mut comm = name.to_vec();
        comm.resize(16, 0);
        comm
    };
    let switch = |prev: (&[u8], i32, u64), next: (&[u8], i32)| {
        let prio = 120_i32.to_le_bytes();
        [
            comm(prev.0),
            prev.1.to_le_bytes().to_vec(),
            prio.to_vec(),
            prev.2.to_le_bytes().to_vec(),
            comm(next.0),
            next.1.to_le_bytes().to_vec(),
            prio.to_vec(),
        ]
        .concat()
    };
    let marker = [&0xffff_ffff_97b0_d7c6_u64.to_le_bytes()[..], b"x\n\0\0"].concat();
    let raw = [&0x0101_0105_u32.to_le_bytes()[..], b"abcdefg\0"].concat();
    let to_rcu = switch((b"swapper/1", 0, 0), (b"rcu_preempt", 15));
    let from_rcu = switch((b"rcu_preempt", 15, 0x80), (b"swapper/1", 0));
    vec![
        record(4_085_643_703, 0, PRINT, [0, 1], 1, &marker),
        record(4_101_690_920, 1, 19, [0, 1], 141, &raw),
        record(4_113_104_964, 1, 310, [1, 2], 0, &to_rcu),
        record(4_113_757_106, 1, 310, [1, 2], 15, &from_rcu),
    ]
}

/// Under each display option that is also ours. The others are those of a kernel's own tools: raw, hex,
/// latency-format, and no context-info or irq-info.
#[test]
fn records_print_as_the_kernel_prints_them_under_each_option() {
    let expected = fs::read_to_string(format!("{FIXTURES}/golden/9-text-formats.txt")).unwrap();
    let part = |name: &str| {
        let (_, part) = expected.split_once(&format!("--{name}\n")).unwrap();
        let part = part.split("\n--").next().unwrap();
        part.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    let mut catalog = Catalog::from_events_dir(format!("{FIXTURES}/7.3.4-2cpu-1M/events")).unwrap();
    let symbol = CatalogRecord::Symbol {
        address: 0xffff_ffff_97b0_d7c6 - 0x76,
        size: 0x140,
        name: "tracing_mark_write",
        module: "",
    };
    catalog.apply_record(&symbol).unwrap();
    for (pid, comm) in [(1, &b"sh"[..]), (15, b"rcu_preempt")] {
        catalog.tasks_mut().set_comm(pid, comm);
    }
    let records = records_of_all_options();
    let ours = |set: fn(&mut TextOptions)| {
        let mut options = TextOptions::default();
        set(&mut options);
        lines(&catalog, options, &records)
    };
    assert_eq!(ours(|_| ()), part("none"));
    assert_eq!(ours(|_| ()), part("verbose"));
    assert_eq!(ours(|o| o.sym_offset = true), part("sym-offset"));
    assert_eq!(ours(|o| o.sym_addr = true), part("sym-addr")[..4]);
    // Static events have no fields in the kernel's text, and keep their own form in ours.
    assert_eq!(ours(|o| o.raw_fields = true)[2..], part("fields")[2..]);

    let with_tgid = part("record-tgid");
    assert_eq!(ours(|o| o.record_tgid = true), with_tgid[..4]);
    let mut options = TextOptions::default();
    options.record_tgid = true;
    let (mut header, formatter) = (Vec::new(), Formatter::new(&catalog, options));
    let counts = HeaderCounts {
        entries: 78,
        written: 78,
        cpus: Some(2),
    };
    formatter.header(&mut header, &counts);
    let header = String::from_utf8(header).unwrap();
    let end = with_tgid.len() - 2;
    assert_eq!(header.lines().collect::<Vec<_>>(), with_tgid[4..end]);
}

#[test]
fn geometry_of_sub_buffers_is_what_header_page_says() {
    let text = fs::read_to_string(format!("{FIXTURES}/golden/0-header_page.txt")).unwrap();
    let page = HeaderPage::parse(&text);
    assert_eq!((page.commit_offset, page.commit_size), (8, 8));
    assert_eq!((page.data_offset, page.data_size), (16, 4080));
}
