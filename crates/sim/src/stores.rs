//! Stores whose disks break their word: bits that flip in a store's file, at rest or while its node runs, and writes to it that were confirmed and
//! are lost, or elsewhere. As with logs ([`media`](crate::media)), such faults strike only where the cluster can do without the disk.
//!
//! The process finds the damage when it reads it, and says so; or it never reads it. What it answers meanwhile is held to be right as
//! ever. After some time the operator stops the member. If all that was spoilt has been written anew since, it goes on. Otherwise everything that
//! its store still answers is compared once more, and it is replaced, whether or not the damage was met: nobody can tell what of
//! a disk in doubt will be needed.

use quorate_base::{NodeId, StateMachine};
use quorate_kv::{Kv, RangeRequest};

use crate::coverage::Kind;
use crate::disk::STORE;
use crate::failure::{Failure, catch};
use crate::host::kv_options;
use crate::params::{MS, SEC};
use crate::picture::Topic;
use crate::plan::Fault;
use crate::world::{Happening, World};

/// Where its one file has the engine's header, which is a sector (docs/store.md). That a write of it was lost cannot be told.
const HEADER: usize = 2 * 4096;

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
                if !disk.lose_write(STORE, HEADER, cached, astray) {
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
    /// any was.
    fn read_spoilt_store(&mut self, id: NodeId) -> Result<bool, Failure> {
        let copy = self.hosts[&id].disk.durable_copy();
        let opened =
            catch(|| Kv::open(copy.mount(), kv_options(&self.params)).map_err(|error| error.to_string()));
        let kv = match opened.and_then(|opened| opened) {
            Ok(kv) => kv,
            Err(why) => return self.names_damage(id, &why),
        };
        let all = RangeRequest {
            key: "a".into(),
            range_end: "z".into(),
            ..RangeRequest::default()
        };
        let found = catch(|| kv.range(&all)).map_err(Failure::Crash)?;
        if let Err(quorate_kv::Error::Storage(why)) = &found {
            return self.names_damage(id, why);
        }
        let machines = &self.ghost.machines;
        machines.check_answer(id, kv.applied().index, &all, &found)?;
        let right = found.is_ok_and(|found| found.kvs == machines.model().read(&all, found.revision));
        if !right {
            let what = format!("S19: the spoilt store of n{id} answers what is not the model's");
            return Err(Failure::Correctness(what));
        }
        match catch(|| kv.hash().map_err(|error| error.to_string())).and_then(|hash| hash) {
            Ok(hash) => {
                let index = kv.applied().index;
                self.ghost.machines.check_hash(id, index, hash)?;
                Ok(false)
            }
            Err(why) => self.names_damage(id, &why),
        }
    }

    /// An error of a store in doubt says where it is damaged (S19).
    pub(crate) fn names_damage(&self, id: NodeId, why: &str) -> Result<bool, Failure> {
        if is_store_damage(why) {
            return Ok(true);
        }
        let what = format!("S19: n{id}, whose store is spoilt, does not say where: {why}");
        Err(Failure::Correctness(what))
    }

    /// A read met the damage in a running node's store. The next job, within a second, ends the process.
    pub(crate) fn read_store_damage(&mut self, id: NodeId, why: &str) {
        self.trace.mark(
            Topic::Fault,
            self.now,
            Some(id),
            format_args!("finds its store damaged: {why}"),
        );
        let (run, delay) = (self.hosts[&id].run, self.rng.within(0..SEC));
        self.after(delay, Happening::MachineTurn { id, run });
    }
}

/// Whether an error says that the store is not what was written.
pub(crate) fn is_store_damage(why: &str) -> bool {
    why.contains("the file `store` is damaged at bytes")
}
