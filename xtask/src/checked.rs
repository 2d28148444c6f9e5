//! Tests once more under a checker: the protocol of writer and reader under loom, the code that works on
//! mappings under valgrind.

use std::process::Command;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::run::{cargo, has_program, output, target};

/// Packages whose unit tests work on mappings.
const MAPPED: [&str; 2] = ["outlive-trace", "outlive-kernel"];
/// The tests of the writer for applications: package and test.
const WRITER: [&str; 2] = ["outlive", "events"];
/// The one of them that takes minutes under valgrind.
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
    let mut commands = Vec::new();
    for package in MAPPED {
        commands.push(under_valgrind(&test_program(&[package, "--lib"])?));
    }
    let [package, test] = WRITER;
    let writer = test_program(&[package, "--test", test])?;
    let mut checked = under_valgrind(&writer);
    checked.args(["--skip", SLOW]);
    let mut native = Command::new(&writer);
    native.env(WITHOUT_RSEQ.0, WITHOUT_RSEQ.1);
    commands.extend([checked, native]);
    Ok(Some(commands))
}

/// The test program of a package, built without optimisation: valgrind takes some optimised code for
/// wrong.
fn test_program(package_and_target: &[&str]) -> Result<String> {
    let mut build = cargo(&["test", "--profile", "memcheck", "--no-run", "--quiet"]);
    build.args(["--message-format=json", "--package"]);
    let messages = output(build.args(package_and_target))?;
    messages
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .find_map(|message| Some(message["executable"].as_str()?.to_owned()))
        .with_context(|| format!("no test program of {}", package_and_target.join(" ")))
}
