//! What the methods of a [`Disk`] promise, without any crash: one small check each, and a long random life against a model.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind, IoSlice};
use std::sync::Arc;
use std::thread;

use quorate_base::{Disk, DiskFile};

use crate::{Failure, Outcome, Random, Report, ensure, must};

/// A check of an empty disk.
type Check = fn(&Arc<dyn Disk>) -> Outcome;

/// Every check, by the sentence that it proves.
const CHECKS: &[(&str, Check)] = &[
    (
        "an absent file is NotFound, and made empty if it is to be created",
        absent_files,
    ),
    (
        "what was written is read, wherever it is and however it overlaps",
        reads_what_was_written,
    ),
    (
        "a read beyond the end is UnexpectedEof, up to the end it is not",
        reads_at_the_end,
    ),
    ("a write beyond the end fills the gap with zeros", gaps_are_zeros),
    ("set_len cuts, and what it adds is zeros", lengths),
    (
        "a vectored write is its parts one after the other",
        vectored_writes,
    ),
    ("two handles of one file see the same", two_handles),
    ("list names all files, sorted, and nothing else", listing),
    ("a rename replaces, and open handles go with their file", renames),
    ("removed files are gone, and their names free", removals),
    ("renaming or removing an absent file is NotFound", absent_names),
    ("syncing succeeds and changes nothing", syncing),
    (
        "threads that write different files, or different parts of one, do not disturb each other",
        threads,
    ),
    ("a long random life leaves what a model of it leaves", random_life),
];

/// Checks all that the [`Disk`] and [`DiskFile`] traits promise as long as power does not fail. `fresh` gives an empty disk at every call.
///
/// # Errors
/// The first check that fails.
pub fn contract(mut fresh: impl FnMut() -> io::Result<Arc<dyn Disk>>) -> Result<Report, Failure> {
    let mut report = Report::default();
    for (check, run) in CHECKS {
        let outcome = match fresh() {
            Ok(disk) => run(&disk),
            Err(error) => Err(format!("no fresh disk: {error}")),
        };
        outcome.map_err(|what| Failure { check, what })?;
        report.checks += 1;
    }
    Ok(report)
}

fn create(disk: &dyn Disk, name: &str) -> Result<Arc<dyn DiskFile>, String> {
    must("create a file", disk.open(name, true))
}

fn write(file: &dyn DiskFile, offset: u64, data: &[u8]) -> Outcome {
    must("write", file.write_at(offset, data))
}

fn content(file: &dyn DiskFile) -> Result<Vec<u8>, String> {
    let mut bytes = vec![0xee; must("ask for the length", file.len())? as usize];
    must("read a whole file", file.read_at(0, &mut bytes))?;
    Ok(bytes)
}

/// The kind of the error, or a complaint that there was none.
fn kind_of<T>(what: &str, result: io::Result<T>) -> Result<ErrorKind, String> {
    match result {
        Ok(_) => Err(format!("{what} succeeds")),
        Err(error) => Ok(error.kind()),
    }
}

fn absent_files(disk: &Arc<dyn Disk>) -> Outcome {
    let kind = kind_of("opening an absent file", disk.open("absent", false))?;
    ensure!(kind == ErrorKind::NotFound, "opening an absent file is {kind:?}");
    let names = must("list", disk.list())?;
    ensure!(names.is_empty(), "a failed opening has made {names:?}");
    let file = create(&**disk, "made")?;
    let empty = must("ask for the length", file.is_empty())?;
    ensure!(empty, "a new file is not empty");
    write(&*file, 0, b"content")?;
    let again = create(&**disk, "made")?;
    ensure!(
        content(&*again)? == b"content",
        "opening with `create` has changed a file that was there"
    );
    must("open a file that is there", disk.open("made", false)).map(drop)
}

fn reads_what_was_written(disk: &Arc<dyn Disk>) -> Outcome {
    let file = create(&**disk, "file")?;
    let mut random = Random::new(1);
    let mut model = random.bytes(20_000);
    write(&*file, 0, &model)?;
    for (offset, len) in [
        (0, 1),
        (511, 2),
        (512, 512),
        (4095, 5000),
        (1, 0),
        (19_999, 1),
        (700, 9000),
    ] {
        let data = random.bytes(len);
        write(&*file, offset as u64, &data)?;
        model[offset..offset + len].copy_from_slice(&data);
        ensure!(
            content(&*file)? == model,
            "writing {len} bytes at {offset} left something else"
        );
        let mut part = vec![0; len + 3];
        let from = offset.min(model.len() - part.len());
        must("read", file.read_at(from as u64, &mut part))?;
        ensure!(
            part == model[from..from + part.len()],
            "a read at {from} gives something else"
        );
    }
    Ok(())
}

fn reads_at_the_end(disk: &Arc<dyn Disk>) -> Outcome {
    let file = create(&**disk, "file")?;
    write(&*file, 0, &[7; 1000])?;
    let mut bytes = [0; 10];
    must("read the last bytes", file.read_at(990, &mut bytes))?;
    must("read nothing at the end", file.read_at(1000, &mut []))?;
    for offset in [991, 1000, 5000, u64::MAX] {
        let kind = kind_of("a read beyond the end", file.read_at(offset, &mut bytes))?;
        ensure!(
            kind == ErrorKind::UnexpectedEof || offset == u64::MAX,
            "a read beyond the end is {kind:?}"
        );
    }
    Ok(())
}

fn gaps_are_zeros(disk: &Arc<dyn Disk>) -> Outcome {
    let file = create(&**disk, "file")?;
    write(&*file, 3000, b"end")?;
    let mut expected = vec![0; 3000];
    expected.extend(b"end");
    ensure!(
        content(&*file)? == expected,
        "the gap before the first write is not zeros"
    );
    write(&*file, 9000, &[])?;
    let len = must("ask for the length", file.len())?;
    ensure!(len == 3003, "an empty write has made the file {len} bytes long");
    Ok(())
}

fn lengths(disk: &Arc<dyn Disk>) -> Outcome {
    let file = create(&**disk, "file")?;
    write(&*file, 0, &[9; 2000])?;
    let mut model = vec![9; 2000];
    for len in [1500, 1000, 1300, 0, 5000, 512, 513, 600] {
        must("set the length", file.set_len(len as u64))?;
        model.resize(len, 0);
        ensure!(content(&*file)? == model, "wrong content after set_len({len})");
    }
    Ok(())
}

fn vectored_writes(disk: &Arc<dyn Disk>) -> Outcome {
    let file = create(&**disk, "file")?;
    let bytes = Random::new(2).bytes(4096);
    // As many parts as the log ever passes, some of them empty.
    let parts: Vec<IoSlice<'_>> = bytes
        .chunks(8)
        .flat_map(|part| [IoSlice::new(part), IoSlice::new(&[])])
        .collect();
    must("write in parts", file.write_vectored_at(5, &parts))?;
    let mut expected = vec![0; 5];
    expected.extend(&bytes);
    ensure!(
        content(&*file)? == expected,
        "the parts are not one after the other"
    );
    must("write no parts", file.write_vectored_at(9999, &[]))?;
    ensure!(
        content(&*file)? == expected,
        "a write of no parts has changed the file"
    );
    Ok(())
}

fn two_handles(disk: &Arc<dyn Disk>) -> Outcome {
    let (one, other) = (create(&**disk, "file")?, create(&**disk, "file")?);
    write(&*one, 0, b"from one")?;
    ensure!(
        content(&*other)? == b"from one",
        "the other handle does not see a write"
    );
    must("set the length", other.set_len(4))?;
    write(&*other, 4, b"!")?;
    drop(other);
    ensure!(
        content(&*one)? == b"from!",
        "the first handle does not see the second's changes"
    );
    Ok(())
}

fn listing(disk: &Arc<dyn Disk>) -> Outcome {
    let mut names = Vec::new();
    for name in ["wal-0002", "b", "a", "wal-0001", "Z", "identity", "x.new"] {
        create(&**disk, name)?;
        names.push(name);
    }
    names.sort_unstable();
    let listed = must("list", disk.list())?;
    ensure!(listed == names, "{names:?} were made, and {listed:?} are listed");
    Ok(())
}

fn renames(disk: &Arc<dyn Disk>) -> Outcome {
    let (new, old) = (create(&**disk, "new")?, create(&**disk, "target")?);
    write(&*new, 0, b"new content")?;
    write(&*old, 0, b"old")?;
    must("rename", disk.rename("new", "target"))?;
    let names = must("list", disk.list())?;
    ensure!(
        names == ["target"],
        "after renaming `new` to `target` there are {names:?}"
    );
    let found = must("open the renamed file", disk.open("target", false))?;
    ensure!(
        content(&*found)? == b"new content",
        "the target has kept its old content"
    );
    write(&*new, 0, b"NEW")?;
    ensure!(
        content(&*found)? == b"NEW content",
        "a handle opened before the rename writes elsewhere"
    );
    must("rename to itself", disk.rename("target", "target"))?;
    ensure!(
        content(&*found)? == b"NEW content",
        "renaming a file to its own name has changed it"
    );
    Ok(())
}

fn removals(disk: &Arc<dyn Disk>) -> Outcome {
    write(&*create(&**disk, "file")?, 0, b"old")?;
    must("remove", disk.remove("file"))?;
    let names = must("list", disk.list())?;
    ensure!(names.is_empty(), "after the removal there is {names:?}");
    let kind = kind_of("opening a removed file", disk.open("file", false))?;
    ensure!(kind == ErrorKind::NotFound, "opening a removed file is {kind:?}");
    let again = content(&*create(&**disk, "file")?)?;
    ensure!(
        again.is_empty(),
        "a new file under the removed one's name has its content"
    );
    Ok(())
}

fn absent_names(disk: &Arc<dyn Disk>) -> Outcome {
    write(&*create(&**disk, "there")?, 0, b"x")?;
    for (what, result) in [
        ("renaming an absent file", disk.rename("absent", "there")),
        ("removing an absent file", disk.remove("absent")),
    ] {
        let kind = kind_of(what, result)?;
        ensure!(kind == ErrorKind::NotFound, "{what} is {kind:?}");
    }
    let there = must("open a file", disk.open("there", false))?;
    ensure!(
        content(&*there)? == b"x",
        "a failed rename has changed its target"
    );
    Ok(())
}

fn syncing(disk: &Arc<dyn Disk>) -> Outcome {
    let file = create(&**disk, "file")?;
    must("sync an empty file", file.sync())?;
    write(&*file, 0, b"x")?;
    must("sync", file.sync())?;
    must("sync again", file.sync())?;
    must("sync the directory", disk.sync_dir())?;
    must("remove", disk.remove("file"))?;
    must("sync the directory again", disk.sync_dir())
}

fn threads(disk: &Arc<dyn Disk>) -> Outcome {
    const PART: usize = 700;
    let shared = create(&**disk, "shared")?;
    must("set the length", shared.set_len(8 * PART as u64))?;
    let work = |n: u8| {
        let own = create(&**disk, &format!("own-{n}"))?;
        for round in 0..50_u8 {
            let data = [n ^ round; PART];
            write(&*shared, u64::from(n) * PART as u64, &data)?;
            write(&*own, u64::from(round) * 10, &data)?;
            let mut read = [0; PART];
            must("read", shared.read_at(u64::from(n) * PART as u64, &mut read))?;
            ensure!(
                read == data,
                "a part of a file that only this thread writes has changed"
            );
            must("sync", if round % 10 == 0 { own.sync() } else { Ok(()) })?;
        }
        ensure!(
            content(&*own)?.len() == 490 + PART,
            "a file that only this thread writes has changed"
        );
        Ok(())
    };
    thread::scope(|scope| {
        let threads: Vec<_> = (0..8).map(|n| scope.spawn(move || work(n))).collect();
        threads.into_iter().try_for_each(|thread| {
            thread
                .join()
                .unwrap_or_else(|_| Err("it panics when several threads use it".into()))
        })
    })
}

fn random_life(disk: &Arc<dyn Disk>) -> Outcome {
    let mut random = Random::new(3);
    let mut model: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    for step in 0..1500 {
        let name = format!("f{}", random.below(4));
        let other = format!("f{}", random.below(4));
        let there = model.contains_key(&name);
        match random.below(10) {
            0 if there => {
                must("rename", disk.rename(&name, &other))?;
                let bytes = model.remove(&name).expect("it is there");
                model.insert(other, bytes);
            }
            1 if there => {
                must("remove", disk.remove(&name))?;
                model.remove(&name);
            }
            2 if there => {
                let len = random.below(3000);
                must("set the length", create(&**disk, &name)?.set_len(len))?;
                model.entry(name).or_default().resize(len as usize, 0);
            }
            _ => {
                let (offset, len) = (random.below(3000) as usize, 1 + random.below(1200) as usize);
                let data = random.bytes(len);
                write(&*create(&**disk, &name)?, offset as u64, &data)?;
                let bytes = model.entry(name).or_default();
                bytes.resize(bytes.len().max(offset + len), 0);
                bytes[offset..offset + len].copy_from_slice(&data);
            }
        }
        if step % 20 == 0 {
            let names = must("list", disk.list())?;
            ensure!(
                names.iter().eq(model.keys()),
                "step {step}: {names:?} in place of {:?}",
                model.keys()
            );
            for (name, expected) in &model {
                let found = content(&*must("open", disk.open(name, false))?)?;
                ensure!(found == *expected, "step {step}: {name} is not what was written");
            }
        }
    }
    Ok(())
}
