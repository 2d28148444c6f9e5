//! `trace.dat`, the file of trace-cmd: its formats 7 and 6.
//!
//! Read in trace-cmd.dat.v7(5) and trace-cmd.dat.v6(5) of trace-cmd 3.1.6; where they are silent,
//! in files that this version wrote. `docs/trace-dat.md` says what of a region goes where.
//!
//! The file's parts are built in memory, all but the CPUs' data. How long that will be is known
//! before anything is written: sub-buffers that are wanted whole are copied as they are, and where
//! only some events are wanted, or lie in lanes, or have to get another time or id, the events are
//! encoded twice, once to count and once to write.

mod content;
mod data;
mod ids;
mod texts;
mod v6;
mod v7;

use std::os::unix::fs::FileExt;
use std::path::Path;

use outlive_ring::layout::SUBBUF_SIZE;
use outlive_trace::view::Sources;

use self::content::Content;
use self::data::Data;
use self::ids::Ids;
use crate::{Error, Exporter, Result, Summary, output};

/// What each file begins with; its version follows.
const MAGIC: [u8; 10] = *b"\x17\x08\x44tracing";
/// Bytes of a page of the data, and what its place in the file is a multiple of.
const PAGE: u64 = SUBBUF_SIZE as u64;

/// Options that both formats have.
mod option {
    pub(super) const DONE: u16 = 0;
    pub(super) const CPUSTAT: u16 = 2;
    pub(super) const BUFFER: u16 = 3;
    pub(super) const TRACECLOCK: u16 = 4;
    pub(super) const UNAME: u16 = 5;
    pub(super) const CPUCOUNT: u16 = 8;
    pub(super) const VERSION: u16 = 9;
    pub(super) const TRACEID: u16 = 11;
    pub(super) const TSC2NSEC: u16 = 14;
}

/// Writes format 7, which trace-cmd writes since 3.0.
#[derive(Debug)]
pub(crate) struct V7;

/// Writes format 6, for trace-cmd before 3.0.
#[derive(Debug)]
pub(crate) struct V6;

impl Exporter for V7 {
    fn export(&self, sources: &Sources<'_>, out: &Path) -> Result<Summary> {
        write(sources, out, v7::lay_out)
    }

    fn to_read(&self, sources: &Sources<'_>) -> u64 {
        to_read(sources)
    }
}

impl Exporter for V6 {
    fn export(&self, sources: &Sources<'_>, out: &Path) -> Result<Summary> {
        write(sources, out, v6::lay_out)
    }

    fn to_read(&self, sources: &Sources<'_>) -> u64 {
        to_read(sources)
    }
}

/// What is encoded anew is counted in a first pass.
fn to_read(sources: &Sources<'_>) -> u64 {
    let ids = Ids::of(sources);
    let mut data = (0..sources.sources().len()).map(|source| Data::new(sources, source, &ids));
    let passes = if data.all(|data| data.is_copied()) {
        1
    } else {
        2
    };
    passes * sources.to_read()
}

/// The sub-buffers of one source.
#[derive(Debug)]
struct Buffer {
    /// Empty: the top instance, whose events `trace-cmd report` shows without a name.
    name: String,
    clock: &'static str,
    cpus: Vec<CpuData>,
}

/// The sub-buffers of one CPU.
#[derive(Debug)]
struct CpuData {
    cpu: u32,
    pages: u64,
    /// Where they are in the file; given by the format.
    offset: u64,
}

impl CpuData {
    fn len(&self) -> u64 {
        self.pages * PAGE
    }
}

/// Gives CPUs their places behind `at`, and returns where they end.
fn place<'a>(cpus: impl IntoIterator<Item = &'a mut CpuData>, at: u64) -> u64 {
    let mut at = at.next_multiple_of(PAGE);
    for data in cpus {
        data.offset = at;
        at += data.len();
    }
    at
}

/// Bytes, and where they are in the file.
type Piece = (u64, Vec<u8>);

/// A format: gives the buffers their places and returns everything else.
type LayOut = fn(&Content, &mut [Buffer]) -> Vec<Piece>;

fn write(sources: &Sources<'_>, out: &Path, lay_out: LayOut) -> Result<Summary> {
    let file = output::create(out)?;
    // Standard output may be a file, but one that has something before our beginning.
    if output::is_stdout(out) || !file.metadata().is_ok_and(|metadata| metadata.is_file()) {
        return Err(Error::NeedsFile(out.to_owned()));
    }
    let ids = Ids::of(sources);
    let content = Content::of(sources, &ids);
    let data: Vec<Data<'_>> = (0..sources.sources().len())
        .map(|source| Data::new(sources, source, &ids))
        .collect();
    let mut buffers = Vec::new();
    for data in &data {
        buffers.push(data.buffer()?);
    }
    for (at, piece) in lay_out(&content, &mut buffers) {
        let written = file.write_all_at(&piece, at);
        written.map_err(Error::io("write", out))?;
    }
    let mut summary = Summary {
        notes: content.notes,
        ..Summary::default()
    };
    for (data, buffer) in data.iter().zip(&buffers) {
        data.write(buffer, &file, out, &mut summary)?;
    }
    Ok(summary)
}

/// Appends an option.
fn push_option(out: &mut Vec<u8>, id: u16, data: &[u8]) {
    out.extend_from_slice(&id.to_le_bytes());
    out.extend_from_slice(&(data.len() as u32).to_le_bytes());
    out.extend_from_slice(data);
}

/// Appends a text and the NUL that ends it.
fn push_text(out: &mut Vec<u8>, text: &str) {
    out.extend(text.bytes().filter(|&byte| byte != 0));
    out.push(0);
}

/// Appends a text behind its length.
fn push_sized(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(&(text.len() as u64).to_le_bytes());
    out.extend_from_slice(text.as_bytes());
}

/// Appends what both formats begin with.
fn push_magic(out: &mut Vec<u8>, version: &str) {
    out.extend_from_slice(&MAGIC);
    push_text(out, version);
    // Little endian; bytes of a long.
    out.extend_from_slice(&[0, 8]);
    out.extend_from_slice(&(PAGE as u32).to_le_bytes());
}

/// Appends the options that both formats have.
fn push_options(out: &mut Vec<u8>, content: &Content, buffers: &[Buffer]) {
    for (id, text) in &content.texts {
        let mut data = Vec::new();
        push_text(&mut data, text);
        push_option(out, *id, &data);
    }
    if let Some(id) = content.trace_id {
        push_option(out, option::TRACEID, &id.to_le_bytes());
    }
    if let Some(tsc) = &content.tsc {
        push_option(out, option::TSC2NSEC, &tsc.encode());
    }
    push_option(out, option::CPUCOUNT, &nr_cpus(buffers).to_le_bytes());
}

fn nr_cpus(buffers: &[Buffer]) -> u32 {
    let cpus = buffers.iter().flat_map(|buffer| &buffer.cpus);
    cpus.map(|data| data.cpu + 1).max().unwrap_or(1)
}
