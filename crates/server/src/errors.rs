//! What clients are told when something goes wrong: the status code and the exact words of the etcd API.
//!
//! The line that must not be crossed: a write whose fate is unknown is never answered with words that mean "not done".

use quorate::{AskError, ProposeError, ReadError, Reason, TransferError};
use quorate_kv::{Code, Error};
use tonic::Status;

/// This member knows no leader.
pub(crate) fn no_leader() -> Status {
    Status::unavailable("etcdserver: no leader")
}

/// No answer in time; the request may have been carried out.
pub(crate) fn timed_out() -> Status {
    Status::unavailable("etcdserver: request timed out")
}

/// The member stops.
pub(crate) fn stopped() -> Status {
    Status::unavailable("etcdserver: server stopped")
}

/// The request is longer than `--max-request-bytes`.
pub(crate) fn too_large() -> Status {
    Status::invalid_argument("etcdserver: request is too large")
}

/// The request's message is longer than any that fits: the words of etcd's gRPC library.
pub(crate) fn message_too_long(limit: usize) -> Status {
    Status::resource_exhausted(format!("grpc: received message larger than max ({limit})"))
}

/// A watch stream whose client leaves the answers to its requests unread.
pub(crate) fn unread() -> Status {
    Status::resource_exhausted("etcdserver: too many unread answers on the watch stream")
}

/// The disk is full.
pub(crate) fn no_space() -> Status {
    of_kv(&Error::NoSpace)
}

/// Part of the API that is not built.
pub(crate) fn unimplemented(what: &str) -> Status {
    Status::unimplemented(format!("quorate does not support {what} yet"))
}

/// From the state machine.
pub(crate) fn of_kv(error: &Error) -> Status {
    let code = match error.code() {
        Code::InvalidArgument => tonic::Code::InvalidArgument,
        Code::NotFound => tonic::Code::NotFound,
        Code::ResourceExhausted => tonic::Code::ResourceExhausted,
        Code::FailedPrecondition => tonic::Code::FailedPrecondition,
        Code::OutOfRange => tonic::Code::OutOfRange,
        Code::Internal => tonic::Code::Internal,
        Code::DataLoss => tonic::Code::DataLoss,
    };
    Status::new(code, error.to_string())
}

/// From a proposal.
pub(crate) fn of_propose(error: ProposeError) -> Status {
    match error {
        ProposeError::NotDone(reason) => not_done(reason),
        ProposeError::Unknown(reason) => of_unknown(reason),
    }
}

/// From a request that may or may not have been carried out.
pub(crate) fn of_unknown(reason: Reason) -> Status {
    match reason {
        Reason::NoLeader | Reason::LeaderChanged => {
            Status::unavailable("etcdserver: request timed out, possibly due to previous leader failure")
        }
        Reason::LinkDown => connection_lost(),
        // The other reasons say why the wait ended, which tells nothing of the request's fate.
        _ => timed_out(),
    }
}

/// From a read.
pub(crate) fn of_read(error: ReadError) -> Status {
    not_done(error.0)
}

/// From a request that certainly has no effect.
pub(crate) fn not_done(reason: Reason) -> Status {
    match reason {
        Reason::NoLeader => no_leader(),
        Reason::LeaderChanged => Status::unavailable("etcdserver: leader changed"),
        Reason::LinkDown => connection_lost(),
        Reason::Timeout => timed_out(),
        Reason::TooLarge => too_large(),
        Reason::Stopped => stopped(),
        // etcd has no gRPC form of this error and lets it through as Unknown.
        Reason::Busy => Status::unknown("etcdserver: too many requests"),
        Reason::NoSpace => no_space(),
    }
}

fn connection_lost() -> Status {
    Status::unavailable("etcdserver: request timed out, possibly due to connection lost")
}

/// From handing leadership over.
pub(crate) fn of_transfer(error: TransferError) -> Status {
    match error {
        TransferError::NotLeader(_) => Status::failed_precondition("etcdserver: not leader"),
        TransferError::NotMember => Status::failed_precondition("etcdserver: bad leader transferee"),
        TransferError::Timeout => {
            Status::unavailable("etcdserver: request timed out, leader transfer took too long")
        }
        TransferError::Stopped => stopped(),
    }
}

/// From asking another member something that may safely be asked again.
pub(crate) fn of_ask(error: AskError) -> Status {
    match error {
        AskError::Stopped => stopped(),
        AskError::TooLarge => too_large(),
        AskError::Timeout => timed_out(),
        AskError::Unreachable | AskError::NotMember | AskError::Refused | AskError::Lost => connection_lost(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REASONS: [Reason; 8] = [
        Reason::NoLeader,
        Reason::LeaderChanged,
        Reason::LinkDown,
        Reason::Timeout,
        Reason::TooLarge,
        Reason::Stopped,
        Reason::Busy,
        Reason::NoSpace,
    ];

    #[test]
    fn an_unknown_fate_is_always_a_timeout_to_the_client() {
        for reason in REASONS {
            let status = of_propose(ProposeError::Unknown(reason));
            assert_eq!(status.code(), tonic::Code::Unavailable, "{reason:?}");
            assert!(
                status.message().starts_with("etcdserver: request timed out"),
                "{reason:?}: {status}"
            );
        }
    }

    #[test]
    fn what_was_not_done_is_said_in_etcds_words() {
        let said = |reason| {
            let status = of_propose(ProposeError::NotDone(reason));
            (status.code(), status.message().to_owned())
        };
        for (reason, code, text) in [
            (
                Reason::NoLeader,
                tonic::Code::Unavailable,
                "etcdserver: no leader",
            ),
            (
                Reason::LeaderChanged,
                tonic::Code::Unavailable,
                "etcdserver: leader changed",
            ),
            (
                Reason::TooLarge,
                tonic::Code::InvalidArgument,
                "etcdserver: request is too large",
            ),
            (
                Reason::Stopped,
                tonic::Code::Unavailable,
                "etcdserver: server stopped",
            ),
            (
                Reason::Busy,
                tonic::Code::Unknown,
                "etcdserver: too many requests",
            ),
            (
                Reason::NoSpace,
                tonic::Code::ResourceExhausted,
                "etcdserver: mvcc: database space exceeded",
            ),
        ] {
            assert_eq!(said(reason), (code, text.to_owned()));
        }
    }
}
