//! What the bytes of a trace mean, from which both kinds of metadata are made.
//!
//! Everything is little endian and aligned to bytes.

use outlive_event::{EventFormat, Field, FieldKind, IntType, Value};

/// An array of a format that is longer than any record is never there: it is written as a sequence,
/// which is empty then.
const ARRAY_MAX: u32 = outlive_ring::layout::SUBBUF_DATA as u32;

/// The type of a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Type {
    Int(IntType),
    /// An address: shown hexadecimal.
    Address,
    /// Bytes: 4 or 8.
    Float(u8),
    /// UTF-8, up to a NUL.
    Text,
    Array {
        elem: IntType,
        len: u32,
    },
    /// A member `NAME_length` of 16 bits goes before it.
    Sequence {
        elem: IntType,
    },
}

impl Type {
    pub(super) const U8: Self = Self::Int(IntType::BYTE);
    pub(super) const U16: Self = Self::Int(IntType::new(2, false));
    pub(super) const U32: Self = Self::Int(IntType::UINT);
    pub(super) const I32: Self = Self::Int(IntType::INT);
    pub(super) const U64: Self = Self::Int(IntType::ULONG);

    fn of(field: &Field) -> Self {
        let array = |elem: IntType| match field.size {
            0..=ARRAY_MAX => Self::Array {
                elem,
                len: field.size / u32::from(elem.size),
            },
            _ => Self::Sequence { elem },
        };
        match field.kind {
            FieldKind::Int(int) => Self::Int(int),
            FieldKind::Bool => Self::U8,
            FieldKind::Float { size } => Self::Float(size),
            FieldKind::Pointer { .. } => Self::Address,
            FieldKind::String => Self::Text,
            FieldKind::Array { elem } => array(elem),
            FieldKind::Flexible { is_string, .. } | FieldKind::Dynamic { is_string, .. }
                if is_string =>
            {
                Self::Text
            }
            FieldKind::Flexible { elem, .. } | FieldKind::Dynamic { elem, .. } => {
                Self::Sequence { elem }
            }
            // Structs.
            _ => array(IntType::BYTE),
        }
    }

    /// Appends a value; zeros for one that is missing.
    fn write(self, out: &mut Vec<u8>, value: Value<'_>) {
        match self {
            Self::Int(IntType { size, .. }) => push_number(out, value, usize::from(size)),
            Self::Address => push_number(out, value, 8),
            Self::Float(size) => push_float(out, value, size),
            Self::Text => push_text(
                out,
                if let Value::Text(text) = value {
                    text
                } else {
                    b""
                },
            ),
            Self::Array { elem, len } => {
                let size = len as usize * usize::from(elem.size);
                let end = out.len() + size;
                out.extend_from_slice(bytes_of(&value).get(..size).unwrap_or_default());
                out.resize(end, 0);
            }
            Self::Sequence { elem } => {
                let bytes = bytes_of(&value);
                let len = bytes.len() / usize::from(elem.size);
                // A record is shorter than a sub-buffer.
                out.extend_from_slice(&(len as u16).to_le_bytes());
                out.extend_from_slice(&bytes[..len * usize::from(elem.size)]);
            }
        }
    }
}

fn bytes_of<'a>(value: &Value<'a>) -> &'a [u8] {
    match value {
        Value::Array(array) => array.bytes(),
        Value::Opaque(bytes) => bytes,
        _ => &[],
    }
}

fn push_number(out: &mut Vec<u8>, value: Value<'_>, size: usize) {
    let number = match value {
        Value::Signed(value) => value as u64,
        Value::Unsigned(value) | Value::Pointer(value) => value,
        Value::Bool(value) => value.into(),
        _ => 0,
    };
    out.extend_from_slice(&number.to_le_bytes()[..size]);
}

fn push_float(out: &mut Vec<u8>, value: Value<'_>, size: u8) {
    let number = if let Value::Float(value) = value {
        value
    } else {
        0.0
    };
    match size {
        4 => out.extend_from_slice(&(number as f32).to_le_bytes()),
        _ => out.extend_from_slice(&number.to_le_bytes()),
    }
}

/// Appends a text and its NUL. Other bytes than UTF-8 are replaced.
pub(super) fn push_text(out: &mut Vec<u8>, text: &[u8]) {
    match std::str::from_utf8(text) {
        Ok(_) => out.extend_from_slice(text),
        Err(_) => out.extend_from_slice(String::from_utf8_lossy(text).as_bytes()),
    }
    out.push(0);
}

/// What a reader does with a member; the member's name says it in CTF 1.8, its role in CTF 2.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Magic,
    StreamClass,
    Stream,
    PacketSize,
    ContentSize,
    /// In the clock of the trace.
    Timestamp,
    TimestampEnd,
    Discarded,
    PacketNumber,
    Event,
}

/// A member of a struct.
#[derive(Debug, Clone)]
pub(super) struct Member {
    pub(super) name: String,
    pub(super) ty: Type,
    pub(super) role: Option<Role>,
}

impl Member {
    fn new(name: &str, ty: Type) -> Self {
        Self {
            name: name.to_owned(),
            ty,
            role: None,
        }
    }

    fn with_role(name: &str, ty: Type, role: Role) -> Self {
        Self {
            role: Some(role),
            ..Self::new(name, ty)
        }
    }
}

/// At the beginning of each packet; [`packet_head`](super::packet_head) writes it and the next.
pub(super) fn packet_header() -> Vec<Member> {
    vec![
        Member::with_role("magic", Type::U32, Role::Magic),
        Member::with_role("stream_id", Type::U32, Role::StreamClass),
        Member::with_role("stream_instance_id", Type::U32, Role::Stream),
    ]
}

pub(super) fn packet_context(buffer_word: &str) -> Vec<Member> {
    vec![
        Member::with_role("packet_size", Type::U32, Role::PacketSize),
        Member::with_role("content_size", Type::U32, Role::ContentSize),
        Member::with_role("timestamp_begin", Type::U64, Role::Timestamp),
        Member::with_role("timestamp_end", Type::U64, Role::TimestampEnd),
        Member::with_role("events_discarded", Type::U64, Role::Discarded),
        Member::with_role("packet_seq_num", Type::U32, Role::PacketNumber),
        Member::new(buffer_word, Type::U32),
    ]
}

/// Before each event.
pub(super) fn event_header() -> Vec<Member> {
    vec![
        Member::with_role("id", Type::U16, Role::Event),
        Member::with_role("timestamp", Type::U64, Role::Timestamp),
    ]
}

/// What each event has: the common fields of the kernel's, or of a program's.
pub(super) fn event_context(has_lanes: bool) -> Vec<Member> {
    let mut members = match has_lanes {
        true => vec![Member::new("common_cpu", Type::U16)],
        false => vec![
            Member::new("common_flags", Type::U8),
            Member::new("common_preempt_count", Type::U8),
        ],
    };
    members.push(Member::new("common_pid", Type::I32));
    members.push(Member::new("comm", Type::Text));
    members
}

/// An event with its fields.
#[derive(Debug)]
pub(super) struct EventClass<'v> {
    /// `system:name`.
    pub(super) name: String,
    fields: Vec<(Option<&'v Field>, Member)>,
}

impl<'v> EventClass<'v> {
    pub(super) fn of(format: &'v EventFormat) -> Self {
        let members = format
            .fields
            .iter()
            .map(|field| (Some(field), Member::new(&field.name, Type::of(field))));
        let mut fields: Vec<_> = members.collect();
        make_unique(&mut fields);
        Self {
            name: format!("{}:{}", format.system, format.name),
            fields,
        }
    }

    /// Records whose event has no format: their bytes.
    pub(super) fn unknown(id: u16) -> Self {
        let elem = IntType::BYTE;
        Self {
            name: format!("unknown:{id}"),
            fields: vec![(None, Member::new("record", Type::Sequence { elem }))],
        }
    }

    pub(super) fn members(&self) -> impl Iterator<Item = &Member> {
        self.fields.iter().map(|(_, member)| member)
    }

    /// Appends the fields of a record. Returns how many it is too short for.
    pub(super) fn write(&self, out: &mut Vec<u8>, payload: &[u8]) -> u64 {
        let mut missing = 0;
        for (field, member) in &self.fields {
            let value = field.map_or(Value::Opaque(payload), |field| field.value(payload));
            missing += u64::from(value == Value::Missing);
            member.ty.write(out, value);
        }
        missing
    }
}

/// Two members of a struct must not have the same name, also not with a length's.
fn make_unique(fields: &mut [(Option<&Field>, Member)]) {
    let mut names = std::collections::HashSet::new();
    for (_, member) in fields {
        let length = |name: &str| format!("{name}_length");
        while names.contains(&member.name) || names.contains(&length(&member.name)) {
            member.name.push('_');
        }
        names.insert(member.name.clone());
        if matches!(member.ty, Type::Sequence { .. }) {
            names.insert(length(&member.name));
        }
    }
}
