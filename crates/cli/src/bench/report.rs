//! What a run has shown: one JSON object for programs, lines for people.

use std::fmt::Write;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde_json::{Map, Value, json};

use super::args::LoadArgs;
use super::tally::Tally;
use super::work::Kind;
use super::worker::{Load, Outcome};
use crate::output;

/// The figures of a run.
pub struct Report<'a> {
    /// What was done.
    pub load: &'a Load,
    /// What was asked for.
    pub args: &'a LoadArgs,
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
        per_second(self.tally().succeeded(), self.seconds())
    }

    /// Operations that were due and never sent. Nobody was to send them after an interruption.
    fn not_started(&self) -> u64 {
        if self.outcome.interrupted {
            return 0;
        }
        let answered = self.tally().succeeded() + self.tally().failed();
        self.args.pace().left_over(answered)
    }

    fn cpu_us_per(&self, count: u64) -> Option<f64> {
        (count > 0).then(|| self.outcome.cpu.as_secs_f64() * 1e6 / count as f64)
    }

    fn cpu_us_per_operation(&self) -> Option<f64> {
        self.cpu_us_per(self.tally().succeeded() + self.tally().failed())
    }

    /// The object, with a newline.
    pub fn json(&self) -> String {
        let tally = self.tally();
        let object = json!({
            "operation": self.load.kind.name(),
            "endpoints": self.load.endpoints,
            "clients": self.load.clients,
            "connections": self.load.connections,
            "threads": self.load.threads,
            "key_size": self.args.key_size,
            "value_size": self.args.value_size,
            "key_space": self.args.key_space,
            "rate": self.args.rate,
            "total": tally.succeeded(),
            "failed": tally.failed(),
            "not_started": self.not_started(),
            "not_found": tally.not_found,
            "interrupted": self.outcome.interrupted,
            "errors": tally.errors,
            "connection_errors": tally.dial_errors,
            "seconds": rounded(self.seconds()),
            "throughput": rounded(self.throughput()),
            "latency_ms": latencies_json(&tally.latency),
            "longest_gap_ms": rounded(milliseconds(tally.longest_gap.length)),
            "longest_gap_at_s": rounded(tally.longest_gap.begun.as_secs_f64()),
            "client_cpu_us_per_op": self.cpu_us_per_operation().map(rounded),
        });
        let Value::Object(mut object) = object else {
            unreachable!("written as an object")
        };
        match self.load.kind {
            Kind::Range { serializable } => {
                object.insert("serializable".to_owned(), json!(serializable));
            }
            Kind::Watched => self.events_json(&mut object),
            Kind::Lease { .. } => {
                let part = |part: &Histogram<u64>| json!({ "total": part.len(), "latency_ms": latencies_json(part) });
                let parts: Map<_, _> = tally
                    .parts
                    .iter()
                    .map(|(name, histogram)| ((*name).to_owned(), part(histogram)))
                    .collect();
                object.insert("parts".to_owned(), parts.into());
            }
            Kind::Put | Kind::Txn => {}
        }
        format!("{}\n", Value::Object(object))
    }

    fn events_json(&self, object: &mut Map<String, Value>) {
        let events = &self.tally().events;
        let put_latency = object.insert("latency_ms".to_owned(), latencies_json(&events.latency));
        let cpu = self.cpu_us_per(events.latency.len()).map(rounded);
        for (name, value) in [
            ("put_latency_ms", put_latency.unwrap_or_default()),
            ("watchers", json!(self.load.watchers)),
            ("events", json!(events.latency.len())),
            ("events_missing", json!(self.events_missing())),
            ("events_per_second", json!(rounded(self.events_per_second()))),
            ("watch_errors", json!(events.errors)),
            ("client_cpu_us_per_event", json!(cpu)),
        ] {
            object.insert(name.to_owned(), value);
        }
    }

    /// Until the last event came.
    fn events_seconds(&self) -> f64 {
        let last = self.tally().events.last;
        last.map_or(0.0, |last| last.duration_since(self.outcome.start).as_secs_f64())
    }

    fn events_per_second(&self) -> f64 {
        per_second(self.tally().events.latency.len(), self.events_seconds())
    }

    /// Events of puts that succeeded, and that not every watcher got. Puts of which nothing is known may have events, too.
    fn events_missing(&self) -> u64 {
        let expected = self.tally().succeeded() * self.load.watchers as u64;
        expected.saturating_sub(self.tally().events.latency.len())
    }

    /// Lines for people.
    pub fn table(&self, styled: bool) -> String {
        let tally = self.tally();
        let row = |name: &str, seconds: f64, throughput: f64, histogram: &Histogram<u64>| {
            let mut row = vec![
                name.to_owned(),
                histogram.len().to_string(),
                format!("{seconds:.2}"),
                format!("{throughput:.0}"),
            ];
            let figures = latencies(histogram).into_iter();
            row.extend(figures.map(|(_, ms)| ms.map_or("-".to_owned(), |ms| format!("{ms:.3}"))));
            row
        };
        let name = match self.load.kind {
            Kind::Watched => "put",
            kind => kind.name(),
        };
        let mut rows = vec![row(name, self.seconds(), self.throughput(), &tally.latency)];
        for (name, part) in &tally.parts {
            let throughput = per_second(part.len(), self.seconds());
            rows.push(row(&format!("  {name}"), self.seconds(), throughput, part));
        }
        if self.load.watchers > 0 {
            let events = &tally.events.latency;
            rows.push(row(
                "event",
                self.events_seconds(),
                self.events_per_second(),
                events,
            ));
        }
        let headings = [
            "",
            "COUNT",
            "SECONDS",
            "PER SECOND",
            "MEAN ms",
            "P50 ms",
            "P90 ms",
            "P99 ms",
            "P99.9 ms",
            "MAX ms",
        ];
        self.title() + &output::table(&headings, &rows, styled) + &self.gap_and_cpu() + &self.remarks()
    }

    fn title(&self) -> String {
        let Load {
            kind,
            clients,
            connections,
            watchers,
            ..
        } = self.load;
        let mut title = format!("{}: {clients} clients", kind.title());
        if *watchers > 0 {
            let _ = write!(title, " and {watchers} watchers");
        }
        let _ = write!(
            title,
            " on {connections} connections to {}",
            self.load.endpoints.join(", ")
        );
        if let Some(rate) = self.args.rate {
            let _ = write!(title, ", {rate} operations due each second");
        }
        match kind {
            Kind::Lease { renewals } => {
                let _ = write!(title, ", {renewals} renewals each");
            }
            _ => {
                let _ = write!(
                    title,
                    "\n{} keys of {} bytes",
                    self.args.key_space, self.args.key_size
                );
            }
        }
        if kind.has_values() {
            let _ = write!(title, ", values of {} bytes", self.args.value_size);
        }
        title + "\n\n"
    }

    fn gap_and_cpu(&self) -> String {
        let gap = &self.tally().longest_gap;
        let mut out = format!(
            "\nLongest time without a success: {:.1} ms, {:.2} s after the start\n",
            milliseconds(gap.length),
            gap.begun.as_secs_f64()
        );
        if let Some(cpu) = self.cpu_us_per_operation() {
            let _ = writeln!(out, "Processor time of this program: {cpu:.1} µs per operation");
        }
        out
    }

    /// What makes the figures mean something else than one might think.
    fn remarks(&self) -> String {
        let tally = self.tally();
        let mut out = String::new();
        if self.outcome.interrupted {
            out += "Interrupted: these are the figures until then.\n";
        }
        let not_started = self.not_started();
        if not_started > 0 {
            let _ = writeln!(
                out,
                "{not_started} operations that were due were never sent: all clients were waiting for answers."
            );
        }
        if tally.not_found > 0 {
            let _ = writeln!(
                out,
                "{} reads found no key: write the whole key space first (quorate bench put --sequential --total {}).",
                tally.not_found, self.args.key_space
            );
        }
        if self.load.watchers > 0 && self.events_missing() > 0 && !self.outcome.interrupted {
            let _ = writeln!(out, "{} events never came.", self.events_missing());
        }
        for (what, errors) in [
            ("operations failed", &tally.errors),
            ("watches broke and were begun again", &tally.events.errors),
            ("connections could not be made", &tally.dial_errors),
        ] {
            if !errors.is_empty() {
                let _ = writeln!(out, "\n{} {what}:", errors.values().sum::<u64>());
            }
            for (message, count) in errors {
                let _ = writeln!(out, "{count:>8}  {message}");
            }
        }
        out
    }
}

/// Mean, quantiles and maximum in milliseconds; none if there was nothing.
fn latencies(histogram: &Histogram<u64>) -> Vec<(&'static str, Option<f64>)> {
    let ms = |nanos: f64| (!histogram.is_empty()).then_some(nanos / 1e6);
    let mut all = vec![("mean", ms(histogram.mean()))];
    for (name, quantile) in QUANTILES {
        all.push((name, ms(histogram.value_at_quantile(quantile) as f64)));
    }
    all.push(("max", ms(histogram.max() as f64)));
    all
}

fn latencies_json(histogram: &Histogram<u64>) -> Value {
    let all = latencies(histogram).into_iter();
    let all: Map<_, _> = all
        .map(|(name, ms)| (name.to_owned(), json!(ms.map(rounded))))
        .collect();
    all.into()
}

fn per_second(count: u64, seconds: f64) -> f64 {
    if seconds > 0.0 {
        count as f64 / seconds
    } else {
        0.0
    }
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

/// To six places: more is noise to read.
fn rounded(value: f64) -> f64 {
    (value * 1e6).round() / 1e6
}
