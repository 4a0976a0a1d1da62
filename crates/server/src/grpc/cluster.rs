//! The Cluster service. The membership is static so far: it can be listed, not changed.

use quorate_proto::etcdserverpb as pb;
use tonic::{Request, Response, Status};

use super::Api;
use crate::errors;

#[tonic::async_trait]
impl pb::cluster_server::Cluster for Api {
    async fn member_list(
        &self,
        request: Request<pb::MemberListRequest>,
    ) -> Result<Response<pb::MemberListResponse>, Status> {
        let ctx = &self.ctx;
        if ctx.admit(request).await?.linearizable {
            ctx.handle.read(|_| ()).await.map_err(errors::of_read)?;
        }
        // etcd leaves the revision out of this header.
        Ok(Response::new(pb::MemberListResponse {
            header: ctx.header_at(0),
            members: ctx.directory.list(),
        }))
    }

    async fn member_add(
        &self,
        _: Request<pb::MemberAddRequest>,
    ) -> Result<Response<pb::MemberAddResponse>, Status> {
        Err(errors::unimplemented("adding members"))
    }

    async fn member_remove(
        &self,
        _: Request<pb::MemberRemoveRequest>,
    ) -> Result<Response<pb::MemberRemoveResponse>, Status> {
        Err(errors::unimplemented("removing members"))
    }

    async fn member_update(
        &self,
        _: Request<pb::MemberUpdateRequest>,
    ) -> Result<Response<pb::MemberUpdateResponse>, Status> {
        Err(errors::unimplemented("changing members' peer URLs"))
    }

    async fn member_promote(
        &self,
        _: Request<pb::MemberPromoteRequest>,
    ) -> Result<Response<pb::MemberPromoteResponse>, Status> {
        Err(errors::unimplemented("promoting learners"))
    }
}
