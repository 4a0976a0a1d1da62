//! The Watch service: connects a client's stream with the watch hub. What is delivered when is decided there.

use quorate_proto::etcdserverpb as pb;
use tokio_stream::{Stream, StreamExt};
use tonic::{Request, Response, Status, Streaming};

use super::{Answers, Api};
use crate::context::requires_leader;
use crate::errors;
use crate::hub::{WatchAnswers, WatchOrders};

#[tonic::async_trait]
impl pb::watch_server::Watch for Api {
    type WatchStream = Answers<pb::WatchResponse>;

    async fn watch(
        &self,
        request: Request<Streaming<pb::WatchRequest>>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        self.ctx.check_leader(request.metadata())?;
        let insists = requires_leader(request.metadata());
        let answers = self.open_watch(request.into_inner(), insists).await?;
        Ok(Response::new(Box::pin(answers)))
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
