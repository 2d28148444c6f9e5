//! `kill-storm`: the test of the same name with as many kills as the promise is made for.

use anyhow::{Context, Result, bail};

use crate::run::{cargo, run};

/// Kills in all, unless another number is given.
const KILLS: u32 = 10_000;
/// The numbers of threads of the test: 1, 2, 8 and 64.
const KINDS: u32 = 4;

pub(crate) fn kill_storm(args: &[String]) -> Result<()> {
    let kills = match args {
        [] => KILLS,
        [kills] => kills.parse().context("KILLS is a number")?,
        _ => bail!("kill-storm takes one number"),
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
    run(command.env("OUTLIVE_KILLS", kills.div_ceil(KINDS).to_string()))
}
