//! `test`: all tests, and how many of them passed, failed and were skipped.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use anyhow::{Context, Result, bail};

use crate::run::{cargo, run};
use crate::setup;

/// What a skipped test means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Skips {
    /// It is counted and named.
    Counted,
    /// It is a failure: on a machine where everything is there.
    Fail,
}

#[derive(Debug, Default)]
struct Counts {
    passed: u64,
    failed: u64,
    skipped: Vec<String>,
}

impl Counts {
    /// Reads a line of a test's or the test runner's output.
    fn read(&mut self, line: &str) {
        if let Some(result) = line.strip_prefix("test result: ") {
            self.passed += count(result, "passed");
            self.failed += count(result, "failed");
        }
        if let Some((_, why)) = line.split_once("skipped: ") {
            self.skipped.push(why.to_owned());
        }
    }
}

/// The number before a word in `ok. 25 passed; 0 failed; ...`.
fn count(result: &str, word: &str) -> u64 {
    let words: Vec<&str> = result.split([' ', ';']).collect();
    let place = words.iter().position(|&w| w == word).unwrap_or(0);
    place
        .checked_sub(1)
        .and_then(|place| words[place].parse().ok())
        .unwrap_or(0)
}

pub(crate) fn test(skips: Skips, args: &[String]) -> Result<()> {
    if let Err(error) = setup::setup() {
        println!("{error:#}: what needs it is skipped");
    }
    run(&mut cargo(&["build", "--release", "--workspace"]))?;
    let mut command = cargo(&["test", "--workspace", "--no-fail-fast"]);
    command.args(args).args(["--", "--show-output"]);
    let mut child = command
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot run cargo test")?;
    let stdout = child.stdout.take().context("no output of cargo test")?;
    let mut counts = Counts::default();
    for line in BufReader::new(stdout).lines() {
        let line = line?;
        counts.read(&line);
        println!("{line}");
    }
    let succeeded = child.wait()?.success();
    println!();
    for why in &counts.skipped {
        println!("skipped: {why}");
    }
    let Counts {
        passed,
        failed,
        skipped,
    } = &counts;
    // A test that skips itself passes for the runner.
    let passed = passed.saturating_sub(skipped.len() as u64);
    println!(
        "{passed} passed, {failed} failed, {} skipped",
        skipped.len()
    );
    if !succeeded || *failed > 0 {
        bail!("{failed} tests failed");
    }
    if skips == Skips::Fail && !skipped.is_empty() {
        bail!("{} tests were skipped, and none may be here", skipped.len());
    }
    Ok(())
}

/// Rewrites expected outputs.
pub(crate) fn golden() -> Result<()> {
    run(cargo(&["test", "--workspace"]).env("OUTLIVE_GOLDEN", "rewrite"))
}
