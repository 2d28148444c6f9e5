//! Views with names.

use outlive_trace::Verdict;
use outlive_trace::view::View;

/// A view, and what the user calls it.
#[derive(Debug)]
pub struct Source {
    /// Stands in the column `source`.
    pub name: String,
    /// The region.
    pub view: View,
    /// How the run ended.
    pub verdict: Verdict,
}
