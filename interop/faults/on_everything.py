"""All of it at the same time: links, processes and power come and go by chance."""

from contextlib import ExitStack

from cluster import go_on, stop
from network import Network
from on_disks import cut_power, forgetful, start

STEPS = 25


def chaos(stage):
    """Five members whose links are cut, who are stopped and killed, and lose power, one or all, in any order."""
    with ExitStack() as stack:
        network = stack.enter_context(Network(f"chaos-{stage.seed}", 5))
        places, disks = forgetful(stage, stack, network.places(stage.dir))
        with stage.play(places, client_prefix=network.inside(network.hub)) as (cluster, load):
            trouble = Trouble(stage, network, cluster, disks)
            for _ in range(STEPS):
                stage.random.choice(trouble.all())()
                stage.pause(0.05, 0.8)
            trouble.end()
            load.go_on(100, "after all this")


class Trouble:
    """What can happen. Each is one moment; what it brings lasts until something else ends it."""

    def __init__(self, stage, network, cluster, disks):
        self.random, self.network, self.members, self.disks = stage.random, network, cluster.members, disks

    def all(self):
        ends = [self.heal, self.back, self.back]
        return [self.cut_link, self.cut_way, self.kill, self.stop, self.power_off_one, self.power_off_all, *ends]

    def two(self):
        return self.random.sample(range(len(self.network.spaces)), 2)

    def one(self):
        return self.random.choice(self.members)

    def cut_link(self):
        self.network.cut_both(*self.two())

    def cut_way(self):
        for _ in range(3):
            self.network.cut(*self.two())

    def heal(self):
        self.network.heal()

    def kill(self):
        self.one().kill()

    def stop(self):
        member = self.one()
        if member.running():
            stop(member)

    def power_off_one(self):
        cut_power([self.one()], self.disks)

    def power_off_all(self):
        cut_power(self.members, self.disks)
        self.back()

    def back(self):
        """Whoever is stopped goes on, and whoever is dead starts."""
        for member in self.members:
            member.check()
            if member.running():
                go_on(member)
        start(member for member in self.members if not member.running())

    def end(self):
        self.heal()
        self.back()
