//! The catalogue as cargo-mutants writes it, and a mutant as the rest of this program wants it: with byte offsets.

use std::ops::Range;

use anyhow::{Context, bail};
use serde::Deserialize;

/// One entry of `cargo mutants --list --json`.
#[derive(Deserialize)]
pub struct Listed {
    pub package: String,
    pub file: String,
    pub genre: String,
    pub name: String,
    pub replacement: String,
    pub span: Span,
}

/// From the first character to the one after the last; lines and columns count from 1, columns in characters.
#[derive(Deserialize)]
pub struct Span {
    pub start: Place,
    pub end: Place,
}

#[derive(Clone, Copy, Deserialize)]
pub struct Place {
    pub line: usize,
    pub column: usize,
}

/// What kind of change it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Genre {
    /// A function's body is replaced by a value.
    FnValue,
    BinaryOperator,
    /// A `!` or `-` is removed.
    UnaryOperator,
    /// A match arm is removed.
    MatchArm,
    /// A match guard is always or never true.
    MatchArmGuard,
    /// A field is removed from a struct expression that ends in `..base`.
    StructField,
}

/// One change to one file: the text in `span` becomes `replacement`.
#[derive(Debug)]
pub struct Mutant {
    pub id: usize,
    pub package: String,
    pub genre: Genre,
    /// What it does, in words, without the position.
    pub what: String,
    pub span: Range<usize>,
    pub replacement: String,
}

impl Mutant {
    pub fn new(id: usize, listed: &Listed, text: &str) -> anyhow::Result<Mutant> {
        let genre = match listed.genre.as_str() {
            "FnValue" => Genre::FnValue,
            "BinaryOperator" => Genre::BinaryOperator,
            "UnaryOperator" => Genre::UnaryOperator,
            "MatchArm" => Genre::MatchArm,
            "MatchArmGuard" => Genre::MatchArmGuard,
            "StructField" => Genre::StructField,
            other => bail!("a genre of mutants that is not known here: {other}"),
        };
        // "file:line:column: what"
        let what = listed
            .name
            .splitn(4, ':')
            .nth(3)
            .context("a name without position")?;
        Ok(Mutant {
            id,
            package: listed.package.clone(),
            genre,
            what: what.trim().to_owned(),
            span: offset(text, listed.span.start)?..offset(text, listed.span.end)?,
            replacement: listed.replacement.clone(),
        })
    }

    /// `text[outer]` with the change made.
    pub fn applied(&self, text: &str, outer: &Range<usize>) -> String {
        format!(
            "{}{} {}",
            &text[outer.start..self.span.start],
            self.replacement,
            &text[self.span.end..outer.end]
        )
    }
}

fn offset(text: &str, place: Place) -> anyhow::Result<usize> {
    let before: usize = text
        .split_inclusive('\n')
        .take(place.line - 1)
        .map(str::len)
        .sum();
    let line = text[before..].split_inclusive('\n').next().unwrap_or("");
    let column = line
        .char_indices()
        .map(|(at, _)| at)
        .chain([line.len()])
        .nth(place.column - 1);
    Ok(before + column.context("a column beyond the end of its line")?)
}
