//! `fuzz`: each fuzz target for a while, without a sanitizer, which a stable toolchain lacks.

use anyhow::{Context, Result};

use crate::run::{cargo, has_program, output, root, run};

pub(crate) fn fuzz(args: &[String]) -> Result<()> {
    let seconds: u64 = match args.first() {
        Some(seconds) => seconds.parse().context("fuzz takes a number of seconds")?,
        None => 180,
    };
    if !has_program("cargo-fuzz") {
        run(&mut cargo(&[
            "install",
            "--locked",
            "--quiet",
            "cargo-fuzz",
        ]))?;
    }
    let fuzz = root().join("fuzz");
    let targets = output(cargo(&["fuzz", "list"]).current_dir(&fuzz))?;
    for target in targets.lines() {
        let limit = format!("-max_total_time={seconds}");
        run(
            cargo(&["fuzz", "run", "--sanitizer", "none", target, "--", &limit]).current_dir(&fuzz),
        )?;
    }
    Ok(())
}
