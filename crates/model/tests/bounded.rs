//! What every run of the tests searches: each model from empty logs, and from each state of the corpus, as far as a number of states
//! goes. And that the checker finds what there is to find.

use std::collections::BTreeMap;
use std::time::Duration;

use quorate_model::cluster::Cluster;
use quorate_model::kind::Kind;
use quorate_model::node::Rules;
use quorate_model::report;
use quorate_model::script::{Played, Script, corpus, status, told, walks};
use quorate_model::search::{End, Limits, Report, Violation, search};
use quorate_model::state::{Bounds, State};
use quorate_raft::Config;
use stateright::Model;

/// Little enough for every test run; the command line goes on from there.
fn limits(states: usize) -> Limits {
    Limits {
        // States end a search, not a clock, so that every machine searches as much.
        time: Duration::from_secs(3600),
        memory: u64::MAX,
        states,
        depth_first: false,
    }
}

fn must_hold(kind: Kind, name: &str, level: u8, report: &Report) {
    println!("{}", report::line(kind, name, level, report));
    if let Some(violation) = &report.violation {
        panic!("{name}: {}\n{}", violation.invariant, violation.path.join("\n"));
    }
}

/// The first level of each model, to its end: and it contains what the model is about.
#[test]
fn the_first_level_holds_and_says_something_of_each_model() {
    let first_levels: [(&str, usize, &[&str]); 3] = [
        ("initial", 5_000, &["leads", "commits", "applies"]),
        (
            "elected-to-change",
            50_000,
            &["enters a joint configuration", "changes the configuration"],
        ),
        (
            "elected-to-compact",
            10_000,
            &["compacts", "sends a snapshot", "installs a snapshot"],
        ),
    ];
    for (kind, (name, least, contained)) in Kind::ALL.into_iter().zip(first_levels) {
        let (cluster, state) = start(kind, name);
        let bounds = kind.bounds(1);
        let before = cluster.seen();
        let report = search_from(cluster, &state, bounds);
        must_hold(kind, name, 1, &report);
        assert_eq!(report.end, End::Exhausted, "all of the first level");
        assert!(report.unique > least, "only {} states", report.unique);
        for what in contained {
            let more = report.seen.get(what) > before.get(what);
            assert!(more, "nobody {what} at the first level of {kind}");
        }
    }
}

/// The cluster of a start of this name, and its state.
fn start(kind: Kind, name: &str) -> (Cluster, State) {
    if name == "initial" {
        let cluster = kind.cluster(None, None);
        let first = cluster.first().clone();
        return (cluster, first);
    }
    let mut stories = told().expect("a readable corpus");
    stories.retain(|script| script.name == name);
    let played = stories.remove(0).play().expect("it can be played");
    assert_eq!(played.kind, kind);
    (played.cluster, played.state)
}

fn search_from(mut cluster: Cluster, state: &State, bounds: Bounds) -> Report {
    cluster.start_from(state, bounds);
    search(cluster, limits(usize::MAX))
}

/// Searches from each of these, far with little that may happen and a few steps with much; what was seen, by kind, and how many starts there
/// are of each model.
fn hold_from_each(
    scripts: Vec<Script>,
    levels: [(u8, usize); 2],
    least: usize,
) -> (BTreeMap<&'static str, u64>, BTreeMap<Kind, usize>) {
    let mut seen: BTreeMap<&'static str, u64> = BTreeMap::new();
    let mut kinds: BTreeMap<Kind, usize> = BTreeMap::new();
    for script in scripts {
        let mut unique = 0;
        for (level, states) in levels {
            let played = script
                .play()
                .unwrap_or_else(|error| panic!("{}: {error}", script.name));
            let mut cluster = played.cluster;
            let bounds = played.kind.bounds_from(level, &cluster, &played.state);
            cluster.start_from(&played.state, bounds);
            let report = search(cluster, limits(states));
            must_hold(played.kind, &script.name, level, &report);
            unique += report.unique;
            for (what, count) in report.seen {
                *seen.entry(what).or_default() += count;
            }
        }
        assert!(unique >= least, "{}: only {unique} states", script.name);
        *kinds.entry(script.kind().expect("it was played")).or_default() += 1;
    }
    (seen, kinds)
}

#[test]
fn every_model_holds_from_each_state_that_a_walk_has_found_on() {
    let stories = walks().expect("a readable corpus");
    let (_, kinds) = hold_from_each(stories, [(2, 4_000), (7, 3_000)], 3_000);
    assert!(
        kinds.values().sum::<usize>() >= 30 && kinds.len() == 3,
        "{kinds:?}"
    );
}

#[test]
fn every_model_holds_from_each_state_of_the_corpus_on() {
    let stories = told().expect("a readable corpus");
    let (seen, kinds) = hold_from_each(stories, [(2, 14_000), (7, 8_000)], 8_000);
    println!("{kinds:?} {seen:?}");
    assert!(
        kinds.values().sum::<usize>() >= 30 && kinds.len() == 3,
        "{kinds:?}"
    );
    let needed = [
        "leads",
        "commits",
        "truncates its disk",
        "restarts",
        "serves a read",
        "enters a joint configuration",
        "changes the configuration",
        "sends a snapshot",
        "installs a snapshot",
        "compacts",
        "has two writes on their way",
        "takes two inputs at once",
        "fills a cold Append",
    ];
    for what in needed {
        assert!(seen.contains_key(what), "nobody {what} anywhere");
    }
}

/// Three voters whose disks forget at a restart whom they had voted for.
fn forgetful() -> Cluster {
    forgetful_by(Kind::Static.rules(), false)
}

/// The same with lease reads on, and with all that differs only in names taken for one if `nameless`.
fn leasing_and_forgetful(nameless: bool) -> Cluster {
    forgetful_by(Kind::Static.leasing(), nameless)
}

fn forgetful_by(mut rules: Rules, nameless: bool) -> Cluster {
    rules.forgetful = true;
    let config = Config::of((1..=3).map(quorate_base::NodeId));
    let mut cluster = Cluster::new(3, &config, rules);
    if nameless {
        cluster.take_names_for_nothing();
    }
    let bounds = Bounds {
        campaigns: 2,
        crashes: 1,
        ..Bounds::default()
    };
    let first = cluster.first().clone();
    cluster.start_from(&first, bounds);
    cluster
}

#[test]
fn a_disk_that_forgets_its_vote_is_found_and_the_path_can_be_followed() {
    let report = search(forgetful(), limits(usize::MAX));
    let violation = report.violation.expect("two votes in a term");
    assert!(
        violation.invariant.contains("(S1)") || violation.invariant.contains("(S8)"),
        "{}",
        violation.invariant
    );
    let cluster = forgetful();
    let mut state = cluster.init_states().remove(0);
    for words in &violation.path {
        let action = cluster
            .read(&state, words)
            .unwrap_or_else(|| panic!("{words} is possible"));
        state = cluster.next_state(&state, action).expect("it makes a difference");
    }
    assert_eq!(state.violation, Some(violation.invariant));
}

/// What `check` prints is one action a line; `replay` must take it all back.
#[test]
fn a_printed_path_leads_where_it_came_from() {
    let show = |played: &Played| {
        let network = played.cluster.network(&played.state);
        let mut lines: Vec<String> = network.iter().map(|(_, parcel)| parcel.to_string()).collect();
        let node = |id| played.cluster.node(&played.state, quorate_base::NodeId(id));
        lines.extend((1..).map_while(node).map(|node| status(&node)));
        lines.sort();
        lines
    };
    for script in corpus().expect("a readable corpus") {
        let played = script.play().expect("it can be played");
        let violation = Violation {
            invariant: "two\nlines".into(),
            path: Vec::new(),
        };
        let name = script.name;
        let text = report::path(&played, &violation);
        let again = Script { name, text };
        let again = again
            .play()
            .unwrap_or_else(|error| panic!("{}: {error}", again.name));
        assert_eq!(show(&played), show(&again));
    }
}

#[test]
fn the_same_search_sees_the_same_states() {
    let run = |depth_first| {
        let (mut cluster, state) = start(Kind::Snapshots, "elected-to-compact");
        cluster.start_from(&state, Kind::Snapshots.bounds(1));
        let all = Limits {
            depth_first,
            ..limits(usize::MAX)
        };
        search(cluster, all).unique
    };
    assert_eq!(run(false), run(false));
    assert_eq!(
        run(false),
        run(true),
        "breadth first and depth first see the same"
    );
}

#[test]
fn levels_only_ever_allow_more() {
    for kind in Kind::ALL {
        for level in 1..20 {
            let (less, more) = (kind.bounds(level), kind.bounds(level + 1));
            assert!(
                less.is_within(&more) && less != more,
                "{kind}, level {level}: {less} / {more}"
            );
        }
    }
}

/// Where names are taken for nothing, a path is told under the names that the nodes have at its beginning.
#[test]
fn a_path_through_changing_names_can_be_followed_without() {
    let report = search(leasing_and_forgetful(true), limits(usize::MAX));
    let violation = report.violation.expect("two votes in a term");
    let cluster = leasing_and_forgetful(false);
    let mut state = cluster.init_states().remove(0);
    for words in &violation.path {
        let action = cluster
            .read(&state, words)
            .unwrap_or_else(|| panic!("{words} is possible"));
        state = cluster.next_state(&state, action).expect("it makes a difference");
    }
    assert_eq!(state.violation, Some(violation.invariant));
}
