//! Members come and go while clients write: real processes, changed by the commands that an operator has.

mod common;

use std::fs::{self, OpenOptions};
use std::process::{Child, Command, Output, Stdio};

use common::load::{Load, check_order, check_stores, count};
use common::{Cluster, QUORATE, Random, Server, add_member, quorate, quorate_until_ok, run_to_end, wait_for};
use serde_json::Value;

/// `quorate member replace`, running. A test that fails leaves none behind.
struct Replace(Child);

impl Replace {
    fn kill(&mut self) {
        // An error means that it has ended by itself.
        let _ = self.0.kill();
        self.0.wait().expect("it is gone");
    }
}

impl Drop for Replace {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn replace(cluster: &Cluster, old: &str, new: &Server) -> Replace {
    let log = OpenOptions::new()
        .create(true)
        .append(true)
        .open(cluster.dir.path().join("replace.log"))
        .expect("a log file");
    let child = Command::new(QUORATE)
        .args(replacing(cluster, old, new))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn();
    Replace(child.expect("the command starts"))
}

/// Waits for the command's end, which must be a good one.
async fn succeeds(cluster: &Cluster, command: Replace) {
    let code = end_of(command).await;
    let log = fs::read_to_string(cluster.dir.path().join("replace.log")).unwrap_or_default();
    assert_eq!(code, 0, "{log}");
}

fn replacing(cluster: &Cluster, old: &str, new: &Server) -> Vec<String> {
    let args = ["member", "replace", old, "--name", &new.name, "--peer-urls"];
    let mut args: Vec<String> = args.map(str::to_owned).into();
    args.extend([new.peer_url(), "--endpoints".into(), cluster.endpoints()]);
    // However slow the machine is, and however many elections it takes.
    args.push("--command-timeout=30s".into());
    args
}

async fn end_of(mut command: Replace) -> i32 {
    wait_for("the command to end", async || {
        command.0.try_wait().expect("try_wait")
    })
    .await
    .code()
    .unwrap_or(-1)
}

/// What `member list` says of each; nothing if nobody answers.
fn listed(cluster: &Cluster) -> Vec<Value> {
    let list = [
        "member",
        "list",
        "-o",
        "json",
        "--endpoints",
        &cluster.endpoints(),
    ];
    let text = quorate(&list, None);
    let Ok(answer) = serde_json::from_slice::<Value>(&text.stdout) else {
        return Vec::new();
    };
    answer["members"].as_array().cloned().unwrap_or_default()
}

/// Name and role of all members, sorted; those that have not been started have no name.
fn members(cluster: &Cluster) -> Vec<(String, &'static str)> {
    let mut all: Vec<(String, &str)> = listed(cluster)
        .iter()
        .map(|member| {
            let role = if member["isLearner"] == true {
                "learner"
            } else {
                "voter"
            };
            (member["name"].as_str().unwrap_or_default().to_owned(), role)
        })
        .collect();
    all.sort();
    all
}

async fn wait_for_members(cluster: &Cluster, expected: &[(&str, &str)]) {
    wait_for(&format!("the members {expected:?}"), async || {
        let found = members(cluster);
        let found: Vec<(&str, &str)> = found.iter().map(|(name, role)| (name.as_str(), *role)).collect();
        (found == expected).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_leader_is_replaced_while_clients_write() {
    let mut cluster = Cluster::start("replace", 3, &[]).await;
    let mut new = cluster.newcomer("n4");
    let urls: Vec<String> = cluster.servers.iter().chain([&new]).map(Server::url).collect();
    let load = Load::start(&urls);
    load.go_on_for(200).await;

    let leader = cluster.leader().await;
    let old = cluster.servers[leader].name.clone();
    let command = replace(&cluster, &old, &new);
    wait_for("the learner to be listed", async || {
        members(&cluster)
            .contains(&(String::new(), "learner"))
            .then_some(())
    })
    .await;
    load.go_on_for(200).await;
    new.start();
    succeeds(&cluster, command).await;

    // It learns of its removal, and says so; started again it hears the same from the others.
    let mut removed = cluster.servers.remove(leader);
    assert_eq!(
        removed.wait_for_end().await.code(),
        Some(5),
        "{}",
        removed.log_text()
    );
    assert!(
        removed
            .log_text()
            .contains("permanently removed from the cluster"),
        "{}",
        removed.log_text()
    );
    let (code, text) = run_to_end(removed.flags()).await;
    assert!(code == 5 && text.contains("removed"), "{code}: {text}");

    load.go_on_for(200).await;
    let writes = load.stop().await;
    cluster.servers.push(new);
    let mut expected: Vec<(&str, &str)> = cluster
        .servers
        .iter()
        .map(|s| (s.name.as_str(), "voter"))
        .collect();
    expected.sort();
    wait_for_members(&cluster, &expected).await;
    let servers: Vec<&Server> = cluster.servers.iter().collect();
    check_stores(&servers, &writes).await;
    check_order(&writes);
    count(&writes);
}

/// A machine moves while its member is down: what it then writes of itself must not bring its old address back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_moves_keeps_the_address_that_it_was_given() {
    let mut cluster = Cluster::start("move", 3, &[]).await;
    cluster.servers[1].kill();
    let mut moved = cluster.newcomer("n2");
    let new = moved.peer_url();
    let update = ["member", "update", "n2", "--peer-urls", &new, "--endpoints"];
    quorate_until_ok(&[&update[..], &[&cluster.endpoints()]].concat()).await;

    moved.start_and_serve().await;
    cluster.servers[1] = moved;
    let client = cluster.servers[1].url();
    let member = wait_for("its new client URL to be listed", async || {
        let mut all = listed(&cluster).into_iter();
        all.find(|member| member["clientURLs"][0] == client.as_str())
    })
    .await;
    assert_eq!(member["name"], "n2");
    assert_eq!(member["peerURLs"][0], new.as_str());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replacement_goes_on_after_everything_was_killed_once() {
    let mut random = Random::new();
    let mut cluster = Cluster::start("replace-kill", 3, &[]).await;
    let mut new = cluster.newcomer("n4");
    let urls: Vec<String> = cluster.servers.iter().chain([&new]).map(Server::url).collect();
    let load = Load::start(&urls);
    load.go_on_for(100).await;

    // The command, once the learner was added.
    let mut command = replace(&cluster, "n2", &new);
    wait_for("the learner to be listed", async || {
        members(&cluster)
            .contains(&(String::new(), "learner"))
            .then_some(())
    })
    .await;
    command.kill();

    // The new member, while it catches up or soon after; any of the others; and the command again, wherever it stands by then.
    new.start();
    load.go_on_for(random.between(1, 100)).await;
    new.kill();
    let mut command = replace(&cluster, "n2", &new);
    load.go_on_for(random.between(1, 100)).await;
    new.start();
    load.go_on_for(random.between(1, 100)).await;
    let victim = random.between(0, 3) as usize;
    if cluster.servers[victim].ended().is_none() {
        cluster.servers[victim].kill();
    }
    load.go_on_for(random.between(1, 100)).await;
    command.kill();
    // It serves again or, if it was removed meanwhile, ends again.
    cluster.servers[victim].start();
    let mut end = None;
    wait_for("it to serve or to end", async || {
        end = cluster.servers[victim].ended();
        let status = cluster.servers[victim].status().await;
        (end.is_some() || status.is_some_and(|status| status.leader != 0)).then_some(())
    })
    .await;
    assert!(
        end.is_none() || victim == 1,
        "only the one that was replaced ends"
    );

    let command = replace(&cluster, "n2", &new);
    succeeds(&cluster, command).await;
    // Done is done.
    let command = replace(&cluster, "n2", &new);
    succeeds(&cluster, command).await;
    let mut removed = cluster.servers.remove(1);
    let end = match end {
        Some(end) => end,
        None => removed.wait_for_end().await,
    };
    assert_eq!(end.code(), Some(5), "{}", removed.log_text());
    cluster.servers.push(new);
    load.go_on_for(100).await;
    let writes = load.stop().await;
    wait_for_members(&cluster, &[("n1", "voter"), ("n3", "voter"), ("n4", "voter")]).await;
    let servers: Vec<&Server> = cluster.servers.iter().collect();
    check_stores(&servers, &writes).await;
    check_order(&writes);
    count(&writes);
}

/// `quorate member replace --dry-run`, once there is a leader to answer it.
async fn dry_run(cluster: &Cluster, old: &str, new: &Server) -> Output {
    let mut args = replacing(cluster, old, new);
    args.push("--dry-run".into());
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    wait_for("a dry run to be answered", async || {
        let output = quorate(&args, None);
        (output.status.code() != Some(3)).then_some(output)
    })
    .await
}

#[tokio::test]
async fn a_dry_run_says_what_would_be_done_and_does_nothing() {
    let mut cluster = Cluster::start("dry-run", 3, &[]).await;
    let new = cluster.newcomer("n4");
    wait_for_members(&cluster, &[("n1", "voter"), ("n2", "voter"), ("n3", "voter")]).await;
    let output = dry_run(&cluster, "n2", &new).await;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}");
    for said in [
        "1. add n4",
        "2. wait until n4 is started and has caught up",
        "3. promote n4; then 4 voters, of whom 3 are needed and 4 answer",
        "4. remove n2",
        "then 3 voters, of whom 2 are needed and 3 answer",
        "Nothing has been done.",
    ] {
        assert!(text.contains(said), "{said:?} in {text}");
    }
    let none = dry_run(&cluster, "n9", &new).await;
    assert_eq!(none.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&none.stderr).contains("no member \"n9\""));

    cluster.servers[1].kill();
    let output = dry_run(&cluster, "n2", &new).await;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success()
            && text.contains("no answer")
            && text.contains("of whom 3 are needed and 3 answer"),
        "a dead member can be replaced: {text}"
    );
    wait_for_members(&cluster, &[("n1", "voter"), ("n2", "voter"), ("n3", "voter")]).await;
}

#[tokio::test]
async fn a_member_joins_with_a_name_of_its_own_and_restarts_with_old_flags() {
    let cluster = Cluster::start("join", 3, &[]).await;
    let mut new = cluster.newcomer("n4");
    let (code, text) = run_to_end(new.flags()).await;
    assert!(
        code == 1 && text.contains("add it first") && text.contains("quorate member add n4 --peer-urls"),
        "{code}: {text}"
    );

    let added = add_member("n4", &new.peer_url(), &cluster.endpoints()).await;
    if let Some(added) = added {
        assert!(
            added.contains("added to cluster") && added.contains("ETCD_INITIAL_CLUSTER_STATE=\"existing\""),
            "{added}"
        );
        assert!(added.contains(&format!("n4={}", new.peer_url())), "{added}");
    }
    new.start_and_serve().await;
    wait_for_members(
        &cluster,
        &[("n1", "voter"), ("n2", "voter"), ("n3", "voter"), ("n4", "voter")],
    )
    .await;

    // Flags of another time: the founders alone, as if this member were to found a cluster with them.
    new.terminate();
    assert_eq!(new.wait_for_end().await.code(), Some(0), "{}", new.log_text());
    let founders: Vec<String> = cluster
        .servers
        .iter()
        .map(|s| format!("{}={}", s.name, s.peer_url()))
        .collect();
    new.add_flag(&format!("--initial-cluster={}", founders.join(",")));
    new.add_flag("--initial-cluster-state=new");
    new.start_and_serve().await;
    let mut renamed = new.flags().to_vec();
    new.terminate();
    assert_eq!(new.wait_for_end().await.code(), Some(0), "{}", new.log_text());
    renamed.push("--name=n5".into());
    let (code, text) = run_to_end(&renamed).await;
    assert!(
        code == 1 && text.contains("\"n4\"") && text.contains("\"n5\""),
        "another name is refused: {code}: {text}"
    );
}

#[tokio::test]
async fn nobody_answers_a_member_that_is_to_join() {
    let cluster = Cluster::new("join-alone", 3, &[]);
    let (code, text) = run_to_end(cluster.newcomer("n4").flags()).await;
    assert!(
        code == 1 && text.contains("no member of the cluster answers"),
        "{code}: {text}"
    );
}

#[tokio::test]
async fn a_cluster_that_nobody_serves_is_not_waited_for() {
    let cluster = Cluster::new("replace-nobody", 3, &[]);
    let new = cluster.newcomer("n4");
    let args = replacing(&cluster, "n2", &new);
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let output = quorate(&args, None);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{said}");
    assert!(said.contains("no endpoint could serve this"), "{said}");
}

#[tokio::test]
async fn a_new_member_that_was_added_as_a_voter_votes_before_the_old_one_goes() {
    let mut cluster = Cluster::start("replace-voter", 3, &[]).await;
    let mut new = cluster.newcomer("n4");
    add_member("n4", &new.peer_url(), &cluster.endpoints()).await;
    let output = dry_run(&cluster, "n2", &new).await;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        text.contains("1. wait until n4 is started and has caught up and votes")
            && text.contains("2. remove n2"),
        "{text}"
    );
    let command = replace(&cluster, "n2", &new);
    new.start();
    succeeds(&cluster, command).await;
    let mut removed = cluster.servers.remove(1);
    assert_eq!(
        removed.wait_for_end().await.code(),
        Some(5),
        "{}",
        removed.log_text()
    );
    wait_for_members(&cluster, &[("n1", "voter"), ("n3", "voter"), ("n4", "voter")]).await;
    let status = wait_for("a status", async || new.status().await).await;
    assert!(!status.is_learner, "it votes");
}
