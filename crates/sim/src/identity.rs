//! Who a simulated machine is: the file that tells (cluster, incarnation, count of starts, their random numbers), as the production
//! runtime keeps one, and the greeting made of it. The rules of the handshake and the roster of what peers have shown are the
//! node's own code.

use std::io;

use bytes::Bytes;
use quorate_base::{Disk, Index, NodeId, Term};
use quorate_node::handshake::{Hello, MAX_NONCES, Papers, protocol_of};

/// The identity file, and the next version of it before it takes the name.
const FILE: &str = "identity";
const NEXT: &str = "identity.new";

/// What the identity file holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The cluster.
    pub cluster: u64,
    /// Drawn when the disk was first used.
    pub incarnation: u64,
    /// Which start this is.
    pub boot: u64,
    /// A random number for each of the last starts.
    pub nonces: Vec<u64>,
    /// The term that was durable at this start, and the last index; not in the file.
    pub start: (Term, Index),
}

impl Identity {
    /// Counts a start, durably; on an empty disk this is the first one of a new incarnation. Nothing may be sent before it returns.
    pub fn begin(disk: &dyn Disk, cluster: u64, nonce: u64) -> io::Result<Identity> {
        let mut identity = Identity::load(disk)?.unwrap_or(Identity {
            cluster,
            incarnation: nonce,
            boot: 0,
            nonces: Vec::new(),
            start: (Term::ZERO, Index::ZERO),
        });
        identity.boot += 1;
        identity.nonces.push(nonce);
        let surplus = identity.nonces.len().saturating_sub(MAX_NONCES);
        identity.nonces.drain(..surplus);
        identity.save(disk)?;
        Ok(identity)
    }

    fn load(disk: &dyn Disk) -> io::Result<Option<Identity>> {
        let file = match disk.open(FILE, false) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut bytes = vec![0; file.len()? as usize];
        file.read_at(0, &mut bytes)?;
        let words = bytes.chunks_exact(8).map(|word| {
            let word = word.try_into().expect("chunks of eight");
            u64::from_le_bytes(word)
        });
        let words: Vec<u64> = words.collect();
        let [cluster, incarnation, boot, nonces @ ..] = &words[..] else {
            return Err(io::Error::other("the identity is cut short"));
        };
        Ok(Some(Identity {
            cluster: *cluster,
            incarnation: *incarnation,
            boot: *boot,
            nonces: nonces.to_vec(),
            start: (Term::ZERO, Index::ZERO),
        }))
    }

    fn save(&self, disk: &dyn Disk) -> io::Result<()> {
        let mut bytes = Vec::new();
        for word in [self.cluster, self.incarnation, self.boot]
            .iter()
            .chain(&self.nonces)
        {
            bytes.extend_from_slice(&word.to_le_bytes());
        }
        let file = disk.open(NEXT, true)?;
        file.set_len(0)?;
        file.write_at(0, &bytes)?;
        file.sync()?;
        disk.rename(NEXT, FILE)?;
        disk.sync_dir()
    }

    /// What is said to `to`, as far as the wire lets it through.
    pub fn greeting(&self, from: NodeId, to: NodeId, features: u32, leases: Option<u32>) -> Hello {
        let hello = Hello {
            protocol: protocol_of(features),
            features,
            cluster: self.cluster,
            from,
            to,
            boot: self.boot,
            lane: 0,
            papers: Some(Papers {
                incarnation: self.incarnation,
                nonces: self.nonces.clone(),
                term: self.start.0,
                last: self.start.1,
                leases,
                addresses: vec![address(from)],
            }),
        };
        if hello.protocol == 1 {
            return hello.without_papers();
        }
        hello
    }
}

/// Where a member listens.
pub fn address(id: NodeId) -> String {
    format!("n{id}:1")
}

/// A greeting as it arrives: through its bytes.
pub fn over_the_wire(hello: &Hello) -> Hello {
    let bytes: Bytes = hello.encode();
    Hello::decode(bytes).expect("what this program says it understands")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::SimDisk;
    use crate::rng::Rng;

    #[test]
    fn starts_are_counted_and_their_numbers_kept() {
        let disk = SimDisk::new(Rng::new(1));
        let mut last = 0;
        for start in 1..=40 {
            let identity = Identity::begin(&*disk.mount(), 7, 100 + start).unwrap();
            assert_eq!((identity.incarnation, identity.boot), (101, start));
            assert_eq!(identity.nonces.len() as u64, start.min(32));
            assert!(*identity.nonces.last().unwrap() > last);
            last = *identity.nonces.last().unwrap();
            disk.crash();
        }
    }
}
