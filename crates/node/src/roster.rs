//! What this node has seen of its peers' data directories, kept durably, so that none of them comes back with less than it had. Rules and
//! bytes only; when to save is the driver's affair, with one duty: what [`Roster::admit`] calls [`Changed::Now`] is durable before the
//! greeting is answered.
//!
//! Raft counts on every member keeping its term, its vote and its log. One that was wiped, or put back from an old copy, may vote a
//! second time in a term, and elect a leader without entries that it had acknowledged. It cannot notice that itself, for it has forgotten; its
//! peers can. So each node records of every peer:
//!
//! | recorded | which shows | and refuses |
//! | --- | --- | --- |
//! | incarnation, drawn when a directory is founded | a wiped disk under an old id | [`Refusal::Wiped`] |
//! | boot, counted at each start | a copy from before the last start | [`Refusal::OlderData`] |
//! | the nonce of that boot, drawn at each start | two processes started from copies of one directory; a history without the recorded nonce is another's | [`Refusal::Duplicate`] |
//! | the highest term known to be durable there | a copy from before it promised its last vote | [`Refusal::OlderData`] |
//! | the highest index acknowledged and committed | a copy from before its last acknowledgement | [`Refusal::OlderData`] |
//!
//! Only committed acknowledgements count, since what is not committed a later leader may rightly cut off again. Terms and indexes are
//! compared at a new boot only: a greeting shows them as of the start of the process.
//!
//! The file `peers`, all numbers little-endian: "quopeers", format version (4), cluster (8), this member (8), number of peers (4); of each
//! its id, incarnation, boot, nonce, term and index (8 each); CRC32C of everything before it (4).

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use bytes::Bytes;
use quorate_base::{Disk, Index, NodeId, Term};
use quorate_marks::reached;
use quorate_raft::{Body, Message};
use thiserror::Error;

use crate::codec::{DecodeError, Put, Reader, length};
use crate::handshake::{Hello, Older, Papers, Refusal};
use crate::message::PeerMessage;

/// The file's name on the node's disk.
pub const FILE: &str = "peers";
/// Where the next version of it is written before it takes the name.
const STAGING: &str = "peers.new";
const MAGIC: [u8; 8] = *b"quopeers";
const FORMAT: u32 = 1;
/// Bytes of one record.
const RECORD: usize = 48;
/// Peers remembered; no cluster has as many.
const MAX_PEERS: usize = 1024;

/// What is known of one peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Known {
    /// Its data directory.
    pub incarnation: u64,
    /// Its latest start.
    pub boot: u64,
    /// The random number of that start.
    pub nonce: u64,
    /// A term that was durable there.
    pub term: Term,
    /// An index up to which it has acknowledged committed entries as durable.
    pub matched: Index,
}

/// What an admission did to the roster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Changed {
    /// Nothing that could not wait.
    No,
    /// It has to be saved before the greeting is answered.
    Now,
}

/// Why the file cannot be used.
#[derive(Debug, Error)]
pub enum RosterError {
    /// The disk failed.
    #[error("cannot read the file {FILE:?}: {0}")]
    Io(#[from] io::Error),
    /// It holds something else.
    #[error(
        "the file {FILE:?}, where this node keeps what it has seen of the other members, is damaged ({0}). If its disk is in doubt, replace this \
         member. If it is not, remove that one file: the node then takes every member as it is, and cannot tell once whether one of them \
         has come back with lost or old data"
    )]
    Damaged(String),
}

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Roster {
    cluster: u64,
    me: NodeId,
    peers: BTreeMap<NodeId, Known>,
}

impl Roster {
    /// Of a node that has met nobody.
    pub fn new(cluster: u64, me: NodeId) -> Roster {
        Roster {
            cluster,
            me,
            peers: BTreeMap::new(),
        }
    }

    /// What is known of a peer.
    pub fn known(&self, peer: NodeId) -> Option<&Known> {
        self.peers.get(&peer)
    }

    /// Whether whoever says this (and has passed [`Hello::check`]) may be the peer that was known by this id, and notes what it shows.
    ///
    /// A greeting without papers, of protocol 1, shows nothing and is let in: the features of old releases bar it from clusters that
    /// count on papers.
    pub fn admit(&mut self, from: NodeId, hello: &Hello) -> Result<Changed, Refusal> {
        let Some(papers) = &hello.papers else {
            return Ok(Changed::No);
        };
        let Some(nonce) = papers.nonces.last().copied().filter(|_| hello.boot > 0) else {
            reached!("node.roster.no_start_shown");
            return Err(Refusal::NotAPeer);
        };
        let shown = Known {
            incarnation: papers.incarnation,
            boot: hello.boot,
            nonce,
            term: papers.term,
            matched: Index::ZERO,
        };
        let full = self.peers.len() >= MAX_PEERS;
        match self.peers.get_mut(&from) {
            None if full => {
                reached!("node.roster.crowded");
                Err(Refusal::Crowded)
            }
            None => {
                self.peers.insert(from, shown);
                Ok(Changed::Now)
            }
            Some(known) => {
                known.compare(from, &shown, papers)?;
                if known.boot == shown.boot {
                    return Ok(Changed::No);
                }
                *known = Known {
                    matched: known.matched,
                    ..shown
                };
                Ok(Changed::Now)
            }
        }
    }

    /// Notes that `term` is durable at a peer, and that it has acknowledged the committed entries up to `matched`. Answers whether this is
    /// news; it may be saved at leisure.
    pub fn note(&mut self, peer: NodeId, term: Term, matched: Index) -> bool {
        let Some(known) = self.peers.get_mut(&peer) else {
            return false;
        };
        let news = term > known.term || matched > known.matched;
        known.term = known.term.max(term);
        known.matched = known.matched.max(matched);
        news
    }

    /// Forgets members that were removed: they are refused for that. Answers whether there were any.
    pub fn forget(&mut self, removed: &BTreeSet<NodeId>) -> bool {
        let before = self.peers.len();
        self.peers.retain(|id, _| !removed.contains(id));
        self.peers.len() < before
    }

    /// The file's content.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.put_u32(FORMAT);
        bytes.put_u64(self.cluster);
        bytes.put_u64(self.me.0);
        bytes.put_u32(length(self.peers.len()));
        for (id, known) in &self.peers {
            let Known {
                incarnation,
                boot,
                nonce,
                term,
                matched,
            } = *known;
            for number in [id.0, incarnation, boot, nonce, term.0, matched.0] {
                bytes.put_u64(number);
            }
        }
        bytes.put_u32(crc32c::crc32c(&bytes));
        bytes
    }

    /// Reads a file's content.
    pub fn decode(bytes: &[u8]) -> Result<Roster, RosterError> {
        let damaged = |what: &str| RosterError::Damaged(what.to_owned());
        let (covered, crc) = bytes
            .split_last_chunk::<4>()
            .ok_or_else(|| damaged("it is too short"))?;
        if !covered.starts_with(&MAGIC) {
            reached!("node.roster.file_begins_otherwise");
            return Err(damaged("it does not begin as such a file does"));
        }
        if crc32c::crc32c(covered) != u32::from_le_bytes(*crc) {
            reached!("node.roster.file_checksum");
            return Err(damaged("its checksum is wrong"));
        }
        let mut reader = Reader::new(Bytes::copy_from_slice(&covered[MAGIC.len()..]));
        let read = |error: DecodeError| RosterError::Damaged(error.to_string());
        match reader.u32().map_err(read)? {
            FORMAT => Roster::read(&mut reader)
                .and_then(|roster| reader.end().map(|()| roster))
                .map_err(read),
            other => Err(RosterError::Damaged(format!(
                "format {other}, this program reads format {FORMAT}"
            ))),
        }
    }

    fn read(reader: &mut Reader) -> Result<Roster, DecodeError> {
        let mut roster = Roster::new(reader.u64()?, NodeId(reader.u64()?));
        for _ in 0..reader.count(RECORD)? {
            let id = NodeId(reader.u64()?);
            let known = Known {
                incarnation: reader.u64()?,
                boot: reader.u64()?,
                nonce: reader.u64()?,
                term: reader.term()?,
                matched: reader.index()?,
            };
            roster.peers.insert(id, known);
        }
        Ok(roster)
    }

    /// Loads the roster of this member from its disk. Without a file nobody has been met; the file of another cluster, out of which this
    /// one was recovered, says nothing about this one's members.
    pub fn load(disk: &dyn Disk, cluster: u64, me: NodeId) -> Result<Roster, RosterError> {
        let file = match disk.open(FILE, false) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Roster::new(cluster, me)),
            Err(error) => return Err(error.into()),
        };
        let most = (64 + MAX_PEERS * RECORD) as u64;
        let len = file.len()?;
        if len > most {
            reached!("node.roster.file_too_long");
            return Err(RosterError::Damaged(format!("it has {len} bytes")));
        }
        let mut bytes = vec![0; len as usize];
        file.read_at(0, &mut bytes)?;
        let roster = Roster::decode(&bytes)?;
        if roster.cluster != cluster {
            reached!("node.roster.file_of_another_cluster");
            return Ok(Roster::new(cluster, me));
        }
        if roster.me != me {
            reached!("node.roster.file_of_another_member");
            return Err(RosterError::Damaged(format!(
                "it belongs to member {:016x}, this is {:016x}",
                roster.me.0, me.0
            )));
        }
        Ok(roster)
    }

    /// Replaces the file by this state; durable when it returns.
    pub fn save(&self, disk: &dyn Disk) -> io::Result<()> {
        let file = disk.open(STAGING, true)?;
        file.set_len(0)?;
        file.write_at(0, &self.encode())?;
        file.sync()?;
        disk.rename(STAGING, FILE)?;
        disk.sync_dir()
    }
}

impl Known {
    /// Whether what `shown` says can come after this.
    fn compare(&self, id: NodeId, shown: &Known, papers: &Papers) -> Result<(), Refusal> {
        let older = |older| Err(Refusal::OlderData { id, older });
        if shown.incarnation != self.incarnation {
            reached!("node.roster.wiped");
            let (known, shown) = (self.incarnation, shown.incarnation);
            return Err(Refusal::Wiped { id, known, shown });
        }
        if shown.boot < self.boot {
            reached!("node.roster.older_boot");
            let (shown, seen) = (shown.boot, self.boot);
            return older(Older::Boot { shown, seen });
        }
        // What it says of the start that is recorded here, if its history reaches back so far.
        let since = usize::try_from(shown.boot - self.boot).unwrap_or(usize::MAX);
        let then = papers.nonces.iter().rev().nth(since);
        if then.is_some_and(|nonce| *nonce != self.nonce) {
            reached!("node.roster.duplicate");
            let boot = self.boot;
            return Err(Refusal::Duplicate { id, boot });
        }
        if shown.boot == self.boot {
            return Ok(());
        }
        if shown.term < self.term {
            reached!("node.roster.older_term");
            let (shown, seen) = (shown.term, self.term);
            return older(Older::Term { shown, seen });
        }
        if papers.last < self.matched {
            reached!("node.roster.older_log");
            let (shown, seen) = (papers.last, self.matched);
            return older(Older::Log { shown, seen });
        }
        Ok(())
    }
}

/// The term that is certainly durable at whoever sent this message, if it tells one.
pub fn durable_term(message: &PeerMessage) -> Option<Term> {
    match message {
        // Asking around promises nothing, so its term may not be on disk yet.
        PeerMessage::Raft(Message {
            body: Body::PreVote { .. },
            ..
        }) => None,
        PeerMessage::Raft(Message { term, .. }) => Some(*term),
        // A leader's term is durable since its election.
        PeerMessage::Append { term, .. } | PeerMessage::SnapshotBegin { term, .. } => Some(*term),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
