//! How far long work is: a bar that is drawn again in place on a terminal, else a line whenever there is something new to say. Goes to
//! standard error, so that what is piped on is the result alone.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

/// Cells of the bar.
const WIDTH: usize = 30;

/// Without a terminal, numbers alone are no news more often than this.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// Something that takes long.
pub struct Progress {
    drawn: bool,
    terminal: bool,
    last: Option<(String, Instant)>,
}

impl Progress {
    /// Nothing is shown yet.
    pub fn new() -> Progress {
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        Progress {
            drawn: false,
            terminal: io::stderr().is_terminal() && !dumb,
            last: None,
        }
    }

    /// Shows what is going on and, if that can be said, how much of it is done.
    pub fn show(&mut self, what: &str, done: Option<Done>) {
        if self.terminal {
            // Some terminals do not say how wide they are.
            let columns = rustix::termios::tcgetwinsize(io::stderr()).map_or(0, |size| size.ws_col);
            let width = if columns == 0 {
                80
            } else {
                usize::from(columns.max(20))
            };
            let line: String = text(what, done, true).chars().take(width - 1).collect();
            say(&format!("\r\x1b[2K{line}"));
            self.drawn = true;
        } else if self.is_news(what) {
            say(&format!("{}\n", text(what, done, false)));
            self.last = Some((what.to_owned(), Instant::now()));
        }
    }

    fn is_news(&self, what: &str) -> bool {
        self.last
            .as_ref()
            .is_none_or(|(last, at)| last != what || at.elapsed() >= LINE_EVERY)
    }

    /// Ends the line, so that other text may follow.
    pub fn pause(&mut self) {
        if std::mem::take(&mut self.drawn) {
            say("\n");
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.pause();
    }
}

/// How much of the work is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Done {
    /// Of `all`.
    pub done: u64,
    /// May grow.
    pub all: u64,
}

fn text(what: &str, done: Option<Done>, with_bar: bool) -> String {
    let Some(Done { done, all }) = done else {
        return what.to_owned();
    };
    let share = match all {
        0 => 1.0,
        _ => (done as f64 / all as f64).clamp(0.0, 1.0),
    };
    // Complete is what is complete, not what rounds to it.
    let percent = (share * 100.0).floor();
    if !with_bar {
        return format!("{what}: {percent} % ({done} of {all})");
    }
    let full = (share * WIDTH as f64).floor() as usize;
    let bar = "#".repeat(full) + &"-".repeat(WIDTH - full);
    format!("[{bar}] {percent:>3} %  {what} ({done} of {all})")
}

fn say(text: &str) {
    let mut out = io::stderr().lock();
    // Nobody who reads it, nobody who misses it.
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_is_full_only_at_the_end() {
        let at = |done, all| text("copying", Some(Done { done, all }), true);
        assert!(at(0, 100).starts_with("[-----"));
        assert!(at(999, 1000).contains("-]  99 %"));
        assert!(at(1000, 1000).starts_with(&format!("[{}] 100 %", "#".repeat(WIDTH))));
        assert!(at(5, 0).contains("100 %"));
        assert!(
            at(7, 5).contains("100 %"),
            "what was measured earlier may be overtaken"
        );
    }

    #[test]
    fn without_a_terminal_there_are_lines() {
        let done = Some(Done { done: 1, all: 4 });
        assert_eq!(text("copying", done, false), "copying: 25 % (1 of 4)");
        assert_eq!(text("waiting", None, false), "waiting");
    }
}
