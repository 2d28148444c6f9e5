//! Which damages which kernel is given, and what was recorded of that.

use std::io::Write;

use anyhow::{Context, Result};

use super::base::{Base, fixtures, unpack};
use super::draft::Damage;
use super::named::named;
use super::outcome::Record;
use super::random::random;

/// A kernel and the damages that it is given.
#[derive(Debug)]
pub struct Judge {
    /// Its version.
    pub version: &'static str,
    /// By undamaged region.
    pub sets: &'static [Set],
}

/// Damages of one undamaged region.
#[derive(Debug)]
pub struct Set {
    /// The region's file under `fixtures`.
    pub base: &'static str,
    /// Whether the named ones are among them.
    pub is_named: bool,
    /// Seeds of the random ones.
    pub seeds: std::ops::Range<usize>,
}

/// A ring of 128 KiB that has wrapped and was being read when the machine died.
const WRAPPED: &str = "damage/7.3.4-2cpu-128K.bin.gz";
/// The golden region, which has not wrapped.
const GOLDEN: &str = "golden/2-region-256KiB-2cpu.bin.gz";

/// A ring of 256 KiB of Linux 6.12, whose layout is another; it has wrapped.
const WRAPPED_6_12: &str = "damage/6.12.107-2cpu-256K.bin.gz";

/// All of them.
pub const JUDGES: [Judge; 3] = [
    Judge {
        version: "7.3.4",
        sets: &[
            Set {
                base: WRAPPED,
                is_named: true,
                seeds: 0..400,
            },
            Set {
                base: GOLDEN,
                is_named: false,
                seeds: 400..600,
            },
        ],
    },
    Judge {
        version: "7.2.13",
        sets: &[Set {
            base: WRAPPED,
            is_named: true,
            seeds: 0..100,
        }],
    },
    Judge {
        version: "6.12.107",
        sets: &[Set {
            base: WRAPPED_6_12,
            is_named: true,
            seeds: 0..60,
        }],
    },
];

impl Set {
    /// The damages, the named ones first.
    #[must_use]
    pub fn damages(&self, base: &Base) -> Vec<Damage> {
        let named = match self.is_named {
            true => named(base),
            false => Vec::new(),
        };
        let random = self.seeds.clone().map(|seed| random(base, seed));
        named.into_iter().chain(random).collect()
    }
}

impl Judge {
    fn file(&self) -> String {
        format!("damage/{}.jsonl.gz", self.version)
    }

    /// What was recorded, by set.
    ///
    /// # Errors
    ///
    /// When the recording is missing or damaged.
    pub fn recorded(&self) -> Result<Vec<Vec<Record>>> {
        let file = self.file();
        let text =
            String::from_utf8(unpack(&file)?).with_context(|| format!("{file} is no text"))?;
        let mut sets = vec![Vec::new(); self.sets.len()];
        for line in text.lines() {
            let record: serde_json::Value = serde_json::from_str(line).context(file.clone())?;
            let set = record["set"]
                .as_u64()
                .and_then(|set| usize::try_from(set).ok());
            let set = set.and_then(|set| sets.get_mut(set));
            set.with_context(|| format!("a record of {file} is of no set: {line}"))?
                .push(Record::from_json(&record)?);
        }
        Ok(sets)
    }

    /// Writes a recording.
    ///
    /// # Errors
    ///
    /// When it cannot be written.
    pub fn record(&self, sets: &[Vec<Record>]) -> Result<()> {
        let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        for (set, records) in sets.iter().enumerate() {
            for record in records {
                let mut record = record.to_json();
                record["set"] = set.into();
                writeln!(packed, "{record}")?;
            }
        }
        let path = fixtures().join(self.file());
        std::fs::write(&path, packed.finish()?)
            .with_context(|| format!("cannot write {}", path.display()))
    }
}
