//! What a writer writes, recovery finds: after any steps, after any store of them, and, where it is
//! sealed, after any damage.

mod check;
mod crash;
mod damage;
mod model;
mod stores;
#[path = "../support/mod.rs"]
mod support;
mod take_over;

use model::{Model, Step};
use outlive_ring::extension::{Counters, Layout};
use outlive_ring::subbuf::PAYLOAD_MAX;
use outlive_ring::{Geometry, HeapMemory, Region};
use proptest::prelude::*;

/// Memory and layout of a ring of one CPU with `pages` sub-buffers, the reader page included.
fn ring(pages: u64, has_extension: bool) -> (HeapMemory, Geometry, Option<Layout>) {
    let geometry = Geometry::new((pages + 3) * 4096, 1).unwrap();
    let layout = has_extension.then(|| Layout::new(&geometry, 4096, 16));
    let size = layout.map_or(geometry.size(), |layout| layout.area_size());
    (HeapMemory::new(size as usize), geometry, layout)
}

fn payload_len() -> impl Strategy<Value = usize> {
    prop_oneof![
        8 => 8..64usize,
        3 => 0..130usize,
        2 => 0..=PAYLOAD_MAX,
        1 => PAYLOAD_MAX - 16..=PAYLOAD_MAX,
    ]
}

fn delay() -> impl Strategy<Value = u64> {
    prop_oneof![
        2 => Just(0u64),
        8 => 2..100_000u64,
        1 => (1u64 << 27) - 2..(1 << 27) + 2,
        1 => 1u64 << 27..1 << 50,
    ]
}

fn event(nested: impl Strategy<Value = Vec<Step>>) -> impl Strategy<Value = Step> {
    (payload_len(), delay(), prop::bool::weighted(0.2), nested).prop_map(
        |(len, after, discard, nested)| Step::Event {
            len,
            after,
            discard,
            nested,
        },
    )
}

fn step() -> impl Strategy<Value = Step> {
    let leaf = || prop::collection::vec(event(Just(Vec::new())), 0..3);
    let middle = prop::collection::vec(event(leaf()), 0..3);
    prop_oneof![
        8 => event(Just(Vec::new())),
        2 => event(middle),
        1 => (1..1000u64).prop_map(Step::Lost),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_was_written_is_recovered(
        steps in prop::collection::vec(step(), 1..400),
        pages in 3..9u64,
        has_extension in prop::bool::weighted(0.8),
        overwrite: bool,
    ) {
        let (memory, geometry, layout) = ring(pages, has_extension);
        let region = Region::format(&memory, geometry, layout).unwrap();
        let mut writer = region.writer(0).unwrap();
        writer.set_overwrite(overwrite);
        let mut model = Model::default();
        for step in &steps {
            model.step(&mut writer, step);
        }
        let kept = check::check(&memory, &model);
        if let Some(layout) = &layout {
            let counters = Counters::load(layout, &memory, 0);
            prop_assert_eq!(counters.dropped + counters.commit_overrun, model.failed);
            prop_assert!(overwrite || counters.overrun == 0);
            prop_assert!(overwrite || kept == model.committed.len());
        }
    }

    /// Without discarded events, entries are events: each was kept or counted as overwritten.
    #[test]
    fn overrun_and_entries_are_all_that_was_written(
        lens in prop::collection::vec(payload_len(), 1..600),
        pages in 3..7u64,
    ) {
        let (memory, geometry, layout) = ring(pages, true);
        let region = Region::format(&memory, geometry, layout).unwrap();
        let mut writer = region.writer(0).unwrap();
        let mut model = Model::default();
        for &len in &lens {
            model.step(&mut writer, &Step::Event { len, after: 1000, discard: false, nested: vec![] });
        }
        let kept = check::check(&memory, &model) as u64;
        let counters = Counters::load(&layout.unwrap(), &memory, 0);
        prop_assert_eq!(kept + counters.overrun, lens.len() as u64);
    }
}
