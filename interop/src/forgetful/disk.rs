//! Files and directories by number, and what a power cut does to all of them. A new name, a name that goes and a renaming are each one
//! step, and each may survive a cut or not until the directory is synced, whatever became of the file's content.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::time::Duration;

use super::file::File;
use crate::random::Random;

/// The number of the directory that all others are in.
pub const ROOT: u64 = 1;

/// In how many of a hundred cases something that was not synced survives this cut.
#[derive(Clone, Copy, Debug)]
pub struct Mood(pub u64);

impl Mood {
    fn draw(random: &mut Random) -> Mood {
        Mood([0, 10, 50, 90, 100][random.below(5) as usize])
    }

    /// Whether the next thing survives.
    pub fn keeps(self, random: &mut Random) -> bool {
        random.below(100) < self.0
    }
}

/// Names that come (a number) or go, in one step.
type Step = Vec<(OsString, Option<u64>)>;

/// A directory.
#[derive(Debug, Default)]
pub struct Directory {
    names: BTreeMap<OsString, u64>,
    synced: BTreeMap<OsString, u64>,
    steps: Vec<Step>,
}

impl Directory {
    /// Its names, in order.
    pub fn names(&self) -> impl Iterator<Item = (&OsStr, u64)> {
        self.names
            .iter()
            .map(|(name, number)| (name.as_os_str(), *number))
    }

    fn take(&mut self, step: Step) {
        apply(&mut self.names, &step);
        self.steps.push(step);
    }

    fn sync(&mut self) {
        self.synced.clone_from(&self.names);
        self.steps.clear();
    }

    fn cut(&mut self, mood: Mood, random: &mut Random) -> (usize, usize) {
        let steps = std::mem::take(&mut self.steps);
        let (mut kept, all) = (0, steps.len());
        for step in steps {
            if mood.keeps(random) {
                kept += 1;
                apply(&mut self.synced, &step);
            }
        }
        self.names.clone_from(&self.synced);
        (kept, all)
    }
}

fn apply(names: &mut BTreeMap<OsString, u64>, step: &Step) {
    for (name, number) in step {
        match number {
            Some(number) => names.insert(name.clone(), *number),
            None => names.remove(name),
        };
    }
}

/// A file or a directory.
#[derive(Debug)]
pub enum Node {
    /// A regular file.
    File(File),
    /// A directory.
    Directory(Directory),
}

/// What a cut left of what was not synced: survivors and all there was.
#[derive(Debug, Default)]
pub struct Left {
    /// Sectors.
    pub sectors: (usize, usize),
    /// New, changed and removed names.
    pub names: (usize, usize),
}

/// The longest that a sync takes.
const SYNC: Duration = Duration::from_millis(6);

/// The whole disk. Without power there is nothing on it.
#[derive(Debug)]
pub struct Disk {
    powered: bool,
    nodes: BTreeMap<u64, Node>,
    next: u64,
    random: Random,
}

impl Disk {
    /// An empty one.
    pub fn new(seed: u64) -> Disk {
        let root = Node::Directory(Directory::default());
        Disk {
            powered: true,
            nodes: [(ROOT, root)].into(),
            next: ROOT + 1,
            random: Random::new(seed),
        }
    }

    /// What has this number.
    pub fn node(&self, number: u64) -> Option<&Node> {
        self.nodes.get(&number).filter(|_| self.powered)
    }

    fn node_mut(&mut self, number: u64) -> Option<&mut Node> {
        self.nodes.get_mut(&number).filter(|_| self.powered)
    }

    /// The file with this number.
    pub fn file(&mut self, number: u64) -> Option<&mut File> {
        match self.node_mut(number)? {
            Node::File(file) => Some(file),
            Node::Directory(_) => None,
        }
    }

    fn directory(&mut self, number: u64) -> Option<&mut Directory> {
        match self.node_mut(number)? {
            Node::Directory(directory) => Some(directory),
            Node::File(_) => None,
        }
    }

    /// What has this name in this directory, if there is the directory.
    pub fn find(&self, parent: u64, name: &OsStr) -> Option<Option<u64>> {
        match self.node(parent)? {
            Node::Directory(directory) => Some(directory.names.get(name).copied()),
            Node::File(_) => None,
        }
    }

    /// Gives a new file or directory a name, and returns its number.
    pub fn add(&mut self, parent: u64, name: &OsStr, node: Node) -> Option<u64> {
        let number = self.next;
        self.directory(parent)?
            .take(vec![(name.to_owned(), Some(number))]);
        self.nodes.insert(number, node);
        self.next += 1;
        Some(number)
    }

    /// Takes a name away. The file stays for those who have it open.
    pub fn remove(&mut self, parent: u64, name: &OsStr) -> Option<()> {
        self.find(parent, name)??;
        self.directory(parent)?.take(vec![(name.to_owned(), None)]);
        Some(())
    }

    /// Gives a file another name, in one step, which may take the place of another.
    pub fn rename(&mut self, parent: u64, from: &OsStr, to: &OsStr) -> Option<()> {
        let number = self.find(parent, from)??;
        let step = vec![(from.to_owned(), None), (to.to_owned(), Some(number))];
        self.directory(parent)?.take(step);
        Some(())
    }

    /// Makes a file's content, or a directory's names, durable.
    pub fn sync(&mut self, number: u64) -> Option<()> {
        match self.node_mut(number)? {
            Node::File(file) => {
                file.sync();
            }
            Node::Directory(directory) => directory.sync(),
        }
        Some(())
    }

    /// How long the next sync takes.
    pub fn sync_time(&mut self) -> Duration {
        SYNC * self.random.below(100) as u32 / 100
    }

    /// Power fails: nothing is read, written or made durable any more.
    pub fn power_off(&mut self) {
        self.powered = false;
    }

    /// Power comes back. How much has survived is left to chance if it is not given.
    pub fn power_on(&mut self, mood: Option<Mood>) -> Left {
        self.powered = true;
        let mood = mood.unwrap_or_else(|| Mood::draw(&mut self.random));
        let mut left = Left::default();
        for node in self.nodes.values_mut() {
            let (sum, (kept, all)) = match node {
                Node::File(file) => (&mut left.sectors, file.cut(mood, &mut self.random)),
                Node::Directory(directory) => (&mut left.names, directory.cut(mood, &mut self.random)),
            };
            *sum = (sum.0 + kept, sum.1 + all);
        }
        left
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(disk: &Disk) -> Vec<String> {
        let Some(Node::Directory(root)) = disk.node(ROOT) else {
            unreachable!("the root is a directory")
        };
        root.names()
            .map(|(name, _)| name.to_string_lossy().into_owned())
            .collect()
    }

    #[test]
    fn names_survive_from_the_sync_of_their_directory_on() {
        let file = || Node::File(File::default());
        let mut disk = Disk::new(0);
        disk.add(ROOT, OsStr::new("a"), file());
        disk.add(ROOT, OsStr::new("b"), file());
        disk.sync(ROOT);
        let number = disk.add(ROOT, OsStr::new("c"), file()).unwrap();
        disk.sync(number);
        disk.rename(ROOT, OsStr::new("a"), OsStr::new("b"));
        disk.remove(ROOT, OsStr::new("b"));
        assert_eq!(names(&disk), ["c"]);
        disk.power_off();
        assert!(disk.sync(ROOT).is_none() && disk.find(ROOT, OsStr::new("c")).is_none());
        let left = disk.power_on(Some(Mood(0)));
        assert_eq!((names(&disk), left.names), (vec!["a".into(), "b".into()], (0, 3)));
    }
}
