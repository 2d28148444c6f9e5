//! `bench app`: an application's events, on tmpfs and on a disk file.

use anyhow::Result;

use super::temporary;
use crate::run::{cargo, run};

pub(crate) fn app() -> Result<()> {
    let disk = temporary()?;
    let mut command = cargo(&["bench", "--quiet", "--package", "outlive", "--bench", "app"]);
    run(command.env("OUTLIVE_BENCH_DISK", disk.path()))
}
