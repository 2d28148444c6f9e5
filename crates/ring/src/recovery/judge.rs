//! Judging a sub-buffer by itself: by its seal where it has one, else by its structure.
//!
//! | seal | what it means | judged by |
//! | --- | --- | --- |
//! | closed | these were the contents | the checksum. If neither header nor contents match and the seal is older, it is of an earlier lap and proves nothing |
//! | open, of the commit page | it was begun with this time stamp | structure, with the seal's time stamp |
//! | open, behind the commit page | it is being begun: what is there may be what was there before | structure |
//! | damaged, or none | nothing | structure |
//!
//! The writer replaces a closed seal before it touches the sub-buffer again, so a closed seal whose
//! sub-buffer differs is damage or, after a power loss, one that the sub-buffer outran to the disk.

use super::{Page, PageSource, Reason, Recovery, prefetch_subbuf};
use crate::Memory;
use crate::layout::{RegionFormat, SUBBUF_DATA, SUBBUF_HEADER, SUBBUF_SIZE};
use crate::seal::{Seal, checksum_by};
use crate::subbuf::{self, BadRecord, Commit, DROPPED, Summary};

/// What was found.
#[derive(Debug, Clone, Copy)]
pub(super) enum Judged {
    /// Never written, or emptied.
    Empty,
    Bad(Reason),
    /// Kept; the reason says what is cut off.
    Good(Page, Option<Reason>),
}

/// What the pointers say that the writer was doing with a sub-buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// It is the commit page.
    Commit,
    /// It is behind the commit page and may be in the middle of being begun.
    Next,
    Other,
}

/// Judges the sub-buffers of one CPU.
pub(super) struct Judge<'a, M> {
    region: &'a Recovery,
    memory: &'a M,
    cpu: u32,
    /// A copy of the sub-buffer that is being judged.
    data: [u8; SUBBUF_DATA],
}

/// A sub-buffer's header as it stands in the region.
#[derive(Debug, Clone, Copy)]
struct Header {
    subbuf: u32,
    offset: usize,
    time_stamp: u64,
    commit: Commit,
}

impl<'a, M: Memory> Judge<'a, M> {
    pub(super) fn new(region: &'a Recovery, memory: &'a M, cpu: u32) -> Self {
        Self {
            region,
            memory,
            cpu,
            data: [0; SUBBUF_DATA],
        }
    }

    pub(super) fn judge(&mut self, subbuf: u32, role: Role) -> Judged {
        let offset = self.region.geometry.subbuf_offset(self.cpu, subbuf);
        let header = Header {
            subbuf,
            offset,
            time_stamp: self.memory.load_u64(offset),
            commit: self.commit(offset + 8),
        };
        let layout = self.region.extension.as_ref();
        match layout.and_then(|layout| Seal::load(layout, self.memory, self.cpu, subbuf)) {
            None => self.by_structure(header),
            Some(seal) => match seal.crc {
                Some(crc) => self.by_closed_seal(header, &seal, crc),
                None => self.by_open_seal(header, &seal, role),
            },
        }
    }

    /// Linux 6.12 to 6.14 look at the lower half of a commit word alone (seen with 6.12.107).
    fn commit(&self, offset: usize) -> Commit {
        let word = self.memory.load_u64(offset);
        Commit(match self.region.geometry.format() {
            RegionFormat::V6_12 => word & u64::from(u32::MAX),
            RegionFormat::V6_16 | RegionFormat::V7_2Inject => word,
        })
    }

    fn by_closed_seal(&mut self, header: Header, seal: &Seal, crc: u32) -> Judged {
        let size = seal.size as usize;
        if size > SUBBUF_DATA {
            return Judged::Bad(Reason::SealMismatch);
        }
        let contents = header.offset + SUBBUF_HEADER;
        let header_matches = seal.time_stamp == header.time_stamp && header.commit.0 == size as u64;
        let of_contents = |crc| self.memory.crc32c(crc, contents, size);
        if checksum_by(seal.time_stamp, size, of_contents) != crc {
            return match header_matches {
                true => Judged::Bad(Reason::Checksum),
                false if seal.time_stamp < header.time_stamp => self.by_structure(header),
                false => Judged::Bad(Reason::SealMismatch),
            };
        }
        let source = match header_matches {
            true => PageSource::Sealed,
            false => PageSource::RestoredFromSeal,
        };
        let page = Page {
            subbuf: header.subbuf,
            time_stamp: seal.time_stamp,
            size: seal.size,
            entries: u32::from(seal.entries),
            missed: seal.missed,
            source,
            last: None,
            has_proven_time: true,
            is_doubtful: false,
        };
        Judged::Good(page, None)
    }

    fn by_open_seal(&mut self, header: Header, seal: &Seal, role: Role) -> Judged {
        if header.time_stamp != seal.time_stamp && role == Role::Next {
            return self.by_structure(header);
        }
        if header.time_stamp != seal.time_stamp && role == Role::Other {
            return Judged::Bad(Reason::SealMismatch);
        }
        let judged = self.by_structure(Header {
            time_stamp: seal.time_stamp,
            ..header
        });
        match judged {
            // What was missed before an open sub-buffer only its seal knows.
            Judged::Good(page, cut) => Judged::Good(
                Page {
                    missed: seal.missed.or(page.missed),
                    has_proven_time: true,
                    ..page
                },
                cut,
            ),
            Judged::Empty if seal.missed.is_some() => Judged::Good(
                Page {
                    subbuf: header.subbuf,
                    time_stamp: seal.time_stamp,
                    size: 0,
                    entries: 0,
                    missed: seal.missed,
                    source: PageSource::Unsealed,
                    last: Some(seal.time_stamp),
                    has_proven_time: true,
                    is_doubtful: false,
                },
                None,
            ),
            other => other,
        }
    }

    /// The word behind a sub-buffer's data, which the kernel takes for a length.
    fn word_behind(&self, offset: usize) -> u32 {
        match offset + 4 <= self.memory.len() {
            true => self.memory.load_u32(offset & !3),
            false => 0,
        }
    }

    fn by_structure(&mut self, header: Header) -> Judged {
        let (time_stamp, commit) = (header.time_stamp, header.commit);
        if commit.0 == DROPPED {
            return Judged::Bad(Reason::DroppedBefore);
        }
        if commit.size() > SUBBUF_DATA {
            return Judged::Bad(Reason::BadRecord(BadRecord::Commit { commit: commit.0 }));
        }
        if commit.has_stray_bits() {
            return Judged::Bad(Reason::CommitBits(commit.0));
        }
        if commit.size() == 0 {
            return Judged::Empty;
        }
        self.memory
            .read(header.offset + SUBBUF_HEADER, &mut self.data);
        // The next one's bytes come while this one is walked over.
        prefetch_subbuf(self.memory, header.offset + SUBBUF_SIZE);
        let data = &self.data[..commit.size()];
        let summary = subbuf::walk(time_stamp, data);
        let behind = self.word_behind(header.offset + SUBBUF_HEADER + commit.size());
        if summary.last < time_stamp {
            return Judged::Bad(Reason::TimeBeyondClock(time_stamp));
        }
        let page = |summary: Summary| Page {
            subbuf: header.subbuf,
            time_stamp,
            size: summary.size as u32,
            entries: summary.entries,
            missed: commit.missed(&self.data),
            source: PageSource::Unsealed,
            last: Some(summary.last),
            has_proven_time: false,
            is_doubtful: summary.has_odd_form && self.region.extension.is_none(),
        };
        match summary.error {
            None => Judged::Good(page(summary), None),
            // Never written memory proves that what is before it ended there.
            Some(BadRecord::Unwritten { .. }) => {
                let whole = subbuf::without_torn(time_stamp, data, summary, behind);
                let kept = whole.size as u32;
                match whole.entries {
                    0 => Judged::Bad(Reason::BadRecord(BadRecord::Unwritten {
                        offset: whole.size,
                    })),
                    _ => Judged::Good(page(whole), Some(Reason::Cut { kept })),
                }
            }
            Some(BadRecord::Length { offset, .. })
                if summary.entries > 0 && subbuf::passes_kernel(data, offset, behind) =>
            {
                let kept = summary.size as u32;
                Judged::Good(page(summary), Some(Reason::OddRecord { kept }))
            }
            Some(error) => Judged::Bad(Reason::BadRecord(error)),
        }
    }
}
