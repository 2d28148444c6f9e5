//! Sets of CPUs: `0,2-3`.

/// A set of CPU numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct CpuSet {
    words: Box<[u64]>,
}

impl CpuSet {
    /// The set that a list names; `None` if it is no list, or empty, or has a CPU that is not
    /// below `nr_cpus`.
    pub(super) fn parse(text: &str, nr_cpus: u32) -> Option<Self> {
        let mut words = vec![0u64; nr_cpus.div_ceil(64) as usize];
        for range in text.split(',') {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            let (first, last) = (number(first)?, number(last)?);
            if first > last || last >= nr_cpus {
                return None;
            }
            for cpu in first..=last {
                words[cpu as usize / 64] |= 1 << (cpu % 64);
            }
        }
        Some(Self {
            words: words.into(),
        })
    }

    pub(super) fn has(&self, cpu: u64) -> bool {
        let word = usize::try_from(cpu / 64)
            .ok()
            .and_then(|i| self.words.get(i));
        word.is_some_and(|word| word >> (cpu % 64) & 1 != 0)
    }

    /// True if `cpu` is all there is.
    pub(super) fn is_only(&self, cpu: u64) -> bool {
        let count: u32 = self.words.iter().map(|w| w.count_ones()).sum();
        count == 1 && self.has(cpu)
    }

    /// True if a CPU of this set is in `mask`, little endian words of bits.
    pub(super) fn intersects(&self, mask: &[u8]) -> bool {
        self.pairs(mask).any(|(ours, theirs)| ours & theirs != 0)
    }

    /// True if `mask` has the same CPUs.
    pub(super) fn equals(&self, mask: &[u8]) -> bool {
        self.pairs(mask).all(|(ours, theirs)| ours == theirs)
    }

    /// This set's and the mask's bytes, zeros where one of them ends.
    fn pairs<'a>(&'a self, mask: &'a [u8]) -> impl Iterator<Item = (u8, u8)> + 'a {
        let len = mask.len().max(self.words.len() * 8);
        let ours = |i: usize| self.words.get(i / 8).map_or(0, |w| w.to_le_bytes()[i % 8]);
        (0..len).map(move |i| (ours(i), mask.get(i).copied().unwrap_or(0)))
    }
}

fn number(text: &str) -> Option<u32> {
    let text = text.trim();
    text.bytes()
        .all(|b| b.is_ascii_digit())
        .then(|| text.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_name_cpus_and_ranges() {
        let set = CpuSet::parse("0, 2-3,70", 100).unwrap();
        let cpus: Vec<u64> = (0..200).filter(|c| set.has(*c)).collect();
        assert_eq!(cpus, [0, 2, 3, 70]);
        assert!(!set.has(u64::MAX) && !set.is_only(0));
        assert!(CpuSet::parse("5", 6).unwrap().is_only(5));
        for bad in ["", "a", "1-", "-1", "3-2", "6", "1,,2", "+1", "99999999999"] {
            assert_eq!(CpuSet::parse(bad, 6), None, "{bad}");
        }
    }

    #[test]
    fn masks_compare_whatever_their_length() {
        let set = CpuSet::parse("0,9", 16).unwrap();
        assert!(set.equals(&[1, 2]) && set.equals(&[1, 2, 0, 0, 0, 0, 0, 0, 0, 0]));
        assert!(!set.equals(&[1]) && !set.equals(&[1, 2, 0, 0, 0, 0, 0, 0, 1]));
        assert!(set.intersects(&[0, 2]) && set.intersects(&[1]) && !set.intersects(&[0xfe]));
        assert!(!set.intersects(&[]));
    }
}
