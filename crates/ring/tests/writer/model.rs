//! A writer that is driven by a script, and what it must have written.

use outlive_ring::subbuf::PAYLOAD_MAX;
use outlive_ring::{CpuWriter, MemoryMut, Missed, Reservation, ReserveError};

use super::support::Kept;

/// One thing that a writer is told to do.
#[derive(Debug, Clone)]
pub(crate) enum Step {
    /// An event of `len` bytes, `after` later than the one before; others are nested in it.
    Event {
        len: usize,
        after: u64,
        discard: bool,
        nested: Vec<Step>,
    },
    /// So many events were lost.
    Lost(u64),
}

/// An event as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Written {
    pub(crate) id: u64,
    pub(crate) time_stamp: u64,
    pub(crate) len: usize,
}

impl Written {
    /// The payload: derived from the id, so that no part of another event passes for it.
    pub(crate) fn payload(&self) -> Vec<u8> {
        let mut state = self.id.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut bytes = self.id.to_le_bytes().to_vec();
        while bytes.len() < self.len {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            bytes.extend(state.to_le_bytes());
        }
        bytes.truncate(self.len);
        bytes
    }

    /// Whether `kept` is this event: its time, and its payload up to the rounding.
    pub(crate) fn is(&self, kept: &Kept) -> bool {
        kept.time_stamp == self.time_stamp
            && kept.payload.len() < self.len.max(1) + 12
            && kept.payload.starts_with(&self.payload())
    }
}

/// What a writer was told, and did.
#[derive(Debug, Default)]
pub(crate) struct Model {
    /// Events that are visible or were, in order.
    pub(crate) committed: Vec<Written>,
    /// Losses that were told: before which event, and how many.
    pub(crate) lost: Vec<(usize, u64)>,
    /// Reservations that failed.
    pub(crate) failed: u64,
    now: u64,
    next_id: u64,
    /// Reserved, and not yet visible.
    pending: Vec<Option<Written>>,
}

impl Model {
    /// Does a step. Nothing is pending afterwards.
    pub(crate) fn step<M: MemoryMut>(&mut self, writer: &mut CpuWriter<'_, M>, step: &Step) {
        self.nested_step(writer, step);
        self.committed.extend(self.pending.drain(..).flatten());
    }

    fn nested_step<M: MemoryMut>(&mut self, writer: &mut CpuWriter<'_, M>, step: &Step) {
        match step {
            Step::Lost(events) => {
                writer.lost(Missed::Events(*events));
                let before = self.committed.len() + self.pending.iter().flatten().count();
                self.lost.push((before, *events));
            }
            Step::Event {
                len,
                after,
                discard,
                nested,
            } => {
                // A discarded record that stays in place with a delta of 1 is taken for a filler,
                // and its time is not added: the format has it so.
                self.now += if *after == 1 { 2 } else { *after };
                let written = Written {
                    id: self.next_id,
                    time_stamp: self.now,
                    len: (*len).min(PAYLOAD_MAX),
                };
                self.next_id += 1;
                let is_plain = !discard && nested.is_empty() && self.pending.is_empty();
                // Half of those that need no steps go without.
                if is_plain && written.id.is_multiple_of(2) {
                    return self.record(writer, written);
                }
                match writer.reserve(written.len, self.now) {
                    Ok(reservation) => {
                        self.reserved(writer, reservation, written, *discard, nested);
                    }
                    Err(ReserveError::Full | ReserveError::CommitOverrun) => {
                        self.failed += 1;
                    }
                    Err(error) => panic!("{error}"),
                }
            }
        }
    }

    fn record<M: MemoryMut>(&mut self, writer: &mut CpuWriter<'_, M>, written: Written) {
        match writer.record(&written.payload(), self.now) {
            Ok(()) => self.pending.push(Some(written)),
            Err(ReserveError::Full | ReserveError::CommitOverrun) => self.failed += 1,
            Err(error) => panic!("{error}"),
        }
    }

    fn reserved<M: MemoryMut>(
        &mut self,
        writer: &mut CpuWriter<'_, M>,
        reservation: Reservation,
        written: Written,
        discard: bool,
        nested: &[Step],
    ) {
        assert!(reservation.capacity() >= written.len);
        let slot = self.pending.len();
        writer.write(&reservation, 0, &written.payload());
        self.pending.push(Some(written));
        for step in nested {
            self.nested_step(writer, step);
        }
        if discard {
            writer.discard(reservation);
            self.pending[slot] = None;
        } else {
            writer.commit(reservation);
        }
    }
}
