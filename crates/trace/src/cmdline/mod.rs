//! The boot command line: what to reserve, which instances to make, which events to start.
//!
//! The grammar is the kernel's (`kernel/trace/trace.c` and `mm/memblock.c` of Linux 7.3, as seen
//! at run time): a line of parameters separated by blanks, of which six are ours.
//!
//! | parameter | gives |
//! | --- | --- |
//! | `reserve_mem=SIZE:ALIGN:LABEL` | [`CommandLine::reserve_mem`] |
//! | `memmap=SIZE$ADDRESS` | [`CommandLine::memmap`] |
//! | `trace_instance=NAME[^FLAG]...[@AREA][=SOURCE][,EVENT]...` | [`CommandLine::instances`] |
//! | `trace_clock=CLOCK` | [`CommandLine::trace_clock`] |
//! | `trace_buf_size=SIZE` | [`CommandLine::trace_buf_size`] |
//! | `trace_options=OPTION[,OPTION]...` | [`CommandLine::trace_options`] |
//!
//! Reading never fails. What the kernel would drop is dropped here too, and a [`Diagnostic`] says
//! where, why and what happens now. Reading goes in three steps: `token` cuts the line into
//! parameters, each parameter's module reads its value alone, and `settle` looks at what only the
//! whole line can tell (a backup and its source, areas used twice). Everything that the result
//! holds is a copy, and every span is a range of bytes in the text that was given.
//!
//! ```
//! use outlive_trace::cmdline::{AreaRef, CommandLine, InstanceKind};
//!
//! let line = CommandLine::parse(
//!     "reserve_mem=100M:12M:trace trace_instance=boot_mapped^@trace,sched \
//!      trace_instance=backup=boot_mapped",
//! );
//! assert!(line.is_clean_for_strict());
//! assert_eq!(line.reserve_mem[0].size, 100 << 20);
//! let area = AreaRef::Label("trace".into());
//! assert_eq!(line.instances[0].kind, InstanceKind::Persistent { area });
//! let source = "boot_mapped".into();
//! assert_eq!(line.instances[1].kind, InstanceKind::Backup { source });
//! ```
//!
//! `docs/command-line.md` is the same for users, with the differences from the kernel.

#![allow(
    clippy::result_large_err,
    reason = "a diagnostic is made once per mistake, never on a hot path"
)]

mod diagnostic;
mod event;
mod glob;
mod instance;
mod line;
mod memmap;
mod memparse;
mod name;
mod nearest;
mod piece;
mod reserve_mem;
mod setting;
mod settle;
mod token;

pub use diagnostic::{Diagnostic, Related, Severity, Suggestion};
pub use event::{EventToken, NamePattern, resolve};
pub use instance::{AreaRef, Instance, InstanceFlags, InstanceKind};
pub use line::{CommandLine, IgnoredParameter};
pub use memmap::{Memmap, MemmapKind};
pub use memparse::{Memparse, memparse};
pub use nearest::nearest;
pub(crate) use reserve_mem::LABEL_LEN_MAX;
pub use reserve_mem::ReserveMem;
pub use setting::{TRACE_BUF_SIZE_DEFAULT, TraceClock, TraceOption};
