//! What is left on the machine: nothing outside of our instances changes, and nothing is lost with
//! the process that follows.
#![allow(missing_docs, unreachable_pub, dead_code, reason = "tests")]

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use common::collect::{Collected, Page};
use common::{Load, OwnState, enable_sched, tracefs};
use outlive_kernel::{
    Access, CpuId, Error, InstanceSource, Pace, Recorder, Tracefs, clock_pair, drain,
};

/// Files that say how a tracefs or an instance is set, wherever they exist.
const KNOBS: [&str; 14] = [
    "tracing_on",
    "trace_clock",
    "trace_options",
    "buffer_size_kb",
    "buffer_percent",
    "buffer_subbuf_size_kb",
    "current_tracer",
    "set_event",
    "set_event_pid",
    "set_ftrace_filter",
    "tracing_cpumask",
    "saved_cmdlines_size",
    "tracing_thresh",
    "events/enable",
];

fn snapshot(folder: &Path) -> BTreeMap<String, String> {
    let read = |file: &&str| {
        Some((
            file.to_string(),
            fs::read_to_string(folder.join(file)).ok()?,
        ))
    };
    KNOBS.iter().filter_map(read).collect()
}

/// Another user's instance, gone with the test.
struct Foreign(std::path::PathBuf);

impl Foreign {
    fn create(tracefs: &Tracefs) -> Self {
        let name = format!("instances/foreign.{}", std::process::id());
        let folder = tracefs.root().join(name);
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("events/sched/sched_wakeup/enable"), "1").unwrap();
        fs::write(folder.join("buffer_size_kb"), "64").unwrap();
        Self(folder)
    }
}

impl Drop for Foreign {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}

#[test]
fn other_tracing_on_the_machine_is_left_as_it_was() {
    let Some((tracefs, _one_at_a_time)) = tracefs("other_tracing") else {
        return;
    };
    let foreign = Foreign::create(&tracefs);
    let before = (snapshot(tracefs.root()), snapshot(&foreign.0));
    assert!(before.0.len() > 8 && before.1.len() > 8);
    let state = OwnState::new(&tracefs);
    let instance = state.create("x");
    instance.set_buffer_size_kb(256).unwrap();
    instance.set_trace_clock("mono").unwrap();
    instance.set_option("overwrite", true).unwrap();
    instance.set_option("hash-ptr", false).unwrap();
    let mut source = InstanceSource::open(instance.clone(), Access::MapOrRead).unwrap();
    enable_sched(&tracefs, &instance);
    let mut sink = Collected::default();
    while source.poll(&mut sink).unwrap().sum.events == 0 {}
    source.tend().unwrap();
    drop(source);
    assert_eq!((snapshot(tracefs.root()), snapshot(&foreign.0)), before);
    drain(&instance, &mut Collected::default()).unwrap();
    instance.remove().unwrap();
    assert_eq!((snapshot(tracefs.root()), snapshot(&foreign.0)), before);
}

#[test]
fn busy_instance_is_not_removed_and_its_holder_is_named() {
    let Some((tracefs, _one_at_a_time)) = tracefs("busy_instance") else {
        return;
    };
    let state = OwnState::new(&tracefs);
    let instance = state.create("x");
    let source = InstanceSource::open(instance.clone(), Access::MapOrRead).unwrap();
    let Err(Error::Busy { holders, .. }) = instance.clone().remove() else {
        panic!("removed")
    };
    assert!(
        holders
            .iter()
            .any(|holder| holder.pid == std::process::id()),
        "{holders:?}"
    );
    drop(source);
    instance.remove().unwrap();
}

#[test]
fn foreign_consumer_is_noticed_and_following_goes_on() {
    let Some((tracefs, _one_at_a_time)) = tracefs("foreign_consumer") else {
        return;
    };
    let state = OwnState::new(&tracefs);
    let instance = state.create("x");
    instance.set_buffer_size_kb(64).unwrap();
    let mut source = InstanceSource::open(instance.clone(), Access::MapOrRead).unwrap();
    let mut consumer = InstanceSource::open(instance.clone(), Access::Read).unwrap();
    enable_sched(&tracefs, &instance);
    let (load, mut sink) = (Load::start(), Collected::default());
    for round in 0..100 {
        source.poll(&mut sink).unwrap();
        if round == 20 {
            consumer.poll(&mut Collected::default()).unwrap();
            source.tend().unwrap();
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    drop(load);
    let last: Vec<usize> = instance
        .cpus()
        .unwrap()
        .iter()
        .map(|c| sink.pages(*c).len())
        .collect();
    fs::write(instance.folder().join("trace"), "").unwrap(); // truncates: clears the buffers
    let load = Load::start();
    let end = Instant::now() + Duration::from_secs(10);
    let has_more = |sink: &Collected| {
        let cpus = instance.cpus().unwrap();
        cpus.iter()
            .zip(&last)
            .all(|(cpu, last)| sink.pages(*cpu).len() > last + 2)
    };
    while !has_more(&sink) && Instant::now() < end {
        source.poll(&mut sink).unwrap();
        std::thread::sleep(Duration::from_millis(2));
    }
    drop(load);
    assert!(has_more(&sink));
    instance.set_tracing_on(false).unwrap();
    assert!(
        source
            .finish(&mut sink)
            .unwrap()
            .iter()
            .any(|(_, count)| count.is_none())
    );
}

#[test]
fn clock_pairs_tell_the_trace_clock_within_their_error() {
    let Some((tracefs, _one_at_a_time)) = tracefs("clock_pairs") else {
        return;
    };
    let state = OwnState::new(&tracefs);
    let instance = state.create("x");
    instance.set_trace_clock("mono").unwrap();
    let stats = instance.stats(CpuId(0)).unwrap();
    for _ in 0..100 {
        let pair = clock_pair(&stats).unwrap();
        let off = pair.trace.abs_diff(pair.monotonic_ns);
        assert!(
            off <= pair.error_ns,
            "the trace clock is the monotonic one: {off} {pair:?}"
        );
    }
    println!("clock pair: {:?}", clock_pair(&stats).unwrap());
    instance.set_trace_clock("uptime").unwrap();
    let coarse = InstanceSource::open(instance, Access::MapOrRead);
    assert!(matches!(coarse, Err(Error::ClockTooCoarse { .. })));
}

/// The part of the next test that is killed: follows an instance and prints what it got.
#[test]
fn follower_to_be_killed() {
    let Ok(name) = std::env::var("OUTLIVE_TEST_FOLLOW") else {
        return;
    };
    let tracefs = Tracefs::find().unwrap();
    let name: outlive_kernel::InstanceName = name.parse().unwrap();
    let instances = outlive_kernel::Instances::new(&tracefs, name.state());
    let instance = instances.open_existing(&name).unwrap();
    let mut recorder = Recorder::new([instance.clone()], Access::MapOrRead).unwrap();
    enable_sched(&tracefs, &instance);
    let stop = AtomicBool::new(false);
    let told = |sinks: &mut [Collected], _: &_| {
        for cpu in instance.cpus().unwrap() {
            if let Some((ts, data)) = sinks[0].pages(cpu).last() {
                println!("at {cpu} {ts} {} {}", data.len(), crc32c::crc32c(data));
            }
        }
    };
    recorder
        .run(&mut [Collected::default()], &stop, &Pace::default(), told)
        .unwrap();
}

#[test]
fn killed_follower_leaves_the_continuation_in_the_ring() {
    let Some((tracefs, _one_at_a_time)) = tracefs("killed_follower") else {
        return;
    };
    let state = OwnState::new(&tracefs);
    let instance = state.create("killed");
    // Its lines are read late on a busy machine: the ring must not come round until then.
    instance.set_buffer_size_kb(32 << 10).unwrap();
    let load = Load::start();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "follower_to_be_killed", "--nocapture"])
        .env("OUTLIVE_TEST_FOLLOW", instance.name().to_string())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let (begin, mut last) = (Instant::now(), BTreeMap::new());
    for line in lines.map_while(Result::ok) {
        let fields: Vec<u64> = line
            .split(' ')
            .filter_map(|word| word.parse().ok())
            .collect();
        if let (true, [cpu, ts, len, crc]) = (line.starts_with("at "), &fields[..]) {
            last.insert(CpuId(*cpu as u32), (*ts, *len as usize, *crc as u32));
        }
        if begin.elapsed() > Duration::from_secs(1) {
            child.kill().unwrap();
            break;
        }
    }
    child.wait().unwrap();
    std::thread::sleep(Duration::from_millis(20));
    drop(load);
    let mut ring = Collected::default();
    let drained = drain(&instance, &mut ring).unwrap();
    assert!(!last.is_empty());
    for (cpu, (ts, len, crc)) in &last {
        assert_continues(ring.pages(*cpu), *ts, *len, *crc);
    }
    // Draining consumes nothing: it can be done again.
    let mut again = Collected::default();
    assert_eq!(
        drain(&instance, &mut again).unwrap().cpus.len(),
        drained.cpus.len()
    );
    for of in &drained.cpus {
        assert_eq!(again.pages(of.cpu), ring.pages(of.cpu));
        assert_eq!(of.events, of.stats.entries);
        assert!(!of.is_consumed);
    }
}

/// The last sub-buffer that was followed is in the ring, begins with the same bytes, and more came.
fn assert_continues(ring: &[Page], ts: u64, len: usize, crc: u32) {
    let at = ring
        .iter()
        .position(|page| page.0 == ts)
        .expect("the page is still in the ring");
    assert_eq!(crc32c::crc32c(&ring[at].1[..len]), crc);
    assert!(
        at + 1 < ring.len() || ring[at].1.len() > len,
        "events came after the last copy"
    );
}

/// Prints the recorder's share of a core; a measurement, so it asserts little.
#[test]
#[ignore = "a measurement: cargo test --release -- --ignored --nocapture"]
fn recorder_share_of_a_core_with_sched_pipe() {
    let Some((tracefs, _one_at_a_time)) = tracefs("recorder_share") else {
        return;
    };
    let state = OwnState::new(&tracefs);
    let instance = state.create("x");
    instance.set_buffer_size_kb(16 << 10).unwrap();
    let mut recorder = Recorder::new([instance.clone()], Access::MapOrRead).unwrap();
    enable_sched(&tracefs, &instance);
    let stop = std::sync::Arc::new(AtomicBool::new(false));
    let set = stop.clone();
    let bench = std::thread::spawn(move || {
        let output = Command::new("perf")
            .args(["bench", "sched", "pipe"])
            .output()
            .unwrap();
        set.store(true, Ordering::Relaxed);
        String::from_utf8_lossy(&output.stdout).into_owned()
    });
    let (wall, cpu) = (Instant::now(), thread_cpu_ns());
    let mut sinks = [Checksummed::default()];
    recorder
        .run(&mut sinks, &stop, &Pace::default(), |_, _| {})
        .unwrap();
    let (wall, cpu) = (wall.elapsed(), thread_cpu_ns() - cpu);
    let mb = sinks[0].bytes as f64 / 1e6;
    println!("{}", bench.join().unwrap());
    println!(
        "recorder: {:.2} % of a core, {:.1} MB/s, {} lost, crc {:08x}, delays {:?}",
        cpu as f64 / wall.as_nanos() as f64 * 100.0,
        mb / wall.as_secs_f64(),
        sinks[0].lost,
        sinks[0].crc,
        recorder.delays(),
    );
    assert!(sinks[0].bytes > 0);
}

fn thread_cpu_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// Copies into memory, as a region would, and seals each finished sub-buffer.
#[derive(Default)]
struct Checksummed {
    pages: BTreeMap<CpuId, Vec<u8>>,
    bytes: u64,
    lost: u64,
    crc: u32,
}

impl outlive_kernel::SubbufSink for Checksummed {
    fn begin(&mut self, cpu: CpuId, _time_stamp: u64) {
        self.pages.entry(cpu).or_default().clear();
    }

    fn append(&mut self, cpu: CpuId, bytes: &[u8]) {
        self.pages.entry(cpu).or_default().extend_from_slice(bytes);
        self.bytes += bytes.len() as u64;
    }

    fn end(&mut self, cpu: CpuId) {
        self.crc ^= crc32c::crc32c(&self.pages[&cpu]);
    }

    fn lost(&mut self, _cpu: CpuId, events: Option<u64>) {
        self.lost += events.unwrap_or(1);
    }

    fn settled(&mut self, _cpu: CpuId, events: u64) {
        self.lost += events;
    }
}
