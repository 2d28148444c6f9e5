//! `per_cpu/cpuN/stats`: the counters of one per-CPU buffer, with the kernel's words.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::error::Error;

/// The counters of one per-CPU buffer. All but the times count events since the buffer was reset.
///
/// The kernel prints them with a sign, and of a damaged persistent ring some come below 0 (6.12's `bytes`,
/// into which it counts the flags of a commit word): those are 0 here. [`CpuStats::entries`] is 1 then, for
/// there may be events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CpuStats {
    /// Events in the buffer, neither overwritten nor consumed: written - overrun - read.
    pub entries: u64,
    /// Events that newer ones have overwritten.
    pub overrun: u64,
    /// Reservations that failed because nested writers filled the ring.
    pub commit_overrun: u64,
    /// Bytes of unconsumed data, page fillers included.
    pub bytes: u64,
    /// Time stamp of the head page, the oldest in the ring.
    pub oldest_event_ts: StatsTime,
    /// The trace clock at the time of reading.
    pub now_ts: StatsTime,
    /// Reservations that failed with overwrite off.
    pub dropped_events: u64,
    /// Events that were consumed.
    pub read_events: u64,
}

impl CpuStats {
    /// All events that were ever written to the buffer.
    #[must_use]
    pub fn written(&self) -> u64 {
        self.entries
            .wrapping_add(self.overrun)
            .wrapping_add(self.read_events)
    }

    /// Reads the text of a `stats` file. Lines of other names are ignored, all eight must be there.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let field = |name: &str| {
            let line = text
                .lines()
                .find(|line| line.strip_prefix(name).is_some_and(is_value))?;
            Some(line[name.len() + 1..].trim())
        };
        let number = |name: &str| counter(field(name)?, 0);
        Some(Self {
            entries: counter(field("entries")?, 1)?,
            overrun: number("overrun")?,
            commit_overrun: number("commit overrun")?,
            bytes: number("bytes")?,
            oldest_event_ts: StatsTime::parse(field("oldest event ts")?)?,
            now_ts: StatsTime::parse(field("now ts")?)?,
            dropped_events: number("dropped events")?,
            read_events: number("read events")?,
        })
    }
}

fn is_value(rest: &str) -> bool {
    rest.starts_with(':')
}

/// A number; `unknown` where it is below 0.
fn counter(text: &str, unknown: u64) -> Option<u64> {
    match text.parse::<i128>().ok()? {
        ..0 => Some(unknown),
        number => Some(u64::try_from(number).unwrap_or(u64::MAX)),
    }
}

/// A time of a `stats` file: exact in clock units, or nanoseconds to the microsecond.
///
/// `stats` prints nanosecond clocks as `seconds.microseconds`, and others as they are. The
/// microseconds are rounded to the nearest on v6.18 (seen: 1.079787 ms as 1.080) and said to be cut
/// off by others; both are allowed for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StatsTime {
    /// The time as printed: in nanoseconds, or in the clock's own unit.
    pub value: u64,
    /// Whether it is in nanoseconds and exact only to the microsecond.
    pub is_rounded: bool,
}

impl StatsTime {
    /// Nanoseconds in the last digit of `seconds.microseconds`.
    const NS_PER_US: u64 = 1_000;

    /// Whether this text can stand for the time `ts`.
    #[must_use]
    pub fn is_of(&self, ts: u64) -> bool {
        let (first, last) = self.bounds();
        (first..=last).contains(&ts)
    }

    /// Whether the true time is surely before `ts`.
    #[must_use]
    pub fn is_before(&self, ts: u64) -> bool {
        self.bounds().1 < ts
    }

    /// The first and the last time that are printed like this.
    #[must_use]
    pub fn bounds(&self) -> (u64, u64) {
        if self.is_rounded {
            (
                self.value.saturating_sub(Self::NS_PER_US / 2),
                self.value.saturating_add(Self::NS_PER_US - 1),
            )
        } else {
            (self.value, self.value)
        }
    }

    fn parse(text: &str) -> Option<Self> {
        let Some((seconds, micros)) = text.split_once('.') else {
            return Some(Self {
                value: counter(text, 0)?,
                is_rounded: false,
            });
        };
        if micros.len() != 6 {
            return None;
        }
        let (seconds, micros): (u64, u64) = (seconds.parse().ok()?, micros.parse().ok()?);
        // A damaged time stamp of all ones is rounded to more than fits.
        let us = seconds.saturating_mul(1_000_000).saturating_add(micros);
        Some(Self {
            value: us.saturating_mul(Self::NS_PER_US),
            is_rounded: true,
        })
    }
}

/// An open `stats` file: each read gives the counters of that moment.
#[derive(Debug)]
pub struct StatsFile {
    file: File,
    path: PathBuf,
}

/// A `stats` file has eight lines of at most 40 bytes.
const STATS_MAX_BYTES: usize = 1024;

impl StatsFile {
    /// Opens a `stats` file and keeps it open.
    ///
    /// # Errors
    /// The file cannot be opened.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let file = File::open(path).map_err(|e| Error::io("open", path, e))?;
        Ok(Self {
            file,
            path: path.to_path_buf(),
        })
    }

    /// Reads the counters: one system call, no allocation unless it fails.
    ///
    /// # Errors
    /// The file cannot be read, or a line is missing or no number.
    pub fn read(&self) -> Result<CpuStats, Error> {
        let mut buf = [0; STATS_MAX_BYTES];
        let len = self
            .file
            .read_at(&mut buf, 0)
            .map_err(|e| Error::io("read", &self.path, e))?;
        std::str::from_utf8(&buf[..len])
            .ok()
            .and_then(CpuStats::parse)
            .ok_or_else(|| Error::Malformed {
                path: self.path.clone(),
                what: "not the eight lines of `stats`".into(),
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "entries: 733\noverrun: 546\ncommit overrun: 3\nbytes: 31748\n\
        oldest event ts:  1420.137071\nnow ts:  1420.147132\ndropped events: 4\nread events: 5\n";

    #[test]
    fn stats_has_all_eight_lines() {
        let stats = CpuStats::parse(TEXT).unwrap();
        assert_eq!(
            (stats.entries, stats.overrun, stats.commit_overrun),
            (733, 546, 3)
        );
        assert_eq!(
            (stats.bytes, stats.dropped_events, stats.read_events),
            (31748, 4, 5)
        );
        assert_eq!(stats.oldest_event_ts.value, 1_420_137_071_000);
        assert_eq!(stats.now_ts.value, 1_420_147_132_000);
        assert_eq!(stats.written(), 733 + 546 + 5);
    }

    #[test]
    fn time_of_a_nanosecond_clock_may_be_cut_or_rounded() {
        let time = CpuStats::parse(TEXT).unwrap().oldest_event_ts;
        assert!(time.is_of(1_420_137_070_500) && time.is_of(1_420_137_071_999));
        assert!(!time.is_of(1_420_137_072_000) && !time.is_of(1_420_137_070_499));
        assert!(time.is_before(1_420_137_072_000) && !time.is_before(1_420_137_071_999));
    }

    #[test]
    fn time_of_another_clock_is_exact() {
        let text = TEXT.replace("1420.137071", "987654321");
        let time = CpuStats::parse(&text).unwrap().oldest_event_ts;
        assert_eq!(
            time,
            StatsTime {
                value: 987_654_321,
                is_rounded: false
            }
        );
        assert!(time.is_of(987_654_321) && !time.is_of(987_654_322));
    }

    #[test]
    fn a_missing_or_damaged_line_is_refused() {
        for line in TEXT.lines() {
            assert!(CpuStats::parse(&TEXT.replace(line, "")).is_none(), "{line}");
        }
        assert!(CpuStats::parse(&TEXT.replace("733", "x")).is_none());
        assert!(CpuStats::parse(&TEXT.replace("1420.137071", "1.2")).is_none());
    }

    /// 6.12.107 of a damaged ring (`fixtures/damage`).
    #[test]
    fn bytes_below_0_are_unknown_and_cost_nothing_else() {
        let text = TEXT.replace("bytes: 31748", "bytes: -4294844992");
        let stats = CpuStats::parse(&text).unwrap();
        assert_eq!((stats.bytes, stats.entries, stats.overrun), (0, 733, 546));
    }

    #[test]
    fn whatever_number_a_damaged_ring_has_is_read() {
        for line in TEXT.lines() {
            let (name, _) = line.split_once(':').unwrap();
            let with = |value: &str| {
                CpuStats::parse(&TEXT.replace(line, &format!("{name}: {value}"))).unwrap()
            };
            let damaged = with("-3");
            assert_eq!(damaged.entries, if name == "entries" { 1 } else { 733 });
            with("-9223372036854775808");
            with("18446744073709551615");
        }
        // All ones, rounded up.
        let text = TEXT.replace("1420.137071", "18446744073.709552");
        let time = CpuStats::parse(&text).unwrap().oldest_event_ts;
        assert!(time.is_of(u64::MAX));
    }

    proptest::proptest! {
        #[test]
        fn any_numbers_are_parsed_or_refused(number in "[0-9.]{0,25}") {
            if let Some(stats) = CpuStats::parse(&TEXT.replace("1420.137071", &number)) {
                let (first, last) = stats.oldest_event_ts.bounds();
                assert!(first <= last && stats.oldest_event_ts.is_of(first));
            }
        }
    }
}
