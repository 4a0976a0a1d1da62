//! One measurement: a fresh cluster, warmed up, then so many proposals between two looks at the clocks.

use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

use crate::cluster::{Cluster, commands};

/// What one measurement gave.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// Committed proposals a second.
    pub per_second: f64,
    /// Nanoseconds of CPU time a proposal, of all three members together.
    pub cpu_ns: f64,
}

/// Measures one kind of cluster.
pub fn cluster<C: Cluster>(batch: usize, proposals: u64) -> Sample {
    let mut cluster = C::start();
    let mut done = 0;
    let mut propose = |cluster: &mut C, upto: u64| {
        while done < upto {
            cluster.round(commands(done, batch));
            done += batch as u64;
        }
        done
    };
    let warm = propose(&mut cluster, proposals / 10);
    let (began, cpu) = (Instant::now(), cpu_time());
    let total = propose(&mut cluster, warm + proposals);
    let (took, cpu) = (began.elapsed(), cpu_time() - cpu);
    for applied in cluster.applied() {
        assert_eq!(applied.count, total, "every member has applied every command");
    }
    let counted = (total - warm) as f64;
    Sample {
        per_second: counted / took.as_secs_f64(),
        cpu_ns: cpu.as_nanos() as f64 / counted,
    }
}

fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}
