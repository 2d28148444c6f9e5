//! Finding regions in an image of memory.

use outlive_ring::layout::MAGIC;
use outlive_ring::{Memory, Recovery};

use crate::{Bytes, Error, Result};

/// Where a region may begin.
const PAGE: u64 = 4096;
/// Bytes that are searched at once.
const STRETCH: u64 = 1 << 20;
/// Pages that begin as a region does and are none, and regions: an image that has more is made to keep us
/// busy.
const CANDIDATES_MAX: usize = 64;
const REGIONS_MAX: usize = 1024;
/// Longest region that is looked for.
const REGION_MAX: u64 = 64 << 30;

/// A stretch of memory in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// Where it is in the file.
    pub offset: u64,
    /// Its bytes that are in the file.
    pub len: u64,
    /// Its bytes behind these that the headers say and the file has not.
    pub missing: u64,
    /// Its physical address; 0 of an image without addresses.
    pub address: u64,
}

/// A region in an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FoundRegion {
    /// Where it is in the file.
    pub offset: u64,
    /// Its bytes that are there.
    pub len: u64,
    /// Its bytes behind these that are not.
    pub missing: u64,
    /// Its physical address; in an image without addresses its place in the file.
    pub address: u64,
    /// CPUs of its ring.
    pub nr_cpus: u32,
    /// Whether one of outlive's extensions is behind the ring.
    pub has_extension: bool,
}

/// What was found in an image.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Found {
    /// The regions.
    pub regions: Vec<FoundRegion>,
    /// What is missing, or was not looked at.
    pub notes: Vec<String>,
}

/// Finds the regions: at page boundaries of the memory, by the magic number that a kernel's and
/// outlive's begin with.
///
/// # Errors
///
/// [`Error::NoRegion`], or when the file cannot be read.
pub fn find(bytes: &dyn Bytes, segments: &[Segment]) -> Result<Found> {
    let mut search = Search {
        bytes,
        stretch: vec![0; STRETCH as usize],
        pages: 0,
        others: 0,
        found: Found::default(),
    };
    search.found.notes.extend(cut_off(segments));
    for segment in segments {
        search.segment(segment)?;
    }
    match search.found.regions.is_empty() {
        true => Err(Error::NoRegion {
            pages: search.pages,
            segments: segments.len(),
            notes: search.found.notes,
        }),
        false => Ok(search.found),
    }
}

/// What to say of stretches of memory that the file does not have whole.
fn cut_off(segments: &[Segment]) -> Option<String> {
    let cut = segments.iter().filter(|segment| segment.missing > 0);
    let missing = cut.fold(0, |sum: u64, segment| sum.saturating_add(segment.missing));
    (missing > 0).then(|| format!("the file is cut off: {missing} bytes of memory are missing"))
}

struct Search<'b> {
    bytes: &'b dyn Bytes,
    /// What is looked through.
    stretch: Vec<u8>,
    /// Pages that were looked at.
    pages: u64,
    /// Those that begin as a region does and are none.
    others: usize,
    found: Found,
}

impl Search<'_> {
    fn segment(&mut self, segment: &Segment) -> Result<()> {
        let end = segment.offset.saturating_add(segment.len);
        // Pages of the memory need not be pages of the file.
        let first = segment.address.wrapping_neg() % PAGE;
        let mut at = segment.offset.saturating_add(first);
        while at < end {
            if self.has_enough() {
                self.found.notes.push(format!(
                    "the search ends at {:#x}, after {} regions and {} pages that only begin as one \
                     does: what is behind is not looked at",
                    segment.address.wrapping_add(at - segment.offset),
                    self.found.regions.len(),
                    self.others
                ));
                break;
            }
            let len = (end - at).min(STRETCH);
            let candidate = self.candidate(at, len as usize)?;
            self.pages += len.div_ceil(PAGE);
            at = match candidate {
                Some(offset) => self.take(segment, offset, end),
                None => at + len,
            };
        }
        Ok(())
    }

    fn has_enough(&self) -> bool {
        self.others >= CANDIDATES_MAX || self.found.regions.len() >= REGIONS_MAX
    }

    /// Where in `len` bytes a page begins as a region does.
    fn candidate(&mut self, at: u64, len: usize) -> Result<Option<u64>> {
        let stretch = &mut self.stretch[..len];
        let read = self.bytes.read_at(at, stretch);
        read.map_err(|_| Error::Malformed { what: "memory", at })?;
        let begins = |page: &[u8]| page.starts_with(&MAGIC.to_le_bytes());
        let page = stretch.chunks(PAGE as usize).position(begins);
        Ok(page.map(|page| at + page as u64 * PAGE))
    }

    /// Takes the region that begins at `offset`, if there is one. Returns where to look for the next.
    fn take(&mut self, segment: &Segment, offset: u64, end: u64) -> u64 {
        let address = segment.address.wrapping_add(offset - segment.offset);
        match locate(self.bytes, offset, end) {
            Ok(region) => {
                if region.missing > 0 {
                    let (missing, len) = (region.missing, region.len + region.missing);
                    self.found.notes.push(format!(
                        "the region at {address:#x} is cut off: {missing} of its {len} bytes are missing"
                    ));
                }
                self.found.regions.push(FoundRegion { address, ..region });
                offset + region.len.next_multiple_of(PAGE)
            }
            Err(why) => {
                self.others += 1;
                self.found.notes.push(format!("at {address:#x}: {why}"));
                offset + PAGE
            }
        }
    }
}

/// The region that begins at `offset`, or why there is none.
fn locate(bytes: &dyn Bytes, offset: u64, end: u64) -> Result<FoundRegion, String> {
    let len = (end - offset).min(REGION_MAX) / PAGE * PAGE;
    let window = Window {
        bytes,
        offset,
        len: usize::try_from(len).map_err(|error| error.to_string())?,
    };
    let recovery = Recovery::locate(&window).map_err(|error| error.to_string())?;
    let whole = match &recovery.extension {
        Some(layout) => layout.area_size(),
        None => recovery.geometry.size(),
    };
    // Of a geometry that was guessed nothing may be there.
    if whole.min(len) < PAGE {
        return Err("a region of which nothing is there".to_owned());
    }
    Ok(FoundRegion {
        offset,
        len: whole.min(len),
        missing: whole.saturating_sub(len),
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
