//! What the events of a catalog mean for the end of a run.

use outlive_event::{Catalog, EventFormat, Field};

/// What an event tells.
#[derive(Debug, Clone, Copy, Default)]
pub(super) enum Role<'c> {
    /// Nothing but itself.
    #[default]
    Other,
    /// A span begins.
    SpanBegin { id: &'c Field, parent: &'c Field },
    /// A span ends.
    SpanEnd { id: &'c Field },
    /// A span is open: what happens in it names it.
    InSpan { id: &'c Field },
    /// A panic of the program.
    Panic,
    /// A line that the kernel, or the program, has said.
    Message,
    /// The end of the program that a supervisor ran, or that it could not be started.
    ProgramEnd,
    /// What that program took.
    ProgramUsage,
    /// A CPU goes from one task to another.
    Switch(Switch<'c>),
    /// A task is woken.
    Wake { pid: &'c Field, comm: &'c Field },
}

/// The fields of `sched_switch`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Switch<'c> {
    pub(super) prev_pid: &'c Field,
    pub(super) prev_comm: &'c Field,
    pub(super) prev_state: &'c Field,
    pub(super) next_pid: &'c Field,
    pub(super) next_comm: &'c Field,
}

/// The roles of all events, by id.
#[derive(Debug)]
pub(super) struct Roles<'c>(Vec<Role<'c>>);

impl<'c> Roles<'c> {
    pub(super) fn of(catalog: &'c Catalog) -> Self {
        let mut roles = Vec::new();
        for event in catalog.events() {
            let id = usize::from(event.id);
            if roles.len() <= id {
                roles.resize(id + 1, Role::Other);
            }
            roles[id] = role(event).unwrap_or_default();
        }
        Self(roles)
    }

    pub(super) fn role(&self, payload: &[u8]) -> Role<'c> {
        let id = outlive_event::event_id(payload).map(usize::from);
        id.and_then(|id| self.0.get(id).copied())
            .unwrap_or_default()
    }
}

fn role(event: &EventFormat) -> Option<Role<'_>> {
    let field = |name| event.field(name);
    match (event.system.as_str(), event.name.as_str()) {
        ("outlive", "span_end") => Some(Role::SpanEnd {
            id: field("span_id")?,
        }),
        ("outlive", "panic") => Some(Role::Panic),
        ("printk", "console") => Some(Role::Message),
        ("run", "stderr") => Some(Role::Message),
        ("run", "exit" | "failed") => Some(Role::ProgramEnd),
        ("run", "usage") => Some(Role::ProgramUsage),
        ("sched", "sched_switch") => Some(Role::Switch(Switch {
            prev_pid: field("prev_pid")?,
            prev_comm: field("prev_comm")?,
            prev_state: field("prev_state")?,
            next_pid: field("next_pid")?,
            next_comm: field("next_comm")?,
        })),
        ("sched", "sched_waking" | "sched_wakeup" | "sched_wakeup_new") => Some(Role::Wake {
            pid: field("pid")?,
            comm: field("comm")?,
        }),
        _ => of_spans(event),
    }
}

fn of_spans(event: &EventFormat) -> Option<Role<'_>> {
    if let (Some(id), Some(parent)) = (event.field("span_id"), event.field("span_parent")) {
        return Some(Role::SpanBegin { id, parent });
    }
    // As the layer for `tracing` has it: values that a span gets, and events.
    let [first, rest @ ..] = &event.fields[..] else {
        return None;
    };
    let id = match (first.name.as_str(), rest.first()) {
        ("span_id", _) => first,
        ("level", Some(second)) if second.name == "span" => second,
        _ => return None,
    };
    Some(Role::InSpan { id })
}
