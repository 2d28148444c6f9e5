//! `outlive install` and `outlive uninstall`: what starts outlive early at each boot.
//!
//! Everything that is written is planned first ([`Plan`]), compared with what is there, and noted
//! in a manifest ([`Manifest`]), by which `uninstall` takes back exactly that. A file that is not
//! ours, or was changed since, is neither overwritten nor removed.

mod boot_loader;
mod manifest;
mod reserve;
mod unit;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use outlive_kernel::nr_cpu_ids;
use outlive_trace::cmdline::CommandLine;
use outlive_trace::{Backing, start};

use crate::args::{Args, InstallArgs, UninstallArgs};
use crate::boot::{self, say};
use crate::line::{self, AREAS_FILE, CMDLINE_FILE, Line};
use crate::{diagnostic, exit, target};

use boot_loader::BootLoader;
use manifest::{Content, Manifest, Planned};
use unit::Unit;

/// Name of the service.
pub(crate) const UNIT: &str = "outlive.service";
/// What is installed where no command line is given.
const EXAMPLE: &str = crate::doctor::EXAMPLE;
/// Makes the kernel reboot ten seconds after a panic.
const REBOOT_AT_PANIC: &str = "panic=10";
/// Where an image has the program.
const PROGRAM: &str = "/usr/bin/outlive";

/// What an installation consists of.
struct Plan {
    files: Vec<Planned>,
    /// What the user does then.
    next: Vec<String>,
    /// What the user does when it is taken back.
    undo: Option<String>,
}

pub(crate) fn install(args: &Args, install: &InstallArgs) -> Result<u8> {
    let line = match (&install.line.cmdline, &install.line.cmdline_file) {
        (None, None) => Line::given(EXAMPLE, &install.line.areas),
        _ => Line::read(&install.line)?,
    };
    let mut cmdline = line.parse();
    if !cmdline.is_clean_for_strict() {
        eprint!(
            "{}",
            diagnostic::render(&line.origin, &line.text, &cmdline.diagnostics)
        );
        say!("nothing is installed: the command line has mistakes");
        return Ok(exit::USAGE);
    }
    if let Some(area) = boot::unknown_area(&line.areas, &cmdline) {
        say!("--area {area}: the command line has no area of this name");
        return Ok(exit::USAGE);
    }
    // An image has another kernel, with events of its own.
    if install.root.is_none() && has_no_event(&line, &mut cmdline) {
        say!(
            "nothing is installed: there is nothing to record, as this kernel has none of the events"
        );
        return Ok(exit::USAGE);
    }
    if install.reserve && install.root.is_some() {
        say!(
            "--reserve chooses from this machine's memory, not from that of an image: name the \
             address with --area NAME=mem:0xADDRESS"
        );
        return Ok(exit::USAGE);
    }
    let root = install.root.as_deref().unwrap_or(Path::new("/"));
    let mut manifest = Manifest::read(root)?;
    let plan = plan(args, install, &line, &cmdline, &manifest)?;
    if install.dry_run {
        plan.print();
        return Ok(exit::DONE);
    }
    let foreign = manifest.foreign(root, &plan.files)?;
    if !foreign.is_empty() {
        for path in foreign {
            say!(
                "{} is there, and is not as `outlive install` left it",
                path.display()
            );
        }
        say!("nothing is installed; move these files away, or look at `outlive install --dry-run`");
        return Ok(exit::FAILED);
    }
    manifest.undo.clone_from(&plan.undo);
    let beyond = manifest.install(root, &plan.files)?;
    for path in &beyond.reverted {
        say!("took the parameters out of {}", path.display());
    }
    for path in &beyond.kept {
        say!(
            "{}: no longer needed, but changed since: kept",
            path.display()
        );
    }
    plan.tell(root);
    Ok(exit::DONE)
}

pub(crate) fn uninstall(uninstall: &UninstallArgs) -> Result<u8> {
    let root = uninstall.root.as_deref().unwrap_or(Path::new("/"));
    let manifest = Manifest::read(root)?;
    if manifest.is_empty() {
        say!(
            "nothing is installed: there is no {}",
            Manifest::path(root).display()
        );
        return Ok(exit::USAGE);
    }
    let taken_back = manifest.uninstall(root, uninstall.dry_run)?;
    for path in &taken_back.removed {
        say!("removed {}", path.display());
    }
    for path in &taken_back.reverted {
        say!("took the parameters out of {}", path.display());
    }
    for path in &taken_back.kept {
        say!("kept {}: it was changed since", path.display());
    }
    if uninstall.dry_run {
        say!("(--dry-run: nothing was removed)");
    }
    if let Some(undo) = &manifest.undo {
        say!("then: {undo}, and reboot");
    }
    say!(
        "what was recorded stays in its state folder; a service that runs goes on until it is stopped"
    );
    Ok(exit::DONE)
}

/// Whether events are named, and this kernel has none of them; shows which it lacks.
fn has_no_event(line: &Line, cmdline: &mut CommandLine) -> bool {
    let Some(events) = boot::look_for_events(cmdline) else {
        return false;
    };
    let diagnostics = &cmdline.diagnostics;
    eprint!(
        "{}",
        diagnostic::render(&line.origin, &line.text, diagnostics)
    );
    let mut instances = cmdline.instances.iter();
    instances.any(|instance| !instance.events.is_empty())
        && events.iter().all(|(_, events)| events.is_empty())
}

fn plan(
    args: &Args,
    install: &InstallArgs,
    line: &Line,
    cmdline: &CommandLine,
    manifest: &Manifest,
) -> Result<Plan> {
    let state = target::state_path(args)?;
    let mut areas = line.areas.clone();
    if install.reserve {
        reserve::choose(cmdline, &mut areas)?;
    }
    // What the start would refuse is refused now.
    start::area_requests(cmdline, &areas, nr_cpu_ids()?)?;
    let program = match (&install.program, &install.root) {
        (Some(program), _) => program.clone(),
        (None, Some(_)) => PathBuf::from(PROGRAM),
        (None, None) => std::env::current_exe().context("cannot find this program")?,
    };
    let backings: Vec<_> = areas.iter().cloned().chain(by_address(cmdline)).collect();
    let unit = Unit {
        program: &program,
        state: &state,
        areas: &backings,
    };
    let mut files = vec![
        Planned::file(CMDLINE_FILE, format!("{}\n", line.text.trim_end())),
        Planned::file(format!("/etc/systemd/system/{UNIT}"), unit.text()),
        Planned {
            path: format!("/etc/systemd/system/sysinit.target.wants/{UNIT}").into(),
            content: Content::Link(format!("../{UNIT}").into()),
        },
    ];
    if !areas.is_empty() {
        files.push(Planned::file(AREAS_FILE, line::areas_text(&areas)));
    }
    files.extend(unit.tmpfiles());
    let parameters = parameters(install, line, cmdline, &areas);
    let (mut next, mut undo) = (Vec::new(), None);
    if !parameters.is_empty() {
        let root = install.root.as_deref().unwrap_or(Path::new("/"));
        let loader = BootLoader::find(root);
        let file = loader.file(root, &parameters, manifest);
        next.push(loader.next(&parameters, file.is_some()));
        undo = Some(loader.undo(&parameters, file.is_some()));
        files.extend(file);
    }
    // What the installation before has asked for, and this one does not.
    let outdated = manifest
        .undo
        .iter()
        .filter(|old| undo.as_ref() != Some(old));
    next.splice(0..0, outdated.cloned());
    next.push(match next.is_empty() {
        true => "systemctl daemon-reload && systemctl start outlive".into(),
        false => "reboot".into(),
    });
    Ok(Plan { files, next, undo })
}

/// The memory of instances that the line itself gives an address.
fn by_address(cmdline: &CommandLine) -> impl Iterator<Item = (String, Backing)> {
    let instances = cmdline.instances.iter();
    instances.filter_map(|instance| {
        let (address, _) = instance.kind.address()?;
        Some((instance.name.clone(), Backing::DevMem { address }))
    })
}

/// What the kernel's command line needs.
fn parameters(
    install: &InstallArgs,
    line: &Line,
    cmdline: &CommandLine,
    areas: &[(String, Backing)],
) -> Vec<String> {
    let memmap = reserve::memmap(cmdline, areas);
    if install.kernel {
        let values = |name: &'static str, spans: Vec<std::ops::Range<usize>>| {
            let value = move |span| format!("{name}={}", &line.text[span]);
            spans.into_iter().map(value)
        };
        let labels = cmdline
            .reserve_mem
            .iter()
            .map(|area| area.span.clone())
            .collect();
        let instances = cmdline
            .instances
            .iter()
            .map(|one| one.span.clone())
            .collect();
        return values("reserve_mem", labels)
            .chain(memmap)
            .chain(values("trace_instance", instances))
            .collect();
    }
    let mut parameters = memmap;
    let read = |path| std::fs::read_to_string(path).unwrap_or_default();
    let stands_still = stands_still(&read("/proc/sys/kernel/panic"), &read("/proc/cmdline"));
    if !parameters.is_empty() && stands_still {
        // Who has to cut the power of a machine that stands still loses its memory.
        parameters.push(REBOOT_AT_PANIC.into());
    }
    parameters
}

/// Whether a panic leaves the machine standing, or would without our parameter, which an installation
/// before this one may have brought.
fn stands_still(panic: &str, cmdline: &str) -> bool {
    let mut words = cmdline.split_ascii_whitespace();
    panic.trim() == "0" || words.any(|word| word == REBOOT_AT_PANIC)
}

impl Plan {
    fn print(&self) {
        for Planned { path, content } in &self.files {
            match content {
                Content::File(text) | Content::Edit { text, .. } => {
                    println!("# {}\n{text}", path.display());
                }
                Content::Link(to) => println!("# {} -> {}\n", path.display(), to.display()),
            }
        }
        for next in &self.next {
            println!("# then: {next}");
        }
    }

    fn tell(&self, root: &Path) {
        for Planned { path, content } in &self.files {
            let path = manifest::in_root(root, path);
            match content {
                Content::Edit { .. } => say!("put the parameters into {}", path.display()),
                _ => say!("installed {}", path.display()),
            }
        }
        for next in &self.next {
            say!("then: {next}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameter_of_an_installation_before_is_still_needed() {
        assert!(stands_still("0\n", "quiet"));
        assert!(stands_still("10\n", "quiet panic=10"));
        assert!(!stands_still("10\n", "quiet"), "by sysctl");
        assert!(!stands_still("1\n", "quiet panic=1"));
    }
}
