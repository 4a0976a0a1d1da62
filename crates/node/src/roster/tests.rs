//! Every rule of the roster, and that it never lets anybody go backwards.

use proptest::prelude::*;

use super::*;

const PEER: NodeId = NodeId(1);

/// Greets as a data directory in this state.
fn greeting(incarnation: u64, nonces: &[u64], boot: u64, term: u64, last: u64) -> Hello {
    Hello {
        protocol: 2,
        features: 2,
        cluster: 9,
        from: PEER,
        to: NodeId(2),
        boot,
        lane: 0,
        papers: Some(Papers {
            incarnation,
            nonces: nonces.to_vec(),
            term: Term(term),
            last: Index(last),
            ..Papers::default()
        }),
    }
}

/// Has met start 3 (nonce 33) of incarnation 7, in term 5, and later an acknowledgement up to 40 in term 6.
fn roster() -> Roster {
    let mut roster = Roster::new(9, NodeId(2));
    let first = greeting(7, &[11, 22, 33], 3, 5, 30);
    assert_eq!(roster.admit(PEER, &first), Ok(Changed::Now));
    assert!(roster.note(PEER, Term(6), Index(40)));
    roster
}

fn refused(hello: &Hello) -> Refusal {
    let mut after = roster();
    let refusal = after.admit(PEER, hello).unwrap_err();
    assert_eq!(after, roster(), "a refusal leaves no trace");
    refusal
}

#[test]
fn the_same_run_may_connect_again_whatever_was_noted_since() {
    let mut roster = roster();
    let again = greeting(7, &[11, 22, 33], 3, 5, 30);
    assert_eq!(roster.admit(PEER, &again), Ok(Changed::No));
    assert_eq!(roster.known(PEER).unwrap().term, Term(6));
}

#[test]
fn a_later_run_with_all_its_data_is_recorded() {
    let mut roster = roster();
    let next = greeting(7, &[11, 22, 33, 44], 4, 6, 40);
    assert_eq!(roster.admit(PEER, &next), Ok(Changed::Now));
    let known = *roster.known(PEER).unwrap();
    assert_eq!((known.boot, known.nonce, known.matched), (4, 44, Index(40)));
    // Starts that nobody here saw are no offence.
    let much_later = greeting(7, &[33, 44, 55, 66, 77], 7, 6, 41);
    assert_eq!(roster.admit(PEER, &much_later), Ok(Changed::Now));
}

#[test]
fn a_wiped_disk_is_refused() {
    let (known, shown) = (7, 8);
    let wiped = Refusal::Wiped {
        id: PEER,
        known,
        shown,
    };
    assert_eq!(refused(&greeting(8, &[1], 1, 0, 0)), wiped);
    assert_eq!(
        refused(&greeting(8, &[11, 22, 33, 44], 4, 9, 99)),
        wiped,
        "however far it has come"
    );
}

#[test]
fn a_copy_from_before_is_refused() {
    let older = |older| Refusal::OlderData { id: PEER, older };
    let (shown, seen) = (2, 3);
    assert_eq!(
        refused(&greeting(7, &[11, 22], 2, 6, 40)),
        older(Older::Boot { shown, seen })
    );
    let (shown, seen) = (Term(5), Term(6));
    assert_eq!(
        refused(&greeting(7, &[11, 22, 33, 44], 4, 5, 40)),
        older(Older::Term { shown, seen })
    );
    let (shown, seen) = (Index(39), Index(40));
    assert_eq!(
        refused(&greeting(7, &[11, 22, 33, 44], 4, 6, 39)),
        older(Older::Log { shown, seen })
    );
}

#[test]
fn a_second_process_from_a_copy_is_refused() {
    let duplicate = Refusal::Duplicate { id: PEER, boot: 3 };
    assert_eq!(refused(&greeting(7, &[11, 22, 34], 3, 5, 30)), duplicate);
    assert_eq!(
        refused(&greeting(7, &[11, 22, 34, 44], 4, 9, 99)),
        duplicate,
        "and so are its later starts"
    );
}

#[test]
fn a_history_that_does_not_reach_back_proves_nothing() {
    let mut roster = roster();
    let nonces: Vec<u64> = (100..132).collect();
    assert_eq!(
        roster.admit(PEER, &greeting(7, &nonces, 35, 6, 40)),
        Ok(Changed::Now)
    );
    let nonces: Vec<u64> = (100..132).collect();
    assert_eq!(
        refused(&greeting(7, &nonces, 34, 6, 40)),
        Refusal::Duplicate { id: PEER, boot: 3 },
        "the oldest of its nonces is that of the recorded start"
    );
}

#[test]
fn papers_without_a_nonce_or_a_boot_are_none() {
    assert_eq!(refused(&greeting(7, &[], 4, 9, 99)), Refusal::NotAPeer);
    assert_eq!(refused(&greeting(7, &[33], 0, 9, 99)), Refusal::NotAPeer);
}

#[test]
fn old_releases_have_no_papers() {
    let mut roster = roster();
    let old = greeting(7, &[1], 3, 0, 0).without_papers();
    assert_eq!(roster.admit(PEER, &old), Ok(Changed::No));
    assert_eq!(roster.admit(NodeId(5), &old), Ok(Changed::No));
    assert!(!roster.note(NodeId(5), Term(9), Index(9)), "nobody to note it of");
}

#[test]
fn there_is_room_for_every_cluster_and_not_for_endless_strangers() {
    let mut roster = Roster::new(9, NodeId(2));
    let hello = greeting(7, &[1], 1, 0, 0);
    for id in 0..MAX_PEERS as u64 {
        assert_eq!(roster.admit(NodeId(100 + id), &hello), Ok(Changed::Now));
    }
    assert_eq!(roster.admit(PEER, &hello), Err(Refusal::Crowded));
    roster.forget(&BTreeSet::from([NodeId(100)]));
    assert_eq!(roster.admit(PEER, &hello), Ok(Changed::Now));
    assert_eq!(Roster::decode(&roster.encode()).unwrap(), roster);
}

#[test]
fn only_durable_terms_are_taken_from_messages() {
    let raft = |body| PeerMessage::Raft(Message { term: Term(4), body });
    let last = quorate_base::LogId::new(3, 9);
    let ask = Body::PreVote { next: Term(5), last };
    assert_eq!(durable_term(&raft(ask)), None);
    for body in [
        Body::Vote {
            last,
            transfer: false,
        },
        Body::VoteResponse { granted: true },
        Body::Appended { upto: Index(3) },
    ] {
        assert_eq!(durable_term(&raft(body)), Some(Term(4)));
    }
}

#[test]
fn a_damaged_file_is_never_taken_for_another() {
    let roster = roster();
    let bytes = roster.encode();
    assert_eq!(Roster::decode(&bytes).unwrap(), roster);
    for cut in 0..bytes.len() {
        assert!(Roster::decode(&bytes[..cut]).is_err(), "cut at {cut}");
    }
    for bit in 0..8 * bytes.len() {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        let error = Roster::decode(&flipped).unwrap_err();
        assert!(error.to_string().contains("remove that one file"), "{error}");
    }
}

/// A data directory as its process sees it: what it shows at its next start.
#[derive(Clone, Debug)]
struct Directory {
    incarnation: u64,
    nonces: Vec<u64>,
    term: u64,
    last: u64,
}

#[derive(Clone, Debug)]
enum Step {
    /// Starts (a copy of) directory `n` and greets.
    Start(usize),
    /// The running one moves on, and the roster's owner hears of it.
    Advance { term: u64, last: u64 },
    /// The running one moves on unheard.
    Silently { term: u64, last: u64 },
    /// Copies what is running.
    Backup,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0..6_usize).prop_map(Step::Start),
        (0..3_u64, 0..5_u64).prop_map(|(term, last)| Step::Advance { term, last }),
        (0..3_u64, 0..5_u64).prop_map(|(term, last)| Step::Silently { term, last }),
        Just(Step::Backup),
    ]
}

proptest! {
    /// Copies are made and started in any order. Whoever is let in lacks nothing that the roster's owner had heard of, and the record
    /// only grows; and the one true directory, if it is never copied, is always let in.
    #[test]
    fn what_is_admitted_never_goes_backwards(steps in proptest::collection::vec(step(), 1..40)) {
        let fresh = Directory { incarnation: 7, nonces: Vec::new(), term: 0, last: 0 };
        let mut copies = vec![fresh];
        let mut running: Option<usize> = None;
        let mut roster = Roster::new(9, NodeId(2));
        let mut nonce = 0;
        for step in steps {
            let before = roster.known(PEER).copied();
            match step {
                Step::Start(n) => {
                    let n = n % copies.len();
                    nonce += 1;
                    let copy = &mut copies[n];
                    copy.nonces.push(nonce);
                    let boot = copy.nonces.len() as u64;
                    let shown = &copy.nonces[copy.nonces.len().saturating_sub(32)..];
                    let hello = greeting(copy.incarnation, shown, boot, copy.term, copy.last);
                    let honest = copies.len() == 1;
                    let copy = &copies[n];
                    match roster.admit(PEER, &hello) {
                        Ok(_) => {
                            let known = before.map_or((0, 0), |known| (known.term.0, known.matched.0));
                            prop_assert!(copy.term >= known.0 && copy.last >= known.1);
                            running = Some(n);
                        }
                        Err(why) => prop_assert!(!honest, "{why}"),
                    }
                }
                Step::Advance { term, last } => if let Some(n) = running {
                    copies[n].term += term;
                    copies[n].last += last;
                    roster.note(PEER, Term(copies[n].term), Index(copies[n].last));
                },
                Step::Silently { term, last } => if let Some(n) = running {
                    copies[n].term += term;
                    copies[n].last += last;
                },
                Step::Backup => copies.push(copies[running.unwrap_or(0)].clone()),
            }
            if let (Some(before), Some(after)) = (before, roster.known(PEER)) {
                prop_assert!(after.incarnation == before.incarnation && after.boot >= before.boot);
                prop_assert!(after.term >= before.term && after.matched >= before.matched);
            }
            prop_assert_eq!(&Roster::decode(&roster.encode()).unwrap(), &roster);
        }
    }
}
