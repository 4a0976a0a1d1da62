//! The counters. Each thread has its own, so that tests which run side by side do not count for each other; what is global is only the
//! number by which a mark is known.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::Write;
use std::sync::{Mutex, OnceLock};

/// Names the file to which every thread appends its counts when it ends: one line a mark, with the package, the thread (a test, where
/// the test harness started it), the mark and the count, separated by tabs.
const FILE: &str = "QUORATE_MARKS";

static NAMES: Mutex<Vec<&'static str>> = Mutex::new(Vec::new());

thread_local! {
    static COUNTS: RefCell<Counts> = const { RefCell::new(Counts(Vec::new())) };
}

/// The counts of one thread, by the marks' numbers.
struct Counts(Vec<u64>);

/// One mark in the code.
#[derive(Debug)]
pub struct Site {
    name: &'static str,
    number: OnceLock<usize>,
}

impl Site {
    /// A mark that nobody has reached.
    pub const fn new(name: &'static str) -> Site {
        Site {
            name,
            number: OnceLock::new(),
        }
    }

    /// Counts once more, for this thread.
    pub fn hit(&self) {
        let number = *self.number.get_or_init(|| {
            let mut names = NAMES.lock().expect("nothing panics while it holds the names");
            names.push(self.name);
            names.len() - 1
        });
        // A thread that is ending has written its counts already.
        let _ = COUNTS.try_with(|counts| {
            let counts = &mut counts.borrow_mut().0;
            if counts.len() <= number {
                counts.resize(number + 1, 0);
            }
            counts[number] += 1;
        });
    }
}

impl Counts {
    /// By name. Code that is compiled for several types has several sites with one name.
    fn by_name(&self) -> BTreeMap<&'static str, u64> {
        let names = NAMES.lock().expect("nothing panics while it holds the names");
        let mut counts = BTreeMap::new();
        for (name, count) in names.iter().zip(&self.0).filter(|(_, count)| **count > 0) {
            *counts.entry(*name).or_default() += count;
        }
        counts
    }
}

impl Drop for Counts {
    fn drop(&mut self) {
        let Some(file) = std::env::var_os(FILE) else {
            return;
        };
        let counts = self.by_name();
        if counts.is_empty() {
            return;
        }
        let package = std::env::var("CARGO_PKG_NAME").unwrap_or_default();
        let thread = std::thread::current();
        let thread = thread.name().unwrap_or("a thread without a name");
        let lines: String = counts
            .iter()
            .map(|(mark, count)| format!("{package}\t{thread}\t{mark}\t{count}\n"))
            .collect();
        let opened = OpenOptions::new().create(true).append(true).open(&file);
        // In one write: other threads and processes append to the same file.
        if let Err(error) = opened.and_then(|mut opened| opened.write_all(lines.as_bytes())) {
            eprintln!("the marks reached are not in {}: {error}", file.display());
        }
    }
}

/// How often this thread has reached the mark `name` since it began, or since [`take`].
pub fn hits(name: &str) -> u64 {
    COUNTS.with_borrow(|counts| counts.by_name().get(name).copied().unwrap_or(0))
}

/// What this thread has reached, and how often, since it began or since the last call.
pub fn take() -> BTreeMap<&'static str, u64> {
    COUNTS.with_borrow_mut(|counts| {
        let taken = counts.by_name();
        counts.0.clear();
        taken
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reached;

    #[test]
    fn a_mark_counts_for_its_own_thread_and_only_while_its_condition_holds() {
        for n in 0..5 {
            reached!("marks.always");
            reached!("marks.odd", n % 2 == 1);
            reached!("marks.never", n > 5);
        }
        std::thread::spawn(|| {
            reached!("marks.elsewhere");
            assert_eq!(hits("marks.elsewhere"), 1);
        })
        .join()
        .unwrap();
        assert_eq!(take(), BTreeMap::from([("marks.always", 5), ("marks.odd", 2)]));
        assert_eq!(hits("marks.always"), 0, "taken");
    }
}
