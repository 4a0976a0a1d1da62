//! Writing the store's file anew. The engine reuses the pages that it frees, but gives hardly any back to the disk, and while an old
//! state is being read out for a follower it may free none. So a file can become many times as long as what it holds, and
//! stay so. While it holds little, a job now and then writes that into a fresh file in place of flushing to the old one, which
//! disappears when its last reader does. What it costs is proportional to what is there, and nobody waits for it.
//!
//! A large store is left as it is: the job would take too long, and its file is bounded by the most that it ever held at once.

use std::io;
use std::sync::Arc;

use quorate_base::Disk;
use quorate_base::disk::is_full;

use crate::flush::{Flush, Outcome};
use crate::kv::Options;
use crate::snapshot::{self, Stream};
use crate::store::{File, NEW_FILE, remove_if_there};
use crate::view::View;

/// The most that is written anew: a matter of seconds.
const MOST: u64 = 256 << 20;
/// A file may be so many times as long as what it holds.
const TIMES: u64 = 4;

/// What it takes besides the flush.
pub(crate) struct Anew {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) options: Options,
    pub(crate) view: Arc<View>,
}

/// When to write anew.
#[derive(Debug, Default)]
pub(crate) struct Waste {
    /// The file's length after the last attempt.
    settled: u64,
    due: bool,
}

impl Waste {
    /// After a flush, or at the start: the file has `total` bytes, of which `live` are content.
    pub(crate) fn notice(&mut self, total: u64, live: u64, slack: u64) {
        let long = total > live.saturating_mul(TIMES).saturating_add(slack);
        self.due = live <= MOST && long && total > self.settled.saturating_add(slack);
    }

    /// An attempt left a file of `total` bytes.
    pub(crate) fn settle(&mut self, total: u64) {
        (self.settled, self.due) = (total, false);
    }

    /// Whether the next job should write anew.
    pub(crate) fn is_due(&self) -> bool {
        self.due
    }
}

impl Flush {
    /// Puts a fresh file in place of the present one. `Ok(false)` if the disk has no room for it: then nothing has changed.
    pub(crate) fn write_anew(&self, anew: &Anew) -> io::Result<bool> {
        // Whoever replaces the store in the meantime waits for this, and whoever has is not overwritten.
        let replaced = self.shared.replaced();
        if *replaced {
            return Ok(true);
        }
        let meta = self
            .frozen
            .as_ref()
            .map_or(&self.before.meta, |frozen| &frozen.meta);
        let tables = (Default::default(), self.frozen.clone());
        let mut all = Stream::lean(tables, anew.view.clone(), meta, self.before.scrubbed);
        let fill = |file: &File| snapshot::receive(file, meta.applied, &mut all);
        match File::create(&*anew.disk, &anew.options, fill) {
            Ok(()) => {}
            Err(error) if is_full(&error) => {
                remove_if_there(&*anew.disk, NEW_FILE)?;
                return Ok(false);
            }
            Err(error) => return Err(error),
        }
        let file = File::open(&*anew.disk, &anew.options)?;
        let (_, flushed) = file.state()?;
        self.shared
            .conclude(flushed.meta.applied.index, Outcome::Anew(file, flushed));
        Ok(true)
    }
}
