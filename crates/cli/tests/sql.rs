//! What `sql` answers, against what is counted from the lines of `show --json`.

mod common;

use std::collections::BTreeMap;
use std::io::Write;
use std::process::{Command, Stdio};

use common::{Unpacked, fixtures, gunzip, outlive};
use outlive::{Backing, Recorder, event};
use serde_json::Value;

const KERNELS: [&str; 2] = ["7.3.4-2cpu-1M", "6.12.107-2cpu-1M"];

/// Runs the command on a region; its lines of JSON.
fn lines(unpacked: &Unpacked, before: &[&str], after: &[&str]) -> Vec<Value> {
    let region: &[&str] = &[&unpacked.region, "--formats", &unpacked.formats, "--json"];
    let output = outlive(&[before, region, after].concat());
    assert!(
        output.status.success(),
        "{before:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let text = String::from_utf8(output.stdout).unwrap();
    let parse = |line| serde_json::from_str(line).unwrap();
    text.lines().map(parse).collect()
}

fn sql(unpacked: &Unpacked, statement: &str) -> Vec<Value> {
    lines(unpacked, &["sql", statement], &[])
}

fn shown(unpacked: &Unpacked) -> Vec<Value> {
    lines(unpacked, &["show"], &[])
}

/// The standard error of a statement that is refused, with exit code 2.
fn refused(unpacked: &Unpacked, statement: &str) -> String {
    let output = outlive(&[
        "sql",
        statement,
        &unpacked.region,
        "--formats",
        &unpacked.formats,
    ]);
    assert_eq!(output.status.code(), Some(2), "{statement}: {output:?}");
    assert!(output.stdout.is_empty(), "{statement}: {output:?}");
    String::from_utf8(output.stderr).unwrap()
}

fn int(value: &Value) -> i64 {
    value.as_i64().unwrap_or_else(|| panic!("{value}"))
}

/// Of each event the number of records, and the sum of each field that is an integer.
#[test]
fn counts_and_sums_are_those_of_show() {
    for kernel in KERNELS {
        let unpacked = Unpacked::of_kernel(kernel);
        let mut counts: BTreeMap<String, i64> = BTreeMap::new();
        let mut sums: BTreeMap<(String, String), i128> = BTreeMap::new();
        for event in shown(&unpacked) {
            let name = event["event"].as_str().unwrap();
            *counts.entry(name.to_owned()).or_default() += 1;
            for (field, value) in event["fields"].as_object().unwrap() {
                if let Some(value) = value.as_i64() {
                    *sums.entry((name.to_owned(), field.clone())).or_default() += i128::from(value);
                }
            }
        }
        assert!(counts.len() > 5, "{counts:?}");
        let counted = sql(
            &unpacked,
            "SELECT event, count(*) AS n FROM events GROUP BY 1",
        );
        assert_eq!(counted.len(), counts.len());
        for row in counted {
            assert_eq!(counts[row["event"].as_str().unwrap()], int(&row["n"]));
        }
        let columns = sums
            .iter()
            .filter(|(_, sum)| i64::try_from(**sum).is_ok())
            .map(|((event, field), sum)| {
                let statement =
                    format!("SELECT count(*) AS n, sum(\"{field}\") AS s FROM \"{event}\";");
                (statement, counts[event], *sum as i64)
            });
        let (statements, expected): (Vec<_>, Vec<_>) =
            columns.map(|(text, n, s)| (text, (n, s))).unzip();
        let got: Vec<(i64, i64)> = sql(&unpacked, &statements.concat())
            .iter()
            .map(|row| (int(&row["n"]), int(&row["s"])))
            .collect();
        assert!(expected.len() > 20);
        assert_eq!(got, expected);
    }
}

#[test]
fn bounds_on_time_and_cpu_keep_what_lies_between_them() {
    let unpacked = Unpacked::of_kernel(KERNELS[0]);
    let shown = shown(&unpacked);
    let times: Vec<i64> = shown.iter().map(|event| int(&event["ts"])).collect();
    let (from, end) = (times[times.len() / 3], times[times.len() / 2]);
    for cpu in [0, 1] {
        let expected: Vec<i64> = shown
            .iter()
            .filter(|event| int(&event["cpu"]) == cpu)
            .map(|event| int(&event["ts"]))
            .filter(|ts| (from..end).contains(ts))
            .collect();
        assert!(!expected.is_empty());
        let statement = format!(
            "SELECT ts FROM events WHERE ts >= {from} AND ts < {end} AND cpu = {cpu} ORDER BY ts"
        );
        let got = sql(&unpacked, &statement);
        let got: Vec<i64> = got.iter().map(|row| int(&row["ts"])).collect();
        assert_eq!(got, expected);
    }
    let last = times.last().unwrap();
    let at_the_end = sql(
        &unpacked,
        &format!("SELECT ts FROM events WHERE ts = {last}"),
    );
    assert!(!at_the_end.is_empty());
}

#[test]
fn text_of_an_event_is_what_show_prints() {
    let unpacked = Unpacked::of_kernel(KERNELS[0]);
    let output = outlive(&["show", &unpacked.region, "--formats", &unpacked.formats]);
    let text = String::from_utf8(output.stdout).unwrap();
    let events = text.lines().filter(|line| !line.starts_with('#'));
    let rows = sql(&unpacked, "SELECT text FROM events");
    let mut compared = 0;
    for (line, row) in events.zip(&rows) {
        let text = row["text"].as_str().unwrap();
        assert!(line.ends_with(text), "{line}\n{text}");
        compared += 1;
    }
    assert!(compared > 1000 && compared == rows.len());
}

/// From the first event of the last CPU to have one: before, what another CPU did is not known.
fn known_from(events: &[Value]) -> i64 {
    let mut first: BTreeMap<i64, i64> = BTreeMap::new();
    for event in events {
        first.entry(int(&event["cpu"])).or_insert(int(&event["ts"]));
    }
    *first.values().max().unwrap()
}

/// The time of each task on a CPU, and of each wake-up how long it took, from the switches alone.
#[test]
fn time_on_cpu_and_wakeup_latency_are_those_of_the_switches() {
    for kernel in KERNELS {
        let unpacked = Unpacked::of_kernel(kernel);
        let events = shown(&unpacked);
        let from = known_from(&events);
        let mut running: BTreeMap<i64, (i64, i64)> = BTreeMap::new();
        let mut total: BTreeMap<i64, i64> = BTreeMap::new();
        let mut woken: BTreeMap<i64, i64> = BTreeMap::new();
        let mut latencies = Vec::new();
        for event in events.iter().filter(|event| int(&event["ts"]) >= from) {
            let (ts, cpu, fields) = (int(&event["ts"]), int(&event["cpu"]), &event["fields"]);
            match event["event"].as_str().unwrap() {
                "sched_switch" => {
                    let next = int(&fields["next_pid"]);
                    if let Some((pid, since)) = running.insert(cpu, (next, ts)) {
                        assert_eq!(pid, int(&fields["prev_pid"]));
                        *total.entry(pid).or_default() += ts - since;
                    }
                    if let Some(since) = woken.remove(&next) {
                        latencies.push(ts - since);
                    }
                    let state = int(&fields["prev_state"]);
                    if state & 0xff == 0 {
                        // It still waits for a CPU: that is no sleep to be woken from.
                        woken.insert(int(&fields["prev_pid"]), i64::MAX);
                    } else {
                        woken.remove(&int(&fields["prev_pid"]));
                    }
                }
                "sched_wakeup" | "sched_wakeup_new" => {
                    let pid = int(&fields["pid"]);
                    if running.values().all(|(running, _)| *running != pid) {
                        woken.entry(pid).or_insert(ts);
                    }
                }
                _ => {}
            }
        }
        // Of those that were runnable when they were switched away from, ts - i64::MAX is negative.
        latencies.retain(|latency| *latency >= 0);
        let statement = format!(
            "SELECT pid, sum(dur) AS total FROM intervals WHERE kind = 'state' AND name = 'running' \
             AND ts >= {from} AND dur IS NOT NULL GROUP BY pid ORDER BY pid"
        );
        let got: BTreeMap<i64, i64> = sql(&unpacked, &statement)
            .iter()
            .map(|row| (int(&row["pid"]), int(&row["total"])))
            .collect();
        assert!(total.len() > 5);
        assert_eq!(got, total, "{kernel}");
        let rows = sql(
            &unpacked,
            &format!("SELECT dur FROM wakeup_latency WHERE ts >= {from}"),
        );
        let got: Vec<i64> = rows.iter().map(|row| int(&row["dur"])).collect();
        assert!(latencies.len() > 50);
        assert_eq!(got, latencies, "{kernel}");
    }
}

#[test]
fn gaps_are_the_pairs_of_neighbours_that_are_far_apart() {
    let unpacked = Unpacked::of_kernel(KERNELS[0]);
    let mut last: BTreeMap<i64, i64> = BTreeMap::new();
    let mut expected = Vec::new();
    for event in shown(&unpacked) {
        let (cpu, ts) = (int(&event["cpu"]), int(&event["ts"]));
        if let Some(before) = last.insert(cpu, ts)
            && ts - before >= 20_000_000
        {
            expected.push((cpu, before, ts - before));
        }
    }
    assert!(expected.len() > 10);
    let got = sql(&unpacked, "SELECT cpu, ts, dur FROM gaps(20000000)");
    let got: Vec<_> = got
        .iter()
        .map(|row| (int(&row["cpu"]), int(&row["ts"]), int(&row["dur"])))
        .collect();
    assert_eq!(got, expected);
}

#[test]
fn of_a_damaged_region_the_rest_is_answered() {
    let unpacked = Unpacked::of_kernel(KERNELS[0]);
    let whole = shown(&unpacked).len();
    let mut bytes = std::fs::read(&unpacked.region).unwrap();
    let quarter = bytes.len() / 4;
    for at in (quarter..quarter + 40_000).step_by(7) {
        bytes[at] ^= 0xa5;
    }
    std::fs::write(&unpacked.region, bytes).unwrap();
    let shown = shown(&unpacked);
    assert!(shown.len() < whole && shown.len() > whole / 2);
    let rows = sql(&unpacked, "SELECT count(*) AS n, sum(ts) AS s FROM events");
    let sum: i64 = shown.iter().map(|event| int(&event["ts"])).sum();
    assert_eq!(int(&rows[0]["n"]), shown.len() as i64);
    assert_eq!(int(&rows[0]["s"]), sum);
}

#[test]
fn a_statement_can_write_no_file_and_change_nothing() {
    let unpacked = Unpacked::of_kernel(KERNELS[0]);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("out.db");
    let file = file.to_str().unwrap();
    let before = std::fs::read(&unpacked.region).unwrap();
    for statement in [
        format!("ATTACH '{file}' AS x"),
        format!("VACUUM INTO '{file}'"),
        format!("SELECT writefile('{file}', 'x')"),
        format!("SELECT load_extension('{file}')"),
        "CREATE TABLE x AS SELECT * FROM events".into(),
        "CREATE TEMP VIEW x AS SELECT 1".into(),
        "DROP VIEW task_states ".into(),
        "DELETE FROM events WHERE 1".into(),
        "INSERT INTO tasks VALUES (1, 2, 3, 4)".into(),
        "PRAGMA temp_store_directory = '/'".into(),
        "PRAGMA writable_schema = 1".into(),
        "BEGIN ".into(),
    ] {
        refused(&unpacked, &statement);
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    assert_eq!(std::fs::read(&unpacked.region).unwrap(), before);
}

#[test]
fn a_mistake_is_shown_with_its_place_and_the_nearest_name() {
    let unpacked = Unpacked::of_kernel(KERNELS[0]);
    let text = refused(&unpacked, "/* first */\nSELECT nxt_comm FROM sched_switch");
    assert!(text.contains("statement:2:8"), "{text}");
    assert!(text.contains("did you mean `next_comm`?"), "{text}");
    let text = refused(&unpacked, "SELECT * FROM sched_swich");
    assert!(text.contains("did you mean `sched_switch`?"), "{text}");
}

/// Each source has its own rows, and only those of the one that is asked for are read.
#[test]
fn several_regions_are_told_apart() {
    let unpacked = Unpacked::of_kernel(KERNELS[0]);
    let other = tempfile::tempdir().unwrap();
    let golden = other.path().join("golden");
    let bytes = gunzip(&fixtures().join("golden/2-region-256KiB-2cpu.bin.gz"));
    std::fs::write(&golden, bytes).unwrap();
    let golden = golden.to_str().unwrap();
    let statement = "SELECT source, count(*) AS n FROM events GROUP BY source";
    let rows = lines(&unpacked, &["sql", statement, golden], &[]);
    assert_eq!(rows.len(), 2);
    let names: Vec<&str> = rows.iter().filter_map(|r| r["source"].as_str()).collect();
    for name in [golden, unpacked.region.as_str()] {
        assert!(names.contains(&name), "{names:?}");
        let statement = format!("SELECT count(*) AS n FROM events WHERE source = '{name}'");
        let one = lines(&unpacked, &["sql", &statement, golden], &[]);
        let row = rows.iter().find(|row| row["source"] == name).unwrap();
        assert_eq!(one[0]["n"], row["n"]);
    }
}

#[test]
fn statements_are_read_from_standard_input() {
    let unpacked = Unpacked::of_kernel(KERNELS[0]);
    let mut command = Command::new(env!("CARGO_BIN_EXE_outlive"))
        .args([
            "sql",
            &unpacked.region,
            "--csv",
            "--formats",
            &unpacked.formats,
        ])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = command.stdin.take().unwrap();
    stdin
        .write_all(b"SELECT 'a;b' AS x; -- and;\nSELECT count(*) AS n FROM runs")
        .unwrap();
    drop(stdin);
    let output = command.wait_with_output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "x\na;b\nn\n1\n");
}

/// A program's own events: numbers that SQLite's integers do not hold, spans, wall-clock times.
#[test]
fn events_of_a_program_have_their_numbers_spans_and_wall_clock() {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().to_str().unwrap();
    let recorder = Recorder::builder("shop")
        .state(folder.path())
        .backing(Backing::File)
        .start()
        .unwrap();
    for id in [5, u64::MAX, 1 << 63, i64::MAX as u64] {
        event!("shop:order", id = id, customer = "Ada\u{1b}[31m");
    }
    let span = outlive::span!("shop:checkout", basket = 3u32);
    drop(span);
    drop(recorder);
    let ask = |statement: &str| {
        let output = outlive(&["--state", state, "sql", statement, "shop", "--csv"]);
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    assert_eq!(
        ask("SELECT id FROM \"order\" ORDER BY id"),
        "id\n5\n9223372036854775807\n0x8000000000000000\n0xffffffffffffffff\n"
    );
    assert_eq!(
        ask("SELECT name, dur >= 0 AS ended FROM spans"),
        "name,ended\nshop:checkout,1\n"
    );
    assert_eq!(
        ask("SELECT verdict, wall > started AS later FROM runs, events LIMIT 1"),
        "verdict,later\nclean-exit,1\n"
    );
    let table = outlive(&[
        "--state",
        state,
        "sql",
        "SELECT customer FROM \"order\"",
        "shop",
    ]);
    let table = String::from_utf8(table.stdout).unwrap();
    assert!(table.contains("Ada\\u{1b}[31m"), "{table}");
}

/// SQLite takes names that differ only in case for the same: of two such events one could once not
/// be reached.
#[test]
fn events_whose_names_differ_only_in_case_have_tables_of_their_own() {
    let folder = tempfile::tempdir().unwrap();
    let recorder = Recorder::builder("shop")
        .state(folder.path())
        .backing(Backing::File)
        .start()
        .unwrap();
    for number in 0..3u32 {
        event!("shop:order", number = number);
        event!("shop:Order", number = 10 * number);
        event!("SHOP:ORDER", number = 100 * number);
        event!("shop:Events", number = number);
        event!("shop:alone", number = number);
    }
    drop(recorder);
    let state = folder.path().to_str().unwrap();
    let ask = |statement: &str| {
        let output = outlive(&["sql", statement, "shop", "--csv", "--state", state]);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{stderr}");
        let text = String::from_utf8(output.stdout).unwrap();
        text.lines().skip(1).map(str::to_owned).collect::<Vec<_>>()
    };
    let tables = ask(
        "SELECT name FROM tables WHERE about LIKE 'the event shop:%' AND about NOT LIKE '%span_end%'",
    );
    assert_eq!(tables.len(), 5, "{tables:?}");
    assert!(tables.contains(&"alone".to_owned()), "{tables:?}");
    assert!(tables.contains(&"shop_Events".to_owned()), "{tables:?}");
    for (event, sum) in [("shop:order", 3), ("shop:Order", 30), ("SHOP:ORDER", 300)] {
        let table = ask(&format!(
            "SELECT name FROM tables WHERE about = 'the event {event}'"
        ));
        let [table] = table.as_slice() else {
            panic!("{event}: {table:?}");
        };
        let added = ask(&format!("SELECT sum(number) FROM {table}"));
        assert_eq!(added, [sum.to_string()], "{table}");
    }
}

/// A person at a terminal is asked, over several lines, and asked again when a statement is wrong.
#[test]
fn statements_are_asked_for_at_a_terminal_until_its_end() {
    let unpacked = Unpacked::of_kernel(KERNELS[0]);
    let shell = format!(
        "{} sql {} --formats {}; echo code $?",
        env!("CARGO_BIN_EXE_outlive"),
        unpacked.region,
        unpacked.formats
    );
    // Gives the command a terminal, and at the end of its own input types Ctrl-D.
    let terminal = Command::new("script")
        .args(["--quiet", "--command", &shell, "/dev/null"])
        .env("SHELL", "/bin/sh")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn();
    let mut terminal = terminal.expect("script (bsdutils) is missing");
    let typed = "SELECT count(*) AS n\nFROM events;\nSELECT no_column FROM events;\n\n\
                 DROP TABLE events;\nSELECT 2 AS two;\n";
    let mut stdin = terminal.stdin.take().unwrap();
    stdin.write_all(typed.as_bytes()).unwrap();
    drop(stdin);
    let output = terminal.wait_with_output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap().replace('\r', "");
    let said = [
        "A statement ends with ;".to_owned(),
        // The first line is no statement yet.
        "sql> ...> ".to_owned(),
        shown(&unpacked).len().to_string(),
        "sql> error: no such column: no_column".to_owned(),
        // An empty line is none either.
        "sql> sql> error: nothing can be changed".to_owned(),
        "sql> two\n---\n  2\nsql> \ncode 0\n".to_owned(),
    ];
    let mut rest = text.as_str();
    for said in said {
        let at = rest.find(&said);
        let at = at.unwrap_or_else(|| panic!("{said:?} is not there any more: {text}"));
        rest = &rest[at + said.len()..];
    }
}
