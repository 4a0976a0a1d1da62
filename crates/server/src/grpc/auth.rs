//! The Auth service. Authentication is not built: it is always disabled, and says so.

use quorate_proto::etcdserverpb as pb;
use tonic::{Request, Response, Status};

use super::Api;
use crate::errors;

/// The methods that are not there, by name and messages.
macro_rules! not_there {
    ($($method:ident($request:ident) -> $response:ident: $what:literal;)*) => {
        #[tonic::async_trait]
        impl pb::auth_server::Auth for Api {
            async fn auth_status(
                &self,
                _: Request<pb::AuthStatusRequest>,
            ) -> Result<Response<pb::AuthStatusResponse>, Status> {
                self.ctx.check_learner()?;
                Ok(Response::new(pb::AuthStatusResponse {
                    header: self.ctx.header(),
                    enabled: false,
                    // What a store that auth was never enabled on has in etcd.
                    auth_revision: 1,
                }))
            }

            async fn authenticate(
                &self,
                _: Request<pb::AuthenticateRequest>,
            ) -> Result<Response<pb::AuthenticateResponse>, Status> {
                self.ctx.check_learner()?;
                Err(Status::failed_precondition("etcdserver: authentication is not enabled"))
            }

            $(async fn $method(&self, _: Request<pb::$request>) -> Result<Response<pb::$response>, Status> {
                Err(errors::unimplemented($what))
            })*
        }
    };
}

not_there! {
    auth_enable(AuthEnableRequest) -> AuthEnableResponse: "enabling authentication";
    auth_disable(AuthDisableRequest) -> AuthDisableResponse: "disabling authentication";
    user_add(AuthUserAddRequest) -> AuthUserAddResponse: "users";
    user_get(AuthUserGetRequest) -> AuthUserGetResponse: "users";
    user_list(AuthUserListRequest) -> AuthUserListResponse: "users";
    user_delete(AuthUserDeleteRequest) -> AuthUserDeleteResponse: "users";
    user_change_password(AuthUserChangePasswordRequest) -> AuthUserChangePasswordResponse: "users";
    user_grant_role(AuthUserGrantRoleRequest) -> AuthUserGrantRoleResponse: "users";
    user_revoke_role(AuthUserRevokeRoleRequest) -> AuthUserRevokeRoleResponse: "users";
    role_add(AuthRoleAddRequest) -> AuthRoleAddResponse: "roles";
    role_get(AuthRoleGetRequest) -> AuthRoleGetResponse: "roles";
    role_list(AuthRoleListRequest) -> AuthRoleListResponse: "roles";
    role_delete(AuthRoleDeleteRequest) -> AuthRoleDeleteResponse: "roles";
    role_grant_permission(AuthRoleGrantPermissionRequest) -> AuthRoleGrantPermissionResponse: "roles";
    role_revoke_permission(AuthRoleRevokePermissionRequest) -> AuthRoleRevokePermissionResponse: "roles";
}
