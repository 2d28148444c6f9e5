//! `outlive sql` over real scheduler events of this machine: statements that read all, and one that
//! must not. A group-by beside `sqlite3`, which has the same events in a table of its own: SQLite is
//! the engine of both, so the difference is what reading a region costs, and saves of an import.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::show::record_for_outlive;
use super::stopwatch::{Times, time};
use super::{outlive, quiet};
use crate::run::output;

const ROUNDS: usize = 7;
/// Of the area, in MiB.
const AREA_MIB: u64 = 100;
/// Its answer has nothing but numbers, which every engine prints alike.
const GROUP_BY: &str = "SELECT next_pid, count(*) AS n, sum(prev_prio) AS s FROM sched_switch \
                        GROUP BY next_pid ORDER BY next_pid";

pub(crate) fn sql() -> Result<()> {
    let folder = super::temporary()?;
    let state = folder.path().join("state");
    record_for_outlive(&state, AREA_MIB)?;
    let events = events_of(&state)?;
    let [first, last] =
        ["first_ts", "last_ts"].map(|column| number(&state, &format!("SELECT {column} FROM runs")));
    let (first, last) = (first?, last?);
    let middle = first + (last - first) / 2;
    let end = middle + (last - first) / 100;
    let in_range = format!("SELECT count(*) FROM events WHERE ts >= {middle} AND ts < {end}");
    let statements = [
        ("nothing but opening", "SELECT events FROM runs"),
        (
            "one field of an event",
            "SELECT count(*) FROM sched_switch WHERE prev_prio < 100",
        ),
        ("a hundredth of the time", &in_range),
        ("wake-up latency", "SELECT max(dur) FROM wakeup_latency"),
    ];
    let mut times = vec![Vec::new(); statements.len()];
    for _ in 0..ROUNDS {
        for ((_, statement), times) in statements.iter().zip(&mut times) {
            times.push(time(|| number(&state, statement).map(drop))?);
        }
    }
    println!("{events} events of perf bench sched pipe, whole processes, {ROUNDS} rounds, in turn");
    for ((what, _), times) in statements.iter().zip(times) {
        let times = Times::of(times);
        let rate = events as f64 / times.median.as_secs_f64() / 1e6;
        println!("  {what:<24} {times}  {rate:8.1} million events/s of the region");
    }
    println!(
        "  {} events are in that hundredth",
        number(&state, &in_range)?
    );
    group_by(folder.path(), &state)
}

fn group_by(folder: &Path, state: &Path) -> Result<()> {
    let database = folder.join("imported.db");
    let imported = time(|| import(folder, state, &database))?;
    let theirs = || {
        output(
            Command::new("sqlite3")
                .arg(&database)
                .args(["-csv", GROUP_BY]),
        )
    };
    let ours = || answer(state, GROUP_BY);
    let same = ours()?.lines().skip(1).eq(theirs()?.lines());
    if !same {
        bail!("outlive sql and sqlite3 do not give the same answer");
    }
    let (mut regions, mut tables) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        regions.push(time(|| ours().map(drop))?);
        tables.push(time(|| theirs().map(drop))?);
    }
    let (region, table) = (Times::of(regions), Times::of(tables));
    println!("{GROUP_BY}: whole processes, {ROUNDS} rounds, alternating, the same answer");
    println!("  outlive sql, the region of {AREA_MIB} MiB {region}");
    println!("  sqlite3, an imported table        {table}");
    println!(
        "  the import, once                  {:9.2} ms",
        imported.as_secs_f64() * 1e3
    );
    println!(
        "  ratio                             {:9.2}",
        region.ratio(&table)
    );
    Ok(())
}

/// Makes a table of sqlite3's of the events that the statement reads.
fn import(folder: &Path, state: &Path, database: &Path) -> Result<()> {
    let csv = folder.join("sched_switch.csv");
    let mut command = asking(state, "SELECT * FROM sched_switch");
    let status = command.stdout(File::create(&csv)?).status()?;
    if !status.success() {
        bail!("{command:?}: {status}");
    }
    let mut header = String::new();
    BufReader::new(File::open(&csv)?).read_line(&mut header)?;
    // NUMERIC makes numbers of what looks like numbers, as the statement wants them.
    let columns: Vec<_> = header
        .trim()
        .split(',')
        .map(|name| format!("{name} NUMERIC"))
        .collect();
    let create = format!("CREATE TABLE sched_switch ({})", columns.join(", "));
    let import = format!(".import --csv --skip 1 '{}' sched_switch", csv.display());
    quiet(Command::new("sqlite3").arg(database).args([create, import]))
}

/// How many events the region of a state has.
pub(super) fn events_of(state: &Path) -> Result<u64> {
    number(state, "SELECT events FROM runs")
}

/// The only number of an answer.
fn number(state: &Path, statement: &str) -> Result<u64> {
    let text = answer(state, statement)?;
    let number = text.lines().nth(1).context("no row")?;
    number
        .parse()
        .with_context(|| format!("{statement}: {number}"))
}

/// An answer as CSV.
fn answer(state: &Path, statement: &str) -> Result<String> {
    output(&mut asking(state, statement))
}

fn asking(state: &Path, statement: &str) -> Command {
    let mut command = outlive();
    command.args(["sql", statement, "boot_mapped", "--csv", "--state"]);
    command.arg(state);
    command
}
