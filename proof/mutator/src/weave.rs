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

#[cfg(test)]
mod tests {
    //! What matters is that a switch does what the mutant alone would do. So a program is woven, and run with each of its mutants switched on;
    //! and it is changed by each alone, built, and run. Both must print the same.

    use std::path::{Path, PathBuf};
    use std::process::Command;

    use super::*;

    const PROGRAM: &str = r#"
//! Not an ASCII character: §.
#[derive(Debug, Default)]
struct Pair { one: u32, two: u32 }

fn value(a: u32) -> u32 { a.wrapping_add(7) }
fn mixed(a: u32, b: u32, c: u32) -> bool { a + b * c == 7 || a < b && b != c }
fn chain(a: Option<u32>, b: u32) -> u32 {
    if let Some(x) = a && x > b - 1 { x } else { b }
}
fn arms(a: u32, quiet: bool) -> &'static str {
    match a {
        0 if quiet => "none",
        1 | 2 => "few",
        _ if !quiet => "many",
        _ => "hush",
    }
}
fn grow(mut a: u32) -> u32 { a += 3; a *= 2; a }
fn pair() -> Pair { Pair { one: 1, ..Pair { one: 5, two: 6 } } }

fn main() {
    for a in 0..4 {
        for b in 1..4 {
            print!("{} ", chain((a > 1).then_some(a), b));
            for c in 1..5 { print!("{} ", mixed(a, b, c)); }
        }
        println!("{} {} {} {}", value(a), arms(a, true), arms(a, false), grow(a));
    }
    println!("{:?}", pair());
}
"#;

    /// The mutants, as genre, function, the text that is replaced, the how-manieth of it there, and the replacement.
    const MUTANTS: &[(Genre, &str, &str, usize, &str)] = &[
        (Genre::FnValue, "fn value", "a.wrapping_add(7)", 0, "1"),
        (
            Genre::FnValue,
            "fn pair",
            "Pair { one: 1, ..Pair { one: 5, two: 6 } }",
            0,
            "Default::default()",
        ),
        (Genre::BinaryOperator, "fn mixed", "+", 0, "*"),
        (Genre::BinaryOperator, "fn mixed", "+", 0, "-"),
        (Genre::BinaryOperator, "fn mixed", "*", 0, "+"),
        (Genre::BinaryOperator, "fn mixed", "*", 0, "/"),
        (Genre::BinaryOperator, "fn mixed", "==", 0, "!="),
        (Genre::BinaryOperator, "fn mixed", "||", 0, "&&"),
        (Genre::BinaryOperator, "fn mixed", "<", 0, "<="),
        (Genre::BinaryOperator, "fn mixed", "&&", 0, "||"),
        (Genre::BinaryOperator, "fn mixed", "!=", 0, "=="),
        (Genre::BinaryOperator, "fn chain", ">", 0, ">="),
        (Genre::BinaryOperator, "fn chain", "- ", 0, "+"),
        (Genre::MatchArmGuard, "fn arms", "quiet", 0, "true"),
        (Genre::MatchArmGuard, "fn arms", "quiet", 0, "false"),
        (Genre::MatchArmGuard, "fn arms", "!quiet", 0, "true"),
        (Genre::UnaryOperator, "fn arms", "!", 0, ""),
        (Genre::MatchArm, "fn arms", "0 if quiet => \"none\",", 0, ""),
        (Genre::MatchArm, "fn arms", "1 | 2 => \"few\",", 0, ""),
        (Genre::BinaryOperator, "fn grow", "+=", 0, "-="),
        (Genre::BinaryOperator, "fn grow", "*=", 0, "+="),
        (Genre::StructField, "fn pair", "one: 1,", 0, ""),
    ];

    fn mutants() -> Vec<Mutant> {
        let find = |(at, (genre, function, old, nth, new)): (usize, &(Genre, &str, &str, usize, &str))| {
            let from = PROGRAM.find(function).expect("the function");
            let body = from + PROGRAM[from..].find('{').expect("its body");
            let found = PROGRAM[body..].match_indices(old).nth(*nth).expect(old);
            let start = body + found.0;
            let end = start + old.trim_end().len();
            Mutant {
                id: at + 1,
                package: String::new(),
                genre: *genre,
                what: format!("{function}: {old} becomes {new}"),
                span: start..end,
                replacement: (*new).to_owned(),
            }
        };
        MUTANTS.iter().enumerate().map(find).collect()
    }

    /// Builds the program; `None` if it does not compile.
    fn build(folder: &Path, name: &str, text: &str) -> Option<PathBuf> {
        let source = folder.join(format!("{name}.rs"));
        std::fs::write(&source, text).unwrap();
        let mut rustc = Command::new(std::env::var_os("RUSTC").unwrap_or("rustc".into()));
        rustc.args(["--edition=2024", "--cap-lints=allow", "-C", "overflow-checks=yes"]);
        rustc.current_dir(folder).arg(&source);
        let done = rustc.output().expect("rustc");
        done.status.success().then(|| folder.join(name))
    }

    /// What it prints, and whether it ended well.
    fn outcome(program: &Path, switch: usize) -> (Vec<u8>, bool) {
        let mut command = Command::new(program);
        let done = command
            .env("QUORATE_MUTANT", switch.to_string())
            .output()
            .unwrap();
        (done.stdout, done.status.success())
    }

    #[test]
    fn a_switch_does_what_the_mutant_alone_does() {
        let folder = std::env::temp_dir().join(format!("quorate-mutator-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let (mutants, syntax) = (mutants(), Syntax::of(PROGRAM).unwrap());
        let woven = weave(PROGRAM, &syntax, mutants.iter());
        assert_eq!(woven.switched.len(), mutants.len(), "every one has a switch");
        let switch = "mod mutant_switch { pub fn on(id: u32) -> bool {
            std::env::var(\"QUORATE_MUTANT\").unwrap() == id.to_string() } }";
        let all = build(&folder, "woven", &(woven.text.clone() + switch));
        let all = all.unwrap_or_else(|| panic!("does not compile:\n{}", woven.text));
        let plain = build(&folder, "plain", PROGRAM).expect("compiles");
        assert_eq!(outcome(&all, 0), outcome(&plain, 0), "no mutant");
        for mutant in &mutants {
            let changed = mutant.applied(PROGRAM, &(0..PROGRAM.len()));
            let alone = build(&folder, "alone", &changed).unwrap_or_else(|| panic!("{}", mutant.what));
            let alone = outcome(&alone, 0);
            assert_eq!(outcome(&all, mutant.id), alone, "{}", mutant.what);
            assert_ne!(
                alone,
                outcome(&plain, 0),
                "{}: the program does not show it",
                mutant.what
            );
        }
        std::fs::remove_dir_all(&folder).unwrap();
    }

    /// `a && let … = …` with another operator is no expression, and neither is anything around it.
    #[test]
    fn a_condition_that_binds_gets_no_switch() {
        let text = "fn f(a: Option<u8>, b: bool) -> bool { if b && let Some(_) = a && b { b } else { !b } }";
        let at = text.match_indices("&&").map(|(at, _)| at);
        let mutants: Vec<Mutant> = at
            .zip(1..)
            .map(|(start, id)| Mutant {
                id,
                package: String::new(),
                genre: Genre::BinaryOperator,
                what: String::new(),
                span: start..start + 2,
                replacement: "||".to_owned(),
            })
            .collect();
        let woven = weave(text, &Syntax::of(text).unwrap(), mutants.iter());
        assert_eq!((woven.switched, &woven.text[..]), (BTreeSet::new(), text));
    }
}
