//! What must not be done to the kernel's own persistent instances, and what is wrong with them already.
//!
//! What a trap does was seen at run time with Linux 7.3.4 unless another version is named; a trap is
//! shown only where this machine, its kernel and its instances have it. What cannot be avoided is
//! said all the same.

use outlive_trace::cmdline::{CommandLine, Diagnostic, Instance, InstanceKind};

use super::boot_instance::BootInstance;
use crate::diagnostic::visible;

/// What the traps of instances depend on.
pub(crate) struct Traps<'a> {
    /// All of the machine.
    pub(crate) instances: &'a [BootInstance],
    /// The first two numbers of the kernel's version.
    pub(crate) version: (u32, u32),
    /// CPUs that there can be.
    pub(crate) nr_cpus: Option<u32>,
    /// CPUs that there could be in an earlier boot, the last one that the doctor saw.
    pub(crate) nr_cpus_before: Option<u32>,
}

impl Traps<'_> {
    /// Each trap once, behind the names of the instances that have it.
    pub(crate) fn all(&self) -> Vec<String> {
        let mut traps: Vec<(String, Vec<&str>)> = Vec::new();
        for instance in self.instances {
            for trap in self.of(instance) {
                match traps.iter_mut().find(|(text, _)| *text == trap) {
                    Some((_, names)) => names.push(&instance.name),
                    None => traps.push((trap, vec![&instance.name])),
                }
            }
        }
        let with_names =
            |(text, names): (String, Vec<&str>)| format!("{}: {text}", names.join(", "));
        traps.into_iter().map(with_names).collect()
    }

    fn of(&self, instance: &BootInstance) -> impl Iterator<Item = String> {
        let persistent = instance.source.is_none();
        let at_boot = persistent.then(|| self.at_boot(instance));
        let at_boot = at_boot.into_iter().flatten();
        let in_use = self.in_use(instance);
        at_boot.chain(in_use).flatten()
    }

    /// What the boot does to a persistent instance.
    fn at_boot(&self, instance: &BootInstance) -> [Option<String>; 6] {
        let name = &instance.name;
        let starts = instance.has_events;
        let mut others = self.instances.iter();
        let has_backup = others.any(|other| other.source.as_ref() == Some(name));
        let is_deferred = self.version >= (7, 1);
        let has_more_cpus = self.nr_cpus.is_some_and(|cpus| cpus > 1);
        let clock = &*instance.clock;
        let cpus = self.nr_cpus.zip(self.nr_cpus_before);
        [
            (starts && !has_backup).then(|| {
                format!(
                    "its events start at boot and wipe what the previous boot left: add \
                     trace_instance=backup={name} behind it (Linux 7.1 and later), or name no events"
                )
            }),
            (starts && has_backup && !is_deferred).then(|| {
                "before Linux 7.1 its events start before the backup is taken: name no events".into()
            }),
            (starts && is_deferred && has_more_cpus).then(|| {
                "its events start before the second CPU does (Linux 7.1 and later): what the other CPUs \
                 recorded in the boot before stays among the new events: name no events, `outlive boot` \
                 starts them"
                    .into()
            }),
            (self.version >= (6, 16) && !matches!(clock, "" | "local")).then(|| {
                format!(
                    "with trace_clock {clock} the next boot loses the events of the boot's CPU (Linux \
                     6.16 and later, which keep the clock): use local"
                )
            }),
            cpus.filter(|(now, before)| now != before).map(|(now, before)| {
                format!(
                    "there can be {now} CPUs, and {before} when the doctor last looked in an earlier \
                     boot: the kernel takes no region of another number over (Linux 6.12 and later); \
                     keep it the same, as with possible_cpus="
                )
            }),
            // The kernel shows its head as the number of a page, so nobody can see it beforehand.
            Some(
                "should its head pointer be damaged, the kernel crashes at every boot: then leave its \
                 trace_instance= out for one boot, or cut the power"
                    .into(),
            ),
        ]
    }

    /// What reading and writing its files does.
    fn in_use(&self, instance: &BootInstance) -> [Option<String>; 6] {
        let is_backup = instance.source.is_some();
        // Before Linux 7.1 a backup is no more read-only than its source.
        let is_writable = !is_backup || self.version < (7, 1);
        let is_by_label = !is_backup && !instance.is_by_address;
        [
            (is_backup || instance.is_last_boot).then(|| {
                "reading trace_pipe or trace_pipe_raw consumes it, and splice (BusyBox cat) never ends: \
                 read trace, or let `outlive boot` keep it"
                    .into()
            }),
            (is_by_label && self.version >= (6, 16)).then(|| {
                "who maps trace_pipe_raw marks the pages that events were lost before, and the next boot \
                 drops these (Linux 6.16 and later): read it instead"
                    .into()
            }),
            (is_writable && instance.is_last_boot).then(|| {
                "a write to set_event, any `enable` or current_tracer wipes the previous boot's events, \
                 even one with a mistyped name; trace_marker overwrites the newest ones"
                    .into()
            }),
            is_writable.then(|| {
                "a write to trace_clock clears it, even of the clock that it has: let `outlive boot` keep \
                 it first"
                    .into()
            }),
            (is_by_label && self.version >= (6, 15)).then(|| {
                "rmdir gives its memory away (Linux 6.15 and later): until the next boot its name is \
                 that of an ordinary instance"
                    .into()
            }),
            Some(format!(
                "writing options/overwrite{} crashes Linux 7.3.4",
                if is_writable { " or clearing a bit of tracing_cpumask" } else { "" }
            )),
        ]
    }
}

/// What is wrong with the kernel's command line, of which `text` is the text.
pub(crate) fn of_line(line: &CommandLine, text: &str) -> Vec<String> {
    let mut traps = Vec::new();
    for (at, instance) in line.instances.iter().enumerate() {
        traps.extend(order(instance, &line.instances[..at]));
        traps.extend(events(instance));
    }
    let mistakes = line.diagnostics.iter();
    let mistakes =
        mistakes.filter(|mistake| mistake.is_refused_by_strict() && is_ours(mistake, text));
    traps.extend(mistakes.map(|mistake| mistake_in_kernel(mistake, text)));
    traps
}

/// A backup in the wrong place.
fn order(instance: &Instance, before: &[Instance]) -> Vec<String> {
    let InstanceKind::Backup { source } = &instance.kind else {
        return Vec::new();
    };
    let mut traps = Vec::new();
    if before.iter().all(|earlier| earlier.name != *source) {
        traps.push(format!(
            "`{}` is named before its source `{source}`: the kernel makes neither; put it behind",
            instance.name
        ));
    }
    if before
        .iter()
        .any(|earlier| earlier.kind.address().is_some())
    {
        traps.push(format!(
            "`{}` stands behind an instance given as @ADDRESS:SIZE: it is never removed, and \
             unusable once it was read empty",
            instance.name
        ));
    }
    traps
}

/// Events that the kernel does not start at its boot.
fn events(instance: &Instance) -> impl Iterator<Item = String> {
    let name = &instance.name;
    instance.events.iter().filter_map(move |token| {
        if token.is_pattern() {
            return Some(format!(
                "`{token}` of `{name}` starts nothing: the kernel matches no patterns at its boot; name \
                 events or systems"
            ));
        }
        let is_of_calls = token.as_str().split(':').next() == Some("syscalls");
        is_of_calls.then(|| {
            format!(
                "`{token}` of `{name}` starts nothing: the kernel has no system call's events at its \
                 boot yet; `outlive boot` starts them"
            )
        })
    })
}

/// Whether a mistake is about a parameter of ours, or about one that was meant to be: a kernel's line
/// has other parameters.
fn is_ours(mistake: &Diagnostic, text: &str) -> bool {
    let before = &text[..mistake.span.start];
    let start = before.rfind(|c: char| c.is_ascii_whitespace());
    let parameter = text[start.map_or(0, |blank| blank + 1)..].trim_start_matches('"');
    let ours = ["reserve_mem", "reserve-mem", "memmap", "trace_", "trace-"];
    mistake.suggestion.is_some() || ours.iter().any(|name| parameter.starts_with(name))
}

/// A mistake as it matters to the kernel, which does not always do as we do.
fn mistake_in_kernel(mistake: &Diagnostic, text: &str) -> String {
    let place = match &text[mistake.span.clone()] {
        "" => &text[..mistake.span.start],
        place => place,
    };
    let correction = mistake.suggestion.as_ref().map(|better| {
        let verb = if mistake.span.is_empty() {
            "insert"
        } else {
            "did you mean"
        };
        format!("{verb} `{}`", better.text)
    });
    let consequence = mistake
        .kernel_consequence
        .as_ref()
        .or(mistake.consequence.as_ref());
    let parts = [consequence, correction.as_ref(), mistake.help.as_ref()];
    let mut says = format!("{} (`{}`)", mistake.message, last_chars(place));
    for part in parts.into_iter().flatten() {
        says = format!("{says}; {part}");
    }
    visible(&says)
}

/// The end of a place that may be long.
fn last_chars(text: &str) -> &str {
    const SHOWN: usize = 40;
    let start = text.char_indices().rev().nth(SHOWN - 1);
    &text[start.map_or(0, |(at, _)| at)..]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn instance(name: &str) -> BootInstance {
        BootInstance {
            name: name.into(),
            source: None,
            is_by_address: false,
            has_events: true,
            range: None,
            is_last_boot: false,
            entries: 0,
            clock: "local".into(),
        }
    }

    fn backup(name: &str, source: &str) -> BootInstance {
        BootInstance {
            source: Some(source.into()),
            has_events: false,
            is_last_boot: true,
            ..instance(name)
        }
    }

    fn traps(instances: &[BootInstance], version: (u32, u32)) -> Vec<String> {
        let traps = Traps {
            instances,
            version,
            nr_cpus: Some(1),
            nr_cpus_before: None,
        };
        traps.all()
    }

    /// Whether `instances` have a trap with these words in it.
    fn has(instances: &[BootInstance], version: (u32, u32), words: &str) -> bool {
        let traps = traps(instances, version);
        traps.iter().any(|trap| trap.contains(words))
    }

    #[test]
    fn events_without_a_backup_wipe_the_previous_boot() {
        let one = instance("a");
        let both = [one.clone(), backup("b", "a")];
        let wipes = |instances: &[BootInstance], version| has(instances, version, "events start");
        assert!(wipes(&[one], (7, 3)));
        assert!(!wipes(&both, (7, 3)));
        assert!(wipes(&both, (6, 19)));
    }

    #[test]
    fn old_events_stay_among_the_new_ones_where_there_are_more_cpus() {
        let one = [instance("a")];
        let stays = |version, nr_cpus| {
            let traps = Traps {
                instances: &one,
                version,
                nr_cpus: Some(nr_cpus),
                nr_cpus_before: None,
            };
            let traps = traps.all();
            traps
                .iter()
                .any(|trap| trap.contains("stays among the new"))
        };
        assert!(stays((7, 1), 2));
        assert!(!stays((7, 1), 1));
        assert!(!stays((7, 0), 2), "its events are not deferred");
    }

    #[test]
    fn other_number_of_cpus_is_told_as_what_emptied_the_instance() {
        let one = [instance("a")];
        let changed = |before| {
            let traps = Traps {
                instances: &one,
                version: (6, 12),
                nr_cpus: Some(4),
                nr_cpus_before: before,
            };
            let traps = traps.all();
            traps
                .iter()
                .any(|trap| trap.contains("there can be 4 CPUs, and 2 when"))
        };
        assert!(changed(Some(2)));
        assert!(!changed(Some(4)) && !changed(None));
    }

    #[test]
    fn instance_by_label_can_be_mapped_and_given_away_where_the_kernel_lets_it() {
        let by_label = [instance("a")];
        let by_address = [BootInstance {
            is_by_address: true,
            ..instance("a")
        }];
        for (words, since) in [("maps trace_pipe_raw", (6, 16)), ("rmdir", (6, 15))] {
            assert!(has(&by_label, since, words), "{words}");
            assert!(!has(&by_label, (6, 14), words), "{words}");
            assert!(!has(&by_address, since, words), "{words}");
            assert!(!has(&[backup("b", "a")], since, words), "{words}");
        }
    }

    #[test]
    fn what_holds_the_boot_before_is_wiped_by_a_write_and_consumed_by_a_read() {
        let of_now = [instance("a")];
        let of_before = [BootInstance {
            is_last_boot: true,
            ..instance("a")
        }];
        let kept = [backup("b", "a")];
        for (words, of_kept) in [("mistyped name", false), ("splice", true)] {
            assert!(has(&of_before, (7, 3), words), "{words}");
            assert!(!has(&of_now, (7, 3), words), "{words}");
            assert_eq!(has(&kept, (7, 3), words), of_kept, "{words}");
            assert!(has(&kept, (6, 19), words), "not read-only yet: {words}");
        }
        for (instances, is_cleared) in [(&of_now, true), (&of_before, true), (&kept, false)] {
            assert_eq!(has(instances, (7, 3), "write to trace_clock"), is_cleared);
            assert_eq!(has(instances, (7, 3), "tracing_cpumask"), is_cleared);
            assert!(has(instances, (7, 3), "options/overwrite"));
        }
    }

    #[test]
    fn clock_that_is_not_local_loses_a_cpu_where_the_kernel_keeps_it() {
        let one = [BootInstance {
            clock: "mono".into(),
            ..instance("a")
        }];
        assert!(has(&one, (6, 16), "with trace_clock mono"));
        assert!(!has(&one, (6, 15), "with trace_clock mono"));
        assert!(!has(&[instance("a")], (7, 3), "with trace_clock"));
    }

    #[test]
    fn trap_of_several_instances_is_told_once() {
        let both = [instance("a"), instance("b")];
        let traps = traps(&both, (7, 3));
        let heads: Vec<_> = traps
            .iter()
            .filter(|trap| trap.contains("head pointer"))
            .collect();
        assert_eq!(heads.len(), 1, "{traps:?}");
        assert!(heads[0].starts_with("a, b: should its head"), "{traps:?}");
    }

    fn of_text(text: &str) -> Vec<String> {
        of_line(&CommandLine::parse(text), text)
    }

    /// The only trap of a line.
    fn only(text: &str) -> String {
        let traps = of_text(text);
        let [trap] = &traps[..] else {
            panic!("{text}: {traps:?}")
        };
        trap.clone()
    }

    #[test]
    fn order_of_a_backup_and_its_source_is_a_trap() {
        let trap = only("reserve_mem=1M:4096:t trace_instance=b=a trace_instance=a@t,sched");
        assert!(trap.contains("before its source"), "{trap}");
        let trap = only("memmap=1M$0x1000000 trace_instance=a@0x1000000:1M trace_instance=b=a");
        assert!(trap.contains("never removed"), "{trap}");
    }

    #[test]
    fn backup_with_events_and_memory_of_two_are_told_as_the_kernel_takes_them() {
        let trap = only("reserve_mem=1M:4096:t trace_instance=a@t trace_instance=b=a,sched");
        assert!(trap.contains("(`sched`); Linux clears the copy"), "{trap}");
        let trap = only("reserve_mem=1M:4096:t trace_instance=a@t trace_instance=b@t");
        assert!(
            trap.contains("lies in this memory already (`t`); Linux lets both"),
            "{trap}"
        );
        assert!(trap.contains("an area of its own"), "{trap}");
    }

    #[test]
    fn instance_that_is_too_long_for_the_kernel_is_a_trap() {
        let long = format!("a@t,{}", "sched:sched_switch,".repeat(120));
        let trap = only(&format!("reserve_mem=1M:4096:t trace_instance={long}"));
        assert!(trap.contains("more than 2048 bytes"), "{trap}");
        assert!(trap.contains("this instance is skipped"), "{trap}");
        assert!(trap.len() < 300, "{trap}");
    }

    #[test]
    fn events_that_no_boot_can_start_are_traps() {
        let line = |events| format!("reserve_mem=1M:4096:t trace_instance=a@t,{events}");
        assert!(only(&line("sched_*")).contains("matches no patterns"));
        assert!(only(&line("syscalls:sys_enter_read")).contains("no system call's events"));
        assert_eq!(of_text(&line("sched,irq:*,*:timer_start")), [""; 0]);
    }

    #[test]
    fn mistakes_in_other_parameters_are_not_ours() {
        let good = "BOOT_IMAGE=/vmlinuz root=/dev/vda1 ro quiet (odd) x=\"a b\" reserve_mem=1M:4096:t \
                    trace_instance=a^@t";
        assert_eq!(of_text(good), [""; 0]);
        let trap = only(&format!("{good} trace_instanse=b"));
        assert!(trap.contains("did you mean `trace_instance`"), "{trap}");
        let trap = only("root=/dev/vda1 trace_instance=\u{1b}[2J@0");
        assert!(!trap.contains('\u{1b}'), "{trap:?}");
    }
}
