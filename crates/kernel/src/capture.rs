//! Setting up the recording of host events into a region: everything that has to be there before
//! the first event.

use outlive_event::{Catalog, CatalogRecord};
use outlive_ring::{MemoryMut, Region, RunRecord};
use outlive_trace::cmdline::TraceClock;

use crate::catalog_writer::CatalogWriter;
use crate::error::Error;
use crate::instance::{Instance, Instances};
use crate::instance_name::RunId;
use crate::modules::{Module, loaded_modules};
use crate::names::{TaskName, scan_tasks};
use crate::region_sink::RegionSink;
use crate::tracefs::{EventName, Tracefs};

/// The systems whose events need not be enabled to occur: `trace_marker` and the like.
const ALWAYS: &str = "ftrace";

/// What is to be recorded.
#[derive(Clone, Debug)]
pub struct Capture {
    /// The instance's name.
    pub name: String,
    /// The events to enable.
    pub events: Vec<EventName>,
    /// The trace clock; the kernel's default if `None`.
    pub clock: Option<String>,
    /// Trace options to set, with their values.
    pub options: Vec<(String, bool)>,
    /// Size of the host's ring in KiB per CPU.
    pub ring_kib_per_cpu: u64,
    /// Only events of this task, and of those that it starts; of all tasks if `None`.
    pub event_pid: Option<u32>,
    /// Whether recording starts switched off.
    pub is_traceoff: bool,
}

impl Capture {
    /// Creates the host instance, with a ring of its size. No event is enabled yet.
    ///
    /// The kernel waits for a grace period of RCU to resize a ring, allocates the pages, and lets no
    /// file of tracefs be opened meanwhile: other threads can do what needs none.
    ///
    /// # Errors
    ///
    /// The kernel refuses the instance or one of its settings. Whatever was created is removed.
    pub fn create(&self, instances: &Instances, run: RunId) -> Result<Instance, Error> {
        let instance = instances.create(run, &self.name)?;
        match self.configure(&instance) {
            Ok(()) => Ok(instance),
            Err(error) => {
                // The first error is the one to tell.
                let _ = instance.remove();
                Err(error)
            }
        }
    }

    fn configure(&self, instance: &Instance) -> Result<(), Error> {
        instance.set_buffer_size_kb(self.ring_kib_per_cpu)?;
        if let Some(clock) = &self.clock {
            instance.set_trace_clock(clock)?;
        }
        for (option, is_on) in &self.options {
            instance.set_option(option, *is_on)?;
        }
        if let Some(pid) = self.event_pid {
            instance.set_event_pid(pid)?;
        }
        if self.is_traceoff {
            instance.set_tracing_on(false)?;
        }
        Ok(())
    }

    /// Writes the run record and the catalog of a region that is to have the instance's events. Open
    /// the instance's rings next, then call [`Capture::start`].
    ///
    /// # Errors
    ///
    /// What the catalog needs cannot be read.
    pub fn prepare<'r, M: MemoryMut>(
        &self,
        tracefs: &Tracefs,
        instance: &Instance,
        running: &Running,
        region: &'r Region<M>,
        run: &mut RunRecord,
    ) -> Result<RegionSink<'r, M>, Error> {
        run.clock = instance.trace_clock()?;
        run.source = instance.name().to_string();
        let Some(layout) = region.extension() else {
            return Ok(RegionSink::new(region, None));
        };
        let mut catalog = CatalogWriter::new(layout, region.memory());
        let text_addr = write_catalog(tracefs, &self.events, &run.clock, &mut catalog)?;
        running.write(&mut catalog);
        let clock_id = TraceClock::from_name(&run.clock).map_or(0, TraceClock::id);
        region.store_scratch(clock_id, text_addr);
        run.sequence += 1;
        run.store(layout, region.memory());
        Ok(RegionSink::new(region, Some(catalog)))
    }

    /// Enables the events. Those that this kernel has lost since they were listed are returned
    /// with the reason.
    pub fn start(&self, instance: &Instance) -> Vec<(EventName, Error)> {
        let enable = |name: &EventName| Some((name.clone(), instance.enable_event(name).err()?));
        self.events.iter().filter_map(enable).collect()
    }
}

/// Writes what is known before the first event, and returns the address of `_text`.
pub(crate) fn write_catalog<M: MemoryMut + Copy>(
    tracefs: &Tracefs,
    events: &[EventName],
    clock: &str,
    catalog: &mut CatalogWriter<M>,
) -> Result<u64, Error> {
    let uname = rustix::system::uname();
    let text_addr = text_address();
    catalog.record(&CatalogRecord::Kernel {
        text_addr,
        release: &uname.release().to_string_lossy(),
        version: &uname.version().to_string_lossy(),
        machine: &uname.machine().to_string_lossy(),
    });
    catalog.record(&CatalogRecord::TraceClock(clock));
    catalog.record(&CatalogRecord::HeaderPage(&tracefs.header_page()?));
    catalog.record(&CatalogRecord::HeaderEvent(&tracefs.header_event()?));
    for name in tracefs.events_of(ALWAYS)?.iter().chain(events) {
        catalog.format(&name.system, &tracefs.event_format(name)?);
    }
    catalog.constants();
    let mut printk = Catalog::new();
    printk.parse_printk_formats(&tracefs.printk_formats().unwrap_or_default());
    for (address, text) in printk.printk_formats() {
        catalog.record(&CatalogRecord::PrintkFormat { address, text });
    }
    Ok(text_addr)
}

/// What is loaded and what runs.
#[derive(Debug, Default)]
pub struct Running {
    modules: Vec<Module>,
    tasks: Vec<TaskName>,
}

impl Running {
    /// Of this machine, now.
    ///
    /// # Errors
    ///
    /// `/proc` cannot be read.
    pub fn now() -> Result<Self, Error> {
        Ok(Self {
            modules: loaded_modules()?,
            tasks: scan_tasks()?,
        })
    }

    pub(crate) fn write<M: MemoryMut + Copy>(&self, catalog: &mut CatalogWriter<M>) {
        for module in &self.modules {
            catalog.module(module);
        }
        for task in &self.tasks {
            catalog.task_name(task.tid, task.comm.as_bytes());
        }
    }
}

/// The address of `_text`; 0 where it is hidden from us.
pub(crate) fn text_address() -> u64 {
    let find = || {
        use std::io::BufRead;
        let file = std::fs::File::open("/proc/kallsyms").ok()?;
        let line = std::io::BufReader::new(file)
            .lines()
            .map_while(Result::ok)
            .take(1000)
            .find(|line| line.ends_with(" _text"))?;
        u64::from_str_radix(line.split(' ').next()?, 16).ok()
    };
    find().unwrap_or(0)
}
