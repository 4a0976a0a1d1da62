//! The CPU time that this process has used, where the system tells it.

use std::time::{Duration, Instant};

/// CPU time of the whole process, all threads.
pub fn of_process() -> Option<Duration> {
    // utime and stime are the 14th and 15th fields, in hundredths of a second; the second, a name in brackets, may hold spaces.
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace().skip(11);
    let (user, system): (u64, u64) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    Some(Duration::from_millis(10 * (user + system)))
}

/// CPU time of this thread, to the nanosecond.
fn of_thread() -> Option<Duration> {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    Some(Duration::from_nanos(
        stat.split_whitespace().next()?.parse().ok()?,
    ))
}

/// Measures work of this thread.
pub struct Stopwatch {
    cpu: Option<Duration>,
    clock: Instant,
}

impl Stopwatch {
    /// Starts one.
    pub fn start() -> Stopwatch {
        Stopwatch {
            cpu: of_thread(),
            clock: Instant::now(),
        }
    }

    /// What has passed, and whether it is CPU time: elsewhere than on Linux it is the clock's.
    pub fn read(&self) -> (Duration, bool) {
        match (self.cpu, of_thread()) {
            (Some(begun), Some(now)) => (now.saturating_sub(begun), true),
            _ => (self.clock.elapsed(), false),
        }
    }
}
