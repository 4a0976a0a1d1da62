//! A lock service, and how to use one safely. Three nodes in this process; clients take a lock by turns, and one of them sleeps too long.
//!
//! ```console
//! $ cargo run -p quorate --example lock
//! ```
//!
//! A lock that is handed out by a service far away can only advise. Its holder may stop for a minute, lose the lock to somebody
//! else, and go on as if nothing had happened. Two rules make it safe all the same, and both are here:
//!
//! - Whoever has waited for a lock **asks again, linearizably, whether it is his**, before he believes it: what woke him up may be
//!   out of date ([`Client::lock`]).
//! - Every lock comes with a **fencing token**, a number that grows with each holder. What the lock protects is told the token with each
//!   write, and refuses one that is smaller than the largest it has seen ([`Store::write`]).

use std::collections::{BTreeMap, VecDeque};
use std::error::Error;
use std::io;
use std::net::TcpListener;
use std::path::Path;

use bytes::Bytes;
use quorate::{Builder, Checkpointed, Handle, LogId, NodeId, Running, Session, Sessions, State};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

/// What clients ask for.
#[derive(Serialize, Deserialize)]
enum Command {
    /// Take the lock, or wait in line for it.
    Acquire { lock: String, owner: String },
    /// Give the lock to the next in line. By its holder, or by anybody for a holder that is gone: it names the token, so it never hits
    /// a later holder.
    Release { lock: String, token: u64 },
}

/// A lock that is held.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Held {
    owner: String,
    token: u64,
    line: VecDeque<String>,
}

/// What is replicated: the locks that are held.
#[derive(Default)]
struct Locks {
    held: BTreeMap<String, Held>,
    /// Tells the clients of this node that something has changed. No part of the state.
    changed: watch::Sender<()>,
}

impl Locks {
    fn holder(&self, lock: &str) -> Option<Held> {
        self.held.get(lock).cloned()
    }

    /// The index of the entry is the token: no two are the same, and they grow.
    fn carry_out(&mut self, at: LogId, command: Command) {
        match command {
            Command::Acquire { lock, owner } => {
                let held = self.held.entry(lock).or_insert_with(|| Held {
                    owner: owner.clone(),
                    token: at.index.0,
                    line: VecDeque::new(),
                });
                if held.owner != owner && !held.line.contains(&owner) {
                    held.line.push_back(owner);
                }
            }
            Command::Release { lock, token } => {
                let Some(held) = self.held.get_mut(&lock).filter(|held| held.token == token) else {
                    return;
                };
                match held.line.pop_front() {
                    Some(next) => (held.owner, held.token) = (next, at.index.0),
                    None => drop(self.held.remove(&lock)),
                }
            }
        }
    }
}

impl State for Locks {
    type Output = Bytes;

    fn apply(&mut self, at: LogId, command: &Bytes) -> Bytes {
        // The same bytes fail or not on every node alike.
        match serde_json::from_slice(command) {
            Ok(command) => self.carry_out(at, command),
            Err(_) => return "not a command".into(),
        }
        Bytes::new()
    }

    fn save(&self) -> Vec<u8> {
        serde_json::to_vec(&self.held).expect("locks are plain data")
    }

    fn load(&mut self, saved: &[u8]) -> io::Result<()> {
        self.held = serde_json::from_slice(saved)?;
        Ok(())
    }

    fn batch_applied(&mut self) {
        self.changed.send_replace(());
    }
}

type Machine = Checkpointed<Sessions<Locks>>;

/// One client of the service.
struct Client {
    name: String,
    node: Handle<Machine>,
    session: Session<Machine>,
}

impl Client {
    async fn new(name: &str, node: Handle<Machine>) -> Result<Client, Box<dyn Error + Send + Sync>> {
        let session = Session::open(node.clone()).await?;
        let name = name.to_owned();
        Ok(Client { name, node, session })
    }

    async fn propose(&mut self, command: Command) -> Result<(), Box<dyn Error + Send + Sync>> {
        self.session.propose(serde_json::to_vec(&command)?).await?;
        Ok(())
    }

    /// Takes the lock, however long that takes, and answers its token.
    async fn lock(&mut self, lock: &str) -> Result<u64, Box<dyn Error + Send + Sync>> {
        let mut changed = self.node.local(|locks| locks.changed.subscribe()).await?;
        self.propose(Command::Acquire {
            lock: lock.into(),
            owner: self.name.clone(),
        })
        .await?;
        loop {
            // Cheap, and perhaps out of date: good enough to wait by, not to act upon.
            let name = lock.to_owned();
            let seems = self.node.local(move |locks| locks.holder(&name)).await?;
            if seems.is_some_and(|held| held.owner == self.name) {
                let name = lock.to_owned();
                let holder = self.node.read(move |locks| locks.holder(&name)).await?;
                if let Some(held) = holder.filter(|held| held.owner == self.name) {
                    return Ok(held.token);
                }
                // It was taken away while we were told that it is ours: back into the line.
                self.propose(Command::Acquire {
                    lock: lock.into(),
                    owner: self.name.clone(),
                })
                .await?;
            }
            changed.changed().await?;
        }
    }

    async fn unlock(&mut self, lock: &str, token: u64) -> Result<(), Box<dyn Error + Send + Sync>> {
        let lock = lock.into();
        self.propose(Command::Release { lock, token }).await
    }
}

/// What the lock protects: something outside the cluster that only one client may write at a time.
#[derive(Default)]
struct Store {
    value: u64,
    largest: u64,
}

impl Store {
    /// Refuses a writer whose lock went to somebody else meanwhile.
    fn write(&mut self, token: u64, value: u64) -> Result<(), String> {
        if token < self.largest {
            return Err(format!("token {token} is outdated by token {}", self.largest));
        }
        (self.largest, self.value) = (token, value);
        Ok(())
    }
}

type Nodes = Vec<(Handle<Machine>, Running)>;

async fn start(dir: &Path) -> Result<Nodes, Box<dyn Error + Send + Sync>> {
    let bind = |_| TcpListener::bind("127.0.0.1:0");
    let listeners = (0..3).map(bind).collect::<io::Result<Vec<_>>>()?;
    let addresses = listeners.iter().map(|listener| listener.local_addr());
    let addresses = addresses.collect::<io::Result<Vec<_>>>()?;
    let mut nodes = Vec::new();
    for (id, listener) in (1..).zip(listeners) {
        let mut node = Builder::new(NodeId(id), 0x10c4, dir.join(format!("n{id}"))).listener(listener);
        for (member, address) in (1..).zip(&addresses) {
            node = node.member(NodeId(member), address.to_string());
        }
        let open = |disk| Checkpointed::open(disk, Sessions::new(Locks::default()));
        nodes.push(node.start(open).await?);
    }
    Ok(nodes)
}

/// Lets clients write by turns, and one of them oversleep. Answers what was written, and why the sleeper's write was refused.
pub async fn run(dir: &Path) -> Result<(u64, String), Box<dyn Error + Send + Sync>> {
    let nodes = start(dir).await?;
    let store = std::sync::Arc::new(std::sync::Mutex::new(Store::default()));

    let mut clients = Vec::new();
    for ((node, _), name) in nodes.iter().zip(["ann", "bob", "cho"]) {
        let (node, store) = (node.clone(), store.clone());
        clients.push(tokio::spawn(async move {
            let mut client = Client::new(name, node).await?;
            for _ in 0..5 {
                let token = client.lock("store").await?;
                // Reading, thinking and writing in steps: without the lock the others would come between.
                let before = store.lock().expect("nobody panics").value;
                tokio::task::yield_now().await;
                store.lock().expect("nobody panics").write(token, before + 1)?;
                println!("{name} holds token {token} and writes {}", before + 1);
                client.unlock("store", token).await?;
            }
            Ok::<_, Box<dyn Error + Send + Sync>>(())
        }));
    }
    for client in clients {
        client.await??;
    }

    // Dan takes the lock and falls asleep. Eve has waited long enough and releases it for him; nobody told Dan.
    let mut dan = Client::new("dan", nodes[0].0.clone()).await?;
    let mut eve = Client::new("eve", nodes[1].0.clone()).await?;
    let old = dan.lock("store").await?;
    eve.unlock("store", old).await?;
    let new = eve.lock("store").await?;
    let written = store.lock().expect("nobody panics").value;
    store.lock().expect("nobody panics").write(new, written + 1)?;
    let refused = store.lock().expect("nobody panics").write(old, written + 100);
    let refused = refused.expect_err("Dan's token is the older one");
    println!(
        "eve writes {}, and dan's write is refused: {refused}",
        written + 1
    );

    for (node, running) in nodes {
        node.shutdown().await;
        running.await?;
    }
    let value = store.lock().expect("nobody panics").value;
    Ok((value, refused))
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    let dir = std::env::temp_dir().join(format!("quorate-lock-{}", std::process::id()));
    let result = run(&dir).await;
    std::fs::remove_dir_all(&dir)?;
    result.map(drop)
}
