//! The metadata of CTF 2, as JSON: `CTF2-SPEC-2.0`, <https://diamon.org/ctf/>.

use outlive_event::IntType;
use serde_json::{Value, json};

use super::layout::{self, EventClass, Member, Role, Type};
use super::{StreamClass, TraceInfo};

/// Goes before each fragment (RFC 7464).
const RECORD_SEPARATOR: char = '\u{1e}';
const CLOCK: &str = "trace";

pub(super) fn metadata(info: &TraceInfo, classes: &[StreamClass<'_>]) -> String {
    let mut fragments = vec![preamble(info), trace_class(info), clock_class(info)];
    for (id, class) in classes.iter().enumerate() {
        fragments.push(stream_class(id, class));
        let events = class.events();
        fragments.extend(events.map(|(event, class)| event_class(id, event, class)));
    }
    let fragment = |value: &Value| format!("{RECORD_SEPARATOR}{value}\n");
    fragments.iter().map(fragment).collect()
}

fn preamble(info: &TraceInfo) -> Value {
    let mut fragment = json!({"type": "preamble", "version": 2});
    if let Some(uuid) = info.uuid {
        fragment["uuid"] = json!(uuid);
    }
    fragment
}

fn trace_class(info: &TraceInfo) -> Value {
    let environment: serde_json::Map<String, Value> = info
        .environment
        .iter()
        .map(|(name, value)| ((*name).to_owned(), json!(value)))
        .collect();
    json!({
        "type": "trace-class",
        "environment": environment,
        "packet-header-field-class": structure(&layout::packet_header(), ""),
    })
}

fn clock_class(info: &TraceInfo) -> Value {
    let (seconds, cycles) = info.clock.offset();
    let mut fragment = json!({
        "type": "clock-class",
        "id": CLOCK,
        "name": CLOCK,
        "description": info.clock.description,
        "frequency": info.clock.frequency,
        "offset-from-origin": {"seconds": seconds, "cycles": cycles},
    });
    if info.clock.is_absolute {
        fragment["origin"] = json!("unix-epoch");
    }
    fragment
}

fn stream_class(id: usize, class: &StreamClass<'_>) -> Value {
    json!({
        "type": "data-stream-class",
        "id": id,
        "default-clock-class-id": CLOCK,
        "packet-context-field-class": structure(&layout::packet_context(class.buffer_word()), ""),
        "event-record-header-field-class": structure(&layout::event_header(), ""),
        "event-record-common-context-field-class":
            structure(&layout::event_context(class.has_lanes), ""),
    })
}

fn event_class(stream: usize, id: u16, class: &EventClass<'_>) -> Value {
    let fields: Vec<Member> = class.members().cloned().collect();
    json!({
        "type": "event-record-class",
        "data-stream-class-id": stream,
        "id": id,
        "name": class.name,
        "payload-field-class": structure(&fields, "event-record-payload"),
    })
}

/// The members of a structure that has the root `origin`.
fn structure(members: &[Member], origin: &str) -> Value {
    let mut classes = Vec::new();
    for member in members {
        let mut class = match member.ty {
            Type::Int(int) => integer(int),
            Type::Address => integer(IntType::ULONG),
            Type::Float(size) => json!({
                "type": "fixed-length-floating-point-number",
                "length": u32::from(size) * 8, "alignment": 8, "byte-order": "little-endian",
            }),
            Type::Text => json!({"type": "null-terminated-string"}),
            Type::Array { elem, len } => json!({
                "type": "static-length-array", "length": len, "element-field-class": integer(elem),
            }),
            Type::Sequence { elem } => {
                let length = format!("{}_length", member.name);
                let class = json!({
                    "type": "dynamic-length-array",
                    "element-field-class": integer(elem),
                    "length-field-location": {"origin": origin, "path": [length]},
                });
                classes.push(named(&length, integer(IntType::new(2, false))));
                class
            }
        };
        if member.ty == Type::Address {
            class["preferred-display-base"] = json!(16);
        }
        if let Some(role) = member.role {
            class["roles"] = json!([role_name(role)]);
        }
        classes.push(named(&member.name, class));
    }
    json!({"type": "structure", "member-classes": classes})
}

fn named(name: &str, class: Value) -> Value {
    json!({"name": name, "field-class": class})
}

fn integer(ty: IntType) -> Value {
    let kind = match ty.signed {
        true => "fixed-length-signed-integer",
        false => "fixed-length-unsigned-integer",
    };
    let length = u32::from(ty.size) * 8;
    json!({"type": kind, "length": length, "alignment": 8, "byte-order": "little-endian"})
}

fn role_name(role: Role) -> &'static str {
    match role {
        Role::Magic => "packet-magic-number",
        Role::StreamClass => "data-stream-class-id",
        Role::Stream => "data-stream-id",
        Role::PacketSize => "packet-total-length",
        Role::ContentSize => "packet-content-length",
        Role::Timestamp => "default-clock-timestamp",
        Role::TimestampEnd => "packet-end-default-clock-timestamp",
        Role::Discarded => "discarded-event-record-counter-snapshot",
        Role::PacketNumber => "packet-sequence-number",
        Role::Event => "event-record-class-id",
    }
}
