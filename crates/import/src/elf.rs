//! An ELF core of a machine: the stretches of its memory (`PT_LOAD`), by the System V ABI.

use crate::bytes::Cursor;
use crate::{Bytes, Error, Result, Segment};

const MAGIC: [u8; 4] = *b"\x7fELF";
const CLASS_64: u8 = 2;
const LITTLE_ENDIAN: u8 = 1;
const PT_LOAD: u32 = 1;
/// `e_phnum` of a file with more program headers than it can say; then section 0 says it.
const PN_XNUM: u16 = 0xffff;
/// Bytes of a program header.
const PROGRAM_HEADER: u16 = 56;
/// Far more than a machine has stretches of memory.
const SEGMENTS_MAX: u32 = 1 << 16;

pub(crate) fn is_one(bytes: &dyn Bytes) -> bool {
    let mut magic = [0; MAGIC.len()];
    bytes.read_at(0, &mut magic).is_ok() && magic == MAGIC
}

/// The stretches of memory of a 64-bit little-endian ELF file, cut where the file ends: of one behind
/// its end nothing is there.
///
/// # Errors
///
/// When it is another ELF file, or its headers cannot be read.
pub fn load_segments(bytes: &dyn Bytes) -> Result<Vec<Segment>> {
    let mut cursor = Cursor::new(bytes, 0);
    cursor.expect(&MAGIC, "ELF magic number")?;
    if (cursor.u8("ELF class")?, cursor.u8("ELF byte order")?) != (CLASS_64, LITTLE_ENDIAN) {
        return Err(Error::Unsupported(
            "an ELF file that is not 64-bit little-endian".into(),
        ));
    }
    let program_headers = Cursor::new(bytes, 32).u64("ELF program headers")?;
    let section_headers = Cursor::new(bytes, 40).u64("ELF section headers")?;
    let mut sizes = Cursor::new(bytes, 54);
    let header_size = sizes.u16("size of an ELF program header")?;
    let mut count = u32::from(sizes.u16("number of ELF program headers")?);
    if count == u32::from(PN_XNUM) {
        let at = section_headers.saturating_add(44);
        count = Cursor::new(bytes, at).u32("number of ELF program headers")?;
    }
    if header_size < PROGRAM_HEADER || count > SEGMENTS_MAX {
        return Err(sizes.malformed("ELF program headers"));
    }
    let mut segments = Vec::new();
    for number in 0..u64::from(count) {
        let at = program_headers.saturating_add(number * u64::from(header_size));
        segments.extend(segment(bytes, at)?);
    }
    Ok(segments)
}

fn segment(bytes: &dyn Bytes, at: u64) -> Result<Option<Segment>> {
    let what = "ELF program header";
    let mut cursor = Cursor::new(bytes, at);
    let kind = cursor.u32(what)?;
    let _flags = cursor.u32(what)?;
    let offset = cursor.u64(what)?;
    let _virtual = cursor.u64(what)?;
    let address = cursor.u64(what)?;
    let said = cursor.u64(what)?;
    let offset = offset.min(bytes.len());
    let len = said.min(bytes.len() - offset);
    Ok((kind == PT_LOAD && said > 0).then_some(Segment {
        offset,
        len,
        missing: said - len,
        address,
    }))
}
