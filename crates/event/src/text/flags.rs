//! The flags column: five characters from an entry's flags and preempt count.
//!
//! Reference: `Documentation/trace/ftrace.rst` (v6.18), section "Output format".

const IRQS_OFF: u8 = 1;
const NEED_RESCHED_LAZY: u8 = 2;
const NEED_RESCHED: u8 = 4;
const HARDIRQ: u8 = 8;
const SOFTIRQ: u8 = 16;
const PREEMPT_RESCHED: u8 = 32;
const NMI: u8 = 64;
const BH_OFF: u8 = 128;

/// The first three characters for every value of the flags byte.
const TABLE: [[u8; 3]; 256] = table();

const fn table() -> [[u8; 3]; 256] {
    let mut table = [[0; 3]; 256];
    let mut flags = 0;
    while flags < 256 {
        let f = flags as u8;
        table[flags] = [irqs(f), resched(f), context(f)];
        flags += 1;
    }
    table
}

const fn irqs(flags: u8) -> u8 {
    match (flags & IRQS_OFF != 0, flags & BH_OFF != 0) {
        (true, true) => b'D',
        (true, false) => b'd',
        (false, true) => b'b',
        (false, false) => b'.',
    }
}

const fn resched(flags: u8) -> u8 {
    let need = flags & NEED_RESCHED != 0;
    let lazy = flags & NEED_RESCHED_LAZY != 0;
    let preempt = flags & PREEMPT_RESCHED != 0;
    match (need, lazy, preempt) {
        (true, true, true) => b'B',
        (true, false, true) => b'N',
        (false, true, true) => b'L',
        (true, true, false) => b'b',
        (true, false, false) => b'n',
        (false, false, true) => b'p',
        (false, true, false) => b'l',
        (false, false, false) => b'.',
    }
}

const fn context(flags: u8) -> u8 {
    let (nmi, hard, soft) = (flags & NMI != 0, flags & HARDIRQ != 0, flags & SOFTIRQ != 0);
    match (nmi, hard, soft) {
        (true, true, _) => b'Z',
        (true, false, _) => b'z',
        (false, true, true) => b'H',
        (false, true, false) => b'h',
        (false, false, true) => b's',
        (false, false, false) => b'.',
    }
}

const fn depth(nibble: u8) -> u8 {
    match nibble {
        0 => b'.',
        1..=9 => b'0' + nibble,
        _ => b'a' + nibble - 10,
    }
}

/// The column for an entry's flags byte and preempt count byte (preempt depth in the lower,
/// migrate-disable depth in the upper four bits).
#[inline]
pub(crate) fn column(flags: u8, preempt_count: u8) -> [u8; 5] {
    let [irqs, resched, context] = TABLE[usize::from(flags)];
    [
        irqs,
        resched,
        context,
        depth(preempt_count & 15),
        depth(preempt_count >> 4),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_as_in_real_traces() {
        assert_eq!(&column(0, 0), b".....");
        assert_eq!(&column(1, 2), b"d..2.");
        assert_eq!(&column(1 | 2 | 16, 3), b"dls3.");
        assert_eq!(&column(0xff, 0xfa), b"DBZaf");
        assert_eq!(&column(8 | 16 | 4, 1), b".nH1.");
    }
}
