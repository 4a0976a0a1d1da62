//! Puts all mutants of a crate into one source, each behind a switch, so that one build serves to test them all.
//!
//! `quorate-mutator ROOT OUT < catalogue.json` reads what `cargo mutants --list --json` found under ROOT, writes every mutated file to OUT
//! (nothing, if that is `-`), and prints a JSON array, one object per mutant in the order of the catalogue: its number (from 1; the switch), its key, the
//! fingerprint of its function, and whether it could be put behind a switch. Mutants whose numbers follow as arguments are left out.
//!
//! What lives where: the syntax of one file in `syntax`, the switched source in `weave`, keys and fingerprints in `identity`. The
//! command `proof/mutants` drives it.

mod catalogue;
mod identity;
mod syntax;
mod weave;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context, bail};

use crate::catalogue::{Listed, Mutant};

fn main() -> anyhow::Result<()> {
    let mut args = std::env::args().skip(1);
    let (Some(root), Some(out)) = (args.next(), args.next()) else {
        bail!("usage: quorate-mutator ROOT OUT [LEFT-OUT…] < catalogue.json");
    };
    let left_out: BTreeSet<usize> = args.map(|arg| arg.parse()).collect::<Result<_, _>>()?;
    let listed: Vec<Listed> = serde_json::from_reader(std::io::stdin())
        .context("standard input is no catalogue of cargo-mutants")?;
    let mut files: BTreeMap<String, Vec<(usize, Listed)>> = BTreeMap::new();
    for (at, one) in listed.into_iter().enumerate() {
        files.entry(one.file.clone()).or_default().push((at + 1, one));
    }
    let mut report = BTreeMap::new();
    for (file, listed) in &files {
        let path = Path::new(&root).join(file);
        let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        let syntax = syntax::Syntax::of(&text).with_context(|| path.display().to_string())?;
        let mutants: Vec<Mutant> = listed
            .iter()
            .map(|(id, one)| Mutant::new(*id, one, &text))
            .collect::<Result<_, _>>()?;
        let wanted = mutants.iter().filter(|mutant| !left_out.contains(&mutant.id));
        let woven = weave::weave(&text, &syntax, wanted);
        let keys = identity::keys(file, &mutants);
        for (mutant, key) in mutants.iter().zip(keys) {
            let line = serde_json::json!({
                "id": mutant.id,
                "key": key,
                "package": mutant.package,
                "file": file,
                "start": mutant.span.start,
                "end": mutant.span.end,
                "replacement": mutant.replacement,
                "hash": format!("{:016x}", syntax.fingerprint(mutant.span.start)),
                "switched": woven.switched.contains(&mutant.id),
            });
            report.insert(mutant.id, line);
        }
        if out == "-" {
            continue;
        }
        let target = Path::new(&out).join(file);
        // Left as it is if it is the same, so that cargo need not build it again.
        if std::fs::read_to_string(&target).is_ok_and(|old| old == woven.text) {
            continue;
        }
        if let Some(folder) = target.parent() {
            std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
        }
        std::fs::write(&target, woven.text).with_context(|| target.display().to_string())?;
    }
    println!(
        "{}",
        serde_json::to_string(&report.into_values().collect::<Vec<_>>())?
    );
    Ok(())
}
