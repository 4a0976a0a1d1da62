//! Member and cluster ids, computed from what every member's operator writes down alike: the peer URLs and the
//! cluster's token. Nothing here knows where the ids are used.
//!
//! The rule is etcd's own (64 leading bits of a SHA-1), so a cluster moved over from etcd keeps its ids, and a script
//! that knows `8e9e05c52164694d` finds it again.

use std::time::{SystemTime, UNIX_EPOCH};

use quorate_base::NodeId;
use sha1::{Digest, Sha1};

/// The id of the member with these peer URLs in the cluster of this token. The order of the URLs does not matter.
pub fn member_id(peer_urls: &[String], token: &str) -> NodeId {
    let hash = of_urls(peer_urls).chain_update(token.as_bytes());
    NodeId(leading_64_bits(hash))
}

/// The id of a member that is added at this moment: ids of removed members are never used again, so one that comes back to its old URLs needs
/// another.
pub fn added_member_id(peer_urls: &[String], at: SystemTime) -> NodeId {
    // Nanoseconds where etcd takes seconds: two members may be added at one address within a second, one after the other.
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    let hash = of_urls(peer_urls).chain_update(since.as_nanos().to_string());
    NodeId(leading_64_bits(hash))
}

/// The id of the cluster of these members, in any order.
pub fn cluster_id(members: impl IntoIterator<Item = NodeId>) -> u64 {
    let mut sorted: Vec<NodeId> = members.into_iter().collect();
    sorted.sort();
    let mut hash = Sha1::new();
    for id in sorted {
        hash.update(id.get().to_be_bytes());
    }
    leading_64_bits(hash)
}

fn of_urls(peer_urls: &[String]) -> Sha1 {
    let mut sorted = peer_urls.to_vec();
    sorted.sort();
    let mut hash = Sha1::new();
    for url in &sorted {
        hash.update(url.as_bytes());
    }
    hash
}

fn leading_64_bits(hash: Sha1) -> u64 {
    let digest = hash.finalize();
    let mut first = [0; 8];
    first.copy_from_slice(&digest[..8]);
    u64::from_be_bytes(first)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_ids_of_a_default_etcd() {
        let member = member_id(&["http://localhost:2380".to_owned()], "etcd-cluster");
        assert_eq!(format!("{:x}", member.get()), "8e9e05c52164694d");
        assert_eq!(format!("{:x}", cluster_id([member])), "cdf818194e3a8c32");
    }

    #[test]
    fn order_does_not_matter_and_the_token_does() {
        let (a, b) = ("http://a:1".to_owned(), "http://b:1".to_owned());
        assert_eq!(
            member_id(&[a.clone(), b.clone()], "t"),
            member_id(&[b.clone(), a.clone()], "t")
        );
        assert_ne!(
            member_id(std::slice::from_ref(&a), "t"),
            member_id(std::slice::from_ref(&a), "u")
        );
        let (a, b) = (member_id(&[a], "t"), member_id(&[b], "t"));
        assert_eq!(cluster_id([a, b]), cluster_id([b, a]));
    }

    #[test]
    fn a_member_that_comes_back_has_another_id() {
        let urls = ["http://a:1".to_owned()];
        let (now, later) = (UNIX_EPOCH, UNIX_EPOCH + Duration::from_nanos(1));
        assert_ne!(added_member_id(&urls, now), added_member_id(&urls, later));
        assert_eq!(added_member_id(&urls, now), added_member_id(&urls, now));
    }
}
