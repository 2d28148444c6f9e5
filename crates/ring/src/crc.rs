//! CRC32C (Castagnoli, reflected, polynomial 0x82f63b78): the checksum of seals, catalog records,
//! run records and the anchor.

/// Continues the CRC32C `crc` (0 to begin) over `data`.
#[must_use]
pub fn crc32c(crc: u32, data: &[u8]) -> u32 {
    #[cfg(feature = "std")]
    {
        ::crc32c::crc32c_append(crc, data)
    }
    #[cfg(not(feature = "std"))]
    {
        portable(crc, data)
    }
}

#[cfg(any(test, not(feature = "std")))]
fn portable(crc: u32, data: &[u8]) -> u32 {
    !data.iter().fold(!crc, |crc, &byte| {
        TABLE[usize::from((crc as u8) ^ byte)] ^ (crc >> 8)
    })
}

#[cfg(any(test, not(feature = "std")))]
static TABLE: [u32; 256] = {
    let mut table = [0; 256];
    let mut i = 0;
    while i < 256 {
        let mut crc = i as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 1 {
                (crc >> 1) ^ 0x82f6_3b78
            } else {
                crc >> 1
            };
            bit += 1;
        }
        table[i] = crc;
        i += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_implementations_give_the_check_value() {
        // The check value of CRC-32C in the catalogue of parametrised CRC algorithms.
        assert_eq!(crc32c(0, b"123456789"), 0xe306_9283);
        assert_eq!(portable(0, b"123456789"), 0xe306_9283);
        assert_eq!(portable(portable(0, b"1234"), b"56789"), 0xe306_9283);
    }
}
