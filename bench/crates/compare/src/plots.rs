//! The plots of docs/performance.md, from the results. A plot whose figures were not measured is left out.

use crate::charts::{self, Bar};
use crate::goals::{self, Bound};
use crate::results::{FLOOR, QUORATE, Results};
use crate::scenario;

/// A file's name, what it shows for those who cannot see it, and its text.
#[derive(Clone, Debug)]
pub struct Plot {
    /// Without directory.
    pub file: &'static str,
    /// For the document.
    pub caption: String,
    /// SVG.
    pub svg: String,
}

/// All plots that the results allow, against one peer.
pub fn all(results: &Results, peer: &str) -> Vec<Plot> {
    let sweeps = [
        ("by-value-size.svg", "by-value-size", "bytes of a value"),
        ("by-clients.svg", "by-clients", "clients"),
        ("by-nodes.svg", "by-nodes", "nodes"),
        ("by-keys.svg", "by-keys", "keys"),
    ];
    let mut plots: Vec<Plot> = [ratios(results, peer), cpu(results, peer), gaps(results, peer)]
        .into_iter()
        .flatten()
        .collect();
    plots.extend(
        sweeps
            .iter()
            .filter_map(|(file, name, across)| sweep(results, peer, file, name, across)),
    );
    plots
}

/// The goals that are ratios of which less is better.
fn ratios(results: &Results, peer: &str) -> Option<Plot> {
    let bars: Vec<Bar> = goals::all()
        .iter()
        .filter_map(|goal| {
            let outcome = goal.outcome(results, peer);
            let (Bound::RatioAtMost(required), Bound::RatioAtMost(aim)) = (outcome.required, outcome.aim)
            else {
                return None;
            };
            let measured = outcome.measured?;
            Some(Bar {
                name: outcome.what.to_owned(),
                value: measured.median,
                range: [measured.min, measured.max],
                required,
                aim,
            })
        })
        .collect();
    let title = format!("Quorate in units of {peer}: less is better");
    let note = "median of the ratios of all rounds; the thin line spans them";
    (!bars.is_empty()).then(|| Plot {
        file: "ratios.svg",
        caption: title.clone(),
        svg: charts::bounded_bars(&title, note, 1.0, &bars),
    })
}

/// CPU per operation in µs, with what gRPC alone costs.
fn cpu(results: &Results, peer: &str) -> Option<Plot> {
    let systems = [QUORATE, peer, FLOOR];
    let rows: Vec<(String, Vec<Option<f64>>)> = scenario::all(1.0)
        .iter()
        .filter(|scenario| !scenario.name.ends_with("-1"))
        .map(|scenario| {
            let median = |system: &&str| Some(results.spread(system, scenario.name, "server_cpu_us")?.median);
            (scenario.title.to_owned(), systems.iter().map(median).collect())
        })
        .filter(|(_, values): &(String, Vec<Option<f64>>)| values[0].is_some() && values[1].is_some())
        .collect();
    let title = "Server CPU per operation, µs";
    (!rows.is_empty()).then(|| Plot {
        file: "cpu.svg",
        caption: title.to_owned(),
        svg: charts::grouped_bars(
            title,
            "all three nodes together; floor: a gRPC service that does nothing",
            &[QUORATE, peer, "floor"],
            &rows,
        ),
    })
}

/// Every trial of every gap.
fn gaps(results: &Results, peer: &str) -> Option<Plot> {
    let values = |system: &str, scenario: &str, figure: &str| -> Vec<f64> {
        results
            .samples
            .iter()
            .filter(|sample| sample.system == system && sample.scenario == scenario)
            .filter_map(|sample| sample.figures.get(figure).copied())
            .collect()
    };
    let rows: Vec<(String, Vec<Vec<f64>>)> = [
        ("kill -9 of the leader", "failover-kill", "longest_gap_ms"),
        ("SIGTERM of the leader", "failover-term", "longest_gap_ms"),
        ("start to the first write", "failover-kill", "start_ms"),
    ]
    .iter()
    .map(|(title, scenario, figure)| {
        (
            (*title).to_owned(),
            [QUORATE, peer]
                .map(|system| values(system, scenario, figure))
                .into(),
        )
    })
    .collect();
    let measured = rows
        .iter()
        .any(|(_, systems)| systems.iter().all(|values| !values.is_empty()));
    let title = "Longest time without a successful write, ms";
    measured.then(|| Plot {
        file: "failover.svg",
        caption: title.to_owned(),
        svg: charts::dots(title, "one mark a trial", &[QUORATE, peer], &rows),
    })
}

fn sweep(results: &Results, peer: &str, file: &'static str, name: &str, across: &str) -> Option<Plot> {
    let line = |system| results.line(system, name, "server_cpu_us");
    let (ours, theirs) = (line(QUORATE), line(peer));
    let title = format!("Server CPU per put by {across}");
    (!ours.is_empty()).then(|| Plot {
        file,
        caption: title.clone(),
        svg: charts::lines(
            &title,
            "µs, all nodes together; both axes logarithmic",
            across,
            &[(QUORATE, ours), (peer, theirs)],
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::Sample;

    #[test]
    fn what_was_not_measured_is_left_out() {
        assert!(all(&Results::default(), "etcd-3.5").is_empty());
        let mut results = Results::default();
        for system in [QUORATE, "etcd-3.5"] {
            let sample = Sample::new(system, "put-100", 1).with("server_cpu_us", 50.0);
            results.samples.push(sample);
        }
        let files: Vec<&str> = all(&results, "etcd-3.5").iter().map(|plot| plot.file).collect();
        assert_eq!(files, ["ratios.svg", "cpu.svg"]);
        let mut sample = Sample::new(QUORATE, "by-nodes", 1).with("server_cpu_us", 9.0);
        sample.x = Some(3.0);
        results.samples.push(sample);
        assert!(
            all(&results, "etcd-3.5")
                .iter()
                .any(|plot| plot.file == "by-nodes.svg")
        );
    }
}
