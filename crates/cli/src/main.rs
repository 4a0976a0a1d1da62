//! The `quorate` binary: picks the sub-command, runs it on a current-thread runtime, and turns its failure into a message and
//! an exit code. What the commands do is in the modules.

mod args;
mod bench;
mod client;
mod debug_log;
mod demo;
mod flags;
mod logging;
mod output;
mod recover;
mod serve;
mod settings;
mod urls;

use std::ffi::OsString;
use std::future::Future;
use std::process::ExitCode;
use std::time::Duration;

use clap::{CommandFactory, Parser};

use args::{Cli, Command, DebugCommand, MemberCommand};
use client::Failure;

/// Serving a request is many small allocations, which this allocator serves with markedly less work than the system's.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let result = match serve_as_etcd() {
        Some(flags) => flags.and_then(serve::run),
        None => run(Cli::parse().command),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if !failure.message.is_empty() {
                eprintln!("quorate: {}", failure.message);
            }
            ExitCode::from(failure.code)
        }
    }
}

/// Called by the name `etcd` (through a link), the program is what the caller expects: the server, with all arguments
/// as its flags.
fn serve_as_etcd() -> Option<Result<Vec<String>, Failure>> {
    let mut args = std::env::args_os();
    let program = args.next()?;
    let name = std::path::Path::new(&program).file_stem()?;
    let text = |arg: OsString| {
        arg.into_string()
            .map_err(|arg| Failure::usage(format!("{} is not text", arg.display())))
    };
    (name == "etcd").then(|| args.map(text).collect())
}

fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::Serve { flags } => serve::run(flags),
        Command::Demo(args) => block_on(demo::run(args)),
        Command::Put(args) => block_on(client::keys::put(args)),
        Command::Get(args) => block_on(client::keys::get(args)),
        Command::Del(args) => block_on(client::keys::del(args)),
        Command::Watch(args) => block_on(client::watch::watch(args)),
        Command::Status(args) => block_on(client::members::status(args)),
        Command::Member { command } => match command {
            MemberCommand::List(args) => block_on(client::members::list(args)),
            MemberCommand::Add(args) => block_on(client::membership::add(args)),
            MemberCommand::Remove(args) => block_on(client::membership::remove(args)),
            MemberCommand::Promote(args) => block_on(client::membership::promote(args)),
            MemberCommand::Update(args) => block_on(client::membership::update(args)),
            MemberCommand::Replace(args) => block_on(client::replace::replace(args)),
        },
        Command::Recover(args) => recover::run(&args),
        Command::Bench { command } => block_on(bench::run(command)),
        Command::Debug {
            command: DebugCommand::Log { dir },
        } => debug_log::run(&dir),
        Command::Version => {
            output::print(serve::version().as_bytes());
            Ok(())
        }
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "quorate", &mut script);
            output::print(&script);
            Ok(())
        }
    }
}

fn block_on(work: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::refused(format!("cannot start: {error}")))?;
    let done = runtime.block_on(work);
    // A thread that hangs on a broken disk must not keep the process.
    runtime.shutdown_timeout(Duration::from_secs(1));
    done
}
