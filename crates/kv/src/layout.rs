//! Where what stands in the store's file: the head, then groups of blocks of the engine's, each behind the block of their checksums. `docs/store.md`
//! has a picture. What the bytes are is the affair of `checked`.

use std::ops::Range;

/// What a checksum is of.
pub(crate) const BLOCK: u64 = 4096;
/// The file's first block says what it is.
pub(crate) const HEAD: u64 = 1;
/// Blocks that share a block of checksums, which stands before them.
pub(crate) const GROUP: u64 = BLOCK / 4 - 1;

/// Where the engine's header is. It has its checksum within, and is the only thing that is written in place.
pub fn header() -> Range<u64> {
    place(0)..place(0) + 512
}

/// Where the checksum of the block stands that has this byte of the file; `None` for what has none of its own.
pub fn checksum_of(byte: u64) -> Option<Range<u64>> {
    let block = (byte / BLOCK).checked_sub(HEAD)?;
    let (group, slot) = (block / (GROUP + 1), (block % (GROUP + 1)).checked_sub(1)?);
    let at = sums_at(group) + slot * 4;
    (place(group * GROUP + slot) != header().start).then_some(at..at + 4)
}

/// Where the checksums of a group stand.
pub(crate) fn sums_at(group: u64) -> u64 {
    (HEAD + group * (GROUP + 1)) * BLOCK
}

/// Where a block of the engine's stands. Its header is the beginning of the first.
pub(crate) fn place(block: u64) -> u64 {
    sums_at(block / GROUP) + (1 + block % GROUP) * BLOCK
}

/// How many blocks of the engine's a file of so many blocks holds.
pub(crate) fn blocks_in(total: u64) -> u64 {
    let (groups, rest) = (
        total.saturating_sub(HEAD) / (GROUP + 1),
        total.saturating_sub(HEAD) % (GROUP + 1),
    );
    groups * GROUP + rest.saturating_sub(1)
}

/// The group of some blocks, and which of its checksums are theirs.
pub(crate) fn slots(blocks: &Range<u64>) -> (u64, Range<usize>) {
    let first = (blocks.start % GROUP) as usize;
    let count = (blocks.end - blocks.start) as usize;
    (blocks.start / GROUP, first..first + count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_block_has_its_checksum_before_it() {
        assert_eq!(checksum_of(0), None, "the head");
        assert_eq!(checksum_of(sums_at(0)), None, "checksums");
        assert_eq!(checksum_of(header().start), None, "the header");
        assert_eq!(checksum_of(sums_at(1) + 7), None, "more checksums");
        for block in [1, 2, GROUP - 1, GROUP, GROUP + 1, 5 * GROUP] {
            let (group, slots) = slots(&(block..block + 1));
            let at = sums_at(group) + slots.start as u64 * 4;
            assert_eq!(checksum_of(place(block)), Some(at..at + 4));
            assert_eq!(checksum_of(place(block) + BLOCK - 1), Some(at..at + 4));
        }
    }
}
