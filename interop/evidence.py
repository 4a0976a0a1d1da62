"""What the trace of one member says: when each entry of its log was durable, and when answers with a revision left it.

Reads the bytes that went into system calls by what is documented outside of the program: the log's format by `docs/wal.md`,
answers as HTTP/2 with gRPC or as HTTP/1.1 with JSON. Knows nothing of what was asked.
"""

import os
import re
import struct
from bisect import bisect_right
from itertools import accumulate

from strace import Unclear

SECTOR = 512
FRAME_HEADER, RECORD_HEADER = 40, 20
SUMS_PER_FOOTER = 118
ENTRY, TRUNCATE = 1, 3
SEGMENT = re.compile(r"wal-[0-9a-f]{16}")
UNSEEN = {"io_uring_setup", "io_submit", "msync", "splice", "sendfile", "sendmmsg", "copy_file_range"}
WRITES = {"write", "writev", "pwrite64", "pwritev", "pwritev2", "sendto", "sendmsg"}
SYNCS = {"fsync", "fdatasync"}
RENAMES = {"rename", "renameat", "renameat2"}


class Frame:
    """A frame of the log, and the call that wrote it, or the last part of it."""

    def __init__(self, file, offset, size, records, call):
        self.file, self.offset, self.size, self.records, self.call = file, offset, size, records, call

    def overlaps(self, file, offset, length):
        """Whether some of it stands in this place."""
        return self.file == file and self.offset < offset + length and offset < self.offset + self.size

    def entries(self):
        """(index, term) and body of each entry."""
        for index, kind, body in self.records:
            if kind == ENTRY:
                term, named = struct.unpack_from("<QQ", body, 1)
                if named != index:
                    raise Unclear(f"{self.file}: the record of entry {index} holds entry {named}")
                yield (index, term), body


def frame_size(payload):
    data = -(-payload // SECTOR)
    return (data + -(-data // SUMS_PER_FOOTER)) * SECTOR


def read_frame(file, offset, data, call):
    """The frame that `data` is all of."""
    sequence, payload, count = struct.unpack_from("<QII", data, 8)
    footers = [data[at : at + SECTOR] for at in range(-(-payload // SECTOR) * SECTOR, len(data), SECTOR)]
    for footer in footers:
        if footer[:4] != b"QwFt" or struct.unpack_from("<QI", footer, 8) != (sequence, payload):
            raise Unclear(f"{file}: the frame at {offset} has no footer of its own")
    records, at = [], FRAME_HEADER
    while at < payload:
        length, index, kind = struct.unpack_from("<IQB", data, at + 4)
        records.append((index, kind, data[at + RECORD_HEADER : at + RECORD_HEADER + length]))
        at += RECORD_HEADER + length
    if at != payload or len(records) != count:
        raise Unclear(f"{file}: the frame at {offset} says {count} records in {payload} bytes")
    return Frame(file, offset, len(data), records, call)


class Log:
    """A member's log. By (index, term), `durable` has the call after which an entry was durable for the first time, and `bodies` what
    it holds. Entries that were truncated or overwritten do not count."""

    def __init__(self, trace):
        self.frames, self.partial = [], None
        self.syncs, self.directories, self.names = [], [], {}
        for call in trace.calls:
            if call.name in UNSEEN:
                raise Unclear(f"{trace.name}: {call.name} is in use, and what it writes cannot be seen")
            if call.name in WRITES:
                self.note_write(call)
            elif call.name in SYNCS and call.succeeded():
                (self.syncs if SEGMENT.fullmatch(os.path.basename(call.file())) else self.directories).append(call)
            elif call.name in RENAMES and call.succeeded():
                self.note_rename(call)
        self.durable, self.bodies = {}, {}
        for frame in self.frames:
            self.settle(frame)

    def note_write(self, call):
        file = call.file()
        if not SEGMENT.fullmatch(os.path.basename(file)):
            return
        if not call.name.startswith("pwrite"):
            raise Unclear(f"{file}: a write at no given place ({call.name})")
        data, offset = call.written(), call.offset()
        if self.partial and self.partial[0] == file and self.partial[1] + len(self.partial[2]) == offset:
            offset, data = self.partial[1], self.partial[2] + data
        self.partial = None
        length = max(call.result or 0, len(data))
        self.frames = [frame for frame in self.frames if not frame.overlaps(file, offset, length)]
        if data[:4] == b"QwFr":
            size = frame_size(struct.unpack_from("<I", data, 16)[0])
            if len(data) == size:
                self.frames.append(read_frame(file, offset, data, call))
            elif len(data) < size and len(data) == length:
                self.partial = (file, offset, data)
            else:
                raise Unclear(f"{file}: {len(data)} bytes are shown of {length} written at {offset}, a frame of {size}")
        elif any(data):
            raise Unclear(f"{file}: bytes at {offset} that are no frame")

    def note_rename(self, call):
        names = re.findall(r'"([^"]*)"', call.arguments)
        target = bytes.fromhex(names[-1].replace("\\x", "")).decode()
        if SEGMENT.fullmatch(os.path.basename(target)):
            self.names[os.path.basename(target)] = call.ended

    def settle(self, frame):
        """Notes when what the frame holds was durable: when a sync of the file that began after the write had ended, and also one of
        the directory that began after the file had got its name."""
        synced = [sync for sync in self.syncs if sync.file() == frame.file and sync.began > frame.call.ended]
        named_at = self.names.get(os.path.basename(frame.file))
        if named_at is None:
            raise Unclear(f"{frame.file} was never given its name")
        directory = os.path.dirname(frame.file)
        named = [sync for sync in self.directories if sync.file() == directory and sync.began > named_at]
        last = None
        if synced and named:
            ended = lambda call: call.ended
            last = max(min(synced, key=ended), min(named, key=ended), key=ended)
        for index, kind, _ in frame.records:
            if kind == TRUNCATE:
                self.durable = {entry: when for entry, when in self.durable.items() if entry[0] <= index}
                self.bodies = {entry: body for entry, body in self.bodies.items() if entry[0] <= index}
        for entry, body in frame.entries():
            self.bodies[entry] = body
            if last:
                self.durable[entry] = last


def answers(trace):
    """(revision, the call with which the answer began to leave) for each answer with a revision that went to a client."""
    streams = {}
    for call in trace.calls:
        if call.name in WRITES and call.file().startswith("socket:"):
            data = call.written()
            if data:
                streams.setdefault(call.file(), []).append((data, call))
    for written in streams.values():
        data = b"".join(part for part, _ in written)
        begins = list(accumulate((len(part) for part, _ in written), initial=0))
        if data.startswith(b"HTTP/1."):
            found = http1_revisions(data)
        elif len(data) >= 9 and data[3] == 4 and data[5:9] == bytes(4):
            found = http2_revisions(data)
        else:
            # The other members' connections.
            continue
        for revision, place in found:
            yield revision, written[bisect_right(begins, place) - 1][1]


def http1_revisions(data):
    """Revisions in JSON, each with the place where its answer begins."""
    starts = [found.start() for found in re.finditer(rb"HTTP/1\.\d \d{3} ", data)]
    for found in re.finditer(rb'"revision": ?"?(\d+)', data):
        yield int(found.group(1)), [start for start in starts if start < found.start()][-1]


def http2_revisions(data):
    """Revisions in the headers of gRPC answers, each with the place where its message begins."""
    place, messages = 0, {}
    while place + 9 <= len(data):
        length, kind, flags = int.from_bytes(data[place : place + 3], "big"), data[place + 3], data[place + 4]
        stream = int.from_bytes(data[place + 5 : place + 9], "big")
        content = data[place + 9 : place + 9 + length]
        if kind == 0 and content:
            if flags & 8:
                raise Unclear("a padded DATA frame")
            begun, message = messages.get(stream, (place, b""))
            messages[stream] = (begun, message + content)
            yield from whole_messages(messages, stream, place)
        place += 9 + length


def whole_messages(messages, stream, place):
    begun, message = messages[stream]
    while len(message) >= 5 and len(message) >= 5 + int.from_bytes(message[1:5], "big"):
        if message[0]:
            raise Unclear("a compressed message")
        size = 5 + int.from_bytes(message[1:5], "big")
        revision = field(field(message[5:size], 1), 3)
        if revision:
            yield revision, begun
        begun, message = place, message[size:]
    messages[stream] = (begun, message)
    if not message:
        del messages[stream]


def field(message, wanted):
    """A field of a protobuf message: a number or bytes; `None` if it is not there."""
    at = 0

    def varint():
        nonlocal at
        number = shift = 0
        while True:
            byte = message[at]
            at += 1
            number |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return number

    found = None
    while message and at < len(message):
        tag = varint()
        if tag & 7 == 0:
            value = varint()
        elif tag & 7 == 2:
            size = varint()
            value, at = message[at : at + size], at + size
        else:
            at += {1: 8, 5: 4}[tag & 7]
            value = None
        if tag >> 3 == wanted:
            found = value
    return found
