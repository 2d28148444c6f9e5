//! `outlive export`: events in the formats of other tools.

use std::fs::{File, Metadata};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use anyhow::{Result, anyhow, bail};
use indicatif::{ProgressBar, ProgressStyle};
use outlive_export::damage;
use outlive_trace::view::{NoCommonTime, Source, Sources, View};

use crate::args::{Args, ExportArgs};
use crate::boot::say;
use crate::show::Selection;
use crate::target::Target;
use crate::{Usage, exit, formats, units};

/// How often the progress is shown.
const LOOK: Duration = Duration::from_millis(50);

/// Does what the command's arguments say.
pub(crate) fn run(args: &Args, export: &ExportArgs) -> Result<u8> {
    let format = match export.format {
        Some(format) => format,
        None => formats::of_path(&export.output).map_err(Usage)?,
    };
    let selection = export.selection.selection()?;
    let names = Target::matching(args, &export.names)?;
    let targets = Target::find_all(args, &names)?;
    refuse_input(&targets, &export.output)?;
    let views = Target::open_all(&targets, export.formats.as_deref())?;
    let sources = sources(&names, &views, &selection)?;
    let to_read = format.exporter.to_read(&sources);
    let summary = watched(&sources, to_read, || {
        outlive_export::write(format, &sources, &export.output)
    })?;
    for (name, view) in export.names.iter().zip(&views) {
        say_doubtful(name, view);
    }
    for note in &summary.notes {
        say!("{note}");
    }
    if export.output != Path::new("-") {
        let lost = match summary.lost {
            0 => String::new(),
            lost => format!(", {lost} lost between them"),
        };
        say!(
            "{}: {} events{lost} ({})",
            export.output.display(),
            summary.events,
            format.name
        );
    }
    Ok(if summary.notes.is_empty() {
        exit::DONE
    } else {
        exit::FAILED
    })
}

/// Refuses an output that is one of the files that are read, by whatever name.
fn refuse_input(targets: &[Target], output: &Path) -> Result<()> {
    let there = match output == Path::new("-") {
        true => File::from(std::io::stdout().as_fd().try_clone_to_owned()?).metadata(),
        false => output.metadata(),
    };
    let Ok(there) = there else {
        return Ok(());
    };
    for file in targets.iter().flat_map(Target::files) {
        let is_same = |read: Metadata| (read.dev(), read.ino()) == (there.dev(), there.ino());
        if file.metadata().is_ok_and(is_same) {
            let (output, file) = (output.display(), file.display());
            bail!(Usage(format!(
                "the output {output} is {file}, which is to be exported: choose another name"
            )));
        }
    }
    Ok(())
}

/// Says how many events are doubtful: most formats have no place for that.
pub(crate) fn say_doubtful(name: &str, view: &View) {
    let doubtful = view.doubtful();
    if doubtful > 0 {
        say!("{name}: {doubtful} events are doubtful; `outlive show` marks each and says why");
    }
}

/// Says that a region is damaged, if it is.
pub(crate) fn say_damage(name: &str, view: &View) {
    if let Some(words) = damage(name, view) {
        say!("{words}");
    }
}

/// What is selected of each view.
pub(crate) fn sources<'v>(
    names: &[String],
    views: &'v [View],
    selection: &Selection,
) -> Result<Sources<'v>> {
    let mut sources = Vec::new();
    let mut mistake = None;
    for (name, view) in names.iter().zip(views) {
        // Of several regions one may lack the CPU or the event.
        if let Err(error) = selection.check(view) {
            mistake = Some(error);
            continue;
        }
        sources.push(Source {
            cpu: selection.cpu,
            wanted: selection.wanted(&view.catalog, view.cpus.len()),
            ..Source::new(name, view)
        });
    }
    match mistake {
        Some(mistake) if sources.is_empty() => Err(mistake),
        _ => {
            let mut sources = merged(sources, selection.same_boot)?;
            if let Some(last) = selection.last {
                sources.keep_last(units::nanos(last));
            }
            Ok(sources)
        }
    }
}

fn merged(sources: Vec<Source<'_>>, same_boot: bool) -> Result<Sources<'_>> {
    if same_boot {
        return Ok(Sources::of_one_boot(sources)?);
    }
    Sources::new(sources).map_err(|error| match error {
        NoCommonTime::NotConverted { .. } => {
            anyhow!("{error}, or say --same-boot if all are of one boot")
        }
        error => error.into(),
    })
}

/// Does something, and meanwhile shows how much of the sources it has read.
fn watched<T>(sources: &Sources<'_>, to_read: u64, work: impl FnOnce() -> T) -> T {
    let bar = progress_bar(to_read);
    if bar.is_hidden() {
        return work();
    }
    let (done, is_done) = channel::<()>();
    std::thread::scope(|scope| {
        let bar = &bar;
        scope.spawn(move || {
            while is_done.recv_timeout(LOOK) == Err(RecvTimeoutError::Timeout) {
                bar.set_position(sources.read().min(to_read));
            }
            bar.finish_and_clear();
        });
        let worked = work();
        drop(done);
        worked
    })
}

/// A bar on standard error, if that is a terminal.
fn progress_bar(entries: u64) -> ProgressBar {
    let style = ProgressStyle::with_template("{bar:40} {human_pos}/{human_len} events, {eta}");
    let bar = ProgressBar::new(entries);
    match style {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}
