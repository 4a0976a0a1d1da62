//! Waiting for a moment. The runtime's own timers are only good to a millisecond, which is more than many an operation takes; a
//! timer of the kernel wakes to within some microseconds, without anybody having to spin.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::Instant;

/// One timer for all tasks of a thread.
#[derive(Debug)]
pub struct Alarm {
    clock: clock::Clock,
    /// Who waits, by moment; the number makes equal moments different.
    waiting: RefCell<BTreeMap<(Instant, u64), Waker>>,
    count: Cell<u64>,
}

impl Alarm {
    /// An alarm that rings for as long as its local task set runs.
    pub fn new() -> io::Result<Rc<Alarm>> {
        let alarm = Rc::new(Alarm {
            clock: clock::Clock::new()?,
            waiting: RefCell::default(),
            count: Cell::new(0),
        });
        tokio::task::spawn_local(alarm.clone().ring());
        Ok(alarm)
    }

    /// Waits until then.
    pub async fn at(&self, when: Instant) {
        self.count.set(self.count.get() + 1);
        let id = (when, self.count.get());
        poll_fn(|cx| {
            let mut waiting = self.waiting.borrow_mut();
            if Instant::now() >= when {
                waiting.remove(&id);
                return Poll::Ready(());
            }
            let first = waiting.first_key_value().map(|(id, _)| *id);
            waiting.insert(id, cx.waker().clone());
            if first.is_none_or(|first| id < first) {
                self.clock.set(when);
            }
            Poll::Pending
        })
        .await;
    }

    /// Wakes those whose moment has come, and sets the clock for the next.
    async fn ring(self: Rc<Alarm>) {
        loop {
            self.clock.rung().await;
            let now = Instant::now();
            let mut waiting = self.waiting.borrow_mut();
            while let Some(first) = waiting.first_entry() {
                let when = first.key().0;
                if when > now {
                    self.clock.set(when);
                    break;
                }
                first.remove().wake();
            }
        }
    }
}

#[cfg(target_os = "linux")]
mod clock {
    use std::io;
    use std::os::fd::OwnedFd;
    use std::time::Instant;

    use rustix::time::{
        Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
        timerfd_settime,
    };
    use tokio::io::unix::AsyncFd;

    /// A timer of the kernel that rings once.
    #[derive(Debug)]
    pub struct Clock(AsyncFd<OwnedFd>);

    impl Clock {
        /// Not set.
        pub fn new() -> io::Result<Clock> {
            let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
            let timer = timerfd_create(TimerfdClockId::Monotonic, flags)?;
            #[expect(
                deprecated,
                reason = "it is for types whose descriptor may change or be closed too early, which an OwnedFd's may not"
            )]
            let timer = AsyncFd::new(timer)?;
            Ok(Clock(timer))
        }

        /// Rings then, and at no other time.
        pub fn set(&self, when: Instant) {
            let left = when.saturating_duration_since(Instant::now());
            let time = Itimerspec {
                it_interval: Timespec {
                    tv_sec: 0,
                    tv_nsec: 0,
                },
                it_value: Timespec {
                    tv_sec: left.as_secs().try_into().unwrap_or(i64::MAX),
                    // Zero would mean never.
                    tv_nsec: left.subsec_nanos().max(1).into(),
                },
            };
            timerfd_settime(self.0.get_ref(), TimerfdTimerFlags::empty(), &time)
                .expect("a timer of one's own takes any time");
        }

        /// Waits until it rings.
        pub async fn rung(&self) {
            let mut ready = self.0.readable().await.expect("the runtime is there");
            // Readiness is told when it changes, and setting the timer takes back what has not been read.
            ready.clear_ready();
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod clock {
    use std::cell::Cell;
    use std::io;
    use std::time::Instant;

    use tokio::sync::Notify;

    /// The runtime's timer: good to a millisecond.
    #[derive(Debug)]
    pub struct Clock {
        when: Cell<Option<Instant>>,
        set: Notify,
    }

    impl Clock {
        /// Not set.
        pub fn new() -> io::Result<Clock> {
            Ok(Clock {
                when: Cell::new(None),
                set: Notify::new(),
            })
        }

        /// Rings then, and at no other time.
        pub fn set(&self, when: Instant) {
            self.when.set(Some(when));
            self.set.notify_one();
        }

        /// Waits until it rings.
        pub async fn rung(&self) {
            loop {
                let Some(when) = self.when.get() else {
                    self.set.notified().await;
                    continue;
                };
                tokio::select! {
                    () = tokio::time::sleep_until(when.into()) => {
                        self.when.set(None);
                        return;
                    }
                    () = self.set.notified() => {}
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn sleepers_wake_in_their_order_and_not_too_early() {
        let local = tokio::task::LocalSet::new();
        local
            .run_until(async {
                let alarm = Alarm::new().expect("a timer");
                let start = Instant::now();
                let woken = Rc::new(RefCell::new(Vec::new()));
                let mut sleepers = tokio::task::JoinSet::new();
                for ms in [30, 10, 20, 0, 10] {
                    let (alarm, woken) = (alarm.clone(), woken.clone());
                    sleepers.spawn_local(async move {
                        let when = start + Duration::from_millis(ms);
                        alarm.at(when).await;
                        assert!(Instant::now() >= when);
                        woken.borrow_mut().push(ms);
                    });
                }
                sleepers.join_all().await;
                assert_eq!(*woken.borrow(), [0, 10, 10, 20, 30]);
                // And again, when nobody has waited for a while.
                alarm.at(Instant::now() + Duration::from_millis(1)).await;
            })
            .await;
    }
}
