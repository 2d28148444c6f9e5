//! `test`: all tests, and how many of them passed, failed and were skipped.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::run::{PARQUET, cargo, run, timed};
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
    failures: Failures,
    /// Lines of text that are the kernel's own, by the system of their events.
    compared: BTreeMap<String, u64>,
}

impl Counts {
    /// Reads a line of a test's or the test runner's output.
    fn read(&mut self, line: &str) {
        self.failures.read(line);
        if let Some(result) = line.strip_prefix("test result: ") {
            self.passed += count(result, "passed").cast_signed();
            self.failed += count(result, "failed");
        }
        if let Some((_, why)) = line.split_once("skipped: ") {
            self.skipped.push(why.to_owned());
            // A test that skips itself passes for the runner.
            self.passed -= 1;
        }
        if let Some(compared) = line.strip_prefix("compared: ")
            && let Some((system, lines)) = compared.split_once(' ')
            && let Ok(lines) = lines.parse::<u64>()
        {
            *self.compared.entry(system.to_owned()).or_default() += lines;
        }
    }

    /// How many lines of which systems print as the kernel prints them.
    fn say_compared(&self) {
        if self.compared.is_empty() {
            return;
        }
        let systems = self.compared.iter();
        let systems: Vec<String> = systems
            .map(|(name, lines)| format!("{name} {lines}"))
            .collect();
        println!(
            "lines equal to the kernel's own text, by system: {}",
            systems.join(", ")
        );
    }

    /// Runs a command that runs tests, and counts them. `false` if it failed.
    fn run(&mut self, command: &mut Command) -> Result<bool> {
        timed(command, |command| {
            let mut child = command.stdout(Stdio::piped()).spawn()?;
            let stdout = child.stdout.take().context("no output of the tests")?;
            for line in BufReader::new(stdout).lines() {
                let line = line?;
                self.read(&line);
                println!("{line}");
            }
            Ok(child.wait()?.success())
        })
    }
}

/// What the tests that failed said, to be told again at the end: a reader looks there first, and of a
/// long output often only the end is kept.
#[derive(Debug, Default)]
struct Failures {
    lines: Vec<String>,
    /// How many more lines of the test's output are kept, from its panic on; `None` outside of them.
    left: Option<usize>,
}

impl Failures {
    const LINES: usize = 40;

    fn read(&mut self, line: &str) {
        match line {
            "failures:" => self.left = Some(0),
            "successes:" | "stack backtrace:" => self.left = self.left.map(|_| 0),
            _ if line.starts_with("test result: ") => self.left = None,
            _ => self.read_output(line),
        }
    }

    fn read_output(&mut self, line: &str) {
        let Some(left) = &mut self.left else {
            return;
        };
        if line.starts_with("thread '") && line.contains(" panicked at ") {
            *left = Self::LINES;
        }
        let is_title = line.starts_with("---- ");
        if is_title || *left > 0 {
            self.lines.push(line.to_owned());
            *left -= usize::from(!is_title);
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
    run(&mut cargo(&["build", "--release"]))?;
    let mut counts = Counts::default();
    let mut command = cargo(&[
        "test",
        "--workspace",
        "--features",
        PARQUET,
        "--no-fail-fast",
    ]);
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
    for line in &counts.failures.lines {
        println!("{line}");
    }
    for why in &counts.skipped {
        println!("skipped: {why}");
    }
    counts.say_compared();
    let Counts {
        passed,
        failed,
        skipped,
        ..
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
    run(cargo(&["test", "--workspace"]).env("OUTLIVE_UPDATE", "1"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runners_output_is_counted_and_what_a_failed_test_said_is_kept() {
        let output = "\
test a_region_is_found ... FAILED

successes:

---- a_file_is_read stdout ----
skipped: no root
compared: sched 20
compared: irq 3
compared: sched 4

failures:

---- a_region_is_found stdout ----
a line before

thread 'a_region_is_found' (12) panicked at src/lib.rs:3:5:
no region
stack backtrace:
   0: somewhere


failures:
    a_region_is_found

test result: FAILED. 2 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1.00s
";
        let mut counts = Counts::default();
        output.lines().for_each(|line| counts.read(line));
        assert_eq!((counts.passed, counts.failed), (1, 1));
        assert_eq!(counts.skipped, ["no root"]);
        let compared = [("irq".to_owned(), 3), ("sched".to_owned(), 24)];
        assert_eq!(counts.compared, BTreeMap::from(compared));
        assert_eq!(
            counts.failures.lines,
            [
                "---- a_region_is_found stdout ----",
                "thread 'a_region_is_found' (12) panicked at src/lib.rs:3:5:",
                "no region",
            ]
        );
    }
}
