//! Dumps of a machine whose pages do not lie there as they were: to be refused, as a search would find
//! pieces of regions at best.
//!
//! makedumpfile(8) (1.7.2) writes them: compressed ones begin with `KDUMP` and three blanks, as do those of
//! QEMU's `dump-guest-memory -z`; flattened ones with the program's name.

use crate::{Bytes, Error, Result};

const COMPRESSED: &[u8] = b"KDUMP   ";
const FLATTENED: &[u8] = b"makedumpfile\0";

/// Refuses a dump that is compressed or flattened.
pub(crate) fn refuse(bytes: &dyn Bytes) -> Result<()> {
    let begins = |with: &[u8]| {
        let mut there = vec![0; with.len()];
        bytes.read_at(0, &mut there).is_ok() && there == with
    };
    let what = if begins(COMPRESSED) {
        "a compressed dump of kdump (an ELF core is read: of `makedumpfile -E`, or /proc/vmcore as it is)"
    } else if begins(FLATTENED) {
        "a flattened dump (`makedumpfile -R CORE < DUMP` puts it in order)"
    } else {
        return Ok(());
    };
    Err(Error::Unsupported(what.to_owned()))
}
