//! The types that etcd's flags have, read as Go reads them, and the search for the nearest name.

use std::fmt;
use std::time::Duration;

/// The type of a flag's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Go's `ParseBool`: 1, t, true, 0, f, false in some capitalisations.
    Bool,
    /// A whole number, not negative.
    Uint,
    /// A whole number.
    Int,
    /// Any text.
    Text,
    /// Go's duration: `300ms`, `1h2m3.5s`, `0`.
    Duration,
    /// A list with commas. Order does not matter.
    List,
    /// A flag that etcd itself ignores: any value, but like a boolean only after `=`.
    Ignored,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::Bool => "bool",
            Kind::Uint => "uint",
            Kind::Int => "int",
            Kind::Text => "text",
            Kind::Duration => "duration",
            Kind::List => "list",
            Kind::Ignored => "ignored",
        })
    }
}

impl Kind {
    /// Whether `--flag` alone is complete, and the next argument a flag of its own.
    pub fn stands_alone(self) -> bool {
        matches!(self, Kind::Bool | Kind::Ignored)
    }

    /// Whether `value` is of this kind; else what it should have been.
    pub fn check(self, value: &str) -> Result<(), String> {
        let (fine, expected) = match self {
            Kind::Text | Kind::List | Kind::Ignored => (true, ""),
            Kind::Bool => (parse_bool(value).is_some(), "true or false"),
            Kind::Uint => (parse_uint(value).is_some(), "a whole number"),
            Kind::Int => (value.parse::<i64>().is_ok(), "a whole number"),
            Kind::Duration => (
                parse_duration(value).is_some(),
                "a duration such as 300ms, 5s or 1h30m",
            ),
        };
        if fine { Ok(()) } else { Err(expected.to_owned()) }
    }

    /// Whether two valid values mean the same.
    pub fn same(self, a: &str, b: &str) -> bool {
        match self {
            Kind::Bool => parse_bool(a) == parse_bool(b),
            Kind::Uint => parse_uint(a) == parse_uint(b),
            Kind::Int => a.parse::<i64>() == b.parse::<i64>(),
            Kind::Duration => parse_duration(a) == parse_duration(b),
            Kind::Text | Kind::Ignored => a == b,
            Kind::List => {
                let sorted = |list: &str| {
                    let mut parts: Vec<String> = list.split(',').map(|part| part.trim().to_owned()).collect();
                    parts.sort();
                    parts
                };
                sorted(a) == sorted(b)
            }
        }
    }
}

/// Go's `strconv.ParseBool`.
pub fn parse_bool(value: &str) -> Option<bool> {
    match value {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// A whole number in decimal.
pub fn parse_uint(value: &str) -> Option<u64> {
    if value.bytes().all(|byte| byte.is_ascii_digit()) {
        value.parse().ok()
    } else {
        None
    }
}

/// Go's `time.ParseDuration`, without signs: numbers with units, or a bare `0`.
pub fn parse_duration(value: &str) -> Option<Duration> {
    if value == "0" {
        return Some(Duration::ZERO);
    }
    let mut rest = value;
    let mut total = Duration::ZERO;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let letters = rest
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(rest.len());
        let seconds = match &rest[..letters] {
            "ns" => 1e-9,
            "us" | "µs" | "μs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return None,
        };
        total = total.checked_add(Duration::try_from_secs_f64(number * seconds).ok()?)?;
        rest = &rest[letters..];
    }
    Some(total)
}

/// The candidate that is most like `name`, if any is alike enough to be what was meant.
pub fn nearest<'a>(name: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let (likeness, best) = candidates
        .map(|candidate| (strsim::normalized_damerau_levenshtein(name, candidate), candidate))
        .max_by(|a, b| a.0.total_cmp(&b.0))?;
    (likeness >= 0.7).then_some(best)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_as_go_writes_them() {
        for (text, millis) in [
            ("0", 0),
            ("0s", 0),
            ("300ms", 300),
            ("5s", 5_000),
            ("2h0m0s", 7_200_000),
            ("1m0s", 60_000),
            ("1h1.5s", 3_601_500),
        ] {
            assert_eq!(
                parse_duration(text),
                Some(Duration::from_millis(millis)),
                "{text}"
            );
        }
        for text in ["", "5", "s", "5 s", "5x", "1.2.3s", "-5s"] {
            assert_eq!(parse_duration(text), None, "{text:?}");
        }
    }

    #[test]
    fn values_that_mean_the_same() {
        assert!(Kind::Bool.same("True", "1"));
        assert!(Kind::Duration.same("60s", "1m0s"));
        assert!(Kind::List.same("a, b", "b,a"));
        assert!(!Kind::Text.same("a", "A"));
        assert!(
            parse_uint("").is_none()
                && parse_uint("+1").is_none()
                && parse_uint("18446744073709551616").is_none()
        );
    }

    #[test]
    fn the_nearest_name_is_near() {
        let names = ["data-dir", "wal-dir", "name"];
        assert_eq!(nearest("datadir", names.into_iter()), Some("data-dir"));
        assert_eq!(nearest("whatever", names.into_iter()), None);
    }
}
