//! What the guides show is compiled: every page with Rust in it is one of those that this crate's doctests include.

use std::path::{Path, PathBuf};

fn pages(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            pages(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "md") {
            found.push(path);
        }
    }
}

#[test]
fn all_pages_with_rust_in_them_are_doctests_and_nothing_is_left_out() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let included = include_str!("../src/lib.rs");
    let mut all = Vec::new();
    pages(&root.join("docs"), &mut all);
    for page in ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md"] {
        all.push(root.join(page));
    }
    let mut with_rust = 0;
    for page in all {
        let text = std::fs::read_to_string(&page).expect("a page");
        let name = page.file_name().expect("a name").to_string_lossy().into_owned();
        let fences = text
            .lines()
            .filter_map(|line| line.trim_start().strip_prefix("```"));
        let rust: Vec<&str> = fences.filter(|language| language.starts_with("rust")).collect();
        if rust.is_empty() {
            continue;
        }
        with_rust += 1;
        assert!(
            included.contains(&format!("/{name}\")]")),
            "{name} has Rust in it, and is no doctest"
        );
        let skipped = rust.iter().find(|language| language.contains("ignore"));
        assert_eq!(skipped, None, "{name} has Rust that is not compiled");
    }
    assert!(with_rust > 0, "there is a guide");
}
