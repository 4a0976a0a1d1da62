"""Programs under `strace`, and what their traces say: system calls with the moments at which they began and had ended.

A trace is what one `strace -f` wrote about one process. Moments in the same trace are ordered by the lines that tell of them:
strace lets a call go only after it has noted that it begins, and notes that it has ended only after it has. Moments in different
traces of one machine are ordered by the wall clock, which strace reads for each line: a call began after the time noted at its
beginning, and had ended before the time noted at its end. Where a call stands in one line, that time is at the beginning; that
it had ended is then known by the time of the next line.
"""

import re
import shutil
import subprocess
import time

# Everything by which bytes go to a file or a socket or become durable, or files get their names.
CALLS = (
    "write,writev,pwrite64,pwritev,pwritev2,sendto,sendmsg,fsync,fdatasync,rename,renameat,renameat2,"
    # To be noticed, if the server should ever use them: what goes that way is not understood here.
    "sendmmsg,splice,sendfile,copy_file_range,msync,io_uring_setup,io_submit"
)
# The bytes shown of one buffer. Only the zeros that fill new segments come in longer ones.
SHOWN = 32768
FLAGS = ["-D", "-f", "-y", "-v", "-xx", "-s", str(SHOWN), "--absolute-timestamps=unix,ns", "-e", f"trace={CALLS}"]
FLAGS += ["-e", "signal=none"]

LINE = re.compile(r"(\d+)\s+(\d+)\.(\d{9}) (.*)", re.S)
CALL = re.compile(r"(\w+)\((.*)", re.S)
RESUMED = re.compile(r"<\.\.\. (\w+) resumed>(.*)", re.S)
RESULT = re.compile(r"(.*)\)\s+= (-?\d+|\?)([^=]*)", re.S)
UNFINISHED = " <unfinished ...>"
HEX = re.compile(r"(?:\\x[0-9a-f]{2})+")


class Unclear(Exception):
    """A trace that does not say what has to be known."""


def command(path, program, extra=()):
    """The command that runs `program` (a list) and writes its trace to `path`. The process started is the program itself."""
    return ["strace", *FLAGS, *extra, "-o", path, "--", *program]


def missing():
    """Why nothing can be traced here; `None` if it can."""
    if not shutil.which("strace"):
        return "strace is not installed"
    # Not as a grandchild, whose outcome nobody hears of.
    flags = [flag for flag in FLAGS if flag != "-D"]
    tried = subprocess.run(["strace", *flags, "-o", "/dev/null", "--", "true"], capture_output=True, text=True, timeout=60)
    return f"strace cannot trace here: {tried.stderr.strip()}" if tried.returncode else None


def wait_for_end(path, pid, patience=60):
    """Waits until the trace tells of the end of its process."""
    last = re.compile(rf"^{pid} .*\+\+\+ (?:exited|killed) .*\+\+\+\s*\Z", re.M)
    deadline = time.monotonic() + patience
    while True:
        with open(path, "rb") as trace:
            trace.seek(max(0, trace.seek(0, 2) - 4096))
            if last.search(trace.read().decode()):
                return
        if time.monotonic() > deadline:
            raise Unclear(f"{path} does not end with the end of process {pid}")
        time.sleep(0.05)


def text(quoted):
    """The text that strace has written in hexadecimal."""
    return HEX.sub(lambda found: bytes_of(found.group()).decode("utf-8", "backslashreplace"), quoted)


def bytes_of(quoted):
    return bytes.fromhex(quoted.replace("\\x", ""))


class Call:
    """A system call. `began` and `ended` are places in the trace, `began_at` and `ended_at` nanoseconds on the wall clock."""

    def __init__(self, name, began, began_at):
        self.name, self.began, self.began_at = name, began, began_at
        self.ended = self.ended_at = self.result = None
        self.injected = False

    def finish(self, arguments, place, at):
        found = RESULT.fullmatch(arguments)
        if not found:
            raise Unclear(f"what is the result of {self.name}({arguments[-200:]}")
        self.arguments = found.group(1)
        self.result = None if found.group(2) == "?" else int(found.group(2))
        self.injected = "INJECTED" in found.group(3)
        self.ended, self.ended_at = place, at

    def file(self):
        """What the descriptor in the first argument stands for: a path, or `socket:[…]`."""
        found = re.match(r"\d+<([^>]*)>", self.arguments)
        return text(found.group(1)) if found else ""

    def succeeded(self):
        """Whether it was carried out and said that all is well (for those that answer 0)."""
        return self.result == 0 and not self.injected

    def written(self):
        """The bytes that a writing call has passed on, in order."""
        if self.injected or self.result is None or self.result <= 0:
            return b""
        strings = r'iov_base="([^"]*)"(\.\.\.)?, iov_len=\d+' if "iov_base=" in self.arguments else r'"([^"]*)"(\.\.\.)?'
        data, more = b"", ""
        for part, more in re.findall(strings, self.arguments):
            data += bytes_of(part)
            if more:
                # Longer than what is shown.
                break
        if len(data) < self.result and not more:
            raise Unclear(f"{self.name} of {self.result} bytes, of which the trace shows {len(data)}")
        return data[: self.result]

    def offset(self):
        """Where in the file a positional write began."""
        found = re.search(r", (\d+), [^,]+$" if self.name == "pwritev2" else r", (\d+)$", self.arguments)
        if not found:
            raise Unclear(f"where does {self.name} write? …{self.arguments[-60:]}")
        return int(found.group(1))


class Trace:
    """The calls of one trace, in the order in which they ended."""

    def __init__(self, name, lines):
        self.name, self.calls = name, []
        # By thread: its call under way, and the arguments seen so far.
        open_calls = {}
        # The calls whose end is known to be before the next line only.
        unstamped = None
        latest = 0
        for place, line in enumerate(lines):
            found = LINE.fullmatch(line.rstrip("\n"))
            if not found:
                raise Unclear(f"{name}, line {place + 1}: {line[:200]}")
            thread, seconds, nanos, what = found.groups()
            at = int(seconds) * 10**9 + int(nanos)
            if at < latest:
                raise Unclear(f"{name}: the clock was set back by {latest - at} ns")
            latest = at
            if unstamped:
                unstamped.ended_at, unstamped = at, None
            resumed, begun = RESUMED.fullmatch(what), CALL.fullmatch(what)
            if resumed:
                call, head = open_calls.pop(thread)
                call.finish(head + resumed.group(2), place, at)
                self.calls.append(call)
            elif begun and what.endswith(UNFINISHED):
                call = Call(begun.group(1), place, at)
                open_calls[thread] = (call, begun.group(2).removesuffix(UNFINISHED))
            elif begun:
                call = unstamped = Call(begun.group(1), place, at)
                call.finish(begun.group(2), place, None)
                self.calls.append(call)
            elif not what.startswith(("+++", "---")):
                raise Unclear(f"{name}, line {place + 1}: {line[:200]}")
        if unstamped:
            raise Unclear(f"{name} ends with a call, not with the end of its process")
