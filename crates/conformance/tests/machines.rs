//! The state machines of this project under the checks that anybody may run against his own.

use bytes::Bytes;
use quorate::{Checkpointed, LogId, SessionCommand, SessionId, Sessions, State};
use quorate_base::Index;
use quorate_conformance::Effort;
use quorate_conformance::machine::Checks;
use quorate_kv::{Command, Compare, CompareOp, CompareTarget, DeleteRangeRequest, Kv, Options, PutRequest};
use quorate_kv::{RequestOp, TxnRequest, level};

/// Remembers every command; answers how many there were.
#[derive(Default)]
struct Journal(Vec<Bytes>);

impl State for Journal {
    type Output = Bytes;

    fn apply(&mut self, _at: LogId, command: &Bytes) -> Bytes {
        self.0.push(command.clone());
        Bytes::copy_from_slice(&(self.0.len() as u64).to_le_bytes())
    }

    fn save(&self) -> Vec<u8> {
        let mut saved = Vec::new();
        for command in &self.0 {
            saved.extend((command.len() as u32).to_le_bytes());
            saved.extend_from_slice(command);
        }
        saved
    }

    fn load(&mut self, mut saved: &[u8]) -> std::io::Result<()> {
        self.0.clear();
        while let Some((len, rest)) = saved.split_first_chunk::<4>() {
            let (command, rest) = rest.split_at(u32::from_le_bytes(*len) as usize);
            self.0.push(Bytes::copy_from_slice(command));
            saved = rest;
        }
        Ok(())
    }
}

#[test]
fn a_state_in_memory_is_durable_and_deterministic() {
    let commands = (0..40_usize).map(|n| Bytes::from(vec![n as u8; n * 37 % 900]));
    let checks = Checks::new(
        |disk| Ok(Checkpointed::open(disk, Journal::default())?.every(700)),
        commands,
    );
    let report = checks.run(Effort::thorough()).unwrap();
    assert!(report.crashes > 500, "{report:?}");
}

#[test]
fn sessions_are_part_of_the_state() {
    // The first entry has no command, so the sessions are named by 2 and 3.
    let mut commands = vec![SessionCommand::Open { limit: 3 }; 2];
    for n in 0..30 {
        commands.push(match n % 10 {
            7 => SessionCommand::Open { limit: 3 },
            8 => SessionCommand::Close {
                session: SessionId(Index(20)),
            },
            9 => SessionCommand::Plain {
                command: "plain".into(),
            },
            _ => SessionCommand::Run {
                session: SessionId(Index(2 + n % 2)),
                // Every command comes twice.
                sequence: 1 + n / 4,
                command: format!("command {n}").into(),
            },
        });
    }
    let checks = Checks::new(
        |disk| Ok(Checkpointed::open(disk, Sessions::new(Journal::default()))?.every(300)),
        commands.iter().map(SessionCommand::encode),
    );
    checks.run(Effort::thorough()).unwrap();
}

fn put(key: &str, len: usize, lease: i64) -> PutRequest {
    PutRequest {
        key: Bytes::copy_from_slice(key.as_bytes()),
        value: Bytes::from(vec![len as u8; len]),
        lease,
        ..PutRequest::default()
    }
}

#[test]
fn the_key_value_store_keeps_the_contract() {
    let mut commands = vec![Command::grant(level::NAMED_GRANTS, 5, 60)];
    for n in 0..8 {
        let lease = if n == 2 { 5 } else { 0 };
        commands.push(Command::Put(put(["a", "b", "c"][n % 3], 40 * n, lease)));
    }
    let compare = Compare {
        key: Bytes::from_static(b"a"),
        range_end: Bytes::new(),
        op: CompareOp::Equal,
        target: CompareTarget::Version(3),
    };
    commands.push(Command::Txn(TxnRequest {
        compare: vec![compare],
        success: vec![RequestOp::Put(put("won", 3, 0))],
        failure: vec![RequestOp::Put(put("lost", 3, 0))],
    }));
    commands.push(Command::DeleteRange(DeleteRangeRequest {
        key: Bytes::from_static(b"a"),
        ..DeleteRangeRequest::default()
    }));
    commands.push(Command::Compact {
        revision: 6,
        physical: true,
    });
    commands.push(Command::LeaseRevoke { id: 5, expiry: None });
    commands.push(Command::Put(put("e", 3, 0)));
    let options = Options {
        flush_bytes: 1,
        cache_bytes: 1 << 20,
        compact_chunk: 2,
        ..Options::default()
    };
    let checks = Checks::new(
        move |disk| Kv::open(disk, options.clone()),
        commands.iter().map(Command::encode),
    )
    .digest(|kv| kv.hash().expect("the state can be read").to_le_bytes().to_vec());
    let report = checks.run(Effort::quick()).unwrap();
    assert!(report.crashes > 100, "{report:?}");
}
