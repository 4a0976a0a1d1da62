"""Members that come and go while everything else goes wrong as well."""

import os
import shutil
import signal
import subprocess

from cluster import Failed, wait_for
from load import LARGE
from network import Network
from trouble import Trouble

STEPS = 12
# How `member replace` may end before its time: killed, told that a step is not possible now, or nobody answers.
EARLY = [-signal.SIGKILL, 1, 3]


def replacements(stage):
    """Each member is replaced by a new one, leading, following or dead, while links are cut and processes stopped and killed."""
    with Network(f"members-{stage.seed}", 4) as network:
        places, options = network.places(stage.dir), {"client_prefix": network.inside(network.hub), "learners": True}
        with stage.play(places, value_bytes=LARGE, spare=1, **options) as (cluster, load):
            first = cluster.leader()
            others = cluster.others(first)
            stage.random.shuffle(others)
            free = places[-1]
            for old in (first, *others):
                with Replacement(stage, cluster, old, free, dead=old is others[0]) as replacement:
                    trouble = TroubleWithMembers(stage, network, cluster, replacement)
                    for _ in range(STEPS):
                        stage.random.choice(trouble.all())()
                        replacement.is_done()
                        stage.pause(0.05, 0.8)
                    trouble.end()
                    led = old is first and trouble.lead(old)
                    replacement.finish()
                    stage.note(f"{old.name}, {'leading' if led else 'not leading'}, for {replacement.new.name}: {trouble.summary()}")
                    load.go_on(50, f"with {replacement.new.name} instead of {old.name}")
                free = old.place
            # All members are asked for all they have in the end, and one is expected in each place.
            wait_for("one more member", lambda: is_added(cluster, free))


class Replacement:
    """`member replace`, told again and again until it says that it is done."""

    def __init__(self, stage, cluster, old, place, dead):
        self.cluster, self.old, self.dead = cluster, old, dead
        self.new = cluster.newcomer(place)
        self.log = os.path.join(stage.dir, f"replace-{old.name}.log")
        # Whether it was seen that the old member is gone.
        self.gone = False
        self.process = None

    def __enter__(self):
        self.old.leaves = True
        if self.dead:
            self.old.kill()
            self.cluster.members.remove(self.old)
        self.begin()
        return self

    def __exit__(self, *_):
        self.interrupt()
        self.old.kill()

    def begin(self):
        words = ["replace", self.old.name, "--name", self.new.name, "--peer-urls", self.new.place.peer_url]
        with open(self.log, "a") as log:
            self.process = subprocess.Popen(self.cluster.operator(*words), stdout=log, stderr=log)

    def interrupt(self):
        """kill -9 of the command. Whether it was at work."""
        at_work = self.process.poll() is None
        self.process.kill()
        self.process.wait()
        return at_work

    def is_done(self):
        """Whether it is. The new member is started as soon as the command asks for it, and the command when it has ended before its time."""
        members, code = self.cluster.members, self.process.poll()
        if code not in (None, 0, *EARLY) or "panicked at" in self.said():
            raise Failed(f"member replace has ended with {code}: {self.said()[-2000:]}")
        if self.new not in members and f"Start {self.new.name} now" in self.said():
            self.new.start()
            members.append(self.new)
        if self.new in members and self.new.found_nobody():
            self.new.start()
        if not self.gone and self.old.was_removed():
            self.see_gone()
        if code in EARLY:
            self.begin()
        return code == 0

    def see_gone(self):
        """Who ends as one that was removed must have been. Asked as soon as it has ended; perhaps nobody answers yet."""
        listed = self.cluster.listed()
        if listed and self.old.name in listed:
            raise Failed(f"{self.old.name} has ended as if it were removed, and is a member still: {self.old.log_tail()}")
        self.gone = bool(listed)

    def said(self):
        with open(self.log, errors="replace") as log:
            return log.read()

    def finish(self):
        """Waits until it is done. The old member must notice, if only when it is started again."""
        try:
            wait_for(f"{self.new.name} instead of {self.old.name}", self.is_done)
        except Failed as failed:
            raise Failed(f"{failed}: {self.said()[-2000:]}") from None
        if self.dead:
            self.old.start()
        code = self.old.wait_for_end()
        if not self.old.was_removed():
            raise Failed(f"{self.old.name}, which was removed, has ended with {code}: {self.old.log_tail()}")
        self.old.check()
        if not self.dead:
            self.cluster.members.remove(self.old)
        shutil.rmtree(self.old.place.data_dir)


class TroubleWithMembers(Trouble):
    """The same while one member takes the place of another."""

    def __init__(self, stage, network, cluster, replacement):
        super().__init__(stage, network, cluster)
        self.replacement = replacement
        self.interrupted = self.moved = 0

    def all(self):
        return [*super().all(), self.interrupt, self.move_leader]

    def interrupt(self):
        self.interrupted += self.replacement.interrupt()

    def move_leader(self):
        for member in self.one():
            self.moved += self.cluster.move_leader(member)

    def lead(self, member):
        """Whether this one leads now, or could be made to. It may have been removed already."""
        return member.running() and (self.cluster.leader() is member or self.cluster.move_leader(member))

    def summary(self):
        return f"the command was killed {self.interrupted} times, leadership moved {self.moved} times"


def is_added(cluster, place):
    """Whether there is one more member, with a vote. The answer to an attempt may be lost."""
    new = cluster.newcomer(place)
    added = cluster.command(cluster.operator("add", new.name, "--peer-urls", place.peer_url))
    if added.returncode and "Peer URLs already exists" not in added.stderr:
        return False
    new.start()
    cluster.members.append(new)
    return True
