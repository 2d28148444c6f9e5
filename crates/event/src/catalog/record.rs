//! The catalog's records: what a region stores so that it can be read without its writer.
//!
//! Framing, checksums and the log itself belong to the region; a record here is a kind and a
//! payload. All numbers are little endian; texts are UTF-8 without a NUL, task names are bytes.
//!
//! | kind | payload |
//! |---|---|
//! | 1 event format | u16 length of system, system, text of the `format` file |
//! | 2 `header_page` | its text |
//! | 3 `header_event` | its text |
//! | 4 printk format | u64 address, text |
//! | 5 symbol | u64 address, u64 size, u16 length of name, name, module (may be empty) |
//! | 6 kernel | u64 address of `_text`, u16 length, release, u16 length, version, machine |
//! | 7 module | u64 text base, name |
//! | 8 task name | i32 pid, name (at most 16 bytes) |
//! | 9 trace clock | its name as in `trace_clock` |
//! | 10 saved tgid | i32 pid, i32 tgid |
//! | 11 constant | u64 value, name |

use crate::error::CatalogError;

/// The kinds of catalog records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u16)]
#[non_exhaustive]
pub enum RecordKind {
    /// A `format` file.
    EventFormat = 1,
    /// `events/header_page`.
    HeaderPage = 2,
    /// `events/header_event`.
    HeaderEvent = 3,
    /// A line of `printk_formats`.
    PrintkFormat = 4,
    /// A kernel symbol.
    Symbol = 5,
    /// The kernel that wrote the records.
    Kernel = 6,
    /// A kernel module.
    Module = 7,
    /// A pid's name.
    TaskName = 8,
    /// The trace clock.
    TraceClock = 9,
    /// A thread's group.
    SavedTgid = 10,
    /// The value of a name in a print format.
    Constant = 11,
}

impl RecordKind {
    /// The kind with this number, if it is known.
    #[must_use]
    pub fn from_u16(number: u16) -> Option<Self> {
        use RecordKind::*;
        let all = [
            EventFormat,
            HeaderPage,
            HeaderEvent,
            PrintkFormat,
            Symbol,
            Kernel,
            Module,
            TaskName,
            TraceClock,
            SavedTgid,
            Constant,
        ];
        all.into_iter().find(|kind| *kind as u16 == number)
    }
}

/// One catalog record, decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum CatalogRecord<'a> {
    /// A `format` file of an event.
    EventFormat {
        /// The event's system.
        system: &'a str,
        /// The whole file.
        text: &'a str,
    },
    /// The text of `events/header_page`.
    HeaderPage(&'a str),
    /// The text of `events/header_event`.
    HeaderEvent(&'a str),
    /// A string of the kernel that records point to.
    PrintkFormat {
        /// Where it lay.
        address: u64,
        /// The string.
        text: &'a str,
    },
    /// A kernel symbol.
    Symbol {
        /// Its first byte.
        address: u64,
        /// Its bytes; 0 if unknown.
        size: u64,
        /// Its name.
        name: &'a str,
        /// The module it belongs to; empty for the kernel itself.
        module: &'a str,
    },
    /// The kernel that wrote the records.
    Kernel {
        /// The address of `_text`; 0 if unknown.
        text_addr: u64,
        /// `uname -r`.
        release: &'a str,
        /// `uname -v`.
        version: &'a str,
        /// `uname -m`.
        machine: &'a str,
    },
    /// A kernel module.
    Module {
        /// Its text base.
        address: u64,
        /// Its name.
        name: &'a str,
    },
    /// A pid's name.
    TaskName {
        /// The pid.
        pid: i32,
        /// The name, at most 16 bytes, without NUL.
        comm: &'a [u8],
    },
    /// The name of the trace clock (`local`, `mono`, ...).
    TraceClock(&'a str),
    /// A thread's group.
    SavedTgid {
        /// The thread's pid.
        pid: i32,
        /// The pid of its group leader.
        tgid: i32,
    },
    /// The value of a name in a print format, see [`Constants::set`](crate::Constants::set).
    Constant {
        /// The name.
        name: &'a str,
        /// Its value, extended to 64 bits.
        value: u64,
    },
}

/// Longest task name that is stored.
pub const COMM_SIZE: usize = 16;

impl<'a> CatalogRecord<'a> {
    /// The record's kind.
    #[must_use]
    pub fn kind(&self) -> RecordKind {
        match self {
            Self::EventFormat { .. } => RecordKind::EventFormat,
            Self::HeaderPage(_) => RecordKind::HeaderPage,
            Self::HeaderEvent(_) => RecordKind::HeaderEvent,
            Self::PrintkFormat { .. } => RecordKind::PrintkFormat,
            Self::Symbol { .. } => RecordKind::Symbol,
            Self::Kernel { .. } => RecordKind::Kernel,
            Self::Module { .. } => RecordKind::Module,
            Self::TaskName { .. } => RecordKind::TaskName,
            Self::TraceClock(_) => RecordKind::TraceClock,
            Self::SavedTgid { .. } => RecordKind::SavedTgid,
            Self::Constant { .. } => RecordKind::Constant,
        }
    }

    /// Appends the record's payload. Texts with a length before them are cut at 65535 bytes, a
    /// task name at 16.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match *self {
            Self::EventFormat { system, text } => {
                push_str(out, system);
                out.extend_from_slice(text.as_bytes());
            }
            Self::HeaderPage(text) | Self::HeaderEvent(text) | Self::TraceClock(text) => {
                out.extend_from_slice(text.as_bytes());
            }
            Self::PrintkFormat {
                address,
                text: rest,
            }
            | Self::Module {
                address,
                name: rest,
            }
            | Self::Constant {
                value: address,
                name: rest,
            } => {
                out.extend_from_slice(&address.to_le_bytes());
                out.extend_from_slice(rest.as_bytes());
            }
            Self::Symbol {
                address,
                size,
                name,
                module,
            } => {
                out.extend_from_slice(&address.to_le_bytes());
                out.extend_from_slice(&size.to_le_bytes());
                push_str(out, name);
                out.extend_from_slice(module.as_bytes());
            }
            Self::Kernel {
                text_addr,
                release,
                version,
                machine,
            } => {
                out.extend_from_slice(&text_addr.to_le_bytes());
                push_str(out, release);
                push_str(out, version);
                out.extend_from_slice(machine.as_bytes());
            }
            Self::TaskName { pid, comm } => {
                out.extend_from_slice(&pid.to_le_bytes());
                out.extend_from_slice(&comm[..comm.len().min(COMM_SIZE)]);
            }
            Self::SavedTgid { pid, tgid } => {
                out.extend_from_slice(&pid.to_le_bytes());
                out.extend_from_slice(&tgid.to_le_bytes());
            }
        }
    }

    /// Decodes the payload of a record of the given kind.
    ///
    /// # Errors
    ///
    /// The payload is too short for its kind, or a text in it is not UTF-8.
    pub fn decode(kind: RecordKind, payload: &'a [u8]) -> Result<Self, CatalogError> {
        let mut reader = Reader {
            kind: kind as u16,
            payload,
            at: 0,
        };
        Ok(match kind {
            RecordKind::EventFormat => Self::EventFormat {
                system: reader.str()?,
                text: reader.rest_str()?,
            },
            RecordKind::HeaderPage => Self::HeaderPage(reader.rest_str()?),
            RecordKind::HeaderEvent => Self::HeaderEvent(reader.rest_str()?),
            RecordKind::PrintkFormat => Self::PrintkFormat {
                address: reader.u64()?,
                text: reader.rest_str()?,
            },
            RecordKind::Symbol => Self::Symbol {
                address: reader.u64()?,
                size: reader.u64()?,
                name: reader.str()?,
                module: reader.rest_str()?,
            },
            RecordKind::Kernel => Self::Kernel {
                text_addr: reader.u64()?,
                release: reader.str()?,
                version: reader.str()?,
                machine: reader.rest_str()?,
            },
            RecordKind::Module => Self::Module {
                address: reader.u64()?,
                name: reader.rest_str()?,
            },
            RecordKind::TaskName => Self::TaskName {
                pid: reader.i32()?,
                comm: reader.comm(),
            },
            RecordKind::TraceClock => Self::TraceClock(reader.rest_str()?),
            RecordKind::SavedTgid => Self::SavedTgid {
                pid: reader.i32()?,
                tgid: reader.i32()?,
            },
            RecordKind::Constant => Self::Constant {
                value: reader.u64()?,
                name: reader.rest_str()?,
            },
        })
    }
}

fn push_str(out: &mut Vec<u8>, text: &str) {
    let text = &text[..text.floor_char_boundary(usize::from(u16::MAX))];
    out.extend_from_slice(&(text.len() as u16).to_le_bytes());
    out.extend_from_slice(text.as_bytes());
}

struct Reader<'a> {
    kind: u16,
    payload: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn bytes(&mut self, len: usize) -> Result<&'a [u8], CatalogError> {
        let end = self.at + len;
        let found = self
            .payload
            .get(self.at..end)
            .ok_or(CatalogError::TooShort {
                kind: self.kind,
                len: self.payload.len(),
                needed: end,
            })?;
        self.at = end;
        Ok(found)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], CatalogError> {
        let mut array = [0; N];
        array.copy_from_slice(self.bytes(N)?);
        Ok(array)
    }

    fn u64(&mut self) -> Result<u64, CatalogError> {
        self.array().map(u64::from_le_bytes)
    }

    fn i32(&mut self) -> Result<i32, CatalogError> {
        self.array().map(i32::from_le_bytes)
    }

    fn str(&mut self) -> Result<&'a str, CatalogError> {
        let len = u16::from_le_bytes(self.array()?);
        let bytes = self.bytes(usize::from(len))?;
        self.utf8(bytes)
    }

    fn rest(&mut self) -> &'a [u8] {
        let rest = &self.payload[self.at..];
        self.at = self.payload.len();
        rest
    }

    fn rest_str(&mut self) -> Result<&'a str, CatalogError> {
        let bytes = self.rest();
        self.utf8(bytes)
    }

    fn comm(&mut self) -> &'a [u8] {
        let rest = crate::record::until_nul(self.rest());
        &rest[..rest.len().min(COMM_SIZE)]
    }

    fn utf8(&self, bytes: &'a [u8]) -> Result<&'a str, CatalogError> {
        std::str::from_utf8(bytes).map_err(|_| CatalogError::NotUtf8 { kind: self.kind })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [CatalogRecord<'_>; 10] = [
        CatalogRecord::EventFormat {
            system: "sched",
            text: "name: x\nID: 1\n",
        },
        CatalogRecord::HeaderPage("\tfield: u64 timestamp;\n"),
        CatalogRecord::HeaderEvent("# compressed entry header\n"),
        CatalogRecord::PrintkFormat {
            address: 0xffff_ffff_8281_942f,
            text: "thaw",
        },
        CatalogRecord::Symbol {
            address: 1,
            size: 2,
            name: "f",
            module: "m",
        },
        CatalogRecord::Kernel {
            text_addr: 3,
            release: "6.18",
            version: "#1",
            machine: "x86_64",
        },
        CatalogRecord::Module {
            address: 4,
            name: "ext4",
        },
        CatalogRecord::TaskName {
            pid: 42,
            comm: b"bash",
        },
        CatalogRecord::TraceClock("local"),
        CatalogRecord::SavedTgid { pid: 43, tgid: 42 },
    ];

    #[test]
    fn every_record_reads_back_as_it_was_written() {
        for record in ALL {
            let mut payload = Vec::new();
            record.encode(&mut payload);
            assert_eq!(
                CatalogRecord::decode(record.kind(), &payload).unwrap(),
                record
            );
            assert_eq!(
                RecordKind::from_u16(record.kind() as u16),
                Some(record.kind())
            );
        }
        assert_eq!(RecordKind::from_u16(0), None);
        assert_eq!(RecordKind::from_u16(12), None);
    }

    #[test]
    fn cut_records_are_errors_or_shorter_texts() {
        for record in ALL {
            let mut payload = Vec::new();
            record.encode(&mut payload);
            for len in 0..payload.len() {
                match CatalogRecord::decode(record.kind(), &payload[..len]) {
                    Ok(cut) => assert_eq!(cut.kind(), record.kind()),
                    Err(CatalogError::TooShort { needed, .. }) => assert!(needed > len),
                    Err(other) => panic!("{other}"),
                }
            }
        }
    }
}
