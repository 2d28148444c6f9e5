//! A comparison on one screen, and as JSON.

use std::io::{Result, Write};

use serde_json::{Value, json};

use super::compare::{Change, Comparison, Quantiles, Rate, Shift};
use super::window::Window;
use crate::diagnostic::visible;
use crate::units;

/// Lines for events and for durations that fit on one screen.
const EVENT_LINES: usize = 14;
const DURATION_LINES: usize = 9;

/// Prints what is different.
pub(crate) fn text(
    out: &mut impl Write,
    this: &Window,
    other: &Window,
    comparison: &Comparison,
) -> Result<()> {
    for (side, window) in [("A", this), ("B", other)] {
        writeln!(out, "{side}  {}", about(window))?;
    }
    let is_different = |rate: &&Rate| rate.change != Change::Same;
    let rates: Vec<&Rate> = comparison.rates.iter().filter(is_different).collect();
    let has_shifted = |shift: &&Shift| shift.has_shifted;
    let shifts: Vec<&Shift> = comparison.shifts.iter().filter(has_shifted).collect();
    if rates.is_empty() && shifts.is_empty() {
        return writeln!(out, "\nno difference that could not be chance");
    }
    if !rates.is_empty() {
        writeln!(
            out,
            "\n{:<9} {:<36} {:>10} {:>10} {:>8}",
            "events", "", "A /s", "B /s", "ratio"
        )?;
        for rate in rates.iter().take(EVENT_LINES) {
            let [a, b] = rate.per_second;
            let ratio = match rate.change {
                Change::Changed => format!("{:.2}", a / b),
                _ => String::new(),
            };
            let (change, event) = (rate.change.word(), visible(&rate.event));
            let line = format!("{change:<9} {event:<36} {a:>10.1} {b:>10.1} {ratio:>8}");
            writeln!(out, "{}", line.trim_end())?;
        }
        more(out, rates.len(), EVENT_LINES)?;
    }
    if !shifts.is_empty() {
        writeln!(
            out,
            "\n{:<36} {:>2} {:>8} {:>9} {:>9} {:>9} {:>9} {:>9}",
            "durations", "", "samples", "p50", "p90", "p99", "longest", "distance"
        )?;
        for shift in shifts.iter().take(DURATION_LINES) {
            let what = visible(&shift.what);
            let distance = format!("{:.2}", shift.distance);
            write_quantiles(out, &what, "A", shift.quantiles[0], &distance)?;
            write_quantiles(out, "", "B", shift.quantiles[1], "")?;
        }
        more(out, shifts.len(), DURATION_LINES)?;
    }
    Ok(())
}

/// What a side is.
fn about(window: &Window) -> String {
    let runs = window.names.iter().zip(&window.verdicts);
    let runs: Vec<String> = runs
        .map(|(name, verdict)| format!("{} ({verdict})", visible(name)))
        .collect();
    let events: u64 = window.events.values().sum();
    let lost = match (window.lost, window.lost_unknown) {
        (0, 0) => String::new(),
        (lost, 0) => format!(", {lost} lost"),
        (lost, times) => format!(", {lost} lost and {times} times a number that is not known"),
    };
    format!(
        "{}: {events} events in {}{lost}",
        runs.join(", "),
        units::span(window.length_ns)
    )
}

fn write_quantiles(
    out: &mut impl Write,
    what: &str,
    side: &str,
    quantiles: Quantiles,
    distance: &str,
) -> Result<()> {
    let Quantiles {
        samples,
        p50,
        p90,
        p99,
        max,
    } = quantiles;
    let [p50, p90, p99, max] = [p50, p90, p99, max].map(units::span);
    let line = format!(
        "{what:<36} {side:>2} {samples:>8} {p50:>9} {p90:>9} {p99:>9} {max:>9} {distance:>9}"
    );
    writeln!(out, "{}", line.trim_end())
}

fn more(out: &mut impl Write, all: usize, shown: usize) -> Result<()> {
    match all.checked_sub(shown) {
        Some(more @ 1..) => writeln!(out, "... and {more} more: --json has all"),
        _ => Ok(()),
    }
}

/// All of both sides, what has not changed too.
pub(crate) fn json(this: &Window, other: &Window, comparison: &Comparison) -> Value {
    let rates: Vec<Value> = comparison.rates.iter().map(rate_json).collect();
    let shifts: Vec<Value> = comparison.shifts.iter().map(shift_json).collect();
    json!({
        "a": side_json(this),
        "b": side_json(other),
        "events": rates,
        "durations": shifts,
    })
}

fn side_json(window: &Window) -> Value {
    let verdicts: Vec<&str> = window.verdicts.iter().map(|v| v.word()).collect();
    json!({
        "names": window.names,
        "verdicts": verdicts,
        "seconds": window.seconds(),
        "lost": window.lost,
        "lost_unknown": window.lost_unknown,
    })
}

fn rate_json(rate: &Rate) -> Value {
    json!({
        "event": rate.event,
        "change": rate.change.word(),
        "a": rate.counts[0],
        "b": rate.counts[1],
        "a_per_second": rate.per_second[0],
        "b_per_second": rate.per_second[1],
        "z": rate.z,
    })
}

fn shift_json(shift: &Shift) -> Value {
    json!({
        "what": shift.what,
        "shifted": shift.has_shifted,
        "distance": shift.distance,
        "a": quantiles_json(shift.quantiles[0]),
        "b": quantiles_json(shift.quantiles[1]),
    })
}

fn quantiles_json(quantiles: Quantiles) -> Value {
    json!({
        "samples": quantiles.samples,
        "p50_ns": quantiles.p50,
        "p90_ns": quantiles.p90,
        "p99_ns": quantiles.p99,
        "max_ns": quantiles.max,
    })
}
