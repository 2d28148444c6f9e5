//! A catalog from a copy of a tracefs `events` folder.

use std::fs::{self, FileType};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::Catalog;
use crate::constants::Constants;
use crate::error::CatalogError;
use crate::header_page::HeaderPage;

impl Catalog {
    /// Reads a tracefs `events` folder, or a copy of one: `SYSTEM/EVENT/format`, `header_page`,
    /// `header_event`.
    ///
    /// Beside it, in the folder or in its parent, `printk_formats`, `saved_cmdlines`,
    /// `saved_tgids`, `kallsyms`, `btf` (a copy of `/sys/kernel/btf`) and `constants` (lines of
    /// `NAME = NUMBER`) are read if they are there. A `format` file that does not
    /// parse is skipped and noted in [`skipped_formats`](Self::skipped_formats).
    ///
    /// # Errors
    ///
    /// A folder or file that cannot be read.
    pub fn from_events_dir(path: impl AsRef<Path>) -> Result<Self, CatalogError> {
        let path = path.as_ref();
        let mut catalog = Self::new();
        for system in folders(path)? {
            for event in folders(&system)? {
                catalog.read_format(&system, &event.join("format"))?;
            }
        }
        let header_page = read_optional(&path.join("header_page"))?;
        catalog.header_page = header_page.map(|text| HeaderPage::parse(&lossy(text)));
        catalog.header_event = read_optional(&path.join("header_event"))?.map(lossy);
        catalog.read_siblings(path)?;
        Ok(catalog)
    }

    fn read_format(&mut self, system: &Path, file: &Path) -> Result<(), CatalogError> {
        let Some(text) = read_optional(file)? else {
            return Ok(());
        };
        let system = system.file_name().unwrap_or_default().to_string_lossy();
        if let Err(error) = self.add_format(&system, &lossy(text)) {
            self.skipped_formats.push(error);
        }
        Ok(())
    }

    /// Looks names in the print formats up in a folder of BTF files, `/sys/kernel/btf` or a copy
    /// of it; nothing happens if there is none.
    ///
    /// # Errors
    ///
    /// The folder or a file in it cannot be read.
    pub fn read_btf(&mut self, path: impl AsRef<Path>) -> Result<(), CatalogError> {
        let names = self.events().flat_map(|e| e.unresolved_names()).collect();
        for (name, value) in Constants::from_btf_dir(path, &names)?.iter() {
            self.constants.set(name, value);
        }
        Ok(())
    }

    fn read_siblings(&mut self, path: &Path) -> Result<(), CatalogError> {
        for folder in [Some(path), path.parent()].into_iter().flatten() {
            if let Some(text) = read_optional(&folder.join("printk_formats"))? {
                self.parse_printk_formats(&lossy(text));
            }
            if let Some(text) = read_optional(&folder.join("saved_cmdlines"))? {
                self.parse_saved_cmdlines(&text);
            }
            if let Some(text) = read_optional(&folder.join("saved_tgids"))? {
                self.parse_saved_tgids(&lossy(text));
            }
            if let Some(text) = read_optional(&folder.join("kallsyms"))? {
                self.parse_kallsyms(&lossy(text));
            }
            if let Some(text) = read_optional(&folder.join("constants"))? {
                self.parse_constants(&lossy(text));
            }
            self.read_btf(folder.join("btf"))?;
        }
        Ok(())
    }
}

fn lossy(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap_or_else(|e| String::from_utf8_lossy(e.as_bytes()).into_owned())
}

/// The folders in `path`, sorted by name.
fn folders(path: &Path) -> Result<Vec<PathBuf>, CatalogError> {
    entries(path, FileType::is_dir)
}

/// The files in `path`, sorted by name.
pub(crate) fn files(path: &Path) -> Result<Vec<PathBuf>, CatalogError> {
    entries(path, FileType::is_file)
}

fn entries(path: &Path, is: fn(&FileType) -> bool) -> Result<Vec<PathBuf>, CatalogError> {
    let at = |error| CatalogError::Io {
        path: path.to_owned(),
        error,
    };
    let mut found = Vec::new();
    for entry in fs::read_dir(path).map_err(at)? {
        let entry = entry.map_err(at)?;
        if is(&entry.file_type().map_err(at)?) {
            found.push(entry.path());
        }
    }
    found.sort();
    Ok(found)
}

/// A file's bytes; `None` if there is no such file.
pub(crate) fn read_optional(path: &Path) -> Result<Option<Vec<u8>>, CatalogError> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            Ok(None)
        }
        Err(error) => Err(CatalogError::Io {
            path: path.to_owned(),
            error,
        }),
    }
}
