//! The layer: from what `tracing` tells to events of the recorder.

use std::sync::OnceLock;

use outlive::Field;
use outlive::dynamic::{self, Event};
use tracing_core::Subscriber;
use tracing_core::span::{Attributes, Id, Record};
use tracing_subscriber::layer::{Context, Layer};
use tracing_subscriber::registry::LookupSpan;

use crate::callsite::Callsite;
use crate::entered;
use crate::span_ids::SpanIds;

/// Records what `tracing` tells into the program's [`Recorder`](outlive::Recorder). Without one nothing
/// happens, and it may be started before or after the layer is made.
///
/// It never says that an event is not wanted, since other layers might: an
/// [`EnvFilter`](https://docs.rs/tracing-subscriber/latest/tracing_subscriber/filter/struct.EnvFilter.html)
/// in front of it does. What is switched off by `outlive disable` costs what `tracing` itself does.
#[derive(Debug)]
pub struct OutliveLayer {
    spans: SpanIds,
}

/// The layer to be put on `tracing_subscriber::registry()`.
#[must_use]
pub fn layer() -> OutliveLayer {
    OutliveLayer {
        spans: SpanIds::new(),
    }
}

impl OutliveLayer {
    /// The recorder's id of a span; 0 if it was not recorded.
    fn id(&self, span: &Id) -> u64 {
        self.spans.get(span.into_u64())
    }

    /// The span that something is inside of, which may say so itself.
    #[inline]
    fn parent(&self, is_root: bool, parent: Option<&Id>) -> u64 {
        match parent {
            Some(parent) => self.id(parent),
            None if is_root => 0,
            None => dynamic::current_span(),
        }
    }
}

impl<S> Layer<S> for OutliveLayer
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    #[inline]
    fn on_event(&self, event: &tracing_core::Event<'_>, _: Context<'_, S>) {
        let span = self.parent(event.is_root(), event.parent());
        Callsite::of(event.metadata()).event(event, span);
    }

    #[inline]
    fn on_new_span(&self, attributes: &Attributes<'_>, span: &Id, _: Context<'_, S>) {
        if !dynamic::is_recording() {
            self.spans.add(span.into_u64(), 0);
            return;
        }
        let parent = self.parent(attributes.is_root(), attributes.parent());
        let id = self.spans.add(span.into_u64(), dynamic::new_span_id());
        if !Callsite::of(attributes.metadata()).span(attributes, id, parent) {
            self.spans.forget(span.into_u64());
        }
    }

    fn on_record(&self, span: &Id, values: &Record<'_>, context: Context<'_, S>) {
        let id = self.id(span);
        if let (1.., Some(metadata)) = (id, context.metadata(span)) {
            Callsite::of(metadata).values(values, id);
        }
    }

    fn on_follows_from(&self, span: &Id, follows: &Id, _: Context<'_, S>) {
        static FOLLOWS: OnceLock<Option<&'static Event>> = OnceLock::new();
        let fields = [("span_id", u64::TYPE), ("follows", u64::TYPE)];
        let declare = || Event::declare("tracing", "span_follows", &fields).ok();
        if let Some(event) = FOLLOWS.get_or_init(declare) {
            let (id, follows) = (self.id(span), self.id(follows));
            event.record(|fields| fields.put(0, &id) && fields.put(1, &follows));
        }
    }

    #[inline]
    fn on_enter(&self, span: &Id, _: Context<'_, S>) {
        // What is inside of a span that is not recorded is inside of that one's parent.
        if let id @ 1.. = self.id(span) {
            entered::enter(id);
        }
    }

    #[inline]
    fn on_exit(&self, span: &Id, context: Context<'_, S>) {
        if let id @ 1.. = self.id(span) {
            entered::exit(id, || {
                let innermost = context.current_span();
                innermost.id().map_or(0, |span| self.id(span))
            });
        }
    }

    fn on_close(&self, span: Id, _: Context<'_, S>) {
        dynamic::record_span_end(self.spans.remove(span.into_u64()));
    }
}
