//! What an area survives.
//!
//! The answer is *yes* only where it follows from what the area lives in, or was proven here by a
//! canary; *no* where something that was found speaks against it; else *unknown*. Whether memory
//! keeps its contents over a reset, no software can tell before it happened.

use std::path::{Path, PathBuf};

use clap::ValueEnum;
use outlive_trace::{AreaRequest, Backing, IoMemoryProblem};

use super::boot_instance::BootInstance;
use super::machine::Machine;
use super::mounts::Mount;
use super::notes::{Death, Notes, Proof};
use crate::units;

/// What a trace may have to survive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Tier {
    /// The death of the recorder: SIGKILL, OOM kill, crash
    Process,
    /// The end of the container that the recorder runs in
    Container,
    /// A panic or reset of the machine that keeps its memory powered
    Panic,
    /// The loss of power
    Power,
}

impl Tier {
    pub(crate) const ALL: [Self; 4] = [Self::Process, Self::Container, Self::Panic, Self::Power];

    /// The word for it in JSON and in `--tier`.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Process => "process",
            Self::Container => "container",
            Self::Panic => "panic",
            Self::Power => "power",
        }
    }
}

/// Whether it survives. The worst comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Answer {
    No,
    Unknown,
    Yes,
}

impl Answer {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::No => "no",
            Self::Unknown => "unknown",
            Self::Yes => "yes",
        }
    }
}

/// An answer and its reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Judgement {
    pub(crate) answer: Answer,
    pub(crate) why: String,
}

fn yes(why: impl Into<String>) -> Judgement {
    let (answer, why) = (Answer::Yes, why.into());
    Judgement { answer, why }
}

pub(crate) fn no(why: impl Into<String>) -> Judgement {
    let (answer, why) = (Answer::No, why.into());
    Judgement { answer, why }
}

fn unknown(why: impl Into<String>) -> Judgement {
    let (answer, why) = (Answer::Unknown, why.into());
    Judgement { answer, why }
}

/// What there is to judge.
pub(crate) enum Subject<'a> {
    /// An area of ours, and where its file is or will be.
    Area(&'a AreaRequest, Option<PathBuf>),
    /// An instance that the kernel itself writes.
    Kernel(&'a BootInstance),
}

impl Subject<'_> {
    /// The area's name, or the instance's.
    pub(crate) fn name(&self) -> &str {
        match self {
            Self::Area(request, _) => request.name(),
            Self::Kernel(instance) => &instance.name,
        }
    }

    /// Where it lives, as in `--area`; `kernel` for the kernel's own.
    pub(crate) fn backing(&self) -> String {
        match self {
            Self::Area(request, _) => request.backing().to_string(),
            Self::Kernel(_) => "kernel".into(),
        }
    }
}

/// Judges on one machine.
pub(crate) struct Judge<'a> {
    pub(crate) machine: &'a Machine,
    pub(crate) notes: &'a Notes,
    /// The state folder, which need not exist.
    pub(crate) state: &'a Path,
}

impl Judge<'_> {
    pub(crate) fn judge(&self, subject: &Subject<'_>, tier: Tier) -> Judgement {
        match (subject, tier) {
            (Subject::Area(..), Tier::Process) => self.process(subject),
            (Subject::Kernel(_), Tier::Process) => {
                yes("the kernel records; no process has to live")
            }
            (_, Tier::Container) => self.container(subject),
            (Subject::Area(request, file), Tier::Panic) => self.panic(request, file.as_deref()),
            (Subject::Kernel(instance), Tier::Panic) => self.kernel_panic(instance),
            (Subject::Area(request, file), Tier::Power) => self.power(request, file.as_deref()),
            (Subject::Kernel(_), Tier::Power) => no("it is memory"),
        }
    }

    fn process(&self, subject: &Subject<'_>) -> Judgement {
        let proof = self
            .notes
            .proof(subject.name(), &subject.backing(), Death::Process);
        match proof {
            Some(proof) if proof.is_whole() => yes(came_back(proof, "SIGKILL")),
            Some(proof) => no(came_back(proof, "SIGKILL")),
            None => yes("what was committed lies in the area; `doctor --prove` shows it"),
        }
    }

    /// Everything that the next start needs has to outlive the container: area and state.
    fn container(&self, subject: &Subject<'_>) -> Judgement {
        if !self.machine.is_container {
            return yes("outlive does not run in a container");
        }
        let file = match subject {
            Subject::Area(_, file) => file.as_deref(),
            Subject::Kernel(_) => None,
        };
        let places = [Some(self.state), file];
        let judged = places
            .into_iter()
            .flatten()
            .map(|place| self.outside(place));
        judged
            .min_by_key(|judgement| judgement.answer)
            .unwrap_or_else(|| unknown("no place is known"))
    }

    /// Whether a path lies on something that is mounted into the container.
    fn outside(&self, path: &Path) -> Judgement {
        let shown = path.display();
        match self.machine.mounts.of(path) {
            None => unknown(format!("what {shown} is mounted from is not known")),
            Some(mount) if mount.kind == "overlay" => no(format!(
                "{shown} is on the container's overlay, which goes with it: mount a folder of the host"
            )),
            Some(mount) if is_memory(&mount.kind) => no(format!(
                "{shown} is on a {} of the container: mount a folder of the host",
                mount.kind
            )),
            Some(mount) if mount.place == Path::new("/") => unknown(format!(
                "{shown} is on the root of what looks like a container: mount a folder of the host"
            )),
            Some(mount) => yes(format!(
                "{shown} is on {}, mounted into the container",
                mount.place.display()
            )),
        }
    }

    fn panic(&self, request: &AreaRequest, file: Option<&Path>) -> Judgement {
        let by_nature = match (request.backing(), file) {
            (Backing::DevMem { address }, _) => self.physical(request, *address),
            (Backing::DevDax(path), _) => self.pmem(&self.dax_device(path), Tier::Panic),
            (Backing::DaxFile(_), Some(file)) => self.dax_file(file, Tier::Panic),
            (_, Some(file)) => self.page_cache(file),
            (_, None) => unknown("where it lives is not known"),
        };
        // What was seen outweighs what was expected, but for a panic only a panic shows all.
        let proof = |death| {
            let backing = request.backing().to_string();
            self.notes.proof(request.name(), &backing, death)
        };
        match (proof(Death::Panic), proof(Death::Reboot)) {
            (Some(panic), _) if panic.is_whole() && is_kept_memory(request.backing()) => {
                yes(came_back(panic, "a panic"))
            }
            (Some(panic), _) if !panic.is_whole() => no(came_back(panic, "a panic")),
            (_, Some(reboot)) if !reboot.is_whole() => no(came_back(reboot, "a reboot")),
            // A firmware that clears memory after an unclean reset leaves it over a clean one.
            (_, Some(reboot))
                if by_nature.answer == Answer::Unknown && self.firmware().is_none() =>
            {
                yes(came_back(reboot, "a reboot"))
            }
            _ => by_nature,
        }
    }

    fn power(&self, request: &AreaRequest, file: Option<&Path>) -> Judgement {
        match (request.backing(), file) {
            (Backing::DevMem { .. }, _) => no("it is memory"),
            (Backing::DevDax(path), _) => self.pmem(&self.dax_device(path), Tier::Power),
            (Backing::DaxFile(_), Some(file)) => self.dax_file(file, Tier::Power),
            (_, Some(file)) => self.page_cache(file),
            (_, None) => unknown("where it lives is not known"),
        }
    }

    /// A file whose pages are in memory until they are written back.
    fn page_cache(&self, file: &Path) -> Judgement {
        let Some(mount) = self.machine.mounts.of(file) else {
            return unknown(format!(
                "what {} is mounted from is not known",
                file.display()
            ));
        };
        if is_memory(&mount.kind) {
            return no(format!(
                "a {} is memory that the next boot clears",
                mount.kind
            ));
        }
        no(format!(
            "a file on {} keeps what was written back: all but the last {} s; with `boot --flush 1s` \
             but the last second",
            mount.kind,
            self.machine.write_back_s()
        ))
    }

    /// Physical memory through `/dev/mem`.
    fn physical(&self, request: &AreaRequest, address: u64) -> Judgement {
        let bytes = request.total_bytes().unwrap_or(0);
        if let Some(refusal) = self.dev_mem_refusal() {
            return no(refusal);
        }
        match self.machine.iomem.check(address, bytes) {
            Err(problem @ IoMemoryProblem::Hidden) => return unknown(problem.to_string()),
            Err(problem) => return no(problem.to_string()),
            Ok(()) => {}
        }
        if let Some(judgement) = self.firmware() {
            return judgement;
        }
        let mut given = self.machine.kernel_line.memmap.iter();
        if !given.any(|memmap| memmap.holds(address, bytes)) {
            return unknown(format!(
                "nobody has {} at {address:#x}, but no memmap= sets it aside for the next boot: add \
                 memmap={bytes}${address:#x}",
                units::size(bytes)
            ));
        }
        unknown(
            "whether memory is kept over a reset only a reboot tells: `doctor --prove --reboot`",
        )
    }

    /// Why `/dev/mem` cannot be used.
    fn dev_mem_refusal(&self) -> Option<String> {
        let lockdown = self.machine.lockdown.as_deref().unwrap_or("none");
        if lockdown != "none" {
            return Some(format!("lockdown={lockdown} refuses /dev/mem"));
        }
        let is_there = self.machine.system.exists("/dev/mem");
        (!is_there).then(|| "there is no /dev/mem here (CONFIG_DEVMEM, or a container)".to_owned())
    }

    /// What the firmware does to memory, where that is known.
    fn firmware(&self) -> Option<Judgement> {
        let machine = self.machine;
        let stub_asks = machine.config.has("RESET_ATTACK_MITIGATION");
        match (machine.is_efi, machine.is_wipe_requested, stub_asks) {
            (true, Some(true), _) => Some(no(
                "the firmware is asked to clear memory after an unclean reset (MemoryOverwriteRequest)",
            )),
            (true, None, Some(true)) => Some(unknown(
                "CONFIG_RESET_ATTACK_MITIGATION: the firmware may clear memory after an unclean reset",
            )),
            _ => None,
        }
    }

    fn dax_file(&self, file: &Path, tier: Tier) -> Judgement {
        match self.machine.mounts.of(file) {
            Some(mount) if mount.has_option("dax") => self.pmem(&self.block_device(mount), tier),
            Some(mount) => no(format!(
                "{} is not mounted with DAX: `mount -o dax`, or use the backing file:",
                mount.place.display()
            )),
            None => unknown(format!(
                "what {} is mounted from is not known",
                file.display()
            )),
        }
    }

    /// What sysfs has of a block device.
    fn block_device(&self, mount: &Mount) -> PathBuf {
        let name = Path::new(&mount.source).file_name().unwrap_or_default();
        self.machine
            .system
            .path(Path::new("/sys/block").join(name).join("device"))
    }

    /// What sysfs has of a device-DAX node.
    fn dax_device(&self, node: &Path) -> PathBuf {
        let name = node.file_name().unwrap_or_default();
        self.machine
            .system
            .path(Path::new("/sys/bus/dax/devices").join(name))
    }

    /// Memory that a driver presents as persistent. `device` is its place in sysfs, whose path names
    /// the bus that it is on: `.../ndbus0/region0/...`.
    fn pmem(&self, device: &Path, tier: Tier) -> Judgement {
        let Ok(real) = device.canonicalize() else {
            return unknown(format!("{} is not there", device.display()));
        };
        let bus = real.ancestors().find(|place| named(place, "ndbus"));
        let region = real.ancestors().find(|place| named(place, "region"));
        let read = |place: Option<&Path>, file: &str| {
            let text = std::fs::read_to_string(place?.join(file)).ok()?;
            Some(text.trim().to_owned())
        };
        let provider = read(bus, "provider").unwrap_or_default();
        let domain = read(region, "persistence_domain").unwrap_or_default();
        match (provider.as_str(), tier) {
            ("e820", Tier::Power) => no("the kernel calls it persistent (memmap=!), but it is memory"),
            ("e820", _) => self.firmware().unwrap_or_else(|| {
                unknown("whether memory is kept over a reset only a reboot tells: `doctor --prove --reboot`")
            }),
            ("ACPI.NFIT", Tier::Power) if domain == "cpu_cache" => {
                yes("persistent memory, and the processor's caches are saved (persistence domain cpu_cache)")
            }
            ("ACPI.NFIT", Tier::Power) => unknown(
                "persistent memory, but what was in the processor's caches may be lost: they are not in its persistence domain",
            ),
            ("ACPI.NFIT", _) => yes("persistent memory"),
            ("virtio-pmem", Tier::Power) => unknown("it is as safe as the host of this virtual machine"),
            ("virtio-pmem", _) => yes("the host of this virtual machine has it (virtio-pmem)"),
            ("", _) => unknown("of which kind this memory is, the system does not tell"),
            (other, _) => unknown(format!("memory of the driver {other:?} is not known to us")),
        }
    }

    /// The kernel's own instance: memory at an address that the next boot has to give again.
    fn kernel_panic(&self, instance: &BootInstance) -> Judgement {
        let machine = self.machine;
        let addresses = self.notes.addresses(&instance.name);
        let mut differing = addresses.clone();
        differing.dedup();
        if differing.len() > 1 {
            return no(format!(
                "its memory moved: at {:#x} in this boot, {:#x} in one before; use memmap=SIZE$ADDRESS and @ADDRESS:SIZE",
                differing[differing.len() - 1],
                differing[differing.len() - 2]
            ));
        }
        if let Some(judgement) = self.firmware() {
            return judgement;
        }
        if instance.has_survived() || self.notes.has_survived(&instance.name) {
            return yes(format!(
                "events of the boot before were there, {} at the same address",
                units::count(addresses.len().max(1), "boot")
            ));
        }
        if machine.has_parameter("nokaslr") || instance.is_by_address {
            return unknown("no boot has found events of the one before yet");
        }
        unknown(
            "no boot has found events of the one before yet, and reserve_mem= is given another address now and then (KASLR)",
        )
    }
}

/// Whether a place in sysfs is one of these: `ndbus` and a number.
fn named(place: &Path, stem: &str) -> bool {
    let name = place.file_name().unwrap_or_default().to_string_lossy();
    let number = name.strip_prefix(stem);
    number.is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()))
}

/// Whether a file system is memory.
fn is_memory(kind: &str) -> bool {
    matches!(
        kind,
        "tmpfs" | "ramfs" | "hugetlbfs" | "rootfs" | "devtmpfs"
    )
}

/// Whether it is memory that is there once, whatever state folder is used.
pub(crate) fn is_fixed(backing: &Backing) -> bool {
    matches!(backing, Backing::DevMem { .. } | Backing::DevDax(_))
}

/// Whether an area's stores are in the memory that has to survive at once.
fn is_kept_memory(backing: &Backing) -> bool {
    is_fixed(backing) || matches!(backing, Backing::DaxFile(_))
}

fn came_back(proof: &Proof, death: &str) -> String {
    let when = units::wall_clock(proof.when_ns);
    match (proof.is_whole(), proof.came_back) {
        (true, _) => format!("proven {when}: a canary came back after {death}"),
        (false, 0) => format!("{when}: a canary did not come back after {death}"),
        (false, n) => format!(
            "{when}: {n} of {} events of a canary came back after {death}",
            proof.written
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::super::system::System;
    use super::*;

    /// A machine with `memmap=12M$0x10000000` and an ext4 root, in a file tree of its own.
    fn tree() -> (tempfile::TempDir, Machine) {
        let folder = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = folder.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        write("proc/cmdline", "memmap=12M$0x10000000");
        write(
            "proc/iomem",
            "00100000-0fffffff : System RAM\n10000000-10bfffff : Reserved\n10c00000-1fffffff : System RAM\n",
        );
        write(
            "proc/self/mountinfo",
            "1 0 254:0 / / rw - ext4 /dev/vda rw\n2 1 0:5 / /dev rw - tmpfs tmpfs rw\n",
        );
        write("dev/mem", "");
        let mut machine = Machine::look(System::at(folder.path()));
        machine.is_container = false;
        machine.lockdown = None;
        (folder, machine)
    }

    fn judge_panic(machine: &Machine, notes: &Notes, backing: &str) -> Judgement {
        let request = AreaRequest::new("trace", backing.parse().unwrap(), 12 << 20);
        let state = Path::new("/nonexistent/outlive");
        let judge = Judge {
            machine,
            notes,
            state,
        };
        let file = request.file_in(state);
        judge.judge(&Subject::Area(&request, file), Tier::Panic)
    }

    #[test]
    fn memory_that_was_set_aside_survives_once_a_canary_came_back() {
        let (_folder, machine) = tree();
        let mut notes = Notes::default();
        let judged = judge_panic(&machine, &notes, "mem:0x10000000");
        assert_eq!(judged.answer, Answer::Unknown, "{judged:?}");
        notes.prove("trace", "mem:0x10000000", Death::Reboot, (7, 7));
        let judged = judge_panic(&machine, &notes, "mem:0x10000000");
        assert_eq!(judged.answer, Answer::Yes, "{judged:?}");
        notes.prove("trace", "mem:0x10000000", Death::Panic, (3, 7));
        let judged = judge_panic(&machine, &notes, "mem:0x10000000");
        assert_eq!(judged.answer, Answer::No, "{judged:?}");
        assert!(judged.why.contains("3 of 7 events"), "{judged:?}");
    }

    #[test]
    fn memory_of_the_kernel_and_locked_memory_do_not_survive() {
        let (folder, mut machine) = tree();
        let notes = Notes::default();
        let judged = judge_panic(&machine, &notes, "mem:0x100000");
        assert_eq!(judged.answer, Answer::No);
        assert!(judged.why.contains("System RAM"), "{judged:?}");
        machine.lockdown = Some("integrity".into());
        let judged = judge_panic(&machine, &notes, "mem:0x10000000");
        assert!(judged.why.contains("lockdown=integrity"), "{judged:?}");
        machine.lockdown = Some("none".into());
        std::fs::remove_file(folder.path().join("dev/mem")).unwrap();
        let judged = judge_panic(&machine, &notes, "mem:0x10000000");
        assert!(judged.why.contains("no /dev/mem"), "{judged:?}");
    }

    #[test]
    fn firmware_that_clears_memory_outweighs_a_proof_by_a_clean_reboot() {
        let (_folder, mut machine) = tree();
        machine.is_efi = true;
        machine.is_wipe_requested = Some(true);
        let mut notes = Notes::default();
        notes.prove("trace", "mem:0x10000000", Death::Reboot, (7, 7));
        let judged = judge_panic(&machine, &notes, "mem:0x10000000");
        assert_eq!(judged.answer, Answer::No, "{judged:?}");
        notes.prove("trace", "mem:0x10000000", Death::Panic, (7, 7));
        let judged = judge_panic(&machine, &notes, "mem:0x10000000");
        assert_eq!(judged.answer, Answer::Yes, "{judged:?}");
    }

    /// A clean reboot had turned what nobody knows of an unclean one into a yes.
    #[test]
    fn firmware_that_may_clear_memory_stays_unknown_after_a_clean_reboot() {
        let (folder, mut machine) = tree();
        std::fs::create_dir(folder.path().join("boot")).unwrap();
        let config = "CONFIG_RESET_ATTACK_MITIGATION=y\n";
        std::fs::write(folder.path().join("boot/config-x"), config).unwrap();
        machine.config = super::super::kernel_config::KernelConfig::read(&machine.system, "x");
        machine.is_efi = true;
        machine.is_wipe_requested = None;
        let mut notes = Notes::default();
        notes.prove("trace", "mem:0x10000000", Death::Reboot, (7, 7));
        let judged = judge_panic(&machine, &notes, "mem:0x10000000");
        assert_eq!(judged.answer, Answer::Unknown, "{judged:?}");
        notes.prove("trace", "mem:0x10000000", Death::Panic, (7, 7));
        let judged = judge_panic(&machine, &notes, "mem:0x10000000");
        assert_eq!(judged.answer, Answer::Yes, "{judged:?}");
    }

    #[test]
    fn file_survives_a_panic_as_far_as_it_was_written_back() {
        let (_folder, machine) = tree();
        let judged = judge_panic(&machine, &Notes::default(), "file");
        assert_eq!(judged.answer, Answer::No);
        assert!(
            judged.why.contains("ext4") && judged.why.contains("35 s"),
            "{judged:?}"
        );
        // The canary of a clean reboot was written back by the reboot.
        let mut notes = Notes::default();
        notes.prove("trace", "file", Death::Reboot, (7, 7));
        assert_eq!(judge_panic(&machine, &notes, "file").answer, Answer::No);
        assert!(
            judge_panic(&machine, &notes, "dax:/mnt")
                .why
                .contains("not mounted with DAX")
        );
    }

    #[test]
    fn root_of_a_container_is_not_known_to_stay() {
        let (_folder, mut machine) = tree();
        machine.is_container = true;
        let notes = Notes::default();
        let judge = |state: &str| {
            let request = AreaRequest::new("trace", Backing::File, 12 << 20);
            let state = Path::new(state);
            let (machine, notes) = (&machine, &notes);
            let subject = Subject::Area(&request, request.file_in(state));
            let judge = Judge {
                machine,
                notes,
                state,
            };
            judge.judge(&subject, Tier::Container).answer
        };
        assert_eq!(judge("/nonexistent/outlive"), Answer::Unknown);
        assert_eq!(judge("/dev/outlive"), Answer::No);
    }

    #[test]
    fn kernels_instance_that_moved_does_not_survive() {
        let (_folder, machine) = tree();
        let instance = BootInstance {
            name: "boot_mapped".into(),
            source: None,
            is_by_address: false,
            has_events: true,
            range: None,
            is_last_boot: true,
            entries: 9,
            clock: "local".into(),
        };
        let judge = |notes: &Notes| {
            let state = Path::new("/nonexistent");
            let judge = Judge {
                machine: &machine,
                notes,
                state,
            };
            judge.judge(&Subject::Kernel(&instance), Tier::Panic).answer
        };
        assert_eq!(judge(&Notes::default()), Answer::Yes);
        let boots = r#"{"boots": [
            {"boot_id": "a", "kernel": "k", "instances": [{"name": "boot_mapped", "address": 4096, "has_survived": true}]},
            {"boot_id": "b", "kernel": "k", "instances": [{"name": "boot_mapped", "address": 8192, "has_survived": false}]}]}"#;
        let moved: Notes = serde_json::from_str(boots).unwrap();
        assert_eq!(judge(&moved), Answer::No);
    }
}
