//! The doctor's findings as text and as JSON.

use std::io::Write;

use anyhow::Result;
use outlive_trace::AreaRequest;
use serde_json::{Map, Value, json};

use super::checks::{self, Check, Finding};
use super::judge::{Answer, Judge, Judgement, Subject, Tier, no};

/// Width of a line of text.
const WIDTH: usize = 100;

/// Everything that is printed.
pub(crate) struct Report {
    origin: String,
    areas: Vec<JudgedArea>,
    checks: Vec<Check>,
}

/// What one area survives.
struct JudgedArea {
    name: String,
    backing: String,
    /// In the order of [`Tier::ALL`].
    judgements: [Judgement; 4],
}

impl Report {
    /// Judges all areas. `requests` are those that outlive itself would reserve.
    pub(crate) fn new(
        judge: &Judge<'_>,
        subjects: &[Subject<'_>],
        requests: &[AreaRequest],
        origin: &str,
    ) -> Self {
        let checks = checks::all(judge.machine, judge.notes, requests, judge.state);
        let blocker = checks
            .iter()
            .find(|check| check.finding == Finding::Blocker)
            .map(|check| no(format!("nothing is recorded: {}", check.says)));
        let judged = |subject: &Subject<'_>| JudgedArea {
            name: subject.name().to_owned(),
            backing: subject.backing(),
            judgements: Tier::ALL.map(|tier| {
                let blocker = blocker.clone();
                blocker.unwrap_or_else(|| judge.judge(subject, tier))
            }),
        };
        Self {
            origin: origin.to_owned(),
            areas: subjects.iter().map(judged).collect(),
            checks,
        }
    }

    /// The worst answer of all areas.
    pub(crate) fn answer(&self, tier: Tier) -> Answer {
        self.worst(tier).1.answer
    }

    /// The area of the worst answer, and the answer.
    fn worst(&self, tier: Tier) -> (&JudgedArea, &Judgement) {
        let at = tier as usize;
        let mut worst = &self.areas[0];
        for area in &self.areas {
            if area.judgements[at].answer < worst.judgements[at].answer {
                worst = area;
            }
        }
        (worst, &worst.judgements[at])
    }

    pub(crate) fn print(&self, as_json: bool) -> Result<()> {
        let mut out = std::io::stdout().lock();
        match as_json {
            true => writeln!(out, "{}", self.to_json())?,
            false => self.write_text(&mut out)?,
        }
        Ok(())
    }

    fn write_text(&self, out: &mut impl Write) -> Result<()> {
        let areas: Vec<String> = self
            .areas
            .iter()
            .map(|area| format!("{} ({})", area.name, area.backing))
            .collect();
        writeln!(
            out,
            "Will a trace survive here? {}; from {}",
            areas.join(", "),
            self.origin
        )?;
        writeln!(out)?;
        for tier in Tier::ALL {
            let (area, Judgement { answer, why }) = self.worst(tier);
            let area = match self.areas.len() {
                1 => String::new(),
                _ => format!("{}: ", area.name),
            };
            let head = format!("  {:<14}{:<9}", label(tier), answer.word());
            write_wrapped(out, &head, &format!("{area}{why}"))?;
        }
        writeln!(out)?;
        for Check {
            name,
            finding,
            says,
        } in &self.checks
        {
            let head = format!("  {name:<14}{:<9}", finding.word());
            write_wrapped(out, &head, says)?;
        }
        Ok(())
    }

    fn to_json(&self) -> Value {
        let judgement = |judgement: &Judgement| json!({"answer": judgement.answer.word(), "why": judgement.why});
        let tiers: Map<String, Value> = Tier::ALL
            .into_iter()
            .map(|tier| (tier.word().to_owned(), judgement(self.worst(tier).1)))
            .collect();
        let area = |area: &JudgedArea| {
            let tiers: Map<String, Value> = Tier::ALL
                .into_iter()
                .map(|tier| {
                    let of_tier = &area.judgements[tier as usize];
                    (tier.word().to_owned(), judgement(of_tier))
                })
                .collect();
            json!({"area": area.name, "backing": area.backing, "tiers": tiers})
        };
        let check = |check: &Check| json!({"name": check.name, "finding": check.finding.word(), "says": check.says});
        json!({
            "from": self.origin,
            "tiers": tiers,
            "areas": self.areas.iter().map(area).collect::<Vec<_>>(),
            "checks": self.checks.iter().map(check).collect::<Vec<_>>(),
        })
    }
}

fn label(tier: Tier) -> &'static str {
    match tier {
        Tier::Process => "process",
        Tier::Container => "container",
        Tier::Panic => "panic, reset",
        Tier::Power => "power loss",
    }
}

/// A text behind a head, its later lines below its first.
fn write_wrapped(out: &mut impl Write, head: &str, text: &str) -> Result<()> {
    let indent = head.len();
    write!(out, "{head}")?;
    let mut column = indent;
    for (at, word) in text.split(' ').enumerate() {
        let width = word.chars().count();
        if at > 0 && column + 1 + width > WIDTH {
            write!(out, "\n{:indent$}", "")?;
            column = indent;
        } else if at > 0 {
            write!(out, " ")?;
            column += 1;
        }
        write!(out, "{word}")?;
        column += width;
    }
    writeln!(out)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_texts_are_wrapped_below_their_first_line() {
        let mut out = Vec::new();
        write_wrapped(&mut out, "  head  ", &"word ".repeat(40)).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(text.lines().all(|line| line.len() <= WIDTH), "{text}");
        assert!(
            text.lines()
                .skip(1)
                .all(|line| line.starts_with("        w")),
            "{text}"
        );
    }
}
