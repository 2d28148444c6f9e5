//! `fuzz`: each fuzz target for a while, without a sanitizer, which a stable toolchain lacks.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use outlive_ring::layout::{SUBBUF_DATA, SUBBUF_HEADER, SUBBUF_SIZE};
use outlive_ring::subbuf;

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
    write(corpus, "trace_dat", trace_dats().into_iter())?;
    write(corpus, "region", regions()?.into_iter())?;
    write(corpus, "subbuf", subbufs()?.into_iter())?;
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

/// Kernels' regions, those of 6.12 in their own layout, for the target `region`: of the kind that is the
/// bytes, without edits.
fn regions() -> Result<Vec<Vec<u8>>> {
    let names = [
        "damage/7.3.4-2cpu-128K.bin.gz",
        "damage/6.12.107-2cpu-256K.bin.gz",
        "golden/2-region-256KiB-2cpu.bin.gz",
    ];
    let seed = |name| Ok([vec![0, 0], unpacked(name)?].concat());
    let mut seeds: Vec<Vec<u8>> = names.into_iter().map(seed).collect::<Result<_>>()?;
    // The other kinds: sub-buffers of a bare ring, and a region of our own.
    seeds.extend(subbufs()?.iter().map(|page| [&[1, 0], &page[..]].concat()));
    seeds.push(vec![2, 0]);
    Ok(seeds)
}

/// Sub-buffers of real kernels: time stamp, commit word, and the records.
fn subbufs() -> Result<Vec<Vec<u8>>> {
    let mut seeds = Vec::new();
    for name in [
        "golden/5-nextboot-backup-raw-cpu0.bin.gz",
        "golden/6-ordinary-overrun-raw-cpu0.bin.gz",
    ] {
        for page in unpacked(name)?.as_chunks::<SUBBUF_SIZE>().0 {
            let (header, data) = page.split_at(SUBBUF_HEADER);
            let (_, commit) = subbuf::header(header.try_into()?);
            seeds.push([header, &data[..commit.size().min(SUBBUF_DATA)]].concat());
        }
    }
    Ok(seeds)
}

/// A fixture that is stored with gzip.
fn unpacked(name: &str) -> Result<Vec<u8>> {
    let path = root().join("fixtures").join(name);
    let output = Command::new("gzip").arg("-dc").arg(&path).output()?;
    ensure!(output.status.success(), "cannot unpack {}", path.display());
    Ok(output.stdout)
}

/// The smallest `trace.dat` of format 6, and the head of one of format 7 with an empty list of
/// options.
fn trace_dats() -> [Vec<u8>; 2] {
    let head = |version: &[u8]| {
        let magic = b"\x17\x08\x44tracing";
        [magic, version, b"\0\0\x08\0\x10\0\0"].concat()
    };
    let text = |name: &[u8]| [name, &[0; 9]].concat();
    let v6 = [
        head(b"6"),
        text(b"header_page"),
        text(b"header_event"),
        // No formats, symbols, strings, command lines; one CPU.
        vec![0; 4 + 4 + 4 + 4 + 8],
        b"\x01\0\0\0options  \0\0\0flyrecord\0".to_vec(),
        vec![0; 16],
    ];
    let options = [
        &b"none\0\0"[..],
        &[32, 0, 0, 0, 0, 0, 0, 0],
        &[0; 8],
        &[14],
        &[0; 7],
    ];
    let done = [&[0_u8; 2][..], &[8, 0, 0, 0], &[0; 8]].concat();
    let v7 = [head(b"7"), options.concat(), done];
    [v6.concat(), v7.concat()]
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
