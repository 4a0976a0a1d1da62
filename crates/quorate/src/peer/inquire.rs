//! Asking a member of a running cluster what there is to join. One question, one answer, one connection; whom to ask, and what to make of the
//! answer, is up to the caller.

use std::time::Duration;

use quorate_node::handshake::{ANSWER_HEAD, Answer, Hello, Welcome, answer_len};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

use crate::transport::Transport;

/// How long it may take altogether.
const PATIENCE: Duration = Duration::from_secs(5);

/// Asks whoever listens at `address` (`host:port`) for cluster and membership. `own` are the addresses of the peer listeners of
/// the one who asks.
///
/// # Errors
/// A text for people: it could not be reached, or does not tell.
pub(crate) async fn inquire(
    transport: &dyn Transport,
    address: &str,
    features: u32,
    own: Vec<String>,
) -> Result<Welcome, String> {
    let asking = async {
        let connecting = transport.connect(address);
        let mut stream = connecting.await.map_err(|error| error.to_string())?;
        match exchange(&mut stream, &Hello::inquiry(features, own)).await? {
            Answer::Welcome(welcome) => Ok(welcome),
            Answer::Refused { why, .. } => Err(format!("refused: {why}")),
            Answer::Accepted => Err("it takes this node for a member".to_owned()),
        }
    };
    timeout(PATIENCE, asking)
        .await
        .unwrap_or_else(|_| Err("no answer".to_owned()))
}

/// Greets, and reads what the other side says to it.
pub(super) async fn exchange(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    hello: &Hello,
) -> Result<Answer, String> {
    let hung_up = |_| "it hung up on the greeting".to_owned();
    // Who does not like its beginning may refuse it before it is written: what it says then tells more than that.
    let _ = stream.write_all(&hello.encode()).await;
    let _ = stream.flush().await;
    let mut head = [0; ANSWER_HEAD];
    stream.read_exact(&mut head).await.map_err(hung_up)?;
    let len = answer_len(&head).map_err(|error| error.to_string())?;
    let mut body = vec![0; len];
    stream.read_exact(&mut body).await.map_err(hung_up)?;
    Answer::decode(&head, body.into()).map_err(|error| error.to_string())
}
