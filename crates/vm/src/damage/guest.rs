//! Giving damaged regions to a kernel, many to one boot.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use super::base::Base;
use super::draft::Damage;
use super::edit::apply;
use super::outcome::Outcome;
use crate::boot::last_lines;
use crate::{Boot, End, Error, Kernel, Machine};

const MIB: u64 = 1 << 20;
/// Where the regions are: one every MiB from here on. Firmware and kernel leave that alone. 6.12 cannot map
/// memory of which all 128 MiB around it are reserved, so this is in the middle of such.
const FIRST: u64 = 320 * MIB;
/// The texts of 140 damaged instances are kept in memory.
const MEMORY_MIB: u64 = 1024;
/// A boot takes half a minute, several where much else runs.
const TIMEOUT: Duration = Duration::from_secs(300);
/// What the guest says when reading an instance does not come back.
const HANGS: &str = "outlive-vm: reading hangs";
/// The kernel's limit of its command line, less what every boot has on it.
const CMDLINE: usize = 2048 - 100;

/// One boot, whose instances are the damaged regions.
struct Batch<'a> {
    base: &'a Base,
    regions: Vec<(usize, Vec<u8>)>,
}

impl Batch<'_> {
    fn entry(&self, place: usize) -> String {
        let address = FIRST / MIB + place as u64;
        format!("d{place}@{address}M:{}K", self.base.region.len() >> 10)
    }

    /// All instances in one parameter: tabs within quotes separate entries, and a parameter's name
    /// would take more than the entry.
    fn cmdline(&self) -> String {
        let entries: Vec<_> = (0..self.regions.len())
            .map(|place| self.entry(place))
            .collect();
        let size = self.regions.len();
        // A kernel that dies of a region does so before its console is there.
        format!(
            "earlyprintk=ttyS0 memmap={size}M${}M trace_instance=\"{}\"",
            FIRST / MIB,
            entries.join("\t")
        )
    }

    fn boot(&self, judge: &Guest<'_>) -> Result<crate::Outcome, Error> {
        let cpus = self.base.geometry.nr_cpus();
        let mut machine = Machine::new(judge.kernel.clone(), cpus, MEMORY_MIB)?;
        for (place, (_, region)) in self.regions.iter().enumerate() {
            machine.write(FIRST + place as u64 * MIB, region)?;
        }
        let boot = Boot::new(&self.cmdline())
            .program("drain", judge.drain)
            .timeout(TIMEOUT)
            .reset_at(HANGS)
            .script("dmesg > /out/dmesg")
            .script(&format!(
                "drain d stats trace trace_pipe_raw ||
                 {{ save; echo {HANGS} > /dev/console; sleep 1000; }}"
            ));
        machine.boot(&boot)
    }

    /// What became of each, with its number.
    fn outcomes(&self, judge: &Guest<'_>) -> Result<Vec<(usize, Outcome)>> {
        let left = match self.boot(judge) {
            Ok(left) if matches!(left.end, End::PowerOff | End::ResetFromOutside) => left,
            Ok(left) if is_dead(&left) => return self.halves(judge),
            Ok(left) => bail!(
                "the guest went without a panic:\n{}",
                last_lines(&left.console)
            ),
            Err(Error::Hangs { console, .. }) => return self.without(judge, &console),
            Err(error) => return Err(error.into()),
        };
        let (mut outcomes, not_reached) = self.read(&left)?;
        if !not_reached.regions.is_empty() {
            let console = last_lines(&left.console);
            ensure!(!outcomes.is_empty(), "nothing was read:\n{console}");
            outcomes.extend(not_reached.outcomes(judge)?);
        }
        Ok(outcomes)
    }

    /// What a guest left, which has read up to one that hangs, and what it did not come to.
    fn read(&self, left: &crate::Outcome) -> Result<(Vec<(usize, Outcome)>, Self)> {
        let dmesg = left.text("dmesg")?;
        let (mut outcomes, mut not_reached) = (Vec::new(), Vec::new());
        for (place, region) in self.regions.iter().enumerate() {
            let folder = left.results().join(format!("d{place}"));
            if !folder.exists() {
                not_reached.push(region.clone());
                continue;
            }
            let outcome = Outcome::read(self.base, &folder, messages(&dmesg, place));
            let about = || {
                let console = last_lines(&left.console);
                format!("damage {}; the guest's last lines:\n{console}", region.0)
            };
            outcomes.push((region.0, outcome.with_context(about)?));
        }
        let not_reached = Batch {
            base: self.base,
            regions: not_reached,
        };
        Ok((outcomes, not_reached))
    }

    /// The kernel died of one of them: of which?
    fn halves(&self, judge: &Guest<'_>) -> Result<Vec<(usize, Outcome)>> {
        if let [(number, _)] = self.regions[..] {
            return Ok(vec![(number, Outcome::Crash)]);
        }
        let mut outcomes = Vec::new();
        for half in self.regions.chunks(self.regions.len().div_ceil(2)) {
            let batch = Batch {
                base: self.base,
                regions: half.to_vec(),
            };
            outcomes.extend(batch.outcomes(judge)?);
        }
        Ok(outcomes)
    }

    /// The whole guest hangs at the instance that was to be read last: the others are read without it.
    fn without(&self, judge: &Guest<'_>, console: &str) -> Result<Vec<(usize, Outcome)>> {
        let mut read = console
            .lines()
            .filter_map(|line| line.strip_prefix("drain d"));
        let place: Option<usize> = read.next_back().and_then(|place| place.trim().parse().ok());
        let place = place.filter(|&place| place < self.regions.len());
        let Some(place) = place else {
            bail!(
                "the guest hangs before it reads anything:\n{}",
                last_lines(console)
            );
        };
        let mut others = Batch {
            base: self.base,
            regions: self.regions.clone(),
        };
        let (number, _) = others.regions.remove(place);
        let mut outcomes = others.outcomes(judge)?;
        outcomes.push((number, Outcome::Hang));
        Ok(outcomes)
    }
}

/// What is booted.
#[derive(Debug)]
pub struct Guest<'a> {
    /// The kernel.
    pub kernel: &'a Kernel,
    /// The program `outlive-vm-drain`.
    pub drain: &'a Path,
}

fn is_dead(left: &crate::Outcome) -> bool {
    left.end == End::Reset && left.console.contains("Kernel panic")
}

/// Whether a message tells of a meta or of CPU 0's sub-buffers: those of the other CPUs come when these
/// are brought up, and name no instance. What a busy machine makes the kernel say of its clock comes at
/// any time.
fn is_of_mapping(text: &str) -> bool {
    let is_of_cpu_0 = text.starts_with("Ring buffer") && text.contains("[0]");
    is_of_cpu_0 || text.starts_with("Ring buffer boot meta")
}

/// What the kernel logged while it mapped an instance, without times.
fn messages(dmesg: &str, place: usize) -> Vec<String> {
    let begin = format!("Tracing: mapped boot instance d{place} ");
    let texts = dmesg
        .lines()
        .filter_map(|line| Some(line.split_once("] ")?.1));
    texts
        .skip_while(|text| !text.starts_with(&begin))
        .skip(1)
        .take_while(|text| !text.starts_with("Tracing: mapped boot instance "))
        .filter(|text| is_of_mapping(text))
        .map(str::to_owned)
        .collect()
}

/// Whether a kernel may die of it (`head_buffer` is not checked for its alignment): it gets a boot
/// of its own.
fn is_deadly(base: &Base, region: &[u8]) -> bool {
    let word = |at: usize| u64::from_le_bytes(*region[at..].first_chunk().expect("inside"));
    (0..base.geometry.nr_cpus()).any(|cpu| {
        let (first, head) = (word(base.first_buffer(cpu)), word(base.head_buffer(cpu)));
        let distance = head.wrapping_sub(first);
        distance % 4096 != 0 && distance < u64::from(base.geometry.nr_subbufs()) * 4096
    })
}

/// What a kernel does with each damage of `base`.
///
/// # Errors
///
/// When a guest cannot run, or leaves what no kernel leaves.
pub fn outcomes_of(base: &Base, damages: &[Damage], guest: &Guest<'_>) -> Result<Vec<Outcome>> {
    let mut outcomes = Vec::new();
    for batch in batches(base, damages) {
        outcomes.extend(batch.outcomes(guest)?);
    }
    outcomes.sort_by_key(|&(number, _)| number);
    Ok(outcomes.into_iter().map(|(_, outcome)| outcome).collect())
}

fn batches<'a>(base: &'a Base, damages: &[Damage]) -> Vec<Batch<'a>> {
    let empty = || Batch {
        base,
        regions: Vec::new(),
    };
    let (mut batches, mut batch) = (Vec::new(), empty());
    for (number, damage) in damages.iter().enumerate() {
        let region = apply(&base.region, &damage.edits);
        let mut alone = empty();
        if is_deadly(base, &region) {
            alone.regions.push((number, region));
            batches.push(alone);
            continue;
        }
        batch.regions.push((number, region));
        if batch.cmdline().len() + batch.entry(batch.regions.len()).len() > CMDLINE {
            batches.push(std::mem::replace(&mut batch, empty()));
        }
    }
    batches.push(batch);
    batches.retain(|batch| !batch.regions.is_empty());
    batches
}
