//! The Maintenance service: what one member says about itself, alarms, and handing leadership over.

use quorate_base::NodeId;
use quorate_kv::{AlarmAction, AlarmKind, Command, Kv, Response as Answer};
use quorate_proto::etcdserverpb as pb;
use tonic::{Request, Response, Status};

use super::{Answers, Api};
use crate::config::{API_VERSION, CLUSTER_VERSION};
use crate::context::{elsewhere, mismatched};
use crate::{convert, errors};

#[tonic::async_trait]
impl pb::maintenance_server::Maintenance for Api {
    type SnapshotStream = Answers<pb::SnapshotResponse>;

    async fn alarm(&self, request: Request<pb::AlarmRequest>) -> Result<Response<pb::AlarmResponse>, Status> {
        use pb::alarm_request::AlarmAction as Wire;
        let ctx = &self.ctx;
        let request = ctx.admit(request).await?;
        let action = match Wire::try_from(request.action) {
            Ok(Wire::Get) => AlarmAction::Get,
            Ok(Wire::Activate) => AlarmAction::Activate,
            Ok(Wire::Deactivate) => AlarmAction::Deactivate,
            Err(_) => return Err(Status::invalid_argument("etcdserver: unknown alarm action")),
        };
        let kind = AlarmKind::from_wire(request.alarm);
        let applied = ctx
            .propose(&Command::Alarm {
                action,
                member: request.member_id,
                kind,
            })
            .await?;
        match applied.response {
            Answer::Alarm(alarms) => Ok(Response::new(pb::AlarmResponse {
                header: ctx.header_at(applied.revision),
                alarms: convert::alarms(alarms),
            })),
            _ => mismatched(),
        }
    }

    async fn status(
        &self,
        request: Request<pb::StatusRequest>,
    ) -> Result<Response<pb::StatusResponse>, Status> {
        let ctx = &self.ctx;
        // Not `admit`: a member without a leader has something to say.
        drop(request);
        let looked = ctx
            .handle
            .local(|machine| (machine.kv().size(), machine.kv().alarms()));
        let (size, alarms) = looked.await.map_err(errors::of_read)?;
        let now = ctx.handle.status();
        let mut complaints = Vec::new();
        if now.leader.is_none() {
            complaints.push("etcdserver: no leader".to_owned());
        }
        for alarm in alarms {
            let kind = match alarm.kind {
                AlarmKind::NoSpace => "NOSPACE",
                AlarmKind::Corrupt => "CORRUPT",
            };
            // The form in which etcd prints the message, its trailing blank included.
            complaints.push(format!("memberID:{} alarm:{kind} ", alarm.member));
        }
        Ok(Response::new(pb::StatusResponse {
            header: ctx.header(),
            version: API_VERSION.to_owned(),
            db_size: i64::try_from(size.total).unwrap_or(i64::MAX),
            leader: now.leader.map_or(0, NodeId::get),
            raft_index: now.commit.0,
            raft_term: now.term.0,
            raft_applied_index: now.applied.0,
            errors: complaints,
            db_size_in_use: i64::try_from(size.in_use).unwrap_or(i64::MAX),
            // Also while a member that was added as a voter, and is listed as one, does not vote yet: this is how it takes part now.
            is_learner: !now.membership.is_voter(ctx.config.id),
            storage_version: CLUSTER_VERSION.to_owned(),
            // No quota: the store is limited by the disk alone.
            db_size_quota: 0,
            downgrade_info: Some(pb::DowngradeInfo::default()),
        }))
    }

    /// Answers that all is well: the store reuses the space that compaction frees, so there is nothing to stop the world for.
    async fn defragment(
        &self,
        _: Request<pb::DefragmentRequest>,
    ) -> Result<Response<pb::DefragmentResponse>, Status> {
        self.ctx.check_learner()?;
        Ok(Response::new(pb::DefragmentResponse { header: None }))
    }

    async fn hash(&self, _: Request<pb::HashRequest>) -> Result<Response<pb::HashResponse>, Status> {
        let ctx = &self.ctx;
        ctx.check_learner()?;
        let picture = ctx.look(true, Kv::picture).await?;
        let hash = elsewhere(move || picture.hash()).await?;
        Ok(Response::new(pb::HashResponse {
            header: ctx.header(),
            hash,
        }))
    }

    async fn hash_kv(
        &self,
        request: Request<pb::HashKvRequest>,
    ) -> Result<Response<pb::HashKvResponse>, Status> {
        let ctx = &self.ctx;
        ctx.check_learner()?;
        let revision = request.into_inner().revision;
        let picture = ctx.look(true, Kv::picture).await?;
        let hash = elsewhere(move || picture.hash_kv(revision)).await?;
        Ok(Response::new(pb::HashKvResponse {
            header: ctx.header(),
            hash: hash.hash,
            compact_revision: hash.compact_revision,
            hash_revision: hash.hash_revision,
        }))
    }

    async fn snapshot(
        &self,
        _: Request<pb::SnapshotRequest>,
    ) -> Result<Response<Self::SnapshotStream>, Status> {
        Err(errors::unimplemented("snapshots over the API"))
    }

    async fn move_leader(
        &self,
        request: Request<pb::MoveLeaderRequest>,
    ) -> Result<Response<pb::MoveLeaderResponse>, Status> {
        let ctx = &self.ctx;
        let target = NodeId(ctx.admit(request).await?.target_id);
        let now = ctx.handle.status();
        if !now.is_leader() {
            return Err(Status::failed_precondition("etcdserver: not leader"));
        }
        if !now.membership.voters.contains(&target) {
            return Err(Status::failed_precondition("etcdserver: bad leader transferee"));
        }
        ctx.handle
            .transfer(Some(target))
            .await
            .map_err(errors::of_transfer)?;
        Ok(Response::new(pb::MoveLeaderResponse { header: None }))
    }

    async fn downgrade(
        &self,
        _: Request<pb::DowngradeRequest>,
    ) -> Result<Response<pb::DowngradeResponse>, Status> {
        Err(errors::unimplemented("downgrades"))
    }
}
