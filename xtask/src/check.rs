//! `check`: what can be said without running the program.

use anyhow::Result;

use crate::capi;
use crate::run::{PARQUET, cargo, has_program, run};

pub(crate) fn check() -> Result<()> {
    run(&mut cargo(&["fmt", "--all", "--check"]))?;
    run(&mut cargo(&[
        "clippy",
        "--workspace",
        "--all-targets",
        "--features",
        PARQUET,
        "--",
        "-D",
        "warnings",
    ]))?;
    run(
        cargo(&["doc", "--workspace", "--no-deps", "--features", PARQUET])
            .env("RUSTDOCFLAGS", "-D warnings"),
    )?;
    run(&mut cargo(&[
        "build",
        "--package",
        "outlive-ring",
        "--no-default-features",
    ]))?;
    capi::check_header()?;
    if !has_program("cargo-deny") {
        run(&mut cargo(&[
            "install",
            "--locked",
            "--quiet",
            "cargo-deny",
        ]))?;
    }
    run(&mut cargo(&[
        "deny", "check", "licenses", "bans", "sources",
    ]))
}
