//! The pages of a column chunk, as they are made here and not by the crate `parquet`.

use bytes::Bytes;
use parquet::basic::{Compression, Encoding};
use parquet::column::page::{CompressedPage, Page, PageWriter};
use parquet::column::writer::ColumnCloseResult;
use parquet::errors::{ParquetError, Result};
use parquet::file::metadata::ColumnChunkMetaData;
use parquet::file::statistics::Statistics;
use parquet::file::writer::{SerializedPageWriter, TrackedWrite};
use parquet::schema::types::ColumnDescPtr;

use crate::hybrid;

/// Rows of a page at most: what a reader decompresses at a time.
pub(crate) const PAGE: usize = 1 << 14;

/// The pages of a chunk as they are written.
pub(crate) struct Pages<'b> {
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
    pub(crate) fn new(bytes: &'b mut TrackedWrite<Vec<u8>>) -> Self {
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

    pub(crate) fn write_dictionary(&mut self, body: &[u8], entries: usize) -> Result<()> {
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
    pub(crate) fn write(
        &mut self,
        levels: &[u32],
        values: &[u8],
        encoding: Encoding,
    ) -> Result<()> {
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

    /// What the file says of the chunk.
    pub(crate) fn close(
        &self,
        column: ColumnDescPtr,
        rows: usize,
        statistics: Option<Statistics>,
    ) -> Result<ColumnCloseResult> {
        let mut encodings = vec![Encoding::PLAIN, Encoding::RLE];
        if self.encoding != Encoding::PLAIN {
            encodings.push(self.encoding);
        }
        let metadata = ColumnChunkMetaData::builder(column)
            .set_compression(Compression::SNAPPY)
            .set_encodings(encodings)
            .set_total_compressed_size(self.compressed as i64)
            .set_total_uncompressed_size(self.uncompressed as i64)
            .set_num_values(rows as i64)
            .set_data_page_offset(self.dictionary.unwrap_or(0) as i64)
            .set_dictionary_page_offset(self.dictionary.map(|_| 0));
        let metadata = match statistics {
            Some(statistics) => metadata.set_statistics(statistics),
            None => metadata,
        };
        Ok(ColumnCloseResult {
            bytes_written: self.compressed as u64,
            rows_written: rows as u64,
            metadata: metadata.build()?,
            bloom_filter: None,
            column_index: None,
            offset_index: None,
        })
    }
}
