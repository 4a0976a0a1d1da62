//! How the server's log is written: one line an event, as JSON in the shape of etcd's log or as text for people.
//!
//! The libraries only emit `tracing` events; level, form and place are decided here.

use std::fmt::{self, Write as _};
use std::fs::OpenOptions;
use std::io::{self, IsTerminal, Write};
use std::sync::Mutex;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

use crate::flags::Values;

/// The form of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `{"level":"info","ts":"…","msg":"…",…}`
    Json,
    /// Time, level, message, `key=value`, between tabs.
    Console,
}

/// Starts logging as the flags say. An error names the flag.
pub fn start(values: &Values) -> Result<(), String> {
    let level = match values.get("log-level") {
        "debug" => LevelFilter::DEBUG,
        "info" => LevelFilter::INFO,
        "warn" => LevelFilter::WARN,
        "error" | "panic" | "fatal" => LevelFilter::ERROR,
        other => {
            return Err(format!(
                "--log-level: {other:?} is none of debug, info, warn, error, panic, fatal"
            ));
        }
    };
    let (out, terminal) = output(values.get("log-outputs"))?;
    let format = match values.get("log-format") {
        _ if !values.is_set("log-format") => {
            if terminal {
                Format::Console
            } else {
                Format::Json
            }
        }
        "json" => Format::Json,
        "console" | "text" => Format::Console,
        other => return Err(format!("--log-format: {other:?} is none of json, console, text")),
    };
    let lines = Lines {
        format,
        out: Mutex::new(out),
    };
    let subscriber = tracing_subscriber::registry().with(lines.with_filter(level));
    tracing::subscriber::set_global_default(subscriber).map_err(|error| error.to_string())
}

fn output(name: &str) -> Result<(Box<dyn Write + Send>, bool), String> {
    match name {
        "default" | "stderr" => Ok((Box::new(io::stderr()), io::stderr().is_terminal())),
        "stdout" => Ok((Box::new(io::stdout()), io::stdout().is_terminal())),
        "" => Err("--log-outputs must not be empty".to_owned()),
        several if several.contains(',') => Err(format!(
            "--log-outputs={several} is not supported: only one output at a time"
        )),
        path => {
            let file = OpenOptions::new().create(true).append(true).open(path);
            Ok((
                Box::new(file.map_err(|error| format!("--log-outputs={path}: {error}"))?),
                false,
            ))
        }
    }
}

struct Lines {
    format: Format,
    out: Mutex<Box<dyn Write + Send>>,
}

impl<S: Subscriber> Layer<S> for Lines {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let line = line(self.format, at, *event.metadata().level(), fields);
        // A log that cannot be written is no reason to stop serving.
        if let Ok(mut out) = self.out.lock() {
            let _ = out.write_all(line.as_bytes()).and_then(|()| out.flush());
        }
    }
}

/// The message and the other fields of an event.
#[derive(Default)]
struct Fields {
    message: String,
    rest: Map<String, Value>,
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.record_str(field, &format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "message" {
            self.message = value.to_owned();
        } else {
            self.rest.insert(field.name().to_owned(), Value::from(value));
        }
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.rest.insert(field.name().to_owned(), Value::from(value));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.rest.insert(field.name().to_owned(), Value::from(value));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.rest.insert(field.name().to_owned(), Value::from(value));
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.rest.insert(field.name().to_owned(), Value::from(value));
    }
}

fn line(format: Format, at: Duration, level: Level, fields: Fields) -> String {
    let name = match level {
        Level::ERROR => "error",
        Level::WARN => "warn",
        Level::INFO => "info",
        _ => "debug",
    };
    match format {
        Format::Json => {
            // The three first by hand: a JSON map would sort them behind the event's own fields.
            let mut out = format!(
                "{{\"level\":\"{name}\",\"ts\":\"{}\",\"msg\":{}",
                timestamp(at),
                Value::from(fields.message)
            );
            for (key, value) in fields.rest {
                let _ = write!(out, ",{}:{value}", Value::from(key));
            }
            out + "}\n"
        }
        Format::Console => {
            let mut out = format!("{}\t{name}\t{}", timestamp(at), fields.message.replace('\n', " "));
            for (key, value) in fields.rest {
                match value.as_str() {
                    Some(text) if !text.is_empty() && !text.contains([' ', '"', '=', '\n']) => {
                        let _ = write!(out, "\t{key}={text}");
                    }
                    _ => {
                        let _ = write!(out, "\t{key}={value}");
                    }
                }
            }
            out + "\n"
        }
    }
}

/// RFC 3339 in UTC with microseconds.
fn timestamp(since_epoch: Duration) -> String {
    let seconds = since_epoch.as_secs();
    let (days, of_day) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil(days);
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{:06}Z",
        of_day / 3600,
        of_day / 60 % 60,
        of_day % 60,
        since_epoch.subsec_micros()
    )
}

/// The Gregorian date of a day since 1970-01-01, counted in 400-year eras that begin on a first of March, so that
/// the leap day is the last of its year.
fn civil(days_since_epoch: u64) -> (u64, u64, u64) {
    const DAYS_TO_EPOCH: u64 = 719_468;
    const ERA: u64 = 146_097;
    let days = days_since_epoch + DAYS_TO_EPOCH;
    let (era, of_era) = (days / ERA, days % ERA);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00.000000Z"),
            (951_782_400, "2000-02-29T00:00:00.000000Z"),
            (4_107_542_399, "2100-02-28T23:59:59.000000Z"),
            (4_107_542_400, "2100-03-01T00:00:00.000000Z"),
            (1_735_689_599, "2024-12-31T23:59:59.000000Z"),
        ] {
            assert_eq!(timestamp(Duration::from_secs(seconds)), text);
        }
    }

    #[test]
    fn both_forms_of_a_line() {
        let fields = || Fields {
            message: "leader \"n1\"".to_owned(),
            rest: Map::from_iter([
                ("term".to_owned(), Value::from(7)),
                ("why".to_owned(), Value::from("timed out")),
            ]),
        };
        let at = Duration::from_micros(5);
        assert_eq!(
            line(Format::Json, at, Level::INFO, fields()),
            "{\"level\":\"info\",\"ts\":\"1970-01-01T00:00:00.000005Z\",\"msg\":\"leader \\\"n1\\\"\",\"term\":7,\
             \"why\":\"timed out\"}\n"
        );
        assert_eq!(
            line(Format::Console, at, Level::WARN, fields()),
            "1970-01-01T00:00:00.000005Z\twarn\tleader \"n1\"\tterm=7\twhy=\"timed out\"\n"
        );
    }

    #[test]
    fn wrong_values_are_named() {
        let error = |args: &[&str]| {
            start(&Values::parse(args.iter().map(|s| (*s).to_owned()), []).unwrap()).unwrap_err()
        };
        assert!(error(&["--log-level=loud"]).contains("--log-level: \"loud\""));
        assert!(error(&["--log-format=xml"]).contains("--log-format: \"xml\""));
        assert!(error(&["--log-outputs=stdout,stderr"]).contains("one output"));
        assert!(error(&["--log-outputs=/no/such/dir/x"]).starts_with("--log-outputs=/no/such/dir/x: "));
    }
}
