//! The command line of `quorate bench`, and what is wrong with combinations of options that are each well formed.

use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};

use super::pace::Pace;
use super::work::KeySpace;
use crate::args::duration;
use crate::client::Failure;

/// Below [`BenchCommand`]'s list of commands.
pub const EXAMPLES: &str = "\
Examples:
  quorate bench put --total 100000                           how many writes a second, 100 clients at once
  quorate bench put --rate 2000 --duration 30s               latency at a load that does not wait for answers
  quorate bench range --total 200000 --clients 1 --connections 1
  quorate bench range --serializable --duration 10s -o json
  quorate bench watch --watchers 1000 --rate 100 --duration 10s
  quorate bench put --value-size 4096 --endpoints 10.0.0.1:2379,10.0.0.2:2379,10.0.0.3:2379

Works against any server of the etcd v3 API. Without --rate each client sends its next operation when the last one is answered, so a slow
server is asked less. With --rate operations are due at fixed times whatever the server does, and their latency counts from the time they
were due. When a server goes away its connections move on to the next endpoint; what failed meanwhile is counted by its message.
Writes go to keys that are zero-padded numbers: use a cluster whose data does not matter.

Exit code 1 if no operation succeeded, 3 if no endpoint could be connected to.";

/// `quorate bench …`
#[derive(Clone, Debug, Subcommand)]
pub enum BenchCommand {
    /// Writes: one Put of one key each
    #[command(after_help = "\
Examples:
  quorate bench put --total 100000
  quorate bench put --rate 2000 --duration 30s -o json")]
    Put(LoadArgs),
    /// Reads: one Range of one key each
    #[command(after_help = "\
Examples:
  quorate bench put --sequential --total 100000 && quorate bench range --total 200000
  quorate bench range --serializable --duration 10s")]
    Range(RangeArgs),
    /// Transactions: compare a key's version, then put it (the comparison always holds; else it would be read)
    #[command(after_help = "Example:\n  quorate bench txn --total 100000")]
    Txn(LoadArgs),
    /// Watches: puts, and streams that each receive all of them
    #[command(after_help = "\
Example:
  quorate bench watch --watchers 1000 --writers 10 --rate 100 --duration 10s

The latencies are those from a put being sent to its event being received. The end is waited for until all events have come.")]
    Watch(WatchArgs),
    /// Leases: grants, renewals and revocations in turn
    #[command(after_help = "Example:\n  quorate bench lease --renewals 20 --total 100000")]
    Lease(LeaseArgs),
}

/// `quorate bench watch`
#[derive(Clone, Debug, Args)]
pub struct WatchArgs {
    /// Streams that watch the whole key space, on the same connections as the writers
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub watchers: u32,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub load: LoadArgs,
}

/// `quorate bench lease`
#[derive(Clone, Debug, Args)]
pub struct LeaseArgs {
    /// Renewals of each lease, between its grant and its revocation
    #[arg(long, default_value_t = 10)]
    pub renewals: u32,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub load: LoadArgs,
}

/// `quorate bench range`
#[derive(Clone, Debug, Args)]
pub struct RangeArgs {
    /// Ask the endpoint for its own state, which may be behind, instead of a linearizable read
    #[arg(long)]
    pub serializable: bool,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub load: LoadArgs,
}

/// Options of every kind of load.
#[derive(Clone, Debug, Args)]
pub struct LoadArgs {
    /// Servers to connect to in turn, with commas between [env: QUORATE_ENDPOINTS, else ETCDCTL_ENDPOINTS]
    #[arg(long, value_delimiter = ',', env = "QUORATE_ENDPOINTS", hide_env = true)]
    pub endpoints: Vec<String>,
    /// Operations that may be under way at a time; of watch, the writers
    #[arg(long, visible_alias = "writers", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub clients: u32,
    /// Connections, which the clients share, and which go to the endpoints in turn
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub connections: u32,
    /// Threads of this program
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=256))]
    pub threads: u32,
    /// Bytes of a key
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub key_size: u32,
    /// Bytes of a value
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(0..=64 << 20))]
    pub value_size: u32,
    /// Number of different keys
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub key_space: u64,
    /// Take the keys in order instead of at random
    #[arg(long)]
    pub sequential: bool,
    /// End after this many operations [default: 10000 if there is no --duration]
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    pub total: Option<u64>,
    /// End after this time
    #[arg(long, value_parser = duration)]
    pub duration: Option<Duration>,
    /// Operations a second, due at fixed times whether or not those before are answered
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    pub rate: Option<u64>,
    /// Operations before those that count
    #[arg(long, default_value_t = 0)]
    pub warm_up: u64,
    /// Longest time to wait for an answer
    #[arg(long, default_value = "5s", value_parser = duration)]
    pub timeout: Duration,
    /// Longest time to wait for a connection
    #[arg(long, default_value = "2s", value_parser = duration)]
    pub dial_timeout: Duration,
    /// Start of the random numbers: the same seed takes the same keys
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Form of the output
    #[arg(short, long, value_enum, default_value = "table")]
    pub output: Form,
}

/// The form of what is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Form {
    /// Columns for people
    Table,
    /// One object with all figures, on one line
    Json,
}

/// How many operations there are when nobody says.
const TOTAL: u64 = 10_000;

impl LoadArgs {
    /// The keys.
    pub fn keys(&self) -> Result<KeySpace, Failure> {
        let digits = self.key_size as usize;
        let fits = 10_u64
            .checked_pow(self.key_size)
            .is_none_or(|numbers| self.key_space <= numbers);
        if !fits {
            return Err(Failure::usage(format!(
                "--key-space: {} keys have no room in {digits} digits (--key-size)",
                self.key_space
            )));
        }
        Ok(KeySpace {
            digits,
            keys: self.key_space,
            sequential: self.sequential,
        })
    }

    /// When operations are due and when they end.
    pub fn pace(&self) -> Pace {
        let total = match (self.total, self.duration) {
            (None, None) => Some(TOTAL),
            (total, _) => total,
        };
        Pace {
            rate: self.rate,
            total,
            duration: self.duration,
        }
    }
}
