//! Upkeep: making the next segment before it is needed, in small steps, and removing segments nobody needs any more.

use quorate_marks::reached;

use crate::error::{DiskError, WriteError};
use crate::format::{Place, SECTOR, SegmentHeader};
use crate::log::{Space, Wal};
use crate::segment::{self, Preparation, Segment};

impl Wal {
    /// Whether [`maintain`](Wal::maintain) has something to do. Also while it waits for space on a full disk, so after
    /// [`Space::Low`] call it seldom.
    pub fn needs_maintenance(&self) -> bool {
        self.closed.is_none() && (self.spare.is_none() || self.has_removable())
    }

    /// Does one small step of upkeep, for idle moments: removes an old segment, or makes a piece of the next one. A full
    /// disk is no error here but [`Space::Low`], and the step can be tried again.
    pub fn maintain(&mut self) -> Result<Space, WriteError> {
        self.check_open()?;
        let done = if self.has_removable() {
            self.remove_oldest()
        } else if self.spare.is_none() {
            match self.prepare_step(self.segment_bytes) {
                Err(error) if error.is_full() && self.closed.is_none() => {
                    reached!("wal.full.no_room_for_next_segment");
                    self.starved = true;
                    Ok(())
                }
                done => {
                    reached!("wal.full.room_again", self.starved && done.is_ok());
                    done.map(|()| self.starved = false)
                }
            }
        } else {
            Ok(())
        };
        self.close_on_error(done)?;
        Ok(self.space())
    }

    /// Whether the disk has room, as far as known.
    pub fn space(&self) -> Space {
        if self.starved && self.spare.is_none() {
            Space::Low
        } else {
            Space::Ok
        }
    }

    /// The next segment, with room for a first frame of `frame` bytes; made on the spot if it is not there.
    pub(crate) fn take_next(&mut self, frame: u64) -> Result<Segment, DiskError> {
        let needed = u32::try_from(SECTOR as u64 + frame).expect("batches are bounded");
        if self.spare.as_ref().is_some_and(|spare| spare.length < needed) {
            reached!("wal.spare.too_short");
            // The longer one takes the short one's name, in one step.
            self.spare = None;
        }
        loop {
            if let Some(spare) = self.spare.take() {
                reached!("wal.spare.taken", spare.length >= needed);
                return Ok(spare);
            }
            reached!("wal.spare.made_while_writing");
            self.prepare_step(needed.max(self.segment_bytes))?;
        }
    }

    /// One step towards a spare segment of at least `length` bytes.
    fn prepare_step(&mut self, length: u32) -> Result<(), DiskError> {
        let usable = |preparation: &Preparation| !preparation.is_spoiled() && preparation.length() >= length;
        if !self.preparation.as_ref().is_some_and(usable) {
            reached!("wal.prepare.begun_again", self.preparation.is_some());
            let place = Place {
                segment: self.head.number() + 1,
                ..self.place
            };
            self.preparation = Some(Preparation::begin(&*self.disk, SegmentHeader { place, length })?);
        }
        let preparation = self.preparation.as_mut().expect("begun above");
        if !preparation.is_filled() {
            return preparation.fill();
        }
        let spare = preparation.publish(&*self.disk)?;
        self.preparation = None;
        if let Err(error) = segment::sync_dir(&*self.disk) {
            reached!("wal.prepare.name_in_doubt");
            // Nobody knows whether the name is durable, so even a full disk is final here.
            self.closed = Some(error.to_string());
            return Err(error);
        }
        self.spare = Some(spare);
        Ok(())
    }

    /// Whether the oldest segment is not needed: all that is in the log, and a head to start from, is in later ones.
    fn has_removable(&self) -> bool {
        let needed = self
            .entries
            .first_segment()
            .unwrap_or(self.end.segment)
            .min(self.end.segment);
        self.sealed.front().is_some_and(|oldest| oldest.number() < needed)
    }

    /// Removes up to two segments: so the log stays bounded even if upkeep never gets its idle moment.
    pub(crate) fn remove_some(&mut self) -> Result<(), DiskError> {
        for _ in 0..2 {
            if self.has_removable() {
                self.remove_oldest()?;
            }
        }
        Ok(())
    }

    /// Removes the oldest segment, durably before the next one goes: a hole between segments means loss.
    fn remove_oldest(&mut self) -> Result<(), DiskError> {
        let oldest = self.sealed.pop_front().expect("asked before");
        reached!("wal.compact.removes_segment");
        let name = oldest.name();
        self.disk.remove(&name).map_err(DiskError::new("remove", &name))?;
        segment::sync_dir(&*self.disk)
    }
}
