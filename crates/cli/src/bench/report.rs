//! What a run has shown: one JSON object for programs, lines for people.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

use serde_json::{Value, json};

use super::args::LoadArgs;
use super::tally::Tally;
use super::work::Kind;
use super::worker::Outcome;
use crate::output;

/// The figures of a run.
pub struct Report<'a> {
    /// What was asked for.
    pub load: &'a LoadArgs,
    /// The servers' URLs.
    pub endpoints: &'a [String],
    /// The kind of operation.
    pub kind: Kind,
    /// Operations that were due and never sent.
    pub not_started: u64,
    /// What happened.
    pub outcome: &'a Outcome,
}

/// The latencies that are told, by name.
const QUANTILES: [(&str, f64); 4] = [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999)];

impl Report<'_> {
    fn tally(&self) -> &Tally {
        &self.outcome.tally
    }

    /// From the first operation's begin to the last one's end.
    fn seconds(&self) -> f64 {
        let (first, last) = self.tally().span.unwrap_or_default();
        last.saturating_sub(first).as_secs_f64()
    }

    fn throughput(&self) -> f64 {
        let seconds = self.seconds();
        if seconds == 0.0 {
            return 0.0;
        }
        self.tally().succeeded() as f64 / seconds
    }

    fn cpu_us_per_operation(&self) -> Option<f64> {
        let operations = self.tally().succeeded() + self.tally().failed();
        (operations > 0).then(|| self.outcome.cpu.as_secs_f64() * 1e6 / operations as f64)
    }

    /// Mean, quantiles and maximum in milliseconds; none if nothing succeeded.
    fn latencies(&self) -> Vec<(&'static str, Option<f64>)> {
        let latency = &self.tally().latency;
        let ms = |nanos: f64| (!latency.is_empty()).then_some(nanos / 1e6);
        let mut all = vec![("mean", ms(latency.mean()))];
        for (name, quantile) in QUANTILES {
            all.push((name, ms(latency.value_at_quantile(quantile) as f64)));
        }
        all.push(("max", ms(latency.max() as f64)));
        all
    }

    /// The object, with a newline.
    pub fn json(&self) -> String {
        let tally = self.tally();
        let latencies: BTreeMap<_, _> = self
            .latencies()
            .into_iter()
            .map(|(name, ms)| (name, ms.map(rounded)))
            .collect();
        let object = json!({
            "operation": self.kind.name(),
            "endpoints": self.endpoints,
            "clients": self.load.clients,
            "connections": self.load.connections,
            "threads": self.load.threads,
            "key_size": self.load.key_size,
            "value_size": self.load.value_size,
            "key_space": self.load.key_space,
            "rate": self.load.rate,
            "total": tally.succeeded(),
            "failed": tally.failed(),
            "not_started": self.not_started,
            "not_found": tally.not_found,
            "interrupted": self.outcome.interrupted,
            "errors": tally.errors,
            "seconds": rounded(self.seconds()),
            "throughput": rounded(self.throughput()),
            "latency_ms": latencies,
            "longest_gap_ms": rounded(milliseconds(tally.longest_gap.length)),
            "longest_gap_at_s": rounded(tally.longest_gap.begun.as_secs_f64()),
            "client_cpu_us_per_op": self.cpu_us_per_operation().map(rounded),
        });
        format!("{}\n", Value::to_string(&object))
    }

    /// Lines for people.
    pub fn table(&self, styled: bool) -> String {
        let tally = self.tally();
        let mut out = self.title();
        let figures: Vec<(&str, Option<f64>)> = self.latencies();
        let headings: Vec<String> = ["operations", "seconds", "per second"]
            .into_iter()
            .map(str::to_owned)
            .chain(figures.iter().map(|(name, _)| format!("{name} ms")))
            .collect();
        let headings: Vec<&str> = headings.iter().map(String::as_str).collect();
        let mut row = vec![
            tally.succeeded().to_string(),
            format!("{:.2}", self.seconds()),
            format!("{:.0}", self.throughput()),
        ];
        row.extend(
            figures
                .iter()
                .map(|(_, ms)| ms.map_or("-".to_owned(), |ms| format!("{ms:.3}"))),
        );
        out += &output::table(&headings, &[row], styled);
        let gap = &tally.longest_gap;
        let _ = writeln!(
            out,
            "\nLongest time without a success: {:.1} ms, {:.2} s after the start",
            milliseconds(gap.length),
            gap.begun.as_secs_f64()
        );
        if let Some(cpu) = self.cpu_us_per_operation() {
            let _ = writeln!(out, "Processor time of this program: {cpu:.1} µs per operation");
        }
        out + &self.remarks()
    }

    fn title(&self) -> String {
        let LoadArgs {
            clients,
            connections,
            key_space,
            key_size,
            value_size,
            ..
        } = self.load;
        let pace = self
            .load
            .rate
            .map_or(String::new(), |rate| format!(", {rate} due each second"));
        format!(
            "{}: {clients} clients on {connections} connections to {}{pace}; {key_space} keys of {key_size} bytes{}\n\n",
            self.kind.title(),
            self.endpoints.join(", "),
            match self.kind {
                Kind::Range { .. } => String::new(),
                _ => format!(", values of {value_size} bytes"),
            },
        )
    }

    /// What makes the figures mean something else than one might think.
    fn remarks(&self) -> String {
        let tally = self.tally();
        let mut out = String::new();
        if self.outcome.interrupted {
            out += "Interrupted: these are the figures until then.\n";
        }
        if self.not_started > 0 {
            let _ = writeln!(
                out,
                "{} operations that were due were never sent: all clients were waiting for answers.",
                self.not_started
            );
        }
        if tally.not_found > 0 {
            let _ = writeln!(
                out,
                "{} reads found no key: write the whole key space first (quorate bench put --sequential --total {}).",
                tally.not_found, self.load.key_space
            );
        }
        if tally.failed() > 0 {
            let _ = writeln!(out, "\n{} operations failed:", tally.failed());
            for (message, count) in &tally.errors {
                let _ = writeln!(out, "{count:>8}  {message}");
            }
        }
        out
    }
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

/// To six places: more is noise to read.
fn rounded(value: f64) -> f64 {
    (value * 1e6).round() / 1e6
}
