//! What `export` writes, against what `show` says of the same regions.

mod common;

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Output};

use common::{Unpacked, outlive};
use outlive::{Backing, Recorder, event};
use outlive_event::Filter;
use outlive_trace::view::{Source, Sources, View, Wanted};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use serde_json::Value;

fn stdout(output: &Output) -> String {
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn export(unpacked: &Unpacked, out: &Path, more: &[&str]) -> Output {
    let out = out.to_str().unwrap();
    let mut args = vec!["export", &unpacked.region, "--formats", &unpacked.formats];
    args.extend(["-o", out]);
    args.extend(more);
    outlive(&args)
}

#[test]
fn json_lines_are_those_of_show() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out.jsonl");
    for name in ["7.3.4-2cpu-1M", "6.12.107-2cpu-1M"] {
        let unpacked = Unpacked::of_kernel(name);
        let shown = stdout(&outlive(&[
            "show",
            &unpacked.region,
            "--formats",
            &unpacked.formats,
            "--json",
        ]));
        stdout(&export(&unpacked, &out, &[]));
        assert_eq!(std::fs::read_to_string(&out).unwrap(), shown);
        assert!(shown.lines().count() > 1000);
    }
}

#[test]
fn csv_has_a_row_per_event_and_the_fields_of_the_events_that_were_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out.csv");
    let unpacked = Unpacked::of_kernel("7.3.4-2cpu-1M");
    let asked = ["--event", "sched_switch", "--filter", "prev_pid != 0"];
    stdout(&export(&unpacked, &out, &asked));
    let mut args = vec![
        "show",
        &unpacked.region,
        "--formats",
        &unpacked.formats,
        "--json",
    ];
    args.extend(asked);
    let shown = stdout(&outlive(&args));
    let mut reader = csv::Reader::from_path(&out).unwrap();
    let header = reader.headers().unwrap().clone();
    let place = |name: &str| header.iter().position(|column| column == name).unwrap();
    let (time, pid, comm) = (place("time"), place("prev_pid"), place("next_comm"));
    let rows: Vec<_> = reader.records().map(Result::unwrap).collect();
    assert_eq!(rows.len(), shown.lines().count());
    for (row, line) in rows.iter().zip(shown.lines()) {
        let event: serde_json::Value = serde_json::from_str(line).unwrap();
        assert_eq!(row[time], event["ts"].to_string());
        assert_eq!(row[pid], event["fields"]["prev_pid"].to_string());
        assert_eq!(row[comm], *event["fields"]["next_comm"].as_str().unwrap());
    }
}

#[test]
fn what_a_damaged_region_lacks_is_said_and_is_the_exit_code() {
    let folder = tempfile::tempdir().unwrap();
    let unpacked = Unpacked::of_kernel("7.3.4-2cpu-1M");
    let mut bytes = std::fs::read(&unpacked.region).unwrap();
    // The time stamp of a sub-buffer of the first CPU.
    let middle = bytes.len() / 4 / 4096 * 4096;
    bytes[middle..middle + 8].fill(0xff);
    std::fs::write(&unpacked.region, bytes).unwrap();
    let out = folder.path().join("out.jsonl");
    let exported = export(&unpacked, &out, &[]);
    assert_eq!(exported.status.code(), Some(1), "{}", stderr(&exported));
    assert!(stderr(&exported).contains("is damaged"));
    for names in [
        &[unpacked.region.as_str()][..],
        &[&unpacked.region, &unpacked.region],
    ] {
        let shown = outlive(
            &[
                &["show", "--same-boot"],
                names,
                &["--formats", &unpacked.formats],
            ]
            .concat(),
        );
        let said = format!("is damaged: what `outlive check {}` lists", unpacked.region);
        let count = stderr(&shown).matches(&said).count();
        assert_eq!(count, names.len(), "{}", stderr(&shown));
        assert_eq!(shown.status.code(), Some(0));
    }
    let (lines, missing) = without_missing(&std::fs::read_to_string(&out).unwrap());
    assert!(lines.lines().count() > 1000);
    let damaged = serde_json::json!({"source": unpacked.region, "damaged": true});
    assert_eq!(missing, [damaged]);
    // No event is asked for: what is missing is all that there is to say.
    let nothing = ["--filter", "common_pid == 2147483647"];
    export(&unpacked, &out, &nothing);
    let (lines, missing) = without_missing(&std::fs::read_to_string(&out).unwrap());
    assert_eq!(lines, "");
    let lost = serde_json::json!({"source": unpacked.region, "cpu": 0, "lost": null});
    assert!(missing.contains(&lost), "{missing:?}");
}

#[test]
fn a_wrong_use_writes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let unpacked = Unpacked::of_kernel("7.3.4-2cpu-1M");
    let cases: [(&str, &[&str], &str); 4] = [
        ("out", &[], "--format F does: json, chrome, csv"),
        ("out.json", &["--format", "jsn"], "expected one of json"),
        ("out.json", &["--event", "sced"], "did you mean `sched`?"),
        ("out.json", &["--filter", "pid ="], "--filter"),
    ];
    for (out, more, said) in cases {
        let output = export(&unpacked, &folder.path().join(out), more);
        assert!(!output.status.success());
        assert!(stderr(&output).contains(said), "{}", stderr(&output));
    }
    let output = export(&unpacked, Path::new("-"), &["--format", "ctf"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        stderr(&output).contains("is a folder"),
        "{}",
        stderr(&output)
    );
    let missing = folder.path().join("missing/out.json");
    let output = export(&unpacked, &missing, &[]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("missing"), "{}", stderr(&output));
    let there = std::fs::read_dir(folder.path()).unwrap().count();
    assert_eq!(there, 0);
}

#[test]
fn a_full_disk_leaves_what_was_there() {
    let folder = tempfile::tempdir().unwrap();
    let disk = folder.path().join("disk");
    std::fs::create_dir(&disk).unwrap();
    let flags = MountFlags::empty();
    if let Err(error) = mount("none", &disk, "tmpfs", flags, c"size=256k") {
        println!("skipped: cannot mount a tmpfs: {error}");
        return;
    }
    let out = disk.join("out.jsonl");
    std::fs::write(&out, "old").unwrap();
    let unpacked = Unpacked::of_kernel("7.3.4-2cpu-1M");
    let output = export(&unpacked, &out, &[]);
    let old = std::fs::read_to_string(&out);
    let there = std::fs::read_dir(&disk).map(Iterator::count);
    unmount(&disk, UnmountFlags::DETACH).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(
        stderr(&output).contains("No space left"),
        "{}",
        stderr(&output)
    );
    assert_eq!(old.unwrap(), "old");
    assert_eq!(there.unwrap(), 1);
}

/// `export -o - >> log` once emptied the log: standard output was opened anew by its name.
#[test]
fn standard_output_goes_on_where_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    let unpacked = Unpacked::of_kernel("7.3.4-2cpu-1M");
    for format in ["json", "csv", "perfetto"] {
        let whole = folder.path().join(format);
        stdout(&export(&unpacked, &whole, &["--format", format]));
        std::fs::write(&log, "before\n").unwrap();
        let appended = std::fs::File::options().append(true).open(&log).unwrap();
        let args = ["export", &unpacked.region, "--formats", &unpacked.formats];
        let status = Command::new(env!("CARGO_BIN_EXE_outlive"))
            .args(args)
            .args(["-o", "-", "--format", format])
            .stdout(appended)
            .status();
        assert!(status.unwrap().success());
        let expected = [b"before\n".to_vec(), std::fs::read(&whole).unwrap()].concat();
        assert_eq!(std::fs::read(&log).unwrap(), expected, "{format}");
    }
}

/// What is renamed to its final name must be whole after a power loss: the names in a folder are
/// written before it is renamed, and the new name after.
#[test]
fn a_folder_is_durable_before_it_has_its_name_and_so_is_its_name() {
    if Command::new("strace").arg("-V").output().is_err() {
        println!("skipped: no strace; `cargo xtask setup` installs it");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let unpacked = Unpacked::of_kernel("7.3.4-2cpu-1M");
    let (out, log) = (folder.path().join("out.ctf"), folder.path().join("strace"));
    let traced = Command::new("strace")
        .args(["-f", "-y", "-e", "trace=fsync,rename", "-o"])
        .arg(&log)
        .arg(env!("CARGO_BIN_EXE_outlive"))
        .args(["export", &unpacked.region, "--formats", &unpacked.formats])
        .arg("-o")
        .arg(&out)
        .output();
    assert!(traced.unwrap().status.success());
    let text = std::fs::read_to_string(&log).unwrap();
    let (before, after) = text.split_once("rename(").unwrap();
    let synced = |text: &str, name: &str| {
        let is_it = |line: &&str| line.contains("fsync(") && line.contains(&format!("{name}>)"));
        text.lines().filter(is_it).count()
    };
    for name in ["/metadata", "/cpu0", "/cpu1", ".part"] {
        assert_eq!(synced(before, name), 1, "{name}: {text}");
    }
    let parent = folder.path().to_str().unwrap();
    assert_eq!(synced(after, parent), 1, "{text}");
}

/// The events of JSON lines, each with whether events are missing before it, as a filter that keeps
/// those of `pid` is to show them; and the CPUs of which events are missing behind the last one.
fn filtered(lines: &str, pid: i64) -> (Vec<(i64, i64, bool)>, BTreeSet<i64>) {
    let (mut kept, mut lost) = (Vec::new(), BTreeSet::new());
    for line in lines.lines() {
        let event: Value = serde_json::from_str(line).unwrap();
        let number = |key: &str| event[key].as_i64().unwrap();
        if event.get("lost_before").is_some() {
            lost.insert(number("cpu"));
        }
        if number("pid") == pid {
            let is_lost = lost.remove(&number("cpu"));
            kept.push((number("ts"), number("cpu"), is_lost));
        }
    }
    (kept, lost)
}

/// JSON lines as they are without what the last line says of the whole, and that.
fn without_missing(lines: &str) -> (String, Vec<Value>) {
    let mut lines: Vec<String> = lines.lines().map(|line| format!("{line}\n")).collect();
    let mut last: Value = serde_json::from_str(&lines.pop().unwrap()).unwrap();
    let missing = last.as_object_mut().unwrap().remove("missing").unwrap();
    // Without any event it is alone.
    if last.as_object().unwrap().contains_key("ts") {
        lines.push(format!("{last}\n"));
    }
    (lines.concat(), missing.as_array().unwrap().clone())
}

/// Where an event that a filter leaves out was the first behind a loss, the loss was once left out
/// with it.
#[test]
fn a_loss_before_an_event_that_is_not_asked_for_is_shown_before_the_next_that_is() {
    let unpacked = Unpacked::of_kernel("7.3.4-2cpu-1M");
    let mut bytes = std::fs::read(&unpacked.region).unwrap();
    // Sub-buffers of both CPUs, the one early and the other late.
    for place in [bytes.len() / 16, bytes.len() * 7 / 8] {
        let subbuf = place / 4096 * 4096;
        bytes[subbuf..subbuf + 8].fill(0xff);
    }
    std::fs::write(&unpacked.region, bytes).unwrap();
    let show = |more: &[&str]| {
        let args = ["show", &unpacked.region, "--formats", &unpacked.formats];
        stdout(&outlive(&[&args, more].concat()))
    };
    let all = show(&["--json"]);
    let pids: BTreeSet<i64> = all
        .lines()
        .map(|line| {
            serde_json::from_str::<Value>(line).unwrap()["pid"]
                .as_i64()
                .unwrap()
        })
        .collect();
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out.jsonl");
    let (mut carried, mut at_end) = (0, 0);
    for pid in pids.into_iter().step_by(7) {
        let (kept, lost_at_end) = filtered(&all, pid);
        let filter = format!("common_pid == {pid}");
        let filter = ["--filter", &filter];
        let json = show(&[&filter[..], &["--json"]].concat());
        assert_eq!(filtered(&json, pid).0, kept, "{pid}");
        let lost = kept.iter().filter(|event| event.2).count();
        let text = show(&filter);
        let said = text.matches(" EVENTS]").count();
        assert_eq!(said, lost + lost_at_end.len(), "{pid}: {text}");
        for cpu in &lost_at_end {
            let last = text.lines().rev().take(lost_at_end.len());
            let is_last = last
                .into_iter()
                .any(|line| line == format!("CPU:{cpu} [LOST EVENTS]"));
            assert!(is_last, "{pid}: {text}");
        }
        let exported = export(&unpacked, &out, &filter);
        assert_eq!(exported.status.code(), Some(1), "it is damaged");
        let (lines, missing) = without_missing(&std::fs::read_to_string(&out).unwrap());
        assert_eq!(lines, json);
        let damaged = missing.iter().filter(|one| one["damaged"] == true);
        assert_eq!(damaged.count(), 1, "{pid}: {missing:?}");
        let behind: BTreeSet<i64> = missing
            .iter()
            .filter_map(|one| one["cpu"].as_i64())
            .collect();
        assert_eq!(behind, lost_at_end, "{pid}");
        carried += lost;
        at_end += lost_at_end.len();
    }
    assert!(carried > 0 && at_end > 0, "{carried} {at_end}");
}

/// The bar counts what is read. It once counted what was written, so that it stood still where little is
/// asked for, and in first passes.
#[test]
fn what_an_export_says_that_it_will_read_is_what_it_reads() {
    let folder = tempfile::tempdir().unwrap();
    let recorder = Recorder::builder("shop").state(folder.path());
    let recorder = recorder.backing(Backing::File).start().unwrap();
    for number in 0..5000_u32 {
        event!("shop:order", number = number);
    }
    drop(recorder);
    let kernels = Unpacked::of_kernel("7.3.4-2cpu-1M");
    let regions = [
        folder.path().join("apps/shop/areas/shop"),
        kernels.region.into(),
    ];
    for region in regions {
        let view = View::open(&region).unwrap();
        let (first, last) = view.span().unwrap();
        let filter = Filter::parse("common_pid == 2147483647").unwrap();
        let wanted = || Wanted::new(&view.catalog, view.cpus.len(), None, Some(&filter));
        let nothing = || Source {
            wanted: wanted(),
            ..Source::new("it", &view)
        };
        let late = || Source {
            from: (first + last) / 2,
            ..Source::new("it", &view)
        };
        for format in outlive_export::FORMATS {
            for source in [Source::new("it", &view), nothing(), late()] {
                let case = format!("{}, {:?}", format.name, source.wanted.is_some());
                let sources = Sources::new(vec![source]).unwrap();
                let to_read = format.exporter.to_read(&sources);
                let out = folder.path().join("out");
                outlive_export::write(format, &sources, &out).unwrap();
                assert_eq!(sources.read(), to_read, "{case}");
                assert!(to_read > 500, "{case}");
                let removed = match format.is_folder {
                    true => std::fs::remove_dir_all(&out),
                    false => std::fs::remove_file(&out),
                };
                removed.unwrap();
            }
        }
    }
}

/// The region was once replaced by its own export, and lost.
#[test]
fn an_output_that_is_an_input_is_refused_by_whatever_name() {
    let folder = tempfile::tempdir().unwrap();
    let unpacked = Unpacked::of_kernel("7.3.4-2cpu-1M");
    let before = std::fs::read(&unpacked.region).unwrap();
    let link = folder.path().join("link");
    std::os::unix::fs::symlink(&unpacked.region, &link).unwrap();
    let hard_link = folder.path().join("hard-link");
    std::fs::copy(&unpacked.region, folder.path().join("region")).unwrap();
    std::fs::hard_link(folder.path().join("region"), folder.path().join("tail")).unwrap();
    std::fs::hard_link(folder.path().join("region"), &hard_link).unwrap();
    let inside = folder.path().to_str().unwrap();
    for (name, out) in [
        (unpacked.region.as_str(), Path::new(&unpacked.region)),
        (&unpacked.region, &link),
        (inside, &hard_link),
        (inside, &folder.path().join("tail")),
    ] {
        let out = out.to_str().unwrap();
        let refused = outlive(&["export", name, "-o", out, "--format", "json"]);
        assert_eq!(refused.status.code(), Some(2), "{}", stderr(&refused));
        assert!(stderr(&refused).contains(out), "{}", stderr(&refused));
        assert!(std::fs::read(out).unwrap() == before, "{out}");
    }
    let output = std::fs::File::options().append(true).open(&unpacked.region);
    let appended = Command::new(env!("CARGO_BIN_EXE_outlive"))
        .args(["export", &unpacked.region, "-o", "-", "--format", "json"])
        .stdout(output.unwrap())
        .output()
        .unwrap();
    assert_eq!(appended.status.code(), Some(2), "{}", stderr(&appended));
    assert!(std::fs::read(&unpacked.region).unwrap() == before);
}

#[test]
fn no_two_columns_of_a_csv_have_the_same_name() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out.csv");
    let unpacked = Unpacked::of_kernel("7.3.4-2cpu-1M");
    let asked = ["--event", "sched_wakeup"];
    stdout(&export(&unpacked, &out, &asked));
    let mut reader = csv::Reader::from_path(&out).unwrap();
    let header: Vec<_> = reader.headers().unwrap().iter().map(String::from).collect();
    let unique: BTreeSet<_> = header.iter().collect();
    assert_eq!(unique.len(), header.len(), "{header:?}");
    let place = |name: &str| header.iter().position(|column| column == name).unwrap();
    // As in SQL: the event's own field has the name, the one that all events have is the common one.
    let mut args = vec!["show", &unpacked.region, "--formats", &unpacked.formats];
    args.push("--json");
    args.extend(asked);
    let shown = stdout(&outlive(&args));
    let rows: Vec<_> = reader.records().map(Result::unwrap).collect();
    assert!(!rows.is_empty() && rows.len() == shown.lines().count());
    for (row, line) in rows.iter().zip(shown.lines()) {
        let event: Value = serde_json::from_str(line).unwrap();
        assert_eq!(row[place("pid")], event["fields"]["pid"].to_string());
        assert_eq!(row[place("common_pid")], event["pid"].to_string());
        assert_eq!(row[place("cpu")], event["cpu"].to_string());
    }
}

#[test]
fn a_closed_pipe_ends_an_export_in_silence() {
    let unpacked = Unpacked::of_kernel("7.3.4-2cpu-1M");
    for format in ["json", "csv", "chrome", "perfetto"] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let ended = Command::new(env!("CARGO_BIN_EXE_outlive"))
            .args(["export", &unpacked.region, "--formats", &unpacked.formats])
            .args(["-o", "-", "--format", format])
            .stdout(writer)
            .output()
            .unwrap();
        assert_eq!(stderr(&ended), "", "{format}");
        assert_eq!(ended.status.code(), Some(0), "{format}");
    }
}

#[test]
fn a_wrong_usage_has_its_exit_code_and_so_has_a_failure_of_the_output() {
    let unpacked = Unpacked::of_kernel("7.3.4-2cpu-1M");
    let show = ["show", &unpacked.region, "--formats", &unpacked.formats];
    for (args, said) in [
        (&["export", &unpacked.region, "-o", "x.xyz"][..], "--format"),
        (&["sql", "SELECT 1"], "which region"),
        (&[&show[..], &["--cpu", "99"]].concat(), "CPUs 0 to 1"),
        (
            &[&show[..], &["--event", "sched_swich"]].concat(),
            "did you mean `sched_switch`?",
        ),
        (
            &[&show[..], &["--event", "zzz*"]].concat(),
            "events of the systems ",
        ),
    ] {
        let output = outlive(args);
        assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
        assert!(stderr(&output).contains(said), "{}", stderr(&output));
    }
    let full = std::fs::File::create("/dev/full").unwrap();
    let checked = Command::new(env!("CARGO_BIN_EXE_outlive"))
        .args(["check", &unpacked.region])
        .stdout(full)
        .output()
        .unwrap();
    assert_eq!(checked.status.code(), Some(1), "{}", stderr(&checked));
    assert!(stderr(&checked).contains("No space left"));
}
