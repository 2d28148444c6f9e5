//! A backing and a death: outlive records, the machine dies and boots again, and what the backup must have
//! then is checked.

use std::fmt;
use std::fs;
use std::path::Path;

use serde_json::Value;

use super::{Death, Kind, Loss, Rig};
use crate::{End, Kernel, Outcome};

/// The kernel that is booted.
const KERNEL: &str = "7.3.4";
/// The backings that outlive a reset and are asked for every death.
const BACKINGS: [Kind; 3] = [Kind::Physical, Kind::DaxFile, Kind::VirtioPmem];
const DEATHS: [Death; 5] = [
    Death::Panic,
    Death::ResetFromOutside,
    Death::Watchdog,
    Death::TripleFault,
    Death::Reboot,
];

/// What stands above the rows of `docs/machine-deaths.md`.
pub const PAGE_HEAD: &str = "\
# Deaths of a machine, on each backing

A virtual machine with two CPUs (Linux 7.3.4, emulated) on which outlive and the kernel's own persistent instance record
`sched`. It dies, boots again, and outlive starts with the same line. In each case its backup has every event that the kernel's
instance has, but for the last ones, and of these none that is older than the recorder's polls are far apart; `check`
calls it whole, and the verdict is right. On `/dev/mem` each byte is compared. A triple fault is one by QEMU's log of
resets.

*Missing at the end* are events of the kernel's behind the last one that outlive had copied, of both CPUs, and the time from the first
of them on to the kernel's last event; *longest delay* is what the recorder noted itself as the longest time between
two polls. After a clean reboot what is missing is from after outlive had ended. Emulated processors take turns: on a real machine
the delay is near that of `--interval`, 10 ms.

Written by `cargo xtask vm crash`, which runs all of it; each backing's panic and each death once are in the tests
(`crates/vm/tests/machine_crash.rs`).

| backing | death | verdict | events in both | missing at the end | in time | longest delay |
| --- | --- | --- | ---: | ---: | ---: | ---: |
";

/// A backing and a death.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Case {
    /// Where outlive's area lies.
    pub kind: Kind,
    /// How the machine goes down.
    pub death: Death,
}

/// What the start after the death found.
#[derive(Debug, Clone)]
pub struct Survived {
    /// How the run ended, as outlive says.
    pub verdict: String,
    /// Beside the kernel's own instance.
    pub loss: Loss,
}

impl Survived {
    /// A row of `docs/machine-deaths.md`.
    #[must_use]
    pub fn row(&self, case: Case) -> String {
        let (kind, death, loss) = (case.kind.name(), case.death.name(), &self.loss);
        let [time, delay] = [loss.last_ns, loss.max_delay_ns].map(|ns| ns as f64 / 1e6);
        format!(
            "| {kind} | {death} | {} | {} | {} | {time:.1} ms | {delay:.1} ms |",
            self.verdict, loss.both, loss.last
        )
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, {}", self.kind.name(), self.death.name())
    }
}

/// Each backing that outlives a reset with each death.
pub fn all() -> impl Iterator<Item = Case> {
    BACKINGS
        .into_iter()
        .flat_map(|kind| DEATHS.map(|death| Case { kind, death }))
}

/// `Err` with the words unless it holds.
fn must(holds: bool, words: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(words()) }
}

fn json(outcome: &Outcome, name: &str) -> Result<Value, String> {
    let text = outcome.text(name).map_err(|e| e.to_string())?;
    serde_json::from_str(&text).map_err(|error| format!("{name}: {error}: {text}"))
}

impl Case {
    /// Makes it happen, and checks that the backup has each event that the kernel's own instance has up to
    /// the last one that outlive copied, and every one that was seen to be recorded.
    ///
    /// # Errors
    /// What does not hold, in words; or the machine does not run.
    pub fn run(&self, outlive: &Path) -> Result<Survived, String> {
        self.try_run(outlive)
            .map_err(|told| format!("{self}: {told}"))
    }

    fn try_run(&self, outlive: &Path) -> Result<Survived, String> {
        let told = |error: crate::Error| error.to_string();
        let kernel = Kernel::pinned(KERNEL).map_err(told)?;
        let mut rig = Rig::new(kernel, self.kind, outlive).map_err(told)?;
        let script = match self.kind {
            Kind::Disk => "load\nlast_words\nwritten_back",
            _ => "load\nbeaten\nlast_words",
        };
        let first = rig.record(script, self.death).map_err(told)?;
        must(first.end == self.death.end(), || {
            format!("it ended with {:?}\n{}", first.end, first.console)
        })?;
        let reference = tempfile::NamedTempFile::new().map_err(|e| e.to_string())?;
        fs::write(reference.path(), rig.reference().map_err(told)?).map_err(|e| e.to_string())?;
        let area = match self.kind {
            Kind::Physical => Some(rig.area().map_err(told)?),
            _ => None,
        };
        let second = rig.again().map_err(told)?;
        must(second.end == End::PowerOff, || second.console.clone())?;
        let verdict = self.check(&second)?;
        if let Some(area) = area {
            let region = second.bytes("region").map_err(told)?;
            must(region == area, || "not each byte is kept".to_owned())?;
        }
        let region = second.results().join("region");
        let loss = Loss::between(&region, reference.path()).map_err(|e| e.to_string())?;
        loss.check()?;
        match self.death {
            Death::Reboot => loss.check_closed()?,
            _ => loss.check_poll_bound()?,
        }
        Ok(Survived { verdict, loss })
    }

    /// What outlive says of the run before: its verdict.
    fn check(&self, second: &Outcome) -> Result<String, String> {
        let text = |name: &str| second.text(name).map_err(|e| e.to_string());
        let (log, check, shown) = (text("log")?, json(second, "check")?, text("show")?);
        let about = |what: &str| format!("{what}: {check}\n{log}");
        let wanted = match self.death {
            Death::Reboot => "clean-exit",
            _ => "host-rebooted",
        };
        must(check["verdict"] == wanted, || about("the verdict"))?;
        must(shown.contains("filename=/tmp/last-words"), || {
            about("the last words are missing")
        })?;
        if self.kind != Kind::Disk {
            let code = text("check.code")?;
            must(code == "0\n", || about(&format!("check ends with {code}")))?;
            let events = shown.lines().filter(|line| line.contains(": sched_"));
            let events = events.count();
            must(check["entries"] == events, || {
                about(&format!("{events} events are shown"))
            })?;
        }
        Ok(wanted.to_owned())
    }
}
