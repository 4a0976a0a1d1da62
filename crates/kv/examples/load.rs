//! What a put costs in the state machine alone: applies puts of random keys through a [`Kv`] on real files, runs its jobs in between on the
//! same thread, and prints CPU time per put of applying and of flushing, bytes and calls to the disk, the file's length,
//! memory, what point reads cost and how long the store takes to open again. No log, no network.
//!
//! `cargo run --release -p quorate-kv --example load -- --dir /tmp/load --puts 500000 --keys 100000 --fill`

use std::error::Error;
use std::fs;
use std::io::{self, IoSlice};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use bytes::Bytes;
use quorate_base::{Disk, DiskFile, LogId, StateMachine};
use quorate_kv::watch::{Hub, HubOptions};
use quorate_kv::{Command, Kv, Options, PutRequest, RangeRequest};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const USAGE: &str =
    "load --dir DIR [--puts N] [--keys N] [--value BYTES] [--batch N] [--reads N] [--cache MIB] [--flush MIB] [--fill] [--abort]
  --fill   put every key once, in random order, before counting begins
  --abort  die without closing the store, for measuring what opening it again then takes (--puts 0)";

/// What to do; see [`USAGE`].
struct Args {
    dir: PathBuf,
    puts: u64,
    keys: u64,
    value: usize,
    batch: u64,
    reads: u64,
    options: Options,
    fill: bool,
    abort: bool,
}

impl Args {
    fn parse() -> Result<Args> {
        let mut args = Args {
            dir: PathBuf::new(),
            puts: 500_000,
            keys: 100_000,
            value: 256,
            batch: 100,
            reads: 100_000,
            options: Options::default(),
            fill: false,
            abort: false,
        };
        let mut given = std::env::args().skip(1);
        while let Some(name) = given.next() {
            let mut next = || given.next().ok_or(USAGE);
            match name.as_str() {
                "--dir" => args.dir = next()?.into(),
                "--puts" => args.puts = next()?.parse()?,
                "--keys" => args.keys = next()?.parse()?,
                "--value" => args.value = next()?.parse()?,
                "--batch" => args.batch = next()?.parse()?,
                "--reads" => args.reads = next()?.parse()?,
                "--cache" => args.options.cache_bytes = next()?.parse::<usize>()? << 20,
                "--flush" => args.options.flush_bytes = next()?.parse::<usize>()? << 20,
                "--fill" => args.fill = true,
                "--abort" => args.abort = true,
                _ => return Err(USAGE.into()),
            }
        }
        if args.dir.as_os_str().is_empty() {
            return Err(USAGE.into());
        }
        Ok(args)
    }
}

/// Bytes and calls to the files.
#[derive(Debug, Default)]
struct Counts {
    read: AtomicU64,
    reads: AtomicU64,
    written: AtomicU64,
    writes: AtomicU64,
    syncs: AtomicU64,
}

/// A directory, counted.
#[derive(Debug)]
struct FsDisk {
    dir: PathBuf,
    counts: Arc<Counts>,
}

#[derive(Debug)]
struct FsFile {
    file: fs::File,
    counts: Arc<Counts>,
}

impl Disk for FsDisk {
    fn open(&self, name: &str, create: bool) -> io::Result<Arc<dyn DiskFile>> {
        let file = fs::File::options()
            .read(true)
            .write(true)
            .create(create)
            .truncate(false)
            .open(self.dir.join(name))?;
        let counts = self.counts.clone();
        Ok(Arc::new(FsFile { file, counts }))
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let names =
            fs::read_dir(&self.dir)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
        let mut names: Vec<String> = names.collect::<io::Result<_>>()?;
        names.sort();
        Ok(names)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.dir.join(from), self.dir.join(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.dir.join(name))
    }

    fn sync_dir(&self) -> io::Result<()> {
        fs::File::open(&self.dir)?.sync_all()
    }
}

impl FsFile {
    fn wrote(&self, bytes: usize) {
        self.counts.writes.fetch_add(1, Ordering::Relaxed);
        self.counts.written.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

impl DiskFile for FsFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.counts.reads.fetch_add(1, Ordering::Relaxed);
        self.counts.read.fetch_add(buf.len() as u64, Ordering::Relaxed);
        self.file.read_exact_at(buf, offset)
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.wrote(data.len());
        self.file.write_all_at(data, offset)
    }

    fn write_vectored_at(&self, offset: u64, parts: &[IoSlice<'_>]) -> io::Result<()> {
        let whole: Vec<u8> = parts.iter().flat_map(|part| part.iter().copied()).collect();
        self.write_at(offset, &whole)
    }

    fn sync(&self) -> io::Result<()> {
        self.counts.syncs.fetch_add(1, Ordering::Relaxed);
        self.file.sync_data()
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }
}

/// Nanoseconds that this thread has been on a CPU, in the kernel included.
fn cpu() -> Result<u64> {
    let stat = fs::read_to_string("/proc/thread-self/schedstat")?;
    Ok(stat
        .split_whitespace()
        .next()
        .ok_or("schedstat is empty")?
        .parse()?)
}

/// A line of `/proc/self/status`, in MiB.
fn memory(line: &str) -> Result<f64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let found = status.lines().find_map(|found| found.strip_prefix(line));
    let kib = found.and_then(|rest| rest.trim_matches([':', '\t', ' ', 'k', 'B']).parse::<f64>().ok());
    Ok(kib.ok_or("no such line in /proc/self/status")? / 1024.0)
}

/// SplitMix64: the same keys for the same run.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }
}

fn key(n: u64) -> Bytes {
    format!("{n:08}").into()
}

/// The machine under load, and what that has cost.
struct Load {
    kv: Kv,
    /// Without watchers.
    hub: Hub,
    args: Args,
    counts: Arc<Counts>,
    random: Random,
    apply: u64,
    flush: u64,
    jobs: u64,
}

impl Load {
    fn put(&mut self, key: Bytes) {
        let mut value = vec![0; self.args.value];
        for piece in value.chunks_mut(8) {
            let noise = self.random.below(u64::MAX).to_le_bytes();
            piece.copy_from_slice(&noise[..piece.len()]);
        }
        let put = PutRequest {
            key,
            value: value.into(),
            ..PutRequest::default()
        };
        let command = Command::Put(put).encode();
        let next = LogId::new(1, self.kv.applied().index.next().get());
        self.kv.apply(next, &command).expect("a plain put succeeds");
    }

    fn run_jobs(&mut self, urgent: bool) -> Result<()> {
        while let Some(job) = self.kv.job(urgent) {
            let began = cpu()?;
            job()?;
            self.flush += cpu()? - began;
            self.jobs += 1;
        }
        Ok(())
    }

    /// Puts the keys in batches, running jobs in between as the server does.
    fn puts(&mut self, keys: impl Iterator<Item = u64>) -> Result<()> {
        let mut keys = keys.peekable();
        while keys.peek().is_some() {
            let began = cpu()?;
            for n in keys.by_ref().take(self.args.batch as usize) {
                self.put(key(n));
            }
            if let Some(batch) = self.kv.take_events() {
                self.hub.publish(&batch);
            }
            self.apply += cpu()? - began;
            self.run_jobs(false)?;
        }
        Ok(())
    }

    fn report(&self, what: &str, puts: u64) -> Result<()> {
        let per_put = |n: u64| n as f64 / puts.max(1) as f64;
        let count = |n: &AtomicU64| n.load(Ordering::Relaxed);
        println!("{what}: {puts} puts, {} jobs", self.jobs);
        println!(
            "  CPU ns/put: apply {:.0}, flush {:.0}, together {:.0}",
            per_put(self.apply),
            per_put(self.flush),
            per_put(self.apply + self.flush)
        );
        println!(
            "  per put: {:.0} bytes written in {:.3} calls, {:.0} read in {:.3}; {} syncs",
            per_put(count(&self.counts.written)),
            per_put(count(&self.counts.writes)),
            per_put(count(&self.counts.read)),
            per_put(count(&self.counts.reads)),
            count(&self.counts.syncs)
        );
        let size = self.kv.size();
        println!(
            "  file {:.1} MiB for {:.1} MiB of rows; resident {:.1} MiB anonymous, {:.1} at its peak",
            size.total as f64 / 1048576.0,
            size.in_use as f64 / 1048576.0,
            memory("RssAnon")?,
            memory("VmHWM")?
        );
        Ok(())
    }

    fn reset(&mut self) {
        (self.apply, self.flush, self.jobs) = (0, 0, 0);
        let Counts {
            read,
            reads,
            written,
            writes,
            syncs,
        } = &*self.counts;
        [read, reads, written, writes, syncs]
            .iter()
            .for_each(|n| n.store(0, Ordering::Relaxed));
    }

    fn reads(&mut self) -> Result<()> {
        let (mut found, began) = (0, cpu()?);
        for _ in 0..self.args.reads {
            let request = RangeRequest {
                key: key(self.random.below(self.args.keys)),
                ..RangeRequest::default()
            };
            found += self.kv.range(&request)?.kvs.len();
        }
        let took = (cpu()? - began) as f64 / self.args.reads.max(1) as f64;
        println!(
            "  CPU ns/point read: {took:.0} ({found} found of {})",
            self.args.reads
        );
        Ok(())
    }
}

fn open(dir: &Path, counts: &Arc<Counts>, options: &Options) -> Result<Kv> {
    let disk = FsDisk {
        dir: dir.to_owned(),
        counts: counts.clone(),
    };
    let began = Instant::now();
    let kv = Kv::open(Arc::new(disk), options.clone())?;
    println!(
        "opened at revision {} in {:.1} ms",
        kv.revision(),
        began.elapsed().as_secs_f64() * 1e3
    );
    Ok(kv)
}

fn main() -> Result<()> {
    let args = Args::parse()?;
    fs::create_dir_all(&args.dir)?;
    let counts = Arc::new(Counts::default());
    let kv = open(&args.dir, &counts, &args.options)?;
    let mut load = Load {
        hub: Hub::new(HubOptions::default(), kv.revision(), kv.compacted_revision()),
        kv,
        counts: counts.clone(),
        random: Random(args.keys),
        apply: 0,
        flush: 0,
        jobs: 0,
        args,
    };
    let (puts, keys) = (load.args.puts, load.args.keys);
    if load.args.fill {
        // A step that shares no factor with the number of keys reaches each of them once.
        let mut step = keys / 2 + 1;
        while gcd(step, keys) != 1 {
            step += 1;
        }
        load.puts((0..keys).map(|n| n * step % keys))?;
        load.report("fill", keys)?;
        load.reset();
    }
    let mut random = Random(puts);
    load.puts((0..puts).map(|_| random.below(keys)))?;
    load.report("load", puts)?;
    load.reads()?;
    if load.args.abort {
        std::process::abort();
    }
    load.run_jobs(true)?;
    let Load { kv, args, .. } = load;
    drop(kv);
    open(&args.dir, &counts, &args.options)?;
    Ok(())
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}
