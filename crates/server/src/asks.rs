//! What the servers of a cluster ask each other over the peer link: lease matters that only the leader can settle, and who listens
//! for clients where. The bytes are private to this file; their first is the kind of question, so that more can come.

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use prost::Message;
use quorate::{Ask, AskError};
use quorate_base::NodeId;
use quorate_proto::etcdserverpb as pb;
use tokio::sync::mpsc;
use tonic::{Code, Status};

use crate::context::Context;
use crate::errors;
use crate::leases::{self, Refusal, Remaining};
use crate::members;

/// A question to another member.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Question {
    /// Renew a lease; only a leader does.
    Renew { id: i64 },
    /// What is left of a lease; only a leader knows.
    TimeToLive { id: i64, keys: bool },
    /// Here is how clients reach the asker; how do they reach you?
    Introduce(pb::Member),
}

const RENEW: u8 = 1;
const TIME_TO_LIVE: u8 = 2;
const INTRODUCE: u8 = 3;

const OK: u8 = 0;
const FAILED: u8 = 1;
const NOT_LEADER: u8 = 2;

impl Question {
    fn encode(&self) -> Bytes {
        match self {
            Question::Renew { id } => tagged(RENEW, &pb::LeaseKeepAliveRequest { id: *id }),
            Question::TimeToLive { id, keys } => {
                tagged(TIME_TO_LIVE, &pb::LeaseTimeToLiveRequest { id: *id, keys: *keys })
            }
            Question::Introduce(member) => tagged(INTRODUCE, member),
        }
    }

    fn decode(mut bytes: Bytes) -> Option<Question> {
        if bytes.is_empty() {
            return None;
        }
        let kind = bytes.split_to(1)[0];
        match kind {
            RENEW => pb::LeaseKeepAliveRequest::decode(bytes)
                .ok()
                .map(|r| Question::Renew { id: r.id }),
            TIME_TO_LIVE => pb::LeaseTimeToLiveRequest::decode(bytes)
                .ok()
                .map(|r| Question::TimeToLive {
                    id: r.id,
                    keys: r.keys,
                }),
            INTRODUCE => <pb::Member as Message>::decode(bytes)
                .ok()
                .map(Question::Introduce),
            _ => None,
        }
    }
}

fn tagged(kind: u8, message: &impl Message) -> Bytes {
    let mut out = BytesMut::with_capacity(1 + message.encoded_len());
    out.put_u8(kind);
    message.encode_raw(&mut out);
    out.freeze()
}

/// What a question is answered with.
pub(crate) trait Answer: Sized {
    fn encode(&self) -> Bytes;
    fn decode(bytes: Bytes) -> Option<Self>;
}

impl Answer for Option<i64> {
    fn encode(&self) -> Bytes {
        tagged(
            OK,
            &pb::LeaseKeepAliveResponse {
                ttl: self.unwrap_or(0),
                ..Default::default()
            },
        )
    }

    fn decode(bytes: Bytes) -> Option<Self> {
        let ttl = pb::LeaseKeepAliveResponse::decode(bytes).ok()?.ttl;
        Some((ttl > 0).then_some(ttl))
    }
}

impl Answer for Option<Remaining> {
    fn encode(&self) -> Bytes {
        let message = match self {
            None => pb::LeaseTimeToLiveResponse {
                ttl: -1,
                ..Default::default()
            },
            Some(left) => pb::LeaseTimeToLiveResponse {
                ttl: left.ttl,
                granted_ttl: left.granted,
                keys: left.keys.clone(),
                ..Default::default()
            },
        };
        tagged(OK, &message)
    }

    fn decode(bytes: Bytes) -> Option<Self> {
        let message = pb::LeaseTimeToLiveResponse::decode(bytes).ok()?;
        let remaining = Remaining {
            ttl: message.ttl,
            granted: message.granted_ttl,
            keys: message.keys,
        };
        Some((message.ttl >= 0).then_some(remaining))
    }
}

impl Answer for pb::Member {
    fn encode(&self) -> Bytes {
        tagged(OK, self)
    }

    fn decode(bytes: Bytes) -> Option<Self> {
        <pb::Member as Message>::decode(bytes).ok()
    }
}

/// Puts a question to a member and waits for the answer. A question that did not arrive, or whose answer did not, counts as put to
/// the wrong member: the caller looks again who leads.
pub(crate) async fn ask<T: Answer>(ctx: &Context, to: NodeId, question: &Question) -> Result<T, Refusal> {
    let answer = match ctx.handle.ask(to, question.encode()).await {
        Ok(answer) => answer,
        Err(AskError::Unreachable | AskError::Lost | AskError::Refused | AskError::NotMember) => {
            return Err(Refusal::NotLeader);
        }
        Err(error @ (AskError::TooLarge | AskError::Timeout | AskError::Stopped)) => {
            return Err(Refusal::Failed(errors::of_ask(error)));
        }
    };
    read_answer(answer)
}

fn read_answer<T: Answer>(mut bytes: Bytes) -> Result<T, Refusal> {
    let garbled = || {
        Refusal::Failed(Status::internal(
            "etcdserver: another member's answer is not understood",
        ))
    };
    if bytes.is_empty() {
        return Err(garbled());
    }
    let kind = bytes.split_to(1)[0];
    match kind {
        OK => T::decode(bytes).ok_or_else(garbled),
        NOT_LEADER => Err(Refusal::NotLeader),
        FAILED if !bytes.is_empty() => {
            let code = Code::from_i32(i32::from(bytes[0]));
            Err(Refusal::Failed(Status::new(
                code,
                String::from_utf8_lossy(&bytes[1..]).into_owned(),
            )))
        }
        _ => Err(garbled()),
    }
}

fn write_answer<T: Answer>(answer: Result<T, Refusal>) -> Bytes {
    match answer {
        Ok(answer) => answer.encode(),
        Err(Refusal::NotLeader) => Bytes::from_static(&[NOT_LEADER]),
        Err(Refusal::Failed(status)) => {
            let mut out = BytesMut::new();
            out.put_u8(FAILED);
            out.put_u8(status.code() as i32 as u8);
            out.put_slice(status.message().as_bytes());
            out.freeze()
        }
    }
}

/// Answers the other members until the server ends.
pub(crate) async fn serve(ctx: Arc<Context>, mut asked: mpsc::Receiver<Ask>) {
    let mut status = ctx.status.clone();
    loop {
        let ask = tokio::select! {
            Some(ask) = asked.recv() => ask,
            _ = status.wait_for(|now| now.stopping) => return,
        };
        let Some(question) = Question::decode(ask.request) else {
            // A question of a later version: dropping the reply refuses it.
            continue;
        };
        let ctx = ctx.clone();
        tokio::spawn(async move {
            let answer = match question {
                Question::Renew { id } => write_answer(leases::renew_here(&ctx, id).await),
                Question::TimeToLive { id, keys } => {
                    write_answer(leases::remaining_here(&ctx, id, keys).await)
                }
                Question::Introduce(member) => write_answer(Ok(members::introduced(&ctx, ask.from, member))),
            };
            // The asker may have given up.
            let _ = ask.reply.send(answer);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_survive_the_wire_and_garbage_does_not() {
        for question in [
            Question::Renew { id: i64::MAX },
            Question::TimeToLive { id: 7, keys: true },
            Question::Introduce(pb::Member {
                id: 3,
                name: "n".into(),
                ..Default::default()
            }),
        ] {
            assert_eq!(Question::decode(question.encode()), Some(question));
        }
        for garbage in [&b""[..], b"\x09", b"\x01\xff"] {
            assert_eq!(Question::decode(Bytes::from_static(garbage)), None);
        }
    }

    #[test]
    fn answers_and_refusals_survive_the_wire() {
        let remaining = Some(Remaining {
            ttl: 0,
            granted: 9,
            keys: vec!["a".into()],
        });
        let read = read_answer::<Option<Remaining>>(write_answer(Ok(remaining.clone())));
        assert_eq!(read.expect("an answer"), remaining);
        assert_eq!(
            read_answer::<Option<i64>>(write_answer(Ok(None::<i64>))).expect("an answer"),
            None
        );
        let refused = read_answer::<Option<i64>>(write_answer::<Option<i64>>(Err(Refusal::NotLeader)));
        assert!(matches!(refused, Err(Refusal::NotLeader)));
        let failed = write_answer::<Option<i64>>(Err(Refusal::Failed(errors::timed_out())));
        let Err(Refusal::Failed(status)) = read_answer::<Option<i64>>(failed) else {
            panic!("a failure")
        };
        assert_eq!(
            (status.code(), status.message()),
            (Code::Unavailable, "etcdserver: request timed out")
        );
        assert!(matches!(
            read_answer::<Option<i64>>(Bytes::new()),
            Err(Refusal::Failed(_))
        ));
    }
}
