//! `bench`: the figures of the README, each beside its peer in one run.

use anyhow::Result;

pub(crate) fn bench(_names: &[String]) -> Result<()> {
    Ok(())
}
