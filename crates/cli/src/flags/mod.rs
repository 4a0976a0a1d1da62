//! etcd's server flags: parsing them the way Go's `flag` package does, and the `ETCD_*` variables beside them.
//!
//! Every flag of etcd 3.6 stands in [`table`] with what becomes of it here. This module turns command line and environment
//! into [`Values`] by that table and refuses what must not be ignored in silence. What the accepted values *mean*
//! (URLs, cluster maps, limits) is the business of [`crate::settings`].

pub mod table;
pub mod value;

use std::collections::BTreeMap;

use table::{Flag, Stand, TABLE};
use value::nearest;

/// Where a value came from. Also how it is named in messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The command line.
    Flag,
    /// An `ETCD_*` variable.
    Env,
}

/// Why a command line was not accepted.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum FlagError {
    /// No such flag, in etcd or here.
    #[error("unknown flag --{name}{}", hint(.nearest))]
    Unknown {
        /// As written, without dashes.
        name: String,
        /// The closest flag there is.
        nearest: Option<&'static str>,
    },
    /// Something that is not a flag at all.
    #[error("{0:?} is not a flag (a value that starts with a dash needs the form --flag=value)")]
    NotAFlag(String),
    /// The last argument is a flag that needs a value.
    #[error("--{0} needs a value")]
    NoValue(&'static str),
    /// The value does not parse as the flag's type.
    #[error("{what}: {value:?} is not {expected}")]
    BadValue {
        /// Flag or variable.
        what: String,
        /// What was given.
        value: String,
        /// What would have been right.
        expected: String,
    },
    /// An etcd flag that this server does not support at this value.
    #[error("{what}={value} is not supported: {why}")]
    Refused {
        /// Flag or variable.
        what: String,
        /// What was given.
        value: String,
        /// The reason, from the table.
        why: &'static str,
    },
}

fn hint(nearest: &Option<&'static str>) -> String {
    nearest.map_or_else(
        || " (quorate serve --help lists all flags)".to_owned(),
        |flag| format!(" (did you mean --{flag}?)"),
    )
}

/// What was asked for besides running.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Ask {
    /// Run the server.
    #[default]
    Run,
    /// `-h`, `-help`, `--help`.
    Help,
    /// `--version`.
    Version,
}

/// The values that were set, each valid for its flag's type. Flags not set have the table's default.
#[derive(Clone, Debug, Default)]
pub struct Values {
    set: BTreeMap<&'static str, (String, Origin)>,
    /// What was asked for.
    pub ask: Ask,
    /// Remarks for the log: shadowed or unknown variables, flags without effect.
    pub remarks: Vec<String>,
}

impl Values {
    /// Parses `args` (without the program's and the sub-command's name) and the environment `env`. A flag wins over its
    /// variable.
    pub fn parse(
        args: impl IntoIterator<Item = String>,
        env: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Values, FlagError> {
        let mut values = Values::default();
        values.take_args(args)?;
        if values.ask == Ask::Run {
            values.take_env(env)?;
            values.judge()?;
        }
        Ok(values)
    }

    /// Whether the flag was set at all, to whatever value.
    pub fn is_set(&self, name: &str) -> bool {
        self.set.contains_key(name)
    }

    /// The value in force. Panics for a name that is not in the table: a typing error in this program.
    pub fn get(&self, name: &str) -> &str {
        match self.set.get(name) {
            Some((value, _)) => value,
            None => {
                find(name)
                    .unwrap_or_else(|| panic!("--{name} is not in the table of flags"))
                    .default
            }
        }
    }

    /// The value in force of a flag of kind [`value::Kind::Uint`].
    pub fn number(&self, name: &str) -> u64 {
        value::parse_uint(self.get(name)).unwrap_or_else(|| panic!("--{name} was checked to be a number"))
    }

    /// The value in force of a flag of kind [`value::Kind::Duration`].
    pub fn duration(&self, name: &str) -> std::time::Duration {
        value::parse_duration(self.get(name))
            .unwrap_or_else(|| panic!("--{name} was checked to be a duration"))
    }

    /// The value in force of a flag of kind [`value::Kind::Bool`].
    pub fn is_true(&self, name: &str) -> bool {
        value::parse_bool(self.get(name)).unwrap_or_else(|| panic!("--{name} was checked to be a boolean"))
    }

    /// How the user set this flag: `--name` or `ETCD_NAME`.
    pub fn called(&self, name: &str) -> String {
        match self.set.get(name) {
            Some((_, Origin::Env)) => env_name(name),
            _ => format!("--{name}"),
        }
    }

    /// Go's rules: one or two dashes, `-flag=value` or `-flag value`; a boolean takes its value only after `=`; the last
    /// of several settings wins.
    fn take_args(&mut self, args: impl IntoIterator<Item = String>) -> Result<(), FlagError> {
        let mut args = args.into_iter();
        while let Some(arg) = args.next() {
            let Some(rest) = arg.strip_prefix('-') else {
                return Err(FlagError::NotAFlag(arg));
            };
            let rest = rest.strip_prefix('-').unwrap_or(rest);
            let (name, inline) = match rest.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (rest, None),
            };
            if name.is_empty() || name.starts_with('-') {
                return Err(FlagError::NotAFlag(arg));
            }
            if matches!(name, "h" | "help") {
                self.ask = Ask::Help;
                return Ok(());
            }
            let flag = find(name).ok_or_else(|| FlagError::Unknown {
                name: name.to_owned(),
                nearest: nearest(name, TABLE.iter().map(|flag| flag.name)),
            })?;
            let value = match inline {
                Some(value) => value,
                None if flag.kind.stands_alone() => "true".to_owned(),
                None => args.next().ok_or(FlagError::NoValue(flag.name))?,
            };
            self.put(flag, value, Origin::Flag)?;
        }
        if self.set.contains_key("version") && self.is_true("version") {
            self.ask = Ask::Version;
        }
        Ok(())
    }

    fn take_env(&mut self, env: impl IntoIterator<Item = (String, String)>) -> Result<(), FlagError> {
        let known: BTreeMap<String, &'static Flag> = TABLE.iter().map(|f| (env_name(f.name), f)).collect();
        let given: BTreeMap<String, String> =
            env.into_iter().filter(|(k, _)| k.starts_with("ETCD_")).collect();
        for (variable, value) in given {
            let Some(flag) = known.get(&variable) else {
                // Kubernetes puts ETCD_PORT and the like into every pod beside a service of that name, so unlike an
                // unknown flag this cannot be an error (nor is it with etcd).
                let nearest = nearest(&variable, known.keys().map(String::as_str));
                let hint = nearest.map_or(String::new(), |name| format!(" (did you mean {name}?)"));
                self.remarks.push(format!(
                    "unknown environment variable {variable} has no effect{hint}"
                ));
                continue;
            };
            if self.is_set(flag.name) {
                self.remarks.push(format!(
                    "environment variable {variable} is shadowed by --{}",
                    flag.name
                ));
            } else if !value.is_empty() {
                self.put(flag, value, Origin::Env)?;
            }
        }
        Ok(())
    }

    fn put(&mut self, flag: &'static Flag, value: String, origin: Origin) -> Result<(), FlagError> {
        if let Err(expected) = flag.kind.check(&value) {
            let what = match origin {
                Origin::Flag => format!("--{}", flag.name),
                Origin::Env => env_name(flag.name),
            };
            return Err(FlagError::BadValue {
                what,
                value,
                expected,
            });
        }
        self.set.insert(flag.name, (value, origin));
        Ok(())
    }

    /// Refuses what would not behave as the operator asked.
    fn judge(&mut self) -> Result<(), FlagError> {
        for (name, (value, _)) in &self.set {
            let flag = find(name).expect("only flags of the table are ever set");
            let same = flag.kind.same(value, flag.default);
            match flag.stand {
                Stand::Acts => {}
                Stand::NoEffect if same => {}
                Stand::NoEffect => {
                    self.remarks.push(format!(
                        "{} has no effect here: {}",
                        self.called(name),
                        flag.about
                    ));
                }
                Stand::Fixed if same => {}
                Stand::Fixed => {
                    return Err(FlagError::Refused {
                        what: self.called(name),
                        value: value.clone(),
                        why: flag.about,
                    });
                }
            }
        }
        Ok(())
    }
}

/// The row of `name`.
pub fn find(name: &str) -> Option<&'static Flag> {
    TABLE.iter().find(|flag| flag.name == name)
}

/// etcd's name of the variable that stands for a flag.
pub fn env_name(flag: &str) -> String {
    format!("ETCD_{}", flag.to_uppercase().replace('-', "_"))
}

/// The text of `quorate serve --help`.
pub fn help() -> String {
    let mut out = String::from(
        "Start a server. Takes etcd 3.6's flags and ETCD_* variables (a flag wins over its variable).\n\n\
         Usage: quorate serve [--flag=value | --flag value | -flag value]...\n\n\
         Examples:\n  \
           quorate serve\n      a single node on 127.0.0.1:2379, data in ./quorate.data\n  \
           quorate serve --name n1 --data-dir n1.data --listen-client-urls http://127.0.0.1:2379 \\\n      \
             --listen-peer-urls http://127.0.0.1:2380 \\\n      \
             --initial-cluster n1=http://127.0.0.1:2380,n2=http://127.0.0.1:2480,n3=http://127.0.0.1:2580\n  \
           quorate serve --name n4 --data-dir n4.data --initial-cluster-state existing \\\n      \
             --initial-cluster n1=http://127.0.0.1:2380,n4=http://127.0.0.1:2680 ...\n      \
             joins a running cluster, after quorate member add n4 --peer-urls http://127.0.0.1:2680\n\n\
         SIGTERM or SIGINT: hands leadership over, flushes, exits 0. Exits 5 when this member must not run again: it was removed \
         from the cluster, or its data is not what the others know of it (the message says what to do).\n\nFlags:\n",
    );
    let (acting, other): (Vec<&Flag>, Vec<&Flag>) = TABLE.iter().partition(|flag| flag.stand == Stand::Acts);
    for flag in acting {
        out += &format!("  --{} '{}'\n      {}\n", flag.name, flag.default, flag.about);
    }
    for (title, stand) in [
        ("Accepted, with no effect here", Stand::NoEffect),
        (
            "Not supported: refused, by name, at any value but the default",
            Stand::Fixed,
        ),
    ] {
        out += &format!("\n{title}:\n");
        for flag in other.iter().filter(|flag| flag.stand == stand) {
            out += &format!("  --{} '{}': {}\n", flag.name, flag.default, flag.about);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(args: &[&str], env: &[(&str, &str)]) -> Result<Values, FlagError> {
        Values::parse(
            args.iter().map(|s| (*s).to_owned()),
            env.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())),
        )
    }

    #[test]
    fn every_form_of_a_flag_that_go_takes() {
        for args in [
            &["--name=n1"][..],
            &["--name", "n1"],
            &["-name", "n1"],
            &["-name=n1"],
            &["--name=n0", "--name=n1"],
        ] {
            assert_eq!(parse(args, &[]).unwrap().get("name"), "n1", "{args:?}");
        }
        let values = parse(&["--pre-vote", "--name", "n1"], &[]).unwrap();
        assert_eq!(
            values.get("name"),
            "n1",
            "a boolean does not take the next argument"
        );
        assert_eq!(parse(&["--name"], &[]).unwrap_err(), FlagError::NoValue("name"));
        assert_eq!(parse(&["n1"], &[]).unwrap_err(), FlagError::NotAFlag("n1".into()));
        assert_eq!(
            parse(&["--pre-vote", "true"], &[]).unwrap_err(),
            FlagError::NotAFlag("true".into())
        );
        assert_eq!(
            parse(&["---name=x"], &[]).unwrap_err(),
            FlagError::NotAFlag("---name=x".into())
        );
        assert_eq!(parse(&["-h"], &[]).unwrap().ask, Ask::Help);
        assert_eq!(parse(&["--version"], &[]).unwrap().ask, Ask::Version);
    }

    #[test]
    fn an_unknown_flag_names_the_nearest() {
        let error = parse(&["--listen-client-url=http://127.0.0.1:1"], &[]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "unknown flag --listen-client-url (did you mean --listen-client-urls?)"
        );
        let error = parse(&["--zzzzzzzzzzzzzzzz"], &[]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "unknown flag --zzzzzzzzzzzzzzzz (quorate serve --help lists all flags)"
        );
    }

    #[test]
    fn a_flag_wins_over_its_variable_and_both_are_checked() {
        let values = parse(
            &["--name", "flag"],
            &[("ETCD_NAME", "env"), ("ETCD_DATA_DIR", "/d")],
        )
        .unwrap();
        assert_eq!((values.get("name"), values.get("data-dir")), ("flag", "/d"));
        assert_eq!(values.called("data-dir"), "ETCD_DATA_DIR");
        assert_eq!(
            values.remarks,
            ["environment variable ETCD_NAME is shadowed by --name"]
        );
        let error = parse(&[], &[("ETCD_HEARTBEAT_INTERVAL", "soon")]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "ETCD_HEARTBEAT_INTERVAL: \"soon\" is not a whole number"
        );
        let error = parse(&[], &[("ETCD_CERT_FILE", "x.pem")]).unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("ETCD_CERT_FILE=x.pem is not supported: "),
            "{error}"
        );
    }

    #[test]
    fn an_unknown_variable_is_a_remark_not_an_error() {
        let values = parse(&[], &[("ETCD_PORT", "tcp://1.2.3.4:1"), ("HOME", "/")]).unwrap();
        assert_eq!(values.remarks.len(), 1);
        let values = parse(&[], &[("ETCD_INITIAL_CLUSTR", "a=b")]).unwrap();
        assert_eq!(
            values.remarks,
            [
                "unknown environment variable ETCD_INITIAL_CLUSTR has no effect (did you mean ETCD_INITIAL_CLUSTER?)"
            ]
        );
    }

    #[test]
    fn what_would_change_behaviour_is_refused_and_what_is_so_anyway_is_not() {
        parse(
            &["--pre-vote=1", "--unsafe-no-fsync=false", "--auth-token=simple"],
            &[],
        )
        .unwrap();
        for args in [
            "--pre-vote=false",
            "--unsafe-no-fsync",
            "--cert-file=a.pem",
            "--auth-token=jwt",
            "--config-file=x",
        ] {
            let error = parse(&[args], &[]).unwrap_err();
            assert!(matches!(error, FlagError::Refused { .. }), "{args}: {error}");
        }
        let values = parse(&["--snapshot-count=5000"], &[]).unwrap();
        assert!(
            values.remarks[0].starts_with("--snapshot-count has no effect here: "),
            "{:?}",
            values.remarks
        );
    }

    #[test]
    fn the_table_agrees_with_etcd_3_6_in_names_types_and_defaults() {
        let listed = include_str!("etcd-3.6-flags.tsv");
        let mut names = Vec::new();
        for line in listed.lines().filter(|line| !line.starts_with('#')) {
            let [name, kind, default] = line.split('\t').collect::<Vec<_>>()[..] else {
                panic!("three columns: {line:?}");
            };
            let flag = find(name).unwrap_or_else(|| panic!("--{name} is missing from the table"));
            assert_eq!(flag.kind.to_string(), kind, "--{name}");
            // The documented difference: our data directory's default name.
            if name != "data-dir" {
                assert!(
                    flag.kind.same(flag.default, default),
                    "--{name}: {:?} and {default:?}",
                    flag.default
                );
            }
            names.push(name);
        }
        for flag in TABLE {
            let ours = ["exit-with-parent", "election-priority", "lease-reads"].contains(&flag.name);
            assert!(
                ours || names.contains(&flag.name),
                "--{} is not a flag of etcd",
                flag.name
            );
            assert!(
                flag.kind.check(flag.default).is_ok(),
                "--{}: default {:?}",
                flag.name,
                flag.default
            );
        }
        assert!(
            names.len() > 140,
            "the list of etcd's flags is whole: {}",
            names.len()
        );
    }

    #[test]
    fn help_names_every_flag() {
        let help = help();
        for flag in TABLE {
            assert!(help.contains(&format!("--{} ", flag.name)), "--{}", flag.name);
        }
    }
}
