//! `outlive diff`: the last seconds of a run beside those of others.

mod compare;
mod report;
mod window;

use std::io::Write;

use anyhow::{Result, bail};
use outlive_trace::{apps, generation};

use self::compare::Comparison;
use self::window::Window;
use crate::args::{Args, DiffArgs};
use crate::exit;
use crate::target::{Target, existing_state, state_path};

/// Earlier generations that a run is compared with when nothing else is named.
const BEFORE: usize = 4;

/// Does what the command's arguments say.
pub(crate) fn run(args: &Args, diff: &DiffArgs) -> Result<u8> {
    let target = Target::find(args, &diff.name)?;
    let others = match &diff.other {
        Some(other) => vec![other.clone()],
        None => before(args, &diff.name, &target)?,
    };
    let open = |name: &str, target: &Target| -> Result<Window> {
        let view = target.open(diff.formats.as_deref())?;
        Window::of(name, &view, target.verdict(&view), diff.last)
    };
    let this = open(&diff.name, &target)?;
    let mut other: Option<Window> = None;
    for name in &others {
        let window = open(name, &Target::find(args, name)?)?;
        match &mut other {
            Some(other) => other.add(window),
            None => other = Some(window),
        }
    }
    let Some(other) = other else {
        bail!("there is nothing to compare {} with", diff.name)
    };
    let comparison = Comparison::of(&this, &other);
    let mut out = std::io::stdout().lock();
    match diff.json {
        true => writeln!(out, "{}", report::json(&this, &other, &comparison))?,
        false => report::text(&mut out, &this, &other, &comparison)?,
    }
    Ok(exit::DONE)
}

/// The names of the generations before a run.
fn before(args: &Args, name: &str, target: &Target) -> Result<Vec<String>> {
    let (instance, seq) = match target {
        Target::Generation(generation) => (generation.instance().to_owned(), generation.seq()),
        Target::Live { .. } => (name.to_owned(), u64::MAX),
        Target::File(_) => {
            bail!("{name} is a file, of which nothing earlier is known: name a second one")
        }
    };
    let state = existing_state(args)?;
    let program = apps::of_instance(&state_path(args)?, &instance)?;
    let states = state.iter().chain(&program);
    let kept =
        states.flat_map(|state| generation::list_instance(state, &instance).unwrap_or_default());
    let mut earlier: Vec<u64> = kept.map(|kept| kept.seq()).filter(|&s| s < seq).collect();
    earlier.sort_unstable();
    let names = earlier.iter().rev().take(BEFORE);
    let names: Vec<String> = names.map(|seq| format!("{instance}/{seq}")).collect();
    if names.is_empty() {
        bail!("nothing earlier than {name} is kept: name what to compare it with");
    }
    Ok(names)
}
