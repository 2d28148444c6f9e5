//! A kernel's modules, for the initramfs: unpacked, with those that they depend on, in loading order.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::{Error, Kernel};

/// The names and contents of modules and of what they depend on, those first. A driver that is built
/// in is no module.
pub(crate) fn with_dependencies(
    kernel: &Kernel,
    names: &[String],
) -> Result<Vec<(String, Vec<u8>)>, Error> {
    let mut loaded = Vec::new();
    for name in names {
        load(kernel, name, &mut loaded)?;
    }
    Ok(loaded)
}

fn load(kernel: &Kernel, name: &str, loaded: &mut Vec<(String, Vec<u8>)>) -> Result<(), Error> {
    if loaded.iter().any(|(there, _)| there == name) {
        return Ok(());
    }
    let path = find(&kernel.modules(), name).ok_or_else(|| Error::NoModule {
        kernel: kernel.version().to_owned(),
        module: name.to_owned(),
    })?;
    let module = unpack(&path)?;
    for dependency in dependencies(&module) {
        load(kernel, &dependency, loaded)?;
    }
    loaded.push((name.to_owned(), module));
    Ok(())
}

/// The file of a module below a folder. `-` and `_` are the same in a module's name.
fn find(folder: &Path, name: &str) -> Option<PathBuf> {
    let wanted = name.replace('-', "_");
    let entries = fs::read_dir(folder).ok()?.flatten().map(|e| e.path());
    let (folders, files): (Vec<_>, Vec<_>) = entries.partition(|path| path.is_dir());
    let is_it = |path: &PathBuf| {
        let file = path.file_name().unwrap_or_default().to_string_lossy();
        file.split_once(".ko")
            .is_some_and(|(stem, _)| stem.replace('-', "_") == wanted)
    };
    let found = files.into_iter().find(is_it);
    found.or_else(|| folders.iter().find_map(|folder| find(folder, name)))
}

fn unpack(path: &Path) -> Result<Vec<u8>, Error> {
    if path.extension().is_some_and(|ending| ending == "ko") {
        return fs::read(path).map_err(Error::io("cannot read", path));
    }
    let mut command = Command::new("xz");
    command.args(["--decompress", "--stdout"]).arg(path);
    let output = command
        .output()
        .map_err(Error::io("cannot run xz on", path))?;
    if !output.status.success() {
        return Err(Error::Command {
            command: format!("{command:?}"),
            told: String::from_utf8_lossy(&output.stderr).into_owned(),
        });
    }
    Ok(output.stdout)
}

/// `depends=a,b` among the strings of the module's `.modinfo`.
fn dependencies(module: &[u8]) -> Vec<String> {
    const TAG: &[u8] = b"\0depends=";
    let Some(at) = module.windows(TAG.len()).position(|w| w == TAG) else {
        return Vec::new();
    };
    let text = module[at + TAG.len()..].split(|&b| b == 0).next();
    let text = String::from_utf8_lossy(text.unwrap_or_default()).into_owned();
    let names = text.split(',').filter(|name| !name.is_empty());
    names.map(str::to_owned).collect()
}
