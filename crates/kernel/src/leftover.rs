//! Host instances that a dead recorder left: their events go into the generation of its run.
//!
//! Such an instance still records. It is frozen, copied without consuming into the generation's
//! tail, and removed only when the tail is durable, so that a kill at any place loses nothing.

use outlive_ring::catalog::task_names;
use outlive_ring::extension::Layout;
use outlive_ring::{Events, Geometry, Memory, MemoryMut, Region, RunId as RingRunId, RunRecord};
use outlive_trace::generation::{keep_by_copy, list};
use outlive_trace::{
    CopySource, Generation, GenerationState, Mapping, Meta, StateDir, StateLock, Verdict,
    failpoint, retention, tail,
};

use crate::capture::write_catalog;
use crate::catalog_writer::CatalogWriter;
use crate::cpus::nr_cpu_ids;
use crate::drain::drain_cpu;
use crate::error::Error;
use crate::instance::{Instance, Instances};
use crate::instance_name::{InstanceName, RunId};
use crate::region_sink::RegionSink;
use crate::subbuf::{DATA_BYTES, HEADER_BYTES};
use crate::tracefs::{EventName, Tracefs};

/// Bytes of a tail's catalog: it holds the formats once more, so that a tail can be read alone.
const LOG_BYTES: usize = 4 << 20;
const TASK_NAMES: usize = 16384;

/// The steps of collecting at which a test may kill it, for [`failpoint`].
pub const COLLECT_STEPS: [&str; 3] = ["collect-frozen", "collect-kept", "collect-removed"];

/// What became of a leftover instance.
#[derive(Debug)]
#[non_exhaustive]
pub struct Collected {
    /// The host instance, which is gone now.
    pub host_instance: String,
    /// The generation that has its events; `None` if there were none.
    pub generation: Option<Generation>,
    /// Events in it.
    pub events: u64,
}

/// Collects what dead runs left in the host's rings.
#[derive(Clone, Copy, Debug)]
pub struct Collector<'a> {
    /// The machine's tracefs.
    pub tracefs: &'a Tracefs,
    /// The host instances of the state.
    pub instances: &'a Instances,
    /// Where the generations are.
    pub state: &'a StateDir,
    /// Its lock: no other recorder runs on it.
    pub lock: &'a StateLock,
    /// The run whose host instances are left alone, because it is ours.
    pub run: RunId,
    /// The largest number of a generation that has to be made for events without a region.
    pub sequence: u64,
    /// Instances that are not persistent: what is left of them is removed.
    pub ordinary: &'a [&'a str],
    /// Instances that this start could not make: what is left of them waits with their areas, whose
    /// generations it belongs to, for the next start.
    pub left: &'a [&'a str],
}

impl Collector<'_> {
    /// Drains the host instances of the state. `tell` is called for each with what became of it;
    /// one that fails is left for the next start. `is_ended` is asked before each and before each of its
    /// CPUs, and ends it if it says so: the rest is left as well.
    ///
    /// # Errors
    ///
    /// The list of instances cannot be read, or a generation's `meta.json` not be written.
    pub fn collect(
        &self,
        is_ended: &dyn Fn() -> bool,
        mut tell: impl FnMut(&str, Result<Collected, Error>),
    ) -> Result<(), Error> {
        for name in newest_first(self.instances)? {
            if is_ended() {
                return Ok(());
            }
            let is_left = self.left.contains(&name.name());
            if name.run() != self.run && !is_left {
                tell(&name.to_string(), self.collect_one(&name, is_ended));
            }
        }
        self.complete_generations()
    }

    fn collect_one(
        &self,
        name: &InstanceName,
        is_ended: &dyn Fn() -> bool,
    ) -> Result<Collected, Error> {
        let instance = self.instances.open_existing(name)?;
        let leftover = Leftover {
            collector: self,
            instance: &instance,
            is_ended,
        };
        let (generation, events) = match self.ordinary.contains(&name.name()) {
            true => (None, 0),
            false => leftover.collect()?,
        };
        failpoint::reached("collect-kept");
        instance.remove()?;
        failpoint::reached("collect-removed");
        Ok(Collected {
            host_instance: name.to_string(),
            generation,
            events,
        })
    }

    /// Marks generations complete whose host instance is gone, for instance because the machine
    /// was rebooted.
    fn complete_generations(&self) -> Result<(), Error> {
        let mut names = self.instances.list()?;
        names.retain(|name| name.run() != self.run);
        for mut generation in list(self.state)? {
            let is_its = |name: &InstanceName| {
                is_of_run(&generation, name) || is_unclaimed(&generation, name)
            };
            let is_waiting = names.iter().any(is_its);
            if generation.is_collecting() && !is_waiting {
                generation.update_meta(self.lock, |meta| {
                    meta.state = GenerationState::Complete;
                })?;
            }
        }
        Ok(())
    }
}

/// Whether the run that recorded into a host instance left this generation, whatever its area's
/// instance is called by now.
fn is_of_run(generation: &Generation, name: &InstanceName) -> bool {
    generation.meta().is_some_and(|meta| {
        let recorded_as = meta.recorded_as.as_ref().unwrap_or(&meta.instance);
        meta.run_id.as_deref() == Some(&hex(name.run())) && recorded_as == name.name()
    })
}

/// Whether a start set this generation's area aside without a readable run record, and nothing of
/// the host's rings was added to it yet.
fn is_unclaimed(generation: &Generation, name: &InstanceName) -> bool {
    let is_unsigned = |meta: &Meta| meta.run_id.is_none() && meta.instance == name.name();
    generation.is_collecting() && generation.meta().is_some_and(is_unsigned)
}

/// The instances by the age of their folders, so that of two whose runs left no region the newer
/// one gets the larger number.
fn newest_first(instances: &Instances) -> Result<Vec<InstanceName>, Error> {
    let mut names = instances.list()?;
    names.sort_by_cached_key(|name| std::cmp::Reverse(instances.created(name)));
    Ok(names)
}

/// The names of tasks that a dead run knew, and the time of its last event.
#[derive(Default)]
struct KnownNames {
    names: Vec<(i32, Vec<u8>)>,
    until: u64,
}

impl KnownNames {
    fn of(generation: &Generation) -> Self {
        let Ok(region) = Mapping::of_path(&generation.region_path()) else {
            return Self::default();
        };
        let Some(layout) = Layout::load(&region) else {
            return Self::default();
        };
        let cpus = 0..layout.ring().nr_cpus();
        Self {
            names: task_names(&layout, &region),
            until: cpus
                .filter_map(|cpu| last_event(layout.ring(), &region, cpu))
                .max()
                .unwrap_or(0),
        }
    }
}

/// The time of a CPU's last event: at the end of the sub-buffer that began last.
fn last_event(ring: &Geometry, region: &impl Memory, cpu: u32) -> Option<u64> {
    let begun = (0..ring.nr_subbufs()).filter_map(|subbuf| {
        let at = ring.subbuf_offset(cpu, subbuf);
        let size = usize::try_from(region.load_u64(at + 8)).ok()?;
        let is_written = (1..=DATA_BYTES).contains(&size);
        is_written.then(|| (region.load_u64(at), at, size))
    });
    let (time_stamp, at, size) = begun.max()?;
    let mut data = vec![0; size];
    region.read(at + HEADER_BYTES, &mut data);
    let mut events = Events::new(time_stamp, &data);
    events.by_ref().for_each(drop);
    Some(events.position().time_stamp)
}

fn hex(run: RunId) -> String {
    RingRunId(run.0.to_be_bytes()).to_string()
}

/// A region with at least so many sub-buffers for each CPU, for events that need no live writer.
pub(crate) fn layout_for(name: &str, nr_cpus: u32, subbufs: u64) -> Result<Layout, Error> {
    let size = Geometry::size_for(nr_cpus, subbufs);
    let ring = Geometry::new(size, nr_cpus).map_err(|source| outlive_trace::Error::Layout {
        name: name.to_owned(),
        source,
    })?;
    Ok(Layout::new(&ring, LOG_BYTES, TASK_NAMES))
}

struct Leftover<'a> {
    collector: &'a Collector<'a>,
    instance: &'a Instance,
    is_ended: &'a dyn Fn() -> bool,
}

impl Leftover<'_> {
    fn collect(&self) -> Result<(Option<Generation>, u64), Error> {
        // Its events stay enabled, so that a collector after a killed one still knows them.
        self.instance.set_tracing_on(false)?;
        let events = self.instance.enabled_events()?;
        failpoint::reached("collect-frozen");
        let written: u64 = self.written()?;
        let found = self.generation()?;
        if written == 0 {
            return Ok((found, 0));
        }
        // Where the kernel refuses the mapping, draining consumes: then a tail that is there has
        // what the ring has no more.
        let has_tail = found
            .as_ref()
            .is_some_and(|generation| generation.tail_path().exists());
        if has_tail && self.is_consumed()? {
            return Ok((found, 0));
        }
        let layout = self.layout()?;
        let len = layout.area_size();
        let mut count = 0;
        let generation = match found {
            Some(generation) => {
                let names = KnownNames::of(&generation);
                retention::make_room(self.collector.state, self.collector.lock, len)?;
                generation.write_tail(self.collector.lock, len, |mapping| {
                    count = self.fill(&layout, mapping.memory_mut(), &events, &names)?;
                    Ok::<_, Error>(())
                })?;
                generation
            }
            None => {
                // Twice: it is copied to where it belongs.
                retention::make_room(self.collector.state, self.collector.lock, 2 * len)?;
                let path = tail::write_orphan(
                    self.collector.state,
                    self.collector.lock,
                    len,
                    |mapping| {
                        count = self.fill(
                            &layout,
                            mapping.memory_mut(),
                            &events,
                            &KnownNames::default(),
                        )?;
                        Ok::<_, Error>(())
                    },
                )?;
                self.adopt(&path)?
            }
        };
        Ok((Some(generation), count))
    }

    /// Whether somebody has read events out of the instance.
    fn is_consumed(&self) -> Result<bool, Error> {
        let cpus = self.instance.cpus()?.into_iter();
        let read = cpus.map(|cpu| Ok::<_, Error>(self.instance.stats(cpu)?.read()?.read_events));
        Ok(read.sum::<Result<u64, _>>()? > 0)
    }

    /// Events ever written to the instance.
    fn written(&self) -> Result<u64, Error> {
        let cpus = self.instance.cpus()?;
        cpus.into_iter()
            .map(|cpu| Ok(self.instance.stats(cpu)?.read()?.written()))
            .sum()
    }

    /// The generation that the run left. One without a readable run record is the newest run's, and
    /// notes that before it gets a tail.
    fn generation(&self) -> Result<Option<Generation>, Error> {
        let name = self.instance.name();
        let mut kept = list(self.collector.state)?;
        if let Some(found) = kept.iter().rposition(|kept| is_of_run(kept, name)) {
            return Ok(Some(kept.swap_remove(found)));
        }
        let Some(mut found) = kept.into_iter().rfind(|kept| is_unclaimed(kept, name)) else {
            return Ok(None);
        };
        found.update_meta(self.collector.lock, |meta| {
            meta.run_id = Some(hex(name.run()));
            meta.recorded_as = Some(name.name().to_owned());
            Verdict::Crash.note(meta);
        })?;
        Ok(Some(found))
    }

    /// A ring that holds all that the host's ring can hold.
    fn layout(&self) -> Result<Layout, Error> {
        let nr_cpus = nr_cpu_ids()?;
        let sizes = self
            .instance
            .cpus()?
            .into_iter()
            .map(|cpu| self.instance.buffer_size_kb(cpu));
        let kib = sizes
            .collect::<Result<Vec<_>, _>>()?
            .into_iter()
            .max()
            .unwrap_or(0);
        // The kernel rounds to whole sub-buffers, and there is a reader page.
        let subbufs = (kib * 1024).div_ceil(DATA_BYTES as u64) + 4;
        layout_for(&self.instance.name().to_string(), nr_cpus, subbufs)
    }

    /// Copies the host's ring into a fresh region, and returns the number of events. `known` are
    /// the names that the run knew: a pid may be another task's by now, and the ring begins before
    /// the run's end, with events that tell older names.
    fn fill(
        &self,
        layout: &Layout,
        memory: Option<impl MemoryMut + Copy>,
        events: &[EventName],
        known: &KnownNames,
    ) -> Result<u64, Error> {
        let of_layout = |source| outlive_trace::Error::Layout {
            name: self.instance.name().to_string(),
            source,
        };
        let memory =
            memory.ok_or_else(|| of_layout(outlive_ring::LayoutError::BadSize { size: 0 }))?;
        let region = Region::format(memory, *layout.ring(), Some(*layout)).map_err(of_layout)?;
        let clock = self.instance.trace_clock()?;
        let mut catalog = CatalogWriter::new(layout, region.memory());
        write_catalog(self.collector.tracefs, events, &clock, &mut catalog)?;
        for (pid, name) in &known.names {
            catalog.task_name_until(*pid, name, known.until);
        }
        self.run_record(&clock).store(layout, region.memory());
        let mut sink = RegionSink::new(&region, Some(catalog));
        let (mut count, mut is_consumed) = (0, false);
        for cpu in self.instance.cpus()? {
            // What the ring has no more must get into the generation.
            if !is_consumed && (self.is_ended)() {
                return Err(Error::Ended);
            }
            if let Some(drained) = drain_cpu(self.instance, cpu, &mut sink)? {
                sink.overwritten_before(cpu, drained.stats.overrun);
                count += drained.events;
                is_consumed |= drained.is_consumed;
            }
        }
        sink.close();
        Ok(count)
    }

    fn run_record(&self, clock: &str) -> RunRecord {
        let name = self.instance.name();
        RunRecord {
            sequence: 1,
            run_id: RingRunId(name.run().0.to_be_bytes()),
            boot_id: outlive_trace::verdict::boot_id(),
            host: outlive_trace::host::hostname(),
            instance: name.name().to_owned(),
            clock: clock.to_owned(),
            source: name.to_string(),
            ..RunRecord::default()
        }
    }

    /// The largest number that no generation of the instance has. That of the start itself is
    /// taken if a run in between left a region.
    fn free_number(&self) -> Result<u64, Error> {
        let generations = outlive_trace::generation::list_instance(
            self.collector.state,
            self.instance.name().name(),
        )?;
        let is_free = |number: &u64| generations.iter().all(|kept| kept.seq() != *number);
        let free = (0..=self.collector.sequence).rev().find(is_free);
        Ok(free.unwrap_or(self.collector.sequence))
    }

    /// Makes a generation of events whose run left no region.
    fn adopt(&self, path: &std::path::Path) -> Result<Generation, Error> {
        let name = self.instance.name();
        let mut meta = Meta::new(name.name(), self.free_number()?, "host ring");
        meta.run_id = Some(hex(name.run()));
        Verdict::Crash.note(&mut meta);
        let generation = keep_by_copy(
            self.collector.state,
            self.collector.lock,
            CopySource::File(path),
            &meta,
        )?;
        std::fs::remove_file(path).map_err(|e| Error::io("remove", path, e))?;
        Ok(generation)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::instance_name::StateId;

    /// The line of the second start gave the area to an instance of another name, or the area was
    /// overwritten: the events from the host's ring went into a generation of their own, and the
    /// backup lacked the last ones.
    #[test]
    fn generation_is_found_after_its_area_got_another_instance_or_was_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("instances")).unwrap();
        let tracefs = Tracefs::at(folder.path());
        let instances = Instances::new(&tracefs, StateId(1));
        let state = StateDir::open(&folder.path().join("state")).unwrap();
        let lock = state.try_lock_exclusive().unwrap();
        let collector = Collector {
            tracefs: &tracefs,
            instances: &instances,
            state: &state,
            lock: &lock,
            run: RunId(9),
            sequence: 2,
            ordinary: &[],
            left: &[],
        };
        for (instance, recorded_as) in [("new", "old"), ("other", "third")] {
            let mut meta = Meta::new(instance, 2, "file");
            meta.run_id = Some(hex(RunId(3)));
            meta.recorded_as = Some(recorded_as.to_owned());
            let id = state.path().join("id");
            keep_by_copy(&state, &lock, CopySource::File(&id), &meta).unwrap();
        }
        let found = |run, name| {
            let instance = instances.create(RunId(run), name).unwrap();
            let leftover = Leftover {
                collector: &collector,
                instance: &instance,
                is_ended: &|| false,
            };
            leftover
                .generation()
                .unwrap()
                .map(|kept| kept.instance().to_owned())
        };
        assert_eq!(found(3, "old").as_deref(), Some("new"));
        assert_eq!(found(3, "third").as_deref(), Some("other"));
        assert_eq!(found(3, "fourth"), None);

        // The area was overwritten, so that nothing says whose it was.
        let mut meta = Meta::new("damaged", 2, "file");
        meta.state = GenerationState::Collecting;
        let id = state.path().join("id");
        keep_by_copy(&state, &lock, CopySource::File(&id), &meta).unwrap();
        assert_eq!(found(5, "damaged").as_deref(), Some("damaged"));
        assert_eq!(found(4, "damaged"), None);
    }
}
