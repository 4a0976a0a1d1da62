//! `quorate demo`: a cluster of real server processes on this machine, and a live view of it.
//!
//! This file is the story from start to end; the processes are in [`node`], what is shown in [`view`].

mod node;
mod view;

use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::args::DemoArgs;
use crate::client::Failure;
use node::{Node, Plan};
use view::View;

/// How often the nodes are asked how they are.
const EVERY: Duration = Duration::from_millis(500);

/// Runs the demo until Ctrl-C.
pub async fn run(args: DemoArgs) -> Result<(), Failure> {
    let plans = plan(&args)?;
    prepare_directory(&args)?;
    let mut nodes = Vec::new();
    for plan in &plans {
        nodes.push(Node::start(plan.clone()).map_err(|error| cannot_start(plan, &error))?);
    }
    let mut view = View::new(&args, &plans);
    let result = watch_over(&args, &mut nodes, &mut view).await;
    view.ending();
    node::stop_all(&mut nodes).await;
    if result.is_ok() {
        view.ended();
    }
    result
}

fn cannot_start(plan: &Plan, error: &std::io::Error) -> Failure {
    Failure::refused(format!("demo: cannot start {}: {error}", plan.name))
}

/// Looks at the nodes and shows them, until a signal comes (fine) or a node proves unable to start (not).
async fn watch_over(args: &DemoArgs, nodes: &mut [Node], view: &mut View) -> Result<(), Failure> {
    let handler = |kind| signal(kind).map_err(|error| Failure::refused(format!("demo: signals: {error}")));
    let mut interrupt = handler(SignalKind::interrupt())?;
    let mut terminate = handler(SignalKind::terminate())?;
    let mut hangup = handler(SignalKind::hangup())?;
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let restart_after = Duration::from_secs(args.restart_after);
    loop {
        tokio::select! {
            _ = interrupt.recv() => return Ok(()),
            _ = terminate.recv() => return Ok(()),
            _ = hangup.recv() => return Ok(()),
            _ = ticks.tick() => {}
        }
        node::look_at_all(nodes).await;
        for node in nodes.iter_mut() {
            let Some(since) = node.down_since().filter(|_| !node.is_out()) else {
                continue;
            };
            if !node.ever_served() {
                return Err(Failure::refused(format!("demo: {}", node.why_down())));
            }
            if since.elapsed() >= restart_after {
                let name = node.plan().name.clone();
                node.restart()
                    .map_err(|error| Failure::refused(format!("demo: {name}: {error}")))?;
            }
        }
        view.show(nodes, Instant::now());
    }
}

/// Names, ports and directories of all nodes. Fails if a port is taken, before anything is started.
fn plan(args: &DemoArgs) -> Result<Vec<Plan>, Failure> {
    let client_port = |k: u16| args.base_port + 100 * k;
    let peer_url = |k: u16| format!("http://127.0.0.1:{}", client_port(k) + 1);
    let cluster: Vec<String> = (0..args.nodes)
        .map(|k| format!("n{}={}", k + 1, peer_url(k)))
        .collect();
    let mut plans = Vec::new();
    for k in 0..args.nodes {
        let name = format!("n{}", k + 1);
        for (port, whom) in [
            (client_port(k), "clients"),
            (client_port(k) + 1, "the other nodes"),
        ] {
            check_port(port, &format!("{name} needs it for {whom}"), args)?;
        }
        plans.push(Plan {
            client_url: format!("http://127.0.0.1:{}", client_port(k)),
            peer_url: peer_url(k),
            cluster: cluster.join(","),
            data_dir: args.data_dir.join(&name),
            log: args.data_dir.join(format!("{name}.log")),
            name,
        });
    }
    Ok(plans)
}

fn check_port(port: u16, why: &str, args: &DemoArgs) -> Result<(), Failure> {
    // Bound and let go at once: a listener without connections leaves nothing behind on its port.
    match TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
        Ok(_) => Ok(()),
        Err(error) => {
            let last = 100 * (args.nodes - 1) + 1;
            let other = if args.base_port == 12_379 { 22_379 } else { 12_379 };
            Err(Failure::refused(format!(
                "demo: port {port} cannot be used ({error}); {why}. Other ports: --base-port (the demo takes base port \
                 to base port + {last}), for example --base-port {other}"
            )))
        }
    }
}

/// Makes the directory, or checks that it is one of a demo of the same shape: a node's ids come from the addresses, so
/// another shape could not go on with the data.
fn prepare_directory(args: &DemoArgs) -> Result<(), Failure> {
    let dir = &args.data_dir;
    let failed = |error: std::io::Error| Failure::refused(format!("demo: {}: {error}", dir.display()));
    let shape = format!("--nodes {} --base-port {}\n", args.nodes, args.base_port);
    let marker = dir.join("demo");
    if is_used(dir).map_err(failed)? {
        match std::fs::read_to_string(&marker) {
            Ok(found) if found == shape => return Ok(()),
            Ok(found) => {
                return Err(Failure::refused(format!(
                    "demo: {} holds a demo with {}; use these options, or another --data-dir, or remove it",
                    dir.display(),
                    found.trim()
                )));
            }
            Err(_) => {
                return Err(Failure::refused(format!(
                    "demo: {} is not empty and not a demo's; choose another --data-dir",
                    dir.display()
                )));
            }
        }
    }
    std::fs::create_dir_all(dir).map_err(failed)?;
    std::fs::write(&marker, shape).map_err(failed)
}

fn is_used(dir: &Path) -> std::io::Result<bool> {
    match std::fs::read_dir(dir) {
        Ok(mut entries) => Ok(entries.next().is_some()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}
