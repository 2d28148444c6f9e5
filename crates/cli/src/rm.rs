//! `outlive rm`: removes what is kept of earlier runs.

use anyhow::{Result, bail};
use outlive_trace::{Generation, StateDir, StateLock, apps, generation};

use crate::args::{Args, RmArgs};
use crate::target::{Target, state_path, states_of};
use crate::{exit, units};

/// Does what the command's arguments say.
pub(crate) fn run(args: &Args, rm: &RmArgs) -> Result<u8> {
    let instance = rm.name.split_once('/').map_or(&*rm.name, |(name, _)| name);
    let states = states_of(args, instance)?;
    if states.is_empty() && apps::list(&state_path(args)?)?.is_empty() {
        bail!(
            "there is no state folder {}: nothing to remove",
            state_path(args)?.display()
        );
    }
    match rm.all {
        true => remove_all(&states, &rm.name)?,
        false => remove_one(args, &states, &rm.name)?,
    }
    Ok(exit::DONE)
}

fn remove_all(states: &[StateDir], instance: &str) -> Result<()> {
    let mut is_kept = false;
    for state in states {
        if generation::list_instance(state, instance)?.is_empty() {
            continue;
        }
        is_kept = true;
        // What is there is looked at under the lock: a start may be adding to it.
        let lock = state.try_lock_exclusive()?;
        for generation in generation::list_instance(state, instance)? {
            remove(generation, &lock)?;
        }
    }
    match is_kept {
        true => Ok(()),
        false => bail!("no generation of an instance {instance:?} is kept"),
    }
}

fn remove_one(args: &Args, states: &[StateDir], name: &str) -> Result<()> {
    let found = find_one(args, name)?;
    // A program's state lies in the other one, and comes behind it.
    let has_it = |state: &&StateDir| found.path().starts_with(state.path());
    let Some(state) = states.iter().rfind(has_it) else {
        bail!("{found} is in no state folder of its name");
    };
    let lock = state.try_lock_exclusive()?;
    // Before it was locked, somebody else may have removed it, or a backup may have got a newer one.
    remove(find_one(args, name)?, &lock)
}

fn find_one(args: &Args, name: &str) -> Result<Generation> {
    match Target::find(args, name)? {
        Target::Generation(generation) => Ok(generation),
        Target::Live { .. } => {
            let newest = match Target::generations(args, name)?.first() {
                Some(newest) => format!(
                    "name a generation, as in {}, or give --all",
                    newest.name(name)
                ),
                None => "no generation of it is kept".to_owned(),
            };
            bail!("{name} is a live area, which the next start keeps as a generation; {newest}")
        }
        Target::File(path) => bail!(
            "{} is a file: rm removes generations of the state folder {}",
            path.display(),
            state_path(args)?.display()
        ),
    }
}

fn remove(generation: Generation, lock: &StateLock) -> Result<()> {
    let name = generation.to_string();
    let bytes = generation.disk_bytes();
    generation.remove(lock)?;
    println!("removed {name} ({})", units::size(bytes));
    Ok(())
}
