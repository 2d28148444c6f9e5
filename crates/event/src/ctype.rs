//! C types as far as event formats use them: the size and the signedness of integers.

/// An integer type: how many bytes, and whether the top bit is a sign.
///
/// Sizes are those of a 64-bit kernel: `long` and pointers have 8 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IntType {
    /// Bytes: 1, 2, 4 or 8.
    pub size: u8,
    /// True for signed types.
    pub signed: bool,
}

impl IntType {
    /// `int`.
    pub const INT: Self = Self::new(4, true);
    /// `unsigned int`.
    pub const UINT: Self = Self::new(4, false);
    /// `long` and `long long`.
    pub const LONG: Self = Self::new(8, true);
    /// `unsigned long`, `unsigned long long` and pointers.
    pub const ULONG: Self = Self::new(8, false);
    /// `unsigned char`.
    pub const BYTE: Self = Self::new(1, false);
    /// `char`, signed on x86.
    pub const CHAR: Self = Self::new(1, true);

    /// The type of `size` bytes (1, 2, 4 or 8).
    #[must_use]
    pub const fn new(size: u8, signed: bool) -> Self {
        Self { size, signed }
    }

    /// Cuts `value` to this type and extends it to 64 bits again, by sign or by zeros.
    #[must_use]
    pub(crate) const fn extend(self, value: u64) -> u64 {
        match (self.size, self.signed) {
            (1, true) => value as i8 as i64 as u64,
            (1, false) => value as u8 as u64,
            (2, true) => value as i16 as i64 as u64,
            (2, false) => value as u16 as u64,
            (4, true) => value as i32 as i64 as u64,
            (4, false) => value as u32 as u64,
            _ => value,
        }
    }

    /// C's integer promotion: everything smaller than `int` becomes `int`.
    #[must_use]
    pub(crate) const fn promoted(self) -> Self {
        if self.size < 4 { Self::INT } else { self }
    }

    /// C's usual arithmetic conversions: the type in which `self OP other` is computed.
    #[must_use]
    pub(crate) fn common(self, other: Self) -> Self {
        let (a, b) = (self.promoted(), other.promoted());
        if a.size == b.size {
            return Self::new(a.size, a.signed && b.signed);
        }
        if a.size > b.size { a } else { b }
    }
}

/// Types of the kernel whose name does not tell their size, as its format files show it
/// in `size:` (read on Linux 6.18 and 7.3, x86-64).
const NAMED: &[(&str, IntType)] = &[
    ("bool", IntType::BYTE),
    ("_Bool", IntType::BYTE),
    ("u8", IntType::BYTE),
    ("s8", IntType::CHAR),
    ("u16", IntType::new(2, false)),
    ("s16", IntType::new(2, true)),
    ("u32", IntType::UINT),
    ("s32", IntType::INT),
    ("u64", IntType::ULONG),
    ("s64", IntType::LONG),
    ("uint8_t", IntType::BYTE),
    ("int8_t", IntType::CHAR),
    ("uint16_t", IntType::new(2, false)),
    ("int16_t", IntType::new(2, true)),
    ("uint32_t", IntType::UINT),
    ("int32_t", IntType::INT),
    ("uint64_t", IntType::ULONG),
    ("int64_t", IntType::LONG),
    ("le16", IntType::new(2, false)),
    ("be16", IntType::new(2, false)),
    ("le32", IntType::UINT),
    ("be32", IntType::UINT),
    ("le64", IntType::ULONG),
    ("be64", IntType::ULONG),
    ("uint", IntType::UINT),
    ("ulong", IntType::ULONG),
    ("size_t", IntType::ULONG),
    ("ssize_t", IntType::LONG),
    ("loff_t", IntType::LONG),
    ("off_t", IntType::LONG),
    ("pid_t", IntType::INT),
    ("uid_t", IntType::UINT),
    ("gid_t", IntType::UINT),
    ("dev_t", IntType::UINT),
    ("ino_t", IntType::ULONG),
    ("sector_t", IntType::ULONG),
    ("blkcnt_t", IntType::ULONG),
    ("gfp_t", IntType::UINT),
    ("fmode_t", IntType::UINT),
    ("umode_t", IntType::new(2, false)),
    ("dma_addr_t", IntType::ULONG),
    ("phys_addr_t", IntType::ULONG),
    ("resource_size_t", IntType::ULONG),
    ("vm_flags_t", IntType::ULONG),
    ("pgoff_t", IntType::ULONG),
    ("ktime_t", IntType::LONG),
    ("time64_t", IntType::LONG),
    ("clockid_t", IntType::INT),
    ("rwf_t", IntType::INT),
    ("__kernel_rwf_t", IntType::INT),
    ("uintptr_t", IntType::ULONG),
    // RFC 2744.
    ("OM_uint32", IntType::UINT),
];

/// The integer type that `words` name, such as `["unsigned", "long"]`; `None` for structs,
/// pointers and names this crate does not know.
#[must_use]
pub(crate) fn by_words(words: &[&str]) -> Option<IntType> {
    let words = || words.iter().copied().filter(|w| !is_qualifier(w));
    let count = words().count();
    if words().any(|w| w == "enum") {
        return Some(IntType::UINT);
    }
    if count == 1
        && let Some(named) = words().next().and_then(by_name)
    {
        return Some(named);
    }
    by_keywords(words())
}

/// `const` and the like, which do not change a type's layout.
fn is_qualifier(word: &str) -> bool {
    matches!(
        word,
        "const" | "volatile" | "__user" | "__force" | "__seg_gs" | "__bitwise"
    )
}

/// The type called `name`; the kernel's `__u32` is looked up as `u32`.
fn by_name(name: &str) -> Option<IntType> {
    let bare = name.strip_prefix("__").unwrap_or(name);
    NAMED
        .iter()
        .find(|(n, _)| *n == name || *n == bare)
        .map(|&(_, t)| t)
}

/// C's own spelling: any order of `unsigned`, `signed`, `char`, `short`, `int`, `long`.
fn by_keywords<'a>(words: impl Iterator<Item = &'a str>) -> Option<IntType> {
    let mut ty = IntType::INT;
    let mut any = false;
    for word in words {
        match word {
            "unsigned" => ty.signed = false,
            "signed" | "int" => {}
            "char" => ty.size = 1,
            "short" => ty.size = 2,
            "long" => ty.size = 8,
            _ => return None,
        }
        any = true;
    }
    any.then_some(ty)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn c_spellings_and_kernel_names_are_known() {
        assert_eq!(
            by_words(&["unsigned", "long", "long"]),
            Some(IntType::ULONG)
        );
        assert_eq!(by_words(&["long", "unsigned", "int"]), Some(IntType::ULONG));
        assert_eq!(by_words(&["const", "__u32"]), Some(IntType::UINT));
        assert_eq!(by_words(&["enum", "hrtimer_mode"]), Some(IntType::UINT));
        assert_eq!(by_words(&["struct", "page"]), None);
        assert_eq!(by_words(&[]), None);
    }

    #[test]
    fn small_types_are_promoted_and_unsigned_wins_at_equal_size() {
        assert_eq!(IntType::BYTE.common(IntType::CHAR), IntType::INT);
        assert_eq!(IntType::UINT.common(IntType::INT), IntType::UINT);
        assert_eq!(IntType::UINT.common(IntType::LONG), IntType::LONG);
        assert_eq!(IntType::INT.extend(0xffff_ffff), u64::MAX);
    }
}
