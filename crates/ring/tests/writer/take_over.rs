//! Taking over whole sub-buffers of another ring, as a kernel wrote them, in any pieces.

use std::sync::OnceLock;

use outlive_ring::layout::{SUBBUF_DATA, SUBBUF_SIZE};
use outlive_ring::subbuf::{self, BadRecord};
use outlive_ring::{Missed, PageSource, Recovery, Region, TakeOverError};
use proptest::prelude::*;

use super::ring;
use super::support::{Kept, fixture, kept_events, recover};

/// A kernel's sub-buffer: its time stamp and the bytes of its records.
type KernelPage = (u64, Vec<u8>);

/// Pages of real kernels, each CPU's in order.
fn kernel_pages() -> &'static [Vec<KernelPage>] {
    static PAGES: OnceLock<Vec<Vec<KernelPage>>> = OnceLock::new();
    PAGES.get_or_init(load_kernel_pages)
}

fn load_kernel_pages() -> Vec<Vec<KernelPage>> {
    let regions = [
        "golden/2-region-256KiB-2cpu.bin.gz",
        "7.3.4-2cpu-1M/region.bin.gz",
        "6.12.107-2cpu-1M/region.bin.gz",
    ];
    let mut cpus = Vec::new();
    for name in regions {
        let (memory, recovery) = recover(&fixture(name));
        for cpu in &recovery.cpus {
            let mut buffer = [0; SUBBUF_DATA];
            let pages = cpu.pages.iter().map(|page| {
                let data = page.read(&recovery.geometry, &memory, cpu.cpu, &mut buffer);
                (page.time_stamp, data.to_vec())
            });
            cpus.push(pages.collect());
        }
    }
    cpus
}

fn events_of((time_stamp, data): &KernelPage) -> Vec<Kept> {
    let kept = |event: subbuf::Event<'_>| Kept {
        time_stamp: event.time_stamp,
        payload: event.payload.to_vec(),
    };
    subbuf::Events::new(*time_stamp, data)
        .map(|event| kept(event.unwrap()))
        .collect()
}

/// The offsets between the records of a page.
fn cuts((time_stamp, data): &KernelPage) -> Vec<usize> {
    let mut events = subbuf::Events::new(*time_stamp, data);
    let mut cuts = Vec::new();
    while events.next().is_some() {
        cuts.push(events.position().offset);
    }
    cuts
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn pages_taken_over_in_any_pieces_are_recovered(
        source in 0..6usize,
        ring_pages in 3..60u64,
        pieces in prop::collection::vec(prop::bool::weighted(0.1), 1..200),
        losses in prop::collection::vec(0..5u64, 1..20),
        close: bool,
    ) {
        let source = &kernel_pages()[source];
        let (memory, geometry, layout) = ring(ring_pages, true);
        let region = Region::format(&memory, geometry, layout).unwrap();
        let mut writer = region.writer(0).unwrap();
        let (mut expected, mut seen) = (Vec::new(), 0);
        let mut pieces = pieces.iter().cycle();
        for (page, &lost) in source.iter().zip(losses.iter().cycle()) {
            if lost > 3 {
                writer.lost(Missed::Events(lost));
            }
            writer.begin(page.0).unwrap();
            let mut start = 0;
            for cut in cuts(page) {
                if *pieces.next().unwrap() {
                    writer.append(&page.1[start..cut], |_| seen += 1).unwrap();
                    start = cut;
                }
            }
            writer.append(&page.1[start..], |_| seen += 1).unwrap();
            if close {
                writer.close();
            }
            expected.push((page, (lost > 3).then_some(Missed::Events(lost))));
        }
        let recovery = Recovery::new(&memory).unwrap();
        prop_assert!(recovery.is_whole(), "{:?}", recovery.cpu(0).rejected);
        let kept = recovery.cpu(0).pages.len();
        prop_assert_eq!(kept, source.len().min(ring_pages as usize - 1));
        let expected = &expected[source.len() - kept..];
        for (page, (source, missed)) in recovery.cpu(0).pages.iter().zip(expected) {
            prop_assert_eq!((page.time_stamp, page.size as usize), (source.0, source.1.len()));
            prop_assert_eq!(page.missed, *missed);
        }
        let newest = recovery.cpu(0).pages.last().unwrap().source;
        prop_assert_eq!(newest, if close { PageSource::Sealed } else { PageSource::Unsealed });
        let expected: Vec<Kept> = expected.iter().flat_map(|(page, _)| events_of(page)).collect();
        prop_assert_eq!(kept_events(&recovery, &memory, 0), expected);
        prop_assert_eq!(seen, source.iter().map(|page| events_of(page).len()).sum::<usize>());
    }

    /// Any bytes are taken over as whole records or refused as a whole, and what was taken over is kept.
    #[test]
    fn bytes_that_are_no_records_are_refused(bytes in bytes()) {
        let (memory, geometry, layout) = ring(4, true);
        let region = Region::format(&memory, geometry, layout).unwrap();
        let mut writer = region.writer(0).unwrap();
        let before_any = writer.append(&[], |_| ());
        prop_assert!(before_any.is_err(), "there is no sub-buffer yet");
        writer.begin(1000).unwrap();
        let before = memory.to_vec();
        let taken_over = match writer.append(&bytes, |_| ()) {
            Ok(()) => bytes.len(),
            Err(_) => {
                prop_assert!(memory.to_vec() == before);
                0
            }
        };
        let recovery = Recovery::new(&memory).unwrap();
        let cpu = recovery.cpu(0);
        // A time that no clock has may be in whole records.
        prop_assert!(cpu.rejected.iter().all(|rejected| rejected.reason.is_doubt()), "{:?}", cpu.rejected);
        let kept: u32 = cpu.pages.iter().map(|page| page.size).sum();
        prop_assert_eq!(kept as usize, taken_over);
    }
}

/// Bytes that may be records, often nearly: a kernel's, changed in a few places and cut off anywhere.
fn bytes() -> impl Strategy<Value = Vec<u8>> {
    let changes = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4);
    let records = (
        0..6usize,
        any::<prop::sample::Index>(),
        0..=SUBBUF_DATA,
        changes,
    );
    prop_oneof![
        prop::collection::vec(any::<u8>(), 0..SUBBUF_SIZE + 8),
        records.prop_map(|(source, page, cut, changes)| {
            let mut bytes = page.get(&kernel_pages()[source]).1.clone();
            bytes.truncate(cut);
            for (at, byte) in changes {
                if !bytes.is_empty() {
                    *at.get_mut(&mut bytes) = byte;
                }
            }
            bytes
        }),
    ]
}

#[test]
fn a_record_that_is_cut_off_is_refused() {
    let source = kernel_pages();
    let page = &source[0][0];
    let (memory, geometry, layout) = ring(4, true);
    let region = Region::format(&memory, geometry, layout).unwrap();
    let mut writer = region.writer(0).unwrap();
    writer.begin(page.0).unwrap();
    let first = cuts(page)[0];
    let refused = writer.append(&page.1[..first - 1], |_| ());
    assert!(matches!(
        refused,
        Err(TakeOverError::BadRecord(BadRecord::Length {
            offset: 0,
            ..
        }))
    ));
    writer.append(&page.1, |_| ()).unwrap();
    let recovery = Recovery::new(&memory).unwrap();
    assert_eq!(kept_events(&recovery, &memory, 0), events_of(page));
}

/// A page that the source began and that was lapped before it had anything.
#[test]
fn a_page_without_records_hides_no_others() {
    let (memory, geometry, layout) = ring(5, true);
    let region = Region::format(&memory, geometry, layout).unwrap();
    let mut writer = region.writer(0).unwrap();
    let pages = &kernel_pages()[0];
    for (i, page) in pages[..3].iter().enumerate() {
        writer.begin(page.0).unwrap();
        if i != 1 {
            writer.append(&page.1, |_| ()).unwrap();
        }
    }
    let recovery = Recovery::new(&memory).unwrap();
    assert!(recovery.is_whole(), "{:?}", recovery.cpu(0).rejected);
    assert!(recovery.cpu(0).holes.is_empty());
    let expected = [events_of(&pages[0]), events_of(&pages[2])].concat();
    assert_eq!(kept_events(&recovery, &memory, 0), expected);
}
