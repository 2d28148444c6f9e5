//! `outlive boot`: keeps what the previous run left, then records until it is told to stop.

use std::io::IsTerminal;
use std::panic::resume_unwind;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result, anyhow};
use outlive_kernel::{
    Access, Capture, Collector, EventName, Instance, InstanceSource, Instances, Pace, Recorder,
    Refresher, RegionSink, RunId, Running, StateId, Tick, Tracefs, clock_pair, nr_cpu_ids,
};
use outlive_ring::extension::{ClockPair, Heartbeat, store_clock_pair};
use outlive_ring::{RawMemory, Region, RunRecord};
use outlive_trace::cmdline::{self, CommandLine, InstanceKind};
use outlive_trace::retention::Policy;
use outlive_trace::start::{area_label, close_run};
use outlive_trace::view::View;
use outlive_trace::{
    Backing, Chores, EventSource, InstanceEntry, Live, Mapping, RegionPlace, Start, Started,
    StateDir, Step, failpoint, generation, skip_unfit,
};

use crate::args::{Args, BootArgs};
use crate::background::{Background, Flusher, StopGuard};
use crate::kernel_instances::{KernelInstances, KernelRecording};
use crate::line::Line;
use crate::{diagnostic, exit, units};

/// Time between two signs of life.
const HEARTBEAT_NS: u64 = 1_000_000_000;
/// Time between two clock pairs.
const CLOCK_PAIR_NS: u64 = 10_000_000_000;

/// Bounds of the host's ring for each CPU, in KiB. The kernel needs a millisecond to allocate 4 MiB, of
/// which the start waits for; and 8 MiB hold 200,000 scheduler events, that is what comes in some hundred
/// milliseconds on a busy CPU.
const HOST_BUFFER_KIB_MIN: u64 = 1024;
const HOST_BUFFER_KIB_MAX: u64 = 8192;

/// Nice value of the thread that takes the events.
const NICE: i32 = -15;

/// Says on standard error what happens, each line in one piece. Nobody may be listening any more:
/// that is no reason to stop recording.
macro_rules! say {
    ($($arg:tt)*) => {{
        use std::io::Write;
        let line = format!("outlive: {}\n", format_args!($($arg)*));
        let _ = std::io::stderr().write_all(line.as_bytes());
    }};
}
pub(crate) use say;

pub(crate) fn boot(args: &Args, boot: &BootArgs) -> Result<u8> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&stop))?;
    }
    if boot.event_pid.is_some() {
        stop_with_stdin(Arc::clone(&stop));
    }
    let line = Line::read(&boot.line)?;
    let mut parsed = line.parse();
    let tracefs = match Tracefs::find() {
        Ok(tracefs) => tracefs,
        Err(_) if is_refused(boot, &line, &parsed) => return Ok(exit::USAGE),
        Err(error) => return Err(error.into()),
    };
    let unknown_area = unknown_area(&line.areas, &parsed).map(|area| {
        let known = area_names(&parsed).join(", ");
        format!("--area {area}: the command line has no area of this name; it has: {known}")
    });
    let nr_cpus = nr_cpu_ids()?;
    let of_kernel = KernelInstances::find(&tracefs, &parsed, &line.areas);
    if line.is_of_kernel {
        of_kernel.restrict(&mut parsed);
    }
    skip_unfit(&mut parsed, &line.areas, nr_cpus, &of_kernel.names());
    let events = resolve_events(&mut parsed, &tracefs)?;
    if is_refused(boot, &line, &parsed) {
        return Ok(exit::USAGE);
    }
    let is_recorded = events.iter().any(|(_, events)| !events.is_empty());
    if !is_recorded && !of_kernel.is_wanted(&events) {
        say!("nothing to record: no instance that can be made has events; nothing was touched");
        return Ok(exit::USAGE);
    }
    if let Some(words) = unknown_area {
        say!("{words}");
        return Ok(exit::USAGE);
    }
    let path = match &args.state {
        Some(path) => path.clone(),
        None => StateDir::default_path()?,
    };
    let state = StateDir::open(&path)?;
    say!("state {}", state.path().display());
    let start = Start {
        state: &state,
        cmdline: &parsed,
        text: &line.text,
        backings: &line.areas,
        nr_cpus,
        source: EventSource::Kernel,
        program: ("outlive", env!("CARGO_PKG_VERSION")),
        of_kernel: &of_kernel.names(),
        skips_instances: !boot.strict,
    };
    let started = start
        .run(|step| tell(&step))
        .map_err(|error| with_what_is_left(error, &state))?;
    let by_kernel = of_kernel.start(&state, &started.lock, &started.run, &events);
    tell_backups(&parsed, &state)?;
    let recording = Recording {
        boot,
        tracefs: &tracefs,
        state: &state,
        cmdline: &parsed,
        events,
    };
    let mut has_failed = by_kernel.has_failed;
    has_failed |= recording.run(started, by_kernel, &stop)?;
    Ok(if has_failed { exit::FAILED } else { exit::DONE })
}

/// Says of a start that found no room where the run before it is: it was not touched.
fn with_what_is_left(error: outlive_trace::Error, state: &StateDir) -> anyhow::Error {
    let configured = match &error {
        outlive_trace::Error::NoSpace { .. } => state.read_instances().unwrap_or_default(),
        _ => return error.into(),
    };
    let has_region = |entry: &&InstanceEntry| {
        RegionPlace::of_instance(entry).is_some_and(|place| View::open_place(&place).is_ok())
    };
    let left = configured.instances.iter().filter(has_region);
    let left: Vec<String> = left
        .map(|entry| format!("outlive show {}", entry.name))
        .collect();
    match left.is_empty() {
        true => error.into(),
        false => anyhow!(
            "{error}; the previous run is left as it is: {}",
            left.join(", ")
        ),
    }
}

/// Shows what is wrong with the line. Whether the start is refused for it.
fn is_refused(boot: &BootArgs, line: &Line, parsed: &CommandLine) -> bool {
    let is_coloured = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let render = match is_coloured {
        true => diagnostic::render_coloured,
        false => diagnostic::render,
    };
    let rendered = render(&line.origin, &line.text, &parsed.diagnostics);
    let _ = std::io::Write::write_all(&mut std::io::stderr(), rendered.as_bytes());
    let is_refused = boot.strict && !parsed.is_clean_for_strict();
    if is_refused {
        say!("refused to start (--strict): nothing was touched");
    }
    is_refused
}

/// Stops the recording when standard input ends, because who wanted it has.
fn stop_with_stdin(stop: Arc<AtomicBool>) {
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        // Relaxed: the flag carries no data with it.
        stop.store(true, Ordering::Relaxed);
    });
}

/// An area of the options that no instance of the command line has.
pub(crate) fn unknown_area<'a>(
    areas: &'a [(String, Backing)],
    cmdline: &CommandLine,
) -> Option<&'a str> {
    let names = area_names(cmdline);
    let mut given = areas.iter().map(|(name, _)| name.as_str());
    given.find(|name| names.iter().all(|known| known != name))
}

/// The areas that a command line reserves, and those that its other instances live in.
fn area_names(cmdline: &CommandLine) -> Vec<String> {
    let reserved = cmdline.reserve_mem.iter().map(|area| area.label.clone());
    let mut names: Vec<_> = reserved.collect();
    let of_instances = cmdline.instances.iter().filter_map(area_label);
    for label in of_instances {
        if !names.contains(&label) {
            names.push(label);
        }
    }
    names
}

/// The events of each instance, by its name.
type EventsByInstance = Vec<(String, Vec<EventName>)>;

/// As a start resolves them, for those who only look: `None` where the kernel's events cannot be seen.
pub(crate) fn look_for_events(cmdline: &mut CommandLine) -> Option<EventsByInstance> {
    let tracefs = Tracefs::find_mounted().ok()?;
    resolve_events(cmdline, &tracefs).ok()
}

fn resolve_events(cmdline: &mut CommandLine, tracefs: &Tracefs) -> Result<EventsByInstance> {
    let available: Vec<(String, String)> = tracefs
        .available_events()?
        .into_iter()
        .map(|name| (name.system, name.event))
        .collect();
    let mut resolved = Vec::new();
    for instance in &cmdline.instances {
        let (events, problems) = cmdline::resolve(&instance.events, &available);
        cmdline.diagnostics.extend(problems);
        let events = events
            .iter()
            .map(|(system, event)| EventName::new(system, event))
            .collect();
        resolved.push((instance.name.clone(), events));
    }
    Ok(resolved)
}

pub(crate) fn tell(step: &Step<'_>) {
    match step {
        Step::Tidied(tidied) => {
            for path in &tidied.completed {
                say!(
                    "completed what an interrupted start had begun: {}",
                    path.display()
                );
            }
            for path in &tidied.lost {
                say!(
                    "gone with the tmpfs when the machine went down, before it was copied: {}",
                    path.display()
                );
            }
            for path in &tidied.left {
                say!("left as it is, its name is taken: {}", path.display());
            }
        }
        Step::Reserved(area) => {
            let place = area.path().map_or_else(
                || area.backing().to_string(),
                |path| path.display().to_string(),
            );
            say!(
                "area {}: {} at {place}",
                area.name(),
                units::size(area.ring_bytes())
            );
        }
        Step::Kept(generation, verdict) => {
            say!(
                "{}: previous run kept as {generation} ({verdict})",
                generation.instance()
            );
        }
        Step::NotUnderstood(generation, why) => {
            say!("{generation} is kept as it is, and cannot be shown: {why}")
        }
        Step::NothingToKeep(name) => say!("{name}: the previous run had recorded nothing"),
        Step::Skipped(name, why) => say!("{name}: skipped, the others go on: {why}"),
        _ => {}
    }
}

/// Says what each backup names: what this start has kept, or an earlier one.
fn tell_backups(cmdline: &CommandLine, state: &StateDir) -> Result<()> {
    for instance in &cmdline.instances {
        let InstanceKind::Backup { source } = &instance.kind else {
            continue;
        };
        match generation::list_instance(state, source)?.last() {
            Some(kept) => say!("{}: backup of {source}, read-only: {kept}", instance.name),
            None => say!("{}: nothing of {source} to back up yet", instance.name),
        }
    }
    Ok(())
}

/// What the recording needs beside what the start brought into being.
struct Recording<'a> {
    boot: &'a BootArgs,
    tracefs: &'a Tracefs,
    state: &'a StateDir,
    cmdline: &'a CommandLine,
    events: EventsByInstance,
}

impl Recording<'_> {
    /// Records until told to stop. Whether an instance had to be skipped.
    fn run(
        &self,
        started: Started,
        mut by_kernel: KernelRecording,
        stop: &AtomicBool,
    ) -> Result<bool> {
        let Started {
            before,
            lock,
            run,
            live,
            skipped: not_made,
        } = started;
        let left = not_made.iter().chain(&self.cmdline.skipped);
        let left: Vec<_> = left.map(String::as_str).collect();
        let policy = self.policy()?;
        let instances = Instances::new(
            self.tracefs,
            StateId(u64::from_str_radix(self.state.id(), 16)?),
        );
        // Before the catalogs: what is loaded meanwhile is then new to it.
        let refresher = Refresher::new(self.tracefs);
        let mut skipped = Skipped::default();
        let run_id = RunId(u128::from_be_bytes(run.run_id.0));
        let (made, running) = self.make(&live, &instances, run_id, &mut skipped);
        failpoint::reached("boot-laid-out");
        let prepared = made.iter().filter_map(|made| {
            skipped.unless_failed(made.live, self.prepare(made, &running, &run))
        });
        let prepared: Vec<Recorded<'_>> = prepared.collect();
        let has_skipped = !not_made.is_empty() || !skipped.0.is_empty();
        skipped.tell(prepared.is_empty() && by_kernel.is_empty() && !live.is_empty())?;
        failpoint::reached("boot-prepared");
        let background = Background {
            collector: Collector {
                tracefs: self.tracefs,
                instances: &instances,
                state: self.state,
                lock: &lock,
                run: run_id,
                sequence: run.run_sequence,
                ordinary: &self.ordinary(&before),
                left: &left,
            },
            chores: Chores::new(self.state, live.iter().map(|live| &live.area)),
            policy,
            kept: live
                .iter()
                .filter_map(|live| live.kept.clone())
                .chain(by_kernel.kept.drain(..))
                .collect(),
            stop,
        };
        if prepared.is_empty() {
            let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
            std::thread::scope(|scope| {
                scope.spawn(|| background.run());
                if !by_kernel.is_empty() {
                    by_kernel.wait(stop);
                    say!("ended; the kernel goes on recording");
                }
            });
            return Ok(has_skipped);
        }
        let mappings = prepared.iter().map(|one| one.made.live.mapping());
        let mappings: Vec<&Mapping> = mappings.collect();
        for one in &prepared {
            let Made {
                live,
                capture,
                host,
                ..
            } = one.made;
            let failed = capture.start(host);
            for (name, error) in &failed {
                say!("{}: cannot enable {name}: {error}", capture.name);
            }
            self.tell_recording(live, capture.events.len() - failed.len());
        }
        let recording = Hosts::of(prepared);
        let flusher = self.boot.flush.map(Flusher::new);
        let signs = Signs::begin(&recording, flusher.as_ref(), &mut by_kernel, refresher);
        let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
        failpoint::reached("boot-recording");
        let hosts = recording.hosts.clone();
        std::thread::scope(|scope| {
            let _stop_flushing = StopGuard(flusher.as_ref());
            scope.spawn(|| {
                for mapping in &mappings {
                    mapping.advise_read_around();
                }
                background.run();
            });
            if let Some(flusher) = &flusher {
                scope.spawn(|| flusher.run(&mappings));
            }
            record(self.boot, recording, signs, stop)
        })
        .context("recording ended; what the host's ring still holds is kept by the next start")?;
        remove_all(hosts);
        say!("closed cleanly");
        Ok(has_skipped)
    }

    /// Makes the host instances and lays out the regions: these, and what else needs no tracefs, while
    /// the kernel takes its time for the instances.
    fn make<'l>(
        &self,
        live: &'l [Live],
        instances: &Instances,
        run: RunId,
        skipped: &mut Skipped,
    ) -> (Vec<Made<'l>>, Running) {
        let captures: Vec<_> = live.iter().map(|live| self.capture(live)).collect();
        let (hosts, (laid_out, running)) = std::thread::scope(|scope| {
            let meanwhile = scope.spawn(|| {
                let laid_out: Vec<_> = live.iter().map(Live::lay_out).collect();
                (laid_out, Running::now())
            });
            let create = |capture: &Capture| capture.create(instances, run);
            let hosts: Vec<_> = captures.iter().map(create).collect();
            let meanwhile = meanwhile.join();
            (
                hosts,
                meanwhile.unwrap_or_else(|panic| resume_unwind(panic)),
            )
        });
        let running = running.unwrap_or_else(|error| {
            say!("names of tasks and modules from before the start are missing: {error}");
            Running::default()
        });
        let mut made = Vec::new();
        let parts = hosts.into_iter().zip(laid_out);
        for ((live, capture), (host, region)) in live.iter().zip(captures).zip(parts) {
            let host = skipped.unless_failed(live, host);
            match (host, skipped.unless_failed(live, region)) {
                (Some(host), Some(region)) => made.push(Made {
                    live,
                    capture,
                    host,
                    region,
                }),
                (host, _) => remove_all(host.into_iter().collect()),
            }
        }
        (made, running)
    }

    /// Writes what a region needs before its first event, and opens the rings of its host instance,
    /// which is removed where this fails.
    fn prepare<'r>(
        &self,
        made: &'r Made<'r>,
        running: &Running,
        run: &RunRecord,
    ) -> Result<Recorded<'r>, outlive_kernel::Error> {
        let Made { host, region, .. } = made;
        let mut run = RunRecord {
            instance: made.live.instance.name.clone(),
            poll_interval_ns: units::nanos(self.boot.interval),
            ..run.clone()
        };
        let sink = made
            .capture
            .prepare(self.tracefs, host, running, region, &mut run);
        let open = || InstanceSource::open(host.clone(), Access::default());
        match sink.and_then(|sink| Ok((sink, open()?))) {
            Ok((sink, source)) => Ok(Recorded {
                made,
                sink,
                run,
                source,
            }),
            Err(error) => {
                remove_all(vec![host.clone()]);
                Err(error)
            }
        }
    }

    fn capture(&self, live: &Live) -> Capture {
        let name = &live.instance.name;
        let events = self.events.iter().find(|(instance, _)| instance == name);
        let per_cpu =
            live.layout().ring().size() / u64::from(live.layout().ring().nr_cpus()) / 1024;
        Capture {
            name: name.clone(),
            events: events.map(|(_, events)| events.clone()).unwrap_or_default(),
            clock: self
                .cmdline
                .trace_clock
                .map(|clock| clock.name().to_owned()),
            options: self
                .cmdline
                .trace_options
                .iter()
                .map(|option| (option.name.to_owned(), option.is_on))
                .collect(),
            ring_kib_per_cpu: self
                .boot
                .host_buffer
                .unwrap_or((per_cpu / 4).clamp(HOST_BUFFER_KIB_MIN, HOST_BUFFER_KIB_MAX)),
            event_pid: self.boot.event_pid,
            is_traceoff: live.instance.flags.is_traceoff,
        }
    }

    fn tell_recording(&self, live: &Live, events: usize) {
        let off = if live.instance.flags.is_traceoff {
            ", switched off (traceoff)"
        } else {
            ""
        };
        say!(
            "{}: recording {events} events on {} CPUs, polled every {}{off}",
            live.instance.name,
            live.layout().ring().nr_cpus(),
            units::span(units::nanos(self.boot.interval)),
        );
    }

    /// Instances whose events are gone with the program: those that were ordinary when they
    /// recorded, and still are. Where that is in doubt, events are kept.
    fn ordinary(&self, before: &outlive_trace::Instances) -> Vec<&str> {
        let was_ordinary = |name: &str| {
            let mut entries = before.instances.iter();
            entries.any(|entry| entry.name == name && entry.kind == "ordinary")
        };
        let instances = self.cmdline.instances.iter();
        instances
            .filter(|instance| matches!(instance.kind, InstanceKind::Ordinary))
            .map(|instance| instance.name.as_str())
            .filter(|name| was_ordinary(name))
            .collect()
    }

    fn policy(&self) -> Result<Policy> {
        let mut policy = Policy::default_for(self.state)?;
        policy.count = Some(self.boot.keep);
        if let Some(bytes) = self.boot.keep_bytes {
            policy.bytes = Some(bytes);
        }
        policy.age_ns = self.boot.keep_age.map(units::nanos);
        Ok(policy)
    }
}

/// An instance that exists, here and at the host, and of which nothing is written yet.
struct Made<'l> {
    live: &'l Live,
    capture: Capture,
    host: Instance,
    region: Region<RawMemory<'l>>,
}

/// An instance that is ready to record.
struct Recorded<'r> {
    made: &'r Made<'r>,
    sink: RegionSink<'r, RawMemory<'r>>,
    run: RunRecord,
    source: InstanceSource,
}

/// What is recorded, by instance.
struct Hosts<'r> {
    hosts: Vec<Instance>,
    sinks: Vec<RegionSink<'r, RawMemory<'r>>>,
    runs: Vec<RunRecord>,
    recorder: Recorder,
}

impl<'r> Hosts<'r> {
    fn of(recorded: Vec<Recorded<'r>>) -> Self {
        let (mut hosts, mut sinks, mut runs) = (Vec::new(), Vec::new(), Vec::new());
        let mut sources = Vec::new();
        for one in recorded {
            hosts.push(one.made.host.clone());
            sinks.push(one.sink);
            runs.push(one.run);
            sources.push(one.source);
        }
        Self {
            hosts,
            sinks,
            runs,
            recorder: Recorder::of_sources(sources),
        }
    }
}

/// Instances that turned out to be impossible. The others go on without them.
#[derive(Default)]
struct Skipped(Vec<(String, anyhow::Error)>);

impl Skipped {
    fn unless_failed<T, E: Into<anyhow::Error>>(
        &mut self,
        live: &Live,
        made: Result<T, E>,
    ) -> Option<T> {
        match made {
            Ok(made) => Some(made),
            Err(error) => {
                self.0.push((live.instance.name.clone(), error.into()));
                None
            }
        }
    }

    /// Says which they are; where none is left, the first one's error is that of the start.
    fn tell(mut self, is_none_left: bool) -> Result<()> {
        if is_none_left && !self.0.is_empty() {
            return Err(self.0.swap_remove(0).1);
        }
        for (name, error) in &self.0 {
            say!(
                "{name}: skipped, the others go on: {}",
                crate::message(error)
            );
        }
        Ok(())
    }
}

/// Host instances that are not needed any more. One that stays is collected by the next start.
fn remove_all(hosts: Vec<Instance>) {
    for host in hosts {
        let name = host.name().to_string();
        if let Err(error) = host.remove() {
            say!("the host instance {name} stays until the next start: {error}");
        }
    }
}

/// The signs of life in each region, heartbeat and clock pairs, and what is noted of what is loaded and
/// of the kernel's own instances.
struct Signs<'f> {
    flusher: Option<&'f Flusher>,
    by_kernel: &'f mut KernelRecording,
    refresher: Refresher,
    pairs: u64,
    last_beat_ns: u64,
    last_pair_ns: u64,
}

impl<'f> Signs<'f> {
    fn begin(
        recording: &Hosts<'_>,
        flusher: Option<&'f Flusher>,
        by_kernel: &'f mut KernelRecording,
        refresher: Refresher,
    ) -> Self {
        let now = outlive_trace::clock::monotonic_ns();
        let mut signs = Self {
            flusher,
            by_kernel,
            refresher,
            pairs: 0,
            last_beat_ns: 0,
            last_pair_ns: now,
        };
        let regions = recording.sinks.iter().map(RegionSink::region);
        signs.pair(&recording.hosts, regions);
        signs
    }

    /// Stores a clock pair. Without one, the reader lacks a wall clock but no event.
    fn pair<'r>(
        &mut self,
        hosts: &[Instance],
        regions: impl Iterator<Item = &'r Region<RawMemory<'r>>>,
    ) {
        for (host, region) in hosts.iter().zip(regions) {
            let pair = host.cpus().ok().and_then(|cpus| {
                cpus.first()
                    .and_then(|&cpu| clock_pair(&host.stats(cpu).ok()?).ok())
            });
            let (Some(pair), Some(layout)) = (pair, region.extension()) else {
                continue;
            };
            let pair = ClockPair {
                trace: pair.trace,
                monotonic_ns: pair.monotonic_ns,
                boottime_ns: pair.boottime_ns,
                realtime_ns: pair.realtime_ns,
                error_ns: pair.error_ns,
            };
            store_clock_pair(layout, region.memory(), self.pairs, pair);
        }
        self.pairs += 1;
    }

    fn tick(
        &mut self,
        hosts: &[Instance],
        sinks: &mut [RegionSink<'_, RawMemory<'_>>],
        tick: &Tick,
    ) {
        if tick.now_ns.saturating_sub(self.last_beat_ns) >= HEARTBEAT_NS {
            self.last_beat_ns = tick.now_ns;
            let now = outlive_trace::clock::read();
            for sink in sinks.iter_mut() {
                let catalog_dropped = sink.catalog().map_or(0, |catalog| catalog.dropped());
                let beat = Heartbeat {
                    monotonic_ns: now.monotonic_ns,
                    boottime_ns: now.boottime_ns,
                    realtime_ns: now.realtime_ns,
                    max_delay_ns: tick.delays.max_ns,
                    polls: tick.delays.polls,
                    catalog_dropped,
                    max_unflushed_ns: self.flusher.map_or(0, Flusher::max_unflushed_ns),
                    ..Heartbeat::default()
                };
                if let Some(layout) = sink.region().extension() {
                    beat.store(layout, sink.region().memory());
                }
            }
        }
        if tick.now_ns.saturating_sub(self.last_pair_ns) >= CLOCK_PAIR_NS {
            self.last_pair_ns = tick.now_ns;
            self.pair(hosts, sinks.iter().map(RegionSink::region));
        }
        let catalogs = sinks.iter_mut().filter_map(RegionSink::catalog);
        self.refresher.tick(tick.now_ns, catalogs);
        self.by_kernel.tick(tick.now_ns);
    }
}

/// Polls until told to stop, then takes the last events and closes the regions.
fn record(
    boot: &BootArgs,
    recording: Hosts<'_>,
    mut signs: Signs<'_>,
    stop: &AtomicBool,
) -> Result<()> {
    let Hosts {
        hosts,
        mut sinks,
        mut runs,
        mut recorder,
    } = recording;
    // A recorder that gets no turn loses what the host's ring cannot hold; it needs little of the
    // processor. Only this thread; refused where that is not permitted.
    let _ = rustix::process::setpriority_process(None, NICE);
    let mut pace = Pace::default();
    pace.interval = boot.interval;
    let polled = recorder.run(&mut sinks, stop, &pace, |sinks, tick| {
        signs.tick(&hosts, sinks, tick)
    });
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
    let delays = *recorder.delays();
    let finished = polled.and_then(|()| finish(recorder, &hosts, &mut sinks));
    sinks.iter_mut().for_each(RegionSink::close);
    // Not marked as closed then: the host's rings are left, and hold what is not here.
    finished?;
    signs.pair(&hosts, sinks.iter().map(RegionSink::region));
    for (sink, run) in sinks.iter().zip(&mut runs) {
        if let Some(layout) = sink.region().extension() {
            close_run(run, layout, sink.region().memory());
        }
    }
    say!(
        "{} looks at the host's ring, {} apart at most",
        delays.polls,
        units::span(delays.max_ns)
    );
    Ok(())
}

/// Stops the host instances, and takes their last events.
fn finish(
    recorder: Recorder,
    hosts: &[Instance],
    sinks: &mut [RegionSink<'_, RawMemory<'_>>],
) -> Result<(), outlive_kernel::Error> {
    for host in hosts {
        host.set_tracing_on(false)?;
    }
    for (source, sink) in recorder.into_sources().iter_mut().zip(sinks) {
        source.finish(sink)?;
        if sink.refused() > 0 {
            say!(
                "{} pieces of sub-buffers were no whole records",
                sink.refused()
            );
        }
    }
    Ok(())
}
