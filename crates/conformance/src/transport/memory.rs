//! A network in memory: for clusters in one process without a socket, and as the transport that the checks are known to accept.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use quorate::{Accepted, Connecting, Stream, Transport};
use tokio::io::{DuplexStream, duplex};
use tokio::sync::mpsc;

/// What fits into a connection that nobody reads.
const WIRE_BYTES: usize = 64 << 10;

type Doors = Arc<Mutex<BTreeMap<String, mpsc::UnboundedSender<(DuplexStream, String)>>>>;

/// Where transports find each other. Clones are the same network.
#[derive(Clone, Debug, Default)]
pub struct MemNetwork(Doors);

/// One place in a [`MemNetwork`].
#[derive(Debug)]
pub struct MemTransport {
    network: MemNetwork,
    address: String,
    arriving: tokio::sync::Mutex<mpsc::UnboundedReceiver<(DuplexStream, String)>>,
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
        let mut doors = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        doors.insert(address.clone(), door);
        drop(doors);
        MemTransport {
            network: self.clone(),
            address,
            arriving: tokio::sync::Mutex::new(arriving),
        }
    }
}

impl Transport for MemTransport {
    fn connect<'a>(&'a self, address: &'a str) -> Connecting<'a, Box<dyn Stream>> {
        Box::pin(async move {
            let doors = self.network.0.lock().unwrap_or_else(PoisonError::into_inner);
            let door = doors.get(address).ok_or(io::ErrorKind::ConnectionRefused)?;
            let (near, far) = duplex(WIRE_BYTES);
            // Whoever was reached there is gone, if it has dropped its end.
            door.send((far, self.address.clone()))
                .map_err(|_| io::ErrorKind::ConnectionRefused)?;
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
