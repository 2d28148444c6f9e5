//! Parquet tables, read by DuckDB, pyarrow and Spark, against the JSON lines of the same events and
//! what `sql` answers.

mod common;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Mutex, MutexGuard, PoisonError};

use common::{Unpacked, outlive, python};
use outlive::{Backing, Recorder, event, span};
use serde_json::Value;

/// What the script with these arguments says; `None` if there is no Python for it.
fn script(args: &[&str]) -> Option<Value> {
    python().map(|python| common::script(&python, "export_parquet.py", args))
}

fn export(source: &[&str], out: &Path) -> Output {
    let output = outlive(&[&["export", "-o", out.to_str().unwrap()], source].concat());
    assert!(out.exists(), "{}", String::from_utf8_lossy(&output.stderr));
    output
}

/// A region, exported as tables and as JSON lines.
struct Exported {
    folder: tempfile::TempDir,
    source: Vec<String>,
    output: Output,
}

impl Exported {
    fn of(source: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let output = export(source, &folder.path().join("x.parquet"));
        export(source, &folder.path().join("x.jsonl"));
        Self {
            folder,
            source: source.iter().map(|&arg| arg.to_owned()).collect(),
            output,
        }
    }

    fn of_region(unpacked: &Unpacked) -> Self {
        Self::of(&[&unpacked.region, "--formats", &unpacked.formats])
    }

    fn tables(&self) -> PathBuf {
        self.folder.path().join("x.parquet")
    }

    /// All rows and values compared: how many there were.
    fn compared(&self) -> Option<Value> {
        let tables = self.tables();
        let lines = self.folder.path().join("x.jsonl");
        script(&["rows", tables.to_str().unwrap(), lines.to_str().unwrap()])
    }

    /// What `outlive sql` answers.
    fn sql(&self, statement: &str) -> Value {
        let mut args = vec!["sql", statement, "--json"];
        args.extend(self.source.iter().map(String::as_str));
        let output = outlive(&args);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{statement}: {stderr}");
        let text = String::from_utf8(output.stdout).unwrap();
        let rows = text
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap());
        rows.collect()
    }

    /// Both give the same answer, which is not an empty one.
    fn answers_as_sql_does(&self, statement: &str) {
        let tables = self.tables();
        let Some(answer) = script(&["sql", tables.to_str().unwrap(), statement]) else {
            return;
        };
        let expected = self.sql(statement);
        assert_eq!(answer, expected, "{statement}");
        assert_ne!(expected, Value::Array(Vec::new()), "{statement}");
    }
}

#[test]
fn every_row_and_value_of_kernels_regions_is_read_by_duckdb_and_pyarrow() {
    if python().is_none() {
        return;
    }
    for unpacked in [
        Unpacked::of_kernel("7.3.4-2cpu-1M"),
        Unpacked::of_kernel("6.12.107-2cpu-1M"),
        Unpacked::golden(),
        Unpacked::of_crash("7.3.4-2cpu-wrapped-Panic"),
        Unpacked::of_crash("7.3.4-1cpu-read-Panic"),
        Unpacked::of_crash("7.2.13-4cpu-wrapped-Reboot"),
        Unpacked::of_crash("6.18.15-2cpu-wrapped-Reboot"),
        Unpacked::of_crash("6.12.107-4cpu-partly-Panic"),
    ] {
        let exported = Exported::of_region(&unpacked);
        let compared = exported.compared().unwrap();
        assert!(compared["events"].as_u64() > Some(0), "{compared}");
        assert!(compared["values"].as_u64() > Some(1000), "{compared}");
    }
}

#[test]
fn statements_have_the_answers_of_outlive_sql() {
    let unpacked = Unpacked::of_kernel("7.3.4-2cpu-1M");
    let exported = Exported::of_region(&unpacked);
    for statement in [
        "SELECT count(*) AS n, min(ts) AS first, max(ts) AS last, sum(pid) AS pids FROM events",
        "SELECT system, event, count(*) AS n, max(text) AS t FROM events GROUP BY 1, 2 ORDER BY 1, 2",
        "SELECT next_comm, count(*) AS n, sum(next_pid) AS p, sum(prev_state) AS s \
         FROM sched_switch GROUP BY 1 ORDER BY 1",
        "SELECT cpu, task, comm, common_pid, pid FROM sched_waking ORDER BY ts, comm, pid LIMIT 50",
        "SELECT first_ts, last_ts, events, lost, overrun, clock FROM runs",
    ] {
        exported.answers_as_sql_does(statement);
    }
}

/// What is missing is said in the tables, on standard error and by the exit code.
#[test]
fn what_a_damaged_region_lacks_is_in_the_tables() {
    let unpacked = Unpacked::of_kernel("7.3.4-2cpu-1M");
    let mut bytes = std::fs::read(&unpacked.region).unwrap();
    let middle = bytes.len() / 4 / 4096 * 4096;
    bytes[middle..middle + 8].fill(0xff);
    std::fs::write(&unpacked.region, bytes).unwrap();
    let exported = Exported::of_region(&unpacked);
    assert_eq!(exported.output.status.code(), Some(1));
    let Some(compared) = exported.compared() else {
        return;
    };
    assert!(compared["events"].as_u64() > Some(1000), "{compared}");
    exported.answers_as_sql_does("SELECT cpu, after_ts, before_ts, lost FROM holes ORDER BY 1, 2");
    let tables = exported.tables();
    let tables = tables.to_str().unwrap();
    let said = script(&[
        "sql",
        tables,
        "SELECT is_whole, written < events AS l FROM runs",
    ]);
    assert_eq!(said.unwrap()[0]["is_whole"], false);
    let marked = "SELECT count(*) AS n FROM events WHERE lost_before IS NOT NULL";
    exported.answers_as_sql_does(marked);
}

/// The text of an event whose print format cannot be evaluated is its fields: how many such texts there
/// are, the run's row says.
#[test]
fn texts_that_are_fields_are_counted_in_the_tables() {
    let of_switches = |unpacked: Unpacked| {
        let exported = Exported::of_region(&unpacked);
        let statement = "SELECT unevaluated, (SELECT count(*) FROM events \
                         WHERE event = 'sched_switch') AS switches FROM runs";
        let tables = exported.tables();
        let said = script(&["sql", tables.to_str().unwrap(), statement])?;
        Some((said[0]["unevaluated"].clone(), said[0]["switches"].clone()))
    };
    let Some((unevaluated, _)) = of_switches(Unpacked::golden()) else {
        return;
    };
    assert_eq!(unevaluated, 0);
    let (unevaluated, switches) =
        of_switches(Unpacked::golden().with_unevaluated_switch()).unwrap();
    assert_ne!(switches, 0);
    assert_eq!(unevaluated, switches);
}

/// A loss that is before no event of those asked for has no row to stand in, so it is said, and the
/// exit code tells.
#[test]
fn what_is_missing_behind_the_last_event_asked_for_is_said() {
    let unpacked = Unpacked::of_kernel("7.3.4-2cpu-1M");
    let mut bytes = std::fs::read(&unpacked.region).unwrap();
    let late = bytes.len() * 7 / 8 / 4096 * 4096;
    bytes[late..late + 8].fill(0xff);
    std::fs::write(&unpacked.region, bytes).unwrap();
    // No event is of such a task, so the loss is behind all that are.
    let asked = ["--filter", "common_pid == 2147483647"];
    let region = [unpacked.region.as_str(), "--formats", &unpacked.formats];
    let folder = tempfile::tempdir().unwrap();
    let said = ["x.parquet", "x.csv"].map(|name| {
        let output = export(&[&region[..], &asked].concat(), &folder.path().join(name));
        assert_eq!(output.status.code(), Some(1));
        let stderr = String::from_utf8_lossy(&output.stderr);
        let notes = stderr.lines().filter(|line| line.contains("are missing"));
        notes.map(str::to_owned).collect::<Vec<_>>()
    });
    assert_eq!(said[0].len(), 1, "{said:?}");
    assert_eq!(said[0], said[1]);
}

#[test]
fn records_without_a_format_are_kept_with_their_bytes() {
    let unpacked = Unpacked::of_kernel("6.12.107-2cpu-1M");
    let exported = Exported::of(&[&unpacked.region]);
    let Some(compared) = exported.compared() else {
        return;
    };
    assert!(compared["events"].as_u64() > Some(1000), "{compared}");
    let tables = exported.tables();
    let least = "SELECT min(octet_length(record)) AS least FROM unknown";
    let least = script(&["sql", tables.to_str().unwrap(), least]).unwrap();
    assert!(least[0]["least"].as_u64() >= Some(8), "{least}");
}

/// A process has one recorder at a time.
fn one_at_a_time() -> MutexGuard<'static, ()> {
    static RECORDER: Mutex<()> = Mutex::new(());
    RECORDER.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An engine opens those row groups only whose bounds fit what is asked for.
#[test]
fn row_groups_say_their_bounds_and_their_order_and_are_skipped_by_them() {
    let state = tempfile::tempdir().unwrap();
    let guard = one_at_a_time();
    let recorder = Recorder::builder("shop").state(state.path()).size(24 << 20);
    let recorder = recorder.backing(Backing::File).start().unwrap();
    for round in 0..300_000_u32 {
        event!("shop:round", round = round);
    }
    drop(recorder);
    drop(guard);
    let exported = Exported::of(&["--state", state.path().to_str().unwrap(), "shop"]);
    let Some(groups) = script(&["groups", exported.tables().to_str().unwrap()]) else {
        return;
    };
    // 131,072 rows in each; of the last time, the first group skips none that it should not.
    let count = groups["groups"].as_u64().unwrap();
    assert!(count >= 2, "{groups}");
    assert!(groups["skipped"].as_u64() >= Some(count - 1), "{groups}");
    assert_eq!(groups["bounds"], 4 * count, "{groups}");
}

/// A program's region with each type of value.
fn recorded(state: &Path) {
    let _guard = one_at_a_time();
    let recorder = Recorder::builder("shop").state(state);
    let recorder = recorder.backing(Backing::File).start().unwrap();
    for round in 0..300i64 {
        let _work = span!("shop:work", thread = 7u32, part = "a \"part\"");
        let lists = [-round, round];
        event!(
            "shop:step",
            integer = u64::MAX - 5,
            ratio = 0.1f64,
            small = 0.5f32,
            lists = lists,
            is_late = round == 3
        );
    }
    drop(recorder);
}

/// Of three machines, copied into one folder: two kernels' regions, and a program's, which knows its
/// host, boot and run.
#[test]
fn a_fleets_folder_is_read_by_spark_as_by_duckdb() {
    let state = tempfile::tempdir().unwrap();
    recorded(state.path());
    let shop = Exported::of(&["--state", state.path().to_str().unwrap(), "shop"]);
    let Some(compared) = shop.compared() else {
        return;
    };
    assert_eq!(compared["events"], 900);
    let fleet = tempfile::tempdir().unwrap();
    let mut events = 900;
    let copy = |exported: &Exported| {
        let from = exported.tables().join(".");
        let copied = Command::new("cp")
            .arg("-r")
            .arg(from)
            .arg(fleet.path())
            .status();
        assert!(copied.unwrap().success());
    };
    copy(&shop);
    for kernel in ["7.3.4-2cpu-wrapped-Panic", "6.12.107-4cpu-wrapped-Panic"] {
        let unpacked = Unpacked::of_crash(kernel);
        let exported = Exported::of_region(&unpacked);
        let counted = exported.sql("SELECT count(*) AS n FROM events");
        events += counted[0]["n"].as_u64().unwrap();
        copy(&exported);
    }
    let folder = fleet.path().to_str().unwrap();
    let of_fleet = "SELECT count(*) AS n, count(DISTINCT run) AS runs, \
                    count(*) FILTER (host <> 'unknown') AS known FROM events";
    let counted = script(&["sql", folder, of_fleet]).unwrap();
    assert_eq!(
        counted[0],
        serde_json::json!({"n": events, "runs": 3, "known": 900})
    );
    if !has_java() {
        println!("skipped: no java for Spark; `cargo xtask setup` installs it");
        return;
    }
    let compared = script(&["spark", folder]).unwrap();
    assert!(compared["rows"].as_u64() > Some(2 * events), "{compared}");
    assert_eq!(compared["executors"], 2, "{compared}");
}

fn has_java() -> bool {
    Command::new("java").arg("-version").output().is_ok()
}

#[test]
fn two_sources_of_the_same_run_are_two_parts_of_each_table() {
    let state = tempfile::tempdir().unwrap();
    recorded(state.path());
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("x.parquet");
    let state = state.path().to_str().unwrap();
    export(&["--state", state, "shop", "shop"], &out);
    let runs = "SELECT run, count(*) AS n FROM step GROUP BY 1 ORDER BY 1";
    let Some(counted) = script(&["sql", out.to_str().unwrap(), runs]) else {
        return;
    };
    assert_eq!(counted.as_array().map(Vec::len), Some(2), "{counted}");
    assert_eq!(
        (&counted[0]["n"], &counted[1]["n"]),
        (&300.into(), &300.into())
    );
}

#[test]
fn a_folder_that_is_there_is_left_alone_and_a_pipe_refused() {
    let folder = tempfile::tempdir().unwrap();
    let unpacked = Unpacked::golden();
    for (out, said) in [
        (folder.path().to_str().unwrap(), "is there already"),
        ("-", "is a folder"),
    ] {
        let args = ["export", &unpacked.region, "--format", "parquet", "-o", out];
        let output = outlive(&args);
        assert_eq!(output.status.code(), Some(1));
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(stderr.contains(said), "{stderr}");
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}
