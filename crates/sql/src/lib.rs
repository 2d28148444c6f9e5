//! SQL over regions: SQLite's virtual tables read the events where they lie, without a copy.
//!
//! A [`Database`] is made of [`Source`]s, views with a name. It has
//!
//! * a table per event, called as the event, with a column per field;
//! * `events`: all of them, with the text that the kernel would print;
//! * `intervals`: states of tasks, waits, handlers, spans ([`outlive_trace::intervals`]), and the
//!   views `task_states`, `wakeup_latency`, `cpu_time` and `handlers` of it;
//! * `gaps(bound)`: times without an event on a CPU, of at least `bound`;
//! * `tasks`, `holes`, `runs`, and `tables` and `columns`, which list all of this.
//!
//! Bounds on `ts` and equality of `cpu`, `source`, `system` and `event` reach the reader, which
//! then looks only at the sub-buffers that can have such events; a column that a statement does not
//! name is never decoded. Statements cannot change anything: whatever is no query is refused.
//!
//! Numbers are SQLite's 64-bit signed integers. An unsigned number above `i64::MAX`, and every
//! pointer, is a text, `0x` and hex digits: 16 of them for the number, so that texts compare as
//! the numbers do, and SQLite puts texts behind all integers. Arrays are JSON texts, structs are blobs.
//!
//! ```
//! let database = outlive_sql::Database::open(Vec::new())?;
//! let mut rows = Vec::new();
//! database.run("SELECT name FROM tables WHERE name LIKE 'task%'", &mut |row: outlive_sql::Step<'_>| {
//!     if let outlive_sql::Step::Row(cells) = row {
//!         rows.push(cells[0].as_str().unwrap().to_owned());
//!     }
//!     Ok(())
//! })?;
//! assert_eq!(rows, ["task_states", "tasks"]);
//! # Ok::<(), outlive_sql::Error>(())
//! ```
#![deny(unsafe_code)]

mod bounds;
mod cells;
mod database;
mod error;
mod rows;
mod scan;
mod schema;
mod source;
mod statements;
#[allow(unsafe_code, reason = "SQLite's interface; the only module with it")]
mod vtab;

pub use rusqlite::types::ValueRef as Cell;

pub use self::database::{Database, Step};
pub use self::error::Error;
pub use self::source::Source;
pub use self::statements::is_complete;

type Result<T, E = Error> = std::result::Result<T, E>;
