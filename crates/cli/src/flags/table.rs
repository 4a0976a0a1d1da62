//! The table of all flags that etcd 3.6 has, and what becomes of each here. Nothing is parsed in this file.
//!
//! The rule for the third column: [`Stand::Acts`] where the flag does what it does in etcd; [`Stand::NoEffect`] where a
//! different value could not be told from outside; [`Stand::Fixed`] where it could, so that only the default is accepted. A
//! test compares names, types and defaults with the list `etcd-3.6-flags.tsv`.

use super::value::Kind::{self, Bool, Duration, Ignored, Int, List, Text, Uint};

/// What becomes of a flag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stand {
    /// Does what it does in etcd.
    Acts,
    /// Any value is accepted and none changes anything.
    NoEffect,
    /// Only the default is accepted.
    Fixed,
}

/// One flag.
#[derive(Clone, Copy, Debug)]
pub struct Flag {
    /// Without dashes.
    pub name: &'static str,
    /// Its type.
    pub kind: Kind,
    /// The value when not set. Empty: none.
    pub default: &'static str,
    /// What becomes of it.
    pub stand: Stand,
    /// For the help text. Where the flag does not act: why.
    pub about: &'static str,
}

const fn acts(name: &'static str, kind: Kind, default: &'static str, about: &'static str) -> Flag {
    Flag {
        name,
        kind,
        default,
        stand: Stand::Acts,
        about,
    }
}

const fn no_effect(name: &'static str, kind: Kind, default: &'static str, about: &'static str) -> Flag {
    Flag {
        name,
        kind,
        default,
        stand: Stand::NoEffect,
        about,
    }
}

const fn fixed(name: &'static str, kind: Kind, default: &'static str, about: &'static str) -> Flag {
    Flag {
        name,
        kind,
        default,
        stand: Stand::Fixed,
        about,
    }
}

/// All flags.
#[rustfmt::skip] // One line a flag: a table.
pub const TABLE: &[Flag] = &[
    // Member.
    acts("name", Text, "default", "This member's name, as in --initial-cluster."),
    acts("data-dir", Text, "quorate.data", "Data directory (etcd's default is ${name}.etcd)."),
    acts("listen-peer-urls", List, "http://localhost:2380", "Where to listen for the other members."),
    acts("listen-client-urls", List, "http://localhost:2379", "Where to listen for clients: gRPC, JSON gateway, health and metrics on one port."),
    acts("heartbeat-interval", Uint, "100", "Milliseconds between a leader's heartbeats."),
    acts("election-timeout", Uint, "1000", "Milliseconds without a leader before an election; at least 5 heartbeats, at most 50000."),
    acts("max-request-bytes", Uint, "1572864", "The largest request that is accepted, in bytes."),
    acts("watch-progress-notify-interval", Duration, "0s", "How often a watcher that asked for it hears of the revision while nothing happens; 0 is 10 minutes."),
    acts("experimental-watch-progress-notify-interval", Duration, "0s", "The older name of --watch-progress-notify-interval."),
    // Clustering.
    acts("initial-advertise-peer-urls", List, "http://localhost:2380", "This member's peer URLs as the others reach them. Unset: what --initial-cluster says of --name, else the listening URLs."),
    acts("initial-cluster", Text, "default=http://localhost:2380", "All members of a new cluster: name=peer-URL, with commas between. Unset: this member alone."),
    acts("initial-cluster-state", Text, "new", "'new' founds a cluster; 'existing' joins a running one, as a member that was added before (quorate member add). Of no account once there is a data directory."),
    acts("initial-cluster-token", Text, "etcd-cluster", "Tells clusters with the same members apart: part of the cluster's and the members' ids."),
    acts("strict-reconfig-check", Bool, "true", "Refuse membership changes asked of this member that would cost the cluster its quorum."),
    acts("max-learners", Int, "1", "How many learners may be added that stay learners until promoted on request."),
    acts("advertise-client-urls", List, "http://localhost:2379", "Client URLs told to clients by the member list. Unset: the listening URLs."),
    // Logging.
    acts("log-level", Text, "info", "debug, info, warn, error (panic and fatal mean error)."),
    acts("log-format", Text, "json", "json or console ('text' is the same). Unset: console on a terminal, else json."),
    acts("log-outputs", List, "default", "stderr ('default' is the same), stdout, or the path of one file."),
    acts("version", Bool, "false", "Print the version and exit."),
    // Flags whose meaning is met by how this server works, or concerns what it does not have.
    fixed("wal-dir", Text, "", "log and store share the data directory"),
    no_effect("snapshot-count", Uint, "10000", "the log is compacted as soon as the store has made the entries durable, whatever their number"),
    no_effect("snapshot-catchup-entries", Uint, "5000", "how much log is kept for slow followers is not counted in entries"),
    no_effect("experimental-snapshot-catchup-entries", Uint, "5000", "how much log is kept for slow followers is not counted in entries"),
    no_effect("max-snapshots", Uint, "5", "there are no snapshot files to retain"),
    no_effect("max-wals", Uint, "5", "log files are removed as soon as nothing needs them"),
    no_effect("initial-election-tick-advance", Bool, "true", "a starting member does not wait in ticks"),
    no_effect("backend-bbolt-freelist-type", Text, "", "there is no bbolt in here"),
    no_effect("backend-batch-interval", Duration, "0s", "the store batches by its own measure; the log is what makes writes durable"),
    no_effect("backend-batch-limit", Int, "0", "the store batches by its own measure; the log is what makes writes durable"),
    no_effect("compaction-batch-limit", Int, "0", "compaction does not stop the world, so its batches need no tuning"),
    no_effect("compaction-sleep-interval", Duration, "0s", "compaction does not stop the world, so its batches need no tuning"),
    no_effect("experimental-compaction-batch-limit", Int, "0", "compaction does not stop the world, so its batches need no tuning"),
    no_effect("experimental-compaction-sleep-interval", Duration, "0s", "compaction does not stop the world, so its batches need no tuning"),
    no_effect("bootstrap-defrag-threshold-megabytes", Uint, "0", "the store needs no defragmentation"),
    no_effect("experimental-bootstrap-defrag-threshold-megabytes", Uint, "0", "the store needs no defragmentation"),
    no_effect("experimental-stop-grpc-service-on-defrag", Bool, "false", "the store needs no defragmentation"),
    no_effect("experimental-txn-mode-write-with-shared-buffer", Bool, "true", "an optimisation of etcd's own backend"),
    no_effect("raft-read-timeout", Duration, "5s", "a silent peer is noticed by its missing heartbeats"),
    no_effect("raft-write-timeout", Duration, "5s", "a silent peer is noticed by its missing heartbeats"),
    no_effect("downgrade-check-time", Duration, "5s", "there is no downgrade to check for"),
    no_effect("experimental-downgrade-check-time", Duration, "5s", "there is no downgrade to check for"),
    no_effect("v2-deprecation", Text, "write-only", "there is no v2 store (etcd ignores this flag as well)"),
    fixed("logger", Text, "zap", "zap is the only value that etcd knows"),
    no_effect("warning-apply-duration", Duration, "100ms", "slow requests show in the histograms of /metrics, not in the log"),
    no_effect("experimental-warning-apply-duration", Duration, "0s", "slow requests show in the histograms of /metrics, not in the log"),
    no_effect("warning-unary-request-duration", Duration, "0s", "slow requests show in the histograms of /metrics, not in the log"),
    no_effect("experimental-warning-unary-request-duration", Duration, "0s", "slow requests show in the histograms of /metrics, not in the log"),
    no_effect("bcrypt-cost", Uint, "10", "there is no authentication yet"),
    no_effect("auth-token-ttl", Uint, "300", "there is no authentication yet"),
    no_effect("self-signed-cert-validity", Uint, "1", "no certificates are made"),
    no_effect("compact-hash-check-time", Duration, "1m0s", "only the interval of a check that --feature-gates would switch on"),
    no_effect("experimental-compact-hash-check-time", Duration, "1m0s", "only the interval of a check that --feature-gates would switch on"),
    no_effect("log-rotation-config-json", Text, "{\"maxsize\": 100, \"maxage\": 0, \"maxbackups\": 0, \"localtime\": false, \"compress\": false}", "only read together with --enable-log-rotation"),
    no_effect("distributed-tracing-address", Text, "localhost:4317", "only read together with --enable-distributed-tracing"),
    no_effect("experimental-distributed-tracing-address", Text, "localhost:4317", "only read together with --enable-distributed-tracing"),
    no_effect("distributed-tracing-service-name", Text, "etcd", "only read together with --enable-distributed-tracing"),
    no_effect("experimental-distributed-tracing-service-name", Text, "etcd", "only read together with --enable-distributed-tracing"),
    no_effect("distributed-tracing-instance-id", Text, "", "only read together with --enable-distributed-tracing"),
    no_effect("experimental-distributed-tracing-instance-id", Text, "", "only read together with --enable-distributed-tracing"),
    no_effect("distributed-tracing-sampling-rate", Int, "0", "only read together with --enable-distributed-tracing"),
    no_effect("experimental-distributed-tracing-sampling-rate", Int, "0", "only read together with --enable-distributed-tracing"),
    no_effect("discovery-dial-timeout", Duration, "2s", "only read with discovery, which is refused"),
    no_effect("discovery-request-timeout", Duration, "5s", "only read with discovery, which is refused"),
    no_effect("discovery-keepalive-time", Duration, "2s", "only read with discovery, which is refused"),
    no_effect("discovery-keepalive-timeout", Duration, "6s", "only read with discovery, which is refused"),
    no_effect("discovery-insecure-transport", Bool, "true", "only read with discovery, which is refused"),
    no_effect("discovery-insecure-skip-tls-verify", Bool, "false", "only read with discovery, which is refused"),
    no_effect("discovery-fallback", Text, "exit", "only read with discovery, which is refused"),
    no_effect("tls-min-version", Text, "TLS1.2", "only read with TLS, which is refused"),
    no_effect("tls-max-version", Text, "", "only read with TLS, which is refused"),
    no_effect("cipher-suites", List, "", "only read with TLS, which is refused"),
    // What is always so and cannot be switched off.
    fixed("pre-vote", Bool, "true", "pre-vote is always on"),
    fixed("enable-grpc-gateway", Bool, "true", "the JSON gateway is always there"),
    fixed("unsafe-no-fsync", Bool, "false", "nothing is acknowledged before it is on disk"),
    fixed("force-new-cluster", Bool, "false", "use 'quorate recover', which says what may be lost and asks first"),
    // Not supported yet: TLS.
    fixed("cert-file", Text, "", "TLS is not supported yet"),
    fixed("key-file", Text, "", "TLS is not supported yet"),
    fixed("client-cert-auth", Bool, "false", "TLS is not supported yet"),
    fixed("client-cert-file", Text, "", "TLS is not supported yet"),
    fixed("client-key-file", Text, "", "TLS is not supported yet"),
    fixed("client-crl-file", Text, "", "TLS is not supported yet"),
    fixed("client-cert-allowed-hostname", List, "", "TLS is not supported yet"),
    fixed("trusted-ca-file", Text, "", "TLS is not supported yet"),
    fixed("auto-tls", Bool, "false", "TLS is not supported yet"),
    fixed("peer-cert-file", Text, "", "TLS is not supported yet"),
    fixed("peer-key-file", Text, "", "TLS is not supported yet"),
    fixed("peer-client-cert-auth", Bool, "false", "TLS is not supported yet"),
    fixed("peer-client-cert-file", Text, "", "TLS is not supported yet"),
    fixed("peer-client-key-file", Text, "", "TLS is not supported yet"),
    fixed("peer-trusted-ca-file", Text, "", "TLS is not supported yet"),
    fixed("peer-cert-allowed-cn", List, "", "TLS is not supported yet"),
    fixed("peer-cert-allowed-hostname", List, "", "TLS is not supported yet"),
    fixed("peer-auto-tls", Bool, "false", "TLS is not supported yet"),
    fixed("peer-crl-file", Text, "", "TLS is not supported yet"),
    fixed("peer-skip-client-san-verification", Bool, "false", "TLS is not supported yet"),
    fixed("experimental-peer-skip-client-san-verification", Bool, "false", "TLS is not supported yet"),
    // Not supported yet: discovery.
    fixed("discovery", Text, "", "discovery is not supported; name the members with --initial-cluster"),
    fixed("discovery-token", Text, "", "discovery is not supported; name the members with --initial-cluster"),
    fixed("discovery-endpoints", List, "", "discovery is not supported; name the members with --initial-cluster"),
    fixed("discovery-cert", Text, "", "discovery is not supported; name the members with --initial-cluster"),
    fixed("discovery-key", Text, "", "discovery is not supported; name the members with --initial-cluster"),
    fixed("discovery-cacert", Text, "", "discovery is not supported; name the members with --initial-cluster"),
    fixed("discovery-user", Text, "", "discovery is not supported; name the members with --initial-cluster"),
    fixed("discovery-password", Text, "", "discovery is not supported; name the members with --initial-cluster"),
    fixed("discovery-proxy", Text, "", "discovery is not supported; name the members with --initial-cluster"),
    fixed("discovery-srv", Text, "", "discovery is not supported; name the members with --initial-cluster"),
    fixed("discovery-srv-name", Text, "", "discovery is not supported; name the members with --initial-cluster"),
    // Not supported yet: the rest.
    fixed("config-file", Text, "", "a configuration file is not supported yet; use flags or ETCD_* variables"),
    fixed("quota-backend-bytes", Int, "0", "a quota for the store is not supported yet; the disk is the limit"),
    fixed("max-txn-ops", Uint, "128", "the limit of operations in a transaction cannot be changed yet"),
    fixed("max-concurrent-streams", Uint, "4294967295", "streams of a connection cannot be limited yet"),
    fixed("grpc-keepalive-min-time", Duration, "5s", "keep-alive of client connections cannot be tuned yet"),
    fixed("grpc-keepalive-interval", Duration, "2h0m0s", "keep-alive of client connections cannot be tuned yet"),
    fixed("grpc-keepalive-timeout", Duration, "20s", "keep-alive of client connections cannot be tuned yet"),
    fixed("listen-client-http-urls", List, "", "HTTP and gRPC share --listen-client-urls"),
    fixed("listen-metrics-urls", List, "", "/metrics and /health are served on --listen-client-urls"),
    fixed("metrics", Text, "basic", "only etcd's basic set of metrics is exported"),
    fixed("socket-reuse-port", Bool, "false", "two processes never share a port here"),
    no_effect("socket-reuse-address", Bool, "false", "always set, so that a restarted server gets its port back at once"),
    fixed("cors", List, "*", "cross-origin requests are not restricted yet"),
    fixed("host-whitelist", List, "*", "host names of HTTP requests are not restricted yet"),
    fixed("auth-token", Text, "simple", "authentication is not supported yet"),
    fixed("auto-compaction-retention", Text, "0", "automatic compaction is not supported yet; compact from a client"),
    no_effect("auto-compaction-mode", Text, "periodic", "only read together with --auto-compaction-retention, which is refused"),
    fixed("feature-gates", List, "", "no feature gate of etcd exists here"),
    fixed("corrupt-check-time", Duration, "0s", "members do not compare their stores periodically yet"),
    fixed("experimental-corrupt-check-time", Duration, "0s", "members do not compare their stores periodically yet"),
    fixed("experimental-initial-corrupt-check", Bool, "false", "members do not compare their stores at start yet"),
    fixed("experimental-compact-hash-check-enabled", Bool, "false", "members do not compare their stores after compaction yet"),
    fixed("experimental-enable-lease-checkpoint", Bool, "false", "lease checkpoints are not supported; a new leader starts every lease at its full TTL"),
    fixed("experimental-enable-lease-checkpoint-persist", Bool, "false", "lease checkpoints are not supported; a new leader starts every lease at its full TTL"),
    fixed("memory-mlock", Bool, "false", "memory is not locked"),
    fixed("experimental-memory-mlock", Bool, "false", "memory is not locked"),
    fixed("enable-pprof", Bool, "false", "there is no profiler in the server"),
    fixed("enable-log-rotation", Bool, "false", "log files are not rotated; let the service manager do it"),
    fixed("enable-distributed-tracing", Bool, "false", "distributed tracing is not supported"),
    fixed("experimental-enable-distributed-tracing", Bool, "false", "distributed tracing is not supported"),
    // Flags that etcd 3.6 itself still takes and ignores.
    no_effect("cluster-active-size", Ignored, "", "a flag of old etcd versions"),
    no_effect("cluster-remove-delay", Ignored, "", "a flag of old etcd versions"),
    no_effect("cluster-sync-interval", Ignored, "", "a flag of old etcd versions"),
    no_effect("config", Ignored, "", "a flag of old etcd versions"),
    no_effect("force", Ignored, "", "a flag of old etcd versions"),
    no_effect("max-result-buffer", Ignored, "", "a flag of old etcd versions"),
    no_effect("max-retry-attempts", Ignored, "", "a flag of old etcd versions"),
    no_effect("peer-heartbeat-interval", Ignored, "", "a flag of old etcd versions"),
    no_effect("peer-election-timeout", Ignored, "", "a flag of old etcd versions"),
    no_effect("retry-interval", Ignored, "", "a flag of old etcd versions"),
    no_effect("snapshot", Ignored, "", "a flag of old etcd versions"),
    no_effect("v", Ignored, "", "a flag of old etcd versions"),
    no_effect("vv", Ignored, "", "a flag of old etcd versions"),
    // Ours alone.
    acts("election-priority", Text, "normal", "low, normal or high: how gladly this member leads. Leadership moves to a member with the highest priority that has caught up; it never decides a vote."),
    acts("lease-reads", Bool, "false", "Serve linearizable reads without asking a majority, on the strength of the members' clocks. The same on all members, with the same election timeout. Sound only while the rates of their clocks differ by less than an eighth: a deposed leader with a slower clock may answer stale reads."),
    acts("exit-with-parent", Bool, "false", "End (as on SIGTERM) when standard input is closed: for programs that start servers."),
];
