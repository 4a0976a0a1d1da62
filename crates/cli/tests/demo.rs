//! `quorate demo` as a person runs it, without a terminal: the cluster comes up, a killed node comes back, and nothing is left
//! running, however the demo ends.

mod common;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use common::{Dir, PATIENCE, free_port, quorate, quorate_ok};
use rustix::process::{Pid, Signal, kill_process, test_kill_process};

struct Demo {
    child: Child,
    lines: Receiver<String>,
    seen: Vec<String>,
    errors: std::path::PathBuf,
}

impl Demo {
    fn start(dir: &Dir, base_port: u16, more: &[&str]) -> Demo {
        let errors = dir.path().join("demo.stderr");
        let mut child = Command::new(common::QUORATE)
            .arg("demo")
            .arg(format!("--base-port={base_port}"))
            .arg(format!("--data-dir={}", dir.path().join("demo").display()))
            .args(more)
            .stdout(Stdio::piped())
            .stderr(std::fs::File::create(&errors).expect("a file"))
            .spawn()
            .expect("the demo starts");
        let (send, lines) = channel();
        let stdout = BufReader::new(child.stdout.take().expect("piped"));
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                if send.send(line).is_err() {
                    break;
                }
            }
        });
        Demo {
            child,
            lines,
            seen: Vec::new(),
            errors,
        }
    }

    /// Reads on until a line is as wanted.
    fn line(&mut self, what: &str, wanted: impl Fn(&str) -> bool) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let line = self.lines.recv_timeout(left);
            let Ok(line) = line else {
                let errors = std::fs::read_to_string(&self.errors).unwrap_or_default();
                panic!("waited for {what}; so far:\n{}\n{errors}", self.seen.join("\n"))
            };
            self.seen.push(line.clone());
            if wanted(&line) {
                return line;
            }
        }
    }

    fn all_serve(&mut self, nodes: usize) -> String {
        self.line("all nodes to serve", |line| {
            line.matches(" term ").count() == nodes
                && line.contains(" leader ")
                && !line.contains("no leader")
        })
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_raw(self.child.id() as i32).expect("an id"), signal).expect("a signal");
    }

    fn wait(&mut self) -> Option<i32> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().expect("try_wait") {
                return status.code();
            }
            assert!(Instant::now() < deadline, "the demo does not end");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `n1 pid 4711 leader term 2 …; n2 pid …` → process ids by name.
fn pids(line: &str) -> BTreeMap<String, i32> {
    line.split("; ")
        .filter_map(|part| {
            let mut words = part.split(' ');
            let name = words.next()?.to_owned();
            let pid = words.skip_while(|word| *word != "pid").nth(1)?.parse().ok()?;
            Some((name, pid))
        })
        .collect()
}

fn wait_until_gone(pids: &BTreeMap<String, i32>) {
    let deadline = Instant::now() + PATIENCE;
    for (name, pid) in pids {
        while !is_gone(*pid) {
            assert!(Instant::now() < deadline, "{name} is still running");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// Whether no such process is left, or only its entry that its new parent has not collected yet.
fn is_gone(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    test_kill_process(Pid::from_raw(pid).expect("an id")).is_err() || stat.contains(") Z")
}

/// A first port such that a demo of three nodes finds all its ports free.
fn base_port() -> u16 {
    let is_free = |port: u16| std::net::TcpListener::bind(("127.0.0.1", port)).is_ok();
    for _ in 0..100 {
        // The port after it is then not given to another test.
        let base = (free_port(), free_port()).0;
        if [0, 1, 100, 101, 200, 201].iter().all(|more| is_free(base + more)) {
            return base;
        }
    }
    panic!("no ports for a demo");
}

#[test]
fn three_nodes_come_up_one_is_killed_and_comes_back_and_ctrl_c_ends_all() {
    let dir = Dir::new("demo");
    let base = base_port();
    let mut demo = Demo::start(&dir, base, &["--restart-after=1"]);
    let line = demo.all_serve(3);
    let introduction = demo.seen.join("\n");
    for part in [
        "etcdctl --endpoints",
        "kill -9",
        "Ctrl-C",
        &format!("127.0.0.1:{base}"),
    ] {
        assert!(introduction.contains(part), "{part} in:\n{introduction}");
    }
    let endpoints = format!(
        "127.0.0.1:{base},127.0.0.1:{},127.0.0.1:{}",
        base + 100,
        base + 200
    );
    quorate_ok(&["put", "greeting", "hello", "--endpoints", &endpoints]);

    let before = pids(&line);
    let leader = line
        .split("; ")
        .find(|part| part.contains(" leader "))
        .expect("a leader")
        .split(' ')
        .next();
    let leader = leader.expect("a name").to_owned();
    kill_process(Pid::from_raw(before[&leader]).expect("an id"), Signal::KILL).expect("kill -9");
    demo.line("the killed node to be shown as down", |line| {
        line.contains(&format!("{leader} down (killed by signal 9)"))
    });
    let line = demo.all_serve(3);
    let after = pids(&line);
    assert_ne!(after[&leader], before[&leader], "it was started again");
    assert_eq!(
        quorate_ok(&["get", "greeting", "--print-value-only", "--endpoints", &endpoints]),
        "hello"
    );

    demo.signal(Signal::INT);
    assert_eq!(demo.wait(), Some(0), "Ctrl-C is the way to end it");
    wait_until_gone(&after);

    // The same again goes on with the data.
    let mut demo = Demo::start(&dir, base, &[]);
    let line = demo.all_serve(3);
    assert_eq!(
        quorate_ok(&["get", "greeting", "--print-value-only", "--endpoints", &endpoints]),
        "hello"
    );
    demo.signal(Signal::KILL);
    demo.wait();
    wait_until_gone(&pids(&line));
}

#[test]
fn a_taken_port_and_a_strange_directory_are_named() {
    let dir = Dir::new("demo-errors");
    let base = base_port();
    let data = dir.path().join("demo").display().to_string();
    let run = |more: &[&str]| {
        let base = base.to_string();
        let output = quorate(
            &[&["demo", "--base-port", &base, "--data-dir", &data], more].concat(),
            None,
        );
        assert_eq!(output.status.code(), Some(1));
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let taken = std::net::TcpListener::bind(("127.0.0.1", base + 101)).expect("a port to take");
    let text = run(&[]);
    assert!(
        text.contains(&format!("port {}", base + 101)) && text.contains("--base-port"),
        "{text}"
    );
    drop(taken);

    std::fs::create_dir_all(dir.path().join("demo")).expect("a directory");
    std::fs::write(dir.path().join("demo/thesis.txt"), "mine").expect("a file");
    let text = run(&[]);
    assert!(text.contains("not a demo's"), "{text}");
    std::fs::write(dir.path().join("demo/demo"), "--nodes 5 --base-port 1\n").expect("a file");
    let text = run(&[]);
    assert!(text.contains("--nodes 5 --base-port 1"), "{text}");
}
