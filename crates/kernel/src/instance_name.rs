//! Names of our host instances: `outlive.<state>.<run>.<name>`.
//!
//! The state's id says whose the instance is: only instances of one's own state may be touched.
//! The run's id tells a leftover of an earlier run from the instance of this one.

use std::fmt;
use std::str::FromStr;

use crate::error::Error;
use crate::tracefs::check_name;

/// What every name begins with.
const PREFIX: &str = "outlive";

/// The id of a state folder: 16 hexadecimal digits in the name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StateId(pub u64);

/// The id of one run: 32 hexadecimal digits in the name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RunId(pub u128);

/// The name of one of our host instances.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InstanceName {
    state: StateId,
    run: RunId,
    name: String,
}

impl InstanceName {
    /// Puts a name together.
    ///
    /// # Errors
    /// `name` is empty, too long for a folder's name, or has a `/` or a control character.
    pub fn new(state: StateId, run: RunId, name: &str) -> Result<Self, Error> {
        check_name(name)?;
        let this = Self {
            state,
            run,
            name: name.to_owned(),
        };
        check_name(&this.to_string())?;
        Ok(this)
    }

    /// Whose it is.
    #[must_use]
    pub fn state(&self) -> StateId {
        self.state
    }

    /// The run that created it.
    #[must_use]
    pub fn run(&self) -> RunId {
        self.run
    }

    /// The name of the instance whose events it collects.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl fmt::Display for InstanceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{PREFIX}.{:016x}.{:032x}.{}",
            self.state.0, self.run.0, self.name
        )
    }
}

impl FromStr for InstanceName {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        parse(text).ok_or_else(|| Error::NotOurs {
            name: text.to_owned(),
        })
    }
}

/// Only what [`InstanceName`] prints is one: digits of another width or case are somebody else's.
fn parse(text: &str) -> Option<InstanceName> {
    let mut parts = text.splitn(4, '.');
    let (prefix, state, run) = (parts.next()?, parts.next()?, parts.next()?);
    let state = StateId(u64::from_str_radix(state, 16).ok()?);
    let run = RunId(u128::from_str_radix(run, 16).ok()?);
    let name = InstanceName::new(state, run, parts.next()?).ok()?;
    (prefix == PREFIX && name.to_string() == text).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_is_parsed_back_with_dots_in_its_last_part() {
        let name = InstanceName::new(StateId(0xab), RunId(7), "boot.mapped").unwrap();
        let text = name.to_string();
        assert_eq!(
            text,
            "outlive.00000000000000ab.00000000000000000000000000000007.boot.mapped"
        );
        assert_eq!(text.parse::<InstanceName>().unwrap(), name);
        assert_eq!(
            (name.state(), name.run(), name.name()),
            (StateId(0xab), RunId(7), "boot.mapped")
        );
    }

    #[test]
    fn names_of_others_are_not_ours() {
        let run = "0".repeat(32);
        for text in [
            "foo".to_owned(),
            "outlive".to_owned(),
            "outlive.1.2.x".to_owned(),
            format!("outlive.00000000000000AB.{run}.x"),
            format!("outlive.+0000000000000ab.{run}.x"),
            format!("outlive.00000000000000ab.{run}."),
            format!("inlive.00000000000000ab.{run}.x"),
        ] {
            assert!(text.parse::<InstanceName>().is_err(), "{text}");
        }
    }

    #[test]
    fn name_too_long_for_a_folder_is_refused() {
        let (state, run) = (StateId(1), RunId(1));
        assert!(InstanceName::new(state, run, &"x".repeat(255 - 58)).is_ok());
        assert!(InstanceName::new(state, run, &"x".repeat(255 - 57)).is_err());
    }
}
