//! The figures of a run, as they are kept: a flat list of samples, each with whatever was measured of one system under one scenario in one
//! round, beside the machine they were taken on. Raw: no ratios, nothing left out. What they mean is decided in [`crate::goals`].

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::machine::Machine;
use crate::stats::Spread;

/// The name under which Quorate's samples stand.
pub const QUORATE: &str = "quorate";
/// The name of the service that does nothing.
pub const FLOOR: &str = "floor";

/// What the core alone is held against.
pub const RAFT_RS: &str = "raft-rs";

/// What was measured at once.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// `quorate`, `etcd-3.5`, `etcd-3.6`, `floor`.
    pub system: String,
    /// The scenario's name.
    pub scenario: String,
    /// From 1. Only figures of the same round are put into ratio.
    pub round: u32,
    /// Where on the horizontal axis, if the scenario is a sweep: bytes, clients, nodes or keys.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub x: Option<f64>,
    /// Name and value.
    pub figures: BTreeMap<String, f64>,
    /// What the load generator said, whole.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub load: Vec<Value>,
}

impl Sample {
    /// An empty one.
    pub fn new(system: &str, scenario: &str, round: u32) -> Sample {
        Sample {
            system: system.to_owned(),
            scenario: scenario.to_owned(),
            round,
            ..Sample::default()
        }
    }

    /// Adds a figure.
    pub fn with(mut self, name: &str, value: f64) -> Sample {
        self.figures.insert(name.to_owned(), value);
        self
    }
}

/// A run, or several taken together.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Results {
    /// The day, in UTC.
    pub taken: String,
    /// The commands that were run, with their arguments.
    pub commands: Vec<String>,
    /// Where.
    pub machine: Machine,
    /// The systems' names, and what they say of their versions.
    pub systems: BTreeMap<String, String>,
    /// The figures.
    pub samples: Vec<Sample>,
    /// What could not be measured, and why.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub failures: Vec<String>,
}

impl Results {
    /// Reads a file.
    pub fn read(path: &Path) -> Result<Results> {
        let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
        let context = || format!("{} holds no results", path.display());
        let value: Value = serde_json::from_str(&text).with_context(context)?;
        if value.get("what").is_some() {
            return Results::of_core(&value).with_context(context);
        }
        serde_json::from_value(value).with_context(context)
    }

    /// From the figures of `bench/core`, which says medians. Those of whole nodes have no counterpart and are no results here.
    fn of_core(value: &Value) -> Result<Results> {
        let mut results = Results {
            commands: vec!["bench/core".to_owned()],
            ..Results::default()
        };
        let core = value.get("what").and_then(Value::as_str) == Some("core");
        let rows = value
            .get("results")
            .and_then(Value::as_array)
            .context("no array `results`")?;
        for row in rows.iter().filter(|_| core) {
            let batch = row
                .get("batch")
                .and_then(Value::as_u64)
                .context("no number `batch`")?;
            for (system, key) in [(QUORATE, "quorate"), (RAFT_RS, "raft_rs")] {
                let mut sample = Sample::new(system, &format!("core-{batch}"), 1);
                for name in ["proposals_per_second", "cpu_ns_per_proposal"] {
                    let found = row.get(key).and_then(|figures| figures.get(name)?.as_f64());
                    sample = sample.with(name, found.with_context(|| format!("no number {key}.{name}"))?);
                }
                results.samples.push(sample);
            }
        }
        Ok(results)
    }

    /// Writes a file, and the directory it is in. A reader sees the old one or the new one, also when the program is stopped in between.
    pub fn write(&self, path: &Path) -> Result<()> {
        let context = || path.display().to_string();
        if let Some(dir) = path.parent() {
            fs::create_dir_all(dir).with_context(context)?;
        }
        let text = serde_json::to_string_pretty(self)? + "\n";
        let new = path.with_extension("new");
        fs::write(&new, text).with_context(context)?;
        fs::rename(&new, path).with_context(context)
    }

    /// Takes in another run. Samples of a scenario that the other has, too, are replaced by the other's.
    pub fn take_in(&mut self, other: Results) {
        if self.machine == Machine::default() {
            self.machine = other.machine;
        }
        self.samples.retain(|sample| {
            let again = |new: &Sample| new.system == sample.system && new.scenario == sample.scenario;
            !other.samples.iter().any(again)
        });
        // What failed once and was measured since is no longer missing.
        self.failures.retain(|failure| {
            let again = |new: &Sample| failure.starts_with(&format!("{}, {}", new.system, new.scenario));
            !other.samples.iter().any(again) && !other.failures.contains(failure)
        });
        self.failures.extend(other.failures);
        self.samples.extend(other.samples);
        self.systems.extend(other.systems);
        for command in other.commands {
            if !self.commands.contains(&command) {
                self.commands.push(command);
            }
        }
        self.taken = std::mem::take(&mut self.taken).max(other.taken);
    }

    /// One figure of one system over all rounds.
    pub fn spread(&self, system: &str, scenario: &str, figure: &str) -> Option<Spread> {
        Spread::of(self.values(system, scenario, figure).map(|(_, value)| value))
    }

    /// The ratio of a figure of two systems in each round that has both.
    pub fn ratio(&self, a: &str, b: &str, scenario: &str, figure: &str) -> Option<Spread> {
        let of_b: BTreeMap<u32, f64> = self.values(b, scenario, figure).collect();
        Spread::of(
            self.values(a, scenario, figure)
                .filter_map(|(round, value)| Some(value / of_b.get(&round)?)),
        )
    }

    /// The points of a sweep: where, and the median there.
    pub fn line(&self, system: &str, scenario: &str, figure: &str) -> Vec<(f64, f64)> {
        let mut at: Vec<(f64, Vec<f64>)> = Vec::new();
        for sample in self.of(system, scenario) {
            let (Some(x), Some(&value)) = (sample.x, sample.figures.get(figure)) else {
                continue;
            };
            match at.iter_mut().find(|(there, _)| *there == x) {
                Some((_, values)) => values.push(value),
                None => at.push((x, vec![value])),
            }
        }
        at.sort_by(|a, b| a.0.total_cmp(&b.0));
        at.into_iter()
            .filter_map(|(x, values)| Some((x, Spread::of(values)?.median)))
            .collect()
    }

    /// The systems other than Quorate and the floor, by name.
    pub fn peers(&self) -> Vec<&str> {
        let names = self.systems.keys().map(String::as_str);
        names.filter(|name| *name != QUORATE && *name != FLOOR).collect()
    }

    fn of<'a>(&'a self, system: &'a str, scenario: &'a str) -> impl Iterator<Item = &'a Sample> {
        self.samples
            .iter()
            .filter(move |sample| sample.system == system && sample.scenario == scenario)
    }

    fn values<'a>(
        &'a self,
        system: &'a str,
        scenario: &'a str,
        figure: &'a str,
    ) -> impl Iterator<Item = (u32, f64)> + 'a {
        self.of(system, scenario)
            .filter_map(move |sample| Some((sample.round, *sample.figures.get(figure)?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn results() -> Results {
        let sample = |system: &str, round, cpu| Sample::new(system, "put-100", round).with("cpu", cpu);
        Results {
            systems: [QUORATE, "etcd-3.5", FLOOR]
                .map(|name| (name.to_owned(), String::new()))
                .into(),
            samples: vec![
                sample(QUORATE, 1, 50.0),
                sample("etcd-3.5", 1, 200.0),
                sample("etcd-3.5", 2, 300.0),
                sample(QUORATE, 2, 90.0),
                sample(QUORATE, 3, 1.0),
            ],
            ..Results::default()
        }
    }

    #[test]
    fn ratios_are_taken_within_rounds() {
        let ratio = results()
            .ratio(QUORATE, "etcd-3.5", "put-100", "cpu")
            .expect("two rounds have both");
        assert_eq!((ratio.min, ratio.max, ratio.count), (0.25, 0.3, 2));
        assert!((ratio.median - 0.275).abs() < 1e-9);
        assert_eq!(results().ratio(QUORATE, "etcd-3.6", "put-100", "cpu"), None);
        assert_eq!(results().peers(), ["etcd-3.5"]);
    }

    #[test]
    fn lines_are_in_order_and_take_medians() {
        let mut results = results();
        for (x, round, cpu) in [(64.0, 1, 5.0), (8.0, 1, 1.0), (64.0, 2, 7.0)] {
            let mut sample = Sample::new(QUORATE, "sizes", round).with("cpu", cpu);
            sample.x = Some(x);
            results.samples.push(sample);
        }
        assert_eq!(results.line(QUORATE, "sizes", "cpu"), [(8.0, 1.0), (64.0, 6.0)]);
    }

    #[test]
    fn a_newer_run_replaces_what_it_repeats() {
        let mut all = results();
        let mut newer = results();
        newer.samples = vec![Sample::new(QUORATE, "put-100", 1).with("cpu", 7.0)];
        newer.commands = vec!["bench/compare".to_owned()];
        all.failures = [
            "quorate, put-100, round 2: no answer",
            "etcd-3.5, filled: no answer",
        ]
        .map(str::to_owned)
        .into();
        all.take_in(newer);
        assert_eq!(
            all.spread(QUORATE, "put-100", "cpu").expect("the new one").median,
            7.0
        );
        assert_eq!(
            all.spread("etcd-3.5", "put-100", "cpu")
                .expect("the old ones")
                .count,
            2
        );
        assert_eq!(all.commands, ["bench/compare"]);
        assert_eq!(all.failures, ["etcd-3.5, filled: no answer"]);
    }

    #[test]
    fn figures_of_the_core_are_results_too() {
        let figures = |x: f64| serde_json::json!({"proposals_per_second": x, "cpu_ns_per_proposal": 1e9 / x});
        let row =
            serde_json::json!({"batch": 64, "quorate": figures(3e6), "raft_rs": figures(1e6), "ratio": 3.0});
        let value = serde_json::json!({"what": "core", "results": [row]});
        let results = Results::of_core(&value).expect("well formed");
        let ratio = results.ratio(QUORATE, RAFT_RS, "core-64", "proposals_per_second");
        assert_eq!(ratio.expect("both").median, 3.0);
        assert!(results.peers().is_empty());
        assert!(Results::of_core(&serde_json::json!({"what": "core"})).is_err());
    }

    #[test]
    fn written_and_read_again() {
        let dir = std::env::temp_dir().join(format!("quorate-results-{}", std::process::id()));
        let path = dir.join("deep/results.json");
        results().write(&path).expect("written");
        assert_eq!(Results::read(&path).expect("read"), results());
        std::fs::write(&path, "{}").expect("written");
        assert!(Results::read(&path).is_err());
        std::fs::remove_dir_all(dir).expect("removed");
    }
}
