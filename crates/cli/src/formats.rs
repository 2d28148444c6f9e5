//! The formats that `export` writes, and which of them is asked for.

use std::path::Path;

use outlive_export::{FORMATS, Format};

/// That of the crate which the feature `parquet` adds.
#[cfg(feature = "parquet")]
const ADDED: &[Format] = &[outlive_parquet::FORMAT];
#[cfg(not(feature = "parquet"))]
const ADDED: &[Format] = &[];

/// What is said of Parquet where it is not among the formats.
const NOT_BUILT: &str = "this outlive was built without Parquet; \
    `cargo build --release -p outlive-cli --features parquet` builds one that has it";

/// All formats of this build.
pub(crate) fn all() -> impl Iterator<Item = &'static Format> + Clone {
    FORMATS.iter().chain(ADDED)
}

/// The format of a name, as `--format` gives it.
pub(crate) fn named(name: &str) -> Result<&'static Format, String> {
    let found = all().find(|format| format.name == name);
    found.ok_or_else(|| match name {
        "parquet" => NOT_BUILT.to_owned(),
        _ => format!("expected one of {}", names()),
    })
}

/// The format that a file's name asks for by the longest ending that fits.
pub(crate) fn of_path(path: &Path) -> Result<&'static Format, String> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let fits = |ending: &&&str| {
        let stem = name.strip_suffix(**ending);
        stem.is_some_and(|stem| stem.ends_with('.'))
    };
    let endings =
        all().flat_map(|format| format.endings.iter().map(move |ending| (format, ending)));
    let longest = endings
        .filter(|(_, ending)| fits(ending))
        .max_by_key(|(_, ending)| ending.len());
    let found = longest.map(|(format, _)| format);
    found.ok_or_else(|| match path.extension() {
        Some(ending) if ending == "parquet" => NOT_BUILT.to_owned(),
        _ => format!(
            "{} has no ending that says which format is wanted; --format F does: {}",
            path.display(),
            names()
        ),
    })
}

fn names() -> String {
    let names: Vec<&str> = all().map(|format| format.name).collect();
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parquet_is_a_format_or_it_is_said_how_to_build_with_it() {
        let has_it = all().any(|format| format.name == "parquet");
        let asked = [named("parquet"), of_path(Path::new("out/trace.parquet"))];
        for asked in asked {
            match asked {
                Ok(format) => assert!(has_it && format.is_folder),
                Err(said) => {
                    assert!(!has_it);
                    assert!(said.contains("--features parquet"), "{said}");
                }
            }
        }
    }
}
