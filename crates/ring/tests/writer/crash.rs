//! A writer that is stopped after every single store: what was committed is found.

use outlive_ring::catalog::{CatalogLog, CatalogRecords, TaskNames, task_names};
use outlive_ring::extension::{ClockPair, Cursor, Layout, clock_pairs, store_clock_pair};
use outlive_ring::run::RunState;
use outlive_ring::{Geometry, HeapMemory, PageSource, Recovery, Region, RunRecord};

use super::check::check;
use super::model::{Model, Step, Written};
use super::ring;
use super::stores::NotingMemory;
use super::support::{Kept, kept_events};

/// What a reader finds after a step was done as a whole.
#[derive(Debug, Clone, PartialEq)]
struct Found {
    /// Indices of the first and behind the last kept event in the model's list.
    events: std::ops::Range<usize>,
    catalog: usize,
    names: usize,
    run: Option<RunRecord>,
    cursor: Cursor,
    pairs: usize,
}

fn found(layout: &Layout, memory: &HeapMemory, events: std::ops::Range<usize>) -> Found {
    let catalog = CatalogRecords::load(layout, memory);
    assert_eq!(catalog.damaged, 0);
    Found {
        events,
        catalog: catalog.records.len(),
        names: task_names(layout, memory).len(),
        run: RunRecord::load(layout, memory),
        cursor: Cursor::load(layout, memory, 0),
        pairs: clock_pairs(layout, memory).len(),
    }
}

/// What else is stored beside the events, one thing after the other.
struct Others {
    catalog: CatalogLog,
    names: TaskNames,
    run: RunRecord,
    number: u64,
}

impl Others {
    fn store_next(&mut self, layout: &Layout, memory: &NotingMemory) {
        self.number += 1;
        let number = self.number;
        match number % 5 {
            0 => assert!(
                self.catalog
                    .append(memory, 7, &vec![7; number as usize % 50])
            ),
            1 => self.names.store(memory, number as i32 % 7, b"some name"),
            2 => {
                self.run.sequence += 1;
                self.run.state = match number % 2 {
                    0 => RunState::Running,
                    _ => RunState::Closed,
                };
                self.run.store(layout, memory);
            }
            3 => Cursor {
                sequence: number,
                time_stamp: number,
                offset: 8,
                next_event: number,
            }
            .store(layout, memory, 0),
            _ => store_clock_pair(layout, memory, number / 5, ClockPair::default()),
        }
    }
}

fn event(len: usize, after: u64, discard: bool, nested: Vec<Step>) -> Step {
    Step::Event {
        len,
        after,
        discard,
        nested,
    }
}

/// Steps that wrap a small ring some times: long and short events, time extends, discarded events
/// both ways, nested ones over several sub-buffers, losses.
fn scenario() -> Vec<Step> {
    let plain = |len| event(len, 1000, false, vec![]);
    let mut steps = Vec::new();
    for round in 0..3 {
        steps.extend([plain(300), plain(1000), event(40, 1 << 40, false, vec![])]);
        steps.push(event(500, 10, true, vec![]));
        steps.push(event(
            600,
            10,
            true,
            vec![plain(700), event(9, 1 << 30, true, vec![])],
        ));
        steps.push(Step::Lost(5 + round));
        steps.push(plain(4072));
        steps.push(event(
            800,
            7,
            false,
            vec![plain(1500), plain(1900), plain(1700)],
        ));
        steps.push(event(4064, 0, true, vec![]));
        steps.push(event(64, 1 << 28, false, vec![]));
    }
    steps
}

/// Holds what is found after some of a step's stores against what was found before and behind it.
fn check_between(
    recovery: &Recovery,
    memory: &HeapMemory,
    all: &[Written],
    from: &Found,
    to: &Found,
) {
    let cpu = recovery.cpu(0);
    assert!(
        recovery.is_whole(),
        "{:?} {:?} {:?}",
        recovery.damage,
        cpu.damage,
        cpu.rejected
    );
    let kept = kept_events(recovery, memory, 0);
    let position = |event: &Kept| {
        let id = u64::from_le_bytes(event.payload[..8].try_into().unwrap());
        let position = all.binary_search_by_key(&id, |written| written.id).ok()?;
        all[position].is(event).then_some(position)
    };
    let positions: Vec<usize> = kept.iter().map(|event| position(event).unwrap()).collect();
    assert!(
        positions.windows(2).all(|pair| pair[0] + 1 == pair[1]),
        "{positions:?}"
    );
    if let (Some(&first), Some(&last)) = (positions.first(), positions.last()) {
        assert!(from.events.start <= first && last < to.events.end);
        assert!(
            first <= to.events.start,
            "lost: begins with {first} {from:?} {to:?}"
        );
        assert!(last + 1 >= from.events.end, "lost: ends with {last}");
    } else {
        assert!(from.events.is_empty() || to.events.start >= from.events.end);
    }
    // The oldest may be the one that is being begun, and the newest is open.
    let closed = cpu.pages.len().saturating_sub(1);
    let unsealed = |page: &&outlive_ring::Page| page.source != PageSource::Sealed;
    assert_eq!(
        cpu.pages[..closed].iter().skip(1).filter(unsealed).count(),
        0
    );
}

fn check_others(layout: &Layout, memory: &HeapMemory, from: &Found, to: &Found) {
    let now = found(layout, memory, 0..0);
    assert!(now.catalog == from.catalog || now.catalog == to.catalog);
    assert!(now.run == from.run || now.run == to.run);
    assert!(now.cursor == from.cursor || now.cursor == to.cursor);
    assert!(now.pairs == from.pairs || now.pairs == to.pairs);
    // A name that is being overwritten may be missing.
    assert!(now.names + 1 >= from.names && now.names <= to.names);
}

/// Does `steps`, then replays them store by store.
fn stop_after_every_store(
    layout: &Layout,
    noted: &NotingMemory,
    before: &HeapMemory,
    model: &mut Model,
    mut step: impl FnMut(&mut Model) -> bool,
) {
    let mut states = vec![(0, found(layout, before, 0..0))];
    loop {
        let more = step(model);
        let kept = check(noted.now(), model);
        let all = model.committed.len();
        states.push((noted.stores(), found(layout, noted.now(), all - kept..all)));
        if !more {
            break;
        }
    }
    for pair in states.windows(2) {
        let [(start, from), (end, to)] = pair else {
            unreachable!()
        };
        for store in *start..*end {
            noted.replay(store, before);
            let recovery = Recovery::new(before).unwrap();
            check_between(&recovery, before, &model.committed, from, to);
            check_others(layout, before, from, to);
        }
    }
}

fn formatted(pages: u64) -> (HeapMemory, Geometry, Layout) {
    let (memory, geometry, layout) = ring(pages, true);
    Region::format(&memory, geometry, layout).unwrap();
    (memory, geometry, layout.unwrap())
}

/// The writer of a region that was just laid out.
fn reopened(noted: &NotingMemory, geometry: Geometry, layout: Layout) -> Region<&NotingMemory> {
    let region = Region::format(noted, geometry, Some(layout)).unwrap();
    noted.forget();
    region
}

#[test]
fn everything_committed_is_found_after_any_store() {
    let (before, geometry, layout) = formatted(6);
    let noted = NotingMemory::new(&before.to_vec());
    let region = reopened(&noted, geometry, layout);
    let mut others = Others {
        catalog: CatalogLog::clear(&layout, &noted),
        names: TaskNames::clear(&layout, &noted),
        run: RunRecord::default(),
        number: 0,
    };
    noted.forget();
    let mut writer = region.writer(0).unwrap();
    let mut steps = scenario().into_iter();
    stop_after_every_store(&layout, &noted, &before, &mut Model::default(), |model| {
        let Some(step) = steps.next() else {
            return false;
        };
        model.step(&mut writer, &step);
        others.store_next(&layout, &noted);
        true
    });
}
