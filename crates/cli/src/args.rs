//! The command line of every sub-command but `serve`, whose flags are etcd's (see [`crate::flags`]).

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

const EXAMPLES: &str = "\
Examples:
  quorate demo                                   a three-node cluster on this machine, to play with
  quorate serve                                  a single node on 127.0.0.1:2379
  quorate put greeting hello                     write
  quorate get --prefix '' -o json                read everything
  quorate watch --prefix /jobs/                  follow changes
  quorate status --endpoints 127.0.0.1:2379,127.0.0.1:2479,127.0.0.1:2579
  quorate member replace n2 --name n4 --peer-urls http://10.0.0.4:2380
  quorate bench put --total 100000               how fast the cluster is
  etcdctl --endpoints 127.0.0.1:2379 get greeting

Exit codes:
  0  done
  1  refused or failed: the server said no, or the server could not start or go on
  2  wrong usage
  3  no endpoint could be reached, or no answer came in time (a write may have happened)
  4  get: no such key
  5  serve: this member must not run again: it was removed from the cluster, or its data is not what the others know of it";

/// A replicated key-value store on Raft that speaks the etcd v3 API.
#[derive(Debug, Parser)]
#[command(name = "quorate", version, after_help = EXAMPLES, disable_help_subcommand = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The sub-commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Start a server; takes etcd's flags (quorate serve --help)
    #[command(disable_help_flag = true)]
    Serve {
        /// etcd's flags, read by [`crate::flags`].
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        flags: Vec<String>,
    },
    /// Start a cluster of real server processes on this machine and show what it does
    Demo(DemoArgs),
    /// Write a key
    #[command(after_help = "Examples:\n  quorate put greeting hello\n  quorate put config < config.json")]
    Put(PutArgs),
    /// Read a key or a range of keys
    #[command(
        after_help = "Examples:\n  quorate get greeting\n  quorate get --prefix /jobs/ --limit 10\n  quorate get a z --keys-only"
    )]
    Get(GetArgs),
    /// Delete a key or a range of keys
    #[command(after_help = "Examples:\n  quorate del greeting\n  quorate del --prefix /jobs/")]
    Del(DelArgs),
    /// Follow the changes of a key or a range of keys, until Ctrl-C
    #[command(
        after_help = "Examples:\n  quorate watch greeting\n  quorate watch --prefix /jobs/ --rev 1 -o json"
    )]
    Watch(WatchArgs),
    /// Show each endpoint's member, role, term and indexes, and who is behind
    Status(ClientArgs),
    /// Show and change the cluster's members
    Member {
        /// What to do with members.
        #[command(subcommand)]
        command: MemberCommand,
    },
    /// Make a new cluster out of one member's data, when a majority is lost for good
    Recover(RecoverArgs),
    /// Measure how fast a cluster of the etcd v3 API answers
    #[command(after_help = crate::bench::args::EXAMPLES)]
    Bench {
        /// What to measure.
        #[command(subcommand)]
        command: crate::bench::args::BenchCommand,
    },
    /// Look into a data directory
    Debug {
        /// What to look at.
        #[command(subcommand)]
        command: DebugCommand,
    },
    /// Print the version
    Version,
    /// Print a completion script for a shell
    #[command(after_help = "Example:\n  quorate completions bash > /etc/bash_completion.d/quorate")]
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
}

/// `quorate member …`
#[derive(Debug, Subcommand)]
pub enum MemberCommand {
    /// List the members
    List(ClientArgs),
    /// Add a member, and print how to start it
    #[command(after_help = "\
Examples:
  quorate member add n4 --peer-urls http://10.0.0.4:2380
  quorate member add n4 --peer-urls http://10.0.0.4:2380 --learner

A member that is added without --learner counts as a voter at once, and votes as soon as it has caught up. A learner stays one until
'quorate member promote'.")]
    Add(AddArgs),
    /// Remove a member for good: it ends by itself, and its id is never used again
    #[command(after_help = "Example:\n  quorate member remove n2")]
    Remove(MemberArgs),
    /// Make a learner that has caught up a voter
    #[command(after_help = "Example:\n  quorate member promote n4")]
    Promote(MemberArgs),
    /// Change where the other members reach a member
    #[command(after_help = "Example:\n  quorate member update n2 --peer-urls http://10.0.0.22:2380")]
    Update(UpdateArgs),
    /// Replace a member by a new one: adds it, waits until it has caught up, promotes it, removes the old one
    #[command(after_help = "\
Examples:
  quorate member replace n2 --name n4 --peer-urls http://10.0.0.4:2380 --dry-run
  quorate member replace n2 --name n4 --peer-urls http://10.0.0.4:2380

Prints how to start the new member and waits for it. The cluster serves all the while and keeps a majority at every step. Ctrl-C stops the
command and leaves the cluster as it stands; the same command goes on from there, however often it is run.")]
    Replace(ReplaceArgs),
}

/// `quorate debug …`
#[derive(Debug, Subcommand)]
pub enum DebugCommand {
    /// Print the log in a data directory readably, without starting or changing it
    #[command(after_help = "Example:\n  quorate debug log quorate.data")]
    Log {
        /// The data directory of a server.
        dir: PathBuf,
    },
}

/// The form of what a command prints.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// Columns for people.
    Table,
    /// The API's JSON, as the JSON gateway gives it.
    Json,
}

/// Options of all client commands.
#[derive(Clone, Debug, Args)]
pub struct ClientArgs {
    /// Servers to try, in this order, with commas between [env: QUORATE_ENDPOINTS, else ETCDCTL_ENDPOINTS]
    #[arg(long, value_delimiter = ',', env = "QUORATE_ENDPOINTS", hide_env = true)]
    pub endpoints: Vec<String>,
    /// Form of the output
    #[arg(short, long, value_enum, default_value = "table")]
    pub output: Output,
    /// Longest time to wait for a connection
    #[arg(long, default_value = "2s", value_parser = duration)]
    pub dial_timeout: Duration,
    /// Longest time to wait for an answer [default: 5s; 10s for what changes something, of which the server says within that time
    /// what became of it, even if a leader is elected meanwhile]
    #[arg(long, value_parser = duration)]
    pub command_timeout: Option<Duration>,
}

/// `quorate member add`
#[derive(Debug, Args)]
pub struct AddArgs {
    /// The name that it will be started with
    pub name: String,
    /// Where the other members will reach it, with commas between
    #[arg(long, required = true, value_delimiter = ',')]
    pub peer_urls: Vec<String>,
    /// Add it as a learner, which does not vote until it is promoted
    #[arg(long)]
    pub learner: bool,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub client: ClientArgs,
}

/// `quorate member remove` and `promote`
#[derive(Debug, Args)]
pub struct MemberArgs {
    /// The member's name or id
    pub member: String,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub client: ClientArgs,
}

/// `quorate member update`
#[derive(Debug, Args)]
pub struct UpdateArgs {
    /// The member's name or id
    pub member: String,
    /// Where the other members reach it from now on, with commas between
    #[arg(long, required = true, value_delimiter = ',')]
    pub peer_urls: Vec<String>,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub client: ClientArgs,
}

/// `quorate member replace`
#[derive(Debug, Args)]
pub struct ReplaceArgs {
    /// The name or id of the member to be replaced
    pub old: String,
    /// The name of the new member
    #[arg(long)]
    pub name: String,
    /// Where the other members will reach the new one, with commas between
    #[arg(long, required = true, value_delimiter = ',')]
    pub peer_urls: Vec<String>,
    /// Say what would be done on the cluster as it is, and do nothing
    #[arg(long)]
    pub dry_run: bool,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub client: ClientArgs,
}

/// `quorate recover`
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  quorate recover --data-dir n1.data --dry-run
  quorate recover --data-dir n1.data

Shows what the directory holds and what may be lost, and asks for the cluster's id before it does anything. What the lost members had
acknowledged after the end of this log is gone for good. The server must not run. Other members cannot come back with their old data: they
are added again, empty.")]
pub struct RecoverArgs {
    /// The data directory of a member that has survived
    #[arg(long)]
    pub data_dir: PathBuf,
    /// Say what is there and what would be done, and do nothing
    #[arg(long, conflicts_with = "confirm")]
    pub dry_run: bool,
    /// Go on without asking: the id of the cluster that the data belongs to, in hexadecimal
    #[arg(long, value_name = "CLUSTER ID", value_parser = cluster_id)]
    pub confirm: Option<u64>,
}

/// A key, or several.
#[derive(Clone, Debug, Args)]
pub struct KeyArgs {
    /// The key, or the first key of a range
    pub key: String,
    /// The end of the range (not in it)
    #[arg(conflicts_with_all = ["prefix", "from_key"])]
    pub range_end: Option<String>,
    /// All keys that begin with KEY ('' for all keys)
    #[arg(long, conflicts_with = "from_key")]
    pub prefix: bool,
    /// All keys from KEY on
    #[arg(long)]
    pub from_key: bool,
}

/// `quorate put`
#[derive(Debug, Args)]
pub struct PutArgs {
    /// The key
    pub key: String,
    /// The value; read from standard input when not given
    #[arg(allow_hyphen_values = true)]
    pub value: Option<String>,
    /// Lease to attach, in hexadecimal
    #[arg(long, value_parser = hex, default_value = "0")]
    pub lease: i64,
    /// Show the pair that was there before
    #[arg(long)]
    pub prev_kv: bool,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub client: ClientArgs,
}

/// What `get` sorts by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[allow(missing_docs)]
pub enum SortBy {
    Key,
    Version,
    Create,
    Mod,
    Value,
}

/// `quorate get`
#[derive(Debug, Args)]
pub struct GetArgs {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub keys: KeyArgs,
    /// At most this many keys (0: all)
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(i64).range(0..))]
    pub limit: i64,
    /// As of this revision (0: now)
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(i64).range(0..))]
    pub rev: i64,
    /// Sort by this
    #[arg(long, value_enum)]
    pub sort_by: Option<SortBy>,
    /// Sort downwards
    #[arg(long)]
    pub descending: bool,
    /// Keys without values
    #[arg(long)]
    pub keys_only: bool,
    /// Only the number of keys
    #[arg(long, conflicts_with = "keys_only")]
    pub count_only: bool,
    /// Ask the endpoint for its own state, which may be behind
    #[arg(long)]
    pub serializable: bool,
    /// Print the values alone, byte for byte
    #[arg(long, conflicts_with_all = ["keys_only", "count_only"])]
    pub print_value_only: bool,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub client: ClientArgs,
}

/// `quorate del`
#[derive(Debug, Args)]
pub struct DelArgs {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub keys: KeyArgs,
    /// Show the pairs that were deleted
    #[arg(long)]
    pub prev_kv: bool,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub client: ClientArgs,
}

/// `quorate watch`
#[derive(Debug, Args)]
pub struct WatchArgs {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub keys: KeyArgs,
    /// Begin with the changes of this revision (0: from now on)
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(i64).range(0..))]
    pub rev: i64,
    /// Show what was there before each change
    #[arg(long)]
    pub prev_kv: bool,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub client: ClientArgs,
}

/// `quorate demo`
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  quorate demo
  quorate demo --nodes 5 --base-port 12379 --data-dir /tmp/five

Node k (from 0) serves clients on base port + 100*k and peers on the port after. A node that is killed is started again
after a moment. Ctrl-C ends all nodes; their data stays in --data-dir, and the next demo goes on with it.")]
pub struct DemoArgs {
    /// Number of nodes
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=9))]
    pub nodes: u16,
    /// Where the nodes' data and logs go
    #[arg(long, default_value = "quorate-demo.data")]
    pub data_dir: PathBuf,
    /// Client port of the first node
    #[arg(long, default_value_t = 2379, value_parser = clap::value_parser!(u16).range(1..=64_000))]
    pub base_port: u16,
    /// Seconds after which a node that died is started again
    #[arg(long, default_value_t = 10)]
    pub restart_after: u64,
}

/// A duration that is not zero.
pub fn duration(text: &str) -> Result<Duration, String> {
    crate::flags::value::parse_duration(text)
        .filter(|duration| !duration.is_zero())
        .ok_or_else(|| "not a duration such as 300ms or 5s".to_owned())
}

fn cluster_id(text: &str) -> Result<u64, String> {
    u64::from_str_radix(text, 16).map_err(|error| format!("{error} (the id is written in hexadecimal)"))
}

fn hex(text: &str) -> Result<i64, String> {
    i64::from_str_radix(text, 16).map_err(|error| format!("{error} (leases are written in hexadecimal)"))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_commands_are_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn serve_takes_any_flag_untouched() {
        let cli = Cli::parse_from(["quorate", "serve", "-name=n1", "--help", "-x", "--", "y"]);
        let Command::Serve { flags } = cli.command else {
            panic!("serve")
        };
        assert_eq!(flags, ["-name=n1", "--help", "-x", "--", "y"]);
    }
}
