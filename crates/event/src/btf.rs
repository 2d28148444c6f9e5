//! BTF: the kernel's own description of its types, as far as print formats need it.
//!
//! `/sys/kernel/btf/vmlinux` has the types of the kernel, the other files there those of one
//! module each, which go on where the kernel's end. Read after
//! `Documentation/bpf/btf.rst` (v6.18): a header, a section of types, each a name, an info word
//! (number of members in bits 0..15, kind in bits 24..28), a size or type, and what the kind
//! adds; and a section of strings.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crate::catalog::{files, read_optional};
use crate::constants::Constants;
use crate::error::CatalogError;
use crate::record::{load_u32, slice, until_nul};

/// The kernel's own file in a folder of BTF files.
const KERNEL_FILE: &str = "vmlinux";
const MAGIC: u32 = 0xeb9f;
/// Bytes of the header up to the last number that is read here.
const HEADER_BYTES: usize = 24;
/// Bytes of a type before what its kind adds.
const TYPE_BYTES: usize = 12;

const ARRAY: u32 = 3;
const STRUCT: u32 = 4;
const UNION: u32 = 5;
const ENUM: u32 = 6;
const ENUM64: u32 = 19;

impl Constants {
    /// The enum constants and sizes that `names` asks for, from a folder of BTF files:
    /// `/sys/kernel/btf`, or a copy of it. Empty if the folder has no `vmlinux`: not every kernel
    /// has BTF. A file that is no BTF is left out, and so is a name that has two values.
    ///
    /// # Errors
    ///
    /// The folder or a file in it cannot be read.
    pub fn from_btf_dir(
        path: impl AsRef<Path>,
        names: &BTreeSet<String>,
    ) -> Result<Self, CatalogError> {
        let path = path.as_ref();
        let mut wanted = Wanted::new(names);
        let kernel = read_optional(&path.join(KERNEL_FILE))?;
        let Some(kernel) = kernel.as_deref().and_then(Btf::parse) else {
            return Ok(Self::default());
        };
        kernel.look_up(&mut wanted);
        for module in files(path)?.iter().filter(|p| !p.ends_with(KERNEL_FILE)) {
            let bytes = read_optional(module)?.unwrap_or_default();
            if let Some(btf) = Btf::parse(&bytes) {
                btf.going_on_from(&kernel).look_up(&mut wanted);
            }
        }
        Ok(wanted.constants())
    }
}

/// What is looked for, and what was found of it.
struct Wanted<'n> {
    names: &'n BTreeSet<String>,
    /// No value: there are two that differ.
    found: BTreeMap<&'n str, Option<u64>>,
}

impl<'n> Wanted<'n> {
    fn new(names: &'n BTreeSet<String>) -> Self {
        Self {
            names,
            found: BTreeMap::new(),
        }
    }

    fn offer(&mut self, name: &str, value: u64) {
        let Some(name) = self.names.get(name) else {
            return;
        };
        let known = self.found.entry(name).or_insert(Some(value));
        *known = known.filter(|v| *v == value);
    }

    fn constants(&self) -> Constants {
        let mut constants = Constants::default();
        for (name, value) in &self.found {
            if let Some(value) = value {
                constants.set(name, *value);
            }
        }
        constants
    }
}

/// A BTF file's sections.
#[derive(Debug, Clone, Copy)]
struct Btf<'a> {
    types: &'a [u8],
    /// The strings of the file that this one goes on from; offsets beyond are into its own.
    kernel_strings: &'a [u8],
    strings: &'a [u8],
}

impl<'a> Btf<'a> {
    /// `None` if the bytes are not BTF, or its sections do not lie in them.
    fn parse(bytes: &'a [u8]) -> Option<Self> {
        if bytes.len() < HEADER_BYTES || load_u32(bytes, 0) & 0xffff != MAGIC {
            return None;
        }
        let word = |at: usize| load_u32(bytes, at) as usize;
        let section = |offset: usize, len: usize| {
            let start = word(4).checked_add(offset)?;
            bytes.get(start..start.checked_add(len)?)
        };
        Some(Self {
            types: section(word(8), word(12))?,
            kernel_strings: &[],
            strings: section(word(16), word(20))?,
        })
    }

    /// This as a module's, which goes on where the kernel's ends.
    fn going_on_from(self, kernel: &Btf<'a>) -> Self {
        Self {
            kernel_strings: kernel.strings,
            ..self
        }
    }

    /// Offers all enum constants and sizes of structs and unions. Types that are cut off, or of a
    /// kind that is not known, end the search.
    fn look_up(&self, wanted: &mut Wanted<'_>) {
        let mut at = 0;
        while at + TYPE_BYTES <= self.types.len() {
            let info = load_u32(self.types, at + 4);
            let (count, kind) = ((info & 0xffff) as usize, info >> 24 & 0x1f);
            let Some(more) = more_bytes(kind, count) else {
                break;
            };
            let members = slice(self.types, at + TYPE_BYTES, more);
            match kind {
                STRUCT => self.size_of("struct", at, wanted),
                UNION => self.size_of("union", at, wanted),
                ENUM => self.enum_members(members, 8, info >> 31 != 0, wanted),
                ENUM64 => self.enum_members(members, 12, info >> 31 != 0, wanted),
                _ => {}
            }
            at += TYPE_BYTES + more;
        }
    }

    fn name(&self, offset: u32) -> Option<&'a str> {
        let at = offset as usize;
        let rest = match at.checked_sub(self.kernel_strings.len()) {
            Some(own) => self.strings.get(own..)?,
            None => &self.kernel_strings[at..],
        };
        let name = std::str::from_utf8(until_nul(rest)).ok()?;
        (!name.is_empty()).then_some(name)
    }

    fn size_of(&self, keyword: &str, at: usize, wanted: &mut Wanted<'_>) {
        if let Some(name) = self.name(load_u32(self.types, at)) {
            let size = u64::from(load_u32(self.types, at + 8));
            wanted.offer(&format!("{keyword} {name}"), size);
        }
    }

    fn enum_members(&self, members: &[u8], each: usize, is_signed: bool, wanted: &mut Wanted<'_>) {
        for member in members.chunks_exact(each) {
            let Some(name) = self.name(load_u32(member, 0)) else {
                continue;
            };
            let low = load_u32(member, 4);
            let value = match each {
                8 if is_signed => low as i32 as i64 as u64,
                8 => u64::from(low),
                _ => u64::from(load_u32(member, 8)) << 32 | u64::from(low),
            };
            wanted.offer(name, value);
        }
    }
}

/// Bytes that a type of this kind with `count` members has after its first three words; `None`
/// for kinds that are not known.
fn more_bytes(kind: u32, count: usize) -> Option<usize> {
    Some(match kind {
        // Pointer, forward, typedef, qualifiers, function, float, type tag.
        2 | 7..=12 | 16 | 18 => 0,
        // Int, variable, declaration tag.
        1 | 14 | 17 => 4,
        ARRAY => 12,
        // Members of structs and unions, variables of a section, 64-bit enum constants.
        STRUCT | UNION | 15 | ENUM64 => 12 * count,
        // Enum constants, parameters of a function.
        ENUM | 13 => 8 * count,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A header, types of three words and what follows, and strings.
    fn file(types: &[u32], strings: &[u8]) -> Vec<u8> {
        let (len, strings_len) = (types.len() as u32 * 4, strings.len() as u32);
        let header = [0x1_0000 | MAGIC, 24, 0, len, len, strings_len];
        let words = header.iter().chain(types);
        let mut bytes: Vec<u8> = words.flat_map(|w| w.to_le_bytes()).collect();
        bytes.extend_from_slice(strings);
        bytes
    }

    fn names(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|n| (*n).to_owned()).collect()
    }

    /// What a folder with these files tells of `wanted`.
    fn looked_up(files: &[(&str, Vec<u8>)], wanted: &[&str]) -> Vec<(String, u64)> {
        let folder = tempfile::tempdir().unwrap();
        for (name, bytes) in files {
            std::fs::write(folder.path().join(name), bytes).unwrap();
        }
        let constants = Constants::from_btf_dir(folder.path(), &names(wanted)).unwrap();
        let found = constants.iter().map(|(n, v)| (n.to_owned(), v));
        found.collect()
    }

    fn found(expected: &[(&str, u64)]) -> Vec<(String, u64)> {
        expected
            .iter()
            .map(|(n, v)| ((*n).to_owned(), *v))
            .collect()
    }

    const STRINGS: &[u8] = b"\0page\0A\0B\0C\0";
    #[rustfmt::skip]
    const TYPES: &[u32] = &[
        0, 1 << 24, 4, 0,                       // int, with its bits
        0, 3 << 24, 0, 1, 1, 9,                 // array
        1, 4 << 24 | 1, 64, 6, 1, 0,            // struct page of 64 bytes, one member
        0, 1 << 31 | 6 << 24 | 2, 4, 6, 7, 8, u32::MAX, // enum { A = 7, B = -1 }
        0, 19 << 24 | 1, 8, 10, 1, 2,           // enum { C = 1 + (2 << 32) }
    ];

    #[test]
    fn enum_constants_and_sizes_are_found() {
        let files = [("vmlinux", file(TYPES, STRINGS))];
        let all = ["A", "B", "C", "D", "page", "struct page"];
        let expected = [
            ("A", 7),
            ("B", u64::MAX),
            ("C", 1 | 2 << 32),
            ("struct page", 64),
        ];
        assert_eq!(looked_up(&files, &all), found(&expected));
        assert!(looked_up(&files, &[]).is_empty());
        assert!(looked_up(&[], &all).is_empty());
    }

    #[test]
    fn a_modules_strings_go_on_from_the_kernels_and_two_values_are_none() {
        let own = STRINGS.len() as u32;
        let module = |a| file(&[0, 6 << 24 | 2, 4, own, 5, 6, a], b"M\0");
        let files = |a| [("vmlinux", file(TYPES, STRINGS)), ("ext4", module(a))];
        assert_eq!(
            looked_up(&files(7), &["A", "M"]),
            found(&[("A", 7), ("M", 5)])
        );
        assert_eq!(looked_up(&files(6), &["A", "M"]), found(&[("M", 5)]));
    }

    #[test]
    fn what_is_no_btf_is_left_out_and_what_is_cut_off_ends_the_search() {
        assert!(looked_up(&[("vmlinux", vec![0; 64])], &["A"]).is_empty());
        let whole = file(TYPES, STRINGS);
        for end in 0..whole.len() {
            assert!(Btf::parse(&whole[..end]).is_none());
        }
        for end in 0..TYPES.len() {
            let files = [("vmlinux", file(&TYPES[..end], STRINGS))];
            looked_up(&files, &["A", "C", "struct page"]);
        }
        let unknown_kind = file(&[0, 31 << 24, 0, 0, 6 << 24 | 1, 4, 6, 7], STRINGS);
        assert!(looked_up(&[("vmlinux", unknown_kind)], &["A"]).is_empty());
    }
}
