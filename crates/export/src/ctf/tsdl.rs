//! The metadata of CTF 1.8, in its own language, the TSDL: <https://diamon.org/ctf/v1.8.3/>.
//!
//! Names of fields begin with an underscore, which readers take away: without it a field could not
//! have the name of a keyword.

use std::fmt::Write;

use outlive_event::IntType;

use super::layout::{self, EventClass, Member, Role, Type};
use super::{Clock, StreamClass, TraceInfo};

pub(super) fn metadata(info: &TraceInfo, classes: &[StreamClass<'_>]) -> String {
    let mut out = String::from("/* CTF 1.8 */\n\n");
    out += "trace {\n\tmajor = 1;\n\tminor = 8;\n\tbyte_order = le;\n";
    if let Some(uuid) = info.uuid {
        out += &format!("\tuuid = \"{}\";\n", dashed(uuid));
    }
    out += &format!(
        "\tpacket.header := {};\n}};\n\n",
        structure(&layout::packet_header(), "")
    );
    out += "env {\n";
    for (name, value) in &info.environment {
        out += &format!("\t{name} = {};\n", quoted(value));
    }
    out += "};\n\n";
    push_clock(&mut out, &info.clock);
    for (id, class) in classes.iter().enumerate() {
        push_stream(&mut out, id, class);
    }
    out
}

fn push_clock(out: &mut String, clock: &Clock) {
    let (seconds, cycles) = clock.offset();
    let _ = write!(
        out,
        "clock {{\n\tname = \"trace\";\n\tdescription = {};\n\tfreq = {};\n\toffset_s = {seconds};\n\
         \toffset = {cycles};\n\tabsolute = {};\n}};\n\n",
        quoted(&clock.description),
        clock.frequency,
        if clock.is_absolute { "TRUE" } else { "FALSE" },
    );
}

fn push_stream(out: &mut String, id: usize, class: &StreamClass<'_>) {
    let _ = write!(
        out,
        "stream {{\n\tid = {id};\n\tpacket.context := {};\n\tevent.header := {};\n\
         \tevent.context := {};\n}};\n\n",
        structure(&layout::packet_context(class.buffer_word()), ""),
        structure(&layout::event_header(), ""),
        structure(&layout::event_context(class.has_lanes), "_"),
    );
    for (event, class) in class.events() {
        push_event(out, id, event, class);
    }
}

fn push_event(out: &mut String, stream: usize, id: u16, class: &EventClass<'_>) {
    let fields: Vec<Member> = class.members().cloned().collect();
    let _ = write!(
        out,
        "event {{\n\tid = {id};\n\tname = {};\n\tstream_id = {stream};\n\tfields := {};\n}};\n\n",
        quoted(&class.name),
        structure(&fields, "_"),
    );
}

fn structure(members: &[Member], prefix: &str) -> String {
    let mut out = String::from("struct {\n");
    for member in members {
        let name = format!("{prefix}{}", member.name);
        out += &match member.ty {
            Type::Text => format!("\t\tstring {name};\n"),
            Type::Float(size) => format!("\t\t{} {name};\n", float(size)),
            Type::Address => format!("\t\t{} {name};\n", integer(IntType::ULONG, " base = 16;")),
            Type::Int(int) => {
                let is_time = matches!(member.role, Some(Role::Timestamp | Role::TimestampEnd));
                let map = if is_time {
                    " map = clock.trace.value;"
                } else {
                    ""
                };
                format!("\t\t{} {name};\n", integer(int, map))
            }
            Type::Array { elem, len } => format!("\t\t{} {name}[{len}];\n", integer(elem, "")),
            Type::Sequence { elem } => format!(
                "\t\t{} {name}_length;\n\t\t{} {name}[{name}_length];\n",
                integer(IntType::new(2, false), ""),
                integer(elem, "")
            ),
        };
    }
    out + "\t}"
}

fn integer(ty: IntType, more: &str) -> String {
    let IntType { size, signed } = ty;
    format!(
        "integer {{ size = {}; align = 8; signed = {signed};{more} }}",
        u32::from(size) * 8
    )
}

fn float(size: u8) -> &'static str {
    match size {
        4 => "floating_point { exp_dig = 8; mant_dig = 24; align = 8; }",
        _ => "floating_point { exp_dig = 11; mant_dig = 53; align = 8; }",
    }
}

/// A string literal, with the escapes of C.
fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '\n' => out += "\\n",
            c if c.is_control() => out.push(' '),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

fn dashed(uuid: [u8; 16]) -> String {
    let hex: String = uuid.iter().map(|byte| format!("{byte:02x}")).collect();
    let parts = [
        &hex[..8],
        &hex[8..12],
        &hex[12..16],
        &hex[16..20],
        &hex[20..],
    ];
    parts.join("-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_quoted_and_uuids_dashed() {
        assert_eq!(quoted("a \"b\\\" \n\u{7}é"), "\"a \\\"b\\\\\\\" \\n é\"");
        let uuid = [
            0x12, 0x34, 0x56, 0x78, 0x9a, 0xbc, 0xde, 0xf0, 1, 2, 3, 4, 5, 6, 7, 8,
        ];
        assert_eq!(dashed(uuid), "12345678-9abc-def0-0102-030405060708");
    }
}
