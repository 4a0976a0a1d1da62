//! One search by Stateright's checkers, with limits of time and memory, and an honest account of it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use stateright::{Checker, HasDiscoveries, Model};

use crate::cluster::{Cluster, Sizes};

/// When a search ends without having seen everything.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// After so long.
    pub time: Duration,
    /// When the process takes so many bytes of memory.
    pub memory: u64,
    /// After so many unique states.
    pub states: usize,
    /// Depth first: takes far less memory, and gives longer paths.
    pub depth_first: bool,
}

/// Why a search ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Every state within the bounds was seen.
    Exhausted,
    /// An invariant is broken.
    Violation,
    /// There was no more time.
    Time,
    /// There was no more memory.
    Memory,
    /// As many states as were wanted.
    States,
}

/// A broken invariant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// What is broken.
    pub invariant: Arc<str>,
    /// What led there, one action a line.
    pub path: Vec<String>,
}

/// The account of a search.
#[derive(Clone, Debug)]
pub struct Report {
    /// Different states, by their 64-bit fingerprints.
    pub unique: usize,
    /// States reached, each time counted.
    pub generated: usize,
    /// The longest path.
    pub depth: usize,
    /// How long it took.
    pub time: Duration,
    /// Why it ended.
    pub end: End,
    /// The largest memory of the process seen meanwhile, in bytes, where that is known. What a search before this one has left with the
    /// allocator counts as well.
    pub memory: u64,
    /// The broken invariant, if there is one.
    pub violation: Option<Violation>,
    /// What occurred, by kind.
    pub seen: std::collections::BTreeMap<&'static str, u64>,
    /// How large the tables became.
    pub sizes: Sizes,
}

/// Searches from all starting states of `cluster`.
pub fn search(cluster: Cluster, limits: Limits) -> Report {
    let halt = cluster.halt();
    let builder = cluster.checker().finish_when(HasDiscoveries::AnyFailures);
    match limits.depth_first {
        true => watch(builder.spawn_dfs(), &halt, limits),
        false => watch(builder.spawn_bfs(), &halt, limits),
    }
}

fn watch(mut checker: impl Checker<Cluster>, halt: &std::sync::atomic::AtomicBool, limits: Limits) -> Report {
    let begun = Instant::now();
    let mut memory = resident();
    let mut end = End::Exhausted;
    let handles = checker.handles();
    while !handles.iter().all(std::thread::JoinHandle::is_finished) {
        std::thread::sleep(
            Duration::from_millis(2)
                .max(begun.elapsed() / 50)
                .min(Duration::from_millis(100)),
        );
        memory = memory.max(resident());
        let over = [
            (begun.elapsed() >= limits.time, End::Time),
            (memory >= limits.memory, End::Memory),
            (checker.unique_state_count() >= limits.states, End::States),
        ];
        if end == End::Exhausted
            && let Some((_, why)) = over.into_iter().find(|over| over.0)
        {
            end = why;
            halt.store(true, Ordering::Relaxed);
        }
    }
    let time = begun.elapsed();
    for handle in handles {
        if let Err(panic) = handle.join() {
            std::panic::resume_unwind(panic);
        }
    }
    halt.store(false, Ordering::Relaxed);
    let violation = violation(&checker);
    Report {
        unique: checker.unique_state_count(),
        generated: checker.state_count(),
        depth: checker.max_depth(),
        time,
        end: if violation.is_some() { End::Violation } else { end },
        memory,
        violation,
        seen: checker.model().seen(),
        sizes: checker.model().sizes(),
    }
}

fn violation(checker: &impl Checker<Cluster>) -> Option<Violation> {
    let (_, path) = checker.discoveries().into_iter().next()?;
    let cluster = checker.model();
    let found = path.last_state().violation.clone()?;
    let start = checker.model().init_states().into_iter().next()?;
    let actions = path.into_actions();
    // Under the names that the nodes have at the start, so that it can be followed without any trade of names.
    let (invariant, actions) = match cluster.by_first_names(&start, actions.clone()) {
        Some((end, actions)) => (end.violation.unwrap_or(found), actions),
        None => (found, actions),
    };
    Some(Violation {
        invariant,
        path: actions.iter().map(|action| cluster.write(action)).collect(),
    })
}

/// The memory of this process in bytes; 0 where the system does not say.
pub fn resident() -> u64 {
    let Ok(text) = std::fs::read_to_string("/proc/self/statm") else {
        return 0;
    };
    let pages = text
        .split_whitespace()
        .nth(1)
        .and_then(|pages| pages.parse::<u64>().ok());
    pages.unwrap_or(0) * 4096
}
