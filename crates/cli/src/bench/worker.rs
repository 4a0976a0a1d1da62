//! The threads that make the load, each with connections and clients of its own, and the one that leads them through dialling,
//! warming up and what counts. Threads share nothing but counters.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinSet, LocalSet};

use super::alarm::Alarm;
use super::client::{Client, Limit, Run};
use super::job::{Call, Job, Lease, LeaseHeads};
use super::link::Link;
use super::pace::Pace;
use super::tally::Tally;
use super::watch::{Seen, Watcher};
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
    /// Watches that see what is written.
    pub watchers: usize,
    /// Connections that all these share.
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
    /// Wait until each watcher has got so many events, or no more come, and report those.
    Drain(u64),
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
    /// When it began.
    pub start: Instant,
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
        self.reports.recv().await.unwrap_or_else(ended)
    }

    /// Lets all clients work until there is nothing more to do or `interrupt` comes.
    pub async fn run(
        &mut self,
        pace: Pace,
        mark: u64,
        mut show: impl FnMut(&Run),
        interrupt: impl Future<Output = ()>,
    ) -> Result<Outcome, Failure> {
        let cpu = cpu_time();
        let run = Arc::new(Run::new(pace, mark));
        self.orders.send_replace(Order::Run(run.clone()));
        let mut tally = Tally::new();
        let mut missing = self.threads.len();
        let mut interrupt = std::pin::pin!(interrupt);
        let mut interrupted = false;
        let mut tick = tokio::time::interval(Duration::from_millis(200));
        while missing > 0 {
            tokio::select! {
                report = self.reports.recv() => {
                    let report = report.unwrap_or_else(ended);
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
            start: run.start,
        })
    }

    /// Adds the events that the watchers receive, up to one for each success, or until no more come.
    pub async fn drain(&mut self, outcome: &mut Outcome) -> Result<(), Failure> {
        let cpu = cpu_time();
        self.orders.send_replace(Order::Drain(outcome.tally.succeeded()));
        for _ in 0..self.threads.len() {
            let report = self.next_report().await;
            outcome.tally.add(report.map_err(Failure::refused)?);
        }
        outcome.cpu += cpu_time().saturating_sub(cpu);
        Ok(())
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

/// The report of a thread that gives none.
fn ended() -> Report {
    Err("a thread of the load ended".to_owned())
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
    let mut team = match Team::gather(load, thread).await {
        Ok(team) => team,
        Err(why) => {
            let _ = reports.send(Err(why));
            return;
        }
    };
    let _ = reports.send(Ok(Tally::new()));
    while ordered.changed().await.is_ok() {
        let order = ordered.borrow_and_update().clone();
        let mut tally = Tally::new();
        match order {
            Order::Dial => continue,
            Order::Stop => return,
            Order::Drain(events) => {
                let events = events * team.watchers as u64;
                team.seen.wait_for_events(events, load.timeout).await;
                tally.events = team.seen.take();
            }
            Order::Run(run) => {
                tally = team.run(run, &mut ordered).await;
                if matches!(*ordered.borrow(), Order::Stop) {
                    tally.events = team.seen.take();
                }
            }
        }
        let _ = reports.send(Ok(tally));
    }
}

/// The clients and watchers of a thread.
struct Team {
    links: Vec<Rc<Link>>,
    clients: Vec<Client>,
    watchers: usize,
    seen: Rc<Seen>,
}

impl Team {
    /// Connects, and opens the watches.
    async fn gather(load: &Load, thread: usize) -> Result<Team, String> {
        let links = links(load, thread);
        for link in &links {
            link.wait().await.map_err(|fault| fault.to_string())?;
        }
        let alarm = Alarm::new().map_err(|error| error.to_string())?;
        let seen = Seen::new();
        let watchers = watchers(load, thread, &links, &seen);
        let team = Team {
            clients: clients(load, thread, &links, &alarm),
            watchers: watchers.len(),
            seen: seen.clone(),
            links,
        };
        for watcher in watchers {
            tokio::task::spawn_local(watcher.watch());
        }
        seen.wait_for_open(team.watchers, load.timeout).await?;
        Ok(team)
    }

    /// Lets the clients work until there is nothing more to do, or something else is ordered.
    async fn run(&mut self, run: Arc<Run>, ordered: &mut watch::Receiver<Order>) -> Tally {
        self.seen.count(run.mark, run.start);
        let tally = Rc::new(RefCell::new(Tally::new()));
        let mut tasks = JoinSet::new();
        for mut client in std::mem::take(&mut self.clients) {
            let (run, tally) = (run.clone(), tally.clone());
            tasks.spawn_local(async move {
                client.work(&run, &tally).await;
                client
            });
        }
        tokio::select! {
            done = tasks.join_all() => self.clients = done,
            _ = ordered.changed() => {}
        }
        let mut tally = tally.replace(Tally::new());
        for link in &self.links {
            tally.refused(link.dial_errors());
        }
        tally
    }
}

/// The thread's connections: every so many of the load's, which go to the endpoints in turn.
fn links(load: &Load, thread: usize) -> Vec<Rc<Link>> {
    let endpoints: Rc<[Endpoint]> = load.servers().collect();
    (thread..load.connections)
        .step_by(load.threads)
        .map(|connection| Link::open(endpoints.clone(), connection, load.dial_timeout))
        .collect()
}

/// The clients of the thread's connections. The load's clients go to its connections in turn.
fn clients(load: &Load, thread: usize, links: &[Rc<Link>], alarm: &Rc<Alarm>) -> Vec<Client> {
    let values = Rc::new(Values::new(load.value_size, load.seed));
    let heads: Rc<[_]> = load
        .servers()
        .map(|server| server.head(load.kind.path()))
        .collect();
    let lease_heads: Rc<[_]> = load.servers().map(|server| LeaseHeads::at(&server)).collect();
    load.own(load.clients, thread)
        .map(|(client, link)| {
            let random = Random::of(load.seed, client);
            let job = match load.kind {
                Kind::Lease { renewals } => Job::Lease(Lease::new(lease_heads.clone(), renewals)),
                kind => Job::Call(Call {
                    requests: Requests::new(kind, load.keys, values.clone(), random),
                    kind,
                    heads: heads.clone(),
                }),
            };
            Client {
                job,
                link: links[link].clone(),
                held: None,
                alarm: alarm.clone(),
                limit: Limit::new(load.timeout),
                random: Random::of(!load.seed, client),
            }
        })
        .collect()
}

/// The watchers of the thread's connections, spread likewise.
fn watchers(load: &Load, thread: usize, links: &[Rc<Link>], seen: &Rc<Seen>) -> Vec<Watcher> {
    let heads: Rc<[_]> = load
        .servers()
        .map(|server| server.head("/etcdserverpb.Watch/Watch"))
        .collect();
    load.own(load.watchers, thread)
        .map(|(watcher, link)| {
            let random = Random::of(load.seed.rotate_left(32), watcher);
            Watcher::new(heads.clone(), links[link].clone(), random, seen.clone())
        })
        .collect()
}

impl Load {
    fn servers(&self) -> impl Iterator<Item = Endpoint> {
        self.endpoints.iter().map(|url| Endpoint::new(url))
    }

    /// Which of so many clients or watchers are a thread's, each with the position of its connection among the thread's.
    fn own(&self, all: usize, thread: usize) -> impl Iterator<Item = (u64, usize)> {
        (0..all).filter_map(move |who| {
            let connection = who % self.connections;
            (connection % self.threads == thread).then_some((who as u64, connection / self.threads))
        })
    }
}
