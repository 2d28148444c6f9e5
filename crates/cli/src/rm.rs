//! `outlive rm`: removes what is kept of earlier runs.

use anyhow::{Result, bail};
use outlive_trace::{Generation, StateDir, StateLock, generation};

use crate::args::{Args, RmArgs};
use crate::target::{Target, existing_state, state_path};
use crate::{exit, units};

/// Does what the command's arguments say.
pub(crate) fn run(args: &Args, rm: &RmArgs) -> Result<u8> {
    let Some(state) = existing_state(args)? else {
        bail!(
            "there is no state folder {}: nothing to remove",
            state_path(args)?.display()
        );
    };
    // What is there is looked at under the lock: a start may be adding to it.
    let lock = state.try_lock_exclusive()?;
    match rm.all {
        true => remove_all(&state, &lock, &rm.name)?,
        false => remove(find_one(args, &state, &rm.name)?, &lock)?,
    }
    Ok(exit::DONE)
}

fn remove_all(state: &StateDir, lock: &StateLock, instance: &str) -> Result<()> {
    let generations = generation::list_instance(state, instance)?;
    if generations.is_empty() {
        bail!("no generation of an instance {instance:?} is kept");
    }
    for generation in generations {
        remove(generation, lock)?;
    }
    Ok(())
}

fn find_one(args: &Args, state: &StateDir, name: &str) -> Result<Generation> {
    match Target::find(args, name)? {
        Target::Generation(generation) => Ok(generation),
        Target::Live { .. } => {
            let kept = generation::list_instance(state, name)?;
            let newest = match kept.last() {
                Some(newest) => format!(
                    "name a generation, as in {name}/{}, or give --all",
                    newest.seq()
                ),
                None => "no generation of it is kept".to_owned(),
            };
            bail!("{name} is a live area, which the next start keeps as a generation; {newest}")
        }
        Target::File(path) => bail!(
            "{} is a file: rm removes generations of the state folder {}",
            path.display(),
            state.path().display()
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
