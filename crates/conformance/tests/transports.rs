//! TCP and the network in memory under the checks; and transports with one flaw each, so that every check is seen to fail.

use std::future::poll_fn;
use std::io;
use std::net::TcpListener;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use quorate::{Accepted, Connecting, Stream, TcpTransport, Transport};
use quorate_conformance::transport::{Ends, MemNetwork, contract};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

const PATIENCE: Duration = Duration::from_secs(60);

async fn tcp() -> io::Result<Ends> {
    let bind = || TcpListener::bind("127.0.0.1:0");
    let listener = bind()?;
    // Free again at once, and nobody's by itself.
    let nowhere = bind()?.local_addr()?.to_string();
    let address = listener.local_addr()?.to_string();
    Ok(Ends {
        dials: Arc::new(TcpTransport::new(Vec::new(), PATIENCE)?),
        listens: Arc::new(TcpTransport::new(vec![listener], PATIENCE)?),
        address,
        nowhere,
    })
}

async fn in_memory() -> io::Result<Ends> {
    let network = MemNetwork::new();
    Ok(Ends {
        dials: Arc::new(network.at("a")),
        listens: Arc::new(network.at("b")),
        address: "b".to_owned(),
        nowhere: "c".to_owned(),
    })
}

#[tokio::test]
async fn tcp_and_memory_carry_what_members_need() {
    let report = contract(tcp, PATIENCE).await.unwrap();
    assert_eq!(report.checks, 11);
    contract(in_memory, PATIENCE).await.unwrap();
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flaw {
    /// One byte in a million is another one.
    FlipsABit,
    /// Sends full packets only.
    WaitsForMore,
    /// Dropping an end tells nobody.
    NeverEnds,
    /// The last packet before the end is lost.
    CutsTheEnd,
    /// Connects to whatever address.
    ReachesEverybody,
    /// Takes in whatever is written.
    NeverWaits,
    /// A connection that has ended ends the listener.
    GivesUp,
    /// Reads nothing while a write waits.
    TakesTurns,
    /// Takes what is written to a connection that has ended.
    WritesToNobody,
    /// Tries for ever to reach an address.
    NeverDespairs,
    /// A write that waits keeps those to other connections waiting, too.
    Entangles,
    /// Forgets the connection that it was about to hand out when it is given up.
    Forgets,
    /// One that is given up while it connects leaves a door locked.
    LocksTheDoor,
    /// Serves no more than so many connections.
    IsSmall,
    /// Listens when it is gone, too.
    Outlives,
}

use Flaw::*;

#[derive(Debug)]
struct Broken {
    inner: Arc<dyn Transport>,
    flaw: Flaw,
    known: String,
    dead: AtomicBool,
    /// One for each stream; whether one of them waits, or somebody is at the door.
    shared: Arc<AtomicBool>,
}

impl Transport for Broken {
    fn connect<'a>(&'a self, address: &'a str) -> Connecting<'a, Box<dyn Stream>> {
        Box::pin(async move {
            let address = if self.flaw == ReachesEverybody {
                &self.known
            } else {
                address
            };
            if self.flaw == LocksTheDoor {
                if self.shared.swap(true, Ordering::Relaxed) {
                    return std::future::pending().await;
                }
                tokio::task::yield_now().await;
                self.shared.store(false, Ordering::Relaxed);
            }
            if self.flaw == IsSmall && Arc::strong_count(&self.shared) > 50 {
                return Err(io::ErrorKind::QuotaExceeded.into());
            }
            let inner = match self.inner.connect(address).await {
                Err(_) if self.flaw == NeverDespairs => std::future::pending().await,
                connected => connected?,
            };
            Ok(self.stream(inner))
        })
    }

    fn accept(&self) -> Connecting<'_, Accepted> {
        Box::pin(async move {
            if self.flaw == GivesUp {
                if self.dead.load(Ordering::Relaxed) {
                    return std::future::pending().await;
                }
                // One that is not there any more is taken too much to heart.
                let mut accepted = self.inner.accept().await?;
                let mut first = [0; 1];
                let mut first = ReadBuf::new(&mut first);
                let looked = poll_fn(|context| {
                    Poll::Ready(Pin::new(&mut accepted.stream).poll_read(context, &mut first))
                });
                let ended = matches!(looked.await, Poll::Ready(_));
                self.dead.store(ended, Ordering::Relaxed);
                return Ok(accepted);
            }
            let Accepted { stream, from } = self.inner.accept().await?;
            if self.flaw == Forgets {
                tokio::task::yield_now().await;
            }
            let stream = self.stream(stream);
            Ok(Accepted { stream, from })
        })
    }
}

impl Broken {
    fn stream(&self, inner: Box<dyn Stream>) -> Box<dyn Stream> {
        Box::new(BrokenStream {
            inner: Some(inner),
            flaw: self.flaw,
            written: 0,
            held: Vec::new(),
            waits: false,
            shared: self.shared.clone(),
        })
    }
}

impl Drop for Broken {
    fn drop(&mut self) {
        if self.flaw == Outlives {
            std::mem::forget(self.inner.clone());
        }
    }
}

struct BrokenStream {
    inner: Option<Box<dyn Stream>>,
    flaw: Flaw,
    written: usize,
    held: Vec<u8>,
    /// Whether a write waits.
    waits: bool,
    shared: Arc<AtomicBool>,
}

impl BrokenStream {
    fn inner(&mut self) -> Pin<&mut Box<dyn Stream>> {
        Pin::new(self.inner.as_mut().expect("until it is dropped"))
    }

    /// Passes on what was held back.
    fn poll_held(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.held.is_empty() {
            let held = std::mem::take(&mut self.held);
            let written = self.inner().poll_write(context, &held);
            self.held = held;
            let written = ready!(written)?;
            self.held.drain(..written);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for BrokenStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.flaw == TakesTurns && self.waits {
            return Poll::Pending;
        }
        self.inner().poll_read(context, buffer)
    }
}

impl AsyncWrite for BrokenStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.flaw {
            FlipsABit if self.written < 1_000_000 && self.written + bytes.len() >= 1_000_000 => {
                let mut bytes = bytes.to_vec();
                bytes[0] ^= 1;
                let written = ready!(self.inner().poll_write(context, &bytes))?;
                self.written += written;
                Poll::Ready(Ok(written))
            }
            WaitsForMore | CutsTheEnd => {
                // Everything but the last part of what there is.
                ready!(self.poll_held(context))?;
                self.held = bytes.to_vec();
                Poll::Ready(Ok(bytes.len()))
            }
            NeverWaits => {
                self.held.extend_from_slice(bytes);
                let _later = self.poll_held(context)?;
                Poll::Ready(Ok(bytes.len()))
            }
            Entangles if !self.waits && self.shared.load(Ordering::Relaxed) => Poll::Pending,
            _ => {
                let written = self.inner().poll_write(context, bytes);
                self.waits = written.is_pending();
                if self.flaw == Entangles {
                    self.shared.store(self.waits, Ordering::Relaxed);
                }
                let written = match ready!(written) {
                    Err(_) if self.flaw == WritesToNobody => bytes.len(),
                    written => written?,
                };
                self.written += written;
                Poll::Ready(Ok(written))
            }
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Large ones go, small ones wait for company; or the flush is forgotten at the end only.
        let goes = match self.flaw {
            WaitsForMore => self.held.len() > 1,
            CutsTheEnd => self.held.len() != 10_000,
            _ => true,
        };
        if goes {
            ready!(self.poll_held(context))?;
        }
        self.inner().poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.inner().poll_shutdown(context)
    }
}

impl Drop for BrokenStream {
    fn drop(&mut self) {
        if self.flaw == NeverEnds {
            std::mem::forget(self.inner.take());
        }
    }
}

/// The check at which a transport with this flaw fails.
async fn failing(flaw: Flaw) -> String {
    let fresh = || async move {
        let ends = in_memory().await?;
        let broken = |inner| {
            Arc::new(Broken {
                inner,
                flaw,
                known: ends.address.clone(),
                dead: false.into(),
                shared: Arc::default(),
            })
        };
        Ok(Ends {
            dials: broken(ends.dials.clone()),
            listens: broken(ends.listens.clone()),
            ..ends.clone()
        })
    };
    // What never comes is waited for this long, and what does come takes no time worth mentioning.
    let failure = contract(fresh, Duration::from_secs(20)).await;
    failure.expect_err("a flaw").to_string()
}

#[test]
fn each_check_can_fail() {
    let flaws = [
        (FlipsABit, "bytes arrive as they were written"),
        (WaitsForMore, "what was flushed arrives"),
        (NeverEnds, "when one side drops its end"),
        (CutsTheEnd, "when one side drops its end"),
        (ReachesEverybody, "connecting to where nobody listens"),
        (NeverWaits, "connections do not wait for each other"),
        (GivesUp, "connections that end at once"),
        (TakesTurns, "bytes arrive as they were written"),
        (WritesToNobody, "when one side drops its end, the other cannot"),
        (NeverDespairs, "connecting to where nobody listens"),
        (Entangles, "connections do not wait for each other"),
        (Forgets, "an accept that is given up"),
        (LocksTheDoor, "a connect that is given up"),
        (IsSmall, "many connections"),
        (Outlives, "a transport that is dropped"),
    ];
    // All at once, since most of the time goes by in waiting.
    std::thread::scope(|scope| {
        for (flaw, check) in flaws {
            scope.spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()
                    .unwrap();
                let failure = runtime.block_on(failing(flaw));
                assert!(failure.starts_with(check), "{flaw:?}: {failure}");
            });
        }
    });
}
