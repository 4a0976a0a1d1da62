//! Client connections: accepting, telling gRPC from HTTP, ending them in order. One task a connection; an idle one costs its socket
//! and little more. Whatever is not HTTP closes its connection and nothing else.

use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc, watch};
use tonic::body::Body;
use tonic::codegen::http::{HeaderValue, Request, Response, header};
use tonic::codegen::{BoxFuture, Service};
use tonic::service::Routes;

use crate::context::Context;
use crate::cork::{Cork, uncorked};
use crate::grpc::{Api, unary};
use crate::http;

/// A dead connection is noticed after the interval and the timeout: etcd's defaults.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(2 * 3600);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(20);

/// A pause when the process has no descriptors left, so that accepting does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How often it is said that all places are taken.
const WARN_AGAIN: Duration = Duration::from_secs(10);

/// Connections that may wait to be accepted; the system may allow fewer.
const BACKLOG: i32 = 4096;

/// Binds the client addresses before anything is started, so that a port that is taken is found out first.
pub(crate) fn bind(addresses: &[SocketAddr]) -> Result<Vec<StdListener>, (SocketAddr, io::Error)> {
    let bind = |address: &SocketAddr| {
        let listener = StdListener::bind(address)?;
        // The standard library's queue of 128 overflows when a crowd of clients comes back at once, and each that finds it
        // full waits a second before its next try.
        rustix::net::listen(&listener, BACKLOG)?;
        listener.set_nonblocking(true)?;
        Ok(listener)
    };
    addresses
        .iter()
        .map(|address| bind(address).map_err(|error| (*address, error)))
        .collect()
}

/// Accepts connections until `stop` becomes true.
///
/// Each connection holds a `connected` until it has ended, and one of the `places`; those that find none wait.
pub(crate) async fn accept(
    listener: TcpListener,
    api: Api,
    mut stop: watch::Receiver<bool>,
    connected: mpsc::Sender<()>,
    places: Arc<Semaphore>,
) {
    let routes = api.routes();
    let mut warned: Option<Instant> = None;
    loop {
        if places.available_permits() == 0 && warned.is_none_or(|at| at.elapsed() > WARN_AGAIN) {
            tracing::warn!("client connections wait until others end: the limit of open files is reached");
            warned = Some(Instant::now());
        }
        let next = async {
            let place = places.clone().acquire_owned().await.expect("it is never closed");
            listener.accept().await.map(|(stream, _)| (stream, place))
        };
        let accepted = tokio::select! {
            accepted = next => accepted,
            _ = stop.wait_for(|stop| *stop) => return,
        };
        match accepted {
            Ok((stream, place)) => {
                let client = Client {
                    api: api.clone(),
                    routes: routes.clone(),
                };
                let conversation = converse(stream, client, stop.clone(), connected.clone());
                tokio::spawn(async move {
                    conversation.await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a client connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn converse(
    stream: TcpStream,
    client: Client,
    mut stop: watch::Receiver<bool>,
    _connected: mpsc::Sender<()>,
) {
    // Fails only on a connection that is gone.
    let _ = stream.set_nodelay(true);
    let _counted = Counted::new(client.api.ctx.clone());
    let mut server = auto::Builder::new(TokioExecutor::new());
    server.http1().timer(TokioTimer::new()).header_read_timeout(None);
    server
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(KEEP_ALIVE_INTERVAL)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
        // A client has one stream for each call in flight, and etcd does not limit them.
        .max_concurrent_streams(u32::MAX)
        // Clients cancel calls and watches in bursts.
        .max_pending_accept_reset_streams(4096);
    let cork = Cork::new(stream);
    let connection = server.serve_connection(TokioIo::new(cork.clone()), TowerToHyperService::new(client));
    tokio::pin!(connection);
    tokio::select! {
        ended = uncorked(connection.as_mut(), &cork) => return log_end(ended),
        _ = stop.wait_for(|stop| *stop) => connection.as_mut().graceful_shutdown(),
    }
    log_end(uncorked(connection.as_mut(), &cork).await);
}

fn log_end(ended: Result<(), Box<dyn std::error::Error + Send + Sync>>) {
    if let Err(error) = ended {
        tracing::debug!(%error, "a client connection ended");
    }
}

/// Counts an open connection as long as it lives.
struct Counted(Arc<Context>);

impl Counted {
    fn new(ctx: Arc<Context>) -> Counted {
        ctx.connections.fetch_add(1, Relaxed);
        Counted(ctx)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Relaxed);
    }
}

/// What answers the requests of one connection.
#[derive(Clone)]
struct Client {
    api: Api,
    routes: Routes,
}

impl<B> Service<Request<B>> for Client
where
    B: http_body::Body<Data = bytes::Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    type Response = Response<Body>;
    type Error = std::convert::Infallible;
    type Future = BoxFuture<Self::Response, Self::Error>;

    fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), Self::Error>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        if let Some(call) = unary::Call::of(&request) {
            let api = self.api.clone();
            return Box::pin(async move { Ok(unary::serve(call, api, request).await) });
        }
        let request = request.map(Body::new);
        let kind = request.headers().get(header::CONTENT_TYPE);
        if kind.is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc")) {
            let answer = self.routes.call(request);
            Box::pin(async move { answer.await.map(as_etcd_says_it) })
        } else {
            let api = self.api.clone();
            Box::pin(async move { Ok(http::serve(api, request).await) })
        }
    }
}

/// A message over the limit is `ResourceExhausted` in etcd; the gRPC library here says `OutOfRange`, which clients of etcd would
/// take for a compacted revision.
fn as_etcd_says_it(mut response: Response<Body>) -> Response<Body> {
    let headers = response.headers_mut();
    let is =
        |name: &str, test: fn(&[u8]) -> bool| headers.get(name).is_some_and(|value| test(value.as_bytes()));
    if is("grpc-status", |code| code == b"11")
        && is("grpc-message", |text| text.starts_with(b"Error,%20decoded"))
    {
        headers.insert("grpc-status", HeaderValue::from_static("8"));
        let said = HeaderValue::from_static("grpc:%20received%20message%20larger%20than%20max");
        headers.insert("grpc-message", said);
    }
    response
}
