//! The Lease service. Grants and revocations go through the log; renewals and remaining times are the leader's business and are
//! taken there.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};

use quorate_kv::lease::granted_ttl;
use quorate_kv::{Command, Error, Response as Answer};
use quorate_proto::etcdserverpb as pb;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt};
use tonic::{Request, Response, Status, Streaming};

use super::{Answers, Api};
use crate::context::{Context, mismatched, requires_leader};
use crate::{errors, leases};

#[tonic::async_trait]
impl pb::lease_server::Lease for Api {
    type LeaseKeepAliveStream = Answers<pb::LeaseKeepAliveResponse>;

    async fn lease_grant(
        &self,
        request: Request<pb::LeaseGrantRequest>,
    ) -> Result<Response<pb::LeaseGrantResponse>, Status> {
        let ctx = &self.ctx;
        let pb::LeaseGrantRequest { ttl, id: wanted } = ctx.admit(request).await?;
        let ttl = granted_ttl(ttl, ctx.config.min_lease_ttl()).map_err(|e| errors::of_kv(&e))?;
        ctx.check_space()?;
        loop {
            let id = if wanted == 0 { random_id() } else { wanted };
            let command = Command::grant(ctx.news.level(), id, ttl);
            let applied = match ctx.propose(&command).await {
                // Our own choice was taken: choose again.
                Err(status) if wanted == 0 && status.message() == Error::LeaseExists.to_string() => continue,
                other => other?,
            };
            return match applied.response {
                Answer::LeaseGrant { id, ttl } => Ok(Response::new(pb::LeaseGrantResponse {
                    header: ctx.header_at(applied.revision),
                    id,
                    ttl,
                    error: String::new(),
                })),
                _ => mismatched(),
            };
        }
    }

    async fn lease_revoke(
        &self,
        request: Request<pb::LeaseRevokeRequest>,
    ) -> Result<Response<pb::LeaseRevokeResponse>, Status> {
        let ctx = &self.ctx;
        let id = ctx.admit(request).await?.id;
        let applied = ctx.propose(&Command::LeaseRevoke { id, expiry: None }).await?;
        Ok(Response::new(pb::LeaseRevokeResponse {
            header: ctx.header_at(applied.revision),
        }))
    }

    async fn lease_keep_alive(
        &self,
        request: Request<Streaming<pb::LeaseKeepAliveRequest>>,
    ) -> Result<Response<Self::LeaseKeepAliveStream>, Status> {
        self.ctx.check_leader(request.metadata())?;
        let insists = requires_leader(request.metadata());
        Ok(Response::new(self.keep_alive(request.into_inner(), insists)))
    }

    async fn lease_time_to_live(
        &self,
        request: Request<pb::LeaseTimeToLiveRequest>,
    ) -> Result<Response<pb::LeaseTimeToLiveResponse>, Status> {
        let ctx = &self.ctx;
        let pb::LeaseTimeToLiveRequest { id, keys } = ctx.admit(request).await?;
        let remaining = leases::time_to_live(ctx, id, keys).await?;
        let header = ctx.header();
        Ok(Response::new(match remaining {
            None => pb::LeaseTimeToLiveResponse {
                header,
                id,
                ttl: -1,
                ..Default::default()
            },
            Some(left) => pb::LeaseTimeToLiveResponse {
                header,
                id,
                ttl: left.ttl,
                granted_ttl: left.granted,
                keys: left.keys,
            },
        }))
    }

    async fn lease_leases(
        &self,
        request: Request<pb::LeaseLeasesRequest>,
    ) -> Result<Response<pb::LeaseLeasesResponse>, Status> {
        let ctx = &self.ctx;
        ctx.admit(request).await?;
        let listed = ctx
            .handle
            .read(|machine| machine.kv().leases())
            .await
            .map_err(errors::of_read)?;
        let listed = listed.map_err(|e| errors::of_kv(&e))?;
        Ok(Response::new(pb::LeaseLeasesResponse {
            header: ctx.header(),
            leases: listed
                .into_iter()
                .map(|lease| pb::LeaseStatus { id: lease.id })
                .collect(),
        }))
    }
}

impl Api {
    /// Renews lease after lease, in the order asked, over any source of requests. Ends with an error when there is no leader for long,
    /// if the client insists on one.
    pub fn keep_alive<R>(
        &self,
        mut requests: R,
        insists_on_leader: bool,
    ) -> Answers<pb::LeaseKeepAliveResponse>
    where
        R: Stream<Item = Result<pb::LeaseKeepAliveRequest, Status>> + Send + Unpin + 'static,
    {
        let ctx = self.ctx.clone();
        let (out, answers) = mpsc::channel(16);
        tokio::spawn(async move {
            let all = async {
                let refused = match ctx.check_learner() {
                    Ok(()) => ctx.ready().await,
                    Err(status) => Err(status),
                };
                if let Err(status) = refused {
                    // To a client that has hung up there is nothing to say.
                    let _ = out.send(Err(status)).await;
                    return;
                }
                while let Some(request) = requests.next().await {
                    let answer = match request {
                        Ok(request) => renewed(&ctx, request.id).await,
                        Err(status) => Err(status),
                    };
                    let failed = answer.is_err();
                    if out.send(answer).await.is_err() || failed {
                        return;
                    }
                }
            };
            let leaderless = async {
                match insists_on_leader {
                    true => ctx.leaderless().await,
                    false => std::future::pending().await,
                }
                // To a client that has hung up there is nothing to say.
                let _ = out.send(Err(errors::no_leader())).await;
            };
            tokio::select! {
                () = all => {}
                () = leaderless => {}
                () = out.closed() => {}
            }
        });
        Box::pin(ReceiverStream::new(answers))
    }
}

async fn renewed(ctx: &Context, id: i64) -> Result<pb::LeaseKeepAliveResponse, Status> {
    let ttl = leases::renew(ctx, id).await?.unwrap_or(0);
    Ok(pb::LeaseKeepAliveResponse {
        header: ctx.header(),
        id,
        ttl,
    })
}

/// A positive 63-bit number nobody has used, in all likelihood: the keys of the standard library's hash maps are random.
fn random_id() -> i64 {
    let random = RandomState::new().build_hasher().finish();
    i64::try_from(random >> 1).unwrap_or(i64::MAX).max(1)
}
