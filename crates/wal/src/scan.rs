//! Judging what stands at one place of a segment: nothing, a frame, a frame torn by a crash, or damage. This file holds
//! the distinction the whole crate exists for; what follows from it across segments is in `recover`.
//!
//! The rule: a frame is written into zeros that were durable before, with one write and one sync, and nothing is written
//! after it before that sync returned. So a crash leaves each of its sectors either right or zero. A frame with missing
//! sectors is torn if every wrong sector is zero and nothing stands after it; it was then never acknowledged. Everything else is
//! damage.

use bytes::Bytes;
use quorate_marks::reached;

use crate::format::{self, FRAME_HEADER, Footer, Place, SECTOR, SUMS, Shape, ZEROS, is_zero};
use crate::record::{self, Stored};

/// What stands at a place.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// Zeros to the end of the segment.
    Nothing,
    /// A whole frame; the next one begins at `end`.
    Frame { shape: Shape, records: u32, end: u32 },
    /// Remains of a frame that was never durable; with its shape, if that is among the remains.
    Torn { shape: Option<Shape> },
    /// Something a crash cannot explain, at `offset`.
    Damaged { offset: u32, why: &'static str },
}

fn damaged(offset: usize, why: &'static str) -> Found {
    Found::Damaged {
        offset: offset as u32,
        why,
    }
}

fn sector(image: &[u8], at: usize) -> &[u8] {
    &image[at..at + SECTOR]
}

/// Judges what stands at `at`, where a frame may begin, in the segment whose bytes are `image`.
pub(crate) fn look(place: Place, image: &[u8], at: u32) -> Found {
    let start = at as usize;
    if start >= image.len() {
        return Found::Nothing;
    }
    if let Some((shape, records)) = format::decode_frame_header(place, at, sector(image, start)) {
        return judge(place, image, start, shape, Some(records));
    }
    if !is_zero(sector(image, start)) {
        reached!("wal.damage.neither_frame_nor_zeros");
        return damaged(start, "neither a frame nor zeros");
    }
    if is_zero(&image[start..]) {
        return Found::Nothing;
    }
    look_for_remains(place, image, start)
}

/// The sector at `start`, where a frame may begin, is zero, but not everything after it.
fn look_for_remains(place: Place, image: &[u8], start: usize) -> Found {
    const LATER: &str = "zeros, but a later frame shows that a frame was durable here";
    let mut shape = None;
    for at in (start + SECTOR..image.len()).step_by(SECTOR) {
        if format::decode_frame_header(place, at as u32, sector(image, at)).is_some() {
            reached!("wal.damage.later_frame_header");
            return damaged(start, LATER);
        }
        match format::decode_footer(place, at as u32, sector(image, at)) {
            Some(footer) if footer.start as usize != start => {
                reached!("wal.damage.later_frame_footer");
                return damaged(start, LATER);
            }
            Some(footer) => shape = Some(footer.shape),
            None => {}
        }
    }
    match shape {
        Some(shape) => {
            reached!("wal.scan.only_footer_left");
            judge(place, image, start, shape, None)
        }
        // Neither end of the frame reached the disk, so nothing can be said about the sectors between.
        None => {
            reached!("wal.torn.both_ends_lost");
            Found::Torn { shape: None }
        }
    }
}

/// Judges the frame of `shape` at `start`, sector by sector. `records` is absent if the frame's header is.
fn judge(place: Place, image: &[u8], start: usize, shape: Shape, records: Option<u32>) -> Found {
    let end = start + shape.size();
    if end > image.len() {
        reached!("wal.damage.longer_than_segment");
        return damaged(start, "a frame that is longer than its segment");
    }
    let lost = match lost_sectors(place, image, start, shape) {
        Ok(lost) => lost,
        Err(found) => return found,
    };
    let Some(&(first, sum)) = lost.first() else {
        return match records {
            Some(records) => Found::Frame {
                shape,
                records,
                end: end as u32,
            },
            None => {
                reached!("wal.damage.frame_without_header");
                damaged(start, "a frame without its header")
            }
        };
    };
    if !is_zero(&image[end..]) {
        reached!("wal.damage.zeros_before_more");
        return damaged(first, "zeros inside a frame after which more was written");
    }
    if let (1, Some(sum)) = (lost.len(), sum)
        && is_sum_of_one_bit(place, first, sum)
    {
        reached!("wal.damage.single_one_bit");
        return damaged(first, "a sector with a single one bit became zero");
    }
    reached!("wal.torn.several_sectors", lost.len() > 1);
    reached!("wal.torn.one_sector", lost.len() == 1);
    Found::Torn { shape: Some(shape) }
}

/// The sectors of a frame that are zero and should not be, each with the checksum it should have (footer sectors have no
/// checksum elsewhere).
type Lost = Vec<(usize, Option<u32>)>;

fn lost_sectors(place: Place, image: &[u8], start: usize, shape: Shape) -> Result<Lost, Found> {
    let mut lost = Lost::new();
    let data = shape.data_sectors();
    for part in 0..shape.footer_sectors() {
        let at = start + (data + part) * SECTOR;
        let Some(footer) = footer_at(place, image, at, start, shape, part) else {
            if is_zero(sector(image, at)) {
                reached!("wal.torn.footer_lost");
                lost.push((at, None));
                continue;
            }
            reached!("wal.damage.other_footer");
            return Err(damaged(at, "not the footer that the frame should have"));
        };
        for i in 0..SUMS.min(data - part * SUMS) {
            let at = start + (part * SUMS + i) * SECTOR;
            let bytes = sector(image, at);
            let sum = footer.sum(i);
            if place.checksum(at as u32, bytes) == sum {
                continue;
            }
            if !is_zero(bytes) {
                reached!("wal.damage.sector_checksum");
                return Err(damaged(at, "the sector's checksum is wrong"));
            }
            lost.push((at, Some(sum)));
        }
    }
    lost.sort_unstable_by_key(|&(at, _)| at);
    Ok(lost)
}

fn footer_at(
    place: Place,
    image: &[u8],
    at: usize,
    start: usize,
    shape: Shape,
    part: usize,
) -> Option<Footer<'_>> {
    format::decode_footer(place, at as u32, sector(image, at)).filter(|footer| {
        footer.start as usize == start && footer.shape == shape && footer.part as usize == part
    })
}

/// Whether a sector holding a single one bit could have the checksum `sum`: then one flipped bit makes it zero, which
/// must not pass for a tear.
fn is_sum_of_one_bit(place: Place, at: usize, sum: u32) -> bool {
    let mut bytes = ZEROS;
    (0..SECTOR * 8).any(|bit| {
        bytes[bit / 8] = 1 << (bit % 8);
        let matches = place.checksum(at as u32, &bytes) == sum;
        bytes[bit / 8] = 0;
        matches
    })
}

/// The next place from `at` on where a sound frame header stands.
pub(crate) fn next_frame(place: Place, image: &[u8], at: u32) -> Option<u32> {
    (at..image.len() as u32)
        .step_by(SECTOR)
        .find(|&at| format::decode_frame_header(place, at, sector(image, at as usize)).is_some())
}

/// Takes a whole frame apart: `visit` gets each record with its offset. The error is the place and what is wrong there.
pub(crate) fn records(
    place: Place,
    image: &Bytes,
    at: u32,
    shape: &Shape,
    count: u32,
    visit: &mut dyn FnMut(u32, Stored) -> Result<(), &'static str>,
) -> Result<(), (u32, &'static str)> {
    let end = at as usize + shape.payload as usize;
    let mut offset = at as usize + FRAME_HEADER;
    for _ in 0..count {
        let here = offset as u32;
        let (stored, size) =
            record::decode(place, here, &image.slice(offset..end)).map_err(|why| (here, why))?;
        visit(here, stored).map_err(|why| (here, why))?;
        offset += size;
    }
    if offset == end {
        Ok(())
    } else {
        reached!("wal.damage.more_than_its_records");
        Err((offset as u32, "a frame holds more than its records"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::Position;

    /// Sound in its place, but of another frame, or another part of this one's: nobody can say for which sectors its sums stand.
    #[test]
    fn only_the_frames_own_footer_speaks_for_it() {
        let place = Place {
            identity: 1,
            segment: 2,
        };
        let shape = Shape {
            sequence: 3,
            payload: FRAME_HEADER as u32,
            synced: Position {
                segment: 2,
                offset: SECTOR as u32,
            },
        };
        let found = |start: u32, footer: Shape, part: u32| {
            let mut image = vec![0; 4 * SECTOR];
            let at = SECTOR as u32;
            let header = format::encode_frame_header(place, at, &shape, 0);
            image[SECTOR..][..FRAME_HEADER].copy_from_slice(&header);
            let sums = [place.checksum(at, sector(&image, SECTOR))];
            let footer = format::encode_footer(place, 2 * at, start, &footer, part, &sums);
            image[2 * SECTOR..3 * SECTOR].copy_from_slice(&footer);
            look(place, &image, at)
        };
        let (own, end) = (SECTOR as u32, 3 * SECTOR as u32);
        let whole = Found::Frame {
            shape,
            records: 0,
            end,
        };
        assert_eq!(found(own, shape, 0), whole);
        let other = Shape { sequence: 4, ..shape };
        let wrong = damaged(2 * SECTOR, "not the footer that the frame should have");
        for (start, footer, part) in [(0, shape, 0), (own, other, 0), (own, shape, 1), (0, other, 1)] {
            assert_eq!(found(start, footer, part), wrong);
        }
    }

    const PLACE: Place = Place {
        identity: 1,
        segment: 2,
    };

    fn shape(payload: usize) -> Shape {
        Shape {
            sequence: 3,
            payload: payload as u32,
            synced: Position {
                segment: 2,
                offset: SECTOR as u32,
            },
        }
    }

    /// Sound in every checksum, and yet nothing that a log writes.
    #[test]
    fn frames_without_header_and_beyond_the_segment_are_damage() {
        let (mut image, at) = (vec![0; 4 * SECTOR], SECTOR as u32);
        let sums = [PLACE.checksum(at, &ZEROS)];
        let footer = format::encode_footer(PLACE, 2 * at, at, &shape(FRAME_HEADER), 0, &sums);
        image[2 * SECTOR..3 * SECTOR].copy_from_slice(&footer);
        let found = look(PLACE, &image, at);
        assert_eq!(found, damaged(SECTOR, "a frame without its header"));
        assert!(quorate_marks::hits("wal.damage.frame_without_header") > 0);

        let (mut image, long) = (vec![0; 4 * SECTOR], shape(3 * SECTOR));
        let header = format::encode_frame_header(PLACE, at, &long, 1);
        image[SECTOR..][..FRAME_HEADER].copy_from_slice(&header);
        let found = look(PLACE, &image, at);
        assert_eq!(found, damaged(SECTOR, "a frame that is longer than its segment"));
        assert!(quorate_marks::hits("wal.damage.longer_than_segment") > 0);
    }

    #[test]
    fn a_frame_that_holds_more_than_its_records_is_damage() {
        let shape = shape(FRAME_HEADER + 1);
        let image = Bytes::from(vec![0; 3 * SECTOR]);
        let found = records(PLACE, &image, SECTOR as u32, &shape, 0, &mut |_, _| Ok(()));
        let offset = (SECTOR + FRAME_HEADER) as u32;
        assert_eq!(found, Err((offset, "a frame holds more than its records")));
        assert!(quorate_marks::hits("wal.damage.more_than_its_records") > 0);
    }
}
