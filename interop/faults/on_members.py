"""Members that come and go while everything else goes wrong as well."""

import os
import shutil
import subprocess

from cluster import REMOVED, Failed, wait_for
from network import Network
from on_disks import LARGE
from on_everything import Trouble

STEPS = 12


def replacements(stage):
    """Each member is replaced by a new one, leading, following or dead, while links are cut and processes stopped and killed."""
    with Network(f"members-{stage.seed}", 4) as network:
        places = network.places(stage.dir)
        with stage.play(places, value_bytes=LARGE, client_prefix=network.inside(network.hub), spare=1) as (cluster, load):
            first = cluster.leader()
            others = cluster.others(first)
            stage.random.shuffle(others)
            free = places[-1]
            for old in (first, *others):
                replacement = Replacement(stage, cluster, old, free, dead=old is others[0])
                trouble = TroubleWithMembers(stage, network, cluster, replacement)
                for _ in range(STEPS):
                    stage.random.choice(trouble.all())()
                    replacement.is_done()
                    stage.pause(0.05, 0.8)
                trouble.end()
                replacement.finish()
                load.go_on(50, f"with {replacement.new.name} instead of {old.name}")
                free = old.place
            # Those clients that stay with one member have nobody to ask there.
            add(cluster, free)


class Replacement:
    """`member replace`, told again and again until it says that it is done."""

    def __init__(self, stage, cluster, old, place, dead):
        self.cluster, self.old = cluster, old
        self.new = newcomer(cluster, place)
        self.log = os.path.join(stage.dir, f"replace-{old.name}.log")
        self.begun = 0
        old.leaves = True
        if dead:
            old.kill()
            cluster.members.remove(old)
        self.begin()

    def begin(self):
        self.begun += 1
        with open(self.log, "a") as log:
            words = ["replace", self.old.name, "--name", self.new.name, "--peer-urls", self.new.place.peer_url]
            self.process = subprocess.Popen(operator(self.cluster, words), stdout=log, stderr=log)

    def interrupt(self):
        """kill -9 of the command."""
        self.process.kill()
        self.process.wait()

    def is_done(self):
        """Whether it is. The new member is started as soon as the command asks for it, and the command when it has ended before its time."""
        if self.new not in self.cluster.members and f"Start {self.new.name} now" in self.said():
            self.new.start()
            self.cluster.members.append(self.new)
        if self.process.poll() not in (None, 0):
            self.begin()
        return self.process.poll() == 0

    def said(self):
        with open(self.log, errors="replace") as log:
            return log.read()

    def finish(self):
        """Waits until it is done. The old member must notice, if only when it is started again."""
        try:
            wait_for(f"{self.new.name} instead of {self.old.name}", self.is_done)
        except Failed as failed:
            raise Failed(f"{failed}: {self.said()[-2000:]}") from None
        finally:
            self.interrupt()
        if self.old in self.cluster.members:
            self.cluster.members.remove(self.old)
        else:
            self.old.start()
        code = self.old.wait_for_end()
        if code != REMOVED:
            raise Failed(f"{self.old.name}, which was removed, has ended with {code}: {self.old.log_tail()}")
        shutil.rmtree(self.old.place.data_dir)


class TroubleWithMembers(Trouble):
    """What can happen meanwhile."""

    def __init__(self, stage, network, cluster, replacement):
        super().__init__(stage, network, cluster, {})
        self.cluster, self.replacement = cluster, replacement

    def all(self):
        ends = [self.heal, self.back, self.back]
        return [self.cut_link, self.cut_way, self.kill, self.stop, self.move_leader, self.replacement.interrupt, *ends]

    def move_leader(self):
        self.cluster.move_leader(self.random)


def newcomer(cluster, place):
    """A member that is not in the cluster yet, under a name that nobody has had."""
    number = 1 + max(int(member.name[1:]) for member in cluster.members)
    others = [(member.name, member.place) for member in cluster.members]
    return cluster.member(f"n{number}", place, [*others, (f"n{number}", place)], "existing")


def add(cluster, place):
    """One more member, with a vote."""
    new = newcomer(cluster, place)
    words = ["add", new.name, "--peer-urls", place.peer_url]
    done = subprocess.run(operator(cluster, words), capture_output=True, text=True, timeout=60)
    if done.returncode:
        raise Failed(f"adding {new.name}: {done.stderr}")
    new.start()
    cluster.members.append(new)


def operator(cluster, words):
    """A command about members."""
    endpoints = ",".join(cluster.endpoints)
    return [*cluster.client_prefix, cluster.programs.server[0], "member", *words, "--endpoints", endpoints]
