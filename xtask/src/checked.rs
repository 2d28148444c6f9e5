//! Tests once more under a checker: the protocol of writer and reader under loom, the code that works on
//! mappings under valgrind.

use std::process::Command;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::run::{cargo, has_program, output, root};

/// Packages whose unit tests work on mappings.
const MAPPED: [&str; 2] = ["outlive-trace", "outlive-kernel"];
/// Seconds of loom's search, which has no end within reason.
const LOOM_SECONDS: &str = "20";

/// The protocol of writer and reader under loom. In a target folder of its own: the flag would have everything else built anew.
pub(crate) fn loom() -> Command {
    let target =
        std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), Into::into);
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
        .env("CARGO_TARGET_DIR", target.join("loom"));
    command
}

/// The unit tests of the code that works on mappings, under valgrind; `None` where that is missing.
pub(crate) fn memcheck() -> Result<Option<Vec<Command>>> {
    if !has_program("valgrind") {
        return Ok(None);
    }
    let under_valgrind = |binary: &String| {
        let mut command = Command::new("valgrind");
        command.args(["--quiet", "--error-exitcode=9", "--leak-check=no", binary]);
        command
    };
    Ok(Some(test_binaries()?.iter().map(under_valgrind).collect()))
}

/// The unit tests' programs, which `cargo test` has built.
fn test_binaries() -> Result<Vec<String>> {
    let mut command = cargo(&[
        "test",
        "--no-run",
        "--quiet",
        "--lib",
        "--message-format=json",
    ]);
    command.args(MAPPED.iter().flat_map(|package| ["--package", package]));
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
