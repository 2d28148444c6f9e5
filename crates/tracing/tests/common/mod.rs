//! What the tests of the layer share: a recorder, and what it recorded.
#![allow(dead_code, reason = "each test uses a part")]

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use outlive::{Backing, Builder, Recorder};
use outlive_event::{Formatter, TextOptions, Value};
use outlive_trace::apps;
use outlive_trace::view::View;
use tracing_subscriber::prelude::*;

/// A state folder for a test.
pub(crate) struct Folder(tempfile::TempDir);

impl Folder {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }
}

/// A process has one recorder at a time: tests that start one take turns.
pub(crate) fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(crate) fn builder(folder: &Folder) -> Builder {
    Recorder::builder("prog")
        .state(folder.path())
        .backing(Backing::File)
        .size(1 << 20)
}

pub(crate) fn start(folder: &Folder) -> Recorder {
    builder(folder).start().unwrap()
}

/// Does something in a thread whose `tracing` goes to the layer.
pub(crate) fn with_layer<R>(f: impl FnOnce() -> R) -> R {
    let subscriber = tracing_subscriber::registry().with(outlive_tracing::layer());
    tracing::subscriber::with_default(subscriber, f)
}

/// What the program `name` left, or has.
pub(crate) fn open(state: &Path, name: &str) -> View {
    let folder = apps::folder(state, name).unwrap();
    let state = outlive_trace::StateDir::open(&folder).unwrap();
    let instances = state.read_instances().unwrap();
    let path = PathBuf::from(instances.instances[0].other["path"].as_str().unwrap());
    View::open(&path).unwrap()
}

/// The events' texts, as `show` prints them.
pub(crate) fn texts(folder: &Folder) -> Vec<String> {
    let view = open(folder.path(), "prog");
    let formatter = Formatter::new(&view.catalog, TextOptions::for_clock(view.clock()));
    let mut events = view.events(None);
    let mut texts = Vec::new();
    while let Some(event) = events.next_event() {
        let mut line = Vec::new();
        formatter.record(&mut line, event.cpu, event.time_stamp, event.payload);
        let line = String::from_utf8(line).unwrap();
        let (_, text) = line.split_once(": ").unwrap();
        texts.push(text.trim_end().to_owned());
    }
    texts
}

/// One event, decoded.
#[derive(Debug)]
pub(crate) struct Decoded {
    pub(crate) name: String,
    fields: Vec<(String, Field)>,
}

#[derive(Debug)]
enum Field {
    Number(i128),
    Text(String),
    Other,
}

impl Decoded {
    pub(crate) fn u64(&self, name: &str) -> u64 {
        match self.field(name) {
            Field::Number(number) => u64::try_from(*number).unwrap(),
            other => panic!("{name} is {other:?}"),
        }
    }

    pub(crate) fn text(&self, name: &str) -> &str {
        match self.field(name) {
            Field::Text(text) => text,
            other => panic!("{name} is {other:?}"),
        }
    }

    fn field(&self, name: &str) -> &Field {
        let field = self.fields.iter().find(|(field, _)| field == name);
        &field
            .unwrap_or_else(|| panic!("{} has no {name}", self.name))
            .1
    }
}

/// All events that were recorded, in the order of time.
pub(crate) fn recorded(folder: &Folder) -> Vec<Decoded> {
    decode(&open(folder.path(), "prog"))
}

pub(crate) fn decode(view: &View) -> Vec<Decoded> {
    let mut decoded = Vec::new();
    let mut events = view.events(None);
    while let Some(event) = events.next_event() {
        let id = outlive_event::event_id(event.payload).unwrap();
        let format = view.catalog.event(id).unwrap();
        let fields = format.values(event.payload).map(|(name, value)| {
            let value = match value {
                Value::Unsigned(number) => Field::Number(number.into()),
                Value::Signed(number) => Field::Number(number.into()),
                Value::Text(text) => Field::Text(String::from_utf8(text.to_vec()).unwrap()),
                _ => Field::Other,
            };
            (name.to_owned(), value)
        });
        decoded.push(Decoded {
            name: format!("{}:{}", format.system, format.name),
            fields: fields.collect(),
        });
    }
    decoded
}
