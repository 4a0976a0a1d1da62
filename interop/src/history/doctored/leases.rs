//! Histories in which leases do not end as they should.

use std::collections::BTreeMap;

use super::super::leases::attachment;
use super::super::{Ask, Call, NO_LEASE, Outcome, Told};
use super::Case;

/// The lease was given for much longer than it lived.
pub(super) fn expire_early(case: &mut Case) -> Option<()> {
    let (_, lease) = expired(case).next()?;
    let given = |call: &mut Call| match &mut call.outcome {
        Outcome::Ok {
            told: Told::Lease(id, ttl),
            ..
        } if *id == lease => {
            *ttl += 1000;
            Some(())
        }
        _ => None,
    };
    case.calls.iter_mut().find_map(given)
}

/// The same, and somebody asks for its end after that.
pub(super) fn expire_early_and_revoke(case: &mut Case) -> Option<()> {
    let (_, lease) = expired(case).next()?;
    expire_early(case)?;
    let after = case.calls.iter().map(|call| call.returned).max()?;
    case.calls.push(Call {
        client: 0,
        member: 0,
        invoked: after + 1,
        returned: after + 2,
        ask: Ask::Revoke { lease },
        outcome: Outcome::Unknown("no answer in time".into()),
    });
    Some(())
}

/// Leases that ran out, each with the revision that took its keys: nobody asked to revoke them, and somebody heard of their end.
fn expired(case: &Case) -> impl Iterator<Item = (i64, i64)> {
    let revoked: Vec<i64> = case.calls.iter().filter_map(revocation).collect();
    let heard = case.calls.iter().filter_map(|call| match call.outcome {
        Outcome::Ok { revision, .. } => Some(revision),
        _ => None,
    });
    let newest = heard.max().unwrap_or(0);
    let leased: BTreeMap<&str, i64> = case
        .calls
        .iter()
        .filter(|call| call.acknowledged().is_some())
        .filter_map(attachment)
        .map(|(key, _, lease)| (key, lease))
        .collect();
    let mut ended = BTreeMap::new();
    for (revision, key, value) in &case.changes {
        if let (None, Some(lease)) = (value, leased.get(key.as_str()))
            && *revision <= newest
            && !revoked.contains(lease)
        {
            ended.insert(*revision, *lease);
        }
    }
    ended.into_iter()
}

/// The last key of a lease outlives the others a little.
pub(super) fn expire_apart(case: &mut Case) -> Option<()> {
    let of = |revision: i64| {
        let changes = case.changes.iter().enumerate();
        let of = changes.filter(move |(_, (at, _, _))| *at == revision);
        of.map(|(number, _)| number).collect::<Vec<_>>()
    };
    let several = expired(case).map(|(revision, _)| of(revision));
    let last = several.filter(|several| several.len() > 1).last()?.pop()?;
    let (_, key, _) = case.changes.remove(last);
    case.revision += 1;
    case.changes.push((case.revision, key, None));
    Some(())
}

/// A renewal, soon after a lease was given.
pub(super) fn deny_a_lease(case: &mut Case) -> Option<()> {
    let revoked: Vec<i64> = case.calls.iter().filter_map(revocation).collect();
    let given = |call: &Call| match (&call.ask, &call.outcome) {
        (
            Ask::Grant { .. },
            Outcome::Ok {
                told: Told::Lease(lease, _),
                ..
            },
        ) if !revoked.contains(lease) => Some((*lease, call.invoked)),
        _ => None,
    };
    let (lease, invoked) = case.calls.iter().find_map(given)?;
    case.calls.push(Call {
        client: 0,
        member: 0,
        invoked: invoked + 1,
        returned: invoked + 2,
        ask: Ask::Renew { lease },
        outcome: Outcome::Failed(NO_LEASE.into()),
    });
    Some(())
}

fn revocation(call: &Call) -> Option<i64> {
    match &call.ask {
        Ask::Revoke { lease } => Some(*lease),
        _ => None,
    }
}
