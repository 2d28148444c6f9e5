//! What outlive keeps of a damaged region, beside what the kernel keeps of it.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use anyhow::{Context, Result};
use outlive_ring::extension::Layout;
use outlive_ring::layout::SUBBUF_DATA;
use outlive_ring::{Geometry, HeapMemory, LayoutError, PageSource, RecoveredCpu, Recovery, Region};

use super::base::{Base, Identity, KeptEvent, kept_events};
use super::changed::{Changed, Mark};
use super::edit::{Edit, apply};
use super::outcome::{Outcome, Record, Shown, Split, fingerprint};

/// Numbers of events that are kept of one damaged region.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Kept {
    /// Of those that the undamaged region holds.
    pub real: usize,
    /// All others: changed ones, and those that are there again.
    pub others: usize,
}

/// One damaged region, read by the kernel and by outlive.
#[derive(Debug, Clone)]
pub struct Comparison {
    /// `None` if the kernel died of it or hangs.
    pub kernel: Option<Kept>,
    /// What outlive keeps of the same bytes.
    pub ours: Kept,
    /// Kept by the kernel and real, and not kept by outlive: places in [`Base::events`].
    pub lost: Vec<usize>,
    /// Shown twice by outlive.
    pub twice: usize,
    /// What outlive shows and the undamaged region does not hold.
    pub changed: Vec<Changed>,
    /// Events of the undamaged region that outlive shows with a mark.
    pub doubted: usize,
    /// What outlive keeps if the same was done to the same events in a region of its own, with seals.
    pub sealed: Kept,
    /// Others that it shows there of sub-buffers that it calls sealed.
    pub invented: usize,
    /// CPUs of which both keep the same events, so that their counters must be equal.
    pub equal_cpus: usize,
    /// Where they are not.
    pub counters: Vec<String>,
    /// What outlive says about the damage.
    pub remarks: String,
}

/// The events of a [`Base`] in a region that outlive wrote: sealed sub-buffers.
#[derive(Debug)]
pub struct Sealed {
    area: Vec<u8>,
    events: Vec<Identity>,
}

impl Sealed {
    /// Takes all sub-buffers of `base` over.
    ///
    /// # Errors
    ///
    /// When outlive cannot write such a region.
    pub fn new(base: &Base) -> Result<Self> {
        let geometry = Geometry::new(base.region.len() as u64, base.geometry.nr_cpus())?;
        let layout = Layout::new(&geometry, 16 << 10, 64);
        let area = usize::try_from(layout.area_size())?;
        let memory = HeapMemory::new(area);
        let region = Region::format(&memory, geometry, Some(layout))?;
        let source = HeapMemory::from_bytes(&base.region);
        let recovery = Recovery::new(&source)?;
        let mut buffer = [0; SUBBUF_DATA];
        for cpu in &recovery.cpus {
            let mut writer = region.writer(cpu.cpu).context("a CPU of the region")?;
            for page in &cpu.pages {
                writer.begin(page.time_stamp)?;
                let data = page.read(&recovery.geometry, &source, cpu.cpu, &mut buffer);
                writer.append(data, |_| ())?;
            }
            writer.close();
        }
        let recovery = Recovery::new(&memory)?;
        Ok(Self {
            area: memory.to_vec(),
            events: kept_events(&recovery, &memory)
                .map(|event| event.identity)
                .collect(),
        })
    }

    /// What is kept, and how many others are shown of sub-buffers that are called sealed.
    fn kept(&self, edits: &[Edit]) -> (Kept, usize) {
        let places = self.events.iter().zip(0..).collect();
        let area = apply(&self.area, edits);
        let ours = Ours::new(&places, &area);
        let is_sealed = |event: &&KeptEvent| event.page.source != PageSource::Unsealed;
        let of_sealed = ours.events.iter().filter(is_sealed).cloned();
        let invented = Split::new(&places, of_sealed).others.len();
        (ours.kept(), invented)
    }
}

/// What outlive keeps.
struct Ours {
    events: Vec<KeptEvent>,
    split: Split<KeptEvent>,
    recovery: Result<Recovery, LayoutError>,
}

impl Ours {
    fn new(places: &BTreeMap<&Identity, usize>, region: &[u8]) -> Self {
        let memory = HeapMemory::from_bytes(region);
        let recovery = Recovery::new(&memory);
        let kept = recovery
            .as_ref()
            .map(|recovery| kept_events(recovery, &memory).collect());
        let events: Vec<KeptEvent> = kept.unwrap_or_default();
        Self {
            split: Split::new(places, events.iter().cloned()),
            events,
            recovery,
        }
    }

    /// Real events that are shown with a mark.
    fn doubted(&self, base: &Base) -> usize {
        let places = base.places();
        let real = self
            .events
            .iter()
            .filter(|event| places.contains_key(&event.identity));
        real.filter(|event| Mark::of(base, event).is_some()).count()
    }

    /// CPU and number of each sub-buffer of which the kernel shows an event that ours shows too.
    fn subbufs_shown_by(
        &self,
        places: &BTreeMap<&Identity, usize>,
        outcome: &Outcome,
    ) -> BTreeSet<(u32, u32)> {
        let Outcome::Attached { cpus, .. } = outcome else {
            return BTreeSet::new();
        };
        let kept: BTreeSet<usize> = cpus.iter().flat_map(|cpu| places_of(&cpu.kept)).collect();
        let others: BTreeSet<u32> = cpus.iter().flat_map(|cpu| cpu.others.clone()).collect();
        let is_shown = |event: &&KeptEvent| match places.get(&event.identity) {
            Some(place) => kept.contains(place),
            None => others.contains(&fingerprint_of(event)),
        };
        let shown = self.events.iter().filter(is_shown);
        shown
            .map(|event| (event.identity.cpu, event.page.subbuf))
            .collect()
    }

    fn kept(&self) -> Kept {
        Kept {
            real: places_of(&self.split.kept).len(),
            others: self.split.others.len(),
        }
    }
}

fn places_of(runs: &[Range<usize>]) -> BTreeSet<usize> {
    runs.iter().cloned().flatten().collect()
}

impl Comparison {
    /// Compares.
    #[must_use]
    pub fn new(base: &Base, sealed: &Sealed, record: &Record) -> Self {
        let places = base.places();
        let region = apply(&base.region, &record.edits);
        let ours = Ours::new(&places, &region);
        let (kernel, by_kernel) = match &record.outcome {
            Outcome::Crash | Outcome::Hang => (None, BTreeSet::new()),
            Outcome::Attached { cpus, .. } => {
                let real: BTreeSet<usize> =
                    cpus.iter().flat_map(|cpu| places_of(&cpu.kept)).collect();
                let kept = Kept {
                    real: real.len(),
                    others: cpus.iter().map(|cpu| cpu.others.len()).sum(),
                };
                (Some(kept), real)
            }
        };
        let mut counters = Counters::default();
        if let (Outcome::Attached { cpus, .. }, Ok(recovery)) = (&record.outcome, &ours.recovery) {
            for (shown, recovered) in cpus.iter().zip(&recovery.cpus) {
                counters.compare(&places, &ours, shown, recovered);
            }
        }
        let (sealed, invented) = sealed.kept(&record.edits);
        let by_us = places_of(&ours.split.kept);
        let others = ours.split.others.iter();
        let shown = ours.subbufs_shown_by(&places, &record.outcome);
        Self {
            kernel,
            ours: ours.kept(),
            lost: by_kernel.difference(&by_us).copied().collect(),
            twice: others
                .clone()
                .filter(|event| places.contains_key(&event.identity))
                .count(),
            changed: others
                .map(|event| {
                    let subbuf = (event.identity.cpu, event.page.subbuf);
                    Changed::new(base, &places, event, shown.contains(&subbuf))
                })
                .collect(),
            doubted: ours.doubted(base),
            sealed,
            invented,
            equal_cpus: counters.equal_cpus,
            counters: counters.differences,
            remarks: remarks(&ours.recovery),
        }
    }
}

/// The kernel's counters beside ours.
#[derive(Debug, Default)]
struct Counters {
    equal_cpus: usize,
    differences: Vec<String>,
}

impl Counters {
    fn compare(
        &mut self,
        places: &BTreeMap<&Identity, usize>,
        ours: &Ours,
        shown: &Shown,
        recovered: &RecoveredCpu,
    ) {
        let of_cpu = ours.events.iter();
        let of_cpu = of_cpu.filter(|event| event.identity.cpu == recovered.cpu);
        let split = Split::new(places, of_cpu.cloned());
        let others: Vec<u32> = split.others.iter().map(fingerprint_of).collect();
        if split.kept != shown.kept || others != shown.others {
            return;
        }
        self.equal_cpus += 1;
        let RecoveredCpu {
            cpu,
            entries,
            bytes,
            ..
        } = recovered;
        let is_same = |kernels: i64, ours: u64| u64::try_from(kernels).is_ok_and(|n| n == ours);
        // 6.12 counts flags of a commit word in: what comes below 0 is no number of bytes.
        let has_same_bytes = shown.bytes < 0 || is_same(shown.bytes, *bytes);
        // A changed event may have no line of its own, or two.
        let has_same_lines = !shown.others.is_empty() || shown.lines == Some(*entries);
        if !(is_same(shown.entries, *entries) && has_same_bytes && has_same_lines) {
            self.differences.push(format!(
                "CPU {cpu}: {entries} entries of {bytes} bytes, and the kernel {} of {} in {:?} lines",
                shown.entries, shown.bytes, shown.lines
            ));
        }
    }
}

fn fingerprint_of(event: &KeptEvent) -> u32 {
    fingerprint(&event.identity)
}

fn remarks(recovery: &Result<Recovery, LayoutError>) -> String {
    let recovery = match recovery {
        Ok(recovery) => recovery,
        Err(error) => return error.to_string(),
    };
    let mut remarks: Vec<String> = recovery.damage.iter().map(ToString::to_string).collect();
    for cpu in &recovery.cpus {
        let number = cpu.cpu;
        remarks.extend(
            cpu.damage
                .iter()
                .map(|damage| format!("CPU {number}: {damage}")),
        );
        let mut reasons = BTreeMap::<String, Vec<String>>::new();
        for rejected in &cpu.rejected {
            let subbufs = reasons.entry(rejected.reason.to_string()).or_default();
            subbufs.push(rejected.subbuf.to_string());
        }
        let by_reason = reasons.iter();
        remarks.extend(by_reason.map(|(reason, subbufs)| {
            format!("CPU {number}, sub-buffer {}: {reason}", subbufs.join(" "))
        }));
    }
    remarks.join("; ")
}
