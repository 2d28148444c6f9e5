//! Tables as SQLite's virtual tables.
//!
//! *Invariants* that SQLite's C code relies on, for both structs below:
//!
//! 1. they are `repr(C)`;
//! 2. their first field is SQLite's base struct, which only SQLite writes.

use std::borrow::Cow;
use std::ffi::{CStr, CString, c_int};
use std::sync::Arc;

use rusqlite::types::ToSqlOutput;
use rusqlite::vtab::{
    Context, Filters, IndexConstraintOp, IndexInfo, Module, VTab, VTabConfig, VTabConnection,
    VTabCursor, sqlite3_vtab, sqlite3_vtab_cursor,
};
use rusqlite::{Connection, Result};

use crate::bounds::{Bounds, Comparison, Operator};
use crate::rows::{Rows, declaration, rows};
use crate::schema::{Kind, Role, Table};

/// SQLite makes such a table by itself when a statement names it.
const MODULE: &Module<'static, VirtualTable> = &Module::eponymous_only_module();

/// Makes a table known under its name.
pub(crate) fn add(connection: &Connection, table: Table) -> Result<()> {
    let name = table.name.replace('\0', "");
    connection.create_module(name.as_str(), MODULE, Some(Arc::new(table)))
}

#[repr(C)]
pub(crate) struct VirtualTable {
    base: sqlite3_vtab,
    table: Arc<Table>,
}

#[repr(C)]
pub(crate) struct Cursor {
    base: sqlite3_vtab_cursor,
    table: Arc<Table>,
    rows: Option<Box<dyn Rows>>,
    rowid: i64,
    is_at_end: bool,
}

// SAFETY: 1 and 2 hold: `repr(C)`, and `base` is the first field.
unsafe impl VTab<'_> for VirtualTable {
    type Aux = Arc<Table>;
    type Cursor = Cursor;

    fn connect(
        db: &mut VTabConnection,
        aux: Option<&Arc<Table>>,
        _module_name: &[u8],
        _database_name: &[u8],
        _table_name: &[u8],
        _args: &[&[u8]],
    ) -> Result<(Cow<'static, CStr>, Self)> {
        let table = aux.ok_or_else(|| rusqlite::Error::ModuleError("no table".into()))?;
        // Only reads: may be used in views.
        db.config(VTabConfig::Innocuous)?;
        let declaration = CString::new(declaration(&table.columns))?;
        let table = Self {
            base: sqlite3_vtab::default(),
            table: table.clone(),
        };
        Ok((Cow::Owned(declaration), table))
    }

    fn best_index(&self, info: &mut IndexInfo) -> Result<bool> {
        let mut plan = String::new();
        let mut cost = self.cost();
        // Under another collation than this a name may equal other names.
        let is_binary = |i| info.collation(i).is_ok_and(|name| name == "BINARY");
        let is_binary: Vec<bool> = (0..info.constraints().count()).map(is_binary).collect();
        for ((constraint, mut usage), is_binary) in info.constraints_and_usages().zip(is_binary) {
            let Some(comparison) = self
                .comparison(constraint.column(), &constraint.operator())
                .filter(|_| is_binary)
            else {
                continue;
            };
            if !constraint.is_usable() {
                // The argument of a table that is called like a function comes from a table that
                // SQLite would have read after this one.
                if comparison.role == Role::Bound {
                    return Ok(false);
                }
                continue;
            }
            plan.extend(comparison.code());
            usage.set_argv_index((plan.len() / 2) as c_int);
            usage.set_omit(comparison.role == Role::Bound);
            cost *= 0.25;
        }
        info.set_idx_str(&plan);
        info.set_estimated_cost(cost);
        info.set_estimated_rows(cost as i64);
        Ok(true)
    }

    fn open(&mut self) -> Result<Cursor> {
        Ok(Cursor {
            base: sqlite3_vtab_cursor::default(),
            table: self.table.clone(),
            rows: None,
            rowid: 0,
            is_at_end: true,
        })
    }
}

impl VirtualTable {
    /// About how many rows are looked at.
    fn cost(&self) -> f64 {
        match &self.table.kind {
            Kind::Plain(rows) => rows.len() as f64 + 1.0,
            _ => {
                let events: u64 = self.table.sources.iter().map(|s| s.view.entries()).sum();
                events as f64 + 1.0
            }
        }
    }

    /// A comparison of a column, if the reader can use it.
    fn comparison(&self, column: c_int, operator: &IndexConstraintOp) -> Option<Comparison> {
        let column = usize::try_from(column).ok()?;
        let role = self.table.columns.get(column)?.role;
        let operator = match operator {
            IndexConstraintOp::SQLITE_INDEX_CONSTRAINT_EQ => Operator::Eq,
            IndexConstraintOp::SQLITE_INDEX_CONSTRAINT_GT => Operator::Greater,
            IndexConstraintOp::SQLITE_INDEX_CONSTRAINT_GE => Operator::GreaterEq,
            IndexConstraintOp::SQLITE_INDEX_CONSTRAINT_LT => Operator::Less,
            IndexConstraintOp::SQLITE_INDEX_CONSTRAINT_LE => Operator::LessEq,
            _ => return None,
        };
        Comparison::useful(role, operator)
    }
}

// SAFETY: 1 and 2 hold: `repr(C)`, and `base` is the first field.
unsafe impl VTabCursor for Cursor {
    fn filter(&mut self, _idx_num: c_int, plan: Option<&str>, values: &Filters<'_>) -> Result<()> {
        let mut bounds = Bounds::default();
        let comparisons = Comparison::of_plan(plan.unwrap_or_default());
        for (comparison, value) in comparisons.into_iter().zip(values.iter()) {
            bounds.narrow(comparison, value);
        }
        self.rows = Some(rows(&self.table, bounds));
        self.rowid = -1;
        self.next()
    }

    fn next(&mut self) -> Result<()> {
        self.is_at_end = !self.rows.as_mut().is_some_and(|rows| rows.advance());
        self.rowid += 1;
        Ok(())
    }

    fn eof(&self) -> bool {
        self.is_at_end
    }

    fn column(&self, context: &mut Context, column: c_int) -> Result<()> {
        let column = usize::try_from(column).unwrap_or(usize::MAX);
        match &self.rows {
            Some(rows) if column < self.table.columns.len() => {
                context.set_result(ToSqlOutput::from(rows.cell(column)))
            }
            _ => Ok(()),
        }
    }

    fn rowid(&self) -> Result<i64> {
        Ok(self.rowid)
    }
}
