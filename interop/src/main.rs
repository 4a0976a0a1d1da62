//! Checks an etcd-compatible cluster with the crate `etcd-client`: one check a function, each on keys of its own, each through
//! the endpoints given. Says how many passed, and fails if one did not.
//!
//! Usage: `quorate-interop http://127.0.0.1:2379 …`. Knows nothing of what it talks to: it must pass against a real etcd too.
//! `quorate-interop puts CLIENTS TOTAL http://127.0.0.1:2379 …` is a load instead: see [`puts`]. So is
//! `quorate-interop load HISTORY http://127.0.0.1:2379 …` ([`load`]), whose history `quorate-interop verify HISTORY …` checks
//! ([`verify`]); `quorate-interop status http://127.0.0.1:2379 …` says who leads, and `quorate-interop move-leader ID
//! http://127.0.0.1:2379 …` who shall. `quorate-interop forgetful-disk DIRECTORY` mounts a
//! file system that forgets what was not synced ([`forgetful`]).

#[cfg(target_os = "linux")]
mod forgetful;
mod history;
mod load;
mod options;
mod puts;
mod random;
mod status;
mod verify;

use std::time::Duration;

use etcd_client::{
    Client, Compare, CompareOp, ConnectOptions, DeleteOptions, EventType, GetOptions, LeaseGrantOptions,
    LeaseTimeToLiveOptions, MemberAddOptions, PutOptions, SortOrder, SortTarget, Txn, TxnOp, WatchOptions,
};

type Result<T = ()> = std::result::Result<T, Box<dyn std::error::Error>>;

/// Fails the check that it stands in, with both values.
macro_rules! same {
    ($left:expr, $right:expr) => {
        match (&$left, &$right) {
            (left, right) if left == right => {}
            (left, right) => return Err(format!("line {}: {left:?} is not {right:?}", line!()).into()),
        }
    };
}

/// Runs the named checks and counts.
macro_rules! run {
    ($client:expr, $count:expr, [$($check:ident),* $(,)?]) => {
        $(
            let outcome = tokio::time::timeout(Duration::from_secs(30), $check($client)).await;
            match outcome {
                Ok(Ok(())) => $count.0 += 1,
                Ok(Err(error)) => {
                    $count.1 += 1;
                    println!("FAILED {}: {error}", stringify!($check));
                }
                Err(_) => {
                    $count.1 += 1;
                    println!("FAILED {}: no end after 30 s", stringify!($check));
                }
            }
        )*
    };
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let endpoints: Vec<String> = std::env::args().skip(1).collect();
    if endpoints.is_empty() {
        eprintln!(
            "usage: quorate-interop [puts CLIENTS TOTAL | load HISTORY | verify HISTORY | status | move-leader ID] ENDPOINT…"
        );
        std::process::exit(2);
    }
    if let Some(outcome) = run_command(&endpoints).await {
        if let Err(error) = outcome {
            eprintln!("{error}");
            std::process::exit(1);
        }
        return;
    }
    let mut count = (0, 0);
    for endpoint in &endpoints {
        let options = ConnectOptions::new().with_connect_timeout(Duration::from_secs(5));
        let client = match Client::connect([endpoint], Some(options)).await {
            Ok(client) => client,
            Err(error) => {
                println!("FAILED to connect to {endpoint}: {error}");
                count.1 += 1;
                continue;
            }
        };
        let client = &mut client.clone();
        if let Err(error) = client
            .delete("i/", Some(DeleteOptions::new().with_prefix()))
            .await
        {
            println!("FAILED to clear the keys at {endpoint}: {error}");
            count.1 += 1;
        }
        run!(
            client,
            count,
            [
                put_and_get,
                ranges,
                sorting_and_limits,
                deletes,
                transactions,
                nested_transactions,
                old_revisions,
                errors,
                watch_from_a_revision,
                watch_lives,
                leases,
                status_and_members,
                members_change,
            ]
        );
    }
    println!("{} passed, {} failed", count.0, count.1);
    std::process::exit(if count.1 == 0 { 0 } else { 1 });
}

/// The outcome of a subcommand; `None` if the first argument names none.
async fn run_command(args: &[String]) -> Option<Result> {
    let (command, rest) = args.split_first()?;
    match command.as_str() {
        "puts" => Some(run_puts(rest).await),
        "load" | "verify" => Some(run_on_history(command, rest).await),
        #[cfg(target_os = "linux")]
        "forgetful-disk" => Some(forgetful::run(rest)),
        "status" => {
            status::run(rest).await;
            Some(Ok(()))
        }
        "move-leader" => Some(run_move_leader(rest).await),
        _ => None,
    }
}

async fn run_move_leader(args: &[String]) -> Result {
    match args {
        [to, endpoints @ ..] if !endpoints.is_empty() => status::move_leader(to.parse()?, endpoints).await,
        _ => Err("move-leader needs ID ENDPOINT…".into()),
    }
}

async fn run_puts(args: &[String]) -> Result {
    match args {
        [clients, total, endpoints @ ..] if !endpoints.is_empty() => {
            puts::run(clients.parse()?, total.parse()?, endpoints).await
        }
        _ => Err("puts needs CLIENTS TOTAL ENDPOINT…".into()),
    }
}

async fn run_on_history(command: &str, args: &[String]) -> Result {
    let Some((history, rest)) = args.split_first() else {
        return Err(format!("{command} needs HISTORY ENDPOINT…").into());
    };
    let options = options::Options::parse(rest)?;
    if command == "load" {
        return load::run(&options, history).await;
    }
    if let Err(violation) = verify::run(&options, history).await? {
        eprintln!("{violation}");
        std::process::exit(verify::WRONG);
    }
    Ok(())
}

/// The message of the server's refusal.
fn refusal<T>(answer: std::result::Result<T, etcd_client::Error>) -> Result<String> {
    match answer {
        Ok(_) => Err("was accepted".into()),
        Err(etcd_client::Error::GRpcStatus(status)) => {
            Ok(format!("{:?}: {}", status.code(), status.message()))
        }
        Err(other) => Err(other.into()),
    }
}

fn revision(header: Option<&etcd_client::ResponseHeader>) -> Result<i64> {
    Ok(header.ok_or("an answer without header")?.revision())
}

async fn put_and_get(client: &mut Client) -> Result {
    let first = revision(client.put("i/a", "1", None).await?.header())?;
    let answer = client
        .put("i/a", "2", Some(PutOptions::new().with_prev_key()))
        .await?;
    same!(answer.prev_key().ok_or("no previous pair")?.value(), b"1");
    same!(revision(answer.header())?, first + 1);
    let answer = client.get("i/a", None).await?;
    let pair = &answer.kvs()[0];
    same!(pair.value(), b"2");
    same!(
        (pair.create_revision(), pair.mod_revision(), pair.version()),
        (first, first + 1, 2)
    );
    let answer = client
        .put("i/a", "", Some(PutOptions::new().with_ignore_value()))
        .await?;
    same!(revision(answer.header())?, first + 2);
    same!(client.get("i/a", None).await?.kvs()[0].value(), b"2");
    same!(client.get("i/absent", None).await?.count(), 0);
    let bytes: Vec<u8> = (0..=255).collect();
    client.put("i/bytes", bytes.clone(), None).await?;
    same!(client.get("i/bytes", None).await?.kvs()[0].value(), bytes);
    Ok(())
}

async fn fill(client: &mut Client, prefix: &str, count: usize) -> Result<i64> {
    let mut last = 0;
    for n in 0..count {
        let answer = client
            .put(format!("{prefix}{n}"), format!("{}", 9 - n), None)
            .await?;
        last = revision(answer.header())?;
    }
    Ok(last)
}

fn keys(answer: &etcd_client::GetResponse) -> Vec<String> {
    answer
        .kvs()
        .iter()
        .map(|pair| String::from_utf8_lossy(pair.key()).into_owned())
        .collect()
}

async fn ranges(client: &mut Client) -> Result {
    fill(client, "i/r/", 5).await?;
    let answer = client.get("i/r/", Some(GetOptions::new().with_prefix())).await?;
    same!((answer.count(), answer.kvs().len(), answer.more()), (5, 5, false));
    let answer = client
        .get("i/r/1", Some(GetOptions::new().with_range("i/r/3")))
        .await?;
    same!(keys(&answer), ["i/r/1", "i/r/2"]);
    let answer = client
        .get("i/r/", Some(GetOptions::new().with_prefix().with_keys_only()))
        .await?;
    same!(answer.kvs().iter().all(|pair| pair.value().is_empty()), true);
    let answer = client
        .get("i/r/", Some(GetOptions::new().with_prefix().with_count_only()))
        .await?;
    same!((answer.count(), answer.kvs().len()), (5, 0));
    let answer = client
        .get("i/r/4", Some(GetOptions::new().with_from_key()))
        .await?;
    same!(keys(&answer)[0], "i/r/4");
    let answer = client
        .get("i/r/2", Some(GetOptions::new().with_serializable()))
        .await?;
    same!(answer.kvs()[0].value(), b"7");
    Ok(())
}

async fn sorting_and_limits(client: &mut Client) -> Result {
    fill(client, "i/s/", 5).await?;
    let all = || GetOptions::new().with_prefix();
    let answer = client.get("i/s/", Some(all().with_limit(2))).await?;
    same!(
        (keys(&answer), answer.more(), answer.count()),
        (vec!["i/s/0".into(), "i/s/1".into()], true, 5)
    );
    let answer = client
        .get(
            "i/s/",
            Some(all().with_sort(SortTarget::Key, SortOrder::Descend).with_limit(2)),
        )
        .await?;
    same!(keys(&answer), ["i/s/4", "i/s/3"]);
    let answer = client
        .get(
            "i/s/",
            Some(
                all()
                    .with_sort(SortTarget::Value, SortOrder::Ascend)
                    .with_limit(1),
            ),
        )
        .await?;
    same!(keys(&answer), ["i/s/4"]);
    let middle = client.get("i/s/2", None).await?.kvs()[0].mod_revision();
    let answer = client
        .get("i/s/", Some(all().with_min_mod_revision(middle).with_limit(2)))
        .await?;
    same!(
        (keys(&answer), answer.count()),
        (vec!["i/s/2".into(), "i/s/3".into()], 5)
    );
    let answer = client
        .get("i/s/", Some(all().with_max_create_revision(middle)))
        .await?;
    same!(keys(&answer), ["i/s/0", "i/s/1", "i/s/2"]);
    Ok(())
}

async fn deletes(client: &mut Client) -> Result {
    let before = fill(client, "i/d/", 4).await?;
    let answer = client.delete("i/d/absent", None).await?;
    same!((answer.deleted(), revision(answer.header())?), (0, before));
    let options = DeleteOptions::new().with_range("i/d/2").with_prev_key();
    let answer = client.delete("i/d/0", Some(options)).await?;
    same!(
        (
            answer.deleted(),
            answer.prev_kvs().len(),
            revision(answer.header())?
        ),
        (2, 2, before + 1)
    );
    same!(answer.prev_kvs()[1].value(), b"8");
    let answer = client
        .delete("i/d/", Some(DeleteOptions::new().with_prefix()))
        .await?;
    same!(answer.deleted(), 2);
    client.put("i/d/0", "again", None).await?;
    same!(client.get("i/d/0", None).await?.kvs()[0].version(), 1);
    Ok(())
}

async fn transactions(client: &mut Client) -> Result {
    client.put("i/t/a", "1", None).await?;
    let at = client.get("i/t/a", None).await?.kvs()[0].mod_revision();
    let swap = |expected: i64| {
        Txn::new()
            .when([Compare::mod_revision("i/t/a", CompareOp::Equal, expected)])
            .and_then([TxnOp::put("i/t/a", "2", None), TxnOp::put("i/t/b", "3", None)])
            .or_else([TxnOp::get("i/t/a", None)])
    };
    let answer = client.txn(swap(at)).await?;
    same!((answer.succeeded(), revision(answer.header())?), (true, at + 1));
    let pairs = client.get("i/t/", Some(GetOptions::new().with_prefix())).await?;
    same!(pairs.kvs().iter().all(|pair| pair.mod_revision() == at + 1), true);
    let answer = client.txn(swap(at)).await?;
    same!(
        (
            answer.succeeded(),
            answer.op_responses().len(),
            revision(answer.header())?
        ),
        (false, 1, at + 1)
    );
    for (compare, holds) in [
        (Compare::value("i/t/a", CompareOp::Equal, "2"), true),
        (Compare::value("i/t/a", CompareOp::Greater, "2"), false),
        (Compare::value("i/t/absent", CompareOp::NotEqual, "x"), false),
        (Compare::version("i/t/absent", CompareOp::Equal, 0), true),
        (Compare::version("i/t/a", CompareOp::Greater, 1), true),
        (Compare::create_revision("i/t/b", CompareOp::Less, at + 1), false),
        (Compare::lease("i/t/a", CompareOp::Equal, 0), true),
        (
            Compare::mod_revision("i/t/", CompareOp::Equal, at + 1).with_prefix(),
            true,
        ),
        (
            Compare::create_revision("i/t/", CompareOp::Equal, at + 1).with_prefix(),
            false,
        ),
    ] {
        let answer = client.txn(Txn::new().when([compare.clone()])).await?;
        if answer.succeeded() != holds {
            return Err(format!("{compare:?} is {}", answer.succeeded()).into());
        }
    }
    Ok(())
}

async fn nested_transactions(client: &mut Client) -> Result {
    client.put("i/n/a", "1", None).await?;
    let inner = Txn::new()
        .when([Compare::version("i/n/b", CompareOp::Equal, 0)])
        .and_then([TxnOp::put("i/n/b", "made", None)])
        .or_else([TxnOp::delete("i/n/b", None)]);
    let outer = || {
        Txn::new()
            .when([Compare::value("i/n/a", CompareOp::Equal, "0")])
            .and_then([TxnOp::put("i/n/c", "x", None)])
            .or_else([TxnOp::txn(inner.clone()), TxnOp::get("i/n/b", None)])
    };
    let answer = client.txn(outer()).await?;
    same!((answer.succeeded(), answer.op_responses().len()), (false, 2));
    same!(client.get("i/n/b", None).await?.kvs()[0].value(), b"made");
    client.txn(outer()).await?;
    same!(client.get("i/n/b", None).await?.count(), 0);
    Ok(())
}

async fn old_revisions(client: &mut Client) -> Result {
    client.put("i/o", "old", None).await?;
    let old = client.get("i/o", None).await?.kvs()[0].mod_revision();
    client.put("i/o", "new", None).await?;
    let at = |revision| Some(GetOptions::new().with_revision(revision));
    same!(client.get("i/o", at(old)).await?.kvs()[0].value(), b"old");
    same!(client.get("i/o", at(old - 1)).await?.count(), 0);
    same!(
        refusal(client.get("i/o", at(old + 1_000_000)).await)?,
        "OutOfRange: etcdserver: mvcc: required revision is a future revision"
    );
    client.compact(old + 1, None).await?;
    same!(client.get("i/o", at(old + 1)).await?.kvs()[0].value(), b"new");
    same!(
        refusal(client.get("i/o", at(old)).await)?,
        "OutOfRange: etcdserver: mvcc: required revision has been compacted"
    );
    same!(
        refusal(client.compact(old + 1, None).await)?,
        "OutOfRange: etcdserver: mvcc: required revision has been compacted"
    );
    Ok(())
}

async fn errors(client: &mut Client) -> Result {
    same!(
        refusal(client.put("", "x", None).await)?,
        "InvalidArgument: etcdserver: key is not provided"
    );
    same!(
        refusal(
            client
                .put("i/e", "", Some(PutOptions::new().with_ignore_value()))
                .await
        )?,
        "InvalidArgument: etcdserver: key not found"
    );
    same!(
        refusal(
            client
                .put("i/e", "", Some(PutOptions::new().with_lease(4_711)))
                .await
        )?,
        "NotFound: etcdserver: requested lease not found"
    );
    let twice = Txn::new().and_then([TxnOp::put("i/e", "1", None), TxnOp::put("i/e", "2", None)]);
    same!(
        refusal(client.txn(twice).await)?,
        "InvalidArgument: etcdserver: duplicate key given in txn request"
    );
    let many: Vec<TxnOp> = (0..129).map(|n| TxnOp::get(format!("i/e/{n}"), None)).collect();
    same!(
        refusal(client.txn(Txn::new().and_then(many)).await)?,
        "InvalidArgument: etcdserver: too many operations in txn request"
    );
    same!(
        refusal(client.put("i/e", vec![0; 1_572_865], None).await)?,
        "InvalidArgument: etcdserver: request is too large"
    );
    same!(
        refusal(client.lease_revoke(4_711).await)?,
        "NotFound: etcdserver: requested lease not found"
    );
    Ok(())
}

async fn watch_from_a_revision(client: &mut Client) -> Result {
    let first = revision(client.put("i/w/a", "1", None).await?.header())?;
    client.put("i/w/b", "2", None).await?;
    client.put("i/elsewhere", "x", None).await?;
    client
        .delete("i/w/", Some(DeleteOptions::new().with_prefix()))
        .await?;
    let options = WatchOptions::new()
        .with_prefix()
        .with_start_revision(first)
        .with_prev_key();
    let mut stream = client.watch("i/w/", Some(options)).await?;
    let mut seen = Vec::new();
    while seen.len() < 4 {
        let answer = stream.message().await?.ok_or("the stream ended")?;
        for event in answer.events() {
            let pair = event.kv().ok_or("an event without pair")?;
            let before = event.prev_kv().map(|pair| pair.value().to_vec());
            seen.push((
                event.event_type(),
                pair.key().to_vec(),
                pair.mod_revision(),
                before,
            ));
        }
    }
    same!(
        seen,
        [
            (EventType::Put, b"i/w/a".to_vec(), first, None),
            (EventType::Put, b"i/w/b".to_vec(), first + 1, None),
            (
                EventType::Delete,
                b"i/w/a".to_vec(),
                first + 3,
                Some(b"1".to_vec())
            ),
            (
                EventType::Delete,
                b"i/w/b".to_vec(),
                first + 3,
                Some(b"2".to_vec())
            ),
        ]
    );
    Ok(())
}

async fn watch_lives(client: &mut Client) -> Result {
    let mut stream = client.watch("i/l", None).await?;
    same!(stream.message().await?.ok_or("the stream ended")?.created(), true);
    for n in 0..20 {
        client.put("i/l", format!("{n}"), None).await?;
    }
    let mut next = 0;
    while next < 20 {
        let answer = stream.message().await?.ok_or("the stream ended")?;
        for event in answer.events() {
            same!(
                event.kv().ok_or("an event without pair")?.value(),
                next.to_string().as_bytes()
            );
            next += 1;
        }
    }
    stream.request_progress().await?;
    let progress = stream.message().await?.ok_or("the stream ended")?;
    same!(progress.events().len(), 0);
    Ok(())
}

async fn leases(client: &mut Client) -> Result {
    let granted = client.lease_grant(60, None).await?;
    let id = granted.id();
    same!(granted.ttl(), 60);
    client
        .put("i/lease/a", "1", Some(PutOptions::new().with_lease(id)))
        .await?;
    client
        .put("i/lease/b", "2", Some(PutOptions::new().with_lease(id)))
        .await?;
    same!(client.get("i/lease/a", None).await?.kvs()[0].lease(), id);
    let (mut keeper, mut answers) = client.lease_keep_alive(id).await?;
    keeper.keep_alive().await?;
    same!(answers.message().await?.ok_or("the stream ended")?.ttl(), 60);
    let left = client
        .lease_time_to_live(id, Some(LeaseTimeToLiveOptions::new().with_keys()))
        .await?;
    same!(
        (left.granted_ttl(), left.ttl() > 50, left.keys().len()),
        (60, true, 2)
    );
    same!(
        client
            .leases()
            .await?
            .leases()
            .iter()
            .any(|lease| lease.id() == id),
        true
    );
    client.lease_revoke(id).await?;
    same!(
        client
            .get("i/lease/", Some(GetOptions::new().with_prefix()))
            .await?
            .count(),
        0
    );
    same!(client.lease_time_to_live(id, None).await?.ttl(), -1);

    // A lease that nobody keeps alive takes its keys with it.
    let short = client.lease_grant(1, None).await?;
    client
        .put(
            "i/lease/short",
            "x",
            Some(PutOptions::new().with_lease(short.id())),
        )
        .await?;
    let mut stream = client.watch("i/lease/short", None).await?;
    loop {
        let answer = stream.message().await?.ok_or("the stream ended")?;
        if answer
            .events()
            .iter()
            .any(|event| event.event_type() == EventType::Delete)
        {
            break;
        }
    }
    let chosen = id.wrapping_add(1).max(1);
    same!(
        client
            .lease_grant(60, Some(LeaseGrantOptions::new().with_id(chosen)))
            .await?
            .id(),
        chosen
    );
    same!(
        refusal(
            client
                .lease_grant(60, Some(LeaseGrantOptions::new().with_id(chosen)))
                .await
        )?,
        "FailedPrecondition: etcdserver: lease already exists"
    );
    client.lease_revoke(chosen).await?;
    Ok(())
}

async fn status_and_members(client: &mut Client) -> Result {
    let status = client.status().await?;
    same!(
        status.leader() != 0 && status.raft_term() > 0 && status.raft_index() > 0,
        true
    );
    let numbers: Vec<_> = status.version().split('.').map(str::parse::<u32>).collect();
    same!((numbers.len(), numbers.iter().all(|n| n.is_ok())), (3, true));
    let members = client.member_list().await?;
    same!(
        members
            .members()
            .iter()
            .any(|member| member.id() == status.leader()),
        true
    );
    same!(
        members
            .members()
            .iter()
            .all(|member| !member.client_urls().is_empty()),
        true
    );
    let at = revision(client.put("i/h", "1", None).await?.header())?;
    same!(client.hash_kv(at).await?.hash() != 0, true);
    Ok(())
}

async fn members_change(client: &mut Client) -> Result {
    // A port that nobody uses: the learner is never started.
    let url = |port| [format!("http://127.0.0.1:{port}")];
    let learner = || Some(MemberAddOptions::new().with_is_learner());
    // etcd changes no membership whose members have known each other for less than five seconds.
    let added = loop {
        match client.member_add(url(9), learner()).await {
            Err(etcd_client::Error::GRpcStatus(status)) if status.message().contains("unhealthy cluster") => {
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
            answer => break answer?,
        }
    };
    let member = added.member().ok_or("an answer without member")?;
    let id = member.id();
    same!((member.name(), member.is_learner()), ("", true));
    same!(added.member_list().len(), 4);
    same!(
        refusal(client.member_promote(id).await)?,
        "FailedPrecondition: etcdserver: can only promote a learner member which is in sync with leader"
    );
    let first = client.member_list().await?;
    let first = first
        .members()
        .iter()
        .find(|member| member.id() != id)
        .ok_or("nobody else")?;
    same!(
        refusal(client.member_update(id, first.peer_urls()).await)?,
        "FailedPrecondition: etcdserver: Peer URLs already exists"
    );
    client.member_update(first.id(), first.peer_urls()).await?;
    client.member_remove(id).await?;
    same!(client.member_list().await?.members().len(), 3);
    same!(
        refusal(client.member_remove(id).await)?,
        "NotFound: etcdserver: member not found"
    );
    Ok(())
}
