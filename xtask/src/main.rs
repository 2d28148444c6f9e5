//! Development actions: `cargo xtask` lists them.

mod bench;
mod capi;
mod check;
mod checked;
mod fuzz;
mod kill_storm;
mod run;
mod setup;
mod test;
mod vm;

use anyhow::{Result, bail};

const ACTIONS: &str = "\
cargo xtask ACTION

  check   format, lints, documentation, licences
  test    all tests, against the real kernel and the foreign tools; needs root for those
  ci      check and test, and fails if a test was skipped
  bench   the figures of the README, beside the peers in one run: bench [NAME]...
  kill-storm  10,000 kills of a recording program, at random instants: kill-storm [KILLS [THREADS]]
  fuzz    each fuzz target for a while: fuzz [SECONDS]
  vm      real kernels in QEMU: all, or one of matrix, damage [--record], address, crash, ours-there;
          list, fetch, loss, backup-time
  capi    builds and installs the C library: capi PREFIX [--built FOLDER]
  header  makes its header again, crates/capi/include/outlive.h, which check compares
  golden  rewrites the expected outputs of the golden tests; look at the diff
  setup   installs what the tests and benches need (Debian and Python packages)
";

fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let action = args.next();
    let rest: Vec<String> = args.collect();
    match action.as_deref() {
        Some("check") => check::check(),
        Some("test") => test::test(test::Skips::Counted, &rest),
        Some("ci") => check::check().and_then(|()| test::test(test::Skips::Fail, &[])),
        Some("bench") => bench::bench(&rest),
        Some("kill-storm") => kill_storm::kill_storm(&rest),
        Some("fuzz") => fuzz::fuzz(&rest),
        Some("capi") => capi::capi(&rest),
        Some("header") => capi::header(),
        Some("golden") => test::golden(),
        Some("vm") => vm::vm(&rest),
        Some("setup") => setup::setup(),
        Some("help" | "--help" | "-h") | None => {
            print!("{ACTIONS}");
            Ok(())
        }
        Some(other) => bail!("no action {other:?}\n\n{ACTIONS}"),
    }
}
