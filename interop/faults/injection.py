"""System calls that fail: `strace` attached to a running server makes one of them fail on certain files, and notes what comes after."""

import os
import re
import subprocess
import tempfile
from types import SimpleNamespace

import strace
from cluster import Failed, wait_for

# All by which bytes come to a file or become durable.
CALLS = "pwritev,pwrite64,pwritev2,write,fdatasync,fsync,ftruncate"


def missing():
    """Why no call can be made to fail here; `None` if one can."""
    reason = strace.missing()
    if reason:
        return reason
    with tempfile.TemporaryDirectory(prefix="faults-") as dir, subprocess.Popen(["sleep", "60"]) as sleeper:
        member = SimpleNamespace(name="probe", process=sleeper, place=SimpleNamespace(data_dir=dir))
        try:
            with Injection(member, [], "fdatasync", "error=EIO", 1, dir):
                return None
        except Failed as failed:
            return str(failed)
        finally:
            sleeper.kill()


class Injection:
    """`call` on the given files (none: on all) fails with `error=…` (or, with `retval=0`, does nothing and says that all is well). `when` is in
    strace's words, and counts such calls of each thread from now on: with `3` only the third, so that whoever tries again succeeds, and is
    found out; with `3+` that one and all after it. Ends with the server or with the `with` block."""

    def __init__(self, member, files, call, fault, when, dir):
        self.member = member
        self.trace = os.path.join(dir, f"{member.name}-{call}.trace")
        paths = [word for file in files for word in ("-P", os.path.join(member.place.data_dir, file).rstrip("/"))]
        self.command = ["strace", "-f", "-y", "-s", "0", "-e", f"trace={CALLS}", "-e", "signal=none", *paths]
        self.command += ["-e", f"inject={call}:{fault}:when={when}", "-o", self.trace, "-p", str(member.process.pid)]

    def __enter__(self):
        self.process = subprocess.Popen(self.command, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True)
        heard = ""
        while "attached" not in heard:
            line = self.process.stderr.readline()
            if not line:
                self.process.wait()
                raise Failed(f"strace cannot attach: {heard}")
            heard += line
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.terminate()
        self.process.wait()
        self.process.stderr.close()

    def lines(self):
        with open(self.trace, errors="replace") as trace:
            return trace.read().splitlines()

    def injected(self):
        """How many calls were made to fail so far."""
        return sum("(INJECTED)" in line for line in self.lines())

    def wait_until_injected(self):
        wait_for(f"a call of {self.member.name} to fail", self.injected)

    def after(self):
        """The calls on these files that began after the first one that failed."""
        lines = self.lines()
        first = next(number for number, line in enumerate(lines) if "(INJECTED)" in line)
        return [line for line in lines[first + 1 :] if re.match(r"\d+ +\w+\(", line)]
