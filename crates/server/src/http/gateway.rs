//! The JSON gateway: one POST path for each method of the API. Calls the services directly, no gRPC connection in between.

use http_body_util::BodyExt;
use prost::{Message, Name};
use quorate_proto::etcdserverpb::auth_server::Auth;
use quorate_proto::etcdserverpb::cluster_server::Cluster;
use quorate_proto::etcdserverpb::kv_server::Kv;
use quorate_proto::etcdserverpb::lease_server::Lease;
use quorate_proto::etcdserverpb::maintenance_server::Maintenance;
use quorate_proto::json;
use quorate_proto::v3electionpb::election_server::Election;
use quorate_proto::v3lockpb::lock_server::Lock;
use tokio_stream::{Stream, StreamExt};
use tonic::body::Body;
use tonic::codegen::http::{HeaderValue, Method, Request, Response, StatusCode};
use tonic::{Code, Status};

use super::body::{self, Lines};
use super::{JSON, text};
use crate::config::MESSAGE_OVERHEAD;
use crate::grpc::Api;
use crate::hub::Answer;

/// Answers a call, named by its path without the version.
pub(super) async fn serve(api: Api, call: &str, request: Request<Body>) -> Response<Body> {
    // Base64 makes four bytes of three.
    let limit = (api.ctx.config.max_request_bytes + MESSAGE_OVERHEAD) / 3 * 4;
    match Method::POST == request.method() {
        true => answer(api, call, request.into_body(), limit).await,
        false if is_known(call) => failed(&Status::unimplemented("Method Not Allowed")),
        false => failed(&Status::not_found("Not Found")),
    }
}

macro_rules! calls {
    ($($($path:literal)|+ => $method:ident,)*) => {
        fn is_known(call: &str) -> bool {
            matches!(call, "watch" | "lease/keepalive" | "maintenance/snapshot" | "election/observe" $($(| $path)+)*)
        }

        async fn unary(api: &Api, call: &str, body: &[u8]) -> Result<Vec<u8>, Status> {
            match call {
                $($($path)|+ => api.$method(tonic::Request::new(read(body)?)).await.map(|r| json::encode(r.get_ref())),)*
                _ => Err(Status::not_found("Not Found")),
            }
        }
    };
}

calls! {
    "kv/range" => range,
    "kv/put" => put,
    "kv/deleterange" => delete_range,
    "kv/txn" => txn,
    "kv/compaction" => compact,
    "lease/grant" => lease_grant,
    "lease/revoke" | "kv/lease/revoke" => lease_revoke,
    "lease/timetolive" | "kv/lease/timetolive" => lease_time_to_live,
    "lease/leases" | "kv/lease/leases" => lease_leases,
    "cluster/member/add" => member_add,
    "cluster/member/remove" => member_remove,
    "cluster/member/update" => member_update,
    "cluster/member/list" => member_list,
    "cluster/member/promote" => member_promote,
    "maintenance/alarm" => alarm,
    "maintenance/status" => status,
    "maintenance/defragment" => defragment,
    "maintenance/hash" => hash,
    "maintenance/hashkv" => hash_kv,
    "maintenance/transfer-leadership" => move_leader,
    "maintenance/downgrade" => downgrade,
    "auth/enable" => auth_enable,
    "auth/disable" => auth_disable,
    "auth/status" => auth_status,
    "auth/authenticate" => authenticate,
    "auth/user/add" => user_add,
    "auth/user/get" => user_get,
    "auth/user/list" => user_list,
    "auth/user/delete" => user_delete,
    "auth/user/changepw" => user_change_password,
    "auth/user/grant" => user_grant_role,
    "auth/user/revoke" => user_revoke_role,
    "auth/role/add" => role_add,
    "auth/role/get" => role_get,
    "auth/role/list" => role_list,
    "auth/role/delete" => role_delete,
    "auth/role/grant" => role_grant_permission,
    "auth/role/revoke" => role_revoke_permission,
    "lock/lock" => lock,
    "lock/unlock" => unlock,
    "election/campaign" => campaign,
    "election/proclaim" => proclaim,
    "election/leader" => leader,
    "election/resign" => resign,
}

async fn answer(api: Api, call: &str, body: Body, limit: usize) -> Response<Body> {
    match call {
        "watch" => match api.open_watch(body::messages(body, limit), false).await {
            Ok(answers) => streamed(answers.map(|answer| answer.map(Answer::into_message))),
            Err(status) => stream_failed(&status),
        },
        "lease/keepalive" => match body::first(api.keep_alive(body::messages(body, limit), false)).await {
            Ok(answers) => streamed(answers),
            Err(status) => stream_failed(&status),
        },
        "maintenance/snapshot" => stream_failed(&crate::errors::unimplemented("snapshots over the API")),
        "election/observe" => stream_failed(&crate::errors::unimplemented("the election service")),
        _ => {
            let answered = match body::collect(body, limit).await {
                Ok(body) => unary(&api, call, &body).await,
                Err(status) => Err(status),
            };
            match answered {
                Ok(json) => answered_by_grpc(text(StatusCode::OK, JSON, json)),
                Err(status) => failed(&status),
            }
        }
    }
}

fn read<M: Message + Name + Default>(body: &[u8]) -> Result<M, Status> {
    json::decode(body).map_err(|e| Status::invalid_argument(e.to_string()))
}

fn streamed<S, M>(answers: S) -> Response<Body>
where
    S: Stream<Item = Result<M, Status>> + Send + Unpin + 'static,
    M: Message + Name + 'static,
{
    let mut response = text(StatusCode::OK, JSON, "");
    *response.body_mut() = Body::new(Lines::new(answers).map_err(|never| match never {}));
    answered_by_grpc(response)
}

/// The header that etcd's gateway passes on from the gRPC side.
fn answered_by_grpc(mut response: Response<Body>) -> Response<Body> {
    response.headers_mut().insert(
        "grpc-metadata-content-type",
        HeaderValue::from_static("application/grpc"),
    );
    response
}

fn failed(status: &Status) -> Response<Body> {
    text(http_status(status.code()), JSON, body::error(status))
}

fn stream_failed(status: &Status) -> Response<Body> {
    text(http_status(status.code()), JSON, body::only_error(status))
}

/// The HTTP status of a gRPC code, as the gateway of etcd 3.6 maps it.
fn http_status(code: Code) -> StatusCode {
    let number = match code {
        Code::Ok => 200,
        Code::InvalidArgument | Code::FailedPrecondition | Code::OutOfRange => 400,
        Code::Unauthenticated => 401,
        Code::PermissionDenied => 403,
        Code::NotFound => 404,
        Code::AlreadyExists | Code::Aborted => 409,
        Code::ResourceExhausted => 429,
        Code::Cancelled => 499,
        Code::Unknown | Code::Internal | Code::DataLoss => 500,
        Code::Unimplemented => 501,
        Code::Unavailable => 503,
        Code::DeadlineExceeded => 504,
    };
    StatusCode::from_u16(number).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}
