//! Why two nodes do not talk, in words that say what to do about it, and the rules that need no memory of the peer.

use std::collections::BTreeSet;

use quorate_base::{Index, NodeId, Term};
use quorate_marks::reached;
use thiserror::Error;

use super::{Hello, MIN_PROTOCOL, Verdict, protocol_of};

/// Why two nodes do not talk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Refusal {
    /// Not a member of anything.
    #[error("the other side does not speak Quorate's peer protocol")]
    NotAPeer,
    /// Incompatible programs.
    #[error(
        "the peer speaks protocol version {theirs}, this node speaks {MIN_PROTOCOL} to {ours}: bring both to compatible releases"
    )]
    Protocol {
        /// The dialler's version.
        theirs: u32,
        /// The listener's latest.
        ours: u32,
    },
    /// Different clusters.
    #[error(
        "the peer belongs to cluster {theirs:016x}, this node to {ours:016x}: check both sides' initial cluster and token"
    )]
    WrongCluster {
        /// The listener's.
        ours: u64,
        /// The dialler's.
        theirs: u64,
    },
    /// Someone else was meant.
    #[error("the peer means to reach member {:016x}, but this is {:016x}: check the peer URLs", .meant.0, .ours.0)]
    WrongMember {
        /// The listener.
        ours: NodeId,
        /// Whom the dialler meant.
        meant: NodeId,
    },
    /// The dialler claims to be the listener, or nobody.
    #[error("the peer calls itself {:016x}, which it cannot be", .named.0)]
    Impostor {
        /// The name it gives.
        named: NodeId,
    },
    /// This kind of connection is not known.
    #[error("this kind of connection is not known here")]
    Lane,
    /// The dialler knows less than the cluster has begun to use.
    #[error(
        "the cluster uses features of level {level}, the peer knows {theirs}: start it with the release that the others run"
    )]
    Features {
        /// The dialler's.
        theirs: u32,
        /// The cluster's.
        level: u32,
    },
    /// The dialler could show papers and does not.
    #[error("the peer knows protocol version 2 and must speak it, since only there it shows its identity")]
    NoPapers,
    /// Lease reads would not be safe between the two.
    #[error(
        "lease reads must be on with the same election timeout on all members, or off on all (the peer: {}, this node: {})",
        leases(.theirs), leases(.ours)
    )]
    Leases {
        /// The listener's.
        ours: Option<u32>,
        /// The dialler's.
        theirs: Option<u32>,
    },
    /// More peers are remembered than any cluster has.
    #[error("too many different members have shown up here")]
    Crowded,
    /// The listener does not know the membership itself yet.
    #[error("this node has not joined the cluster itself yet: ask another member")]
    NotJoined,
    /// What it shows could not be recorded.
    #[error("what the peer shows cannot be recorded here at the moment")]
    NotRecorded,
    /// The dialler was removed from the cluster.
    #[error(
        "member {:016x} was removed from this cluster and cannot come back under this id: to let this machine join again, empty its data \
         directory and add it as a new member", .id.0
    )]
    Removed {
        /// The dialler.
        id: NodeId,
    },
    /// Another data directory than the one known under this id.
    #[error(
        "member {:016x} is known here with another data directory (incarnation {known:016x}, now {shown:016x}): its data was lost, or \
         two machines have one id. With what it has forgotten it could vote twice and lose committed entries, so it is not let in: \
         {REMEDY}", .id.0
    )]
    Wiped {
        /// The dialler.
        id: NodeId,
        /// The incarnation recorded.
        known: u64,
        /// The incarnation shown.
        shown: u64,
    },
    /// An older state of the data directory.
    #[error(
        "the data of member {:016x} is older than what was seen of it: {older}. It was put back from an old copy. With what it has \
         forgotten it could vote twice and lose committed entries, so it is not let in: {REMEDY}", .id.0
    )]
    OlderData {
        /// The dialler.
        id: NodeId,
        /// In which respect.
        older: Older,
    },
    /// Another history than the one known: of a copy.
    #[error(
        "the data of member {:016x} is not what was last seen of it, since its start {boot} was another one. Either it was put back from an \
         older copy, or another process runs from a copy of it. With what it has forgotten it could vote twice and lose committed entries, \
         so it is not let in. If another process runs as this member, stop this one for good. Otherwise: {REMEDY}", .id.0
    )]
    Duplicate {
        /// The dialler.
        id: NodeId,
        /// The start that is recorded otherwise.
        boot: u64,
    },
}

/// How to bring back a machine whose identity is spent.
const REMEDY: &str = "to bring this machine back, remove the member from the cluster, empty its data directory, and add it as a new member, \
                      which gets a new id";

/// In which respect a data directory is older than it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Older {
    /// Fewer starts.
    #[error("this is its start {shown}, and its start {seen} has been seen")]
    Boot {
        /// Now.
        shown: u64,
        /// Before.
        seen: u64,
    },
    /// A lower term.
    #[error("it starts in term {shown}, and has been seen in term {seen}")]
    Term {
        /// Now.
        shown: Term,
        /// Before.
        seen: Term,
    },
    /// A shorter log.
    #[error("its log ends at {shown}, and it had acknowledged {seen}")]
    Log {
        /// Now.
        shown: Index,
        /// Before.
        seen: Index,
    },
}

fn leases(timeout: &Option<u32>) -> String {
    timeout.map_or("off".to_owned(), |millis| format!("{millis} ms"))
}

impl Refusal {
    /// What the dialler should make of it.
    pub fn verdict(&self) -> Verdict {
        use Refusal::*;
        match self {
            NotAPeer | Protocol { .. } => Verdict::Protocol,
            Removed { .. } => Verdict::Removed,
            Wiped { .. } | OlderData { .. } | Duplicate { .. } => Verdict::Final,
            WrongCluster { .. }
            | WrongMember { .. }
            | Impostor { .. }
            | Lane
            | Features { .. }
            | NoPapers
            | Leases { .. }
            | Crowded
            | NotJoined
            | NotRecorded => Verdict::Retry,
        }
    }
}

/// What a listener holds a greeting against.
#[derive(Clone, Copy, Debug)]
pub struct Local<'a> {
    /// The cluster.
    pub cluster: u64,
    /// The listener.
    pub me: NodeId,
    /// The features that it knows. With 1 it speaks protocol 1 only.
    pub features: u32,
    /// The features that the cluster uses, see `Config::level`.
    pub level: u32,
    /// With lease reads on, the election timeout in milliseconds.
    pub leases: Option<u32>,
    /// Members that were removed for good. A removal that is not committed may be undone, so it must not stand here yet.
    pub removed: &'a BTreeSet<NodeId>,
}

impl Hello {
    /// Whether a listener talks to whoever says this, as far as it can tell without remembering the dialler
    /// ([`Roster::admit`](crate::roster::Roster::admit)). Whether the dialler is a member does not matter: the listener's log may lag behind.
    pub fn check(&self, local: &Local<'_>) -> Result<(), Refusal> {
        let ours = protocol_of(local.features);
        if !(MIN_PROTOCOL..=ours).contains(&self.protocol) {
            reached!("node.handshake.protocol");
            let theirs = self.protocol;
            return Err(Refusal::Protocol { theirs, ours });
        }
        if self.cluster != local.cluster {
            reached!("node.handshake.wrong_cluster");
            return Err(Refusal::WrongCluster {
                ours: local.cluster,
                theirs: self.cluster,
            });
        }
        if self.to != local.me {
            reached!("node.handshake.wrong_member");
            return Err(Refusal::WrongMember {
                ours: local.me,
                meant: self.to,
            });
        }
        if self.from == local.me || self.from == NodeId::ZERO {
            reached!("node.handshake.impostor");
            return Err(Refusal::Impostor { named: self.from });
        }
        if local.removed.contains(&self.from) {
            reached!("node.handshake.removed");
            return Err(Refusal::Removed { id: self.from });
        }
        if self.features < local.level {
            reached!("node.handshake.features");
            return Err(Refusal::Features {
                theirs: self.features,
                level: local.level,
            });
        }
        // Whoever has papers must show them to those who can read them, or a lost disk could hide behind the old protocol.
        if self.papers.is_none() && self.features > 1 && local.features > 1 {
            reached!("node.handshake.no_papers");
            return Err(Refusal::NoPapers);
        }
        let theirs = self.papers.as_ref().and_then(|papers| papers.leases);
        if theirs != local.leases {
            reached!("node.handshake.leases");
            return Err(Refusal::Leases {
                ours: local.leases,
                theirs,
            });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::Papers;
    use super::*;

    const NOBODY: &BTreeSet<NodeId> = &BTreeSet::new();

    const LOCAL: Local<'_> = Local {
        cluster: 9,
        me: NodeId(2),
        features: 2,
        level: 1,
        leases: None,
        removed: NOBODY,
    };

    fn hello() -> Hello {
        Hello {
            protocol: 2,
            features: 2,
            cluster: 9,
            from: NodeId(1),
            to: NodeId(2),
            boot: 5,
            lane: 0,
            papers: Some(Papers::default()),
        }
    }

    #[test]
    fn each_mismatch_has_its_own_refusal() {
        assert_eq!(hello().check(&LOCAL), Ok(()));
        let removed = BTreeSet::from([NodeId(1)]);
        let refused = |hello: Hello, local: Local<'_>| hello.check(&local).unwrap_err();
        let (ours, theirs) = (8, 9);
        let other = Local { cluster: 8, ..LOCAL };
        assert_eq!(refused(hello(), other), Refusal::WrongCluster { ours, theirs });
        let other = Local {
            me: NodeId(3),
            ..LOCAL
        };
        let (ours, meant) = (NodeId(3), NodeId(2));
        assert_eq!(refused(hello(), other), Refusal::WrongMember { ours, meant });
        for id in [NodeId(2), NodeId::ZERO] {
            let impostor = Hello { from: id, ..hello() };
            assert_eq!(refused(impostor, LOCAL), Refusal::Impostor { named: id });
        }
        let local = Local {
            removed: &removed,
            ..LOCAL
        };
        assert_eq!(refused(hello(), local), Refusal::Removed { id: NodeId(1) });
        let (theirs, level) = (2, 3);
        assert_eq!(
            refused(hello(), Local { level: 3, ..LOCAL }),
            Refusal::Features { theirs, level }
        );
    }

    #[test]
    fn protocols_are_spoken_as_far_as_both_know_them() {
        let old = Hello {
            features: 1,
            ..hello().without_papers()
        };
        assert_eq!(old.check(&LOCAL), Ok(()), "an old release in a new one's cluster");
        let held_back = Local { features: 1, ..LOCAL };
        assert_eq!(old.check(&held_back), Ok(()));
        let (theirs, ours) = (2, 1);
        assert_eq!(hello().check(&held_back), Err(Refusal::Protocol { theirs, ours }));
        assert_eq!(hello().without_papers().check(&held_back), Ok(()));
        assert_eq!(hello().without_papers().check(&LOCAL), Err(Refusal::NoPapers));
        let raised = Local { level: 2, ..LOCAL };
        let (theirs, level) = (1, 2);
        assert_eq!(old.check(&raised), Err(Refusal::Features { theirs, level }));
        for protocol in [0, 3] {
            let other = Hello {
                protocol,
                ..hello().without_papers()
            };
            let (theirs, ours) = (protocol, 2);
            assert_eq!(other.check(&LOCAL), Err(Refusal::Protocol { theirs, ours }));
        }
    }

    #[test]
    fn leases_are_on_with_equal_timeouts_or_off() {
        let with = |theirs: Option<u32>, ours: Option<u32>| {
            let papers = Some(Papers {
                leases: theirs,
                ..Papers::default()
            });
            Hello { papers, ..hello() }.check(&Local {
                leases: ours,
                ..LOCAL
            })
        };
        assert_eq!(with(Some(1000), Some(1000)), Ok(()));
        assert_eq!(with(None, None), Ok(()));
        for (theirs, ours) in [(Some(1000), None), (None, Some(1000)), (Some(999), Some(1000))] {
            assert_eq!(with(theirs, ours), Err(Refusal::Leases { ours, theirs }));
        }
    }
}
