//! `test`: all tests, and how many of them passed, failed and were skipped.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::run::{PARQUET, cargo, run, shown};
use crate::{bench, checked, setup};

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
    /// Below zero for a while: a test tells that it skips itself before the runner counts it.
    passed: i64,
    failed: u64,
    skipped: Vec<String>,
}

impl Counts {
    /// Reads a line of a test's or the test runner's output.
    fn read(&mut self, line: &str) {
        if let Some(result) = line.strip_prefix("test result: ") {
            self.passed += count(result, "passed").cast_signed();
            self.failed += count(result, "failed");
        }
        if let Some((_, why)) = line.split_once("skipped: ") {
            self.skipped.push(why.to_owned());
            // A test that skips itself passes for the runner.
            self.passed -= 1;
        }
    }
}

impl Counts {
    /// Runs a command that runs tests, and counts them. `false` if it failed.
    fn run(&mut self, command: &mut Command) -> Result<bool> {
        println!("$ {}", shown(command));
        let mut child = command
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot run {}", shown(command)))?;
        let stdout = child.stdout.take().context("no output of the tests")?;
        for line in BufReader::new(stdout).lines() {
            let line = line?;
            self.read(&line);
            println!("{line}");
        }
        Ok(child.wait()?.success())
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
    let mut counts = Counts::default();
    let mut command = cargo(&["test", "--workspace", "--features", PARQUET]);
    command.arg("--no-fail-fast");
    command.args(args).args(["--", "--show-output"]);
    let mut succeeded = counts.run(&mut command)?;
    if args.is_empty() {
        let mut server = cargo(&["test", "--manifest-path", bench::tracing::PEERS]);
        succeeded &= counts.run(&mut server)?;
        succeeded &= counts.run(&mut checked::loom())?;
        match checked::memcheck()? {
            Some(commands) => {
                for mut command in commands {
                    succeeded &= counts.run(&mut command)?;
                }
            }
            None => counts
                .skipped
                .push("no valgrind for the code that works on mappings".into()),
        }
    }
    println!();
    for why in &counts.skipped {
        println!("skipped: {why}");
    }
    let Counts {
        passed,
        failed,
        skipped,
    } = &counts;
    println!(
        "{passed} passed, {failed} failed, {} skipped",
        skipped.len()
    );
    if !succeeded || *failed > 0 {
        bail!("{failed} tests failed, or a command above did");
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
