//! Shell patterns over event names.

/// Whether `name` matches `pattern`: `*` stands for any text, `?` for one character, `[a-z]` for
/// one of a set, `[!a-z]` for one outside it. A `[` that is never closed stands for itself.
///
/// Takes at most the product of both lengths: at a mismatch only the last `*` is tried again.
pub(super) fn glob_match(pattern: &str, name: &str) -> bool {
    let (mut pattern, mut name) = (pattern, name);
    let mut retry: Option<(&str, &str)> = None;
    loop {
        if let Some(behind) = pattern.strip_prefix('*') {
            retry = Some((behind, name));
            pattern = behind;
        } else if let Some((p, n)) = match_one(pattern, name) {
            (pattern, name) = (p, n);
        } else if pattern.is_empty() && name.is_empty() {
            return true;
        } else {
            // The last `*` takes one more character, if there is one.
            let Some((behind, from)) = retry else {
                return false;
            };
            let mut chars = from.chars();
            if chars.next().is_none() {
                return false;
            }
            retry = Some((behind, chars.as_str()));
            (pattern, name) = (behind, chars.as_str());
        }
    }
}

/// Matches one character; what is left of both, if it does.
fn match_one<'p, 'n>(pattern: &'p str, name: &'n str) -> Option<(&'p str, &'n str)> {
    let mut name_chars = name.chars();
    let c = name_chars.next()?;
    let mut pattern_chars = pattern.chars();
    let is_match = match pattern_chars.next()? {
        '?' => true,
        '[' => match set(pattern_chars.as_str()) {
            Some((members, behind)) => {
                pattern_chars = behind.chars();
                is_in_set(members, c)
            }
            None => c == '[',
        },
        literal => literal == c,
    };
    is_match.then_some((pattern_chars.as_str(), name_chars.as_str()))
}

/// The members of a set whose `[` is already taken, and what is behind its `]`. A `]` that comes
/// first is a member.
fn set(behind_bracket: &str) -> Option<(&str, &str)> {
    let negation = usize::from(behind_bracket.starts_with('!'));
    let first_len = behind_bracket[negation..].chars().next()?.len_utf8();
    let from = negation + first_len;
    let close = from + behind_bracket[from..].find(']')?;
    Some((&behind_bracket[..close], &behind_bracket[close + 1..]))
}

/// Whether a set such as `a-z_` or `!0-9` has `c`.
fn is_in_set(members: &str, c: char) -> bool {
    let (is_negated, members) = match members.strip_prefix('!') {
        Some(rest) => (true, rest),
        None => (false, members),
    };
    let mut rest = members.chars();
    let mut is_member = false;
    while let Some(low) = rest.next() {
        let mut ahead = rest.clone();
        match (ahead.next(), ahead.next()) {
            (Some('-'), Some(high)) => {
                is_member |= (low..=high).contains(&c);
                rest = ahead;
            }
            _ => is_member |= low == c,
        }
    }
    is_member != is_negated
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn star_stands_for_any_text() {
        for (pattern, name) in [
            ("*", ""),
            ("*", "x"),
            ("sched_*", "sched_"),
            ("*_w*p", "sched_wakeup"),
            ("a*b*c", "abbcc"),
        ] {
            assert!(glob_match(pattern, name), "{pattern} {name}");
        }
        for (pattern, name) in [("sched_*", "sched"), ("*x", "y"), ("a*b", "abc"), ("", "x")] {
            assert!(!glob_match(pattern, name), "{pattern} {name}");
        }
    }

    #[test]
    fn question_mark_and_sets_stand_for_one_character() {
        for (pattern, name) in [
            ("?", "é"),
            ("irq_[a-e]x", "irq_cx"),
            ("[!0-9]", "x"),
            ("[]]", "]"),
            ("[a-]", "-"),
            ("[x", "[x"),
        ] {
            assert!(glob_match(pattern, name), "{pattern} {name}");
        }
        for (pattern, name) in [
            ("?", ""),
            ("?", "ab"),
            ("[a-e]", "f"),
            ("[!0-9]", "3"),
            ("[]", "x"),
        ] {
            assert!(!glob_match(pattern, name), "{pattern} {name}");
        }
    }

    #[test]
    fn many_stars_do_not_take_exponential_time() {
        let pattern = "*a".repeat(200) + "b";
        assert!(!glob_match(&pattern, &"a".repeat(4000)));
    }
}
