//! Damages drawn from a seed: the same seed and region give the same damage.

use outlive_ring::layout::SUBBUF_SIZE;

use super::base::Base;
use super::draft::{CACHE_LINE, Damage, Draft};

/// SplitMix64: small, and the same everywhere.
#[derive(Debug)]
struct Draw(u64);

impl Draw {
    fn word(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ word >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ word >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ word >> 31
    }

    /// A number below `end`.
    fn below(&mut self, end: usize) -> usize {
        (self.word() % end as u64) as usize
    }

    fn one_of<T: Copy>(&mut self, values: &[T]) -> T {
        values[self.below(values.len())]
    }
}

/// One sort of damage, at random places.
type Sort = fn(&mut Draft<'_>, &mut Draw);

/// The sorts, with their rows in the table.
const SORTS: [(&str, Sort); 12] = [
    ("random: bits anywhere", bits_anywhere),
    ("random: bits of page headers", header_bits),
    ("random: bits of CPU metas", meta_bits),
    ("random: torn words", torn_words),
    ("random: stale cache lines", stale_lines),
    ("random: lost cache lines", lost_lines),
    ("random: pages zero or ones", filled_pages),
    ("random: pages swapped or copied", moved_pages),
    ("random: torn page writes", torn_pages),
    ("random: the index array", index_elements),
    ("random: commits and time stamps", page_words),
    ("random: event headers", event_headers),
];
const COMBINED: &str = "random: several of these together";

/// The damage of a seed.
#[must_use]
pub fn random(base: &Base, seed: usize) -> Damage {
    let draw = &mut Draw(seed as u64);
    let mut draft = Draft::new(base);
    // Every fourth is of several sorts.
    let kind = match seed % 4 {
        3 => {
            (0..2 + draw.below(4)).for_each(|_| draw.one_of(&SORTS).1(&mut draft, draw));
            COMBINED
        }
        _ => {
            let (kind, sort) = SORTS[seed % SORTS.len()];
            sort(&mut draft, draw);
            kind
        }
    };
    draft.finish(kind, format!("seed {seed}"))
}

fn a_cpu(draft: &Draft<'_>, draw: &mut Draw) -> u32 {
    draw.below(draft.base.geometry.nr_cpus() as usize) as u32
}

/// A sub-buffer that is in use; the reader page is one.
fn a_page(draft: &Draft<'_>, draw: &mut Draw) -> (u32, u32) {
    let cpu = a_cpu(draft, draw);
    let mut pages = draft.base.in_use(cpu);
    pages.push(draft.base.reader(cpu));
    (cpu, draw.one_of(&pages))
}

fn offset(draft: &Draft<'_>, (cpu, subbuf): (u32, u32)) -> usize {
    draft.base.subbuf(cpu, subbuf)
}

fn bits_anywhere(draft: &mut Draft<'_>, draw: &mut Draw) {
    for _ in 0..1 + draw.below(6) {
        let at = draw.below(draft.base.region.len());
        draft.flip(at, draw.below(8) as u32);
    }
}

fn header_bits(draft: &mut Draft<'_>, draw: &mut Draw) {
    for _ in 0..1 + draw.below(3) {
        let at = offset(draft, a_page(draft, draw)) + draw.below(16);
        draft.flip(at, draw.below(8) as u32);
    }
}

fn meta_bits(draft: &mut Draft<'_>, draw: &mut Draw) {
    let cpu = a_cpu(draft, draw);
    let len = 32 + 4 * draft.base.geometry.nr_subbufs() as usize;
    let at = draft.base.first_buffer(cpu) + draw.below(len);
    draft.flip(at, draw.below(8) as u32);
}

/// A word whose one half was written and whose other half is that of a word of the same sort.
fn torn_words(draft: &mut Draft<'_>, draw: &mut Draw) {
    let half = draw.one_of(&[0xffff_ffff, !0xffff_ffff, 0xffff]);
    for _ in 0..1 + draw.below(3) {
        let (to, from) = (a_page(draft, draw), a_page(draft, draw));
        let (cpu, other) = (to.0, from.0);
        let word = draw.below(2) * 8;
        let (to, from) = match draw.below(4) {
            0 => (
                draft.base.commit_buffer(cpu),
                draft.base.commit_buffer(other),
            ),
            _ => (offset(draft, to) + word, offset(draft, from) + word),
        };
        draft.set_bits(to, half, draft.base.u64_at(from));
    }
}

fn stale_lines(draft: &mut Draft<'_>, draw: &mut Draw) {
    let (to, from) = (a_page(draft, draw), a_page(draft, draw));
    for _ in 0..1 + draw.below(4) {
        draft.stale_line(to, from, draw.below(SUBBUF_SIZE / CACHE_LINE));
    }
}

fn lost_lines(draft: &mut Draft<'_>, draw: &mut Draw) {
    let at = offset(draft, a_page(draft, draw));
    let byte = draw.one_of(&[0, 0, 0xff]);
    for _ in 0..1 + draw.below(3) {
        draft.fill(
            at + draw.below(SUBBUF_SIZE / CACHE_LINE) * CACHE_LINE,
            byte,
            CACHE_LINE,
        );
    }
}

fn filled_pages(draft: &mut Draft<'_>, draw: &mut Draw) {
    let at = draw.below(draft.base.region.len() / SUBBUF_SIZE) * SUBBUF_SIZE;
    draft.fill(
        at,
        draw.one_of(&[0, 0xff]),
        SUBBUF_SIZE * (1 + draw.below(4)),
    );
}

fn moved_pages(draft: &mut Draft<'_>, draw: &mut Draw) {
    let (a, b) = (a_page(draft, draw), a_page(draft, draw));
    match draw.below(3) {
        0 => draft.copy_subbuf(a, b),
        _ => draft.swap_subbufs(a, b),
    }
}

fn torn_pages(draft: &mut Draft<'_>, draw: &mut Draw) {
    let (to, from) = (a_page(draft, draw), a_page(draft, draw));
    let (to, from) = (offset(draft, to), offset(draft, from));
    let cut = draw.below(SUBBUF_SIZE / 8) * 8;
    match draw.below(3) {
        0 => draft.copy(to, from, cut),
        1 => draft.copy(to + cut, from + cut, SUBBUF_SIZE - cut),
        _ => draft.fill(to + cut, 0, SUBBUF_SIZE - cut),
    }
}

fn index_elements(draft: &mut Draft<'_>, draw: &mut Draw) {
    let (cpu, count) = (a_cpu(draft, draw), draft.base.geometry.nr_subbufs());
    let position = |draw: &mut Draw| draw.below(count as usize) as u32;
    let (a, b) = (position(draw), position(draw));
    let element = |position| draft.base.index(cpu, position);
    let (at, other) = (element(a), element(b));
    let is_swap = draw.below(3) > 0;
    draft.copy(at, other, 4);
    if is_swap {
        draft.copy(other, at, 4);
    }
}

fn page_words(draft: &mut Draft<'_>, draw: &mut Draw) {
    for _ in 0..1 + draw.below(3) {
        let at = offset(draft, a_page(draft, draw));
        let time = draft.base.u64_at(at);
        let near = draw.word() % 2_000_000_000;
        match draw.below(6) {
            0 => draft.u64(at + 8, draw.below(4100) as u64),
            1 => draft.u64(at + 8, draw.word()),
            2 => draft.u64(at, draw.word()),
            3 => draft.u64(at, time + near),
            4 => draft.u64(at, time - near),
            _ => draft.u64(at, time ^ 1 << draw.below(40)),
        }
    }
}

fn event_headers(draft: &mut Draft<'_>, draw: &mut Draw) {
    for _ in 0..1 + draw.below(3) {
        let (cpu, subbuf) = a_page(draft, draw);
        let record = draw.one_of(&draft.base.records(cpu, subbuf));
        let at = draft.base.subbuf(cpu, subbuf) + record;
        let header = draft.base.u32_at(at);
        match draw.below(3) {
            0 => draft.u32(at, header ^ 1 << draw.below(32)),
            1 => draft.u32(at, header & !0x1f | draw.below(32) as u32),
            _ => draft.u32(at, draw.word() as u32),
        }
    }
}
