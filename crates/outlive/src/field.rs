//! What a field of an event may be.

/// How a field lies in the event, as the event's `format` says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum FieldType {
    /// An integer of 1, 2, 4 or 8 bytes.
    Int {
        /// Bytes.
        size: usize,
        /// Whether it has a sign.
        is_signed: bool,
    },
    /// A byte: 0 or 1.
    Bool,
    /// A floating-point number of 4 or 8 bytes.
    Float {
        /// Bytes.
        size: usize,
    },
    /// A text, UTF-8, behind the fixed part.
    Text,
    /// Numbers behind the fixed part.
    Slice {
        /// Bytes of an element.
        size: usize,
        /// Whether elements have a sign.
        is_signed: bool,
    },
    /// So many numbers in the fixed part.
    Array {
        /// Elements.
        len: usize,
        /// Bytes of an element.
        size: usize,
        /// Whether elements have a sign.
        is_signed: bool,
    },
    /// An integer without a sign, of 1, 2, 4 or 8 bytes, that is shown by a name.
    Symbolic {
        /// Bytes.
        size: usize,
        /// Values and their names, which have no `"` and no `\`.
        names: &'static [(u64, &'static str)],
    },
}

impl FieldType {
    /// Bytes in the fixed part of the event.
    #[must_use]
    pub const fn fixed_size(self) -> usize {
        match self {
            Self::Int { size, .. } | Self::Float { size } | Self::Symbolic { size, .. } => size,
            Self::Bool => 1,
            // Offset and length.
            Self::Text | Self::Slice { .. } => 4,
            Self::Array { len, size, .. } => len * size,
        }
    }

    /// What its offset is a multiple of.
    #[must_use]
    pub const fn align(self) -> usize {
        match self {
            Self::Int { size, .. }
            | Self::Float { size }
            | Self::Array { size, .. }
            | Self::Symbolic { size, .. } => size,
            Self::Bool => 1,
            Self::Text | Self::Slice { .. } => 4,
        }
    }

    /// A number that is the same for the same types, but for the names of values: quicker to compare.
    #[must_use]
    pub const fn code(self) -> u64 {
        let (kind, len, size, is_signed) = match self {
            Self::Int { size, is_signed } => (0, 0, size, is_signed),
            Self::Bool => (1, 0, 1, false),
            Self::Float { size } => (2, 0, size, false),
            Self::Text => (3, 0, 1, false),
            Self::Slice { size, is_signed } => (4, 0, size, is_signed),
            Self::Array {
                len,
                size,
                is_signed,
            } => (5, len, size, is_signed),
            Self::Symbolic { size, .. } => (6, 0, size, false),
        };
        (len as u64) << 16 | (size as u64 & 0xff) << 8 | (is_signed as u64) << 4 | kind
    }

    /// Whether its bytes lie behind the fixed part.
    #[must_use]
    pub const fn is_dynamic(self) -> bool {
        matches!(self, Self::Text | Self::Slice { .. })
    }
}

/// A value that can be a field of an event.
///
/// Implement it for types of your own by passing on to a field inside:
///
/// ```
/// use outlive::{Field, FieldType};
///
/// struct UserId(u64);
///
/// impl Field for UserId {
///     const TYPE: FieldType = u64::TYPE;
///     fn put(&self, fixed: &mut [u8]) {
///         self.0.put(fixed);
///     }
/// }
/// outlive::event!("login", user = UserId(7));
/// ```
pub trait Field {
    /// How it lies in the event.
    const TYPE: FieldType;

    /// Writes the field's bytes, little endian, into the `TYPE.fixed_size()` bytes of the fixed part.
    /// Not called for dynamic types.
    fn put(&self, fixed: &mut [u8]);

    /// The bytes behind the fixed part, little endian; empty but for dynamic types.
    #[inline]
    fn dynamic(&self) -> &[u8] {
        &[]
    }
}

impl<T: Field + ?Sized> Field for &T {
    const TYPE: FieldType = T::TYPE;
    #[inline]
    fn put(&self, fixed: &mut [u8]) {
        (**self).put(fixed);
    }
    #[inline]
    fn dynamic(&self) -> &[u8] {
        (**self).dynamic()
    }
}

macro_rules! integers {
    ($($int:ty => $is_signed:literal),*) => {$(
        impl Field for $int {
            const TYPE: FieldType = FieldType::Int { size: size_of::<$int>(), is_signed: $is_signed };
            #[inline]
            fn put(&self, fixed: &mut [u8]) {
                fixed.copy_from_slice(&self.to_le_bytes());
            }
        }
        impl Array for $int {
            const IS_SIGNED: bool = $is_signed;
            #[inline]
            fn put(&self, fixed: &mut [u8]) {
                fixed.copy_from_slice(&self.to_le_bytes());
            }
        }
    )*};
}

/// An integer that can be an element of an array.
pub trait Array {
    /// Whether it has a sign.
    const IS_SIGNED: bool;
    /// Writes it, little endian.
    fn put(&self, fixed: &mut [u8]);
}

integers!(
    u8 => false, u16 => false, u32 => false, u64 => false, usize => false,
    i8 => true, i16 => true, i32 => true, i64 => true, isize => true
);

impl Field for bool {
    const TYPE: FieldType = FieldType::Bool;
    #[inline]
    fn put(&self, fixed: &mut [u8]) {
        fixed[0] = u8::from(*self);
    }
}

macro_rules! floats {
    ($($float:ty),*) => {$(
        impl Field for $float {
            const TYPE: FieldType = FieldType::Float { size: size_of::<$float>() };
            #[inline]
            fn put(&self, fixed: &mut [u8]) {
                fixed.copy_from_slice(&self.to_le_bytes());
            }
        }
    )*};
}

floats!(f32, f64);

macro_rules! texts {
    ($($text:ty),*) => {$(
        impl Field for $text {
            const TYPE: FieldType = FieldType::Text;
            fn put(&self, _fixed: &mut [u8]) {}
            #[inline]
            fn dynamic(&self) -> &[u8] {
                self.as_bytes()
            }
        }
    )*};
}

texts!(str, String, Box<str>, std::sync::Arc<str>, std::rc::Rc<str>);

impl Field for std::borrow::Cow<'_, str> {
    const TYPE: FieldType = FieldType::Text;
    fn put(&self, _fixed: &mut [u8]) {}
    #[inline]
    fn dynamic(&self) -> &[u8] {
        self.as_bytes()
    }
}

/// A byte slice. (Slices of larger numbers are not in memory as they are in the region on every
/// machine; arrays of them are [`Field`]s.)
impl Field for [u8] {
    const TYPE: FieldType = FieldType::Slice {
        size: 1,
        is_signed: false,
    };
    fn put(&self, _fixed: &mut [u8]) {}
    #[inline]
    fn dynamic(&self) -> &[u8] {
        self
    }
}

impl Field for Vec<u8> {
    const TYPE: FieldType = <[u8]>::TYPE;
    fn put(&self, _fixed: &mut [u8]) {}
    #[inline]
    fn dynamic(&self) -> &[u8] {
        self
    }
}

impl<T: Array, const N: usize> Field for [T; N] {
    const TYPE: FieldType = FieldType::Array {
        len: N,
        size: size_of::<T>(),
        is_signed: T::IS_SIGNED,
    };
    #[inline]
    fn put(&self, fixed: &mut [u8]) {
        for (element, bytes) in self.iter().zip(fixed.chunks_exact_mut(size_of::<T>())) {
            element.put(bytes);
        }
    }
}
