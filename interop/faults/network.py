"""A network that can be cut: each member in a network namespace of its own, all joined by a bridge in yet another one, where the clients
are. Cuts are made where packets come in, so each direction is cut for itself, and connections that exist are cut like new ones.
"""

import os
import shutil
import subprocess

from cluster import Failed, Place

RULES = """
table inet faults {
    set unheard { type ipv4_addr; }
    chain arriving { type filter hook input priority 0; policy accept; ip saddr @unheard drop; }
}
"""
CLIENTS = "10.213.0.254"


def run(*command, input=None):
    done = subprocess.run(command, input=input, capture_output=True, text=True, timeout=60)
    if done.returncode:
        raise Failed(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout


def missing():
    """Why there can be no such network here; `None` if there can."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    for program in ("ip", "nft"):
        if not shutil.which(program):
            return f"{program} is not installed"
    try:
        with Network("probe", 1):
            return None
    except Failed as failed:
        return f"no network namespaces or no nft here: {failed}"


class Network:
    """`count` namespaces, as long as the `with` block."""

    def __init__(self, name, count):
        unique = f"quorate-{os.getpid()}-{name}"
        self.hub = f"{unique}-hub"
        self.spaces = [f"{unique}-{k + 1}" for k in range(count)]
        self.addresses = [f"10.213.0.{k + 1}" for k in range(count)]
        self.made = []

    def __enter__(self):
        try:
            self.make(self.hub)
            run("ip", "-n", self.hub, "link", "add", "bridge", "type", "bridge")
            run("ip", "-n", self.hub, "address", "add", f"{CLIENTS}/24", "dev", "bridge")
            run("ip", "-n", self.hub, "link", "set", "bridge", "up")
            for number, (space, address) in enumerate(zip(self.spaces, self.addresses)):
                self.join(number, space, address)
        except BaseException:
            self.__exit__()
            raise
        return self

    def make(self, space):
        run("ip", "netns", "add", space)
        self.made.append(space)
        run("ip", "-n", space, "link", "set", "lo", "up")

    def join(self, number, space, address):
        self.make(space)
        port = f"port{number}"
        run("ip", "-n", self.hub, "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", space)
        run("ip", "-n", self.hub, "link", "set", port, "master", "bridge", "up")
        run("ip", "-n", space, "address", "add", f"{address}/24", "dev", "eth0")
        run("ip", "-n", space, "link", "set", "eth0", "up")
        run("ip", "netns", "exec", space, "nft", "-f", "-", input=RULES)

    def __exit__(self, *_):
        for space in self.made:
            subprocess.run(["ip", "netns", "del", space], capture_output=True, timeout=60)

    def inside(self, space):
        """What a command begins with that runs there."""
        return ["ip", "netns", "exec", space]

    def places(self, dir):
        return [
            Place(f"http://{address}:2379", f"http://{address}:2380", os.path.join(dir, f"n{k + 1}"), self.inside(space))
            for k, (space, address) in enumerate(zip(self.spaces, self.addresses))
        ]

    def rule(self, at, *words):
        run(*self.inside(self.spaces[at]), "nft", *words)

    def cut(self, sender, receiver):
        """From now on the one does not hear the other. The other direction stays."""
        self.rule(receiver, "add", "element", "inet", "faults", "unheard", "{", self.addresses[sender], "}")

    def cut_both(self, one, other):
        self.cut(one, other)
        self.cut(other, one)

    def cut_clients(self, member):
        """The member does not hear its clients any more."""
        self.rule(member, "add", "element", "inet", "faults", "unheard", "{", CLIENTS, "}")

    def heal(self):
        for at in range(len(self.spaces)):
            self.rule(at, "flush", "set", "inet", "faults", "unheard")
