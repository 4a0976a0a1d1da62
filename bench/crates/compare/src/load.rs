//! `quorate bench` as the load generator for both systems: its command line, and its report.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::children::Process;

/// A generator that says nothing for so long will not end.
const PATIENCE: Duration = Duration::from_secs(3600);

/// The operation that is repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// A put.
    Put,
    /// A linearizable read of one key.
    Range,
    /// A serializable read of one key.
    SerializableRange,
    /// Compare and put, or get.
    Txn,
    /// Watchers on all keys, and puts for them to see.
    Watch,
}

/// How much of it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Amount {
    /// So many operations.
    Total(u64),
    /// So many seconds.
    Seconds(f64),
}

/// One load.
#[derive(Clone, Debug, PartialEq)]
pub struct Load {
    /// What.
    pub operation: Operation,
    /// How much.
    pub amount: Amount,
    /// Closed loop: how many wait for an answer at any time. For watches: the watchers.
    pub clients: u64,
    /// Connections that they share, spread over the endpoints.
    pub connections: u64,
    /// Bytes of a value.
    pub value_size: u64,
    /// Keys are drawn from so many.
    pub key_space: u64,
    /// One key after the other instead.
    pub sequential: bool,
    /// Operations a second, begun when their time has come, whether or not those before are answered. None: as fast as answers come.
    pub rate: Option<u64>,
    /// For the choice of keys.
    pub seed: u64,
    /// How many seconds an operation may take before it counts as failed.
    pub timeout: u64,
}

impl Load {
    /// So much of an operation with what all scenarios have in common: 100 clients on 10 connections, values of 256 bytes.
    pub fn new(operation: Operation, amount: Amount) -> Load {
        Load {
            operation,
            amount,
            clients: 100,
            connections: 10,
            value_size: 256,
            key_space: 100_000,
            sequential: false,
            rate: None,
            seed: 1,
            // A slow machine makes slow answers, not failures.
            timeout: 60,
        }
    }

    /// The arguments of `quorate`.
    pub fn arguments(&self, endpoints: &[String]) -> Vec<String> {
        let mut all = vec!["bench".to_owned()];
        let mut add = |name: &str, value: String| all.extend([name.to_owned(), value]);
        let operation = match self.operation {
            Operation::Put => "put",
            Operation::Range | Operation::SerializableRange => "range",
            Operation::Txn => "txn",
            Operation::Watch => "watch",
        };
        add(operation, "-o=json".to_owned());
        add("--endpoints", endpoints.join(","));
        let clients = if self.operation == Operation::Watch {
            "--watchers"
        } else {
            "--clients"
        };
        add(clients, self.clients.to_string());
        add("--connections", self.connections.to_string());
        add("--value-size", self.value_size.to_string());
        add("--key-space", self.key_space.to_string());
        add("--seed", self.seed.to_string());
        add("--timeout", format!("{}s", self.timeout));
        match self.amount {
            Amount::Total(total) => add("--total", total.to_string()),
            Amount::Seconds(seconds) => add("--duration", format!("{}ms", (seconds * 1000.0) as u64)),
        }
        if let Some(rate) = self.rate {
            add("--rate", rate.to_string());
        }
        if self.sequential {
            all.push("--sequential".to_owned());
        }
        if self.operation == Operation::SerializableRange {
            all.push("--serializable".to_owned());
        }
        all
    }
}

/// What the generator reports, as far as it is used here, and all of it as it came.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Report {
    /// Operations that succeeded.
    pub total: f64,
    /// Operations that failed.
    pub failed: f64,
    /// Operations a second.
    pub throughput: f64,
    /// Seconds from the first to the last.
    pub seconds: f64,
    /// Latencies in ms by the names of their quantiles.
    pub latency: Vec<(&'static str, f64)>,
    /// Longest time without a success, in ms, and when it began, in seconds, if it says so.
    pub longest_gap_ms: f64,
    /// The generator's own CPU in µs per operation.
    pub client_cpu_us: f64,
    /// Events that watchers received.
    pub events: Option<f64>,
    /// As it came.
    pub raw: Value,
}

/// Quantiles and what the figures are called.
const QUANTILES: [(&str, &str); 6] = [
    ("mean", "mean_ms"),
    ("p50", "p50_ms"),
    ("p90", "p90_ms"),
    ("p99", "p99_ms"),
    ("p99.9", "p999_ms"),
    ("max", "max_ms"),
];

impl Report {
    /// Reads it.
    pub fn parse(text: &str) -> Result<Report> {
        let raw: Value = serde_json::from_str(text).context("the load generator's report is not JSON")?;
        let number = |value: &Value, name: &str| {
            let found = value.get(name).and_then(Value::as_f64);
            found.with_context(|| format!("the load generator's report has no number {name:?}"))
        };
        let latencies = raw
            .get("latency_ms")
            .context("the load generator's report has no latencies")?;
        let mut latency = Vec::new();
        for (quantile, name) in QUANTILES {
            latency.push((name, number(latencies, quantile)?));
        }
        Ok(Report {
            total: number(&raw, "total")?,
            failed: number(&raw, "failed")?,
            throughput: number(&raw, "throughput")?,
            seconds: number(&raw, "seconds")?,
            latency,
            longest_gap_ms: number(&raw, "longest_gap_ms")?,
            client_cpu_us: number(&raw, "client_cpu_us_per_op")?,
            events: raw.get("events").and_then(Value::as_f64),
            raw,
        })
    }

    /// Fails if operations did, or read nothing, or if events never came: then nothing else in it can be compared.
    pub fn without_failures(self) -> Result<Report> {
        if self.failed > 0.0 {
            let errors = self.raw.get("errors").cloned().unwrap_or_default();
            bail!(
                "{} of {} operations failed: {errors}",
                self.failed,
                self.failed + self.total
            );
        }
        if self.total == 0.0 {
            bail!("not one operation succeeded");
        }
        for missing in ["not_found", "events_missing"] {
            let count = self.raw.get(missing).and_then(Value::as_f64).unwrap_or(0.0);
            if count > 0.0 {
                bail!("the load generator's report has {missing}: {count}");
            }
        }
        Ok(self)
    }
}

/// The program that makes the load.
#[derive(Clone, Debug)]
pub struct Generator {
    /// `quorate`.
    pub binary: PathBuf,
}

/// A load under way.
#[derive(Debug)]
pub struct Running {
    process: Process,
    output: PathBuf,
    what: String,
}

impl Generator {
    /// Starts a load. Its report goes through a file in `dir`, so that nobody must read a pipe meanwhile.
    pub fn start(&self, load: &Load, endpoints: &[String], dir: &std::path::Path) -> Result<Running> {
        self.start_with(load, endpoints, dir, &[])
    }

    /// With further arguments.
    pub fn start_with(
        &self,
        load: &Load,
        endpoints: &[String],
        dir: &std::path::Path,
        more: &[&str],
    ) -> Result<Running> {
        static COUNT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
        let count = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let output = dir.join(format!("load-{}-{count}.json", std::process::id()));
        let mut arguments = load.arguments(endpoints);
        arguments.extend(more.iter().map(|&argument| argument.to_owned()));
        let what = format!("{} {}", self.binary.display(), arguments.join(" "));
        let mut command = Command::new(&self.binary);
        command
            .args(&arguments)
            .stdin(Stdio::null())
            .stdout(std::fs::File::create(&output)?)
            .stderr(Stdio::inherit());
        let process = Process::start(&mut command).with_context(|| what.clone())?;
        Ok(Running {
            process,
            output,
            what,
        })
    }

    /// Runs a load to its end.
    pub fn run(&self, load: &Load, endpoints: &[String], dir: &std::path::Path) -> Result<Report> {
        self.start(load, endpoints, dir)?.finish()
    }
}

impl Running {
    /// Whether it has ended.
    pub fn has_ended(&mut self) -> Result<bool> {
        Ok(self.process.ended()?.is_some())
    }

    /// Waits for its end.
    pub fn finish(mut self) -> Result<Report> {
        let status = self.process.wait(PATIENCE)?;
        let text = std::fs::read_to_string(&self.output)?;
        let status = status.with_context(|| format!("`{}` does not end", self.what))?;
        if !status.success() {
            bail!("`{}` failed ({status}): {text}", self.what);
        }
        Report::parse(&text).with_context(|| format!("`{}`", self.what))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Nothing is lost if it stays: it lies in the directory of the data.
        let _ = std::fs::remove_file(&self.output);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REPORT: &str = r#"{"operation":"put","total":1000,"failed":0,"errors":{},"seconds":0.5,"throughput":2000.0,
        "latency_ms":{"mean":1.5,"p50":1.0,"p90":2.0,"p99":3.0,"p99.9":4.0,"max":5.0},
        "longest_gap_ms":6.0,"client_cpu_us_per_op":25.5}"#;

    #[test]
    fn a_report_is_read() {
        let report = Report::parse(REPORT).expect("well formed");
        assert_eq!(
            (report.total, report.throughput, report.client_cpu_us),
            (1000.0, 2000.0, 25.5)
        );
        assert_eq!(report.latency[1], ("p50_ms", 1.0));
        assert_eq!(report.latency[4], ("p999_ms", 4.0));
        assert_eq!(report.events, None);
        assert!(report.without_failures().is_ok());
    }

    #[test]
    fn failures_and_gaps_in_it_are_not_overlooked() {
        let failed = Report::parse(&REPORT.replace("\"failed\":0", "\"failed\":3")).expect("well formed");
        let error = failed.without_failures().expect_err("three failed").to_string();
        assert!(error.starts_with("3 of 1003 operations failed"), "{error}");
        let missing =
            Report::parse(&REPORT.replace("\"errors\":{}", "\"events_missing\":1")).expect("well formed");
        assert!(missing.without_failures().is_err());
        assert!(Report::parse(&REPORT.replace("p99.9", "p95")).is_err());
        assert!(Report::parse("no such endpoint").is_err());
    }

    #[test]
    fn arguments() {
        let mut load = Load::new(Operation::SerializableRange, Amount::Total(10));
        load.rate = Some(5);
        let arguments = load
            .arguments(&["http://a".to_owned(), "http://b".to_owned()])
            .join(" ");
        assert_eq!(
            arguments,
            "bench range -o=json --endpoints http://a,http://b --clients 100 --connections 10 --value-size 256 \
             --key-space 100000 --seed 1 --timeout 60s --total 10 --rate 5 --serializable"
        );
        load.operation = Operation::Watch;
        load.amount = Amount::Seconds(2.5);
        let arguments = load.arguments(&["http://a".to_owned()]).join(" ");
        assert!(
            arguments.contains("--watchers 100") && arguments.contains("--duration 2500ms"),
            "{arguments}"
        );
    }
}
