//! What the doctor remembers from one boot to the next: `doctor.json` in the state folder, the only
//! file that looking writes.

use anyhow::Result;
use outlive_trace::{StateDir, clock};
use serde::{Deserialize, Serialize};

use super::canary::Plan;
use super::machine::Machine;

/// Name of the file.
const FILE: &str = "doctor.json";
/// Boots that are remembered.
const BOOTS_MAX: usize = 16;
/// Proofs that are remembered.
const PROOFS_MAX: usize = 64;

/// The file's contents.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Notes {
    /// The boots in which the doctor looked, the newest last.
    pub(crate) boots: Vec<Boot>,
    /// What was proven, the newest last.
    pub(crate) proofs: Vec<Proof>,
    /// Canaries that wait for a reboot.
    pub(crate) pending: Option<Pending>,
}

/// What was seen in one boot.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Boot {
    pub(crate) boot_id: String,
    pub(crate) kernel: String,
    /// CPUs that there could be.
    #[serde(default)]
    pub(crate) nr_cpus: Option<u32>,
    pub(crate) instances: Vec<Seen>,
}

/// One of the kernel's boot instances.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Seen {
    pub(crate) name: String,
    /// First physical address.
    pub(crate) address: Option<u64>,
    /// Whether it held events of the boot before.
    pub(crate) has_survived: bool,
}

/// A canary that came back, or did not.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Proof {
    /// The area.
    pub(crate) area: String,
    /// Its backing, as in `--area`.
    pub(crate) backing: String,
    pub(crate) death: Death,
    /// Events that came back, of how many.
    pub(crate) came_back: u64,
    pub(crate) written: u64,
    /// When it was read: nanoseconds since 1970.
    pub(crate) when_ns: u64,
}

/// What a canary was to survive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Death {
    /// SIGKILL of its writer.
    Process,
    /// A reboot that was asked of the system, or that somebody else made.
    Reboot,
    /// A panic that the doctor caused.
    Panic,
}

/// Canaries that were written before a reboot.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Pending {
    /// The run that wrote them, in hexadecimal digits.
    pub(crate) run_id: String,
    /// The boot in which it did.
    pub(crate) boot_id: String,
    pub(crate) death: Death,
    pub(crate) canaries: Plan,
}

impl Proof {
    /// Whether all of it came back.
    pub(crate) fn is_whole(&self) -> bool {
        self.written > 0 && self.came_back == self.written
    }
}

impl Notes {
    /// Of a state folder; none if there are none, or they are not readable as such.
    pub(crate) fn read(state: &StateDir) -> Self {
        let text = state.read_note(FILE).ok().flatten();
        text.and_then(|text| serde_json::from_slice(&text).ok())
            .unwrap_or_default()
    }

    pub(crate) fn write(&self, state: &StateDir) -> Result<()> {
        Ok(state.write_note(FILE, &serde_json::to_vec_pretty(self)?)?)
    }

    /// Remembers this boot. Whether that is anything new.
    pub(crate) fn see(&mut self, machine: &Machine) -> bool {
        let now = Boot {
            boot_id: machine.boot_id.clone(),
            kernel: machine.release.clone(),
            nr_cpus: machine.nr_cpus,
            instances: machine
                .boot_instances
                .iter()
                .filter(|instance| instance.source.is_none())
                .map(|instance| Seen {
                    name: instance.name.clone(),
                    address: instance.range.map(|(address, _)| address),
                    has_survived: instance.has_survived(),
                })
                .collect(),
        };
        match self
            .boots
            .iter_mut()
            .find(|boot| boot.boot_id == now.boot_id)
        {
            Some(boot) => boot.update(now),
            None => {
                self.boots.push(now);
                let surplus = self.boots.len().saturating_sub(BOOTS_MAX);
                self.boots.drain(..surplus);
                true
            }
        }
    }

    /// The addresses that an instance had, by boot.
    pub(crate) fn addresses(&self, name: &str) -> Vec<u64> {
        let seen = |boot: &Boot| {
            let seen = boot.instances.iter().find(|seen| seen.name == name)?;
            seen.address
        };
        self.boots.iter().filter_map(seen).collect()
    }

    /// CPUs that there could be in the last earlier boot in which the doctor looked.
    pub(crate) fn nr_cpus_before(&self, boot_id: &str) -> Option<u32> {
        let mut boots = self.boots.iter().rev();
        boots.find(|boot| boot.boot_id != boot_id)?.nr_cpus
    }

    /// Whether an instance once held what the boot before had left.
    pub(crate) fn has_survived(&self, name: &str) -> bool {
        let mut seen = self.boots.iter().flat_map(|boot| &boot.instances);
        seen.any(|seen| seen.name == name && seen.has_survived)
    }

    /// The newest proof about an area with this backing.
    pub(crate) fn proof(&self, area: &str, backing: &str, death: Death) -> Option<&Proof> {
        let is_it =
            |proof: &&Proof| proof.area == area && proof.backing == backing && proof.death == death;
        self.proofs.iter().rev().find(is_it)
    }

    /// Adds what a canary has shown.
    pub(crate) fn prove(
        &mut self,
        area: &str,
        backing: &str,
        death: Death,
        (came_back, written): (u64, u64),
    ) -> &Proof {
        self.proofs.push(Proof {
            area: area.to_owned(),
            backing: backing.to_owned(),
            death,
            came_back,
            written,
            when_ns: clock::realtime_ns(),
        });
        let surplus = self.proofs.len().saturating_sub(PROOFS_MAX);
        self.proofs.drain(..surplus);
        &self.proofs[self.proofs.len() - 1]
    }
}

impl Boot {
    /// Takes over what a later look in the same boot has seen. What is no longer told (the log has
    /// moved on, the events were harvested) stays known. Whether that changed anything.
    fn update(&mut self, later: Self) -> bool {
        let before = self.clone();
        self.kernel = later.kernel;
        self.nr_cpus = later.nr_cpus.or(self.nr_cpus);
        for seen in later.instances {
            match self
                .instances
                .iter_mut()
                .find(|known| known.name == seen.name)
            {
                Some(known) => {
                    known.address = seen.address.or(known.address);
                    known.has_survived |= seen.has_survived;
                }
                None => self.instances.push(seen),
            }
        }
        *self != before
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn boot(id: &str, address: Option<u64>, has_survived: bool) -> Boot {
        Boot {
            boot_id: id.into(),
            kernel: "7.3.4".into(),
            nr_cpus: None,
            instances: vec![Seen {
                name: "boot_mapped".into(),
                address,
                has_survived,
            }],
        }
    }

    #[test]
    fn what_a_boot_has_shown_stays_known_when_it_no_longer_shows() {
        let mut known = boot("a", Some(0x1000), true);
        assert!(!known.update(boot("a", None, false)));
        assert_eq!(known, boot("a", Some(0x1000), true));
        assert!(known.update(boot("a", Some(0x2000), false)));
    }

    #[test]
    fn cpus_of_the_boot_before_are_known_if_somebody_looked() {
        let mut notes = Notes::default();
        assert_eq!(notes.nr_cpus_before("b"), None);
        for (id, nr_cpus) in [("a", Some(2)), ("b", Some(4))] {
            notes.boots.push(Boot {
                nr_cpus,
                ..boot(id, None, false)
            });
        }
        assert_eq!(notes.nr_cpus_before("b"), Some(2));
        assert_eq!(notes.nr_cpus_before("c"), Some(4));
        // As an earlier version left it.
        let old = r#"{"boots": [{"boot_id": "a", "kernel": "7.3.4", "instances": []}]}"#;
        let old: Notes = serde_json::from_str(old).unwrap();
        assert_eq!(old.nr_cpus_before("b"), None);
        assert_eq!(old.boots.len(), 1);
    }

    #[test]
    fn newest_proof_of_the_same_backing_counts() {
        let mut notes = Notes::default();
        notes.prove("trace", "mem:0x1000", Death::Reboot, (0, 10));
        notes.prove("trace", "mem:0x1000", Death::Reboot, (10, 10));
        assert!(
            notes
                .proof("trace", "mem:0x1000", Death::Reboot)
                .unwrap()
                .is_whole()
        );
        assert_eq!(notes.proof("trace", "mem:0x2000", Death::Reboot), None);
        assert_eq!(notes.proof("trace", "mem:0x1000", Death::Panic), None);
    }

    #[test]
    fn notes_are_read_back_and_damaged_ones_are_none() {
        let folder = tempfile::tempdir().unwrap();
        let state = StateDir::open(&folder.path().join("state")).unwrap();
        assert_eq!(Notes::read(&state), Notes::default());
        let mut notes = Notes::default();
        notes.boots.push(boot("a", Some(1), false));
        notes.write(&state).unwrap();
        assert_eq!(Notes::read(&state), notes);
        std::fs::write(state.path().join(FILE), "{\"boots\": 7").unwrap();
        assert_eq!(Notes::read(&state), Notes::default());
    }
}
