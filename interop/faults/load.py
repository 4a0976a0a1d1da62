"""The clients' program at work, and the check of what it noted."""

import subprocess

from cluster import Failed, Patience, wait_for

# What is counted: calls that were answered, refused and left open, and acknowledged writes.
ANSWERED, REFUSED, OPEN, WRITES = range(4)
# Bytes of a value, large enough for the store to be written every few seconds, and for the log to need new files.
LARGE = 20_000


# The exit code that says so.
WRONG = 3


class Wrong(Failed):
    """The history is not one of a correct store, or the members do not hold the same."""


class Load:
    """Clients that ask all members without a pause, as long as the `with` block. `history` is the file with what they were told."""

    def __init__(self, cluster, history, seed, value_bytes=0, more=()):
        self.cluster, self.history = cluster, history
        options = ["--seed", str(seed), "--value-bytes", str(value_bytes), "--patience", str(Patience.seconds), *more]
        self.command = self.program("load") + options + cluster.endpoints

    def program(self, what):
        return [*self.cluster.client_prefix, self.cluster.programs.client, what, self.history]

    def __enter__(self):
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(self.command, stdin=pipe, stdout=pipe, stderr=pipe, text=True)
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.communicate()

    def ask(self, word):
        """Counts so far, in the order of the constants above."""
        try:
            self.process.stdin.write(word + "\n")
            self.process.stdin.flush()
        except OSError:
            # Its end is noticed by what it does not answer.
            pass
        counts = self.process.stdout.readline().split()
        if len(counts) != 4:
            raise Failed(f"the load ended: {self.process.stderr.read()}")
        return [int(count) for count in counts]

    def counted(self, kind):
        return self.ask("count")[kind]

    def go_on(self, calls, why, kind=WRITES):
        """Waits until so many more writes were acknowledged, or calls of another kind were counted."""
        target = self.counted(kind) + calls
        wait_for(f"{calls} more answers {why}", lambda: self.counted(kind) >= target)

    def stop(self):
        """Ends the clients, and waits until the watchers have seen all. What was under way stays open in the history."""
        self.ask("stop")
        if self.process.wait(Patience.seconds):
            raise Failed(f"the load ended badly: {self.process.stderr.read()}")

    def verify(self, doctor=False, learners=False):
        """What the check says, in lines; an exception with what it objects to if it does."""
        options = ["--patience", str(Patience.seconds)] + ["--doctor"] * doctor + ["--learners"] * learners
        command = self.program("verify") + options + self.cluster.endpoints
        run = subprocess.run(command, capture_output=True, text=True, timeout=600 + 10 * Patience.seconds)
        if run.returncode:
            # What it has to say first stands in the last lines.
            raise (Wrong if run.returncode == WRONG else Failed)(f"{run.stdout[-2000:]}{run.stderr[-3000:]}")
        return run.stdout.splitlines()
