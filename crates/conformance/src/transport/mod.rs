//! What members need of the connections between them: order, promptness, an end that is noticed, back-pressure, and independence of each
//! other. Without it nothing goes wrong with the data (the algorithm takes any network), but the cluster may stand still.

mod memory;

use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use quorate::{Stream, Transport};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
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

type Running<'a> = Pin<Box<dyn Future<Output = Outcome> + 'a>>;

/// A check, by the sentence that it proves. It may wait so long for what must come.
type Check = (&'static str, for<'a> fn(&'a Ends, Duration) -> Running<'a>);

const CHECKS: &[Check] = &[
    (
        "bytes arrive as they were written, in order, in both directions",
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
            Ok(ends) => run(&ends, patience).await,
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
async fn write_all(stream: &mut Box<dyn Stream>, bytes: &[u8], seed: u64) -> io::Result<()> {
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

async fn in_order(ends: &Ends, patience: Duration) -> Outcome {
    let (mut near, mut far) = connect(ends, patience).await?;
    let mut random = Random::new(1);
    let bytes = random.bytes(3 << 20);
    for name in ["dialler", "listener"] {
        let mut read = vec![0; bytes.len()];
        let (written, arrived) = tokio::join!(
            soon("write", patience, write_all(&mut near, &bytes, 2)),
            soon("read", patience, far.read_exact(&mut read)),
        );
        written?;
        arrived?;
        let wrong = read
            .iter()
            .zip(&bytes)
            .position(|(read, written)| read != written);
        ensure!(
            wrong.is_none(),
            "byte {} from the {name} is another one",
            wrong.unwrap_or_default()
        );
        std::mem::swap(&mut near, &mut far);
    }
    Ok(())
}

async fn prompt(ends: &Ends, patience: Duration) -> Outcome {
    let (mut near, mut far) = connect(ends, patience).await?;
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

async fn ending(ends: &Ends, patience: Duration) -> Outcome {
    for dialler_ends in [true, false] {
        let (near, far) = connect(ends, patience).await?;
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

async fn nobody(ends: &Ends, patience: Duration) -> Outcome {
    match timeout(patience, ends.dials.connect(&ends.nowhere)).await {
        Err(_) => Err(format!("waited {patience:?} in vain for an error")),
        Ok(Ok(_)) => Err("there is a connection to nobody".to_owned()),
        Ok(Err(_)) => Ok(()),
    }
}

/// More than any connection should take in while nobody reads.
const TOO_MUCH: usize = 128 << 20;

async fn independent(ends: &Ends, patience: Duration) -> Outcome {
    let (mut stuck, _unread) = connect(ends, patience).await?;
    let piece = vec![7; 1 << 20];
    let flood = async {
        for _ in 0..TOO_MUCH / piece.len() {
            stuck
                .write_all(&piece)
                .await
                .map_err(|error| format!("cannot write: {error}"))?;
        }
        Ok::<_, String>(())
    };
    let others = async {
        for _ in 0..5 {
            prompt(ends, patience).await?;
        }
        Ok::<_, String>(())
    };
    tokio::select! {
        // Looked at first, so that a writer that never waits is found out.
        biased;
        flooded = flood => {
            flooded?;
            Err(format!("{TOO_MUCH} bytes were written, and nobody has read any"))
        }
        others = others => others,
    }
}

async fn hasty(ends: &Ends, patience: Duration) -> Outcome {
    for _ in 0..20 {
        drop(soon("connect", patience, ends.dials.connect(&ends.address)).await);
    }
    // Those that ended are accepted or not, as the transport likes. One that stays must be.
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
    soon("accept a connection after some that ended", patience, find).await
}
