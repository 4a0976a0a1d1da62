//! InstallSnapshot at the receiver (§5.3). The bytes travel and are staged beside the core; here is decided whether they
//! count. The log write that says "installed" is the one commit point; the state machine is swapped only after it.

use quorate_base::{Index, LogId, NodeId};
use quorate_marks::reached;

use crate::core::Core;
use crate::effects::SnapMeta;
use crate::message::Body;

/// Indexes from here on are taken for garbage: counting further would overflow.
const ABSURD_INDEX: Index = Index(u64::MAX / 2);

/// The leader begins to send a snapshot up to `last`. If this node has committed that much, it is not needed: the leader
/// learns from the acknowledgement where to go on.
pub(crate) fn on_offer(core: &mut Core, from: NodeId, last: LogId) {
    if last.index <= core.commit {
        reached!("raft.snapshot.not_needed");
        let upto = core.commit;
        core.send_after_log(from, Body::Appended { upto });
    }
}

/// A snapshot is complete in staging.
pub(crate) fn on_staged(core: &mut Core, from: NodeId, meta: Box<SnapMeta>) {
    let last = meta.last;
    if last.index > core.commit {
        if core.log.contains(last) {
            // All that it covers is in the log already: it only proves that it is committed (§5.3).
            reached!("raft.snapshot.in_log_already");
            core.commit_to(last.index);
        } else if last.term <= core.term && last.index < ABSURD_INDEX {
            // The log is shorter, or an uncommitted tail of it conflicts; a configuration in that tail goes with it.
            reached!("raft.snapshot.installs");
            core.log.install((*meta).clone());
            core.durability.installed(meta, core.commit);
            core.commit = last.index;
        } else {
            reached!("raft.snapshot.impossible");
            return; // No correct leader of this term can have sent it.
        }
    }
    reached!("raft.snapshot.overtaken", last.index < core.commit);
    let upto = core.commit;
    core.send_after_log(from, Body::Appended { upto });
}

/// The install is durable, so the state machine may be swapped; unless a newer install has overtaken this one.
pub(crate) fn on_installed(core: &mut Core, meta: Box<SnapMeta>) {
    reached!("raft.install.overtaken", meta.last != core.log.base().last);
    if meta.last == core.log.base().last {
        core.applying = meta.last.index;
        core.out.restore = Some(meta);
    }
}
