//! One node alone: it answers, it stops in order, and nothing acknowledged is lost however it ends.

mod common;

use std::future::{Future, poll_fn};
use std::task::Poll;

use bytes::Bytes;
use common::*;
use quorate::*;

#[tokio::test]
async fn a_single_node_elects_itself_answers_and_keeps_its_state() {
    let dir = TempDir::new();
    let (node, running) = start(alone(dir.path()), Sum::open).await.unwrap();
    for n in 1..=100 {
        assert_eq!(within(node.propose(add(n))).await, Ok(n * (n + 1) / 2));
    }
    assert_eq!(sum(&node).await, Ok(5050));
    let status = node.status();
    assert_eq!(
        (status.leader, status.role, status.cluster),
        (Some(NodeId(1)), Role::Leader, CLUSTER)
    );
    assert!(
        status.commit.0 >= 101 && status.applied == status.commit,
        "{status:?}"
    );
    assert_eq!(within(node.confirm_leadership()).await, Ok(status.term));
    assert_eq!(node.metrics().proposals.get(), 100);
    assert_eq!(node.metrics().commit_latency.read().count, 100);
    assert!(node.metrics().fsync_duration.read().count >= 100);

    within(node.shutdown()).await;
    within(running).await.unwrap();
    assert_eq!(
        node.propose(add(1)).await,
        Err(ProposeError::NotDone(Reason::Stopped))
    );
    assert_eq!(node.read(|_| ()).await, Err(ReadError(Reason::Stopped)));
    assert_eq!(node.transfer(None).await, Err(TransferError::Stopped));

    let (node, _running) = start(alone(dir.path()), Sum::open).await.unwrap();
    assert_eq!(within(node.propose(add(1))).await, Ok(5051));
    let replayed = within(node.local(|machine| machine.commands)).await;
    assert_eq!(
        replayed,
        Ok(1),
        "shutdown made the machine durable, so nothing was replayed"
    );
    within(node.shutdown()).await;
}

#[test]
fn what_was_acknowledged_survives_without_any_goodbye() {
    let dir = TempDir::new();
    let abrupt = runtime();
    let node = abrupt.block_on(async {
        let (node, _running) = start(alone(dir.path()), Sum::open).await.unwrap();
        for n in 1..=50 {
            within(node.propose(add(n))).await.unwrap();
        }
        node
    });
    // All tasks end where they are: nothing is handed over, nothing flushed.
    drop(abrupt);
    assert!(
        !dir.path().join("sum").exists(),
        "the machine has never written anything"
    );
    drop(node);
    runtime().block_on(async {
        let (node, _running) = started_once_free(dir.path()).await;
        assert_eq!(sum(&node).await, Ok(1275));
        assert_eq!(
            within(node.local(|machine| machine.commands)).await,
            Ok(50),
            "replayed from the log"
        );
        within(node.shutdown()).await;
    });
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
}

/// The threads of a node that was dropped let go of the directory a moment later.
async fn started_once_free(dir: &std::path::Path) -> (Handle<Sum>, Running) {
    within(async {
        loop {
            match start(alone(dir), Sum::open).await {
                Err(StartError::Locked { .. }) => breathe().await,
                other => return other.unwrap(),
            }
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_callers_share_syncs_on_a_runtime_of_several_threads() {
    let dir = TempDir::new();
    let (node, running) = start(alone(dir.path()), Sum::open_eager).await.unwrap();
    let mut callers = tokio::task::JoinSet::new();
    for _ in 0..64 {
        let node = node.clone();
        callers.spawn(async move {
            for _ in 0..20 {
                node.propose(add(1)).await.unwrap();
                node.read(|machine| assert!(machine.sum > 0)).await.unwrap();
            }
        });
    }
    within(async {
        while let Some(ended) = callers.join_next().await {
            ended.unwrap();
        }
    })
    .await;
    assert_eq!(sum(&node).await, Ok(64 * 20));
    let (writes, batches) = (node.metrics().log_writes.get(), node.metrics().log_batches.get());
    assert!(writes <= batches, "a sync serves every batch that waits");
    assert!(writes < 64 * 20, "{writes} syncs for {} proposals", 64 * 20);
    within(node.shutdown()).await;
    within(running).await.unwrap();
}

#[tokio::test]
async fn too_large_a_command_is_refused_and_the_longest_allowed_is_not() {
    let dir = TempDir::new();
    let config = alone(dir.path());
    let max = config.max_proposal;
    let (node, _running) = start(config, Sum::open).await.unwrap();
    let long = |len: usize| {
        let mut command = vec![0; len];
        command[0] = 1;
        Bytes::from(command)
    };
    assert_eq!(
        within(node.propose(long(max + 1))).await,
        Err(ProposeError::NotDone(Reason::TooLarge))
    );
    assert_eq!(within(node.propose(long(max))).await, Ok(1));
    within(node.shutdown()).await;
}

#[tokio::test]
async fn asking_oneself_needs_no_link_and_no_server_is_a_refusal() {
    let dir = TempDir::new();
    let (node, _running) = start(alone(dir.path()), Sum::open).await.unwrap();
    let question = || Bytes::from_static(b"?");
    assert_eq!(
        within(node.ask(NodeId(1), question())).await,
        Err(AskError::Refused)
    );
    assert_eq!(
        within(node.ask(NodeId(9), question())).await,
        Err(AskError::NotMember)
    );
    let mut asks = node.serve_asks();
    let serve = async {
        let ask = asks.recv().await.unwrap();
        assert_eq!(ask.from, NodeId(1));
        ask.reply.send(Bytes::from_static(b"!")).unwrap();
    };
    let (answer, ()) = within(async { tokio::join!(node.ask(NodeId(1), question()), serve) }).await;
    assert_eq!(answer, Ok(Bytes::from_static(b"!")));
    within(node.shutdown()).await;
}

#[tokio::test]
async fn a_directory_is_used_by_one_node_of_one_member_only() {
    let dir = TempDir::new();
    let (node, running) = start(alone(dir.path()), Sum::open).await.unwrap();
    let locked = start(alone(dir.path()), Sum::open).await.unwrap_err();
    assert!(matches!(locked, StartError::Locked { .. }), "{locked}");
    assert!(
        locked.to_string().contains(&std::process::id().to_string()),
        "{locked}"
    );
    within(node.shutdown()).await;
    within(running).await.unwrap();

    let other = Config {
        cluster: 0xbad,
        ..alone(dir.path())
    };
    let error = start(other, Sum::open).await.unwrap_err();
    assert!(matches!(error, StartError::WrongCluster { .. }), "{error}");
    let mut other = alone(dir.path());
    other.id = NodeId(2);
    other.members = [(NodeId(2), "127.0.0.1:0".into())].into();
    let error = start(other, Sum::open).await.unwrap_err();
    assert!(matches!(error, StartError::WrongMember { .. }), "{error}");
}

#[tokio::test]
async fn a_log_that_vanished_is_a_loss_and_not_a_beginning() {
    let dir = TempDir::new();
    let (node, running) = start(alone(dir.path()), Sum::open).await.unwrap();
    within(node.propose(add(1))).await.unwrap();
    within(node.shutdown()).await;
    within(running).await.unwrap();
    for entry in std::fs::read_dir(dir.path()).unwrap() {
        let path = entry.unwrap().path();
        if path.file_name().unwrap().to_string_lossy().starts_with("wal-") {
            std::fs::remove_file(path).unwrap();
        }
    }
    let error = start(alone(dir.path()), Sum::open).await.unwrap_err();
    assert!(
        matches!(error, StartError::Log(quorate_wal::OpenError::Missing)),
        "{error}"
    );
}

#[tokio::test]
async fn a_proposal_given_up_by_its_caller_harms_nobody() {
    let dir = TempDir::new();
    let (node, _running) = start(alone(dir.path()), Sum::open).await.unwrap();
    // One poll hands the command over; the driver shares this thread, so it cannot have answered yet.
    let mut given_up = Box::pin(node.propose(add(1)));
    let handed_over = poll_fn(|cx| Poll::Ready(given_up.as_mut().poll(cx).is_pending())).await;
    assert!(handed_over, "nothing is answered without a turn of the driver");
    drop(given_up);
    assert!(within(node.propose(add(1))).await.is_ok());
    within(node.shutdown()).await;
}

#[tokio::test]
async fn a_machine_without_a_job_is_asked_again() {
    let dir = TempDir::new();
    let open = |disk| {
        let mut machine = Sum::open_eager(disk)?;
        machine.reluctance = 4;
        Ok(machine)
    };
    let (node, _running) = start(alone(dir.path()), open).await.unwrap();
    assert_eq!(within(node.propose(add(1))).await, Ok(1));
    // No batch comes after this one.
    until(|| node.status().durable == node.status().applied).await;
    within(node.shutdown()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_lazy_machine_is_hurried_when_the_log_grows_long() {
    let dir = TempDir::new();
    let (node, _running) = start(alone(dir.path()), Sum::open).await.unwrap();
    let mut callers = tokio::task::JoinSet::new();
    for _ in 0..512 {
        let node = node.clone();
        callers.spawn(async move {
            for _ in 0..200 {
                node.propose(add(1)).await.unwrap();
            }
        });
    }
    within(callers.join_all()).await;
    until(|| node.status().durable > Index::ZERO).await;
    assert!(dir.path().join("sum").exists());
    within(node.shutdown()).await;
}

#[tokio::test]
async fn nothing_is_applied_while_the_machine_has_a_backlog() {
    let dir = TempDir::new();
    let (release, hold) = std::sync::mpsc::channel();
    let open = |disk| {
        let mut machine = Sum::open_eager(disk)?;
        machine.hold = Some(hold);
        Ok(machine)
    };
    let (node, _running) = start(alone(dir.path()), open).await.unwrap();
    // The no-op of the first term is applied, and its job waits.
    until(|| node.status().applied == Index(1)).await;
    let held_back = node.propose(add(7));
    let commit = async {
        until(|| node.status().commit == Index(2)).await;
        assert_eq!(node.status().applied, Index(1), "committed, and not applied");
        assert_eq!(
            within(node.local(|machine| machine.commands)).await,
            Ok(0),
            "reads go on"
        );
        release.send(()).unwrap();
    };
    let (answer, ()) = within(async { tokio::join!(held_back, commit) }).await;
    assert_eq!(answer, Ok(7));
    within(node.shutdown()).await;
}
