//! What is done to the bytes of a region, in a form that is stored.

use anyhow::{Context, Result};
use serde_json::{Value, json};

/// New bytes for a place of a region.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edit {
    /// Offset in the region, in bytes.
    pub at: usize,
    /// What is there afterwards.
    pub bytes: Bytes,
}

/// Bytes of an [`Edit`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Bytes {
    /// These.
    Given(Vec<u8>),
    /// One byte, `len` times.
    Fill {
        /// The byte.
        byte: u8,
        /// How often.
        len: usize,
    },
    /// What another place of the *undamaged* region holds.
    Copy {
        /// Offset in the region, in bytes.
        from: usize,
        /// How many bytes.
        len: usize,
    },
}

impl Edit {
    fn len(&self) -> usize {
        match &self.bytes {
            Bytes::Given(bytes) => bytes.len(),
            Bytes::Fill { len, .. } | Bytes::Copy { len, .. } => *len,
        }
    }

    fn apply(&self, undamaged: &[u8], region: &mut [u8]) {
        let place = &mut region[self.at..self.at + self.len()];
        match &self.bytes {
            Bytes::Given(bytes) => place.copy_from_slice(bytes),
            Bytes::Fill { byte, .. } => place.fill(*byte),
            Bytes::Copy { from, len } => place.copy_from_slice(&undamaged[*from..from + len]),
        }
    }

    /// `[offset, "hex"]`, `[offset, {"fill": byte, "len": n}]` or `[offset, {"copy": from, "len": n}]`,
    /// as in `fixtures/golden/8-corruptions.jsonl`.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let bytes = match &self.bytes {
            Bytes::Given(bytes) => json!(hex(bytes)),
            Bytes::Fill { byte, len } => json!({ "fill": byte, "len": len }),
            Bytes::Copy { from, len } => json!({ "copy": from, "len": len }),
        };
        json!([self.at, bytes])
    }

    /// The reverse of [`Edit::to_json`].
    ///
    /// # Errors
    ///
    /// When `value` is none of the three forms.
    pub fn from_json(value: &Value) -> Result<Self> {
        let number = |value: &Value| value.as_u64().and_then(|value| usize::try_from(value).ok());
        let edit = || {
            let bytes = match &value[1] {
                Value::String(text) => Bytes::Given(unhex(text)?),
                object if object.get("fill").is_some() => Bytes::Fill {
                    byte: u8::try_from(number(&object["fill"])?).ok()?,
                    len: number(&object["len"])?,
                },
                object => Bytes::Copy {
                    from: number(&object["copy"])?,
                    len: number(&object["len"])?,
                },
            };
            Some(Self {
                at: number(&value[0])?,
                bytes,
            })
        };
        edit().with_context(|| format!("no edit of a region: {value}"))
    }
}

/// The region with all `edits`, in order.
#[must_use]
pub fn apply(undamaged: &[u8], edits: &[Edit]) -> Vec<u8> {
    let mut region = undamaged.to_vec();
    for edit in edits {
        edit.apply(undamaged, &mut region);
    }
    region
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits = |at: usize| u8::from_str_radix(text.get(at..at + 2)?, 16).ok();
    (0..text.len()).step_by(2).map(digits).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_form_of_an_edit_is_read_as_it_was_written() {
        let forms = [
            Bytes::Given(vec![0, 0xab, 0xff]),
            Bytes::Fill { byte: 7, len: 3 },
            Bytes::Copy { from: 4, len: 2 },
        ];
        for bytes in forms {
            let edit = Edit { at: 1, bytes };
            assert_eq!(Edit::from_json(&edit.to_json()).unwrap(), edit);
        }
        assert!(Edit::from_json(&json!([1, "0g"])).is_err());
        assert!(Edit::from_json(&json!([1, {"fill": 300, "len": 1}])).is_err());
    }

    #[test]
    fn a_copy_is_of_the_undamaged_region() {
        let edits = [
            Edit {
                at: 0,
                bytes: Bytes::Fill { byte: 9, len: 2 },
            },
            Edit {
                at: 2,
                bytes: Bytes::Copy { from: 0, len: 2 },
            },
        ];
        assert_eq!(apply(&[1, 2, 3, 4], &edits), [9, 9, 1, 2]);
    }
}
