//! What the tests of the recorder share: children that die, and what they leave.
#![allow(dead_code, reason = "each test uses a part")]

pub(crate) mod storm;

use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};

use outlive_event::{Catalog, Value};
use outlive_ring::{Memory, MemoryMut};
use outlive_trace::view::View;
use outlive_trace::{Access, Mapping, apps};

/// Where a child of a test finds its state folder, and how many threads it has.
const STATE: &str = "OUTLIVE_TEST_STATE";
const THREADS: &str = "OUTLIVE_TEST_THREADS";

/// What a child was told; `None` in the test itself.
pub(crate) fn child_state() -> Option<(PathBuf, u32)> {
    let state = std::env::var_os(STATE)?;
    let threads = std::env::var(THREADS).ok()?.parse().ok()?;
    Some((state.into(), threads))
}

/// A child that runs one test function of this program.
pub(crate) struct Child(std::process::Child);

impl Child {
    pub(crate) fn spawn(test: &str, state: &Path, threads: u32) -> Self {
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", test, "--nocapture", "--test-threads=1"])
            .env(STATE, state)
            .env(THREADS, threads.to_string())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self(child)
    }

    pub(crate) fn kill(mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }

    pub(crate) fn wait(mut self) -> ExitStatus {
        self.0.wait().unwrap()
    }

    pub(crate) fn id(&self) -> u32 {
        self.0.id()
    }
}

/// Numbers that outlive a killed child, one for each of its threads.
pub(crate) struct Acks(Mapping);

impl Acks {
    const BYTES: u64 = 64;

    /// All zero.
    pub(crate) fn create(state: &Path, threads: u32) -> Self {
        let _ = std::fs::remove_file(Self::path(state));
        Self::open(state, threads)
    }

    pub(crate) fn open(state: &Path, threads: u32) -> Self {
        let path = Self::path(state);
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        let file = options.open(&path).unwrap();
        let len = Self::BYTES * u64::from(threads);
        file.set_len(len).unwrap();
        Self(Mapping::of_file(&file, &path, len, Access::ReadWrite).unwrap())
    }

    fn path(state: &Path) -> PathBuf {
        state.join("acks")
    }

    pub(crate) fn store(&self, thread: u32, number: u64) {
        let memory = self.0.memory_mut().unwrap();
        memory.store_u64_release(thread as usize * Self::BYTES as usize, number);
    }

    pub(crate) fn load(&self, thread: u32) -> u64 {
        self.0
            .load_u64_acquire(thread as usize * Self::BYTES as usize)
    }
}

/// The file of a program's live region.
pub(crate) fn region_path(state: &Path, program: &str) -> PathBuf {
    let folder = apps::folder(state, program).unwrap();
    let state = outlive_trace::StateDir::open(&folder).unwrap();
    let instances = state.read_instances().unwrap();
    PathBuf::from(instances.instances[0].other["path"].as_str().unwrap())
}

/// What a program left.
pub(crate) fn open_region(state: &Path, program: &str) -> View {
    View::open(&region_path(state, program)).unwrap()
}

/// A state folder for a test. What its programs have on the tmpfs goes with it.
pub(crate) struct Folder(tempfile::TempDir);

impl Folder {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        for state in apps::list(self.path()).unwrap_or_default() {
            let _ = std::fs::remove_dir_all(format!("/dev/shm/outlive-{}", state.id()));
        }
    }
}

/// A process has one recorder at a time: tests that start one take turns.
pub(crate) fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One event, decoded.
pub(crate) struct Decoded {
    pub(crate) name: String,
    pub(crate) time_stamp: u64,
    pub(crate) cpu: u32,
    pub(crate) payload: Vec<u8>,
    fields: Vec<(String, Field)>,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Field {
    Number(i128),
    Text(Vec<u8>),
}

impl Decoded {
    pub(crate) fn u64(&self, name: &str) -> u64 {
        match self.field(name) {
            Field::Number(number) => u64::try_from(*number).unwrap(),
            other => panic!("{name} is {other:?}"),
        }
    }

    pub(crate) fn text(&self, name: &str) -> String {
        match self.field(name) {
            Field::Text(text) => String::from_utf8(text.clone()).unwrap(),
            other => panic!("{name} is {other:?}"),
        }
    }

    pub(crate) fn field(&self, name: &str) -> &Field {
        let field = self.fields.iter().find(|(field, _)| field == name);
        &field
            .unwrap_or_else(|| panic!("{} has no {name}", self.name))
            .1
    }
}

fn decode(catalog: &Catalog, payload: &[u8]) -> (String, Vec<(String, Field)>) {
    let id = outlive_event::event_id(payload).unwrap();
    let event = catalog
        .event(id)
        .unwrap_or_else(|| panic!("event {id} has no format"));
    let fields = event.fields.iter().map(|field| {
        let value = match field.value(payload) {
            Value::Unsigned(number) => Field::Number(number.into()),
            Value::Signed(number) => Field::Number(number.into()),
            Value::Bool(is_true) => Field::Number(is_true.into()),
            Value::Text(text) => Field::Text(text.to_vec()),
            Value::Array(array) => Field::Text(array.bytes().to_vec()),
            other => panic!("{other:?}"),
        };
        (field.name.clone(), value)
    });
    (format!("{}:{}", event.system, event.name), fields.collect())
}

/// All events, in the order of time.
pub(crate) fn events_of(view: &View) -> Vec<Decoded> {
    let mut decoded = Vec::new();
    let mut events = view.events(None);
    while let Some(event) = events.next_event() {
        let (name, fields) = decode(&view.catalog, event.payload);
        decoded.push(Decoded {
            name,
            time_stamp: event.time_stamp,
            cpu: event.cpu,
            payload: event.payload.to_vec(),
            fields,
        });
    }
    decoded
}
