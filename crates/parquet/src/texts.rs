//! Column chunks of texts and bytes: their pages are made here and not by the crate `parquet`.
//!
//! That one wants each value as an object of its own, with a reference count, and hashes each: for
//! names of tasks and events, which come again and again, that took more time than all else. Here a
//! value is looked at where it is, and a small cache in front of the dictionary knows most of them.

use std::borrow::Cow;
use std::collections::HashMap;

use bytes::Bytes;
use parquet::basic::{Compression, Encoding};
use parquet::column::page::{CompressedPage, Page, PageWriter};
use parquet::column::writer::ColumnCloseResult;
use parquet::data_type::ByteArray;
use parquet::errors::{ParquetError, Result};
use parquet::file::metadata::{ColumnChunkMetaData, ColumnChunkMetaDataBuilder};
use parquet::file::statistics::Statistics;
use parquet::file::writer::{SerializedPageWriter, SerializedRowGroupWriter, TrackedWrite};
use parquet::schema::types::ColumnDescPtr;

use crate::hybrid;

/// Rows of a page at most: what a reader decompresses at a time.
const PAGE: usize = 1 << 14;
/// Different values from which on a chunk has no dictionary.
const DICTIONARY: usize = 1 << 13;
/// Different values that are found without hashing all of them; a power of two.
const RECENT: usize = 256;
/// Longest text that is said to be the least or greatest: longer ones say nothing of use to those who
/// skip, and are in memory until the file ends.
const STATISTICS: usize = 64;

/// Stands for a row without a value among indices into a dictionary.
const NULL: u32 = u32::MAX;

/// The values of a chunk, row by row.
#[derive(Debug)]
pub(crate) struct Texts<I> {
    pub(crate) rows: I,
    /// Whether readers take them for UTF-8: other bytes are replaced.
    pub(crate) is_utf8: bool,
    /// Whether values come again and again, and somebody looks for them.
    pub(crate) is_repeated: bool,
}

impl<'v, I: ExactSizeIterator<Item = Option<&'v [u8]>> + Clone> Texts<I> {
    /// Appends the chunk to a row group.
    pub(crate) fn write(
        &self,
        column: ColumnDescPtr,
        group: &mut SerializedRowGroupWriter<'_, Vec<u8>>,
    ) -> Result<()> {
        let dictionary = match self.is_repeated {
            true => Dictionary::of(self.rows.clone()),
            false => None,
        };
        let mut bytes = TrackedWrite::new(Vec::new());
        let mut pages = Pages::new(&mut bytes);
        match &dictionary {
            Some(dictionary) => self.write_indices(dictionary, &mut pages)?,
            None => self.write_plain(&mut pages)?,
        }
        let rows = self.rows.len();
        let metadata = pages.metadata(column, rows);
        let metadata = match self.statistics(dictionary.as_ref()) {
            Some(statistics) => metadata.set_statistics(statistics),
            None => metadata,
        };
        let close = ColumnCloseResult {
            bytes_written: pages.compressed as u64,
            rows_written: rows as u64,
            metadata: metadata.build()?,
            bloom_filter: None,
            column_index: None,
            offset_index: None,
        };
        group.append_column(&Bytes::from(bytes.into_inner()?), close)
    }

    fn write_indices(&self, dictionary: &Dictionary<'v>, pages: &mut Pages<'_>) -> Result<()> {
        let mut values = Vec::new();
        let entries = dictionary.entries.iter();
        entries.for_each(|entry| self.push_plain(&mut values, entry));
        pages.write_dictionary(&values, dictionary.entries.len())?;
        let largest = dictionary.entries.len().saturating_sub(1);
        // Of one entry the index takes no bit, but not every reader thinks of that.
        let width = (usize::BITS - largest.leading_zeros()).max(1);
        let (mut levels, mut indices) = (Vec::new(), Vec::new());
        for rows in dictionary.indices.chunks(PAGE) {
            levels.clear();
            levels.extend(rows.iter().map(|&index| u32::from(index != NULL)));
            indices.clear();
            indices.extend(rows.iter().filter(|index| **index != NULL));
            values.clear();
            values.push(width as u8);
            hybrid::encode(&mut values, &indices, width);
            pages.write(&levels, &values, Encoding::RLE_DICTIONARY)?;
        }
        Ok(())
    }

    fn write_plain(&self, pages: &mut Pages<'_>) -> Result<()> {
        let (mut levels, mut values) = (Vec::new(), Vec::new());
        let mut rows = self.rows.clone();
        while rows.len() > 0 {
            levels.clear();
            values.clear();
            for row in rows.by_ref().take(PAGE) {
                levels.push(row.is_some().into());
                row.inspect(|text| self.push_plain(&mut values, text));
            }
            pages.write(&levels, &values, Encoding::PLAIN)?;
        }
        Ok(())
    }

    fn push_plain(&self, out: &mut Vec<u8>, text: &[u8]) {
        let text = self.readable(text);
        out.extend_from_slice(&(text.len() as u32).to_le_bytes());
        out.extend_from_slice(&text);
    }

    /// What stands for a value in the file.
    fn readable<'t>(&self, text: &'t [u8]) -> Cow<'t, [u8]> {
        match self.is_utf8 && std::str::from_utf8(text).is_err() {
            true => Cow::Owned(String::from_utf8_lossy(text).into_owned().into_bytes()),
            false => Cow::Borrowed(text),
        }
    }

    /// The least and the greatest value, unless nobody asks for them.
    fn statistics(&self, dictionary: Option<&Dictionary<'_>>) -> Option<Statistics> {
        let [least, greatest] = match dictionary {
            Some(dictionary) => self.bounds(dictionary.entries.iter().copied()),
            None if self.is_repeated => self.bounds(self.rows.clone().flatten()),
            None => return None,
        };
        let value = |text: Cow<'_, [u8]>| ByteArray::from(text.into_owned());
        let short = |text: &Cow<'_, [u8]>| text.len() <= STATISTICS;
        let nulls = self.rows.clone().filter(Option::is_none).count();
        Some(Statistics::new(
            least.filter(short).map(value),
            greatest.filter(short).map(value),
            None,
            Some(nulls as u64),
            false,
        ))
    }

    fn bounds<'t>(
        &self,
        texts: impl Iterator<Item = &'t [u8]> + Clone,
    ) -> [Option<Cow<'t, [u8]>>; 2] {
        let readable = texts.map(|text| self.readable(text));
        [readable.clone().min(), readable.max()]
    }
}

/// Each of a chunk's values once, and which of them each row has, or [`NULL`].
#[derive(Debug)]
struct Dictionary<'v> {
    entries: Vec<&'v [u8]>,
    indices: Vec<u32>,
}

impl<'v> Dictionary<'v> {
    /// `None` if there are too many different values.
    fn of(rows: impl Iterator<Item = Option<&'v [u8]>>) -> Option<Self> {
        let (mut entries, mut indices) = (Vec::new(), Vec::new());
        let mut places: HashMap<&[u8], u32> = HashMap::new();
        let mut recent = [0; RECENT];
        for row in rows {
            let Some(text) = row else {
                indices.push(NULL);
                continue;
            };
            let slot = &mut recent[slot(text)];
            if entries.get(*slot as usize) != Some(&text) {
                let next = entries.len() as u32;
                *slot = *places.entry(text).or_insert(next);
                if *slot == next {
                    entries.push(text);
                }
                if entries.len() > DICTIONARY {
                    return None;
                }
            }
            indices.push(*slot);
        }
        Some(Self { entries, indices })
    }
}

/// Where a text is in the cache: texts of one dictionary mostly differ in how they begin or end.
fn slot(text: &[u8]) -> usize {
    let word = |bytes: Option<&[u8; 8]>| bytes.map(|bytes| u64::from_le_bytes(*bytes));
    let mixed = match (word(text.first_chunk()), word(text.last_chunk())) {
        (Some(first), Some(last)) => first ^ last.rotate_left(29),
        _ => text
            .iter()
            .fold(0, |mixed, &byte| mixed << 8 | u64::from(byte)),
    };
    // The upper half of a product depends on all bits (Fibonacci hashing).
    let mixed = mixed.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
    mixed as usize % RECENT
}

/// The pages of a chunk as they are written.
struct Pages<'b> {
    writer: SerializedPageWriter<'b, Vec<u8>>,
    encoder: snap::raw::Encoder,
    /// The page that is being made.
    body: Vec<u8>,
    /// Bytes of all pages with their headers, as they are and as they were.
    compressed: usize,
    uncompressed: usize,
    /// Of the dictionary, with which the chunk begins.
    dictionary: Option<usize>,
    encoding: Encoding,
}

impl<'b> Pages<'b> {
    fn new(bytes: &'b mut TrackedWrite<Vec<u8>>) -> Self {
        Self {
            writer: SerializedPageWriter::new(bytes),
            encoder: snap::raw::Encoder::new(),
            body: Vec::new(),
            compressed: 0,
            uncompressed: 0,
            dictionary: None,
            encoding: Encoding::PLAIN,
        }
    }

    fn write_dictionary(&mut self, body: &[u8], entries: usize) -> Result<()> {
        let page = Page::DictionaryPage {
            buf: self.compress(body)?,
            num_values: entries as u32,
            encoding: Encoding::PLAIN,
            is_sorted: false,
        };
        self.append(page, body.len())?;
        self.dictionary = Some(self.compressed);
        Ok(())
    }

    /// Writes a page: for each row whether it has a value, then the values.
    fn write(&mut self, levels: &[u32], values: &[u8], encoding: Encoding) -> Result<()> {
        let mut body = std::mem::take(&mut self.body);
        body.clear();
        body.extend_from_slice(&[0; 4]);
        hybrid::encode(&mut body, levels, 1);
        let len = (body.len() - 4) as u32;
        body[..4].copy_from_slice(&len.to_le_bytes());
        body.extend_from_slice(values);
        let page = Page::DataPage {
            buf: self.compress(&body)?,
            num_values: levels.len() as u32,
            encoding,
            def_level_encoding: Encoding::RLE,
            rep_level_encoding: Encoding::RLE,
            statistics: None,
        };
        self.append(page, body.len())?;
        self.encoding = encoding;
        self.body = body;
        Ok(())
    }

    fn compress(&mut self, body: &[u8]) -> Result<Bytes> {
        let compressed = self.encoder.compress_vec(body);
        let compressed = compressed.map_err(|error| ParquetError::External(Box::new(error)))?;
        Ok(Bytes::from(compressed))
    }

    fn append(&mut self, page: Page, uncompressed: usize) -> Result<()> {
        let written = self
            .writer
            .write_page(CompressedPage::new(page, uncompressed))?;
        self.compressed += written.compressed_size;
        self.uncompressed += written.uncompressed_size;
        Ok(())
    }

    fn metadata(&self, column: ColumnDescPtr, rows: usize) -> ColumnChunkMetaDataBuilder {
        let mut encodings = vec![Encoding::PLAIN, Encoding::RLE];
        if self.encoding != Encoding::PLAIN {
            encodings.push(self.encoding);
        }
        ColumnChunkMetaData::builder(column)
            .set_compression(Compression::SNAPPY)
            .set_encodings(encodings)
            .set_total_compressed_size(self.compressed as i64)
            .set_total_uncompressed_size(self.uncompressed as i64)
            .set_num_values(rows as i64)
            .set_data_page_offset(self.dictionary.unwrap_or(0) as i64)
            .set_dictionary_page_offset(self.dictionary.map(|_| 0))
    }
}
