//! The patterns of `~`.
//!
//! A pattern without `*`, `?` and `[` is the text itself; with a `*` at one end or both ends only,
//! a start, an end or a part; else a glob, in which `[a-z]` is one of some characters, `[!a-z]`
//! none of them, and a backslash takes the next character as it is. A `!` at the start of the
//! pattern means everything else.

/// A compiled pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pattern {
    shape: Shape,
    is_inverted: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Shape {
    Whole(Box<[u8]>),
    Start(Box<[u8]>),
    End(Box<[u8]>),
    Part(Box<[u8]>),
    Glob(Box<[u8]>),
}

impl Pattern {
    /// What `==` compares with.
    pub(super) fn whole(text: &str) -> Self {
        Self {
            shape: Shape::Whole(text.as_bytes().into()),
            is_inverted: false,
        }
    }

    /// What `~` compares with.
    pub(super) fn glob(text: &str) -> Self {
        let bare = text.strip_prefix('!');
        Self {
            shape: Shape::of(bare.unwrap_or(text)),
            is_inverted: bare.is_some(),
        }
    }

    #[inline]
    pub(super) fn matches(&self, text: &[u8]) -> bool {
        self.is_inverted
            != match &self.shape {
                Shape::Whole(all) => text == &**all,
                Shape::Start(start) => text.starts_with(start),
                Shape::End(end) => text.ends_with(end),
                Shape::Part(part) => has_part(text, part),
                Shape::Glob(glob) => glob_matches(glob, text),
            }
    }
}

impl Shape {
    fn of(pattern: &str) -> Self {
        let inner = pattern.strip_prefix('*').unwrap_or(pattern);
        let inner = inner.strip_suffix('*').unwrap_or(inner);
        let has_star = (pattern.starts_with('*'), pattern.ends_with('*'));
        let literal = inner.as_bytes().into();
        if inner.contains(['*', '?', '[']) {
            return Self::Glob(pattern.as_bytes().into());
        }
        match has_star {
            (false, false) => Self::Whole(literal),
            (false, true) => Self::Start(literal),
            (true, false) => Self::End(literal),
            (true, true) => Self::Part(literal),
        }
    }
}

fn has_part(text: &[u8], part: &[u8]) -> bool {
    part.is_empty() || text.windows(part.len()).any(|w| w == part)
}

/// Matches without recursion: after a mismatch the last `*` takes one byte more.
fn glob_matches(glob: &[u8], text: &[u8]) -> bool {
    let (mut g, mut t) = (0, 0);
    let mut star = None;
    loop {
        if glob.get(g) == Some(&b'*') {
            g += 1;
            star = Some((g, t));
            continue;
        }
        let step = match (one(&glob[g..]), text.get(t)) {
            (None, None) => return true,
            (Some((class, len)), Some(&byte)) if class.has(byte) => Some(len),
            _ => None,
        };
        match (step, star) {
            (Some(len), _) => (g, t) = (g + len, t + 1),
            (None, Some((after, taken))) if taken < text.len() => {
                star = Some((after, taken + 1));
                (g, t) = (after, taken + 1);
            }
            (None, _) => return false,
        }
    }
}

/// What one byte of the text may be.
enum Class<'a> {
    Any,
    Byte(u8),
    Set {
        members: &'a [u8],
        is_inverted: bool,
    },
}

/// The first class of a glob and its length; `None` at the end.
fn one(glob: &[u8]) -> Option<(Class<'_>, usize)> {
    Some(match *glob.first()? {
        b'?' => (Class::Any, 1),
        b'[' => set(glob).unwrap_or((Class::Byte(b'['), 1)),
        b'\\' => match glob.get(1) {
            Some(&escaped) => (Class::Byte(escaped), 2),
            None => (Class::Byte(b'\\'), 1),
        },
        byte => (Class::Byte(byte), 1),
    })
}

/// `[...]` at the start of `glob`; `None` if it is not closed. A `]` right behind the start is a
/// member.
fn set(glob: &[u8]) -> Option<(Class<'_>, usize)> {
    let is_inverted = glob.get(1) == Some(&b'!');
    let start = if is_inverted { 2 } else { 1 };
    let len = glob.get(start + 1..)?.iter().position(|&b| b == b']')? + 1;
    let members = &glob[start..start + len];
    let class = Class::Set {
        members,
        is_inverted,
    };
    Some((class, start + len + 1))
}

impl Class<'_> {
    fn has(&self, byte: u8) -> bool {
        match self {
            Self::Any => true,
            Self::Byte(one) => *one == byte,
            Self::Set {
                members,
                is_inverted,
            } => *is_inverted != is_member(members, byte),
        }
    }
}

fn is_member(mut members: &[u8], byte: u8) -> bool {
    loop {
        members = match members {
            [first, b'-', last, rest @ ..] => {
                if (*first..=*last).contains(&byte) {
                    return true;
                }
                rest
            }
            [one, rest @ ..] => {
                if *one == byte {
                    return true;
                }
                rest
            }
            [] => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &str, text: &str) -> bool {
        Pattern::glob(pattern).matches(text.as_bytes())
    }

    #[test]
    fn stars_at_the_ends_take_any_text() {
        assert!(matches("true", "true") && !matches("tru", "true"));
        assert!(matches("tr*", "true") && !matches("ru*", "true"));
        assert!(matches("*ue", "true") && !matches("*tr", "true"));
        assert!(matches("*ru*", "true") && !matches("*ur*", "true"));
        assert!(matches("*", "") && matches("**", "x") && matches("", "") && !matches("", "x"));
        assert!(!matches("!true", "true") && matches("!t*", "bash"));
    }

    #[test]
    fn globs_match_inside() {
        for pattern in [
            "t?ue", "t*e", "t**e", "?*", "*t*r*", "t[a-s]ue", "*[e]", "[!x]*u?", "[t]*e",
        ] {
            assert!(matches(pattern, "true"), "{pattern}");
        }
        for pattern in [
            "t?e", "t*x", "[!t]*", "[^a]*", "[a-s]*u?", "[t", "t]*", "????r",
        ] {
            assert!(!matches(pattern, "true"), "{pattern}");
        }
        assert!(matches("[]x]?", "]a") && matches("a[b?", "a[bc") && matches("\\*?", "*x"));
        assert!(matches("a?\\", "ab\\"));
    }

    #[test]
    fn what_equals_is_taken_as_it_is() {
        assert!(Pattern::whole("tr*").matches(b"tr*") && !Pattern::whole("tr*").matches(b"true"));
        assert!(Pattern::whole("!x").matches(b"!x"));
    }

    #[test]
    fn many_stars_take_no_time() {
        let pattern = "*a".repeat(100) + "*b?";
        assert!(!matches(&pattern, &"a".repeat(2000)));
    }
}
