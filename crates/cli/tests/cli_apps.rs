//! The commands on a program that records for itself, while it runs and afterwards.

use std::path::Path;
use std::process::{Command, Output};

use outlive::{Backing, Recorder, event};

fn outlive(state: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_outlive"));
    command
        .arg("--state")
        .arg(state)
        .args(args)
        .output()
        .unwrap()
}

fn stdout(state: &Path, args: &[&str]) -> String {
    let output = outlive(state, args);
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{args:?}: {stderr}");
    String::from_utf8(output.stdout).unwrap()
}

fn order(id: u64) {
    event!("shop:order", id = id, customer = "Ada");
}

/// The ids of the orders that `show` prints.
fn shown(state: &Path, args: &[&str]) -> Vec<u64> {
    let text = stdout(state, &[&["show", "shop"], args].concat());
    let ids = text
        .lines()
        .filter_map(|line| line.split_once(" order: id="));
    ids.map(|(_, rest)| rest.split(' ').next().unwrap().parse().unwrap())
        .collect()
}

#[test]
fn a_program_is_found_by_its_name_shown_and_switched() {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path();
    let recorder = Recorder::builder("shop")
        .state(state)
        .backing(Backing::File)
        .start()
        .unwrap();
    order(1);
    event!("db:query", rows = 3u32);
    assert!(stdout(state, &["ls"]).contains("still running"));
    assert_eq!(shown(state, &[]), [1]);
    assert_eq!(
        stdout(state, &["disable", "shop"]),
        "on   shop:order\non   db:query\n"
    );
    assert_eq!(
        stdout(state, &["disable", "shop", "shop:*"]),
        "off  shop:order\n"
    );
    order(2);
    assert_eq!(
        stdout(state, &["enable", "shop", "order"]),
        "on   shop:order\n"
    );
    order(3);
    assert_eq!(shown(state, &["--event", "shop"]), [1, 3]);
    assert_eq!(shown(state, &["--filter", "id > 1"]), [3]);
    let json = stdout(state, &["show", "shop", "--json", "--event", "query"]);
    assert!(
        json.contains(r#""rows":3"#) && !json.contains("preempt_count"),
        "{json}"
    );

    let wrong = outlive(state, &["enable", "shop", "shop:odrer"]);
    let stderr = String::from_utf8_lossy(&wrong.stderr).into_owned();
    assert!(
        !wrong.status.success() && stderr.contains("shop:order, db:query"),
        "{stderr}"
    );

    drop(recorder);
    assert!(stdout(state, &["info", "shop"]).contains("clean exit"));
    assert!(stdout(state, &["check", "shop"]).contains("lane 0: 3 entries"));
    let ended = outlive(state, &["disable", "shop", "shop:order"]);
    let stderr = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert!(stderr.contains("does not run"), "{stderr}");

    let again = Recorder::builder("shop")
        .state(state)
        .backing(Backing::File)
        .start();
    assert!(shown(state, &[]).is_empty());
    let kept = again.unwrap().previous().unwrap().generation().seq();
    let text = stdout(state, &["show", &format!("shop/{kept}")]);
    assert!(text.contains("order: id=3 customer=Ada"), "{text}");
}
