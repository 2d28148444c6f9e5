//! Every event format of three kernels, and records of random bytes for all of them.

use std::path::Path;
use std::sync::LazyLock;

use outlive_event::{
    Catalog, CatalogRecord, EventFormat, Filter, FilterScope, Formatter, RecordKind, TextOptions,
    Value,
};
use proptest::prelude::*;

const DATA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data");
const KERNELS: [&str; 3] = ["6.12", "6.18.44", "7.3.4"];

fn read(kernel: &str) -> Catalog {
    Catalog::from_events_dir(format!("{DATA}/{kernel}/events")).unwrap()
}

static CATALOGS: LazyLock<Vec<Catalog>> = LazyLock::new(|| KERNELS.map(read).into());

#[test]
fn every_event_of_the_main_systems_is_evaluated() {
    for (catalog, kernel) in CATALOGS.iter().zip(KERNELS) {
        assert!(
            catalog.skipped_formats().is_empty(),
            "{:?}",
            catalog.skipped_formats()
        );
        for event in catalog.events() {
            if let Err(error) = event.program(catalog.constants()) {
                panic!("{kernel} {}:{}: {error}", event.system, event.name);
            }
        }
    }
}

#[test]
fn the_geometry_of_sub_buffers_is_read() {
    for catalog in CATALOGS.iter() {
        let page = catalog.header_page().unwrap();
        assert_eq!(
            (page.data_offset, page.data_size, page.commit_size),
            (16, 4080, 8)
        );
        assert!(
            catalog
                .header_event()
                .unwrap()
                .contains("data max type_len  == 28")
        );
    }
}

#[test]
fn every_format_of_this_machine_parses() {
    let path = Path::new("/sys/kernel/tracing/events");
    if std::fs::read_dir(path).is_err() {
        println!("skipped: {} cannot be read", path.display());
        return;
    }
    let catalog = Catalog::from_events_dir(path).unwrap();
    assert!(
        catalog.skipped_formats().is_empty(),
        "{:?}",
        catalog.skipped_formats()
    );
    let all = catalog.events().count();
    let skipped = catalog
        .events()
        .filter(|e| e.program(catalog.constants()).is_err())
        .count();
    println!("{all} events, {skipped} print formats not evaluated");
    assert!(
        skipped * 10 <= all,
        "{skipped} of {all} print formats are not evaluated"
    );
}

#[test]
fn symbols_of_a_record_are_found() {
    let catalog = &CATALOGS[2];
    let offsets = |system, name| catalog.find_event(system, name).unwrap().symbol_offsets();
    assert_eq!(offsets("timer", "hrtimer_expire_entry"), [24]);
    assert_eq!(offsets("workqueue", "workqueue_execute_start"), [16]);
    assert_eq!(offsets("ftrace", "print"), [8]);
    assert_eq!(offsets("ftrace", "function"), [8, 16]);
    assert_eq!(offsets("sched", "sched_switch"), []);
    let stack = catalog.find_event("ftrace", "kernel_stack").unwrap();
    assert_eq!(stack.stack_offset(), Some(16));
    let mut payload = vec![0; 16];
    payload.extend_from_slice(&7u64.to_le_bytes());
    payload.extend_from_slice(&8u64.to_le_bytes());
    payload.push(9);
    assert_eq!(stack.symbol_addresses(&payload).collect::<Vec<_>>(), [7, 8]);
}

#[test]
fn switch_records_name_both_tasks() {
    let event = CATALOGS[2].find_event("sched", "sched_switch").unwrap();
    let mut payload = vec![0; 64];
    payload[8..12].copy_from_slice(b"bash");
    payload[24..28].copy_from_slice(&42i32.to_le_bytes());
    payload[40..56].copy_from_slice(b"exactly16bytes!!");
    payload[56..60].copy_from_slice(&43i32.to_le_bytes());
    let names: Vec<_> = event.task_names(&payload).collect();
    assert_eq!(names, [(42, &b"bash"[..]), (43, b"exactly16bytes!")]);
    payload[24..28].copy_from_slice(&0i32.to_le_bytes());
    assert_eq!(
        event.task_names(&payload).count(),
        1,
        "the idle task is left out"
    );
}

/// Everything that can be done with a record.
fn use_record(catalog: &Catalog, payload: &[u8]) {
    let mut out = Vec::new();
    for raw_fields in [false, true] {
        let mut options = TextOptions::default();
        options.raw_fields = raw_fields;
        options.record_tgid = raw_fields;
        Formatter::new(catalog, options).record(&mut out, 0, 0, payload);
    }
    assert_eq!(out.last(), Some(&b'\n'));
    let formatter = Formatter::new(catalog, TextOptions::default());
    for (_, value) in formatter.fields(payload) {
        if let Value::Array(array) = value {
            array.iter().for_each(drop);
        }
    }
    if let Some(event) = formatter.event(payload) {
        event.task_names(payload).for_each(drop);
        event.symbol_addresses(payload).for_each(drop);
    }
}

fn kernel_and_event() -> impl Strategy<Value = (usize, u16)> {
    (0..KERNELS.len()).prop_flat_map(|kernel| {
        let ids: Vec<u16> = CATALOGS[kernel].events().map(|e| e.id).collect();
        (Just(kernel), prop::sample::select(ids))
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, ..ProptestConfig::default() })]

    #[test]
    fn records_of_random_bytes_never_panic(
        (kernel, id) in kernel_and_event(),
        mut payload in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        if payload.len() >= 2 {
            payload[..2].copy_from_slice(&id.to_le_bytes());
        }
        use_record(&CATALOGS[kernel], &payload);
    }

    #[test]
    fn mutated_format_files_never_panic(
        (kernel, id) in kernel_and_event(),
        edits in prop::collection::vec((any::<prop::sample::Index>(), 32u8..127), 1..8),
        cut in any::<prop::sample::Index>(),
        payload in prop::collection::vec(any::<u8>(), 8..100),
    ) {
        let event = CATALOGS[kernel].event(id).unwrap();
        let mut text = event.text.clone().into_bytes();
        for (at, byte) in edits {
            let at = at.index(text.len());
            text[at] = byte;
        }
        if payload[0] < 64 {
            text.truncate(cut.index(text.len()));
        }
        let text = String::from_utf8(text).unwrap();
        if let Ok(parsed) = EventFormat::parse(&event.system, &text) {
            let mut catalog = Catalog::new();
            catalog.add_format(&event.system, &text).unwrap();
            let mut payload = payload;
            payload[..2].copy_from_slice(&parsed.id.to_le_bytes());
            use_record(&catalog, &payload);
        }
    }

    #[test]
    fn random_catalog_records_never_panic(
        kind in 0u16..13,
        payload in prop::collection::vec(any::<u8>(), 0..64),
    ) {
        let _ = Catalog::new().apply(kind, &payload);
    }

    #[test]
    fn random_print_formats_never_panic(
        pieces in prop::collection::vec(prop::sample::select(FRAGMENTS.to_vec()), 0..30),
        payload in prop::collection::vec(any::<u8>(), 8..64),
    ) {
        let text = format!("{HEAD}print fmt: \"%d %s %*ph %-5.*s %pS\", {}\n", pieces.concat());
        let mut catalog = Catalog::new();
        catalog.add_format("t", &text).unwrap();
        let mut payload = payload;
        payload[..2].copy_from_slice(&7u16.to_le_bytes());
        use_record(&catalog, &payload);
    }

    #[test]
    fn random_filters_never_panic(
        pieces in prop::collection::vec(prop::sample::select(FILTER_FRAGMENTS.to_vec()), 0..20),
        rest in "\\PC{0,4}",
        payload in prop::collection::vec(any::<u8>(), 0..100),
    ) {
        let text = pieces.concat() + &rest;
        let catalog = &CATALOGS[2];
        let scope = FilterScope { symbols: catalog.symbols(), nr_cpus: 2 };
        let event = catalog.find_event("sched", "sched_switch").unwrap();
        match Filter::parse(&text).and_then(|filter| filter.compile(event, &scope)) {
            Ok(predicate) => drop(predicate.matches(&payload, 1, || [b'x'; 16])),
            Err(error) => prop_assert!(text.get(error.span).is_some()),
        }
    }

    #[test]
    fn catalog_records_read_back(
        system in "[a-z]{0,9}",
        text in "\\PC{0,80}",
        pid in any::<i32>(),
        address in any::<u64>(),
    ) {
        let records = [
            CatalogRecord::EventFormat { system: &system, text: &text },
            CatalogRecord::Symbol { address, size: 4, name: &text, module: &system },
            CatalogRecord::PrintkFormat { address, text: &text },
            CatalogRecord::TaskName { pid, comm: system.as_bytes() },
            CatalogRecord::Constant { name: &text, value: address },
        ];
        for record in records {
            let mut payload = Vec::new();
            record.encode(&mut payload);
            let kind = RecordKind::from_u16(record.kind() as u16).unwrap();
            prop_assert_eq!(CatalogRecord::decode(kind, &payload).unwrap(), record);
        }
    }
}

const HEAD: &str = "name: x\nID: 7\nformat:\n\
    \tfield:int a;\toffset:8;\tsize:4;\tsigned:1;\n\
    \tfield:__data_loc char[] s;\toffset:12;\tsize:4;\tsigned:0;\n\
    \tfield:u8 v[8];\toffset:16;\tsize:8;\tsigned:0;\n\n";

const FILTER_FRAGMENTS: &[&str] = &[
    "prev_prio",
    "next_comm",
    "CPU",
    "COMM",
    " == ",
    "!=",
    "<",
    "&",
    "~",
    "&&",
    "||",
    "!",
    "(",
    ")",
    "1",
    "-0x7f",
    "'a*[b-'",
    "\"",
    "CPUS{0-1}",
    ".function",
    ".ustring",
];

const FRAGMENTS: &[&str] = &[
    "REC->a",
    "REC->s",
    "REC->v",
    "__get_str(s)",
    "__get_dynamic_array_len(s)",
    "1",
    "-1",
    "0x7fffffff",
    "\"t\"",
    ", ",
    ", ",
    ", ",
    "+",
    "-",
    "*",
    "/",
    "%",
    "<<",
    ">>",
    "?",
    ":",
    "(",
    ")",
    "[",
    "]",
    "&",
    "!",
    "~",
    "(u64)",
    "(char *)",
    "sizeof(",
    "__print_flags(REC->a, \"|\", { 1, \"A\" })",
    "__print_symbolic(",
    "{ 1, \"A\" }",
    "__print_array(REC->v, 8, 1)",
    "__print_hex(REC->v, REC->a)",
];
