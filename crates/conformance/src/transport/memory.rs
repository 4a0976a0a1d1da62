//! A network in memory: for clusters in one process without a socket, and as the transport that the checks are known to accept.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll};

use quorate::{Accepted, Connecting, Stream, Transport};
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf, duplex};
use tokio::sync::mpsc;

/// What fits into a connection that nobody reads.
const WIRE_BYTES: usize = 64 << 10;

/// A connection on its way to whoever accepts it, and where it comes from.
type Arrival = (MemStream, String);

/// Where transports find each other. Clones are the same network.
#[derive(Clone, Debug, Default)]
pub struct MemNetwork(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    doors: BTreeMap<String, mpsc::UnboundedSender<Arrival>>,
    /// Those that do not reach each other.
    cut: BTreeSet<Places>,
    wires: Vec<Wire>,
}

/// Two of them, the lesser first.
type Places = (String, String);

/// A connection.
#[derive(Debug)]
struct Wire {
    between: Places,
    ends: [Weak<End>; 2],
}

/// One end of a connection, until it is cut.
type End = Mutex<Option<DuplexStream>>;

/// One end of a connection.
#[derive(Debug)]
struct MemStream(Arc<End>);

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn pair(one: &str, other: &str) -> Places {
    let (lesser, greater) = (one.min(other), one.max(other));
    (lesser.to_owned(), greater.to_owned())
}

/// One place in a [`MemNetwork`].
#[derive(Debug)]
pub struct MemTransport {
    network: MemNetwork,
    address: String,
    arriving: tokio::sync::Mutex<mpsc::UnboundedReceiver<Arrival>>,
}

impl MemNetwork {
    /// A network without anybody in it.
    pub fn new() -> MemNetwork {
        MemNetwork::default()
    }

    /// A transport that is reached at `address`, in place of whoever was reached there before.
    pub fn at(&self, address: impl Into<String>) -> MemTransport {
        let address = address.into();
        let (door, arriving) = mpsc::unbounded_channel();
        lock(&self.0).doors.insert(address.clone(), door);
        MemTransport {
            network: self.clone(),
            address,
            arriving: tokio::sync::Mutex::new(arriving),
        }
    }

    /// Breaks all connections between two places, and lets none be made until [`mend`](MemNetwork::mend). What is on its way is lost.
    pub fn cut(&self, one: &str, other: &str) {
        let places = pair(one, other);
        let mut state = lock(&self.0);
        let mut ends = Vec::new();
        for wire in state.wires.extract_if(.., |wire| wire.between == places) {
            ends.extend(wire.ends.iter().filter_map(Weak::upgrade));
        }
        state.cut.insert(places);
        drop(state);
        // Whoever waits at one end is woken when the other is dropped.
        for end in ends {
            let taken = lock(&end).take();
            drop(taken);
        }
    }

    /// Lets two places reach each other again.
    pub fn mend(&self, one: &str, other: &str) {
        lock(&self.0).cut.remove(&pair(one, other));
    }
}

impl Transport for MemTransport {
    fn connect<'a>(&'a self, address: &'a str) -> Connecting<'a, Box<dyn Stream>> {
        Box::pin(async move {
            let mut state = lock(&self.network.0);
            let places = pair(&self.address, address);
            if state.cut.contains(&places) {
                return Err(io::ErrorKind::HostUnreachable.into());
            }
            let (near, far) = duplex(WIRE_BYTES);
            let [near, far] = [near, far].map(|end| Arc::new(Mutex::new(Some(end))));
            let ends = [&near, &far].map(Arc::downgrade);
            let door = state.doors.get(address).ok_or(io::ErrorKind::ConnectionRefused)?;
            // Whoever was reached there is gone, if it has dropped its end.
            door.send((MemStream(far), self.address.clone()))
                .map_err(|_| io::ErrorKind::ConnectionRefused)?;
            state
                .wires
                .retain(|wire| wire.ends.iter().all(|end| end.strong_count() > 0));
            let between = places;
            state.wires.push(Wire { between, ends });
            let near = MemStream(near);
            Ok(Box::new(near) as Box<dyn Stream>)
        })
    }

    fn accept(&self) -> Connecting<'_, Accepted> {
        Box::pin(async move {
            let arrived = self.arriving.lock().await.recv().await;
            let (stream, from) = arrived.ok_or(io::ErrorKind::NotConnected)?;
            Ok(Accepted {
                stream: Box::new(stream),
                from,
            })
        })
    }
}

impl MemStream {
    fn poll<T>(
        &self,
        poll: impl FnOnce(Pin<&mut DuplexStream>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        match &mut *lock(&self.0) {
            Some(stream) => poll(Pin::new(stream)),
            None => Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
        }
    }
}

impl AsyncRead for MemStream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.poll(|stream| stream.poll_read(context, buffer))
    }
}

impl AsyncWrite for MemStream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll(|stream| stream.poll_write(context, bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll(|stream| stream.poll_write_vectored(context, slices))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll(|stream| stream.poll_flush(context))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll(|stream| stream.poll_shutdown(context))
    }
}
