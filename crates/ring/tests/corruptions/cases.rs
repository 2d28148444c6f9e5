//! The corruptions of the golden region and what Linux 7.3.4 did with each
//! (`fixtures/golden/README.md`).

use serde_json::Value;

use super::support::{fixture, golden_region};

/// A corruption.
pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) region: Vec<u8>,
    pub(crate) cpus: Vec<Observed>,
}

/// What the kernel showed of a CPU afterwards.
pub(crate) struct Observed {
    pub(crate) entries: u64,
    pub(crate) bytes: u64,
    /// Lines of its `trace`; `None` where that never ended.
    pub(crate) lines: Option<Lines>,
}

/// Event lines, each reduced to time, flags and name.
pub(crate) struct Lines {
    pub(crate) count: usize,
    pub(crate) first: Option<String>,
    pub(crate) last: Option<String>,
    pub(crate) sha256: String,
}

/// All corruptions.
pub(crate) fn all() -> Vec<Case> {
    let text = String::from_utf8(fixture("golden/8-corruptions.jsonl.gz")).unwrap();
    let golden = golden_region();
    text.lines()
        .map(|line| Case::new(&golden, &serde_json::from_str(line).unwrap()))
        .collect()
}

impl Case {
    fn new(golden: &[u8], case: &Value) -> Self {
        assert_eq!(case["outcome"], "ok", "the kernel lived");
        let mut region = golden.to_vec();
        for edit in case["edits"].as_array().unwrap() {
            apply(&mut region, edit);
        }
        Self {
            name: case["name"].as_str().unwrap().to_string(),
            region,
            cpus: case["cpus"]
                .as_array()
                .unwrap()
                .iter()
                .map(Observed::new)
                .collect(),
        }
    }
}

fn apply(region: &mut [u8], edit: &Value) {
    let at = edit[0].as_u64().unwrap() as usize;
    let bytes = match edit[1].as_str() {
        Some(hex) => (0..hex.len() / 2)
            .map(|i| u8::from_str_radix(&hex[2 * i..2 * i + 2], 16).unwrap())
            .collect(),
        None => {
            let fill = edit[1]["fill"].as_u64().unwrap() as u8;
            vec![fill; edit[1]["len"].as_u64().unwrap() as usize]
        }
    };
    region[at..at + bytes.len()].copy_from_slice(&bytes);
}

impl Observed {
    fn new(cpu: &Value) -> Self {
        let stat = |key: &str| cpu["stats"][key].as_str().unwrap().parse().unwrap();
        let text = |key: &str| cpu[key].as_str().map(str::to_string);
        Self {
            entries: stat("entries"),
            bytes: stat("bytes"),
            lines: cpu["events"].as_u64().map(|count| Lines {
                count: count as usize,
                first: text("first"),
                last: text("last"),
                sha256: text("sha256").unwrap_or_default(),
            }),
        }
    }
}
