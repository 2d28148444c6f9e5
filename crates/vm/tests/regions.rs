//! Regions that real kernels left, against what those kernels said of them.
#![allow(missing_docs, reason = "tests")]

use std::path::{Path, PathBuf};

use outlive_vm::regions::{self, Case, Compared, LeftBy, compare, unpack};

/// One of each: kernel, CPUs, fill, end. The others are replayed.
const LIVE: [Case; 3] = [
    Case {
        kernel: "7.3.4",
        cpus: 2,
        is_wrapped: true,
        is_read: false,
        left_by: LeftBy::Panic,
    },
    Case {
        kernel: "7.2.13",
        cpus: 1,
        is_wrapped: false,
        is_read: false,
        left_by: LeftBy::Reset,
    },
    Case {
        kernel: "6.12.107",
        cpus: 2,
        is_wrapped: true,
        is_read: false,
        left_by: LeftBy::Panic,
    },
];

fn run(case: &Case) {
    if !outlive_vm::can_run("regions") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let case_folder = folder.path().join("case");
    case.run(&case_folder).unwrap();
    let compared = compare(&outlive_vm::outlive().unwrap(), &case_folder);
    let Compared {
        lines,
        more,
        counters,
        ..
    } = compared.unwrap_or_else(|difference| panic!("{case}: {difference}"));
    println!("{case}: {lines} lines and {counters} counters agree, {more} lines are only ours");
    assert!(lines >= 2000, "{lines} lines are not much of a test");
}

#[test]
fn region_of_7_3_is_read_as_the_kernel_reads_it() {
    run(&LIVE[0]);
}

#[test]
fn region_of_7_2_is_read_as_the_kernel_reads_it() {
    run(&LIVE[1]);
}

#[test]
fn region_of_6_12_is_read_as_the_kernel_reads_it() {
    run(&LIVE[2]);
}

fn recorded() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/regions")
}

/// All of the matrix.
#[test]
fn recorded_regions_are_read_as_their_kernels_read_them() {
    let outlive = outlive_vm::outlive().unwrap();
    for case in regions::all() {
        let name = case.to_string();
        let archive = recorded().join(format!("{name}.tar.xz"));
        let folder = tempfile::tempdir().unwrap();
        unpack(&archive, folder.path()).unwrap();
        let compared = compare(&outlive, folder.path());
        let compared = compared.unwrap_or_else(|difference| panic!("{name}: {difference}"));
        println!("{name}: {compared:?}");
        // A reader has left nearly nothing. Each line is in the text of all CPUs and in its own CPU's.
        let least = if case.is_read { 10 } else { 2000 };
        assert!(compared.lines >= least, "{name}: {compared:?}");
        let is_kept = case.is_read && case.kernel.starts_with("6.18");
        assert_eq!(compared.more > 0, is_kept, "{name}: {compared:?}");
    }
}
