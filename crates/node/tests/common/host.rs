//! One member of the cluster of [`common`](super): its node, and what stands in for its disks and its state machine, with the switches
//! by which a test holds things up.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use quorate_base::LogId;
use quorate_node::event::StreamId;
use quorate_node::{Event, LogOp, Node, StageOp};
use quorate_raft::Config;

use super::{LogDisk, Machine};

/// Bytes of a staging file that one check reads.
const CHECKED_AT_ONCE: usize = 300;

/// A staging file.
#[derive(Clone, Debug, Default)]
pub struct Staged {
    /// Who writes to it, if it is open.
    pub(super) stream: Option<StreamId>,
    pub(super) about: Bytes,
    pub bytes: Vec<u8>,
    /// So much of it survives a crash.
    pub synced: usize,
    /// So much of what an earlier run left has been checked.
    pub(super) checked: usize,
    pub(super) finished: bool,
}

/// One member with its driver.
pub struct Host {
    pub node: Option<Node>,
    pub log: LogDisk,
    pub machine: Machine,
    /// What the machine would be after a crash.
    pub saved: Machine,
    pub staging: Option<Staged>,
    /// No room for a staging file of more bytes than this.
    pub staging_room: usize,
    /// Says nothing when there is no room.
    pub staging_silent: bool,
    /// So many operations on the staging file are carried out, then no more.
    pub staging_ops: usize,
    /// Nothing is done to it while this is set.
    pub staging_stalled: bool,
    pub(super) waiting_stage: VecDeque<StageOp>,
    pub(super) views: BTreeMap<StreamId, (Vec<u8>, usize)>,
    /// Writes and their syncs do not end while this is set.
    pub disk_stalled: bool,
    pub(super) stalled: VecDeque<LogOp>,
    /// Reads are not answered while this is set.
    pub reads_stalled: bool,
    /// Restores are not carried out while this is set.
    pub restore_stalled: bool,
    pub(super) waiting_restore: Option<LogId>,
    /// Views are not opened while this is set.
    pub open_stalled: bool,
    pub(super) waiting_open: Vec<StreamId>,
    pub(super) boots: u64,
    pub cold_reads: usize,
    /// Its log cannot be read.
    pub damaged: bool,
    /// It has said that it cannot go on, for this reason.
    pub ended: Option<String>,
    pub restores: usize,
    /// Starts without knowing any configuration.
    pub joins: bool,
    /// The feature level that the machine was told of last.
    pub level: Option<u32>,
    /// The configuration that the driver was told of last.
    pub told: Option<Config>,
    /// The driver was told that this member was removed.
    pub removed: bool,
}

impl Host {
    /// Whether something is to be done to the staging file, and is not.
    pub fn waits_for_staging(&self) -> bool {
        !self.waiting_stage.is_empty()
    }

    /// Bytes staged of a snapshot.
    pub fn staged(&self) -> usize {
        self.staging.as_ref().map_or(0, |staging| staging.bytes.len())
    }

    /// Reads some of what an earlier run left.
    pub(super) fn check_staged(&mut self) -> Event {
        let (mut about, mut len, mut crc, mut end) = (None, 0, 0, true);
        if let Some(staging) = &mut self.staging {
            staging.checked = staging.bytes.len().min(staging.checked + CHECKED_AT_ONCE);
            about = Some(staging.about.clone());
            len = staging.checked as u64;
            crc = crc32c::crc32c(&staging.bytes[..staging.checked]);
            end = staging.checked == staging.bytes.len();
        }
        Event::StageChecked { about, len, crc, end }
    }

    /// Whether a view was asked for and is not open yet.
    pub fn waits_for_view(&self) -> bool {
        !self.waiting_open.is_empty()
    }

    pub(super) fn empty() -> Host {
        Host {
            node: None,
            log: LogDisk::default(),
            machine: Machine::default(),
            saved: Machine::default(),
            staging: None,
            staging_room: usize::MAX,
            staging_silent: false,
            staging_ops: usize::MAX,
            staging_stalled: false,
            waiting_stage: VecDeque::new(),
            views: BTreeMap::new(),
            disk_stalled: false,
            stalled: VecDeque::new(),
            reads_stalled: false,
            restore_stalled: false,
            waiting_restore: None,
            open_stalled: false,
            waiting_open: Vec::new(),
            boots: 0,
            cold_reads: 0,
            damaged: false,
            ended: None,
            restores: 0,
            joins: false,
            level: None,
            told: None,
            removed: false,
        }
    }
}
