//! `--filter`: one expression for all events.
//!
//! The expression is compiled for each event that the region has. An event for which it makes no
//! sense, because it lacks a field, is never shown; if that goes for every event, the expression
//! is wrong, and is shown with the mistake marked.

use std::error::Error;
use std::fmt;

use outlive_event::{Catalog, EventFormat, Filter, FilterError, FilterErrorKind, FilterScope};
use outlive_trace::cmdline::{Diagnostic, nearest};

use crate::diagnostic;

/// What the user is told that a mistake is in.
const ORIGIN: &str = "--filter";

/// An expression that parses, and its text.
#[derive(Debug, Clone)]
pub(crate) struct FilterText {
    text: String,
    filter: Filter,
}

/// A mistake in an expression or a statement, shown with its place.
#[derive(Debug)]
pub(crate) struct Mistake(String);

impl Mistake {
    /// Shows mistakes in `text`, which is from `origin`.
    pub(crate) fn shown(origin: &str, text: &str, diagnostics: &[Diagnostic]) -> Self {
        Self(diagnostic::render(origin, text, diagnostics))
    }
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.trim_end())
    }
}

impl Error for Mistake {}

impl FilterText {
    /// Parses the option's value.
    pub(crate) fn parse(text: &str) -> Result<Self, Mistake> {
        let filter = Filter::parse(text).map_err(|error| shown(text, &error, None))?;
        let text = text.to_owned();
        Ok(Self { text, filter })
    }

    /// The expression.
    pub(crate) fn filter(&self) -> &Filter {
        &self.filter
    }

    /// Refuses an expression that makes no sense for any of the events.
    pub(crate) fn check<'c>(
        &self,
        catalog: &'c Catalog,
        events: impl Iterator<Item = &'c EventFormat>,
        nr_cpus: u32,
    ) -> Result<(), Mistake> {
        let scope = FilterScope {
            symbols: catalog.symbols(),
            nr_cpus,
        };
        let mut worst: Option<FilterError> = None;
        for event in events {
            match self.filter.compile(event, &scope) {
                Ok(_) => return Ok(()),
                Err(error) if worst.as_ref().is_none_or(|w| rank(&error) > rank(w)) => {
                    worst = Some(error);
                }
                Err(_) => {}
            }
        }
        worst.map_or(Ok(()), |error| {
            Err(shown(&self.text, &error, Some(catalog)))
        })
    }
}

/// Of the mistakes that the events have with an expression, the one worth showing is one about a
/// value, else the unknown field that comes last.
fn rank(error: &FilterError) -> (bool, usize) {
    let is_of_value = !matches!(error.kind, FilterErrorKind::UnknownField(_));
    (is_of_value, error.span.start)
}

/// The text with the mistake marked, and the nearest field's name.
fn shown(text: &str, error: &FilterError, catalog: Option<&Catalog>) -> Mistake {
    let mark = |message: &str| Diagnostic::error(error.span.clone(), message);
    let diagnostic = match &error.kind {
        FilterErrorKind::UnknownField(name) => {
            mark(&format!("no event has a field `{name}`")).nearest(near_field(name, catalog))
        }
        FilterErrorKind::Expected(what) if error.span.is_empty() => {
            mark("the filter ends too early").expected(format!("expected {what}"))
        }
        FilterErrorKind::Expected(what) => {
            mark("the filter is not understood").expected(format!("expected {what}"))
        }
        other => mark(&other.to_string()),
    };
    Mistake::shown(ORIGIN, text, &[diagnostic])
}

fn near_field<'c>(name: &str, catalog: Option<&'c Catalog>) -> Option<&'c str> {
    let events = catalog.into_iter().flat_map(Catalog::events);
    let fields = events.flat_map(|e| e.fields.iter().chain(&e.common));
    let names = fields.map(|f| f.name.as_str());
    nearest(name, names.chain(["CPU", "COMM"]))
}
