//! The body of a Watch call's response: the hub's answers as gRPC frames, as many of them together as there are, and the status as
//! trailers in the end. Small answers are copied behind each other; large events are passed on as they are, shared by all
//! streams that send them.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame};
use tokio_stream::Stream;
use tonic::Status;
use tonic::codegen::http::HeaderMap;

use crate::hub::Answer;

/// Bytes that are sent on before more answers are put behind them.
const ENOUGH: usize = 32 << 10;

/// A stream of answers as an HTTP body.
#[derive(Debug)]
pub(super) struct WatchBody<S> {
    answers: S,
    /// An answer not yet sent on that is the only one so far, perhaps shared with other streams.
    alone: Bytes,
    /// Answers not yet sent on.
    ready: BytesMut,
    /// The rest of the last of them.
    apart: Option<Bytes>,
    end: End,
}

#[derive(Debug)]
enum End {
    NotYet,
    /// The status is still to be told.
    With(Status),
    Told,
}

impl<S> WatchBody<S> {
    pub fn new(answers: S) -> WatchBody<S> {
        WatchBody {
            answers,
            alone: Bytes::new(),
            ready: BytesMut::new(),
            apart: None,
            end: End::NotYet,
        }
    }
}

impl<S: Stream<Item = Result<Answer, Status>> + Unpin> WatchBody<S> {
    /// Takes what answers there are.
    fn gather(&mut self, cx: &mut Context<'_>) {
        while matches!(self.end, End::NotYet) && self.apart.is_none() && self.ready.len() < ENOUGH {
            let answer = match Pin::new(&mut self.answers).poll_next(cx) {
                Poll::Pending => return,
                Poll::Ready(None) => Err(Status::ok("")),
                Poll::Ready(Some(answer)) => answer,
            };
            if let Err(status) = answer.and_then(|answer| self.add(&answer)) {
                self.end = End::With(status);
            }
        }
    }

    fn add(&mut self, answer: &Answer) -> Result<(), Status> {
        if let Some(whole) = answer.whole()
            && self.alone.is_empty()
            && self.ready.is_empty()
        {
            self.alone = whole.clone();
            return Ok(());
        }
        self.ready.extend_from_slice(&std::mem::take(&mut self.alone));
        self.apart = answer.frame(&mut self.ready)?;
        Ok(())
    }
}

impl<S: Stream<Item = Result<Answer, Status>> + Unpin> Body for WatchBody<S> {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        self.gather(cx);
        if !self.alone.is_empty() {
            return Poll::Ready(Some(Ok(Frame::data(std::mem::take(&mut self.alone)))));
        }
        if !self.ready.is_empty() {
            return Poll::Ready(Some(Ok(Frame::data(self.ready.split().freeze()))));
        }
        if let Some(apart) = self.apart.take() {
            return Poll::Ready(Some(Ok(Frame::data(apart))));
        }
        match std::mem::replace(&mut self.end, End::Told) {
            End::NotYet => {
                self.end = End::NotYet;
                Poll::Pending
            }
            End::With(status) => {
                let mut trailers = HeaderMap::new();
                let told = status.add_header(&mut trailers);
                Poll::Ready(Some(told.map(|()| Frame::trailers(trailers))))
            }
            End::Told => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.end, End::Told)
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;
    use prost::Message;
    use quorate_proto::etcdserverpb as pb;
    use tokio_stream::iter;

    use super::*;
    use crate::hub::answer_with_value;

    /// The messages in a body, how many frames they came in, and the status told in the end.
    async fn read(answers: Vec<Result<Answer, Status>>) -> (Vec<pb::WatchResponse>, usize, String) {
        let mut body = WatchBody::new(iter(answers));
        let (mut bytes, mut frames) = (Vec::new(), 0);
        let trailers = loop {
            let frame = body
                .frame()
                .await
                .expect("trailers come first")
                .expect("no error");
            match frame.into_data() {
                Ok(data) => {
                    bytes.extend_from_slice(&data);
                    frames += 1;
                }
                Err(frame) => break frame.into_trailers().expect("data or trailers"),
            }
        };
        assert!(body.is_end_stream() && body.frame().await.is_none());
        let mut messages = Vec::new();
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            assert_eq!(rest[0], 0, "not compressed");
            let length = u32::from_be_bytes(rest[1..5].try_into().expect("four bytes")) as usize;
            let message = pb::WatchResponse::decode(&rest[5..5 + length]);
            messages.push(message.expect("a message"));
            rest = &rest[5 + length..];
        }
        let status = trailers["grpc-status"].to_str().expect("a number").to_owned();
        (messages, frames, status)
    }

    #[tokio::test]
    async fn answers_that_are_there_leave_together() {
        let answers: Vec<Answer> = (0..10).map(|n| answer_with_value(n, 100)).collect();
        let sent: Vec<_> = answers.iter().cloned().map(Answer::into_message).collect();
        let (got, frames, status) = read(answers.into_iter().map(Ok).collect()).await;
        assert_eq!(got, sent);
        assert_eq!((frames, status.as_str()), (1, "0"));
    }

    #[tokio::test]
    async fn large_events_follow_their_head_in_the_right_order() {
        let sizes = [10, 100_000, 20, 30, 50_000, 200_000];
        let answers: Vec<Answer> = sizes.iter().map(|size| answer_with_value(1, *size)).collect();
        let sent: Vec<_> = answers.iter().cloned().map(Answer::into_message).collect();
        let (got, _, _) = read(answers.into_iter().map(Ok).collect()).await;
        assert_eq!(got, sent);
    }

    #[tokio::test]
    async fn an_error_comes_after_what_was_said_before_it() {
        let answers = vec![Ok(answer_with_value(1, 10)), Err(Status::unavailable("gone"))];
        let (got, frames, status) = read(answers).await;
        assert_eq!((got.len(), frames, status.as_str()), (1, 1, "14"));
    }
}
