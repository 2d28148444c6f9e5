//! The tables of all runs, and how much of them is in memory.

use std::collections::HashSet;
use std::path::Path;

use outlive_export::Error;
use outlive_trace::view::{Sources, ViewEvent};

use crate::place;
use crate::run::Run;
use crate::table::Rows;

/// Bytes of rows in memory at most, over all tables: then the table that has most of them is written.
pub(crate) const BUFFERED: usize = 64 << 20;

/// Writes the events of all sources.
#[derive(Debug)]
pub(crate) struct Writer<'v> {
    /// As the sources.
    runs: Vec<Run<'v>>,
    buffered: usize,
}

impl<'v> Writer<'v> {
    /// A writer into the folder `out`.
    pub(crate) fn new(sources: &'v Sources<'v>, out: &Path) -> Result<Self, Error> {
        // The same region may be given twice.
        let mut taken = HashSet::new();
        let runs = sources.sources().iter().map(|source| {
            let place = place::unique(&mut taken, &place::of_run(source));
            Run::new(source, out, place)
        });
        Ok(Self {
            runs: runs.collect::<Result<_, _>>()?,
            buffered: 0,
        })
    }

    /// Writes an event of a source.
    pub(crate) fn write(&mut self, source: usize, event: &ViewEvent<'_>) -> Result<(), Error> {
        let grown = self.runs[source].write(event)?;
        self.buffered = self.buffered.saturating_add_signed(grown);
        while self.buffered > BUFFERED {
            let largest = self.runs.iter_mut().filter_map(Run::largest);
            let Some(table) = largest.max_by_key(|table| table.rows.bytes()) else {
                break;
            };
            self.buffered = self.buffered.saturating_sub(table.flush()?.max(1));
        }
        Ok(())
    }

    /// Writes what is left.
    pub(crate) fn finish(self) -> Result<(), Error> {
        self.runs.into_iter().try_for_each(Run::finish)
    }
}
