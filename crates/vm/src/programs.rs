//! The project's own programs, for guests.

use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;

use crate::Error;
use crate::initramfs::output;

/// The `outlive` command, built as the tests are; or `$OUTLIVE_BIN`.
///
/// # Errors
/// It cannot be built.
pub fn outlive() -> Result<PathBuf, Error> {
    if let Some(program) = std::env::var_os("OUTLIVE_BIN") {
        return Ok(program.into());
    }
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
        .args([
            "build",
            "--quiet",
            "--package",
            "outlive-cli",
            "--features",
            "outlive-trace/failpoints",
        ])
        .arg("--message-format=json");
    let messages = output(&mut command)?;
    let messages = messages.lines().rev();
    let mut messages = messages.filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let executable = |message: Value| Some(PathBuf::from(message["executable"].as_str()?));
    messages.find_map(executable).ok_or_else(|| Error::Command {
        command: format!("{command:?}"),
        told: "no program was built".to_owned(),
    })
}
