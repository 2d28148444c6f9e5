//! The sub-buffers of a recording, one after the other.

use std::fs::File;
use std::io::Read;

use crate::bytes::Cursor;
use crate::recording::{Compression, CpuPages};
use crate::{Bytes, Error, Result};

/// Longest chunk when it is uncompressed.
const CHUNK_MAX: usize = 64 << 20;
/// Bytes that are read at once.
const STRETCH: u64 = 1 << 20;

/// Calls `each` with every sub-buffer of a CPU. What cannot be read ends them, and is returned.
pub(crate) fn for_each(
    bytes: &dyn Bytes,
    page_size: usize,
    pages: &CpuPages,
    each: &mut dyn FnMut(&[u8]),
) -> Result<()> {
    // A sub-buffer of no bytes would never end.
    let page_size = page_size.max(1);
    match pages {
        CpuPages::Plain { offset, len } => plain(bytes, page_size, (*offset, *len), each),
        CpuPages::Chunks {
            offset,
            compression,
        } => chunks(bytes, page_size, *offset, *compression, each),
        CpuPages::File(path) => {
            let file = File::open(path).map_err(Error::io("open", path))?;
            plain(&file, page_size, (0, Bytes::len(&file)), each)
        }
    }
}

fn plain(
    bytes: &dyn Bytes,
    page_size: usize,
    (offset, len): (u64, u64),
    each: &mut dyn FnMut(&[u8]),
) -> Result<()> {
    let there = bytes.len().saturating_sub(offset).min(len);
    let mut cursor = Cursor::new(bytes, offset);
    let mut left = there;
    while left > 0 {
        let stretch = left.min(STRETCH);
        let data = cursor.take(stretch, "sub-buffers")?;
        data.chunks(page_size).for_each(&mut *each);
        left -= stretch;
    }
    match there == len {
        true => Ok(()),
        false => Err(cursor.malformed("sub-buffers")),
    }
}

fn chunks(
    bytes: &dyn Bytes,
    page_size: usize,
    offset: u64,
    compression: Compression,
    each: &mut dyn FnMut(&[u8]),
) -> Result<()> {
    let mut cursor = Cursor::new(bytes, offset);
    for _ in 0..cursor.u32("number of chunks")? {
        let compressed = cursor.u32("chunk's size")?;
        let size = cursor.u32("chunk's uncompressed size")? as usize;
        let data = cursor.take(compressed.into(), "chunk")?;
        let data = Some(size)
            .filter(|&size| size <= CHUNK_MAX)
            .and_then(|size| uncompress(compression, &data, size));
        let data = data.ok_or_else(|| cursor.malformed("chunk"))?;
        data.chunks(page_size).for_each(&mut *each);
    }
    Ok(())
}

/// Uncompresses to exactly `size` bytes. Memory grows with what comes, not with what is claimed.
pub(crate) fn uncompress(compression: Compression, data: &[u8], size: usize) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    let read = match compression {
        Compression::Zlib => flate2::read::ZlibDecoder::new(data)
            .take(size as u64)
            .read_to_end(&mut out),
        Compression::Zstd => ruzstd::decoding::StreamingDecoder::new(data)
            .ok()?
            .take(size as u64)
            .read_to_end(&mut out),
    };
    (read.is_ok() && out.len() == size).then_some(out)
}
