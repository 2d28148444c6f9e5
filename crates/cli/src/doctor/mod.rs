//! `outlive doctor`: will a trace survive here?
//!
//! Looking changes nothing on the machine and nothing of what was recorded. It reads files of
//! `/proc`, `/sys` and tracefs, none of which is consumed, mapped or written; in the state folder it
//! remembers what it saw (`doctor.json`), if there is a state folder. Only `--prove` writes more.

mod boot_instance;
mod canary;
mod checks;
mod judge;
mod kernel_config;
mod leftovers;
mod machine;
mod mounts;
mod notes;
mod prove;
mod report;
mod system;
mod traps;

use std::path::Path;

use anyhow::Result;
use outlive_kernel::nr_cpu_ids;
use outlive_trace::{StateDir, start};

use crate::args::{Args, DoctorArgs};
use crate::boot::say;
use crate::line::{CMDLINE_FILE, Line};
use crate::target::state_path;
use crate::{boot, diagnostic, exit};

use judge::{Answer, Judge, Subject};
use machine::Machine;
use notes::Notes;
use prove::Prove;
use report::Report;
use system::System;

pub(crate) use judge::Tier;

/// What is judged where no command line is given and none is installed.
pub(crate) const EXAMPLE: &str = "reserve_mem=100M:12M:trace trace_instance=boot_mapped@trace,sched \
                       trace_instance=backup=boot_mapped";

pub(crate) fn run(args: &Args, doctor: &DoctorArgs) -> Result<u8> {
    let state = state_path(args)?;
    let nr_cpus = nr_cpu_ids()?;
    if let Some(line) = &doctor.write_canary {
        return prove::write_canary(&state, line, &doctor.line.areas, nr_cpus);
    }
    let line = line(doctor)?;
    let mut cmdline = line.parse();
    boot::look_for_events(&mut cmdline);
    if let Some(area) = boot::unknown_area(&line.areas, &cmdline) {
        say!("--area {area}: the command line has no area of this name");
        return Ok(exit::USAGE);
    }
    if !line.is_of_kernel && !cmdline.is_clean_for_strict() {
        let diagnostics = &cmdline.diagnostics;
        eprint!(
            "{}",
            diagnostic::render(&line.origin, &line.text, diagnostics)
        );
    }
    let requests = start::area_requests(&cmdline, &line.areas, nr_cpus)?;
    let machine = Machine::look(System::at(Path::new("/")));
    let mut subjects = Vec::new();
    let mut ours = Vec::new();
    for instance in &cmdline.instances {
        let label = start::area_label(instance);
        let request = requests
            .iter()
            .find(|request| label.as_deref() == Some(request.name()));
        let managed = machine
            .boot_instances
            .iter()
            .find(|kernel| kernel.name == instance.name);
        match (managed, request) {
            (Some(kernel), Some(_)) => subjects.push(Subject::Kernel(kernel)),
            (None, Some(request)) => {
                subjects.push(Subject::Area(request, request.file_in(&state)));
                ours.push(request.clone());
            }
            _ => {}
        }
    }
    if subjects.is_empty() {
        say!(
            "nothing to judge: no instance of {} records into an area",
            line.origin
        );
        return Ok(exit::USAGE);
    }
    let existing = StateDir::open_existing(&state)?;
    let mut notes = existing.as_ref().map(Notes::read).unwrap_or_default();
    let prove = Prove {
        machine: &machine,
        state: &state,
        cmdline: &cmdline,
        text: &line.text,
        backings: &line.areas,
        requests: &ours,
        nr_cpus,
    };
    if let Err(error) = prove.look_for_pending(&mut notes) {
        say!("the canaries of the boot before cannot be read yet: {error:#}");
    }
    let is_proven = !doctor.prove || prove.run(doctor.reboot, &mut notes)?;
    if notes.see(&machine)
        && let Some(state) = StateDir::open_existing(&state)?
        && let Err(error) = notes.write(&state)
    {
        say!("what was seen is not remembered: {error}");
    }
    let judge = Judge {
        machine: &machine,
        notes: &notes,
        state: &state,
    };
    let report = Report::new(&judge, &subjects, &ours, &line.origin);
    report.print(doctor.json)?;
    let survives = doctor
        .tier
        .iter()
        .all(|tier| report.answer(*tier) == Answer::Yes);
    if let Some(reboot) = doctor.reboot {
        prove::reboot(reboot)?;
    }
    Ok(match survives && is_proven {
        true => exit::DONE,
        false => exit::FAILED,
    })
}

/// The line to judge: as `boot` finds it, or the example where there is none.
fn line(doctor: &DoctorArgs) -> Result<Line> {
    let is_given = doctor.line.cmdline.is_some() || doctor.line.cmdline_file.is_some();
    match is_given || Path::new(CMDLINE_FILE).exists() {
        true => Line::read(&doctor.line),
        false => Ok(Line::given(EXAMPLE, &doctor.line.areas)
            .from("an example: no command line is given or installed")),
    }
}
