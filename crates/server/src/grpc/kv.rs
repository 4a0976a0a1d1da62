//! The KV service: checks a request, takes it through the log or to the state, and dresses the answer. The rules of
//! the store itself are in `quorate-kv`.

use quorate_kv::{Command, Kv, Response as Answer};
use quorate_proto::etcdserverpb as pb;
use tonic::{Request, Response, Status};

use super::Api;
use crate::context::{Context, elsewhere, mismatched};
use crate::{convert, errors};

#[tonic::async_trait]
impl pb::kv_server::Kv for Api {
    async fn range(&self, request: Request<pb::RangeRequest>) -> Result<Response<pb::RangeResponse>, Status> {
        let ctx = &self.ctx;
        let serializable = request.get_ref().serializable;
        // A learner serves what may be stale, and nothing else.
        let request = match serializable {
            true => ctx.admit_even_here(request).await?,
            false => ctx.admit(request).await?,
        };
        let range = convert::range(request)?;
        range.check().map_err(|e| errors::of_kv(&e))?;
        let quick = ctx.look(serializable, move |kv| match kv.quick_range(&range) {
            Ok(Some(found)) => Ok(Ok(found)),
            Ok(None) => Ok(Err((kv.picture(), range))),
            Err(error) => Err(error),
        });
        let found = match quick.await?.map_err(|e| errors::of_kv(&e))? {
            Ok(found) => found,
            Err((picture, range)) => elsewhere(move || picture.range(&range)).await?,
        };
        let header = ctx.header_at(found.revision);
        Ok(Response::new(convert::range_response(header, found)))
    }

    async fn put(&self, request: Request<pb::PutRequest>) -> Result<Response<pb::PutResponse>, Status> {
        let ctx = &self.ctx;
        let put = convert::put(ctx.admit(request).await?);
        put.check().map_err(|e| errors::of_kv(&e))?;
        ctx.check_space()?;
        let applied = ctx.propose(&Command::Put(put)).await?;
        match applied.response {
            Answer::Put(answer) => Ok(Response::new(convert::put_response(
                ctx.header_at(applied.revision),
                answer,
            ))),
            _ => mismatched(),
        }
    }

    async fn delete_range(
        &self,
        request: Request<pb::DeleteRangeRequest>,
    ) -> Result<Response<pb::DeleteRangeResponse>, Status> {
        let ctx = &self.ctx;
        let delete = convert::delete_range(ctx.admit(request).await?);
        delete.check().map_err(|e| errors::of_kv(&e))?;
        let applied = ctx.propose(&Command::DeleteRange(delete)).await?;
        match applied.response {
            Answer::DeleteRange(answer) => Ok(Response::new(convert::delete_range_response(
                ctx.header_at(applied.revision),
                answer,
            ))),
            _ => mismatched(),
        }
    }

    async fn txn(&self, request: Request<pb::TxnRequest>) -> Result<Response<pb::TxnResponse>, Status> {
        let ctx = &self.ctx;
        let request = ctx.admit(request).await?;
        let serializable = convert::is_serializable(&request);
        let txn = convert::txn(request)?;
        txn.check_at(ctx.news.level()).map_err(|e| errors::of_kv(&e))?;
        if txn.is_read_only() {
            // Nothing to replicate: a read like any other.
            let answer = if txn.reads_ranges() {
                let picture = ctx.look(serializable, Kv::picture).await?;
                elsewhere(move || picture.txn_read(&txn)).await?
            } else {
                let look = ctx.look(serializable, move |kv| kv.txn_read(&txn));
                look.await?.map_err(|e| errors::of_kv(&e))?
            };
            return Ok(Response::new(convert::txn_response(
                ctx.header_at(answer.revision),
                answer,
            )));
        }
        if txn.has_put() {
            ctx.check_space()?;
        }
        let applied = ctx.propose(&Command::Txn(txn)).await?;
        match applied.response {
            Answer::Txn(answer) => Ok(Response::new(convert::txn_response(
                ctx.header_at(applied.revision),
                answer,
            ))),
            _ => mismatched(),
        }
    }

    async fn compact(
        &self,
        request: Request<pb::CompactionRequest>,
    ) -> Result<Response<pb::CompactionResponse>, Status> {
        let ctx = &self.ctx;
        let pb::CompactionRequest { revision, physical } = ctx.admit(request).await?;
        let applied = ctx.propose(&Command::Compact { revision, physical }).await?;
        if physical {
            physically_compacted(ctx, revision).await?;
        }
        Ok(Response::new(pb::CompactionResponse {
            header: ctx.header_at(applied.revision),
        }))
    }
}

/// Waits until the store has freed what is compacted at `revision`. As in etcd it is the client who says how long he waits for that: the compaction is in
/// the log, and goes on either way.
async fn physically_compacted(ctx: &Context, revision: i64) -> Result<(), Status> {
    let mut status = ctx.status.clone();
    loop {
        // Registered before the look, so that no work that ends in between is missed.
        let worked = ctx.news.worked.notified();
        tokio::pin!(worked);
        worked.as_mut().enable();
        let look = ctx
            .handle
            .local(move |machine| machine.kv().physically_compacted(revision));
        if look.await.map_err(errors::of_read)? {
            return Ok(());
        }
        tokio::select! {
            () = worked => {}
            _ = status.wait_for(|now| now.stopping) => return Err(errors::stopped()),
        }
    }
}
