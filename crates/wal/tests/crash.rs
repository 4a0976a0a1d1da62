//! Crashes at every call of the disk, with many or all subsets of what was not durable kept; in recovery too, twice.
//! What is recovered must be what was acknowledged, or that and some of the batches in flight, in order.

mod common;

use common::{Fault, MemDisk, Model, Random, SECTOR, SMALL, Step, entry, mark, open, run, state, workload};
use quorate_wal::OpenError;

/// With this set in the environment the tests try twenty times as many subsets of what a crash may leave, and all of them where there
/// are up to 12 choices instead of 7. That takes minutes.
const THOROUGH: &str = "QUORATE_CRASH_POINTS";

fn thoroughness() -> u64 {
    std::env::var_os(THOROUGH).map_or(1, |_| 20)
}

fn all_subsets_of(choices: u32) -> u32 {
    std::env::var_os(THOROUGH).map_or(choices, |_| 12)
}

/// Calls `check` with all combinations of what may survive a crash if they are few, and with samples otherwise.
fn for_each_crash(disk: &MemDisk, seed: u64, samples: u64, check: &mut dyn FnMut(&MemDisk)) {
    let mut choices = 0_u32;
    check(&disk.after_crash(&mut || {
        choices += 1;
        false
    }));
    check(&disk.after_crash(&mut || true));
    if choices <= all_subsets_of(7) {
        for mask in 0..1_u64 << choices {
            let mut bit = 0;
            check(&disk.after_crash(&mut || {
                bit += 1;
                mask >> (bit - 1) & 1 == 1
            }));
        }
        return;
    }
    let mut random = Random(seed);
    for sample in 0..samples * thoroughness() {
        // One lost, one kept, then all mixtures: tears at the edges are the interesting ones.
        let odds = [1, 15, 8, 4][sample as usize % 4];
        check(&disk.after_crash(&mut || random.below(16) < odds));
    }
}

fn recover(image: &MemDisk, possible: &[Model]) -> Model {
    match open(image, SMALL) {
        Ok((_, found)) => {
            assert!(
                possible.contains(&found),
                "recovered {found:#?}\nnot one of {possible:#?}"
            );
            found
        }
        Err(error) => panic!("a crash is not damage: {error}\npossible: {possible:#?}"),
    }
}

/// A recovered log must go on working.
fn go_on(image: &MemDisk, found: &Model) {
    let (mut wal, again) = open(image, SMALL).unwrap();
    assert_eq!(again, *found, "recovering twice is recovering once");
    let mut model = again;
    for size in [1, 700, 5000] {
        let batches = [vec![entry(model.last() + 1, vec![0xab; size])]];
        wal.append(&batches).unwrap();
        model.apply_all(&batches);
    }
    let durable = image.after_crash(&mut || false);
    assert_eq!(recover(&durable, std::slice::from_ref(&model)), model);
}

/// Crashes at each call of these steps. Returns how many those were, and how often a batch under way was found whole, and not at all.
fn crash_everywhere(steps: &[Step]) -> (u64, u64, u64) {
    let (mut whole, mut cut) = (0, 0);
    for nth in 0.. {
        let disk = MemDisk::default();
        disk.fail_at(nth, Fault::Crash);
        let outcome = match open(&disk, SMALL) {
            Ok((mut wal, model)) => run(&disk, &mut wal, model, steps),
            Err(_) => common::Outcome {
                possible: vec![Model::default()],
                failed: true,
            },
        };
        if !outcome.failed {
            return (nth, whole, cut);
        }
        for_each_crash(&disk, nth, 60, &mut |image| {
            let found = recover(image, &outcome.possible);
            if outcome.possible.len() > 1 {
                *(if found == outcome.possible[0] {
                    &mut cut
                } else {
                    &mut whole
                }) += 1;
            }
            go_on(image, &found);
        });
    }
    unreachable!("the steps come to an end");
}

#[test]
fn a_crash_at_any_call_loses_nothing_acknowledged() {
    let (crashes, whole, cut) = crash_everywhere(&workload());
    assert!(crashes > 60, "the workload made only {crashes} calls");
    assert!(
        whole > 10 && cut > 10,
        "both outcomes were reached: {whole} and {cut}"
    );
}

/// Where a log has no entries, nothing but the state and the mark keeps an old segment: it goes once the next has them, and no sooner.
#[test]
fn a_crash_between_segments_loses_no_state_of_an_empty_log() {
    let mut steps = vec![
        Step::Append(vec![vec![state(b"term 1"), entry(1, vec![7; 100])]]),
        Step::Append(vec![vec![mark(1, b"snapshot at 1")]]),
    ];
    for term in [
        b"term 2", b"term 3", b"term 4", b"term 5", b"term 6", b"term 7", b"term 8",
    ] {
        steps.push(Step::Append(vec![vec![state(term)]]));
    }
    // A segment has room for seven frames.
    assert!(steps.len() > SMALL as usize / 512);
    let (crashes, ..) = crash_everywhere(&steps);
    assert!(crashes > 20, "the steps made only {crashes} calls");
}

/// Crashes in the middle of recovering from a crash, at every call: the third start finds what the second would have found.
#[test]
fn a_crash_in_recovery_changes_nothing() {
    let steps = workload();
    let mut crashes = 0;
    for nth in 0.. {
        let disk = MemDisk::default();
        disk.fail_at(nth, Fault::Crash);
        let outcome = match open(&disk, SMALL) {
            Ok((mut wal, model)) => run(&disk, &mut wal, model, &steps),
            Err(_) => continue,
        };
        if !outcome.failed {
            break;
        }
        for_each_crash(&disk, nth, 4, &mut |image| {
            let image_files = image.files();
            let found = recover(image, &outcome.possible);
            for nth in 0.. {
                let image = MemDisk::of(&image_files);
                image.fail_at(nth, Fault::Crash);
                if open(&image, SMALL).is_ok() {
                    break;
                }
                for_each_crash(&image, nth, 6, &mut |twice| {
                    assert_eq!(recover(twice, &outcome.possible), found);
                });
                crashes += 1;
            }
        });
    }
    assert!(crashes > 500, "only {crashes} crashes in recovery");
}

/// Every subset of the sectors of one append, for appends inside a segment and at the head of the next one.
#[test]
fn every_subset_of_the_sectors_of_an_append() {
    for before in [0_usize, 1, 3] {
        for size in [10, 600, 1400] {
            let disk = MemDisk::default();
            let (mut wal, model) = open(&disk, SMALL).unwrap();
            let earlier = (1..=before as u64).map(|i| Step::Append(vec![vec![entry(i, vec![3; 400])]]));
            let mut steps: Vec<Step> = earlier.collect();
            steps.push(Step::Maintain);
            steps.push(Step::Maintain);
            let model = run(&disk, &mut wal, model, &steps).possible.remove(0);
            // The write comes first, then the sync, which never returns.
            disk.fail_at(1, Fault::Crash);
            let body = Random(size as u64).bytes(size);
            let last = [Step::Append(vec![vec![
                entry(before as u64 + 1, body.clone()),
                entry(before as u64 + 2, body),
            ]])];
            let outcome = run(&disk, &mut wal, model, &last);
            assert!(outcome.failed);
            let sectors = disk.unsynced().len();
            assert!((2..=12).contains(&sectors), "{sectors} sectors");
            for mask in 0..1_u64 << sectors {
                let mut bit = 0;
                let image = disk.after_crash(&mut || {
                    bit += 1;
                    mask >> (bit - 1) & 1 == 1
                });
                let found = recover(&image, &outcome.possible);
                let all = mask == (1 << sectors) - 1;
                assert_eq!(found == outcome.possible[1], all, "exactly a whole frame counts");
            }
        }
    }
}

/// Two crashes in recovery, one in the recovery from the other, and that at any call: the fourth start finds what the second would have.
#[test]
fn two_crashes_in_recovery_change_nothing() {
    let steps = workload();
    let mut crashes = 0;
    for nth in 0.. {
        let disk = MemDisk::default();
        disk.fail_at(nth, Fault::Crash);
        let Ok((mut wal, model)) = open(&disk, SMALL) else {
            continue;
        };
        let outcome = run(&disk, &mut wal, model, &steps);
        if !outcome.failed {
            break;
        }
        let mut random = Random(nth);
        let files = disk.after_crash(&mut || random.below(2) == 0).files();
        let found = recover(&MemDisk::of(&files), &outcome.possible);
        each_crash_in_recovery(&files, nth, &mut |once| {
            let files = once.files();
            each_crash_in_recovery(&files, nth, &mut |twice| {
                assert_eq!(recover(twice, &outcome.possible), found);
                crashes += 1;
            });
        });
    }
    assert!(
        crashes > 2_000,
        "only {crashes} crashes in the recovery from a crash in recovery"
    );
}

/// Starts from these files and crashes at each call, with nothing, everything, and a mixture kept of what was not durable.
fn each_crash_in_recovery(
    files: &std::collections::BTreeMap<String, Vec<u8>>,
    seed: u64,
    check: &mut dyn FnMut(&MemDisk),
) {
    for nth in 0.. {
        let image = MemDisk::of(files);
        image.fail_at(nth, Fault::Crash);
        if open(&image, SMALL).is_ok() {
            return;
        }
        let mut random = Random(seed ^ nth);
        check(&image.after_crash(&mut || false));
        check(&image.after_crash(&mut || true));
        check(&image.after_crash(&mut || random.below(2) == 0));
    }
}

/// The bytes of one append reach the medium from any byte to the end, and those before do not. A medium that writes sectors as a whole leaves
/// only cuts between sectors, and those are torn, never damage. Of one that does not, what is recovered may be called damage, but never
/// be anything that was not appended. (Cuts from the other end are what short writes leave: `short_writes.rs`.)
#[test]
fn a_cut_at_every_byte_of_an_append() {
    let (mut torn, mut refused) = (0, 0);
    for size in [10, 1400] {
        let disk = MemDisk::default();
        let (mut wal, model) = open(&disk, SMALL).unwrap();
        let first = [Step::Append(vec![vec![state(b"term 1"), entry(1, vec![3; 400])]])];
        let model = run(&disk, &mut wal, model, &first).possible.remove(0);
        let before = disk.files();
        let last = [Step::Append(vec![vec![entry(2, Random(9).bytes(size))]])];
        let outcome = run(&disk, &mut wal, model.clone(), &last);
        let name = "wal-0000000000000001";
        let (old, new) = (&before[name], &disk.files()[name]);
        let changed = |at: &usize| old[*at] != new[*at];
        let from = (0..old.len()).find(changed).unwrap() / SECTOR * SECTOR;
        let to = (0..old.len()).rfind(changed).unwrap().next_multiple_of(SECTOR);
        for cut in from..=to {
            let mut files = before.clone();
            files.insert(name.to_owned(), [&old[..cut], &new[cut..]].concat());
            match open(&MemDisk::of(&files), SMALL) {
                Ok((_, found)) if cut == from => assert_eq!(found, outcome.possible[0], "cut at {cut}"),
                // Padding is zeros, so the first bytes that count may be there although others were cut off.
                Ok((_, found)) => {
                    assert!([&model, &outcome.possible[0]].contains(&&found), "cut at {cut}");
                    torn += 1;
                }
                Err(OpenError::Damaged(damage)) => {
                    assert!(
                        !cut.is_multiple_of(SECTOR),
                        "cut at {cut}, between sectors: {damage}"
                    );
                    refused += 1;
                }
                Err(other) => panic!("cut at {cut}: {other}"),
            }
        }
    }
    assert!(torn > 4 && refused > 500, "{torn} torn, {refused} refused");
}
