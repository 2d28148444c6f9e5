//! `fuzz`: each fuzz target for a while, without a sanitizer, which a stable toolchain lacks.

use std::path::Path;

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
    write_seeds(&fuzz.join("corpus"))?;
    let targets = output(cargo(&["fuzz", "list"]).current_dir(&fuzz))?;
    for target in targets.lines() {
        let limit = format!("-max_total_time={seconds}");
        run(
            cargo(&["fuzz", "run", "--sanitizer", "none", target, "--", &limit]).current_dir(&fuzz),
        )?;
    }
    Ok(())
}

/// Writes what the project's tests read into the corpus, so that fuzzing begins with sound input.
fn write_seeds(corpus: &Path) -> Result<()> {
    let mut formats = Vec::new();
    collect_formats(&root().join("crates/event/tests/data"), &mut formats)?;
    let cases = std::fs::read_to_string(root().join("crates/trace/tests/cmdline/cases.txt"))?;
    let lines: Vec<&str> = cases
        .split("=== ")
        .filter_map(|case| case.split_once('\n')?.1.split("\n---").next())
        .collect();
    let print_fmts = formats
        .iter()
        .filter_map(|text| text.split_once("print fmt: "));
    // Behind the NUL a record: zeros are one.
    let with_record = |text: &str| [text.as_bytes(), &[0; 128]].concat();
    write(
        corpus,
        "format",
        formats.iter().map(|text| with_record(text)),
    )?;
    write(
        corpus,
        "print_fmt",
        print_fmts.map(|(_, print_fmt)| with_record(print_fmt.trim())),
    )?;
    write(
        corpus,
        "cmdline",
        lines.iter().map(|line| line.as_bytes().to_vec()),
    )
}

fn write(corpus: &Path, target: &str, seeds: impl Iterator<Item = Vec<u8>>) -> Result<()> {
    let folder = corpus.join(target);
    std::fs::create_dir_all(&folder)?;
    for (i, seed) in seeds.enumerate() {
        std::fs::write(folder.join(format!("seed-{i:03}")), seed)?;
    }
    Ok(())
}

fn collect_formats(folder: &Path, into: &mut Vec<String>) -> Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            collect_formats(&path, into)?;
        } else if let Ok(text) = std::fs::read_to_string(&path)
            && text.contains("print fmt: ")
        {
            into.push(text);
        }
    }
    Ok(())
}
