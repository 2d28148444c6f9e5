//! The start: areas are reserved, instances created, and what the previous run left is kept,
//! before anything is written.
//!
//! The order, and what a kill at each place leaves, is in `docs/design.md`, section 2. When
//! [`Start::run`] returns, every instance exists and every backup is taken; the caller lays out
//! the regions and enables the events ([`Live::lay_out`]).

use std::path::PathBuf;

use outlive_ring::extension::Layout;
use outlive_ring::layout::{SUBBUF_DATA, SUBBUF_HEADER, SUBBUF_SIZE};
use outlive_ring::{
    Geometry, LayoutError, Memory, MemoryMut, RawMemory, Recovery, Region, RunId, RunRecord,
    RunState,
};

use crate::cmdline::{AreaRef, CommandLine, Instance, InstanceKind};
use crate::retention;
use crate::verdict::boot_id;
use crate::{
    Area, AreaRequest, Backing, Error, Generation, GenerationState, InstanceEntry, Instances,
    Mapping, Meta, StateDir, StateLock, Verdict, clock, failpoint, host, tidy,
};

/// On a fixed range the catalog gets at most this part of it.
const LOG_SHARE: u64 = 8;

/// No ring is larger, for each CPU: that of 8192 CPUs is more than memory can be.
const RING_MAX: u64 = 1 << 50;

/// Backing, in `instances.json` and of generations, of an instance that the kernel has made itself.
pub const KERNEL_BACKING: &str = "kernel";

/// The steps of a start at which a test may kill it, for [`failpoint`].
pub const START_STEPS: [&str; 5] = [
    "start-locked",
    "start-tidied",
    "start-reserved",
    "start-kept",
    "start-configured",
];
/// The steps of clearing memory whose region was kept by copying, for [`failpoint`].
pub const LAY_OUT_STEPS: [&str; 2] = ["lay-out-half", "lay-out-wiped"];

/// Where the events of a start's instances come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventSource {
    /// The host's kernel. After a crash its ring may hold events that the region lacks.
    Kernel,
    /// The program that starts: what its region lacks was not recorded.
    Application,
}

impl EventSource {
    /// Bytes of the catalog's log where the extension has a file to grow in: enough for the formats
    /// of all events.
    fn log_bytes(self) -> usize {
        match self {
            Self::Kernel => 4 << 20,
            Self::Application => 256 << 10,
        }
    }

    /// Task names that are kept.
    fn task_names(self) -> usize {
        match self {
            Self::Kernel => 8192,
            Self::Application => 1024,
        }
    }

    /// What has to be done for a generation to be complete.
    fn state_after(self, verdict: Verdict) -> GenerationState {
        match (self, verdict) {
            // Of an area without a readable run record too: what destroyed it spared that ring.
            (Self::Kernel, Verdict::Crash | Verdict::Unknown) => GenerationState::Collecting,
            _ => GenerationState::Complete,
        }
    }
}

/// What a start has to do.
#[derive(Debug)]
pub struct Start<'a> {
    /// The state folder.
    pub state: &'a StateDir,
    /// The command line.
    pub cmdline: &'a CommandLine,
    /// The command line as it was given, for the run record.
    pub text: &'a str,
    /// Backings by area label, as given with `--area`.
    pub backings: &'a [(String, Backing)],
    /// Per-CPU buffers of a region: the possible CPUs of the machine, or a program's lanes.
    pub nr_cpus: u32,
    /// Where the events come from.
    pub source: EventSource,
    /// What the run record says of the program: its name and version.
    pub program: (&'a str, &'a str),
    /// Names of instances that the kernel has made itself: they have no area of ours.
    pub of_kernel: &'a [String],
    /// Whether an instance that cannot be made is skipped, as the kernel does it, and the others are
    /// made. Else nothing is, and the start ends before anything is kept.
    pub skips_instances: bool,
}

/// What a start tells while it goes on.
#[derive(Debug)]
#[non_exhaustive]
pub enum Step<'a> {
    /// A killed start had left something half done.
    Tidied(&'a crate::Tidied),
    /// An area is reserved.
    Reserved(&'a Area),
    /// What the previous run left is kept.
    Kept(&'a Generation, Verdict),
    /// What was just kept is not understood: a region whose layout is not known, or no region.
    NotUnderstood(&'a Generation, &'a LayoutError),
    /// The previous run of an instance had recorded nothing that could be kept.
    NothingToKeep(&'a str),
    /// An instance cannot be made. What its area holds is left as it is.
    Skipped(&'a str, &'a Error),
}

/// An instance that is ready to record.
#[derive(Debug)]
pub struct Live {
    /// The instance.
    pub instance: Instance,
    /// Its memory.
    pub area: Area,
    /// What the previous run left, if it left anything.
    pub kept: Option<Generation>,
    layout: Layout,
    mapping: Mapping,
}

/// Everything that a start brought into being. The state is locked while it lives.
#[derive(Debug)]
pub struct Started {
    /// The lock of the state folder.
    pub lock: StateLock,
    /// The run record, still without clock and source.
    pub run: RunRecord,
    /// The instances that record, in the order of their creation.
    pub live: Vec<Live>,
    /// Names of instances that could not be made.
    pub skipped: Vec<String>,
    /// What the start before had configured; nothing if that is not known.
    pub before: Instances,
}

/// Instances that cannot be made, each with the reason.
type Skipped = Vec<(String, Error)>;

impl Start<'_> {
    /// Does steps 2 to 4 of the start.
    ///
    /// # Errors
    ///
    /// [`Error::Locked`] if a recorder runs on this state; [`Error::NoSpace`] if the areas do not
    /// fit even after retention; what keeps an instance from being made, if no other one is. Nothing
    /// was destroyed then.
    pub fn run(&self, mut tell: impl FnMut(Step<'_>)) -> Result<Started, Error> {
        let lock = self.state.try_lock_exclusive()?;
        failpoint::reached("start-locked");
        let tidied = tidy(self.state, &lock)?;
        if tidied != crate::Tidied::default() {
            tell(Step::Tidied(&tidied));
        }
        failpoint::reached("start-tidied");
        let sequence = self.state.next_sequence(&lock)?;
        let mut skipped = Skipped::default();
        let mut prepared = Vec::new();
        for instance in self.cmdline.creation_order() {
            if self.of_kernel.contains(&instance.name) {
                continue;
            }
            let reserved = self.reserve(instance, &lock);
            if let Some((area, layout)) = self.unless_skipped(instance, reserved, &mut skipped)? {
                tell(Step::Reserved(&area));
                prepared.push((instance, area, layout));
            }
        }
        self.check_any(&prepared, &mut skipped)?;
        failpoint::reached("start-reserved");
        let mut live = Vec::new();
        for (instance, mut area, layout) in prepared {
            let kept = self.keep(instance, &mut area, sequence, &lock, &mut tell);
            let kept = kept.map(Some);
            if let Some((kept, mapping)) = self.unless_skipped(instance, kept, &mut skipped)? {
                live.push(Live {
                    instance: instance.clone(),
                    area,
                    kept,
                    layout,
                    mapping,
                });
            }
        }
        self.check_any(&live, &mut skipped)?;
        for (name, error) in &skipped {
            tell(Step::Skipped(name, error));
        }
        failpoint::reached("start-kept");
        let before = self.state.read_instances().unwrap_or_default();
        self.state
            .write_instances(&lock, &self.configured(sequence, &live))?;
        failpoint::reached("start-configured");
        Ok(Started {
            before,
            lock,
            run: self.run_record(sequence),
            live,
            skipped: skipped.into_iter().map(|(name, _)| name).collect(),
        })
    }

    /// What was made for an instance. One for which that failed is skipped, unless it is for want of
    /// space: that is found at its best before anything is kept, and is to be mended.
    fn unless_skipped<T>(
        &self,
        instance: &Instance,
        made: Result<Option<T>, Error>,
        skipped: &mut Skipped,
    ) -> Result<Option<T>, Error> {
        match made {
            Err(error) if self.skips_instances && !matches!(error, Error::NoSpace { .. }) => {
                skipped.push((instance.name.clone(), error));
                Ok(None)
            }
            made => made,
        }
    }

    /// Whether there is something to go on with where an instance was skipped.
    fn check_any<T>(&self, left: &[T], skipped: &mut Skipped) -> Result<(), Error> {
        match left.is_empty() && self.of_kernel.is_empty() && !skipped.is_empty() {
            true => Err(skipped.swap_remove(0).1),
            false => Ok(()),
        }
    }

    /// Reserves an instance's area. `None` for a backup, and for an instance that only keeps what
    /// it has.
    fn reserve(
        &self,
        instance: &Instance,
        lock: &StateLock,
    ) -> Result<Option<(Area, Layout)>, Error> {
        let request = request(
            self.cmdline,
            self.backings,
            self.nr_cpus,
            self.source,
            instance,
        )?;
        let Some((request, layout)) = request else {
            return Ok(None);
        };
        request.check_page_aligned()?;
        let area = retention::with_room(self.state, lock, || {
            Area::reserve(&request, self.state, lock)
        })?;
        // Memory that comes in larger pieces has more than was asked for.
        let layout = match area.has_wanted_size() {
            true => {
                let names = self.source.task_names();
                Layout::in_area(layout.ring(), area.len_bytes(), names).unwrap_or(layout)
            }
            false => layout,
        };
        Ok(Some((area, layout)))
    }

    /// Keeps what the area holds, if that is anything, and maps the area.
    fn keep(
        &self,
        instance: &Instance,
        area: &mut Area,
        sequence: u64,
        lock: &StateLock,
        tell: &mut impl FnMut(Step<'_>),
    ) -> Result<(Option<Generation>, Mapping), Error> {
        let is_ordinary = matches!(instance.kind, InstanceKind::Ordinary);
        if area.is_new() || (is_ordinary && area.has_wanted_size()) {
            return Ok((None, area.map()?));
        }
        let held = area.map_held(self.state)?;
        let kept = self.keep_held(&held, instance, area, sequence, lock, tell)?;
        // A blank file that has taken the place of the old one is mapped anew.
        let mapping = match held.memory_mut().is_some() && !area.is_new() {
            true => held,
            false => area.map()?,
        };
        Ok((kept, mapping))
    }

    fn keep_held(
        &self,
        held: &Mapping,
        instance: &Instance,
        area: &mut Area,
        sequence: u64,
        lock: &StateLock,
        tell: &mut impl FnMut(Step<'_>),
    ) -> Result<Option<Generation>, Error> {
        let (holds, run) = look_at(held);
        if matches!(holds, Holds::Nothing) && area.has_wanted_size() {
            tell(Step::NothingToKeep(&instance.name));
            return Ok(None);
        }
        let verdict = Verdict::of_ended(run.as_ref(), &boot_id());
        let mut meta = Meta::new(&instance.name, sequence, &area.backing().to_string());
        meta.run_id = run.as_ref().map(|run| run.run_id.to_string());
        meta.recorded_as = run.as_ref().map(|run| run.instance.clone());
        meta.boot_id = run.as_ref().map(|run| RunId(run.boot_id).to_string());
        meta.state = self.source.state_after(verdict);
        verdict.note(&mut meta);
        let kept = retention::with_room(self.state, lock, || {
            area.keep(held, self.state, lock, &meta)
        })?;
        tell(Step::Kept(&kept, verdict));
        if let Holds::Other(why) = &holds {
            tell(Step::NotUnderstood(&kept, why));
        }
        Ok(Some(kept))
    }

    fn configured(&self, sequence: u64, live: &[Live]) -> Instances {
        let mut instances = Instances::of_run(sequence);
        for instance in &self.cmdline.instances {
            let mut entry = InstanceEntry::new(&instance.name, kind_word(&instance.kind));
            match &instance.kind {
                InstanceKind::Backup { source } => entry.source = Some(source.clone()),
                InstanceKind::Persistent {
                    area: AreaRef::Label(label),
                } => {
                    entry.area = Some(label.clone());
                }
                _ => {}
            }
            if self.of_kernel.contains(&instance.name) {
                entry.backing = Some(KERNEL_BACKING.to_owned());
            }
            if let Some(live) = live.iter().find(|live| live.instance.name == instance.name) {
                entry.area = Some(live.area.name().to_owned());
                entry.backing = Some(live.area.backing().to_string());
                live.area.place().note(&mut entry);
            }
            instances.instances.push(entry);
        }
        instances
    }

    fn run_record(&self, run_sequence: u64) -> RunRecord {
        let now = clock::read();
        let pid = std::process::id();
        RunRecord {
            run_id: RunId(random_id(run_sequence)),
            boot_id: boot_id(),
            run_sequence,
            pid: pid.cast_signed(),
            pid_start_ticks: host::process_start_ticks(pid).unwrap_or(0),
            started_realtime_ns: now.realtime_ns,
            started_monotonic_ns: now.monotonic_ns,
            started_boottime_ns: now.boottime_ns,
            host: host::hostname(),
            program: self.program.0.to_owned(),
            version: self.program.1.to_owned(),
            kernel: rustix::system::uname()
                .release()
                .to_string_lossy()
                .into_owned(),
            cmdline: self.text.to_owned(),
            ..RunRecord::default()
        }
    }
}

impl Live {
    /// Where the region's parts will lie.
    #[must_use]
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Lays out a fresh region. What the area held is gone with the first store: it was kept.
    ///
    /// # Errors
    ///
    /// [`Error::Layout`] if the area is smaller than its layout.
    pub fn lay_out(&self) -> Result<Region<RawMemory<'_>>, Error> {
        let of_layout = |source| Error::Layout {
            name: self.area.name().to_owned(),
            source,
        };
        let Some(memory) = self.mapping.memory_mut() else {
            return Err(of_layout(LayoutError::BadSize { size: 0 }));
        };
        let (ring, extension) = (*self.layout.ring(), Some(self.layout));
        if self.area.is_new() {
            self.mapping.advise_no_read_around();
            return Region::format(memory, ring, extension).map_err(of_layout);
        }
        wipe(&self.mapping, memory);
        failpoint::reached("lay-out-wiped");
        Region::format_over(memory, ring, extension).map_err(of_layout)
    }

    /// The mapped area.
    #[must_use]
    pub fn mapping(&self) -> &Mapping {
        &self.mapping
    }

    /// The area's file.
    #[must_use]
    pub fn path(&self) -> Option<PathBuf> {
        self.area.path().map(ToOwned::to_owned)
    }
}

/// The areas that a start with this command line reserves: of each instance that is to record, in
/// the order of their creation. `nr_cpus` is the number of possible CPUs.
///
/// # Errors
///
/// [`Error::Layout`] if an area cannot hold a ring for so many CPUs.
pub fn area_requests(
    cmdline: &CommandLine,
    backings: &[(String, Backing)],
    nr_cpus: u32,
) -> Result<Vec<AreaRequest>, Error> {
    let mut requests = Vec::new();
    for instance in cmdline.creation_order() {
        let request = request(cmdline, backings, nr_cpus, EventSource::Kernel, instance)?;
        requests.extend(request.map(|(area, _)| area));
    }
    Ok(requests)
}

/// Whether an instance is to be written: as in the kernel, one without events keeps what it
/// has, unless a backup takes it.
fn records(cmdline: &CommandLine, instance: &Instance) -> bool {
    let is_source = cmdline.instances.iter().any(
        |other| matches!(&other.kind, InstanceKind::Backup { source } if *source == instance.name),
    );
    !matches!(instance.kind, InstanceKind::Backup { .. })
        && (!instance.events.is_empty() || is_source)
}

/// The area of an instance, and how it is laid out. `None` for a backup, and for an instance that
/// only keeps what it has.
pub(crate) fn request(
    cmdline: &CommandLine,
    backings: &[(String, Backing)],
    nr_cpus: u32,
    source: EventSource,
    instance: &Instance,
) -> Result<Option<(AreaRequest, Layout)>, Error> {
    if !records(cmdline, instance) {
        return Ok(None);
    }
    let Some(label) = area_label(instance) else {
        return Ok(None);
    };
    let (size, align, default) = match &instance.kind {
        InstanceKind::Persistent {
            area: AreaRef::Label(label),
        } => {
            let Some(reserved) = cmdline.reserve_mem.iter().find(|r| r.label == *label) else {
                return Ok(None);
            };
            (reserved.size, reserved.align, Backing::File)
        }
        InstanceKind::Persistent {
            area: AreaRef::Address { start, size },
        } => (*size, 4096, Backing::DevMem { address: *start }),
        InstanceKind::Ordinary => {
            let per_cpu = cmdline
                .trace_buf_size
                .unwrap_or(crate::cmdline::TRACE_BUF_SIZE_DEFAULT);
            (ring_size_for(per_cpu, nr_cpus), 4096, Backing::File)
        }
        _ => return Ok(None),
    };
    let given = backings.iter().find(|(name, _)| *name == label);
    let backing = given.map_or(default, |(_, backing)| backing.clone());
    let of_layout = |source| Error::Layout {
        name: label.clone(),
        source,
    };
    if is_fixed(&backing) {
        let layout = carve(size, nr_cpus, source).map_err(of_layout)?;
        return Ok(Some((
            AreaRequest::new(&label, backing, size).with_align(align),
            layout,
        )));
    }
    let ring = Geometry::new(size, nr_cpus).map_err(of_layout)?;
    let layout = Layout::new(&ring, source.log_bytes(), source.task_names());
    let request = AreaRequest::new(&label, backing, size)
        .with_extension(layout.area_size() - size)
        .with_align(align);
    Ok(Some((request, layout)))
}

/// Splits a fixed range into a ring and its extension. The error of one that is too small has the
/// bytes that both need.
fn carve(size: u64, nr_cpus: u32, source: EventSource) -> Result<Layout, LayoutError> {
    let carve = |size: u64| {
        let log = source.log_bytes().min((size / LOG_SHARE) as usize);
        let names = source.task_names().min(log / 64);
        Layout::carve(size, nr_cpus, log, names)
    };
    carve(size).map_err(|error| match error {
        LayoutError::TooSmall { needed, .. } => {
            let mut sizes = (needed..).step_by(SUBBUF_SIZE);
            let needed = sizes.find(|&size| carve(size).is_ok()).unwrap_or(needed);
            LayoutError::TooSmall {
                size,
                nr_cpus,
                needed,
            }
        }
        other => other,
    })
}

/// Makes a region that has been kept unreadable, except for its run record: a kill in the midst of
/// it leaves an area of which the next start knows that its run was kept, a kill after it one
/// whose first page is blank.
fn wipe(mapping: &Mapping, memory: RawMemory<'_>) {
    let Ok(found) = Recovery::locate(mapping) else {
        return;
    };
    let ring = &found.geometry;
    // The old region may have been larger than the area is now.
    let len = Memory::len(mapping);
    let zero = |offset: usize, bytes: usize| {
        memory.zero(offset.min(len), bytes.min(len.saturating_sub(offset)));
    };
    for cpu in 0..ring.nr_cpus() {
        for subbuf in 0..ring.nr_subbufs() {
            zero(ring.subbuf_offset(cpu, subbuf), SUBBUF_HEADER);
        }
        failpoint::reached("lay-out-half");
        let meta = ring.meta_offset(cpu);
        zero(meta, ring.subbuf_offset(cpu, 0) - meta);
    }
    zero(0, SUBBUF_SIZE);
}

/// The name of the area that an instance lives in, as `--area` takes it; `None` for a backup.
#[must_use]
pub fn area_label(instance: &Instance) -> Option<String> {
    match &instance.kind {
        InstanceKind::Persistent {
            area: AreaRef::Label(label),
        } => Some(label.clone()),
        InstanceKind::Persistent {
            area: AreaRef::Address { start, .. },
        } => Some(format!("mem-{start:#x}")),
        InstanceKind::Ordinary => Some(format!("{}.ordinary", instance.name)),
        _ => None,
    }
}

fn kind_word(kind: &InstanceKind) -> &'static str {
    match kind {
        InstanceKind::Persistent { .. } => "persistent",
        InstanceKind::Backup { .. } => "backup",
        _ => "ordinary",
    }
}

fn is_fixed(backing: &Backing) -> bool {
    matches!(backing, Backing::DevMem { .. } | Backing::DevDax(_))
}

/// Bytes of a region that holds `per_cpu` bytes of events for each CPU.
fn ring_size_for(per_cpu: u64, nr_cpus: u32) -> u64 {
    let pages = (per_cpu.min(RING_MAX).div_ceil(SUBBUF_DATA as u64) + 1).max(3);
    Geometry::size_for(nr_cpus, pages)
}

/// Whether an area has to be kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Holds {
    /// Blank, or a region in which nothing was ever recorded.
    Nothing,
    /// Events.
    Something,
    /// Bytes that are not understood and so are not ours to throw away.
    Other(LayoutError),
}

/// Looks at what an area holds, at a cost that does not grow with its size.
pub(crate) fn look_at(mapping: &Mapping) -> (Holds, Option<RunRecord>) {
    let run = Layout::load(mapping).and_then(|layout| RunRecord::load(&layout, mapping));
    let holds = match Recovery::locate(mapping) {
        Ok(region) if is_untouched(&region, mapping) => Holds::Nothing,
        Ok(_) => Holds::Something,
        Err(_) if is_blank(mapping) => Holds::Nothing,
        Err(why) => Holds::Other(why),
    };
    (holds, run)
}

/// Whether no CPU ever began a sub-buffer: the first two are the reader page and the first one
/// that is written. That these are blank is not enough, after a power loss any page may be: then
/// all are looked at. Of a region that was being laid out when its start was killed, a part of the
/// metas is missing.
fn is_untouched(region: &Recovery, mapping: &Mapping) -> bool {
    let ring = &region.geometry;
    let is_blank = |cpu, subbuf| begins_blank(mapping, ring.subbuf_offset(cpu, subbuf));
    let is_empty = |cpu| {
        let recovered = region.recover_cpu(mapping, cpu);
        recovered.pages.is_empty() && recovered.rejected.is_empty()
    };
    let mut cpus = 0..ring.nr_cpus();
    cpus.clone()
        .all(|cpu| (0..2).all(|subbuf| is_blank(cpu, subbuf)))
        && cpus.all(is_empty)
        && (region.damage.is_empty() || has_metas_alone(ring, mapping))
}

/// Whether nothing but the ring's metas is there: no page begins as a sub-buffer, a run record or a
/// catalog does.
fn has_metas_alone(ring: &Geometry, mapping: &Mapping) -> bool {
    let first = |cpu| ring.subbuf_offset(cpu, 0);
    let metas: Vec<_> = (0..ring.nr_cpus())
        .map(|cpu| ring.meta_offset(cpu)..first(cpu))
        .collect();
    let is_meta = |offset| metas.iter().any(|meta| meta.contains(&offset));
    (first(0)..Memory::len(mapping))
        .step_by(SUBBUF_SIZE)
        .all(|offset| begins_blank(mapping, offset) || is_meta(offset))
}

/// Whether a page has no header. What lies beyond the end has none.
fn begins_blank(mapping: &Mapping, offset: usize) -> bool {
    let mut header = [0; SUBBUF_HEADER];
    let is_there = offset + header.len() <= Memory::len(mapping);
    if is_there {
        mapping.read(offset, &mut header);
    }
    header == [0; SUBBUF_HEADER]
}

/// Whether the first and the last pages are zero: a file that was allocated and never laid out.
fn is_blank(mapping: &Mapping) -> bool {
    let mut page = [0; 4096];
    let len = Memory::len(mapping);
    [0, len.saturating_sub(page.len())]
        .into_iter()
        .all(|offset| {
            let end = page.len().min(len);
            mapping.read(offset, &mut page[..end]);
            page[..end].iter().all(|&byte| byte == 0)
        })
}

/// An id that no other run has: from the system's random numbers, or else from time and process.
fn random_id(sequence: u64) -> [u8; 16] {
    use std::io::Read;
    let mut id = [0; 16];
    let read = std::fs::File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut id));
    if read.is_err() {
        id[..8].copy_from_slice(&clock::realtime_ns().to_le_bytes());
        id[8..].copy_from_slice(&(sequence ^ u64::from(std::process::id()) << 32).to_le_bytes());
    }
    id
}

/// Marks a run as ended: the verdict of the next start will be a clean exit.
pub fn close_run(run: &mut RunRecord, layout: &Layout, memory: &impl outlive_ring::MemoryMut) {
    run.sequence += 1;
    run.state = RunState::Closed;
    run.closed_realtime_ns = clock::realtime_ns();
    run.store(layout, memory);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Access;

    /// A region of one CPU into which `subbufs` sub-buffers of one event each were written.
    fn region(subbufs: u64) -> Mapping {
        let ring = Geometry::new(256 << 10, 1).unwrap();
        let layout = Layout::new(&ring, 4096, 16);
        let file = tempfile::tempfile().unwrap();
        file.set_len(layout.area_size()).unwrap();
        let path = std::path::Path::new("region");
        let mapping = Mapping::of_file(&file, path, layout.area_size(), Access::ReadWrite).unwrap();
        let memory = mapping.memory_mut().unwrap();
        let region = Region::format(memory, ring, Some(layout)).unwrap();
        let mut writer = region.writer(0).unwrap();
        for time_stamp in 1..=subbufs {
            writer.begin(time_stamp).unwrap();
            writer
                .append(&[2, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8], |_| {})
                .unwrap();
        }
        mapping
    }

    #[test]
    fn region_that_was_laid_out_and_never_written_holds_nothing() {
        assert_eq!(look_at(&region(0)).0, Holds::Nothing);
        assert_eq!(look_at(&region(1)).0, Holds::Something);
    }

    /// Starts were killed while they laid out a fresh region, in a test, once in some hundred times. The
    /// next one kept that as a run, of which nothing was known.
    #[test]
    fn region_that_was_being_laid_out_holds_nothing() {
        let laid_out = region(0);
        let all = Memory::len(&laid_out);
        let ring = Geometry::new(256 << 10, 1).unwrap();
        let anchor = all - SUBBUF_SIZE;
        for missing in [0..4, anchor..all] {
            let mapping = region(0);
            let memory = mapping.memory_mut().unwrap();
            memory.zero(anchor, SUBBUF_SIZE);
            memory.zero(missing.start, missing.len());
            assert!(Recovery::locate(&mapping).is_ok_and(|found| !found.damage.is_empty()));
            assert_eq!(look_at(&mapping).0, Holds::Nothing, "{missing:?}");
            memory.store_u64(ring.subbuf_offset(0, 7), 1);
            assert_eq!(look_at(&mapping).0, Holds::Something, "{missing:?}");
        }
    }

    /// A power loss, before the first sub-buffer's page was written back, left its blocks blank. The
    /// start took the region for one that was never written, and cleared it.
    #[test]
    fn region_whose_first_sub_buffers_are_blank_is_kept() {
        let mapping = region(5);
        let ring = Geometry::new(256 << 10, 1).unwrap();
        let memory = mapping.memory_mut().unwrap();
        memory.zero(ring.subbuf_offset(0, 0), 2 * SUBBUF_SIZE);
        assert_eq!(look_at(&mapping).0, Holds::Something);
        assert_eq!(Recovery::new(&mapping).unwrap().cpu(0).pages.len(), 4);
    }
}
