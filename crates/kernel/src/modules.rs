//! The kernel's modules: where the code lies that addresses in events may point to.

use std::path::Path;

use crate::error::Error;
use crate::tracefs::read_text;

/// Where the kernel lists its modules.
pub(crate) const MODULES: &str = "/proc/modules";

/// A loaded module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Module {
    /// Its name.
    pub name: String,
    /// Its size, in bytes.
    pub size: u64,
    /// Where it begins; `None` where `kptr_restrict` hides it.
    pub address: Option<u64>,
}

/// The modules that are loaded, as `/proc/modules` lists them. A kernel without modules has none.
///
/// # Errors
/// The file is there but cannot be read.
pub fn loaded_modules() -> Result<Vec<Module>, Error> {
    modules_in(Path::new(MODULES))
}

pub(crate) fn modules_in(path: &Path) -> Result<Vec<Module>, Error> {
    match read_text(path) {
        Ok(text) => Ok(text.lines().filter_map(parse_module).collect()),
        Err(e) if e.is_not_found() => Ok(Vec::new()),
        Err(e) => Err(e),
    }
}

/// `ext4 1146880 1 mbcache,jbd2, Live 0xffffffffc0400000`
fn parse_module(line: &str) -> Option<Module> {
    let fields: Vec<_> = line.split(' ').collect();
    let (name, size) = (fields.first()?, fields.get(1)?.parse().ok()?);
    let address = u64::from_str_radix(fields.get(5)?.strip_prefix("0x")?, 16).ok()?;
    Some(Module {
        name: (*name).to_owned(),
        size,
        address: (address != 0).then_some(address),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn module_line_has_name_size_and_address() {
        let module = parse_module("ext4 1146880 1 mbcache,jbd2, Live 0xffffffffc0400000").unwrap();
        assert_eq!((module.name.as_str(), module.size), ("ext4", 1_146_880));
        assert_eq!(module.address, Some(0xffff_ffff_c040_0000));
        assert_eq!(
            parse_module("ext4 1 0 - Live 0x0000000000000000")
                .unwrap()
                .address,
            None
        );
        assert_eq!(parse_module("garbage"), None);
    }

    #[test]
    fn this_kernel_lists_its_modules_or_has_none() {
        loaded_modules().unwrap();
    }
}
