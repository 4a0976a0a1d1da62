//! Parts cut out of a buffer that holds more than them, to be kept when the rest is not needed any more. [`Bytes`] share the memory of
//! the whole buffer, which no account of the part sees: some bytes kept of each of many buffers would be all of them.

use bytes::{Buf, Bytes};

/// What a part may keep in memory beyond twice its own length: the smallest ones are not worth a copy.
const SLACK: usize = 256;

/// Parts beside each other are copied together up to this many bytes, which takes much less work than one by one.
const TOGETHER: usize = 4 << 10;

/// Whether `kept` bytes of a buffer of `held` are better copied than kept where they are.
pub fn wastes(kept: usize, held: usize) -> bool {
    held > 2 * kept + SLACK
}

/// A part of a buffer of `held` bytes, copied if it would keep much more than itself.
pub fn detach(part: Bytes, held: usize) -> Bytes {
    match wastes(part.len(), held) {
        true => Bytes::copy_from_slice(&part),
        false => part,
    }
}

/// Takes parts of these lengths off the front of a buffer of `held` bytes; `None` if it ends before they do. None of them keeps much
/// more than itself and a few KiB of those beside it.
pub fn cut(buffer: &mut Bytes, lengths: &[usize], held: usize) -> Option<Vec<Bytes>> {
    let mut parts = Vec::with_capacity(lengths.len());
    let mut rest = lengths;
    while let Some(first) = rest.first() {
        let (mut count, mut bytes) = (1, *first);
        while let Some(next) = rest.get(count)
            && bytes.saturating_add(*next) <= TOGETHER
        {
            bytes += next;
            count += 1;
        }
        if bytes > buffer.len() {
            return None;
        }
        let mut run = match wastes(bytes, held) {
            true => Bytes::copy_from_slice(&buffer[..bytes]),
            false => buffer.slice(..bytes),
        };
        buffer.advance(bytes);
        let (now, later) = rest.split_at(count);
        for length in &now[..count - 1] {
            parts.push(run.split_to(*length));
        }
        parts.push(run);
        rest = later;
    }
    Some(parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(length: usize) -> Bytes {
        (0..length).map(|n| n as u8).collect::<Vec<u8>>().into()
    }

    /// Whether a part lies in the memory of the whole.
    fn shares(whole: &Bytes, part: &Bytes) -> bool {
        whole.as_ptr_range().contains(&part.as_ptr())
    }

    #[test]
    fn what_is_most_of_a_buffer_stays_in_it() {
        let whole = whole(10_000);
        assert!(shares(&whole, &detach(whole.slice(10..5_010), whole.len())));
        let small = detach(whole.slice(10..1_010), whole.len());
        assert!(!shares(&whole, &small));
        assert_eq!(small, whole.slice(10..1_010));
        assert!(
            shares(&whole, &detach(whole.slice(..10), 200)),
            "too little to copy"
        );
    }

    #[test]
    fn parts_are_what_they_were_wherever_they_lie() {
        let whole = whole(100_000);
        let lengths = [1_500, 1_500, 0, 1_500, 60_000, 5, 0, 6_000, 0];
        let mut rest = whole.clone();
        let parts = cut(&mut rest, &lengths, whole.len()).unwrap();
        let mut at = 0;
        for (part, length) in parts.iter().zip(lengths) {
            assert_eq!(*part, whole.slice(at..at + length));
            at += length;
        }
        assert_eq!((parts.len(), rest), (lengths.len(), whole.slice(at..)));
        let shared: Vec<usize> = (0..lengths.len())
            .filter(|n| shares(&whole, &parts[*n]))
            .collect();
        assert_eq!(shared, [4], "of those only that is most of the whole");
        assert_eq!(
            parts[1].as_ptr(),
            parts[0].as_ptr_range().end,
            "copied with the one before"
        );
    }

    #[test]
    fn nothing_of_a_buffer_stays_when_little_of_it_is_kept() {
        let whole = whole(100_000);
        let parts = cut(&mut whole.clone(), &[10, 0, 4_000, 30, 40, 6_000, 0], whole.len());
        assert!(whole.is_unique(), "nobody shares it any more");
        assert_eq!(parts.unwrap().iter().map(Bytes::len).sum::<usize>(), 10_080);
    }

    #[test]
    fn parts_that_are_not_all_there_are_none() {
        for lengths in [&[3, 5][..], &[8, 0, 1], &[9], &[1, usize::MAX], &[usize::MAX, 1]] {
            assert_eq!(cut(&mut whole(7), lengths, 1 << 20), None, "{lengths:?}");
        }
        assert_eq!(cut(&mut whole(7), &[], 7), Some(Vec::new()));
    }
}
