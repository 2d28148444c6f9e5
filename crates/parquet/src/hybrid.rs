//! The hybrid of runs and packed bits in which Parquet has levels and indices into dictionaries:
//! <https://parquet.apache.org/docs/file-format/data-pages/encodings/> (RLE = 3).
//!
//! A run is a varint of twice its length, then its value in as many whole bytes as that needs. Values
//! that are no run are in eights: a varint of twice the number of eights plus one, then `width` bits of
//! each, the least significant first. Only the last eight of all may be incomplete.

/// Equal values from which on they are a run: as eights they would take more.
const RUN: usize = 16;

/// Appends the values, each of which fits `width` bits, of which there are 1 to 32.
pub(crate) fn encode(out: &mut Vec<u8>, values: &[u32], width: u32) {
    let mut packed = 0;
    let mut place = 0;
    while let Some(&value) = values.get(place) {
        let run = values[place..].iter().take_while(|v| **v == value).count();
        // What completes the eight before the run.
        let fill = (place - packed).next_multiple_of(8) - (place - packed);
        if run >= fill + RUN {
            pack(out, &values[packed..place + fill], width);
            varint(out, (run - fill) << 1);
            out.extend_from_slice(&value.to_le_bytes()[..width.div_ceil(8) as usize]);
            packed = place + run;
        }
        place += run;
    }
    pack(out, &values[packed..], width);
}

fn pack(out: &mut Vec<u8>, values: &[u32], width: u32) {
    if values.is_empty() {
        return;
    }
    let eights = values.len().div_ceil(8);
    varint(out, eights << 1 | 1);
    let end = out.len() + eights * width as usize;
    let (mut bits, mut filled) = (0_u64, 0);
    for &value in values {
        bits |= u64::from(value) << filled;
        filled += width;
        while filled >= 8 {
            out.push(bits as u8);
            bits >>= 8;
            filled -= 8;
        }
    }
    out.push(bits as u8);
    out.resize(end, 0);
}

fn varint(out: &mut Vec<u8>, mut value: usize) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(values: &[u32], width: u32) -> Vec<u8> {
        let mut out = Vec::new();
        encode(&mut out, values, width);
        out
    }

    #[test]
    fn eights_are_those_of_the_specification() {
        // Its own example: the numbers 0 to 7 in three bits each.
        let values = [0, 1, 2, 3, 4, 5, 6, 7];
        assert_eq!(encoded(&values, 3), [3, 0x88, 0xc6, 0xfa]);
        // Three values are an eight as well.
        assert_eq!(encoded(&[1, 0, 1], 1), [3, 0b101]);
    }

    #[test]
    fn a_run_begins_where_an_eight_ends() {
        let values = [&[1, 2, 3][..], &[9; 300]].concat();
        // One eight with five of the nines in it, then the other 295.
        let expected = [3, 0x21, 0x93, 0x99, 0x99, 0xce, 0x04, 9];
        assert_eq!(encoded(&values, 4), expected);
    }

    #[test]
    fn each_width_is_packed_without_loss() {
        for width in 1..=32_u32 {
            let largest = u32::MAX >> (32 - width);
            let values: Vec<u32> = (0..24_u32)
                .map(|i| i.wrapping_mul(0x9e37_79b9) & largest)
                .collect();
            let out = encoded(&values, width);
            assert_eq!(out[0], 3 << 1 | 1);
            let bit = |i: usize| u32::from(out[1 + i / 8] >> (i % 8) & 1);
            for (place, value) in values.iter().enumerate() {
                let start = place * width as usize;
                let read = (0..width as usize).fold(0, |read, i| read | bit(start + i) << i);
                assert_eq!(read, *value, "{width} bits");
            }
            assert_eq!(out.len(), 1 + 3 * width as usize);
        }
    }
}
