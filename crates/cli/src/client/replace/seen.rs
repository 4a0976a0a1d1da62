//! The cluster as `member replace` sees it at one look: which step comes next, and whether a majority is left at every one. Nothing is asked or
//! done here.

use std::collections::BTreeMap;

use quorate_proto::etcdserverpb::{Member, StatusResponse};

use crate::client::membership::describe;
use crate::client::{Failure, members};

/// The cluster at one look.
pub struct Seen {
    /// Its id.
    pub cluster: u64,
    /// All of them, learners too.
    pub members: Vec<Member>,
    /// Who is to go, while it is listed.
    pub old: Option<Member>,
    /// Who is to come, once it is listed.
    pub new: Option<Member>,
    /// Who answers, with what.
    pub answers: BTreeMap<u64, StatusResponse>,
}

/// What is to be done next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Add the new member as a learner.
    Add,
    /// Make it a voter.
    Promote,
    /// Remove the old one.
    Remove,
    /// All is done.
    Nothing,
}

/// So many voters, in words.
pub fn majority(voters: usize, answering: usize) -> String {
    format!(
        "{voters} voters, of whom {} are needed and {answering} answer",
        voters / 2 + 1
    )
}

impl Seen {
    /// What is to be done next.
    pub fn step(&self) -> Step {
        match (&self.old, &self.new) {
            (_, None) => Step::Add,
            (_, Some(new)) if new.is_learner => Step::Promote,
            (Some(_), Some(_)) => Step::Remove,
            (None, Some(_)) => Step::Nothing,
        }
    }

    /// Whether the new member, listed as a voter, is known not to vote yet.
    pub fn is_still_to_vote(&self) -> bool {
        let status = self.new.as_ref().and_then(|new| self.answers.get(&new.id));
        status.is_some_and(|status| status.is_learner)
    }

    /// Members that are listed as voters.
    pub fn voters(&self) -> impl Iterator<Item = &Member> {
        self.members.iter().filter(|member| !member.is_learner)
    }

    /// Voters that answer.
    pub fn answering(&self) -> usize {
        self.voters()
            .filter(|member| self.answers.contains_key(&member.id))
            .count()
    }

    /// The last committed entry that anybody knows.
    pub fn furthest(&self) -> u64 {
        let all = self.answers.values().map(|status| status.raft_index);
        all.max().unwrap_or_default()
    }

    /// Refuses to go on when the next step, or the end of it all, would leave too few voters that answer.
    pub fn check_quorum(&self) -> Result<(), Failure> {
        let votes = |member: &Option<Member>| member.as_ref().is_some_and(|member| !member.is_learner);
        let old_votes = votes(&self.old);
        let old_answers = self
            .old
            .as_ref()
            .is_some_and(|old| self.answers.contains_key(&old.id));
        let (mut voters, mut answering) = (self.voters().count(), self.answering());
        let mut stages = vec![(voters, answering)];
        if !votes(&self.new) {
            // Nothing is promoted before it has caught up, so it answers then.
            (voters, answering) = (voters + 1, answering + 1);
            stages.push((voters, answering));
        }
        if old_votes {
            stages.push((voters - 1, answering - usize::from(old_answers)));
        }
        match stages
            .into_iter()
            .find(|(voters, answering)| *answering <= voters / 2)
        {
            None => Ok(()),
            Some((voters, answering)) => {
                let silent = self
                    .voters()
                    .filter(|member| !self.answers.contains_key(&member.id));
                let silent: Vec<String> = silent
                    .map(|member| format!("{} at {}", describe(member), member.client_ur_ls.join(",")))
                    .collect();
                Err(Failure::refused(format!(
                    "not done, since there would be {}. No answer from {}. Bring them back first; if a majority is lost for good, see \
                     'quorate recover --help'",
                    majority(voters, answering),
                    silent.join("; ")
                )))
            }
        }
    }

    /// A member's line in the table of a dry run.
    pub fn row(&self, member: &Member) -> Vec<String> {
        let now = match self.answers.get(&member.id) {
            Some(status) => {
                let behind = self.furthest().saturating_sub(status.raft_applied_index);
                match behind {
                    0 => members::role(status).to_owned(),
                    _ => format!("{}, {behind} entries behind", members::role(status)),
                }
            }
            None if member.name.is_empty() => "not started".to_owned(),
            None => "no answer".to_owned(),
        };
        vec![
            format!("{:x}", member.id),
            if member.name.is_empty() {
                "-".to_owned()
            } else {
                member.name.clone()
            },
            if member.is_learner { "no" } else { "yes" }.to_owned(),
            now,
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(id: u64, is_learner: bool) -> Member {
        Member {
            id,
            name: format!("n{id}"),
            is_learner,
            ..Member::default()
        }
    }

    /// A cluster in which 1 is to be replaced by 9.
    fn seen(voters: &[u64], learners: &[u64], silent: &[u64]) -> Seen {
        let voters = voters.iter().map(|id| member(*id, false));
        let members: Vec<Member> = voters
            .chain(learners.iter().map(|id| member(*id, true)))
            .collect();
        let answering = members.iter().filter(|member| !silent.contains(&member.id));
        let answers = answering
            .map(|member| (member.id, StatusResponse::default()))
            .collect();
        let find = |id| members.iter().find(|member| member.id == id).cloned();
        Seen {
            cluster: 7,
            old: find(1),
            new: find(9),
            members,
            answers,
        }
    }

    #[test]
    fn the_cluster_says_what_comes_next() {
        assert_eq!(seen(&[1, 2, 3], &[], &[]).step(), Step::Add);
        assert_eq!(seen(&[1, 2, 3], &[9], &[]).step(), Step::Promote);
        assert_eq!(seen(&[1, 2, 3, 9], &[], &[]).step(), Step::Remove);
        assert_eq!(seen(&[2, 3, 9], &[], &[]).step(), Step::Nothing);
        assert_eq!(
            seen(&[2, 3], &[9], &[]).step(),
            Step::Promote,
            "somebody else removed the old one"
        );
    }

    #[test]
    fn a_majority_is_kept_at_every_step() {
        for (voters, learners, silent, fine) in [
            (&[1, 2, 3][..], &[][..], &[][..], true),
            (&[1, 2, 3], &[], &[1], true),
            (&[1, 2, 3], &[9], &[1, 9], true),
            (&[1], &[], &[], true),
            (&[1, 2, 3], &[], &[1, 2], false),
            (&[1, 2, 3, 9], &[], &[2, 9], false),
            (&[1, 2, 3, 9], &[], &[1], true),
            (&[1, 2, 9], &[], &[9], false),
            (&[1, 2, 3, 4, 5], &[], &[1, 2], true),
        ] {
            let checked = seen(voters, learners, silent).check_quorum();
            assert_eq!(
                checked.is_ok(),
                fine,
                "{voters:?} {learners:?} without {silent:?}: {checked:?}"
            );
        }
        let said = seen(&[1, 2, 3], &[], &[2, 3]).check_quorum().unwrap_err().message;
        assert!(
            said.contains("n2 (2)") && said.contains("n3 (3)") && said.contains("quorate recover"),
            "{said}"
        );
    }
}
