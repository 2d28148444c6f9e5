//! Untrusted bytes, read at places that are checked.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use crate::{Error, Result};

/// Longest text that is taken whole: symbols of a kernel are some megabytes.
const TEXT_MAX: u64 = 256 << 20;
/// Longest name.
const NAME_MAX: usize = 4096;

/// Bytes of a known length that are read piece by piece.
pub trait Bytes {
    /// Their number.
    fn len(&self) -> u64;
    /// Whether there are none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// Reads exactly as many as `out` has room for.
    ///
    /// # Errors
    ///
    /// When there are fewer, or the system cannot read them.
    fn read_at(&self, at: u64, out: &mut [u8]) -> io::Result<()>;
}

impl Bytes for File {
    fn len(&self) -> u64 {
        self.metadata().map_or(0, |metadata| metadata.len())
    }
    fn read_at(&self, at: u64, out: &mut [u8]) -> io::Result<()> {
        self.read_exact_at(out, at)
    }
}

impl Bytes for &[u8] {
    fn len(&self) -> u64 {
        <[u8]>::len(self) as u64
    }
    fn read_at(&self, at: u64, out: &mut [u8]) -> io::Result<()> {
        let start = usize::try_from(at).ok();
        let found = start.and_then(|start| self.get(start..)?.get(..out.len()));
        out.copy_from_slice(found.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
}

impl Bytes for Vec<u8> {
    fn len(&self) -> u64 {
        Bytes::len(&self.as_slice())
    }
    fn read_at(&self, at: u64, out: &mut [u8]) -> io::Result<()> {
        self.as_slice().read_at(at, out)
    }
}

/// Reads one thing after the other.
pub(crate) struct Cursor<'b> {
    bytes: &'b dyn Bytes,
    at: u64,
    end: u64,
}

impl<'b> Cursor<'b> {
    /// From `at` to the end of the bytes.
    pub(crate) fn new(bytes: &'b dyn Bytes, at: u64) -> Self {
        let end = bytes.len();
        Self { bytes, at, end }
    }

    pub(crate) fn at(&self) -> u64 {
        self.at
    }

    fn left(&self) -> u64 {
        self.end.saturating_sub(self.at)
    }

    pub(crate) fn malformed(&self, what: &'static str) -> Error {
        Error::Malformed { what, at: self.at }
    }

    fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N]> {
        let mut out = [0; N];
        let read = self.bytes.read_at(self.at, &mut out);
        read.map_err(|_| self.malformed(what))?;
        self.at += N as u64;
        Ok(out)
    }

    pub(crate) fn u8(&mut self, what: &'static str) -> Result<u8> {
        self.array::<1>(what).map(|[byte]| byte)
    }

    pub(crate) fn u16(&mut self, what: &'static str) -> Result<u16> {
        self.array(what).map(u16::from_le_bytes)
    }

    pub(crate) fn u32(&mut self, what: &'static str) -> Result<u32> {
        self.array(what).map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self, what: &'static str) -> Result<u64> {
        self.array(what).map(u64::from_le_bytes)
    }

    /// The next `len` bytes. Memory is taken only for bytes that are there.
    pub(crate) fn take(&mut self, len: u64, what: &'static str) -> Result<Vec<u8>> {
        if len > self.left() || len > TEXT_MAX {
            return Err(self.malformed(what));
        }
        let mut out = vec![0; len as usize];
        let read = self.bytes.read_at(self.at, &mut out);
        read.map_err(|_| self.malformed(what))?;
        self.at += len;
        Ok(out)
    }

    /// Exactly these bytes.
    pub(crate) fn expect(&mut self, bytes: &[u8], what: &'static str) -> Result<()> {
        let before = self.at;
        match self.take(bytes.len() as u64, what)? == bytes {
            true => Ok(()),
            false => Err(Error::Malformed { what, at: before }),
        }
    }

    /// A name that ends with a NUL.
    pub(crate) fn name(&mut self, what: &'static str) -> Result<String> {
        let len = self.left().min(NAME_MAX as u64);
        let mut window = vec![0; len as usize];
        let read = self.bytes.read_at(self.at, &mut window);
        read.map_err(|_| self.malformed(what))?;
        let end = window.iter().position(|&byte| byte == 0);
        let end = end.ok_or_else(|| self.malformed(what))?;
        self.at += end as u64 + 1;
        Ok(String::from_utf8_lossy(&window[..end]).into_owned())
    }

    /// A text behind its length of 8 bytes.
    pub(crate) fn text_64(&mut self, what: &'static str) -> Result<String> {
        let len = self.u64(what)?;
        self.take(len, what).map(lossy)
    }

    /// A text behind its length of 4 bytes.
    pub(crate) fn text_32(&mut self, what: &'static str) -> Result<String> {
        let len = self.u32(what)?;
        self.take(len.into(), what).map(lossy)
    }
}

/// A text, up to the NUL that may end it.
pub(crate) fn lossy(bytes: Vec<u8>) -> String {
    let end = bytes.iter().position(|&byte| byte == 0);
    let bytes = &bytes[..end.unwrap_or(bytes.len())];
    String::from_utf8_lossy(bytes).into_owned()
}
