//! What others recorded, imported: shown as what it was made of.

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use common::trace_dat::{Line, by_time_and_cpu, trace_cmd};
use common::{Unpacked, fixtures, gunzip, outlive};
use outlive_ring::extension::Layout;
use outlive_ring::{HeapMemory, RunRecord};
use tempfile::TempDir;

const KERNEL: &str = "7.3.4-2cpu-1M";

fn stdout(output: &Output) -> String {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// Imports into a state of its own and returns what is shown of `name`.
fn imported(folder: &TempDir, file: &Path, name: &str, more: &[&str]) -> String {
    let state = folder.path().join("state");
    let state = state.to_str().unwrap();
    let file = file.to_str().unwrap();
    stdout(&outlive(&[
        "import", file, "--name", "it", "--state", state,
    ]));
    stdout(&outlive(
        &[&["show", name, "--state", state], more].concat(),
    ))
}

fn export(folder: &TempDir, unpacked: &Unpacked, format: &str) -> PathBuf {
    let out = folder.path().join("trace.dat");
    stdout(&outlive(&[
        "export",
        &unpacked.region,
        "--formats",
        &unpacked.formats,
        "--format",
        format,
        "-o",
        out.to_str().unwrap(),
    ]));
    out
}

fn shown(unpacked: &Unpacked) -> String {
    stdout(&outlive(&[
        "show",
        &unpacked.region,
        "--formats",
        &unpacked.formats,
    ]))
}

/// Without the names of tasks: an import learns them from the events too.
fn without_tasks(text: &str) -> String {
    let events = text.lines().map(|line| match line.find('[') {
        Some(at) if !line.starts_with('#') => &line[at..],
        _ => line,
    });
    events.collect::<Vec<_>>().join("\n")
}

fn assert_same(ours: &str, theirs: &str) {
    assert_eq!(without_tasks(ours), without_tasks(theirs));
}

#[test]
fn what_was_exported_and_imported_is_shown_as_before() {
    for kernel in [KERNEL, "6.12.107-2cpu-1M"] {
        let unpacked = Unpacked::of_kernel(kernel);
        for format in ["trace.dat", "trace.dat-v6"] {
            let folder = TempDir::new().unwrap();
            let file = export(&folder, &unpacked, format);
            let again = imported(&folder, &file, "it", &[]);
            assert_same(&again, &shown(&unpacked));
            let check = outlive(&[
                "check",
                "it",
                "--state",
                folder.path().join("state").to_str().unwrap(),
            ]);
            assert!(check.status.success(), "{check:?}");
        }
    }
}

/// trace-cmd writes the same again, compressed with zstd.
#[test]
fn a_compressed_file_of_trace_cmd_is_imported() {
    let unpacked = Unpacked::of_kernel(KERNEL);
    let folder = TempDir::new().unwrap();
    let file = export(&folder, &unpacked, "trace.dat");
    let compressed = folder.path().join("compressed.dat");
    let converted = Command::new("trace-cmd")
        .args(["convert", "--compression", "zstd", "-i"])
        .arg(&file)
        .arg("-o")
        .arg(&compressed)
        .output()
        .expect("trace-cmd is missing: `cargo xtask setup` installs it");
    assert!(converted.status.success(), "{converted:?}");
    assert!(fs::metadata(&compressed).unwrap().len() * 2 < fs::metadata(&file).unwrap().len());
    assert_same(
        &imported(&folder, &compressed, "it", &[]),
        &shown(&unpacked),
    );
}

/// An instance of the kernel's tracer; gone when it is dropped, if trace-cmd has not removed it.
struct Instance {
    name: String,
    path: PathBuf,
}

impl Instance {
    fn new(name: &str, events: &[&str]) -> std::io::Result<Self> {
        let name = format!("outlive_import_{}_{name}", std::process::id());
        let path = Path::new("/sys/kernel/tracing/instances").join(&name);
        fs::create_dir(&path)?;
        let this = Self { name, path };
        for event in events {
            this.write(&format!("events/{event}/enable"), "1");
        }
        Ok(this)
    }

    fn write(&self, file: &str, text: &str) {
        let path = self.path.join(file);
        fs::write(&path, text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.path);
    }
}

/// What trace-cmd says of a file that it wrote itself, of one of its instances.
fn reported(file: &Path, instance: &str) -> Vec<Line> {
    let text = trace_cmd(&["report", "-N", "-t", "-i"], file);
    let text = String::from_utf8_lossy(&text).into_owned();
    // The event behind a loss is on a line of its own, without the name.
    let mut is_its = false;
    let lines = text.lines().skip(1).filter_map(|line| {
        let (name, rest) = match line.split_once(':') {
            Some((name, rest)) if name.starts_with("outlive_import_") => (Some(name), rest),
            _ => (None, line),
        };
        is_its = name.map_or(is_its, |name| name == instance);
        is_its.then_some(rest)
    });
    lines_of(lines.collect::<Vec<_>>().join("\n").as_bytes())
}

/// An import learns names of tasks from the events too.
fn lines_of(text: &[u8]) -> Vec<Line> {
    let lines = Line::all(text).into_iter().map(Line::without_name);
    by_time_and_cpu(lines.collect())
}

/// What trace-cmd took out of the kernel: two instances, of which one has overrun.
#[test]
fn a_file_that_trace_cmd_recorded_is_shown_as_trace_cmd_reports_it() {
    let events = [
        "sched/sched_switch",
        "sched/sched_waking",
        "irq",
        "workqueue",
        "task",
    ];
    let instances = ["a", "b"].map(|name| Instance::new(name, &events[..]));
    let [Ok(whole), Ok(overrun)] = &instances else {
        return println!("trace-cmd: skipped: {:?}", instances.map(|i| i.err()));
    };
    whole.write("buffer_size_kb", "4096");
    overrun.write("buffer_size_kb", "16");
    for number in 0..2000 {
        whole.write("trace_marker", &format!("number {number}"));
        overrun.write(
            "trace_marker",
            &format!("a marker that takes some room: {number}"),
        );
    }
    for instance in [whole, overrun] {
        instance.write("tracing_on", "0");
    }
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("recorded.dat");
    let extracted = Command::new("trace-cmd")
        .args(["extract", "-B", &whole.name, "-B", &overrun.name, "-o"])
        .arg(&file)
        .output()
        .expect("trace-cmd is missing: `cargo xtask setup` installs it");
    assert!(extracted.status.success(), "{extracted:?}");
    let state = folder.path().join("state");
    let state = state.to_str().unwrap();
    let args = [
        "import",
        file.to_str().unwrap(),
        "--name",
        "it",
        "--state",
        state,
    ];
    let imported = outlive(&args);
    assert!(imported.status.success(), "{imported:?}");
    for (instance, markers) in [(whole, 2000..2001), (overrun, 50..2000)] {
        let name = format!("it.{}", instance.name);
        let ours = lines_of(stdout(&outlive(&["show", &name, "--state", state])).as_bytes());
        let theirs = reported(&file, &instance.name);
        for (number, (ours, theirs)) in ours.iter().zip(&theirs).enumerate() {
            assert_eq!(ours, theirs, "line {number} of {name}");
        }
        assert_eq!(ours.len(), theirs.len(), "{name}");
        let is_marker =
            |line: &&Line| matches!(line, Line::Event { name, .. } if name == "tracing_mark_write");
        let count = ours.iter().filter(is_marker).count();
        assert!(markers.contains(&count), "{name}: {count} markers");
        assert!(ours.len() > count, "{name}: no events but markers");
    }
}

/// The boot that a generation says it is of.
fn set_boot(state: &Path, generation: &str, boot_id: [u8; 16]) {
    let region = state.join(format!("generations/{generation}/region"));
    let memory = HeapMemory::from_bytes(&fs::read(&region).unwrap());
    let layout = Layout::load(&memory).unwrap();
    let mut run = RunRecord::load(&layout, &memory).unwrap();
    run.boot_id = boot_id;
    run.sequence += 1;
    run.store(&layout, &memory);
    fs::write(region, memory.to_vec()).unwrap();
}

/// Imports have no clock pairs: of one boot and with one trace clock they are put in order by that.
#[test]
fn imports_of_one_boot_are_merged_by_their_trace_clock() {
    let unpacked = Unpacked::of_kernel(KERNEL);
    let folder = TempDir::new().unwrap();
    let state = folder.path().join("state");
    let state_name = state.to_str().unwrap();
    for (name, cpu) in [("a", "0"), ("b", "1")] {
        let file = folder.path().join("cpu.dat");
        let file = file.to_str().unwrap();
        let region = [unpacked.region.as_str(), "--formats", &unpacked.formats];
        stdout(&outlive(
            &[&["export", "-o", file, "--cpu", cpu], &region[..]].concat(),
        ));
        stdout(&outlive(&[
            "import", file, "--name", name, "--state", state_name,
        ]));
    }
    let both = |more: &[&str]| {
        let args = ["show", "a", "b", "--json", "--state", state_name];
        outlive(&[&args, more].concat())
    };
    let refused = both(&[]);
    assert_eq!(refused.status.code(), Some(1));
    let stderr = String::from_utf8_lossy(&refused.stderr);
    assert!(
        stderr.contains("a has no clock pairs") && stderr.contains("--same-boot"),
        "{stderr}"
    );

    let keys = |lines: &str| -> Vec<(u64, u64, String)> {
        let lines = lines
            .lines()
            .map(|line| serde_json::from_str(line).unwrap());
        lines
            .map(|line: serde_json::Value| {
                let number = |key| line[key].as_u64().unwrap();
                assert!(line["time"].is_null() || line["time"] == line["ts"]);
                (number("ts"), number("cpu"), line["event"].to_string())
            })
            .collect()
    };
    let whole = stdout(&outlive(&[
        "show",
        &unpacked.region,
        "--json",
        "--formats",
        &unpacked.formats,
    ]));
    let merged = stdout(&both(&["--same-boot"]));
    assert!(merged.lines().count() > 2000);
    assert_eq!(keys(&merged), keys(&whole));

    // Without the option if both name the same boot.
    set_boot(&state, "a/00000001", [7; 16]);
    assert_eq!(both(&[]).status.code(), Some(1));
    set_boot(&state, "b/00000002", [7; 16]);
    assert_eq!(stdout(&both(&[])), merged);
    for out in ["x.pftrace", "x.dat", "x.ctf", "x.trace.json"] {
        let out = folder.path().join(out);
        let args = ["export", "a", "b", "--state", state_name, "-o"];
        stdout(&outlive(&[&args[..], &[out.to_str().unwrap()]].concat()));
    }

    // Another clock counts otherwise.
    let event = [&[0x24, 0, 0, 0, 1, 0][..], &[0; 14]].concat();
    let raw = folder_of_large_subbuf(folder.path(), &event);
    fs::write(raw.join("trace_clock"), "local [mono]\n").unwrap();
    stdout(&outlive(&[
        "import",
        raw.to_str().unwrap(),
        "--name",
        "c",
        "--state",
        state_name,
    ]));
    let args = ["show", "a", "c", "--same-boot", "--state", state_name];
    let refused = outlive(&args);
    let stderr = String::from_utf8_lossy(&refused.stderr);
    assert!(
        stderr.contains("trace clock local, another region has mono"),
        "{stderr}"
    );
}

#[test]
fn a_cut_file_gives_what_is_there_and_says_so() {
    let unpacked = Unpacked::of_kernel(KERNEL);
    let folder = TempDir::new().unwrap();
    let file = export(&folder, &unpacked, "trace.dat-v6");
    let bytes = fs::read(&file).unwrap();
    fs::write(&file, &bytes[..bytes.len() - 100_000]).unwrap();
    let state = folder.path().join("state");
    let state = state.to_str().unwrap();
    let output = outlive(&["import", file.to_str().unwrap(), "--state", state]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("cut off"));
    let lines = stdout(&outlive(&["show", "trace", "--state", state]))
        .lines()
        .count();
    assert!((1000..shown(&unpacked).lines().count()).contains(&lines));
}

/// Sub-buffers as `trace_pipe_raw` gave them to a reader of the kernel's backup instance.
#[test]
fn a_folder_of_raw_sub_buffers_is_imported() {
    let folder = TempDir::new().unwrap();
    let raw = folder.path().join("raw");
    for cpu in 0..2 {
        let cpu_folder = raw.join(format!("per_cpu/cpu{cpu}"));
        fs::create_dir_all(&cpu_folder).unwrap();
        let name = format!("golden/5-nextboot-backup-raw-cpu{cpu}.bin.gz");
        let bytes = gunzip(&fixtures().join(name));
        fs::write(cpu_folder.join("trace_pipe_raw"), bytes).unwrap();
    }
    let events = fixtures().join(KERNEL).join("events");
    let copied = Command::new("cp").arg("-r").arg(events).arg(&raw).status();
    assert!(copied.unwrap().success());
    let events = |text: &str| -> String {
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        lines.collect::<Vec<_>>().join(
            "
",
        )
    };
    let ours = events(&imported(&folder, &raw, "it", &["--raw-fields"]));
    let golden = Unpacked::golden();
    let theirs = stdout(&outlive(&[
        "show",
        &golden.region,
        "--formats",
        &golden.formats,
        "--raw-fields",
    ]));
    assert_same(&ours, &events(&theirs));
}

/// An ELF core of two stretches of memory: one of 100 bytes, and this.
fn core(address: u64, stretch: &[u8]) -> Vec<u8> {
    let mut core = vec![0; 64];
    core[..6].copy_from_slice(b"\x7fELF\x02\x01");
    core[32..40].copy_from_slice(&64_u64.to_le_bytes());
    core[54..56].copy_from_slice(&56_u16.to_le_bytes());
    core[56..58].copy_from_slice(&2_u16.to_le_bytes());
    let data = 64 + 2 * 56;
    for (offset, address, len) in [(data, 0x1000, 100), (data + 100, address, stretch.len())] {
        core.extend_from_slice(&1_u32.to_le_bytes());
        core.extend_from_slice(&4_u32.to_le_bytes());
        for word in [offset as u64, 0, address, len as u64, len as u64, 4096] {
            core.extend_from_slice(&word.to_le_bytes());
        }
    }
    core.extend(vec![0; 100]);
    core.extend_from_slice(stretch);
    core
}

/// An ELF core as a crash dump is one: the region lies in the second of two stretches of memory, at
/// a page of the memory that is no page of the file.
#[test]
fn a_region_is_found_in_a_vmcore_and_in_a_raw_dump() {
    let unpacked = Unpacked::of_kernel(KERNEL);
    let region = fs::read(&unpacked.region).unwrap();
    let stretch = [vec![0xaa; 3 * 4096], region.clone(), vec![0x55; 5000]].concat();
    let core = core(0x1_0000, &stretch);
    for (image, address) in [(core, 0x1_3000), (stretch, 0x3000)] {
        let folder = TempDir::new().unwrap();
        let file = folder.path().join("memory");
        fs::write(&file, image).unwrap();
        let more = ["--formats", &unpacked.formats];
        assert_eq!(imported(&folder, &file, "it", &more), shown(&unpacked));
        let state = folder.path().join("state");
        let kept = fs::read(state.join("generations/it/00000001/region")).unwrap();
        assert_eq!(kept.len(), region.len());
        assert!(kept == region);
        let said = outlive(&[
            "import",
            file.to_str().unwrap(),
            "--state",
            state.to_str().unwrap(),
        ]);
        let said = String::from_utf8_lossy(&said.stderr).into_owned();
        assert!(
            said.contains(&format!("memory/2: a region of a kernel at {address:#x}")),
            "{said}"
        );
    }
}

/// A file that ends in the middle of a region was once imported without a word.
#[test]
fn a_vmcore_and_a_raw_dump_that_are_cut_off_give_what_is_there_and_say_so() {
    let unpacked = Unpacked::of_kernel(KERNEL);
    let region = fs::read(&unpacked.region).unwrap();
    let all = shown(&unpacked).lines().count();
    let cut = 200 << 10;
    let both = [&region[..], &vec![0x55; 5000], &region].concat();
    let image = |mut image: Vec<u8>, cut: usize| {
        image.truncate(image.len() - cut);
        image
    };
    let missing = format!("{cut} of its {} bytes are missing", region.len());
    let cases = [
        (
            image(core(0x1_0000, &region), cut),
            "bytes of memory are missing",
            1,
        ),
        (image(core(0x1_0000, &region), cut), missing.as_str(), 1),
        (image(region.clone(), cut), missing.as_str(), 1),
        // All of the second stretch, and the region of neither.
        (
            image(core(0x1_0000, &region), region.len()),
            "bytes of memory are missing",
            0,
        ),
        // One that is whole, and less than any can be recovered from.
        (
            image([&region[..], &region].concat(), region.len() - 8192),
            "at 0x100000: ",
            1,
        ),
        (
            image(core(0x1_0000, &both), 100),
            "100 bytes of memory are missing",
            1,
        ),
    ];
    for (number, (image, said, kept)) in cases.into_iter().enumerate() {
        let folder = TempDir::new().unwrap();
        let file = folder.path().join("memory");
        fs::write(&file, image).unwrap();
        let state = folder.path().join("state");
        let state = state.to_str().unwrap();
        let output = outlive(&[
            "import",
            file.to_str().unwrap(),
            "--name",
            "it",
            "--state",
            state,
        ]);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{number}: {stderr}");
        assert!(stderr.contains(said), "{number}: {stderr}");
        assert_eq!(stderr.contains("it/1: a region"), kept == 1, "{stderr}");
        if kept == 1 {
            let shown = outlive(&[
                "show",
                "it",
                "--formats",
                &unpacked.formats,
                "--state",
                state,
            ]);
            let lines = stdout(&shown).lines().count();
            assert!(
                (all / 3..=all).contains(&lines),
                "{number}: {lines} of {all}"
            );
        }
    }
}

/// The search once ended after 64 pages that begin as a region does, without a word.
#[test]
fn a_search_that_ends_early_says_so() {
    let unpacked = Unpacked::of_kernel(KERNEL);
    let region = fs::read(&unpacked.region).unwrap();
    let mut page = vec![0; 4096];
    page[..4].copy_from_slice(&region[..4]);
    let cases = [(63, 2, false), (64, 1, true)];
    for (pages, regions, ends) in cases {
        let folder = TempDir::new().unwrap();
        let file = folder.path().join("memory");
        fs::write(&file, [&region[..], &page.repeat(pages), &region].concat()).unwrap();
        let state = folder.path().join("state");
        let output = outlive(&[
            "import",
            file.to_str().unwrap(),
            "--state",
            state.to_str().unwrap(),
        ]);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{stderr}");
        assert_eq!(
            stderr.matches(": a region of a kernel at").count(),
            regions,
            "{stderr}"
        );
        let said = format!("the search ends at {:#x}", region.len() + (64 << 12));
        assert_eq!(stderr.contains(&said), ends, "{stderr}");
    }
}

#[test]
fn what_cannot_be_imported_is_refused_and_changes_nothing() {
    let folder = TempDir::new().unwrap();
    let state = folder.path().join("state");
    let cases: [(&str, &[u8], &str); 6] = [
        ("text", b"no trace at all", "no region was found"),
        (
            "dat",
            b"\x17\x08\x44tracing9\0\0\x08",
            "is damaged or cut off",
        ),
        (
            "old",
            b"\x17\x08\x44tracing5\0\0\x08\0\x10\0\0",
            "format 5 of trace.dat is not supported",
        ),
        ("elf", b"\x7fELF\x01\x01", "not 64-bit little-endian"),
        ("kdump", b"KDUMP   \x06\0\0\0", "makedumpfile -E"),
        ("flat", b"makedumpfile\0\0\0\0", "makedumpfile -R"),
    ];
    for (name, bytes, said) in cases {
        let file = folder.path().join(name);
        fs::write(&file, bytes).unwrap();
        let file = file.to_str().unwrap();
        let output = outlive(&["import", file, "--state", state.to_str().unwrap()]);
        assert_eq!(output.status.code(), Some(1), "{name}");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(stderr.contains(said), "{stderr}");
    }
    let empty = folder.path().join("empty");
    fs::create_dir_all(empty.join("per_cpu/cpu0")).unwrap();
    let output = outlive(&[
        "import",
        empty.to_str().unwrap(),
        "--state",
        state.to_str().unwrap(),
    ]);
    assert!(String::from_utf8_lossy(&output.stderr).contains("per_cpu/cpuN/trace_pipe_raw"));
    assert!(!state.exists());
}

/// A sub-buffer of 8 KiB with these records, in a folder as somebody copied it.
fn folder_of_large_subbuf(folder: &Path, records: &[u8]) -> PathBuf {
    let raw = folder.join("raw");
    let cpu = raw.join("per_cpu/cpu0");
    fs::create_dir_all(&cpu).unwrap();
    let events = fixtures().join(KERNEL).join("events");
    let copied = Command::new("cp").arg("-r").arg(events).arg(&raw).status();
    assert!(copied.unwrap().success());
    let header = raw.join("events/header_page");
    let text = fs::read_to_string(&header).unwrap();
    assert!(text.contains("size:4080;"), "{text}");
    fs::write(&header, text.replace("size:4080;", "size:8176;")).unwrap();
    let mut page = 1000_u64.to_le_bytes().to_vec();
    page.extend((records.len() as u64).to_le_bytes());
    page.extend(records);
    page.resize(8192, 0);
    fs::write(cpu.join("trace_pipe_raw"), page).unwrap();
    raw
}

/// Damage in sub-buffers larger than 4 KiB was once left out without a word, as were events that no
/// sub-buffer of 4 KiB holds.
#[test]
fn what_is_missing_of_larger_sub_buffers_is_said() {
    // 16 bytes of payload, a time delta of 1.
    let event = [&[0x24, 0, 0, 0, 1, 0][..], &[0; 14]].concat();
    let whole = event.repeat(400);
    let mut damaged = whole.clone();
    damaged[200 * event.len()..][..8].copy_from_slice(&[0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]);
    let too_long = [
        &0_u32.to_le_bytes()[..],
        &5004_u32.to_le_bytes(),
        &[0; 5000],
    ]
    .concat();
    let long = [&event[..], &too_long, &event].concat();
    let cases = [
        (whole, 0, "400 events", "", 0),
        (damaged, 1, "200 events", "1 sub-buffers are damaged", 0),
        (long, 1, "2 events", "1 events are longer than", 1),
    ];
    for (records, code, events, said, holes) in cases {
        let folder = TempDir::new().unwrap();
        let raw = folder_of_large_subbuf(folder.path(), &records);
        let state = folder.path().join("state");
        let state = state.to_str().unwrap();
        let args = ["import", raw.to_str().unwrap(), "--name", "it"];
        let output = outlive(&[&args[..], &["--state", state]].concat());
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{stderr}");
        assert!(stderr.contains(events) && stderr.contains(said), "{stderr}");
        let shown = stdout(&outlive(&["show", "it", "--state", state]));
        assert_eq!(shown.matches("[LOST 1 EVENTS]").count(), holes, "{shown}");
    }
}
