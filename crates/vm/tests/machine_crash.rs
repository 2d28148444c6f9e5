//! outlive on a machine that goes down: started from init, on memory that outlives a reset, with the
//! kernel's own persistent instance beside it as the judge.
//!
//! Each backing sees a panic here, and each death is seen once; `cargo xtask vm crash` runs all of them
//! (`docs/machine-deaths.md`).
#![allow(missing_docs, reason = "tests")]

use outlive_vm::crash::{Case, Death, Kind, PAGE_HEAD, all};

/// Outlive records, the machine dies, and boots again: the backup has each event that the kernel's own
/// instance has up to the last one that outlive copied, and every one that was seen to be recorded.
fn survives(kind: Kind, death: Death) {
    let case = Case { kind, death };
    if !outlive_vm::can_run(&case.to_string()) {
        return;
    }
    let survived = case.run(&outlive_vm::outlive().unwrap());
    let survived = survived.unwrap_or_else(|told| panic!("{told}"));
    println!("{case}: {survived:?}");
}

#[test]
fn physical_memory_survives_a_panic() {
    survives(Kind::Physical, Death::Panic);
}

#[test]
fn dax_file_survives_a_panic() {
    survives(Kind::DaxFile, Death::Panic);
}

#[test]
fn virtio_pmem_survives_a_panic() {
    survives(Kind::VirtioPmem, Death::Panic);
}

#[test]
fn dax_file_survives_a_watchdog() {
    survives(Kind::DaxFile, Death::Watchdog);
}

#[test]
fn device_dax_survives_a_triple_fault() {
    survives(Kind::DeviceDax, Death::TripleFault);
}

/// Power is cut, or the kernel panics: only what is on the disk is left. The area was written back every
/// 200 ms: what is missing at the end is not older than the recorder says that events were before that, and what
/// was recorded two seconds before the end is there.
#[test]
fn disk_file_survives_a_power_cut_up_to_the_last_write_back() {
    survives(Kind::Disk, Death::ResetFromOutside);
}

#[test]
fn disk_file_survives_a_panic_up_to_the_last_write_back() {
    survives(Kind::Disk, Death::Panic);
}

#[test]
fn clean_reboot_is_a_clean_exit() {
    survives(Kind::VirtioPmem, Death::Reboot);
}

#[test]
fn the_page_about_deaths_has_a_row_of_each() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/machine-deaths.md");
    let page = std::fs::read_to_string(path).unwrap();
    let rows = page.strip_prefix(PAGE_HEAD);
    let rows = rows.expect("docs/machine-deaths.md: run `cargo xtask vm crash`");
    let cases = all().map(|case| format!("| {} |", case.to_string().replace(", ", " | ")));
    let cases: Vec<_> = cases.collect();
    assert_eq!(cases.len(), 15);
    for (row, case) in rows.lines().zip(&cases) {
        assert!(row.starts_with(case), "{row}");
    }
    assert_eq!(rows.lines().count(), cases.len());
}
