//! `quorate serve`: from checked settings to a running server, and from a signal to its orderly end. What a server is
//! stands in `quorate-server`.

use std::io::Read;
use std::path::Path;

use quorate::{Fatal, JoinError, Joined, StartError};
use quorate_server::{API_VERSION, EndError, Member, ServeError, ServerConfig};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;

use crate::client::Failure;
use crate::flags::{self, Ask, Values};
use crate::settings::{self, Settings};
use crate::urls::Url;
use crate::{logging, output};

/// What `quorate version` and `--version` print.
pub fn version() -> String {
    format!("quorate {}\netcd API {API_VERSION}\n", env!("CARGO_PKG_VERSION"))
}

/// etcd's variables. Others need not even be text.
fn environment() -> Result<Vec<(String, String)>, Failure> {
    let named = std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value)));
    named
        .filter(|(name, _)| name.starts_with("ETCD_"))
        .map(|(name, value)| match value.into_string() {
            Ok(value) => Ok((name, value)),
            Err(_) => Err(Failure::usage(format!("the value of {name} is not text"))),
        })
        .collect()
}

/// Runs a server until it ends.
pub fn run(args: Vec<String>) -> Result<(), Failure> {
    let values = Values::parse(args, environment()?).map_err(|error| Failure::usage(error.to_string()))?;
    match values.ask {
        Ask::Run => {}
        Ask::Help => {
            output::print(flags::help().as_bytes());
            return Ok(());
        }
        Ask::Version => {
            output::print(version().as_bytes());
            return Ok(());
        }
    }
    let owner = quorate::owner(Path::new(values.get("data-dir")));
    let owner = owner.map_err(|error| Failure::refused(error.to_string()))?;
    let settings =
        Settings::new(&values, owner.is_some()).map_err(|error| Failure::usage(error.to_string()))?;
    logging::start(&values).map_err(Failure::usage)?;
    for remark in &values.remarks {
        tracing::warn!("{remark}");
    }
    announce(&settings);
    crate::block_on(async {
        let joined = match owner {
            // As with etcd, a member that has been started before goes on whatever the flag says.
            None if settings.joins => Some(join(&settings).await?),
            _ => None,
        };
        serve(
            server_config(settings, joined),
            values.is_true("exit-with-parent"),
        )
        .await
    })
}

/// Asks the members that the flags name who this one is.
async fn join(settings: &Settings) -> Result<Joined, Failure> {
    let addresses =
        |member: &settings::Member| -> Vec<String> { member.peer_urls.iter().map(Url::authority).collect() };
    let own = settings
        .members
        .get(&settings.id)
        .map(addresses)
        .unwrap_or_default();
    let others: Vec<String> = settings.members.values().flat_map(addresses).collect();
    let joined = quorate::join(&others, &own).await.map_err(|error| {
        let how = match error {
            JoinError::NotMember { .. } => format!(
                " (quorate member add {} --peer-urls {})",
                settings.name,
                own.iter()
                    .map(|at| format!("http://{at}"))
                    .collect::<Vec<_>>()
                    .join(",")
            ),
            _ => String::new(),
        };
        Failure::refused(format!("cannot join the cluster: {error}{how}"))
    })?;
    tracing::info!(
        member = format!("{:x}", joined.id.get()),
        cluster = format!("{:x}", joined.cluster),
        members = joined.members.len(),
        "joining"
    );
    Ok(joined)
}

fn announce(settings: &Settings) {
    let join = |texts: Vec<String>| texts.join(",");
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        name = settings.name,
        data_dir = %settings.data_dir.display(),
        clients = join(settings.listen_clients.iter().map(ToString::to_string).collect()),
        peers = join(settings.listen_peers.iter().map(ToString::to_string).collect()),
        "starting"
    );
}

async fn serve(config: ServerConfig, exit_with_parent: bool) -> Result<(), Failure> {
    let failed = |error: std::io::Error| Failure::refused(format!("cannot handle signals: {error}"));
    let signals = Signals::new().map_err(failed)?;
    let parent = if exit_with_parent {
        Some(closed_stdin())
    } else {
        None
    };
    let served = quorate_server::serve(config, told_to_end(signals, parent)).await;
    match served {
        Ok(()) => {
            tracing::info!("ended in order");
            Ok(())
        }
        Err(EndError::Start(ServeError::Node(error @ StartError::Refused { .. }))) => {
            Err(Failure::never_again(error.to_string()))
        }
        Err(error @ EndError::Start(_)) => Err(Failure::refused(error.to_string())),
        Err(EndError::Fatal(error)) => {
            tracing::error!(%error, "cannot go on");
            let message = error.to_string();
            Err(match error {
                Fatal::Removed | Fatal::Refused(_) => Failure::never_again(message),
                _ => Failure::refused(message),
            })
        }
    }
}

fn server_config(settings: Settings, joined: Option<Joined>) -> ServerConfig {
    let founders = || {
        let members = settings.members.iter().map(|(id, member)| {
            let peer_urls = member.peer_urls.iter().map(ToString::to_string).collect();
            let name = member.name.clone();
            (*id, Member { name, peer_urls })
        });
        (settings.id, settings.cluster_id, members.collect())
    };
    let found = |joined: &Joined| {
        let members = joined.members.iter().map(|(id, member)| {
            let peer_urls = member.addresses.iter().map(|at| format!("http://{at}")).collect();
            let name = member.name.clone();
            (*id, Member { name, peer_urls })
        });
        (joined.id, joined.cluster, members.collect())
    };
    let (id, cluster, members) = joined.as_ref().map_or_else(founders, found);
    let mut config = ServerConfig::new(id, cluster, members, settings.data_dir);
    config.name = settings.name;
    config.join = joined.is_some();
    config.token = Some(settings.token);
    config.priority = settings.priority;
    config.lease_reads = settings.lease_reads;
    config.strict_reconfig_check = settings.strict_reconfig_check;
    config.max_learners = settings.max_learners;
    config.listen_peers = settings.listen_peers;
    config.listen_clients = settings.listen_clients;
    config.advertise_clients = settings
        .advertise_clients
        .iter()
        .map(ToString::to_string)
        .collect();
    config.heartbeat = settings.heartbeat;
    config.election = settings.election;
    config.max_request_bytes = settings.max_request_bytes;
    config.progress_interval = settings.progress_interval;
    config
}

/// The signals that end a server.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Signals> {
        Ok(Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

/// Completes when the server is to end. A second signal does not wait for the orderly end any more.
async fn told_to_end(mut signals: Signals, parent: Option<oneshot::Receiver<()>>) {
    let parent_gone = async {
        match parent {
            Some(closed) => {
                let _ = closed.await;
            }
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        name = signals.next() => tracing::info!(signal = name, "ending"),
        () = parent_gone => tracing::info!("ending: standard input was closed"),
    }
    tokio::spawn(async move {
        let name = signals.next().await;
        tracing::warn!(signal = name, "ending at once");
        std::process::exit(1);
    });
}

/// Completes when standard input is closed. A thread of its own: there is no other way to wait for a pipe's end that
/// works for every kind of standard input.
fn closed_stdin() -> oneshot::Receiver<()> {
    let (closed, when) = oneshot::channel();
    std::thread::spawn(move || {
        let mut stdin = std::io::stdin().lock();
        let mut ignored = [0; 256];
        while stdin.read(&mut ignored).is_ok_and(|read| read > 0) {}
        let _ = closed.send(());
    });
    when
}
