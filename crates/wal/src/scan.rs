//! Judging what stands at one place of a segment: nothing, a frame, a frame torn by a crash, or damage. This file holds
//! the distinction the whole crate exists for; what follows from it across segments is in `recover`.
//!
//! The rule: a frame is written into zeros that were durable before, with one write and one sync, and nothing is written
//! after it before that sync returned. So a crash leaves each of its sectors either right or zero. A frame with missing
//! sectors is torn if every wrong sector is zero and nothing stands after it; it was then never acknowledged. Everything else is
//! damage.
//!
//! One sector may be right in its front only: where the system cut the write short, which it may do at any byte. Then all footer sectors
//! behind it were not written, so such a sector is told from damage by what is missing with it; if it is itself of the footer, by what it
//! should be. Zeros that recovery writes over a torn frame may be cut short likewise: see [`wipe_first`](crate::recover).

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
    if is_zero(&image[start..]) {
        return Found::Nothing;
    }
    let first = sector(image, start);
    if format::is_begun_frame_header(first) && is_zero(&image[start + SECTOR..]) {
        reached!("wal.torn.inside_header");
        return Found::Torn { shape: None };
    }
    // Zeros that recovery wrote over a torn frame may end inside this sector. A header begins with bits enough that no flipped one makes
    // such a front of it; a lone bit behind zeros is one that flipped.
    let one_bit = image[start..].iter().map(|byte| byte.count_ones()).sum::<u32>() == 1;
    if first[0] != 0 || one_bit && !is_zero(first) {
        reached!("wal.damage.neither_frame_nor_zeros");
        return damaged(start, "neither a frame nor zeros");
    }
    look_for_remains(place, image, start)
}

/// The sector at `start`, where a frame may begin, is zero, at least in its front, but not everything after that.
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
    let Some(&Lost { at: first, .. }) = lost.first() else {
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
    if let [only] = &lost[..]
        && let Some(why) = only.why_not_torn(place)
    {
        return damaged(first, why);
    }
    reached!("wal.torn.several_sectors", lost.len() > 1);
    reached!("wal.torn.one_sector", lost.len() == 1);
    Found::Torn { shape: Some(shape) }
}

/// A sector of a frame that is not as it should be, at `at`.
struct Lost {
    at: usize,
    missing: Missing,
}

/// What is not there.
enum Missing {
    /// A data sector, which should have this checksum.
    Data { sum: u32 },
    /// A footer sector.
    Footer,
    /// The end of a footer sector whose front is right. `bit` if all that is missing is one bit.
    End { bit: bool },
    /// Some of a sector over which recovery wrote zeros.
    Wiped,
}

impl Lost {
    /// Why a frame that misses nothing else was not torn by a crash.
    fn why_not_torn(&self, place: Place) -> Option<&'static str> {
        match self.missing {
            Missing::Data { sum } if is_sum_of_one_bit(place, self.at, sum) => {
                reached!("wal.damage.single_one_bit");
                Some("a sector with a single one bit became zero")
            }
            Missing::End { bit: true } => {
                reached!("wal.damage.footer_lost_one_bit");
                Some("the footer's last one bit became zero")
            }
            // There was nothing to be wiped.
            Missing::Wiped => {
                reached!("wal.damage.only_front_zero");
                Some("the sector's checksum is wrong")
            }
            Missing::Data { .. } | Missing::Footer | Missing::End { bit: false } => None,
        }
    }
}

/// The sectors of a frame that a crash may have left as they are, and that should be otherwise.
fn lost_sectors(place: Place, image: &[u8], start: usize, shape: Shape) -> Result<Vec<Lost>, Found> {
    let mut lost = Vec::new();
    let data = shape.data_sectors();
    // After the frame's first sector, which was durably zero by then, recovery wrote zeros over the others: these may hold anything.
    let wiped = is_zero(sector(image, start));
    let mut cut = None;
    for part in 0..shape.footer_sectors() {
        let at = start + (data + part) * SECTOR;
        let Some(footer) = footer_at(place, image, at, start, shape, part) else {
            let missing = if is_zero(sector(image, at)) {
                reached!("wal.torn.footer_lost");
                Missing::Footer
            } else if cut.is_none()
                && let Some(end) = end_of_footer(place, image, at, start, shape, part)
            {
                reached!("wal.torn.inside_footer");
                cut = Some(at);
                end
            } else if wiped {
                Missing::Wiped
            } else {
                reached!("wal.damage.other_footer");
                return Err(damaged(at, "not the footer that the frame should have"));
            };
            lost.push(Lost { at, missing });
            continue;
        };
        if let Some(cut) = cut {
            reached!("wal.damage.footer_after_cut");
            return Err(damaged(cut, "not the footer that the frame should have"));
        }
        for i in 0..SUMS.min(data - part * SUMS) {
            let at = start + (part * SUMS + i) * SECTOR;
            let bytes = sector(image, at);
            let sum = footer.sum(i);
            if place.checksum(at as u32, bytes) == sum {
                continue;
            }
            let missing = if is_zero(bytes) {
                Missing::Data { sum }
            } else if wiped || at == start && bytes[0] == 0 {
                reached!("wal.torn.wiped_in_part");
                Missing::Wiped
            } else {
                reached!("wal.damage.sector_checksum");
                return Err(damaged(at, "the sector's checksum is wrong"));
            };
            lost.push(Lost { at, missing });
        }
    }
    lost.sort_unstable_by_key(|lost| lost.at);
    Ok(lost)
}

/// What is missing of the footer sector at `at` if that is right up to some byte and zero from there on: the write was cut short inside it. What
/// it should be follows from the data, which were written before; where these got lost later, only of the rest can be told.
fn end_of_footer(
    place: Place,
    image: &[u8],
    at: usize,
    start: usize,
    shape: Shape,
    part: usize,
) -> Option<Missing> {
    let found = sector(image, at);
    let written = found.iter().rposition(|byte| *byte != 0)? + 1;
    let covered = part * SUMS..shape.data_sectors().min((part + 1) * SUMS);
    let data = |i: usize| (start + i * SECTOR, sector(image, start + i * SECTOR));
    let sum = |i| {
        let (at, bytes) = data(i);
        place.checksum(at as u32, bytes)
    };
    let sums: Vec<u32> = covered.clone().map(sum).collect();
    let right = format::encode_footer(place, at as u32, start as u32, &shape, part as u32, &sums);
    if found[..written] == right[..written] {
        let bits: u32 = right[written..].iter().map(|byte| byte.count_ones()).sum();
        return Some(Missing::End { bit: bits == 1 });
    }
    // A lost sector makes its sum and the footer's own unknown.
    let unknown: Vec<usize> = covered
        .filter(|&i| data(i).1[0] == 0 && (i == 0 || is_zero(data(i).1)))
        .collect();
    let of_lost = |byte: usize| match byte {
        4..8 => !unknown.is_empty(),
        byte => unknown
            .iter()
            .any(|&i| format::sum_in_footer(i - part * SUMS).contains(&byte)),
    };
    (0..written)
        .all(|byte| found[byte] == right[byte] || of_lost(byte))
        .then_some(Missing::End { bit: false })
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

    /// A whole frame at the second sector of a segment, with this many data sectors.
    fn frame(data: usize) -> (Vec<u8>, Shape) {
        let shape = shape(data * SECTOR);
        let mut image = vec![0; 2 * SECTOR + shape.size()];
        let header = format::encode_frame_header(PLACE, SECTOR as u32, &shape, 0);
        image[SECTOR..(1 + data) * SECTOR].fill(7);
        image[SECTOR..][..FRAME_HEADER].copy_from_slice(&header);
        for part in 0..shape.footer_sectors() {
            let covered = part * SUMS..data.min((part + 1) * SUMS);
            let at = |i: usize| SECTOR + i * SECTOR;
            let sums: Vec<u32> = covered
                .map(|i| PLACE.checksum(at(i) as u32, sector(&image, at(i))))
                .collect();
            let footer = format::encode_footer(
                PLACE,
                at(data + part) as u32,
                SECTOR as u32,
                &shape,
                part as u32,
                &sums,
            );
            image[at(data + part)..at(data + part + 1)].copy_from_slice(&footer);
        }
        (image, shape)
    }

    /// Each is one step from what a write that was cut short leaves, and nothing that a crash leaves.
    #[test]
    fn what_only_looks_like_a_write_cut_short_is_damage() {
        const FOOTER: &str = "not the footer that the frame should have";
        let at = SECTOR as u32;
        let (whole, shape) = frame(SUMS + 1);
        let end = SECTOR as u32 + shape.size() as u32;
        let frame_found = Found::Frame {
            shape,
            records: 0,
            end,
        };
        assert_eq!(look(PLACE, &whole, at), frame_found);
        let footer = (1 + SUMS + 1) * SECTOR;

        // A part of the footer is there that was written after what is missing.
        let mut image = whole.clone();
        image[footer + 300..footer + SECTOR].fill(0);
        assert_eq!(look(PLACE, &image, at), damaged(footer, FOOTER));
        assert!(quorate_marks::hits("wal.damage.footer_after_cut") > 0);
        image[footer + SECTOR..].fill(0);
        assert_eq!(look(PLACE, &image, at), Found::Torn { shape: Some(shape) });
        // Its front is not right, or what it says of the data is not.
        let mut other = image.clone();
        other[footer + 200] ^= 1;
        assert_eq!(look(PLACE, &other, at), damaged(footer, FOOTER));
        let mut other = image.clone();
        other[5 * SECTOR + 9] ^= 1;
        assert_eq!(look(PLACE, &other, at), damaged(footer, FOOTER));
        // A data sector got lost with the rest: of its sum nothing can be told, of the others' it can.
        image[5 * SECTOR..6 * SECTOR].fill(0);
        assert_eq!(look(PLACE, &image, at), Found::Torn { shape: Some(shape) });
        for neighbour in [4, 6] {
            let mut image = image.clone();
            image[neighbour * SECTOR + 9] ^= 1;
            assert_eq!(look(PLACE, &image, at), damaged(footer, FOOTER));
        }

        // Zeros in the front of the first sector, and nothing missing that they were to hide.
        let mut image = whole.clone();
        image[SECTOR..SECTOR + 40].fill(0);
        assert_eq!(
            look(PLACE, &image, at),
            damaged(SECTOR, "the sector's checksum is wrong")
        );
        assert!(quorate_marks::hits("wal.damage.only_front_zero") > 0);
        image[7 * SECTOR..8 * SECTOR].fill(0);
        assert_eq!(look(PLACE, &image, at), Found::Torn { shape: Some(shape) });
        // In the front of another sector, which recovery comes to only when the first one is gone.
        let mut image = whole.clone();
        image[7 * SECTOR..8 * SECTOR].fill(0);
        image[9 * SECTOR..9 * SECTOR + 40].fill(0);
        let wrong = damaged(9 * SECTOR, "the sector's checksum is wrong");
        assert_eq!(look(PLACE, &image, at), wrong);
        image[SECTOR..2 * SECTOR].fill(0);
        assert_eq!(look(PLACE, &image, at), Found::Torn { shape: Some(shape) });
    }

    #[test]
    fn the_second_sector_of_a_footer_is_told_by_the_data_that_it_covers() {
        let at = SECTOR as u32;
        let (whole, shape) = frame(SUMS + 1);
        let second = (1 + SUMS + 2) * SECTOR;
        let torn = Found::Torn { shape: Some(shape) };
        let mut image = whole.clone();
        image[second + 20..].fill(0);
        assert_eq!(look(PLACE, &image, at), torn);
        // With the sum of a sector that got lost.
        let mut image = whole.clone();
        image[second + 43..].fill(0);
        image[(1 + SUMS) * SECTOR..(2 + SUMS) * SECTOR].fill(0);
        assert_eq!(look(PLACE, &image, at), torn);
    }

    #[test]
    fn the_beginning_of_a_header_is_torn_only_with_nothing_behind_it() {
        let at = SECTOR as u32;
        let (whole, _) = frame(3);
        let mut image = vec![0; whole.len()];
        image[SECTOR..SECTOR + 17].copy_from_slice(&whole[SECTOR..SECTOR + 17]);
        assert_eq!(look(PLACE, &image, at), Found::Torn { shape: None });
        let neither = damaged(SECTOR, "neither a frame nor zeros");
        image[3 * SECTOR] = 1;
        assert_eq!(look(PLACE, &image, at), neither);
        let mut image = vec![0; whole.len()];
        image[SECTOR..SECTOR + 5].fill(0x55);
        assert_eq!(look(PLACE, &image, at), neither);
    }

    /// One flipped bit must never pass for a write that was cut short.
    #[test]
    fn a_footer_that_lost_only_its_last_one_bit_is_damage() {
        let mut found = 0;
        for fill in 1..=u8::MAX {
            let (mut image, _) = frame(1);
            image[2 * SECTOR - 1] = fill;
            let sum = PLACE.checksum(SECTOR as u32, sector(&image, SECTOR));
            let footer =
                format::encode_footer(PLACE, 2 * SECTOR as u32, SECTOR as u32, &shape(SECTOR), 0, &[sum]);
            image[2 * SECTOR..3 * SECTOR].copy_from_slice(&footer);
            let last = image.iter().rposition(|byte| *byte != 0).unwrap();
            let one_bit = image[last].count_ones() == 1;
            image[last] = 0;
            let judged = look(PLACE, &image, SECTOR as u32);
            if one_bit {
                assert_eq!(
                    judged,
                    damaged(2 * SECTOR, "the footer's last one bit became zero")
                );
                found += 1;
            } else {
                assert!(matches!(judged, Found::Torn { .. }), "{judged:?}");
            }
        }
        assert!(found > 0 && quorate_marks::hits("wal.damage.footer_lost_one_bit") > 0);
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
