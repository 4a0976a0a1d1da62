//! The `identity` file: to whom a data directory belongs, and which of its lives this is. Made at the first start and compared at every later
//! one, so that a mistyped path never mixes two members' data. From the second start on it decides who the node is: lists of members on a
//! command line go out of date as the membership changes.
//!
//! Each start is counted and gets a number drawn at random (a *nonce*), durably, before anything is sent; these stand in the file
//! [`boots`](crate::boots). With the incarnation, drawn when the directory is founded, that is how peers know the directory again, or notice
//! that it is a copy, see `quorate_node::roster`.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use quorate_base::{Disk, LogId, NodeId};
use serde::{Deserialize, Serialize};

use crate::boots::{self, Boots};
use crate::error::StartError;
use crate::refused;

const NAME: &str = "identity";
const STAGING: &str = "identity.new";
/// Format 1 had neither incarnation nor boots. It is read, and replaced at the next write.
const FORMATS: [u32; 2] = [1, 2];

/// Draws a random number.
pub(crate) type Draw<'a> = &'a mut dyn FnMut() -> io::Result<u64>;

/// Who a node is started as.
#[derive(Clone, Debug)]
pub(crate) struct Claim<'a> {
    /// The cluster, as computed from what the operator says.
    pub cluster: u64,
    /// The member, likewise.
    pub member: NodeId,
    /// Its name.
    pub name: &'a str,
    /// The text that the cluster was told from others by when it was founded. With it, name and token decide whether the directory is
    /// meant, and the computed ids do not matter any more.
    pub token: Option<&'a str>,
    /// A new directory is to join a running cluster.
    pub joins: bool,
}

/// The file's content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Identity {
    format: u32,
    cluster: Hex,
    member: Hex,
    name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    token: Option<String>,
    /// Names the log, see `quorate_wal::Options::identity`.
    log: Hex,
    /// Whether this is the directory of a member that was added to a running cluster, and so founded nothing.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    joins: bool,
    /// Whether the log has been made. From then on a missing log is a loss, not a beginning.
    founded: bool,
    #[serde(default)]
    incarnation: Hex,
    /// Who may know the way: the members when this one was founded or joined, with their addresses. Needed until the log knows better.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    members: BTreeMap<Hex, Vec<String>>,
    /// The entry that begins this cluster, if it was recovered out of what was left of another; see `recover`. From when it stands here that is
    /// decided, and whoever opens the log sees that it is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    recovered: Option<First>,
    /// Kept apart, since it changes at every start.
    #[serde(skip)]
    boots: Boots,
}

/// The first entry of a recovered cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct First {
    term: u64,
    index: u64,
}

/// A number written as 16 hexadecimal digits, since many JSON readers know no 64-bit integers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
struct Hex(u64);

impl From<Hex> for String {
    fn from(hex: Hex) -> String {
        format!("{:016x}", hex.0)
    }
}

impl TryFrom<String> for Hex {
    type Error = String;

    fn try_from(text: String) -> Result<Hex, String> {
        u64::from_str_radix(&text, 16)
            .map(Hex)
            .map_err(|_| format!("{text:?} is not a hexadecimal number"))
    }
}

impl Identity {
    /// Reads the identity from `disk`, if there is one. `dir` is for the errors.
    pub(crate) fn read(disk: &dyn Disk, dir: &Path) -> Result<Option<Identity>, StartError> {
        let failed = |what: &str| StartError::io(format!("{what} {}", dir.join(NAME).display()));
        let file = match disk.open(NAME, false) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed("open")(error)),
        };
        let len = file.len().map_err(failed("read"))?.min(1 << 20) as usize;
        let mut bytes = vec![0; len];
        file.read_at(0, &mut bytes).map_err(failed("read"))?;
        let unreadable = |why: String| StartError::Identity {
            file: dir.join(NAME),
            why,
        };
        let found: Identity =
            serde_json::from_slice(&bytes).map_err(|error| unreadable(error.to_string()))?;
        if !FORMATS.contains(&found.format) {
            return Err(unreadable(format!(
                "format {}, this program reads formats {} and {}",
                found.format, FORMATS[0], FORMATS[1]
            )));
        }
        if found.format == FORMATS[0] {
            return Ok(Some(found));
        }
        if found.incarnation.0 == 0 {
            return Err(unreadable("it has no incarnation".into()));
        }
        let boots = Boots::load(disk, found.incarnation.0).map_err(|error| StartError::Identity {
            file: dir.join(boots::NAME),
            why: error.to_string(),
        })?;
        Ok(Some(Identity { boots, ..found }))
    }

    /// The identity of a directory without one.
    pub(crate) fn new(claim: &Claim<'_>, draw: Draw<'_>) -> io::Result<Identity> {
        Ok(Identity {
            format: FORMATS[1],
            cluster: Hex(claim.cluster),
            member: Hex(claim.member.0),
            name: claim.name.to_owned(),
            token: claim.token.map(str::to_owned),
            log: Hex(draw()?),
            joins: claim.joins,
            founded: false,
            incarnation: Hex(draw()?),
            members: BTreeMap::new(),
            recovered: None,
            boots: Boots::default(),
        })
    }

    /// Reads the identity from `disk` and checks that it is the one claimed; makes one if there is none, and completes one of the first
    /// format.
    pub(crate) fn settle(
        disk: &dyn Disk,
        dir: &Path,
        claim: &Claim<'_>,
        draw: Draw<'_>,
    ) -> Result<Identity, StartError> {
        let random = || StartError::io("draw a random number");
        let before = Identity::read(disk, dir)?;
        let mut after = match before.clone() {
            None => Identity::new(claim, draw).map_err(random())?,
            Some(mut found) => {
                found.check(dir, claim)?;
                refused::check(disk, dir, found.incarnation.0)?;
                if found.incarnation.0 == 0 {
                    found.incarnation = Hex(draw().map_err(random())?);
                }
                found.format = FORMATS[1];
                found.token = found.token.or_else(|| claim.token.map(str::to_owned));
                found
            }
        };
        let cannot = |name: &str| StartError::io(format!("write {}", dir.join(name).display()));
        if before.as_ref().is_none_or(|before| before.format == FORMATS[0]) {
            // First, for from then on an identity without it is damaged.
            after.boots = Boots::make(disk, after.incarnation.0).map_err(cannot(boots::NAME))?;
        }
        if before.as_ref() != Some(&after) {
            after.write(disk).map_err(cannot(NAME))?;
        }
        Ok(after)
    }

    /// Whether this is what was claimed.
    fn check(&self, dir: &Path, claim: &Claim<'_>) -> Result<(), StartError> {
        let wrong_member = || StartError::WrongMember {
            dir: dir.to_owned(),
            found: self.member(),
            found_name: self.name.clone(),
            expected: claim.member,
            expected_name: claim.name.to_owned(),
        };
        // Nobody can compute the id of a recovered cluster.
        let found = self.token.as_deref();
        let found = found.or_else(|| self.recovered.and(claim.token));
        if let (Some(found), Some(expected)) = (found, claim.token) {
            if found != expected {
                return Err(StartError::WrongToken {
                    dir: dir.to_owned(),
                    name: self.name.clone(),
                    found: found.to_owned(),
                    expected: expected.to_owned(),
                });
            }
            return match self.name == claim.name {
                true => Ok(()),
                false => Err(wrong_member()),
            };
        }
        if self.cluster.0 != claim.cluster {
            return Err(StartError::WrongCluster {
                dir: dir.to_owned(),
                name: self.name.clone(),
                found: self.cluster.0,
                expected: claim.cluster,
            });
        }
        if self.member() != claim.member {
            return Err(wrong_member());
        }
        Ok(())
    }

    /// The cluster.
    pub(crate) fn cluster(&self) -> u64 {
        self.cluster.0
    }

    /// The member.
    pub(crate) fn member(&self) -> NodeId {
        NodeId(self.member.0)
    }

    /// Its name.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// The text that tells the cluster from others, if it was founded with one.
    pub(crate) fn token(&self) -> Option<&str> {
        self.token.as_deref()
    }

    /// The log's name.
    pub(crate) fn log(&self) -> u64 {
        self.log.0
    }

    /// Whether the log has been made.
    pub(crate) fn founded(&self) -> bool {
        self.founded
    }

    /// Whether it was made to join a running cluster. An empty log is then one that has heard of no leader yet.
    pub(crate) fn joins(&self) -> bool {
        self.joins
    }

    /// Drawn when the directory was founded.
    pub(crate) fn incarnation(&self) -> u64 {
        self.incarnation.0
    }

    /// Which start this is, after [`begin`](Identity::begin).
    pub(crate) fn boot(&self) -> u64 {
        self.boots.boot()
    }

    /// The nonces of the last starts, oldest first; the last is that of this start, after [`begin`](Identity::begin).
    pub(crate) fn nonces(&self) -> &[u64] {
        self.boots.nonces()
    }

    /// The members known when this one was founded or joined, with `host:port` of their peer listeners.
    pub(crate) fn members(&self) -> BTreeMap<NodeId, Vec<String>> {
        let members = self.members.iter();
        members
            .map(|(id, addresses)| (NodeId(id.0), addresses.clone()))
            .collect()
    }

    /// Replaces [`members`](Identity::members); durable with the next write.
    pub(crate) fn set_members(&mut self, members: &BTreeMap<NodeId, Vec<String>>) {
        let members = members.iter();
        self.members = members
            .map(|(id, addresses)| (Hex(id.0), addresses.clone()))
            .collect();
    }

    /// Counts a start, durably. Nothing may be sent before; starts that fail earlier than this do not count.
    pub(crate) fn begin(&mut self, disk: &dyn Disk, nonce: u64) -> io::Result<()> {
        self.boots.begin(disk, nonce)
    }

    /// Notes that the log is there.
    pub(crate) fn found(&mut self, disk: &dyn Disk) -> io::Result<()> {
        if !self.founded {
            self.founded = true;
            self.write(disk)?;
        }
        Ok(())
    }

    /// The entry that begins this cluster, if it was recovered out of what was left of another.
    pub(crate) fn recovered(&self) -> Option<LogId> {
        self.recovered.map(|first| LogId::new(first.term, first.index))
    }

    /// Makes this the directory of a new cluster's first member, durably: the cluster begins with the entry `first`. It keeps id, name and token; to
    /// the members of the old cluster it is a stranger from now on.
    pub(crate) fn replace_cluster(
        &mut self,
        disk: &dyn Disk,
        cluster: u64,
        first: LogId,
        draw: Draw<'_>,
    ) -> io::Result<()> {
        self.format = FORMATS[1];
        self.cluster = Hex(cluster);
        (self.joins, self.founded) = (false, true);
        let (term, index) = (first.term.0, first.index.0);
        self.recovered = Some(First { term, index });
        self.incarnation = Hex(draw()?);
        self.members.clear();
        // Starts of the old incarnation do not count for the new one.
        self.boots = match Boots::load(disk, self.incarnation.0) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Boots::make(disk, self.incarnation.0)?,
            loaded => loaded?,
        };
        self.write(disk)
    }

    fn write(&self, disk: &dyn Disk) -> io::Result<()> {
        let mut text = serde_json::to_vec_pretty(self)?;
        text.push(b'\n');
        let file = disk.open(STAGING, true)?;
        file.set_len(0)?;
        file.write_at(0, &text)?;
        file.sync()?;
        disk.rename(STAGING, NAME)?;
        disk.sync_dir()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::DirDisk;
    use crate::testing::TempDir;

    fn disk() -> (TempDir, DirDisk) {
        let dir = TempDir::new();
        let disk = DirDisk::open(dir.path()).unwrap();
        (dir, disk)
    }

    /// Starts as this, with numbers that count up.
    fn start(disk: &DirDisk, claim: &Claim<'_>) -> Result<Identity, StartError> {
        let mut next = 0xabc;
        let mut draw = || {
            next += 1;
            Ok(next)
        };
        let mut identity = Identity::settle(disk, disk.dir(), claim, &mut draw)?;
        let nonce = 100 + identity.boot();
        identity.begin(disk, nonce).unwrap();
        Ok(identity)
    }

    fn claim(cluster: u64, member: u64) -> Claim<'static> {
        Claim {
            cluster,
            member: NodeId(member),
            name: "n1",
            token: None,
            joins: false,
        }
    }

    fn with_token(token: &'static str, name: &'static str) -> Claim<'static> {
        Claim {
            name,
            token: Some(token),
            ..claim(0xdead, 0xbeef)
        }
    }

    #[test]
    fn a_directory_stays_with_its_first_member() {
        let (_dir, disk) = disk();
        let mut first = start(&disk, &claim(7, 1)).unwrap();
        assert!(!first.founded());
        first.found(&disk).unwrap();
        let again = start(&disk, &claim(7, 1)).unwrap();
        assert!(again.founded());
        assert_eq!((again.boot(), again.nonces()), (2, &[100, 101][..]));
        assert_eq!(
            (again.log(), again.incarnation()),
            (first.log(), first.incarnation())
        );

        let cluster = start(&disk, &claim(8, 1)).unwrap_err();
        assert!(
            matches!(
                cluster,
                StartError::WrongCluster {
                    found: 7,
                    expected: 8,
                    ..
                }
            ),
            "{cluster}"
        );
        assert!(
            cluster.to_string().contains("another data directory"),
            "{cluster}"
        );
        let member = start(&disk, &claim(7, 2)).unwrap_err();
        assert!(
            matches!(member, StartError::WrongMember { found: NodeId(1), .. }),
            "{member}"
        );
        assert!(member.to_string().contains("\"n1\""), "{member}");
    }

    #[test]
    fn with_a_token_the_directory_knows_better_than_lists_of_members() {
        let (_dir, disk) = disk();
        let first = Claim {
            token: Some("blue"),
            ..claim(7, 1)
        };
        let mut identity = start(&disk, &first).unwrap();
        identity.set_members(&[(NodeId(2), vec!["two:1".to_owned()])].into());
        identity.found(&disk).unwrap();
        let again = start(&disk, &with_token("blue", "n1")).unwrap();
        assert_eq!((again.cluster(), again.member()), (7, NodeId(1)));
        assert_eq!(again.members(), identity.members());
        let token = start(&disk, &with_token("green", "n1")).unwrap_err();
        assert!(token.to_string().contains("\"blue\""), "{token}");
        let name = start(&disk, &with_token("blue", "n2")).unwrap_err();
        assert!(matches!(name, StartError::WrongMember { .. }), "{name}");
        assert!(
            start(&disk, &claim(8, 1)).is_err(),
            "without a token the ids count"
        );
    }

    #[test]
    fn the_first_format_is_read_and_completed() {
        let (dir, disk) = disk();
        let old = r#"{"format":1,"cluster":"7","member":"1","name":"n1","log":"5","founded":true}"#;
        std::fs::write(dir.path().join(NAME), old).unwrap();
        assert!(
            start(&disk, &with_token("blue", "n1")).is_err(),
            "without a recorded token the ids count"
        );
        let claimed = Claim {
            token: Some("blue"),
            ..claim(7, 1)
        };
        let identity = start(&disk, &claimed).unwrap();
        assert_eq!(
            (identity.log(), identity.boot(), identity.founded()),
            (5, 1, true)
        );
        assert_ne!(identity.incarnation(), 0);
        let again = start(&disk, &with_token("blue", "n1")).unwrap();
        assert_eq!((again.incarnation(), again.boot()), (identity.incarnation(), 2));
    }

    #[test]
    fn a_new_cluster_out_of_an_old_one_is_a_stranger_to_it() {
        let (_dir, disk) = disk();
        let old = start(&disk, &claim(7, 1)).unwrap();
        let mut new = old.clone();
        let first = LogId::new(3, 9);
        new.replace_cluster(&disk, 8, first, &mut || Ok(0x77)).unwrap();
        assert!(start(&disk, &claim(7, 1)).is_err(), "no longer of that cluster");
        assert!(
            start(&disk, &with_token("blue", "n2")).is_err(),
            "nor another member"
        );
        let started = start(&disk, &with_token("blue", "n1")).unwrap();
        assert_eq!(started.recovered(), Some(first));
        assert_eq!((started.cluster(), started.member()), (8, NodeId(1)));
        assert_eq!((started.boot(), started.incarnation()), (1, 0x77));
        assert_eq!(started.log(), old.log(), "the log is the same");
    }

    #[test]
    fn an_unreadable_identity_is_never_replaced() {
        let (dir, disk) = disk();
        for text in [
            "",
            "{}",
            "not JSON",
            r#"{"format":3,"cluster":"7","member":"1","name":"","log":"0","founded":true}"#,
            r#"{"format":2,"cluster":"7","member":"1","name":"","log":"0","founded":true}"#,
        ] {
            std::fs::write(dir.path().join(NAME), text).unwrap();
            let error = start(&disk, &claim(7, 1)).unwrap_err();
            assert!(matches!(error, StartError::Identity { .. }), "{text:?}: {error}");
            assert_eq!(std::fs::read_to_string(dir.path().join(NAME)).unwrap(), text);
        }
    }
}
