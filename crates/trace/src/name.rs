//! Names that become files and folders.

use crate::Error;

/// Suffix of an area file that is being prepared, not only in our own folders: hence this long.
pub(crate) const PREPARED: &str = ".outlive-new";

/// Suffix of a blank area file that the next start will use: see [`spare`](crate::spare).
pub(crate) const SPARE: &str = ".outlive-spare";

/// Suffix of an area file that is kept, and not copied yet: see [`generation`](crate::generation).
pub(crate) const SET_ASIDE: &str = ".outlive-kept";

/// Suffix of the file that counts areas which made room: see [`beside`](crate::beside).
pub(crate) const REMOVED: &str = ".outlive-removed";

/// Longest name in bytes: a file name may have 255, and our suffixes need some.
const LEN_MAX: usize = 200;

/// Checks that `name` can be a file or folder of ours. The kernel checks no name of an area or an
/// instance: a `/` in one fails only when its folder is made.
pub(crate) fn check(name: &str) -> Result<&str, Error> {
    match problem(name) {
        None => Ok(name),
        Some(why) => Err(Error::BadName {
            name: name.to_owned(),
            why,
        }),
    }
}

fn problem(name: &str) -> Option<&'static str> {
    if name.is_empty() {
        Some("it is empty")
    } else if name.len() > LEN_MAX {
        Some("it has more than 200 bytes")
    } else if name.starts_with('.') {
        Some("it starts with a dot")
    } else if name.contains('/') {
        Some("it has a slash")
    } else if name.chars().any(char::is_control) {
        Some("it has a control character")
    } else if [PREPARED, SPARE, SET_ASIDE, REMOVED]
        .iter()
        .any(|suffix| name.ends_with(suffix))
    {
        Some("it ends in .outlive-new, .outlive-spare, .outlive-kept or .outlive-removed")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_could_leave_their_folder_are_refused() {
        for name in ["", ".", "..", "../x", "a/b", "/", ".hidden", "a\0b", "a\nb"] {
            assert!(check(name).is_err(), "{name:?}");
        }
    }

    #[test]
    fn names_that_clash_with_our_own_are_refused() {
        for suffix in [PREPARED, SPARE, SET_ASIDE, REMOVED] {
            assert!(check(&format!("trace{suffix}")).is_err());
        }
        assert!(check(&"x".repeat(201)).is_err());
    }

    #[test]
    fn odd_names_that_do_no_harm_are_taken() {
        for name in ["boot_mapped", "a:b", "src^x", "Spur ä", "12M", "a.new"] {
            assert_eq!(check(name).unwrap(), name);
        }
    }
}
