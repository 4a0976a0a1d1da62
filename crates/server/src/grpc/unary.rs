//! The unary calls that make up nearly all traffic, served without the router and the codec that all others pass: a message is decoded
//! from the bytes that came and encoded into the bytes that leave. What these calls do is in [`super::kv`]; this file is the framing of
//! gRPC alone.

use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use http_body::Frame;
use prost::Message;
use quorate_proto::etcdserverpb::kv_server::Kv;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::StdError;
use tonic::codegen::http::{HeaderMap, HeaderValue, Method, Request, Response, header};
use tonic::metadata::MetadataMap;

use super::Api;
use crate::errors;

/// A message follows a flag (is it compressed?) and its length.
const PREFIX: usize = 5;
/// The service of all calls here.
const SERVICE: &str = "/etcdserverpb.KV/";

/// A call that is served here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    Range,
    Put,
    DeleteRange,
    Txn,
}

impl Call {
    /// The call that the request makes, if it is one of these and comes without compression.
    pub fn of<B>(request: &Request<B>) -> Option<Call> {
        let call = match request.uri().path().strip_prefix(SERVICE)? {
            "Range" => Call::Range,
            "Put" => Call::Put,
            "DeleteRange" => Call::DeleteRange,
            "Txn" => Call::Txn,
            _ => return None,
        };
        let plain = match request.headers().get("grpc-encoding") {
            None => true,
            Some(encoding) => encoding == "identity",
        };
        (request.method() == Method::POST && plain).then_some(call)
    }
}

/// Serves a call.
pub(crate) async fn serve<B>(call: Call, api: Api, request: Request<B>) -> Response<Body>
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<StdError>,
{
    let limit = api.message_limit();
    let answer = match call {
        Call::Range => unary(request, limit, |request| api.range(request)).await,
        Call::Put => unary(request, limit, |request| api.put(request)).await,
        Call::DeleteRange => unary(request, limit, |request| api.delete_range(request)).await,
        Call::Txn => unary(request, limit, |request| api.txn(request)).await,
    };
    answer.map_or_else(Status::into_http, respond)
}

/// One call: the answer's message, framed.
async fn unary<B, Q, A, F>(
    request: Request<B>,
    limit: usize,
    call: impl FnOnce(tonic::Request<Q>) -> F,
) -> Result<Bytes, Status>
where
    B: http_body::Body<Data = Bytes>,
    B::Error: Into<StdError>,
    Q: Message + Default,
    A: Message,
    F: Future<Output = Result<tonic::Response<A>, Status>>,
{
    let (head, body) = request.into_parts();
    let message = Q::decode(receive(body, limit).await?)
        .map_err(|error| Status::internal(format!("the request's message does not parse: {error}")))?;
    let metadata = MetadataMap::from_headers(head.headers);
    let answer = call(tonic::Request::from_parts(metadata, head.extensions, message)).await?;
    framed(answer.get_ref())
}

/// The bytes of the one message of a request. They are not copied if they came in one piece, as they nearly always do.
async fn receive<B>(body: B, limit: usize) -> Result<Bytes, Status>
where
    B: http_body::Body<Data = Bytes>,
    B::Error: Into<StdError>,
{
    let mut body = pin!(body);
    let mut first = Bytes::new();
    let mut all = BytesMut::new();
    while let Some(frame) = poll_fn(|context| body.as_mut().poll_frame(context)).await {
        let frame =
            frame.map_err(|error| Status::cancelled(format!("the request broke off: {}", error.into())))?;
        let Ok(data) = frame.into_data() else { continue };
        if first.is_empty() && all.is_empty() {
            first = data;
        } else {
            if all.is_empty() {
                all.extend_from_slice(&std::mem::take(&mut first));
            }
            all.extend_from_slice(&data);
        }
        check(if all.is_empty() { &first } else { &all }, limit)?;
        if body.is_end_stream() {
            break;
        }
    }
    let mut message = if all.is_empty() { first } else { all.freeze() };
    if message.len() < PREFIX || message.len() - PREFIX < announced(&message) {
        return Err(Status::internal("the request ended within its message"));
    }
    message.advance(PREFIX);
    Ok(message)
}

/// The length of the message as its prefix says it; the prefix is there.
fn announced(framed: &[u8]) -> usize {
    let (_, mut length) = framed.split_at(1);
    length.get_u32() as usize
}

/// What can be said of a request of which this much has come.
fn check(framed: &[u8], limit: usize) -> Result<(), Status> {
    if framed.len() < PREFIX {
        return Ok(());
    }
    if framed[0] != 0 {
        return Err(Status::internal(
            "a compressed message without an encoding in the request's headers",
        ));
    }
    let length = announced(framed);
    if length > limit {
        return Err(errors::message_too_long(limit));
    }
    if framed.len() - PREFIX > length {
        return Err(Status::internal("more than one message in a call that takes one"));
    }
    Ok(())
}

fn framed(message: &impl Message) -> Result<Bytes, Status> {
    let length = message.encoded_len();
    let Ok(prefix) = u32::try_from(length) else {
        return Err(Status::resource_exhausted(
            "the answer is longer than 4 GiB, more than one message can be",
        ));
    };
    let mut bytes = BytesMut::with_capacity(PREFIX + length);
    bytes.put_u8(0);
    bytes.put_u32(prefix);
    message.encode(&mut bytes).expect("there is room");
    Ok(bytes.freeze())
}

fn respond(message: Bytes) -> Response<Body> {
    let mut response = Response::new(Body::new(Answer(Step::Message(message))));
    let grpc = HeaderValue::from_static("application/grpc");
    response.headers_mut().insert(header::CONTENT_TYPE, grpc);
    response
}

/// The body of an answer: the message, then the trailers that say that all is well.
struct Answer(Step);

enum Step {
    Message(Bytes),
    Trailers,
    Done,
}

impl http_body::Body for Answer {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(match std::mem::replace(&mut self.0, Step::Done) {
            Step::Message(message) => {
                self.0 = Step::Trailers;
                Some(Ok(Frame::data(message)))
            }
            Step::Trailers => {
                let mut trailers = HeaderMap::with_capacity(1);
                trailers.insert(Status::GRPC_STATUS, HeaderValue::from_static("0"));
                Some(Ok(Frame::trailers(trailers)))
            }
            Step::Done => None,
        })
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.0, Step::Done)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use tonic::Code;

    use super::*;

    /// A body that comes in these pieces.
    struct Pieces(VecDeque<Bytes>);

    impl http_body::Body for Pieces {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            Poll::Ready(self.0.pop_front().map(|piece| Ok(Frame::data(piece))))
        }
    }

    async fn received(pieces: &[&[u8]], limit: usize) -> Result<Bytes, (Code, String)> {
        let pieces = pieces.iter().map(|piece| Bytes::copy_from_slice(piece)).collect();
        receive(Pieces(pieces), limit)
            .await
            .map_err(|status| (status.code(), status.message().to_owned()))
    }

    #[tokio::test]
    async fn a_message_may_come_in_any_pieces() {
        let whole = b"\0\0\0\0\x04abcd";
        for cut in 0..=whole.len() {
            let (one, two) = whole.split_at(cut);
            assert_eq!(
                received(&[one, two], 4).await,
                Ok(Bytes::from_static(b"abcd")),
                "{cut}"
            );
        }
        let bytes: Vec<&[u8]> = whole.chunks(1).collect();
        assert_eq!(received(&bytes, 4).await, Ok(Bytes::from_static(b"abcd")));
        assert_eq!(
            received(&[b"\0\0\0\0\0"], 4).await,
            Ok(Bytes::new()),
            "an empty one"
        );
    }

    #[tokio::test]
    async fn what_is_no_message_is_refused() {
        let code = async |pieces: &[&[u8]]| received(pieces, 4).await.expect_err("refused").0;
        assert_eq!(code(&[]).await, Code::Internal, "nothing");
        assert_eq!(code(&[b"\0\0\0"]).await, Code::Internal, "half a prefix");
        assert_eq!(code(&[b"\0\0\0\0\x04abc"]).await, Code::Internal, "too short");
        assert_eq!(code(&[b"\0\0\0\0\x04abcde"]).await, Code::Internal, "too long");
        assert_eq!(code(&[b"\x01\0\0\0\x04abcd"]).await, Code::Internal, "compressed");
        assert_eq!(
            code(&[b"\0\0\0\0\x05a"]).await,
            Code::ResourceExhausted,
            "over the limit"
        );
    }

    #[test]
    fn other_calls_are_not_served_here() {
        let request = |path: &str| Request::post(format!("http://a{path}"));
        let call = |request: Request<()>| Call::of(&request);
        let range = || request("/etcdserverpb.KV/Range");
        assert_eq!(call(range().body(()).expect("a request")), Some(Call::Range));
        let zipped = range().header("grpc-encoding", "gzip");
        assert_eq!(call(zipped.body(()).expect("a request")), None);
        let plain = range().header("grpc-encoding", "identity");
        assert_eq!(call(plain.body(()).expect("a request")), Some(Call::Range));
        assert_eq!(call(range().method("GET").body(()).expect("a request")), None);
        for path in [
            "/etcdserverpb.KV/Compact",
            "/etcdserverpb.KV/Rang",
            "/etcdserverpb.Lease/Range",
            "/",
        ] {
            assert_eq!(call(request(path).body(()).expect("a request")), None, "{path}");
        }
    }
}
