//! What one input may do to a node's log (S9), told anew from the message that caused it: entries go only where the leader's differ, or where a
//! snapshot of something else takes their place, and a commit index follows only what somebody told. That nothing committed goes and that nothing falls is
//! checked by `quorate_raft::invariants`, which does not see the input.

use quorate_base::{Index, LogId, Term};
use quorate_raft::{Body, Input, Raft, RoleKind};

/// What an input may be the cause of.
#[derive(Clone, Debug)]
pub(crate) enum Cause {
    /// An Append: the last entry before it, the terms of its entries, and the commit index it tells.
    Append(LogId, Vec<Term>, Index),
    /// A message that tells a commit index.
    Tells(Index),
    /// A snapshot was staged that ends with this entry.
    Staged(LogId),
    /// Anything else.
    Other,
}

impl Cause {
    /// Of an input.
    pub fn of(input: &Input) -> Cause {
        match input {
            Input::SnapshotStaged { meta, .. } => Cause::Staged(meta.last),
            Input::Message { message, .. } => match &message.body {
                Body::Append {
                    prev,
                    entries,
                    commit,
                } => {
                    let terms = entries.iter().map(|entry| entry.term).collect();
                    Cause::Append(*prev, terms, *commit)
                }
                Body::Heartbeat { commit, .. } => Cause::Tells(*commit),
                Body::Commit { index } => Cause::Tells(*index),
                _ => Cause::Other,
            },
            _ => Cause::Other,
        }
    }

    /// Whether this can take the entry `id`, the first that went, out of a log: by another in its place.
    fn takes(&self, id: LogId) -> bool {
        match self {
            Cause::Append(prev, terms, _) => {
                let at = id.index.0.checked_sub(prev.index.0 + 1);
                let term = at.and_then(|at| terms.get(at as usize));
                term.is_some_and(|term| *term != id.term)
            }
            Cause::Staged(_) | Cause::Tells(_) | Cause::Other => false,
        }
    }

    /// Checks what came of it.
    pub fn check(&self, before: &Raft, after: &Raft) {
        let (id, old, new) = (after.id(), before.log(), after.log());
        let base = new.base().last;
        // A log that does not have the snapshot's last entry goes as a whole, else it stays but for what is covered (§7, Figure 13, 6).
        let replaced = base.index > old.base().last.index && !old.contains(base);
        if replaced {
            assert!(
                matches!(self, Cause::Staged(last) if *last == base),
                "n{id} replaces its log by one that begins after {base}, for no snapshot (S9, S12)"
            );
        } else {
            let kept = (old.first().0.max(base.index.0 + 1)..=old.last_index().0).map(Index);
            let lost = kept
                .filter_map(|index| old.id_at(index))
                .find(|entry| !new.contains(*entry));
            if let Some(lost) = lost {
                assert!(
                    self.takes(lost),
                    "n{id} drops {lost}, which conflicts with nothing (S9)"
                );
            }
        }
        if before.role() != RoleKind::Leader && after.role() != RoleKind::Leader {
            let told = match self {
                Cause::Append(_, _, commit) | Cause::Tells(commit) => *commit,
                Cause::Staged(last) => last.index,
                Cause::Other => Index::ZERO,
            };
            assert!(
                after.commit() <= before.commit().max(told),
                "n{id} commits {}, which nobody told (S9)",
                after.commit()
            );
        }
    }
}
