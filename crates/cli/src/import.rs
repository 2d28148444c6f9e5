//! `outlive import`: what others recorded becomes a generation.

use std::path::Path;

use anyhow::Result;
use outlive_import::{Imported, Source};
use outlive_trace::StateDir;

use crate::args::{Args, ImportArgs};
use crate::boot::say;
use crate::exit;
use crate::target::state_path;

/// Does what the command's arguments say.
pub(crate) fn run(args: &Args, import: &ImportArgs) -> Result<u8> {
    let source = outlive_import::open(&import.path)?;
    let state = StateDir::open(&state_path(args)?)?;
    let lock = state.try_lock_exclusive()?;
    let name = match &import.name {
        Some(name) => name.clone(),
        None => name_of(&import.path),
    };
    let mut is_all = true;
    match &source {
        Source::Recording(recording) => {
            is_all &= tell(&recording.notes);
            for buffer in &recording.buffers {
                let name = named(&name, &buffer.name);
                let imported = outlive_import::keep_buffer(
                    &state,
                    &lock,
                    recording,
                    buffer,
                    &name,
                    &import.path,
                )?;
                is_all &= tell(&imported.notes);
                say_imported(&imported);
            }
            if recording.buffers.is_empty() {
                say!("{} has no events", import.path.display());
                is_all = false;
            }
        }
        Source::Memory(image, found) => {
            is_all &= tell(&found.notes);
            for (region, number) in found.regions.iter().zip(1..) {
                let more = if number == 1 {
                    String::new()
                } else {
                    number.to_string()
                };
                let name = named(&name, &more);
                let kept = outlive_import::keep_region(&state, &lock, image, region, &name)?;
                let by = if region.has_extension {
                    "outlive"
                } else {
                    "a kernel"
                };
                say!(
                    "{kept}: a region of {by} at {:#x}, {} CPUs, {} bytes",
                    region.address,
                    region.nr_cpus,
                    region.len
                );
            }
        }
    }
    Ok(if is_all { exit::DONE } else { exit::FAILED })
}

fn say_imported(imported: &Imported) {
    say!("{}: {} events", imported.generation, imported.events);
}

/// Says what is missing, and returns whether nothing is.
fn tell(notes: &[String]) -> bool {
    notes.iter().for_each(|note| say!("{note}"));
    notes.is_empty()
}

/// The name of the file, without its ending.
fn name_of(path: &Path) -> String {
    let stem = path.file_stem().map(|stem| stem.to_string_lossy());
    let stem = stem.unwrap_or_default();
    match stem.trim_start_matches('.') {
        "" => "imported".to_owned(),
        stem => stem.to_owned(),
    }
}

/// The name of one of several.
fn named(name: &str, one: &str) -> String {
    match one {
        "" => name.to_owned(),
        one => format!("{name}.{}", one.replace('/', "_")),
    }
}
