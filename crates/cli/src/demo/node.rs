//! One server process of the demo: started, asked, missed, started again, ended.

use std::fs::OpenOptions;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use quorate_proto::etcdserverpb::StatusResponse;
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use crate::args::{ClientArgs, Output};
use crate::client::{Cluster, Failure, members};

/// Longest wait for one answer: less than two looks, so that a stopped process does not stop the view.
const PATIENCE: Duration = Duration::from_millis(400);

/// How long a node may take to hand over and flush before it is killed.
const GRACE: Duration = Duration::from_secs(10);

/// What a node is started with.
#[derive(Clone, Debug)]
pub struct Plan {
    /// `n1`, `n2`, …
    pub name: String,
    /// Where clients reach it.
    pub client_url: String,
    /// Where the other nodes reach it.
    pub peer_url: String,
    /// `--initial-cluster`.
    pub cluster: String,
    /// `--data-dir`.
    pub data_dir: PathBuf,
    /// Its log.
    pub log: PathBuf,
}

/// A node of the demo.
pub struct Node {
    plan: Plan,
    child: Option<Child>,
    status: Option<StatusResponse>,
    served: bool,
    down: Option<(Instant, ExitStatus)>,
}

impl Node {
    /// Starts the process.
    pub fn start(plan: Plan) -> io::Result<Node> {
        let child = spawn(&plan)?;
        Ok(Node {
            plan,
            child: Some(child),
            status: None,
            served: false,
            down: None,
        })
    }

    /// Starts the process again after it ended.
    pub fn restart(&mut self) -> io::Result<()> {
        assert!(self.child.is_none(), "only a node that is down is started again");
        self.child = Some(spawn(&self.plan)?);
        self.down = None;
        Ok(())
    }

    /// What it was started with.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Its process, while there is one.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().and_then(Child::id)
    }

    /// Its last answer; none if the last question had none.
    pub fn status(&self) -> Option<&StatusResponse> {
        self.status.as_ref()
    }

    /// Whether it answered once.
    pub fn ever_served(&self) -> bool {
        self.served
    }

    /// Since when the process is gone.
    pub fn down_since(&self) -> Option<Instant> {
        self.down.map(|(since, _)| since)
    }

    /// Whether it was removed from the cluster, or may for another reason not run again.
    pub fn is_out(&self) -> bool {
        let never_again = i32::from(Failure::never_again("").code);
        self.down
            .is_some_and(|(_, status)| status.code() == Some(never_again))
    }

    /// How the process ended.
    pub fn how_it_ended(&self) -> String {
        match self.down {
            None => "running".to_owned(),
            Some((_, status)) => match (status.code(), status.signal()) {
                (Some(code), _) => format!("exit code {code}"),
                (None, Some(signal)) => format!("killed by signal {signal}"),
                (None, None) => "ended".to_owned(),
            },
        }
    }

    /// How it ended and what it said last.
    pub fn why_down(&self) -> String {
        let last_words = tail(&self.plan.log).unwrap_or_default();
        format!(
            "{} did not start ({})\n{}",
            self.plan.name,
            self.how_it_ended(),
            last_words.trim_end()
        )
    }

    /// Notices an end of the process.
    fn notice_end(&mut self) {
        let Some(child) = &mut self.child else { return };
        if let Ok(Some(status)) = child.try_wait() {
            self.child = None;
            self.status = None;
            self.down = Some((Instant::now(), status));
        }
    }
}

/// Asks all nodes at the same time how they are.
pub async fn look_at_all(nodes: &mut [Node]) {
    let mut questions = JoinSet::new();
    for (at, node) in nodes.iter_mut().enumerate() {
        node.notice_end();
        if node.child.is_some() {
            let url = node.plan.client_url.clone();
            questions.spawn(async move { (at, ask(url).await) });
        }
    }
    while let Some(answer) = questions.join_next().await {
        if let Ok((at, status)) = answer {
            nodes[at].served |= status.is_some();
            nodes[at].status = status;
        }
    }
}

async fn ask(url: String) -> Option<StatusResponse> {
    let args = ClientArgs {
        endpoints: vec![url.clone()],
        output: Output::Table,
        dial_timeout: PATIENCE,
        command_timeout: Some(PATIENCE),
    };
    let cluster = Cluster::new(&args).ok()?;
    timeout(PATIENCE, members::status_at(&cluster, &url))
        .await
        .ok()?
        .ok()
}

/// Ends all nodes: politely, all at once, and those that do not listen by force.
pub async fn stop_all(nodes: &mut [Node]) {
    for node in nodes.iter() {
        // The id is of a child that was not waited for yet, so it cannot be another process's by now.
        if let Some(pid) = node
            .pid()
            .and_then(|id| i32::try_from(id).ok())
            .and_then(Pid::from_raw)
        {
            // An error means that it has just ended by itself, which is what is wanted.
            let _ = kill_process(pid, Signal::TERM);
        }
    }
    let deadline = Instant::now() + GRACE;
    for node in nodes.iter_mut() {
        if let Some(mut child) = node.child.take()
            && tokio::time::timeout_at(deadline, child.wait()).await.is_err()
        {
            eprintln!(
                "quorate: {} did not end in {} s and is killed",
                node.plan.name,
                GRACE.as_secs()
            );
            let _ = child.kill().await;
        }
    }
}

/// A process group of its own keeps the terminal's Ctrl-C away from the servers: they are told to end one by one. The pipe on
/// standard input tells them when this process is gone, however it went.
fn spawn(plan: &Plan) -> io::Result<Child> {
    let log = OpenOptions::new().create(true).append(true).open(&plan.log)?;
    Command::new(std::env::current_exe()?)
        .arg("serve")
        .arg(format!("--name={}", plan.name))
        .arg(format!("--data-dir={}", plan.data_dir.display()))
        .arg(format!("--listen-client-urls={}", plan.client_url))
        .arg(format!("--listen-peer-urls={}", plan.peer_url))
        .arg(format!("--initial-cluster={}", plan.cluster))
        .arg("--initial-cluster-token=quorate-demo")
        .arg("--log-format=console")
        .arg("--exit-with-parent")
        .env_clear()
        .envs(std::env::vars_os().filter(|(name, _)| !name.to_string_lossy().starts_with("ETCD_")))
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(log)
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
}

/// The last lines of a file.
fn tail(path: &Path) -> io::Result<String> {
    let mut file = std::fs::File::open(path)?;
    let len = file.metadata()?.len();
    file.seek(SeekFrom::Start(len.saturating_sub(2_000)))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let lines: Vec<&str> = text.lines().collect();
    Ok(lines[lines.len().saturating_sub(5)..].join("\n"))
}
