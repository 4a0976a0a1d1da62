//! A file system in memory that behaves like a disk with a cache behind its power switch: what was not synced may be gone after a cut,
//! sector by sector and name by name ([`file`], [`disk`]). Here is what the kernel asks of it.
//!
//! Reads and writes bypass the page cache, so all that the kernel knows is here. A sync takes a few milliseconds, as on a real disk, so
//! that power fails while something is under way.
//!
//! The program is told on its standard input: `off` is the moment at which power fails; from then on every request fails, and so do
//! syncs under way. `on` brings it back, and says how many sectors that were not synced survived and how many there were, and the same
//! of names; `on 0` lets none survive. Whoever had files open must be dead by then. The end of the input unmounts.

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
    let mounted = Mounted(Arc::new(Mutex::new(Disk::new(options.seed))));
    let mut config = Config::default();
    config.mount_options = vec![MountOption::FSName("forgetful".into())];
    // A slow sync of one file keeps nobody from the others.
    config.n_threads = Some(4);
    let session = fuser::spawn_mount(mounted.clone(), &options.endpoints[0], &config)?;
    println!("mounted");
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let mood = match line.split_once(' ') {
            None if line == "off" => {
                mounted.disk().power_off();
                println!("off");
                continue;
            }
            None if line == "on" => None,
            Some(("on", mood)) => Some(Mood(mood.parse()?)),
            _ => return Err(format!("what is {line:?}").into()),
        };
        let left = mounted.disk().power_on(mood);
        let (sectors, names) = (left.sectors, left.names);
        println!("{} {} {} {}", sectors.0, sectors.1, names.0, names.1);
    }
    session.umount_and_join()?;
    Ok(())
}

/// The disk as the kernel sees it.
#[derive(Clone)]
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
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn sync(&self, number: INodeNo, reply: ReplyEmpty) {
        let pause = self.disk().sync_time();
        std::thread::sleep(pause);
        done(reply, self.disk().sync(number.0));
    }

    fn attributes(&self, number: u64) -> Option<FileAttr> {
        self.disk().node(number).map(|node| attributes(number, node))
    }
}

/// Answers a request that either can be carried out, or not, as there is no power or nothing of that name.
fn done(reply: ReplyEmpty, outcome: Option<()>) {
    match outcome {
        Some(()) => reply.ok(),
        None => reply.error(Errno::EIO),
    }
}

impl Filesystem for Mounted {
    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let found = match self.disk().find(parent.0, name) {
            Some(found) => found,
            None => return reply.error(Errno::EIO),
        };
        match found.and_then(|number| self.attributes(number)) {
            Some(attributes) => reply.entry(&TTL, &attributes, FIRST),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn getattr(&self, _: &Request, number: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match self.attributes(number.0) {
            Some(attributes) => reply.attr(&TTL, &attributes),
            None => reply.error(Errno::EIO),
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
            None => reply.error(Errno::EIO),
        }
    }

    fn mkdir(&self, _: &Request, parent: INodeNo, name: &OsStr, _: u32, _: u32, reply: ReplyEntry) {
        let added = self
            .disk()
            .add(parent.0, name, Node::Directory(Directory::default()));
        match added.and_then(|number| self.attributes(number)) {
            Some(attributes) => reply.entry(&TTL, &attributes, FIRST),
            None => reply.error(Errno::EIO),
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
            None => reply.error(Errno::EIO),
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
            None => reply.error(Errno::EIO),
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
        self.sync(number, reply);
    }

    fn fsyncdir(&self, _: &Request, number: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        self.sync(number, reply);
    }

    fn readdir(&self, _: &Request, number: INodeNo, _: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        let disk = self.disk();
        let Some(Node::Directory(directory)) = disk.node(number.0) else {
            return reply.error(Errno::EIO);
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
