//! The bytes on the wire: every message survives, garbage is refused without panic, long payloads are shared and not copied.

use bytes::Bytes;
use proptest::collection::{btree_map, btree_set, vec};
use proptest::prelude::*;
use quorate_base::{Index, LogId, NodeId, Term};
use quorate_node::event::Reason;
use quorate_node::handshake::{ANSWER_HEAD, Answer, Hello, PROTOCOL};
use quorate_node::roster::Roster;
use quorate_node::wire::{decode, encode};
use quorate_node::{DecodeError, PeerMessage, RequestId, SnapshotOutcome, entry, stored};
use quorate_raft::{
    BadChange, Body, Change, ChangeEnd, ChangeRefused, Config, Message, Priority, Promote, SnapMeta,
};

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

fn id() -> impl Strategy<Value = NodeId> {
    any::<u64>().prop_map(NodeId)
}

fn promote() -> impl Strategy<Value = Promote> {
    prop_oneof![Just(Promote::Never), Just(Promote::WhenCaughtUp)]
}

fn about() -> impl Strategy<Value = Box<[u8]>> {
    vec(any::<u8>(), 0..20).prop_map(Into::into)
}

fn config() -> impl Strategy<Value = Config> {
    let ids = || btree_set(id(), 0..5);
    let learners = btree_map(id(), promote(), 0..3);
    let abouts = btree_map(id(), about(), 0..3);
    (ids(), ids(), learners, ids(), abouts, 0..4_u32).prop_map(
        |(voters, outgoing, learners, removed, about, level)| {
            // The first format knows no level, and reads as level 0 or 1 did.
            let level = if level > 1 || !(removed.is_empty() && about.is_empty()) {
                level
            } else {
                0
            };
            Config {
                voters,
                outgoing,
                learners,
                removed,
                about,
                level,
            }
        },
    )
}

fn changes() -> impl Strategy<Value = Vec<Change>> {
    let change = prop_oneof![
        (id(), promote(), about()).prop_map(|(id, promote, about)| Change::AddLearner { id, promote, about }),
        id().prop_map(Change::Promote),
        id().prop_map(Change::Remove),
        (id(), about()).prop_map(|(id, about)| Change::Describe { id, about }),
        any::<u32>().prop_map(Change::RaiseLevel),
    ];
    vec(change, 0..4)
}

fn end() -> impl Strategy<Value = ChangeEnd> {
    use BadChange::*;
    let bad = prop_oneof![
        id().prop_map(NotMember),
        id().prop_map(AlreadyMember),
        id().prop_map(WasRemoved),
        id().prop_map(NotLearner),
        prop::sample::select(vec![NoVoters, LowerLevel, Nothing]),
    ];
    let refused = prop_oneof![
        prop::option::of((1..u64::MAX).prop_map(NodeId)).prop_map(ChangeRefused::NotLeader),
        id().prop_map(ChangeRefused::NotCaughtUp),
        bad.prop_map(ChangeRefused::Bad),
        prop::sample::select(vec![
            ChangeRefused::Transferring,
            ChangeRefused::Pending,
            ChangeRefused::WouldLoseQuorum
        ]),
    ];
    prop_oneof![
        index().prop_map(ChangeEnd::Done),
        refused.prop_map(ChangeEnd::Refused),
        Just(ChangeEnd::Unknown)
    ]
}

fn priority() -> impl Strategy<Value = Priority> {
    prop::sample::select(vec![Priority::Low, Priority::Normal, Priority::High])
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
        (any::<u64>(), index(), index(), priority()).prop_map(|(round, verified, matched, priority)| {
            Body::HeartbeatResponse {
                round,
                verified,
                matched,
                priority,
            }
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
        (term(), request(), changes(), any::<bool>()).prop_map(|(term, request, changes, force)| {
            PeerMessage::Reconfigure {
                term,
                request,
                changes,
                force,
            }
        }),
        (request(), end()).prop_map(|(request, end)| PeerMessage::Reconfigured { request, end }),
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
    bytes_in(PROTOCOL, message).expect("the latest protocol knows every message")
}

fn bytes_in(protocol: u32, message: &PeerMessage) -> Option<Bytes> {
    let frame = encode(message, protocol)?;
    let all: Vec<u8> = frame
        .head
        .iter()
        .chain(frame.parts.iter().flatten())
        .copied()
        .collect();
    assert_eq!(all.len(), frame.len());
    Some(all.into())
}

proptest! {
    #[test]
    fn every_message_survives(message in message()) {
        prop_assert_eq!(decode(bytes_of(&message)), Ok(message));
    }

    #[test]
    fn protocol_1_says_all_but_what_it_does_not_know(message in message()) {
        use PeerMessage::*;
        match bytes_in(1, &message) {
            None => {
                let checking = SnapshotOutcome::Checking;
                let new = match message {
                    Reconfigure { .. } | Reconfigured { .. } => true,
                    SnapshotAck { outcome, .. } => outcome == checking,
                    _ => false,
                };
                prop_assert!(new, "{:?}", message);
            }
            Some(bytes) => {
                let mut expected = message;
                if let Raft(Message { body: Body::HeartbeatResponse { priority, .. }, .. }) = &mut expected {
                    *priority = Priority::Low;
                }
                prop_assert_eq!(bytes[0], 1);
                prop_assert_eq!(decode(bytes), Ok(expected));
            }
        }
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
    fn garbage_is_refused_without_panic(bytes in vec(any::<u8>(), 0..300), version in 0..4_u8, kind in 0..32_u8) {
        let mut bytes = bytes;
        if version > 0 && bytes.len() >= 2 {
            (bytes[0], bytes[1]) = (version, kind);
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
        let _ = Hello::decode(bytes.clone());
        let _ = Roster::decode(&bytes);
        if let Some((head, body)) = bytes.split_first_chunk::<ANSWER_HEAD>() {
            let _ = Answer::decode(head, Bytes::copy_from_slice(body));
        }
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
fn old_releases_hear_what_they_know_as_they_know_it() {
    let body = Body::HeartbeatResponse {
        round: 1,
        verified: Index(2),
        matched: Index(3),
        priority: Priority::High,
    };
    let message = PeerMessage::Raft(Message { term: Term(4), body });
    let numbers: Vec<u8> = [4_u64, 1, 2, 3].into_iter().flat_map(u64::to_le_bytes).collect();
    assert_eq!(bytes_in(1, &message).unwrap(), [&[1, 23][..], &numbers].concat());
    assert_eq!(bytes_of(&message), [&[2, 23][..], &numbers, &[2]].concat());
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
fn long_payloads_are_shared_both_ways_and_short_ones_keep_nothing_else() {
    let (long, short) = (Bytes::from(vec![1; 50_000]), Bytes::from(vec![2; 1_000]));
    let append = |entries| PeerMessage::Append {
        term: Term(1),
        prev: LogId::new(1, 1),
        entries,
        commit: Index(1),
    };
    let message = append(vec![long.clone(), short.clone(), short.clone()]);
    assert_eq!(
        encode(&message, PROTOCOL).unwrap().parts[0].as_ptr(),
        long.as_ptr()
    );
    let bytes = bytes_of(&message);
    let Ok(PeerMessage::Append { mut entries, .. }) = decode(bytes.clone()) else {
        panic!("an Append was encoded")
    };
    assert_eq!(entries, [long.clone(), short.clone(), short.clone()]);
    assert_eq!(entries[0].as_ptr(), bytes[bytes.len() - 52_000..].as_ptr());
    drop(entries.remove(0));
    assert!(bytes.is_unique(), "the short ones are elsewhere");
}
