//! A gRPC service with etcd's messages that does nothing: what is left when there is no consensus, no disk and no state. Whoever uses
//! tonic as it comes pays at least this. Built as the server is: one current-thread runtime, tonic, no delay.

use std::net::SocketAddr;

use anyhow::{Context, Result};
use bytes::Bytes;
use quorate_proto::etcdserverpb::kv_server::{Kv, KvServer};
use quorate_proto::etcdserverpb::{
    CompactionRequest, CompactionResponse, DeleteRangeRequest, DeleteRangeResponse, PutRequest, PutResponse,
    RangeRequest, RangeResponse, ResponseHeader, TxnRequest, TxnResponse,
};
use quorate_proto::mvccpb::KeyValue;
use tokio::net::TcpListener;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::Server;
use tonic::{Request, Response, Status};

/// Bytes of the value that every read gets.
const VALUE: &[u8] = &[b'v'; 256];

#[derive(Clone, Copy, Debug)]
struct Nothing;

fn header() -> Option<ResponseHeader> {
    // Large enough numbers: an answer is as long as a real one.
    Some(ResponseHeader {
        cluster_id: 0x9e37_79b9_7f4a_7c15,
        member_id: 0xbf58_476d_1ce4_e5b9,
        revision: 1_000_000,
        raft_term: 2,
    })
}

#[tonic::async_trait]
impl Kv for Nothing {
    async fn range(&self, request: Request<RangeRequest>) -> Result<Response<RangeResponse>, Status> {
        let kv = KeyValue {
            key: request.into_inner().key,
            create_revision: 1_000_000,
            mod_revision: 1_000_000,
            version: 1,
            value: Bytes::from_static(VALUE),
            lease: 0,
        };
        Ok(Response::new(RangeResponse {
            header: header(),
            kvs: vec![kv],
            more: false,
            count: 1,
        }))
    }

    async fn put(&self, _: Request<PutRequest>) -> Result<Response<PutResponse>, Status> {
        Ok(Response::new(PutResponse {
            header: header(),
            prev_kv: None,
        }))
    }

    async fn delete_range(
        &self,
        _: Request<DeleteRangeRequest>,
    ) -> Result<Response<DeleteRangeResponse>, Status> {
        Err(Status::unimplemented("the floor only puts and reads"))
    }

    async fn txn(&self, _: Request<TxnRequest>) -> Result<Response<TxnResponse>, Status> {
        Ok(Response::new(TxnResponse {
            header: header(),
            succeeded: true,
            responses: Vec::new(),
        }))
    }

    async fn compact(&self, _: Request<CompactionRequest>) -> Result<Response<CompactionResponse>, Status> {
        Err(Status::unimplemented("the floor only puts and reads"))
    }
}

/// Serves until the process ends.
pub fn serve(address: SocketAddr) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind(address)
            .await
            .with_context(|| format!("cannot listen on {address}"))?;
        let incoming = TcpListenerStream::new(listener).map(|stream| {
            let stream = stream?;
            stream.set_nodelay(true)?;
            Ok::<_, std::io::Error>(stream)
        });
        Server::builder()
            .add_service(KvServer::new(Nothing))
            .serve_with_incoming(incoming)
            .await?;
        Ok(())
    })
}
