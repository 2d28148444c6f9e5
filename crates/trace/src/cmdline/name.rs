//! Names that become folders and files: of instances, and of areas.

/// Longest name of an instance or area, bytes.
///
/// A file name has at most 255 bytes (`NAME_MAX`, `linux/limits.h`), and an instance's name is only
/// a part of some: the host instance's, a generation's.
pub(super) const NAME_LEN_MAX: usize = 128;

/// How outlive's own names end, for what is being prepared, removed, or written.
const OWN_SUFFIXES: [&str; 3] = [".new", ".removing", ".tmp"];

/// Why `name` cannot be the name of a folder of ours, if it cannot.
pub(super) fn unfit_reason(name: &str) -> Option<String> {
    if name.starts_with('.') {
        return Some("begins with a dot".into());
    }
    if name.len() > NAME_LEN_MAX {
        return Some(format!(
            "has {} bytes, at most {NAME_LEN_MAX} fit",
            name.len()
        ));
    }
    if let Some(suffix) = OWN_SUFFIXES.iter().find(|suffix| name.ends_with(*suffix)) {
        return Some(format!("ends with `{suffix}`, as outlive's own do"));
    }
    match name.chars().find(|c| is_unfit(*c))? {
        '/' => Some("has a `/`, which separates folders".into()),
        c => Some(format!(
            "has the character U+{:04X}, which cannot be seen",
            u32::from(c)
        )),
    }
}

/// Separators of folders, control characters, and characters that hide or turn around text.
fn is_unfit(c: char) -> bool {
    let is_invisible = matches!(
        c,
        '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}'
    );
    c == '/' || c.is_control() || is_invisible
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ordinary_names_are_fit() {
        for name in ["boot_mapped", "a b", "x.1", "-", "größe", "tmp"] {
            assert_eq!(unfit_reason(name), None, "{name}");
        }
    }

    #[test]
    fn names_that_lead_elsewhere_or_hide_are_unfit() {
        let long = "x".repeat(NAME_LEN_MAX + 1);
        for name in [
            ".",
            "..",
            "a/b",
            "/",
            "a\nb",
            "\0",
            "a\u{202e}b",
            "\u{7f}",
            &long,
        ] {
            assert!(unfit_reason(name).is_some(), "{name:?}");
        }
    }
}
