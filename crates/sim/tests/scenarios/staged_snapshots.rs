//! The staging file of a snapshot on a disk whose sync fails: what a later run finds in memory may never have reached the medium.

use std::io::Read;

use bytes::Bytes;
use quorate_node::Staging;
use quorate_node::event::{Event, StageOp};
use quorate_node::staging::StagingReader;
use quorate_sim::disk::{Blow, SimDisk};
use quorate_sim::rng::Rng;

/// CRC32C, one bit at a time.
fn crc32c(bytes: &[u8]) -> u32 {
    let bit = |crc: u32| (crc >> 1) ^ (0x82f6_3b78 * (crc & 1));
    let byte = |crc: u32, byte: &u8| (0..8).fold(crc ^ u32::from(*byte), |crc, _| bit(crc));
    !bytes.iter().fold(!0, byte)
}

#[test]
fn what_a_failed_sync_left_in_memory_is_written_again_before_it_counts() {
    for seed in 0..40 {
        let disk = SimDisk::new(Rng::new(seed));
        let (first, second) = (vec![7; 3000], vec![8; 2000]);
        let mut staging = Staging::new(disk.mount());
        let about = Bytes::from_static(b"a snapshot");
        staging.carry_out(StageOp::Begin { stream: 1, about }).unwrap();
        let piece = |stream, offset, crc, bytes: &[u8]| StageOp::Write {
            stream,
            offset,
            crc,
            bytes: Bytes::copy_from_slice(bytes),
        };
        staging.carry_out(piece(1, 0, crc32c(&first), &first)).unwrap();
        disk.arm(0, Blow::SyncError);
        staging.carry_out(StageOp::Sync { stream: 1 }).unwrap_err();
        disk.kill();
        let mut staging = Staging::new(disk.mount());
        let found = staging.carry_out(StageOp::Check).unwrap();
        assert!(matches!(
            found,
            Some(Event::StageChecked {
                len: 3000,
                end: true,
                ..
            })
        ));
        let whole = [first, second.clone()].concat();
        staging.carry_out(StageOp::Resume { stream: 2 }).unwrap();
        staging
            .carry_out(piece(2, 3000, crc32c(&whole), &second))
            .unwrap();
        staging.carry_out(StageOp::Finish { stream: 2 }).unwrap();
        disk.crash();
        let mut read = Vec::new();
        let mut reader = StagingReader::open(&*disk.mount()).unwrap();
        reader.read_to_end(&mut read).unwrap();
        assert!(read == whole, "seed {seed}");
    }
}
