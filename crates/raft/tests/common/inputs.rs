//! What could come to a node at some moment of a cluster's life, for tests that compare what two cores make of it.

use quorate_base::{Index, NodeId};
use quorate_raft::Input;

use super::{Cluster, What, n};

/// Everything that may come to a node now; `write` is the last write that it has handed out.
pub fn inputs(cluster: &Cluster, id: NodeId, write: u64) -> Vec<Input> {
    let raft = cluster.raft(id);
    let mut inputs = vec![
        Input::Propose { token: 1, size: 10 },
        Input::Read {
            token: u64::MAX,
            forward: true,
        },
        Input::DiskStalled,
        Input::Transfer(None),
        Input::Reachable(n(1)),
        Input::LeaderDead {
            leader: n(1),
            term: raft.term(),
        },
        Input::NotSent {
            to: n(2),
            first: Index(1),
        },
    ];
    inputs.extend(cluster.nodes[&id].timers.iter().copied().map(Input::Fired));
    let pending = cluster.nodes[&id].writes.iter().map(|filled| filled.write.id);
    inputs.extend(pending.filter(|id| *id <= write).map(Input::Persisted));
    let parcels = cluster.network.iter().filter(|parcel| parcel.to == id);
    inputs.extend(parcels.filter_map(|parcel| match &parcel.what {
        What::Message(message, _) => Some(Input::Message {
            from: parcel.from,
            message: message.clone(),
        }),
        _ => None,
    }));
    inputs
}
