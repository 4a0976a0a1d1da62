//! [`Answer`]: what the hub says to one watcher, in both of its forms: the API's message, and the bytes of that message on a gRPC
//! stream. The second is put together from a head of its own and from the encoded events, which all watchers share that get the same;
//! where the head is the same, too, they share the whole.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use prost::Message;
use quorate_kv::Event;
use quorate_kv::watch::WatchResponse;
use quorate_proto::etcdserverpb as pb;
use tonic::Status;

use crate::convert;

/// The field of [`pb::WatchResponse`] that holds the events. No field has a greater number, so they come last.
const EVENTS: u32 = 11;

/// From so many bytes on, events are sent from where they are; below, a copy costs less than a frame of their own.
const APART: usize = 8 << 10;

/// How many frames are kept for the streams that come next. In one turn of the hub a stream gets about as many answers as batches
/// were applied since the last, and all streams get much the same ones.
const RECENT: usize = 8;

/// What the hub says to one watcher.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    header: pb::ResponseHeader,
    response: WatchResponse,
    /// The frame, if it was made already.
    whole: Option<Bytes>,
}

/// The last small frames, to be shared with watchers that get the very same. Most clients have one watcher a stream, under the same
/// id as everybody else's.
#[derive(Debug, Default)]
pub(super) struct Frames(VecDeque<(Answer, Bytes)>);

impl Frames {
    /// Gives an answer its frame, if it is small enough to be kept.
    pub fn share(&mut self, answer: &mut Answer) {
        if let Some((_, frame)) = self.0.iter().find(|(kept, _)| kept.is_same(answer)) {
            answer.whole = Some(frame.clone());
            return;
        }
        let mut frame = BytesMut::new();
        // What cannot be sent is found out again by whoever tries.
        if answer.response.events.is_empty() || !matches!(answer.frame(&mut frame), Ok(None)) {
            return;
        }
        let frame = frame.freeze();
        self.0.truncate(RECENT - 1);
        self.0.push_front((answer.clone(), frame.clone()));
        answer.whole = Some(frame);
    }
}

impl Answer {
    pub(super) fn new(cluster: u64, status: &quorate::Status, response: WatchResponse) -> Answer {
        // etcd names no revision to a watcher that is lost to compaction.
        let lost = response.canceled && response.compact_revision > 0;
        let header = pb::ResponseHeader {
            cluster_id: cluster,
            member_id: status.id.0,
            revision: if lost { 0 } else { response.revision },
            raft_term: status.term.0,
        };
        Answer {
            header,
            response,
            whole: None,
        }
    }

    /// Whether this is, for certain, the same message.
    fn is_same(&self, other: &Answer) -> bool {
        let (own, response) = (&self.response, &other.response);
        own.events.is_same(&response.events)
            && own.prev_kv == response.prev_kv
            && own.watch_id == response.watch_id
            && own.fragment == response.fragment
            && self.header == other.header
    }

    /// The frame, if it can be sent as it is.
    pub fn whole(&self) -> Option<&Bytes> {
        self.whole.as_ref()
    }

    /// The message.
    pub fn into_message(self) -> pb::WatchResponse {
        let WatchResponse { events, prev_kv, .. } = &self.response;
        let events = events
            .iter()
            .map(|event| convert::event(event, *prev_kv))
            .collect();
        pb::WatchResponse {
            events,
            ..self.head()
        }
    }

    /// The message without its events.
    fn head(&self) -> pb::WatchResponse {
        pb::WatchResponse {
            header: Some(self.header),
            watch_id: self.response.watch_id,
            created: self.response.created,
            canceled: self.response.canceled,
            compact_revision: self.response.compact_revision,
            cancel_reason: self.response.cancel_reason.to_owned(),
            fragment: self.response.fragment,
            events: Vec::new(),
        }
    }

    /// Writes the message with its gRPC prefix to `out`. Large events are returned instead, to be sent right after.
    ///
    /// # Errors
    /// If the message is too large for gRPC.
    pub fn frame(&self, out: &mut BytesMut) -> Result<Option<Bytes>, Status> {
        if let Some(whole) = &self.whole {
            out.extend_from_slice(whole);
            return Ok(None);
        }
        let prev_kv = self.response.prev_kv;
        let events = self
            .response
            .events
            .encoded(|events| encoded_events(events, prev_kv));
        let head = self.head();
        let length = head.encoded_len() + events.len();
        let length = u32::try_from(length)
            .map_err(|_| Status::resource_exhausted(format!("grpc: a message of {length} bytes")))?;
        // Not compressed.
        out.put_u8(0);
        out.put_u32(length);
        head.encode_raw(out);
        if events.len() >= APART {
            return Ok(Some(events));
        }
        out.extend_from_slice(&events);
        Ok(None)
    }
}

/// The events as they stand in the encoded message.
fn encoded_events(events: &[Arc<Event>], prev_kv: bool) -> Bytes {
    let mut out = BytesMut::new();
    for event in events {
        prost::encoding::message::encode(EVENTS, &convert::event(event, prev_kv), &mut out);
    }
    out.freeze()
}

/// An answer with one event, for tests.
#[cfg(test)]
pub(crate) fn answer_with_value(watch_id: i64, length: usize) -> Answer {
    let event = quorate_kv::Event {
        kind: quorate_kv::EventKind::Put,
        sub: 0,
        kv: quorate_kv::KeyValue {
            value: Bytes::from(vec![b'v'; length]),
            ..Default::default()
        },
        prev_kv: None,
    };
    let response = WatchResponse {
        watch_id,
        events: quorate_kv::watch::Events::new(vec![Arc::new(event)]),
        ..WatchResponse::default()
    };
    Answer {
        header: pb::ResponseHeader::default(),
        response,
        whole: None,
    }
}

#[cfg(test)]
mod tests {
    use quorate_kv::watch::Events;
    use quorate_kv::{EventKind, KeyValue};

    use super::*;

    fn version(key: &'static str, revision: i64, value: usize) -> KeyValue {
        KeyValue {
            key: Bytes::from_static(key.as_bytes()),
            create_revision: 2,
            mod_revision: revision,
            version: revision - 1,
            value: Bytes::from(vec![b'v'; value]),
            lease: revision % 2,
        }
    }

    fn put(revision: i64, value: usize) -> Arc<Event> {
        Arc::new(Event {
            kind: EventKind::Put,
            sub: 0,
            kv: version("key", revision, value),
            prev_kv: (revision > 2).then(|| version("key", revision - 1, value / 2)),
        })
    }

    fn deletion(revision: i64) -> Arc<Event> {
        let kv = KeyValue {
            key: Bytes::from_static(b"gone"),
            mod_revision: revision,
            ..KeyValue::default()
        };
        Arc::new(Event {
            kind: EventKind::Delete,
            sub: 1,
            kv,
            prev_kv: Some(version("gone", revision - 1, 3)),
        })
    }

    fn check(response: WatchResponse) {
        let header = pb::ResponseHeader {
            cluster_id: u64::MAX,
            member_id: 7,
            revision: response.revision,
            raft_term: 3,
        };
        let mut answer = Answer {
            header,
            response,
            whole: None,
        };
        let mut frame = BytesMut::from("before it");
        let apart = answer.frame(&mut frame).expect("not too large");
        let large = apart.is_some();
        frame.extend_from_slice(&apart.unwrap_or_default());
        let frame = &frame["before it".len()..];
        let message = answer.clone().into_message();
        let (prefix, body) = frame.split_at(5);
        assert_eq!(body, message.encode_to_vec(), "the very bytes of the message");
        assert_eq!(
            pb::WatchResponse::decode(body).expect("a message"),
            message,
            "which read as the message"
        );
        let length = u32::try_from(body.len()).expect("small").to_be_bytes();
        assert_eq!((prefix[0], &prefix[1..]), (0, &length[..]));
        let bytes: usize = answer.response.events.iter().map(|e| e.kv.value.len()).sum();
        assert!(large || bytes < APART, "large events are not copied");
        assert_eq!(message.events.len(), answer.response.events.len());
        let before = message.events.iter().any(|event| event.prev_kv.is_some());
        assert!(
            !before || answer.response.prev_kv,
            "only whoever asked gets the versions before"
        );

        Frames::default().share(&mut answer);
        if let Some(whole) = answer.whole() {
            assert_eq!(&whole[..], frame, "what is shared is the same");
        }
    }

    #[test]
    fn a_frame_is_the_message() {
        let events = [
            vec![put(2, 0)],
            vec![put(2, 10), put(3, 300), deletion(4)],
            vec![put(3, APART), put(4, 1)],
            (2..1000).map(|revision| put(revision, 20)).collect(),
        ];
        for list in events {
            for (prev_kv, fragment, watch_id) in [(false, false, 0), (true, false, 1), (true, true, i64::MAX)]
            {
                check(WatchResponse {
                    revision: 1000,
                    watch_id,
                    fragment,
                    prev_kv,
                    events: Events::new(list.clone()),
                    ..WatchResponse::default()
                });
            }
        }
        check(WatchResponse {
            revision: 9,
            watch_id: -1,
            created: true,
            canceled: true,
            cancel_reason: "no reason",
            ..WatchResponse::default()
        });
        check(WatchResponse {
            canceled: true,
            compact_revision: 8,
            ..WatchResponse::default()
        });
        check(WatchResponse::default());
    }

    #[test]
    fn what_is_sent_is_made_once() {
        let events = Events::new(vec![put(3, 100), deletion(4)]);
        let send = |watch_id| {
            let response = WatchResponse {
                watch_id,
                events: events.clone(),
                ..WatchResponse::default()
            };
            let answer = Answer {
                header: pb::ResponseHeader::default(),
                response,
                whole: None,
            };
            answer.frame(&mut BytesMut::new()).expect("not too large");
        };
        send(1);
        let made = events.encoded(|_| panic!("it is there"));
        send(2);
        assert_eq!(events.encoded(|_| panic!("it is there")).as_ptr(), made.as_ptr());
    }

    #[test]
    fn only_the_same_message_has_the_same_frame() {
        let term = |raft_term| pb::ResponseHeader {
            raft_term,
            ..Default::default()
        };
        let events = Events::new(vec![put(3, 100)]);
        let answer = |watch_id, header, fragment, events: &Events| {
            let response = WatchResponse {
                watch_id,
                fragment,
                events: events.clone(),
                ..WatchResponse::default()
            };
            Answer {
                header,
                response,
                whole: None,
            }
        };
        let others = [
            answer(1, term(1), false, &events),
            answer(0, term(2), false, &events),
            answer(0, term(1), true, &events),
            answer(0, term(1), false, &Events::new(vec![put(4, 100)])),
            answer(0, term(1), false, &Events::new(vec![put(3, APART)])),
            answer(0, term(1), false, &Events::default()),
        ];
        let mut frames = Frames::default();
        let mut first = answer(0, term(1), false, &events);
        frames.share(&mut first);
        let mut again = answer(0, term(1), false, &events);
        frames.share(&mut again);
        let at = |answer: &Answer| answer.whole().map(|whole| whole.as_ptr());
        assert!(at(&first).is_some() && at(&first) == at(&again), "shared");
        for mut other in others.into_iter().cycle().take(40) {
            let mut made = BytesMut::new();
            let apart = other.frame(&mut made).expect("not too large");
            frames.share(&mut other);
            assert_ne!(at(&other), at(&first));
            assert_eq!(
                other.whole().is_some(),
                apart.is_none() && !other.response.events.is_empty()
            );
            assert!(other.whole().is_none_or(|whole| *whole == made));
            assert!(frames.0.len() <= RECENT);
        }
    }
}
