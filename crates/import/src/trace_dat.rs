//! `trace.dat`: the counterpart of the exporter, and read in the same places.
//!
//! trace-cmd.dat.v7(5), trace-cmd.dat.v6(5); what they leave open was seen in files of trace-cmd
//! 3.1.6: a section of descriptions (15), a clock behind each table of format 6, and that a CPU's
//! compressed data begins with its own number of chunks.

use std::collections::HashSet;

use crate::bytes::{Cursor, lossy};
use crate::pages::uncompress;
use crate::recording::{Buffer, Compression, CpuPages, Recording};
use crate::{Bytes, Error, Result};

const MAGIC: [u8; 10] = *b"\x17\x08\x44tracing";
/// Sections of options that are followed.
const OPTIONS_MAX: usize = 64;
/// Longest section when it is uncompressed.
const SECTION_MAX: usize = 256 << 20;
/// A CPU that no kernel has.
const CPU_END: u32 = outlive_ring::Geometry::MAX_CPUS;
/// Words that format 6 has between its parts.
const OPTIONS: &[u8] = b"options  \0";
const FLYRECORD: &[u8] = b"flyrecord\0";

mod option {
    pub(super) const DONE: u16 = 0;
    pub(super) const BUFFER: u16 = 3;
    pub(super) const TRACECLOCK: u16 = 4;
    pub(super) const UNAME: u16 = 5;
    pub(super) const VERSION: u16 = 9;
    // Format 7: where a section is.
    pub(super) const HEADER_INFO: u16 = 16;
    pub(super) const FTRACE_EVENTS: u16 = 17;
    pub(super) const EVENT_FORMATS: u16 = 18;
    pub(super) const KALLSYMS: u16 = 19;
    pub(super) const PRINTK: u16 = 20;
    pub(super) const CMDLINES: u16 = 21;
}

/// Whether bytes begin as such a file does.
pub(crate) fn is_one(bytes: &dyn Bytes) -> bool {
    let mut magic = [0; MAGIC.len()];
    bytes.read_at(0, &mut magic).is_ok() && magic == MAGIC
}

impl Recording {
    /// Reads everything but the sub-buffers of a `trace.dat`.
    ///
    /// # Errors
    ///
    /// [`Error::Malformed`] with the place, [`Error::Unsupported`] of a big-endian machine, of
    /// another format, and of another compression.
    pub fn from_trace_dat(bytes: &dyn Bytes) -> Result<Self> {
        let mut cursor = Cursor::new(bytes, 0);
        cursor.expect(&MAGIC, "magic number")?;
        let version = cursor.name("version")?;
        if cursor.u8("byte order")? != 0 {
            return Err(Error::Unsupported(
                "a trace.dat of a big-endian machine".into(),
            ));
        }
        if cursor.u8("bytes of a long")? != 8 {
            return Err(Error::Unsupported("a trace.dat of a 32-bit machine".into()));
        }
        let page_size = cursor.u32("page size")? as usize;
        match version.as_str() {
            "6" => v6(cursor, bytes, page_size),
            "7" => v7(cursor, bytes),
            _ => Err(Error::Unsupported(format!("format {version} of trace.dat"))),
        }
    }

    fn read_headers(&mut self, cursor: &mut Cursor<'_>) -> Result<()> {
        cursor.expect(b"header_page\0", "header_page")?;
        let page = cursor.text_64("header_page")?;
        cursor.expect(b"header_event\0", "header_event")?;
        let event = cursor.text_64("header_event")?;
        use outlive_event::CatalogRecord::{HeaderEvent, HeaderPage};
        self.catalog.apply_record(&HeaderPage(&page))?;
        self.catalog.apply_record(&HeaderEvent(&event))?;
        Ok(())
    }

    fn read_ftrace(&mut self, cursor: &mut Cursor<'_>) -> Result<()> {
        for _ in 0..cursor.u32("number of ftrace formats")? {
            let text = cursor.text_64("ftrace format")?;
            self.add_format("ftrace", &text);
        }
        Ok(())
    }

    fn read_systems(&mut self, cursor: &mut Cursor<'_>) -> Result<()> {
        for _ in 0..cursor.u32("number of systems")? {
            let system = cursor.name("system")?;
            for _ in 0..cursor.u32("number of formats")? {
                let text = cursor.text_64("event format")?;
                self.add_format(&system, &text);
            }
        }
        Ok(())
    }

    fn read_kallsyms(&mut self, cursor: &mut Cursor<'_>) -> Result<()> {
        let text = cursor.text_32("kallsyms")?;
        self.catalog.parse_kallsyms(&text);
        Ok(())
    }

    fn read_printk(&mut self, cursor: &mut Cursor<'_>) -> Result<()> {
        let text = cursor.text_32("printk formats")?;
        self.catalog.parse_printk_formats(&text);
        Ok(())
    }

    fn read_cmdlines(&mut self, cursor: &mut Cursor<'_>) -> Result<()> {
        let len = cursor.u64("command lines")?;
        let text = cursor.take(len, "command lines")?;
        self.catalog.parse_saved_cmdlines(&text);
        Ok(())
    }
}

/// Reads the numbered options of one list up to DONE, whose data it returns.
fn each_option(
    cursor: &mut Cursor<'_>,
    has_data_of_done: bool,
    mut take: impl FnMut(u16, Vec<u8>) -> Result<()>,
) -> Result<Vec<u8>> {
    loop {
        let id = cursor.u16("option")?;
        if id == option::DONE && !has_data_of_done {
            return Ok(Vec::new());
        }
        let len = cursor.u32("length of an option")?;
        let data = cursor.take(len.into(), "option")?;
        if id == option::DONE {
            return Ok(data);
        }
        take(id, data)?;
    }
}

// ---- Format 6 ----

fn v6(mut cursor: Cursor<'_>, bytes: &dyn Bytes, page_size: usize) -> Result<Recording> {
    let mut this = Recording::default();
    this.read_headers(&mut cursor)?;
    this.read_ftrace(&mut cursor)?;
    this.read_systems(&mut cursor)?;
    this.read_kallsyms(&mut cursor)?;
    this.read_printk(&mut cursor)?;
    this.read_cmdlines(&mut cursor)?;
    let cpus = cursor.u32("number of CPUs")?;
    if cpus > CPU_END {
        return Err(cursor.malformed("number of CPUs"));
    }
    let mut clock = String::new();
    let mut instances = Vec::new();
    let at = cursor.at();
    let mut tag = cursor.take(OPTIONS.len() as u64, "options")?;
    if tag == OPTIONS {
        each_option(&mut cursor, false, |id, data| {
            match id {
                option::BUFFER => {
                    let mut cursor = Cursor::new(&data, 0);
                    instances.push((cursor.u64("instance")?, cursor.name("instance")?));
                }
                option::TRACECLOCK => clock = in_brackets(&lossy(data)),
                option::UNAME => this.set_uname(&lossy(data)),
                option::VERSION => this.program = lossy(data),
                _ => {}
            }
            Ok(())
        })?;
        tag = cursor.take(FLYRECORD.len() as u64, "flyrecord")?;
    }
    if tag != FLYRECORD {
        return Err(Error::Malformed {
            what: "flyrecord",
            at,
        });
    }
    let mut table = |name: String, cursor: &mut Cursor<'_>| -> Result<()> {
        let mut buffer = Buffer {
            name,
            clock: clock.clone(),
            page_size,
            cpus: Vec::new(),
        };
        for cpu in 0..cpus {
            let (offset, len) = (cursor.u64("CPU's data")?, cursor.u64("CPU's data")?);
            buffer.push(cpu, CpuPages::Plain { offset, len }, len);
        }
        this.push(buffer);
        Ok(())
    };
    table(String::new(), &mut cursor)?;
    for (offset, name) in instances {
        let mut cursor = Cursor::new(bytes, offset);
        cursor.expect(FLYRECORD, "table of an instance")?;
        table(name, &mut cursor)?;
    }
    Ok(this)
}

impl Buffer {
    fn push(&mut self, cpu: u32, pages: CpuPages, len: u64) {
        if len > 0 {
            self.cpus.push((cpu, pages));
        }
    }
}

impl Recording {
    fn push(&mut self, buffer: Buffer) {
        if !buffer.cpus.is_empty() {
            self.buffers.push(buffer);
        }
    }
}

/// The clock that is used, of a file `trace_clock`.
pub(crate) fn in_brackets(text: &str) -> String {
    let rest = text.split_once('[').map_or(text, |(_, rest)| rest);
    let clock = rest.split(']').next().unwrap_or_default();
    clock.trim().to_owned()
}

// ---- Format 7 ----

fn v7(mut cursor: Cursor<'_>, bytes: &dyn Bytes) -> Result<Recording> {
    let mut this = Recording::default();
    let compression = match cursor.name("compression")?.as_str() {
        "none" | "" => None,
        "zstd" => Some(Compression::Zstd),
        "zlib" => Some(Compression::Zlib),
        other => return Err(Error::Unsupported(format!("compression with {other}"))),
    };
    cursor.name("version of the compression")?;
    let file = Sections { bytes, compression };
    let mut next = cursor.u64("place of the options")?;
    let mut seen = HashSet::new();
    while next != 0 && seen.len() < OPTIONS_MAX && seen.insert(next) {
        let options = file.section(next, 0)?;
        let mut cursor = Cursor::new(&options, 0);
        let done = each_option(&mut cursor, true, |id, data| {
            this.take_option(id, data, &file)
        })?;
        next = done
            .first_chunk()
            .map_or(0, |next| u64::from_le_bytes(*next));
    }
    Ok(this)
}

/// The sections of a file of format 7.
struct Sections<'b> {
    bytes: &'b dyn Bytes,
    compression: Option<Compression>,
}

impl Sections<'_> {
    /// Reads a section's header: whether it is compressed, its size, and behind it its data.
    fn header(&self, at: u64, id: u16) -> Result<(bool, u64, Cursor<'_>)> {
        let mut cursor = Cursor::new(self.bytes, at);
        if cursor.u16("section")? != id {
            return Err(Error::Malformed {
                what: "section",
                at,
            });
        }
        let flags = cursor.u16("section's flags")?;
        cursor.u32("section's description")?;
        let len = cursor.u64("section's length")?;
        Ok((flags & 1 != 0, len, cursor))
    }

    fn section(&self, at: u64, id: u16) -> Result<Vec<u8>> {
        let (is_compressed, len, mut cursor) = self.header(at, id)?;
        let Some(compression) = self.compression.filter(|_| is_compressed) else {
            return cursor.take(len, "section");
        };
        let compressed = cursor.u32("compressed size")?;
        let size = cursor.u32("uncompressed size")? as usize;
        let data = cursor.take(compressed.into(), "compressed section")?;
        uncompress(compression, &data, size.min(SECTION_MAX))
            .ok_or_else(|| cursor.malformed("compressed section"))
    }
}

impl Recording {
    fn take_option(&mut self, id: u16, data: Vec<u8>, file: &Sections<'_>) -> Result<()> {
        let mut cursor = Cursor::new(&data, 0);
        let read = match id {
            option::UNAME => {
                self.set_uname(&lossy(data));
                return Ok(());
            }
            option::VERSION => {
                self.program = lossy(data);
                return Ok(());
            }
            option::BUFFER => return self.read_buffer(&mut cursor, file),
            option::HEADER_INFO => Self::read_headers,
            option::FTRACE_EVENTS => Self::read_ftrace,
            option::EVENT_FORMATS => Self::read_systems,
            option::KALLSYMS => Self::read_kallsyms,
            option::PRINTK => Self::read_printk,
            option::CMDLINES => Self::read_cmdlines,
            _ => return Ok(()),
        };
        let section = file.section(cursor.u64("place of a section")?, id)?;
        read(self, &mut Cursor::new(&section, 0))
    }

    fn read_buffer(&mut self, cursor: &mut Cursor<'_>, file: &Sections<'_>) -> Result<()> {
        let (is_compressed, ..) = file.header(cursor.u64("buffer")?, option::BUFFER)?;
        let compression = file.compression.filter(|_| is_compressed);
        let mut buffer = Buffer {
            name: cursor.name("buffer's name")?,
            clock: in_brackets(&cursor.name("buffer's clock")?),
            page_size: cursor.u32("buffer's page size")? as usize,
            cpus: Vec::new(),
        };
        for _ in 0..cursor.u32("buffer's CPUs")? {
            let cpu = cursor.u32("CPU")?;
            let (offset, len) = (cursor.u64("CPU's data")?, cursor.u64("CPU's data")?);
            if cpu >= CPU_END {
                return Err(cursor.malformed("CPU"));
            }
            let pages = match compression {
                None => CpuPages::Plain { offset, len },
                Some(compression) => CpuPages::Chunks {
                    offset,
                    compression,
                },
            };
            buffer.push(cpu, pages, len);
        }
        self.push(buffer);
        Ok(())
    }
}
