//! `kill-storm`: the test of the same name with as many kills as the promise is made for.

use anyhow::{Context, Result, bail};

use crate::run::{cargo, run};

/// Kills in all, unless another number is given.
const KILLS: u32 = 10_000;
/// The numbers of threads of the test: 1, 2, 8 and 64.
const KINDS: u32 = 4;

pub(crate) fn kill_storm(args: &[String]) -> Result<()> {
    let number = |text: &String| text.parse::<u32>().context("KILLS and THREADS are numbers");
    let (kills, threads) = match args {
        [] => (KILLS.div_ceil(KINDS), None),
        [kills] => (number(kills)?.div_ceil(KINDS), None),
        [kills, threads] => (number(kills)?, Some(number(threads)?)),
        _ => bail!("kill-storm takes two numbers at most: KILLS and THREADS"),
    };
    let mut command = cargo(&[
        "test",
        "--release",
        "--package",
        "outlive",
        "--test",
        "kill_storm",
    ]);
    command.args(["--", "--nocapture"]);
    command.env("OUTLIVE_KILLS", kills.to_string());
    if let Some(threads) = threads {
        command.env("OUTLIVE_KILL_THREADS", threads.to_string());
    }
    run(&mut command)
}
