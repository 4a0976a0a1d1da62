//! The crates' arrows and the absences that the architecture promises, checked against what is really there.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Who may depend on whom, directly. What a crate may reach it may also name.
const ARROWS: &[(&str, &[&str])] = &[
    ("quorate-base", &[]),
    ("quorate-marks", &[]),
    ("quorate-raft", &["quorate-base", "quorate-marks"]),
    ("quorate-wal", &["quorate-base", "quorate-marks"]),
    ("quorate-kv", &["quorate-base"]),
    ("quorate-proto", &[]),
    (
        "quorate-node",
        &["quorate-base", "quorate-marks", "quorate-raft", "quorate-wal"],
    ),
    (
        "quorate",
        &["quorate-base", "quorate-raft", "quorate-wal", "quorate-node"],
    ),
    ("quorate-conformance", &["quorate-base", "quorate-wal", "quorate"]),
    (
        "quorate-server",
        &["quorate-base", "quorate", "quorate-kv", "quorate-proto"],
    ),
    (
        "quorate-sim",
        &[
            "quorate-base",
            "quorate-marks",
            "quorate-raft",
            "quorate-wal",
            "quorate-node",
            "quorate-kv",
        ],
    ),
    (
        "quorate-model",
        &["quorate-base", "quorate-marks", "quorate-raft"],
    ),
    (
        "quorate-cli",
        &[
            "quorate-base",
            "quorate-wal",
            "quorate-node",
            "quorate",
            "quorate-kv",
            "quorate-proto",
            "quorate-server",
        ],
    ),
];

/// Crates that never do I/O, read a clock or start a thread.
const SANS_IO: &[&str] = &["raft", "wal", "node", "kv"];

/// What must not be named in their code, and why.
const ABSENT: &[(&str, &str)] = &[
    ("HashMap", "iteration order differs between runs; use BTreeMap"),
    ("HashSet", "iteration order differs between runs; use BTreeSet"),
    ("Instant", "clocks are read by the runtime only"),
    ("SystemTime", "clocks are read by the runtime only"),
    ("std::fs", "files are reached through the Disk trait"),
    ("std::net", "sockets belong to the runtime"),
    ("std::thread", "threads belong to the runtime"),
    ("thread::spawn", "threads belong to the runtime"),
    ("tokio", "the sans-I/O crates know no runtime"),
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .canonicalize()
        .expect("the workspace")
}

/// Each workspace crate with its direct dependencies on others of them. Those for tests only are left out.
fn dependencies() -> BTreeMap<String, BTreeSet<String>> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--format-version=1", "--offline"])
        .current_dir(root())
        .output()
        .expect("cargo metadata runs");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).expect("cargo metadata is JSON");
    let packages = metadata["packages"].as_array().expect("packages");
    let names: BTreeSet<&str> = packages
        .iter()
        .filter_map(|package| package["name"].as_str())
        .collect();
    let mut all = BTreeMap::new();
    for package in packages {
        let dependencies = package["dependencies"].as_array().expect("dependencies");
        let inner = dependencies
            .iter()
            .filter(|dependency| dependency["kind"].is_null())
            .filter_map(|dependency| dependency["name"].as_str())
            .filter(|name| names.contains(name))
            .map(str::to_owned)
            .collect();
        all.insert(package["name"].as_str().expect("a name").to_owned(), inner);
    }
    all
}

#[test]
fn crates_depend_on_each_other_only_along_the_arrows() {
    let found = dependencies();
    let allowed: BTreeMap<&str, &[&str]> = ARROWS.iter().copied().collect();
    assert_eq!(
        found.keys().map(String::as_str).collect::<BTreeSet<_>>(),
        allowed.keys().copied().collect::<BTreeSet<_>>(),
        "a new crate needs its place in the map"
    );
    for (name, dependencies) in &found {
        for dependency in dependencies {
            assert!(
                allowed[name.as_str()].contains(&dependency.as_str()),
                "{name} must not depend on {dependency}"
            );
        }
    }
}

#[test]
fn what_is_shipped_counts_no_marks() {
    // Features are unified over what is built together, so the program is asked for alone, as `cargo install` builds it.
    let tree = |package: &str| {
        let output = Command::new(env!("CARGO"))
            .args([
                "tree",
                "--offline",
                "--edges=normal,features",
                "--package",
                package,
            ])
            .current_dir(root())
            .output()
            .expect("cargo tree runs");
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let counting = "quorate-marks feature \"count\"";
    for package in ["quorate-cli", "quorate"] {
        let tree = tree(package);
        assert!(
            tree.contains("quorate-marks"),
            "{package} goes through marked code"
        );
        assert!(!tree.contains(counting), "{package} is built without counting");
    }
    assert!(tree("quorate-sim").contains(counting), "the simulator counts");
}

#[test]
fn sans_io_crates_name_no_clock_file_thread_or_unordered_map() {
    let mut scanned = 0;
    for krate in SANS_IO {
        let mut files = Vec::new();
        rust_files(&root().join("crates").join(krate).join("src"), &mut files);
        assert!(!files.is_empty(), "{krate} has code");
        for file in files {
            scanned += 1;
            let text = std::fs::read_to_string(&file).expect("a source file");
            for (number, line) in text.lines().enumerate() {
                let code = line.split("//").next().unwrap_or_default();
                for (word, why) in ABSENT {
                    assert!(
                        !names(code, word),
                        "{}:{} names {word}: {why}",
                        file.display(),
                        number + 1
                    );
                }
            }
        }
    }
    println!("{scanned} files of sans-I/O crates scanned");
}

/// Whether `code` has `word` as a whole word.
fn names(code: &str, word: &str) -> bool {
    let part = |c: char| c.is_alphanumeric() || c == '_';
    code.match_indices(word).any(|(at, _)| {
        let before = code[..at].chars().next_back();
        let after = code[at + word.len()..].chars().next();
        !before.is_some_and(part) && !after.is_some_and(part)
    })
}

#[test]
fn the_scan_finds_whole_words_only() {
    assert!(names("use std::collections::HashMap;", "HashMap"));
    assert!(names("let t = Instant::now();", "Instant"));
    assert!(!names("struct Instantiated;", "Instant"));
    assert!(!names("fn my_tokio_like()", "tokio"));
}

#[test]
fn unsafe_code_is_forbidden_everywhere() {
    let workspace = std::fs::read_to_string(root().join("Cargo.toml")).expect("Cargo.toml");
    assert!(
        workspace.contains("unsafe_code = \"forbid\""),
        "the workspace forbids unsafe code"
    );
    for (krate, _) in ARROWS {
        let folder = krate.strip_prefix("quorate-").unwrap_or("quorate");
        let manifest = root().join("crates").join(folder).join("Cargo.toml");
        let text = std::fs::read_to_string(&manifest).expect("a manifest");
        assert!(
            text.contains("[lints]\nworkspace = true"),
            "{} takes the workspace's lints",
            manifest.display()
        );
    }
}

fn rust_files(dir: &Path, found: &mut Vec<PathBuf>) {
    let mut entries: Vec<_> = std::fs::read_dir(dir)
        .expect("a source folder")
        .map(|entry| entry.expect("an entry").path())
        .collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            rust_files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}
