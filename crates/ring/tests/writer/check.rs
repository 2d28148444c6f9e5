//! What recovery finds of what a writer wrote.

use outlive_ring::extension::Counters;
use outlive_ring::layout::SUBBUF_DATA;
use outlive_ring::{HeapMemory, MetaDamage, Missed, PageSource, Recovery, subbuf};

use super::model::Model;
use super::support::{Kept, kept_events};

/// Recovers CPU 0 and holds it against the model: what is kept are the newest events, whole and in
/// order; everything that was closed is sealed; each loss is told where it was. Returns how many are
/// kept.
pub(crate) fn check(memory: &HeapMemory, model: &Model) -> usize {
    let recovery = Recovery::new(memory).unwrap();
    // A bare ring of ours lacks its extension, which is said.
    let expected: &[MetaDamage] = match &recovery.extension {
        Some(_) => &[],
        None => &[MetaDamage::NoExtension],
    };
    assert_eq!(recovery.damage, expected);
    assert!(recovery.cpu(0).is_whole(), "{:?}", recovery.cpu(0));
    let kept = kept_events(&recovery, memory, 0);
    let first = model.committed.len().checked_sub(kept.len()).unwrap();
    for (written, kept) in model.committed[first..].iter().zip(&kept) {
        assert!(written.is(kept), "{written:?} is not {kept:?}");
    }
    check_counters(&recovery, memory, &kept);
    check_losses(&recovery, memory, model, first);
    check_pages(&recovery, memory);
    kept.len()
}

fn check_counters(recovery: &Recovery, memory: &HeapMemory, kept: &[Kept]) {
    let cpu = recovery.cpu(0);
    let bytes: u64 = cpu.pages.iter().map(|page| u64::from(page.size)).sum();
    assert_eq!(cpu.bytes, bytes);
    assert!(cpu.entries >= kept.len() as u64);
    if let Some(layout) = &recovery.extension {
        let counters = Counters::load(layout, memory, 0);
        let missing = cpu
            .holes
            .iter()
            .filter(|hole| hole.missed == Missed::Unknown);
        assert_eq!(missing.count(), 0);
        let told = cpu.holes.iter().map(|hole| match hole.missed {
            Missed::Events(events) => events,
            Missed::Unknown => 0,
        });
        assert!(told.sum::<u64>() <= counters.lost);
    }
}

/// Losses before the first kept event may have been overwritten with what was around them.
fn check_losses(recovery: &Recovery, memory: &HeapMemory, model: &Model, first: usize) {
    if recovery.extension.is_none() {
        return;
    }
    let mut told = std::collections::BTreeMap::<usize, u64>::new();
    let mut next = first;
    let mut buffer = [0; SUBBUF_DATA];
    for page in &recovery.cpu(0).pages {
        if let Some(Missed::Events(events)) = page.missed {
            *told.entry(next).or_default() += events;
        }
        let data = page.read(&recovery.geometry, memory, 0, &mut buffer);
        next += subbuf::Events::new(page.time_stamp, data).count();
    }
    let mut expected = std::collections::BTreeMap::<usize, u64>::new();
    // What is told with the next event is not in the region yet.
    for &(before, events) in model.lost.iter().filter(|&&(before, _)| before > first) {
        *expected.entry(before).or_default() += events;
    }
    told.remove(&first);
    expected.remove(&model.committed.len());
    told.remove(&model.committed.len());
    assert_eq!(told, expected);
}

fn check_pages(recovery: &Recovery, memory: &HeapMemory) {
    let pages = &recovery.cpu(0).pages;
    let mut buffer = [0; SUBBUF_DATA];
    for (i, page) in pages.iter().enumerate() {
        let data = page.read(&recovery.geometry, memory, 0, &mut buffer);
        let summary = subbuf::walk(page.time_stamp, data);
        assert_eq!(summary.error, None);
        assert_eq!(summary.entries, page.entries, "sub-buffer {}", page.subbuf);
        if recovery.extension.is_some() && i + 1 < pages.len() {
            assert_eq!(page.source, PageSource::Sealed);
        }
    }
}
