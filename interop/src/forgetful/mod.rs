//! A file system in memory that behaves like a disk with a cache behind its power switch: what was not synced may be gone after a cut,
//! sector by sector and name by name ([`file`], [`disk`]). Here is what the kernel asks of it.
//!
//! Reads and writes bypass the page cache, so all that the kernel knows is here. The program is told on its standard input: `cut` is a
//! power cut, after which it says what survived; `cut 0` is one that nothing survives that was not synced. Whoever had files open must be dead by then. The end of the input unmounts.

mod disk;
mod file;

use std::ffi::OsStr;
use std::io::BufRead;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fuser::{
    BsdFileFlags, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo,
    LockOwner, MountOption, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory,
    ReplyEmpty, ReplyEntry, ReplyOpen, ReplyStatfs, ReplyWrite, Request, TimeOrNow, WriteFlags,
};

use crate::Result;
use crate::options::Options;
use disk::{Directory, Disk, Mood, Node};
use file::{File, SECTOR};

/// Nothing that the kernel is told stays true.
const TTL: Duration = Duration::ZERO;
const FIRST: Generation = Generation(0);
/// Sectors that `statfs` says are free.
const PLENTY: u64 = 1 << 24;

/// Mounts one and serves it until the end of the input.
pub fn run(arguments: &[String]) -> Result {
    let options = Options::parse(arguments)?;
    let disk = Arc::new(Mutex::new(Disk::new(options.seed)));
    let mut config = Config::default();
    config.mount_options = vec![MountOption::FSName("forgetful".into())];
    let session = fuser::spawn_mount(Mounted(disk.clone()), &options.endpoints[0], &config)?;
    println!("mounted");
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let mood = match line.split_once(' ') {
            None if line == "cut" => None,
            Some(("cut", mood)) => Some(Mood(mood.parse()?)),
            _ => return Err(format!("what is {line:?}").into()),
        };
        let cut = lock(&disk).cut(mood);
        let ((sectors, of), (names, of_names)) = (cut.sectors, cut.names);
        println!(
            "{sectors} of {of} sectors and {names} of {of_names} names survived of what was not synced ({} %)",
            cut.mood.0
        );
    }
    session.umount_and_join()?;
    Ok(())
}

fn lock(disk: &Mutex<Disk>) -> MutexGuard<'_, Disk> {
    disk.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// The disk as the kernel sees it.
struct Mounted(Arc<Mutex<Disk>>);

/// What the kernel is told of a file or directory.
fn attributes(number: u64, node: &Node) -> FileAttr {
    let (kind, size, perm) = match node {
        Node::File(file) => (FileType::RegularFile, file.len(), 0o600),
        Node::Directory(_) => (FileType::Directory, 0, 0o700),
    };
    FileAttr {
        ino: INodeNo(number),
        size,
        blocks: size.div_ceil(SECTOR as u64),
        atime: UNIX_EPOCH,
        mtime: UNIX_EPOCH,
        ctime: UNIX_EPOCH,
        crtime: UNIX_EPOCH,
        kind,
        perm,
        nlink: 1,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: 4096,
        flags: 0,
    }
}

impl Mounted {
    fn disk(&self) -> MutexGuard<'_, Disk> {
        lock(&self.0)
    }

    fn attributes(&self, number: u64) -> Option<FileAttr> {
        self.disk().node(number).map(|node| attributes(number, node))
    }
}

/// Answers a request that either can be carried out or names something that is not there.
fn done(reply: ReplyEmpty, outcome: Option<()>) {
    match outcome {
        Some(()) => reply.ok(),
        None => reply.error(Errno::ENOENT),
    }
}

impl Filesystem for Mounted {
    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let found = self.disk().find(parent.0, name);
        match found.and_then(|number| self.attributes(number)) {
            Some(attributes) => reply.entry(&TTL, &attributes, FIRST),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn getattr(&self, _: &Request, number: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match self.attributes(number.0) {
            Some(attributes) => reply.attr(&TTL, &attributes),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn setattr(
        &self,
        _: &Request,
        number: INodeNo,
        _: Option<u32>,
        _: Option<u32>,
        _: Option<u32>,
        size: Option<u64>,
        _: Option<TimeOrNow>,
        _: Option<TimeOrNow>,
        _: Option<SystemTime>,
        _: Option<FileHandle>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        if let Some(size) = size
            && let Some(file) = self.disk().file(number.0)
        {
            file.set_len(size);
        }
        match self.attributes(number.0) {
            Some(attributes) => reply.attr(&TTL, &attributes),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn mkdir(&self, _: &Request, parent: INodeNo, name: &OsStr, _: u32, _: u32, reply: ReplyEntry) {
        let added = self
            .disk()
            .add(parent.0, name, Node::Directory(Directory::default()));
        match added.and_then(|number| self.attributes(number)) {
            Some(attributes) => reply.entry(&TTL, &attributes, FIRST),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn create(&self, _: &Request, parent: INodeNo, name: &OsStr, _: u32, _: u32, _: i32, reply: ReplyCreate) {
        let added = self.disk().add(parent.0, name, Node::File(File::default()));
        match added.and_then(|number| self.attributes(number)) {
            Some(attributes) => reply.created(
                &TTL,
                &attributes,
                FIRST,
                FileHandle(0),
                FopenFlags::FOPEN_DIRECT_IO,
            ),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        reply.opened(FileHandle(0), FopenFlags::FOPEN_DIRECT_IO);
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        done(reply, self.disk().remove(parent.0, name));
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        to: INodeNo,
        new: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        if parent != to || !flags.is_empty() {
            return reply.error(Errno::EXDEV);
        }
        done(reply, self.disk().rename(parent.0, name, new));
    }

    fn read(
        &self,
        _: &Request,
        number: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        match self.disk().file(number.0) {
            Some(file) => reply.data(&file.read(offset, size as usize)),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn write(
        &self,
        _: &Request,
        number: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        match (self.disk().file(number.0), u32::try_from(data.len())) {
            (Some(file), Ok(length)) => {
                file.write(offset, data);
                reply.written(length);
            }
            _ => reply.error(Errno::EIO),
        }
    }

    fn fsync(&self, _: &Request, number: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        done(reply, self.disk().sync(number.0));
    }

    fn fsyncdir(&self, _: &Request, number: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        done(reply, self.disk().sync(number.0));
    }

    fn readdir(&self, _: &Request, number: INodeNo, _: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        let disk = self.disk();
        let Some(Node::Directory(directory)) = disk.node(number.0) else {
            return reply.error(Errno::ENOENT);
        };
        let skipped = usize::try_from(offset).unwrap_or(usize::MAX);
        for (position, (name, number)) in directory.names().enumerate().skip(skipped) {
            let kind = match disk.node(number) {
                Some(Node::Directory(_)) => FileType::Directory,
                _ => FileType::RegularFile,
            };
            if reply.add(INodeNo(number), position as u64 + 1, kind, name) {
                break;
            }
        }
        reply.ok();
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        reply.statfs(
            PLENTY,
            PLENTY,
            PLENTY,
            PLENTY,
            PLENTY,
            SECTOR as u32,
            255,
            SECTOR as u32,
        );
    }
}
