//! Many random walks, and the stories that come of them: of each situation and each mark of the core that no story reaches yet, the shortest that
//! was found.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::action::Action;
use crate::cluster::Cluster;
use crate::kind::Kind;
use crate::script::{Script, ScriptError, told};
use crate::shorten::shorten;
use crate::situation;
use crate::state::State;
use crate::walk::{Goal, Walk, marks, marks_of, moment};

/// A goal that was found so often is not looked for any more.
const ENOUGH: usize = 6;

/// A mark that is reached sooner needs no story: searches from empty logs get there.
const NEAR: usize = 10;

/// When a cluster has seen so many situations of nodes it makes room for a new one.
const FULL: usize = 400_000;

/// Which walks.
#[derive(Clone, Copy, Debug)]
pub struct Walks {
    /// The seed of the first.
    pub seed: u64,
    /// How many.
    pub count: u64,
    /// How many actions each.
    pub length: usize,
}

/// How a goal was reached.
#[derive(Clone, Debug)]
pub struct Story {
    /// What is reached.
    pub goal: Goal,
    /// The seed of the walk.
    pub seed: u64,
    /// So many actions of the walk led there.
    pub found_after: usize,
    /// The story's first command.
    pub header: String,
    /// So many actions are enough: these.
    pub actions: Vec<String>,
}

/// An invariant was broken.
#[derive(Clone, Debug)]
pub struct Broken {
    /// Which.
    pub invariant: Arc<str>,
    /// The seed of the walk.
    pub seed: u64,
    /// The story's first command, and what led there.
    pub story: Vec<String>,
}

/// What came of it.
#[derive(Debug, Default)]
pub struct Hunted {
    /// The shortest story of each goal, by its name.
    pub stories: BTreeMap<String, Story>,
    /// Situations that did not arise.
    pub missing: Vec<&'static str>,
    /// How many actions were taken.
    pub steps: usize,
    /// The end of all that, if there is one.
    pub broken: Option<Broken>,
}

impl Story {
    /// As a file of the corpus.
    pub fn text(&self) -> String {
        let Story {
            seed,
            found_after,
            header,
            actions,
            ..
        } = self;
        let about = self.goal.about();
        let mut text = format!(
            "# {about}\n# Seed {seed}: {found_after} actions of a random walk, of which these {} are enough.\n{header}\n",
            actions.len()
        );
        for action in actions {
            text += action;
            text.push('\n');
        }
        text
    }

    /// As a script.
    pub fn script(&self) -> Script {
        Script {
            name: self.goal.name().to_owned(),
            text: self.text(),
        }
    }
}

/// Walks, and looks around at every step.
pub fn hunt(walks: Walks) -> Result<Hunted, ScriptError> {
    let mut known = BTreeSet::new();
    for script in told()? {
        known.extend(marks_of(&script)?);
    }
    let mut hunt = Hunt {
        known,
        clusters: BTreeMap::new(),
        found: BTreeMap::new(),
        hunted: Hunted::default(),
    };
    for seed in walks.seed..walks.seed + walks.count {
        hunt.walk(seed, walks.length);
        if hunt.hunted.broken.is_some() {
            break;
        }
    }
    hunt.end()
}

struct Hunt {
    /// Marks that stories told by hand reach.
    known: BTreeSet<&'static str>,
    clusters: BTreeMap<String, Cluster>,
    /// How often each goal was reached.
    found: BTreeMap<String, usize>,
    hunted: Hunted,
}

impl Hunt {
    fn walk(&mut self, seed: u64, length: usize) {
        let (kind, header, nodes, append) = cluster_of(seed);
        let cluster = self
            .clusters
            .remove(&header)
            .filter(|cluster| cluster.sizes().nodes < FULL)
            .unwrap_or_else(|| kind.cluster(nodes, append));
        let mut path = Vec::new();
        let mut walk = Walk::new(&cluster, kind, seed);
        for _ in 0..length {
            let Some((before, action)) = walk.step() else {
                break;
            };
            path.push(action);
            self.hunted.steps += 1;
            if let Some(invariant) = &walk.state().violation {
                let words = path.iter().map(|action| cluster.write(action));
                self.hunted.broken = Some(Broken {
                    invariant: Arc::clone(invariant),
                    seed,
                    story: std::iter::once(header.clone()).chain(words).collect(),
                });
                return;
            }
            for goal in self.reached(&cluster, &before, action, walk.state()) {
                self.keep(&cluster, &header, seed, &path, goal);
            }
        }
        self.clusters.insert(header, cluster);
    }

    /// The goals that this action leads to, those that were found often enough aside.
    fn reached(&self, cluster: &Cluster, before: &State, action: Action, after: &State) -> Vec<Goal> {
        let wanted = |goal: &Goal| self.found.get(goal.name()).is_none_or(|n| *n < ENOUGH);
        let now = moment(cluster, before, action, after);
        let situations = situation::all().into_iter().map(Goal::Situation);
        let mut goals: Vec<Goal> = situations.filter(wanted).collect();
        goals.retain(|goal| matches!(goal, Goal::Situation(situation) if (situation.arises)(&now)));
        let marks = marks(cluster, before, action).into_iter();
        let marks = marks.filter(|mark| mark.starts_with("raft.") && !self.known.contains(mark));
        goals.extend(marks.map(|mark| Goal::Mark(mark.to_owned())).filter(wanted));
        goals
    }

    fn keep(&mut self, cluster: &Cluster, header: &str, seed: u64, path: &[Action], goal: Goal) {
        let Some(shorter) = shorten(cluster, path, &goal) else {
            return;
        };
        *self.found.entry(goal.name().to_owned()).or_default() += 1;
        let known = self.hunted.stories.get(goal.name());
        if known.is_some_and(|known| known.actions.len() <= shorter.len()) {
            return;
        }
        let story = Story {
            seed,
            found_after: path.len(),
            header: header.to_owned(),
            actions: shorter.iter().map(|action| cluster.write(action)).collect(),
            goal,
        };
        self.hunted.stories.insert(story.goal.name().to_owned(), story);
    }

    /// Marks that are near, or that the stories of other goals reach as well, need no story of their own.
    fn end(self) -> Result<Hunted, ScriptError> {
        let Hunt {
            mut known,
            mut hunted,
            ..
        } = self;
        let (marks, mut stories): (BTreeMap<_, _>, BTreeMap<_, _>) = std::mem::take(&mut hunted.stories)
            .into_iter()
            .partition(|(_, story)| matches!(story.goal, Goal::Mark(_)));
        for story in stories.values() {
            known.extend(marks_of(&story.script())?);
        }
        for (name, story) in marks {
            if story.actions.len() >= NEAR && !known.contains(name.as_str()) {
                known.extend(marks_of(&story.script())?);
                stories.insert(name, story);
            }
        }
        let missing = situation::all().into_iter().map(|situation| situation.name);
        hunted.missing = missing.filter(|name| !stories.contains_key(*name)).collect();
        hunted.stories = stories;
        Ok(hunted)
    }
}

/// In which cluster a walk of this seed takes place, and the first command of its stories.
fn cluster_of(seed: u64) -> (Kind, String, Option<usize>, Option<u64>) {
    let kind = Kind::ALL[(seed % 3) as usize];
    let nodes = (kind == Kind::Static && seed % 4 == 1).then_some(5);
    let append = (seed % 5 == 2).then_some(200);
    let mut header = format!("model {kind}");
    if let Some(nodes) = nodes {
        header += &format!(" nodes={nodes}");
    }
    if let Some(append) = append {
        header += &format!(" append={append}");
    }
    (kind, header, nodes, append)
}
