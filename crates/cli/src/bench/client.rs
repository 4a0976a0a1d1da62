//! One client: takes the next operation when it is free, waits until it is due, makes the call, notes what became of it.

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;
use std::time::{Duration, Instant};

use tokio::time::Sleep;

use super::alarm::Alarm;
use super::job::{Answer, Job, stamp};
use super::link::{Link, Up};
use super::pace::Pace;
use super::tally::{LastSuccess, Tally};
use super::wire::Fault;
use super::work::Random;

/// After a failure a client waits between half of this and one and a half: what has no leader is not to be drowned in requests.
const AFTER_FAILURE: Duration = Duration::from_millis(10);

/// A stretch of operations, shared by all clients of all threads.
#[derive(Debug)]
pub struct Run {
    /// When operations are due.
    pub pace: Pace,
    /// What times are counted from.
    pub start: Instant,
    /// What its writes are known by to those who watch.
    pub mark: u64,
    /// The number of the next operation.
    next: AtomicU64,
    /// For the longest gap.
    pub last_success: LastSuccess,
}

impl Run {
    /// Begins now.
    pub fn new(pace: Pace, mark: u64) -> Run {
        Run {
            pace,
            start: Instant::now(),
            mark,
            next: AtomicU64::new(0),
            last_success: LastSuccess::default(),
        }
    }

    /// Operations begun so far.
    pub fn begun(&self) -> u64 {
        let next = self.next.load(Ordering::Relaxed);
        self.pace.total.map_or(next, |total| next.min(total))
    }

    /// The next operation, if there is one: its number, and when it was or will be due.
    pub fn take(&self) -> Option<(u64, Duration)> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let now = self.start.elapsed();
        self.pace
            .admits(number, now)
            .then(|| (number, self.pace.due(number).unwrap_or(now)))
    }
}

/// A client of the servers.
pub struct Client {
    /// What it does.
    pub job: Job,
    /// Its connection.
    pub link: Rc<Link>,
    /// The connection it last used.
    pub held: Option<Up>,
    /// Wakes it when an operation is due.
    pub alarm: Rc<Alarm>,
    /// How long it waits for answers.
    pub limit: Limit,
    /// For the waits after failures.
    pub random: Random,
}

impl Client {
    /// Works until there is no next operation.
    pub async fn work(&mut self, run: &Run, tally: &RefCell<Tally>) {
        while let Some((number, due)) = run.take() {
            let begun = self.wait_for(run.start + due).await;
            let outcome = self.operate(run, number, begun).await;
            let now = Instant::now();
            let end = now.duration_since(run.start);
            match outcome {
                Ok(answer) => {
                    self.link.succeeded(now);
                    let mut tally = tally.borrow_mut();
                    tally.success(due, end, &run.last_success);
                    tally.not_found += u64::from(!answer.found);
                    if let Some(part) = answer.part {
                        tally.part(part, end.saturating_sub(due));
                    }
                }
                Err(fault) => {
                    self.link.failed(self.held.as_ref(), &fault, begun, now);
                    tally.borrow_mut().failure(due, end, fault.to_string());
                    tokio::time::sleep(after_failure(&mut self.random)).await;
                }
            }
        }
        let clean_up = self.job.clean_up(&self.link, &mut self.held);
        // What cannot be cleaned up ends by itself.
        let _ = self.limit.within(Instant::now(), clean_up).await;
    }

    /// Waits until an operation is due, and gives the time that it is then.
    async fn wait_for(&self, due: Instant) -> Instant {
        let now = Instant::now();
        if due <= now {
            return now;
        }
        self.alarm.at(due).await;
        Instant::now()
    }

    async fn operate(&mut self, run: &Run, number: u64, begun: Instant) -> Result<Answer, Fault> {
        let stamp = stamp(run.mark, begun.duration_since(run.start));
        let operate = self.job.operate(&self.link, &mut self.held, number, stamp);
        let outcome = self.limit.within(begun, operate).await;
        outcome.unwrap_or(Err(Fault::Timeout))
    }
}

/// How long a client waits after a failure.
pub fn after_failure(random: &mut Random) -> Duration {
    let micros = AFTER_FAILURE.as_micros() as u64;
    Duration::from_micros(micros / 2 + random.below(micros))
}

/// A limit for calls that nearly always stay below it: one timer, which is set anew only when it runs out, not for each call.
#[derive(Debug)]
pub struct Limit {
    timeout: Duration,
    sleep: Pin<Box<Sleep>>,
}

impl Limit {
    /// A limit of so much for each call.
    pub fn new(timeout: Duration) -> Limit {
        Limit {
            timeout,
            sleep: Box::pin(tokio::time::sleep(Duration::ZERO)),
        }
    }

    /// What the work gives, or nothing if that takes too long.
    pub async fn within<F: Future>(&mut self, from: Instant, work: F) -> Option<F::Output> {
        let deadline = tokio::time::Instant::from_std(from + self.timeout);
        let mut work = pin!(work);
        poll_fn(|cx| {
            if let Poll::Ready(output) = work.as_mut().poll(cx) {
                return Poll::Ready(Some(output));
            }
            // It may still run for an earlier call; then it is set to this one's deadline.
            while self.sleep.as_mut().poll(cx).is_ready() {
                if self.sleep.deadline() >= deadline {
                    return Poll::Ready(None);
                }
                self.sleep.as_mut().reset(deadline);
            }
            Poll::Pending
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_limit_holds_for_each_call_anew() {
        let mut limit = Limit::new(Duration::from_millis(20));
        for _ in 0..3 {
            let from = Instant::now();
            let late: Option<()> = limit.within(from, std::future::pending()).await;
            assert_eq!(late, None);
            assert!(from.elapsed() >= Duration::from_millis(20));
            assert_eq!(limit.within(Instant::now(), async { 1 }).await, Some(1));
        }
    }

    #[test]
    fn operations_are_taken_once_each_and_count_from_when_they_are_due() {
        let pace = Pace {
            rate: Some(1000),
            total: Some(3),
            duration: None,
        };
        let run = Run::new(pace, 1);
        let taken: Vec<_> = std::iter::from_fn(|| run.take()).collect();
        let ms = Duration::from_millis;
        assert_eq!(taken, [(0, ms(0)), (1, ms(1)), (2, ms(2))]);
        assert_eq!(run.begun(), 3);
    }
}
