//! Tests once more under a checker: the protocol of writer and reader under loom, the code that works on
//! mappings under valgrind.

use std::process::Command;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::run::{cargo, has_program, output, target};

/// Packages whose unit tests work on mappings.
const MAPPED: [&str; 2] = ["outlive-trace", "outlive-kernel"];
/// The package of the writer for applications, its test program, and the test that takes minutes under
/// valgrind.
const WRITER: [&str; 3] = ["outlive", "events", "a_signal_handler_records"];
/// The C library does not register the thread's area in which the kernel tells the CPU.
const WITHOUT_RSEQ: (&str, &str) = ("GLIBC_TUNABLES", "glibc.pthread.rseq=0");
/// Seconds of loom's search, which has no end within reason.
const LOOM_SECONDS: &str = "20";

/// The protocol of writer and reader under loom. In a target folder of its own: the flag would have everything else built anew.
pub(crate) fn loom() -> Command {
    let mut command = cargo(&[
        "test",
        "--release",
        "--package",
        "outlive-ring",
        "--test",
        "loom",
    ]);
    command
        .env("RUSTFLAGS", "--cfg loom")
        .env("LOOM_MAX_DURATION", LOOM_SECONDS)
        .env("CARGO_TARGET_DIR", target().join("loom"));
    command
}

/// The code that works on mappings, under valgrind: unit tests, and the writer for applications on its
/// way without rseq, which valgrind does not have; that way once more on the processor itself. `None`
/// where valgrind is missing.
pub(crate) fn memcheck() -> Result<Option<Vec<Command>>> {
    if !has_program("valgrind") {
        return Ok(None);
    }
    let under_valgrind = |binary: &String| {
        let mut command = Command::new("valgrind");
        command.args(["--quiet", "--error-exitcode=9", "--leak-check=no", binary]);
        command
    };
    let units = test_binaries(&["--lib"], &MAPPED)?;
    let mut commands: Vec<Command> = units.iter().map(under_valgrind).collect();
    let [package, test, slow] = WRITER;
    for binary in test_binaries(&["--test", test], &[package])? {
        let mut checked = under_valgrind(&binary);
        checked.args(["--skip", slow]);
        let mut native = Command::new(&binary);
        native.env(WITHOUT_RSEQ.0, WITHOUT_RSEQ.1);
        commands.extend([checked, native]);
    }
    Ok(Some(commands))
}

/// The test programs of packages, which `cargo test` has built.
fn test_binaries(which: &[&str], packages: &[&str]) -> Result<Vec<String>> {
    let mut command = cargo(&["test", "--no-run", "--quiet", "--message-format=json"]);
    command.args(which);
    command.args(packages.iter().flat_map(|package| ["--package", package]));
    let messages = output(&mut command)?;
    let messages = messages.lines().map(serde_json::from_str::<Value>);
    let messages: Vec<Value> = messages
        .collect::<Result<_, _>>()
        .context("cargo's messages")?;
    Ok(messages
        .iter()
        .filter(|message| message["profile"]["test"] == true)
        .filter_map(|message| Some(message["executable"].as_str()?.to_owned()))
        .collect())
}
