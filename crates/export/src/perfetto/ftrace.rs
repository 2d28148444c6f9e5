//! The kernel's events: an `FtraceEventBundle` per CPU at a time.

use std::collections::BTreeMap;
use std::io;

use outlive_event::Catalog;
use outlive_trace::view::{Source, SourceEvent};

use super::encode::Message;
use super::plan::{self, Plan};
use super::{Output, packet};

/// `FtraceEventBundle` and `FtraceEvent`.
mod bundle {
    pub(super) const CPU: u32 = 1;
    pub(super) const EVENT: u32 = 2;
    pub(super) const LOST_EVENTS: u32 = 3;
    pub(super) const TIMESTAMP: u32 = 1;
    pub(super) const PID: u32 = 2;
    pub(super) const COMMON_FLAGS: u32 = 5;
}

/// Bytes of events from which on a bundle is written: what is kept in memory per CPU.
const BUNDLE_SIZE: usize = 32 << 10;

/// The events of one source.
#[derive(Debug)]
pub(super) struct Ftrace<'v> {
    catalog: &'v Catalog,
    /// By event id.
    plans: Vec<Option<Plan<'v>>>,
    bundles: BTreeMap<u32, Bundle>,
}

/// What was not written yet of a CPU.
#[derive(Debug, Default)]
struct Bundle {
    events: Message,
    lost_events: bool,
}

impl<'v> Ftrace<'v> {
    pub(super) fn new(source: &Source<'v>) -> Self {
        Self {
            catalog: &source.view.catalog,
            plans: Vec::new(),
            bundles: BTreeMap::new(),
        }
    }

    /// Adds an event at `time`, in nanoseconds of the output's clock.
    pub(super) fn add(
        &mut self,
        out: &mut Output<'_>,
        next: &SourceEvent<'_>,
        time: u64,
    ) -> io::Result<()> {
        let event = &next.event;
        let id = outlive_event::event_id(event.payload);
        if let Some(id) = id {
            self.prepare(id);
        }
        let plan = id.and_then(|id| self.plans.get(usize::from(id))?.as_ref());
        let bundle = self.bundles.entry(event.cpu).or_default();
        if event.missed.is_some() {
            bundle.lose(out, event.cpu)?;
        }
        bundle.events.message(bundle::EVENT, |out| {
            let [_, _, flags, _, pid @ ..]: [u8; 8] =
                event.payload.first_chunk().copied().unwrap_or_default();
            out.uint(bundle::TIMESTAMP, time);
            out.uint(bundle::PID, u64::from(u32::from_le_bytes(pid)));
            if flags != 0 {
                out.uint(bundle::COMMON_FLAGS, flags.into());
            }
            match plan {
                Some(plan) => plan.write(out, event.payload),
                None => plan::write_unknown(out, event.payload),
            }
        });
        if bundle.events.len() >= BUNDLE_SIZE {
            bundle.write(out, event.cpu)?;
        }
        Ok(())
    }

    /// Says that events of a CPU are missing behind the last one that was added.
    pub(super) fn lose(&mut self, out: &mut Output<'_>, cpu: u32) -> io::Result<()> {
        self.bundles.entry(cpu).or_default().lose(out, cpu)
    }

    /// Makes the plan of an event that comes for the first time.
    fn prepare(&mut self, id: u16) {
        let index = usize::from(id);
        if self.plans.len() <= index {
            self.plans.resize_with(index + 1, || None);
        }
        if self.plans[index].is_none() {
            self.plans[index] = self.catalog.event(id).map(Plan::of);
        }
    }

    /// Writes what is left.
    pub(super) fn finish(&mut self, out: &mut Output<'_>) -> io::Result<()> {
        for (&cpu, bundle) in &mut self.bundles {
            bundle.write(out, cpu)?;
        }
        Ok(())
    }
}

impl Bundle {
    /// Begins another bundle, before which events are missing.
    fn lose(&mut self, out: &mut Output<'_>, cpu: u32) -> io::Result<()> {
        self.write(out, cpu)?;
        self.lost_events = true;
        Ok(())
    }

    fn write(&mut self, out: &mut Output<'_>, cpu: u32) -> io::Result<()> {
        if self.events.is_empty() && !self.lost_events {
            return Ok(());
        }
        let (events, lost_events) = (&self.events, self.lost_events);
        out.packet(|packet| {
            packet.message(packet::FTRACE_EVENTS, |out| {
                out.uint(bundle::CPU, cpu.into());
                if lost_events {
                    out.uint(bundle::LOST_EVENTS, 1);
                }
                out.fields(events);
            });
        })?;
        self.events.clear();
        self.lost_events = false;
        Ok(())
    }
}
