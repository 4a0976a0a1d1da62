//! The gRPC health checking protocol: serving while the node knows a leader and is not stopping.

use quorate_proto::health as pb;
use quorate_proto::health::health_check_response::ServingStatus;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::WatchStream;
use tonic::{Request, Response, Status};

use super::{Answers, Api};

#[tonic::async_trait]
impl pb::health_server::Health for Api {
    type WatchStream = Answers<pb::HealthCheckResponse>;

    async fn check(
        &self,
        request: Request<pb::HealthCheckRequest>,
    ) -> Result<Response<pb::HealthCheckResponse>, Status> {
        if !request.into_inner().service.is_empty() {
            return Err(Status::not_found("unknown service"));
        }
        let status = serving(&self.ctx.status.borrow());
        Ok(Response::new(pb::HealthCheckResponse {
            status: status as i32,
        }))
    }

    async fn watch(
        &self,
        request: Request<pb::HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let known = request.into_inner().service.is_empty();
        let mut last = None;
        let changes = WatchStream::new(self.ctx.status.clone()).filter_map(move |now| {
            let status = if known {
                serving(&now)
            } else {
                ServingStatus::ServiceUnknown
            };
            let changed = last.replace(status) != Some(status);
            changed.then_some(Ok(pb::HealthCheckResponse {
                status: status as i32,
            }))
        });
        Ok(Response::new(Box::pin(changes)))
    }
}

fn serving(now: &quorate::Status) -> ServingStatus {
    if now.leader.is_some() && !now.stopping {
        ServingStatus::Serving
    } else {
        ServingStatus::NotServing
    }
}
