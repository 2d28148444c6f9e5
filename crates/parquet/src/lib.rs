//! Recovered traces as Parquet tables, which DuckDB, pyarrow, Spark and their like read.
//!
//! The output is a folder with a folder for each table, and in it one for each run, so that the
//! outputs of a whole fleet can be copied into one folder:
//!
//! ```text
//! OUT/events/host=web1/boot=5d0c.../run=boot_mapped-8a41.../part-0.parquet
//! OUT/sched.sched_switch/host=web1/boot=5d0c.../run=boot_mapped-8a41.../part-0.parquet
//! ```
//!
//! The tables are those of `outlive sql`: `events` with what all events have, one table per event
//! with its typed fields, `holes`, and `runs`. Why not one table of everything: the fields of
//! hundreds of events make a table of thousands of columns, which differs from machine to machine.
//! Why the table above the host: engines take one schema from all files below a folder, and all
//! files of a table have the same. `docs/parquet.md` describes each column.
//!
//! Columns keep their types over kernel versions, as an event's field may have changed its width:
//! an integer is `INT64`, and unsigned only if it has 64 bits itself.
//!
//! Of each table at most the 131,072 rows of a row group are in memory, and of all tables together at
//! most 64 MiB of rows.
//!
//! ```
//! use outlive_trace::view::Sources;
//!
//! # let folder = tempfile::tempdir().unwrap();
//! let out = folder.path().join("trace.parquet");
//! let sources = Sources::new(Vec::new()).unwrap();
//! let summary = outlive_export::write(&outlive_parquet::FORMAT, &sources, &out)?;
//! assert_eq!(summary.events, 0);
//! # Ok::<(), outlive_export::Error>(())
//! ```

#![forbid(unsafe_code)]

mod column;
mod dictionary;
mod hybrid;
mod pages;
mod place;
mod rows;
mod run;
mod table;
mod values;
mod writer;

use std::path::Path;

use outlive_export::{Error, Exporter, Format, Summary};
use outlive_trace::view::Sources;

/// The format, to be chosen beside [`outlive_export::FORMATS`].
pub const FORMAT: Format = Format {
    name: "parquet",
    endings: &["parquet"],
    about: "a folder of tables, for DuckDB, pyarrow, Spark; a fleet's fit into one folder",
    is_folder: true,
    exporter: &Parquet,
};

/// Writes the folder.
#[derive(Debug)]
struct Parquet;

impl Exporter for Parquet {
    fn export(&self, sources: &Sources<'_>, out: &Path) -> Result<Summary, Error> {
        let mut writer = writer::Writer::new(sources, out)?;
        let mut summary = Summary::default();
        let mut events = sources.events();
        while let Some(next) = events.next_event() {
            writer.write(next.source, &next.event)?;
            summary.count(&next.event);
        }
        summary.note_left(sources, &events);
        writer.finish()?;
        Ok(summary)
    }
}
