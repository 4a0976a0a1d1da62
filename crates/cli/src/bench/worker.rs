//! The threads that make the load, each with connections and clients of its own, and the one that leads them through dialling,
//! warming up and what counts. Threads share nothing but counters.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinSet, LocalSet};

use super::client::{Client, Limit, Run};
use super::link::Link;
use super::pace::Pace;
use super::tally::Tally;
use super::wire::Endpoint;
use super::work::{KeySpace, Kind, Random, Requests, Values};
use crate::client::Failure;

/// What a load consists of.
#[derive(Clone, Debug)]
pub struct Load {
    /// What is asked.
    pub kind: Kind,
    /// Of which keys.
    pub keys: KeySpace,
    /// Bytes of a value.
    pub value_size: usize,
    /// The servers' URLs.
    pub endpoints: Vec<String>,
    /// Operations at a time.
    pub clients: usize,
    /// Connections that they share.
    pub connections: usize,
    /// Threads that they are spread over.
    pub threads: usize,
    /// Limit for an answer.
    pub timeout: Duration,
    /// Limit for a connection.
    pub dial_timeout: Duration,
    /// Start of the random numbers.
    pub seed: u64,
}

/// What the threads are told to do.
#[derive(Clone, Debug)]
enum Order {
    /// Connect, and report.
    Dial,
    /// Work, and report.
    Run(Arc<Run>),
    /// Report what was done until now, and end.
    Stop,
}

/// What a thread has done of its last order.
type Report = Result<Tally, String>;

/// All threads of a load.
pub struct Workers {
    orders: watch::Sender<Order>,
    reports: mpsc::UnboundedReceiver<Report>,
    threads: Vec<JoinHandle<()>>,
}

/// A stretch of work that is over.
pub struct Outcome {
    /// What happened.
    pub tally: Tally,
    /// Processor time of this program, user and system.
    pub cpu: Duration,
    /// It was ended before its time.
    pub interrupted: bool,
}

impl Workers {
    /// Starts the threads and waits until every connection is up: at its endpoint, or at another if that one is not there.
    pub async fn start(load: &Load) -> Result<Workers, Failure> {
        let (orders, ordered) = watch::channel(Order::Dial);
        let (report, reports) = mpsc::unbounded_channel();
        let mut workers = Workers {
            orders,
            reports,
            threads: Vec::new(),
        };
        for thread in 0..load.threads {
            let (load, ordered, report) = (load.clone(), ordered.clone(), report.clone());
            let handle = std::thread::Builder::new()
                .name(format!("bench-{thread}"))
                .spawn(move || work(&load, thread, ordered, &report))
                .map_err(|error| Failure::refused(format!("cannot start a thread: {error}")))?;
            workers.threads.push(handle);
        }
        drop(report);
        for _ in 0..load.threads {
            workers
                .next_report()
                .await
                .map_err(|why| Failure::unreachable(format!("no endpoint could be connected to: {why}")))?;
        }
        Ok(workers)
    }

    async fn next_report(&mut self) -> Report {
        self.reports
            .recv()
            .await
            .unwrap_or_else(|| Err("a thread of the load ended".to_owned()))
    }

    /// Lets all clients work until there is nothing more to do or `interrupt` comes.
    pub async fn run(
        &mut self,
        pace: Pace,
        mut show: impl FnMut(&Run),
        interrupt: impl Future<Output = ()>,
    ) -> Result<Outcome, Failure> {
        let cpu = cpu_time();
        let run = Arc::new(Run::new(pace));
        self.orders.send_replace(Order::Run(run.clone()));
        let mut tally = Tally::new();
        let mut missing = self.threads.len();
        let mut interrupt = std::pin::pin!(interrupt);
        let mut interrupted = false;
        let mut tick = tokio::time::interval(Duration::from_millis(200));
        while missing > 0 {
            tokio::select! {
                report = self.reports.recv() => {
                    let report = report.unwrap_or_else(|| Err("a thread of the load ended".to_owned()));
                    tally.add(report.map_err(Failure::refused)?);
                    missing -= 1;
                }
                () = &mut interrupt, if !interrupted => {
                    interrupted = true;
                    self.orders.send_replace(Order::Stop);
                }
                _ = tick.tick() => show(&run),
            }
        }
        Ok(Outcome {
            tally,
            cpu: cpu_time().saturating_sub(cpu),
            interrupted,
        })
    }

    /// Ends the threads.
    pub fn stop(self) {
        self.orders.send_replace(Order::Stop);
        for thread in self.threads {
            // A panic in it has been printed already.
            let _ = thread.join();
        }
    }
}

/// Processor time of this program so far.
fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(
        u64::try_from(time.tv_sec).unwrap_or_default(),
        u32::try_from(time.tv_nsec).unwrap_or_default(),
    )
}

/// A thread's life.
fn work(
    load: &Load,
    thread: usize,
    ordered: watch::Receiver<Order>,
    reports: &mpsc::UnboundedSender<Report>,
) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    match runtime {
        Ok(runtime) => LocalSet::new().block_on(&runtime, follow(load, thread, ordered, reports)),
        Err(error) => {
            // Nobody listens any more when the whole program ends.
            let _ = reports.send(Err(error.to_string()));
        }
    }
}

/// Does what is ordered, until told to stop.
async fn follow(
    load: &Load,
    thread: usize,
    mut ordered: watch::Receiver<Order>,
    reports: &mpsc::UnboundedSender<Report>,
) {
    let links = links(load, thread);
    let mut dialled = Ok(Tally::new());
    for link in &links {
        if let Err(fault) = link.wait().await {
            dialled = Err(fault.to_string());
        }
    }
    let _ = reports.send(dialled);
    let mut clients = clients(load, thread, &links);
    while ordered.changed().await.is_ok() {
        let order = ordered.borrow_and_update().clone();
        let Order::Run(run) = order else { return };
        let tally = Rc::new(RefCell::new(Tally::new()));
        let mut tasks = JoinSet::new();
        for mut client in std::mem::take(&mut clients) {
            let (run, tally) = (run.clone(), tally.clone());
            tasks.spawn_local(async move {
                client.work(&run, &tally).await;
                client
            });
        }
        tokio::select! {
            done = tasks.join_all() => clients = done,
            _ = ordered.changed() => {}
        }
        let counted = tally.replace(Tally::new());
        let _ = reports.send(Ok(counted));
    }
}

/// The thread's connections: every so many of the load's, which go to the endpoints in turn.
fn links(load: &Load, thread: usize) -> Vec<Rc<Link>> {
    let endpoints: Rc<[Endpoint]> = load.endpoints.iter().map(|url| Endpoint::new(url)).collect();
    (thread..load.connections)
        .step_by(load.threads)
        .map(|connection| Link::open(endpoints.clone(), connection, load.dial_timeout))
        .collect()
}

/// The clients of the thread's connections. The load's clients go to its connections in turn.
fn clients(load: &Load, thread: usize, links: &[Rc<Link>]) -> Vec<Client> {
    let values = Rc::new(Values::new(load.value_size, load.seed));
    let heads: Rc<[_]> = load
        .endpoints
        .iter()
        .map(|url| Endpoint::new(url).head(load.kind.path()))
        .collect();
    (0..load.clients)
        .filter_map(|client| {
            let connection = client % load.connections;
            (connection % load.threads == thread).then(|| Client {
                requests: Requests::new(
                    load.kind,
                    load.keys,
                    values.clone(),
                    Random::of(load.seed, client as u64),
                ),
                kind: load.kind,
                heads: heads.clone(),
                link: links[connection / load.threads].clone(),
                held: None,
                limit: Limit::new(load.timeout),
                random: Random::of(!load.seed, client as u64),
            })
        })
        .collect()
}
