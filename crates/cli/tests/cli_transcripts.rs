//! Golden transcripts: what each command prints, and with which exit code, on a state folder that
//! is the same each time. `OUTLIVE_UPDATE=1` writes them anew.

use std::path::{Path, PathBuf};
use std::process::Command;

use outlive_event::{CatalogRecord, RecordKind};
use outlive_ring::catalog::CatalogLog;
use outlive_ring::extension::{ClockPair, Counter, Heartbeat, Layout, count, store_clock_pair};
use outlive_ring::{Geometry, HeapMemory, Missed, Region, RunId, RunRecord, RunState};
use tempfile::TempDir;

/// 2026-11-22 20:00:00 UTC.
const STARTED_NS: u64 = 1_795_377_600_000_000_000;
const SECOND: u64 = 1_000_000_000;
const FORMAT: &str = "name: tick\nID: 30\nformat:\n\
    \tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;\n\
    \tfield:int common_pid;\toffset:4;\tsize:4;\tsigned:1;\n\n\
    \tfield:int number;\toffset:8;\tsize:4;\tsigned:1;\n\n\
    print fmt: \"number=%d\", REC->number\n";

/// A region of two CPUs with a few events, one of them after a loss.
fn region(state: RunState, run_sequence: u64) -> Vec<u8> {
    let ring = Geometry::new(64 << 10, 2).unwrap();
    let layout = Layout::new(&ring, 4096, 16);
    let memory = HeapMemory::new(layout.area_size() as usize);
    let region = Region::format(&memory, ring, Some(layout)).unwrap();
    run_record(state, run_sequence).store(&layout, &memory);
    let mut log = CatalogLog::clear(&layout, &memory);
    for record in [
        CatalogRecord::EventFormat {
            system: "demo",
            text: FORMAT,
        },
        CatalogRecord::TaskName {
            pid: 7,
            comm: b"worker",
        },
    ] {
        let mut payload = Vec::new();
        record.encode(&mut payload);
        let kind = match record {
            CatalogRecord::EventFormat { .. } => RecordKind::EventFormat,
            _ => RecordKind::TaskName,
        };
        assert!(log.append(&memory, kind as u16, &payload));
    }
    for cpu in 0..2 {
        let mut writer = region.writer(cpu).unwrap();
        for number in 0..4u32 {
            if (cpu, number) == (1, 2) {
                writer.lost(Missed::Events(5));
            }
            let time = 100 * SECOND + u64::from(number) * 1_000_000 + u64::from(cpu) * 500;
            let event = writer.reserve(12, time).unwrap();
            let mut payload = [0; 12];
            payload[0] = 30;
            payload[4] = 7;
            payload[8..].copy_from_slice(&number.to_le_bytes());
            writer.write(&event, 0, &payload);
            writer.commit(event);
        }
        count(&layout, &memory, cpu, Counter::Overrun, 10);
    }
    let pair = |seconds: u64| ClockPair {
        trace: (90 + seconds) * SECOND,
        monotonic_ns: (91 + seconds) * SECOND,
        boottime_ns: (92 + seconds) * SECOND,
        realtime_ns: STARTED_NS + seconds * SECOND,
        error_ns: 1500,
    };
    store_clock_pair(&layout, &memory, 0, pair(0));
    store_clock_pair(&layout, &memory, 1, pair(10));
    let beat = Heartbeat {
        realtime_ns: STARTED_NS + 12 * SECOND,
        max_delay_ns: 12_000_000,
        polls: 1200,
        ..Heartbeat::default()
    };
    beat.store(&layout, &memory);
    memory.to_vec()
}

fn run_record(state: RunState, run_sequence: u64) -> RunRecord {
    RunRecord {
        sequence: 1,
        run_id: RunId([0xab; 16]),
        boot_id: [0xcd; 16],
        run_sequence,
        pid: 4711,
        state,
        started_realtime_ns: STARTED_NS,
        closed_realtime_ns: match state {
            RunState::Closed => STARTED_NS + 13 * SECOND,
            RunState::Running => 0,
        },
        poll_interval_ns: 10_000_000,
        host: "host".into(),
        program: "outlive".into(),
        version: "0.1.0".into(),
        instance: "boot_mapped".into(),
        clock: "local".into(),
        kernel: "6.18.44".into(),
        source: "outlive.0123456789abcdef.boot_mapped".into(),
        cmdline: "reserve_mem=64K:4096:trace trace_instance=boot_mapped@trace,demo".into(),
        ..RunRecord::default()
    }
}

/// A state folder: a live area that was closed, a generation of a run that died, and a damaged one.
/// A user who owns nothing.
const NOBODY: u32 = 65534;

struct State(TempDir);

impl State {
    fn new() -> Self {
        let this = Self(TempDir::new().unwrap());
        let path = this.path();
        outlive_trace::StateDir::open(&path).unwrap();
        let live = path.join("areas/trace");
        std::fs::write(&live, region(RunState::Closed, 4)).unwrap();
        let mut damaged = region(RunState::Running, 2);
        // In the second CPU's first sub-buffer, which was closed and sealed by the loss.
        let ring = Geometry::new(64 << 10, 2).unwrap();
        damaged[ring.subbuf_offset(1, 1) + 16 + 20] ^= 0x55;
        this.keep(3, &damaged);
        this.keep(4, &region(RunState::Running, 3));
        let instances = serde_json::json!({
            "run_sequence": 4,
            "instances": [
                {"name": "boot_mapped", "kind": "persistent", "area": "trace",
                 "backing": "file", "path": live},
                {"name": "backup", "kind": "backup", "source": "boot_mapped"},
            ],
        });
        std::fs::write(path.join("instances.json"), instances.to_string()).unwrap();
        this
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("state")
    }

    fn keep(&self, seq: u64, region: &[u8]) {
        let folder = self
            .path()
            .join(format!("generations/boot_mapped/{seq:08}"));
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("region"), region).unwrap();
        let meta = serde_json::json!({
            "instance": "boot_mapped", "seq": seq, "created_ns": STARTED_NS,
            "backing": "file", "state": "complete", "verdict": "crash",
        });
        std::fs::write(folder.join("meta.json"), meta.to_string()).unwrap();
    }

    /// What a shell would show of some commands.
    fn transcript(&self, commands: &[&str]) -> String {
        commands.iter().map(|line| self.run(line)).collect()
    }

    fn run(&self, line: &str) -> String {
        let output = Command::new(env!("CARGO_BIN_EXE_outlive"))
            .args(line.split_whitespace())
            .env("OUTLIVE_STATE", self.path())
            .env("TZ", "UTC")
            .current_dir(self.0.path())
            .output()
            .unwrap();
        let text = format!(
            "$ outlive {line}\n{}{}exit {}\n\n",
            String::from_utf8(output.stdout).unwrap(),
            String::from_utf8(output.stderr).unwrap(),
            output.status.code().unwrap()
        );
        text.replace(self.path().to_str().unwrap(), "STATE")
    }
}

fn assert_golden(name: &str, transcript: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/transcripts/{name}.txt"));
    if std::env::var_os("OUTLIVE_UPDATE").is_some() {
        std::fs::write(&path, transcript).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(transcript, expected, "{}", path.display());
}

#[test]
fn show_prints_events_losses_and_starts() {
    let transcript = State::new().transcript(&[
        "show backup",
        "show boot_mapped --cpu 1 --raw-fields",
        "show boot_mapped/4 --event tick --last 1500us",
        "show backup --json --cpu 1",
        "show backup --filter number>=2&&CPU&CPUS{1}||COMM~'wor*'&&number==0&&!cpu==1",
        "show backup --filter number<0",
    ]);
    assert_golden("show", &transcript);
}

#[test]
fn info_tells_who_wrote_it() {
    let transcript = State::new().transcript(&["info backup", "info boot_mapped --json"]);
    assert_golden("info", &transcript);
}

#[test]
fn check_tells_holes_and_damage() {
    let transcript = State::new().transcript(&[
        "check backup",
        "check boot_mapped/3",
        "check boot_mapped/3 --json",
    ]);
    assert_golden("check", &transcript);
}

#[test]
fn mistakes_are_told_with_what_there_is() {
    let transcript = State::new().transcript(&[
        "show nonsense",
        "show backup --cpu 99",
        "show backup --event nonsense",
        "show backup --filter nmuber==1",
        "show backup --filter number==1&&",
        "show backup --filter (number==1",
        "show backup --filter number==one",
        "show backup --filter number~'1'",
        "show backup --filter CPU&CPUS{7}",
        "show backup --follow",
        "show boot_mapped --follow",
        "show backup --last 5",
        "boot --host-buffer 0",
        "boot --keep 0",
        "check boot_mapped/9",
        "rm boot_mapped",
        "rm nonsense --all",
    ]);
    assert_golden("mistakes", &transcript);
}

/// Sizes on the disk and times of the file system are not the same everywhere.
#[test]
fn ls_and_rm_agree() {
    let state = State::new();
    let listed = |state: &State| -> Vec<serde_json::Value> {
        let text = state.run("ls --json");
        let json = text.lines().nth(1).unwrap();
        serde_json::from_str(json).unwrap()
    };
    let rows = listed(&state);
    let names: Vec<_> = rows
        .iter()
        .map(|row| row["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["boot_mapped", "boot_mapped/3", "boot_mapped/4"]);
    let column = |key: &str| -> Vec<_> { rows.iter().map(|row| row[key].clone()).collect() };
    assert_eq!(column("verdict"), ["clean-exit", "crash", "crash"]);
    assert_eq!(column("whole"), [true, false, true]);
    assert_eq!(column("events")[0], 8);
    assert_eq!(column("lost")[2], 5);
    assert_eq!(rows[2]["aliases"], serde_json::json!(["backup"]));
    let table = state.run("ls");
    assert!(table.contains("boot_mapped/4 = backup  crash"), "{table}");
    assert!(table.contains("2026-11-22 20:00:13"), "{table}");
    assert!(table.contains("damaged, see outlive check"), "{table}");

    assert!(
        state
            .run("rm boot_mapped/3")
            .contains("removed boot_mapped/3 (")
    );
    assert_eq!(listed(&state).len(), 2);
    assert!(
        state
            .run("rm boot_mapped --all")
            .contains("removed boot_mapped/4 (")
    );
    let rows = listed(&state);
    assert_eq!((rows.len(), &rows[0]["name"]), (1, &"boot_mapped".into()));
    let empty = state.run("show backup");
    assert!(
        empty.contains("no earlier run of boot_mapped left anything"),
        "{empty}"
    );
}

#[test]
fn nothing_is_removed_while_a_recorder_runs() {
    let state = State::new();
    let dir = outlive_trace::StateDir::open(&state.path()).unwrap();
    let lock = dir.try_lock_exclusive().unwrap();
    let refused = state.run("rm boot_mapped/3");
    assert!(
        refused.contains("exit 3") && refused.contains("is in use"),
        "{refused}"
    );
    drop(lock);
    assert!(state.run("rm boot_mapped/3").contains("exit 0"));
}

#[test]
fn state_folder_that_is_not_there_is_an_empty_list() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("none");
    let run = |args: &[&str]| {
        Command::new(env!("CARGO_BIN_EXE_outlive"))
            .arg("--state")
            .arg(&path)
            .args(args)
            .output()
            .unwrap()
    };
    let output = run(&["ls", "--json"]);
    assert_eq!(
        (output.status.code(), &output.stdout[..]),
        (Some(0), &b"[]\n"[..])
    );
    let output = run(&["ls"]);
    assert_eq!(output.status.code(), Some(0));
    assert!(String::from_utf8_lossy(&output.stderr).contains("there is no state folder"));
    let output = run(&["show", "backup"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(!path.exists());
}

/// Root may look everywhere, so the command is run as somebody who may not.
#[test]
fn what_may_not_be_read_is_not_said_to_be_missing() {
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::process::CommandExt;
    let state = State::new();
    // Where everybody may execute it: the build's folder may not be such a place.
    let open = tempfile::tempdir().unwrap();
    let binary = open.path().join("outlive");
    std::fs::copy(env!("CARGO_BIN_EXE_outlive"), &binary).unwrap();
    std::fs::set_permissions(open.path(), PermissionsExt::from_mode(0o755)).unwrap();
    std::fs::set_permissions(state.path(), PermissionsExt::from_mode(0o000)).unwrap();
    let mut command = Command::new(&binary);
    if rustix::process::geteuid().is_root() {
        command.uid(NOBODY).gid(NOBODY);
    }
    let output = command.args(["ls", "--state"]).arg(state.path()).output();
    std::fs::set_permissions(state.path(), PermissionsExt::from_mode(0o700)).unwrap();
    let refused = String::from_utf8(output.unwrap().stderr).unwrap();
    assert!(refused.contains("Permission denied"), "{refused}");
    assert_eq!(refused.matches("denied").count(), 1, "{refused}");
}

#[test]
fn every_help_has_an_example() {
    let commands = [
        "boot",
        "ls",
        "show",
        "info",
        "check",
        "rm",
        "demo",
        "doctor",
        "install",
        "uninstall",
    ];
    for command in commands {
        let output = Command::new(env!("CARGO_BIN_EXE_outlive"))
            .args([command, "--help"])
            .output()
            .unwrap();
        let help = String::from_utf8(output.stdout).unwrap();
        assert!(help.contains(&format!("outlive {command}")), "{help}");
    }
}
