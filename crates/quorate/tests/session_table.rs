//! The table of sessions against a model that remembers everything, with commands repeated, out of order and for sessions long gone, and
//! with restarts from checkpoints at any point.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use proptest::prelude::*;
use quorate::{Answer, Index, LogId, SessionCommand, SessionId, SessionTable, Sessions, State};

/// One entry of the log. Sessions are named by the order in which they were opened.
#[derive(Clone, Debug)]
enum Op {
    Open { limit: u32 },
    Run { which: usize, sequence: u64 },
    Close { which: usize },
    Plain,
    Garbage,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        2 => (0..5_u32).prop_map(|limit| Op::Open { limit }),
        // Few sessions and numbers, so that most commands are repetitions or come late.
        12 => (0..8_usize, 0..5_u64).prop_map(|(which, sequence)| Op::Run { which, sequence }),
        1 => (0..8_usize).prop_map(|which| Op::Close { which }),
        1 => Just(Op::Plain),
        1 => Just(Op::Garbage),
    ]
}

/// The rules of sessions, written down as naively as can be.
#[derive(Default)]
struct Model {
    opened: Vec<SessionId>,
    /// Each live session and the last index that named it.
    live: Vec<(SessionId, u64)>,
    /// What each number of each session was answered when it was executed.
    first: BTreeMap<(SessionId, u64), Bytes>,
}

impl Model {
    fn session(&self, which: usize) -> SessionId {
        self.opened
            .get(which)
            .copied()
            .unwrap_or(SessionId(Index(u64::MAX)))
    }

    /// What an entry must answer; `gives` is what executing it gives.
    fn apply(&mut self, index: u64, op: &Op, gives: &Bytes) -> Answer {
        match op {
            Op::Open { limit } => {
                while self.live.len() as u32 >= (*limit).max(1) {
                    let oldest = *self.live.iter().min_by_key(|live| live.1).unwrap();
                    self.live.retain(|live| *live != oldest);
                }
                let id = SessionId(Index(index));
                self.opened.push(id);
                self.live.push((id, index));
                Answer::Opened(id)
            }
            Op::Run { sequence: 0, .. } | Op::Garbage => Answer::NotUnderstood,
            Op::Run { which, sequence } => {
                let id = self.session(*which);
                let Some(live) = self.live.iter_mut().find(|live| live.0 == id) else {
                    return Answer::Expired;
                };
                live.1 = index;
                let highest = self.first.keys().filter(|key| key.0 == id).map(|key| key.1).max();
                if highest.is_some_and(|highest| *sequence < highest) {
                    return Answer::Superseded;
                }
                let first = self.first.entry((id, *sequence)).or_insert_with(|| gives.clone());
                Answer::Done(first.clone())
            }
            Op::Close { which } => {
                let id = self.session(*which);
                self.live.retain(|live| live.0 != id);
                Answer::Closed
            }
            Op::Plain => Answer::Done(gives.clone()),
        }
    }

    fn encode(&self, op: &Op) -> Bytes {
        let command = Bytes::from_static(b"command");
        match *op {
            Op::Open { limit } => SessionCommand::Open { limit },
            Op::Run { which, sequence } => SessionCommand::Run {
                session: self.session(which),
                sequence,
                command,
            },
            Op::Close { which } => SessionCommand::Close {
                session: self.session(which),
            },
            Op::Plain => SessionCommand::Plain { command },
            Op::Garbage => return Bytes::from_static(b"\xffwhat?"),
        }
        .encode()
    }
}

/// A state that says when it was asked, so that no two executions give the same.
#[derive(Clone, Debug, Default, PartialEq)]
struct Diary(Vec<u64>);

impl State for Diary {
    type Output = Bytes;

    fn apply(&mut self, at: LogId, _command: &Bytes) -> Bytes {
        self.0.push(at.index.0);
        answer_at(at.index.0)
    }

    fn save(&self) -> Vec<u8> {
        self.0.iter().flat_map(|index| index.to_le_bytes()).collect()
    }

    fn load(&mut self, saved: &[u8]) -> std::io::Result<()> {
        let number = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().unwrap());
        self.0 = saved.chunks(8).map(number).collect();
        Ok(())
    }
}

fn answer_at(index: u64) -> Bytes {
    format!("executed at {index}").into()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(400) })]

    #[test]
    fn every_answer_is_the_models_and_nothing_is_executed_twice(ops in prop::collection::vec(op(), 0..120)) {
        let (mut table, mut model) = (SessionTable::new(), Model::default());
        let mut executed = BTreeSet::new();
        for (op, index) in ops.iter().zip(1..) {
            let mut runs = 0;
            let command = model.encode(op);
            let answer = table.apply(Index(index), &command, |_| {
                runs += 1;
                answer_at(index)
            });
            prop_assert_eq!(&answer, &model.apply(index, op, &answer_at(index)), "entry {}: {:?}", index, op);
            if let Op::Run { which, sequence } = op && runs > 0 {
                prop_assert!(executed.insert((model.session(*which), *sequence)), "executed twice (S18)");
            }
            prop_assert!(runs <= 1);
            let live: BTreeSet<_> = model.live.iter().map(|live| live.0).collect();
            prop_assert_eq!(table.len(), live.len());
            prop_assert!(live.iter().all(|id| table.contains(*id)));
            prop_assert_eq!(&SessionTable::load(&table.save()).unwrap(), &table);
        }
    }

    /// A member that restarts from a checkpoint and applies the log after it again is where the others are, in answers, too.
    #[test]
    fn a_restart_from_any_checkpoint_leads_to_the_same(
        ops in prop::collection::vec(op(), 1..60),
        checkpoint in any::<prop::sample::Index>(),
        crash in any::<prop::sample::Index>(),
    ) {
        let mut model = Model::default();
        let mut steady = Sessions::new(Diary::default());
        let mut log = Vec::new();
        for (op, index) in ops.iter().zip(1..) {
            let command = model.encode(op);
            let answer = steady.apply(LogId::new(1, index), &command);
            model.apply(index, op, &answer_at(index));
            log.push((command, answer));
        }
        let crash = crash.index(ops.len()) + 1;
        let checkpoint = checkpoint.index(crash);
        let mut restarted = Sessions::new(Diary::default());
        let mut saved = restarted.save();
        let apply = |restarted: &mut Sessions<Diary>, n: usize| {
            let (command, answer) = &log[n];
            assert_eq!(&restarted.apply(LogId::new(1, n as u64 + 1), command), answer);
        };
        for n in 0..crash {
            if n == checkpoint {
                saved = restarted.freeze()();
            }
            apply(&mut restarted, n);
        }
        restarted = Sessions::new(Diary(vec![99]));
        restarted.load(&saved).unwrap();
        for n in checkpoint..log.len() {
            apply(&mut restarted, n);
        }
        prop_assert_eq!(restarted.save(), steady.save());
        prop_assert_eq!(restarted.state(), steady.state());
    }

    #[test]
    fn damaged_tables_and_commands_are_refused_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
        let _ = SessionTable::load(&bytes);
        let _ = Sessions::new(Diary::default()).load(&bytes);
        let _ = SessionCommand::decode(&bytes.clone().into());
        let mut table = SessionTable::new();
        table.apply(Index(1), &bytes.into(), |_| Bytes::new());
    }
}

#[test]
fn a_cut_table_is_refused() {
    let mut table = SessionTable::new();
    table.apply(Index(1), &SessionCommand::Open { limit: 9 }.encode(), |_| {
        Bytes::new()
    });
    let run = SessionCommand::Run {
        session: SessionId(Index(1)),
        sequence: 1,
        command: Bytes::new(),
    };
    table.apply(Index(2), &run.encode(), |_| "twelve bytes".into());
    let saved = table.save();
    for len in (0..saved.len()).filter(|len| *len != 1) {
        assert!(SessionTable::load(&saved[..len]).is_err(), "{len} bytes");
    }
    assert_eq!(
        SessionTable::load(&saved[..1]).unwrap(),
        SessionTable::new(),
        "the format alone is an empty table"
    );
}
