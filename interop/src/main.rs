//! Clients of an etcd-compatible cluster, on the crate `etcd-client`. Knows nothing of what it talks to: a real etcd must pass as well.
//!
//! Usage: `quorate-interop http://127.0.0.1:2379 …` checks the API through each of the endpoints ([`api`]), says how many checks passed,
//! and fails if one did not. Before the endpoints may stand a command:
//!
//! - `puts CLIENTS TOTAL` is a load of writes ([`puts`]);
//! - `load HISTORY` is one of all kinds, noted in a file ([`load`]), which `verify HISTORY` checks ([`verify`]);
//! - `status` says who leads, and `move-leader ID` who shall ([`status`]).
//!
//! `quorate-interop forgetful-disk DIRECTORY` mounts a file system that forgets what was not synced ([`forgetful`]).

mod api;
#[cfg(target_os = "linux")]
mod forgetful;
mod history;
mod load;
mod options;
mod puts;
mod random;
mod status;
mod verify;

type Result<T = ()> = std::result::Result<T, Box<dyn std::error::Error>>;

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let endpoints: Vec<String> = std::env::args().skip(1).collect();
    if endpoints.is_empty() {
        eprintln!(
            "usage: quorate-interop [puts CLIENTS TOTAL | load HISTORY | verify HISTORY | status | move-leader ID] ENDPOINT…"
        );
        std::process::exit(2);
    }
    if let Some(outcome) = run_command(&endpoints).await {
        if let Err(error) = outcome {
            eprintln!("{error}");
            std::process::exit(1);
        }
        return;
    }
    let (passed, failed) = api::check(&endpoints).await;
    println!("{passed} passed, {failed} failed");
    std::process::exit(if failed == 0 { 0 } else { 1 });
}

/// The outcome of a subcommand; `None` if the first argument names none.
async fn run_command(args: &[String]) -> Option<Result> {
    let (command, rest) = args.split_first()?;
    match command.as_str() {
        "puts" => Some(run_puts(rest).await),
        "load" | "verify" => Some(run_on_history(command, rest).await),
        #[cfg(target_os = "linux")]
        "forgetful-disk" => Some(forgetful::run(rest)),
        "status" => {
            status::run(rest).await;
            Some(Ok(()))
        }
        "move-leader" => Some(run_move_leader(rest).await),
        _ => None,
    }
}

async fn run_move_leader(args: &[String]) -> Result {
    match args {
        [to, endpoints @ ..] if !endpoints.is_empty() => status::move_leader(to.parse()?, endpoints).await,
        _ => Err("move-leader needs ID ENDPOINT…".into()),
    }
}

async fn run_puts(args: &[String]) -> Result {
    match args {
        [clients, total, endpoints @ ..] if !endpoints.is_empty() => {
            puts::run(clients.parse()?, total.parse()?, endpoints).await
        }
        _ => Err("puts needs CLIENTS TOTAL ENDPOINT…".into()),
    }
}

async fn run_on_history(command: &str, args: &[String]) -> Result {
    let Some((history, rest)) = args.split_first() else {
        return Err(format!("{command} needs HISTORY ENDPOINT…").into());
    };
    let options = options::Options::parse(rest)?;
    if command == "load" {
        return load::run(&options, history).await;
    }
    if let Err(violation) = verify::run(&options, history).await? {
        eprintln!("{violation}");
        std::process::exit(verify::WRONG);
    }
    Ok(())
}
