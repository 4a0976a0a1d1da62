//! What members need of the connections between them: order, promptness, an end that is noticed, back-pressure, and independence of each
//! other. Without it nothing goes wrong with the data (the algorithm takes any network), but the cluster may stand still.

mod memory;

use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use quorate::{Stream, Transport};
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::task::JoinSet;
use tokio::time::timeout;

pub use memory::{MemNetwork, MemTransport};

use crate::{Failure, Outcome, Random, Report, ensure, must};

/// Two ends to be checked.
#[derive(Clone, Debug)]
pub struct Ends {
    /// The one that connects.
    pub dials: Arc<dyn Transport>,
    /// The one that accepts.
    pub listens: Arc<dyn Transport>,
    /// Where `listens` is reached.
    pub address: String,
    /// An address at which nobody is reached.
    pub nowhere: String,
}

/// Two ends of one connection, the dialler's first.
type Connection = (Box<dyn Stream>, Box<dyn Stream>);

type Running = Pin<Box<dyn Future<Output = Outcome>>>;

/// A check, by the sentence that it proves. It may wait so long for what must come.
type Check = (&'static str, fn(Ends, Duration) -> Running);

const CHECKS: &[Check] = &[
    (
        "bytes arrive as they were written, in order, in both directions at once",
        |ends, patience| Box::pin(in_order(ends, patience)),
    ),
    (
        "what was flushed arrives without anything more being written",
        |ends, patience| Box::pin(prompt(ends, patience)),
    ),
    (
        "when one side drops its end, the other reads to the end of what was flushed, and no further",
        |ends, patience| Box::pin(ending(ends, patience)),
    ),
    (
        "when one side drops its end, the other cannot go on writing",
        |ends, patience| Box::pin(broken_off(ends, patience)),
    ),
    ("connecting to where nobody listens fails", |ends, patience| {
        Box::pin(nobody(ends, patience))
    }),
    (
        "connections do not wait for each other, and a writer waits for its reader",
        |ends, patience| Box::pin(independent(ends, patience)),
    ),
    (
        "connections that end at once do not keep others from being accepted",
        |ends, patience| Box::pin(hasty(ends, patience)),
    ),
    (
        "an accept that is given up loses no connection",
        |ends, patience| Box::pin(accepts_given_up(ends, patience)),
    ),
    (
        "a connect that is given up does not keep others from connecting",
        |ends, patience| Box::pin(connects_given_up(ends, patience)),
    ),
    (
        "many connections are made and served at once",
        |ends, patience| Box::pin(many(ends, patience)),
    ),
    ("a transport that is dropped listens no more", |ends, patience| {
        Box::pin(dropped(ends, patience))
    }),
];

/// Checks a transport on the current tokio runtime, which needs its I/O and time drivers. `fresh` gives two ends at every call. What does not happen
/// within `patience` counts as never: half a minute, unless the connections are slow.
///
/// # Errors
/// The first check that fails.
pub async fn contract<F>(mut fresh: impl FnMut() -> F, patience: Duration) -> Result<Report, Failure>
where
    F: Future<Output = io::Result<Ends>>,
{
    let mut report = Report::default();
    for (check, run) in CHECKS {
        let outcome = match fresh().await {
            Ok(ends) => run(ends, patience).await,
            Err(error) => Err(format!("no fresh ends: {error}")),
        };
        outcome.map_err(|what| Failure { check, what })?;
        report.checks += 1;
    }
    Ok(report)
}

/// Something that must happen.
async fn soon<T>(
    what: &str,
    patience: Duration,
    happens: impl Future<Output = io::Result<T>>,
) -> Result<T, String> {
    match timeout(patience, happens).await {
        Ok(result) => must(what, result),
        Err(_) => Err(format!("waited {patience:?} in vain to {what}")),
    }
}

async fn connect(ends: &Ends, patience: Duration) -> Result<Connection, String> {
    // Some transports greet, so both sides have to take part.
    let (dialled, accepted) = tokio::join!(
        soon("connect", patience, ends.dials.connect(&ends.address)),
        soon("accept", patience, ends.listens.accept()),
    );
    Ok((dialled?, accepted?.stream))
}

/// Writes in pieces of all sizes, some in several parts, and flushes.
async fn write_all(stream: &mut (impl AsyncWrite + Unpin), bytes: &[u8], seed: u64) -> io::Result<()> {
    let mut random = Random::new(seed);
    let mut rest = bytes;
    while !rest.is_empty() {
        let len = (1 + random.below(40_000) as usize).min(rest.len());
        let (one, other) = rest[..len].split_at(len / 3);
        let written = stream
            .write_vectored(&[IoSlice::new(one), IoSlice::new(other)])
            .await?;
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        rest = &rest[written..];
    }
    stream.flush().await
}

async fn in_order(ends: Ends, patience: Duration) -> Outcome {
    let (near, far) = connect(&ends, patience).await?;
    let (mut near_reads, mut near_writes) = tokio::io::split(near);
    let (mut far_reads, mut far_writes) = tokio::io::split(far);
    let mut random = Random::new(1);
    let (there, back) = (random.bytes(3 << 20), random.bytes(3 << 20));
    let (mut at_far, mut at_near) = (vec![0; there.len()], vec![0; back.len()]);
    let (one, other, third, fourth) = tokio::join!(
        soon("write", patience, write_all(&mut near_writes, &there, 2)),
        soon("write", patience, write_all(&mut far_writes, &back, 3)),
        soon("read", patience, far_reads.read_exact(&mut at_far)),
        soon("read", patience, near_reads.read_exact(&mut at_near)),
    );
    one.and(other).and(third).and(fourth)?;
    for (who, written, read) in [("dialler", there, at_far), ("listener", back, at_near)] {
        let wrong = read
            .iter()
            .zip(&written)
            .position(|(read, written)| read != written);
        ensure!(
            wrong.is_none(),
            "byte {} from the {who} is another one",
            wrong.unwrap_or_default()
        );
    }
    Ok(())
}

async fn prompt(ends: Ends, patience: Duration) -> Outcome {
    let connection = connect(&ends, patience).await?;
    ping_pong(connection, patience).await
}

async fn ping_pong((mut near, mut far): Connection, patience: Duration) -> Outcome {
    for round in 0..100_u8 {
        let ping = async {
            near.write_all(&[round]).await?;
            near.flush().await?;
            far.read_u8().await
        };
        let heard = soon("read a single byte that was flushed", patience, ping).await?;
        ensure!(heard == round, "{round} was written, and {heard} arrived");
        std::mem::swap(&mut near, &mut far);
    }
    Ok(())
}

async fn ending(ends: Ends, patience: Duration) -> Outcome {
    for dialler_ends in [true, false] {
        let (near, far) = connect(&ends, patience).await?;
        let (mut ending, mut staying) = if dialler_ends { (near, far) } else { (far, near) };
        let last = Random::new(3).bytes(10_000);
        let writing = async {
            ending.write_all(&last).await?;
            ending.flush().await
        };
        soon("write", patience, writing).await?;
        drop(ending);
        let mut read = vec![0; last.len()];
        soon(
            "read what was flushed before the end",
            patience,
            staying.read_exact(&mut read),
        )
        .await?;
        ensure!(read == last, "what was flushed before the end is something else");
        match timeout(patience, staying.read_u8()).await {
            Err(_) => return Err(format!("waited {patience:?} in vain for the end of a connection")),
            Ok(Ok(byte)) => return Err(format!("after the end there is another byte: {byte}")),
            Ok(Err(_)) => {}
        }
    }
    Ok(())
}

async fn broken_off(ends: Ends, patience: Duration) -> Outcome {
    for dialler_ends in [true, false] {
        let (near, far) = connect(&ends, patience).await?;
        let (ending, mut staying) = if dialler_ends { (near, far) } else { (far, near) };
        drop(ending);
        let piece = vec![7; 1 << 20];
        let flood = async {
            for _ in 0..TOO_MUCH / piece.len() {
                if staying.write_all(&piece).await.is_err() || staying.flush().await.is_err() {
                    return true;
                }
            }
            false
        };
        match timeout(patience, flood).await {
            Err(_) => return Err(format!("waited {patience:?} in vain for a write to fail")),
            Ok(false) => return Err(format!("{TOO_MUCH} bytes were written to nobody")),
            Ok(true) => {}
        }
    }
    Ok(())
}

async fn nobody(ends: Ends, patience: Duration) -> Outcome {
    match timeout(patience, ends.dials.connect(&ends.nowhere)).await {
        Err(_) => Err(format!("waited {patience:?} in vain for an error")),
        Ok(Ok(_)) => Err("there is a connection to nobody".to_owned()),
        Ok(Err(_)) => Ok(()),
    }
}

/// More than any connection should take in while nobody reads.
const TOO_MUCH: usize = 128 << 20;
/// A write that takes longer waits for the reader. On a machine so slow that one takes longer by itself, a writer that never waits is not found
/// out, and nothing else is.
const QUIET: Duration = Duration::from_secs(1);

async fn independent(ends: Ends, patience: Duration) -> Outcome {
    let (mut stuck, mut unread) = connect(&ends, patience).await?;
    // Of a length that is no multiple of a buffer's, and written over and over again.
    let pattern = Random::new(4).bytes(65_521);
    let mut sent = 0;
    while let Ok(written) = timeout(QUIET, stuck.write(&pattern[sent % pattern.len()..])).await {
        match must("write", written)? {
            0 => return Err("a write writes nothing".to_owned()),
            more => sent += more,
        }
        ensure!(
            sent < TOO_MUCH,
            "{sent} bytes were written, and nobody has read any"
        );
    }
    for _ in 0..5 {
        let other = connect(&ends, patience).await?;
        ping_pong(other, patience).await?;
    }
    // Now it is read, and the writer goes on.
    let mut read = vec![0; sent];
    let (flushed, arrived) = tokio::join!(
        soon("flush", patience, stuck.flush()),
        soon(
            "read what a writer had to wait with",
            patience,
            unread.read_exact(&mut read)
        ),
    );
    flushed.and(arrived)?;
    ensure!(
        read.chunks(pattern.len())
            .all(|chunk| *chunk == pattern[..chunk.len()]),
        "what a writer had to wait with is something else"
    );
    ping_pong((stuck, unread), patience).await
}

async fn hasty(ends: Ends, patience: Duration) -> Outcome {
    for _ in 0..20 {
        drop(soon("connect", patience, ends.dials.connect(&ends.address)).await);
    }
    still_served(&ends, "accept a connection after some that ended", patience).await
}

/// Those that ended are accepted or not, as the transport likes. One that stays must be.
async fn still_served(ends: &Ends, what: &str, patience: Duration) -> Outcome {
    let find = async {
        let mut near = ends.dials.connect(&ends.address).await?;
        near.write_all(b"!").await?;
        near.flush().await?;
        loop {
            if let Ok(mut accepted) = ends.listens.accept().await
                && accepted.stream.read_u8().await.is_ok_and(|byte| byte == b'!')
            {
                return Ok(());
            }
        }
    };
    soon(what, patience, find).await
}

/// Waits so long, or gives up when others have had so many turns.
async fn for_turns<T>(turns: usize, happens: impl Future<Output = T>) -> Option<T> {
    let pass = async {
        for _ in 0..turns {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        biased;
        happened = happens => Some(happened),
        () = pass => None,
    }
}

/// Connections in the checks that make some number of them.
const SOME: u8 = 100;

/// Connects, and sends a number that must come back.
async fn call(dials: Arc<dyn Transport>, address: String, number: u8) -> io::Result<()> {
    let mut near = dials.connect(&address).await?;
    near.write_all(&[number]).await?;
    near.flush().await?;
    match near.read_u8().await? {
        back if back == number => Ok(()),
        back => Err(io::Error::other(format!(
            "{number} was sent, and {back} came back"
        ))),
    }
}

/// Answers a [`call`], and waits for its end.
async fn answer(mut far: Box<dyn Stream>) -> io::Result<()> {
    let number = far.read_u8().await?;
    far.write_all(&[number]).await?;
    far.flush().await?;
    let _ = far.read_u8().await;
    Ok(())
}

async fn accepts_given_up(ends: Ends, patience: Duration) -> Outcome {
    let (dials, address) = (ends.dials.clone(), ends.address.clone());
    let calling = async {
        for number in 0..SOME {
            call(dials.clone(), address.clone(), number).await?;
        }
        Ok(())
    };
    let serving = async {
        let mut turns = 0;
        loop {
            turns = (turns + 1) % 5;
            if let Some(accepted) = for_turns(turns, ends.listens.accept()).await {
                answer(accepted?.stream).await?;
            }
            tokio::task::yield_now().await;
        }
    };
    let both = async {
        tokio::select! {
            called = calling => called,
            served = serving => served,
        }
    };
    soon("have every connection served", patience, both).await
}

async fn connects_given_up(ends: Ends, patience: Duration) -> Outcome {
    for turns in (0..5).cycle().take(50) {
        drop(for_turns(turns, ends.dials.connect(&ends.address)).await);
    }
    still_served(&ends, "be served after some connects were given up", patience).await
}

async fn many(ends: Ends, patience: Duration) -> Outcome {
    let mut tasks = JoinSet::new();
    for number in 0..SOME {
        tasks.spawn(call(ends.dials.clone(), ends.address.clone(), number));
    }
    // All stay open until the last one is there.
    let mut open = Vec::new();
    for _ in 0..SOME {
        open.push(soon("accept one of many", patience, ends.listens.accept()).await?);
    }
    for accepted in open {
        tasks.spawn(answer(accepted.stream));
    }
    let ends = async {
        while let Some(ended) = tasks.join_next().await {
            ended??;
        }
        Ok(())
    };
    soon("serve many connections", patience, ends).await
}

async fn dropped(ends: Ends, patience: Duration) -> Outcome {
    let connection = connect(&ends, patience).await?;
    ping_pong(connection, patience).await?;
    drop(ends.listens);
    // It may take a moment; what is connected meanwhile is nobody's.
    let refused = async {
        while ends.dials.connect(&ends.address).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(())
    };
    soon("be refused where nobody listens any more", patience, refused).await
}
