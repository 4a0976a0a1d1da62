"""All of it at the same time: links, processes and power come and go by chance."""

from contextlib import ExitStack

from network import Network
from on_disks import cut_power, forgetful
from trouble import Trouble

STEPS = 25


def chaos(stage):
    """Five members whose links are cut, who are stopped and killed, and lose power, one or all, in any order."""
    with ExitStack() as stack:
        network = stack.enter_context(Network(f"chaos-{stage.seed}", 5))
        places, disks = forgetful(stage, stack, network.places(stage.dir))
        with stage.play(places, client_prefix=network.inside(network.hub)) as (cluster, load):
            trouble = TroubleWithPower(stage, network, cluster, disks)
            for _ in range(STEPS):
                stage.random.choice(trouble.all())()
                stage.pause(0.05, 0.8)
            trouble.end()
            load.go_on(100, "after all this")


class TroubleWithPower(Trouble):
    """The same on disks that forget what was not synced."""

    def __init__(self, stage, network, cluster, disks):
        super().__init__(stage, network, cluster)
        self.disks = disks

    def all(self):
        return [*super().all(), self.power_off_one, self.power_off_all]

    def power_off_one(self):
        cut_power(self.one(), self.disks)

    def power_off_all(self):
        cut_power(self.cluster.members, self.disks)
        self.back()
