//! How a search is told to a person: a line each, a sum, and the path to a broken invariant as a script that can be replayed.

use std::fmt;

use crate::kind::Kind;
use crate::script::Played;
use crate::search::{End, Report, Violation};

/// Above the lines.
pub const HEADER: &str = "model       from                             level      unique   generated   depth   seconds    MiB  end";

/// One search.
pub fn line(kind: Kind, from: &str, level: u8, report: &Report) -> String {
    let kind = kind.to_string();
    let seconds = report.time.as_secs_f64();
    let memory = report.memory >> 20;
    format!(
        "{kind:<11} {from:<32} {level:>5} {:>11} {:>11} {:>7} {seconds:>9.1} {memory:>6}  {}",
        report.unique,
        report.generated,
        report.depth,
        end(report.end)
    )
}

fn end(end: End) -> &'static str {
    match end {
        End::Exhausted => "exhausted",
        End::Violation => "VIOLATION",
        End::Time => "out of time",
        End::Memory => "out of memory",
        End::States => "enough states",
    }
}

/// All searches together.
#[derive(Clone, Debug, Default)]
pub struct Sum {
    searches: usize,
    exhausted: usize,
    unique: usize,
    generated: usize,
    deepest: usize,
}

impl Sum {
    /// One more.
    pub fn add(&mut self, report: &Report) {
        self.searches += 1;
        self.exhausted += usize::from(report.end == End::Exhausted);
        self.unique += report.unique;
        self.generated += report.generated;
        self.deepest = self.deepest.max(report.depth);
    }
}

impl fmt::Display for Sum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} searches, {} exhausted; {} states, each counted once a search, {} generated; depth up to {}",
            self.searches, self.exhausted, self.unique, self.generated, self.deepest
        )
    }
}

/// The way to a broken invariant, from empty logs on: a script for `replay`.
pub fn path(played: &Played, violation: &Violation) -> String {
    let why = violation.invariant.replace('\n', "\n# ");
    let mut text = format!("# {why}\n{}\n", played.header);
    let prefix = played.actions.iter();
    for action in prefix
        .chain(["# here the search began".to_owned()].iter())
        .chain(&violation.path)
    {
        text += action;
        text.push('\n');
    }
    text
}
