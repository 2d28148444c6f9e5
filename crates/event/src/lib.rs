//! The event formats of the Linux kernel's tracing: fields, print formats, the `trace` text.
//!
//! A record in the kernel's ring buffer is a struct whose layout and print format a `format`
//! file describes. This crate parses those files, compiles their `print fmt`, and prints
//! records byte for byte as the kernel's `trace` file does; it also has the *catalog*, which
//! holds what a reader needs (formats, task names, symbols, strings) when the kernel that wrote
//! the records is gone.
//!
//! ```
//! use outlive_event::{Catalog, Formatter, TextOptions};
//!
//! let mut catalog = Catalog::new();
//! catalog.add_format(
//!     "sched",
//!     "name: sched_process_hang\nID: 350\nformat:\n\
//!      \tfield:int common_pid;\toffset:4;\tsize:4;\tsigned:1;\n\n\
//!      \tfield:char comm[16];\toffset:8;\tsize:16;\tsigned:0;\n\
//!      \tfield:pid_t pid;\toffset:24;\tsize:4;\tsigned:1;\n\n\
//!      print fmt: \"comm=%s pid=%d\", REC->comm, REC->pid\n",
//! )?;
//! let mut record = 350u16.to_le_bytes().to_vec(); // type
//! record.extend_from_slice(&[0, 0, 7, 0, 0, 0]); // flags, preempt count, pid 7
//! record.extend_from_slice(b"kworker/0:1\0\0\0\0\0");
//! record.extend_from_slice(&42u32.to_le_bytes());
//!
//! let mut out = Vec::new();
//! Formatter::new(&catalog, TextOptions::default()).record(&mut out, 1, 5_000_000, &record);
//! assert_eq!(
//!     String::from_utf8_lossy(&out),
//!     "           <...>-7       [001] .....     0.005000: \
//!      sched_process_hang: comm=kworker/0:1 pid=42\n"
//! );
//! # Ok::<(), outlive_event::CatalogError>(())
//! ```
//!
//! Entry points: [`EventFormat::parse`], [`Catalog`], [`Formatter`]; for structured outputs
//! [`Formatter::fields`]. Records and catalog records are untrusted: no input makes this crate
//! panic.

#![forbid(unsafe_code)]

mod btf;
mod catalog;
mod columns;
mod constants;
mod ctype;
mod digits;
mod doubt;
mod error;
mod filter;
mod format;
mod header_page;
mod pointer;
mod print_fmt;
mod printf;
mod raw_fields;
mod record;
mod symbol_fields;
mod task_names;
mod text;
mod unevaluated;
mod value;

pub use catalog::{COMM_SIZE, Catalog, CatalogRecord, Kernel, RecordKind, Symbol, Symbols, Tasks};
pub use columns::ColumnNames;
pub use constants::Constants;
pub use ctype::IntType;
pub use doubt::Doubt;
pub use error::{CatalogError, FormatError, FormatErrorKind, NotEvaluated, Reason};
pub use filter::{Filter, FilterError, FilterErrorKind, FilterScope, Predicate};
pub use format::{EventFormat, Field, FieldKind};
pub use header_page::HeaderPage;
pub use print_fmt::Program;
pub use task_names::{TaskNamePlace, TaskNames};
pub use text::{Formatter, HeaderCounts, TextOptions, event_id, pid};
pub use unevaluated::Unevaluated;
pub use value::{Array, Value};
