//! `member replace`: a new member instead of an old one, without a moment in which the cluster could not afford a failure that it can afford
//! now. This file is the order of steps and what is said about them; single calls are in [`super::membership`].
//!
//! Each step is chosen by looking at the cluster, not by remembering what was done. So the command may be stopped anywhere, and goes
//! on when it is run again:
//!
//! | old | new | next |
//! | --- | --- | --- |
//! | listed | absent | add it as a learner |
//! | | learner | wait until it has caught up; promote it |
//! | listed | voter | wait until it has caught up and votes; remove the old one |
//! | absent | voter | done |
//!
//! What is seen at a look, and what follows from it, is in [`seen`].

mod seen;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use quorate_proto::etcdserverpb::Member;
use serde_json::json;

use seen::{Seen, Step, majority};

use super::membership::{self, describe};
use super::progress::{Done, Progress};
use super::{Call, Cluster, Failure, members};
use crate::args::{Output, ReplaceArgs};
use crate::output;
use crate::urls::Url;

/// Between two looks at the cluster.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// A member whose store lacks no more entries than this has caught up, as far as can be seen from outside; the leader judges for itself.
const CAUGHT_UP: u64 = 1000;

/// Refusals that say that the cluster is no longer, or not yet, as it was seen: somebody else changes it, or an earlier try of this command
/// whose answer was lost had done the step after all.
const OVERTAKEN: [&str; 4] = [
    "Peer URLs already exists",
    "can only promote a learner member",
    "member not found",
    "another membership change is under way",
];

/// Refusals that say that the leader hears too few voters, as every new leader does for a moment.
const UNHEALTHY: &str = "unhealthy cluster";

/// `quorate member replace`
pub async fn replace(args: ReplaceArgs) -> Result<(), Failure> {
    let mut job = Job {
        cluster: Cluster::new(&args.client)?,
        urls: membership::peer_urls(&args.peer_urls)?,
        form: args.client.output,
        progress: Progress::new(),
        told_how_to_start: false,
        held_up_since: None,
        answered: false,
        args,
    };
    if job.args.dry_run {
        return job.explain().await;
    }
    tokio::select! {
        result = job.carry_out() => result,
        _ = tokio::signal::ctrl_c() => {
            job.progress.pause();
            Err(Failure::refused("stopped; the cluster stays as it is now, and the same command goes on from there"))
        }
    }
}

struct Job {
    args: ReplaceArgs,
    cluster: Cluster,
    urls: Vec<String>,
    form: Output,
    progress: Progress,
    told_how_to_start: bool,
    /// Since when the next step has been refused for a reason that may pass.
    held_up_since: Option<Instant>,
    /// Whether the cluster has answered at all.
    answered: bool,
}

impl Job {
    async fn carry_out(&mut self) -> Result<(), Failure> {
        loop {
            let seen = match self.look().await {
                Ok(seen) => seen,
                // Nothing is lost by waiting: a leader may be about to be elected.
                Err(failure) if failure.code == 3 && self.anybody_there().await => {
                    self.progress
                        .show("no answer from the cluster, asking again", None);
                    tokio::time::sleep(LOOK_EVERY).await;
                    continue;
                }
                Err(failure) => return Err(failure),
            };
            if let Err(refusal) = seen.check_quorum() {
                // A member that is just being started again, perhaps.
                self.hold_up(refusal, "waiting for more members to answer")?;
                tokio::time::sleep(LOOK_EVERY).await;
                continue;
            }
            let done = match seen.step() {
                Step::Add => self.add().await,
                Step::Promote | Step::Remove if !self.has_caught_up(&seen) => Ok(()),
                Step::Promote => self.promote(&seen).await,
                Step::Remove => self.remove(&seen).await,
                Step::Nothing => {
                    self.finish(&seen);
                    return Ok(());
                }
            };
            match done {
                Ok(()) => self.held_up_since = None,
                // Whether it was done is seen at the next look.
                Err(failure) if failure.code == 3 => {
                    self.progress
                        .show(&format!("{}, looking again", failure.message), None);
                }
                Err(failure) if failure.message.contains(UNHEALTHY) => {
                    let why = format!(
                        "the leader refuses the next step ({}): with it, too few voters would be heard from",
                        failure.message
                    );
                    self.hold_up(
                        Failure::refused(why),
                        "waiting for the leader to hear more members",
                    )?;
                }
                Err(failure) if OVERTAKEN.iter().any(|said| failure.message.contains(said)) => {
                    self.hold_up(failure, "the cluster has changed, looking again")?;
                }
                Err(failure) => return Err(failure),
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Whether the cluster has ever answered this command, or a member does so now: a mistyped endpoint is not waited for.
    async fn anybody_there(&mut self) -> bool {
        for endpoint in self.cluster.endpoints() {
            if self.answered {
                break;
            }
            self.answered = members::status_at(&self.cluster, endpoint).await.is_ok();
        }
        self.answered
    }

    /// Waits on at `refusal`, but not for ever.
    fn hold_up(&mut self, refusal: Failure, meanwhile: &str) -> Result<(), Failure> {
        let since = *self.held_up_since.get_or_insert_with(Instant::now);
        if since.elapsed() >= self.cluster.patience(Call::Write) * 2 {
            return Err(refusal);
        }
        self.progress.show(meanwhile, None);
        Ok(())
    }

    /// Looks at the cluster, and checks that what is asked makes sense on it.
    async fn look(&mut self) -> Result<Seen, Failure> {
        let listed = members::listed(&self.cluster).await?;
        self.answered = true;
        let members = listed.members;
        self.cluster
            .learn(members.iter().flat_map(|member| &member.client_ur_ls));
        let mut answers = BTreeMap::new();
        for endpoint in self.cluster.endpoints() {
            if let Ok(status) = members::status_at(&self.cluster, endpoint).await {
                let member = status.header.as_ref().map_or(0, |header| header.member_id);
                answers.insert(member, status);
            }
        }
        let new = members
            .iter()
            .find(|member| member.peer_ur_ls.iter().any(|url| self.urls.contains(url)));
        let seen = Seen {
            cluster: membership::cluster_id(&listed.header),
            old: membership::pick(&members, &self.args.old)?.cloned(),
            new: new.cloned(),
            members,
            answers,
        };
        self.check(&seen)?;
        Ok(seen)
    }

    fn check(&self, seen: &Seen) -> Result<(), Failure> {
        let name = &self.args.name;
        if let (Some(old), Some(new)) = (&seen.old, &seen.new)
            && old.id == new.id
        {
            return Err(Failure::refused(format!(
                "{} is reached at {} itself: the new member needs peer URLs of its own. To give a member an empty disk at its old \
                 address, remove it first and then add it again",
                describe(old),
                self.urls.join(",")
            )));
        }
        if let Some(new) = &seen.new
            && !new.name.is_empty()
            && new.name != *name
        {
            return Err(Failure::refused(format!(
                "the peer URLs {} belong to {}",
                self.urls.join(","),
                describe(new)
            )));
        }
        let namesake = seen.members.iter().find(|member| member.name == *name);
        if let Some(other) = namesake.filter(|other| seen.new.as_ref().is_none_or(|new| new.id != other.id)) {
            return Err(Failure::refused(format!(
                "there is a member {} already, reached at {}",
                describe(other),
                other.peer_ur_ls.join(",")
            )));
        }
        if seen.old.is_none() && seen.new.is_none() {
            return Err(membership::no_such_member(&seen.members, &self.args.old));
        }
        Ok(())
    }

    async fn add(&mut self) -> Result<(), Failure> {
        let answer = membership::call_add(&self.cluster, &self.urls, true).await?;
        let id = answer.member.as_ref().map_or(0, |member| member.id);
        let name = &self.args.name;
        self.say("added", id, &format!("Added {name} ({id:x}) as a learner."));
        Ok(())
    }

    /// Whether the new member has caught up; shows how far it is.
    fn has_caught_up(&mut self, seen: &Seen) -> bool {
        let name = self.args.name.clone();
        let Some(new) = &seen.new else { return false };
        let Some(status) = seen.answers.get(&new.id) else {
            if new.name.is_empty() {
                if !std::mem::replace(&mut self.told_how_to_start, true) {
                    let how = how_to_start(&name, new, &seen.members);
                    self.say(
                        "waiting",
                        new.id,
                        &format!("Start {name} now, with an empty data directory:\n{how}"),
                    );
                }
                self.progress
                    .show(&format!("waiting for {name} to be started"), None);
            } else {
                let at = new.client_ur_ls.join(",");
                self.progress
                    .show(&format!("waiting for {name} to answer at {at}"), None);
            }
            return false;
        };
        let all = seen.furthest();
        let done = status.raft_applied_index;
        self.progress
            .show(&format!("{name} catches up"), Some(Done { done, all }));
        // One that was added as a voter is listed as one before it votes. Without its vote the old one's would be missed.
        let votes = new.is_learner || !seen.is_still_to_vote();
        status.leader != 0 && done + CAUGHT_UP >= all && votes
    }

    async fn promote(&mut self, seen: &Seen) -> Result<(), Failure> {
        let id = seen.new.as_ref().map_or(0, |new| new.id);
        match membership::call_promote(&self.cluster, id).await {
            Ok(_) => {
                let name = &self.args.name;
                self.say("promoted", id, &format!("Promoted {name} ({id:x}): it votes."));
                Ok(())
            }
            // The leader's measure is stricter than ours.
            Err(failure) if failure.message.contains("in sync with leader") => Ok(()),
            Err(failure) => Err(failure),
        }
    }

    async fn remove(&mut self, seen: &Seen) -> Result<(), Failure> {
        let Some(old) = &seen.old else { return Ok(()) };
        membership::call_remove(&self.cluster, old.id).await?;
        self.say("removed", old.id, &format!("Removed {}.", describe(old)));
        Ok(())
    }

    fn finish(&mut self, seen: &Seen) {
        let Some(new) = &seen.new else { return };
        let (old, new_is) = (&self.args.old, describe(new));
        let text = format!(
            "Done: {new_is} is in the place of {old}, whose process ends by itself and whose data is of no more use."
        );
        self.say("done", new.id, &text);
    }

    fn say(&mut self, event: &str, member: u64, text: &str) {
        self.progress.pause();
        match self.form {
            Output::Table => output::print(format!("{text}\n").as_bytes()),
            Output::Json => {
                let line = json!({ "event": event, "member": format!("{member:x}"), "text": text });
                output::print(format!("{line}\n").as_bytes());
            }
        }
    }

    /// `--dry-run`: says what would be done on the cluster as it is.
    async fn explain(&mut self) -> Result<(), Failure> {
        let seen = self.look().await?;
        let steps = self.plan(&seen);
        match self.form {
            Output::Json => {
                let voters: Vec<String> = seen.voters().map(|member| format!("{:x}", member.id)).collect();
                let plan =
                    json!({ "cluster": format!("{:x}", seen.cluster), "voters": voters, "steps": steps });
                output::print(format!("{plan}\n").as_bytes());
            }
            Output::Table => {
                let mut text = format!("Cluster {:x} as it is:\n", seen.cluster);
                let rows: Vec<Vec<String>> = seen.members.iter().map(|member| seen.row(member)).collect();
                text += &output::table(&["MEMBER", "NAME", "VOTES", "NOW"], &rows, output::styled());
                text += "\nWould be done:\n";
                for (at, step) in steps.iter().enumerate() {
                    text += &format!("  {}. {step}\n", at + 1);
                }
                text += if steps.is_empty() { "  nothing\n" } else { "" };
                text += "Nothing has been done.\n";
                output::print(text.as_bytes());
            }
        }
        seen.check_quorum()
    }

    fn plan(&self, seen: &Seen) -> Vec<String> {
        let name = &self.args.name;
        let mut steps = Vec::new();
        let (voters, answering) = (seen.voters().count(), seen.answering());
        let votes = seen.new.as_ref().is_some_and(|new| !new.is_learner);
        if seen.new.is_none() {
            steps.push(format!(
                "add {name}, reached at {}, as a learner",
                self.urls.join(",")
            ));
        }
        let started = seen.new.as_ref().is_some_and(|new| !new.name.is_empty());
        let start = if started { "" } else { "is started and " };
        if !votes {
            steps.push(format!("wait until {name} {start}has caught up"));
        } else if seen.old.is_some() && (!started || seen.is_still_to_vote()) {
            steps.push(format!("wait until {name} {start}has caught up and votes"));
        }
        let (mut voters, mut answering) = (voters, answering);
        if !votes {
            (voters, answering) = (voters + 1, answering + 1);
            steps.push(format!("promote {name}; then {}", majority(voters, answering)));
        }
        if let Some(old) = &seen.old {
            if !old.is_learner {
                voters -= 1;
                answering -= usize::from(seen.answers.contains_key(&old.id));
            }
            steps.push(format!(
                "remove {}; then {}",
                describe(old),
                majority(voters, answering)
            ));
        }
        steps
    }
}

/// A command line for the new member; ports and paths are suggestions.
fn how_to_start(name: &str, new: &Member, members: &[Member]) -> String {
    let host = new.peer_ur_ls.iter().find_map(|url| Url::parse(url).ok());
    let client = host.map_or_else(
        || "http://HOST:2379".to_owned(),
        |url| Url { port: 2379, ..url }.to_string(),
    );
    let urls = new.peer_ur_ls.join(",");
    format!(
        "  quorate serve --name {name} --data-dir {name}.data \\\n    \
           --listen-peer-urls {urls} --listen-client-urls {client} \\\n    \
           --initial-cluster-state existing \\\n    \
           --initial-cluster {}",
        membership::initial_cluster(name, new.id, members)
    )
}
