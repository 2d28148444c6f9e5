//! Regions that are laid out in a way that is not known here.
//!
//! A kernel whose layout is another one says so in the global meta: in the sizes of its structs, and
//! in where its first CPU's meta lies. Damage changes these words too, and a damaged region is
//! recovered, not refused. The whole tells them apart: a region has another layout if a sound index
//! array lies where its words say, and none where the known layouts have it. Read by a known layout
//! it would give events in an order that is guessed, and symbols and clock from the wrong words.

use alloc::vec;

use crate::layout::{BUFFERS_OFFSET, LayoutError, MAGIC, SUBBUF_SIZE};
use crate::{Memory, RegionFormat};

/// Offsets in a CPU's meta, the same in all layouts with a global meta.
const META_SUBBUF_SIZE: usize = 24;
const META_NR_SUBBUFS: usize = 28;
/// Bytes of a CPU's meta before what later kernels may add, and more than they ever will.
const CPU_META_SIZES: core::ops::RangeInclusive<usize> = 32..=1024;

/// Refuses a region that says, and is seen, to be laid out in a way that is not known.
pub(crate) fn refuse(memory: &impl Memory) -> Result<(), LayoutError> {
    if memory.len() < SUBBUF_SIZE || memory.load_u32(0) != MAGIC {
        return Ok(());
    }
    let said_size = memory.load_u32(4) as usize & 0xffff;
    let said_offset = memory.load_u64(BUFFERS_OFFSET);
    let is_said =
        usize::try_from(said_offset).is_ok_and(|offset| has_sound_index(memory, offset, said_size));
    let known = [RegionFormat::V6_16, RegionFormat::V7_2Inject];
    let is_known = known
        .iter()
        .any(|format| has_sound_index(memory, format.buffers_offset(), format.cpu_meta_size()));
    if is_said && !is_known {
        return Err(LayoutError::of(memory));
    }
    Ok(())
}

/// Whether a CPU's meta of `meta_size` bytes lies at `meta`, and each sub-buffer is once in the index
/// array behind it.
fn has_sound_index(memory: &impl Memory, meta: usize, meta_size: usize) -> bool {
    let is_there = |offset: usize, bytes: usize| {
        offset
            .checked_add(bytes)
            .is_some_and(|end| end <= memory.len())
    };
    let is_aligned = meta.is_multiple_of(8) && meta_size.is_multiple_of(8);
    if !is_aligned || !CPU_META_SIZES.contains(&meta_size) || !is_there(meta, meta_size) {
        return false;
    }
    let nr_subbufs = memory.load_u32(meta + META_NR_SUBBUFS) as usize;
    if memory.load_u32(meta + META_SUBBUF_SIZE) as usize != SUBBUF_SIZE
        || !(3..memory.len() / SUBBUF_SIZE).contains(&nr_subbufs)
        || !is_there(meta + meta_size, 4 * nr_subbufs)
    {
        return false;
    }
    let mut seen = vec![false; nr_subbufs];
    (0..nr_subbufs).all(|position| {
        let subbuf = memory.load_u32(meta + meta_size + 4 * position) as usize;
        seen.get_mut(subbuf)
            .is_some_and(|seen| !core::mem::replace(seen, true))
    })
}
