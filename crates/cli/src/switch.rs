//! `enable` and `disable`: a program's events, while it runs.

use std::io::Write;

use anyhow::{Context, Result, bail};
use outlive_trace::cmdline::EventToken;
use outlive_trace::{EventSwitch, Switches};
use serde_json::json;

use crate::args::{Args, SwitchArgs};
use crate::exit;
use crate::target::Target;

/// Switches the events that were named, or lists all with their switches.
pub(crate) fn run(args: &Args, switch: &SwitchArgs, is_on: bool) -> Result<u8> {
    let target = Target::find(args, &switch.name)?;
    let path = target.running_file().with_context(|| {
        format!(
            "{} does not run: only a running program's events have switches",
            switch.name
        )
    })?;
    let switches = Switches::open(path)?;
    let mut events = switches.list();
    if !switch.events.is_empty() {
        check(&switch.events, &events)?;
        events.retain(|event| switch.events.iter().any(|token| means(token, event)));
        for event in &mut events {
            switches.set(event, is_on);
        }
    }
    let mut out = std::io::stdout().lock();
    for event in events {
        if switch.json {
            let event = json!({"system": event.system, "event": event.name, "on": event.is_on});
            writeln!(out, "{event}")?;
            continue;
        }
        let state = if event.is_on { "on " } else { "off" };
        writeln!(out, "{state}  {}:{}", event.system, event.name)?;
    }
    Ok(exit::DONE)
}

fn means(token: &EventToken, event: &EventSwitch) -> bool {
    token.matches(&event.system, &event.name)
}

/// Refuses a token that means nothing, before anything is switched.
fn check(tokens: &[EventToken], events: &[EventSwitch]) -> Result<()> {
    let means_nothing = |token: &&EventToken| !events.iter().any(|event| means(token, event));
    let Some(token) = tokens.iter().find(means_nothing) else {
        return Ok(());
    };
    let known: Vec<String> = events
        .iter()
        .map(|event| format!("{}:{}", event.system, event.name))
        .collect();
    bail!(
        "no event {:?}: the program has come to {} so far. An event gets its switch when the program \
         comes to it: try again then, or have the program start with it on or off (`Builder::events`)",
        token.as_str(),
        if known.is_empty() {
            "none".to_owned()
        } else {
            known.join(", ")
        }
    )
}
