//! What a campaign amounts to, for people and for programs.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

use quorate_sim::campaign::Tally;
use quorate_sim::cells::Matrix;
use quorate_sim::coverage::Kind;

/// Time by the clock, and CPU time where it is known.
pub type Spent = (Duration, Option<Duration>);

/// The summary in words.
pub fn text(tally: &Tally, first: u64, (clock, cpu): Spent) -> String {
    let mut text = format!(
        "seeds {first} to {}: {} passed, {} failed, {} excused\n",
        tally.next.saturating_sub(1),
        tally.passed,
        tally.failed.len(),
        tally.excused.len()
    );
    for (seed, excuse) in &tally.excused {
        let _ = writeln!(text, "  seed {seed} excused, proven: {excuse}");
    }
    if tally.is_excused_too_often() {
        text.push_str("  FAILED: more than one seed in a thousand is excused\n");
    }
    let _ = writeln!(text, "operations: {}", tally.total());
    for (asked, ends) in by_kind(tally) {
        let ends: Vec<String> = ends.iter().map(|(end, count)| format!("{end} {count}")).collect();
        let _ = writeln!(text, "  {asked}: {}", ends.join(", "));
    }
    let virtual_time = tally.elapsed as f64 / 1e9;
    let _ = writeln!(
        text,
        "virtual time: {virtual_time:.0} s; elections: {}",
        tally.elections
    );
    let cpu = cpu.map_or("unknown".to_owned(), |cpu| format!("{:.1} s", cpu.as_secs_f64()));
    let _ = writeln!(text, "CPU: {cpu}; by the clock: {:.1} s", clock.as_secs_f64());
    let _ = writeln!(text, "met: {}", tally.coverage);
    text
}

/// The table of faults by states, and what is wrong with it: possible cells with less than `least`, and cells that were said to be impossible.
pub fn matrix(matrix: &Matrix, least: u64) -> (String, bool) {
    let mut text = matrix.to_string();
    let (below, disproved) = (matrix.below(least), matrix.disproved());
    for (fault, state, count) in &below {
        let _ = writeln!(text, "below {least}: {fault:?} in {state:?}, {count}");
    }
    for (fault, state) in &disproved {
        let _ = writeln!(text, "said to be impossible: {fault:?} in {state:?}");
    }
    let _ = writeln!(text, "cells below {least}: {}", below.len());
    (text, below.is_empty() && disproved.is_empty())
}

/// The summary as JSON.
pub fn json(tally: &Tally, first: u64, (clock, cpu): Spent) -> String {
    let failed = tally.failed.iter().map(|(seed, failure)| {
        let code = failure.exit_code();
        format!(
            "{{\"seed\":{seed},\"code\":{code},\"what\":{}}}",
            quoted(&failure.to_string())
        )
    });
    let excused = tally
        .excused
        .iter()
        .map(|(seed, excuse)| format!("{{\"seed\":{seed},\"proof\":{}}}", quoted(&excuse.to_string())));
    let operations = by_kind(tally).into_iter().map(|(asked, ends)| {
        let ends = ends.iter().map(|(end, count)| format!("{}:{count}", quoted(end)));
        format!("{}:{{{}}}", quoted(&asked), joined(ends))
    });
    let met = Kind::ALL.iter().map(|kind| {
        let count = tally.coverage.count(*kind);
        format!("{}:{count}", quoted(&format!("{kind:?}")))
    });
    let cpu = cpu.map_or("null".to_owned(), |cpu| cpu.as_secs_f64().to_string());
    let (next, passed, total) = (tally.next, tally.passed, tally.total());
    let (elapsed, elections) = (tally.elapsed, tally.elections);
    format!(
        "{{\"first\":{first},\"next\":{next},\"passed\":{passed},\"failed\":[{}],\"excused\":[{}],\"total\":{total},\n\
         \"operations\":{{{}}},\n\"virtual_ns\":{elapsed},\"elections\":{elections},\"cpu_s\":{cpu},\"clock_s\":{},\n\
         \"exit_code\":{},\n\"met\":{{{}}}}}\n",
        joined(failed),
        joined(excused),
        joined(operations),
        clock.as_secs_f64(),
        tally.exit_code(),
        joined(met),
    )
}

/// Operations by kind, and for each kind by how they ended.
fn by_kind(tally: &Tally) -> BTreeMap<String, BTreeMap<String, u64>> {
    let mut sums: BTreeMap<String, BTreeMap<String, u64>> = BTreeMap::new();
    for ((asked, ended), count) in &tally.operations {
        let ends = sums.entry(format!("{asked:?}")).or_default();
        ends.insert(format!("{ended:?}"), *count);
    }
    sums
}

fn joined(parts: impl Iterator<Item = String>) -> String {
    parts.collect::<Vec<_>>().join(",")
}

fn quoted(text: &str) -> String {
    let mut quoted = String::from('"');
    for c in text.chars() {
        match c {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            c if c.is_control() => drop(write!(quoted, "\\u{:04x}", c as u32)),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;
    use quorate_sim::campaign::{Asked, Ended};
    use quorate_sim::failure::Failure;

    #[test]
    fn both_summaries_say_what_happened() {
        let mut tally = Tally {
            passed: 41,
            next: 43,
            ..Tally::default()
        };
        tally.operations.insert((Asked::Put, Ended::Ok), 5);
        tally.operations.insert((Asked::Put, Ended::Unknown), 2);
        tally.failed.insert(17, Failure::Crash("\"why\"\n".into()));
        let spent = (Duration::from_secs(2), Some(Duration::from_millis(1_500)));
        let text = text(&tally, 1, spent);
        assert!(
            text.contains("seeds 1 to 42: 41 passed, 1 failed, 0 excused"),
            "{text}"
        );
        assert!(
            text.contains("  Put: Ok 5, Unknown 2\n") && text.contains("CPU: 1.5 s"),
            "{text}"
        );
        let json = json(&tally, 1, spent);
        assert!(json.contains("\"Put\":{\"Ok\":5,\"Unknown\":2}"), "{json}");
        assert!(
            json.contains("{\"seed\":17,\"code\":10,\"what\":\"crash: \\\"why\\\"\\u000a\"}"),
            "{json}"
        );
        assert!(
            json.contains("\"exit_code\":10") && json.contains("\"cpu_s\":1.5"),
            "{json}"
        );
    }
}
