//! What a log says to people when no quorum is left that could say it, and the records that make it the log of a new cluster of one. Whether to
//! write them is a person's decision; they are the runtime's to write.

use quorate_base::{Index, LogId, NodeId, Term};
use quorate_raft::{Config, HardState};
use quorate_wal::Record;

use super::{Boot, BootError, check_terms};
use crate::entry::{Content, Entry};
use crate::handshake::FEATURE_LEVEL;
use crate::stored::state_record;

/// The end of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Survey {
    /// The term that was reached.
    pub term: Term,
    /// Up to here it was known to be committed.
    pub commit: Index,
    /// The last entry, committed or not.
    pub last: LogId,
    /// The configuration in force at the end.
    pub config: Config,
}

impl Boot {
    /// Looks at the records gathered so far.
    ///
    /// # Errors
    /// If they are no log that Raft wrote.
    pub fn survey(&self) -> Result<Survey, BootError> {
        if let Some(failed) = &self.failed {
            return Err(failed.clone());
        }
        let base = self
            .mark
            .as_ref()
            .map(|mark| mark.meta.clone())
            .unwrap_or_default();
        let last = check_terms(&base, &self.entries, &self.hard)?;
        let latest = self
            .entries
            .iter()
            .rev()
            .find_map(|entry| entry.config.as_deref());
        Ok(Survey {
            term: self.hard.term,
            commit: self.hard.commit.max(base.last.index),
            last,
            config: latest.unwrap_or(&base.config).clone(),
        })
    }
}

impl Survey {
    /// The batch that makes this the log of a cluster of `me` alone, and the entry that it begins with. All that is in the log is kept and thereby
    /// committed: what is not known to be committed here may have been acknowledged elsewhere.
    ///
    /// The other members are tombstoned, so that none of them can come back under its old id with what it knows of the old cluster.
    pub fn begin_alone(&self, me: NodeId) -> (LogId, Vec<Record>) {
        let term = Term(self.term.0 + 1);
        let at = LogId {
            term,
            index: self.last.index.next(),
        };
        let mut config = Config::of([me]);
        config.removed.clone_from(&self.config.removed);
        config.removed.extend(self.config.members());
        config.removed.remove(&me);
        if let Some(about) = self.config.about.get(&me) {
            config.about.insert(me, about.clone());
        }
        // This release is all that there is.
        config.level = self.config.level.max(FEATURE_LEVEL);
        let content = Content::Config(config);
        let entry = Record::Entry {
            index: at.index,
            body: Entry { at, content }.encode(),
        };
        let state = state_record(&HardState {
            term,
            vote: None,
            commit: at.index,
        });
        (at, vec![entry, state])
    }
}

#[cfg(test)]
mod tests {
    use quorate_raft::SnapMeta;

    use super::*;
    use crate::config::NodeConfig;
    use crate::entry::encode_noop;
    use crate::stored::{Mark, Origin};

    /// Of member 2: founded with three, entry 1 committed, entries 2 and 3 not.
    fn gathered() -> Boot {
        let mut config = Config::of([NodeId(1), NodeId(2), NodeId(3)]);
        config.about.insert(NodeId(2), b"two"[..].into());
        config.about.insert(NodeId(3), b"three"[..].into());
        config.removed.insert(NodeId(7));
        let meta = SnapMeta {
            last: LogId::ZERO,
            config,
        };
        let origin = Origin::Founded;
        let mut boot = Boot::new();
        boot.record(Mark { origin, meta }.record());
        for index in 1..=3 {
            let at = LogId::new(4, index);
            let (index, body) = (at.index, encode_noop(at));
            boot.record(Record::Entry { index, body });
        }
        let hard = HardState {
            term: Term(5),
            vote: Some(NodeId(1)),
            commit: Index(1),
        };
        boot.record(state_record(&hard));
        boot
    }

    #[test]
    fn a_log_becomes_that_of_a_cluster_of_one_with_everything_in_it() {
        let mut boot = gathered();
        let survey = boot.survey().unwrap();
        assert_eq!((survey.term, survey.commit), (Term(5), Index(1)));
        assert_eq!(survey.last, LogId::new(4, 3));
        let (first, records) = survey.begin_alone(NodeId(2));
        assert_eq!(first, LogId::new(6, 4));
        records.into_iter().for_each(|record| boot.record(record));

        let after = boot.survey().unwrap();
        assert_eq!((after.last, after.commit), (first, first.index));
        let config = NodeConfig::new(NodeId(2), 1, 1);
        let (node, _) = boot.finish(config, None, LogId::ZERO, Index::ZERO).unwrap();
        let config = node.raft().config();
        assert_eq!(config.voters, [NodeId(2)].into());
        assert_eq!(config.removed, [1, 3, 7].map(NodeId).into());
        assert_eq!(config.about.len(), 1);
        assert_eq!(config.level, FEATURE_LEVEL);
        // Alone, it need not wait for anybody.
        assert_eq!(
            (node.raft().term(), node.raft().vote()),
            (Term(7), Some(NodeId(2)))
        );
    }

    #[test]
    fn members_of_both_halves_are_left_behind() {
        let old = Config::of([NodeId(1), NodeId(2)]);
        let config = old.towards(&Config::of([NodeId(2), NodeId(3)]));
        let survey = Survey {
            config,
            ..gathered().survey().unwrap()
        };
        let (_, records) = survey.begin_alone(NodeId(3));
        let Record::Entry { body, .. } = &records[0] else {
            panic!("{records:?}")
        };
        let Content::Config(config) = Entry::decode(body).unwrap().content else {
            panic!("a configuration")
        };
        assert_eq!(config.voters, [NodeId(3)].into());
        assert_eq!(config.removed, [NodeId(1), NodeId(2)].into());
    }

    #[test]
    fn what_is_no_log_is_not_surveyed() {
        let mut boot = gathered();
        let (index, body) = (Index(9), encode_noop(LogId::new(5, 9)));
        boot.record(Record::Entry { index, body });
        assert!(matches!(boot.survey(), Err(BootError::Gap { .. })));
    }
}
