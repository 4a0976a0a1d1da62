//! The command line of the model checker: `check` searches, `replay` follows one path, `corpus` says where searches start, `walk` looks for more. It exits with 0 if
//! all is well, with 1 for an error, with 2 for a broken invariant.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::{Parser, Subcommand};
use quorate_base::NodeId;
use quorate_model::hunt::{Walks, hunt};
use quorate_model::kind::Kind;
use quorate_model::report;
use quorate_model::script::{Played, Script, ScriptError, corpus, status, told, walks};
use quorate_model::search::{End, Limits, Report, resident, search};

/// Model checking of the shipped Raft core.
#[derive(Debug, Parser)]
#[command(name = "quorate-model", arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Search all that can happen, level by level, until time or memory is used up.
    ///
    /// A level takes at most half of the time that is left, shared out evenly among the starts; the starts that it exhausted go on to the next.
    #[command(after_help = "Example: quorate-model check --from all --minutes 120 --memory 16GiB --deep 6")]
    Check(Check),
    /// Follow a script, or a path that `check` has printed.
    Replay {
        /// The file.
        file: PathBuf,
    },
    /// The states that searches start from, besides empty logs.
    Corpus,
    /// Walk at random in search of situations that are hard to come by, and of marks of the core that no story told by hand reaches.
    #[command(after_help = "Example: quorate-model walk --count 100000 --write crates/model/corpus/walks")]
    Walk(Walk),
}

#[derive(Debug, clap::Args)]
struct Walk {
    /// The seed of the first walk.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How many walks.
    #[arg(long, default_value_t = 1000)]
    count: u64,
    /// Actions in each.
    #[arg(long, default_value_t = 80)]
    length: usize,
    /// Write the shortest story of each into this folder.
    #[arg(long)]
    write: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
struct Check {
    /// static, membership or snapshots; all of them if not given.
    #[arg(long)]
    model: Option<Kind>,
    /// initial (empty logs), nameless (empty logs, lease reads on, nodes that only differ by name not told apart), told (by hand), walks, corpus (both), all, or the name of one state of the corpus.
    #[arg(long, default_value = "all")]
    from: String,
    /// Stop after so many minutes.
    #[arg(long, default_value_t = 5.0)]
    minutes: f64,
    /// Stop a search when the process takes so much memory.
    #[arg(long, default_value = "4GiB", value_parser = bytes)]
    memory: u64,
    /// Depth first: a tenth of the memory, long paths.
    #[arg(long)]
    depth_first: bool,
    /// Keep half of the time for a search depth first from every start, within the bounds of this level.
    #[arg(long, value_name = "LEVEL")]
    deep: Option<u8>,
    /// Begin with this level of the bounds.
    #[arg(long, default_value_t = 1)]
    level: u8,
    /// End with this one.
    #[arg(long, default_value_t = 20)]
    last_level: u8,
}

/// "16GiB", "500MiB" or a number of bytes.
fn bytes(text: &str) -> Result<u64, String> {
    let unit = |suffix: &str, size: u64| {
        let number = text.strip_suffix(suffix)?;
        Some(number.trim().parse::<u64>().ok()?.checked_mul(size))
    };
    let found = unit("GiB", 1 << 30)
        .or_else(|| unit("MiB", 1 << 20))
        .or_else(|| unit("", 1));
    found
        .flatten()
        .ok_or_else(|| format!("{text} is no size: 16GiB, 500MiB or a number of bytes"))
}

/// Where a search starts: empty logs, or a script.
#[derive(Clone, Debug)]
struct Start {
    kind: Kind,
    script: Option<Script>,
    /// States that differ only in what nodes are called are one.
    nameless: bool,
}

impl Start {
    fn name(&self) -> &str {
        match &self.script {
            Some(script) => &script.name,
            None if self.nameless => "nameless",
            None => "initial",
        }
    }

    fn play(&self) -> Result<Played, ScriptError> {
        let Some(script) = &self.script else {
            let nameless = self.kind.nameless().filter(|_| self.nameless);
            let leases = if nameless.is_some() { " leases=1" } else { "" };
            let cluster = nameless.unwrap_or_else(|| self.kind.cluster(None, None));
            return Ok(Played {
                kind: self.kind,
                header: format!("model {}{leases}", self.kind),
                state: cluster.first().clone(),
                cluster,
                actions: Vec::new(),
                last: None,
            });
        };
        script.play()
    }
}

fn starts(check: &Check) -> anyhow::Result<Vec<Start>> {
    let wanted = |kind: Kind| check.model.is_none_or(|model| model == kind);
    let kinds = || Kind::ALL.into_iter().filter(|kind| wanted(*kind));
    let empty = |kind, nameless| Start {
        kind,
        script: None,
        nameless,
    };
    let mut starts = Vec::new();
    if ["initial", "all"].contains(&check.from.as_str()) {
        starts.extend(kinds().map(|kind| empty(kind, false)));
    }
    if ["nameless", "all"].contains(&check.from.as_str()) {
        let kinds = kinds().filter(|kind| kind.nameless().is_some());
        starts.extend(kinds.map(|kind| empty(kind, true)));
    }
    for (folder, scripts) in [("told", told()?), ("walks", walks()?)] {
        for script in scripts {
            let kind = script.kind().with_context(|| script.name.clone())?;
            let names = [folder, "corpus", "all", script.name.as_str()];
            if wanted(kind) && names.contains(&check.from.as_str()) {
                let script = Some(script);
                let nameless = false;
                starts.push(Start {
                    kind,
                    script,
                    nameless,
                });
            }
        }
    }
    if starts.is_empty() {
        bail!(
            "nothing is called {:?} there; see quorate-model corpus",
            check.from
        );
    }
    Ok(starts)
}

/// Level by level, and then in depth if that is asked for.
fn check(check: &Check) -> anyhow::Result<ExitCode> {
    let begun = Instant::now();
    let total = Duration::try_from_secs_f64(check.minutes * 60.0)?;
    let mut sum = report::Sum::default();
    println!("{}", report::HEADER);
    let all = starts(check)?;
    let for_levels = if check.deep.is_some() { total / 2 } else { total };
    let mut open = all.clone();
    for level in check.level..=check.last_level {
        let left = for_levels.saturating_sub(begun.elapsed());
        let share = if level == check.last_level { left } else { left / 2 };
        let Some(exhausted) = pass(check, open, level, share, check.depth_first, &mut sum)? else {
            return Ok(ExitCode::from(2));
        };
        open = exhausted;
    }
    if let Some(level) = check.deep {
        let left = total.saturating_sub(begun.elapsed());
        if pass(check, all, level, left, true, &mut sum)?.is_none() {
            return Ok(ExitCode::from(2));
        }
    }
    println!("\n{sum}, {:.0} s", begun.elapsed().as_secs_f64());
    Ok(ExitCode::SUCCESS)
}

/// From each of `starts` within the bounds of `level`. Those whose search saw everything; `None`, and told, if an invariant is broken.
fn pass(
    check: &Check,
    starts: Vec<Start>,
    level: u8,
    time: Duration,
    depth_first: bool,
    sum: &mut report::Sum,
) -> anyhow::Result<Option<Vec<Start>>> {
    let begun = Instant::now();
    let mut exhausted = Vec::new();
    let count = starts.len() as u32;
    for (start, left) in starts.into_iter().zip((1..=count).rev()) {
        let remaining = time.saturating_sub(begun.elapsed());
        if remaining.is_zero() {
            break;
        }
        let limits = Limits {
            time: remaining / left,
            memory: check.memory,
            states: usize::MAX,
            depth_first,
        };
        let Some(report) = run(&start, level, limits)? else {
            return Ok(None);
        };
        println!("{}", report::line(start.kind, start.name(), level, &report));
        sum.add(&report);
        if let Some(violation) = &report.violation {
            let played = start.play()?;
            println!("\n{}", report::path(&played, violation));
            return Ok(None);
        }
        if report.end == End::Exhausted {
            exhausted.push(start);
        }
    }
    Ok(Some(exhausted))
}

/// `None` if an invariant is broken on the way to the start already; that has been told then.
fn run(start: &Start, level: u8, limits: Limits) -> anyhow::Result<Option<Report>> {
    let played = match start.play() {
        Err(error @ ScriptError::Violation(..)) => {
            println!("\n# on the way to {}: {error}", start.name());
            return Ok(None);
        }
        played => played.with_context(|| format!("the script {}", start.name()))?,
    };
    let mut cluster = played.cluster;
    let bounds = played.kind.bounds_from(level, &cluster, &played.state);
    cluster.start_from(&played.state, bounds);
    // What a former search has left with the allocator is used again; it is not this one's.
    let memory = limits.memory.max(resident() + (64 << 20));
    Ok(Some(search(cluster, Limits { memory, ..limits })))
}

fn replay(file: &std::path::Path) -> anyhow::Result<ExitCode> {
    let played = match Script::open(file)?.play() {
        Ok(played) => played,
        Err(error @ ScriptError::Violation(..)) => {
            println!("{error}");
            return Ok(ExitCode::from(2));
        }
        Err(error) => return Err(error.into()),
    };
    for action in &played.actions {
        println!("{action}");
    }
    println!();
    let node = |id| played.cluster.node(&played.state, NodeId(id));
    for node in (1..).map_while(node) {
        println!("{}", status(&node));
    }
    Ok(ExitCode::SUCCESS)
}

fn show_corpus() -> anyhow::Result<ExitCode> {
    for script in corpus()? {
        println!("{} ({})", script.name, script.kind()?);
        for line in script.text.lines().take_while(|line| line.starts_with('#')) {
            println!("    {}", line.trim_start_matches(['#', ' ']));
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn walk(walk: &Walk) -> anyhow::Result<ExitCode> {
    let Walk {
        seed, count, length, ..
    } = *walk;
    let hunted = hunt(Walks { seed, count, length })?;
    if let Some(broken) = &hunted.broken {
        println!(
            "# seed {}: {}",
            broken.seed,
            broken.invariant.replace('\n', "\n# ")
        );
        println!("{}", broken.story.join("\n"));
        return Ok(ExitCode::from(2));
    }
    for (name, story) in &hunted.stories {
        println!(
            "{name}: seed {}, {} actions, {} are enough ({})",
            story.seed,
            story.found_after,
            story.actions.len(),
            story.header
        );
        if let Some(folder) = &walk.write {
            let file = folder.join(format!("{name}.txt"));
            std::fs::write(&file, story.text()).with_context(|| file.display().to_string())?;
        }
    }
    println!("\n{} stories, {} actions", hunted.stories.len(), hunted.steps);
    for name in &hunted.missing {
        println!("did not arise: {name}");
    }
    Ok(ExitCode::SUCCESS)
}

fn main() -> anyhow::Result<ExitCode> {
    match Cli::parse().command {
        Command::Check(arguments) => check(&arguments),
        Command::Replay { file } => replay(&file),
        Command::Corpus => show_corpus(),
        Command::Walk(arguments) => walk(&arguments),
    }
}
