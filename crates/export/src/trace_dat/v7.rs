//! Format 7: sections, each behind a header that says what it is and how long.

use super::content::Content;
use super::{
    Buffer, PAGE, Piece, option, place, push_magic, push_option, push_options, push_sized,
    push_text,
};

/// Bytes of a section's header: id, flags, description, size.
const SECTION_HEADER: u64 = 16;

mod section {
    pub(super) const OPTIONS: u16 = 0;
    pub(super) const BUFFER: u16 = 3;
    /// Not in the manual page: seen in files of trace-cmd 3.1.6.
    pub(super) const STRINGS: u16 = 15;
    // These are also the options that say where the section is.
    pub(super) const HEADER_INFO: u16 = 16;
    pub(super) const FTRACE_EVENTS: u16 = 17;
    pub(super) const EVENT_FORMATS: u16 = 18;
    pub(super) const KALLSYMS: u16 = 19;
    pub(super) const PRINTK: u16 = 20;
    pub(super) const CMDLINES: u16 = 21;
}

/// Sections that are being put together, and the descriptions that their headers name.
#[derive(Default)]
struct Sections {
    bytes: Vec<u8>,
    strings: Vec<u8>,
}

impl Sections {
    fn header(&mut self, id: u16, description: &str, size: u64) {
        self.bytes.extend_from_slice(&id.to_le_bytes());
        // Not compressed.
        self.bytes.extend_from_slice(&[0; 2]);
        let string = self.strings.len() as u32;
        self.bytes.extend_from_slice(&string.to_le_bytes());
        push_text(&mut self.strings, description);
        self.bytes.extend_from_slice(&size.to_le_bytes());
    }

    fn section(&mut self, id: u16, description: &str, data: &[u8]) {
        self.header(id, description, data.len() as u64);
        self.bytes.extend_from_slice(data);
    }
}

/// Initial format, sections of texts, sections of data, options, strings.
pub(super) fn lay_out(content: &Content, buffers: &mut [Buffer]) -> Vec<Piece> {
    let mut sections = Sections::default();
    push_magic(&mut sections.bytes, "7");
    push_text(&mut sections.bytes, "none");
    push_text(&mut sections.bytes, "");
    let options_offset = sections.bytes.len();
    sections.bytes.extend_from_slice(&[0; 8]);
    let mut options = Vec::new();
    for (id, description, data) in texts(content) {
        let offset = sections.bytes.len() as u64;
        push_option(&mut options, id, &offset.to_le_bytes());
        sections.section(id, description, &data);
    }
    let mut pieces = vec![(0, std::mem::take(&mut sections.bytes))];
    let mut at = pieces[0].1.len() as u64;
    push_options(&mut options, content, buffers);
    for buffer in buffers {
        let end = place(&mut buffer.cpus, at + SECTION_HEADER);
        let description = format!("buffer flyrecord {}", buffer.name);
        sections.header(section::BUFFER, &description, end - at - SECTION_HEADER);
        pieces.push((at, std::mem::take(&mut sections.bytes)));
        push_option(&mut options, option::BUFFER, &describe(buffer, at));
        at = end;
    }
    // There are no more options elsewhere.
    push_option(&mut options, option::DONE, &[0; 8]);
    pieces[0].1[options_offset..options_offset + 8].copy_from_slice(&at.to_le_bytes());
    sections.section(section::OPTIONS, "options", &options);
    let own = sections.strings.len() as u64 + "strings\0".len() as u64;
    sections.header(section::STRINGS, "strings", own);
    let strings = std::mem::take(&mut sections.strings);
    sections.bytes.extend_from_slice(&strings);
    pieces.push((at, sections.bytes));
    pieces
}

/// The option BUFFER.
fn describe(buffer: &Buffer, offset: u64) -> Vec<u8> {
    let mut data = offset.to_le_bytes().to_vec();
    push_text(&mut data, &buffer.name);
    push_text(&mut data, buffer.clock);
    data.extend_from_slice(&(PAGE as u32).to_le_bytes());
    data.extend_from_slice(&(buffer.cpus.len() as u32).to_le_bytes());
    for cpu in &buffer.cpus {
        data.extend_from_slice(&cpu.cpu.to_le_bytes());
        data.extend_from_slice(&cpu.offset.to_le_bytes());
        data.extend_from_slice(&cpu.len().to_le_bytes());
    }
    data
}

/// The sections of texts: their ids, descriptions and data.
fn texts(content: &Content) -> [(u16, &'static str, Vec<u8>); 6] {
    [
        (section::HEADER_INFO, "headers", headers(content)),
        (section::FTRACE_EVENTS, "ftrace events", ftrace(content)),
        (section::EVENT_FORMATS, "events format", systems(content)),
        (section::KALLSYMS, "kallsyms", sized_32(&content.kallsyms)),
        (section::PRINTK, "printk", sized_32(&content.printk_formats)),
        (section::CMDLINES, "command lines", cmdlines(content)),
    ]
}

/// `header_page` and `header_event`, each behind its name. Format 6 has the same.
pub(super) fn headers(content: &Content) -> Vec<u8> {
    let mut out = Vec::new();
    push_text(&mut out, "header_page");
    push_sized(&mut out, &content.header_page);
    push_text(&mut out, "header_event");
    push_sized(&mut out, &content.header_event);
    out
}

/// The formats of the system `ftrace`. Format 6 has the same.
pub(super) fn ftrace(content: &Content) -> Vec<u8> {
    let mut out = (content.ftrace.len() as u32).to_le_bytes().to_vec();
    for text in &content.ftrace {
        push_sized(&mut out, text);
    }
    out
}

/// The formats of all other systems. Format 6 has the same.
pub(super) fn systems(content: &Content) -> Vec<u8> {
    let mut out = (content.systems.len() as u32).to_le_bytes().to_vec();
    for (system, formats) in &content.systems {
        push_text(&mut out, system);
        out.extend_from_slice(&(formats.len() as u32).to_le_bytes());
        for text in formats {
            push_sized(&mut out, text);
        }
    }
    out
}

/// A text behind its length of four bytes.
pub(super) fn sized_32(text: &str) -> Vec<u8> {
    let mut out = (text.len() as u32).to_le_bytes().to_vec();
    out.extend_from_slice(text.as_bytes());
    out
}

/// The names of tasks. Format 6 has the same.
pub(super) fn cmdlines(content: &Content) -> Vec<u8> {
    let mut out = Vec::new();
    push_sized(&mut out, &content.cmdlines);
    out
}
