//! What only the whole line can tell: which instances can be made.
//!
//! Each `trace_instance=` goes through the kernel's checks in its order (`kernel/trace/trace.c`,
//! Linux 7.3); the first that fails skips the instance. Different from the kernel, on purpose: a
//! backup may be named before its source, a backup with events is kept (without them), two
//! instances never share memory, and a name must be fit for a folder. Each reason stands in
//! `docs/command-line.md`.

use std::collections::HashSet;
use std::ops::Range;

use super::diagnostic::Diagnostic;
use super::event::{EventToken, read_list};
use super::instance::{AreaRef, Entry, Instance, InstanceFlags, InstanceKind, read_flags};
use super::memmap::Memmap;
use super::memparse::{Number, number};
use super::name::unfit_reason;
use super::nearest::nearest;
use super::piece::Piece;
use super::reserve_mem::ReserveMem;

/// Start and size of a mapping must be multiples of this, bytes (`kernel/trace/trace.c`, Linux
/// 7.3, on machines with pages of 4 KiB).
const MAP_ALIGN: u64 = 4096;

/// What happens to an entry with an error.
pub(super) const SKIPPED: &str = "this instance is skipped";

/// The memory that the line reserves.
#[derive(Clone, Copy, Debug)]
pub(super) struct Memory<'m> {
    pub(super) areas: &'m [ReserveMem],
    pub(super) ranges: &'m [Memmap],
    /// The values of `reserve_mem=` that gave no area.
    pub(super) refused: &'m [Piece<'m>],
}

/// The instances that can be made, in the order of the line, and the names of those that cannot.
pub(super) fn settle(
    entries: &[Entry<'_>],
    memory: Memory<'_>,
    out: &mut Vec<Diagnostic>,
) -> (Vec<Instance>, Vec<String>) {
    let mut made: Vec<Instance> = Vec::new();
    let mut skipped: HashSet<&str> = HashSet::new();
    for entry in entries {
        let (flags, events) = read_lists(entry, out);
        match read_instance(entry, memory, &made, out) {
            Ok((kind, place_span)) => made.push(Instance {
                name: entry.name.text.into(),
                flags,
                kind,
                events,
                span: entry.whole.span(),
                name_span: entry.name.span(),
                place_span,
            }),
            Err(diagnostic) => {
                skipped.insert(entry.name.text);
                out.push(diagnostic.consequence(SKIPPED));
            }
        }
    }
    drop_lone_backups(&mut made, &skipped, out);
    out.extend(
        made.iter()
            .filter_map(|instance| unkept_range(instance, memory.ranges)),
    );
    note_unused_areas(&made, memory.areas, out);
    // The name of one that was skipped can be used again.
    let is_made = |name: &&str| made.iter().any(|instance| instance.name == *name);
    skipped.retain(|name| !is_made(name));
    let skipped = skipped.into_iter().map(String::from).collect();
    (made, skipped)
}

/// Flags and events of an entry; a backup has neither.
fn read_lists(entry: &Entry<'_>, out: &mut Vec<Diagnostic>) -> (InstanceFlags, Vec<EventToken>) {
    let name = entry.name.text;
    let flags = entry
        .flags
        .map(|flags| (flags, read_flags(flags, name, out)));
    if entry.source.is_some() {
        out.extend(flags.and_then(|(text, flags)| backup_flags(text, flags)));
        out.extend(entry.events.and_then(backup_events));
        return (InstanceFlags::default(), Vec::new());
    }
    let events = match entry.events {
        Some(list) if list.text.is_empty() => {
            out.push(empty_event_list(list));
            Vec::new()
        }
        Some(list) => read_list(list, out),
        None => Vec::new(),
    };
    (flags.map(|(_, flags)| flags).unwrap_or_default(), events)
}

/// Flags that a backup cannot follow.
fn backup_flags(text: Piece<'_>, flags: InstanceFlags) -> Option<Diagnostic> {
    (flags != InstanceFlags::default()).then(|| {
        Diagnostic::warning(text.span(), "a backup is read-only, flags do not change it")
            .consequence("the flags are ignored")
    })
}

/// Events that a backup cannot have. The kernel clears the copy and leaves an instance that
/// nobody can open.
fn backup_events(list: Piece<'_>) -> Option<Diagnostic> {
    let first = list.split(',').find(|token| !token.text.is_empty())?;
    let diagnostic = Diagnostic::error(list.span(), "a backup is read-only, it has no events");
    Some(
        diagnostic
            .help("write the events behind the source")
            .consequence("only the events are ignored")
            .in_kernel("Linux clears the copy, and from 7.1 on nobody can open it")
            .kernel(format!("Failed to enable trace event: {}", first.text)),
    )
}

/// A comma with nothing behind it.
fn empty_event_list(list: Piece<'_>) -> Diagnostic {
    Diagnostic::warning(list.visible_span(), "no event follows the comma")
        .expected("expected an event or a system")
        .help("events follow the comma without a blank")
        .consequence("no event is started, and old data stays in the instance")
}

/// What an entry is and where that is said, or why it is skipped.
fn read_instance(
    entry: &Entry<'_>,
    memory: Memory<'_>,
    made: &[Instance],
    out: &mut Vec<Diagnostic>,
) -> Result<(InstanceKind, Option<Range<usize>>), Diagnostic> {
    check_name(entry.name, made)?;
    if let Some(source) = entry.source {
        let kind = read_backup(entry, source)?;
        return Ok((kind, Some(source.span())));
    }
    let Some(place) = entry.area else {
        return Ok((InstanceKind::Ordinary, None));
    };
    let is_address = place.text.starts_with(|c: char| c.is_ascii_digit());
    let area = if is_address {
        read_address(place, entry.name.text, memory.areas, out)?
    } else {
        read_label(place, entry, memory)?
    };
    check_shared(place, &area, made)?;
    Ok((InstanceKind::Persistent { area }, Some(place.span())))
}

/// Refuses names that are empty, unfit for a folder, or taken.
fn check_name(name: Piece<'_>, made: &[Instance]) -> Result<(), Diagnostic> {
    if name.text.is_empty() {
        return Err(
            Diagnostic::error(name.visible_span(), "this instance has no name")
                .expected("expected a name behind this")
                .in_kernel("Linux makes no folder for it, nor for the instances behind it"),
        );
    }
    if let Some(other) = made.iter().find(|instance| instance.name == name.text) {
        let message = format!("the instance `{}` already exists", name.text);
        return Err(Diagnostic::error(name.span(), message)
            .related(other.name_span.clone(), "here")
            .kernel(format!("Tracing: Instance {} already exists", name.text)));
    }
    match unfit_reason(name.text) {
        Some(reason) => Err(Diagnostic::error(name.span(), format!("the name {reason}"))
            .help("the name of an instance becomes the name of a folder")),
        None => Ok(()),
    }
}

/// A backup; whether its source exists is seen later.
fn read_backup(entry: &Entry<'_>, source: Piece<'_>) -> Result<InstanceKind, Diagnostic> {
    if let Some(area) = entry.area {
        let place = area.start - 1..area.span().end;
        return Err(Diagnostic::error(place, "a backup has no area of its own")
            .help("leave the area out: the copy gets its own memory"));
    }
    if source.text.is_empty() {
        return Err(
            Diagnostic::error(source.visible_span(), "the source has no name")
                .expected("expected the name of a persistent instance behind this"),
        );
    }
    Ok(InstanceKind::Backup {
        source: source.text.into(),
    })
}

/// `@ADDRESS:SIZE`.
fn read_address(
    place: Piece<'_>,
    name: &str,
    areas: &[ReserveMem],
    out: &mut Vec<Diagnostic>,
) -> Result<AreaRef, Diagnostic> {
    let address = number(place);
    if address.read.value == 0 {
        return Err(Diagnostic::error(address.digits.span(), "the address is 0")
            .expected("expected `ADDRESS:SIZE`, such as `0x284500000:12M`")
            .kernel(format!("Tracing: Invalid boot instance address for {name}")));
    }
    let Some(behind) = address.rest.text.strip_prefix(':') else {
        return Err(no_size(place, address, name, areas));
    };
    let size = number(Piece::new(behind, address.rest.start + 1));
    if size.read.value == 0 {
        let place = if size.read.len == 0 {
            size.rest
        } else {
            size.digits
        };
        return Err(
            Diagnostic::error(place.visible_span(), "this is not a size, or it is 0")
                .expected("expected a size, such as `12M`")
                .kernel(format!("Tracing: Invalid boot instance size for {name}")),
        );
    }
    let (start, size_bytes) = (address.read.value, size.read.value);
    let is_saturated = address.read.is_saturated || size.read.is_saturated;
    if is_saturated || start.checked_add(size_bytes).is_none() {
        return Err(Diagnostic::error(
            place.span(),
            "this range does not fit in 64 bits",
        ));
    }
    check_aligned(address.digits.span(), start, "start addr")?;
    check_aligned(size.digits.span(), size_bytes, "size")?;
    if !size.rest.text.is_empty() {
        let message = format!("`{}` is not part of a size", size.rest.text);
        out.push(
            Diagnostic::warning(size.rest.span(), message)
                .expected("expected `,` or the end")
                .consequence("it is ignored, as the kernel does"),
        );
    }
    Ok(AreaRef::Address {
        start,
        size: size_bytes,
    })
}

/// An address with something else than `:` behind it; it may be meant as a label.
fn no_size(place: Piece<'_>, address: Number<'_>, name: &str, areas: &[ReserveMem]) -> Diagnostic {
    let diagnostic = Diagnostic::error(address.rest.span(), "no size follows the address")
        .expected("expected `:SIZE`")
        .kernel(format!("Tracing: No size specified for instance {name}"));
    if areas.iter().any(|area| area.label == place.text) {
        return diagnostic.help("a label that begins with a digit is read as an address");
    }
    diagnostic
}

/// Refuses what is not a multiple of a page.
fn check_aligned(span: Range<usize>, value: u64, what: &str) -> Result<(), Diagnostic> {
    if value.is_multiple_of(MAP_ALIGN) {
        return Ok(());
    }
    let diagnostic = Diagnostic::error(span, format!("0x{value:x} is not a multiple of 4096"));
    Err(diagnostic.kernel(format!(
        "Tracing: mapping {what} 0x{value:x} is not page aligned"
    )))
}

/// `@LABEL`.
fn read_label(
    label: Piece<'_>,
    entry: &Entry<'_>,
    memory: Memory<'_>,
) -> Result<AreaRef, Diagnostic> {
    let Some(area) = memory.areas.iter().find(|area| area.label == label.text) else {
        return Err(unknown_label(label, entry, memory));
    };
    check_aligned(label.span(), area.size, "size").map_err(|diagnostic| {
        let label = "the size is given here";
        diagnostic.related(area.size_span.clone(), label)
    })?;
    Ok(AreaRef::Label(label.text.into()))
}

/// A label that no `reserve_mem=` gave.
fn unknown_label(label: Piece<'_>, entry: &Entry<'_>, memory: Memory<'_>) -> Diagnostic {
    let (name, areas) = (entry.name.text, memory.areas);
    let message = match label.text {
        "" => "the area has no name".into(),
        text => format!("no area is called `{text}`"),
    };
    let diagnostic = Diagnostic::error(label.visible_span(), message)
        .expected("expected the label of a `reserve_mem=`, or `ADDRESS:SIZE`")
        .kernel(format!(
            "Failed to map boot instance {name} to {}",
            label.text
        ));
    let is_meant = |value: &&Piece<'_>| value.text.rsplit(':').next() == Some(label.text);
    if let Some(refused) = memory.refused.iter().find(is_meant) {
        return diagnostic.related(refused.span(), "this is not reserved");
    }
    let near = nearest(label.text, areas.iter().map(|area| area.label.as_str()));
    if near.is_some() {
        return diagnostic.nearest(near);
    }
    if label.text.contains('^') {
        return diagnostic.help("write all flags in one place: `NAME^FLAG^FLAG@AREA`");
    }
    if areas.is_empty() {
        return diagnostic.help("reserve the area first, with `reserve_mem=SIZE:ALIGN:LABEL`");
    }
    let labels: Vec<_> = areas
        .iter()
        .map(|area| format!("`{}`", area.label))
        .collect();
    diagnostic.help(format!("reserved are: {}", labels.join(", ")))
}

/// Refuses an area that another instance has. The kernel lets both write into it.
fn check_shared(place: Piece<'_>, area: &AreaRef, made: &[Instance]) -> Result<(), Diagnostic> {
    let shares = |instance: &&Instance| match &instance.kind {
        InstanceKind::Persistent { area: other } => overlaps(area, other),
        _ => false,
    };
    let Some(other) = made.iter().find(shares) else {
        return Ok(());
    };
    let message = format!("the instance `{}` lies in this memory already", other.name);
    let diagnostic = Diagnostic::error(place.span(), message)
        .help("give each persistent instance an area of its own")
        .in_kernel("Linux lets both write there, and each spoils what the other has");
    Err(match &other.place_span {
        Some(span) => diagnostic.related(span.clone(), "here"),
        None => diagnostic,
    })
}

/// Whether two areas are, as far as the line says, the same memory.
fn overlaps(a: &AreaRef, b: &AreaRef) -> bool {
    match (a, b) {
        (AreaRef::Label(a), AreaRef::Label(b)) => a == b,
        (
            AreaRef::Address {
                start: a,
                size: a_size,
            },
            AreaRef::Address {
                start: b,
                size: b_size,
            },
        ) => a < &b.saturating_add(*b_size) && b < &a.saturating_add(*a_size),
        _ => false,
    }
}

/// Takes out the backups whose source is not there, wherever in the line it stands.
pub(super) fn drop_lone_backups(
    made: &mut Vec<Instance>,
    skipped: &HashSet<&str>,
    out: &mut Vec<Diagnostic>,
) {
    let sources = mapped_names(made);
    let lone = made.iter().filter_map(|instance| match &instance.kind {
        InstanceKind::Backup { source } if !sources.contains(source) => {
            Some(lone_backup(instance, source, made, skipped))
        }
        _ => None,
    });
    out.extend(lone.map(|diagnostic| diagnostic.consequence(SKIPPED)));
    made.retain(|instance| match &instance.kind {
        InstanceKind::Backup { source } => sources.contains(source),
        _ => true,
    });
}

/// The instances that can be a source: the persistent ones, and the backups that lead to one.
fn mapped_names(made: &[Instance]) -> HashSet<String> {
    let mut names = HashSet::new();
    loop {
        let count = names.len();
        for instance in made {
            let is_mapped = match &instance.kind {
                InstanceKind::Ordinary => false,
                InstanceKind::Persistent { .. } => true,
                InstanceKind::Backup { source } => names.contains(source),
            };
            if is_mapped {
                names.insert(instance.name.clone());
            }
        }
        if names.len() == count {
            return names;
        }
    }
}

/// Why the source of `backup` cannot be copied.
///
/// The kernel makes an ordinary instance of a name that it does not know, and then finds that this
/// one is not mapped: its message is the same for all of them.
fn lone_backup(
    backup: &Instance,
    source: &str,
    made: &[Instance],
    skipped: &HashSet<&str>,
) -> Diagnostic {
    let place = backup
        .place_span
        .clone()
        .unwrap_or_else(|| backup.span.clone());
    let error = |message| {
        Diagnostic::error(place, message)
            .kernel(format!("Tracing: Instance {source} is not boot mapped."))
    };
    if source == backup.name {
        return error(format!("`{source}` is to be a backup of itself"));
    }
    match made.iter().find(|instance| instance.name == source) {
        Some(other) if other.kind == InstanceKind::Ordinary => {
            error(format!("`{source}` is not a persistent instance"))
                .related(other.span.clone(), "this has no area")
                .help(format!("give it one: `{source}@LABEL`"))
        }
        Some(_) => error(format!("`{source}` is a backup without a source itself")),
        None if skipped.contains(source) => error(format!("its source `{source}` is skipped")),
        None => {
            let diagnostic = error(format!("no instance is called `{source}`"))
                .in_kernel("Linux makes an ordinary instance of that name instead");
            unknown_source(diagnostic, source, made, skipped)
        }
    }
}

/// A source that the line does not have. A skipped instance is near, too: first things first.
fn unknown_source(
    diagnostic: Diagnostic,
    source: &str,
    made: &[Instance],
    skipped: &HashSet<&str>,
) -> Diagnostic {
    let diagnostic = diagnostic.expected("expected the name of a persistent instance");
    if let Some(at) = source.find(['^', '@']) {
        let name = &source[..at];
        return diagnostic.help(format!(
            "all behind the `=` is the source's name; did you mean `{name}`?"
        ));
    }
    let made = made
        .iter()
        .filter(|instance| instance.kind != InstanceKind::Ordinary);
    let mut names: Vec<_> = made.map(|instance| instance.name.as_str()).collect();
    names.extend(skipped);
    names.sort_unstable();
    diagnostic.nearest(nearest(source, names))
}

/// Says that nothing on the line keeps the kernel away from the range of an instance.
fn unkept_range(instance: &Instance, ranges: &[Memmap]) -> Option<Diagnostic> {
    let InstanceKind::Persistent {
        area: AreaRef::Address { start, size },
    } = instance.kind
    else {
        return None;
    };
    if ranges.iter().any(|range| range.holds(start, size)) {
        return None;
    }
    let span = instance.place_span.clone()?;
    let help = format!("the machine must be booted with `memmap=0x{size:x}$0x{start:x}`");
    let diagnostic = match ranges.iter().find(|range| range.kind.is_kept()) {
        Some(range) => Diagnostic::warning(span, "this range is in no `memmap=` of the line")
            .related(range.span.clone(), "the range that is kept"),
        None => Diagnostic::note(
            span,
            "nothing on this line keeps the kernel from this range",
        ),
    };
    let consequence = "the range is used only if the running kernel leaves it alone";
    Some(diagnostic.help(help).consequence(consequence))
}

/// Notes the areas that no instance uses, unless something else is wrong that explains it.
fn note_unused_areas(made: &[Instance], areas: &[ReserveMem], out: &mut Vec<Diagnostic>) {
    if out.iter().any(Diagnostic::is_refused_by_strict) {
        return;
    }
    let is_used = |area: &ReserveMem| {
        let area = AreaRef::Label(area.label.clone());
        made.iter().any(|instance| match &instance.kind {
            InstanceKind::Persistent { area: other } => *other == area,
            _ => false,
        })
    };
    out.extend(areas.iter().filter(|area| !is_used(area)).map(|area| {
        let message = format!("no instance uses the area `{}`", area.label);
        Diagnostic::note(area.label_span.clone(), message)
            .help(format!("name it in a `trace_instance=NAME@{}`", area.label))
    }));
}
