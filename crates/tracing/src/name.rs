//! Names that events may have, from names that anything may have.

use tracing_core::Metadata;

/// The name with `_` for what is no letter and no digit.
pub(crate) fn word(name: &str) -> String {
    let name = name.strip_prefix("r#").unwrap_or(name);
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let mut word: String = name
        .chars()
        .map(|c| if is_word(c) { c } else { '_' })
        .collect();
    if word.starts_with(|c: char| c.is_ascii_digit()) || word.is_empty() {
        word.insert(0, '_');
    }
    word
}

/// The event's name: what it was given, or its place.
pub(crate) fn of_event(metadata: &Metadata<'_>) -> String {
    let place = metadata.file().zip(metadata.line());
    match place {
        // What the macros call an event without a name.
        Some((file, line)) if metadata.name() == format!("event {file}:{line}") => {
            let file = file.rsplit(['/', '\\']).next().unwrap_or(file);
            let stem = file.split('.').next().unwrap_or(file);
            word(&format!("{stem}_{line}"))
        }
        _ => word(metadata.name()),
    }
}

/// Names of fields, none of them twice, and none of those that are taken.
pub(crate) fn of_fields<'a>(
    taken: &[&str],
    names: impl IntoIterator<Item = &'a str>,
) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    for name in names {
        let mut word = word(name);
        if word.starts_with("common_") {
            word.insert(0, '_');
        }
        while taken.contains(&word.as_str()) || words.contains(&word) {
            word.push('_');
        }
        words.push(word);
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_name_becomes_a_word() {
        let names = ["a", "http::server", "7up", "", "r#type", "log.file", "büß"];
        let words = names.map(word);
        assert_eq!(
            words,
            ["a", "http__server", "_7up", "_", "type", "log_file", "b__"]
        );
    }

    #[test]
    fn no_two_fields_have_the_same_name() {
        let names = ["level", "a.b", "a_b", "a-b", "common_pid"];
        assert_eq!(
            of_fields(&["level"], names),
            ["level_", "a_b", "a_b_", "a_b__", "_common_pid"]
        );
    }
}
