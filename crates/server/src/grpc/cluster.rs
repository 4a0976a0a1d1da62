//! The Cluster service: who belongs to the cluster, and changing that. What a change means and when it is refused stands in
//! [`crate::changes`].

use quorate::Membership;
use quorate_base::NodeId;
use quorate_proto::etcdserverpb as pb;
use tonic::{Request, Response, Status};

use super::Api;
use crate::{changes, errors};

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
        // etcd leaves the revision out of this header and of the following ones.
        Ok(Response::new(pb::MemberListResponse {
            header: ctx.header_at(0),
            members: ctx.members(),
        }))
    }

    async fn member_add(
        &self,
        request: Request<pb::MemberAddRequest>,
    ) -> Result<Response<pb::MemberAddResponse>, Status> {
        let pb::MemberAddRequest {
            peer_ur_ls,
            is_learner,
        } = self.ctx.admit(request).await?;
        let (id, membership) = changes::add(&self.ctx, peer_ur_ls, is_learner).await?;
        let members = self.listed(&membership);
        Ok(Response::new(pb::MemberAddResponse {
            header: self.ctx.header_at(0),
            member: members.iter().find(|member| member.id == id.0).cloned(),
            members,
        }))
    }

    async fn member_remove(
        &self,
        request: Request<pb::MemberRemoveRequest>,
    ) -> Result<Response<pb::MemberRemoveResponse>, Status> {
        let id = NodeId(self.ctx.admit(request).await?.id);
        let membership = changes::remove(&self.ctx, id).await?;
        Ok(Response::new(pb::MemberRemoveResponse {
            header: self.ctx.header_at(0),
            members: self.listed(&membership),
        }))
    }

    async fn member_update(
        &self,
        request: Request<pb::MemberUpdateRequest>,
    ) -> Result<Response<pb::MemberUpdateResponse>, Status> {
        let pb::MemberUpdateRequest { id, peer_ur_ls } = self.ctx.admit(request).await?;
        let membership = changes::update(&self.ctx, NodeId(id), peer_ur_ls).await?;
        Ok(Response::new(pb::MemberUpdateResponse {
            header: self.ctx.header_at(0),
            members: self.listed(&membership),
        }))
    }

    async fn member_promote(
        &self,
        request: Request<pb::MemberPromoteRequest>,
    ) -> Result<Response<pb::MemberPromoteResponse>, Status> {
        let id = NodeId(self.ctx.admit(request).await?.id);
        let membership = changes::promote(&self.ctx, id).await?;
        Ok(Response::new(pb::MemberPromoteResponse {
            header: self.ctx.header_at(0),
            members: self.listed(&membership),
        }))
    }
}

impl Api {
    /// The members of a membership that a change has made.
    fn listed(&self, membership: &Membership) -> Vec<pb::Member> {
        self.ctx.directory.list(membership)
    }
}
