//! Which instances of a command line can have their memory: what is known before anything is touched.

use outlive_ring::LayoutError;

use crate::cmdline::{AreaRef, CommandLine, Diagnostic, Instance, InstanceKind, ReserveMem};
use crate::start::{EventSource, request};
use crate::{Backing, Error, IoMemory};

/// Takes the instances out of a command line whose areas cannot hold a ring for `nr_cpus` possible
/// CPUs or cannot lie where they are to, and the backups of them. [`CommandLine::diagnostics`] tells
/// why. The kernel's own, which have no area of ours, stay.
///
/// What only a start can find out, because it needs the state folder or the memory itself, is left
/// to it.
pub fn skip_unfit(
    cmdline: &mut CommandLine,
    backings: &[(String, Backing)],
    nr_cpus: u32,
    of_kernel: &[String],
) {
    let fit = Fit {
        cmdline,
        backings,
        nr_cpus,
    };
    let ours = cmdline.instances.iter();
    let ours = ours.filter(|instance| !of_kernel.contains(&instance.name));
    let unfit = ours.filter_map(|instance| {
        let error = fit.check(instance).err()?;
        Some((instance.name.clone(), fit.diagnostic(instance, error)))
    });
    let unfit = unfit.collect();
    cmdline.skip(unfit);
}

struct Fit<'a> {
    cmdline: &'a CommandLine,
    backings: &'a [(String, Backing)],
    nr_cpus: u32,
}

impl Fit<'_> {
    fn check(&self, instance: &Instance) -> Result<(), Error> {
        let request = request(
            self.cmdline,
            self.backings,
            self.nr_cpus,
            EventSource::Kernel,
            instance,
        )?;
        let Some((request, _)) = request else {
            return Ok(());
        };
        request.check()?;
        request.check_page_aligned()?;
        match request.backing() {
            Backing::DevMem { address } => IoMemory::check_now(*address, request.total_bytes()?),
            _ => Ok(()),
        }
    }

    fn diagnostic(&self, instance: &Instance, error: Error) -> Diagnostic {
        let place = instance.place_span.as_ref().unwrap_or(&instance.name_span);
        let error_at = |message: String| Diagnostic::error(place.clone(), message);
        let area = self.area(instance);
        let diagnostic = match error {
            Error::Layout {
                name,
                source:
                    LayoutError::TooSmall {
                        size,
                        nr_cpus,
                        needed,
                    },
            } => {
                let few = format!("the area `{name}` has {size} bytes, too few for {nr_cpus} CPUs");
                let help = "a ring buffer has at least 3 sub-buffers of 4096 bytes for each CPU";
                let expected = format!("expected an area of at least {}K", needed.div_ceil(1024));
                error_at(few).expected(expected).help(help)
            }
            error => error_at(error.to_string()),
        };
        match area {
            Some(area) => diagnostic.related(area.size_span.clone(), "the size is given here"),
            None => diagnostic,
        }
    }

    fn area(&self, instance: &Instance) -> Option<&ReserveMem> {
        let InstanceKind::Persistent {
            area: AreaRef::Label(label),
        } = &instance.kind
        else {
            return None;
        };
        let mut areas = self.cmdline.reserve_mem.iter();
        areas.find(|area| area.label == *label)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cmdline::Severity;

    const NR_CPUS: u32 = 4;

    fn read(line: &str, areas: &[(&str, &str)], of_kernel: &[&str]) -> CommandLine {
        let mut cmdline = CommandLine::parse(line);
        assert!(cmdline.is_clean_for_strict(), "{:?}", cmdline.diagnostics);
        let backing = |(name, backing): &(&str, &str)| (name.to_string(), backing.parse().unwrap());
        let backings: Vec<_> = areas.iter().map(backing).collect();
        let of_kernel: Vec<_> = of_kernel.iter().map(ToString::to_string).collect();
        skip_unfit(&mut cmdline, &backings, NR_CPUS, &of_kernel);
        cmdline
    }

    fn names(cmdline: &CommandLine) -> Vec<&str> {
        let instances = cmdline.instances.iter();
        instances.map(|instance| instance.name.as_str()).collect()
    }

    /// The size that a diagnostic asks for, as it is written.
    fn asked_for(diagnostic: &Diagnostic) -> &str {
        let expected = diagnostic.expected.as_deref().unwrap();
        expected
            .strip_prefix("expected an area of at least ")
            .unwrap()
    }

    /// It ended the whole start, and the state folder had been made.
    #[test]
    fn area_too_small_costs_its_instance_and_the_backups_of_it_alone() {
        let line = |size| {
            format!(
                "reserve_mem={size}:4096:x reserve_mem=4M:4096:y trace_instance=a@x,sched \
                 trace_instance=b@y,sched trace_instance=backup=a"
            )
        };
        let small = line("8K");
        let cmdline = read(&small, &[], &[]);
        assert_eq!(names(&cmdline), ["b"]);
        assert_eq!(cmdline.skipped, ["a"]);
        let [few, lone] = &cmdline.diagnostics[..] else {
            panic!("{:?}", cmdline.diagnostics)
        };
        assert_eq!(few.severity, Severity::Error);
        assert_eq!(
            few.message,
            "the area `x` has 8192 bytes, too few for 4 CPUs"
        );
        assert_eq!(&small[few.span.clone()], "x");
        assert_eq!(&small[few.related.as_ref().unwrap().span.clone()], "8K");
        assert_eq!(few.consequence.as_deref(), Some("this instance is skipped"));
        assert_eq!(lone.message, "its source `a` is skipped");
        let enough = read(&line(asked_for(few)), &[], &[]);
        assert_eq!(names(&enough), ["a", "b", "backup"]);
        let less = asked_for(few)
            .strip_suffix('K')
            .unwrap()
            .parse::<u64>()
            .unwrap()
            - 4;
        assert_eq!(names(&read(&line(&format!("{less}K")), &[], &[])), ["b"]);
    }

    /// The bytes that were said to be needed were those of the ring alone.
    #[test]
    fn range_of_memory_must_hold_the_ring_and_its_extension() {
        let line = |size: &str| format!("trace_instance=a@0x10000000:{size},sched");
        let cmdline = read(&line("64K"), &[], &[]);
        let few = |cmdline: &CommandLine| {
            let mut errors = cmdline.diagnostics.iter();
            let few = errors.find(|problem| problem.message.ends_with("too few for 4 CPUs"));
            few.cloned()
        };
        let least = few(&cmdline).expect("it is too small");
        let least = asked_for(&least);
        assert_eq!(few(&read(&line(least), &[], &[])), None);
        let less = least.strip_suffix('K').unwrap().parse::<u64>().unwrap() - 4;
        assert!(few(&read(&line(&format!("{less}K")), &[], &[])).is_some());
    }

    #[test]
    fn address_must_be_one_that_the_line_and_the_machine_allow() {
        let line = "reserve_mem=4M:2M:x trace_instance=a@x,sched trace_instance=b,irq";
        for (backing, words) in [
            ("mem:0x10001000", "is not aligned to 0x200000"),
            // The kernel's first megabytes are its own, or it does not tell what they are.
            ("mem:0x1000000", "physical memory 0x1000000:0x400000"),
        ] {
            let cmdline = read(line, &[("x", backing)], &[]);
            assert_eq!(names(&cmdline), ["b"], "{backing}");
            let message = &cmdline.diagnostics[0].message;
            assert!(message.contains(words), "{message}");
        }
        let of_kernel = read(line, &[("x", "mem:0x10001000")], &["a"]);
        assert_eq!(names(&of_kernel), ["a", "b"]);
    }

    #[test]
    fn buffer_that_no_machine_has_is_none_to_reserve() {
        let cmdline = read("trace_buf_size=15E trace_instance=a,sched", &[], &[]);
        assert!(cmdline.instances.is_empty(), "{cmdline:?}");
    }
}
