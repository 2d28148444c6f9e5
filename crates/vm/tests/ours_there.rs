//! Regions that outlive wrote, in a kernel's memory: it takes them for a previous boot's and shows what was
//! written.
#![allow(missing_docs, reason = "tests")]

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use outlive_ring::extension::Layout;
use outlive_ring::layout::{SUBBUF_DATA, SUBBUF_SIZE};
use outlive_ring::subbuf::{self, Events};
use outlive_ring::{CpuWriter, Geometry, HeapMemory, MemoryMut, Recovery, Region};
use outlive_vm::{Boot, End, Kernel, Machine, Outcome};

const MIB: u64 = 1 << 20;
/// Where the first region lies; the others follow, one each MiB.
const FIRST: u64 = 320;
const SIZE: usize = 256 << 10;
/// `TRACE_PRINT` of every kernel.
const PRINT: u16 = 5;
/// The kernel's time stamps in these regions begin here.
const BEGIN_NS: u64 = 5_000_000_000;

/// One event as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Written {
    time_stamp: u64,
    /// Without the deltas of discarded events, which the kernel's text leaves out.
    text_time_stamp: u64,
    payload: Vec<u8>,
}

/// `entry` and a print event's address and text.
fn print(pid: i32, text: &str) -> Vec<u8> {
    let mut payload = entry(PRINT, pid);
    payload.extend_from_slice(&0_u64.to_le_bytes());
    payload.extend_from_slice(text.as_bytes());
    payload.push(b'\n');
    payload.push(0);
    payload
}

fn entry(id: u16, pid: i32) -> Vec<u8> {
    let mut payload = id.to_le_bytes().to_vec();
    // Interrupts off, preemption off once.
    payload.extend_from_slice(&[1, 1]);
    payload.extend_from_slice(&pid.to_le_bytes());
    payload
}

/// A `sched_waking` event: `char comm[16]; pid_t pid; int prio; int target_cpu`.
fn waking(id: u16, number: i32) -> Vec<u8> {
    let mut payload = entry(id, number);
    let mut comm = format!("task-{number}").into_bytes();
    comm.resize(16, 0);
    payload.extend_from_slice(&comm);
    for field in [number, 120, 0] {
        payload.extend_from_slice(&field.to_le_bytes());
    }
    payload
}

/// Writes `count` events: wakings and prints of all lengths, some 200 ms apart, some discarded, some
/// nested.
fn write(writer: &mut CpuWriter<'_, impl MemoryMut>, id: u16, count: i32) {
    let mut now = BEGIN_NS + u64::from(writer.cpu()) * 333;
    for number in 0..count {
        now += match number % 50 {
            // More than the 27 bits of a delta.
            0 => 200_000_000,
            short => 1000 + 37 * short as u64,
        };
        let text = format!("event {number} {}", "x".repeat(number as usize % 190));
        let payload = match number % 3 {
            0 => print(number, &text),
            _ => waking(id, number),
        };
        let outer = writer.reserve(payload.len(), now).unwrap();
        writer.write(&outer, 0, &payload);
        if number % 11 == 0 {
            let inner = writer.reserve(40, now + 1).unwrap();
            match number % 2 {
                0 => writer.discard(inner),
                _ => {
                    writer.write(&inner, 0, &waking(id, number));
                    writer.commit(inner);
                }
            }
        }
        match number % 17 {
            5 => writer.discard(outer),
            _ => writer.commit(outer),
        }
    }
}

/// Records in forms that outlive's own writer does not need.
mod records {
    /// Bits of a delta.
    const DELTA_BITS: u32 = 27;

    fn words(type_len: u32, delta: u64, array: u32) -> Vec<u8> {
        assert!(delta >> DELTA_BITS == 0, "{delta} is no delta");
        let header = type_len | (delta as u32) << 5;
        [header.to_le_bytes(), array.to_le_bytes()].concat()
    }

    /// An event, of which the length is in the header if it fits there.
    pub(super) fn event(delta: u64, payload: &[u8]) -> Vec<u8> {
        let size = outlive_ring::subbuf::record_size(payload.len());
        let words_of_payload = (size as u32 - 4) / 4;
        let mut record = match words_of_payload {
            ..=28 => words(words_of_payload, delta, 0)[..4].to_vec(),
            long => words(0, delta, 4 * long),
        };
        record.extend_from_slice(payload);
        record.resize(size, 0);
        record
    }

    /// A discarded event, or what fills the end of a sub-buffer if `delta` is 1.
    pub(super) fn padding(delta: u64, size: usize) -> Vec<u8> {
        let mut record = words(29, delta, size as u32 - 4);
        record.resize(size, 0);
        record
    }
}

/// Takes over `count` events, every third of which has an absolute time stamp; some of those come behind a discarded
/// event, whose delta the kernel's text forgets and an absolute time stamp does not.
fn write_absolute(writer: &mut CpuWriter<'_, impl MemoryMut>, id: u16, count: i32) {
    let mut now = BEGIN_NS + u64::from(writer.cpu()) * 333;
    let mut room = 0;
    for number in 0..count {
        let step = if number % 30 == 0 { 200_000_000 } else { 1000 };
        let payload = match number % 2 {
            0 => print(number, &"x".repeat(number as usize % 190)),
            _ => waking(id, number),
        };
        let mut records = match number % 12 {
            2 | 9 => records::padding(700, 40),
            _ => Vec::new(),
        };
        let discarded = if records.is_empty() { 0 } else { 700 };
        now += discarded + step;
        match number % 3 {
            0 => {
                records.extend(subbuf::absolute_time_stamp(now));
                records.extend(records::event(0, &payload));
            }
            _ => records.extend(records::event(step, &payload)),
        }
        if records.len() + 8 > room {
            if room > 0 {
                let filler = records::padding(1, room);
                writer.append(&filler, |_| ()).unwrap();
            }
            // Of the first event in a sub-buffer the delta counts from the sub-buffer's own time.
            writer.begin(now - discarded - step).unwrap();
            room = SUBBUF_DATA;
        }
        writer.append(&records, |_| ()).unwrap();
        room -= records.len();
    }
}

/// A region and what is in it.
struct Ours {
    ring: Vec<u8>,
    cpus: Vec<Vec<Written>>,
    entries: Vec<u64>,
    bytes: Vec<u64>,
}

impl Ours {
    fn new(cpus: u32, id: u16, count: i32, has_extension: bool) -> Self {
        Self::written_by(cpus, has_extension, |writer| write(writer, id, count))
    }

    fn written_by(
        cpus: u32,
        has_extension: bool,
        write: impl Fn(&mut CpuWriter<'_, &HeapMemory>),
    ) -> Self {
        let geometry = Geometry::new(SIZE as u64, cpus).unwrap();
        let layout = has_extension.then(|| Layout::new(&geometry, 16 << 10, 64));
        let area = layout.map_or(SIZE, |layout| layout.area_size() as usize);
        let memory = HeapMemory::new(area);
        let region = Region::format(&memory, geometry, layout).unwrap();
        region.store_scratch(0, 0);
        for cpu in 0..cpus {
            write(&mut region.writer(cpu).unwrap());
        }
        Self::read(memory.to_vec(), SIZE)
    }

    /// What outlive itself recovers of an area whose ring has this size.
    fn read(area: Vec<u8>, ring_size: usize) -> Self {
        let memory = HeapMemory::from_bytes(&area);
        let recovery = Recovery::new(&memory).unwrap();
        let mut ours = Self {
            ring: area[..ring_size].to_vec(),
            cpus: Vec::new(),
            entries: Vec::new(),
            bytes: Vec::new(),
        };
        let mut buffer = [0; 4080];
        for cpu in &recovery.cpus {
            assert!(cpu.is_whole(), "{:?} {:?}", cpu.damage, cpu.rejected);
            let mut events = Vec::new();
            for page in &cpu.pages {
                let data = page.read(&recovery.geometry, &memory, cpu.cpu, &mut buffer);
                events.extend(written(page.time_stamp, data));
            }
            ours.cpus.push(events);
            ours.entries.push(cpu.entries);
            ours.bytes.push(cpu.bytes);
        }
        ours
    }
}

fn written(time_stamp: u64, data: &[u8]) -> impl Iterator<Item = Written> {
    Events::new(time_stamp, data).map(|event| {
        let event = event.expect("a good record");
        Written {
            time_stamp: event.time_stamp,
            text_time_stamp: event.text_time_stamp,
            payload: event.payload.to_vec(),
        }
    })
}

/// A machine, or why there is none.
fn machine(version: &str, cpus: u32) -> Option<Machine> {
    if !outlive_vm::can_run("ours_there") {
        return None;
    }
    Some(Machine::new(Kernel::pinned(version).unwrap(), cpus, 1024).unwrap())
}

fn boot(machine: &mut Machine, cmdline: &str, script: &str) -> Outcome {
    let mut boot = Boot::new(cmdline)
        .program("drain", env!("CARGO_BIN_EXE_outlive-vm-drain"))
        .script(script)
        .timeout(Duration::from_secs(100));
    if let Some(trace_cmd) = program("trace-cmd") {
        boot = boot.program("trace-cmd", trace_cmd);
    }
    let outcome = machine.boot(&boot).unwrap();
    assert_eq!(outcome.end, End::PowerOff, "{}", outcome.console);
    outcome
}

fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let mut places = std::env::split_paths(&path).map(|folder| folder.join(name));
    places.find(|place| place.is_file())
}

/// The id that the kernel gives to `sched_waking`: events are not named in a region.
fn waking_id(machine: &mut Machine) -> u16 {
    let script = "cat /sys/kernel/tracing/events/sched/sched_waking/id > /out/id";
    let id = boot(machine, "", script).text("id").unwrap();
    id.trim().parse().unwrap()
}

/// Puts a region into memory under each of `names`; the part of the command line that attaches them.
fn put(machine: &mut Machine, regions: &[(&str, &[u8])]) -> String {
    let mut entries = Vec::new();
    for (place, (name, ring)) in (FIRST..).zip(regions) {
        machine.write(place * MIB, ring).unwrap();
        entries.push(format!(
            "trace_instance={name}@{place}M:{}K",
            ring.len() >> 10
        ));
    }
    format!("memmap={}M${FIRST}M {}", regions.len(), entries.join(" "))
}

/// What the kernel says of an instance is what was written.
fn assert_shown(left: &Outcome, name: &str, ours: &Ours) {
    for (cpu, events) in ours.cpus.iter().enumerate() {
        assert!(!events.is_empty());
        let stats = left.text(&format!("{name}/cpu{cpu}.stats")).unwrap();
        let stat = |key: &str| stats.lines().find_map(|line| line.strip_prefix(key));
        let number = |key: &str| stat(key).unwrap().trim().parse::<u64>().unwrap();
        assert_eq!(number("entries:"), ours.entries[cpu], "{name} {cpu}");
        assert_eq!(number("bytes:"), ours.bytes[cpu], "{name} {cpu}");
        assert_eq!(number("overrun:"), 0);
        let raw = left
            .bytes(&format!("{name}/cpu{cpu}.trace_pipe_raw"))
            .unwrap();
        let raw: Vec<Written> = raw.chunks(SUBBUF_SIZE).flat_map(page_events).collect();
        assert_eq!(raw, *events, "{name}: raw pages of CPU {cpu}");
        let text = left.text(&format!("{name}/cpu{cpu}.trace")).unwrap();
        assert_text(&text, cpu, events);
    }
}

fn page_events(page: &[u8]) -> Vec<Written> {
    let (time_stamp, commit) = subbuf::header(page.first_chunk().unwrap());
    assert_eq!(commit.missed(&page[16..]), None, "nothing is missing");
    written(time_stamp, &page[16..16 + commit.size()]).collect()
}

/// Each line has the event's pid, CPU, flags, time and text.
fn assert_text(text: &str, cpu: usize, events: &[Written]) {
    let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
    assert_eq!(lines.len(), events.len(), "{text}");
    for (line, event) in lines.iter().zip(events) {
        let pid = i32::from_le_bytes(*event.payload[4..].first_chunk().unwrap());
        let micros = (event.text_time_stamp + 500) / 1000;
        let time = format!("{:5}.{:06}", micros / 1_000_000, micros % 1_000_000);
        let head = format!("-{pid:<7} [{cpu:03}] d..1. {time}: ");
        let (_, rest) = line
            .split_once(&head)
            .unwrap_or_else(|| panic!("{line}\nhas not\n{head}"));
        assert_eq!(rest, event_text(&event.payload), "{line}");
    }
}

fn event_text(payload: &[u8]) -> String {
    let string = |bytes: &[u8]| {
        let bytes = bytes.split(|&byte| byte == 0).next().unwrap_or_default();
        String::from_utf8_lossy(bytes).into_owned()
    };
    if payload[..2] == PRINT.to_le_bytes() {
        return format!("0: {}", string(&payload[16..]).trim_end_matches('\n'));
    }
    let number = |at: usize| i32::from_le_bytes(*payload[at..].first_chunk().unwrap());
    format!(
        "sched_waking: comm={} pid={} prio={} target_cpu={:03}",
        string(&payload[8..24]),
        number(24),
        number(28),
        number(32)
    )
}

const SCRIPT: &str = "\
dmesg > /out/dmesg
drain raw stats trace trace_pipe_raw
drain pipe trace_pipe
echo now-extract > /dev/console; cd /tmp; trace-cmd extract -B file -o /out/extracted.dat > /out/trace-cmd.log 2>&1
";

/// Of three regions, one of which has wrapped and has an extension, and one of which has absolute time stamps,
/// everything is shown.
fn a_kernel_shows_what_we_wrote(version: &str, cpus: u32) {
    let Some(mut machine) = machine(version, cpus) else {
        return;
    };
    let id = waking_id(&mut machine);
    let plain = Ours::new(cpus, id, 400, false);
    let wrapped = Ours::new(cpus, id, 9000, true);
    let absolute = Ours::written_by(cpus, false, |writer| write_absolute(writer, id, 400));
    let regions: [(&str, &[u8]); 5] = [
        ("raw_plain", &plain.ring),
        ("raw_absolute", &absolute.ring),
        ("raw_wrapped", &wrapped.ring),
        ("pipe", &wrapped.ring),
        ("file", &wrapped.ring),
    ];
    let cmdline = put(&mut machine, &regions);
    let left = boot(&mut machine, &cmdline, SCRIPT);

    let dmesg = left.text("dmesg").unwrap();
    assert_eq!(dmesg.matches("mapped boot instance").count(), 5, "{dmesg}");
    let previous = dmesg.matches("is from previous boot!").count();
    assert_eq!(previous, 5 * cpus as usize, "{dmesg}");
    for bad in ["discarded", "invalid", "mismatch", "not found", "rewound"] {
        let said = dmesg
            .lines()
            .find(|line| line.contains("Ring buffer") && line.contains(bad));
        assert_eq!(said, None);
    }
    assert_shown(&left, "raw_plain", &plain);
    assert_shown(&left, "raw_absolute", &absolute);
    assert_shown(&left, "raw_wrapped", &wrapped);
    let pipe = left.text("pipe/trace_pipe").unwrap();
    for (cpu, events) in wrapped.cpus.iter().enumerate() {
        let is_of_cpu = |line: &&str| line.contains(&format!(" [{cpu:03}] "));
        let lines: Vec<&str> = pipe.lines().filter(is_of_cpu).collect();
        assert_text(&lines.join("\n"), cpu, events);
    }
    assert_extracted(&left, &wrapped);
}

/// `trace-cmd report` reads what `trace-cmd extract` in the guest took.
fn assert_extracted(left: &Outcome, ours: &Ours) {
    if program("trace-cmd").is_none() {
        return println!("skipped: needs the Debian package trace-cmd");
    }
    let file = left.results().join("extracted.dat");
    let log = left.text("trace-cmd.log").unwrap();
    let report = Command::new("trace-cmd")
        .args(["report", "-t", "-i"])
        .arg(&file)
        .output()
        .unwrap();
    let report = String::from_utf8_lossy(&report.stdout).into_owned();
    let mut there: BTreeMap<String, usize> = BTreeMap::new();
    for line in report.lines() {
        let time = line
            .split_whitespace()
            .find(|word| word.ends_with(':') && word.contains('.'));
        *there
            .entry(time.unwrap_or_default().trim_end_matches(':').to_owned())
            .or_default() += 1;
    }
    for event in ours.cpus.iter().flatten() {
        let time = event.time_stamp;
        let time = format!("{}.{:09}", time / 1_000_000_000, time % 1_000_000_000);
        let count = there.get_mut(&time).filter(|count| **count > 0);
        *count.unwrap_or_else(|| panic!("{time} is not in\n{log}\n{report}")) -= 1;
    }
}

#[test]
fn linux_7_3_4_shows_what_we_wrote_for_two_cpus() {
    a_kernel_shows_what_we_wrote("7.3.4", 2);
}

#[test]
fn linux_7_3_4_shows_what_we_wrote_for_one_cpu() {
    a_kernel_shows_what_we_wrote("7.3.4", 1);
}

#[test]
fn linux_7_2_13_shows_what_we_wrote_for_two_cpus() {
    a_kernel_shows_what_we_wrote("7.2.13", 2);
}

/// 6.18 and four CPUs; with `OUTLIVE_OURS_THERE=all` every kernel of the current layout and every number of CPUs.
#[test]
fn linux_6_18_15_shows_what_we_wrote_for_four_cpus() {
    a_kernel_shows_what_we_wrote("6.18.15", 4);
    if std::env::var_os("OUTLIVE_OURS_THERE").is_some_and(|which| which == "all") {
        for (version, cpus) in [
            ("6.18.15", 1),
            ("6.18.15", 2),
            ("7.2.13", 1),
            ("7.2.13", 4),
            ("7.3.4", 4),
        ] {
            a_kernel_shows_what_we_wrote(version, cpus);
        }
    }
}

/// Its layout is another: it says so and wipes the region. Outlive writes the current one only.
#[test]
fn linux_6_12_107_does_not_take_the_current_layout() {
    let Some(mut machine) = machine("6.12.107", 2) else {
        return;
    };
    let ours = Ours::new(2, 300, 400, false);
    let cmdline = put(&mut machine, &[("raw", &ours.ring)]);
    let left = boot(
        &mut machine,
        &cmdline,
        "dmesg > /out/dmesg; drain raw stats",
    );
    assert!(
        !left
            .text("dmesg")
            .unwrap()
            .contains("is from previous boot!")
    );
    assert!(
        left.text("raw/cpu0.stats")
            .unwrap()
            .starts_with("entries: 0\n")
    );
}
