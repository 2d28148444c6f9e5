//! `vm`: what the tests with real kernels do only in part, done for all of it.
//!
//! `damage` gives every damage of `docs/damages.md` to its kernel and compares with the recording; with
//! `--record` it writes that and the page. `address` harvests an instance that lies by address on each pinned
//! kernel. The rest is `outlive-vm`'s own.

use anyhow::Result;

use crate::bench;
use crate::run::{cargo, run};

pub(crate) fn vm(args: &[String]) -> Result<()> {
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["damage"] => run(damage("does_what").env("OUTLIVE_DAMAGE", "all")),
        ["damage", "--record"] => {
            run(damage("does_what").env("OUTLIVE_DAMAGE", "record"))?;
            run(damage("the_page").env("OUTLIVE_UPDATE", "1"))
        }
        ["address"] => {
            let tests = ["boot_instance", "instance_by_address"];
            let mut command = cargo(&["test", "--package", "outlive-vm", "--test"]);
            run(command.args(tests).env("OUTLIVE_ADDRESS", "all"))
        }
        // What they time is the program as it is shipped.
        ["loss" | "backup-time", ..] => {
            bench::build()?;
            let program = bench::outlive().get_program().to_owned();
            run(own().args(args).env("OUTLIVE_BIN", program))
        }
        _ => run(own().args(args)),
    }
}

fn own() -> std::process::Command {
    cargo(&["run", "--quiet", "--package", "outlive-vm", "--"])
}

fn damage(tests: &str) -> std::process::Command {
    cargo(&["test", "--package", "outlive-vm", "--test", "damage", tests])
}
