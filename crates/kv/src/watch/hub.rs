//! [`Hub`]: the watchers of a node, and how events reach them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;

use super::events::Piece;
use super::groups::{Groups, Wish};
use super::stream::{Kind, Stream};
use super::{HistoryWanted, HubOptions, StreamId, WatchRequest, WatchResponse};
use crate::kv::{EventBatch, History};
use crate::types::Event;

/// The watch id of what belongs to no watcher.
const NO_WATCH: i64 = -1;

/// Unsent answers to creates and cancels above which a stream is overrun: its client asks and asks and does not read. Well above
/// what a client that reads has in flight when it sets up all its watchers at once.
const MAX_ANSWERS: usize = 16_384;

/// All watchers of a node.
#[derive(Debug)]
pub struct Hub {
    options: HubOptions,
    /// Everything up to here was published.
    revision: i64,
    compacted: i64,
    next_id: u64,
    streams: BTreeMap<StreamId, Stream>,
    watchers: BTreeMap<u64, Watcher>,
    /// The watchers by what they want.
    groups: Groups,
    /// The unsynced ones, by the first revision they miss. Includes those that have no room.
    unsynced: BTreeSet<(i64, u64)>,
    /// Streams with something to send, not yet told.
    ready: BTreeSet<StreamId>,
    /// Streams whose client waits for a progress answer.
    waiting: BTreeSet<StreamId>,
    /// Streams with too many unsent answers, not yet told.
    overrun: BTreeSet<StreamId>,
    sweep: Sweep,
}

/// How far watchers that are behind were served: from `at` on it is their turn, those first that begin up to `end`. Bounded, so that it
/// comes round to the others though changes come faster than they are read.
#[derive(Debug, Default)]
struct Sweep {
    at: i64,
    end: i64,
}

impl Sweep {
    /// A stretch was read.
    fn pass(&mut self, history: &History) {
        // Begun anew, since nobody was left ahead.
        if !(self.at..=self.end).contains(&history.from) {
            self.end = history.revision;
        }
        self.at = history.through + 1;
    }
}

#[derive(Debug)]
struct Watcher {
    stream: StreamId,
    id: i64,
    group: u64,
    /// The first revision it still wants. While it is synced only a lower bound: everything published so far was delivered.
    next: i64,
    synced: bool,
    start_revision: i64,
    progress_notify: bool,
    /// No event since the last progress interval began.
    quiet: bool,
    /// A progress notification is in the stream's queue.
    notified: bool,
    /// Bytes of its events in the stream's queue.
    queued: usize,
}

impl Hub {
    /// A hub without watchers, at the store's present revisions. From then on it must see every batch.
    pub fn new(options: HubOptions, revision: i64, compacted: i64) -> Hub {
        Hub {
            options,
            revision,
            compacted,
            next_id: 0,
            streams: BTreeMap::new(),
            watchers: BTreeMap::new(),
            groups: Groups::default(),
            unsynced: BTreeSet::new(),
            ready: BTreeSet::new(),
            waiting: BTreeSet::new(),
            overrun: BTreeSet::new(),
            sweep: Sweep::default(),
        }
    }

    /// Everything up to this revision was published to the hub.
    pub fn revision(&self) -> i64 {
        self.revision
    }

    /// How many watchers there are: synced and unsynced.
    pub fn watchers(&self) -> (usize, usize) {
        (self.watchers.len() - self.unsynced.len(), self.unsynced.len())
    }

    /// Opens a stream.
    pub fn open(&mut self) -> StreamId {
        let id = StreamId(self.fresh_id());
        self.streams.insert(id, Stream::default());
        id
    }

    /// Closes a stream with all its watchers.
    pub fn close(&mut self, stream: StreamId) {
        if let Some(closed) = self.streams.remove(&stream) {
            for watcher in closed.ids.into_values() {
                self.forget(watcher);
            }
        }
        self.ready.remove(&stream);
        self.waiting.remove(&stream);
        self.overrun.remove(&stream);
    }

    /// Creates a watcher; the answer (created, or refused) is queued on the stream.
    pub fn create(&mut self, stream: StreamId, mut request: WatchRequest) {
        let fresh = self.next_id;
        let Some(to) = self.streams.get_mut(&stream) else {
            return;
        };
        if request.key.is_empty() {
            request.key = Bytes::from_static(b"\0");
        }
        let Some(wish) = Wish::new(&request) else {
            return self.refuse(stream, "mvcc: watcher range is empty");
        };
        let mut id = request.watch_id;
        if id == 0 {
            while to.ids.contains_key(&to.next_id) {
                to.next_id += 1;
            }
            id = to.next_id;
            to.next_id += 1;
        } else if to.ids.contains_key(&id) {
            return self.refuse(stream, "mvcc: duplicate watch ID provided on the WatchStream");
        }
        to.ids.insert(id, fresh);
        self.next_id += 1;

        let next = if request.start_revision > 0 {
            request.start_revision
        } else {
            self.revision + 1
        };
        let synced = next > self.revision;
        let group = self.groups.join(wish);
        if synced {
            self.groups.sync(group, fresh);
        } else {
            self.unsynced.insert((next, fresh));
        }
        let watcher = Watcher {
            stream,
            id,
            group,
            next,
            synced,
            start_revision: request.start_revision,
            progress_notify: request.progress_notify,
            quiet: false,
            notified: false,
            queued: 0,
        };
        self.watchers.insert(fresh, watcher);
        self.answer(stream, id, |response| response.created = true);
        self.cancel_compacted();
    }

    fn refuse(&mut self, stream: StreamId, reason: &'static str) {
        self.answer(stream, NO_WATCH, |response| {
            response.created = true;
            response.canceled = true;
            response.cancel_reason = reason;
        });
    }

    /// Cancels a watcher; the answer is queued. Unknown ids are ignored, as in etcd.
    pub fn cancel(&mut self, stream: StreamId, watch_id: i64) {
        let Some(from) = self.streams.get_mut(&stream) else {
            return;
        };
        if let Some(watcher) = from.ids.remove(&watch_id) {
            self.forget(watcher);
            self.answer(stream, watch_id, |response| response.canceled = true);
            self.answer_waiting();
        }
    }

    /// A client's progress request: answered once, when all watchers of the stream are synced and the answer before it was
    /// taken. Requests that wait together get one answer.
    pub fn request_progress(&mut self, stream: StreamId) {
        if self.streams.contains_key(&stream) {
            self.waiting.insert(stream);
            self.answer_waiting();
        }
    }

    /// The progress interval is over: every synced watcher that asked for notifications and had no event since the last call is
    /// told the revision, unless the client has not even taken what it was told last.
    pub fn notify_progress(&mut self) {
        let revision = self.revision;
        let mut told = Vec::new();
        for (key, watcher) in &mut self.watchers {
            let quiet = std::mem::replace(&mut watcher.quiet, true);
            if quiet
                && !watcher.notified
                && watcher.synced
                && watcher.progress_notify
                && watcher.start_revision <= revision
            {
                watcher.notified = true;
                told.push((watcher.stream, watcher.id, *key));
            }
        }
        for (stream, id, key) in told {
            self.control(stream, id, (Kind::Notification, key), |_| {});
        }
    }

    /// Takes in what was applied.
    pub fn publish(&mut self, batch: &EventBatch) {
        assert!(
            batch.revision >= self.revision || batch.gap,
            "batches come in order"
        );
        if batch.gap {
            self.fall_behind(batch.revision);
        } else {
            self.deliver_to_synced(batch);
        }
        batch.wanted.set(self.groups.want_prev_kv());
        self.revision = batch.revision;
        self.compacted = batch.compacted;
        self.cancel_compacted();
        self.answer_waiting();
    }

    /// Events are missing: whoever was synced reads history from where the hub was.
    fn fall_behind(&mut self, revision: i64) {
        let missed = self.revision + 1;
        let synced: Vec<u64> = self
            .watchers
            .iter()
            .filter(|(_, w)| w.synced)
            .map(|(key, _)| *key)
            .collect();
        for key in synced {
            let next = self.watchers[&key].next.max(missed);
            if next <= revision {
                self.unsync(key, next);
            }
        }
    }

    /// What a group wants is put together once, and all its synced watchers share it.
    fn deliver_to_synced(&mut self, batch: &EventBatch) {
        let events = batch.events.as_slice();
        let through = events.last().map_or(self.revision, |event| event.kv.mod_revision);
        for (group, events) in self.groups.distribute(events) {
            let group = &self.groups[group];
            let fragment = group.wish.fragment;
            let members: Vec<u64> = group.synced.iter().copied().collect();
            let first = events[0].kv.mod_revision;
            if group.wish.prev_kv && !batch.prev_kv {
                // They were applied before anybody wanted it.
                for key in members {
                    let next = self.watchers[&key].next.max(first);
                    if next <= through {
                        self.unsync(key, next);
                    }
                }
                continue;
            }
            let shared = self.pieces(events, fragment);
            for key in members {
                let next = self.watchers[&key].next;
                if next <= first {
                    self.deliver(key, &shared, first, through);
                    continue;
                }
                // It starts in the future, or in the middle of the batch.
                let events = shared.iter().flat_map(|piece| piece.events.iter());
                let own: Vec<Arc<Event>> = events
                    .filter(|event| event.kv.mod_revision >= next)
                    .cloned()
                    .collect();
                if let Some(first) = own.first().map(|event| event.kv.mod_revision) {
                    let own = self.pieces(own, fragment);
                    self.deliver(key, &own, first, through);
                }
            }
        }
    }

    /// Queues what was published for a synced watcher, or lets it fall behind if it is too much. `first` is the first event's revision.
    fn deliver(&mut self, key: u64, pieces: &[Piece], first: i64, through: i64) {
        let watcher = &self.watchers[&key];
        let stream = &self.streams[&watcher.stream];
        let bytes: usize = pieces.iter().map(|piece| piece.events.bytes()).sum();
        let takes: usize = pieces.iter().map(|piece| stream.takes(&piece.events)).sum();
        let too_much = |queued, more, limit| queued > 0 && queued + more > limit;
        if too_much(watcher.queued, bytes, self.options.queue_bytes)
            || too_much(stream.queued, takes, self.options.stream_bytes)
        {
            self.unsync(key, first);
        } else {
            self.enqueue(key, pieces, through);
        }
    }

    /// The events of one response each: of several if they are large.
    fn pieces(&self, events: Vec<Arc<Event>>, fragments: bool) -> Vec<Piece> {
        Piece::cut(events, fragments, self.options.fragment_bytes)
    }

    /// What to read for watchers that are behind and have room. One at a time.
    ///
    /// It goes through history in sweeps, so that whoever is further on gets its turn, however many begin anew at the start: the next in
    /// a sweep comes before those that it has passed.
    pub fn wants_history(&self) -> Option<HistoryWanted> {
        let ahead = self.unsynced.range((self.sweep.at, 0)..);
        let ahead = ahead.take_while(|(next, _)| *next <= self.sweep.end);
        let has_room = |(_, key): &&(i64, u64)| self.has_room(&self.watchers[key]);
        let (from, _) = ahead.chain(&self.unsynced).find(has_room)?;
        let mut with_room = self.unsynced.range((*from, 0)..).filter(has_room);
        Some(HistoryWanted {
            from: *from,
            max_bytes: self.options.history_bytes,
            prev_kv: with_room.any(|(_, key)| self.wish(key).prev_kv),
        })
    }

    fn wish(&self, key: &u64) -> &Wish {
        &self.groups[self.watchers[key].group].wish
    }

    /// A slow watcher reads on when half its queue and half its stream's is free, or it would read one event at a time.
    fn has_room(&self, watcher: &Watcher) -> bool {
        watcher.queued <= self.options.queue_bytes / 2
            && self.streams[&watcher.stream].queued <= self.options.stream_bytes / 2
    }

    /// Takes in what was read.
    pub fn history(&mut self, history: &History) {
        self.compacted = self.compacted.max(history.compacted);
        self.cancel_compacted();
        let served: Vec<u64> = self
            .unsynced
            .range((history.from, 0)..=(history.through, u64::MAX))
            .map(|(_, key)| *key)
            .filter(|key| history.prev_kv || !self.wish(key).prev_kv)
            .collect();
        self.sweep.pass(history);
        // Watchers of one group that come from the same place get the same.
        let mut read: BTreeMap<(u64, i64), Vec<Piece>> = BTreeMap::new();
        for key in served {
            let watcher = &self.watchers[&key];
            // Those before it may have filled their stream.
            if !self.has_room(watcher) {
                continue;
            }
            let (group, next) = (watcher.group, watcher.next);
            let pieces = match read.remove(&(group, next)) {
                Some(pieces) => pieces,
                None => self.read(history, group, next),
            };
            if !pieces.is_empty() {
                self.enqueue(key, &pieces, history.through);
            }
            read.insert((group, next), pieces);
            self.advance(key, history.through + 1);
        }
        self.answer_waiting();
    }

    /// What of a stretch of history is for watchers of a group that want it from `next` on.
    fn read(&self, history: &History, group: u64, next: i64) -> Vec<Piece> {
        let wish = &self.groups[group].wish;
        let wanted = |event: &&Arc<Event>| event.kv.mod_revision >= next && wish.covers(event);
        let events: Vec<Arc<Event>> = history.events.iter().filter(wanted).cloned().collect();
        match events.is_empty() {
            true => Vec::new(),
            false => self.pieces(events, wish.fragment),
        }
    }

    /// An unsynced watcher got everything before `next`.
    fn advance(&mut self, key: u64, next: i64) {
        let watcher = self
            .watchers
            .get_mut(&key)
            .expect("keys of unsynced watchers are in the map");
        self.unsynced.remove(&(watcher.next, key));
        watcher.next = next;
        if next > self.revision {
            watcher.synced = true;
            self.groups.sync(watcher.group, key);
        } else {
            self.unsynced.insert((next, key));
        }
    }

    /// A synced watcher now misses events from `next` on.
    fn unsync(&mut self, key: u64, next: i64) {
        let watcher = self
            .watchers
            .get_mut(&key)
            .expect("keys of synced watchers are in the map");
        assert!(watcher.synced, "only a synced watcher falls behind");
        watcher.synced = false;
        watcher.next = next;
        self.groups.unsync(watcher.group, key);
        self.unsynced.insert((next, key));
    }

    /// Watchers that want what is compacted are lost: their clients must start anew.
    fn cancel_compacted(&mut self) {
        while let Some((next, key)) = self.unsynced.first().copied()
            && next < self.compacted
        {
            let (stream, id) = (self.watchers[&key].stream, self.watchers[&key].id);
            self.forget(key);
            if let Some(stream) = self.streams.get_mut(&stream) {
                stream.ids.remove(&id);
            }
            let compacted = self.compacted;
            self.control(stream, id, (Kind::Lost, u64::MAX), |response| {
                response.canceled = true;
                response.compact_revision = compacted;
            });
        }
    }

    /// Answers progress requests of streams all of whose watchers are synced and have begun.
    fn answer_waiting(&mut self) {
        let revision = self.revision;
        let due = |id: &&StreamId| {
            let stream = &self.streams[id];
            let ready = |key: &u64| {
                let watcher = &self.watchers[key];
                watcher.synced && watcher.start_revision <= revision
            };
            !stream.progress && stream.ids.values().all(ready)
        };
        let due: Vec<StreamId> = self.waiting.iter().filter(due).copied().collect();
        for stream in due {
            self.waiting.remove(&stream);
            self.control(stream, NO_WATCH, (Kind::Progress, u64::MAX), |_| {});
        }
    }

    /// The streams with something to send, since the last call.
    pub fn take_ready(&mut self) -> Vec<StreamId> {
        std::mem::take(&mut self.ready).into_iter().collect()
    }

    /// The streams whose clients leave too many answers untaken, since the last call. They get no more of them: close them.
    pub fn take_overrun(&mut self) -> Vec<StreamId> {
        std::mem::take(&mut self.overrun).into_iter().collect()
    }

    /// The next response of a stream. Taking it makes room for more.
    pub fn next(&mut self, id: StreamId) -> Option<WatchResponse> {
        let stream = self.streams.get_mut(&id)?;
        let queued = stream.pop()?;
        match queued.kind {
            Kind::Answer => stream.answers -= 1,
            Kind::Progress => {
                stream.progress = false;
                if self.waiting.contains(&id) {
                    self.answer_waiting();
                }
            }
            Kind::Events | Kind::Notification => {
                if let Some(watcher) = self.watchers.get_mut(&queued.watcher) {
                    watcher.queued -= queued.bytes;
                    watcher.notified &= queued.kind != Kind::Notification;
                }
            }
            Kind::Lost => {}
        }
        Some(queued.response)
    }

    /// Queues events for a watcher, a response for each piece. `through` is what it has got everything up to then.
    fn enqueue(&mut self, key: u64, pieces: &[Piece], through: i64) {
        let watcher = self
            .watchers
            .get_mut(&key)
            .expect("whoever is enqueued to is in the map");
        let stream = self
            .streams
            .get_mut(&watcher.stream)
            .expect("watchers go with their stream");
        let prev_kv = self.groups[watcher.group].wish.prev_kv;
        watcher.quiet = false;
        let last = pieces.len().saturating_sub(1);
        for (n, Piece { events, fragment }) in pieces.iter().enumerate() {
            let bytes = events.bytes();
            watcher.queued += bytes;
            // No response may claim what only a later one brings: clients resume behind the revision they were told.
            let so_far = pieces[n].last_revision().filter(|_| n < last);
            let response = WatchResponse {
                revision: so_far.unwrap_or(through),
                watch_id: watcher.id,
                fragment: *fragment,
                prev_kv,
                events: events.clone(),
                ..WatchResponse::default()
            };
            stream.push(response, Kind::Events, (key, bytes));
        }
        self.ready.insert(watcher.stream);
    }

    /// Queues the answer to a create or cancel, unless there are too many already.
    fn answer(&mut self, to: StreamId, watch_id: i64, set: impl FnOnce(&mut WatchResponse)) {
        let Some(stream) = self.streams.get_mut(&to) else {
            return;
        };
        if stream.answers == MAX_ANSWERS {
            self.overrun.insert(to);
            return;
        }
        stream.answers += 1;
        self.control(to, watch_id, (Kind::Answer, u64::MAX), set);
    }

    /// Queues a response without events, on behalf of a watcher or (`u64::MAX`) none.
    fn control(
        &mut self,
        to: StreamId,
        watch_id: i64,
        (kind, watcher): (Kind, u64),
        set: impl FnOnce(&mut WatchResponse),
    ) {
        let mut response = WatchResponse {
            revision: self.revision,
            watch_id,
            ..WatchResponse::default()
        };
        set(&mut response);
        if let Some(stream) = self.streams.get_mut(&to) {
            stream.progress |= kind == Kind::Progress;
            stream.push(response, kind, (watcher, 0));
            self.ready.insert(to);
        }
    }

    /// Drops a watcher, but for its place in its stream.
    fn forget(&mut self, key: u64) {
        if let Some(watcher) = self.watchers.remove(&key) {
            if watcher.synced {
                self.groups.unsync(watcher.group, key);
            } else {
                self.unsynced.remove(&(watcher.next, key));
            }
            self.groups.leave(watcher.group);
        }
    }

    fn fresh_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id - 1
    }
}
