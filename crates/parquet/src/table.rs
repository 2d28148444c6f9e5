//! One table of a run: rows in memory, which become row groups of its files.
//!
//! Rows come in the order of time, so the least and greatest time of each row group, which the file
//! has for every column but the longest, let an engine skip most of them. A file is open only while a
//! row group is appended to it: an export may have more tables than a process may have files.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use outlive_export::Error;
use parquet::basic::Compression;
use parquet::errors::ParquetError;
use parquet::file::metadata::SortingColumn;
use parquet::file::properties::{EnabledStatistics, WriterProperties, WriterPropertiesPtr};
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::types::{SchemaDescriptor, Type};

use crate::column::{Chunk, Column};

/// Rows of a row group at most: what is in memory of a table.
pub(crate) const ROW_GROUP: usize = 1 << 17;
/// Row groups of a file at most: what a file says of each is in memory until it ends.
const ROW_GROUPS: usize = 32;

/// Rows in memory.
pub(crate) trait Rows {
    /// How many.
    fn len(&self) -> usize;
    /// Bytes that they take.
    fn bytes(&self) -> usize;
    fn clear(&mut self);
    /// Writes the values of a column.
    fn write(&self, column: usize, out: Chunk<'_, '_, '_>) -> Result<(), ParquetError>;
}

/// A run's part of a table.
#[derive(Debug)]
pub(crate) struct Table<R> {
    pub(crate) rows: R,
    folder: PathBuf,
    columns: Vec<Column>,
    schema: SchemaDescriptor,
    properties: WriterPropertiesPtr,
    file: Option<SerializedFileWriter<Vec<u8>>>,
    /// Files that were begun.
    parts: u32,
}

impl<R: Rows> Table<R> {
    /// A table whose files are to be in `folder`.
    pub(crate) fn new(folder: PathBuf, columns: Vec<Column>, rows: R) -> Result<Self, Error> {
        let fields = columns.iter().map(Column::schema).collect::<Result<_, _>>();
        let schema =
            fields.and_then(|fields| Type::group_type_builder("row").with_fields(fields).build());
        Ok(Self {
            schema: SchemaDescriptor::new(Arc::new(
                schema.map_err(|error| failed(&folder, error))?,
            )),
            properties: Arc::new(properties(&columns)),
            rows,
            folder,
            columns,
            file: None,
            parts: 0,
        })
    }

    /// Whether there are rows enough for a row group.
    pub(crate) fn is_full(&self) -> bool {
        self.rows.len() >= ROW_GROUP
    }

    /// Writes the rows that are in memory. Returns the bytes that they took there.
    pub(crate) fn flush(&mut self) -> Result<usize, Error> {
        let bytes = self.rows.bytes();
        if self.rows.len() > 0 {
            self.append().map_err(|error| failed(&self.folder, error))?;
        }
        self.rows.clear();
        Ok(bytes)
    }

    /// Writes what is left. A table without rows has a file that says so.
    pub(crate) fn finish(&mut self) -> Result<(), Error> {
        self.flush()?;
        let begun = match self.parts {
            0 => self.begin(),
            _ => Ok(()),
        };
        let ended = begun.and_then(|()| self.end());
        ended.map_err(|error| failed(&self.folder, error))
    }

    /// Appends a row group to the file, a new one if there is none.
    fn append(&mut self) -> Result<(), ParquetError> {
        if self.file.is_none() {
            self.begin()?;
        }
        let path = self.path();
        let Some(file) = &mut self.file else {
            return Ok(());
        };
        let mut group = file.next_row_group()?;
        for (place, column) in self.columns.iter().enumerate() {
            let chunk = Chunk {
                column,
                described: self.schema.column(place),
                group: &mut group,
            };
            self.rows.write(place, chunk)?;
        }
        group.close()?;
        file.flush()?;
        append_to(&path, &std::mem::take(file.inner_mut()))?;
        if file.flushed_row_groups().len() >= ROW_GROUPS {
            self.end()?;
        }
        Ok(())
    }

    fn begin(&mut self) -> Result<(), ParquetError> {
        let schema = self.schema.root_schema_ptr();
        let properties = self.properties.clone();
        self.file = Some(SerializedFileWriter::new(Vec::new(), schema, properties)?);
        self.parts += 1;
        fs::create_dir_all(&self.folder)?;
        File::create_new(self.path())?;
        Ok(())
    }

    fn end(&mut self) -> Result<(), ParquetError> {
        if let Some(file) = self.file.take() {
            append_to(&self.path(), &file.into_inner()?)?;
        }
        Ok(())
    }

    /// The file that was begun last.
    fn path(&self) -> PathBuf {
        let last = self.parts.saturating_sub(1);
        self.folder.join(format!("part-{last}.parquet"))
    }
}

fn append_to(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    File::options().append(true).open(path)?.write_all(bytes)
}

/// What went wrong with a table's file: what the system said, if it was asked.
fn failed(folder: &Path, error: ParquetError) -> Error {
    let source = match error {
        ParquetError::External(source) => match source.downcast() {
            Ok(io) => *io,
            Err(other) => std::io::Error::other(other),
        },
        other => std::io::Error::other(other),
    };
    Error::io("write", folder)(source)
}

/// Rows are in the order of their numbers. Those times of the text are too that leave out the deltas of
/// discarded records; `ts` does not.
fn sorted_by(columns: &[Column]) -> Option<Vec<SortingColumn>> {
    let place = columns.iter().position(|column| column.name() == "seq")?;
    Some(vec![SortingColumn {
        column_idx: place as i32,
        descending: false,
        nulls_first: false,
    }])
}

fn properties(columns: &[Column]) -> WriterProperties {
    let all = WriterProperties::builder()
        .set_created_by(format!("outlive {}", env!("CARGO_PKG_VERSION")))
        .set_compression(Compression::SNAPPY)
        .set_sorting_columns(sorted_by(columns))
        // Of no use without the least and greatest value of each page.
        .set_offset_index_disabled(true)
        .set_statistics_enabled(EnabledStatistics::Chunk);
    let each = |properties, column: &Column| column.set_properties(properties);
    columns.iter().fold(all, each).build()
}
