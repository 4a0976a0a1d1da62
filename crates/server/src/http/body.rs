//! Bodies of the JSON gateway: a request's collected or cut into messages as they arrive, a stream of answers as lines.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use http_body::Frame;
use http_body_util::BodyExt;
use prost::{Message, Name};
use quorate_proto::json;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt};
use tonic::Status;
use tonic::body::Body;

use crate::errors;

/// How many times the limit is read and thrown away of a body that is too long, so that its sender, who reads the answer only after
/// the last byte was sent, gets it.
const PATIENCE: usize = 16;

/// The whole body, if it is no longer than `limit`.
pub(super) async fn collect(mut body: Body, limit: usize) -> Result<Bytes, Status> {
    let mut text = BytesMut::new();
    let mut length = 0;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| Status::cancelled(format!("the request broke off: {error}")))?;
        let Ok(data) = frame.into_data() else { continue };
        length += data.len();
        if length > limit * PATIENCE {
            break;
        }
        if length > limit {
            text = BytesMut::new();
        } else {
            text.extend_from_slice(&data);
        }
    }
    if length > limit {
        Err(errors::message_too_long(limit))
    } else {
        Ok(text.freeze())
    }
}

/// The body as messages, each as soon as its JSON value is complete.
pub(super) fn messages<M>(mut body: Body, limit: usize) -> ReceiverStream<Result<M, Status>>
where
    M: Message + Name + Default + 'static,
{
    let (out, messages) = mpsc::channel(1);
    tokio::spawn(async move {
        let all = async {
            let (mut text, mut scan) = (BytesMut::new(), Scan::default());
            loop {
                while let Some(message) = cut_message(&mut text, &mut scan).transpose() {
                    let failed = message.is_err();
                    if out.send(message).await.is_err() || failed {
                        return;
                    }
                }
                if text.len() > limit {
                    let _ = out.send(Err(errors::message_too_long(limit))).await;
                    return;
                }
                match body.frame().await {
                    Some(Ok(frame)) => text.extend_from_slice(frame.data_ref().map_or(&[], |data| data)),
                    Some(Err(_)) | None => return,
                }
            }
        };
        tokio::select! {
            () = all => {}
            () = out.closed() => {}
        }
    });
    ReceiverStream::new(messages)
}

fn cut_message<M: Message + Name + Default>(
    text: &mut BytesMut,
    scan: &mut Scan,
) -> Result<Option<M>, Status> {
    if !scan.is_worth_a_look(text) {
        return Ok(None);
    }
    let invalid = |e: json::DecodeError| Status::invalid_argument(e.to_string());
    let Some(end) = json::first_value(text).map_err(invalid)? else {
        return Ok(None);
    };
    let value = text.split_to(end);
    *scan = Scan::default();
    json::decode(&value).map(Some).map_err(invalid)
}

/// How far the text of a message was looked through. To parse it from its beginning with every piece that arrives would let a few bytes
/// of many small ones cost as much as the whole.
#[derive(Debug, Default)]
struct Scan {
    /// What was seen of it.
    seen: usize,
    /// How long it was when it was last parsed.
    parsed: usize,
    /// Open objects and lists.
    depth: usize,
    in_string: bool,
    /// The byte before was a backslash in a string.
    escaped: bool,
}

impl Scan {
    /// Whether the text is to be parsed: when a value may have come to its end, and otherwise, for the errors there may be, when it
    /// is twice as long as the last time.
    fn is_worth_a_look(&mut self, text: &[u8]) -> bool {
        let mut ends = false;
        for byte in &text[self.seen..] {
            self.seen += 1;
            ends = self.ends_with(*byte);
            if ends {
                break;
            }
        }
        let look = ends || text.len() > 2 * self.parsed;
        if look {
            self.parsed = text.len();
        }
        look
    }

    /// Takes in a byte; whether a value may end with it.
    fn ends_with(&mut self, byte: u8) -> bool {
        if self.in_string {
            self.in_string = self.escaped || byte != b'"';
            self.escaped = !self.escaped && byte == b'\\';
            return !self.in_string && self.depth == 0;
        }
        match byte {
            b'"' => self.in_string = true,
            b'{' | b'[' => self.depth += 1,
            b'}' | b']' => {
                self.depth = self.depth.saturating_sub(1);
                return self.depth == 0;
            }
            _ => {}
        }
        false
    }
}

/// Answers as lines of JSON: `{"result":…}` each, and `{"error":…}` as the last if there is one.
pub(super) struct Lines<S> {
    answers: S,
    ended: bool,
}

impl<S> Lines<S> {
    pub fn new(answers: S) -> Lines<S> {
        Lines {
            answers,
            ended: false,
        }
    }
}

impl<S, M> http_body::Body for Lines<S>
where
    S: Stream<Item = Result<M, Status>> + Unpin,
    M: Message + Name,
{
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let line = match std::task::ready!(Pin::new(&mut self.answers).poll_next(cx)) {
            None => return Poll::Ready(None),
            Some(Ok(message)) => wrapped(r#"{"result":"#, &json::encode(&message)),
            Some(Err(status)) => {
                self.ended = true;
                wrapped(r#"{"error":"#, &error(&status))
            }
        };
        Poll::Ready(Some(Ok(Frame::data(line))))
    }
}

/// One line that ends a stream before its first answer.
pub(super) fn only_error(status: &Status) -> Bytes {
    wrapped(r#"{"error":"#, &error(status))
}

fn wrapped(open: &str, inner: &[u8]) -> Bytes {
    Bytes::from([open.as_bytes(), inner, b"}\n"].concat())
}

/// An error as JSON.
pub(super) fn error(status: &Status) -> Vec<u8> {
    let message = serde_json::Value::from(status.message());
    format!(r#"{{"code":{},"message":{message}}}"#, status.code() as i32).into_bytes()
}

/// The first answer together with the stream of the others, so that an error before any can still set the HTTP status.
pub(super) async fn first<S, M>(
    mut answers: S,
) -> Result<impl Stream<Item = Result<M, Status>> + Unpin, Status>
where
    S: Stream<Item = Result<M, Status>> + Unpin,
    M: Unpin,
{
    match answers.next().await {
        Some(Err(status)) => Err(status),
        first => Ok(tokio_stream::iter(first).chain(answers)),
    }
}

#[cfg(test)]
mod tests {
    use quorate_proto::etcdserverpb as pb;

    use super::*;

    /// The messages in a text that arrives in pieces of this length, after how many bytes each, and how many bytes were parsed.
    fn cut(text: &[u8], piece: usize) -> (Vec<(pb::WatchRequest, usize)>, usize) {
        let (mut buffer, mut scan) = (BytesMut::new(), Scan::default());
        let (mut messages, mut parsed, mut arrived) = (Vec::new(), 0, 0);
        for piece in text.chunks(piece) {
            buffer.extend_from_slice(piece);
            arrived += piece.len();
            loop {
                let before = (scan.parsed, buffer.len());
                let message = cut_message(&mut buffer, &mut scan).expect("valid");
                if message.is_some() || scan.parsed != before.0 {
                    parsed += before.1;
                }
                match message {
                    Some(message) => messages.push((message, arrived)),
                    None => break,
                }
            }
        }
        (messages, parsed)
    }

    #[test]
    fn messages_are_cut_where_they_end_however_they_arrive() {
        let first = br#" {"create_request": {"key": "Zm9v", "filters": []}}"#;
        let second = br#"{"cancel_request":{"watch_id":"7"},"x\"}{":"a\\"}"#;
        let third = b" {\n}";
        let text = [&first[..], second, third].concat();
        let ends = [first.len(), first.len() + second.len(), text.len()];
        let (expected, _) = cut(&text, text.len());
        assert_eq!(expected.len(), 3);
        for piece in 1..text.len() {
            let (messages, _) = cut(&text, piece);
            for (n, (message, arrived)) in messages.iter().enumerate() {
                assert_eq!(*message, expected[n].0);
                let due = ends[n].div_ceil(piece) * piece;
                assert_eq!(*arrived, due.min(text.len()), "as soon as it is there");
            }
            assert_eq!(messages.len(), 3, "in pieces of {piece}");
        }
    }

    #[test]
    fn a_long_message_in_small_pieces_is_not_parsed_again_and_again() {
        let key = "A".repeat(100_000);
        let text = format!(r#"{{"create_request": {{"key": "{key}"}}}}"#);
        let (messages, parsed) = cut(text.as_bytes(), 3);
        assert_eq!(messages.len(), 1);
        assert!(parsed < 4 * text.len(), "{parsed} bytes parsed");
    }

    #[test]
    fn what_is_no_message_is_refused() {
        for text in [&b"{]"[..], b"}", b"nonsense", b"\"a\"", b"[]", b"{\"a\" \"b\""] {
            let (mut buffer, mut scan) = (BytesMut::from(text), Scan::default());
            let cut = cut_message::<pb::WatchRequest>(&mut buffer, &mut scan);
            assert!(cut.is_err(), "{}", text.escape_ascii());
        }
    }
}
