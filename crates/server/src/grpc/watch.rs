//! The Watch service: connects a client's stream with the watch hub. What is delivered when is decided there. The call is served
//! by hand, not by the generated server, which would encode every event anew for every watcher.

use std::convert::Infallible;
use std::task::{Context, Poll};

use quorate_proto::etcdserverpb as pb;
use tokio_stream::{Stream, StreamExt};
use tonic::body::Body;
use tonic::codegen::http::{self, HeaderMap, HeaderValue, header};
use tonic::codegen::{BoxFuture, Service};
use tonic::metadata::MetadataMap;
use tonic::server::NamedService;
use tonic::{Status, Streaming};
use tonic_prost::ProstDecoder;

use super::Api;
use super::watch_body::WatchBody;
use crate::context::requires_leader;
use crate::errors;
use crate::hub::{WatchAnswers, WatchOrders};

/// The service's only call.
const WATCH: &str = "/etcdserverpb.Watch/Watch";

/// The Watch service as gRPC.
#[derive(Clone)]
pub(super) struct WatchService {
    api: Api,
    /// The largest request.
    limit: usize,
}

impl WatchService {
    pub fn new(api: Api, limit: usize) -> WatchService {
        WatchService { api, limit }
    }

    async fn watch(self, request: http::Request<Body>) -> Result<http::Response<Body>, Status> {
        if request.uri().path() != WATCH {
            return Err(Status::unimplemented(""));
        }
        check_encoding(request.headers())?;
        let (parts, body) = request.into_parts();
        let metadata = MetadataMap::from_headers(parts.headers);
        self.api.ctx.check_leader(&metadata)?;
        let requests = Streaming::new_request(ProstDecoder::default(), body, None, Some(self.limit));
        let answers = self.api.open_watch(requests, requires_leader(&metadata)).await?;
        let mut response = http::Response::new(Body::new(WatchBody::new(answers)));
        let kind = HeaderValue::from_static("application/grpc");
        response.headers_mut().insert(header::CONTENT_TYPE, kind);
        Ok(response)
    }
}

impl NamedService for WatchService {
    const NAME: &'static str = pb::watch_server::SERVICE_NAME;
}

impl Service<http::Request<Body>> for WatchService {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Self::Error>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let watch = self.clone().watch(request);
        Box::pin(async move { Ok(watch.await.unwrap_or_else(Status::into_http)) })
    }
}

/// Refuses compressed requests, as the other services do.
fn check_encoding(headers: &HeaderMap) -> Result<(), Status> {
    match headers.get("grpc-encoding") {
        Some(encoding) if encoding != "identity" => Err(Status::unimplemented(format!(
            "Content is compressed with `{}` which isn't supported",
            encoding.to_str().unwrap_or("?")
        ))),
        _ => Ok(()),
    }
}

impl Api {
    /// Opens a watch stream over any source of requests. The end of the requests does not end the stream: the client may have
    /// nothing more to ask and still listen. Dropping the answers does.
    pub async fn open_watch<R>(&self, requests: R, insists_on_leader: bool) -> Result<WatchAnswers, Status>
    where
        R: Stream<Item = Result<pb::WatchRequest, Status>> + Send + Unpin + 'static,
    {
        self.ctx.check_learner()?;
        self.ctx.ready().await?;
        let (orders, answers) = self.ctx.hub.open().await?;
        tokio::spawn(pass_on(requests, orders.clone()));
        if insists_on_leader {
            let ctx = self.ctx.clone();
            tokio::spawn(async move {
                tokio::select! {
                    () = ctx.leaderless() => orders.fail(errors::no_leader()).await,
                    () = orders.ended() => {}
                }
            });
        }
        Ok(answers)
    }
}

async fn pass_on<R>(mut requests: R, orders: WatchOrders)
where
    R: Stream<Item = Result<pb::WatchRequest, Status>> + Unpin,
{
    let all = async {
        while let Some(request) = requests.next().await {
            match request {
                Ok(request) => {
                    if !orders.send(request).await {
                        return;
                    }
                }
                // Garbled, or the client is gone.
                Err(status) => return orders.fail(status).await,
            }
        }
    };
    tokio::select! {
        () = all => {}
        () = orders.ended() => {}
    }
}
