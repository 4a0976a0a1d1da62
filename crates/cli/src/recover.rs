//! `quorate recover`: the last resort when a majority of a cluster is lost for good. Shows what one surviving data directory holds and what
//! may be lost, and makes a new cluster of it only when a person, or a script in a person's name, says which cluster is meant.

use std::io::{self, BufRead, IsTerminal, Write};
use std::path::Path;

use quorate::recover::{RecoverError, Recovered, Remains};

use crate::args::RecoverArgs;
use crate::client::Failure;
use crate::output;

/// Runs the command.
pub fn run(args: &RecoverArgs) -> Result<(), Failure> {
    let dir = &args.data_dir;
    let (remains, revision) = quorate_server::recover::inspect(dir).map_err(|error| failed(dir, &error))?;
    output::print(shown(dir, &remains, revision).as_bytes());
    if args.dry_run {
        output::print(b"Nothing has been done.\n");
        return Ok(());
    }
    let confirmed = match args.confirm {
        Some(named) => named,
        None => ask(remains.cluster)?,
    };
    let recovered = quorate_server::recover::recover(dir, confirmed).map_err(|error| failed(dir, &error))?;
    output::print(done(&recovered).as_bytes());
    Ok(())
}

fn failed(dir: &Path, error: &RecoverError) -> Failure {
    Failure::refused(format!("recover: {}: {error}", dir.display()))
}

fn shown(dir: &Path, remains: &Remains, revision: i64) -> String {
    format!(
        "{} holds the data of\n{remains}\nits store is at revision {revision} as of entry {}\n\n\
         From this a new cluster can be made, with this member alone and a new cluster id. Do so only if a majority of the members is \
         lost for good: if they may come back, wait for them. Of several survivors, take the one whose log ends with the highest term \
         and, of those, the highest entry. No other member may be started from its old data afterwards.\n",
        dir.display(),
        remains.applied.index,
    )
}

/// Lets a person type the cluster's id.
fn ask(cluster: u64) -> Result<u64, Failure> {
    if !io::stdin().is_terminal() {
        return Err(Failure::usage(format!(
            "recover: not confirmed, since standard input is no terminal; --confirm {cluster:016x} confirms"
        )));
    }
    let mut out = io::stdout();
    let prompt = format!("To go on, type the id of the cluster ({cluster:016x}): ");
    // Without the question there is no answer either.
    let _ = out.write_all(prompt.as_bytes()).and_then(|()| out.flush());
    let mut line = String::new();
    let read = io::stdin().lock().read_line(&mut line);
    let typed = read.ok().and_then(|_| u64::from_str_radix(line.trim(), 16).ok());
    typed
        .filter(|typed| *typed == cluster)
        .ok_or_else(|| Failure::refused("recover: not confirmed; nothing has been done"))
}

fn done(recovered: &Recovered) -> String {
    let name = &recovered.before.name;
    format!(
        "Done: member {:016x} is cluster {:016x}, which begins with entry {}.\n\n\
         Next:\n  \
           1. start it with its old flags: quorate serve --name {name} ...\n  \
           2. add the others again, each with an empty data directory and one after the other:\n     \
                quorate member add NAME --peer-urls URL\n     \
                quorate serve --name NAME --initial-cluster-state existing ...\n",
        recovered.id.0, recovered.cluster, recovered.first,
    )
}
