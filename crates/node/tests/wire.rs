//! The bytes on the wire: every message survives, garbage is refused without panic, payloads are shared and not copied.

use bytes::Bytes;
use proptest::collection::{btree_map, btree_set, vec};
use proptest::prelude::*;
use quorate_base::{Index, LogId, NodeId, Term};
use quorate_node::event::Reason;
use quorate_node::handshake::{HELLO_LEN, Hello};
use quorate_node::wire::{decode, encode};
use quorate_node::{DecodeError, PeerMessage, RequestId, SnapshotOutcome, entry, stored};
use quorate_raft::{Body, Config, Message, Promote, SnapMeta};

fn term() -> impl Strategy<Value = Term> {
    any::<u64>().prop_map(Term)
}

fn index() -> impl Strategy<Value = Index> {
    any::<u64>().prop_map(Index)
}

fn log_id() -> impl Strategy<Value = LogId> {
    any::<(u64, u64)>().prop_map(|(term, index)| LogId::new(term, index))
}

fn payload() -> impl Strategy<Value = Bytes> {
    vec(any::<u8>(), 0..100).prop_map(Bytes::from)
}

fn request() -> impl Strategy<Value = RequestId> {
    any::<(u64, u64, u64)>().prop_map(|(node, boot, seq)| RequestId { node, boot, seq })
}

fn config() -> impl Strategy<Value = Config> {
    let ids = || btree_set(any::<u64>().prop_map(NodeId), 0..5);
    let promote = prop_oneof![Just(Promote::Never), Just(Promote::WhenCaughtUp)];
    let learners = btree_map(any::<u64>().prop_map(NodeId), promote, 0..3);
    (ids(), ids(), learners).prop_map(|(voters, outgoing, learners)| Config {
        voters,
        outgoing,
        learners,
    })
}

fn body() -> impl Strategy<Value = Body> {
    prop_oneof![
        (term(), log_id()).prop_map(|(next, last)| Body::PreVote { next, last }),
        (term(), any::<bool>()).prop_map(|(next, granted)| Body::PreVoteResponse { next, granted }),
        (log_id(), any::<bool>()).prop_map(|(last, transfer)| Body::Vote { last, transfer }),
        any::<bool>().prop_map(|granted| Body::VoteResponse { granted }),
        index().prop_map(|upto| Body::Appended { upto }),
        (index(), log_id()).prop_map(|(prev, hint)| Body::Conflict { prev, hint }),
        (index(), any::<u64>()).prop_map(|(commit, round)| Body::Heartbeat { commit, round }),
        (any::<u64>(), index(), index()).prop_map(|(round, verified, matched)| Body::HeartbeatResponse {
            round,
            verified,
            matched
        }),
        index().prop_map(|index| Body::Commit { index }),
        log_id().prop_map(|last| Body::InstallSnapshot { last }),
        Just(Body::TimeoutNow),
        any::<u64>().prop_map(|id| Body::ReadIndex { id }),
        (any::<u64>(), index()).prop_map(|(id, index)| Body::ReadIndexResponse { id, index }),
        Just(Body::NewerTerm),
    ]
}

fn reason() -> impl Strategy<Value = Reason> {
    use Reason::*;
    prop::sample::select(vec![
        NoLeader,
        LeaderChanged,
        LinkDown,
        Timeout,
        Busy,
        TooLarge,
        Stopping,
    ])
}

fn message() -> impl Strategy<Value = PeerMessage> {
    use SnapshotOutcome::*;
    let outcome = prop::sample::select(vec![More, Done, Refused, Checking]);
    prop_oneof![
        (term(), body()).prop_map(|(term, body)| PeerMessage::Raft(Message { term, body })),
        (term(), log_id(), vec(payload(), 0..8), index()).prop_map(|(term, prev, entries, commit)| {
            PeerMessage::Append {
                term,
                prev,
                entries,
                commit,
            }
        }),
        (term(), request(), payload()).prop_map(|(term, request, command)| PeerMessage::Forward {
            term,
            request,
            command
        }),
        (request(), reason()).prop_map(|(request, why)| PeerMessage::Refuse { request, why }),
        (request(), log_id()).prop_map(|(request, at)| PeerMessage::Accept { request, at }),
        (any::<u64>(), term(), log_id(), config()).prop_map(|(stream, term, last, config)| {
            let meta = SnapMeta { last, config };
            PeerMessage::SnapshotBegin { stream, term, meta }
        }),
        (any::<(u64, u64, u32, bool)>(), term(), payload()).prop_map(
            |((stream, offset, crc, done), term, bytes)| {
                PeerMessage::SnapshotChunk {
                    stream,
                    term,
                    offset,
                    bytes,
                    crc,
                    done,
                }
            }
        ),
        (any::<(u64, u64)>(), outcome).prop_map(|((stream, len), outcome)| PeerMessage::SnapshotAck {
            stream,
            len,
            outcome
        }),
    ]
}

fn bytes_of(message: &PeerMessage) -> Bytes {
    let frame = encode(message);
    let all: Vec<u8> = frame
        .head
        .iter()
        .chain(frame.parts.iter().flatten())
        .copied()
        .collect();
    assert_eq!(all.len(), frame.len());
    all.into()
}

proptest! {
    #[test]
    fn every_message_survives(message in message()) {
        prop_assert_eq!(decode(bytes_of(&message)), Ok(message));
    }

    #[test]
    fn a_cut_message_is_refused_or_a_shorter_payload(message in message(), cut in any::<prop::sample::Index>()) {
        let bytes = bytes_of(&message);
        let result = decode(bytes.slice(..cut.index(bytes.len())));
        let open_ended = matches!(message, PeerMessage::Forward { .. } | PeerMessage::SnapshotChunk { .. });
        prop_assert!(result.is_err() || open_ended, "{:?}", result);
    }

    #[test]
    fn something_behind_a_message_is_refused_or_payload(message in message(), more in 1..20_usize) {
        let mut bytes = bytes_of(&message).to_vec();
        bytes.extend(std::iter::repeat_n(7, more));
        match message {
            PeerMessage::Forward { .. } | PeerMessage::SnapshotChunk { .. } => {}
            _ => prop_assert_eq!(decode(bytes.into()), Err(DecodeError::Trailing(more))),
        }
    }

    #[test]
    fn garbage_is_refused_without_panic(bytes in vec(any::<u8>(), 0..300), version in any::<bool>(), kind in 0..32_u8) {
        let mut bytes = bytes;
        if version && bytes.len() >= 2 {
            (bytes[0], bytes[1]) = (1, kind);
        }
        let bytes = Bytes::from(bytes);
        if let Ok(message) = decode(bytes.clone()) {
            // What garbage happens to mean survives like any other message.
            prop_assert_eq!(decode(bytes_of(&message)), Ok(message));
        }
        let _ = entry::Entry::decode(&bytes);
        let _ = entry::shape(&bytes);
        let _ = stored::decode_state(&bytes);
        let _ = stored::Mark::decode(Index(3), &bytes);
        let _ = Hello::decode(bytes.slice(..bytes.len().min(HELLO_LEN)));
    }

    #[test]
    fn every_entry_survives(at in log_id(), request in request(), command in payload(), config in config()) {
        for content in [entry::Content::Noop, entry::Content::Command { request, command }, entry::Content::Config(config)] {
            let entry = entry::Entry { at, content };
            prop_assert_eq!(entry::Entry::decode(&entry.encode()), Ok(entry));
        }
    }
}

#[test]
fn a_count_larger_than_the_message_allocates_nothing() {
    let prev = LogId::new(1, 1);
    let mut bytes = bytes_of(&PeerMessage::Append {
        term: Term(1),
        prev,
        entries: Vec::new(),
        commit: Index(1),
    })
    .to_vec();
    let at = bytes.len() - 4;
    bytes[at..].copy_from_slice(&u32::MAX.to_le_bytes());
    assert_eq!(decode(bytes.into()), Err(DecodeError::Short));
}

#[test]
fn another_version_is_named() {
    let mut bytes = bytes_of(&PeerMessage::Raft(Message {
        term: Term(1),
        body: Body::TimeoutNow,
    }))
    .to_vec();
    bytes[0] = 9;
    assert_eq!(decode(bytes.into()), Err(DecodeError::Version(9)));
}

#[test]
fn payloads_are_shared_both_ways() {
    let entry = Bytes::from(vec![1; 1000]);
    let prev = LogId::new(1, 1);
    let message = PeerMessage::Append {
        term: Term(1),
        prev,
        entries: vec![entry.clone()],
        commit: Index(1),
    };
    assert_eq!(encode(&message).parts[0].as_ptr(), entry.as_ptr());
    let bytes = bytes_of(&message);
    let Ok(PeerMessage::Append { entries, .. }) = decode(bytes.clone()) else {
        panic!("an Append was encoded")
    };
    assert_eq!(entries[0].as_ptr(), bytes[bytes.len() - 1000..].as_ptr());
}
