//! How the running kernel was configured.

use std::io::Read;

use super::system::System;

/// The text of a kernel's configuration, and the file that it is from.
#[derive(Clone, Debug, Default)]
pub(crate) struct KernelConfig {
    text: String,
    /// Where it was found; `None` if nowhere.
    pub(crate) origin: Option<String>,
}

impl KernelConfig {
    /// Of the running kernel, with this release: from itself, or from where distributions keep it.
    pub(crate) fn read(system: &System, release: &str) -> Self {
        let of_itself = system.bytes("/proc/config.gz").and_then(|bytes| {
            let mut text = String::new();
            let mut unpacked = flate2::read::GzDecoder::new(&*bytes);
            unpacked.read_to_string(&mut text).ok()?;
            Some(("/proc/config.gz".to_owned(), text))
        });
        let beside = || {
            let places = [
                format!("/boot/config-{release}"),
                format!("/lib/modules/{release}/config"),
                format!("/usr/lib/modules/{release}/config"),
            ];
            places
                .into_iter()
                .find_map(|place| Some((place.clone(), system.text(&place)?)))
        };
        match of_itself.or_else(beside) {
            Some((origin, text)) => Self {
                text,
                origin: Some(origin),
            },
            None => Self::default(),
        }
    }

    /// Whether an option is built in or a module; `None` if nothing is known.
    pub(crate) fn has(&self, option: &str) -> Option<bool> {
        self.origin.as_ref()?;
        let value = self.text.lines().find_map(|line| {
            let (name, value) = line.strip_prefix("CONFIG_")?.split_once('=')?;
            (name == option).then_some(value)
        });
        Some(matches!(value, Some("y" | "m")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_found_by_their_whole_name() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("boot")).unwrap();
        let text = "CONFIG_DEVMEM=y\n# CONFIG_STRICT_DEVMEM is not set\nCONFIG_FS_DAX=m\n";
        std::fs::write(folder.path().join("boot/config-1.2"), text).unwrap();
        let config = KernelConfig::read(&System::at(folder.path()), "1.2");
        assert_eq!(config.origin.as_deref(), Some("/boot/config-1.2"));
        assert_eq!(config.has("DEVMEM"), Some(true));
        assert_eq!(config.has("FS_DAX"), Some(true));
        assert_eq!(config.has("STRICT_DEVMEM"), Some(false));
        assert_eq!(config.has("DEV"), Some(false));
        let none = KernelConfig::read(&System::at(folder.path()), "1.3");
        assert_eq!((none.origin.as_deref(), none.has("DEVMEM")), (None, None));
    }
}
