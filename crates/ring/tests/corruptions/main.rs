//! Corruptions of a real region: everything that Linux 7.3.4 keeps of them is kept, mostly more, and
//! nothing is invented but what no reader of an unsealed region can tell from the truth.

mod cases;
mod kernel;
#[path = "../support/mod.rs"]
mod support;

use std::collections::BTreeMap;
use std::fmt::Write;

use cases::{Case, Lines};
use kernel::KernelCpu;
use outlive_ring::layout::{SUBBUF_DATA, SUBBUF_HEADER};
use outlive_ring::{HeapMemory, LayoutError, Reason, Recovery};
use sha2::{Digest, Sha256};
use support::{Kept, fixture, fixture_path, golden_region, kept_events};

/// Names of the golden region's events, by id.
fn event_names() -> BTreeMap<u16, String> {
    let text = String::from_utf8(fixture("golden/0-event-fields.txt")).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let mut names: BTreeMap<u16, String> = lines
        .windows(2)
        .filter_map(|pair| {
            let name = pair[0].strip_prefix("name: ")?;
            let id = pair[1].strip_prefix("ID: ")?;
            Some((id.parse().ok()?, name.to_string()))
        })
        .collect();
    // A print event shows the symbol that its address stands for.
    names.insert(5, "tracing_mark_write".into());
    names.insert(19, "#".into());
    names
}

/// The flags column of `trace` for an entry's flags and preempt count.
fn flags_column(flags: u8, preempt_count: u8) -> String {
    let has = |bits: u8| flags & bits == bits;
    let irqs = match (has(1), has(128)) {
        (true, true) => 'D',
        (true, false) => 'd',
        (false, true) => 'b',
        (false, false) => '.',
    };
    let resched = match (has(4), has(2), has(32)) {
        (true, true, true) => 'B',
        (true, false, true) => 'N',
        (false, true, true) => 'L',
        (true, true, false) => 'b',
        (true, false, false) => 'n',
        (false, false, true) => 'p',
        (false, true, false) => 'l',
        (false, false, false) => '.',
    };
    let context = match (has(64), has(8), has(16)) {
        (true, true, _) => 'Z',
        (true, false, _) => 'z',
        (false, true, true) => 'H',
        (false, true, false) => 'h',
        (false, false, true) => 's',
        (false, false, false) => '.',
    };
    let depth = |nibble: u8| match nibble {
        0 => '.',
        n => char::from_digit(n.into(), 16).unwrap(),
    };
    let (preempt, migrate) = (depth(preempt_count & 15), depth(preempt_count >> 4));
    format!("{irqs}{resched}{context}{preempt}{migrate}")
}

/// An event's line, reduced as the recorded ones are.
fn reduced_line(names: &BTreeMap<u16, String>, event: &Kept) -> String {
    let micros = (event.time_stamp + 500) / 1000;
    let id = u16::from_le_bytes([event.payload[0], event.payload[1]]);
    let name = names.get(&id).map_or("Unknown", String::as_str);
    let flags = flags_column(event.payload[2], event.payload[3]);
    format!(
        "{}.{:06} {flags} {name}",
        micros / 1_000_000,
        micros % 1_000_000
    )
}

fn assert_lines(case: &str, names: &BTreeMap<u16, String>, model: &KernelCpu, observed: &Lines) {
    assert_eq!(model.events.len(), observed.count, "{case}");
    // Recorded in another form there: see the README of the recordings.
    if case.starts_with("scratch text_addr") || case.starts_with("page5 event id") {
        return;
    }
    let lines: Vec<String> = model
        .events
        .iter()
        .map(|e| reduced_line(names, e))
        .collect();
    assert_eq!(lines.first(), observed.first.as_ref(), "{case}");
    assert_eq!(lines.last(), observed.last.as_ref(), "{case}");
    let digest = Sha256::digest(lines.join("\n"));
    let digest = digest.iter().fold(String::new(), |mut hex, byte| {
        write!(hex, "{byte:02x}").unwrap();
        hex
    });
    assert_eq!(digest, observed.sha256, "{case}");
}

#[test]
fn kernel_model_keeps_what_the_kernel_kept() {
    let names = event_names();
    let cases = cases::all();
    assert_eq!(cases.len(), 75);
    for case in &cases {
        let model = kernel::attach(&case.region);
        for (model, observed) in model.iter().zip(&case.cpus) {
            assert_eq!(model.entries, observed.entries, "{}", case.name);
            assert_eq!(model.bytes, observed.bytes, "{}", case.name);
            if let Some(lines) = &observed.lines {
                assert_lines(&case.name, &names, model, lines);
            }
        }
    }
}

/// Events of each CPU, with how often each is there.
type Counted<'a> = BTreeMap<(usize, &'a Kept), usize>;

fn counted(cpus: &[Vec<Kept>]) -> Counted<'_> {
    let mut counts = Counted::new();
    for (cpu, events) in cpus.iter().enumerate() {
        for event in events {
            *counts.entry((cpu, event)).or_default() += 1;
        }
    }
    counts
}

/// How many events of `these` are in `others` too.
fn common(these: &Counted<'_>, others: &Counted<'_>) -> usize {
    let in_both = |(event, &count): (_, &usize)| count.min(others.get(event).copied().unwrap_or(0));
    these.iter().map(in_both).sum()
}

fn total(events: &Counted<'_>) -> usize {
    events.values().sum()
}

/// Cases in which events are kept that the undamaged region does not hold, how many, and why.
const INVENTED: [(&str, usize, &str); 6] = [
    ("page5 bit flip in payload", 1, PAYLOAD),
    ("page5 event id 0", 1, PAYLOAD),
    ("page5 event id 21", 1, PAYLOAD),
    ("page5 event0 pid -5", 1, PAYLOAD),
    ("rewind one older page", 70, PLANTED),
    ("rewind two older pages", 140, PLANTED),
];
const PAYLOAD: &str = "a changed payload: only a seal tells, and a kernel's region has none";
const PLANTED: &str = "whole sub-buffers were added to the region, and are rightly found";

/// Cases in which the kernel keeps another number of events, and outlive has nothing to say: nothing
/// that it needs is damaged.
const SILENT: [(&str, &str); 10] = [
    ("head 0 commit 0", OUTSIDE),
    ("indices 5 and 6 swapped", ARRAY_ORDER),
    ("head = reader page", NO_HEAD),
    ("head one later", BEHIND_HEAD),
    ("commit = reader page", COMMIT_ENDS),
    ("commit one earlier", COMMIT_ENDS),
    ("page5 commit bit31", FLAGGED),
    ("page5 commit sign-extended missed", FLAGGED),
    ("head moved but next page not yet rewritten", BEHIND_HEAD),
    ("scratch clock_id 5", OTHER_CLOCK),
];
const OUTSIDE: &str = "the kernel empties a CPU whose head or commit address is outside of its \
    buffer; addresses are hints, and two zeros are those of a CPU that never came up";
const ARRAY_ORDER: &str = "the kernel takes the array for the order, and drops the sub-buffer that \
    is out of time then; the order is that of the times";
const NO_HEAD: &str = "the kernel empties a CPU whose head is not among the ring's sub-buffers; the \
    oldest one is the head";
const BEHIND_HEAD: &str = "the kernel takes what lies before the head for older than the reader page, \
    and drops it as it is newer; the head is a hint";
const COMMIT_ENDS: &str = "the kernel ends at the commit page; later sub-buffers go on in time";
const FLAGGED: &str = "the kernel's validator takes the flag of missed events for a part of the size, \
    and drops the sub-buffer; the flag is known";
const OTHER_CLOCK: &str = "the kernel sets that clock, which empties the CPUs that are up; the clock is \
    a text here";

/// What is kept of one corruption, in numbers of events.
struct Comparison {
    name: String,
    /// Kept by the kernel, of those that the undamaged region holds.
    kernel: usize,
    kernel_invents: usize,
    ours: usize,
    ours_invents: usize,
    /// Kept by the kernel and undamaged, but not kept by us.
    lost: usize,
    remarks: String,
}

impl Comparison {
    fn is_different(&self) -> bool {
        (self.kernel, self.kernel_invents) != (self.ours, self.ours_invents)
    }

    /// Why the numbers are what they are; empty if they are the kernel's and there is nothing to say.
    fn reasons(&self) -> String {
        let of = |cases: &[(&str, &str)]| {
            let found = cases.iter().find(|(name, _)| *name == self.name);
            found.map(|(_, reason)| format!("nothing; {reason}"))
        };
        let invented = INVENTED.map(|(name, _, reason)| (name, reason));
        match of(&invented).or(of(&SILENT)) {
            Some(reason) => {
                assert_eq!(self.remarks, "", "{}: not silent", self.name);
                reason
            }
            None => self.remarks.clone(),
        }
    }

    fn new(golden: &Counted<'_>, case: &Case) -> Self {
        let kernel = kernel::attach(&case.region);
        let kernel: Vec<_> = kernel.into_iter().map(|cpu| cpu.events).collect();
        let kernel = counted(&kernel);
        let memory = HeapMemory::from_bytes(&case.region);
        let recovery = Recovery::new(&memory);
        let ours = recovery.iter().flat_map(|recovery| {
            (0..recovery.geometry.nr_cpus()).map(|cpu| kept_events(recovery, &memory, cpu))
        });
        let ours: Vec<_> = ours.collect();
        let ours = counted(&ours);
        let undamaged: Counted<'_> = kernel
            .iter()
            .map(|(&event, &count)| (event, count.min(golden.get(&event).copied().unwrap_or(0))))
            .collect();
        Self {
            name: case.name.clone(),
            kernel: total(&undamaged),
            kernel_invents: total(&kernel) - total(&undamaged),
            ours: common(&ours, golden),
            ours_invents: total(&ours) - common(&ours, golden),
            lost: total(&undamaged) - common(&undamaged, &ours),
            remarks: remarks(&recovery),
        }
    }
}

/// What the recovery says about the damage.
fn remarks(recovery: &Result<Recovery, LayoutError>) -> String {
    let recovery = match recovery {
        Ok(recovery) => recovery,
        Err(error) => return error.to_string(),
    };
    let mut remarks: Vec<String> = recovery.damage.iter().map(ToString::to_string).collect();
    for cpu in &recovery.cpus {
        let damage = cpu.damage.iter();
        remarks.extend(damage.map(|damage| format!("CPU {}: {damage}", cpu.cpu)));
        let mut reasons: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for rejected in &cpu.rejected {
            let subbufs = reasons.entry(rejected.reason.to_string()).or_default();
            subbufs.push(rejected.subbuf.to_string());
        }
        remarks.extend(reasons.iter().map(|(reason, subbufs)| {
            format!(
                "CPU {}, sub-buffer {}: {reason}",
                cpu.cpu,
                subbufs.join(" ")
            )
        }));
    }
    remarks.join("; ")
}

fn comparisons() -> Vec<Comparison> {
    let (memory, recovery) = support::recover(&golden_region());
    let golden: Vec<_> = (0..2)
        .map(|cpu| kept_events(&recovery, &memory, cpu))
        .collect();
    let golden = counted(&golden);
    assert_eq!(total(&golden), 1663);
    cases::all()
        .iter()
        .map(|case| Comparison::new(&golden, case))
        .collect()
}

#[test]
fn everything_undamaged_that_the_kernel_keeps_is_kept() {
    for case in comparisons() {
        assert_eq!(case.lost, 0, "{}: {}", case.name, case.remarks);
    }
}

#[test]
fn nothing_is_invented_but_what_only_a_seal_can_tell() {
    for case in comparisons() {
        let allowed = INVENTED.iter().find(|(name, ..)| *name == case.name);
        let allowed = allowed.map_or(0, |&(_, count, _)| count);
        assert_eq!(
            case.ours_invents, allowed,
            "{}: {}",
            case.name, case.remarks
        );
    }
}

/// Where the numbers differ, the table says why.
#[test]
fn each_difference_to_the_kernel_has_a_reason() {
    let comparisons = comparisons();
    for case in &comparisons {
        assert!(
            !case.is_different() || !case.reasons().is_empty(),
            "{}: the kernel keeps {}, outlive {}, and nothing says why",
            case.name,
            case.kernel,
            case.ours
        );
    }
    for (name, _) in SILENT {
        let case = comparisons.iter().find(|case| case.name == name);
        assert!(case.unwrap().is_different(), "{name}: no difference");
    }
}

const INTRODUCTION: &str = "\
# The same damage, recovered by the kernel and by outlive

A real region of Linux 7.3.4 (256 KiB, two CPUs, 1663 events, no seals) was damaged in 75 ways. Each damaged image
was attached by that kernel in a virtual machine (`fixtures/golden/8-corruptions.jsonl.gz`) and is recovered by
outlive. Numbers are of events: kept of the undamaged 1663, and in brackets those that the undamaged region does not
hold. Everything undamaged that the kernel keeps is kept; where the two differ, the remark says why.

This page is written by a test (`crates/ring/tests/corruptions`), which fails when it is out of date.

| damage | kernel | outlive | what outlive says, or why it says nothing |
| --- | ---: | ---: | --- |
";

fn cell(kept: usize, invented: usize) -> String {
    match invented {
        0 => kept.to_string(),
        _ => format!("{kept} (+{invented})"),
    }
}

fn table() -> String {
    let mut page = INTRODUCTION.to_string();
    let (mut kernel_sum, mut our_sum) = (0, 0);
    for case in comparisons() {
        kernel_sum += case.kernel;
        our_sum += case.ours;
        let reasons = case.reasons();
        let kernel = cell(case.kernel, case.kernel_invents);
        let ours = cell(case.ours, case.ours_invents);
        writeln!(page, "| {} | {kernel} | {ours} | {reasons} |", case.name).unwrap();
    }
    let all = 1663 * 75;
    writeln!(
        page,
        "| **of {all} in all** | **{kernel_sum}** | **{our_sum}** | |"
    )
    .unwrap();
    page
}

/// Run with `OUTLIVE_UPDATE=1` to write the page.
#[test]
fn the_page_about_corruptions_is_up_to_date() {
    let path = fixture_path("../docs/corruptions.md");
    let table = table();
    if std::env::var_os("OUTLIVE_UPDATE").is_some() {
        std::fs::write(&path, &table).unwrap();
    }
    let page = std::fs::read_to_string(&path).unwrap();
    assert_eq!(page, table, "run this test with OUTLIVE_UPDATE=1");
}

#[test]
fn a_region_cut_off_anywhere_keeps_what_is_left_of_it_or_is_none() {
    let golden = golden_region();
    let lengths = (0..golden.len()).step_by(4096);
    let odd = [
        1,
        7,
        8,
        16,
        23,
        24,
        4095,
        4097,
        8240,
        8271,
        135_000,
        golden.len() - 1,
    ];
    let mut kept_before = 0;
    for len in lengths
        .chain(odd)
        .collect::<std::collections::BTreeSet<_>>()
    {
        let memory = HeapMemory::from_bytes(&golden[..len]);
        let kept = Recovery::new(&memory).map_or(0, |recovery| recovery.entries());
        assert!(kept <= 806 + 857);
        assert!(
            kept >= kept_before,
            "{len} bytes: {kept} after {kept_before}"
        );
        kept_before = kept;
    }
    assert!(kept_before >= 806, "{kept_before}");
}

#[test]
fn bytes_that_are_no_region_are_refused() {
    for fill in [0, 0xff, 0xaa] {
        for len in [0, 5, 4096, 64 << 10, (256 << 10) + 3] {
            let memory = HeapMemory::from_bytes(&vec![fill; len]);
            let error = Recovery::new(&memory).unwrap_err();
            assert!(matches!(error, LayoutError::NotARegion { .. }), "{error}");
        }
    }
}

/// Neither the first page nor the size says what is there, and the first CPU's block is lost.
#[test]
fn a_region_is_found_by_any_cpu_block_that_is_left() {
    for lost in [0, 0x2000] {
        let mut region = golden_region();
        region[..4096].fill(0);
        region[lost..lost + 4096].fill(0);
        for longer in [0, 4096, 10 * 4096 + 7] {
            let mut region = region.clone();
            region.resize(region.len() + longer, 0x5a);
            let (_, recovery) = support::recover(&region);
            assert_eq!(
                recovery.entries(),
                806 + 857,
                "page {lost:#x}, {longer} more"
            );
        }
    }
}

/// A cache line of ones in the newest sub-buffer, as records are absolute time stamps beyond all clocks. Nothing
/// comes behind it that they could overlap.
#[test]
fn times_beyond_the_clock_in_the_newest_sub_buffer_are_doubtful() {
    let mut region = golden_region();
    let (memory, recovery) = support::recover(&region);
    let page = *recovery.cpu(0).pages.last().unwrap();
    let mut buffer = [0; SUBBUF_DATA];
    let data = page.read(&recovery.geometry, &memory, 0, &mut buffer);
    let events = outlive_ring::Events::new(page.time_stamp, data).map(Result::unwrap);
    // A record of whole time stamps.
    let event = events
        .map(|event| event.payload)
        .find(|payload| payload.len() % 8 == 4);
    let event = event.unwrap();
    let header = event.as_ptr().addr() - data.as_ptr().addr() - 4;
    let at = recovery.geometry.subbuf_offset(0, page.subbuf) + SUBBUF_HEADER + header;
    region[at..at + 4 + event.len()].fill(0xff);

    let (_, damaged) = support::recover(&region);
    let newest = damaged.cpu(0).pages.last().unwrap();
    assert_eq!(
        (newest.subbuf, newest.entries),
        (page.subbuf, page.entries - 1)
    );
    assert!(newest.is_doubtful);
    let [rejected] = damaged.cpu(0).rejected[..] else {
        panic!("{:?}", damaged.cpu(0).rejected);
    };
    assert!(matches!(rejected.reason, Reason::EndsBeyondClock(last) if last >= 1 << 59));
    assert!(rejected.reason.is_kept() && rejected.subbuf == page.subbuf);
}
