//! Stores whose disks break their word: bits that flip in a store's file, at rest or while its node runs, and writes to it that were confirmed and
//! are lost, or elsewhere. As with logs ([`media`](crate::media)), such faults strike only where the cluster can do without the disk.
//!
//! The process finds the damage when it reads it, and says so; or it never reads it. What it answers meanwhile is held to be right as
//! ever. After some time the operator stops the member. If all that was spoilt has been written anew since, it goes on. Otherwise everything that
//! its store still answers is compared once more, and it is replaced, whether or not the damage was met: nobody can tell what of
//! a disk in doubt will be needed.

use std::ops::Range;

use quorate_base::{Index, NodeId, StateMachine};
use quorate_kv::{Kv, RangeRequest, layout};

use crate::coverage::Kind;
use crate::disk::STORE;
use crate::failure::{Failure, catch};
use crate::host::kv_options;
use crate::params::{MS, SEC};
use crate::picture::Topic;
use crate::plan::Fault;
use crate::world::{Happening, World};

/// At so many earlier revisions a store in doubt is read whole.
const REVISIONS: i64 = 24;

impl World {
    /// The disk spoils this node's store. Returns whether it could: there may be no write yet that it could have lost.
    pub(crate) fn spoil_store(&mut self, number: usize, id: NodeId) -> bool {
        let disk = self.hosts[&id].disk.clone();
        match self.params.plan[number].fault {
            Fault::StoreRot { flips, at_rest } => {
                self.doubt(id, number);
                self.host(id).in_store = true;
                self.spoiled(Kind::StoreRot, id);
                if at_rest {
                    self.end(id, true, 200 * MS);
                }
                for _ in 0..flips {
                    disk.rot(STORE);
                }
            }
            Fault::StoreLostWrite { cached, astray } => {
                // That a write of the header was lost cannot be told (docs/store.md).
                let header = layout::header().start as usize;
                if !disk.lose_write(STORE, header, cached, astray) {
                    return false;
                }
                self.doubt(id, number);
                self.host(id).in_store = true;
                self.spoiled(Kind::StoreLostWrite, id);
            }
            _ => unreachable!("only stores are spoilt here"),
        }
        true
    }

    /// The operator has stopped a member whose store is in doubt.
    pub(crate) fn examine_store(&mut self, id: NodeId) -> Result<(), Failure> {
        if !self.hosts[&id].disk.is_spoilt(STORE) {
            let host = self.host(id);
            (host.rotten, host.rotted_by, host.in_store) = (false, None, false);
            host.disk.forget_spoilt();
            self.ghost.trust(id)?;
            return Ok(());
        }
        let met = self.read_spoilt_store(id)?;
        self.coverage.hit(match met {
            true => Kind::StoreDamageFound,
            false => Kind::StoreDamageUnmet,
        });
        self.give_up_disk(id)
    }

    /// Opens a copy of a spoilt store and asks it for all that there is: each answer is right, or an error that names the damage. Returns whether
    /// there was such an error.
    fn read_spoilt_store(&mut self, id: NodeId) -> Result<bool, Failure> {
        let copy = self.hosts[&id].disk.durable_copy();
        let opened =
            catch(|| Kv::open(copy.mount(), kv_options(&self.params)).map_err(|error| error.to_string()));
        let kv = match opened.and_then(|opened| opened) {
            Ok(kv) => kv,
            Err(why) => return self.names_damage(id, &why),
        };
        self.check_stored(id, kv.durable())?;
        if let Err(why) = self.compare_store(id, &kv, REVISIONS)? {
            return self.names_damage(id, &why);
        }
        match catch(|| kv.hash().map_err(|error| error.to_string())).and_then(|hash| hash) {
            Ok(hash) => {
                let index = kv.applied().index;
                self.ghost.machines.compare_hash(id, index, hash)?;
                Ok(false)
            }
            Err(why) => self.names_damage(id, &why),
        }
    }

    /// A store holds what the model holds: all keys, now and at up to `revisions` earlier revisions, and, where the model is at the same index, the
    /// leases (S14, S15). The inner error is the store's own: it cannot say.
    pub(crate) fn compare_store(
        &self,
        id: NodeId,
        kv: &Kv,
        revisions: i64,
    ) -> Result<Result<(), String>, Failure> {
        let (applied, machines) = (kv.applied().index, &self.ghost.machines);
        let (first, last) = (kv.compacted_revision().max(1), kv.revision());
        let step = ((last - first) / revisions.max(1)).max(1) as usize;
        let earlier = (first..last).step_by(step).take(revisions as usize);
        for revision in earlier.chain([0]) {
            let all = RangeRequest {
                key: "a".into(),
                range_end: "z".into(),
                revision,
                ..RangeRequest::default()
            };
            let found = catch(|| kv.range(&all)).map_err(Failure::Crash)?;
            if let Err(quorate_kv::Error::Storage(why)) = found {
                return Ok(Err(why));
            }
            machines.check_answer(id, applied, &all, &found)?;
            let at = if revision == 0 { last } else { revision };
            let right = machines.model().read(&all, at);
            if !found.as_ref().is_ok_and(|found| found.kvs.iter().eq(right)) {
                let what = format!("S14: the store of n{id} is not the model's at revision {at}: {found:?}");
                return Err(Failure::Correctness(what));
            }
        }
        if applied != machines.applied() {
            return Ok(Ok(()));
        }
        match catch(|| kv.leases()).map_err(Failure::Crash)? {
            Err(quorate_kv::Error::Storage(why)) => Ok(Err(why)),
            Ok(leases) if leases.iter().eq(machines.model().leases().values()) => Ok(Ok(())),
            leases => {
                let what = format!("S14: the leases of n{id} are not the model's: {leases:?}");
                Err(Failure::Correctness(what))
            }
        }
    }

    /// A store has what its node was told that it has (S14, S19), whatever became of its disk.
    pub(crate) fn check_stored(&self, id: NodeId, durable: Index) -> Result<(), Failure> {
        let stored = self.hosts[&id].stored;
        if durable >= stored || self.params.lying_disks {
            return Ok(());
        }
        let what = format!("S19: the store of n{id} holds {durable}, and was durable up to {stored}");
        Err(Failure::Correctness(what))
    }

    /// An error of a store in doubt says where it is damaged, and it is damaged there, or where the checksum of that is (S19). Always true, if it is
    /// no failure.
    pub(crate) fn names_damage(&self, id: NodeId, why: &str) -> Result<bool, Failure> {
        let Some(bytes) = damaged_bytes(why) else {
            let what = format!("S19: n{id}, whose store is spoilt, does not say where: {why}");
            return Err(Failure::Correctness(what));
        };
        let disk = &self.hosts[&id].disk;
        let sum = layout::checksum_of(bytes.start);
        let there = disk.was_spoilt(STORE, bytes) || sum.is_some_and(|sum| disk.was_spoilt(STORE, sum));
        if !there {
            let what = format!("S19: n{id} takes for damaged what nobody spoilt: {why}");
            return Err(Failure::Correctness(what));
        }
        Ok(true)
    }

    /// A read met the damage in a running node's store. The next job, within a second, ends the process.
    pub(crate) fn read_store_damage(&mut self, id: NodeId, why: &str) {
        self.trace.mark(
            Topic::Fault,
            self.now,
            Some(id),
            format_args!("finds its store damaged: {why}"),
        );
        if let Some(process) = self.process(id) {
            process.met_damage = true;
        }
        let (run, delay) = (self.hosts[&id].run, self.rng.within(0..SEC));
        self.after(delay, Happening::MachineTurn { id, run });
    }
}

/// Which bytes an error says are not what was written to the store.
pub(crate) fn damaged_bytes(why: &str) -> Option<Range<u64>> {
    let (_, place) = why.split_once("the file `store` is damaged at bytes ")?;
    let (first, rest) = place.split_once(" to ")?;
    let (last, _) = rest.split_once(':')?;
    Some(first.parse().ok()?..last.parse::<u64>().ok()? + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_that_names_the_damage_is_understood() {
        let damage = quorate_kv::error::Damage {
            file: STORE.to_owned(),
            bytes: 8192..8704,
            why: "they are not what was written there".to_owned(),
        };
        let told = format!("flushing: {damage}");
        assert_eq!(damaged_bytes(&told), Some(8192..8704));
        assert_eq!(damaged_bytes("Not a redb database"), None);
    }
}
