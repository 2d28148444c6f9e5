//! What is compared.

use std::any::Any;
use std::error::Error;
use std::fs::File;
use std::path::{Path, PathBuf};

use outlive_trace::view::View;
use outlive_trace::{StateDir, apps};
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::registry;

/// A way to record events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Nothing,
    Outlive,
    Appender,
    Chrome,
    FlightRecorder,
    Faultbox,
}

/// A layer that does nothing: what `tracing` itself costs.
struct Nothing;

impl<S: tracing::Subscriber> Layer<S> for Nothing {}

/// The file of those that write one.
const FILE: &str = "events";
/// Events that the peers that keep a number of them are given room for.
const ROOM: usize = 100_000;

impl Kind {
    pub(crate) const ALL: [Self; 6] = [
        Self::Nothing,
        Self::Outlive,
        Self::Appender,
        Self::Chrome,
        Self::FlightRecorder,
        Self::Faultbox,
    ];
    /// Outlive's place among them.
    pub(crate) const OUTLIVE: usize = 1;

    pub(crate) fn parse(name: &str) -> Result<Self, Box<dyn Error>> {
        let known = Self::ALL.into_iter().find(|kind| kind.name() == name);
        known.ok_or_else(|| format!("no kind {name}").into())
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::Outlive => "outlive",
            Self::Appender => "appender",
            Self::Chrome => "chrome",
            Self::FlightRecorder => "flight-recorder",
            Self::Faultbox => "faultbox",
        }
    }

    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Nothing => "a layer that does nothing",
            Self::Outlive => "outlive-tracing, tmpfs",
            Self::Appender => "tracing-subscriber fmt, tracing-appender",
            Self::Chrome => "tracing-chrome",
            Self::FlightRecorder => "tracing-flight-recorder",
            Self::Faultbox => "faultbox, with its shared ring",
        }
    }

    /// Makes it the process's subscriber; a ring has so many bytes. What is returned has to stay.
    pub(crate) fn install(self, folder: &Path, ring: u64) -> Result<Box<dyn Any>, Box<dyn Error>> {
        let file = || File::create(folder.join(FILE));
        match self {
            Self::Nothing => {
                tracing::subscriber::set_global_default(registry().with(Nothing))?;
                Ok(Box::new(()))
            }
            Self::Outlive => {
                let recorder = outlive::Recorder::builder("peers").state(folder);
                let recorder = recorder.size(ring).start()?;
                let layer = outlive_tracing::layer();
                tracing::subscriber::set_global_default(registry().with(layer))?;
                Ok(Box::new(recorder))
            }
            Self::Appender => {
                let (writer, guard) = tracing_appender::non_blocking(file()?);
                let layer = tracing_subscriber::fmt::layer().with_writer(writer);
                tracing::subscriber::set_global_default(registry().with(layer.with_ansi(false)))?;
                Ok(Box::new(guard))
            }
            Self::Chrome => {
                let layer = tracing_chrome::ChromeLayerBuilder::new().writer(file()?);
                let (layer, guard) = layer.include_args(true).build();
                tracing::subscriber::set_global_default(registry().with(layer))?;
                Ok(Box::new(guard))
            }
            Self::FlightRecorder => {
                let recorder = tracing_flight_recorder::FlightRecorder::new(ROOM);
                let layer = tracing_flight_recorder::FlightRecorderLayer::new(recorder.clone());
                tracing::subscriber::set_global_default(registry().with(layer))?;
                Ok(Box::new(recorder))
            }
            Self::Faultbox => {
                let ring = faultbox::shared_ring::SharedRing::open(folder.join(FILE), ROOM)?;
                let config = faultbox::Config::new("peers", "0", folder.join("reports"));
                faultbox::init(config.shared_ring(ring.into()));
                let layer = faultbox::BreadcrumbLayer::new();
                tracing::subscriber::set_global_default(registry().with(layer))?;
                Ok(Box::new(()))
            }
        }
    }

    /// What is left of it in its folder.
    pub(crate) fn kept(self, folder: &Path) -> Result<String, Box<dyn Error>> {
        Ok(match self {
            Self::Nothing => "nothing".to_owned(),
            // It writes nothing by itself.
            Self::FlightRecorder => "0 (in memory)".to_owned(),
            Self::Outlive => format!("{} events", outlives(folder)?),
            Self::Faultbox => {
                let ring = faultbox::shared_ring::SharedRing::join(folder.join(FILE))?;
                let crumbs = ring.ok_or("no ring")?.snapshot();
                // Its ring has a text for each, of the message alone.
                let whole = crumbs.iter().filter(|crumb| !crumb.fields.is_null());
                format!("{} texts, {} with fields", crumbs.len(), whole.count())
            }
            Self::Appender => {
                let text = std::fs::read_to_string(folder.join(FILE))?;
                let whole = text.lines().filter(|line| line.contains("elapsed=0.25"));
                format!("{} lines", whole.count())
            }
            Self::Chrome => {
                let text = std::fs::read(folder.join(FILE))?;
                let lines = text.split(|&byte| byte == b'\n');
                let whole = lines.filter(|line| line.ends_with(b"},") || line.ends_with(b"}"));
                let is_json = serde_json::from_slice::<serde_json::Value>(&text).is_ok();
                let json = if is_json { "JSON" } else { "no JSON as it is" };
                format!("{} lines, {json}", whole.count())
            }
        })
    }
}

/// Events in the region, of which the sequence has no gap.
fn outlives(folder: &Path) -> Result<u64, Box<dyn Error>> {
    let state = StateDir::open(&apps::folder(folder, "peers")?)?;
    let instances = state.read_instances()?;
    let path = instances.instances[0].other["path"].as_str();
    let view = View::open(&PathBuf::from(path.ok_or("no path")?))?;
    let mut events = view.events(None);
    let mut count = 0;
    while let Some(event) = events.next_event() {
        let id = outlive_event::event_id(event.payload).ok_or("an event without an id")?;
        let format = view.catalog.event(id).ok_or("an event without a format")?;
        let field = format.values(event.payload).find(|(name, _)| *name == "id");
        let Some((_, outlive_event::Value::Unsigned(number))) = field else {
            return Err("an event without its number".into());
        };
        if number != count {
            return Err(format!("event {number} where {count} should be").into());
        }
        count += 1;
    }
    Ok(count)
}
