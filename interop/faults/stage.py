"""What all scenarios share: chance from a seed, a directory, and the order of a play: servers, clients, faults, and the check at the end."""

import os
import random
import time
from contextlib import ExitStack, contextmanager

from cluster import Cluster, on_loopback
from load import Load


class Stage:
    """One play of one scenario."""

    def __init__(self, programs, dir, seed):
        self.programs, self.dir, self.seed = programs, dir, seed
        self.random = random.Random(seed)
        self.notes = []

    def note(self, text):
        """Something that the summary tells."""
        self.notes.append(text)

    def pause(self, shortest, longest):
        time.sleep(self.random.uniform(shortest, longest))

    @contextmanager
    def play(self, places=None, value_bytes=0, doctor=False, learners=False, **options):
        """A cluster under load, which is checked when the faults are over. With `learners`, members may lack a vote for a time."""
        places = places or on_loopback(self.dir)
        history = os.path.join(self.dir, "history")
        with ExitStack() as stack:
            cluster = stack.enter_context(Cluster(self.programs, self.dir, places, **options))
            load = stack.enter_context(Load(cluster, history, self.seed, value_bytes))
            load.go_on(100, "before any fault")
            yield cluster, load
            for member in cluster.members:
                member.check()
            load.go_on(200, "after all faults")
            load.stop()
            for line in load.verify(doctor, learners):
                self.note(line)
            self.note(f"{cluster.elections()} terms begun by elections")
