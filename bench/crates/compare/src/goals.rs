//! The figures to reach, against what was measured. A goal is a bound that is required and a nearer one that is aimed at, on the ratio to the
//! peer in the same round or on our own figure. Where the peer's figure is so near to what gRPC alone costs that nobody could reach the aim,
//! the aim is 1.3 times that floor.

use crate::results::{FLOOR, QUORATE, RAFT_RS, Results};
use crate::stats::Spread;
use crate::table::{Table, number};

/// What a service behind gRPC may cost more than gRPC alone.
const OVER_FLOOR: f64 = 1.3;

/// A bound, on what is good when small or good when large.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Bound {
    /// Ratio to the peer at most.
    RatioAtMost(f64),
    /// Ratio to the peer at least.
    RatioAtLeast(f64),
    /// Our own figure at most.
    AtMost(f64),
}

/// A line of the table.
#[derive(Clone, Debug)]
pub struct Goal {
    /// What people read.
    pub what: &'static str,
    scenario: &'static str,
    figure: &'static str,
    unit: Unit,
    required: Bound,
    aim: Bound,
    /// Whom it is held against, if not the peer of all others.
    peer: Option<&'static str>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Unit {
    Microseconds,
    Milliseconds,
    PerSecond,
    Mebibytes,
    Factor,
}

/// How a goal stands.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Verdict {
    /// The aim is reached.
    Aim,
    /// What is required is reached.
    Required,
    /// It is not; by this factor.
    Missed(f64),
    /// The run did not measure it.
    NotMeasured,
}

/// A goal with what was measured.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// What people read.
    pub what: &'static str,
    /// In what figures are given.
    unit: Unit,
    /// Required.
    pub required: Bound,
    /// Aimed at, the floor taken into account.
    pub aim: Bound,
    /// The ratio or the figure, whichever is required.
    pub measured: Option<Spread>,
    /// Our median.
    pub ours: String,
    /// The peer's median.
    pub theirs: String,
    /// How it stands.
    pub verdict: Verdict,
}

/// All goals.
pub fn all() -> Vec<Goal> {
    use Bound::{AtMost, RatioAtLeast, RatioAtMost};
    use Unit::{Factor, Mebibytes, Microseconds, Milliseconds, PerSecond};
    let goal = |what, scenario, figure, unit, required, aim| Goal {
        what,
        scenario,
        figure,
        unit,
        required,
        aim,
        peer: None,
    };
    let less = |what, scenario, figure, unit, required, aim| {
        goal(
            what,
            scenario,
            figure,
            unit,
            RatioAtMost(required),
            RatioAtMost(aim),
        )
    };
    let more = |what, scenario, required, aim| {
        let (required, aim) = (RatioAtLeast(required), RatioAtLeast(aim));
        goal(what, scenario, "throughput", PerSecond, required, aim)
    };
    let cpu =
        |what, scenario, required, aim| less(what, scenario, "server_cpu_us", Microseconds, required, aim);
    let ms =
        |what, scenario, figure, required, aim| less(what, scenario, figure, Milliseconds, required, aim);
    let core = |what, scenario| Goal {
        peer: Some(RAFT_RS),
        ..goal(
            what,
            scenario,
            "proposals_per_second",
            PerSecond,
            RatioAtLeast(1.5),
            RatioAtLeast(3.0),
        )
    };
    vec![
        cpu("server CPU per put, 100 clients", "put-100", 0.40, 0.25),
        cpu("server CPU per linearizable read", "range-100", 0.40, 0.25),
        cpu("server CPU per serializable read", "serializable-100", 0.45, 0.35),
        more("put throughput, 100 clients", "put-100", 1.8, 2.5),
        more("put throughput, 1000 clients", "put-1000", 1.8, 2.5),
        more("linearizable read throughput, 100 clients", "range-100", 1.4, 1.8),
        more(
            "serializable read throughput, 100 clients",
            "serializable-100",
            1.4,
            1.8,
        ),
        ms("p50, one client, put", "put-1", "p50_ms", 0.6, 0.4),
        ms(
            "p50, one client, linearizable read",
            "range-1",
            "p50_ms",
            0.6,
            0.4,
        ),
        ms(
            "p50, one client, serializable read",
            "serializable-1",
            "p50_ms",
            0.6,
            0.4,
        ),
        ms("p99, 100 clients, put", "put-100", "p99_ms", 0.6, 0.4),
        ms(
            "p99, 100 clients, linearizable read",
            "range-100",
            "p99_ms",
            0.6,
            0.4,
        ),
        ms(
            "p99, 100 clients, serializable read",
            "serializable-100",
            "p99_ms",
            0.6,
            0.4,
        ),
        less(
            "leader's own memory after 500,000 puts",
            "filled",
            "leader_anonymous_bytes",
            Mebibytes,
            0.4,
            0.2,
        ),
        less(
            "bytes on disk after 500,000 puts over 100,000 keys",
            "filled",
            "bytes_on_disk",
            Mebibytes,
            0.7,
            0.4,
        ),
        ms("restart of one member after that", "restart-one", "ms", 0.3, 0.1),
        ms("restart of all members after that", "restart-all", "ms", 0.3, 0.1),
        cpu("watch: server CPU per delivered event", "watch", 0.4, 0.2),
        goal(
            "longest write gap after kill -9 of the leader",
            "failover-kill",
            "longest_gap_ms",
            Milliseconds,
            AtMost(300.0),
            AtMost(100.0),
        ),
        goal(
            "longest write gap after SIGTERM of the leader",
            "failover-term",
            "longest_gap_ms",
            Milliseconds,
            RatioAtMost(1.0),
            AtMost(10.0),
        ),
        core("core: proposals in batches of 1, against raft-rs", "core-1"),
        core("core: proposals in batches of 64, against raft-rs", "core-64"),
        core("core: proposals in batches of 1024, against raft-rs", "core-1024"),
        goal(
            "CPU per put at 10 million keys against 100,000",
            "grown",
            "cpu_ratio",
            Factor,
            AtMost(1.3),
            AtMost(1.1),
        ),
    ]
}

impl Goal {
    /// How it stands against one peer.
    pub fn outcome(&self, results: &Results, peer: &str) -> Outcome {
        let peer = self.peer.unwrap_or(peer);
        let median = |system| Some(results.spread(system, self.scenario, self.figure)?.median);
        let (ours, theirs) = (median(QUORATE), median(peer));
        let aim = match (median(FLOOR), theirs) {
            (Some(floor), Some(theirs)) => over_floor(self.aim, floor / theirs),
            _ => self.aim,
        };
        let measured = match self.required {
            Bound::AtMost(_) => results.spread(QUORATE, self.scenario, self.figure),
            _ => results.ratio(QUORATE, peer, self.scenario, self.figure),
        };
        let ratio = results
            .ratio(QUORATE, peer, self.scenario, self.figure)
            .map(|ratio| ratio.median);
        Outcome {
            what: self.what,
            unit: self.unit,
            required: self.required,
            aim,
            measured,
            ours: self.unit.show(ours),
            theirs: self.unit.show(theirs),
            verdict: verdict(self.required, aim, ours, ratio),
        }
    }
}

/// The aim, or the floor with something on top where that is easier.
fn over_floor(aim: Bound, floor: f64) -> Bound {
    match aim {
        Bound::RatioAtMost(aim) => Bound::RatioAtMost(aim.max(floor * OVER_FLOOR)),
        Bound::RatioAtLeast(aim) => Bound::RatioAtLeast(aim.min(floor / OVER_FLOOR)),
        absolute @ Bound::AtMost(_) => absolute,
    }
}

fn verdict(required: Bound, aim: Bound, ours: Option<f64>, ratio: Option<f64>) -> Verdict {
    // How many times worse than allowed; 1 and below is reached.
    let excess = |bound: Bound| match bound {
        Bound::RatioAtMost(most) => ratio.map(|ratio| ratio / most),
        Bound::RatioAtLeast(least) => ratio.map(|ratio| least / ratio),
        Bound::AtMost(most) => ours.map(|ours| ours / most),
    };
    match (excess(required), excess(aim)) {
        (Some(required), _) if required > 1.0 => Verdict::Missed(required),
        (Some(_), Some(aim)) if aim <= 1.0 => Verdict::Aim,
        (Some(_), _) => Verdict::Required,
        (None, _) => Verdict::NotMeasured,
    }
}

impl Unit {
    fn show(self, value: Option<f64>) -> String {
        let Some(value) = value else { return "-".to_owned() };
        match self {
            Unit::Microseconds => format!("{} µs", number(value)),
            Unit::Milliseconds => format!("{} ms", number(value)),
            Unit::PerSecond => format!("{}/s", number(value)),
            Unit::Mebibytes => format!("{} MiB", number(value / 1024.0 / 1024.0)),
            Unit::Factor => number(value),
        }
    }

    fn bound(self, bound: Bound) -> String {
        match bound {
            Bound::RatioAtMost(most) => format!("≤ {most:.2}"),
            Bound::RatioAtLeast(least) => format!("≥ {least:.2}"),
            Bound::AtMost(most) if self == Unit::Milliseconds => format!("≤ {most} ms"),
            Bound::AtMost(most) => format!("≤ {most}"),
        }
    }
}

impl std::fmt::Display for Verdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Verdict::Aim => write!(f, "aim reached"),
            Verdict::Required => write!(f, "reached"),
            Verdict::Missed(by) => write!(f, "**missed**, {:.0} % off", (by - 1.0) * 100.0),
            Verdict::NotMeasured => write!(f, "not measured"),
        }
    }
}

/// A spread as `0.31 (0.29..0.33)`.
pub fn spread(spread: Option<Spread>) -> String {
    match spread {
        None => "-".to_owned(),
        Some(Spread { median, count: 1, .. }) => number(median),
        Some(Spread { median, min, max, .. }) => {
            format!("{} ({}..{})", number(median), number(min), number(max))
        }
    }
}

/// The table of those goals that something was measured for.
pub fn measured(results: &Results, peer: &str) -> Table {
    table_of(results, peer, |outcome| outcome.verdict != Verdict::NotMeasured)
}

/// The table of all goals.
pub fn table(results: &Results, peer: &str) -> Table {
    table_of(results, peer, |_| true)
}

fn table_of(results: &Results, peer: &str, shown: impl Fn(&Outcome) -> bool) -> Table {
    let mut table = Table::new(&["what", "required", "aim", "measured", "quorate", peer, "verdict"]);
    for goal in all() {
        let outcome = goal.outcome(results, peer);
        if !shown(&outcome) {
            continue;
        }
        table.row(vec![
            outcome.what.to_owned(),
            outcome.unit.bound(outcome.required),
            outcome.unit.bound(outcome.aim),
            spread(outcome.measured),
            outcome.ours,
            outcome.theirs,
            outcome.verdict.to_string(),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::Sample;

    fn results(figures: &[(&str, f64)]) -> Results {
        let sample =
            |&(system, cpu): &(&str, f64)| Sample::new(system, "put-100", 1).with("server_cpu_us", cpu);
        Results {
            samples: figures.iter().map(sample).collect(),
            ..Results::default()
        }
    }

    fn put_cpu(figures: &[(&str, f64)]) -> Outcome {
        all()[0].outcome(&results(figures), "etcd-3.5")
    }

    #[test]
    fn verdicts() {
        let verdict = |ours| put_cpu(&[(QUORATE, ours), ("etcd-3.5", 200.0)]).verdict;
        assert_eq!(verdict(40.0), Verdict::Aim);
        assert_eq!(verdict(50.0), Verdict::Aim);
        assert_eq!(verdict(51.0), Verdict::Required);
        assert_eq!(verdict(80.0), Verdict::Required);
        assert_eq!(verdict(120.0), Verdict::Missed(1.4999999999999998));
        assert_eq!(put_cpu(&[(QUORATE, 1.0)]).verdict, Verdict::NotMeasured);
        assert_eq!(Verdict::Missed(1.5).to_string(), "**missed**, 50 % off");
    }

    #[test]
    fn nobody_is_asked_to_beat_the_floor() {
        let outcome = put_cpu(&[(QUORATE, 55.0), ("etcd-3.5", 200.0), (FLOOR, 50.0)]);
        assert_eq!(outcome.aim, Bound::RatioAtMost(0.325));
        assert_eq!(outcome.verdict, Verdict::Aim);
        let outcome = put_cpu(&[(QUORATE, 55.0), ("etcd-3.5", 200.0), (FLOOR, 20.0)]);
        assert_eq!(outcome.aim, Bound::RatioAtMost(0.25));
        assert_eq!(
            over_floor(Bound::RatioAtLeast(2.5), 2.6),
            Bound::RatioAtLeast(2.0)
        );
    }

    #[test]
    fn bounds_on_our_own_figure_need_no_peer() {
        let (required, aim) = (Bound::AtMost(300.0), Bound::AtMost(100.0));
        assert_eq!(verdict(required, aim, Some(250.0), None), Verdict::Required);
        assert_eq!(verdict(required, aim, Some(600.0), None), Verdict::Missed(2.0));
        let (required, aim) = (Bound::RatioAtMost(1.0), Bound::AtMost(10.0));
        assert_eq!(verdict(required, aim, Some(20.0), Some(0.5)), Verdict::Required);
        assert_eq!(verdict(required, aim, Some(9.0), Some(0.5)), Verdict::Aim);
        assert_eq!(verdict(required, aim, Some(9.0), Some(1.5)), Verdict::Missed(1.5));
    }

    #[test]
    fn every_goal_has_a_line() {
        let text = table(&results(&[(QUORATE, 50.0), ("etcd-3.5", 200.0)]), "etcd-3.5").text();
        assert_eq!(text.lines().count(), all().len() + 1);
        let text = measured(&results(&[(QUORATE, 50.0), ("etcd-3.5", 200.0)]), "etcd-3.5").text();
        assert_eq!(text.lines().count(), 2, "{text}");
        assert!(text.contains("≤ 0.40"), "{text}");
        assert!(text.contains("0.25"), "{text}");
    }
}
