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
            let mut text = BytesMut::new();
            loop {
                while let Some(message) = cut_message(&mut text).transpose() {
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

fn cut_message<M: Message + Name + Default>(text: &mut BytesMut) -> Result<Option<M>, Status> {
    let invalid = |e: json::DecodeError| Status::invalid_argument(e.to_string());
    let Some(end) = json::first_value(text).map_err(invalid)? else {
        return Ok(None);
    };
    let value = text.split_to(end);
    json::decode(&value).map(Some).map_err(invalid)
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
