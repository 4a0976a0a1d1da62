//! What power failures need: something that can lose power, and how much of that to try.

use std::io;
use std::sync::Arc;

use quorate_base::Disk;

use crate::crash::CrashDisk;

/// A medium whose power can be cut. What survives is its own choice, as a real one's: everything synced, any part of the rest.
pub trait Medium {
    /// The disk as the machine finds it when it starts. The one mounted before is not used any more.
    ///
    /// # Errors
    /// If the disk cannot be brought up: a failure of the check, since after a power failure it must be.
    fn mount(&mut self) -> io::Result<Arc<dyn Disk>>;

    /// Lets power fail inside the changing operation (write, sync, set_len, create, rename, remove, sync_dir) after the next
    /// `operations`: that one and all later calls fail, until [`power_off`](Medium::power_off).
    fn cut_power_after(&mut self, operations: u64);

    /// Power is gone, if it is not already: decides what survives. [`mount`](Medium::mount) follows.
    ///
    /// # Errors
    /// If the medium itself fails.
    fn power_off(&mut self) -> io::Result<()>;

    /// Changing operations so far.
    fn operations(&self) -> u64;
}

/// How much to try. Cost grows with the product.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// At the most so many moments of each scenario at which power fails, spread evenly over it.
    pub moments: u64,
    /// So many different outcomes of each power failure.
    pub outcomes: u64,
}

impl Effort {
    /// A few hundred power failures: for media that are slow to set up.
    pub fn quick() -> Effort {
        Effort {
            moments: 40,
            outcomes: 2,
        }
    }

    /// Every moment, several outcomes.
    pub fn thorough() -> Effort {
        Effort {
            moments: u64::MAX,
            outcomes: 8,
        }
    }

    /// Which of `all` operations power fails in.
    pub(crate) fn moments_of(self, all: u64) -> impl Iterator<Item = u64> {
        let step = all.div_ceil(self.moments.max(1)).max(1);
        (0..all).step_by(usize::try_from(step).unwrap_or(usize::MAX))
    }
}

/// A disk that is built over another one, over one that loses power.
pub struct Stacked<F> {
    raw: CrashDisk,
    over: F,
}

impl<F> Stacked<F>
where
    F: FnMut(Arc<dyn Disk>) -> io::Result<Arc<dyn Disk>>,
{
    /// `over` builds the disk to be checked over the raw one, at every mount.
    pub fn new(raw: CrashDisk, over: F) -> Stacked<F> {
        Stacked { raw, over }
    }
}

impl<F> Medium for Stacked<F>
where
    F: FnMut(Arc<dyn Disk>) -> io::Result<Arc<dyn Disk>>,
{
    fn mount(&mut self) -> io::Result<Arc<dyn Disk>> {
        let raw = self.raw.mount()?;
        (self.over)(raw)
    }

    fn cut_power_after(&mut self, operations: u64) {
        self.raw.cut_power_after(operations);
    }

    fn power_off(&mut self) -> io::Result<()> {
        self.raw.power_off()
    }

    fn operations(&self) -> u64 {
        Medium::operations(&self.raw)
    }
}
