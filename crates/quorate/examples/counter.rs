//! A durable, replicated counter. Three nodes run in this process, each with a directory and a port of its own, as three machines would.
//!
//! ```console
//! $ cargo run -p quorate --example counter      # and again: it counts on
//! $ cargo run -p quorate --example counter -- DIRECTORY PORT
//! ```

use std::{error::Error, io, path::Path};

use bytes::Bytes;
use quorate::{Builder, Checkpointed, Handle, LogId, NodeId, Running, Session, Sessions, StartError, State};

/// What is replicated. Commands are numbers as text; each is added, and answered with the sum.
#[derive(Default)]
struct Counter {
    sum: u64,
}

impl State for Counter {
    type Output = Bytes;

    fn apply(&mut self, _at: LogId, command: &Bytes) -> Bytes {
        let number: Option<u64> = std::str::from_utf8(command)
            .ok()
            .and_then(|text| text.parse().ok());
        self.sum = self.sum.wrapping_add(number.unwrap_or(0));
        self.sum.to_string().into()
    }

    fn save(&self) -> Vec<u8> {
        self.sum.to_le_bytes().to_vec()
    }

    fn load(&mut self, saved: &[u8]) -> io::Result<()> {
        self.sum = u64::from_le_bytes(saved.try_into().map_err(io::Error::other)?);
        Ok(())
    }
}

/// Kept in memory and saved now and then; with sessions, so that no number is added twice however often it has to be sent.
type Machine = Checkpointed<Sessions<Counter>>;

async fn start(id: u64, dir: &Path, port: u16) -> Result<(Handle<Machine>, Running), StartError> {
    let address = |id: u64| format!("127.0.0.1:{}", u64::from(port) + id - 1);
    let mut node = Builder::new(NodeId(id), 0xc0ffee, dir.join(format!("n{id}")));
    for member in 1..=3 {
        node = node.member(NodeId(member), address(member));
    }
    node.listen(address(id).parse().expect("an address"))
        .start(|disk| Checkpointed::open(disk, Sessions::new(Counter::default())))
        .await
}

/// Counts to ten, with one node stopped in between. Answers the sum.
pub async fn run(dir: &Path, port: u16) -> Result<u64, Box<dyn Error>> {
    let mut nodes = Vec::new();
    for id in 1..=3 {
        nodes.push(start(id, dir, port).await?);
    }
    // Any node takes commands: one that does not lead sends them on to the leader.
    let mut session = Session::open(nodes[0].0.clone()).await?;
    for n in 1..=10 {
        let sum = session.propose("1").await?;
        println!("one more: {}", String::from_utf8_lossy(&sum));
        if n == 5 {
            // Two of three are a majority. If this one led, another takes over.
            let (third, running) = nodes.remove(2);
            println!("stopping node 3; {:?} leads", third.status().leader);
            third.shutdown().await;
            running.await?;
        }
    }
    // Back again, it is told what it missed. A read sees all that was answered before it; asking twice does no harm.
    let (third, running) = start(3, dir, port).await?;
    let sum = loop {
        third
            .subscribe()
            .wait_for(|status| status.leader.is_some())
            .await?;
        if let Ok(sum) = third.read(|machine| machine.sum).await {
            break sum;
        }
    };
    nodes.push((third, running));
    println!("node 3 has {sum}");
    for (node, running) in nodes {
        node.shutdown().await;
        running.await?;
    }
    Ok(sum)
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let dir = args.next().unwrap_or_else(|| "counter.data".into());
    let port = args.next().map_or(Ok(7101), |port| port.parse())?;
    run(Path::new(&dir), port).await.map(drop)
}
