//! The state as of one moment, detached from the state machine: for reads that take long, which must not hold up the thread
//! that applies and sends heartbeats. Taking a picture copies the active memory table's tree (bounded, values shared) and nothing of the disk.

use std::sync::Arc;

use bytes::Bytes;

use crate::error::Error;
use crate::flush::Frozen;
use crate::hash;
use crate::kv::HashKv;
use crate::meta::Meta;
use crate::range::Reader;
use crate::row::Leases;
use crate::table::Table;
use crate::types::{RangeRequest, RangeResponse, TxnRequest, TxnResponse};
use crate::view::{Layers, View};

/// See the module. Made by [`Kv::picture`](crate::Kv::picture).
#[derive(Debug)]
pub struct Picture {
    pub(crate) meta: Meta,
    pub(crate) active: Table,
    pub(crate) frozen: Option<Arc<Frozen>>,
    pub(crate) view: Arc<View>,
}

impl Picture {
    fn reader(&self) -> Reader<'_> {
        Reader {
            layers: Layers {
                active: &self.active,
                frozen: self.frozen.as_ref().map(|frozen| &frozen.table),
                view: &self.view,
            },
            latest: self.meta.revision,
            compacted: self.meta.compacted,
        }
    }

    /// Reads a range, after checking the request.
    pub fn range(&self, request: &RangeRequest) -> Result<RangeResponse, Error> {
        request.check()?;
        self.reader().range(request)
    }

    /// Evaluates a read-only transaction, after checking the request.
    ///
    /// # Panics
    /// If it is not read-only.
    pub fn txn_read(&self, request: &TxnRequest) -> Result<TxnResponse, Error> {
        self.reader().txn_read(request)
    }

    /// The keys attached to a lease, in order; `None` if there is no such lease.
    pub fn lease_keys(&self, id: i64) -> Result<Option<Vec<Bytes>>, Error> {
        let reader = self.reader();
        match reader.layers.get::<Leases>(&id)? {
            Some(_) => Ok(Some(reader.attached(id)?)),
            None => Ok(None),
        }
    }

    /// As [`Kv::hash_kv`](crate::Kv::hash_kv).
    pub fn hash_kv(&self, revision: i64) -> Result<HashKv, Error> {
        hash::hash_kv(self.reader(), revision)
    }

    /// As [`Kv::hash`](crate::Kv::hash).
    pub fn hash(&self) -> Result<u32, Error> {
        hash::hash(self.reader(), &self.meta)
    }
}
