//! Making a generation.

use std::fs::File;
use std::path::Path;

use outlive_event::CatalogRecord;
use outlive_kernel::{Appended, CatalogWriter, CpuId, RegionSink, SubbufSink};
use outlive_ring::extension::Layout;
use outlive_ring::layout::{SUBBUF_HEADER, SUBBUF_SIZE};
use outlive_ring::raw_page::RawPage;
use outlive_ring::subbuf::walk;
use outlive_ring::{
    Geometry, MemoryMut, Missed, PageBuilder, RawMemory, Region, RunRecord, RunState,
};
use outlive_trace::cmdline::TraceClock;
use outlive_trace::generation::keep_by_move;
use outlive_trace::{Generation, Mapping, Meta, StateDir, StateLock, Verdict, tail};

use crate::recording::{Buffer, Recording};
use crate::{Bytes, Error, FoundRegion, Result};

/// In `meta.json`: where the region lived.
const BACKING: &str = "import";
/// Bytes of a record of the catalog beside its text, at most.
const RECORD: usize = 64;
/// Room in the catalog for symbols that occur and the like.
const LOG_SPARE: usize = 1 << 20;
/// Room for names of tasks that only events tell.
const NAMES_SPARE: usize = 8192;
/// Bytes that are copied at once.
const STRETCH: usize = 1 << 20;

/// A generation that was made.
#[derive(Debug)]
pub struct Imported {
    /// It.
    pub generation: Generation,
    /// Events that were taken over.
    pub events: u64,
    /// What was not.
    pub notes: Vec<String>,
}

/// Makes a generation of the sub-buffers of an instance.
///
/// # Errors
///
/// When the state folder cannot be written, or has no room; generations that are there stay.
pub fn keep_buffer(
    state: &StateDir,
    lock: &StateLock,
    recording: &Recording,
    buffer: &Buffer,
    name: &str,
    from: &Path,
) -> Result<Imported> {
    if !(0..=7).any(|order| buffer.page_size == SUBBUF_SIZE << order) {
        let size = buffer.page_size;
        return Err(Error::Unsupported(format!("a sub-buffer of {size} bytes")));
    }
    let layout = layout(recording, buffer, name)?;
    let run = run_record(recording, buffer, name, from);
    let mut taken = Taken::default();
    let path = tail::write_orphan(state, lock, layout.area_size(), |mapping| {
        fill(recording, buffer, &layout, &run, mapping, &mut taken)
    })?;
    let generation = keep_by_move(state, lock, &path, &meta(state, lock, name)?)?;
    Ok(Imported {
        generation,
        events: taken.events,
        notes: taken.notes,
    })
}

/// Makes a generation of a region in an image of memory: its bytes as they are.
///
/// # Errors
///
/// As [`keep_buffer`].
pub fn keep_region(
    state: &StateDir,
    lock: &StateLock,
    image: &File,
    region: &FoundRegion,
    name: &str,
) -> Result<Generation> {
    let path = tail::write_orphan(state, lock, region.len, |mapping| {
        let memory = writable(mapping, name)?;
        let mut stretch = vec![0; STRETCH];
        for at in (0..region.len as usize).step_by(STRETCH) {
            let stretch = &mut stretch[..STRETCH.min(region.len as usize - at)];
            let from = region.offset + at as u64;
            let read = image.read_at(from, stretch);
            read.map_err(|_| Error::Malformed {
                what: "region",
                at: from,
            })?;
            memory.write(at, stretch);
        }
        Ok::<(), Error>(())
    })?;
    Ok(keep_by_move(state, lock, &path, &meta(state, lock, name)?)?)
}

fn meta(state: &StateDir, lock: &StateLock, name: &str) -> Result<Meta> {
    let mut meta = Meta::new(name, state.next_sequence(lock)?, BACKING);
    // How the recording ended, no file of a tracer says.
    Verdict::Unknown.note(&mut meta);
    Ok(meta)
}

fn writable<'m>(mapping: &'m Mapping, name: &str) -> Result<RawMemory<'m>> {
    let size = mapping.len() as u64;
    let bad = outlive_ring::LayoutError::BadSize { size };
    mapping.memory_mut().ok_or_else(|| of_layout(name)(bad))
}

fn of_layout(name: &str) -> impl Fn(outlive_ring::LayoutError) -> Error {
    move |source| {
        Error::Trace(outlive_trace::Error::Layout {
            name: name.to_owned(),
            source,
        })
    }
}

/// A region with room for everything.
fn layout(recording: &Recording, buffer: &Buffer, name: &str) -> Result<Layout> {
    let nr_cpus = buffer
        .cpus
        .iter()
        .map(|(cpu, _)| cpu + 1)
        .max()
        .unwrap_or(1);
    let mut most = 0;
    for (_, cpu) in &buffer.cpus {
        let mut subbufs = 0;
        let mut count = |page: &[u8]| Page::each(page, &mut |_| subbufs += 1);
        // What cannot be read is noted when it is taken over.
        let _ = cpu.for_each(recording.bytes(), buffer.page_size, &mut count);
        most = most.max(subbufs);
    }
    let size = Geometry::size_for(nr_cpus, most + 3);
    let ring = Geometry::new(size, nr_cpus).map_err(of_layout(name))?;
    let catalog = &recording.catalog;
    let formats = catalog
        .events()
        .map(|e| e.text.len() + e.system.len() + RECORD);
    let strings = catalog
        .printk_formats()
        .map(|(_, text)| text.len() + RECORD);
    let log = formats.chain(strings).sum::<usize>() + LOG_SPARE;
    Ok(Layout::new(
        &ring,
        log,
        2 * catalog.tasks().len() + NAMES_SPARE,
    ))
}

fn run_record(recording: &Recording, buffer: &Buffer, name: &str, from: &Path) -> RunRecord {
    let (release, _) = &recording.kernel;
    RunRecord {
        sequence: 1,
        state: RunState::Closed,
        host: recording.host.clone(),
        instance: name.to_owned(),
        clock: buffer.clock.clone(),
        kernel: release.clone(),
        program: recording.program.clone(),
        source: format!("import of {}", from.display()),
        ..RunRecord::default()
    }
}

/// What was taken over.
#[derive(Debug, Default)]
struct Taken {
    events: u64,
    /// Sub-buffers that end in what is no record.
    damaged: u64,
    /// What is no sub-buffer.
    no_subbufs: u64,
    /// Events that a sub-buffer of ours has no room for.
    too_long: u64,
    notes: Vec<String>,
}

type Sink<'r, 'm> = RegionSink<'r, RawMemory<'m>>;

fn fill(
    recording: &Recording,
    buffer: &Buffer,
    layout: &Layout,
    run: &RunRecord,
    mapping: &Mapping,
    taken: &mut Taken,
) -> Result<()> {
    let memory = writable(mapping, &run.instance)?;
    let region = Region::format(memory, *layout.ring(), Some(*layout));
    let region = region.map_err(of_layout(&run.instance))?;
    let clock = TraceClock::from_name(&run.clock).unwrap_or(TraceClock::Local);
    region.store_scratch(clock.id(), 0);
    run.store(layout, region.memory());
    let symbols = recording.catalog.symbols().clone();
    let mut catalog = CatalogWriter::of_past_boot(layout, region.memory(), symbols);
    write_catalog(recording, &mut catalog);
    let mut sink = RegionSink::new(&region, Some(catalog));
    for (cpu, pages) in &buffer.cpus {
        let mut take = |page: &[u8]| taken.take(page, CpuId(*cpu), &mut sink);
        if let Err(error) = pages.for_each(recording.bytes(), buffer.page_size, &mut take) {
            taken.notes.push(format!("CPU {cpu}: {error}"));
        }
    }
    let dropped = sink.catalog().map_or(0, |catalog| catalog.dropped());
    taken.note(dropped, "names and symbols had no room");
    taken.note(
        taken.damaged,
        "sub-buffers are damaged: what is behind the damage is missing",
    );
    taken.note(taken.no_subbufs, "pages are no sub-buffers");
    taken.note(
        taken.too_long,
        "events are longer than a sub-buffer of 4 KiB: they are missing",
    );
    taken.note(
        sink.refused(),
        "pieces of sub-buffers could not be taken over: their events are missing",
    );
    sink.close();
    Ok(())
}

fn write_catalog<M: MemoryMut + Copy>(recording: &Recording, to: &mut CatalogWriter<M>) {
    let catalog = &recording.catalog;
    if let Some(page) = catalog.header_page() {
        to.record(&CatalogRecord::HeaderPage(&page.text));
    }
    if let Some(text) = catalog.header_event() {
        to.record(&CatalogRecord::HeaderEvent(text));
    }
    let (release, machine) = &recording.kernel;
    to.record(&CatalogRecord::Kernel {
        text_addr: catalog
            .symbols()
            .find("_text")
            .map_or(0, |text| text.address),
        release,
        version: "",
        machine,
    });
    for event in catalog.events() {
        to.format(&event.system, &event.text);
    }
    for (address, text) in catalog.printk_formats() {
        to.record(&CatalogRecord::PrintkFormat { address, text });
    }
    for (name, value) in catalog.constants().iter() {
        to.record(&CatalogRecord::Constant { name, value });
    }
    for (pid, comm) in catalog.tasks().iter() {
        to.task_name(pid, comm);
        if let Some(tgid) = catalog.tasks().tgid(pid) {
            to.record(&CatalogRecord::SavedTgid { pid, tgid });
        }
    }
}

impl Taken {
    fn note(&mut self, count: u64, what: &str) {
        if count > 0 {
            self.notes.push(format!("{count} {what}"));
        }
    }

    fn take(&mut self, page: &[u8], cpu: CpuId, sink: &mut Sink<'_, '_>) {
        let mut found = false;
        Page::each(page, &mut |page| {
            found = true;
            self.damaged += u64::from(page.is_damaged);
            self.too_long += page.too_long;
            if let Some(missed) = page.missed {
                sink.lost(cpu, missed.count());
            }
            if !page.records.is_empty() {
                sink.begin(cpu, page.time_stamp);
                if let Appended::Counted(events) = sink.append_counted(cpu, page.records) {
                    self.events += events;
                }
                sink.end(cpu);
            }
            if page.is_damaged {
                sink.lost(cpu, None);
            }
        });
        self.no_subbufs += u64::from(!found);
    }
}

/// A sub-buffer of 4 KiB.
struct Page<'p> {
    time_stamp: u64,
    missed: Option<Missed>,
    /// Those that are whole.
    records: &'p [u8],
    /// Whether something else is behind them.
    is_damaged: bool,
    /// Events that are missing before it because they are longer than a sub-buffer.
    too_long: u64,
}

impl Page<'_> {
    /// Calls `each` with a sub-buffer, or with those of 4 KiB that the events of a larger one make;
    /// not at all if it is none.
    fn each(page: &[u8], each: &mut dyn FnMut(Page<'_>)) {
        let Ok(raw) = RawPage::parse(page) else {
            return;
        };
        if page.len() == SUBBUF_SIZE {
            let size = outlive_ring::subbuf::header(page.first_chunk().unwrap_or(&[0; 16]));
            let data = page.get(SUBBUF_HEADER..SUBBUF_HEADER + size.1.size());
            let data = data.unwrap_or_default();
            let walked = walk(raw.time_stamp, data);
            each(Page {
                time_stamp: raw.time_stamp,
                missed: raw.missed,
                records: &data[..walked.size],
                is_damaged: walked.error.is_some(),
                too_long: 0,
            });
            return;
        }
        let mut builder = PageBuilder::default();
        let mut before = Before {
            missed: raw.missed,
            too_long: 0,
        };
        let mut is_damaged = false;
        for event in raw.events() {
            let Ok(event) = event else {
                is_damaged = true;
                break;
            };
            if !builder.push(event.time_stamp, event.payload) {
                Self::finished(&mut builder, std::mem::take(&mut before), false, each);
                if !builder.push(event.time_stamp, event.payload) {
                    before = Before {
                        missed: Some(Missed::Events(1)),
                        too_long: 1,
                    };
                }
            }
        }
        Self::finished(&mut builder, before, is_damaged, each);
    }

    fn finished(
        builder: &mut PageBuilder,
        before: Before,
        is_damaged: bool,
        each: &mut dyn FnMut(Page<'_>),
    ) {
        let page = builder.finish();
        let (header, data) = page.split_at(SUBBUF_HEADER);
        let (time_stamp, commit) =
            outlive_ring::subbuf::header(header.first_chunk().unwrap_or(&[0; 16]));
        each(Page {
            time_stamp,
            missed: before.missed,
            records: &data[..commit.size()],
            is_damaged,
            too_long: before.too_long,
        });
    }
}

/// What is missing before a sub-buffer that events are encoded into.
#[derive(Default)]
struct Before {
    missed: Option<Missed>,
    too_long: u64,
}

impl Recording {
    /// The file with the sub-buffers. None has them where each CPU has a file.
    fn bytes(&self) -> &dyn Bytes {
        match &self.file {
            Some(file) => file,
            None => &NOTHING,
        }
    }
}

const NOTHING: &[u8] = &[];
