//! `outlive sql` over real scheduler events of this machine: one that reads all, and one that must
//! not.

use std::path::Path;

use anyhow::{Context, Result};

use super::outlive;
use super::show::record_for_outlive;
use super::stopwatch::{Times, time};
use crate::run::output;

const ROUNDS: usize = 7;

pub(crate) fn sql() -> Result<()> {
    let folder = super::temporary()?;
    let state = folder.path().join("state");
    record_for_outlive(&state)?;
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
    Ok(())
}

/// How many events the region of a state has.
pub(super) fn events_of(state: &Path) -> Result<u64> {
    number(state, "SELECT events FROM runs")
}

/// The only number of an answer.
fn number(state: &Path, statement: &str) -> Result<u64> {
    let mut command = outlive();
    command.args(["sql", statement, "boot_mapped", "--csv", "--state"]);
    let text = output(command.arg(state))?;
    let number = text.lines().nth(1).context("no row")?;
    number
        .parse()
        .with_context(|| format!("{statement}: {number}"))
}
