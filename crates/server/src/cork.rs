//! [`Cork`]: what a connection writes in one turn leaves in one system call. The HTTP/2 layer writes out every frame of more than a
//! few hundred bytes at once, so that ten answers or ten watchers' events on a connection would cost ten calls. Here its
//! writes gather in a buffer, and whoever polls the connection empties it afterwards.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Bytes that may gather; beyond, they are written at once, and writing waits for the peer.
const LIMIT: usize = 64 << 10;

/// What of the buffer a connection keeps when it is empty.
const KEPT: usize = 16 << 10;

/// A socket whose writes gather until [`uncorked`] takes them out. Clones share it.
#[derive(Debug)]
pub(crate) struct Cork<T>(Arc<Mutex<Inner<T>>>);

#[derive(Debug)]
struct Inner<T> {
    socket: T,
    gathered: BytesMut,
    /// The most bytes that it held since it was last empty.
    most: usize,
    /// Why writing out failed. The connection is told as soon as it reads or writes.
    failed: Option<io::Error>,
}

impl<T> Clone for Cork<T> {
    fn clone(&self) -> Cork<T> {
        Cork(self.0.clone())
    }
}

impl<T> Cork<T> {
    pub fn new(socket: T) -> Cork<T> {
        Cork(Arc::new(Mutex::new(Inner {
            socket,
            gathered: BytesMut::new(),
            most: 0,
            failed: None,
        })))
    }

    /// Only one task uses a connection: nobody ever waits here.
    fn lock(&self) -> MutexGuard<'_, Inner<T>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Polls a connection over `cork` to its end, and writes out what gathered after each time.
pub(crate) async fn uncorked<T, C>(mut connection: Pin<&mut C>, cork: &Cork<T>) -> C::Output
where
    T: AsyncWrite + Unpin,
    C: Future,
{
    std::future::poll_fn(|cx| {
        let ended = connection.as_mut().poll(cx);
        let mut inner = cork.lock();
        if let Poll::Ready(Err(error)) = inner.poll_drain(cx) {
            // Nobody takes the rest any more, and a second try would only fail again.
            inner.gathered = BytesMut::new();
            inner.failed = Some(error);
            cx.waker().wake_by_ref();
        }
        // If this is the end and the peer does not read, the rest is lost; one that ended in order was shut down, and has no rest.
        ended
    })
    .await
}

impl<T> Inner<T> {
    fn check(&mut self) -> io::Result<()> {
        self.failed.take().map_or(Ok(()), Err)
    }
}

impl<T: AsyncWrite + Unpin> Inner<T> {
    /// Writes out what gathered.
    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.gathered.is_empty() {
            let written = ready!(Pin::new(&mut self.socket).poll_write(cx, &self.gathered))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.gathered.advance(written);
        }
        // Not by the buffer's capacity, of which what was written out is no part any more.
        if std::mem::take(&mut self.most) > KEPT {
            self.gathered = BytesMut::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Cork<T> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut inner = self.lock();
        inner.check()?;
        Pin::new(&mut inner.socket).poll_read(cx, into)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Cork<T> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, from: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(from)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        from: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut inner = self.lock();
        inner.check()?;
        let length = from.iter().map(|slice| slice.len()).sum();
        if inner.gathered.len() + length > LIMIT {
            ready!(inner.poll_drain(cx))?;
        }
        if length > LIMIT {
            return Pin::new(&mut inner.socket).poll_write_vectored(cx, from);
        }
        from.iter()
            .for_each(|slice| inner.gathered.extend_from_slice(slice));
        inner.most = inner.most.max(inner.gathered.len());
        Poll::Ready(Ok(length))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// Left to [`uncorked`]: the connection may have more to write in this turn. But a connection that neither reads nor writes learns
    /// here that it is broken.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.lock().check())
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut inner = self.lock();
        ready!(inner.poll_drain(cx))?;
        Pin::new(&mut inner.socket).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

    use super::*;

    /// A socket that counts what is written to it.
    struct Counting {
        socket: DuplexStream,
        writes: usize,
        fails: bool,
    }

    impl AsyncRead for Counting {
        fn poll_read(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            into: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            Pin::new(&mut self.socket).poll_read(cx, into)
        }
    }

    impl AsyncWrite for Counting {
        fn poll_write(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            from: &[u8],
        ) -> Poll<io::Result<usize>> {
            if self.fails {
                return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
            }
            self.writes += 1;
            Pin::new(&mut self.socket).poll_write(cx, from)
        }

        fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.socket).poll_flush(cx)
        }

        fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.socket).poll_shutdown(cx)
        }
    }

    fn pair(capacity: usize) -> (Cork<Counting>, DuplexStream) {
        let (socket, peer) = duplex(capacity);
        let counting = Counting {
            socket,
            writes: 0,
            fails: false,
        };
        (Cork::new(counting), peer)
    }

    #[tokio::test]
    async fn a_turns_writes_leave_together_when_it_ends() {
        let (cork, mut peer) = pair(1 << 20);
        let mut io = cork.clone();
        let turns = async {
            for n in 0..3u8 {
                for _ in 0..10 {
                    io.write_all(&[n; 500]).await.expect("room");
                    io.flush().await.expect("nothing to do yet");
                }
                assert_eq!(
                    io.lock().socket.writes,
                    usize::from(n),
                    "nothing leaves within a turn"
                );
                tokio::task::yield_now().await;
            }
        };
        uncorked(std::pin::pin!(turns), &cork).await;
        let mut got = vec![0; 15_000];
        peer.read_exact(&mut got).await.expect("all of it");
        let expected: Vec<u8> = (0..3).flat_map(|n| [n; 5_000]).collect();
        assert_eq!(got, expected);
        assert_eq!(
            cork.lock().socket.writes,
            3,
            "one write a turn, the last one at the end"
        );
    }

    #[tokio::test]
    async fn what_gathers_is_bounded_by_the_peers_reading() {
        let (cork, mut peer) = pair(1000);
        let mut io = cork.clone();
        let sent: Vec<u8> = (0..1_000_000u32).map(|n| n.to_le_bytes()[0]).collect();
        let writing = async {
            for chunk in sent.chunks(7_000) {
                io.write_all(chunk).await.expect("room in the end");
                assert!(io.lock().gathered.len() <= LIMIT);
            }
            io.write_all(&sent).await.expect("more than may gather");
            io.shutdown().await.expect("everything is out by then");
        };
        let reading = async {
            let mut got = Vec::new();
            peer.read_to_end(&mut got).await.expect("an end");
            got
        };
        let writing = std::pin::pin!(writing);
        let (_, got) = tokio::join!(uncorked(writing, &cork), reading);
        assert_eq!(got.len(), 2 * sent.len());
        assert!(got == [&sent[..], &sent[..]].concat(), "in order");
        assert_eq!(cork.lock().gathered.capacity(), 0, "an idle connection is small");
    }

    #[tokio::test]
    async fn a_failed_write_reaches_a_connection_that_only_flushes() {
        let (cork, _peer) = pair(1000);
        let mut io = cork.clone();
        let connection = async {
            io.write_all(b"lost").await.expect("it gathers");
            io.lock().socket.fails = true;
            let mut polls = 0;
            let ended = poll_fn(|cx| {
                polls += 1;
                match Pin::new(&mut io).poll_flush(cx) {
                    Poll::Ready(Ok(())) => Poll::Pending,
                    ended => ended,
                }
            });
            (ended.await, polls)
        };
        let (ended, polls) = uncorked(std::pin::pin!(connection), &cork).await;
        assert_eq!(ended.expect_err("told").kind(), io::ErrorKind::BrokenPipe);
        assert_eq!(polls, 2, "woken once, to be told");
    }

    #[tokio::test]
    async fn a_failed_write_reaches_the_connection() {
        let (cork, _peer) = pair(1000);
        let mut io = cork.clone();
        let connection = async {
            io.write_all(b"lost").await.expect("it gathers");
            io.lock().socket.fails = true;
            io.read_u8().await
        };
        let ended = uncorked(std::pin::pin!(connection), &cork).await;
        assert_eq!(ended.expect_err("told").kind(), io::ErrorKind::BrokenPipe);
        assert!(cork.lock().gathered.is_empty(), "nobody tries that again");
    }
}
