//! How a run can fail, and how panics of the code under test become failures instead of ending the simulator.

use std::cell::{Cell, RefCell};
use std::panic::{self, AssertUnwindSafe};
use std::sync::Once;

use thiserror::Error;

use crate::ghost::Violation;
use crate::history;

/// Why a run failed. The kinds have exit codes of their own.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum Failure {
    /// The code under test panicked, or refused to start from what a crash may leave.
    #[error("crash: {0}")]
    Crash(String),
    /// Nothing wrong was done, but something necessary was not.
    #[error("liveness: {0}")]
    Liveness(String),
    /// An invariant or a history is broken.
    #[error("correctness: {0}")]
    Correctness(String),
}

impl Failure {
    /// The exit code of the simulator's program.
    pub fn exit_code(&self) -> u8 {
        match self {
            Failure::Crash(_) => 10,
            Failure::Liveness(_) => 11,
            Failure::Correctness(_) => 12,
        }
    }
}

impl From<Violation> for Failure {
    fn from(violation: Violation) -> Failure {
        Failure::Correctness(violation.to_string())
    }
}

impl From<history::Violation> for Failure {
    fn from(violation: history::Violation) -> Failure {
        Failure::Correctness(violation.to_string())
    }
}

thread_local! {
    static CATCHING: Cell<bool> = const { Cell::new(false) };
    static MESSAGE: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Runs `code`; a panic in it becomes its message. Panics elsewhere are reported as always.
pub fn catch<T>(code: impl FnOnce() -> T) -> Result<T, String> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let usual = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if CATCHING.get() {
                MESSAGE.set(info.to_string().replace('\n', " "));
            } else {
                usual(info);
            }
        }));
    });
    let before = CATCHING.replace(true);
    // What a panic leaves half done is never used again: the run that panicked is over.
    let result = panic::catch_unwind(AssertUnwindSafe(code));
    CATCHING.set(before);
    result.map_err(|_| MESSAGE.take())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_becomes_its_message() {
        assert_eq!(catch(|| 3), Ok(3));
        let message = catch(|| panic!("the reason is {}", 7)).unwrap_err();
        assert!(
            message.contains("the reason is 7") && message.contains("failure.rs"),
            "{message}"
        );
    }
}
