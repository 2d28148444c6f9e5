//! `vm`: what the tests with real kernels do only in part, done for all of it.
//!
//! `damage` gives every damage of `docs/damages.md` to its kernel and compares with the recording; with
//! `--record` it writes that and the page. `address` harvests an instance that lies by address on each pinned
//! kernel, and `ours-there` has every kernel of the current layout show what outlive wrote. `all` is these,
//! `matrix` and `crash`. The rest is `outlive-vm`'s own.

use anyhow::Result;

use crate::bench;
use crate::run::{cargo, run};

/// Everything that the tests run in part: hours.
const ALL: [&str; 5] = ["matrix", "damage", "address", "crash", "ours-there"];

pub(crate) fn vm(args: &[String]) -> Result<()> {
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["damage"] => run(damage("does_what").env("OUTLIVE_DAMAGE", "all")),
        ["damage", "--record"] => {
            run(damage("does_what").env("OUTLIVE_DAMAGE", "record"))?;
            run(damage("the_page").env("OUTLIVE_UPDATE", "1"))
        }
        ["address"] => {
            let mut tests = test_of("boot_instance", "instance_by_address");
            run(tests.env("OUTLIVE_ADDRESS", "all"))
        }
        ["ours-there"] => {
            // One machine at a time.
            let mut tests = test_of("ours_there", "what_we_wrote");
            tests.args(["--", "--test-threads", "1"]);
            run(tests.env("OUTLIVE_OURS_THERE", "all"))
        }
        ["all"] => ALL.into_iter().try_for_each(|part| vm(&[part.to_owned()])),
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
    test_of("damage", tests)
}

/// Tests of one file of `outlive-vm`, by a part of their names.
fn test_of(file: &str, tests: &str) -> std::process::Command {
    cargo(&["test", "--package", "outlive-vm", "--test", file, tests])
}
