//! Where an area lives.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use crate::Error;

/// What [`Error::BadBacking`] says is valid.
pub(crate) const HELP: &str = "valid are file, file:/PATH, tmpfs, tmpfs:/PATH, hugetlbfs:/PATH, \
     dax:/PATH, devdax:/dev/daxR.N and mem:0xADDRESS";

/// The first words of a backing's text.
const WORDS: [&str; 6] = ["file", "tmpfs", "hugetlbfs", "dax", "devdax", "mem"];

/// Where an area lives, and so what it survives.
///
/// | text | survives the process | the host going down |
/// | --- | --- | --- |
/// | `file`, `file:/PATH` | yes | what was written back |
/// | `tmpfs`, `tmpfs:/PATH`, `hugetlbfs:/PATH` | yes | no |
/// | `dax:/PATH`, `devdax:/dev/daxR.N` | yes | yes, on persistent memory |
/// | `mem:0xADDRESS` | yes | a warm reboot, if the firmware leaves the memory alone |
///
/// Paths are absolute, since the next start may run in another folder. A path to a folder that
/// exists means the file in it that has the area's name.
///
/// ```
/// use outlive_trace::Backing;
///
/// let backing: Backing = "mem:0x284500000".parse()?;
/// assert_eq!(backing, Backing::DevMem { address: 0x2_8450_0000 });
/// assert_eq!(backing.to_string(), "mem:0x284500000");
/// # Ok::<(), outlive_trace::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Backing {
    /// A file in the state folder: the default.
    #[default]
    File,
    /// A file anywhere.
    Path(PathBuf),
    /// A file on a tmpfs; without a path in a folder of our own under `/dev/shm`.
    Tmpfs(Option<PathBuf>),
    /// A file on a hugetlbfs.
    Hugetlbfs(PathBuf),
    /// A file on a file system with DAX.
    DaxFile(PathBuf),
    /// A device-DAX node.
    DevDax(PathBuf),
    /// Physical memory through `/dev/mem`.
    DevMem {
        /// Physical address of the first byte.
        address: u64,
    },
}

impl Backing {
    /// The first word of the text: `file`, `tmpfs`, `hugetlbfs`, `dax`, `devdax` or `mem`.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::File | Self::Path(_) => "file",
            Self::Tmpfs(_) => "tmpfs",
            Self::Hugetlbfs(_) => "hugetlbfs",
            Self::DaxFile(_) => "dax",
            Self::DevDax(_) => "devdax",
            Self::DevMem { .. } => "mem",
        }
    }

    /// The path in the text, if there is one.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::File | Self::DevMem { .. } => None,
            Self::Tmpfs(path) => path.as_deref(),
            Self::Path(path) | Self::Hugetlbfs(path) | Self::DaxFile(path) | Self::DevDax(path) => {
                Some(path)
            }
        }
    }
}

impl fmt::Display for Backing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())?;
        match (self, self.path()) {
            (Self::DevMem { address }, _) => write!(f, ":{address:#x}"),
            (_, Some(path)) => write!(f, ":{}", path.display()),
            _ => Ok(()),
        }
    }
}

impl FromStr for Backing {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        parse(text).map_err(|why| Error::BadBacking {
            text: text.to_owned(),
            why,
        })
    }
}

fn parse(text: &str) -> Result<Backing, String> {
    let (word, rest) = match text.split_once(':') {
        Some((word, rest)) => (word, Some(rest)),
        None => (text, None),
    };
    match (word, rest) {
        ("file", None) => Ok(Backing::File),
        ("file", Some(path)) => parse_path(path).map(Backing::Path),
        ("tmpfs", None) => Ok(Backing::Tmpfs(None)),
        ("tmpfs", Some(path)) => parse_path(path).map(|path| Backing::Tmpfs(Some(path))),
        ("hugetlbfs", Some(path)) => parse_path(path).map(Backing::Hugetlbfs),
        ("dax", Some(path)) => parse_path(path).map(Backing::DaxFile),
        ("devdax", Some(path)) => parse_path(path).map(Backing::DevDax),
        ("mem", Some(address)) => parse_address(address).map(|address| Backing::DevMem { address }),
        (word, None) if WORDS.contains(&word) => {
            Err(format!("{word} needs a place behind a colon"))
        }
        (word, _) => Err(unknown_word(word)),
    }
}

fn unknown_word(word: &str) -> String {
    let near = |known: &&&str| word.len() < 16 && strsim::damerau_levenshtein(word, known) <= 2;
    match WORDS.iter().find(near) {
        Some(known) => format!("there is no {word:?}, did you mean {known:?}?"),
        None => format!("there is no {word:?}"),
    }
}

fn parse_path(text: &str) -> Result<PathBuf, String> {
    if text.contains('\0') {
        Err("a path cannot have a NUL".to_owned())
    } else if text.starts_with('/') {
        Ok(PathBuf::from(text))
    } else {
        Err(format!("the path {text:?} does not start with a slash"))
    }
}

/// A physical address: hexadecimal with `0x`, else decimal; all of the text.
fn parse_address(text: &str) -> Result<u64, String> {
    let address = match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(digits) if !digits.starts_with('+') => u64::from_str_radix(digits, 16).ok(),
        None if !text.starts_with('+') => text.parse().ok(),
        _ => None,
    };
    match address {
        Some(0) => Err("the address cannot be 0".to_owned()),
        Some(address) => Ok(address),
        None => Err(format!("{text:?} is no address of 64 bits")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn refusal(text: &str) -> String {
        text.parse::<Backing>().unwrap_err().to_string()
    }

    #[test]
    fn each_backing_is_read() {
        let path = PathBuf::from("/x/y");
        for (text, backing) in [
            ("file", Backing::File),
            ("file:/x/y", Backing::Path(path.clone())),
            ("tmpfs", Backing::Tmpfs(None)),
            ("tmpfs:/x/y", Backing::Tmpfs(Some(path.clone()))),
            ("hugetlbfs:/x/y", Backing::Hugetlbfs(path.clone())),
            ("dax:/x/y", Backing::DaxFile(path.clone())),
            ("devdax:/x/y", Backing::DevDax(path)),
            (
                "mem:0x284500000",
                Backing::DevMem {
                    address: 0x2_8450_0000,
                },
            ),
            ("mem:4096", Backing::DevMem { address: 4096 }),
        ] {
            assert_eq!(text.parse::<Backing>().unwrap(), backing, "{text}");
        }
    }

    #[test]
    fn refusal_lists_what_is_valid_and_the_nearest_word() {
        assert_eq!(
            refusal("hugetlb:/x"),
            "backing \"hugetlb:/x\": there is no \"hugetlb\", did you mean \"hugetlbfs\"?; valid \
             are file, file:/PATH, tmpfs, tmpfs:/PATH, hugetlbfs:/PATH, dax:/PATH, \
             devdax:/dev/daxR.N and mem:0xADDRESS"
        );
    }

    #[test]
    fn refusal_says_what_is_missing() {
        assert!(refusal("dax").contains("dax needs a place behind a colon"));
        assert!(refusal("file:area").contains("does not start with a slash"));
        assert!(refusal("file:").contains("does not start with a slash"));
        assert!(refusal("mem:").contains("is no address"));
        assert!(refusal("mem:0x0").contains("cannot be 0"));
        assert!(refusal("mem:0x1ffffffffffffffff").contains("64 bits"));
        assert!(refusal("mem:+5").contains("is no address"));
        assert!(refusal("").contains("there is no \"\""));
    }

    fn backings() -> impl Strategy<Value = Backing> {
        let path = "/[a-z:/ =.]{0,20}".prop_map(PathBuf::from).boxed();
        prop_oneof![
            Just(Backing::File),
            Just(Backing::Tmpfs(None)),
            path.clone().prop_map(Backing::Path),
            path.clone().prop_map(|path| Backing::Tmpfs(Some(path))),
            path.clone().prop_map(Backing::Hugetlbfs),
            path.clone().prop_map(Backing::DaxFile),
            path.prop_map(Backing::DevDax),
            (1..u64::MAX).prop_map(|address| Backing::DevMem { address }),
        ]
    }

    proptest! {
        #[test]
        fn text_of_a_backing_is_read_back(backing in backings()) {
            prop_assert_eq!(backing.to_string().parse::<Backing>().unwrap(), backing);
        }

        #[test]
        fn any_text_is_read_or_refused(text in ".{0,40}") {
            if let Ok(backing) = text.parse::<Backing>() {
                prop_assert_eq!(backing.to_string().parse::<Backing>().unwrap(), backing);
            }
        }
    }
}
