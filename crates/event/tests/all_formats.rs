//! Every event format of seven kernels, those of their modules included: parsed, compiled, and
//! evaluated on records of made-up bytes.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io::Read;
use std::sync::LazyLock;

use flate2::read::GzDecoder;
use outlive_event::{Catalog, EventFormat, FieldKind, Formatter, Reason, TextOptions};
use proptest::prelude::*;

const DATA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/formats.txt.gz");
const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/print-formats.md");
/// The first id that is no static event's.
const FIRST_ID: u16 = 30;
/// What every format has before its own fields; the file leaves it out.
const COMMON: &str = "\
\tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;
\tfield:unsigned char common_flags;\toffset:2;\tsize:1;\tsigned:0;
\tfield:unsigned char common_preempt_count;\toffset:3;\tsize:1;\tsigned:0;
\tfield:int common_pid;\toffset:4;\tsize:4;\tsigned:1;
";

/// By release.
static KERNELS: LazyLock<BTreeMap<String, Catalog>> = LazyLock::new(kernels);

fn kernels() -> BTreeMap<String, Catalog> {
    let mut text = String::new();
    let mut file = GzDecoder::new(fs::File::open(DATA).unwrap());
    file.read_to_string(&mut text).unwrap();
    let (constants, formats) = text.split_once("\nsystem: ").unwrap();
    let mut kernels = BTreeMap::new();
    for part in constants.split("constants: ").skip(1) {
        let (release, lines) = part.split_once('\n').unwrap();
        let mut catalog = Catalog::new();
        catalog.parse_constants(lines);
        kernels.insert(release.to_owned(), (catalog, FIRST_ID));
    }
    for part in formats.split("\nsystem: ") {
        let (system, rest) = part.split_once('\n').unwrap();
        let (releases, text) = rest.split_once('\n').unwrap();
        for release in releases.strip_prefix("kernels: ").unwrap().split(' ') {
            let (catalog, id) = kernels.get_mut(release).unwrap();
            let fields = format!("ID: {id}\nformat:\n{COMMON}");
            let text = text.replacen("format:\n", &fields, 1);
            catalog.add_format(system, &text).unwrap();
            *id += 1;
        }
    }
    let without_id = |(release, (catalog, _))| (release, catalog);
    kernels.into_iter().map(without_id).collect()
}

fn events() -> impl Iterator<Item = (&'static str, &'static Catalog, &'static EventFormat)> {
    let of = |(release, catalog): (&'static String, &'static Catalog)| {
        catalog
            .events()
            .map(move |e| (release.as_str(), catalog, e))
    };
    KERNELS.iter().flat_map(of)
}

#[test]
fn every_kernels_formats_are_there() {
    let counts: Vec<_> = KERNELS
        .iter()
        .map(|(release, catalog)| (release.as_str(), catalog.events().count()))
        .collect();
    let expected = [
        ("6.12.107", 3584),
        ("6.16.12", 3667),
        ("6.18.15", 3832),
        ("6.18.44", 2323),
        ("7.0.13", 1626),
        ("7.2.13", 3963),
        ("7.3.4", 3974),
    ];
    assert_eq!(counts, expected);
}

#[test]
fn every_field_has_a_type_and_lies_behind_the_one_before() {
    for (release, _, event) in events() {
        let mut end = 8;
        for field in &event.fields {
            let place = format!("{release} {}:{}.{}", event.system, event.name, field.name);
            assert!(field.offset >= end, "{place}");
            end = field.offset + field.size;
        }
    }
}

/// Why a print format cannot be evaluated from its text, in words; nothing else may happen.
fn reason(reason: &Reason) -> String {
    match reason {
        Reason::UnknownName(name) if name == "jiffies" => {
            "the text counts from the moment of printing (`jiffies`)".into()
        }
        Reason::UnknownName(name) if name == "vmemmap_base" => {
            "an address counts from a variable of the kernel (`vmemmap_base`)".into()
        }
        Reason::UnknownName(name) if name == "flags" => {
            "the format names something that is not there (`flags`)".into()
        }
        Reason::UnknownFunction(name) => format!("`{name}` is a function of the kernel"),
        other => panic!("{other}"),
    }
}

/// The page's table: which events of which kernels, and why.
fn not_evaluated() -> BTreeMap<String, BTreeMap<String, Vec<&'static str>>> {
    let mut found: BTreeMap<_, BTreeMap<_, Vec<_>>> = BTreeMap::new();
    for (release, catalog, event) in events() {
        if let Err(error) = event.program(catalog.constants()) {
            let name = format!("{}:{}", event.system, event.name);
            let by_name = found.entry(reason(&error.reason)).or_default();
            by_name.entry(name).or_default().push(release);
        }
    }
    found
}

fn page() -> String {
    let mut page = "\
# Print formats that are not evaluated

Of these kernels all event formats are parsed and all print formats compiled, those of their modules included
(7.0.13: without modules). An event whose print format needs more than its text, its record and the catalog prints
its fields instead. 6.18.44 is a cloud machine's kernel, the others are Debian's.

`show` says at its end how many such events it has printed.

This page is written by a test (`crates/event/tests/all_formats.rs`), which fails when it is out of date.

## Records that the kernel prints by code of its own

Those of the system `ftrace`, and system calls. Compared with kernels line by line: `function`, `func_repeats`, `kernel_stack`,
`user_stack`, `print` and `raw_data` with 7.3.4 and 6.12.107 (`crates/vm/tests/tracers.rs`, which compares `landlock` too);
all but the first two, and system calls, with the machine's own kernel (`crates/event/tests/live_parity.rs`). Not compared:

- `bprint` and `bputs`: a kernel's own `trace_printk`, which needs a module that calls it
- `context_switch`, `wakeup`, `timerlat`, `osnoise`, `hwlat`: none of these kernels has the tracer; the text of the first
  three is that of the kernel's documentation, that of the others their print format's
- `funcgraph_entry` and `funcgraph_exit`: printed one by one, by their print format; the kernel makes a drawing of both
- the arguments of a `function` (option `func-args`), whose names are in the kernel's types: left out

## Numbers

| kernel | events | not evaluated |
| --- | ---: | ---: |
"
    .to_owned();
    for (release, catalog) in KERNELS.iter() {
        let all = catalog.events().count();
        let failed = catalog
            .events()
            .filter(|e| e.program(catalog.constants()).is_err());
        writeln!(page, "| {release} | {all} | {} |", failed.count()).unwrap();
    }
    for (reason, events) in not_evaluated() {
        writeln!(
            page,
            "\n## {}{}\n",
            reason[..1].to_uppercase(),
            &reason[1..]
        )
        .unwrap();
        for (name, releases) in events {
            writeln!(page, "- `{name}` ({})", releases.join(", ")).unwrap();
        }
    }
    page
}

/// Run with `OUTLIVE_UPDATE=1` to write the page.
#[test]
fn print_formats_that_are_not_evaluated_are_those_of_the_page() {
    if std::env::var_os("OUTLIVE_UPDATE").is_some() {
        fs::write(PAGE, page()).unwrap();
    }
    let written = fs::read_to_string(PAGE).unwrap();
    assert_eq!(written, page(), "run this test with OUTLIVE_UPDATE=1");
}

/// A record whose fields all have plausible contents: numbers from `seed` on, texts `textNN`.
fn plausible_record(event: &EventFormat, seed: u8) -> Vec<u8> {
    let end = |f: &outlive_event::Field| (f.offset + f.size) as usize;
    let len = event.fields.iter().map(end).max().unwrap_or(8);
    let mut record = vec![0; len];
    record[..2].copy_from_slice(&event.id.to_le_bytes());
    for (i, field) in event.fields.iter().enumerate() {
        let (start, end) = (field.offset as usize, end(field));
        match field.kind {
            FieldKind::Dynamic { is_relative, .. } => {
                let base = if is_relative { end } else { 0 };
                let place = (record.len() - base) as u32;
                record[start..end].copy_from_slice(&(place | 8 << 16).to_le_bytes());
                record.extend_from_slice(format!("text{i:03}\0").as_bytes());
            }
            FieldKind::Flexible { .. } => record.extend_from_slice(&[seed; 8]),
            FieldKind::String => record[start..end].fill(b'a' + i as u8 % 26),
            _ => record[start] = seed.wrapping_add(i as u8),
        }
    }
    record
}

fn text(catalog: &Catalog, record: &[u8]) -> String {
    let mut out = Vec::new();
    Formatter::new(catalog, TextOptions::default()).record(&mut out, 0, 0, record);
    String::from_utf8_lossy(&out).into_owned()
}

#[test]
fn every_event_has_a_text_for_a_plausible_record() {
    let mut with_texts = 0;
    for (release, catalog, event) in events() {
        for seed in [0, 1, 7, 100, 255] {
            let text = text(catalog, &plausible_record(event, seed));
            let place = format!("{release} {}:{}: {text}", event.system, event.name);
            let is_syscall = event.system == "syscalls";
            assert!(
                is_syscall || text.contains(&format!(": {}:", event.name)),
                "{place}"
            );
            assert!(text.ends_with('\n'), "{place}");
            with_texts += u32::from(text.contains("text0"));
        }
    }
    // Texts behind `__data_loc` words that the print formats show.
    assert!(with_texts > 15_000, "{with_texts}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    /// Each case is tried with all events, cut short and not.
    #[test]
    fn no_event_panics_on_random_bytes(
        bytes in prop::collection::vec(any::<u8>(), 0..300),
        release in prop::sample::select(KERNELS.keys().collect::<Vec<_>>()),
    ) {
        let catalog = &KERNELS[release];
        let mut record = bytes;
        record.resize(record.len().max(8), 0);
        for event in catalog.events() {
            record[..2].copy_from_slice(&event.id.to_le_bytes());
            let out = text(catalog, &record);
            prop_assert!(out.ends_with('\n'));
        }
    }
}
