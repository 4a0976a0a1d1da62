"""Servers as processes that can be killed, stopped and started again, each with a place of its own: addresses, a data directory, and
perhaps a network namespace.
"""

import json
import os
import signal
import subprocess
import time
from dataclasses import dataclass, field

from targets import free_ports

# The exit code of a server that must not go on with its data, and what one says that is no member any more.
UNWELCOME, REMOVED = 5, "permanently removed from the cluster"
# What a new member says when nobody could tell it who it is. It is to be started again.
NOBODY = "cannot join the cluster"


class Patience:
    """Seconds after which something is believed never to happen. A busy machine needs more of them."""

    seconds = 60


class Failed(Exception):
    """Something that must hold does not."""


def wait_for(what, check):
    """What `check` gives, as soon as it gives something."""
    deadline = time.monotonic() + Patience.seconds
    while True:
        found = check()
        if found:
            return found
        if time.monotonic() > deadline:
            raise Failed(f"waited {Patience.seconds} s for {what}")
        time.sleep(0.05)


@dataclass
class Programs:
    """The server with its subcommand, and the program with the clients."""

    server: list
    client: str


@dataclass
class Place:
    """Where a member lives. `prefix` is put before every command there."""

    client_url: str
    peer_url: str
    data_dir: str
    prefix: list = field(default_factory=list)


def on_loopback(dir, count=3):
    """Places that share the loopback address."""
    ports = free_ports(2 * count)
    url = lambda port: f"http://127.0.0.1:{port}"
    return [Place(url(ports[2 * k]), url(ports[2 * k + 1]), os.path.join(dir, f"n{k + 1}")) for k in range(count)]


class Member:
    """One server. Its output goes to a file; whoever ends it without having been asked to is noticed."""

    def __init__(self, name, place, command, log):
        self.name, self.place, self.command, self.log = name, place, command, log
        self.process = None
        # Where in the log its last start is.
        self.began_at = 0
        # Whether it was killed since its start, so that its end is nobody else's doing.
        self.killed = False
        # Whether it is being removed from the cluster: it may end by itself, and say so.
        self.leaves = False

    def start(self):
        """Starts it, and does not wait for it."""
        self.killed = False
        env = {name: value for name, value in os.environ.items() if not name.startswith("ETCD")}
        with open(self.log, "a") as log:
            self.began_at = log.tell()
            command = [*self.place.prefix, *self.command]
            self.process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=env)

    def signal(self, number):
        self.process.send_signal(number)

    def running(self):
        return self.process is not None and self.process.poll() is None

    def kill(self):
        """kill -9, and waits until it is gone."""
        self.killed = True
        if self.running():
            self.process.kill()
        if self.process is not None:
            self.process.wait()

    def check(self):
        """That it has not ended by itself, and that nothing in it has panicked."""
        if not (self.running() or self.killed or self.was_removed() or self.found_nobody()):
            raise Failed(f"{self.name} has ended with {self.process.returncode}: {self.log_tail()}")
        if "panicked at" in self.log_text():
            raise Failed(f"{self.name} has panicked: {self.log}")

    def was_removed(self):
        """Whether it has ended since it is no member any more."""
        return self.leaves and self.ended_with(UNWELCOME, REMOVED)

    def found_nobody(self):
        """Whether it has ended, at its first start, since nobody could tell it who it is."""
        known = os.path.exists(os.path.join(self.place.data_dir, "identity"))
        return not known and self.ended_with(1, NOBODY)

    def ended_with(self, code, words):
        ended = not self.running() and self.process.returncode == code
        return ended and words in self.log_text(self.began_at)

    def wait_for_end(self):
        """Its exit code."""
        try:
            return self.process.wait(Patience.seconds)
        except subprocess.TimeoutExpired:
            raise Failed(f"{self.name} still runs after {Patience.seconds} s") from None

    def log_text(self, since=0):
        with open(self.log, "rb") as log:
            log.seek(since)
            return log.read().decode(errors="replace")

    def log_tail(self):
        return self.log_text()[-1500:]


class Cluster:
    """Members that were told of each other, alive as long as the `with` block. `client_prefix` is put before commands that talk to
    them; `flags` are the same for all. In the last places, `spare` of them, there is no member yet."""

    def __init__(self, programs, dir, places, client_prefix=(), flags=(), spare=0):
        self.programs, self.dir, self.client_prefix, self.flags = programs, dir, list(client_prefix), list(flags)
        self.places = places
        first = [(f"n{k + 1}", place) for k, place in enumerate(places[: len(places) - spare])]
        self.members = [self.member(name, place, first, "new") for name, place in first]

    def member(self, name, place, others, state):
        """A member that does not run yet. `others` are names and places of those that it is told of, itself among them."""
        members = ",".join(f"{name}={place.peer_url}" for name, place in others)
        command = self.programs.server + [
            f"--name={name}",
            f"--data-dir={place.data_dir}",
            f"--listen-client-urls={place.client_url}",
            f"--advertise-client-urls={place.client_url}",
            f"--listen-peer-urls={place.peer_url}",
            f"--initial-advertise-peer-urls={place.peer_url}",
            f"--initial-cluster={members}",
            "--initial-cluster-token=faults",
            f"--initial-cluster-state={state}",
            *self.flags,
        ]
        return Member(name, place, command, os.path.join(self.dir, f"{name}.log"))

    def __enter__(self):
        try:
            for member in self.members:
                member.start()
            self.leader()
        except BaseException:
            self.__exit__()
            raise
        self.first_term = self.term()
        return self

    def __exit__(self, *_):
        for member in self.members:
            member.kill()

    @property
    def endpoints(self):
        """Where members are and those will be that take their places."""
        return [place.client_url for place in self.places]

    def status(self):
        """By member (member id, leader's id, term) or `None`."""
        endpoints = [member.place.client_url for member in self.members]
        command = [*self.client_prefix, self.programs.client, "status", *endpoints]
        lines = self.command(command).stdout.splitlines()
        if len(lines) != len(self.members):
            raise Failed(f"{command} printed {lines}")
        return [None if line == "-" else tuple(int(word) for word in line.split()[:3]) for line in lines]

    def term(self):
        """The highest that any member knows."""
        return max((said[2] for said in self.status() if said), default=0)

    def leader(self, among=None):
        """The member that says so itself, in the highest term known."""

        def look():
            said = self.status()
            leaders = [
                (status[2], member)
                for member, status in zip(self.members, said)
                if status and status[0] == status[1] and (among is None or member in among)
            ]
            highest = max((status[2] for status in said if status), default=0)
            return next((member for term, member in leaders if term == highest), None)

        return wait_for("a leader", look)

    def newcomer(self, place):
        """A member that is to be added, under a name that nobody has had."""
        name = f"n{1 + max(int(member.name[1:]) for member in self.members)}"
        others = [(member.name, member.place) for member in self.members]
        return self.member(name, place, [*others, (name, place)], "existing")

    def operator(self, *words):
        """A command about members."""
        return [*self.client_prefix, self.programs.server[0], "member", *words, "--endpoints", ",".join(self.endpoints)]

    def command(self, words):
        """What came of a command."""
        try:
            return subprocess.run(words, capture_output=True, text=True, timeout=Patience.seconds)
        except subprocess.TimeoutExpired:
            raise Failed(f"{words} has not ended after {Patience.seconds} s") from None

    def listed(self):
        """The names of all members; `None` if nobody says."""
        done = self.command(self.operator("list", "-o", "json"))
        return None if done.returncode else [member.get("name") for member in json.loads(done.stdout)["members"]]

    def move_leader(self, member):
        """Asks for this one to lead. Whether somebody handed over."""
        said = self.status()[self.members.index(member)]
        command = [*self.client_prefix, self.programs.client, "move-leader"]
        return said is not None and self.command([*command, str(said[0]), *self.endpoints]).returncode == 0

    def others(self, *members):
        return [member for member in self.members if member not in members]

    def start_ended(self):
        """Starts all members that do not run."""
        for member in self.members:
            if not member.running():
                member.start()

    def elections(self):
        return self.term() - self.first_term


def stop(member):
    """SIGSTOP."""
    member.signal(signal.SIGSTOP)


def go_on(member):
    """SIGCONT."""
    member.signal(signal.SIGCONT)
