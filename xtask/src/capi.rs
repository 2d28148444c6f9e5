//! The C library: its header, and its installation.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::run::{cargo, has_program, output, root, run};

/// The version that makes the header: another one may write it in another way.
const CBINDGEN: &str = "0.29.4";
/// What the static library needs beside itself (`rustc --print native-static-libs`).
const PRIVATE: &str = "-lgcc_s -lutil -lrt -lpthread -lm -ldl -lc";

/// Makes the header again.
pub(crate) fn header() -> Result<()> {
    let folder = folder();
    fs::write(folder.join("include/outlive.h"), made_header()?)?;
    Ok(())
}

/// Fails if the header that is checked in is not what the sources say.
pub(crate) fn check_header() -> Result<()> {
    let path = folder().join("include/outlive.h");
    if fs::read_to_string(&path)? != made_header()? {
        bail!(
            "{} is not what the sources say; make it again: cargo xtask header",
            path.display()
        );
    }
    Ok(())
}

fn made_header() -> Result<String> {
    if !has_program("cbindgen") {
        let mut install = cargo(&["install", "--locked", "--quiet", "cbindgen", "--version"]);
        run(install.arg(CBINDGEN))?;
    }
    let version = output(Command::new("cbindgen").arg("--version"))?;
    if version.trim() != format!("cbindgen {CBINDGEN}") {
        bail!(
            "the header is made with cbindgen {CBINDGEN}, and this is {}; cargo install --locked \
             cbindgen --version {CBINDGEN}",
            version.trim()
        );
    }
    let mut command = Command::new("cbindgen");
    command.arg("--quiet").arg("--config");
    command.arg(folder().join("cbindgen.toml")).arg(folder());
    output(&mut command)
}

fn folder() -> PathBuf {
    root().join("crates/capi")
}

/// Installs the libraries with the header and the pkg-config file; builds them first, unless they are
/// built already.
pub(crate) fn capi(args: &[String]) -> Result<()> {
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let (prefix, built) = match args[..] {
        [prefix] => (prefix, build()?),
        [prefix, "--built", folder] => (prefix, folder.into()),
        _ => bail!("cargo xtask capi PREFIX [--built FOLDER], as in cargo xtask capi /usr/local"),
    };
    let prefix = std::path::absolute(prefix)?;
    let (lib, include) = (prefix.join("lib"), prefix.join("include"));
    for folder in [&include, &lib.join("pkgconfig")] {
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    }
    install(&built.join("liboutlive_capi.a"), &lib.join("liboutlive.a"))?;
    install_shared(&built.join("liboutlive_capi.so"), &lib)?;
    let header = folder().join("include/outlive.h");
    install(&header, &include.join("outlive.h"))?;
    let pc = lib.join("pkgconfig/outlive.pc");
    println!("{}", pc.display());
    fs::write(&pc, pkg_config(&prefix)?).with_context(|| format!("cannot write {}", pc.display()))
}

/// Where the libraries are, built as users want them.
fn build() -> Result<PathBuf> {
    run(&mut cargo(&[
        "build",
        "--release",
        "--package",
        "outlive-capi",
    ]))?;
    Ok(crate::run::target().join("release"))
}

/// The library under its version, and the names by which the loader (the soname, which
/// `crates/capi/build.rs` sets) and the linker find it.
fn install_shared(from: &Path, lib: &Path) -> Result<()> {
    let file = concat!("liboutlive.so.", env!("CARGO_PKG_VERSION"));
    let soname = concat!("liboutlive.so.", env!("CARGO_PKG_VERSION_MAJOR"));
    install(from, &lib.join(file))?;
    link(file, &lib.join(soname))?;
    link(soname, &lib.join("liboutlive.so"))
}

/// What was there is replaced, not written over: programs that run have it mapped.
fn install(from: &Path, to: &Path) -> Result<()> {
    remove(to)?;
    println!("{}", to.display());
    fs::copy(from, to)
        .map(drop)
        .with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))
}

fn link(target: &str, name: &Path) -> Result<()> {
    remove(name)?;
    println!("{} -> {target}", name.display());
    std::os::unix::fs::symlink(target, name)
        .with_context(|| format!("cannot make {}", name.display()))
}

fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot replace {}", path.display()))
        }
        _ => Ok(()),
    }
}

fn pkg_config(prefix: &Path) -> Result<String> {
    let text = fs::read_to_string(folder().join("outlive.pc.in"))?;
    Ok(text
        .replace("@PREFIX@", &prefix.display().to_string())
        .replace("@VERSION@", env!("CARGO_PKG_VERSION"))
        .replace("@URL@", env!("CARGO_PKG_REPOSITORY"))
        .replace("@PRIVATE@", PRIVATE))
}
