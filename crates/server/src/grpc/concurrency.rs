//! The Lock and Election services: not built.

use quorate_proto::v3electionpb as election;
use quorate_proto::v3lockpb as lock;
use tonic::{Request, Response, Status};

use super::{Answers, Api};
use crate::errors;

#[tonic::async_trait]
impl lock::lock_server::Lock for Api {
    async fn lock(&self, _: Request<lock::LockRequest>) -> Result<Response<lock::LockResponse>, Status> {
        Err(errors::unimplemented("the lock service"))
    }

    async fn unlock(
        &self,
        _: Request<lock::UnlockRequest>,
    ) -> Result<Response<lock::UnlockResponse>, Status> {
        Err(errors::unimplemented("the lock service"))
    }
}

#[tonic::async_trait]
impl election::election_server::Election for Api {
    type ObserveStream = Answers<election::LeaderResponse>;

    async fn campaign(
        &self,
        _: Request<election::CampaignRequest>,
    ) -> Result<Response<election::CampaignResponse>, Status> {
        Err(errors::unimplemented("the election service"))
    }

    async fn proclaim(
        &self,
        _: Request<election::ProclaimRequest>,
    ) -> Result<Response<election::ProclaimResponse>, Status> {
        Err(errors::unimplemented("the election service"))
    }

    async fn leader(
        &self,
        _: Request<election::LeaderRequest>,
    ) -> Result<Response<election::LeaderResponse>, Status> {
        Err(errors::unimplemented("the election service"))
    }

    async fn observe(
        &self,
        _: Request<election::LeaderRequest>,
    ) -> Result<Response<Self::ObserveStream>, Status> {
        Err(errors::unimplemented("the election service"))
    }

    async fn resign(
        &self,
        _: Request<election::ResignRequest>,
    ) -> Result<Response<election::ResignResponse>, Status> {
        Err(errors::unimplemented("the election service"))
    }
}
