//! The client commands against a real server: what they print, and their exit codes.

mod common;

use common::{Dir, Server, quorate, quorate_ok};

async fn server(test: &str) -> (Server, Dir) {
    let dir = Dir::new(test);
    let mut server = Server::single(dir.path(), &[]);
    server.start_and_serve().await;
    (server, dir)
}

#[tokio::test]
async fn put_get_del_watch_status_and_members() {
    let (server, _dir) = server("commands").await;
    let endpoint = format!("127.0.0.1:{}", server.client_port);
    let run = |args: &[&str]| quorate_ok(&[args, &["--endpoints", &endpoint]].concat());

    assert_eq!(run(&["put", "a", "1"]), "OK, revision 2\n");
    assert_eq!(run(&["put", "a", "-2"]), "OK, revision 3\n");
    assert_eq!(run(&["put", "b", "3"]), "OK, revision 4\n");
    assert_eq!(
        run(&["get", "a"]),
        "KEY  VALUE  CREATED  MODIFIED  VERSION  LEASE\na    -2     2        3         2        -\n"
    );
    assert_eq!(run(&["get", "a", "--rev", "2", "--print-value-only"]), "1");
    assert_eq!(run(&["get", "--prefix", "", "--count-only"]), "2\n");
    assert_eq!(
        run(&[
            "get",
            "a",
            "z",
            "--keys-only",
            "--sort-by",
            "mod",
            "--descending",
            "--limit",
            "1"
        ]),
        "KEY  CREATED  MODIFIED  VERSION  LEASE\nb    4        4         1        -\n"
    );
    let json: serde_json::Value = serde_json::from_str(&run(&["get", "b", "-o", "json"])).expect("JSON");
    assert_eq!(json["kvs"][0]["key"], "Yg==");
    assert_eq!(json["header"]["revision"], "4");
    assert!(run(&["del", "--prefix", "", "--prev-kv"]).starts_with("2 keys deleted\nKEY"));

    let status = run(&["status"]);
    assert!(
        status.contains("leader") && status.contains(&server.client_port.to_string()),
        "{status}"
    );
    let members = run(&["member", "list"]);
    assert!(
        members.contains("n1") && members.contains(&server.peer_port.to_string()),
        "{members}"
    );
}

#[tokio::test]
async fn a_value_comes_from_standard_input_byte_for_byte() {
    let (server, _dir) = server("stdin").await;
    let endpoint = format!("127.0.0.1:{}", server.client_port);
    let value: Vec<u8> = (0..=255).collect();
    let output = quorate(&["put", "bytes", "--endpoints", &endpoint], Some(&value));
    assert!(output.status.success());
    let output = quorate(
        &["get", "bytes", "--print-value-only", "--endpoints", &endpoint],
        None,
    );
    assert_eq!(output.stdout, value);
}

#[tokio::test]
async fn watch_prints_changes_as_they_come() {
    use std::io::{BufRead, BufReader};
    let (server, _dir) = server("watch").await;
    let endpoint = format!("127.0.0.1:{}", server.client_port);
    let mut child = std::process::Command::new(common::QUORATE)
        .args(["watch", "--prefix", "k", "--rev", "1", "--endpoints", &endpoint])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("watch starts");
    let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    quorate_ok(&["put", "k1", "v", "--endpoints", &endpoint]);
    assert_eq!(
        lines.next().expect("a line").expect("text"),
        "       2  PUT     k1  v"
    );
    quorate_ok(&["del", "k1", "--endpoints", &endpoint]);
    assert_eq!(
        lines.next().expect("a line").expect("text"),
        "       3  DELETE  k1"
    );
    child.kill().expect("the watch is ended");
    child.wait().expect("the watch has ended");
}

#[tokio::test]
async fn exit_codes_say_what_happened() {
    let (server, _dir) = server("codes").await;
    let endpoint = format!("127.0.0.1:{}", server.client_port);
    let closed = format!("127.0.0.1:{}", common::free_port());
    let code = |args: &[&str], endpoints: &str| {
        quorate(&[args, &["--endpoints", endpoints]].concat(), None)
            .status
            .code()
            .expect("an exit code")
    };
    assert_eq!(code(&["get", "absent"], &endpoint), 4);
    assert_eq!(
        code(&["put", "k", "v", "--lease", "77"], &endpoint),
        1,
        "no such lease"
    );
    assert_eq!(code(&["put"], &endpoint), 2);
    assert_eq!(code(&["get", "k"], &closed), 3);
    assert_eq!(
        code(&["put", "k", "v"], &format!("{closed},{endpoint}")),
        0,
        "the second endpoint serves it"
    );
    assert_eq!(
        code(&["status"], &format!("{closed},{endpoint}")),
        3,
        "one endpoint is not there"
    );
    assert_eq!(quorate(&["nonsense"], None).status.code(), Some(2));
}

#[tokio::test]
async fn members_are_added_updated_and_removed() {
    let (server, _dir) = server("members").await;
    let endpoint = format!("127.0.0.1:{}", server.client_port);
    let run = |args: &[&str]| quorate_ok(&[args, &["--endpoints", &endpoint]].concat());
    let refused = |args: &[&str]| {
        let output = quorate(&[args, &["--endpoints", &endpoint]].concat(), None);
        (
            output.status.code(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )
    };
    let (first, second) = ("http://127.0.0.1:1", "http://127.0.0.1:2");
    let added = run(&["member", "add", "n2", "--peer-urls", first, "--learner"]);
    let id = added.split(' ').nth(1).expect("an id").to_owned();
    assert!(
        added.starts_with(&format!("Member {id} added as learner to cluster ")),
        "{added}"
    );
    assert!(
        added.contains("ETCD_NAME=\"n2\"") && added.contains(&format!(",n2={first}\""))
            || added.contains(&format!("\"n2={first},")),
        "{added}"
    );
    let listed = run(&["member", "list"]);
    assert!(listed.contains("learner") && listed.contains(first), "{listed}");

    let (code, said) = refused(&["member", "promote", &id]);
    assert!(
        code == Some(1) && said.contains("can only promote a learner member which is in sync with leader"),
        "{said}"
    );
    let (code, said) = refused(&["member", "add", "n3", "--peer-urls", first]);
    assert!(
        code == Some(1) && said.contains("Peer URLs already exists"),
        "{said}"
    );
    let (code, said) = refused(&["member", "add", "n3", "--peer-urls", "https://127.0.0.1:3"]);
    assert!(code == Some(2) && said.contains("TLS"), "{said}");
    let (code, said) = refused(&["member", "remove", "n9"]);
    assert!(
        code == Some(1) && said.contains("no member \"n9\"") && said.contains("n1"),
        "{said}"
    );

    assert!(
        run(&["member", "update", &id, "--peer-urls", second]).starts_with(&format!("Member {id} updated"))
    );
    let json = run(&["member", "remove", &id, "-o", "json"]);
    let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(json["members"].as_array().map(Vec::len), Some(1));
    assert!(
        refused(&["member", "remove", "n1"])
            .1
            .contains("not enough started members")
    );
    assert!(run(&["status"]).contains("BEHIND"));
}
