//! `bench tracing`: an event through `tracing`, beside others, and what each keeps after a kill.

use anyhow::Result;

use crate::run::{cargo, run};

/// A workspace of its own: what is compared is needed for that only.
pub(crate) const PEERS: &str = "crates/tracing/peers/Cargo.toml";

pub(crate) fn tracing() -> Result<()> {
    run(&mut cargo(&[
        "run",
        "--quiet",
        "--release",
        "--manifest-path",
        PEERS,
    ]))
}
