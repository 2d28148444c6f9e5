//! What the run before left.

use std::fs::File;

use outlive_trace::view::View;
use outlive_trace::{Error, Generation, Verdict};

/// The run before this one: how it ended, and its events.
#[derive(Debug)]
pub struct Previous {
    generation: Generation,
    verdict: Verdict,
    /// The region, where the generation is out of sight.
    region: Option<File>,
}

impl Previous {
    pub(crate) fn new(generation: Generation) -> Self {
        let verdict = Verdict::of_generation(&generation, None);
        Self {
            generation,
            verdict,
            region: None,
        }
    }

    /// One that cannot be seen from here, but for its region.
    pub(crate) fn inherited(generation: Generation, verdict: Verdict, region: File) -> Self {
        Self {
            generation,
            verdict,
            region: Some(region),
        }
    }

    /// How it ended.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        self.verdict
    }

    /// Where it is kept: under a supervisor (`outlive run`), where that sees it.
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
        let path = self.generation.region_path();
        match &self.region {
            Some(region) => View::of_file(region, &path),
            None => View::open(&path),
        }
    }
}
