//! Whole sub-buffers of a view, as a kernel's `trace_pipe_raw` hands them out.

use outlive_ring::layout::{SUBBUF_DATA, SUBBUF_HEADER, SUBBUF_SIZE};
use outlive_ring::{Missed, subbuf};

use super::{View, ViewCpu};

/// What a copied sub-buffer has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RawSubbuf {
    /// Entries, as the kernel's `stats` counts them.
    pub entries: u32,
    /// What is missing before it.
    pub missed: Option<Missed>,
}

impl View {
    /// Copies sub-buffer `number` of a CPU, counted from the oldest; `None` if there are no more.
    /// Header and records are the ring's own. What is missing before it is in its commit word, and
    /// its number behind the records, if it is known and there is room.
    #[must_use]
    pub fn copy_subbuf(
        &self,
        cpu: &ViewCpu,
        number: usize,
        out: &mut [u8; SUBBUF_SIZE],
    ) -> Option<RawSubbuf> {
        let placed = cpu.pages.get(number)?;
        let data = out[SUBBUF_HEADER..].first_chunk_mut::<SUBBUF_DATA>()?;
        let size = self.read_page(cpu.cpu, placed, data).len();
        let missed = placed.page.missed;
        subbuf::finish(out, placed.page.time_stamp, size, missed);
        Some(RawSubbuf {
            entries: placed.page.entries,
            missed,
        })
    }
}
