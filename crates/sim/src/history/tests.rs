//! Every rule of the checker rejects a history forged to break it, and accepts the honest one beside it.

use quorate_base::LogId;
use quorate_kv::{DeleteRangeRequest, PutRequest};

use super::*;

/// Which entry a write is matters to leases only.
const AT: LogId = LogId::ZERO;

struct Forge {
    model: Model,
    calls: Vec<Call>,
    clock: Moment,
}

impl Forge {
    fn new() -> Forge {
        Forge {
            model: Model::default(),
            calls: Vec::new(),
            clock: 0,
        }
    }

    fn call(&mut self, action: Action, outcome: Outcome) -> &mut Call {
        self.clock += 2;
        let (invoked, returned) = (self.clock, self.clock + 1);
        self.calls.push(Call {
            client: 0,
            action,
            invoked,
            returned,
            outcome,
        });
        self.calls.last_mut().expect("just pushed")
    }

    fn write(&mut self, command: Command) -> &mut Call {
        let outcome = Outcome::Written(self.model.apply(AT, &command));
        self.call(Action::Write(command), outcome)
    }

    fn read(&mut self, key: &'static str, revision: i64) -> &mut Call {
        let request = RangeRequest {
            key: key.into(),
            revision,
            ..RangeRequest::default()
        };
        let at = if revision > 0 {
            revision
        } else {
            self.model.revision()
        };
        let kvs: Vec<_> = self.model.read(&request, at).cloned().collect();
        let count = kvs.len() as i64;
        let response = RangeResponse {
            revision: self.model.revision(),
            kvs,
            more: false,
            count,
        };
        self.call(
            Action::Read {
                request,
                serializable: false,
            },
            Outcome::Read(Ok(response)),
        )
    }

    fn verdict(&self) -> String {
        check(&self.calls, &self.model).map_or_else(|violation| violation.what, |()| "fine".into())
    }
}

fn put(key: &'static str, value: &'static str) -> Command {
    Command::Put(PutRequest {
        key: key.into(),
        value: value.into(),
        ..PutRequest::default()
    })
}

fn delete(key: &'static str) -> Command {
    Command::DeleteRange(DeleteRangeRequest {
        key: key.into(),
        ..DeleteRangeRequest::default()
    })
}

#[test]
fn an_honest_history_is_accepted() {
    let mut forge = Forge::new();
    forge.write(put("a", "1"));
    forge.read("a", 0);
    forge.write(delete("a"));
    forge.write(delete("a"));
    forge.read("a", 2);
    forge.write(Command::Compact {
        revision: 3,
        physical: false,
    });
    forge.read("a", 0);
    assert_eq!(forge.verdict(), "fine");
}

#[test]
fn a_lost_write_is_rejected() {
    let mut forge = Forge::new();
    let outcome = Outcome::Written(Model::default().apply(AT, &put("a", "1")));
    forge.call(Action::Write(put("a", "1")), outcome);
    assert_eq!(forge.verdict(), "its revision holds something else");
}

#[test]
fn a_write_done_twice_is_rejected() {
    let mut forge = Forge::new();
    forge.write(put("a", "1"));
    forge.model.apply(AT, &put("a", "1")).unwrap();
    assert_eq!(forge.verdict(), "was carried out twice");
}

#[test]
fn a_refused_write_that_was_done_is_rejected() {
    let mut forge = Forge::new();
    forge.write(put("a", "1")).outcome = Outcome::NotDone;
    assert_eq!(forge.verdict(), "said not to be done, and was done");
    forge.calls[0].outcome = Outcome::Unknown;
    assert_eq!(forge.verdict(), "fine", "an unknown one may be done");
}

#[test]
fn one_revision_for_two_deletions_is_rejected() {
    let mut forge = Forge::new();
    forge.write(put("a", "1"));
    let outcome = forge.write(delete("a")).outcome.clone();
    forge.call(Action::Write(delete("a")), outcome);
    assert_eq!(forge.verdict(), "its revision was given to another call");
}

#[test]
fn a_stale_read_is_rejected_unless_it_was_concurrent_or_serializable() {
    let mut forge = Forge::new();
    forge.write(put("a", "1"));
    let old = forge.read("a", 0).outcome.clone();
    forge.write(put("a", "2"));
    forge.read("a", 0).outcome = old;
    assert_eq!(forge.verdict(), "stale: 3 was answered before it began");
    let honest = forge.calls.clone();
    forge.calls[3].invoked = forge.calls[2].returned - 1;
    assert_eq!(forge.verdict(), "fine", "concurrent");
    forge.calls = honest;
    let Action::Read { serializable, .. } = &mut forge.calls[3].action else {
        panic!("a read")
    };
    *serializable = true;
    assert_eq!(forge.verdict(), "fine", "serializable");
}

#[test]
fn a_read_of_the_wrong_content_is_rejected() {
    let mut forge = Forge::new();
    forge.write(put("a", "1"));
    let call = forge.read("a", 0);
    let Outcome::Read(Ok(response)) = &mut call.outcome else {
        panic!("a read")
    };
    response.kvs[0].version = 2;
    assert!(forge.verdict().starts_with("at revision 2 there was"));
}

#[test]
fn a_read_from_the_future_is_rejected() {
    let mut forge = Forge::new();
    let call = forge.read("a", 0);
    let Outcome::Read(Ok(response)) = &mut call.outcome else {
        panic!("a read")
    };
    response.revision = 9;
    assert_eq!(forge.verdict(), "read a revision that does not exist");
}

#[test]
fn writes_in_the_wrong_order_are_rejected() {
    let mut forge = Forge::new();
    forge.write(put("a", "1"));
    forge.write(put("a", "2"));
    let (first, second) = (forge.calls[0].clone(), forge.calls[1].clone());
    (forge.calls[0].invoked, forge.calls[0].returned) = (second.invoked, second.returned);
    (forge.calls[1].invoked, forge.calls[1].returned) = (first.invoked, first.returned);
    assert_eq!(forge.verdict(), "revision 3 was answered before it began");
}

#[test]
fn an_old_revision_readable_after_its_compaction_is_rejected() {
    let mut forge = Forge::new();
    forge.write(put("a", "1"));
    forge.write(put("a", "2"));
    forge.write(Command::Compact {
        revision: 3,
        physical: false,
    });
    forge.read("a", 2);
    assert_eq!(forge.verdict(), "read below the compaction 3");
    forge.calls[3].outcome = Outcome::Read(Err(Error::Compacted));
    assert_eq!(forge.verdict(), "fine");
    forge.calls[3].outcome = Outcome::Read(Err(Error::FutureRevision));
    assert_eq!(forge.verdict(), "denied a revision up to 3");
}
