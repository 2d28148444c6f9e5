//! How the records of an event become an `FtraceEvent`: with the event's own message where Perfetto
//! has one that holds its fields, else with names and values.

use std::collections::HashMap;
use std::sync::OnceLock;

use outlive_event::{EventFormat, Field, FieldKind, Value};

use super::as_text;
use super::encode::Message;

/// `FtraceEvent.generic`.
const GENERIC: u32 = 327;
/// The fields of `GenericFtraceEvent` and of its `Field`.
mod generic {
    pub(super) const EVENT_NAME: u32 = 1;
    pub(super) const FIELD: u32 = 2;
    pub(super) const NAME: u32 = 1;
    pub(super) const STR: u32 = 3;
    pub(super) const INT: u32 = 4;
    pub(super) const UINT: u32 = 5;
}

/// An event with a message of its own.
#[derive(Debug)]
struct Native {
    number: u32,
    fields: Vec<(&'static str, Column)>,
}

/// A field of such a message.
#[derive(Debug, Clone, Copy)]
pub(super) struct Column {
    number: u32,
    ty: Type,
    is_repeated: bool,
}

/// Its type, of those of protocol buffers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Type {
    Int32,
    Int64,
    Uint32,
    Uint64,
    String,
}

/// How the records of one event are written.
#[derive(Debug)]
pub(super) enum Plan<'v> {
    Native {
        number: u32,
        columns: Vec<(&'v Field, Column)>,
    },
    Generic {
        /// The field with the event's name.
        name: Message,
        /// The fields with the names of the fields.
        fields: Vec<(&'v Field, Message)>,
    },
}

impl<'v> Plan<'v> {
    pub(super) fn of(format: &'v EventFormat) -> Self {
        Self::native(format).unwrap_or_else(|| Self::generic(format))
    }

    /// `None` if Perfetto has no message for the event, or one that does not hold its values.
    fn native(format: &'v EventFormat) -> Option<Self> {
        let native = natives().get(&(format.system.as_str(), format.name.as_str()))?;
        let mut columns = Vec::new();
        for field in &format.fields {
            let known = native.fields.iter().find(|(name, _)| *name == field.name);
            match known {
                Some(&(_, column)) if column.holds(field.kind) => columns.push((field, column)),
                Some(_) => return None,
                // One of the few whose message lacks a field.
                None => {}
            }
        }
        Some(Self::Native {
            number: native.number,
            columns,
        })
    }

    fn generic(format: &'v EventFormat) -> Self {
        let mut name = Message::default();
        name.text(generic::EVENT_NAME, format.name.as_bytes());
        let fields = format.fields.iter().map(|field| {
            let mut name = Message::default();
            name.text(generic::NAME, field.name.as_bytes());
            (field, name)
        });
        Self::Generic {
            name,
            fields: fields.collect(),
        }
    }

    /// Adds the record's message to an `FtraceEvent`.
    pub(super) fn write(&self, out: &mut Message, payload: &[u8]) {
        match self {
            Self::Native { number, columns } => out.message(*number, |out| {
                for (field, column) in columns {
                    column.write(out, field.value(payload));
                }
            }),
            Self::Generic { name, fields } => out.message(GENERIC, |out| {
                out.fields(name);
                for (field, name) in fields {
                    write_generic(out, name, field.value(payload));
                }
            }),
        }
    }
}

/// Adds the message of a record whose event has no format: its id and its bytes.
pub(super) fn write_unknown(out: &mut Message, payload: &[u8]) {
    out.message(GENERIC, |out| {
        out.text(generic::EVENT_NAME, b"unknown");
        if let Some(id) = outlive_event::event_id(payload) {
            let mut name = Message::default();
            name.text(generic::NAME, b"id");
            write_generic(out, &name, Value::Unsigned(id.into()));
        }
        let mut name = Message::default();
        name.text(generic::NAME, b"record");
        write_generic(out, &name, Value::Opaque(payload));
    });
}

fn write_generic(out: &mut Message, name: &Message, value: Value<'_>) {
    if value == Value::Missing {
        return;
    }
    out.message(generic::FIELD, |out| {
        out.fields(name);
        match value {
            Value::Signed(value) => out.int(generic::INT, value),
            Value::Unsigned(value) | Value::Pointer(value) => out.uint(generic::UINT, value),
            Value::Bool(value) => out.uint(generic::UINT, value.into()),
            Value::Text(text) => out.text(generic::STR, text),
            other => out.text(generic::STR, as_text(other).as_bytes()),
        }
    });
}

impl Column {
    /// Whether each value of a field of this kind can be told from the others in the message.
    fn holds(self, kind: FieldKind) -> bool {
        let is_text = self.ty == Type::String;
        let is_wide = matches!(self.ty, Type::Int64 | Type::Uint64);
        match kind {
            FieldKind::Int(int) => !is_text && !self.is_repeated && (is_wide || int.size <= 4),
            FieldKind::Bool => !is_text && !self.is_repeated,
            FieldKind::Pointer { .. } => is_wide && !self.is_repeated,
            FieldKind::String => is_text,
            FieldKind::Flexible { is_string, .. } | FieldKind::Dynamic { is_string, .. } => {
                is_text && is_string
            }
            FieldKind::Array { elem } => {
                !is_text && self.is_repeated && (is_wide || elem.size <= 4)
            }
            _ => false,
        }
    }

    fn write(self, out: &mut Message, value: Value<'_>) {
        match value {
            Value::Signed(value) => self.number(out, value as u64),
            Value::Unsigned(value) | Value::Pointer(value) => self.number(out, value),
            Value::Bool(value) => self.number(out, value.into()),
            Value::Text(text) => out.text(self.number, text),
            Value::Array(array) => array.iter().for_each(|value| self.write(out, value)),
            _ => {}
        }
    }

    fn number(self, out: &mut Message, value: u64) {
        match self.ty {
            Type::Int32 => out.int(self.number, i64::from(value as i32)),
            Type::Uint32 => out.uint(self.number, u64::from(value as u32)),
            Type::Int64 | Type::Uint64 | Type::String => out.uint(self.number, value),
        }
    }
}

type Natives = HashMap<(&'static str, &'static str), Native>;

fn natives() -> &'static Natives {
    static NATIVES: OnceLock<Natives> = OnceLock::new();
    NATIVES.get_or_init(|| {
        include_str!("native_events.txt")
            .lines()
            .filter_map(parse)
            .collect()
    })
}

/// A line of the table; `None` for comments.
fn parse(line: &'static str) -> Option<((&'static str, &'static str), Native)> {
    let mut words = line.split(' ').filter(|_| !line.starts_with('#'));
    let name = (words.next()?, words.next()?);
    let number = words.next()?.parse().ok()?;
    let fields = words.map(parse_field).collect::<Option<_>>()?;
    Some((name, Native { number, fields }))
}

fn parse_field(word: &'static str) -> Option<(&'static str, Column)> {
    let (name, column) = word.split_once('=')?;
    let once = column.strip_suffix('*');
    let (number, ty) = once
        .unwrap_or(column)
        .split_at_checked(once.unwrap_or(column).len() - 1)?;
    let ty = match ty {
        "i" => Type::Int32,
        "I" => Type::Int64,
        "u" => Type::Uint32,
        "U" => Type::Uint64,
        "s" => Type::String,
        _ => return None,
    };
    let column = Column {
        number: number.parse().ok()?,
        ty,
        is_repeated: once.is_some(),
    };
    Some((name, column))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_line_of_the_table_is_understood() {
        let lines = include_str!("native_events.txt").lines();
        let lines = lines.filter(|line| !line.starts_with('#'));
        assert_eq!(natives().len(), lines.count());
        assert!(natives().len() > 150);
    }

    #[test]
    fn an_event_whose_field_does_not_fit_its_message_is_generic() {
        let format = |ty: &str, size: u32| {
            let text = format!(
                "name: irq_handler_exit\nID: 9\nformat:\n\
                 \tfield:{ty} irq;\toffset:8;\tsize:{size};\tsigned:1;\n"
            );
            EventFormat::parse("irq", &text).unwrap()
        };
        assert!(matches!(
            Plan::of(&format("int", 4)),
            Plan::Native { number: 37, .. }
        ));
        assert!(matches!(Plan::of(&format("long", 8)), Plan::Generic { .. }));
    }
}
