//! What a node keeps on its disk stays bounded, however much is proposed, if its machine keeps its own state bounded.

mod common;

use bytes::Bytes;
use common::*;

/// Bytes of all log files in a directory.
fn log_bytes(dir: &TempDir) -> u64 {
    let files = std::fs::read_dir(dir.path()).unwrap().flatten();
    let logs = files.filter(|file| file.file_name().to_string_lossy().starts_with("wal-"));
    // Files come and go meanwhile.
    logs.filter_map(|file| Some(file.metadata().ok()?.len())).sum()
}

#[tokio::test]
async fn the_log_on_disk_is_dropped_behind_the_machine() {
    const MIB: u64 = 1 << 20;
    // The tail for slow followers (16 MiB and an eighth), parts of segments at both ends, the spare one, and one being removed.
    const BOUND: u64 = 84 * MIB;
    let dir = TempDir::new();
    let (node, running) = quorate::start(alone(dir.path()), Sum::open_eager).await.unwrap();
    let mut command = add(1).to_vec();
    command.resize(MIB as usize, 0);
    let command = Bytes::from(command);
    for n in 1..=120 {
        assert_eq!(within(node.propose(command.clone())).await, Ok(n));
        // What the machine has made durable goes a moment later.
        until(|| log_bytes(&dir) <= BOUND).await;
    }
    within(node.shutdown()).await;
    within(running).await.unwrap();

    let (node, running) = quorate::start(alone(dir.path()), Sum::open_eager).await.unwrap();
    assert_eq!(sum(&node).await, Ok(120));
    assert!(log_bytes(&dir) <= BOUND);
    within(node.shutdown()).await;
    within(running).await.unwrap();
}
