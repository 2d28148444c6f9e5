//! Damage to a region with an extension: nothing that was not written is ever shown, and no more is
//! lost than the sub-buffer that the damage is in.

use std::collections::BTreeMap;

use outlive_ring::extension::Layout;
use outlive_ring::layout::{SUBBUF_HEADER, SUBBUF_SIZE};
use outlive_ring::{Geometry, HeapMemory, MemoryMut, PageSource, Recovery, Region};

use super::model::{Model, Step};
use super::ring;
use super::support::{Kept, kept_events};

const CPU: u32 = 0;

struct Sample {
    bytes: Vec<u8>,
    geometry: Geometry,
    layout: Layout,
    /// By sub-buffer.
    events: BTreeMap<u32, Vec<Kept>>,
    /// The open one.
    commit_page: u32,
}

impl Sample {
    /// A ring that was overwritten one and a half times.
    fn new() -> Self {
        let (memory, geometry, layout) = ring(8, true);
        let region = Region::format(&memory, geometry, layout).unwrap();
        let mut writer = region.writer(CPU).unwrap();
        let mut model = Model::default();
        for i in 0..130 {
            let step = Step::Event {
                len: 100 + i * 53 % 700,
                after: 1000 + i as u64 * 77,
                discard: i % 7 == 0,
                nested: vec![],
            };
            model.step(&mut writer, &step);
        }
        let recovery = Recovery::new(&memory).unwrap();
        Self {
            bytes: memory.to_vec(),
            geometry,
            layout: layout.unwrap(),
            events: events(&recovery, &memory),
            commit_page: recovery.cpu(CPU).pages.last().unwrap().subbuf,
        }
    }

    /// Recovers a damaged copy; all events but those of `may_lose` must be there, and no others.
    fn check(&self, what: &str, may_lose: Option<u32>, damage: impl Fn(&HeapMemory)) -> Recovery {
        let memory = HeapMemory::from_bytes(&self.bytes);
        damage(&memory);
        let recovery = Recovery::new(&memory).unwrap();
        let found = events(&recovery, &memory);
        for (subbuf, events) in &self.events {
            match found.get(subbuf) {
                Some(found) => assert!(found == events, "{what}: sub-buffer {subbuf} differs"),
                None => assert_eq!(may_lose, Some(*subbuf), "{what}: {:?}", recovery.cpus),
            }
        }
        assert!(
            found.keys().all(|subbuf| self.events.contains_key(subbuf)),
            "{what}"
        );
        let order: Vec<u64> = recovery
            .cpu(CPU)
            .pages
            .iter()
            .map(|page| page.time_stamp)
            .collect();
        assert!(order.is_sorted(), "{what}: {order:?}");
        recovery
    }
}

fn events(recovery: &Recovery, memory: &HeapMemory) -> BTreeMap<u32, Vec<Kept>> {
    let pages = &recovery.cpu(CPU).pages;
    let mut alone = recovery.clone();
    pages
        .iter()
        .map(|page| {
            alone.cpus[CPU as usize].pages = vec![*page];
            (page.subbuf, kept_events(&alone, memory, CPU))
        })
        .collect()
}

fn flip(memory: &HeapMemory, bit: usize) {
    let mut byte = [0];
    outlive_ring::Memory::read(memory, bit / 8, &mut byte);
    memory.write(bit / 8, &[byte[0] ^ 1 << (bit % 8)]);
}

#[test]
fn a_flipped_bit_of_a_closed_header_is_put_right() {
    let sample = Sample::new();
    for &subbuf in sample
        .events
        .keys()
        .filter(|&&subbuf| subbuf != sample.commit_page)
    {
        let offset = sample.geometry.subbuf_offset(CPU, subbuf);
        for bit in offset * 8..(offset + SUBBUF_HEADER) * 8 {
            let recovery = sample.check(&format!("bit {bit}"), None, |memory| flip(memory, bit));
            let page = recovery
                .cpu(CPU)
                .pages
                .iter()
                .find(|page| page.subbuf == subbuf);
            assert_eq!(page.unwrap().source, PageSource::RestoredFromSeal);
        }
    }
}

#[test]
fn a_flipped_bit_of_closed_data_costs_that_sub_buffer() {
    let sample = Sample::new();
    for &subbuf in sample
        .events
        .keys()
        .filter(|&&subbuf| subbuf != sample.commit_page)
    {
        let offset = sample.geometry.subbuf_offset(CPU, subbuf);
        // Every bit of some bytes.
        for bit in (0..8).flat_map(|bit| {
            (SUBBUF_HEADER..SUBBUF_SIZE - 7)
                .step_by(97)
                .map(move |byte| byte * 8 + bit)
        }) {
            let bit = offset * 8 + bit;
            sample.check(&format!("bit {bit}"), Some(subbuf), |memory| {
                flip(memory, bit)
            });
        }
    }
}

#[test]
fn a_flipped_bit_outside_of_the_sub_buffers_costs_nothing() {
    let sample = Sample::new();
    let first = sample.geometry.subbuf_offset(CPU, 0);
    let ring_end =
        sample.geometry.subbuf_offset(CPU, 0) + sample.geometry.nr_subbufs() as usize * SUBBUF_SIZE;
    let meta = sample.geometry.meta_offset(CPU);
    let index_end = sample
        .geometry
        .index_offset(CPU, sample.geometry.nr_subbufs() - 1)
        + 4;
    let metas = (0..64 * 8).chain(meta * 8..index_end * 8);
    // A prime, so that every bit of a word has its turn.
    let others = (64 * 8..first * 8).step_by(1009);
    let extension = (ring_end * 8..sample.bytes.len() * 8).step_by(97);
    let bits = metas.chain(others).chain(extension);
    for bit in bits {
        sample.check(
            &format!("bit {bit} of byte {:#x}", bit / 8),
            None,
            |memory| flip(memory, bit),
        );
    }
}

#[test]
fn a_flipped_bit_of_the_open_sub_buffers_time_costs_nothing() {
    let sample = Sample::new();
    let offset = sample.geometry.subbuf_offset(CPU, sample.commit_page);
    for bit in offset * 8..(offset + 8) * 8 {
        sample.check(&format!("bit {bit}"), None, |memory| flip(memory, bit));
    }
}

#[test]
fn a_lost_page_of_metas_or_extension_costs_no_sub_buffer() {
    let sample = Sample::new();
    let pages = (0..sample.bytes.len()).step_by(SUBBUF_SIZE);
    let data = sample.geometry.subbuf_offset(CPU, 0);
    let data = data..data + sample.geometry.nr_subbufs() as usize * SUBBUF_SIZE;
    for page in pages {
        for fill in [0, 0xff, 0x5a] {
            let subbuf = ((page - data.start.min(page)) / SUBBUF_SIZE) as u32;
            let may_lose = data.contains(&page).then_some(subbuf);
            let what = format!("page {page:#x} filled with {fill:#x}");
            let lost = sample.check(&what, may_lose, |memory| {
                memory.write(page, &[fill; SUBBUF_SIZE]);
            });
            let was_sealed = may_lose.is_some_and(|subbuf| {
                subbuf != sample.commit_page && sample.events.contains_key(&subbuf)
            });
            let is_named = |subbuf| {
                lost.cpu(CPU)
                    .rejected
                    .iter()
                    .any(|r| Some(r.subbuf) == subbuf)
            };
            assert!(!was_sealed || is_named(may_lose), "{what}");
        }
    }
}

/// Both copies of the geometry are lost: the CPU's block is left, and without the anchor no seal.
#[test]
fn a_region_without_first_page_and_anchor_is_found() {
    let sample = Sample::new();
    let anchor = sample.layout.area_size() as usize - SUBBUF_SIZE;
    let recovery = sample.check("both", None, |memory| {
        memory.write(0, &[0; SUBBUF_SIZE]);
        memory.write(anchor, &[0; SUBBUF_SIZE]);
    });
    assert_eq!(recovery.extension, None);
}
