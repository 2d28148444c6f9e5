//! Tests once more under a checker: the protocol of writer and reader under loom, the code that works on
//! mappings under valgrind.

use std::process::Command;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::run::{cargo, has_program, output, target};
use crate::test::workspace_tests;

/// Packages whose unit tests work on mappings.
const MAPPED: [&str; 2] = ["crates/trace/src/lib.rs", "crates/kernel/src/lib.rs"];
/// The tests of the writer for applications, and the one that takes minutes under valgrind.
const WRITER: &str = "crates/outlive/tests/events.rs";
const SLOW: &str = "a_signal_handler_records";
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
    let programs = test_programs()?;
    let program = |source: &str| {
        let mut programs = programs.iter();
        let found = programs.find(|(path, _)| path.ends_with(source));
        found
            .map(|(_, program)| program)
            .with_context(|| format!("no test program of {source}"))
    };
    let mut commands = Vec::new();
    for source in MAPPED {
        commands.push(under_valgrind(program(source)?));
    }
    let writer = program(WRITER)?;
    let mut checked = under_valgrind(writer);
    checked.args(["--skip", SLOW]);
    let mut native = Command::new(writer);
    native.env(WITHOUT_RSEQ.0, WITHOUT_RSEQ.1);
    commands.extend([checked, native]);
    Ok(Some(commands))
}

/// The test programs of the workspace, as [`workspace_tests`] has built them: source and program.
fn test_programs() -> Result<Vec<(String, String)>> {
    let messages =
        output(workspace_tests().args(["--no-run", "--quiet", "--message-format=json"]))?;
    let messages = messages.lines().map(serde_json::from_str::<Value>);
    let messages: Vec<Value> = messages
        .collect::<Result<_, _>>()
        .context("cargo's messages")?;
    let text = |value: &Value| value.as_str().map(str::to_owned);
    Ok(messages
        .iter()
        .filter(|message| message["profile"]["test"] == true)
        .filter_map(|message| {
            Some((
                text(&message["target"]["src_path"])?,
                text(&message["executable"])?,
            ))
        })
        .collect())
}
