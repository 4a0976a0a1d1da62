"""Links and processes that come and go by chance."""

from cluster import go_on, stop


class Trouble:
    """What can happen. Each is one moment; what it brings lasts until something else ends it. What is drawn does not depend on what is the
    case: a place, where perhaps nobody is, or is dead already."""

    def __init__(self, stage, network, cluster):
        self.random, self.network, self.cluster = stage.random, network, cluster

    def all(self):
        ends = [self.heal, self.back, self.back]
        return [self.cut_link, self.cut_way, self.kill, self.stop, *ends]

    def two(self):
        return self.random.sample(range(len(self.cluster.places)), 2)

    def one(self):
        """In a list, or none."""
        place = self.random.choice(self.cluster.places)
        return [member for member in self.cluster.members if member.place is place]

    def cut_link(self):
        self.network.cut_both(*self.two())

    def cut_way(self):
        for _ in range(3):
            self.network.cut(*self.two())

    def heal(self):
        self.network.heal()

    def kill(self):
        for member in self.one():
            # Before it is killed: after that nobody asks how it ended.
            member.check()
            member.kill()

    def stop(self):
        for member in self.one():
            if member.running():
                stop(member)

    def back(self):
        """Whoever is stopped goes on, and whoever is dead starts."""
        for member in self.cluster.members:
            member.check()
            if member.running():
                go_on(member)
        self.cluster.start_ended()

    def end(self):
        self.heal()
        self.back()
