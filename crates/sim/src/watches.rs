//! Watch clients: each has a stream with some watchers at one node, takes what it is sent at its own pace, and goes on elsewhere, from
//! the revision after the last it has, when the node is gone or it no longer likes it. All that it is told is held against the
//! model's changes (S16): nothing is missing, double, out of order, torn or wrong, and no progress is told ahead of events.

use std::sync::Arc;

use bytes::Bytes;
use quorate_base::NodeId;
use quorate_kv::watch::{StreamId, WatchRequest, WatchResponse};
use quorate_kv::{Event, EventKind};

use crate::coverage::Kind;
use crate::failure::{Failure, catch};
use crate::ghost::Violation;
use crate::model::{Model, covers};
use crate::params::MS;
use crate::picture::Topic;
use crate::rng::Rng;
use crate::world::{Happening, World};

/// A client with a stream of watchers.
#[derive(Debug)]
pub(crate) struct WatchClient {
    rng: Rng,
    /// The node, its run, and the stream there.
    stream: Option<(NodeId, u64, StreamId)>,
    watchers: Vec<Watcher>,
    last_id: i64,
}

/// One watcher, as its client knows it.
#[derive(Debug)]
pub(crate) struct Watcher {
    request: WatchRequest,
    /// Everything before this revision was received. `None`: it begins with what is now, wherever that will be.
    next: Option<i64>,
    /// The stream has confirmed it.
    created: bool,
    /// Its client has asked for its end.
    cancelling: bool,
    /// Fragments of a response whose end has not come yet.
    pieces: Vec<Arc<Event>>,
}

/// What a response means for the client beyond its events.
#[derive(Debug, PartialEq, Eq)]
enum News {
    Nothing,
    /// The watcher goes on with what it has seen.
    Resumed,
    Fragment,
    Progress,
    /// The watcher must start anew.
    Compacted,
    Cancelled,
}

impl WatchClient {
    pub(crate) fn new(rng: Rng) -> WatchClient {
        WatchClient {
            rng,
            stream: None,
            watchers: Vec::new(),
            last_id: 0,
        }
    }

    /// A watcher of something, from some revision on. `now` is about the revision of the cluster; with `future`, it may begin after it.
    fn draw(&mut self, keys: u64, now: i64, future: bool) -> Watcher {
        let rng = &mut self.rng;
        let key = |rng: &mut Rng| Bytes::from(format!("key{:02}", rng.within(0..keys)));
        let (key, range_end) = match rng.below(5) {
            0 => (key(rng), Bytes::new()),
            1 => (key(rng), Bytes::from_static(b"\0")),
            2 => (key(rng), Bytes::from_static(b"kez")),
            3 => (Bytes::from_static(b"tmp"), Bytes::from_static(b"tmq")),
            _ => (Bytes::new(), Bytes::from_static(b"\0")),
        };
        let next = match rng.below(4) {
            0 => Some((now - rng.within(0..200) as i64).max(1)),
            1 if future => Some(now + rng.within(0..20) as i64),
            _ => None,
        };
        let request = WatchRequest {
            key,
            range_end,
            progress_notify: rng.coin(),
            no_put: rng.below(6) == 0,
            no_delete: rng.below(6) == 0,
            prev_kv: rng.coin(),
            fragment: rng.coin(),
            ..WatchRequest::default()
        };
        Watcher::new(request, next)
    }

    /// Starts a watcher on the stream under a new id: the request to send.
    fn begin(&mut self, number: usize) -> WatchRequest {
        self.last_id += 1;
        let watcher = &mut self.watchers[number];
        (watcher.created, watcher.cancelling) = (false, false);
        watcher.pieces.clear();
        watcher.request.watch_id = self.last_id;
        watcher.request.start_revision = watcher.next.unwrap_or(0);
        watcher.request.clone()
    }

    /// Takes in a response. Answers what it means, and for which watcher.
    fn receive(&mut self, response: &WatchResponse, model: &Model) -> Result<(News, usize), Violation> {
        if response.revision > model.revision() {
            return broken(format!("revision {} does not exist yet", response.revision));
        }
        if response.watch_id == -1 && !response.canceled && response.events.is_empty() {
            // Those that are still to be confirmed were asked for after this.
            for watcher in self.watchers.iter_mut().filter(|watcher| watcher.created) {
                watcher.complete(response.revision, model)?;
            }
            return Ok((News::Progress, 0));
        }
        let same = |watcher: &Watcher| watcher.request.watch_id == response.watch_id;
        match self.watchers.iter().position(same) {
            Some(number) => Ok((self.watchers[number].receive(response, model)?, number)),
            None => broken(format!("nobody has the id of {response:?}")),
        }
    }
}

impl Watcher {
    fn new(request: WatchRequest, next: Option<i64>) -> Watcher {
        Watcher {
            request,
            next,
            created: false,
            cancelling: false,
            pieces: Vec::new(),
        }
    }

    fn receive(&mut self, response: &WatchResponse, model: &Model) -> Result<News, Violation> {
        if response.created {
            return self.confirmed(response);
        }
        if !self.created {
            return broken(format!("told something before it was created: {response:?}"));
        }
        if response.canceled {
            return self.cancelled(response, model);
        }
        if response.events.is_empty() {
            if !self.request.progress_notify || response.fragment {
                return broken(format!("nobody asked for {response:?}"));
            }
            return self.complete(response.revision, model).map(|()| News::Progress);
        }
        self.pieces.extend(response.events.iter().cloned());
        if response.fragment {
            if !self.request.fragment {
                return broken("a revision was torn for one that cannot put it together");
            }
            return Ok(News::Fragment);
        }
        let events = std::mem::take(&mut self.pieces);
        self.check(&events, response.revision, model)
            .map(|()| News::Nothing)
    }

    fn confirmed(&mut self, response: &WatchResponse) -> Result<News, Violation> {
        if self.created || response.canceled {
            return broken(format!("a watcher was created twice, or refused: {response:?}"));
        }
        self.created = true;
        let resumed = self.request.start_revision > 0;
        self.next.get_or_insert(response.revision + 1);
        Ok(if resumed { News::Resumed } else { News::Nothing })
    }

    fn cancelled(&mut self, response: &WatchResponse, model: &Model) -> Result<News, Violation> {
        if response.compact_revision == 0 {
            return if self.cancelling {
                Ok(News::Cancelled)
            } else {
                broken(format!("nobody asked for its end: {}", response.cancel_reason))
            };
        }
        let (next, compacted) = (self.next.unwrap_or(0), response.compact_revision);
        if compacted > model.compacted() || compacted <= next {
            return broken(format!(
                "ended at {next} by compaction at {compacted}, and {} is compacted",
                model.compacted()
            ));
        }
        self.next = Some(compacted);
        Ok(News::Compacted)
    }

    /// All events up to `revision` were received: none may be missing.
    fn complete(&mut self, revision: i64, model: &Model) -> Result<(), Violation> {
        if !self.pieces.is_empty() {
            return broken(format!("progress to {revision} in the middle of a response"));
        }
        self.check(&[], revision, model)
    }

    /// `events` are all that there are for this watcher up to `revision`, which it has then received.
    fn check(&mut self, events: &[Arc<Event>], revision: i64, model: &Model) -> Result<(), Violation> {
        let next = self.next.expect("a created watcher has begun somewhere");
        let mut told = events.iter();
        for expected in model.events(next, revision).filter(|event| self.wants(event)) {
            let Some(event) = told.next() else {
                let (at, key) = (expected.kv.mod_revision, &expected.kv.key);
                return broken(format!("told up to {revision}, and nothing of {key:?} at {at}"));
            };
            let same = (event.kind, event.sub, &event.kv) == (expected.kind, expected.sub, &expected.kv)
                && event.is_create() == expected.is_create();
            if !same || !self.is_before(event, expected, model.compacted()) {
                return broken(format!("told {event:?}, where there was {expected:?}"));
            }
        }
        if let Some(event) = told.next() {
            return broken(format!("told {event:?} from {next} up to {revision}"));
        }
        self.next = Some(next.max(revision + 1));
        Ok(())
    }

    /// Whether the version before is right: always if there is one in the event, and it is there if it was asked for, unless it may be compacted.
    fn is_before(&self, event: &Event, expected: &Event, compacted: i64) -> bool {
        match &event.prev_kv {
            None => !self.request.prev_kv || expected.prev_kv.is_none() || event.kv.mod_revision <= compacted,
            told => *told == expected.prev_kv,
        }
    }

    /// Whether it waits for a revision in the future.
    fn waits(&self, now: i64) -> bool {
        self.created && !self.cancelling && self.next.is_some_and(|next| next > now + 1)
    }

    fn wants(&self, event: &Event) -> bool {
        let kind = match event.kind {
            EventKind::Put => !self.request.no_put,
            EventKind::Delete => !self.request.no_delete,
        };
        kind && covers(&self.request.key, &self.request.range_end, &event.kv.key)
    }
}

fn broken<T>(what: impl Into<String>) -> Result<T, Violation> {
    Violation::because("S16", what.into())
}

impl World {
    /// A watch client's turn.
    pub(crate) fn watch_turn(&mut self, number: usize) -> Result<(), Failure> {
        if self.silent {
            return Ok(());
        }
        let mut client = self.watch_clients[number]
            .take()
            .expect("it has one turn at a time");
        let result = self.serve_watcher(number, &mut client);
        let pace = if self.healing {
            50
        } else {
            client.rng.pick(&[40, 200, 1_000])
        };
        let pause = client.rng.within(0..pace * MS);
        self.watch_clients[number] = Some(client);
        self.after(pause, Happening::Watch(number));
        result
    }

    fn serve_watcher(&mut self, number: usize, client: &mut WatchClient) -> Result<(), Failure> {
        if let Some((id, run, _)) = client.stream {
            let host = self.hosts.get(&id);
            if host
                .is_some_and(|host| host.run == run && host.process.is_some() && host.paused_until > self.now)
            {
                return Ok(());
            }
            if !host.is_some_and(|host| host.run == run && host.process.is_some()) {
                client.stream = None;
            }
        }
        // In the end only members come to know everything.
        if let Some((id, _, stream)) = client.stream
            && self.healing
            && !self.ghost.commits().config().is_member(id)
        {
            self.process(id).expect("just seen").fanout.hub.close(stream);
            client.stream = None;
        }
        let Some((id, _, stream)) = client.stream else {
            return self.open_stream(number, client);
        };
        self.receive_all(number, client, id, stream)?;
        let (healing, now) = (self.healing, self.ghost.machines.model().revision());
        let hub = &mut self.process(id).expect("just seen").fanout.hub;
        match client.rng.below(40) {
            _ if healing => {
                // A stream is told nothing as a whole before all its watchers have begun.
                for watcher in client.watchers.iter_mut().filter(|watcher| watcher.waits(now)) {
                    watcher.cancelling = true;
                    hub.cancel(stream, watcher.request.watch_id);
                }
                hub.request_progress(stream);
            }
            0 => {
                hub.close(stream);
                client.stream = None;
            }
            1 => {
                let which = client.rng.below(client.watchers.len());
                let watcher = &mut client.watchers[which];
                watcher.cancelling = true;
                hub.cancel(stream, watcher.request.watch_id);
            }
            2..5 => hub.request_progress(stream),
            5..8 => hub.notify_progress(),
            _ => {}
        }
        self.hub_turn(id)
    }

    /// Takes what the stream has, or some of it.
    fn receive_all(
        &mut self,
        number: usize,
        client: &mut WatchClient,
        id: NodeId,
        stream: StreamId,
    ) -> Result<(), Failure> {
        let mut room = if self.healing {
            usize::MAX
        } else {
            client.rng.pick(&[0, 1, 3, usize::MAX, usize::MAX])
        };
        while room > 0 {
            room -= 1;
            let hub = &mut self.process(id).expect("it serves the stream").fanout.hub;
            let Some(response) = hub.next(stream) else { break };
            self.watch_responses += 1;
            self.watch_requests += u64::from(response.created);
            self.trace.mark(
                Topic::Client,
                self.now,
                Some(id),
                format_args!(
                    "watcher {number}.{} is told {}",
                    response.watch_id,
                    short(&response)
                ),
            );
            let (news, which) =
                client
                    .receive(&response, self.ghost.machines.model())
                    .map_err(|violation| {
                        Violation::new(
                            violation.rule,
                            format!("watcher {number} at n{id}: {}", violation.what),
                        )
                    })?;
            let kind = match news {
                News::Nothing => None,
                News::Resumed => Some(Kind::WatchResumed),
                News::Fragment => Some(Kind::WatchFragment),
                News::Progress => Some(Kind::WatchProgress),
                News::Compacted => Some(Kind::WatchCompacted),
                News::Cancelled => Some(Kind::WatchCancelled),
            };
            kind.into_iter().for_each(|kind| self.coverage.hit(kind));
            if news == News::Cancelled {
                let now = self.ghost.machines.model().revision();
                client.watchers[which] = client.draw(self.params.keys, now, !self.healing);
            }
            if matches!(news, News::Cancelled | News::Compacted) {
                let request = client.begin(which);
                let hub = &mut self.process(id).expect("it serves the stream").fanout.hub;
                hub.create(stream, request);
            }
        }
        Ok(())
    }

    /// The client goes to some node, with all its watchers.
    fn open_stream(&mut self, number: usize, client: &mut WatchClient) -> Result<(), Failure> {
        let mut nodes = self.running();
        if self.healing {
            nodes.retain(|id| self.ghost.commits().config().is_member(*id));
        }
        if nodes.is_empty() {
            return Ok(());
        }
        let id = client.rng.pick(&nodes);
        if client.watchers.is_empty() {
            let now = self.ghost.machines.model().revision();
            for _ in 0..client.rng.within(1..4) {
                let watcher = client.draw(self.params.keys, now, !self.healing);
                client.watchers.push(watcher);
            }
        }
        let run = self.hosts[&id].run;
        let requests: Vec<_> = (0..client.watchers.len())
            .map(|which| client.begin(which))
            .collect();
        self.trace.mark(
            Topic::Client,
            self.now,
            Some(id),
            format_args!("watcher {number} watches {}", requests.len()),
        );
        let hub = &mut self.process(id).expect("it is running").fanout.hub;
        let opened = catch(|| {
            let stream = hub.open();
            requests
                .into_iter()
                .for_each(|request| hub.create(stream, request));
            stream
        });
        let stream = opened.map_err(|why| Failure::Crash(format!("the hub of n{id}: {why}")))?;
        client.stream = Some((id, run, stream));
        self.hub_turn(id)
    }

    /// Every watcher has been told of everything.
    pub(crate) fn watchers_know_all(&self) -> bool {
        let last = self.ghost.machines.model().revision();
        let mut watchers = self
            .watch_clients
            .iter()
            .flatten()
            .flat_map(|client| &client.watchers);
        watchers.all(|watcher| watcher.created && watcher.next.is_some_and(|next| next > last))
    }
}

fn short(response: &WatchResponse) -> String {
    let WatchResponse {
        revision,
        events,
        created,
        canceled,
        compact_revision,
        fragment,
        ..
    } = response;
    let revisions = match (events.first(), events.last()) {
        (Some(first), Some(last)) => format!(", {} to {}", first.kv.mod_revision, last.kv.mod_revision),
        _ => String::new(),
    };
    let flags = [
        (created, "created, "),
        (canceled, "canceled, "),
        (fragment, "fragment, "),
    ];
    let flags: String = flags.iter().filter(|flag| *flag.0).map(|flag| flag.1).collect();
    let lost = if *compact_revision > 0 {
        format!("compacted at {compact_revision}, ")
    } else {
        String::new()
    };
    format!(
        "{flags}{lost}{} events{revisions}, revision {revision}",
        events.len()
    )
}

#[cfg(test)]
mod tests;
