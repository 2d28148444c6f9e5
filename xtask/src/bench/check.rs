//! `outlive check` of a full region of 100 MiB, beside a plain CRC32C pass over the same bytes.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use super::stopwatch::{Times, target, time};
use super::{outlive, region};

const ROUNDS: usize = 21;
const SIZE: u64 = 100 << 20;
/// Bytes that are checksummed at a time.
const CHUNK: usize = 1 << 20;

pub(crate) fn check() -> Result<()> {
    let folder = super::temporary()?;
    let file = folder.path().join("region");
    region::write_full(&file, SIZE, 0)?;
    let (mut checks, mut passes) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        passes.push(time(|| must_succeed(pass_command(&file)?))?);
        let mut check = outlive();
        check.arg("check").arg(&file);
        checks.push(time(|| must_succeed(check))?);
    }
    let (check, pass) = (Times::of(checks), Times::of(passes));
    println!(
        "full region of 100 MiB in the page cache, whole processes, {ROUNDS} rounds, alternating"
    );
    println!("  outlive check     {check}");
    println!("  plain CRC32C pass {pass}");
    let ratio = check.ratio(&pass);
    println!(
        "  ratio             {ratio:9.2}{}",
        target("at most 2", ratio <= 2.0)
    );
    Ok(())
}

/// This program, as the peer.
fn pass_command(file: &Path) -> Result<Command> {
    let mut pass = Command::new(std::env::current_exe()?);
    pass.args(["bench", "crc-pass"]).arg(file);
    Ok(pass)
}

fn must_succeed(mut command: Command) -> Result<()> {
    let status = command.stdout(Stdio::null()).status()?;
    if !status.success() {
        bail!("{command:?}: {status}");
    }
    Ok(())
}

/// The peer: reads the file and computes one CRC32C over it.
pub(crate) fn crc_pass(file: &Path) -> Result<()> {
    use std::io::Read;
    let mut file = std::fs::File::open(file).context("cannot open the region")?;
    let mut chunk = vec![0; CHUNK];
    let mut crc = 0;
    loop {
        match file.read(&mut chunk)? {
            0 => break,
            len => crc = crc32c::crc32c_append(crc, &chunk[..len]),
        }
    }
    println!("{crc:#010x}");
    Ok(())
}
