//! What is made of the results: tables, and the generated parts of docs/performance.md. Everything between a pair of markers there is written
//! here, everything else by people.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::goals::{self, spread};
use crate::peers;
use crate::plots::{self, Plot};
use crate::results::{FLOOR, QUORATE, Results};
use crate::scenario;
use crate::table::{Table, number};

/// `bench/compare report`
#[derive(Clone, Debug, Args)]
pub struct Options {
    /// Results to take in, the later ones over the earlier [default: docs/performance/results.json and all of bench/target/results]
    #[arg(value_name = "FILE")]
    pub results: Vec<PathBuf>,
    /// The peer that the goals are held against
    #[arg(long, default_value = "etcd-3.5")]
    pub peer: String,
    /// Where `performance.md` is and the directory `performance` beside it [default: docs]
    #[arg(long, value_name = "DIR")]
    pub docs: Option<PathBuf>,
    /// Only print, write nothing
    #[arg(long)]
    pub print: bool,
}

/// Takes all results together; prints the tables; writes plots, the results and the generated parts of the document.
pub fn run(options: &Options) -> Result<()> {
    let docs = options
        .docs
        .clone()
        .unwrap_or_else(|| peers::repository().join("docs"));
    let kept = docs.join("performance/results.json");
    let mut results = Results::default();
    for path in files(options, &kept)? {
        results.take_in(Results::read(&path)?);
    }
    if results.samples.is_empty() {
        bail!("there are no results yet: run bench/compare and bench/failover first");
    }
    println!("{}", goals::table(&results, &options.peer).text());
    println!("{}", costs(&results).text());
    println!("{}", gaps(&results).text());
    if options.print {
        return Ok(());
    }
    let plots = plots::all(&results, &options.peer);
    results.write(&kept)?;
    for plot in &plots {
        let path = docs.join("performance").join(plot.file);
        fs::write(&path, &plot.svg).with_context(|| path.display().to_string())?;
    }
    let path = docs.join("performance.md");
    let mut text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    for (name, part) in parts(&results, &options.peer, &plots) {
        text = replaced(&text, name, &part).with_context(|| path.display().to_string())?;
    }
    fs::write(&path, text).with_context(|| path.display().to_string())?;
    eprintln!(
        "written: {} and {} plots beside {}",
        path.display(),
        plots.len(),
        kept.display()
    );
    Ok(())
}

fn files(options: &Options, kept: &Path) -> Result<Vec<PathBuf>> {
    if !options.results.is_empty() {
        return Ok(options.results.clone());
    }
    let mut all = Vec::new();
    let dir = peers::repository().join("bench/target/results");
    if dir.exists() {
        for entry in fs::read_dir(&dir)? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "json") {
                all.push(path);
            }
        }
    }
    all.sort();
    if kept.exists() {
        all.insert(0, kept.to_path_buf());
    }
    Ok(all)
}

/// The generated parts and their names.
fn parts(results: &Results, peer: &str, plots: &[Plot]) -> Vec<(&'static str, String)> {
    let commands: Vec<String> = results
        .commands
        .iter()
        .map(|command| format!("`{command}`"))
        .collect();
    let versions: Vec<String> = results
        .systems
        .iter()
        .filter(|(name, _)| *name != FLOOR)
        .map(|(name, version)| format!("{name} (`{version}`)"))
        .collect();
    let machine = format!(
        "Measured on {} with {}.\n\n{}. Systems: {}.\n",
        results.taken,
        commands.join(", "),
        results.machine.line(),
        versions.join(", ")
    );
    let failures: String = results
        .failures
        .iter()
        .map(|failure| format!("\nNot measured: {failure}.\n"))
        .collect();
    let machine = machine + &failures;
    let plots: String = plots
        .iter()
        .map(|plot| format!("![{}](performance/{})\n\n", plot.caption, plot.file))
        .collect();
    vec![
        ("machine", machine),
        ("goals", goals::table(results, peer).markdown()),
        ("costs", costs(results).markdown()),
        ("filled", filled(results).markdown()),
        ("gaps", gaps(results).markdown()),
        ("growth", growth(results).markdown()),
        ("plots", plots.trim_end().to_owned() + "\n"),
    ]
}

/// The text with everything between the markers `<!-- NAME -->` and `<!-- end NAME -->` replaced.
fn replaced(text: &str, name: &str, part: &str) -> Result<String> {
    let (begin, end) = (format!("<!-- {name} -->\n"), format!("<!-- end {name} -->"));
    let (before, rest) = text
        .split_once(&begin)
        .with_context(|| format!("there is no line {}", begin.trim()))?;
    let (_, after) = rest
        .split_once(&end)
        .with_context(|| format!("there is no {end} after {}", begin.trim()))?;
    Ok(format!("{before}{begin}\n{part}\n{end}{after}"))
}

/// Our system, the peers, the floor: those that the results know.
fn systems(results: &Results) -> Vec<&str> {
    let mut all = vec![QUORATE];
    all.extend(results.peers());
    all.push(FLOOR);
    all.retain(|system| results.systems.contains_key(*system));
    all
}

/// All scenarios with all systems' figures: medians, without ratios.
pub fn costs(results: &Results) -> Table {
    const FIGURES: [(&str, &str); 8] = [
        ("server CPU µs/op", "server_cpu_us"),
        ("client CPU µs/op", "client_cpu_us"),
        ("op/s", "throughput"),
        ("p50 ms", "p50_ms"),
        ("p99 ms", "p99_ms"),
        ("p99.9 ms", "p999_ms"),
        ("bytes written/op", "written_bytes"),
        ("sleeps/op", "sleeps"),
    ];
    let mut header = vec!["scenario", "system"];
    header.extend(FIGURES.iter().map(|(title, _)| *title));
    let mut table = Table::new(&header);
    for scenario in scenario::all(1.0) {
        for system in systems(results) {
            if results.spread(system, scenario.name, "server_cpu_us").is_none() {
                continue;
            }
            let mut row = vec![scenario.title.to_owned(), system.to_owned()];
            row.extend(FIGURES.iter().map(|(_, figure)| {
                let found = results.spread(system, scenario.name, figure);
                found.map_or("-".to_owned(), |spread| number(spread.median))
            }));
            table.row(row);
        }
    }
    table
}

/// After 500,000 puts.
pub fn filled(results: &Results) -> Table {
    let systems: Vec<&str> = systems(results)
        .into_iter()
        .filter(|system| *system != FLOOR)
        .collect();
    let mut header = vec!["after 500,000 puts over 100,000 keys (once)"];
    header.extend(&systems);
    let mut table = Table::new(&header);
    let mib = 1024.0 * 1024.0;
    for (title, scenario, figure, unit) in [
        (
            "server CPU per put, all 500,000, µs",
            "filled",
            "server_cpu_us",
            1.0,
        ),
        ("puts/s, 1000 clients", "filled", "throughput", 1.0),
        ("bytes written per put, all nodes", "filled", "written_bytes", 1.0),
        (
            "leader's own memory (anonymous), MiB",
            "filled",
            "leader_anonymous_bytes",
            mib,
        ),
        ("leader's pages of files, MiB", "filled", "leader_file_bytes", mib),
        ("on disk, three nodes, MiB", "filled", "bytes_on_disk", mib),
        ("restart of one member, ms", "restart-one", "ms", 1.0),
        ("restart of all members, ms", "restart-all", "ms", 1.0),
        (
            "start of a new cluster to its first write, ms",
            "start",
            "ms",
            1.0,
        ),
        ("CPU of three idle nodes, cores", "idle", "cores", 1.0),
    ] {
        let mut row = vec![title.to_owned()];
        row.extend(systems.iter().map(|system| {
            spread(
                results
                    .spread(system, scenario, figure)
                    .map(|spread| spread.over(unit)),
            )
        }));
        table.row(row);
    }
    table
}

/// Gaps in service.
pub fn gaps(results: &Results) -> Table {
    let mut table = Table::new(&[
        "longest time without a successful write, ms",
        "system",
        "median",
        "worst",
        "trials",
    ]);
    for (title, scenario, figure) in [
        ("kill -9 of the leader", "failover-kill", "longest_gap_ms"),
        ("SIGTERM of the leader", "failover-term", "longest_gap_ms"),
        ("from the start of all nodes", "failover-kill", "start_ms"),
    ] {
        for system in systems(results) {
            let Some(found) = results.spread(system, scenario, figure) else {
                continue;
            };
            table.row(vec![
                title.to_owned(),
                system.to_owned(),
                number(found.median),
                number(found.max),
                found.count.to_string(),
            ]);
        }
    }
    table
}

/// CPU per put by the number of keys that are there.
fn growth(results: &Results) -> Table {
    let mut table = Table::new(&[
        "keys",
        "server CPU µs/put",
        "op/s",
        "p99 ms",
        "CPU against the first",
    ]);
    let line = |figure| results.line(QUORATE, "growth", figure);
    let cpu = line("server_cpu_us");
    for (k, &(keys, us)) in cpu.iter().enumerate() {
        let at = |figure| {
            line(figure)
                .get(k)
                .map_or("-".to_owned(), |point| number(point.1))
        };
        table.row(vec![
            format!("{keys}"),
            number(us),
            at("throughput"),
            at("p99_ms"),
            number(us / cpu[0].1),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::Sample;

    #[test]
    fn only_what_is_between_the_markers_changes() {
        let text = "a\n<!-- goals -->\nold\n<!-- end goals -->\nb\n";
        let new = replaced(text, "goals", "| new |\n").expect("markers");
        assert_eq!(new, "a\n<!-- goals -->\n\n| new |\n\n<!-- end goals -->\nb\n");
        assert_eq!(replaced(&new, "goals", "| new |\n").expect("markers"), new);
        assert!(replaced(text, "plots", "").is_err());
        assert!(replaced("<!-- goals -->\n", "goals", "").is_err());
    }

    #[test]
    fn the_document_has_all_markers() {
        let path = peers::repository().join("docs/performance.md");
        let mut text = fs::read_to_string(path).expect("docs/performance.md");
        for (name, part) in parts(&Results::default(), "etcd-3.5", &[]) {
            text = replaced(&text, name, &part).expect("its markers");
        }
    }

    #[test]
    fn tables_have_medians() {
        let mut results = Results::default();
        results.systems.insert(QUORATE.to_owned(), String::new());
        for (round, cpu) in [(1, 50.0), (2, 60.0), (3, 40.0)] {
            results
                .samples
                .push(Sample::new(QUORATE, "put-100", round).with("server_cpu_us", cpu));
            results
                .samples
                .push(Sample::new(QUORATE, "failover-kill", round).with("longest_gap_ms", cpu));
        }
        assert!(costs(&results).text().contains("50.0"));
        let gaps = gaps(&results).text();
        assert!(gaps.contains("50.0") && gaps.contains("60.0"), "{gaps}");
    }
}
