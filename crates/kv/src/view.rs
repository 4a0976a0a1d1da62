//! Reading the store: [`View`], a consistent read transaction of the tables on disk, and [`Layers`], the two memory tables and
//! a view seen as one. The memory tables override the disk, the active one the frozen one.

use std::collections::btree_map;
use std::fmt;
use std::iter::Peekable;
use std::ops::Bound;

use redb::{AccessGuard, ReadOnlyTable, ReadableDatabase, TableHandle};
use thiserror::Error;

use crate::checked::FirstDamage;
use crate::codec::DecodeError;
use crate::error::{self, Damage};
use crate::row::{Attached, Changes, Keys, Leases, Row};
use crate::store::File;
use crate::table::Table;

/// Why the store could not be read.
#[derive(Debug, Error)]
pub(crate) enum ReadError {
    #[error("{0}")]
    Engine(Box<redb::Error>),
    #[error(transparent)]
    Damaged(#[from] Damage),
    #[error("a row of table {table}: {error}")]
    Row { table: String, error: DecodeError },
}

impl ReadError {
    /// An error of the engine, which says of all that comes after damage only that there was an error before.
    fn engine(damage: &FirstDamage, error: impl Into<redb::Error>) -> ReadError {
        match damage.get() {
            Some(damage) => ReadError::Damaged(damage.clone()),
            None => ReadError::Engine(Box::new(error.into())),
        }
    }
}

impl From<ReadError> for error::Error {
    fn from(e: ReadError) -> error::Error {
        error::Error::Storage(e.to_string())
    }
}

/// A table on disk as of one transaction.
pub(crate) type RawTable = ReadOnlyTable<&'static [u8], &'static [u8]>;
/// Bounds by reference, as the ordered tables take them.
pub(crate) type Bounds<K> = (Bound<K>, Bound<K>);

/// The tables on disk as of one transaction.
pub(crate) struct View {
    tables: [RawTable; 4],
    damage: FirstDamage,
}

impl fmt::Debug for View {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("View")
    }
}

impl View {
    /// The latest committed state.
    pub(crate) fn new(file: &File) -> Result<View, ReadError> {
        let damage = file.backend.damage();
        let txn = file.db.begin_read().map_err(|e| ReadError::engine(&damage, e))?;
        let open = |table| txn.open_table(table).map_err(|e| ReadError::engine(&damage, e));
        Ok(View {
            tables: [
                open(Keys::TABLE)?,
                open(Changes::TABLE)?,
                open(Leases::TABLE)?,
                open(Attached::TABLE)?,
            ],
            damage,
        })
    }

    fn table<R: Row>(&self) -> &RawTable {
        &self.tables[R::SLOT]
    }

    fn get<R: Row>(&self, key: &R::Key) -> Result<Option<R::Value>, ReadError> {
        let mut bytes = Vec::with_capacity(64);
        R::put_key(key, &mut bytes);
        match self
            .table::<R>()
            .get(bytes.as_slice())
            .map_err(|e| ReadError::engine(&self.damage, e))?
        {
            Some(guard) => R::get_value(guard.value()).map(Some).map_err(row_error::<R>),
            None => Ok(None),
        }
    }

    fn range<R: Row>(&self, bounds: &Bounds<R::Key>) -> Result<DiskRange<R>, ReadError> {
        let encode = |bound: &Bound<R::Key>| {
            bound.as_ref().map(|key| {
                let mut bytes = Vec::with_capacity(64);
                R::put_key(key, &mut bytes);
                bytes
            })
        };
        let (lower, upper) = (encode(&bounds.0), encode(&bounds.1));
        let bounds = (
            lower.as_ref().map(Vec::as_slice),
            upper.as_ref().map(Vec::as_slice),
        );
        let range = self
            .table::<R>()
            .range::<&[u8]>(bounds)
            .map_err(|e| ReadError::engine(&self.damage, e))?;
        Ok(DiskRange {
            range,
            damage: self.damage.clone(),
            row: std::marker::PhantomData,
        })
    }
}

fn row_error<R: Row>(error: DecodeError) -> ReadError {
    let table = R::TABLE;
    ReadError::Row {
        table: table.name().to_owned(),
        error,
    }
}

/// A range on disk, keys decoded, values not yet.
struct DiskRange<R> {
    range: redb::Range<'static, &'static [u8], &'static [u8]>,
    damage: FirstDamage,
    row: std::marker::PhantomData<R>,
}

type Guard = AccessGuard<'static, &'static [u8]>;

impl<R: Row> DiskRange<R> {
    fn decode(&self, row: Result<(Guard, Guard), redb::StorageError>) -> Result<(R::Key, Guard), ReadError> {
        let (key, value) = row.map_err(|e| ReadError::engine(&self.damage, e))?;
        Ok((R::get_key(key.value()).map_err(row_error::<R>)?, value))
    }
}

impl<R: Row> Iterator for DiskRange<R> {
    type Item = Result<(R::Key, Guard), ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        let row = self.range.next()?;
        Some(self.decode(row))
    }
}

impl<R: Row> DoubleEndedIterator for DiskRange<R> {
    fn next_back(&mut self) -> Option<Self::Item> {
        let row = self.range.next_back()?;
        Some(self.decode(row))
    }
}

/// The memory tables over the disk.
#[derive(Clone, Copy)]
pub(crate) struct Layers<'a> {
    pub(crate) active: &'a Table,
    pub(crate) frozen: Option<&'a Table>,
    pub(crate) view: &'a View,
}

impl<'a> Layers<'a> {
    /// One row.
    pub(crate) fn get<R: Row>(self, key: &R::Key) -> Result<Option<R::Value>, ReadError> {
        for table in [Some(self.active), self.frozen].into_iter().flatten() {
            if let Some(value) = R::layer(table).get(key) {
                return Ok(value.clone());
            }
        }
        self.view.get::<R>(key)
    }

    /// The rows within the bounds, in order. The bounds must not be reversed.
    pub(crate) fn range<R: Row>(self, bounds: &Bounds<R::Key>) -> Result<Rows<'a, R>, ReadError> {
        let memory = |table: &'a Table| {
            let bounds = (bounds.0.as_ref(), bounds.1.as_ref());
            R::layer(table).range::<R::Key, _>(bounds).peekable()
        };
        Ok(Rows {
            active: memory(self.active),
            frozen: self.frozen.map(memory),
            disk: self.view.range::<R>(bounds)?.peekable(),
        })
    }
}

type MemoryRange<'a, R> = Peekable<btree_map::Range<'a, <R as Row>::Key, Option<<R as Row>::Value>>>;

/// Rows of all layers, in order of their keys.
pub(crate) struct Rows<'a, R: Row> {
    active: MemoryRange<'a, R>,
    frozen: Option<MemoryRange<'a, R>>,
    disk: Peekable<DiskRange<R>>,
}

/// A row found: the value is decoded only when asked for.
pub(crate) struct Found<'a, R: Row> {
    pub(crate) key: R::Key,
    value: Slot<'a, R>,
}

enum Slot<'a, R: Row> {
    Memory(&'a R::Value),
    Disk(Guard),
}

impl<R: Row> Found<'_, R> {
    /// The value.
    pub(crate) fn value(&self) -> Result<R::Value, ReadError> {
        match &self.value {
            Slot::Memory(value) => Ok((*value).clone()),
            Slot::Disk(guard) => R::get_value(guard.value()).map_err(row_error::<R>),
        }
    }
}

impl<'a, R: Row> Iterator for Rows<'a, R> {
    type Item = Result<Found<'a, R>, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(Err(_)) = self.disk.peek() {
                let Some(Err(e)) = self.disk.next() else {
                    unreachable!("peeked an error")
                };
                return Some(Err(e));
            }
            let on_disk = self
                .disk
                .peek()
                .and_then(|row| row.as_ref().ok())
                .map(|(key, _)| key);
            let frozen = self
                .frozen
                .as_mut()
                .and_then(|range| range.peek())
                .map(|(key, _)| *key);
            let active = self.active.peek().map(|(key, _)| *key);
            let key = [active, frozen, on_disk].into_iter().flatten().min()?.clone();

            // The topmost layer that has the key decides; the ones below are passed over.
            let mut found = None;
            if on_disk == Some(&key)
                && let Some(Ok((_, guard))) = self.disk.next()
            {
                found = Some(Slot::Disk(guard));
            }
            if let Some(range) = &mut self.frozen
                && let Some((_, value)) = range.next_if(|(frozen, _)| **frozen == key)
            {
                found = value.as_ref().map(Slot::Memory);
            }
            if let Some((_, value)) = self.active.next_if(|(active, _)| **active == key) {
                found = value.as_ref().map(Slot::Memory);
            }
            if let Some(value) = found {
                return Some(Ok(Found { key, value }));
            }
        }
    }
}
