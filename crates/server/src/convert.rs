//! Between the API's messages and the state machine's types. Keys and values are handed over, not copied. The only rules here are
//! those about numbers that name nothing.

use std::sync::Arc;

use quorate_kv as kv;
use quorate_proto::etcdserverpb as pb;
use quorate_proto::mvccpb;
use tonic::Status;

use crate::errors;

pub(crate) fn range(request: pb::RangeRequest) -> Result<kv::RangeRequest, Status> {
    let order = kv::SortOrder::from_wire(request.sort_order);
    let target = kv::SortTarget::from_wire(request.sort_target);
    let (Some(sort_order), Some(sort_target)) = (order, target) else {
        return Err(errors::of_kv(&kv::Error::InvalidSortOption));
    };
    Ok(kv::RangeRequest {
        key: request.key,
        range_end: request.range_end,
        limit: request.limit,
        revision: request.revision,
        sort_order,
        sort_target,
        keys_only: request.keys_only,
        count_only: request.count_only,
        min_mod_revision: request.min_mod_revision,
        max_mod_revision: request.max_mod_revision,
        min_create_revision: request.min_create_revision,
        max_create_revision: request.max_create_revision,
    })
}

pub(crate) fn put(request: pb::PutRequest) -> kv::PutRequest {
    kv::PutRequest {
        key: request.key,
        value: request.value,
        lease: request.lease,
        prev_kv: request.prev_kv,
        ignore_value: request.ignore_value,
        ignore_lease: request.ignore_lease,
    }
}

pub(crate) fn delete_range(request: pb::DeleteRangeRequest) -> kv::DeleteRangeRequest {
    kv::DeleteRangeRequest {
        key: request.key,
        range_end: request.range_end,
        prev_kv: request.prev_kv,
    }
}

pub(crate) fn txn(request: pb::TxnRequest) -> Result<kv::TxnRequest, Status> {
    Ok(kv::TxnRequest {
        compare: request
            .compare
            .into_iter()
            .map(compare)
            .collect::<Result<_, _>>()?,
        success: request
            .success
            .into_iter()
            .map(operation)
            .collect::<Result<_, _>>()?,
        failure: request
            .failure
            .into_iter()
            .map(operation)
            .collect::<Result<_, _>>()?,
    })
}

/// A comparison. The operand counts only if it is the one that the target names; otherwise it is zero, as in etcd.
fn compare(request: pb::Compare) -> Result<kv::Compare, Status> {
    use pb::compare::{CompareResult, CompareTarget, TargetUnion};
    let unknown = |what| Status::invalid_argument(format!("etcdserver: unknown compare {what}"));
    let op = match CompareResult::try_from(request.result) {
        Ok(CompareResult::Equal) => kv::CompareOp::Equal,
        Ok(CompareResult::Greater) => kv::CompareOp::Greater,
        Ok(CompareResult::Less) => kv::CompareOp::Less,
        Ok(CompareResult::NotEqual) => kv::CompareOp::NotEqual,
        Err(_) => return Err(unknown("result")),
    };
    let operand = request.target_union;
    let target = match CompareTarget::try_from(request.target) {
        Ok(CompareTarget::Version) => kv::CompareTarget::Version(match operand {
            Some(TargetUnion::Version(n)) => n,
            _ => 0,
        }),
        Ok(CompareTarget::Create) => kv::CompareTarget::Create(match operand {
            Some(TargetUnion::CreateRevision(n)) => n,
            _ => 0,
        }),
        Ok(CompareTarget::Mod) => kv::CompareTarget::Mod(match operand {
            Some(TargetUnion::ModRevision(n)) => n,
            _ => 0,
        }),
        Ok(CompareTarget::Value) => kv::CompareTarget::Value(match operand {
            Some(TargetUnion::Value(value)) => value,
            _ => Default::default(),
        }),
        Ok(CompareTarget::Lease) => kv::CompareTarget::Lease(match operand {
            Some(TargetUnion::Lease(n)) => n,
            _ => 0,
        }),
        Err(_) => return Err(unknown("target")),
    };
    Ok(kv::Compare {
        key: request.key,
        range_end: request.range_end,
        op,
        target,
    })
}

fn operation(request: pb::RequestOp) -> Result<kv::RequestOp, Status> {
    use pb::request_op::Request;
    Ok(match request.request {
        None => kv::RequestOp::Empty,
        Some(Request::RequestRange(r)) => kv::RequestOp::Range(range(r)?),
        Some(Request::RequestPut(r)) => kv::RequestOp::Put(put(r)),
        Some(Request::RequestDeleteRange(r)) => kv::RequestOp::DeleteRange(delete_range(r)),
        Some(Request::RequestTxn(r)) => kv::RequestOp::Txn(Box::new(txn(r)?)),
    })
}

/// Whether a transaction asks for what this member has in its own state: it reads, and says of every read that it may be old. Without an
/// operation nothing says so of its compares. (etcd takes that for consent, and answers from whatever state it is asked at.)
pub(crate) fn is_serializable(txn: &pb::TxnRequest) -> bool {
    use pb::request_op::Request;
    let mut ops = txn.success.iter().chain(&txn.failure).peekable();
    ops.peek().is_some()
        && ops.all(|op| matches!(&op.request, Some(Request::RequestRange(range)) if range.serializable))
}

fn key_value(kv: kv::KeyValue) -> mvccpb::KeyValue {
    mvccpb::KeyValue {
        key: kv.key,
        create_revision: kv.create_revision,
        mod_revision: kv.mod_revision,
        version: kv.version,
        value: kv.value,
        lease: kv.lease,
    }
}

type Header = Option<pb::ResponseHeader>;

/// The header of an answer inside a transaction: only the revision.
fn inner(revision: i64) -> Header {
    Some(pb::ResponseHeader {
        revision,
        ..Default::default()
    })
}

pub(crate) fn range_response(header: Header, response: kv::RangeResponse) -> pb::RangeResponse {
    pb::RangeResponse {
        header,
        kvs: response.kvs.into_iter().map(key_value).collect(),
        more: response.more,
        count: response.count,
    }
}

pub(crate) fn put_response(header: Header, response: kv::PutResponse) -> pb::PutResponse {
    pb::PutResponse {
        header,
        prev_kv: response.prev_kv.map(key_value),
    }
}

pub(crate) fn delete_range_response(
    header: Header,
    response: kv::DeleteRangeResponse,
) -> pb::DeleteRangeResponse {
    pb::DeleteRangeResponse {
        header,
        deleted: response.deleted,
        prev_kvs: response.prev_kvs.into_iter().map(key_value).collect(),
    }
}

pub(crate) fn txn_response(header: Header, response: kv::TxnResponse) -> pb::TxnResponse {
    pb::TxnResponse {
        header,
        succeeded: response.succeeded,
        responses: response.responses.into_iter().map(operation_response).collect(),
    }
}

fn operation_response(response: kv::ResponseOp) -> pb::ResponseOp {
    use pb::response_op::Response;
    let response = match response {
        kv::ResponseOp::Range(r) => Response::ResponseRange(range_response(inner(r.revision), r)),
        kv::ResponseOp::Put(r) => Response::ResponsePut(put_response(inner(r.revision), r)),
        kv::ResponseOp::DeleteRange(r) => {
            Response::ResponseDeleteRange(delete_range_response(inner(r.revision), r))
        }
        // A nested transaction's header is there, but empty: etcd's habit.
        kv::ResponseOp::Txn(r) => Response::ResponseTxn(txn_response(inner(0), *r)),
    };
    pb::ResponseOp {
        response: Some(response),
    }
}

/// An event as a watcher gets it.
pub(crate) fn event(event: &Arc<kv::Event>, prev_kv: bool) -> mvccpb::Event {
    use mvccpb::event::EventType;
    let kind = match event.kind {
        kv::EventKind::Put => EventType::Put,
        kv::EventKind::Delete => EventType::Delete,
    };
    mvccpb::Event {
        r#type: kind as i32,
        kv: Some(key_value(event.kv.clone())),
        prev_kv: event.prev_kv.as_ref().filter(|_| prev_kv).cloned().map(key_value),
    }
}

pub(crate) fn watch(request: pb::WatchCreateRequest) -> kv::watch::WatchRequest {
    use pb::watch_create_request::FilterType;
    let leaves_out = |filter: FilterType| request.filters.contains(&(filter as i32));
    kv::watch::WatchRequest {
        no_put: leaves_out(FilterType::Noput),
        no_delete: leaves_out(FilterType::Nodelete),
        key: request.key,
        range_end: request.range_end,
        start_revision: request.start_revision,
        progress_notify: request.progress_notify,
        prev_kv: request.prev_kv,
        watch_id: request.watch_id,
        fragment: request.fragment,
    }
}

pub(crate) fn alarms(alarms: Vec<kv::Alarm>) -> Vec<pb::AlarmMember> {
    alarms
        .into_iter()
        .map(|alarm| pb::AlarmMember {
            member_id: alarm.member,
            alarm: alarm.kind as i32,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_operand_of_another_target_is_zero() {
        let request = pb::Compare {
            target: pb::compare::CompareTarget::Mod as i32,
            target_union: Some(pb::compare::TargetUnion::Version(7)),
            ..Default::default()
        };
        assert_eq!(
            compare(request).expect("known target").target,
            kv::CompareTarget::Mod(0)
        );
    }

    #[test]
    fn unknown_sort_options_are_refused_in_etcds_words() {
        for (sort_order, sort_target) in [(9, 0), (0, 9), (-1, 0)] {
            let status = range(pb::RangeRequest {
                sort_order,
                sort_target,
                ..Default::default()
            })
            .unwrap_err();
            assert_eq!(status.message(), "etcdserver: invalid sort option");
        }
    }

    #[test]
    fn a_transaction_is_serializable_only_if_every_read_is() {
        let read = |serializable| pb::RequestOp {
            request: Some(pb::request_op::Request::RequestRange(pb::RangeRequest {
                serializable,
                ..Default::default()
            })),
        };
        let txn = |success| pb::TxnRequest {
            success,
            ..Default::default()
        };
        assert!(is_serializable(&txn(vec![read(true), read(true)])));
        assert!(!is_serializable(&txn(vec![read(true), read(false)])));
        let compares = pb::TxnRequest {
            compare: vec![pb::Compare::default()],
            ..Default::default()
        };
        assert!(!is_serializable(&compares), "nobody said that it may be old");
    }
}
