//! The `identity` file: to whom a data directory belongs. Written once, at the first start, and compared at every later one, so
//! that a mistyped path never mixes two members' data.

use std::io;
use std::path::Path;

use quorate_base::{Disk, NodeId};
use serde::{Deserialize, Serialize};

use crate::error::StartError;

const NAME: &str = "identity";
const STAGING: &str = "identity.new";
const FORMAT: u32 = 1;

/// The file's content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Identity {
    format: u32,
    cluster: Hex,
    member: Hex,
    name: String,
    /// Names the log, see `quorate_wal::Options::identity`.
    log: Hex,
    /// Whether the log has been made. From then on a missing log is a loss, not a beginning.
    founded: bool,
}

/// A number written as 16 hexadecimal digits, since many JSON readers know no 64-bit integers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
    /// Reads the identity from `disk` and checks that it is this member's; makes it (with `log` as the log's name) if there is
    /// none. `dir` is for the errors.
    pub(crate) fn settle(
        disk: &dyn Disk,
        dir: &Path,
        cluster: u64,
        member: NodeId,
        name: &str,
        log: impl FnOnce() -> io::Result<u64>,
    ) -> Result<Identity, StartError> {
        let failed = |what: &str| StartError::io(format!("{what} {}", dir.join(NAME).display()));
        let found = match disk.open(NAME, false) {
            Ok(file) => {
                let len = file.len().map_err(failed("read"))?.min(1 << 16) as usize;
                let mut bytes = vec![0; len];
                file.read_at(0, &mut bytes).map_err(failed("read"))?;
                bytes
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let log = Hex(log().map_err(StartError::io("draw a random number"))?);
                let (cluster, member) = (Hex(cluster), Hex(member.0));
                let made = Identity {
                    format: FORMAT,
                    cluster,
                    member,
                    name: name.to_owned(),
                    log,
                    founded: false,
                };
                made.write(disk).map_err(failed("write"))?;
                return Ok(made);
            }
            Err(error) => return Err(failed("open")(error)),
        };
        let unreadable = |why: String| StartError::Identity {
            file: dir.join(NAME),
            why,
        };
        let found: Identity =
            serde_json::from_slice(&found).map_err(|error| unreadable(error.to_string()))?;
        if found.format != FORMAT {
            return Err(unreadable(format!(
                "format {}, this program reads format {FORMAT}",
                found.format
            )));
        }
        if found.cluster.0 != cluster {
            let (name, found) = (found.name, found.cluster.0);
            return Err(StartError::WrongCluster {
                dir: dir.to_owned(),
                name,
                found,
                expected: cluster,
            });
        }
        if found.member.0 != member.0 {
            return Err(StartError::WrongMember {
                dir: dir.to_owned(),
                found: NodeId(found.member.0),
                found_name: found.name,
                expected: member,
                expected_name: name.to_owned(),
            });
        }
        Ok(found)
    }

    /// The log's name.
    pub(crate) fn log(&self) -> u64 {
        self.log.0
    }

    /// Whether the log has been made.
    pub(crate) fn founded(&self) -> bool {
        self.founded
    }

    /// Notes that the log is there.
    pub(crate) fn found(&mut self, disk: &dyn Disk) -> io::Result<()> {
        if !self.founded {
            self.founded = true;
            self.write(disk)?;
        }
        Ok(())
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

    fn settle(disk: &DirDisk, cluster: u64, member: u64) -> Result<Identity, StartError> {
        Identity::settle(disk, disk.dir(), cluster, NodeId(member), "n1", || Ok(0xabc))
    }

    #[test]
    fn a_directory_stays_with_its_first_member() {
        let dir = TempDir::new();
        let disk = DirDisk::open(dir.path()).unwrap();
        let mut first = settle(&disk, 7, 1).unwrap();
        assert!(!first.founded());
        first.found(&disk).unwrap();
        let again = settle(&disk, 7, 1).unwrap();
        assert_eq!((again.log(), again.founded()), (0xabc, true));

        let cluster = settle(&disk, 8, 1).unwrap_err();
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
        let member = settle(&disk, 7, 2).unwrap_err();
        assert!(
            matches!(member, StartError::WrongMember { found: NodeId(1), .. }),
            "{member}"
        );
        assert!(member.to_string().contains("\"n1\""), "{member}");
    }

    #[test]
    fn an_unreadable_identity_is_never_replaced() {
        let dir = TempDir::new();
        let disk = DirDisk::open(dir.path()).unwrap();
        for text in [
            "",
            "{}",
            "not JSON",
            r#"{"format":2,"cluster":"7","member":"1","name":"","log":"0","founded":true}"#,
        ] {
            std::fs::write(dir.path().join("identity"), text).unwrap();
            let error = settle(&disk, 7, 1).unwrap_err();
            assert!(matches!(error, StartError::Identity { .. }), "{text:?}: {error}");
            assert_eq!(
                std::fs::read_to_string(dir.path().join("identity")).unwrap(),
                text
            );
        }
    }
}
