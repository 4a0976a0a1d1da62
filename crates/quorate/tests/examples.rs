//! The examples are run as they stand, each within a limit that only a hang reaches.

#[allow(dead_code, reason = "its main is not called")]
#[path = "../examples/counter.rs"]
mod counter;
#[allow(dead_code, reason = "its main is not called")]
#[path = "../examples/lock.rs"]
mod lock;

mod common;

use std::net::TcpListener;
use std::time::Duration;

use common::TempDir;

const LIMIT: Duration = Duration::from_secs(180);

/// The first of three ports in a row that were free a moment ago, from a range that the system gives to nobody by itself.
fn three_ports() -> u16 {
    let start = 20_000 + (std::process::id() % 3000) as u16 * 3;
    let mut candidates = (start..32_000).step_by(3);
    let free = |port: &u16| (*port..*port + 3).all(|port| TcpListener::bind(("127.0.0.1", port)).is_ok());
    candidates.find(free).expect("three free ports")
}

#[tokio::test]
async fn the_counter_counts_and_counts_on() {
    // Both times the same ports: they are a part of the membership, which is in the log.
    let (dir, port) = (TempDir::new(), three_ports());
    for expected in [10, 20] {
        let counted = tokio::time::timeout(LIMIT, counter::run(dir.path(), port));
        let sum = counted.await.expect("it ends").expect("it succeeds");
        assert_eq!(sum, expected);
    }
}

#[tokio::test]
async fn the_lock_keeps_writers_apart_and_its_token_keeps_the_sleeper_out() {
    let dir = TempDir::new();
    let ran = tokio::time::timeout(LIMIT, lock::run(dir.path()));
    let (written, refused) = ran.await.expect("it ends").expect("it succeeds");
    assert_eq!(written, 16, "fifteen writes by turns and one of Eve's");
    assert!(refused.contains("outdated"), "{refused}");
}
