//! The switched source: for every mutant the changed code beside the original, and a condition that chooses.
//!
//! Only one mutant is ever switched on, so the changed code holds the original of everything else. Around it stand comments, `/*<7*/` to
//! `/*7>*/` around what mutant 7 adds and `/*[7 8*/` to `/*7 8]*/` around the expression that mutants 7 and 8 change, by which a compiler
//! error is traced to its mutants.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use crate::catalogue::{Genre, Mutant};
use crate::syntax::Syntax;

/// One file, woven.
pub struct Woven {
    pub text: String,
    /// The mutants that have a switch. The others can only be tested alone.
    pub switched: BTreeSet<usize>,
}

/// The condition that mutant `id` is switched on.
fn on(id: usize) -> String {
    format!("crate::mutant_switch::on({id})")
}

/// Something put around, or for an empty range before, a piece of the source.
struct Edit {
    range: Range<usize>,
    /// Of edits with the same range, those with the higher rank are inside.
    rank: usize,
    open: String,
    close: String,
}

/// What the mutants of one match arm are.
#[derive(Default)]
struct ArmSwitches {
    removed: Option<usize>,
    always: Option<usize>,
    never: Option<usize>,
}

/// Puts the mutants into the text of their file.
pub fn weave<'a>(text: &str, syntax: &Syntax, mutants: impl Iterator<Item = &'a Mutant>) -> Woven {
    let mut switched = BTreeSet::new();
    let mut edits = Vec::new();
    let mut expressions: BTreeMap<(usize, usize), Vec<&Mutant>> = BTreeMap::new();
    let mut arms: BTreeMap<usize, ArmSwitches> = BTreeMap::new();
    for mutant in mutants {
        let start = mutant.span.start;
        let expression = match mutant.genre {
            Genre::FnValue => {
                edits.push(early_return(mutant));
                switched.insert(mutant.id);
                continue;
            }
            Genre::MatchArm | Genre::MatchArmGuard => {
                if let Some(arm) = syntax.arms.get(&start).filter(|arm| !arm.guard_binds) {
                    let switches = arms.entry(arm.pattern_end).or_default();
                    match (mutant.genre, mutant.replacement.as_str()) {
                        (Genre::MatchArm, _) => switches.removed = Some(mutant.id),
                        (_, "true") => switches.always = Some(mutant.id),
                        _ => switches.never = Some(mutant.id),
                    }
                    switched.insert(mutant.id);
                }
                continue;
            }
            Genre::BinaryOperator => syntax.binaries.get(&start).cloned().flatten(),
            Genre::UnaryOperator => syntax.unaries.get(&start).cloned(),
            Genre::StructField => syntax.fields.get(&start).cloned(),
        };
        if let Some(range) = expression {
            expressions
                .entry((range.start, range.end))
                .or_default()
                .push(mutant);
            switched.insert(mutant.id);
        }
    }
    edits.extend(
        expressions
            .into_iter()
            .map(|((start, end), mutants)| choice(text, start..end, &mutants)),
    );
    for arm in syntax.arms.values() {
        if let Some(switches) = arms.remove(&arm.pattern_end) {
            edits.push(guard(arm.pattern_end, arm.guard.clone(), &switches));
        }
    }
    edits.sort_by_key(|edit| {
        (
            edit.range.start,
            !edit.range.is_empty(),
            Reverse(edit.range.end),
            edit.rank,
        )
    });
    let mut out = String::new();
    render(text, 0..text.len(), &edits, &mut out);
    Woven { text: out, switched }
}

/// A function's body as if it were the value.
fn early_return(mutant: &Mutant) -> Edit {
    let (id, on, value) = (mutant.id, on(mutant.id), &mutant.replacement);
    Edit {
        range: mutant.span.start..mutant.span.start,
        rank: 0,
        open: format!("/*<{id}*/if {on} {{ return {value}; }}/*{id}>*/ "),
        close: String::new(),
    }
}

/// An expression, or one of its changed forms.
fn choice(text: &str, range: Range<usize>, mutants: &[&Mutant]) -> Edit {
    let ids: Vec<String> = mutants.iter().map(|mutant| mutant.id.to_string()).collect();
    let ids = ids.join(" ");
    let forms: String = mutants
        .iter()
        .map(|mutant| {
            let (id, form) = (mutant.id, mutant.applied(text, &range));
            format!("if {} {{/*<{id}*/ {form} /*{id}>*/}} else ", on(id))
        })
        .collect();
    Edit {
        range,
        rank: 1,
        open: format!("(/*[{ids}*/{forms}{{ "),
        close: format!(" }}/*{ids}]*/)"),
    }
}

/// A match arm's guard, which may be removed, always or never true; or, without one, the arm removed.
fn guard(pattern_end: usize, guard: Option<Range<usize>>, switches: &ArmSwitches) -> Edit {
    let not = |id: Option<usize>| id.map_or(String::new(), |id| format!("!/*<{id}*/{}/*{id}>*/ && ", on(id)));
    let removed = not(switches.removed);
    match guard {
        None => Edit {
            range: pattern_end..pattern_end,
            rank: 0,
            open: format!(" if {removed}true"),
            close: String::new(),
        },
        Some(range) => {
            let always = switches
                .always
                .map_or(String::new(), |id| format!("/*<{id}*/{}/*{id}>*/ || ", on(id)));
            Edit {
                range,
                rank: 0,
                open: format!("{removed}({always}{}(", not(switches.never)),
                close: "))".to_owned(),
            }
        }
    }
}

fn render(text: &str, range: Range<usize>, edits: &[Edit], out: &mut String) {
    let (mut at, mut next) = (range.start, 0);
    while let Some(edit) = edits.get(next) {
        let inside = edits[next + 1..]
            .iter()
            .take_while(|inner| inner.range.start < edit.range.end)
            .count();
        out.push_str(&text[at..edit.range.start]);
        out.push_str(&edit.open);
        render(text, edit.range.clone(), &edits[next + 1..next + 1 + inside], out);
        out.push_str(&edit.close);
        at = edit.range.end;
        next += 1 + inside;
    }
    out.push_str(&text[at..range.end]);
}
