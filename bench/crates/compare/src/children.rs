//! Child processes that never outlive the program: each is ended when its owner is dropped, so on errors and panics too, and all of them
//! on Ctrl-C and SIGTERM. Always by process id.

use std::collections::BTreeSet;
use std::io;
use std::process::{Child, Command, ExitStatus};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process};

/// The ids of all children that were started and not yet waited for.
static ALIVE: Mutex<BTreeSet<u32>> = Mutex::new(BTreeSet::new());

fn alive() -> MutexGuard<'static, BTreeSet<u32>> {
    ALIVE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Ends all children and then the program on SIGINT, SIGTERM and SIGHUP. To be called once, first of all.
pub fn end_on_signals() -> Result<()> {
    ctrlc::set_handler(|| {
        // The lock is kept: no child is waited for meanwhile, so no id can belong to another process.
        let children = alive();
        for &id in children.iter() {
            send(id, Signal::KILL);
        }
        eprintln!("interrupted; {} child processes ended", children.len());
        std::process::exit(130);
    })
    .context("signal handlers")
}

fn send(id: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(id).ok().and_then(Pid::from_raw) {
        // It may have ended by itself; until it is waited for, its id is nobody else's.
        let _ = kill_process(pid, signal);
    }
}

/// A child process, killed when dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
    ended: Option<ExitStatus>,
}

impl Process {
    /// Starts it.
    pub fn start(command: &mut Command) -> io::Result<Process> {
        let mut children = alive();
        let child = command.spawn()?;
        children.insert(child.id());
        Ok(Process { child, ended: None })
    }

    /// Its id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The child's pipes.
    pub fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// How it ended, if it did.
    pub fn ended(&mut self) -> io::Result<Option<ExitStatus>> {
        if self.ended.is_none() {
            let mut children = alive();
            self.ended = self.child.try_wait()?;
            if self.ended.is_some() {
                children.remove(&self.child.id());
            }
        }
        Ok(self.ended)
    }

    /// Sends a signal, unless it has ended.
    pub fn signal(&mut self, signal: Signal) -> io::Result<()> {
        if self.ended()?.is_none() {
            send(self.child.id(), signal);
        }
        Ok(())
    }

    /// Waits for its end, for so long.
    pub fn wait(&mut self, patience: Duration) -> io::Result<Option<ExitStatus>> {
        let until = Instant::now() + patience;
        loop {
            if let Some(status) = self.ended()? {
                return Ok(Some(status));
            }
            if Instant::now() >= until {
                return Ok(None);
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// `kill -9`, and waits until the system has taken it down.
    pub fn kill(&mut self) -> io::Result<()> {
        self.signal(Signal::KILL)?;
        while self.ended()?.is_none() {
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Err(error) = self.kill() {
            eprintln!("cannot end process {}: {error}", self.child.id());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sleeper() -> Process {
        Process::start(Command::new("sleep").arg("600")).expect("sleep is on every system")
    }

    #[test]
    fn a_dropped_process_is_gone() {
        let process = sleeper();
        let id = process.id();
        assert!(std::path::Path::new(&format!("/proc/{id}")).exists());
        drop(process);
        assert!(!std::path::Path::new(&format!("/proc/{id}")).exists());
        assert!(!alive().contains(&id));
    }

    #[test]
    fn a_panic_takes_the_children_along() {
        let (sender, receiver) = std::sync::mpsc::channel();
        let ended = std::thread::spawn(move || {
            let process = sleeper();
            sender.send(process.id()).expect("the receiver waits");
            panic!("on purpose");
        })
        .join();
        assert!(ended.is_err());
        let id = receiver.recv().expect("sent before the panic");
        assert!(!std::path::Path::new(&format!("/proc/{id}")).exists());
    }

    #[test]
    fn an_ended_process_is_not_signalled_again() {
        let mut process = Process::start(&mut Command::new("true")).expect("true is on every system");
        let status = process.wait(Duration::from_secs(60)).expect("its status");
        assert!(status.expect("it ends by itself").success());
        process.signal(Signal::KILL).expect("nothing to do");
        assert!(!alive().contains(&process.id()));
    }
}
