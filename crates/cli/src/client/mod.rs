//! The client commands' way to a cluster: try the endpoints in order until one answers, and never repeat a write
//! that may have happened. What is asked and printed is in the files beside this one.

pub mod keys;
pub mod members;
pub mod membership;
pub mod progress;
pub mod replace;
pub mod watch;

use std::future::Future;
use std::time::Duration;

use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

use crate::args::ClientArgs;

/// Why a command failed, with the exit code that says so.
#[derive(Debug, PartialEq, Eq)]
pub struct Failure {
    /// See `quorate --help`.
    pub code: u8,
    /// For standard error.
    pub message: String,
}

impl Failure {
    /// Exit code 1: the server, or this program, says no.
    pub fn refused(message: impl Into<String>) -> Failure {
        Failure {
            code: 1,
            message: message.into(),
        }
    }

    /// Exit code 2.
    pub fn usage(message: impl Into<String>) -> Failure {
        Failure {
            code: 2,
            message: message.into(),
        }
    }

    /// Exit code 3: nobody answered.
    pub fn unreachable(message: impl Into<String>) -> Failure {
        Failure {
            code: 3,
            message: message.into(),
        }
    }

    /// Exit code 5: this member is not to be started again.
    pub fn never_again(message: impl Into<String>) -> Failure {
        Failure {
            code: 5,
            message: message.into(),
        }
    }

    /// Exit code 4. Nothing is printed.
    pub fn no_such_key() -> Failure {
        Failure {
            code: 4,
            message: String::new(),
        }
    }
}

/// Whether a call may be made twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// Yes: it changes nothing.
    Read,
    /// Only if it certainly did not happen the first time.
    Write,
}

/// A cluster, known by its endpoints.
#[derive(Clone, Debug)]
pub struct Cluster {
    endpoints: Vec<String>,
    dial_timeout: Duration,
    command_timeout: Option<Duration>,
}

/// How long an answer to a read is waited for, as etcdctl does.
const READ_TIMEOUT: Duration = Duration::from_secs(5);

/// The same for a write. A server gives up after 5 s and two election timeouts, and what it says then is worth more than no answer.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);

/// What a server answers to a write, with the code Unavailable, only when it has certainly done nothing and will do nothing.
const NOT_DONE: [&str; 2] = [
    "etcdserver: unhealthy cluster",
    "etcdserver: another membership change is under way",
];

/// The same, when another member, or the same one a moment later, may well do it.
const NOT_NOW: [&str; 2] = ["etcdserver: no leader", "etcdserver: leader changed"];

impl Cluster {
    /// The cluster that the options name.
    pub fn new(args: &ClientArgs) -> Result<Cluster, Failure> {
        Ok(Cluster {
            endpoints: endpoint_urls(&args.endpoints)?,
            dial_timeout: args.dial_timeout,
            command_timeout: args.command_timeout,
        })
    }

    /// The endpoints' URLs.
    pub fn endpoints(&self) -> &[String] {
        &self.endpoints
    }

    /// Adds endpoints that the cluster has told of, behind those that were given.
    pub fn learn<'a>(&mut self, urls: impl IntoIterator<Item = &'a String>) {
        for url in urls.into_iter().filter_map(|url| endpoint_url(url).ok()) {
            if !self.endpoints.contains(&url) {
                self.endpoints.push(url);
            }
        }
    }

    /// Connects to one endpoint.
    pub async fn connect(&self, endpoint: &str) -> Result<Channel, String> {
        Endpoint::from_shared(endpoint.to_owned())
            .map_err(|error| error.to_string())?
            .connect_timeout(self.dial_timeout)
            .tcp_nodelay(true)
            .connect()
            .await
            .map_err(|error| innermost(&error))
    }

    /// How long an answer is waited for.
    pub fn patience(&self, kind: Call) -> Duration {
        self.command_timeout.unwrap_or(match kind {
            Call::Read => READ_TIMEOUT,
            Call::Write => WRITE_TIMEOUT,
        })
    }

    /// Makes a call at one endpoint, within the time for it.
    pub async fn call_at<T, F>(
        &self,
        endpoint: &str,
        kind: Call,
        call: impl FnOnce(Channel) -> F,
    ) -> Result<T, Fault>
    where
        F: Future<Output = Result<T, Status>>,
    {
        let channel = self.connect(endpoint).await.map_err(Fault::NotSent)?;
        match tokio::time::timeout(self.patience(kind), call(channel)).await {
            Err(_) => Err(Fault::NoAnswer),
            Ok(answer) => answer.map_err(|status| Fault::Status(Box::new(status))),
        }
    }

    /// Makes a call at the first endpoint that can serve it.
    pub async fn call<T, F>(&self, kind: Call, call: impl Fn(Channel) -> F) -> Result<T, Failure>
    where
        F: Future<Output = Result<T, Status>>,
    {
        let mut tried = Vec::new();
        for endpoint in &self.endpoints {
            let fault = match self.call_at(endpoint, kind, &call).await {
                Ok(answer) => return Ok(answer),
                Err(fault) => fault,
            };
            if !fault.may_try_elsewhere(kind) {
                return Err(fault.failure(kind, endpoint));
            }
            tried.push(format!("{endpoint}: {}", fault.text()));
        }
        Err(Failure::unreachable(format!(
            "no endpoint could serve this:\n  {}",
            tried.join("\n  ")
        )))
    }
}

/// How one try at one endpoint went wrong.
#[derive(Debug)]
pub enum Fault {
    /// There was no connection.
    NotSent(String),
    /// No answer in time.
    NoAnswer,
    /// An answer that is an error, or the connection's end.
    Status(Box<Status>),
}

impl Fault {
    /// What happened, in a few words.
    pub fn text(&self) -> String {
        match self {
            Fault::NotSent(why) => format!("no connection: {why}"),
            Fault::NoAnswer => "no answer in time".to_owned(),
            Fault::Status(status) => status.message().to_owned(),
        }
    }

    /// Whether another endpoint may be asked the same.
    fn may_try_elsewhere(&self, kind: Call) -> bool {
        match (self, kind) {
            (Fault::NotSent(_), _) | (Fault::NoAnswer, Call::Read) => true,
            (Fault::NoAnswer, Call::Write) => false,
            // A learner serves hardly anything, and has done nothing.
            (Fault::Status(status), _) if status.message() == "etcdserver: rpc not supported for learner" => {
                true
            }
            (Fault::Status(status), Call::Read) => status.code() == Code::Unavailable,
            (Fault::Status(status), Call::Write) => {
                status.code() == Code::Unavailable && NOT_NOW.contains(&status.message())
            }
        }
    }

    fn failure(&self, kind: Call, endpoint: &str) -> Failure {
        let doubt = if kind == Call::Write {
            " (the write may have happened)"
        } else {
            ""
        };
        match self {
            Fault::Status(status)
                if status.code() != Code::Unavailable || NOT_DONE.contains(&status.message()) =>
            {
                Failure::refused(self.text())
            }
            _ => Failure::unreachable(format!("{endpoint}: {}{doubt}", self.text())),
        }
    }
}

/// The URLs of the endpoints that were given, else those of etcdctl's variable, else the one of a server on this machine.
pub fn endpoint_urls(given: &[String]) -> Result<Vec<String>, Failure> {
    let mut given = given.to_vec();
    if given.is_empty() {
        let etcdctl = std::env::var("ETCDCTL_ENDPOINTS").unwrap_or_default();
        given = etcdctl.split(',').map(str::to_owned).collect();
    }
    let mut endpoints = Vec::new();
    for text in given
        .iter()
        .map(|text| text.trim())
        .filter(|text| !text.is_empty())
    {
        endpoints.push(endpoint_url(text)?);
    }
    if endpoints.is_empty() {
        endpoints.push("http://127.0.0.1:2379".to_owned());
    }
    Ok(endpoints)
}

/// `host:port` or `http://host:port`, as etcdctl takes them.
fn endpoint_url(text: &str) -> Result<String, Failure> {
    let url = if text.contains("://") {
        text.to_owned()
    } else {
        format!("http://{text}")
    };
    let parsed = crate::urls::Url::parse(&url);
    parsed
        .map(|url| url.to_string())
        .map_err(|error| Failure::usage(format!("--endpoints: {error}")))
}

/// The first cause, which says more than "transport error".
fn innermost(error: &dyn std::error::Error) -> String {
    let mut at = error;
    while let Some(source) = at.source() {
        at = source;
    }
    at.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_with_and_without_scheme() {
        assert_eq!(endpoint_url("127.0.0.1:1").unwrap(), "http://127.0.0.1:1");
        assert_eq!(endpoint_url("http://h:1/").unwrap(), "http://h:1");
        assert_eq!(endpoint_url("https://h:1").unwrap_err().code, 2);
        assert_eq!(endpoint_url("h").unwrap_err().code, 2);
    }

    #[test]
    fn a_write_is_repeated_only_when_it_was_certainly_not_done() {
        let status = |message: &str| Fault::Status(Box::new(Status::unavailable(message)));
        assert!(Fault::NotSent("refused".into()).may_try_elsewhere(Call::Write));
        assert!(status("etcdserver: no leader").may_try_elsewhere(Call::Write));
        for fault in [
            Fault::NoAnswer,
            status("etcdserver: request timed out"),
            status("connection reset"),
        ] {
            assert!(!fault.may_try_elsewhere(Call::Write), "{fault:?}");
            assert!(fault.may_try_elsewhere(Call::Read), "{fault:?}");
            let failure = fault.failure(Call::Write, "http://a:1");
            assert!(failure.code == 3 && failure.message.ends_with("(the write may have happened)"));
        }
        assert!(status("etcdserver: leader changed").may_try_elsewhere(Call::Write));
        for refusal in NOT_DONE.map(status) {
            assert!(!refusal.may_try_elsewhere(Call::Write), "{refusal:?}");
            let failure = refusal.failure(Call::Write, "http://a:1");
            assert_eq!(failure, Failure::refused(refusal.text()), "no doubt about it");
        }
        let invalid = Fault::Status(Box::new(Status::invalid_argument(
            "etcdserver: key is not provided",
        )));
        assert!(!invalid.may_try_elsewhere(Call::Read));
        assert_eq!(invalid.failure(Call::Read, "x").code, 1);
    }
}
