//! Every foreign reader on the same regions: each event, its time and every field as `show` and the JSON
//! lines have them, and so the same count and the same first and last time for all.

mod common;

use std::path::Path;

use common::regions::{Regions, TestRegion};
use common::trace_dat::assert_same;
use common::{babeltrace_python, outlive, python, script};
use serde_json::Value;

/// What is the same for all readers.
#[derive(Debug, PartialEq)]
struct Facts {
    events: u64,
    first: u64,
    last: u64,
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Exports to a file of the folder, and says where it is.
fn export(region: &TestRegion, folder: &Path, name: &str) -> std::path::PathBuf {
    let out = folder.join(name);
    let args = region.args.iter().map(String::as_str).collect::<Vec<_>>();
    let output = outlive(&[&["export", "-o", text(&out)], &args[..]].concat());
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(
        output.status.code(),
        Some(region.code),
        "{}: {stderr}",
        region.name
    );
    out
}

/// What the JSON lines have.
fn facts(lines: &Path) -> Facts {
    let lines = std::fs::read_to_string(lines).unwrap();
    let lines = lines
        .lines()
        .map(|line| serde_json::from_str(line).unwrap());
    let lines: Vec<Value> = lines.collect();
    let time = |line: &Value| {
        let common = line["time"].as_u64();
        common.or_else(|| line["ts"].as_u64()).unwrap()
    };
    let times: Vec<u64> = lines.iter().map(time).collect();
    Facts {
        events: lines.len() as u64,
        first: *times.iter().min().unwrap(),
        last: *times.iter().max().unwrap(),
    }
}

fn read_facts(read: &Value) -> Facts {
    let number = |key: &str| {
        read[key]
            .as_u64()
            .unwrap_or_else(|| panic!("{key}: {read}"))
    };
    Facts {
        events: number("events"),
        first: number("first"),
        last: number("last"),
    }
}

/// All in one test: a process has one recorder at a time, and the regions are made once.
#[test]
fn every_foreign_reader_reads_the_same_of_every_region() {
    let regions = Regions::new();
    assert!(regions.all.len() >= 10);
    for region in &regions.all {
        let name = &region.name;
        println!("{name}");
        let folder = tempfile::tempdir().unwrap();
        let lines = export(region, folder.path(), "x.jsonl");
        let expected = facts(&lines);
        assert!(expected.events > 20, "{name}");
        let sources: Vec<&str> = region.sources.iter().map(String::as_str).collect();
        if let Some(python) = babeltrace_python() {
            for ending in ["ctf", "ctf2"] {
                let trace = export(region, folder.path(), &format!("x.{ending}"));
                let read = script(&python, "export_ctf.py", &[text(&trace), text(&lines)]);
                assert_eq!(read_facts(&read), expected, "{name}, {ending}");
            }
        }
        if let Some(python) = python() {
            let trace = export(region, folder.path(), "x.pftrace");
            let args = [&[text(&trace), text(&lines)], &sources[..]].concat();
            let read = script(&python, "export_perfetto.py", &args);
            assert_eq!(read["events"], expected.events, "{name}, Perfetto");
            // Of several regions each is a run of its own there.
            if cfg!(feature = "parquet") && sources.is_empty() {
                let tables = export(region, folder.path(), "x.parquet");
                let args = ["rows", text(&tables), text(&lines)];
                let read = script(&python, "export_parquet.py", &args);
                assert_eq!(read_facts(&read), expected, "{name}, Parquet");
            }
        }
        // trace-cmd merges no regions into one text by name.
        if sources.is_empty() {
            let args = region.args.iter().map(String::as_str).collect::<Vec<_>>();
            let lines = assert_same(&args, region.code);
            let events = lines.iter().filter(|line| !line.is_lost()).count();
            assert_eq!(events as u64, expected.events, "{name}, trace-cmd");
        }
    }
}
