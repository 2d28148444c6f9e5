//! How a run ended.

use std::fmt;

use outlive_ring::{RunRecord, RunState};

use crate::{Generation, host};

/// Key of the verdict in a generation's `meta.json`.
const META_KEY: &str = "verdict";

/// How a run ended, as far as its run record and the machine's boot id tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Verdict {
    /// The recorder said that it ended.
    CleanExit,
    /// The recorder died, and the machine went on.
    Crash,
    /// The machine went down while the recorder was recording. Why is not known from here.
    HostRebooted,
    /// The recorder still runs: it holds the lock of its state.
    StillRunning,
    /// There is no run record: a kernel wrote the region, or the record is damaged.
    Unknown,
}

impl Verdict {
    const ALL: [Self; 5] = [
        Self::CleanExit,
        Self::Crash,
        Self::HostRebooted,
        Self::StillRunning,
        Self::Unknown,
    ];

    /// Judges a run that is over, in the boot with the id `boot_id`, or the one at whose time the
    /// region was put aside.
    #[must_use]
    pub fn of_ended(run: Option<&RunRecord>, boot_id: &[u8; 16]) -> Self {
        match run {
            None => Self::Unknown,
            Some(run) if run.state == RunState::Closed => Self::CleanExit,
            Some(run) if run.boot_id == *boot_id => Self::Crash,
            Some(_) => Self::HostRebooted,
        }
    }

    /// What was judged when the generation was made: by then the boot was known, which may have
    /// changed since.
    #[must_use]
    pub fn of_generation(generation: &Generation, run: Option<&RunRecord>) -> Self {
        let noted = generation
            .meta()
            .and_then(|meta| meta.other.get(META_KEY)?.as_str());
        noted
            .and_then(Self::from_word)
            .unwrap_or_else(|| Self::of_ended(run, &boot_id()))
    }

    /// Notes what was judged, for [`Verdict::of_generation`].
    pub fn note(self, meta: &mut crate::Meta) {
        meta.other.insert(META_KEY.to_owned(), self.word().into());
    }

    /// The verdict that [`word`](Self::word) gives for it; `None` if that is none.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        let mut all = Self::ALL.into_iter();
        all.find(|verdict| verdict.word() == word)
    }

    /// The verdict in a word, for JSON.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::CleanExit => "clean-exit",
            Self::Crash => "crash",
            Self::HostRebooted => "host-rebooted",
            Self::StillRunning => "still-running",
            Self::Unknown => "unknown",
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::CleanExit => "clean exit",
            Self::Crash => "crash",
            Self::HostRebooted => "host rebooted",
            Self::StillRunning => "still running",
            Self::Unknown => "unknown",
        })
    }
}

/// The machine's boot id as bytes; zero if the system does not tell.
#[must_use]
pub fn boot_id() -> [u8; 16] {
    host::boot_id()
        .ok()
        .and_then(|id| parse_uuid(&id))
        .unwrap_or_default()
}

fn parse_uuid(text: &str) -> Option<[u8; 16]> {
    let digits: String = text.trim().chars().filter(|c| *c != '-').collect();
    Some(u128::from_str_radix(&digits, 16).ok()?.to_be_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_judged_by_its_state_and_the_boot() {
        let run = |state, boot| RunRecord {
            state,
            boot_id: [boot; 16],
            ..RunRecord::default()
        };
        let of = |run: &RunRecord| Verdict::of_ended(Some(run), &[1; 16]);
        assert_eq!(of(&run(RunState::Closed, 1)), Verdict::CleanExit);
        assert_eq!(of(&run(RunState::Closed, 2)), Verdict::CleanExit);
        assert_eq!(of(&run(RunState::Running, 1)), Verdict::Crash);
        assert_eq!(of(&run(RunState::Running, 2)), Verdict::HostRebooted);
        assert_eq!(Verdict::of_ended(None, &[1; 16]), Verdict::Unknown);
    }

    #[test]
    fn a_boot_id_is_read_as_the_kernel_writes_it() {
        let id = parse_uuid("0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0\n").unwrap();
        assert_eq!((id[0], id[15]), (0x0f, 0xf0));
        assert_ne!(boot_id(), [0; 16]);
    }
}
