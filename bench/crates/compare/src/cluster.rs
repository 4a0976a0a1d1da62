//! Clusters of real server processes on free ports of the loopback address, with the systems' own defaults: nothing is passed but names,
//! addresses and the data directory, and both systems take the same flags. The directory goes when the cluster does.

use std::fs::{self, OpenOptions};
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::Signal;

use crate::children::Process;
use crate::process::{self, Memory, Spent, Usage};

/// Ports are taken from here on, below those that the system gives to outgoing connections: a member that is started again needs its port
/// back.
const FIRST_PORT: u16 = 12_000;
const LAST_PORT: u16 = 31_000;

/// How long a server may take to end in order.
const GRACE: Duration = Duration::from_secs(20);

/// What is measured.
#[derive(Clone, Debug)]
pub struct System {
    /// `quorate`, `etcd-3.5`, `etcd-3.6` or `floor`.
    pub name: String,
    /// What it says of its version.
    pub version: String,
    /// What is run.
    pub binary: PathBuf,
    /// How it is run.
    pub kind: Kind,
}

/// How a system is started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `quorate serve` and etcd's flags.
    Quorate,
    /// etcd's flags.
    Etcd,
    /// One process that does nothing.
    Floor,
}

/// A member.
#[derive(Debug)]
struct Node {
    command: Vec<String>,
    url: String,
    log: PathBuf,
    process: Option<Process>,
}

/// Servers that live as long as this does.
#[derive(Debug)]
pub struct Cluster {
    system: System,
    dir: PathBuf,
    nodes: Vec<Node>,
}

impl Cluster {
    /// Starts so many nodes with data in a new directory under `parent`, and does not wait for them.
    pub fn start(system: &System, size: usize, parent: &Path) -> Result<Cluster> {
        Cluster::start_with(system, size, parent, &[])
    }

    /// With further flags.
    pub fn start_with(system: &System, size: usize, parent: &Path, more: &[&str]) -> Result<Cluster> {
        let dir = parent.join(format!("{}-{}", system.name, std::process::id()));
        if dir.exists() {
            fs::remove_dir_all(&dir).with_context(|| dir.display().to_string())?;
        }
        fs::create_dir_all(&dir).with_context(|| dir.display().to_string())?;
        let size = if system.kind == Kind::Floor { 1 } else { size };
        let urls: Vec<String> = free_ports(2 * size)?
            .into_iter()
            .map(|port| format!("http://127.0.0.1:{port}"))
            .collect();
        let members: Vec<String> = (0..size)
            .map(|k| format!("n{}={}", k + 1, urls[size + k]))
            .collect();
        let nodes = (0..size)
            .map(|k| {
                let name = format!("n{}", k + 1);
                let mut command = flags(system.kind, &name, &dir, [&urls[k], &urls[size + k]], &members);
                command.extend(more.iter().map(|&flag| flag.to_owned()));
                Node {
                    command,
                    url: urls[k].clone(),
                    log: dir.join(format!("{name}.log")),
                    process: None,
                }
            })
            .collect();
        let mut cluster = Cluster {
            system: system.clone(),
            dir,
            nodes,
        };
        for k in 0..size {
            cluster.start_node(k)?;
        }
        Ok(cluster)
    }

    /// Starts a member that is down.
    pub fn start_node(&mut self, k: usize) -> Result<()> {
        let node = &mut self.nodes[k];
        let log = OpenOptions::new().create(true).append(true).open(&node.log)?;
        let mut command = Command::new(&self.system.binary);
        command
            .args(&node.command)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        for (name, _) in std::env::vars_os() {
            // Both systems read flags from variables.
            let name = name.to_string_lossy();
            if name.starts_with("ETCD_") || name.starts_with("QUORATE_") {
                command.env_remove(&*name);
            }
        }
        let process = Process::start(&mut command)
            .with_context(|| format!("cannot start {}", self.system.binary.display()))?;
        node.process = Some(process);
        Ok(())
    }

    /// The system.
    pub fn system(&self) -> &System {
        &self.system
    }

    /// How many members.
    pub fn size(&self) -> usize {
        self.nodes.len()
    }

    /// The members' client URLs.
    pub fn endpoints(&self) -> Vec<String> {
        self.nodes.iter().map(|node| node.url.clone()).collect()
    }

    /// The same, with that of member `first` in front.
    pub fn endpoints_from(&self, first: usize) -> Vec<String> {
        let mut endpoints = self.endpoints();
        endpoints.rotate_left(first);
        endpoints
    }

    /// `kill -9`, for one member; waits until it is gone.
    pub fn kill(&mut self, k: usize) -> Result<()> {
        Ok(self.process(k)?.kill()?)
    }

    /// Sends a signal to one member.
    pub fn signal(&mut self, k: usize, signal: Signal) -> Result<()> {
        Ok(self.process(k)?.signal(signal)?)
    }

    /// What each member has used so far.
    pub fn usage(&mut self) -> Result<Vec<Usage>> {
        self.check()?;
        (0..self.nodes.len())
            .map(|k| Usage::of(self.process(k)?.id()))
            .collect()
    }

    /// What all members together have used since.
    pub fn spent(&mut self, before: &[Usage]) -> Result<Spent> {
        let now = self.usage()?;
        Ok(now
            .iter()
            .zip(before)
            .map(|(now, before)| now.since(before))
            .sum())
    }

    /// One member's memory.
    pub fn memory(&mut self, k: usize) -> Result<Memory> {
        Memory::of(self.process(k)?.id())
    }

    /// Bytes on disk, of all members together.
    pub fn bytes_on_disk(&self) -> Result<u64> {
        let mut sum = 0;
        for k in 0..self.nodes.len() {
            let data = self.dir.join(format!("n{}", k + 1));
            sum += process::blocks(&data).with_context(|| data.display().to_string())?;
        }
        Ok(sum)
    }

    /// Bytes that the device with the data has written so far; none where that is not counted.
    pub fn device_written(&self) -> Result<Option<u64>> {
        process::device_written(&self.dir)
    }

    /// Fails if a member has ended, with what it said.
    pub fn check(&mut self) -> Result<()> {
        for (k, node) in self.nodes.iter_mut().enumerate() {
            let Some(process) = &mut node.process else {
                continue;
            };
            if let Some(status) = process.ended()? {
                bail!(
                    "{} n{} ended ({status}): {}",
                    self.system.name,
                    k + 1,
                    tail(&node.log)
                );
            }
        }
        Ok(())
    }

    /// Ends all members in order.
    pub fn stop(mut self) -> Result<()> {
        for node in &mut self.nodes {
            if let Some(process) = &mut node.process {
                process.signal(Signal::TERM)?;
            }
        }
        let until = Instant::now() + GRACE;
        for node in &mut self.nodes {
            if let Some(process) = &mut node.process {
                // Who does not end by itself is killed when dropped; what is measured is over.
                process.wait(until.saturating_duration_since(Instant::now()))?;
            }
        }
        Ok(())
    }

    fn process(&mut self, k: usize) -> Result<&mut Process> {
        self.nodes[k]
            .process
            .as_mut()
            .with_context(|| format!("n{} was never started", k + 1))
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for node in &mut self.nodes {
            node.process = None;
        }
        if std::thread::panicking() {
            eprintln!("the servers' logs are kept in {}", self.dir.display());
        } else if let Err(error) = fs::remove_dir_all(&self.dir) {
            eprintln!("cannot remove {}: {error}", self.dir.display());
        }
    }
}

fn flags(kind: Kind, name: &str, dir: &Path, [client, peer]: [&str; 2], members: &[String]) -> Vec<String> {
    if kind == Kind::Floor {
        return vec![
            "serve".to_owned(),
            "--listen".to_owned(),
            client.replace("http://", ""),
        ];
    }
    let mut flags = vec![
        format!("--name={name}"),
        format!("--data-dir={}", dir.join(name).display()),
        format!("--listen-client-urls={client}"),
        format!("--advertise-client-urls={client}"),
        format!("--listen-peer-urls={peer}"),
        format!("--initial-advertise-peer-urls={peer}"),
        format!("--initial-cluster={}", members.join(",")),
        "--initial-cluster-token=compare".to_owned(),
        "--initial-cluster-state=new".to_owned(),
    ];
    if kind == Kind::Quorate {
        flags.insert(0, "serve".to_owned());
    }
    flags
}

/// Ports that nobody listens on right now, none of them handed out before.
fn free_ports(count: usize) -> Result<Vec<u16>> {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let span = LAST_PORT - FIRST_PORT;
    // Several runs on one machine begin at different places.
    let offset = u16::try_from(std::process::id() * 131 % u32::from(span))?;
    let mut ports = Vec::new();
    for _ in 0..span {
        let next = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = FIRST_PORT + (offset + next % span) % span;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            ports.push(port);
        }
        if ports.len() == count {
            return Ok(ports);
        }
    }
    bail!("there are no {count} free ports from {FIRST_PORT} to {LAST_PORT}")
}

/// The last lines of a log.
fn tail(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap_or_else(|error| format!("{}: {error}", path.display()));
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(5)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_distinct() {
        let mut ports = free_ports(20).expect("free ports");
        ports.extend(free_ports(20).expect("more"));
        ports.sort_unstable();
        ports.dedup();
        assert_eq!(ports.len(), 40);
    }

    #[test]
    fn both_systems_get_the_same_flags() {
        let of = |kind| {
            let urls = ["http://127.0.0.1:1", "http://127.0.0.1:2"];
            flags(
                kind,
                "n1",
                Path::new("/d"),
                urls,
                &["n1=http://127.0.0.1:2".to_owned()],
            )
        };
        let (mut ours, theirs) = (of(Kind::Quorate), of(Kind::Etcd));
        assert_eq!(ours.remove(0), "serve");
        assert_eq!(ours, theirs);
        assert!(theirs.contains(&"--data-dir=/d/n1".to_owned()));
        assert_eq!(of(Kind::Floor), ["serve", "--listen", "127.0.0.1:1"]);
    }
}
