//! How bytes get from one member to another: TCP, or what an application puts in its place (TLS, a tunnel, memory in tests). What the
//! bytes say, who may come in, and when to try again is not decided here.

use std::fmt::Debug;
use std::future::{Future, poll_fn};
use std::io;
use std::net::TcpListener;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

/// A connection: bytes in order in both directions.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin + 'static {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Stream for T {}

/// A future of a [`Transport`].
pub type Connecting<'a, T> = Pin<Box<dyn Future<Output = io::Result<T>> + Send + 'a>>;

/// A connection that another member has made.
pub struct Accepted {
    /// The connection.
    pub stream: Box<dyn Stream>,
    /// Where it comes from, for people. Complaints about the same place are not repeated, nor about other ports of the same IP address.
    pub from: String,
}

/// Makes and accepts the connections between members.
///
/// What is needed of it:
/// - Bytes arrive as they were written and in order, or the connection ends.
/// - What was written and flushed arrives without anything more being written.
/// - When one side drops its end, the other reads to the end of what was flushed, and then an end or an error. So also, after a while, when the
///   other side's machine has vanished.
/// - A writer waits when the reader does not read.
/// - Connections do not wait for each other.
/// - Where nobody listens, [`connect`](Transport::connect) fails; with [`io::ErrorKind::ConnectionRefused`] if, and only if, it is certain that the
///   process that listened there is gone. After a broken connection members take that for a hint that they need not wait for that process's
///   silence if it led. A wrong hint costs at most an election; with any other kind of error there are none, and the timeouts decide. A tunnel or
///   proxy that refuses for reasons of its own should report another kind.
/// - A future of it that is dropped before it is ready loses no connection and keeps nobody out. So a greeting of the transport's own (of TLS,
///   say) belongs into a task or into the first reads and writes: in [`accept`](Transport::accept), a stranger who says nothing would keep
///   members waiting.
/// - Dropped itself, it listens no more.
///
/// The handshake above it recognises members and refuses strangers, but it is no protection against malice: whoever needs that
/// authenticates in the transport. `quorate-conformance` checks a transport.
pub trait Transport: Send + Sync + Debug + 'static {
    /// Connects to a member's address, as the membership has it.
    fn connect<'a>(&'a self, address: &'a str) -> Connecting<'a, Box<dyn Stream>>;

    /// Waits for the next connection. Called by one task, again after each; an error is reported and does not end anything. A node
    /// that cannot be reached (a cluster of one) waits for ever.
    fn accept(&self) -> Connecting<'_, Accepted>;
}

/// Plain TCP, as nodes use it unless they are given something else.
#[derive(Debug)]
pub struct TcpTransport {
    listeners: Vec<tokio::net::TcpListener>,
    dead_after: Duration,
}

impl TcpTransport {
    /// Accepts on these listeners. A connection whose other machine has not answered for `dead_after` ends.
    ///
    /// # Errors
    /// If the listeners cannot be put onto the current tokio runtime.
    ///
    /// # Panics
    /// If there is none.
    pub fn new(listeners: Vec<TcpListener>, dead_after: Duration) -> io::Result<TcpTransport> {
        let mut ours = Vec::new();
        for listener in listeners {
            listener.set_nonblocking(true)?;
            ours.push(tokio::net::TcpListener::from_std(listener)?);
        }
        Ok(TcpTransport {
            listeners: ours,
            dead_after,
        })
    }
}

impl Transport for TcpTransport {
    fn connect<'a>(&'a self, address: &'a str) -> Connecting<'a, Box<dyn Stream>> {
        Box::pin(async move {
            let stream = TcpStream::connect(address).await?;
            tune(&stream, self.dead_after)?;
            Ok(Box::new(stream) as Box<dyn Stream>)
        })
    }

    fn accept(&self) -> Connecting<'_, Accepted> {
        Box::pin(async move {
            let (stream, address) = poll_fn(|context| {
                let mut ready = self.listeners.iter().map(|one| one.poll_accept(context));
                ready.find(Poll::is_ready).unwrap_or(Poll::Pending)
            })
            .await?;
            // One that is gone already is told by its first read.
            let _ = tune(&stream, self.dead_after);
            Ok(Accepted {
                stream: Box::new(stream),
                from: address.to_string(),
            })
        })
    }
}

/// Small frames must not wait for company, and a peer whose machine has vanished must be noticed although it says nothing.
fn tune(stream: &TcpStream, dead_after: Duration) -> io::Result<()> {
    stream.set_nodelay(true)?;
    rustix::net::sockopt::set_socket_keepalive(stream, true)?;
    #[cfg(target_os = "linux")]
    {
        use rustix::net::sockopt;
        let millis = u32::try_from(dead_after.as_millis()).unwrap_or(u32::MAX);
        sockopt::set_tcp_keepidle(stream, dead_after.max(Duration::from_secs(1)))?;
        sockopt::set_tcp_keepintvl(stream, Duration::from_secs(1))?;
        sockopt::set_tcp_keepcnt(stream, 3)?;
        sockopt::set_tcp_user_timeout(stream, millis)?;
    }
    #[cfg(not(target_os = "linux"))]
    let _ = dead_after;
    Ok(())
}
