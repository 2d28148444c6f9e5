//! Which words of a record are kernel addresses that its text shows as symbols.
//!
//! The recorder puts those symbols into the catalog, so that the record can be read on another
//! kernel.

use crate::format::{EventFormat, FieldKind};
use crate::print_fmt;
use crate::record;

/// Offsets of the words of an event that are printed with `%ps`, `%pS`, `%pB` and the like.
#[derive(Debug, Default)]
pub(crate) struct SymbolFields {
    offsets: Vec<u32>,
    stack: Option<u32>,
}

impl SymbolFields {
    fn of(format: &EventFormat) -> Self {
        if let Some(stack) = kernel_stack(format) {
            return Self {
                offsets: Vec::new(),
                stack: Some(stack),
            };
        }
        // Where the addresses lie does not depend on the values of names.
        let program = print_fmt::compile(format, &|_| Some(0));
        let mut offsets = program.map_or(Vec::new(), |p| p.symbol_offsets());
        offsets.sort_unstable();
        offsets.dedup();
        Self {
            offsets,
            stack: None,
        }
    }
}

/// The offset of the addresses of a `kernel_stack`; a `user_stack` has none of the kernel's.
fn kernel_stack(format: &EventFormat) -> Option<u32> {
    let caller = format
        .field("caller")
        .filter(|_| format.name == "kernel_stack")?;
    let is_array = matches!(
        caller.kind,
        FieldKind::Array { .. } | FieldKind::Flexible { .. }
    );
    is_array.then_some(caller.offset)
}

impl EventFormat {
    /// Offsets from the start of the trace entry of the 8-byte words that are printed as symbols.
    #[must_use]
    pub fn symbol_offsets(&self) -> &[u32] {
        &self.symbol_fields().offsets
    }

    /// The offset of the event's stack (`caller`), which reaches to the end of the record.
    #[must_use]
    pub fn stack_offset(&self) -> Option<u32> {
        self.symbol_fields().stack
    }

    /// The addresses in the record `payload` that its text shows as symbols.
    ///
    /// They are the record's bytes as they are: they may be zero, or no kernel address at all.
    pub fn symbol_addresses<'a>(&'a self, payload: &'a [u8]) -> impl Iterator<Item = u64> + 'a {
        let fields = self.symbol_fields();
        let single = fields
            .offsets
            .iter()
            .filter_map(|&o| record::load_u64(payload, o as usize));
        let stack = fields
            .stack
            .map_or(&[][..], |o| record::slice(payload, o as usize, usize::MAX));
        single.chain(
            stack
                .as_chunks::<8>()
                .0
                .iter()
                .map(|c| u64::from_le_bytes(*c)),
        )
    }

    fn symbol_fields(&self) -> &SymbolFields {
        self.symbols.get_or_init(|| SymbolFields::of(self))
    }
}
