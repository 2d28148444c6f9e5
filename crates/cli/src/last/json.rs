//! `last --json`.

use outlive_export::json::object;
use serde_json::{Value, json};

use super::end::{End, Gap, Lost, Silence};
use super::kept::{Kept, Recent};
use super::others::Others;
use super::spans::Span;
use super::tasks::{Doing, Task};
use crate::info;

/// The end of the run that is called `name`.
pub(super) fn of(name: &str, end: &End<'_>) -> Value {
    let view = end.view;
    let silences: Vec<Value> = end.silences.iter().map(silence).collect();
    let spans: Vec<Value> = end.spans.iter().map(|span| of_span(end, span)).collect();
    let groups: Vec<Value> = end
        .groups
        .iter()
        .map(|(&number, recent)| group(end, number, recent))
        .collect();
    let certain = end.certain_since;
    let tasks = |is_wanted: fn(Doing) -> bool| -> Vec<Value> {
        let tasks = end.tasks.that(certain, is_wanted);
        tasks.iter().map(|task| of_task(end, task)).collect()
    };
    json!({
        "name": name,
        "verdict": end.verdict.word(),
        "ended_ns": end.ended_ns,
        "run": view.run.as_ref().map(info::run_json),
        "heartbeat": view.run.as_ref().map(|_| info::heartbeat_json(&view.heartbeat)),
        "trace_clock": view.clock(),
        "events": view.entries(),
        "first_ts": view.span().map(|(first, _)| first),
        "last_ts": view.span().map(|_| end.last_time),
        "recorded_until": end.recorded_until,
        "lost": lost(&end.lost),
        "suspended_ns": end.suspended_ns,
        "heartbeat_gaps": end.gaps.iter().map(gap).collect::<Vec<_>>(),
        "silences": silences,
        "panic": end.panic.as_ref().map(|kept| event(end, kept)),
        "program_end": end.program_end.as_ref().map(|kept| event(end, kept)),
        "program_usage": end.program_usage.as_ref().map(|kept| event(end, kept)),
        "messages": events(end, &end.messages),
        "open_spans": spans,
        match end.view.has_lanes() { true => "threads", false => "cpus" }: groups,
        "blocked": tasks(|doing| doing == Doing::Slept('D')),
        "waiting_for_cpu": tasks(|doing| doing == Doing::Waited),
    })
}

/// The further processes of the run.
pub(super) fn others(others: &Others) -> Value {
    let processes = others.processes.iter().map(|other| {
        json!({
            "name": other.name,
            "verdict": other.verdict.word(),
            "pid": other.pid,
            "program": other.program,
            "events": other.events,
        })
    });
    json!({
        "processes": processes.collect::<Vec<_>>(),
        "removed": others.removed,
        "refused": others.refused,
    })
}

fn lost(lost: &Lost) -> Value {
    let Lost {
        overwritten,
        dropped,
        lost,
        unknown,
        catalog,
        rejected,
    } = lost;
    json!({
        "overwritten": overwritten,
        "dropped": dropped,
        "lost": lost,
        "lost_unknown": unknown,
        "catalog_dropped": catalog,
        "rejected_subbufs": rejected,
    })
}

fn silence(silence: &Silence) -> Value {
    json!({"from": silence.from, "until": silence.until})
}

fn event(end: &End<'_>, kept: &Kept) -> Value {
    object(&end.view.catalog, &kept.event()).into()
}

fn events(end: &End<'_>, recent: &Recent) -> Vec<Value> {
    recent.last.iter().map(|kept| event(end, kept)).collect()
}

fn gap(gap: &Gap) -> Value {
    json!({"len": gap.len, "until_ns": gap.until_ns})
}

fn of_span(end: &End<'_>, span: &Span) -> Value {
    json!({
        "id": span.id,
        "parent": span.parent,
        "open_for": end.before_end(span.first.time),
        "certain": span.is_certain,
        "begin": span.has_begin.then(|| event(end, &span.first)),
    })
}

fn group(end: &End<'_>, number: i32, recent: &Recent) -> Value {
    let events_of = events(end, recent);
    let last = recent.last_time();
    if end.view.has_lanes() {
        let name = end.view.catalog.tasks().comm(number);
        let name = name.map(String::from_utf8_lossy);
        return json!({
            "tid": number, "name": name, "events": recent.events, "last_ts": last, "last": events_of,
        });
    }
    let ran = end.on_cpu().find(|(cpu, _)| cpu.cast_signed() == number);
    let ran = ran.map(|(_, task)| of_task(end, &task));
    json!({"cpu": number, "ran": ran, "events": recent.events, "last_ts": last, "last": events_of})
}

fn of_task(end: &End<'_>, task: &Task) -> Value {
    json!({
        "pid": task.pid,
        "comm": task.comm,
        "since": task.since,
        "for": end.before_end(task.since),
        "certain": task.is_certain,
    })
}
