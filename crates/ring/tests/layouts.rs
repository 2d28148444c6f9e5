//! A region whose layout is another one is told from one whose words about its layout are damaged.
#![allow(missing_docs, reason = "tests")]

mod support;

use outlive_ring::{HeapMemory, LayoutError, Recovery};
use support::golden_region;

const CPUS: usize = 2;
const NR_SUBBUFS: usize = 30;
const CPU_META: usize = 32;
/// The first CPU's meta, and where Linux 6.16 and later have it.
const META: [usize; CPUS] = [8240, 0x21000];
const STRUCT_SIZES: usize = 4;
const BUFFERS_OFFSET: usize = 16;
const ENTRIES: u64 = 806 + 857;

fn put(region: &mut [u8], offset: usize, value: u64, bytes: usize) {
    region[offset..offset + bytes].copy_from_slice(&value.to_le_bytes()[..bytes]);
}

/// Moves bytes within a region.
fn shift(region: &mut [u8], from: usize, to: usize, len: usize) {
    region.copy_within(from..from + len, to);
}

/// As Linux 6.15 is said to have it: the scratch area has no clock, and so all behind it lies 8 bytes
/// before.
fn without_clock() -> Vec<u8> {
    let mut region = golden_region();
    shift(&mut region, 32, 24, 8208);
    shift(&mut region, META[0], META[0] - 8, CPU_META + 4 * NR_SUBBUFS);
    put(&mut region, BUFFERS_OFFSET, META[0] as u64 - 8, 8);
    region
}

/// The meta of a CPU is `more` bytes longer.
fn with_longer_cpu_meta(more: usize) -> Vec<u8> {
    let mut region = golden_region();
    for meta in META {
        let index = meta + CPU_META;
        shift(&mut region, index, index + more, 4 * NR_SUBBUFS);
        region[index..index + more].fill(0);
    }
    put(&mut region, STRUCT_SIZES, (CPU_META + more) as u64, 2);
    region
}

/// The scratch area is a page longer.
fn with_longer_scratch() -> Vec<u8> {
    let mut region = golden_region();
    region.splice(4096..4096, [0; 4096]);
    put(&mut region, BUFFERS_OFFSET, META[0] as u64 + 4096, 8);
    let len = region.len() as u64;
    put(&mut region, 8, len, 8);
    region
}

/// The words of a CPU's meta are in another order, and one is new.
fn with_another_order() -> Vec<u8> {
    let mut region = golden_region();
    for meta in META {
        region[meta..meta + CPU_META + 8].rotate_left(24);
    }
    put(&mut region, STRUCT_SIZES, CPU_META as u64 + 16, 2);
    region
}

fn recover(region: &[u8]) -> Result<Recovery, LayoutError> {
    Recovery::new(&HeapMemory::from_bytes(region))
}

#[test]
fn region_of_another_layout_is_named_and_refused() {
    let others = [
        without_clock(),
        with_longer_cpu_meta(16),
        with_longer_cpu_meta(32),
        with_longer_scratch(),
        with_another_order(),
    ];
    for (number, region) in others.iter().enumerate() {
        let error = recover(region).unwrap_err();
        assert!(
            matches!(error, LayoutError::UnknownLayout { .. }),
            "{number}: {error}"
        );
        let message = error.to_string();
        assert!(
            message.contains("6.12 to 6.14, 6.16 and later"),
            "{message}"
        );
    }
    assert_eq!(
        recover(&others[0]).unwrap_err(),
        LayoutError::UnknownLayout {
            struct_sizes: 0x0018_0020,
            buffers_offset: 8232,
        }
    );
}

/// Where the index arrays are still there, they say how many CPUs there are.
#[test]
fn region_whose_metas_are_all_zero_is_found_by_its_index_arrays() {
    let mut region = golden_region();
    for meta in META {
        region[meta..meta + CPU_META].fill(0);
    }
    let recovery = recover(&region).unwrap();
    assert_eq!(recovery.geometry.nr_cpus() as usize, CPUS);
    assert_eq!(recovery.geometry.nr_subbufs() as usize, NR_SUBBUFS);
    assert_eq!(recovery.entries(), ENTRIES);
    assert!(recovery.cpus.iter().all(|cpu| !cpu.damage.is_empty()));
}

/// What is there is of a known layout, and nothing is left that says where the rest is.
#[test]
fn region_without_any_cpu_is_not_called_one_of_another_layout() {
    let mut region = golden_region();
    for meta in META {
        region[meta..meta + CPU_META + 4 * NR_SUBBUFS].fill(0);
    }
    let error = recover(&region).unwrap_err();
    assert!(matches!(error, LayoutError::NothingLeft { .. }), "{error}");
    let message = error.to_string();
    assert!(
        message.contains("of Linux 6.16 and later whose"),
        "{message}"
    );
}

/// The same words, and everything else where it was: then the words are wrong.
#[test]
fn damaged_words_about_the_layout_cost_nothing() {
    let words = [0, 8, 24, 36, 40, 48, 56, 8232, 8244, 8256, 12336, u64::MAX];
    for struct_sizes in words {
        for buffers_offset in words {
            let mut region = golden_region();
            put(&mut region, STRUCT_SIZES, struct_sizes, 2);
            put(&mut region, BUFFERS_OFFSET, buffers_offset, 8);
            let recovery = recover(&region).unwrap();
            assert_eq!(recovery.entries(), ENTRIES);
            assert!(!recovery.damage.is_empty());
        }
    }
}

#[test]
fn damaged_words_and_a_damaged_index_array_are_no_other_layout() {
    for position in 0..NR_SUBBUFS {
        for value in [0, 1, NR_SUBBUFS as u64 - 1, 0xffff_ffff] {
            let mut region = golden_region();
            put(&mut region, STRUCT_SIZES, 48, 2);
            put(&mut region, META[0] + CPU_META + 4 * position, value, 4);
            assert_eq!(recover(&region).unwrap().entries(), ENTRIES);
        }
    }
}

/// An offset or a size near the end must not be followed beyond it.
#[test]
fn words_about_the_layout_are_not_trusted() {
    let len = golden_region().len() as u64;
    for offset in [len - 64, len - 32, len - 8, len, len + 8, 1 << 63, !7] {
        for size in [32, 1024, 0xfff8] {
            let mut region = golden_region();
            put(&mut region, STRUCT_SIZES, size, 2);
            put(&mut region, BUFFERS_OFFSET, offset, 8);
            region[META[0] + CPU_META..META[0] + CPU_META + 8].fill(0xff);
            assert_eq!(recover(&region).unwrap().entries(), ENTRIES);
        }
    }
}
