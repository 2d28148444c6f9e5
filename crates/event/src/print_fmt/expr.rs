//! Compiled expressions: integers, places in the record, and texts.
//!
//! Field offsets are resolved and constants folded; evaluating reads the record and never
//! allocates. Integers are 64 bits wide while they are computed, always extended by the sign or
//! the zeros of their C type, so that an operation needs to know only its own type.

use crate::ctype::IntType;
use crate::record;

/// An integer expression and its C type.
#[derive(Debug, Clone)]
pub(crate) struct Int {
    pub(crate) ty: IntType,
    pub(crate) node: Node,
    /// Levels of operands below; bounds the recursion of [`Int::eval`].
    depth: u8,
}

/// What an integer expression does.
#[derive(Debug, Clone)]
pub(crate) enum Node {
    /// A constant, extended to its type.
    Const(u64),
    /// A word of the record.
    Load { offset: u32, ty: IntType },
    /// An element of an array in the record.
    Element(Box<(Data, Int)>),
    /// The number of bytes of a dynamic array.
    Len(Box<Data>),
    /// The operand, cut or extended to this expression's type.
    Cast(Box<Int>),
    /// `-x`, `~x`, `!x`, `__builtin_bswap`.
    Unary(UnaryOp, Box<Int>),
    /// `a OP b`, computed in `ty`.
    Binary(BinaryOp, IntType, Box<(Int, Int)>),
    /// `a ? b : c`.
    Cond(Box<(Int, Int, Int)>),
}

/// Operators with one operand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum UnaryOp {
    Neg,
    BitNot,
    Not,
    /// The bytes of the operand's type in opposite order.
    SwapBytes,
}

/// Operators with two operands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BinaryOp {
    Mul,
    Div,
    Rem,
    Add,
    Sub,
    Shl,
    Shr,
    Less,
    LessEq,
    Greater,
    GreaterEq,
    Eq,
    NotEq,
    And,
    Xor,
    Or,
    LogicAnd,
    LogicOr,
}

/// Deepest nesting of expressions.
pub(crate) const MAX_DEPTH: u8 = 100;

impl Int {
    pub(crate) fn constant(value: u64, ty: IntType) -> Self {
        Self {
            ty,
            node: Node::Const(ty.extend(value)),
            depth: 0,
        }
    }

    pub(crate) fn load(offset: u32, ty: IntType) -> Self {
        Self {
            ty,
            node: Node::Load { offset, ty },
            depth: 0,
        }
    }

    /// The number of bytes of `data`.
    pub(crate) fn len(data: Data) -> Self {
        Self {
            ty: IntType::INT,
            depth: data.depth(),
            node: Node::Len(Box::new(data)),
        }
    }

    /// `data[index]`; an element at a constant place becomes a plain load.
    pub(crate) fn element(data: Data, index: Int) -> Option<Self> {
        let ty = data.elem;
        if let (Place::Fixed { offset, len }, Some(at)) = (&data.place, index.as_const()) {
            let start = at.checked_mul(u64::from(ty.size))?;
            let end = start.checked_add(u64::from(ty.size))?;
            return (end <= u64::from(*len)).then(|| Self::load(offset + start as u32, ty));
        }
        let depth = deeper(data.depth().max(index.depth))?;
        Some(Self {
            ty,
            node: Node::Element(Box::new((data, index))),
            depth,
        })
    }

    pub(crate) fn cast(self, ty: IntType) -> Option<Self> {
        if ty == self.ty {
            return Some(self);
        }
        let depth = deeper(self.depth)?;
        Some(
            Self {
                ty,
                node: Node::Cast(Box::new(self)),
                depth,
            }
            .folded(),
        )
    }

    pub(crate) fn unary(op: UnaryOp, operand: Self) -> Option<Self> {
        let ty = match op {
            UnaryOp::Not => IntType::INT,
            UnaryOp::SwapBytes => operand.ty,
            UnaryOp::Neg | UnaryOp::BitNot => operand.ty.promoted(),
        };
        let depth = deeper(operand.depth)?;
        Some(
            Self {
                ty,
                node: Node::Unary(op, Box::new(operand)),
                depth,
            }
            .folded(),
        )
    }

    pub(crate) fn binary(op: BinaryOp, a: Self, b: Self) -> Option<Self> {
        use BinaryOp::*;
        let inner = match op {
            Shl | Shr => a.ty.promoted(),
            _ => a.ty.common(b.ty),
        };
        let ty = match op {
            Less | LessEq | Greater | GreaterEq | Eq | NotEq | LogicAnd | LogicOr => IntType::INT,
            _ => inner,
        };
        let depth = deeper(a.depth.max(b.depth))?;
        Some(
            Self {
                ty,
                node: Node::Binary(op, inner, Box::new((a, b))),
                depth,
            }
            .folded(),
        )
    }

    pub(crate) fn cond(test: Self, yes: Self, no: Self) -> Option<Self> {
        let ty = yes.ty.common(no.ty);
        if let Some(value) = test.as_const() {
            return if value != 0 {
                yes.cast(ty)
            } else {
                no.cast(ty)
            };
        }
        let depth = deeper(test.depth.max(yes.depth).max(no.depth))?;
        Some(Self {
            ty,
            node: Node::Cond(Box::new((test, yes, no))),
            depth,
        })
    }

    pub(crate) fn as_const(&self) -> Option<u64> {
        match self.node {
            Node::Const(value) => Some(value),
            _ => None,
        }
    }

    /// The word that this expression reads, if it does only that: (offset, type of the word).
    pub(crate) fn as_load(&self) -> Option<(u32, IntType)> {
        match &self.node {
            Node::Load { offset, ty } => Some((*offset, *ty)),
            Node::Cast(inner) if inner.ty.size == self.ty.size => inner.as_load(),
            _ => None,
        }
    }

    /// A constant if all operands are.
    fn folded(self) -> Self {
        let is_const = match &self.node {
            Node::Cast(a) | Node::Unary(_, a) => a.as_const().is_some(),
            Node::Binary(_, _, ab) => ab.0.as_const().is_some() && ab.1.as_const().is_some(),
            _ => false,
        };
        if is_const {
            Self::constant(self.eval(&[]), self.ty)
        } else {
            self
        }
    }

    /// The value for `record`, extended to 64 bits.
    pub(crate) fn eval(&self, record: &[u8]) -> u64 {
        match &self.node {
            Node::Const(value) => *value,
            Node::Load { offset, ty } => record::load(record, *offset as usize, *ty),
            Node::Element(pair) => pair.0.element(record, pair.1.eval(record)),
            Node::Len(data) => data.bytes(record).len() as u64,
            Node::Cast(inner) => self.ty.extend(inner.eval(record)),
            Node::Unary(op, a) => self.ty.extend(op.apply(self.ty, a.eval(record))),
            Node::Binary(op, ty, ab) => match op {
                BinaryOp::LogicAnd => u64::from(ab.0.eval(record) != 0 && ab.1.eval(record) != 0),
                BinaryOp::LogicOr => u64::from(ab.0.eval(record) != 0 || ab.1.eval(record) != 0),
                _ => self
                    .ty
                    .extend(op.apply(*ty, ab.0.eval(record), ab.1.eval(record))),
            },
            Node::Cond(abc) => {
                let chosen = if abc.0.eval(record) != 0 {
                    &abc.1
                } else {
                    &abc.2
                };
                self.ty.extend(chosen.eval(record))
            }
        }
    }
}

fn deeper(depth: u8) -> Option<u8> {
    (depth < MAX_DEPTH).then_some(depth + 1)
}

impl UnaryOp {
    fn apply(self, ty: IntType, a: u64) -> u64 {
        match self {
            Self::SwapBytes => a.swap_bytes() >> (64 - 8 * u32::from(ty.size)),
            Self::Neg => a.wrapping_neg(),
            Self::BitNot => !a,
            Self::Not => u64::from(a == 0),
        }
    }
}

impl BinaryOp {
    /// `a OP b` in type `ty`. Division by zero gives 0; shift counts are taken modulo the
    /// width, as x86 does.
    fn apply(self, ty: IntType, a: u64, b: u64) -> u64 {
        let (x, y) = (ty.extend(a), ty.extend(b));
        match self {
            Self::Add => x.wrapping_add(y),
            Self::Sub => x.wrapping_sub(y),
            Self::Mul => x.wrapping_mul(y),
            Self::Div if y == 0 => 0,
            Self::Rem if y == 0 => 0,
            Self::Div if ty.signed => (x as i64).wrapping_div(y as i64) as u64,
            Self::Rem if ty.signed => (x as i64).wrapping_rem(y as i64) as u64,
            Self::Div => x / y,
            Self::Rem => x % y,
            Self::Shl => x << (b & shift_mask(ty)),
            Self::Shr if ty.signed => (x as i64 >> (b & shift_mask(ty))) as u64,
            Self::Shr => x >> (b & shift_mask(ty)),
            Self::And => x & y,
            Self::Or => x | y,
            Self::Xor => x ^ y,
            Self::LogicAnd => u64::from(x != 0 && y != 0),
            Self::LogicOr => u64::from(x != 0 || y != 0),
            _ => u64::from(self.compares(ty, x, y)),
        }
    }

    fn compares(self, ty: IntType, x: u64, y: u64) -> bool {
        let order = if ty.signed {
            (x as i64).cmp(&(y as i64))
        } else {
            x.cmp(&y)
        };
        match self {
            Self::Less => order.is_lt(),
            Self::LessEq => order.is_le(),
            Self::Greater => order.is_gt(),
            Self::GreaterEq => order.is_ge(),
            Self::NotEq => order.is_ne(),
            _ => order.is_eq(),
        }
    }
}

fn shift_mask(ty: IntType) -> u64 {
    u64::from(ty.size) * 8 - 1
}

/// Bytes of the record: an array, or the place of a field.
#[derive(Debug, Clone)]
pub(crate) struct Data {
    pub(crate) place: Place,
    /// The type of one element.
    pub(crate) elem: IntType,
}

/// Where bytes of the record lie.
#[derive(Debug, Clone)]
pub(crate) enum Place {
    /// At a fixed offset.
    Fixed { offset: u32, len: u32 },
    /// Where a `__data_loc` or `__rel_loc` word says.
    Dynamic { offset: u32, is_relative: bool },
    /// From an offset to the end of the record.
    Flexible { offset: u32 },
    /// Some bytes into another place: `data + n`.
    Advanced(Box<(Data, Int)>),
}

impl Data {
    fn depth(&self) -> u8 {
        match &self.place {
            Place::Advanced(inner) => inner.0.depth().max(inner.1.depth).saturating_add(1),
            _ => 0,
        }
    }

    /// `self + index`, counted in elements.
    pub(crate) fn advanced(self, index: Int) -> Option<Self> {
        let elem = self.elem;
        let size = Int::constant(u64::from(elem.size), IntType::LONG);
        let offset = Int::binary(BinaryOp::Mul, index, size)?;
        let data = Self {
            elem,
            place: Place::Advanced(Box::new((self, offset))),
        };
        (data.depth() < MAX_DEPTH).then_some(data)
    }

    /// The bytes, as far as the record has them.
    #[inline]
    pub(crate) fn bytes<'a>(&self, record: &'a [u8]) -> &'a [u8] {
        match &self.place {
            Place::Fixed { offset, len } => record::slice(record, *offset as usize, *len as usize),
            Place::Dynamic {
                offset,
                is_relative,
            } => record::dynamic(record, *offset as usize, *is_relative),
            Place::Flexible { offset } => record::slice(record, *offset as usize, usize::MAX),
            Place::Advanced(inner) => {
                let skipped = usize::try_from(inner.1.eval(record)).unwrap_or(usize::MAX);
                inner.0.bytes(record).get(skipped..).unwrap_or_default()
            }
        }
    }

    fn element(&self, record: &[u8], index: u64) -> u64 {
        let start = index.saturating_mul(u64::from(self.elem.size));
        let start = usize::try_from(start).unwrap_or(usize::MAX);
        record::load(self.bytes(record), start, self.elem)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn int(value: i64) -> Int {
        Int::constant(value as u64, IntType::INT)
    }

    #[test]
    fn comparisons_follow_the_common_type() {
        let minus_one = int(-1);
        let one = Int::constant(1, IntType::UINT);
        let less = Int::binary(BinaryOp::Less, minus_one.clone(), one).unwrap();
        assert_eq!(less.as_const(), Some(0), "-1 < 1u is false in C");
        let less = Int::binary(BinaryOp::Less, minus_one, int(1)).unwrap();
        assert_eq!(less.as_const(), Some(1));
    }

    #[test]
    fn arithmetic_wraps_at_its_type() {
        let big = Int::constant(0xffff_ffff, IntType::UINT);
        let sum = Int::binary(BinaryOp::Add, big, int(1)).unwrap();
        assert_eq!((sum.as_const(), sum.ty), (Some(0), IntType::UINT));
        let zero = Int::binary(BinaryOp::Div, int(1), int(0)).unwrap();
        assert_eq!(zero.as_const(), Some(0));
        let min = Int::constant(i64::MIN as u64, IntType::LONG);
        let quotient = Int::binary(BinaryOp::Div, min, int(-1)).unwrap();
        assert_eq!(quotient.as_const(), Some(i64::MIN as u64));
        let shifted = Int::binary(BinaryOp::Shr, int(-8), int(1)).unwrap();
        assert_eq!(shifted.as_const(), Some((-4i64) as u64));
    }

    #[test]
    fn expressions_that_are_too_deep_are_refused() {
        let mut expr = Int::load(0, IntType::INT);
        for _ in 0..MAX_DEPTH {
            expr = Int::unary(UnaryOp::Neg, expr).unwrap();
        }
        assert!(Int::unary(UnaryOp::Neg, expr).is_none());
    }
}
