//! The example is run as it stands, within a limit that only a hang reaches.

#[allow(dead_code, reason = "its main is not called")]
#[path = "../examples/channels.rs"]
mod channels;

use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

#[test]
fn three_threads_agree_on_ten_commands() {
    let (done, ran) = channel();
    thread::spawn(move || done.send(channels::run()));
    let applied = ran.recv_timeout(Duration::from_secs(180)).expect("it ends");
    // Where a leader goes away the client proposes again, so a command may be there more than once.
    let mut first: Vec<String> = applied[0].clone();
    first.sort();
    first.dedup();
    let mut expected: Vec<String> = (1..=10).map(|n| format!("command {n}")).collect();
    expected.sort();
    assert_eq!(first, expected);
    assert!(applied.iter().all(|one| *one == applied[0]), "{applied:?}");
}
