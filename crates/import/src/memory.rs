//! Finding regions in an image of memory.

use outlive_ring::layout::MAGIC;
use outlive_ring::{Memory, Recovery};

use crate::{Bytes, Error, Result};

/// Where a region may begin.
const PAGE: u64 = 4096;
/// Bytes that are searched at once.
const STRETCH: u64 = 1 << 20;
/// Pages that begin as a region does and are looked at: an image that has more is made to keep us busy.
const CANDIDATES_MAX: usize = 64;
/// Longest region that is looked for.
const REGION_MAX: u64 = 64 << 30;

/// A stretch of memory in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// Where it is in the file.
    pub offset: u64,
    /// Its bytes that are in the file.
    pub len: u64,
    /// Its physical address; 0 of an image without addresses.
    pub address: u64,
}

/// A region in an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FoundRegion {
    /// Where it is in the file.
    pub offset: u64,
    /// Its bytes.
    pub len: u64,
    /// Its physical address; in an image without addresses its place in the file.
    pub address: u64,
    /// CPUs of its ring.
    pub nr_cpus: u32,
    /// Whether one of outlive's extensions is behind the ring.
    pub has_extension: bool,
}

/// Finds the regions: at page boundaries of the memory, by the magic number that a kernel's and
/// outlive's begin with.
///
/// # Errors
///
/// [`Error::NoRegion`], or when the file cannot be read.
pub fn find(bytes: &dyn Bytes, segments: &[Segment]) -> Result<Vec<FoundRegion>> {
    let mut found = Vec::new();
    let mut pages = 0;
    let mut candidates = 0;
    for segment in segments {
        let end = segment.offset.saturating_add(segment.len);
        // Pages of the memory need not be pages of the file.
        let first = segment.address.next_multiple_of(PAGE) - segment.address;
        let mut at = segment.offset.saturating_add(first);
        let mut stretch = vec![0; STRETCH as usize];
        while at < end && candidates < CANDIDATES_MAX {
            let len = (end - at).min(STRETCH);
            let stretch = &mut stretch[..len as usize];
            let read = bytes.read_at(at, stretch);
            read.map_err(|_| Error::Malformed { what: "memory", at })?;
            let begins = |page: &[u8]| page.starts_with(&MAGIC.to_le_bytes());
            let candidate = stretch.chunks(PAGE as usize).position(begins);
            pages += len.div_ceil(PAGE);
            let Some(page) = candidate else {
                at += len;
                continue;
            };
            candidates += 1;
            let offset = at + page as u64 * PAGE;
            let region = locate(bytes, offset, end);
            at = offset + region.map_or(PAGE, |region| region.len.next_multiple_of(PAGE));
            found.extend(region.map(|region| FoundRegion {
                address: segment.address + (offset - segment.offset),
                ..region
            }));
        }
    }
    match found.is_empty() {
        true => Err(Error::NoRegion {
            pages,
            segments: segments.len(),
        }),
        false => Ok(found),
    }
}

/// The region that begins at `offset`, if there is one.
fn locate(bytes: &dyn Bytes, offset: u64, end: u64) -> Option<FoundRegion> {
    let window = Window {
        bytes,
        offset,
        len: usize::try_from((end - offset).min(REGION_MAX) / PAGE * PAGE).ok()?,
    };
    let recovery = Recovery::locate(&window).ok()?;
    let len = match &recovery.extension {
        Some(layout) => layout.area_size(),
        None => recovery.geometry.size(),
    };
    // Of a geometry that was guessed nothing may be there.
    (len >= PAGE).then_some(FoundRegion {
        offset,
        len: len.min(window.len as u64),
        address: 0,
        nr_cpus: recovery.geometry.nr_cpus(),
        has_extension: recovery.extension.is_some(),
    })
}

/// Part of a file as memory. What cannot be read is zero.
struct Window<'b> {
    bytes: &'b dyn Bytes,
    offset: u64,
    len: usize,
}

impl Memory for Window<'_> {
    fn len(&self) -> usize {
        self.len
    }

    fn load_u32(&self, offset: usize) -> u32 {
        let mut word = [0; 4];
        self.read(offset, &mut word);
        u32::from_le_bytes(word)
    }

    fn load_u64(&self, offset: usize) -> u64 {
        let mut word = [0; 8];
        self.read(offset, &mut word);
        u64::from_le_bytes(word)
    }

    fn read(&self, offset: usize, out: &mut [u8]) {
        assert!(offset <= self.len && out.len() <= self.len - offset);
        if self
            .bytes
            .read_at(self.offset + offset as u64, out)
            .is_err()
        {
            out.fill(0);
        }
    }
}
