//! The marks that stand in the sources, reached or not: without this list a mark that nothing reaches would not be missed.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

/// The crates whose surprising branches are marked.
pub const CRATES: [&str; 3] = ["raft", "wal", "node"];

/// A mark in the sources.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The mark's name.
    pub name: String,
    /// The file, as seen from the workspace.
    pub file: String,
    /// The line, from 1.
    pub line: usize,
}

/// All marks under `crates/*/src` of the workspace at `root`, in order of file and line.
pub fn all(root: &Path) -> io::Result<Vec<Place>> {
    let mut places = Vec::new();
    for krate in CRATES {
        let mut files = Vec::new();
        rust_files(&root.join("crates").join(krate).join("src"), &mut files)?;
        files.sort();
        for file in files {
            let text = std::fs::read_to_string(&file)?;
            let file = file.strip_prefix(root).unwrap_or(&file).display().to_string();
            places.extend(in_text(&file, &text));
        }
    }
    Ok(places)
}

/// What is wrong with the names of `places`: each must be unique, begin with its crate, and be of words between dots.
pub fn misnamed(places: &[Place]) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut seen: BTreeMap<&str, &Place> = BTreeMap::new();
    for place in places {
        let Place { name, file, line } = place;
        let krate = file.split('/').nth(1).unwrap_or_default();
        let words = |part: &str| {
            let letter = |c: char| c.is_ascii_lowercase() || c == '_' || c.is_ascii_digit();
            !part.is_empty() && part.chars().all(letter)
        };
        let parts: Vec<&str> = name.split('.').collect();
        if parts.len() < 2 || parts[0] != krate || !parts.into_iter().all(words) {
            wrong.push(format!("{file}:{line}: {name:?} is not {krate}.what_happened"));
        }
        if let Some(before) = seen.insert(name, place) {
            wrong.push(format!(
                "{file}:{line}: {name:?} stands at {}:{} too",
                before.file, before.line
            ));
        }
    }
    wrong
}

fn in_text(file: &str, text: &str) -> Vec<Place> {
    const CALL: &str = "reached!(";
    let mut places = Vec::new();
    for (at, _) in text.match_indices(CALL) {
        let line_start = text[..at].rfind('\n').map_or(0, |newline| newline + 1);
        // Not one that a comment speaks of. The formatter may put the name on a line of its own.
        let quoted = text[at + CALL.len()..].trim_start().strip_prefix('"');
        let name = quoted.and_then(|rest| rest.split_once('"')).map(|(name, _)| name);
        if let Some(name) = name.filter(|_| !text[line_start..at].contains("//")) {
            places.push(Place {
                name: name.to_owned(),
                file: file.to_owned(),
                line: text[..at].matches('\n').count() + 1,
            });
        }
    }
    places
}

fn rust_files(folder: &Path, found: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            rust_files(&path, found)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_found_however_they_are_broken_over_lines_and_not_in_comments() {
        let text = "fn f() {\n    reached!(\"raft.a\");\n    // reached!(\"raft.b\")\n    reached!(\n        \"raft.c\",\n        1 > 0\n    );\n}\n";
        let found = in_text("crates/raft/src/x.rs", text);
        let found: Vec<_> = found
            .iter()
            .map(|place| (place.name.as_str(), place.line))
            .collect();
        assert_eq!(found, [("raft.a", 2), ("raft.c", 4)]);
    }

    #[test]
    fn names_are_unique_and_begin_with_their_crate() {
        let place = |name: &str, line| Place {
            name: name.to_owned(),
            file: "crates/wal/src/log.rs".to_owned(),
            line,
        };
        assert!(misnamed(&[place("wal.torn", 1), place("wal.torn.cut", 2)]).is_empty());
        for bad in ["raft.torn", "wal", "wal.", "wal.Torn", "wal.torn cut"] {
            assert_eq!(misnamed(&[place(bad, 1)]).len(), 1, "{bad}");
        }
        assert_eq!(misnamed(&[place("wal.torn", 1), place("wal.torn", 2)]).len(), 1);
    }
}
