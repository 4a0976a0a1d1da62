//! The in-memory table: what was applied and is not on disk yet. `apply` writes only here. One is active; the one
//! frozen before it is being flushed by a job and read by everyone. Both are [`Table`]s.

use crate::row::{Attached, Changes, Keys, Layer, Leases, Row};

/// What a row costs beyond its bytes: map nodes, reference counts, fixed fields.
const ROW_OVERHEAD: usize = 112;

/// Rows that override what stands on disk.
#[derive(Clone, Debug, Default)]
pub(crate) struct Table {
    pub(crate) keys: Layer<Keys>,
    pub(crate) changes: Layer<Changes>,
    pub(crate) leases: Layer<Leases>,
    pub(crate) attached: Layer<Attached>,
    bytes: usize,
}

impl Table {
    /// Writes a row.
    pub(crate) fn put<R: Row>(&mut self, key: R::Key, value: R::Value) {
        self.set::<R>(key, Some(value));
    }

    /// Marks a row deleted.
    pub(crate) fn delete<R: Row>(&mut self, key: R::Key) {
        self.set::<R>(key, None);
    }

    /// Overwriting does not give memory back: a row of `keys` is soon written again, and its values live on in `changes`.
    fn set<R: Row>(&mut self, key: R::Key, value: Option<R::Value>) {
        self.bytes += ROW_OVERHEAD + R::weight(&key, value.as_ref());
        R::layer_mut(self).insert(key, value);
    }

    /// About how much memory it takes.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }
}
