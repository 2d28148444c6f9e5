//! What `show` and `check` say of regions that kernels wrote, against what those kernels said.
//!
//! Left aside: the task's name, which ours may know and the kernel's does not, and pointers, which
//! the kernel's text hides behind a hash.

mod common;

use std::path::Path;

use common::{Unpacked, fixtures, gunzip, outlive};
use outlive_ring::{Geometry, HeapMemory, Missed, PageBuilder, Region};
use tempfile::TempDir;

/// What is compared of a region.
impl Unpacked {
    fn show(&self, more: &[&str]) -> Vec<String> {
        let args = [&["show", &self.region, "--formats", &self.formats], more].concat();
        let output = outlive(&args);
        assert!(output.status.success(), "{output:?}");
        comparable(&output.stdout)
    }

    fn check(&self) -> (i32, serde_json::Value) {
        let output = outlive(&["check", &self.region, "--json"]);
        let report = serde_json::from_slice(&output.stdout).unwrap_or_default();
        (output.status.code().unwrap(), report)
    }
}

/// The lines of a text, without what is left aside.
fn comparable(text: &[u8]) -> Vec<String> {
    let text = std::str::from_utf8(text).unwrap();
    text.lines().map(without_task_and_pointers).collect()
}

fn without_task_and_pointers(line: &str) -> String {
    let line = match line.find('[') {
        Some(at) if !line.starts_with('#') && !line.starts_with("CPU:") => &line[at..],
        _ => line,
    };
    ["work struct ", "work struct=", "worker="]
        .iter()
        .fold(line.to_owned(), |line, name| hide_pointer(&line, name))
}

/// Replaces the 16 digits behind `name`.
fn hide_pointer(line: &str, name: &str) -> String {
    match line.split_once(name) {
        Some((before, behind)) if behind.len() >= 16 => {
            format!("{before}{name}POINTER{}", &behind[16..])
        }
        _ => line.to_owned(),
    }
}

fn assert_same_lines(ours: &[String], kernel: &[String]) {
    for (number, (ours, kernel)) in ours.iter().zip(kernel).enumerate() {
        assert_eq!(ours, kernel, "line {}", number + 1);
    }
    assert_eq!(ours.len(), kernel.len());
}

/// The number behind a name in a `stats` file.
fn stat(stats: &Path, name: &str) -> u64 {
    let text = std::fs::read_to_string(stats).unwrap();
    let line = text.lines().find(|line| line.starts_with(name)).unwrap();
    line[name.len()..].trim().parse().unwrap()
}

const KERNELS: [(&str, &str); 2] = [
    ("7.3.4-2cpu-1M", "backup"),
    ("6.12.107-2cpu-1M", "boot_mapped"),
];

#[test]
fn show_prints_the_kernels_own_text_line_by_line() {
    for (kernel, instance) in KERNELS {
        let folder = fixtures()
            .join(kernel)
            .join("boot2/instances")
            .join(instance);
        let unpacked = Unpacked::of_kernel(kernel);
        let expected = comparable(&gunzip(&folder.join("trace.gz")));
        assert_same_lines(&unpacked.show(&[]), &expected);
        for cpu in ["0", "1"] {
            let trace = folder.join(format!("per_cpu/cpu{cpu}/trace.gz"));
            assert_same_lines(
                &unpacked.show(&["--cpu", cpu]),
                &comparable(&gunzip(&trace)),
            );
        }
    }
}

#[test]
fn check_counts_as_the_kernels_stats_do() {
    for (kernel, instance) in KERNELS {
        let (code, report) = Unpacked::of_kernel(kernel).check();
        assert_eq!(code, 0, "{report}");
        for cpu in 0..2 {
            let stats = fixtures().join(format!(
                "{kernel}/boot2/instances/{instance}/per_cpu/cpu{cpu}/stats"
            ));
            let ours = &report["cpus"][cpu];
            assert_eq!(ours["cpu"], cpu);
            assert_eq!(
                ours["entries"],
                stat(&stats, "entries:"),
                "{kernel} CPU {cpu}"
            );
            assert_eq!(ours["bytes"], stat(&stats, "bytes:"), "{kernel} CPU {cpu}");
            assert_eq!(ours["sealed"], 0);
        }
    }
}

/// KASLR moved the kernel, so the next boot printed fields. Its symbol of the marker's address is
/// not in the region.
#[test]
fn show_prints_the_golden_regions_fields_as_the_next_boot_did() {
    let expected = gunzip(&fixtures().join("golden/4-nextboot-backup-trace.txt.gz"));
    let ours = named_marker(&Unpacked::golden().show(&["--raw-fields"]));
    // The file has an empty line at its end, which is none of the trace.
    let expected = named_marker(&comparable(expected.trim_ascii_end()));
    assert_same_lines(&ours, &expected);
}

/// The live text lacks the 21 events that one `read` of `trace_pipe` had consumed: 3000 bytes, which
/// end within a line. Before them stands what `read` returned.
#[test]
fn show_prints_the_golden_region_as_the_live_kernel_did() {
    let consumed = std::fs::read(fixtures().join("golden/1-consumed-by-trace_pipe.txt")).unwrap();
    let live = gunzip(&fixtures().join("golden/3-live-trace.txt.gz"));
    let is_event = |line: &String| !line.starts_with('#') && !line.is_empty();
    let mut ours = named_marker(&Unpacked::golden().show(&[]));
    ours.retain(is_event);
    let mut expected = comparable(consumed.trim_ascii_end());
    expected.remove(0);
    let cut = expected.pop().unwrap();
    expected.extend(ours.iter().find(|line| line.starts_with(&cut)).cloned());
    assert_eq!(expected.len(), 21);
    expected.extend(named_marker(&comparable(&live)));
    expected.retain(is_event);
    // The oldest of one CPU were consumed: in the order of time, that is not the oldest of all.
    ours.sort();
    expected.sort();
    assert_same_lines(&ours, &expected);
}

/// The marker's address as the symbol that it is in.
fn named_marker(lines: &[String]) -> Vec<String> {
    let name = |line: &String| match line.split_once(": 0xffffffff") {
        Some((before, behind)) => format!("{before}: tracing_mark_write{}", &behind[8..]),
        None => line.clone(),
    };
    lines.iter().map(name).collect()
}

/// What `trace_marker` writes: flags, pid and text as the kernel has them.
fn marker(text: &str) -> Vec<u8> {
    const PRINT: u16 = 5;
    const WRITER: u64 = 0xffff_ffff_97b0_d7c6;
    let head = [&PRINT.to_le_bytes()[..], &[0, 1], &1_i32.to_le_bytes()].concat();
    let mut payload = [&head[..], &WRITER.to_le_bytes(), text.as_bytes(), b"\n\0"].concat();
    payload.resize(payload.len().next_multiple_of(4), 0);
    payload
}

/// The time of a line of `trace`, in ns; its text has microseconds.
fn time_of(line: &str) -> u64 {
    let (_, behind) = line.split_once("] ").unwrap();
    let time = behind.split_whitespace().nth(1).unwrap();
    time.trim_end_matches(':')
        .replace('.', "")
        .parse::<u64>()
        .unwrap()
        * 1000
}

/// `trace_pipe` of a ring that had overwritten 103 events between two reads. Its sub-buffers were not kept:
/// they are made again from the text, with the loss before the one that begins behind it.
#[test]
fn markers_and_the_loss_between_them_print_as_trace_pipe_printed_them() {
    let kernel = fixtures().join("golden/7-ordinary-trace_pipe-with-LOST.txt");
    let kernel = std::fs::read_to_string(kernel).unwrap();
    // Where two `read`s ended, within lines, whose rests no other had.
    let is_whole = |line: &&str| !line.is_empty() && !line.contains(" read ret=");
    let kernel: Vec<&str> = kernel.lines().filter(is_whole).collect();
    assert_eq!(kernel.len(), 253);
    let (mut builder, mut pages) = (PageBuilder::default(), Vec::new());
    for line in &kernel {
        if let Some((_, lost)) = line.split_once(" [LOST ") {
            pages.extend_from_slice(builder.finish());
            let events = lost.split(' ').next().unwrap().parse().unwrap();
            builder.set_missed(Missed::Events(events));
            continue;
        }
        let (_, text) = line.split_once(": tracing_mark_write: ").unwrap();
        if !builder.push(time_of(line), &marker(text)) {
            pages.extend_from_slice(builder.finish());
            assert!(builder.push(time_of(line), &marker(text)));
        }
    }
    pages.extend_from_slice(builder.finish());
    let folder = TempDir::new().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    std::fs::create_dir_all(path("raw/per_cpu/cpu0")).unwrap();
    std::fs::write(path("raw/per_cpu/cpu0/trace_pipe_raw"), pages).unwrap();
    let formats = fixtures().join("7.3.4-2cpu-1M/events");
    std::os::unix::fs::symlink(formats.canonicalize().unwrap(), path("raw/events")).unwrap();
    let (raw, state) = (path("raw"), path("state"));
    let imported = outlive(&["import", &raw, "--name", "it", "--state", &state]);
    assert!(imported.status.success(), "{imported:?}");
    let ours = comparable(&outlive(&["show", "it", "--state", &state]).stdout);
    let ours: Vec<String> = ours
        .into_iter()
        .filter(|line| !line.starts_with('#'))
        .collect();
    assert_same_lines(
        &named_marker(&ours),
        &comparable(kernel.join("\n").as_bytes()),
    );
}

/// The kernel's text leaves out the time that discarded events took, and so does ours: that a kernel shows
/// these times is tested where one attaches such a region (`crates/vm/tests/ours_there.rs`). Its
/// validator counts it; the JSON has the true time.
#[test]
fn text_leaves_out_the_time_of_discarded_events_and_json_has_it() {
    let geometry = Geometry::new(64 << 10, 1).unwrap();
    let memory = HeapMemory::new(geometry.size() as usize);
    let region = Region::format(&memory, geometry, None).unwrap();
    let mut writer = region.writer(0).unwrap();
    let mut write = |text: &str, now: u64| {
        let event = writer.reserve(marker(text).len(), now).unwrap();
        writer.write(&event, 0, &marker(text));
        // An interrupt's event, which is kept, behind one that is discarded.
        if text == "first" {
            writer.commit(event);
            let discarded = writer.reserve(100, now + 700_000).unwrap();
            let inner = writer
                .reserve(marker("inner").len(), now + 800_000)
                .unwrap();
            writer.write(&inner, 0, &marker("inner"));
            writer.commit(inner);
            writer.discard(discarded);
        } else {
            writer.commit(event);
        }
    };
    write("first", 5_000_000_000);
    write("last", 5_002_000_000);
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("region.bin");
    std::fs::write(&file, memory.to_vec()).unwrap();
    let formats = fixtures().join("7.3.4-2cpu-1M/events");
    let show = |more: &[&str]| {
        let args = [
            "show",
            file.to_str().unwrap(),
            "--formats",
            formats.to_str().unwrap(),
        ];
        let output = outlive(&[&args[..], more].concat());
        assert!(output.status.success(), "{output:?}");
        let text = String::from_utf8(output.stdout).unwrap();
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    let of_text: Vec<u64> = show(&[]).iter().map(|line| time_of(line)).collect();
    assert_eq!(of_text, [5_000_000_000, 5_000_100_000, 5_001_300_000]);
    let of_json = show(&["--json"]);
    let of_json = of_json.iter().map(|line| {
        let event: serde_json::Value = serde_json::from_str(line).unwrap();
        event["ts"].as_u64().unwrap()
    });
    assert!(of_json.eq([5_000_000_000, 5_000_800_000, 5_002_000_000]));
}

#[test]
fn check_of_the_golden_region_counts_as_the_next_boot_did() {
    let (code, report) = Unpacked::golden().check();
    assert_eq!(code, 0);
    for cpu in 0..2 {
        let stats = fixtures().join(format!("golden/4-nextboot-backup-stats-cpu{cpu}.txt"));
        assert_eq!(report["cpus"][cpu]["entries"], stat(&stats, "entries:"));
        assert_eq!(report["cpus"][cpu]["bytes"], stat(&stats, "bytes:"));
    }
}

/// Offset of the first CPU's second sub-buffer in the golden region.
const SUBBUF: usize = 0x4000;

#[test]
fn damaged_region_is_recovered_and_exits_with_1() {
    let unpacked = Unpacked::golden();
    let mut region = std::fs::read(&unpacked.region).unwrap();
    region[SUBBUF + 8..SUBBUF + 16].copy_from_slice(&u64::MAX.to_le_bytes());
    std::fs::write(&unpacked.region, &region).unwrap();
    let (code, report) = unpacked.check();
    assert_eq!(
        (code, &report["outcome"]),
        (1, &"damaged".into()),
        "{report}"
    );
    assert_eq!(report["cpus"][0]["rejected"][0]["subbuf"], 1);
    assert!(report["cpus"][0]["entries"].as_u64().unwrap() > 0);
    assert_eq!(report["cpus"][1]["entries"], 857);
}

/// That of its third.
const THIRD: usize = SUBBUF + 2 * 4096;

/// Lines of a text that say that their event is doubtful.
fn doubtful(lines: &[String]) -> Vec<&str> {
    let mark = |line| str::find(line, " [doubtful: ").map(|at| &line[at..]);
    lines.iter().filter_map(|line| mark(line)).collect()
}

#[test]
fn record_that_no_kernel_writes_is_shown_and_called_doubtful() {
    let unpacked = Unpacked::golden();
    let before = unpacked.show(&[]);
    assert_eq!(doubtful(&before), [""; 0]);
    let mut region = std::fs::read(&unpacked.region).unwrap();
    // The first record's header has 4 bytes; `common_pid` is at 4 of the entry.
    let pid = SUBBUF + 16 + 4 + 4;
    region[pid..pid + 4].copy_from_slice(&(-2_i32).to_le_bytes());
    std::fs::write(&unpacked.region, &region).unwrap();
    let shown = unpacked.show(&[]);
    assert_eq!(shown.len(), before.len());
    let why = "common_pid=-2 is no pid";
    assert_eq!(doubtful(&shown), [format!(" [doubtful: {why}]")]);
    let json = unpacked.show(&["--json"]);
    let with_doubt = json.iter().filter(|line| line.contains("\"doubt\":"));
    assert!(with_doubt.eq(json.iter().filter(|line| line.contains(why))));
    let check = ["check", &unpacked.region, "--formats", &unpacked.formats];
    let check = outlive(&check);
    let text = String::from_utf8_lossy(&check.stdout);
    assert!(
        text.contains("\n  1 event doubtful: `show` marks each\n"),
        "{text}"
    );
    assert_eq!(check.status.code(), Some(1));
}

/// The times of one of two sub-buffers are wrong, and nothing says of which.
#[test]
fn sub_buffers_that_overlap_in_time_are_shown_and_called_doubtful() {
    let unpacked = Unpacked::golden();
    let before = unpacked.show(&[]);
    let mut region = std::fs::read(&unpacked.region).unwrap();
    let next = u64::from_le_bytes(*region[THIRD + 4096..].first_chunk().unwrap());
    let json = unpacked.show(&["--json", "--cpu", "0"]);
    let times = json.iter().map(|line| {
        let event: serde_json::Value = serde_json::from_str(line).unwrap();
        event["ts"].as_u64().unwrap()
    });
    let last = times.filter(|&time| time < next).max().unwrap();
    // A record's header has its words in bits 0 to 4 and its time delta above; so do all events from the
    // second on come later, the last one behind the next sub-buffer's first.
    let header = |at: usize| u32::from_le_bytes(*region[at..].first_chunk().unwrap());
    let second = THIRD + 16 + 4 + 4 * (header(THIRD + 16) & 0x1f) as usize;
    let late = header(second) + (u32::try_from(next - last + 1).unwrap() << 5);
    region[second..second + 4].copy_from_slice(&late.to_le_bytes());
    std::fs::write(&unpacked.region, &region).unwrap();
    let (code, report) = unpacked.check();
    let cpu = &report["cpus"][0];
    assert_eq!(code, 1, "{report}");
    assert_eq!(
        cpu["rejected"][0]["reason"],
        "ends after sub-buffer 4 begins: the times of one of the two are wrong"
    );
    let shown = unpacked.show(&[]);
    assert_eq!(shown.len(), before.len());
    let marked = doubtful(&shown);
    assert_eq!(cpu["doubtful"], marked.len());
    assert!((20..before.len() / 2).contains(&marked.len()), "{marked:?}");
}

#[test]
fn truncated_region_keeps_what_is_there() {
    let unpacked = Unpacked::golden();
    let region = std::fs::read(&unpacked.region).unwrap();
    std::fs::write(&unpacked.region, &region[..200 << 10]).unwrap();
    let (code, report) = unpacked.check();
    assert_eq!(code, 1);
    assert_eq!(report["cpus"][0]["entries"], 806, "{report}");
    assert!(
        report["parts"][0]["damage"][0]
            .as_str()
            .unwrap()
            .contains("cut off")
    );
    for verb in ["show", "info", "check"] {
        let output = outlive(&[verb, &unpacked.region, "--formats", &unpacked.formats]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(
            said.contains("region.bin is cut off: 204800 bytes of 262144"),
            "{verb}: {said}"
        );
    }
}

/// The extension lies behind the ring, so that a file that is cut short has none.
#[test]
fn truncated_region_of_outlive_is_not_said_to_be_a_kernels() {
    let geometry = Geometry::new(256 << 10, 1).unwrap();
    let memory = HeapMemory::new(geometry.size() as usize);
    Region::format(&memory, geometry, None).unwrap();
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("region.bin");
    std::fs::write(&file, &memory.to_vec()[..100 << 10]).unwrap();
    for (verb, words) in [
        ("info", "cut off: 102400 bytes of 262144"),
        ("info", "an outlive wrote it"),
        ("check", "damaged: cut off: 102400 bytes of 262144"),
        ("check", "region of outlive"),
        ("last", "an outlive wrote it"),
    ] {
        let output = outlive(&[verb, file.to_str().unwrap()]);
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(said.contains(words), "{verb}: {said}");
    }
}

#[test]
fn what_is_no_region_exits_with_2() {
    let folder = TempDir::new().unwrap();
    let file = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    };
    let empty = file("empty", b"");
    let text = file("text", &b"no region\n".repeat(1000));
    // A scratch area that is a page longer.
    let mut other = gunzip(&fixtures().join("golden/2-region-256KiB-2cpu.bin.gz"));
    other.splice(4096..4096, [0; 4096]);
    other[16..24].copy_from_slice(&(8240_u64 + 4096).to_le_bytes());
    let other = file("other", &other);
    for (path, words) in [
        (empty.as_path(), "is empty"),
        (text.as_path(), "not a persistent ring buffer"),
        (other.as_path(), "layout is not known"),
        (folder.path(), "a folder"),
    ] {
        for command in ["check", "show", "info"] {
            let output = outlive(&[command, path.to_str().unwrap()]);
            let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
            assert_eq!(output.status.code(), Some(2), "{command} {stderr}");
            assert!(stderr.contains(words), "{command} {stderr}");
            assert!(output.stdout.is_empty());
        }
    }
}

/// Their fields are printed, and that is told at the end, by `info` too; not where fields are asked for.
#[test]
fn events_whose_print_format_cannot_be_evaluated_are_counted() {
    let unpacked = Unpacked::golden().with_unevaluated_switch();
    let (region, formats) = (unpacked.region.as_str(), unpacked.formats.as_str());
    let run = |args: &[&str]| {
        let output = outlive(&[args, &["--formats", formats]].concat());
        assert!(output.status.success(), "{output:?}");
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (text(output.stdout), text(output.stderr))
    };
    let (text, told) = run(&["show", region]);
    let switches = text.matches(": sched_switch: ").count();
    assert!(switches > 100, "{switches}");
    let words = |n| {
        format!(
            "{n} events print their fields, as their print format cannot be evaluated: \
             sched:sched_switch {n}\n"
        )
    };
    assert_eq!(told, format!("outlive: {}", words(switches)));
    assert_eq!(run(&["show", region, "--raw-fields"]).1, "");
    assert_eq!(run(&["show", region, "--json"]).1, "");
    assert_eq!(run(&["show", region, "--event", "sched_waking"]).1, "");

    let (info, _) = run(&["info", region]);
    assert!(info.contains(&words(switches)), "{info}");
    let (info, _) = run(&["info", region, "--json"]);
    let info: serde_json::Value = serde_json::from_str(&info).unwrap();
    assert_eq!(
        info["unevaluated"],
        serde_json::json!({"sched:sched_switch": switches})
    );
}

#[test]
fn region_without_formats_says_once_what_would_decode_it() {
    let unpacked = Unpacked::golden();
    let output = outlive(&["show", &unpacked.region]);
    assert!(output.status.success());
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(stderr.matches("--formats DIR").count(), 1);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains(": Unknown type "), "{}", &text[..2000]);
}
