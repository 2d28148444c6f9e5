//! Recovered traces in the formats of other tools: one module per format, one trait.
//!
//! What is exported are [`Sources`]: one or several regions with what is wanted of them. An
//! [`Exporter`] streams their events, so its memory does not grow with the input. [`write()`] puts
//! the whole output, and nothing less, under its final name.

#![forbid(unsafe_code)]

mod chrome;
mod csv;
mod ctf;
mod error;
pub mod json;
mod output;
mod perfetto;
mod spans;
mod trace_dat;

use std::path::Path;

use outlive_ring::Missed;
use outlive_trace::view::{LeftOver, MergedSources, Source, Sources, ViewEvent};

pub use self::error::Error;
pub use self::output::{damage, write};

type Result<T, E = Error> = std::result::Result<T, E>;

/// A format, as the command line names it.
#[derive(Debug, Clone, Copy)]
pub struct Format {
    /// The value of `--format`.
    pub name: &'static str,
    /// The endings of file names that choose it, without the dot.
    pub endings: &'static [&'static str],
    /// What it is, and who reads it.
    pub about: &'static str,
    /// Whether the output is a folder.
    pub is_folder: bool,
    /// Writes it.
    pub exporter: &'static (dyn Exporter + Sync),
}

/// All formats of this crate.
pub const FORMATS: &[Format] = &[
    Format {
        name: "json",
        endings: &["json", "jsonl", "ndjson"],
        about: "one JSON object per line, as show --json",
        is_folder: false,
        exporter: &json::JsonLines,
    },
    Format {
        name: "chrome",
        endings: &["trace.json"],
        about: "trace events in JSON, for chrome://tracing, ui.perfetto.dev and scripts",
        is_folder: false,
        exporter: &chrome::Chrome,
    },
    Format {
        name: "csv",
        endings: &["csv"],
        about: "a table with a column per field, for spreadsheets and scripts",
        is_folder: false,
        exporter: &csv::Csv,
    },
    Format {
        name: "perfetto",
        endings: &["pftrace", "perfetto-trace", "perfetto"],
        about: "for ui.perfetto.dev and its trace processor",
        is_folder: false,
        exporter: &perfetto::Perfetto,
    },
    Format {
        name: "trace.dat",
        endings: &["dat"],
        about: "trace-cmd, KernelShark",
        is_folder: false,
        exporter: &trace_dat::V7,
    },
    Format {
        name: "trace.dat-v6",
        endings: &[],
        about: "the same for trace-cmd before 3.0",
        is_folder: false,
        exporter: &trace_dat::V6,
    },
    Format {
        name: "ctf",
        endings: &["ctf"],
        about: "a folder in the Common Trace Format 1.8, for babeltrace2 and Trace Compass",
        is_folder: true,
        exporter: &ctf::Ctf::V1,
    },
    Format {
        name: "ctf2",
        endings: &["ctf2"],
        about: "a folder in the Common Trace Format 2",
        is_folder: true,
        exporter: &ctf::Ctf::V2,
    },
];

/// Writes one format.
pub trait Exporter: std::fmt::Debug {
    /// Writes all wanted events of the sources to `out`: an empty file or folder that exists, a
    /// pipe, or `-`, standard output.
    ///
    /// # Errors
    ///
    /// When the output cannot be written, or the format cannot hold the sources at all. What it
    /// cannot hold of them is a note in the summary.
    fn export(&self, sources: &Sources<'_>, out: &Path) -> Result<Summary>;

    /// Entries that it will have read of the sources: [`Sources::read`] goes up to there.
    fn to_read(&self, sources: &Sources<'_>) -> u64 {
        sources.to_read()
    }
}

/// What was exported.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Summary {
    /// Events written.
    pub events: u64,
    /// Events known to be missing between those written: lost before they were recorded, or
    /// overwritten.
    pub lost: u64,
    /// What is not in the output although the sources have it, or would have it if they were
    /// whole.
    pub notes: Vec<String>,
}

impl Summary {
    /// Counts an event, and what is missing before it.
    pub fn count(&mut self, event: &ViewEvent<'_>) {
        self.add(1, event.missed);
    }

    /// Counts what is missing behind the last events, and says so: the format has no place for it.
    /// To be called once there is no next event.
    pub fn note_left(&mut self, sources: &Sources<'_>, events: &MergedSources<'_>) {
        for (source, left) in events.left() {
            self.note_one_left(&sources.sources()[source], left);
        }
    }

    /// As [`Summary::note_left`], of one buffer.
    pub(crate) fn note_one_left(&mut self, source: &Source<'_>, left: LeftOver) {
        self.count_left(left);
        let note = format!("{}: {}", source.name, left.in_words(source.view));
        self.notes.push(note);
    }

    /// Counts what is missing behind the last event of a buffer.
    pub(crate) fn count_left(&mut self, left: LeftOver) {
        self.lost += left.missed.count().unwrap_or(0);
    }

    /// Counts events, and what is missing before the first.
    pub(crate) fn add(&mut self, events: u64, missed: Option<Missed>) {
        self.events += events;
        self.lost += missed.and_then(Missed::count).unwrap_or(0);
    }
}
