//! A column: its type, and how its values become those of a file.

use std::sync::Arc;

use outlive_event::{Field, FieldKind, IntType, Value};
use parquet::basic::{Encoding, LogicalType, Repetition, TimeUnit, Type as Physical};
use parquet::data_type::{BoolType, DataType, DoubleType, FloatType, Int64Type};
use parquet::errors::Result;
use parquet::file::properties::{EnabledStatistics, WriterPropertiesBuilder};
use parquet::file::writer::SerializedRowGroupWriter;
use parquet::schema::types::{ColumnDescPtr, ColumnPath, Type, TypePtr};

use crate::dictionary::Key;
use crate::values::{Encode, Integers, Texts, Values};

/// The type of a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// An integer that fits 64 bits with a sign.
    Int,
    /// One that does not: 64 bits without a sign, an address.
    Unsigned,
    /// Microseconds since 1970, UTC. Not nanoseconds: Spark refuses a file that has them.
    Time,
    Bool,
    Float,
    Double,
    /// UTF-8; other bytes are replaced.
    Text,
    Bytes,
    Ints,
    Unsigneds,
}

impl Kind {
    pub(crate) fn of(field: &Field) -> Self {
        match field.kind {
            FieldKind::Int(int) => Self::of_int(int),
            FieldKind::Bool => Self::Bool,
            FieldKind::Float { size: 4 } => Self::Float,
            FieldKind::Float { .. } => Self::Double,
            FieldKind::Pointer { .. } => Self::Unsigned,
            FieldKind::String => Self::Text,
            FieldKind::Flexible {
                is_string: true, ..
            }
            | FieldKind::Dynamic {
                is_string: true, ..
            } => Self::Text,
            FieldKind::Array { elem }
            | FieldKind::Flexible { elem, .. }
            | FieldKind::Dynamic { elem, .. } => match Self::of_int(elem) {
                Self::Unsigned => Self::Unsigneds,
                _ => Self::Ints,
            },
            // Structs.
            _ => Self::Bytes,
        }
    }

    fn of_int(int: IntType) -> Self {
        match int.size == 8 && !int.signed {
            true => Self::Unsigned,
            false => Self::Int,
        }
    }

    fn is_list(self) -> bool {
        matches!(self, Self::Ints | Self::Unsigneds)
    }

    fn logical(self) -> Option<LogicalType> {
        match self {
            Self::Unsigned | Self::Unsigneds => Some(LogicalType::integer(64, false)),
            Self::Time => Some(LogicalType::timestamp(true, TimeUnit::MICROS)),
            Self::Text => Some(LogicalType::String),
            _ => None,
        }
    }

    fn physical(self) -> Physical {
        match self {
            Self::Int | Self::Unsigned | Self::Time | Self::Ints | Self::Unsigneds => {
                Physical::INT64
            }
            Self::Bool => Physical::BOOLEAN,
            Self::Float => Physical::FLOAT,
            Self::Double => Physical::DOUBLE,
            Self::Text | Self::Bytes => Physical::BYTE_ARRAY,
        }
    }
}

/// How the values of a column relate to one another, which decides how they are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pattern {
    /// The same again and again: each once, in a dictionary, as long as it does not grow too large.
    Repeated,
    /// Each number is near the one before: the differences.
    Near,
    /// Hardly one twice, nor one that anybody looks for by its order: as they are.
    Distinct,
}

/// A column of a table.
#[derive(Debug, Clone)]
pub(crate) struct Column {
    name: String,
    kind: Kind,
    pattern: Pattern,
}

impl Column {
    pub(crate) fn new(name: &str, kind: Kind, pattern: Pattern) -> Self {
        Self {
            name: name.to_owned(),
            kind,
            pattern,
        }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// How the column is written.
    pub(crate) fn set_properties(
        &self,
        properties: WriterPropertiesBuilder,
    ) -> WriterPropertiesBuilder {
        let path = ColumnPath::from(self.name.as_str());
        match self.pattern {
            Pattern::Repeated => properties,
            Pattern::Near => properties
                .set_column_dictionary_enabled(path.clone(), false)
                .set_column_encoding(path, Encoding::DELTA_BINARY_PACKED),
            Pattern::Distinct => properties
                .set_column_dictionary_enabled(path.clone(), false)
                .set_column_statistics_enabled(path, EnabledStatistics::None),
        }
    }

    /// The column in a file's schema; lists in the three levels that the format prescribes.
    pub(crate) fn schema(&self) -> Result<TypePtr> {
        if !self.kind.is_list() {
            return self.leaf(&self.name, Repetition::OPTIONAL);
        }
        let element = self.leaf("element", Repetition::REQUIRED)?;
        let list = Type::group_type_builder("list")
            .with_repetition(Repetition::REPEATED)
            .with_fields(vec![element])
            .build()?;
        let field = Type::group_type_builder(&self.name)
            .with_repetition(Repetition::OPTIONAL)
            .with_logical_type(Some(LogicalType::List))
            .with_fields(vec![Arc::new(list)])
            .build()?;
        Ok(Arc::new(field))
    }

    fn leaf(&self, name: &str, repetition: Repetition) -> Result<TypePtr> {
        let leaf = Type::primitive_type_builder(name, self.kind.physical())
            .with_repetition(repetition)
            .with_logical_type(self.kind.logical());
        leaf.build().map(Arc::new)
    }
}

/// A column of a row group, of which the values are to be written.
pub(crate) struct Chunk<'c, 'g, 'f> {
    pub(crate) column: &'c Column,
    /// The same in the file's schema.
    pub(crate) described: ColumnDescPtr,
    pub(crate) group: &'g mut SerializedRowGroupWriter<'f, Vec<u8>>,
}

impl Chunk<'_, '_, '_> {
    /// Writes the values of all rows. One that is missing, or not of the column's type, is null.
    pub(crate) fn write<'v>(
        self,
        values: impl ExactSizeIterator<Item = Value<'v>> + Clone,
    ) -> Result<()> {
        let rows = values.len();
        let kind = self.column.kind;
        match kind {
            Kind::Int | Kind::Unsigned | Kind::Time => match self.column.pattern {
                Pattern::Near => self.write_cells::<Int64Type>(&Cells::of(rows, values, integer)),
                _ => self.write_values(
                    values.map(integer),
                    Integers {
                        is_unsigned: kind == Kind::Unsigned,
                    },
                ),
            },
            Kind::Bool => self.write_cells::<BoolType>(&Cells::of(rows, values, boolean)),
            Kind::Float => self.write_cells::<FloatType>(&Cells::of(rows, values, float)),
            Kind::Double => self.write_cells::<DoubleType>(&Cells::of(rows, values, double)),
            Kind::Text | Kind::Bytes => self.write_values(
                values.map(text),
                Texts {
                    is_utf8: kind == Kind::Text,
                },
            ),
            Kind::Ints | Kind::Unsigneds => self.write_cells::<Int64Type>(&lists(values)),
        }
    }

    fn write_values<K: Key>(
        self,
        rows: impl ExactSizeIterator<Item = Option<K>> + Clone,
        encode: impl Encode<K>,
    ) -> Result<()> {
        let values = Values {
            rows,
            encode,
            is_repeated: self.column.pattern == Pattern::Repeated,
        };
        values.write(self.described, self.group)
    }

    fn write_cells<D: DataType>(self, cells: &Cells<D::T>) -> Result<()> {
        let Some(mut out) = self.group.next_column()? else {
            return Ok(());
        };
        let (defined, repeated) = (Some(cells.defined.as_slice()), cells.repeated.as_deref());
        let typed = out.typed::<D>();
        typed.write_batch(&cells.values, defined, repeated)?;
        out.close()
    }
}

/// The bits of an integer, which the column's type says how to read.
fn integer(value: Value<'_>) -> Option<i64> {
    match value {
        Value::Signed(value) => Some(value),
        Value::Unsigned(value) | Value::Pointer(value) => Some(value.cast_signed()),
        _ => None,
    }
}

fn boolean(value: Value<'_>) -> Option<bool> {
    match value {
        Value::Bool(value) => Some(value),
        _ => None,
    }
}

fn text(value: Value<'_>) -> Option<&[u8]> {
    match value {
        Value::Text(text) | Value::Opaque(text) => Some(text),
        _ => None,
    }
}

fn float(value: Value<'_>) -> Option<f32> {
    double(value).map(|value| value as f32)
}

fn double(value: Value<'_>) -> Option<f64> {
    match value {
        Value::Float(value) => Some(value),
        _ => None,
    }
}

/// What a file has of a column: the values, and for each row whether there is one.
#[derive(Debug)]
struct Cells<T> {
    values: Vec<T>,
    /// Definition levels.
    defined: Vec<i16>,
    /// Repetition levels of lists.
    repeated: Option<Vec<i16>>,
}

impl<T> Cells<T> {
    fn of<V>(rows: usize, values: impl Iterator<Item = V>, cell: impl Fn(V) -> Option<T>) -> Self {
        let mut cells = Self {
            values: Vec::with_capacity(rows),
            defined: Vec::with_capacity(rows),
            repeated: None,
        };
        for value in values {
            let cell = cell(value);
            cells.defined.push(i16::from(cell.is_some()));
            cells.values.extend(cell);
        }
        cells
    }
}

/// The elements of lists. Definition levels: 2 for an element, 1 for a list without any, 0 for no
/// list; repetition levels: 0 where a row begins.
fn lists<'v>(values: impl Iterator<Item = Value<'v>>) -> Cells<i64> {
    let mut elements = Vec::new();
    let (mut defined, mut repeated) = (Vec::new(), Vec::new());
    for value in values {
        let before = elements.len();
        if let Value::Array(array) = value {
            elements.extend(array.iter().filter_map(integer));
        }
        let is_list = matches!(value, Value::Array(_));
        repeated.push(0);
        match elements.len() - before {
            0 => defined.push(i16::from(is_list)),
            count => {
                defined.extend(std::iter::repeat_n(2, count));
                repeated.extend(std::iter::repeat_n(1, count - 1));
            }
        }
    }
    Cells {
        values: elements,
        defined,
        repeated: Some(repeated),
    }
}
