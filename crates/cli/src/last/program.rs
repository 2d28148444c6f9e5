//! How the program of a supervisor (`outlive run`) ended, as the supervisor's events tell it.

use outlive_event::Value;
use outlive_export::json::{object, to_json};
use outlive_trace::view::{View, ViewEvent};

use super::end::is_of_supervisor;
use super::kept::Kept;
use super::roles::{Role, Roles};
use super::text::clean;
use crate::run::oom::ON_MACHINE;

/// The end is among a supervisor's last events: those of this time before the very last one.
const LAST_NS: u64 = 1_000_000_000;

/// How a program ended, for a list of runs.
#[derive(Debug, Clone)]
pub(crate) struct ProgramEnd {
    pub(crate) words: String,
    /// The event that tells it.
    pub(crate) json: serde_json::Value,
}

impl ProgramEnd {
    /// `None` if no supervisor wrote this, or its program has not ended.
    pub(crate) fn of(view: &View) -> Option<Self> {
        if !is_of_supervisor(view) {
            return None;
        }
        let (_, last) = view.span()?;
        let roles = Roles::of(&view.catalog);
        let mut end = None;
        let mut events = view.events_between(None, last.saturating_sub(LAST_NS), None);
        while let Some(event) = events.next_event() {
            if let Role::ProgramEnd = roles.role(event.payload) {
                end = Some(Kept::of(&event));
            }
        }
        let end = end?;
        Some(Self {
            words: words(view, &end.event()),
            json: object(&view.catalog, &end.event()).into(),
        })
    }
}

/// What the event says that tells a program's end.
pub(super) fn words(view: &View, exit: &ViewEvent<'_>) -> String {
    let field = |name| field(view, exit, name);
    let number = |name| number(view, exit, name);
    if let Some(error) = field("error") {
        return format!("never started: {}", clean(&error));
    }
    let mut how = match number("signal") {
        Some(signal @ 1..) => {
            let name = field("signal_name").unwrap_or_default();
            format!("killed by signal {signal} {}", clean(&name))
        }
        _ => format!("exit code {}", number("code").unwrap_or(-1)),
    };
    if field("core_dumped").as_deref() == Some("true") {
        how += ", core dumped";
    }
    if let Some(kills @ 1..) = number("oom_kills") {
        let place = match field("oom_scope").as_deref() {
            Some(ON_MACHINE) => "on the machine",
            _ => "in its control group",
        };
        how += &format!("; {kills} killed for want of memory {place}");
    }
    how
}

/// A field of an event as text.
pub(super) fn field(view: &View, event: &ViewEvent<'_>, name: &str) -> Option<String> {
    let id = outlive_event::event_id(event.payload)?;
    let field = view.catalog.event(id)?.field(name)?;
    Some(match field.value(event.payload) {
        Value::Text(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        value => to_json(value).to_string(),
    })
}

/// A field of an event as a number.
pub(super) fn number(view: &View, event: &ViewEvent<'_>, name: &str) -> Option<i64> {
    field(view, event, name)?.parse().ok()
}
