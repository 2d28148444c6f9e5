//! What the run before left.

use outlive_trace::view::View;
use outlive_trace::{Error, Generation, Verdict};

/// The run before this one: how it ended, and its events.
#[derive(Debug)]
pub struct Previous {
    generation: Generation,
    verdict: Verdict,
}

impl Previous {
    pub(crate) fn new(generation: Generation) -> Self {
        let verdict = Verdict::of_generation(&generation, None);
        Self {
            generation,
            verdict,
        }
    }

    /// How it ended.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        self.verdict
    }

    /// Where it is kept.
    #[must_use]
    pub fn generation(&self) -> &Generation {
        &self.generation
    }

    /// Its events, and what is needed to decode them.
    ///
    /// # Errors
    ///
    /// When the generation cannot be read.
    pub fn view(&self) -> Result<View, Error> {
        View::open(&self.generation.region_path())
    }
}
