//! gRPC on an HTTP/2 connection, without the layers of a general client: a load generator shares its machine with what it
//! measures, so that each microsecond here is missing there. Dialling again and moving on is in [`super::link`].

use std::future::poll_fn;
use std::time::Duration;

use bytes::Bytes;
use h2::client::{Connection, ResponseFuture, SendRequest};
use h2::{Reason, RecvStream, SendStream};
use http::request::Parts;
use http::{HeaderMap, Method, Request, StatusCode, Version};
use tokio::net::TcpStream;

use super::scan::{Messages, joined};

/// How one call went wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// The server answered with an error.
    #[error("{message}")]
    Status {
        /// gRPC's number of it.
        code: i32,
        /// The server's words.
        message: String,
    },
    /// There is no connection, or it broke.
    #[error("{0}")]
    Connection(String),
    /// No answer came in time.
    #[error("no answer in time")]
    Timeout,
    /// The answer is not one to this request.
    #[error("unreadable answer: {0}")]
    Unreadable(String),
}

/// Flow control is not what is measured: as much as any answer may need.
const WINDOW: u32 = 16 << 20;

/// A server, as its URL names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// `http://host:port`
    pub url: String,
    /// `host:port`
    authority: String,
}

impl Endpoint {
    /// `url` begins with `http://`.
    pub fn new(url: &str) -> Endpoint {
        Endpoint {
            url: url.to_owned(),
            authority: url.trim_start_matches("http://").to_owned(),
        }
    }

    /// Connects. The connection does nothing unless it is polled.
    pub async fn dial(
        &self,
        timeout: Duration,
    ) -> Result<(SendRequest<Bytes>, Connection<TcpStream, Bytes>), String> {
        let dial = async {
            let stream = TcpStream::connect(&self.authority)
                .await
                .map_err(|error| error.to_string())?;
            stream.set_nodelay(true).map_err(|error| error.to_string())?;
            h2::client::Builder::new()
                .initial_window_size(WINDOW)
                .initial_connection_window_size(WINDOW)
                .enable_push(false)
                .handshake(stream)
                .await
                .map_err(|error| error.to_string())
        };
        tokio::time::timeout(timeout, dial)
            .await
            .unwrap_or_else(|_| Err("no connection in time".to_owned()))
            .map_err(|why| format!("{}: {why}", self.url))
    }

    /// The head of all calls of one method.
    pub fn head(&self, path: &str) -> Parts {
        let request = Request::builder()
            .method(Method::POST)
            .version(Version::HTTP_2)
            .uri(format!("{}{path}", self.url))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(());
        request.expect("endpoints are checked URLs").into_parts().0
    }
}

/// One call: a message, and the message that answers it.
pub async fn unary(send: &mut SendRequest<Bytes>, head: &Parts, message: Bytes) -> Result<Bytes, Fault> {
    poll_fn(|cx| send.poll_ready(cx)).await.map_err(broken)?;
    let (response, mut stream) = send
        .send_request(Request::from_parts(head.clone(), ()), false)
        .map_err(broken)?;
    stream.send_data(message, true).map_err(broken)?;
    let (head, mut body) = response.await.map_err(broken)?.into_parts();
    check_head(head.status, &head.headers)?;
    let mut answer = Bytes::new();
    while let Some(part) = next(&mut body).await? {
        answer = if answer.is_empty() {
            part
        } else {
            joined(answer, &part)
        };
    }
    let trailers = body.trailers().await.map_err(broken)?;
    check_trailers(trailers.as_ref())?;
    unframed(answer)
}

/// A call of which both sides send several messages.
#[derive(Debug)]
pub struct Duplex {
    send: SendStream<Bytes>,
    answers: Answers,
    messages: Messages,
}

#[derive(Debug)]
enum Answers {
    /// The answer has not begun, which with some servers it only does with its first message.
    Awaited(ResponseFuture),
    Begun(RecvStream),
}

impl Duplex {
    /// Begins the call.
    pub async fn open(send: &mut SendRequest<Bytes>, head: &Parts) -> Result<Duplex, Fault> {
        poll_fn(|cx| send.poll_ready(cx)).await.map_err(broken)?;
        let (response, stream) = send
            .send_request(Request::from_parts(head.clone(), ()), false)
            .map_err(broken)?;
        Ok(Duplex {
            send: stream,
            answers: Answers::Awaited(response),
            messages: Messages::default(),
        })
    }

    /// Sends a message.
    pub fn send(&mut self, message: Bytes) -> Result<(), Fault> {
        self.send.send_data(message, false).map_err(broken)
    }

    /// The next message of the server. That it sends no more is a fault: nobody here asks it to end.
    pub async fn receive(&mut self) -> Result<Bytes, Fault> {
        loop {
            if let Some(message) = self.messages.pop() {
                return Ok(message);
            }
            match &mut self.answers {
                Answers::Awaited(response) => {
                    let (head, body) = response.await.map_err(broken)?.into_parts();
                    check_head(head.status, &head.headers)?;
                    self.answers = Answers::Begun(body);
                }
                Answers::Begun(body) => match next(body).await? {
                    Some(piece) => self.messages.push(piece),
                    None => {
                        let trailers = body.trailers().await.map_err(broken)?;
                        check_trailers(trailers.as_ref())?;
                        return Err(Fault::Connection("the server ended the stream".to_owned()));
                    }
                },
            }
        }
    }
}

/// The next piece of an answer; flow control goes on at once.
async fn next(body: &mut RecvStream) -> Result<Option<Bytes>, Fault> {
    let Some(part) = body.data().await else {
        return Ok(None);
    };
    let part = part.map_err(broken)?;
    body.flow_control().release_capacity(part.len()).map_err(broken)?;
    Ok(Some(part))
}

/// Errors of the connection or the stream. They are counted by their text, so it must not hold what differs each time.
fn broken(error: h2::Error) -> Fault {
    match error.get_io() {
        Some(io) => Fault::Connection(format!("connection lost: {}", io.kind())),
        None if error.is_reset() && error.reason() == Some(Reason::CANCEL) => {
            Fault::Connection("the server cancelled the call".to_owned())
        }
        None => Fault::Connection(error.to_string()),
    }
}

/// Refuses what is not gRPC, and takes up a status that is there instead of an answer.
fn check_head(status: StatusCode, headers: &HeaderMap) -> Result<(), Fault> {
    if status != StatusCode::OK {
        return Err(Fault::Unreadable(format!("HTTP {status}")));
    }
    match headers.get("grpc-status") {
        Some(_) => check_trailers(Some(headers)),
        None => Ok(()),
    }
}

/// The status at the end of a stream.
fn check_trailers(trailers: Option<&HeaderMap>) -> Result<(), Fault> {
    let code = trailers.and_then(|trailers| trailers.get("grpc-status"));
    let Some(code) = code else {
        return Err(Fault::Unreadable("no grpc-status".to_owned()));
    };
    if code == "0" {
        return Ok(());
    }
    let Some(code) = code.to_str().ok().and_then(|code| code.parse().ok()) else {
        return Err(Fault::Unreadable("grpc-status is not a number".to_owned()));
    };
    let message = trailers
        .and_then(|trailers| trailers.get("grpc-message"))
        .map(|message| percent_decoded(message.as_bytes()))
        .filter(|message| !message.is_empty())
        .unwrap_or_else(|| format!("gRPC status {code}"));
    Err(Fault::Status { code, message })
}

/// gRPC's messages are UTF-8 with the bytes that HTTP headers cannot carry as %XX.
fn percent_decoded(text: &[u8]) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&first, tail)) = rest.split_first() {
        let hex = (first == b'%')
            .then(|| tail.get(..2))
            .flatten()
            .and_then(|hex| std::str::from_utf8(hex).ok())
            .and_then(|hex| u8::from_str_radix(hex, 16).ok());
        bytes.push(hex.unwrap_or(first));
        rest = if hex.is_some() { &tail[2..] } else { tail };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The one message in an answer's body.
fn unframed(body: Bytes) -> Result<Bytes, Fault> {
    let Some((head, message)) = body.split_first_chunk::<5>() else {
        return Err(Fault::Unreadable("shorter than a message's head".to_owned()));
    };
    let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]);
    if head[0] != 0 || length as usize != message.len() {
        return Err(Fault::Unreadable("not one uncompressed message".to_owned()));
    }
    Ok(body.slice(5..))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_exactly_one_message() {
        let body = |bytes: &'static [u8]| unframed(Bytes::from_static(bytes));
        assert_eq!(body(&[0, 0, 0, 0, 2, 7, 8]), Ok(Bytes::from_static(&[7, 8])));
        assert_eq!(body(&[0, 0, 0, 0, 0]), Ok(Bytes::new()));
        for wrong in [
            &[][..],
            &[0, 0, 0, 0, 2, 7],
            &[0, 0, 0, 0, 1, 7, 8],
            &[1, 0, 0, 0, 0],
        ] {
            assert!(matches!(body(wrong), Err(Fault::Unreadable(_))), "{wrong:?}");
        }
    }

    #[test]
    fn a_status_other_than_zero_is_the_servers_message() {
        let trailers = |code: &str, message: &str| {
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", code.parse().expect("a header"));
            trailers.insert("grpc-message", message.parse().expect("a header"));
            check_trailers(Some(&trailers))
        };
        assert_eq!(trailers("0", ""), Ok(()));
        let message = |message: &str| {
            Err(Fault::Status {
                code: 14,
                message: message.to_owned(),
            })
        };
        assert_eq!(
            trailers("14", "etcdserver: no leader"),
            message("etcdserver: no leader")
        );
        assert_eq!(trailers("14", "50%25 %c3%a4%"), message("50% ä%"));
        assert_eq!(trailers("14", ""), message("gRPC status 14"));
        assert!(matches!(trailers("x", ""), Err(Fault::Unreadable(_))));
        assert!(matches!(check_trailers(None), Err(Fault::Unreadable(_))));
    }
}
