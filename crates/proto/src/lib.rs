//! The etcd v3 API as Rust types: messages, client and server stubs generated from our own `.proto` files (which carry the
//! public API's names and numbers), and the mapping of the messages to JSON that the gateway speaks. What the
//! calls mean is decided in `quorate-server` and `quorate-kv`, not here.

pub mod json;

/// The generated code of one protobuf package.
macro_rules! package {
    ($(#[$doc:meta])* $name:ident, $package:literal) => {
        $(#[$doc])*
        #[allow(missing_docs, clippy::all, rustdoc::all)]
        pub mod $name {
            tonic::include_proto!($package);
        }
    };
}

package! {
    /// Keys, watches, leases, members, maintenance and auth.
    etcdserverpb, "etcdserverpb"
}
package! {
    /// Keys with their revisions, and events.
    mvccpb, "mvccpb"
}
package! {
    /// Users, roles and permissions.
    authpb, "authpb"
}
package! {
    /// Locks.
    v3lockpb, "v3lockpb"
}
package! {
    /// Elections.
    v3electionpb, "v3electionpb"
}

/// The gRPC health checking protocol.
pub mod health {
    #![allow(missing_docs, clippy::all, rustdoc::all)]
    tonic::include_proto!("grpc.health.v1");
}

/// The encoded `FileDescriptorSet` of all files.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
