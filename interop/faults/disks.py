"""Disks that fail: small ones, and ones that forget what was not synced. Each is a mount, taken away with the `with` block."""

import os
import shutil
import subprocess
import tempfile

from cluster import Failed


def mount(*words):
    done = subprocess.run(["mount", *words], capture_output=True, text=True, timeout=60)
    if done.returncode:
        raise Failed(f"mount {' '.join(words)}: {done.stderr.strip()}")


def unmount(at):
    """Lazily: a process that was killed may not be quite gone."""
    subprocess.run(["umount", "-l", at], capture_output=True, timeout=60)


class SmallDisk:
    """A tmpfs of so many MiB."""

    def __init__(self, at, size):
        self.at, self.size = at, size

    def __enter__(self):
        os.makedirs(self.at)
        mount("-t", "tmpfs", "-o", f"size={self.size}m", "quorate-faults", self.at)
        return self

    def __exit__(self, *_):
        unmount(self.at)

    def grow(self, size):
        mount("-o", f"remount,size={size}m", self.at)

    def free(self):
        """MiB."""
        found = os.statvfs(self.at)
        return found.f_bavail * found.f_frsize >> 20


class ForgetfulDisk:
    """A mount of the clients' program that loses what was not synced."""

    def __init__(self, client, at, seed):
        self.at = at
        self.command = [client, "forgetful-disk", at, "--seed", str(seed)]

    def __enter__(self):
        os.makedirs(self.at)
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(self.command, stdin=pipe, stdout=pipe, stderr=pipe, text=True)
        if self.process.stdout.readline() != "mounted\n":
            self.process.kill()
            raise Failed(f"{' '.join(self.command)}: {self.process.communicate()[1].strip()}")
        return self

    def __exit__(self, *_):
        unmount(self.at)
        # Asked to end, it would wait for copies of the mount in namespaces of processes that have nothing to do with it.
        self.process.kill()
        self.process.communicate()

    def tell(self, words):
        self.process.stdin.write(words + "\n")
        self.process.stdin.flush()
        return self.process.stdout.readline().strip()

    def power_off(self):
        """From now on nothing becomes durable, and every request fails."""
        self.tell("off")

    def power_on(self, mood=None):
        """What survived of what was not synced: sectors, of how many, names, of how many. Whoever used the disk must be dead. With a
        mood of 0 nothing survives."""
        return [int(count) for count in self.tell("on" if mood is None else f"on {mood}").split()]


def missing_mounts():
    """Why no file system can be mounted here; `None` if one can."""
    if os.geteuid() != 0:
        return "mounting needs root"
    return tried(lambda at: SmallDisk(at, 1))


def missing_fuse(client):
    """Why there can be no file system in a process here; `None` if there can."""
    if not os.path.exists("/dev/fuse"):
        return "there is no /dev/fuse"
    if os.geteuid() != 0 and not shutil.which("fusermount3"):
        return "fusermount3 is not installed"
    return tried(lambda at: ForgetfulDisk(client, at, 0))


def tried(disk):
    with tempfile.TemporaryDirectory(prefix="faults-") as dir:
        try:
            with disk(os.path.join(dir, "disk")) as made:
                with open(os.path.join(made.at, "file"), "w") as file:
                    file.write("x")
        except (Failed, OSError) as failed:
            return f"nothing can be mounted here: {failed}"
    return None
