//! The gRPC services. [`Api`] implements them all; the JSON gateway calls the same methods. One file for each service of
//! the API, and one for those that are not built.

mod auth;
mod cluster;
mod concurrency;
mod health;
mod kv;
mod lease;
mod maintenance;
pub(crate) mod unary;
mod watch;
mod watch_body;

use std::pin::Pin;
use std::sync::Arc;

use quorate_proto::etcdserverpb as pb;
use quorate_proto::health::health_server::HealthServer;
use quorate_proto::v3electionpb::election_server::ElectionServer;
use quorate_proto::v3lockpb::lock_server::LockServer;
use tokio_stream::Stream;
use tonic::Status;
use tonic::service::Routes;

use crate::config::MESSAGE_OVERHEAD;
use crate::context::Context;

/// A stream of answers.
pub(crate) type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// Every service of the API.
#[derive(Clone)]
pub(crate) struct Api {
    pub ctx: Arc<Context>,
}

impl Api {
    /// How long a message of a client may be.
    fn message_limit(&self) -> usize {
        self.ctx.config.max_request_bytes + MESSAGE_OVERHEAD
    }

    /// The services as routes. What they do not know is answered `Unimplemented`.
    pub fn routes(&self) -> Routes {
        let limit = self.message_limit();
        macro_rules! service {
            ($server:ty) => {
                <$server>::new(self.clone())
                    .max_decoding_message_size(limit)
                    .max_encoding_message_size(usize::MAX)
            };
        }
        Routes::new(service!(pb::kv_server::KvServer<Api>))
            .add_service(watch::WatchService::new(self.clone(), limit))
            .add_service(service!(pb::lease_server::LeaseServer<Api>))
            .add_service(service!(pb::cluster_server::ClusterServer<Api>))
            .add_service(service!(pb::maintenance_server::MaintenanceServer<Api>))
            .add_service(service!(pb::auth_server::AuthServer<Api>))
            .add_service(service!(LockServer<Api>))
            .add_service(service!(ElectionServer<Api>))
            .add_service(service!(HealthServer<Api>))
            .prepare()
    }
}
