//! `trace.dat` as trace-cmd and KernelShark's library read it, against what `show` says of the same regions.

mod common;

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use common::trace_dat::{Line, assert_same, export, trace_cmd};
use common::{Unpacked, fixtures, outlive};
use outlive::{Backing, Recorder, event};
use outlive_ring::extension::Layout;
use outlive_ring::{HeapMemory, RunRecord};
use tempfile::TempDir;

fn assert_same_region(unpacked: &Unpacked, more: &[&str], code: i32) -> Vec<Line> {
    let region = [&unpacked.region, "--formats", &unpacked.formats];
    assert_same(&[&region, more].concat(), code)
}

const KERNELS: [&str; 2] = ["7.3.4-2cpu-1M", "6.12.107-2cpu-1M"];

#[test]
fn trace_cmd_reports_a_kernels_region_as_show_does() {
    for kernel in KERNELS {
        let lines = assert_same_region(&Unpacked::of_kernel(kernel), &[], 0);
        assert!(lines.len() > 2000);
    }
}

#[test]
fn trace_cmd_reports_wrapped_and_half_read_regions_as_show_does() {
    for region in [
        "6.12.107-1cpu-wrapped-Reset",
        "6.18.15-2cpu-read-Reset",
        "7.2.13-2cpu-wrapped-Panic",
        "7.3.4-4cpu-read-Panic",
    ] {
        let folder = TempDir::new().unwrap();
        let archive = fixtures().join(format!("regions/{region}.tar.xz"));
        let mut tar = Command::new("tar");
        let unpacked = tar.arg("-xJf").arg(archive).arg("-C").arg(folder.path());
        assert!(unpacked.status().unwrap().success());
        let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
        assert_same(&[&path("region.bin"), "--formats", &path("events")], 0);
    }
}

/// What a kernel noted of the boot that recorded, and each CPU's counters, as `info` tells them.
#[test]
fn trace_cmd_shows_the_previous_boot_and_the_counters() {
    let unpacked = Unpacked::of_crash("7.3.4-2cpu-wrapped-Panic");
    let folder = TempDir::new().unwrap();
    let region = [unpacked.region.as_str(), "--formats", &unpacked.formats];
    let info = outlive(&[&["info", "--json"], &region[..]].concat());
    let info: serde_json::Value = serde_json::from_slice(&info.stdout).unwrap();
    let text = info["parts"][0]["text_address"].as_str().unwrap();
    let text = text.trim_start_matches("0x");
    let cpus = info["cpus"].as_array().unwrap();
    for format in ["trace.dat", "trace.dat-v6"] {
        let file = export(&folder, &[&region[..], &["--format", format]].concat(), 0);
        let said = trace_cmd(&["report", "--stat", "-i"], &file);
        let said = String::from_utf8_lossy(&said);
        let mut lines = said.lines().map(str::trim);
        assert!(
            lines.any(|line| line == format!("{text}\t[kernel]")),
            "{format}: {said}"
        );
        assert!(cpus.iter().any(|cpu| cpu["entries"].as_u64() > Some(1000)));
        for cpu in cpus {
            let counters = ["cpu", "entries", "overrun", "bytes"];
            for (key, word) in counters
                .into_iter()
                .zip(["CPU", "entries", "overrun", "bytes"])
            {
                let line = format!("{word}: {}", cpu[key]);
                assert!(lines.any(|said| said == line), "{format}, {line}: {said}");
            }
        }
    }
}

#[test]
fn what_is_missing_of_a_damaged_region_is_said_at_its_place() {
    let unpacked = Unpacked::of_kernel("7.3.4-2cpu-1M");
    let mut bytes = std::fs::read(&unpacked.region).unwrap();
    // Of some sub-buffers of the first CPU, the first record becomes padding without a length.
    let middle = bytes.len() / 4 / 4096 * 4096;
    for subbuf in 0..5 {
        let record = middle + 3 * subbuf * 4096 + 16;
        bytes[record..record + 4].copy_from_slice(&29_u32.to_le_bytes());
    }
    std::fs::write(&unpacked.region, bytes).unwrap();
    let lines = assert_same_region(&unpacked, &[], 1);
    let losses = |lines: &[Line]| lines.iter().filter(|line| line.is_lost()).count();
    let lost = losses(&lines);
    assert!(lost >= 5);
    let folder = TempDir::new().unwrap();
    let region = [&unpacked.region, "--formats", &unpacked.formats];
    let selected = export(
        &folder,
        &[&region[..], &["--event", "sched_switch"]].concat(),
        1,
    );
    let reported = Line::all(&trace_cmd(&["report", "-N", "-t", "-i"], &selected));
    // Where there is none of them between two losses, they are one.
    assert!((1..=lost).contains(&losses(&reported)));
}

#[test]
fn selected_events_are_reported_as_show_does() {
    let unpacked = Unpacked::of_kernel("7.3.4-2cpu-1M");
    let all = assert_same_region(&unpacked, &[], 0).len();
    for selection in [
        &["--cpu", "1"][..],
        &["--last", "3s"],
        &["--event", "sched_switch"],
        &["--filter", "common_pid > 100", "--cpu", "0"],
        &["--last", "1500ms", "--filter", "prev_pid == 0"],
    ] {
        let lines = assert_same_region(&unpacked, selection, 0);
        assert!((1..all).contains(&lines.len()), "{selection:?}");
    }
}

/// A program's events lie in lanes, of which any thread takes one that is free: in the file each is
/// under the CPU that it says it was written on.
#[test]
fn a_programs_events_are_under_the_cpus_that_wrote_them() {
    let folder = TempDir::new().unwrap();
    let state = folder.path().to_str().unwrap();
    let recorder = Recorder::builder("shop")
        .state(folder.path())
        .backing(Backing::File)
        .start()
        .unwrap();
    let write = |thread: u64| {
        for number in 0..500_u64 {
            event!(
                "shop:order",
                thread = thread,
                number = number,
                customer = "Ada"
            );
        }
    };
    std::thread::scope(|scope| {
        for thread in 0..4 {
            scope.spawn(move || write(thread));
        }
    });
    drop(recorder);
    let lines = assert_same(&["shop", "--state", state], 0);
    assert_eq!(lines.len(), 2000);
    assert_same(&["shop", "--state", state, "--filter", "number > 450"], 0);

    // Beside a region with the same ids for other events, and with its own clock.
    let again = TempDir::new().unwrap();
    let file = export(&again, &["shop", "shop", "--state", state], 0);
    let reported = trace_cmd(&["report", "-N", "-i"], &file);
    let reported = String::from_utf8_lossy(&reported);
    let of_shop = reported.lines().filter(|line| line.contains("shop:"));
    assert_eq!(of_shop.count(), 4000);
}

#[test]
fn a_pipe_is_refused() {
    let unpacked = Unpacked::of_kernel("7.3.4-2cpu-1M");
    let output = outlive(&[
        "export",
        &unpacked.region,
        "-o",
        "-",
        "--format",
        "trace.dat",
    ]);
    assert_eq!(output.status.code(), Some(1));
    assert!(output.stdout.is_empty());
    assert!(String::from_utf8_lossy(&output.stderr).contains("cannot be written into a pipe"));
}

/// Runs the command where `/proc/sys/kernel/kptr_restrict` says this; `None` without mounts of one's own.
fn outlive_where(kptr_restrict: &str, user: u32, args: &[&str]) -> Option<std::process::Output> {
    const SCRIPT: &str = "echo $restrict > $folder/restrict || exit 99
        mount --bind $folder/restrict /proc/sys/kernel/kptr_restrict || exit 99
        exec setpriv --reuid=$user --regid=$user --clear-groups $outlive \"$@\"";
    let folder = TempDir::new().unwrap();
    open_to_all(folder.path());
    let output = Command::new("unshare")
        .args(["--mount", "sh", "-c", SCRIPT, "sh"])
        .args(args)
        .env("outlive", env!("CARGO_BIN_EXE_outlive"))
        .env("folder", folder.path())
        .env("OUTLIVE_STATE", folder.path())
        .env("restrict", kptr_restrict)
        .env("user", user.to_string())
        .output()
        .unwrap();
    if !matches!(output.status.code(), Some(0 | 1)) {
        println!("kptr_restrict: skipped: no mounts of its own: {output:?}");
        return None;
    }
    Some(output)
}

fn open_to_all(path: &Path) {
    let all = std::fs::Permissions::from_mode(0o777);
    std::fs::set_permissions(path, all).unwrap();
}

/// A region in a file, of this boot, with symbols, printk formats and the address of the kernel.
fn region_of_this_boot(folder: &Path) -> String {
    let unpacked = Unpacked::of_crash("7.3.4-2cpu-wrapped-Panic");
    let kallsyms = Path::new(&unpacked.region).with_file_name("kallsyms");
    let symbols = std::fs::read_to_string(&kallsyms).unwrap();
    std::fs::write(&kallsyms, symbols + "ffffffff81000000 T _text\n").unwrap();
    let [file, state, region] = ["t.dat", "state", "region"].map(|name| folder.join(name));
    let [file, state] = [&file, &state].map(|path| path.to_str().unwrap());
    let formats = unpacked.formats.as_str();
    let commands: [&[&str]; 2] = [
        &["export", &unpacked.region, "--formats", formats, "-o", file],
        &["import", file, "--name", "it", "--state", state],
    ];
    for command in commands {
        let output = outlive(command);
        assert!(output.status.success(), "{output:?}");
    }
    let kept = folder.join("state/generations/it/00000001/region");
    let memory = HeapMemory::from_bytes(&std::fs::read(kept).unwrap());
    let layout = Layout::load(&memory).unwrap();
    let mut run = RunRecord::load(&layout, &memory).unwrap();
    run.boot_id = outlive_trace::verdict::boot_id();
    run.sequence += 1;
    run.store(&layout, &memory);
    std::fs::write(&region, memory.to_vec()).unwrap();
    region.to_str().unwrap().to_owned()
}

/// Symbols were always left out where `kptr_restrict` says so; the kernel's own address went out.
#[test]
fn addresses_of_the_kernel_that_runs_are_for_those_who_may_see_them() {
    let folder = TempDir::new().unwrap();
    open_to_all(folder.path());
    let region = region_of_this_boot(folder.path());
    open_to_all(Path::new(&region));
    // Symbols and the kernel's address; printk formats.
    let cases = [
        ("0", 65534, true, true),
        ("1", 0, true, true),
        ("1", 65534, false, false),
        ("2", 0, false, true),
    ];
    for (number, (restrict, user, symbols, formats)) in cases.into_iter().enumerate() {
        let case = format!("kptr_restrict {restrict}, user {user}");
        let out = folder.path().join(format!("{number}.dat"));
        let args = ["export", &region, "-o", out.to_str().unwrap()];
        let Some(output) = outlive_where(restrict, user, &args) else {
            return;
        };
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.success(), symbols, "{case}: {stderr}");
        assert_eq!(
            !stderr.contains("symbols of this kernel are left out"),
            symbols,
            "{case}"
        );
        assert_eq!(
            !stderr.contains("trace_printk are left out"),
            formats,
            "{case}"
        );
        let said = |args: &[&str]| {
            String::from_utf8_lossy(&trace_cmd(&[&["report"], args, &["-i"]].concat(), &out))
                .into_owned()
        };
        let stat = said(&["--stat"]);
        assert_eq!(
            stat.contains("ffffffff81000000\t[kernel]"),
            symbols,
            "{case}: {stat}"
        );
        assert_eq!(
            said(&["-f"]).contains("ffffffff"),
            symbols,
            "{case}: {}",
            said(&["-f"])
        );
        assert_eq!(
            said(&["-P"]).contains("ffffffff"),
            formats,
            "{case}: {}",
            said(&["-P"])
        );
        let info = outlive_where(restrict, user, &["info", &region, "--json"]).unwrap();
        let info: serde_json::Value = serde_json::from_slice(&info.stdout).unwrap();
        assert_eq!(
            info["parts"][0]["text_address"].is_string(),
            symbols,
            "{case}: {info}"
        );
    }
}
