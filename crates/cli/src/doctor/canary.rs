//! Canaries: regions with events that are known, written by a process that dies and read by a later
//! start.
//!
//! They are made by the start itself, in a state folder of their own (`canary` in the user's), so
//! that what is proven is what a recorder goes through. A canary of a file area lies beside that
//! area, on the same file system; one in fixed memory takes the place of what was there, which is
//! kept as a generation first.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use outlive_kernel::CatalogWriter;
use outlive_ring::RunRecord;
use outlive_ring::extension::{ClockPair, store_clock_pair};
use outlive_trace::cmdline::{CommandLine, InstanceKind};
use outlive_trace::start::area_label;
use outlive_trace::view::View;
use outlive_trace::{
    AreaRequest, Backing, EventSource, Generation, Live, Start, Started, StateDir, Step, clock,
};
use serde::{Deserialize, Serialize};

use super::judge::is_fixed;

/// Name of the state folder, in the user's.
const FOLDER: &str = "canary";
/// Events on each CPU: some closed sub-buffers and an open one.
const EVENTS_PER_CPU: u32 = 500;
/// Bytes of a region in a file, for each CPU: a canary need not be as large as the area.
const FILE_BYTES_PER_CPU: u64 = 256 << 10;
const SYSTEM: &str = "outlive";
const ID: u16 = 30;
const FORMAT: &str = "name: canary\nID: 30\nformat:\n\
    \tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;\n\
    \tfield:unsigned char common_flags;\toffset:2;\tsize:1;\tsigned:0;\n\
    \tfield:unsigned char common_preempt_count;\toffset:3;\tsize:1;\tsigned:0;\n\
    \tfield:int common_pid;\toffset:4;\tsize:4;\tsigned:1;\n\n\
    \tfield:unsigned int number;\toffset:8;\tsize:4;\tsigned:0;\n\
    \tfield:unsigned int cpu;\toffset:12;\tsize:4;\tsigned:0;\n\
    \tfield:unsigned long run;\toffset:16;\tsize:8;\tsigned:0;\n\n\
    print fmt: \"number=%u cpu=%u run=%lx\", REC->number, REC->cpu, REC->run\n";

/// Which canaries there are to be.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Plan {
    pub(crate) canaries: Vec<Canary>,
}

/// One canary.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Canary {
    /// Label of its area, and name of its instance: `c0`.
    pub(crate) label: String,
    /// Bytes of its area.
    bytes: u64,
    /// Where it is.
    #[serde(with = "backing_text")]
    pub(crate) place: Backing,
    /// The user's area, and its backing as in `--area`.
    pub(crate) area: String,
    pub(crate) backing: String,
}

impl Canary {
    /// Whether it is in memory that a recorder may have.
    pub(crate) fn is_fixed(&self) -> bool {
        is_fixed(&self.place)
    }
}

impl Plan {
    /// Canaries for these areas, with the user's state at `state`.
    pub(crate) fn new(requests: &[AreaRequest], state: &Path, nr_cpus: u32) -> Result<Self> {
        let canary = |(at, request): (usize, &AreaRequest)| {
            let place = canary_place(request, state);
            let bytes = match is_fixed(&place) {
                true => request.total_bytes()?,
                false => FILE_BYTES_PER_CPU * u64::from(nr_cpus),
            };
            Ok(Canary {
                label: format!("c{at}"),
                bytes,
                place,
                area: request.name().to_owned(),
                backing: request.backing().to_string(),
            })
        };
        let canaries: Result<_> = requests.iter().enumerate().map(canary).collect();
        Ok(Self {
            canaries: canaries?,
        })
    }

    /// The command line of a start that makes them.
    pub(crate) fn text(&self) -> String {
        let part = |Canary { label, bytes, .. }: &Canary| {
            format!(
                "reserve_mem={bytes}:4096:{label} trace_instance={label}@{label},{SYSTEM}:canary"
            )
        };
        let parts: Vec<String> = self.canaries.iter().map(part).collect();
        parts.join(" ")
    }

    /// The backings, as a start takes them.
    pub(crate) fn backings(&self) -> Vec<(String, Backing)> {
        let pair = |canary: &Canary| (canary.label.clone(), canary.place.clone());
        self.canaries.iter().map(pair).collect()
    }

    /// Removes what the canaries left behind. Fixed memory is left as it is.
    pub(crate) fn remove(&self, state: &Path) -> Result<()> {
        let folder = folder(state);
        if let Some(canary_state) = StateDir::open_existing(&folder)? {
            let shm = PathBuf::from(format!("/dev/shm/outlive-{}", canary_state.id()));
            remove(&shm)?;
        }
        for canary in &self.canaries {
            if !canary.is_fixed()
                && let Some(path) = canary.place.path()
            {
                remove(path)?;
            }
        }
        remove(&folder)
    }
}

/// Beside a file, in the same memory.
fn canary_place(request: &AreaRequest, state: &Path) -> Backing {
    let beside = || {
        let file = request.file_in(state).unwrap_or_default();
        file.with_file_name(format!("outlive-canary-{}", request.name()))
    };
    match request.backing() {
        Backing::Path(_) => Backing::Path(beside()),
        Backing::Tmpfs(Some(_)) => Backing::Tmpfs(Some(beside())),
        Backing::Hugetlbfs(_) => Backing::Hugetlbfs(beside()),
        Backing::DaxFile(_) => Backing::DaxFile(beside()),
        same => same.clone(),
    }
}

fn remove(path: &Path) -> Result<()> {
    let result = match path.is_dir() {
        true => std::fs::remove_dir_all(path),
        false => std::fs::remove_file(path),
    };
    match result {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

/// The canaries' state folder.
pub(crate) fn folder(state: &Path) -> PathBuf {
    state.join(FOLDER)
}

/// Writes the canaries of a plan's line, in the process that is to die. Returns the run that wrote
/// them.
pub(crate) fn write(
    state: &Path,
    text: &str,
    backings: &[(String, Backing)],
    nr_cpus: u32,
) -> Result<String> {
    let started = start(state, text, backings, nr_cpus, |_| {})?;
    for live in &started.live {
        write_one(live, &started.run, nr_cpus)?;
    }
    let run_id = started.run.run_id.to_string();
    // Whoever dies now leaves everything locked and open, as a recorder does.
    std::mem::forget(started);
    Ok(run_id)
}

/// A start as a recorder's, in the canaries' state folder.
fn start(
    state: &Path,
    text: &str,
    backings: &[(String, Backing)],
    nr_cpus: u32,
    tell: impl FnMut(Step<'_>),
) -> Result<Started> {
    let start = Start {
        state: &StateDir::open(&folder(state))?,
        cmdline: &CommandLine::parse(text),
        text,
        backings,
        nr_cpus,
        source: EventSource::Kernel,
        program: ("outlive doctor", env!("CARGO_PKG_VERSION")),
        of_kernel: &[],
        skips_instances: false,
    };
    Ok(start.run(tell)?)
}

fn write_one(live: &Live, run: &RunRecord, nr_cpus: u32) -> Result<()> {
    let region = live.lay_out()?;
    let (layout, memory) = (live.layout(), *region.memory());
    let run = RunRecord {
        sequence: 1,
        instance: live.instance.name.clone(),
        clock: "mono".into(),
        ..run.clone()
    };
    run.store(layout, &memory);
    let now = clock::read();
    let pair = ClockPair {
        trace: now.monotonic_ns,
        monotonic_ns: now.monotonic_ns,
        boottime_ns: now.boottime_ns,
        realtime_ns: now.realtime_ns,
        error_ns: 1000,
    };
    store_clock_pair(layout, &memory, 0, pair);
    CatalogWriter::new(layout, memory).format(SYSTEM, FORMAT);
    for cpu in 0..nr_cpus {
        let mut writer = region.writer(cpu).context("the region has no such CPU")?;
        for number in 0..EVENTS_PER_CPU {
            let payload = payload(&run, cpu, number);
            let time = now.monotonic_ns + u64::from(number);
            let event = writer.reserve(payload.len(), time)?;
            writer.write(&event, 0, &payload);
            writer.commit(event);
        }
    }
    Ok(())
}

/// The event with this number. Nothing but the writer's run has it.
fn payload(run: &RunRecord, cpu: u32, number: u32) -> [u8; 24] {
    let mut bytes = [0; 24];
    bytes[..2].copy_from_slice(&ID.to_le_bytes());
    bytes[4..8].copy_from_slice(&run.pid.to_le_bytes());
    bytes[8..12].copy_from_slice(&number.to_le_bytes());
    bytes[12..16].copy_from_slice(&cpu.to_le_bytes());
    bytes[16..].copy_from_slice(&run.run_id.0[..8]);
    bytes
}

/// How many events the canaries of this machine have.
pub(crate) fn events_written(nr_cpus: u32) -> u64 {
    u64::from(nr_cpus) * u64::from(EVENTS_PER_CPU)
}

/// How many events of a run's canary a generation has: each at its place, whole, and once.
pub(crate) fn count(generation: &Generation, run_id: &str) -> u64 {
    let Ok((view, _)) = View::open_with_tail(&generation.region_path(), &generation.tail_path())
    else {
        return 0;
    };
    let Some(run) = view
        .run
        .as_ref()
        .filter(|run| run.run_id.to_string() == run_id)
    else {
        return 0;
    };
    let mut next = vec![0; view.cpus.len()];
    let mut found = 0;
    let mut events = view.events(None);
    while let Some(event) = events.next_event() {
        let Some(next) = next.get_mut(event.cpu as usize) else {
            continue;
        };
        let number = event
            .payload
            .get(8..12)
            .and_then(|bytes| bytes.try_into().ok());
        let number = number.map_or(u32::MAX, u32::from_le_bytes);
        if number >= *next
            && number < EVENTS_PER_CPU
            && event.payload.starts_with(&payload(run, event.cpu, number))
        {
            *next = number + 1;
            found += 1;
        }
    }
    found
}

/// Starts again where the canaries are, as a recorder would, and counts what it keeps of them: one
/// number for each. Where a canary is another run's, nothing is counted.
pub(crate) fn read_back(state: &Path, plan: &Plan, run_id: &str, nr_cpus: u32) -> Result<Vec<u64>> {
    let mut counts = vec![0; plan.canaries.len()];
    let place = |name: &str| plan.canaries.iter().position(|canary| canary.label == name);
    let started = start(state, &plan.text(), &plan.backings(), nr_cpus, |step| {
        if let Step::Kept(generation, _) = step
            && let Some(at) = place(generation.instance())
        {
            counts[at] = count(generation, run_id);
        }
    })?;
    // Fixed memory goes back blank, but only where a canary was: else it is not ours.
    for live in &started.live {
        if place(&live.instance.name).is_some_and(|at| counts[at] > 0) {
            live.lay_out()?;
        }
    }
    Ok(counts)
}

/// A backing as its text.
mod backing_text {
    use outlive_trace::Backing;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(backing: &Backing, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(backing)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Backing, D::Error> {
        let text = String::deserialize(from)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// Of a command line what records in one of these areas, with its backups.
pub(crate) fn only(cmdline: &CommandLine, areas: &[&str]) -> CommandLine {
    let mut only = cmdline.clone();
    let is_in = |instance: &outlive_trace::cmdline::Instance| {
        area_label(instance).is_some_and(|label| areas.contains(&&*label))
    };
    let names: Vec<String> = only
        .instances
        .iter()
        .filter(|instance| is_in(instance))
        .map(|instance| instance.name.clone())
        .collect();
    only.instances.retain(|instance| match &instance.kind {
        InstanceKind::Backup { source } => names.contains(source),
        _ => names.contains(&instance.name),
    });
    only
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn canary_of_a_file_lies_beside_it_and_never_in_it() {
        let state = Path::new("/nonexistent/state");
        let place = |backing: &str| {
            let request = AreaRequest::new("trace", backing.parse().unwrap(), 12 << 20);
            canary_place(&request, state).to_string()
        };
        assert_eq!(place("file"), "file");
        assert_eq!(place("file:/x/area"), "file:/x/outlive-canary-trace");
        assert_eq!(
            place("tmpfs:/dev/shm"),
            "tmpfs:/dev/shm/outlive-canary-trace"
        );
        assert_eq!(place("dax:/pmem/area"), "dax:/pmem/outlive-canary-trace");
        assert_eq!(place("mem:0x1000"), "mem:0x1000");
    }

    #[test]
    fn lines_of_a_plan_are_read_without_a_complaint() {
        let request = |name, backing: &str| {
            AreaRequest::new(name, backing.parse().unwrap(), 12 << 20).with_extension(8192)
        };
        let requests = [request("trace", "file"), request("b", "mem:0x10000000")];
        let plan = Plan::new(&requests, Path::new("/x"), 2).unwrap();
        assert!(plan.canaries[1].is_fixed() && !plan.canaries[0].is_fixed());
        let cmdline = CommandLine::parse(&plan.text());
        assert!(cmdline.is_clean_for_strict(), "{:?}", cmdline.diagnostics);
        let sizes: Vec<u64> = cmdline.reserve_mem.iter().map(|area| area.size).collect();
        assert_eq!(sizes, [512 << 10, (12 << 20) + 8192]);
        let stored = serde_json::to_string(&plan).unwrap();
        assert_eq!(serde_json::from_str::<Plan>(&stored).unwrap(), plan);
    }

    #[test]
    fn canary_that_nobody_wrote_or_another_run_wrote_is_not_counted() {
        let folder = tempfile::tempdir().unwrap();
        let request = AreaRequest::new("trace", Backing::File, 12 << 20);
        let plan = Plan::new(&[request], folder.path(), 2).unwrap();
        assert_eq!(read_back(folder.path(), &plan, "x", 2).unwrap(), [0]);
        let run = write_and_let_go(folder.path(), &plan);
        assert_eq!(read_back(folder.path(), &plan, "x", 2).unwrap(), [0]);
        let again = write_and_let_go(folder.path(), &plan);
        assert_ne!(run, again);
        assert_eq!(read_back(folder.path(), &plan, &again, 2).unwrap(), [1000]);
        plan.remove(folder.path()).unwrap();
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    /// As [`write`], but what it locks is free when it returns: nobody dies here.
    fn write_and_let_go(state: &Path, plan: &Plan) -> String {
        let started = start(state, &plan.text(), &plan.backings(), 2, |_| {}).unwrap();
        write_one(&started.live[0], &started.run, 2).unwrap();
        started.run.run_id.to_string()
    }
}
