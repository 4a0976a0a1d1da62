//! `/metrics` in Prometheus' text form: etcd's main series under etcd's names, so that existing dashboards and alerts work, and our
//! own under `quorate_`.

use std::fmt::Write as _;
use std::sync::atomic::Ordering::Relaxed;

use quorate::{Histogram, Metrics, Role, Status};
use quorate_base::NodeId;

use crate::config::API_VERSION;
use crate::context::Context;

/// All series at this moment.
pub(super) async fn render(ctx: &Context) -> String {
    let status = ctx.handle.status();
    let store = ctx.handle.local(|machine| {
        let kv = machine.kv();
        (
            kv.size(),
            kv.revision(),
            kv.compacted_revision(),
            kv.alarms().len(),
        )
    });
    let store = store.await;
    let mut page = Page::default();
    etcd_server(&mut page, ctx, &status);
    disk_and_network(&mut page, ctx.handle.metrics());
    if let Ok((size, revision, compacted, alarms)) = store {
        page.gauge(
            "etcd_mvcc_db_total_size_in_bytes",
            "Bytes the store takes on disk.",
            size.total,
        );
        page.gauge(
            "etcd_mvcc_db_total_size_in_use_in_bytes",
            "Bytes of the store that hold data.",
            size.in_use,
        );
        page.gauge(
            "etcd_debugging_mvcc_current_revision",
            "The store's revision.",
            revision,
        );
        page.gauge(
            "etcd_debugging_mvcc_compact_revision",
            "The compacted revision.",
            compacted,
        );
        page.gauge("quorate_alarms", "Alarms that are on.", alarms);
    }
    page.gauge(
        "etcd_debugging_mvcc_watch_stream_total",
        "Open watch streams.",
        ctx.hub.streams(),
    );
    quorate(&mut page, ctx.handle.metrics(), &status);
    page.gauge(
        "quorate_client_connections",
        "Open client connections.",
        ctx.connections.load(Relaxed),
    );
    page.0
}

fn etcd_server(page: &mut Page, ctx: &Context, status: &Status) {
    let metrics = ctx.handle.metrics();
    let has_leader = u8::from(status.leader.is_some());
    page.gauge(
        "etcd_server_has_leader",
        "Whether a leader is known: 1 or 0.",
        has_leader,
    );
    page.gauge(
        "etcd_server_is_leader",
        "Whether this member leads: 1 or 0.",
        u8::from(status.is_leader()),
    );
    page.gauge(
        "etcd_server_is_learner",
        "Whether this member is a learner: 1 or 0.",
        u8::from(ctx.is_learner()),
    );
    page.counter(
        "etcd_server_leader_changes_seen_total",
        "Changes of the leader seen by this member.",
        metrics.leader_changes.get(),
    );
    page.gauge(
        "etcd_server_proposals_committed_total",
        "The last committed entry.",
        status.commit.0,
    );
    page.gauge(
        "etcd_server_proposals_applied_total",
        "The last applied entry.",
        status.applied.0,
    );
    page.gauge(
        "etcd_server_proposals_pending",
        "Proposals made here that wait for their answer.",
        metrics.proposals_pending.get(),
    );
    page.counter(
        "etcd_server_proposals_failed_total",
        "Proposals made here that were answered with an error.",
        metrics.proposals_failed.get(),
    );
    page.counter(
        "etcd_server_read_indexes_failed_total",
        "Linearizable reads asked for here that failed.",
        metrics.reads_failed.get(),
    );
    page.family("etcd_server_id", "gauge", "1 under this member's id.");
    page.sample(
        "etcd_server_id",
        &format!("server_id=\"{:x}\"", ctx.config.id.0),
        1,
    );
    page.family("etcd_server_version", "gauge", "1 under the version of the API.");
    page.sample(
        "etcd_server_version",
        &format!("server_version=\"{API_VERSION}\""),
        1,
    );
    page.gauge(
        "etcd_network_known_peers",
        "Other members of the cluster.",
        status.peers.len(),
    );
}

fn disk_and_network(page: &mut Page, metrics: &Metrics) {
    page.histogram(
        "etcd_disk_wal_fsync_duration_seconds",
        "How long one write of the log took, its sync included.",
        &metrics.fsync_duration,
    );
    page.histogram(
        "etcd_disk_backend_commit_duration_seconds",
        "How long one flush of the store took.",
        &metrics.flush_duration,
    );
    for (name, help, of) in [
        (
            "etcd_network_peer_sent_bytes_total",
            "Bytes sent to a peer.",
            (|peer| peer.sent_bytes.get()) as fn(&quorate::PeerMetrics) -> u64,
        ),
        (
            "etcd_network_peer_received_bytes_total",
            "Bytes received from a peer.",
            |peer| peer.received_bytes.get(),
        ),
        (
            "etcd_network_peer_sent_failures_total",
            "Messages to a peer that were dropped.",
            |peer| peer.dropped.get(),
        ),
    ] {
        page.family(name, "counter", help);
        let label = if name.contains("received") { "From" } else { "To" };
        for (id, peer) in metrics.peers() {
            page.sample(name, &format!("{label}=\"{:x}\"", id.0), of(&peer));
        }
    }
}

fn quorate(page: &mut Page, metrics: &Metrics, status: &Status) {
    page.gauge("quorate_term", "The current term.", status.term.0);
    page.gauge(
        "quorate_commit_index",
        "The last committed entry known here.",
        status.commit.0,
    );
    page.gauge(
        "quorate_applied_index",
        "The last entry applied here.",
        status.applied.0,
    );
    page.gauge(
        "quorate_durable_index",
        "The last entry durable in the store.",
        status.durable.0,
    );
    page.gauge(
        "quorate_last_log_index",
        "The last entry of the log.",
        status.last_log.index.0,
    );
    page.gauge(
        "quorate_last_log_term",
        "The term of the log's last entry.",
        status.last_log.term.0,
    );
    page.family("quorate_leader", "gauge", "1 under the known leader's id.");
    if let Some(leader) = status.leader {
        page.sample("quorate_leader", &member(leader), 1);
    }
    page.family(
        "quorate_role",
        "gauge",
        "1 under this member's role, 0 under the others.",
    );
    for role in [Role::Follower, Role::PreCandidate, Role::Candidate, Role::Leader] {
        let is_it = u8::from(status.role == role);
        page.sample("quorate_role", &format!("role=\"{}\"", role.as_str()), is_it);
    }
    page.counter(
        "quorate_proposals_total",
        "Proposals made here.",
        metrics.proposals.get(),
    );
    page.counter(
        "quorate_reads_total",
        "Linearizable reads asked for here.",
        metrics.reads.get(),
    );
    page.counter(
        "quorate_log_writes_total",
        "Writes of the log, one sync each.",
        metrics.log_writes.get(),
    );
    page.counter(
        "quorate_log_batches_total",
        "Batches in these writes.",
        metrics.log_batches.get(),
    );
    page.counter(
        "quorate_peer_refused_total",
        "Connections on the peer port refused or closed because of what they sent.",
        metrics.peer_refused.get(),
    );
    page.counter(
        "quorate_impostors_refused_total",
        "Members refused because they came with other or older data than they had.",
        metrics.impostors_refused.get(),
    );
    page.histogram(
        "quorate_commit_latency_seconds",
        "From the arrival of a proposal here to its being applied here.",
        &metrics.commit_latency,
    );
    page.family(
        "quorate_peer_connected",
        "gauge",
        "Whether the connection to a peer is up: 1 or 0.",
    );
    for (id, peer) in &status.peers {
        page.sample("quorate_peer_connected", &member(*id), u8::from(peer.connected));
    }
    page.family(
        "quorate_peer_match_index",
        "gauge",
        "The last entry known to be in a peer's log. Only on the leader.",
    );
    for (id, peer) in &status.peers {
        if let Some(matched) = peer.matched {
            page.sample("quorate_peer_match_index", &member(*id), matched.0);
        }
    }
}

fn member(id: NodeId) -> String {
    format!("member=\"{:x}\"", id.0)
}

/// A page of series being written. Writing to a string cannot fail.
#[derive(Default)]
struct Page(String);

impl Page {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        let _ = write!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
    }

    fn sample(&mut self, name: &str, labels: &str, value: impl std::fmt::Display) {
        let _ = writeln!(self.0, "{name}{{{labels}}} {value}");
    }

    fn gauge(&mut self, name: &str, help: &str, value: impl std::fmt::Display) {
        self.family(name, "gauge", help);
        let _ = writeln!(self.0, "{name} {value}");
    }

    fn counter(&mut self, name: &str, help: &str, value: u64) {
        self.family(name, "counter", help);
        let _ = writeln!(self.0, "{name} {value}");
    }

    fn histogram(&mut self, name: &str, help: &str, histogram: &Histogram) {
        self.family(name, "histogram", help);
        let reading = histogram.read();
        let bucket = format!("{name}_bucket");
        for (bound, count) in &reading.buckets {
            self.sample(&bucket, &format!("le=\"{bound}\""), count);
        }
        self.sample(&bucket, "le=\"+Inf\"", reading.count);
        let _ = write!(
            self.0,
            "{name}_sum {}\n{name}_count {}\n",
            reading.sum, reading.count
        );
    }
}
