//! [`Groups`]: watchers that want the same, taken together, so that what they get is looked up, filtered and put together once
//! for all of them. Knows the watchers' ids, not the watchers.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::WatchRequest;
use super::matcher::{Matcher, Scope};
use crate::types::{Event, EventKind};

/// What a watcher wants to see, and in which form.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Wish {
    scope: Scope,
    no_put: bool,
    no_delete: bool,
    pub(super) prev_kv: bool,
    pub(super) fragment: bool,
}

impl Wish {
    /// Of a request; `None` if its range holds no key.
    pub(super) fn new(request: &WatchRequest) -> Option<Wish> {
        Some(Wish {
            scope: Scope::new(request.key.clone(), request.range_end.clone())?,
            no_put: request.no_put,
            no_delete: request.no_delete,
            prev_kv: request.prev_kv,
            fragment: request.fragment,
        })
    }

    /// Whether it is for this event.
    pub(super) fn covers(&self, event: &Event) -> bool {
        self.admits(event) && self.scope.contains(&event.kv.key)
    }

    /// Whether it is for events of this kind.
    fn admits(&self, event: &Event) -> bool {
        match event.kind {
            EventKind::Put => !self.no_put,
            EventKind::Delete => !self.no_delete,
        }
    }
}

/// Those who share a wish.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) wish: Wish,
    /// Those that get events as they are published.
    pub(super) synced: BTreeSet<u64>,
    /// All, the others included.
    members: usize,
}

/// All groups of a hub.
#[derive(Debug, Default)]
pub(super) struct Groups {
    by_wish: BTreeMap<Wish, u64>,
    groups: BTreeMap<u64, Group>,
    next_id: u64,
    /// How many of them want `prev_kv`.
    want_prev_kv: usize,
    /// The groups with synced watchers, by what they watch.
    matcher: Matcher,
}

impl Groups {
    /// Takes in a watcher, not synced yet; its group.
    pub(super) fn join(&mut self, wish: Wish) -> u64 {
        let id = *self.by_wish.entry(wish.clone()).or_insert(self.next_id);
        if id == self.next_id {
            self.next_id += 1;
            self.want_prev_kv += usize::from(wish.prev_kv);
        }
        let empty = Group {
            wish,
            synced: BTreeSet::new(),
            members: 0,
        };
        self.groups.entry(id).or_insert(empty).members += 1;
        id
    }

    /// Lets a watcher go that is not synced.
    pub(super) fn leave(&mut self, id: u64) {
        let group = self.get_mut(id);
        group.members -= 1;
        if group.members == 0 {
            let group = self.groups.remove(&id).expect("it was there just now");
            assert!(group.synced.is_empty(), "whoever leaves is not synced");
            self.by_wish.remove(&group.wish);
            self.want_prev_kv -= usize::from(group.wish.prev_kv);
        }
    }

    /// Whether anybody wants `prev_kv`.
    pub(super) fn want_prev_kv(&self) -> bool {
        self.want_prev_kv > 0
    }

    /// From now on the watcher gets what is published.
    pub(super) fn sync(&mut self, id: u64, watcher: u64) {
        let group = self.get_mut(id);
        let first = group.synced.is_empty();
        group.synced.insert(watcher);
        if first {
            let scope = group.wish.scope.clone();
            self.matcher.insert(&scope, id);
        }
    }

    /// From now on it does not.
    pub(super) fn unsync(&mut self, id: u64, watcher: u64) {
        let group = self.get_mut(id);
        group.synced.remove(&watcher);
        if group.synced.is_empty() {
            let scope = group.wish.scope.clone();
            self.matcher.remove(&scope, id);
        }
    }

    /// The events that each group with synced watchers wants; only groups that want some.
    pub(super) fn distribute(&self, events: &[Arc<Event>]) -> BTreeMap<u64, Vec<Arc<Event>>> {
        let mut wanted: BTreeMap<u64, Vec<Arc<Event>>> = BTreeMap::new();
        for event in events {
            self.matcher.each(&event.kv.key, &mut |id| {
                if self[id].wish.admits(event) {
                    wanted.entry(id).or_default().push(event.clone());
                }
            });
        }
        wanted
    }

    fn get_mut(&mut self, id: u64) -> &mut Group {
        self.groups
            .get_mut(&id)
            .expect("a group is there as long as its watchers")
    }
}

impl std::ops::Index<u64> for Groups {
    type Output = Group;

    fn index(&self, id: u64) -> &Group {
        &self.groups[&id]
    }
}
