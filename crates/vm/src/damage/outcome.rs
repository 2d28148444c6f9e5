//! What a kernel kept of a damaged region, in a form that is stored.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

use anyhow::{Context, Result};
use outlive_ring::layout::{SUBBUF_DATA, SUBBUF_HEADER, SUBBUF_SIZE};
use outlive_ring::subbuf;
use serde_json::{Value, json};

use super::base::{Base, Identity};
use super::draft::Damage;
use super::edit::Edit;

/// A damage and what became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// As in [`Damage::name`].
    pub name: String,
    /// As in [`Damage::kind`].
    pub kind: String,
    /// As in [`Damage::edits`].
    pub edits: Vec<Edit>,
    /// What the kernel did.
    pub outcome: Outcome,
}

/// What a kernel did with a damaged region.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It died of it while it booted.
    Crash,
    /// It booted, and reading the instance never came back, or nothing did.
    Hang,
    /// It booted; this is what it shows of each CPU, and what it logged of the region as it mapped
    /// it, CPU 1 and later only as far as their metas go.
    Attached {
        /// By CPU.
        cpus: Vec<Shown>,
        /// Messages, without their times.
        console: Vec<String>,
    },
}

/// What a kernel shows of a CPU's buffer.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Shown {
    /// `entries` of `stats`.
    pub entries: i64,
    /// `bytes` of `stats`: 6.12 counts flags of a commit word in and may come below 0.
    pub bytes: i64,
    /// Lines of `trace` that are events; `None` where it never ended.
    pub lines: Option<u64>,
    /// Events of the raw pages that the undamaged region holds, as places in [`Base::events`].
    pub kept: Vec<Range<usize>>,
    /// Events of the raw pages that it does not hold, or holds once and that are there again: each as
    /// 32 bits that stand for it.
    pub others: Vec<u32>,
}

/// 32 bits that stand for an event.
pub(super) fn fingerprint(event: &Identity) -> u32 {
    let mut bytes = event.time_stamp.to_le_bytes().to_vec();
    bytes.extend_from_slice(&event.payload);
    outlive_ring::crc32c(event.cpu, &bytes)
}

/// Events split into those of the undamaged region and others.
#[derive(Debug, Clone)]
pub struct Split<E = Identity> {
    /// Places in [`Base::events`], as runs.
    pub kept: Vec<Range<usize>>,
    /// All others; a second appearance is one.
    pub others: Vec<E>,
}

impl<E: AsRef<Identity>> Split<E> {
    /// Splits `events`.
    #[must_use]
    pub fn new(places: &BTreeMap<&Identity, usize>, events: impl IntoIterator<Item = E>) -> Self {
        let mut split = Self {
            kept: Vec::new(),
            others: Vec::new(),
        };
        let mut seen = vec![false; places.len()];
        for event in events {
            match places.get(event.as_ref()) {
                Some(&place) if !core::mem::replace(&mut seen[place], true) => split.keep(place),
                _ => split.others.push(event),
            }
        }
        split
    }

    fn keep(&mut self, place: usize) {
        match self.kept.last_mut() {
            Some(run) if run.end == place => run.end += 1,
            _ => self.kept.push(place..place + 1),
        }
    }
}

impl Outcome {
    /// Reads what the guest's collector wrote about one instance.
    ///
    /// # Errors
    ///
    /// When a file is missing or is not what a kernel writes.
    pub fn read(base: &Base, folder: &Path, console: Vec<String>) -> Result<Self> {
        if !folder.join("done").exists() {
            return Ok(Self::Hang);
        }
        let places = base.places();
        let cpus = (0..base.geometry.nr_cpus())
            .map(|cpu| Shown::read(&places, folder, cpu))
            .collect::<Result<_>>()?;
        Ok(Self::Attached { cpus, console })
    }
}

impl Shown {
    fn read(places: &BTreeMap<&Identity, usize>, folder: &Path, cpu: u32) -> Result<Self> {
        let file = |name: &str| {
            let path = folder.join(format!("cpu{cpu}.{name}"));
            std::fs::read(&path).with_context(|| format!("the guest left no {}", path.display()))
        };
        let stats = String::from_utf8(file("stats")?).context("stats is no text")?;
        let stat = |key: &str| {
            let value = stats.lines().find_map(|line| line.strip_prefix(key));
            let value = value.and_then(|value| value.trim().parse().ok());
            value.with_context(|| format!("no number after {key:?} in {stats:?}"))
        };
        let split = Split::new(places, raw_events(cpu, &file("trace_pipe_raw")?));
        Ok(Self {
            entries: stat("entries:")?,
            bytes: stat("bytes:")?,
            lines: event_lines(&file("trace")?),
            kept: split.kept,
            others: split.others.iter().map(fingerprint).collect(),
        })
    }

    fn to_json(&self) -> Value {
        let kept: Vec<_> = self.kept.iter().map(|run| [run.start, run.end]).collect();
        json!({
            "entries": self.entries,
            "bytes": self.bytes,
            "lines": self.lines,
            "kept": kept,
            "others": self.others,
        })
    }

    fn from_json(value: &Value) -> Option<Self> {
        let place = |value: &Value| value.as_u64().and_then(|value| usize::try_from(value).ok());
        let run = |run: &Value| Some(place(&run[0])?..place(&run[1])?);
        let other = |other: &Value| u32::try_from(other.as_u64()?).ok();
        Some(Self {
            entries: value["entries"].as_i64()?,
            bytes: value["bytes"].as_i64()?,
            lines: value["lines"].as_u64(),
            kept: value["kept"]
                .as_array()?
                .iter()
                .map(run)
                .collect::<Option<_>>()?,
            others: value["others"]
                .as_array()?
                .iter()
                .map(other)
                .collect::<Option<_>>()?,
        })
    }
}

/// A text that long is cut off by the collector: it would not end.
pub const TRACE_LIMIT: usize = 1 << 20;

fn event_lines(text: &[u8]) -> Option<u64> {
    if text.len() >= TRACE_LIMIT {
        return None;
    }
    // `comm-pid [cpu] flags`: a comment has no bracket so early, and a mark of lost events no pid.
    let is_event = |line: &&[u8]| line.get(24..26) == Some(b" [") && !line.starts_with(b"#");
    Some(text.split(|&byte| byte == b'\n').filter(is_event).count() as u64)
}

/// The events in pages of `trace_pipe_raw`.
fn raw_events(cpu: u32, pages: &[u8]) -> Vec<Identity> {
    let mut events = Vec::new();
    for page in pages.chunks_exact(SUBBUF_SIZE) {
        let (time_stamp, commit) = subbuf::header(page.first_chunk().expect("a page"));
        let size = commit.size().min(SUBBUF_DATA);
        read_as_kernel(cpu, time_stamp, &page[SUBBUF_HEADER..][..size], &mut events);
    }
    events
}

/// Reads records as the kernel does, which follows lengths that its writer never writes.
fn read_as_kernel(cpu: u32, mut time_stamp: u64, mut data: &[u8], events: &mut Vec<Identity>) {
    let word = |data: &[u8], at: usize| {
        let bytes = data.get(at..).and_then(|data| data.first_chunk());
        bytes.map_or(0, |bytes| u32::from_le_bytes(*bytes))
    };
    while !data.is_empty() {
        let (header, array) = (word(data, 0), word(data, 4));
        let (type_len, delta) = (header & 0x1f, u64::from(header >> 5));
        let long = (u64::from(array) << 27) + delta;
        let (payload, len) = match type_len {
            0 | 29 => (8, 4 + array as usize),
            30 | 31 => (8, 8),
            words => (4, 4 + 4 * words as usize),
        };
        match type_len {
            29 => {}
            30 => time_stamp += long,
            31 => time_stamp = long | time_stamp & !((1 << 59) - 1),
            _ => {
                time_stamp += delta;
                let payload = data
                    .get(payload..len.max(payload))
                    .unwrap_or_default()
                    .to_vec();
                events.push(Identity {
                    cpu,
                    time_stamp,
                    payload,
                });
            }
        }
        data = data.get(len..).unwrap_or_default();
    }
}

impl Record {
    /// A damage with its outcome.
    #[must_use]
    pub fn new(damage: Damage, outcome: Outcome) -> Self {
        Self {
            name: damage.name,
            kind: damage.kind.to_owned(),
            edits: damage.edits,
            outcome,
        }
    }

    /// One line of a recording.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let edits: Vec<Value> = self.edits.iter().map(Edit::to_json).collect();
        let outcome = match &self.outcome {
            Outcome::Crash => json!("crash"),
            Outcome::Hang => json!("hang"),
            Outcome::Attached { cpus, console } => {
                let cpus: Vec<Value> = cpus.iter().map(Shown::to_json).collect();
                json!({ "cpus": cpus, "console": console })
            }
        };
        json!({ "name": self.name, "kind": self.kind, "edits": edits, "outcome": outcome })
    }

    /// The reverse of [`Record::to_json`].
    ///
    /// # Errors
    ///
    /// When `value` is no such record.
    pub fn from_json(value: &Value) -> Result<Self> {
        let text = |key: &str| {
            let text = value[key].as_str().map(str::to_owned);
            text.with_context(|| format!("a record without {key}: {value}"))
        };
        let edits = value["edits"]
            .as_array()
            .context("a record without edits")?;
        let outcome = outcome_from_json(&value["outcome"]);
        Ok(Self {
            name: text("name")?,
            kind: text("kind")?,
            edits: edits.iter().map(Edit::from_json).collect::<Result<_>>()?,
            outcome: outcome.with_context(|| format!("a record without outcome: {value}"))?,
        })
    }
}

fn outcome_from_json(value: &Value) -> Option<Outcome> {
    match value.as_str() {
        Some("crash") => return Some(Outcome::Crash),
        Some("hang") => return Some(Outcome::Hang),
        _ => {}
    }
    let console = value["console"].as_array()?.iter();
    let cpus = value["cpus"].as_array()?.iter();
    Some(Outcome::Attached {
        cpus: cpus.map(Shown::from_json).collect::<Option<_>>()?,
        console: console
            .map(|line| line.as_str().map(str::to_owned))
            .collect::<Option<_>>()?,
    })
}
