//! The watch fan-out of a running node: the production hub, fed as its task in the server is, with what was applied and with history,
//! at moments of its own, so that both may overtake each other. Who watches is in [`watches`](crate::watches).

use std::collections::VecDeque;
use std::sync::Arc;

use quorate_base::NodeId;
use quorate_kv::watch::{HistoryWanted, Hub, HubOptions};
use quorate_kv::{EventBatch, History, Kv};

use crate::coverage::Kind;
use crate::failure::{Failure, catch};
use crate::params::MS;
use crate::world::{Happening, World};

/// The hub and what is on its way to it.
#[derive(Debug)]
pub struct Fanout {
    /// The hub.
    pub hub: Hub,
    batches: VecDeque<Arc<EventBatch>>,
    /// History that will be read, and history that was.
    wanted: Option<HistoryWanted>,
    read: Option<History>,
    /// The hub's turn will come.
    due: bool,
}

impl Fanout {
    /// Of a store that was just opened.
    pub fn new(kv: &Kv, options: HubOptions) -> Fanout {
        Fanout {
            hub: Hub::new(options, kv.revision(), kv.compacted_revision()),
            batches: VecDeque::new(),
            wanted: None,
            read: None,
            due: false,
        }
    }
}

impl World {
    /// A batch was applied, or a snapshot restored: the hub is told, now or later.
    pub(crate) fn publish(&mut self, id: NodeId) -> Result<(), Failure> {
        let process = self.process(id).expect("it has just applied something");
        let Some(batch) = process.kv.take_events() else {
            return Ok(());
        };
        process.fanout.batches.push_back(batch);
        // Nobody can see when a hub without watchers is told.
        let unseen = process.fanout.hub.watchers() == (0, 0);
        if unseen || self.rng.below(3) > 0 {
            return self.hub_turn(id);
        }
        self.hub_start(id, 20 * MS);
        Ok(())
    }

    /// Lets the hub have its turn within some time.
    fn hub_start(&mut self, id: NodeId, within: u64) {
        let delay = self.rng.within(0..within);
        let run = self.hosts[&id].run;
        let fanout = &mut self.process(id).expect("its hub is at work").fanout;
        if !std::mem::replace(&mut fanout.due, true) {
            self.after(delay, Happening::HubTurn { id, run });
        }
    }

    /// The hub takes in what there is, and asks for history if somebody is behind.
    pub(crate) fn hub_turn(&mut self, id: NodeId) -> Result<(), Failure> {
        let history_first = self.rng.coin();
        let run = self.hosts[&id].run;
        let fanout = &mut self.process(id).expect("its hub is at work").fanout;
        fanout.due = false;
        let wants = catch(|| {
            let Fanout {
                hub, read, batches, ..
            } = fanout;
            if history_first && let Some(history) = read.take() {
                hub.history(&history);
            }
            for batch in batches.drain(..) {
                hub.publish(&batch);
            }
            if let Some(history) = read.take() {
                hub.history(&history);
            }
            let wants = fanout.wanted.is_none().then(|| hub.wants_history());
            fanout.wanted = fanout.wanted.or(wants.flatten());
            wants.flatten().is_some()
        });
        if wants.map_err(|why| Failure::Crash(format!("the hub of n{id}: {why}")))? {
            self.coverage.hit(Kind::WatchBehind);
            let delay = self.rng.within(0..3 * MS);
            self.after(delay, Happening::HistoryTurn { id, run });
        }
        Ok(())
    }

    /// History is read for the hub, which will be told later.
    pub(crate) fn read_history(&mut self, id: NodeId) -> Result<(), Failure> {
        let process = self.process(id).expect("its hub is at work");
        let Some(HistoryWanted {
            from,
            max_bytes,
            prev_kv,
        }) = process.fanout.wanted.take()
        else {
            return Ok(());
        };
        let read = catch(|| {
            process
                .kv
                .history(from, max_bytes, prev_kv)
                .map_err(|error| error.to_string())
        });
        let Some(history) = self.settle(id, read)? else {
            return Ok(());
        };
        self.process(id).expect("settled").fanout.read = Some(history);
        self.hub_start(id, 3 * MS);
        Ok(())
    }
}
