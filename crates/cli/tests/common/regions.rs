//! The regions that every foreign reader is to read alike: of kernels from 6.12 to 7.3, wrapped, read
//! and damaged, of programs, merged, and with a tail.

use std::fs;
use std::path::{Path, PathBuf};

use outlive::{Backing, Recorder, event, span};
use outlive_ring::extension::Layout;
use outlive_ring::layout::SUBBUF_SIZE;
use serde_json::Value;
use tempfile::TempDir;

use super::{Unpacked, fixtures, gunzip, outlive};

/// A region, as arguments of `show` and `export` name it.
pub(crate) struct TestRegion {
    pub(crate) name: String,
    pub(crate) args: Vec<String>,
    /// The names of the regions, if there are several.
    pub(crate) sources: Vec<String>,
    /// The exit code of an export: 1 if it is damaged.
    pub(crate) code: i32,
}

/// All of them, and where they lie.
pub(crate) struct Regions {
    folder: TempDir,
    _unpacked: Vec<Unpacked>,
    pub(crate) all: Vec<TestRegion>,
}

impl Regions {
    /// Unpacks or records them. This process must have no recorder.
    pub(crate) fn new() -> Self {
        let mut this = Self {
            folder: TempDir::new().unwrap(),
            _unpacked: Vec::new(),
            all: Vec::new(),
        };
        for name in ["7.3.4-2cpu-1M", "6.12.107-2cpu-1M"] {
            this.add_kernels(name, Unpacked::of_kernel(name), 0);
        }
        for name in [
            "7.3.4-4cpu-wrapped-Reset",
            "7.2.13-2cpu-read-Panic",
            "6.18.15-4cpu-wrapped-Reboot",
            "6.12.107-1cpu-wrapped-Panic",
        ] {
            this.add_kernels(name, Unpacked::of_crash(name), 0);
        }
        this.add_damaged("7.3.4", "7.3.4-2cpu-128K");
        this.add_damaged("6.12.107", "6.12.107-2cpu-256K");
        this.add_programs();
        this.add_with_tail();
        this
    }

    fn state(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    fn add(&mut self, name: &str, args: &[&str], sources: &[&str], code: i32) {
        let owned = |texts: &[&str]| texts.iter().map(|&text| text.to_owned()).collect();
        self.all.push(TestRegion {
            name: name.to_owned(),
            args: owned(args),
            sources: owned(sources),
            code,
        });
    }

    fn add_kernels(&mut self, name: &str, unpacked: Unpacked, code: i32) {
        let args = [unpacked.region.as_str(), "--formats", &unpacked.formats];
        self.add(name, &args, &[], code);
        self._unpacked.push(unpacked);
    }

    /// One of the fixtures of damages, with a damage of which its kernel kept a part.
    fn add_damaged(&mut self, version: &str, region: &str) {
        let folder = fixtures().join("damage");
        let formats = fixtures().join(format!("{version}-2cpu-1M/events"));
        let unpacked = Unpacked::new(&folder.join(format!("{region}.bin.gz")), &formats);
        let damages = gunzip(&folder.join(format!("{version}.jsonl.gz")));
        let damages = String::from_utf8(damages).unwrap();
        let mut damages = damages
            .lines()
            .map(|line| serde_json::from_str(line).unwrap());
        let damage: Value = damages
            .find(|damage: &Value| damage["name"] == "time stamp: upper half zero")
            .unwrap();
        let mut bytes = fs::read(&unpacked.region).unwrap();
        for edit in damage["edits"].as_array().unwrap() {
            let at = edit[0].as_u64().unwrap() as usize;
            for (number, digits) in edit[1].as_str().unwrap().as_bytes().chunks(2).enumerate() {
                let digits = std::str::from_utf8(digits).unwrap();
                bytes[at + number] = u8::from_str_radix(digits, 16).unwrap();
            }
        }
        fs::write(&unpacked.region, bytes).unwrap();
        self.add_kernels(&format!("{region}, damaged"), unpacked, 1);
    }

    /// A program's region, one that has wrapped, and both in one.
    fn add_programs(&mut self) {
        let state = self.state();
        record("shop", &state, || {
            std::thread::scope(|scope| {
                for depth in 2..5 {
                    scope.spawn(move || work(depth));
                }
            });
        });
        record("wrapped", &state, || {
            for round in 0..60_000_u32 {
                let late = round % 7 == 0;
                event!(
                    "shop:round",
                    round = round,
                    late = late,
                    text = "takes room in the ring"
                );
            }
        });
        let state = state.to_str().unwrap();
        let both = ["shop", "wrapped"];
        for name in both {
            self.add(name, &["--state", state, name], &[], 0);
        }
        let args = [&["--state", state][..], &both].concat();
        self.add("both programs", &args, &both, 0);
    }

    /// A generation whose region lacks what only its tail has.
    fn add_with_tail(&mut self) {
        let file = self.folder.path().join("it.dat");
        let file = file.to_str().unwrap();
        let state = self.state();
        let state = state.to_str().unwrap();
        let kernels = self.all[0]
            .args
            .iter()
            .map(String::as_str)
            .collect::<Vec<_>>();
        let exported = outlive(&[&["export", "-o", file], &kernels[..]].concat());
        assert!(exported.status.success(), "{exported:?}");
        let imported = outlive(&["import", file, "--name", "tailed", "--state", state]);
        assert!(imported.status.success(), "{imported:?}");
        let folder = self.state().join("generations/tailed/00000001");
        split(&folder);
        let check = outlive(&["check", "--json", "--state", state, "tailed"]);
        let check: Value = serde_json::from_slice(&check.stdout).unwrap();
        assert_eq!(check["tail"], true, "{check}");
        self.add("with a tail", &["--state", state, "tailed"], &[], 1);
    }
}

/// Makes a tail of a generation's region, and of the region one that lacks its newest sub-buffers.
fn split(folder: &Path) {
    let path = folder.join("region");
    let mut bytes = fs::read(&path).unwrap();
    fs::write(folder.join("tail"), &bytes).unwrap();
    let memory = outlive_ring::HeapMemory::from_bytes(&bytes);
    let ring = *Layout::load(&memory).unwrap().ring();
    for cpu in 0..ring.nr_cpus() {
        for subbuf in ring.nr_subbufs() / 2..ring.nr_subbufs() {
            let at = ring.subbuf_offset(cpu, subbuf);
            bytes[at..at + SUBBUF_SIZE].fill(0);
        }
    }
    fs::write(path, bytes).unwrap();
}

/// Records what a program does.
pub(crate) fn record(name: &str, state: &Path, work: impl FnOnce()) {
    let recorder = Recorder::builder(name).state(state).size(1 << 20);
    let recorder = recorder.backing(Backing::File).start().unwrap();
    work();
    drop(recorder);
}

/// Without floating-point numbers and lists, which trace-cmd prints otherwise.
fn work(depth: u32) {
    let _work = span!("shop:work", depth = depth, part = "a \"part\"");
    event!("shop:step", late = depth == 0);
    if depth > 0 {
        work(depth - 1);
    }
}
