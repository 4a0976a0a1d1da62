//! Opens a log whose first segment holds a sound header and then whatever the fuzzer likes. It must not panic, must agree
//! with `inspect`, and what opens once must open again as the same.
#![no_main]

#[path = "../../crates/wal/tests/common/mod.rs"]
mod common;

use common::{MemDisk, SMALL, open};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let fresh = MemDisk::default();
    open(&fresh, SMALL).expect("a sound disk");
    let mut files = fresh.files();
    let segment = files.values_mut().next().expect("the first segment");
    let room = segment.len() - common::SECTOR;
    let length = data.len().min(room);
    segment[common::SECTOR..common::SECTOR + length].copy_from_slice(&data[..length]);

    let disk = MemDisk::of(&files);
    let verdict = quorate_wal::inspect(&disk, &mut |_| ()).expect("a sound disk");
    match open(&disk, SMALL) {
        Ok((_, found)) => {
            assert!(verdict.is_ok());
            assert_eq!(open(&disk, SMALL).expect("it opened before").1, found);
        }
        Err(_) => assert!(verdict.is_err()),
    }
});
