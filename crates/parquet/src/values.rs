//! Column chunks of texts, bytes and integers: their pages are made here and not by the crate
//! `parquet`, which wants each text as an object of its own, with a reference count, and hashes each
//! value. Here a value is looked at where it is.

use std::borrow::Cow;

use bytes::Bytes;
use parquet::basic::Encoding;
use parquet::data_type::ByteArray;
use parquet::errors::Result;
use parquet::file::statistics::Statistics;
use parquet::file::writer::{SerializedRowGroupWriter, TrackedWrite};
use parquet::schema::types::ColumnDescPtr;

use crate::dictionary::{Dictionary, Key, NULL};
use crate::hybrid;
use crate::pages::{PAGE, Pages};

/// Longest text that is said to be the least or greatest: longer ones say nothing of use to those who
/// skip, and are in memory until the file ends.
const STATISTICS: usize = 64;

/// What stands for a value of a type in the file.
pub(crate) trait Encode<K> {
    /// Appends a value by itself.
    fn push(&self, out: &mut Vec<u8>, value: K);
    /// The least and the greatest of the values.
    fn statistics(&self, values: impl Iterator<Item = K> + Clone, nulls: u64) -> Statistics;
}

/// Texts and bytes.
#[derive(Debug)]
pub(crate) struct Texts {
    /// Whether readers take them for UTF-8: other bytes are replaced.
    pub(crate) is_utf8: bool,
}

impl Texts {
    fn readable<'t>(&self, text: &'t [u8]) -> Cow<'t, [u8]> {
        match self.is_utf8 && std::str::from_utf8(text).is_err() {
            true => Cow::Owned(String::from_utf8_lossy(text).into_owned().into_bytes()),
            false => Cow::Borrowed(text),
        }
    }
}

impl<'v> Encode<&'v [u8]> for Texts {
    fn push(&self, out: &mut Vec<u8>, text: &[u8]) {
        let text = self.readable(text);
        out.extend_from_slice(&(text.len() as u32).to_le_bytes());
        out.extend_from_slice(&text);
    }

    fn statistics(&self, texts: impl Iterator<Item = &'v [u8]> + Clone, nulls: u64) -> Statistics {
        let readable = texts.map(|text| self.readable(text));
        let value = |text: Cow<'_, [u8]>| ByteArray::from(text.into_owned());
        let short = |text: &Cow<'_, [u8]>| text.len() <= STATISTICS;
        let [least, greatest] =
            [readable.clone().min(), readable.max()].map(|text| text.filter(short).map(value));
        Statistics::new(least, greatest, None, Some(nulls), false)
    }
}

/// Integers of 64 bits.
#[derive(Debug)]
pub(crate) struct Integers {
    /// Whether readers take their bits for those of numbers without a sign.
    pub(crate) is_unsigned: bool,
}

impl Encode<i64> for Integers {
    fn push(&self, out: &mut Vec<u8>, number: i64) {
        out.extend_from_slice(&number.to_le_bytes());
    }

    fn statistics(&self, numbers: impl Iterator<Item = i64> + Clone, nulls: u64) -> Statistics {
        // In the order of their type: without a sign, negative ones are the greatest.
        let sign = if self.is_unsigned { i64::MIN } else { 0 };
        let ordered = numbers.map(|number| number ^ sign);
        let [least, greatest] =
            [ordered.clone().min(), ordered.max()].map(|number| number.map(|n| n ^ sign));
        Statistics::new(least, greatest, None, Some(nulls), false)
    }
}

/// The values of a chunk, row by row.
#[derive(Debug)]
pub(crate) struct Values<I, E> {
    pub(crate) rows: I,
    pub(crate) encode: E,
    /// Whether values come again and again, and somebody looks for them.
    pub(crate) is_repeated: bool,
}

impl<K: Key, I, E> Values<I, E>
where
    I: ExactSizeIterator<Item = Option<K>> + Clone,
    E: Encode<K>,
{
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
        let statistics = self.statistics(dictionary.as_ref());
        let close = pages.close(column, self.rows.len(), statistics)?;
        group.append_column(&Bytes::from(bytes.into_inner()?), close)
    }

    fn write_indices(&self, dictionary: &Dictionary<K>, pages: &mut Pages<'_>) -> Result<()> {
        let mut values = Vec::new();
        let entries = dictionary.entries.iter();
        entries.for_each(|&entry| self.encode.push(&mut values, entry));
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
                row.inspect(|&value| self.encode.push(&mut values, value));
            }
            pages.write(&levels, &values, Encoding::PLAIN)?;
        }
        Ok(())
    }

    /// What of the values lets an engine skip the chunk, unless nobody asks for that.
    fn statistics(&self, dictionary: Option<&Dictionary<K>>) -> Option<Statistics> {
        if !self.is_repeated {
            return None;
        }
        Some(match dictionary {
            Some(dictionary) => {
                let nulls = dictionary.indices.iter().filter(|index| **index == NULL);
                let entries = dictionary.entries.iter().copied();
                self.encode.statistics(entries, nulls.count() as u64)
            }
            None => {
                let nulls = self.rows.clone().filter(Option::is_none).count();
                let values = self.rows.clone().flatten();
                self.encode.statistics(values, nulls as u64)
            }
        })
    }
}
