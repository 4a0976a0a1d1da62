"""Networks that are cut: wholly, partly, in one direction, and again and again, while the clients reach everybody."""

import time

from network import Network


def cuts(stage):
    """Five members in namespaces; nft drops what the cut keeps from arriving, on connections old and new."""
    with Network(f"cuts-{stage.seed}", 5) as network:
        places = network.places(stage.dir)
        with stage.play(places, client_prefix=network.inside(network.hub)) as (cluster, load):
            for cut in stage.random.sample(CUTS, len(CUTS)):
                leader = cluster.members.index(cluster.leader())
                followers = [k for k in range(5) if k != leader]
                stage.random.shuffle(followers)
                cut(stage, network, leader, followers)
                what = cut.__doc__.rstrip(".").lower()
                if cut is not no_majority:
                    load.go_on(50, f"while this lasts: {what}")
                stage.pause(1, 2.5)
                network.heal()
                load.go_on(50, f"after this: {what}")


def isolated_leader(_, network, leader, followers):
    """The leader is cut off from all others, but not from its clients."""
    for follower in followers:
        network.cut_both(leader, follower)


def vanished_leader(_, network, leader, followers):
    """The leader is cut off from everybody."""
    isolated_leader(_, network, leader, followers)
    network.cut_clients(leader)


def minority(_, network, leader, followers):
    """The leader and another are cut off from the other three."""
    for one in (leader, followers[0]):
        for other in followers[1:]:
            network.cut_both(one, other)


def no_majority(_, network, leader, followers):
    """Two and two, and one for itself: nobody has a majority."""
    groups = [(leader, followers[0]), followers[1:3], followers[3:]]
    for group in groups:
        for one in group:
            for other in (k for k in (leader, *followers) if k not in group):
                network.cut(one, other)


def one_link(_, network, leader, followers):
    """The leader and one follower do not hear each other; everybody else hears all."""
    network.cut_both(leader, followers[0])


def bridge(_, network, leader, followers):
    """The leader and a follower in one half, two in the other, and one that hears all."""
    for one in (leader, followers[0]):
        for other in followers[1:3]:
            network.cut_both(one, other)


def deaf_leader(_, network, leader, followers):
    """The leader is heard, and hears nobody."""
    for follower in followers:
        network.cut(follower, leader)


def mute_leader(_, network, leader, followers):
    """The leader hears all, and nobody hears it."""
    for follower in followers:
        network.cut(leader, follower)


def deaf_follower(_, network, leader, followers):
    """One follower is heard, and hears nobody."""
    for other in (leader, *followers[1:]):
        network.cut(other, followers[0])


def flapping(stage, network, leader, followers):
    """The leader's links come and go, each direction for itself."""
    until = time.monotonic() + 4
    while time.monotonic() < until:
        for follower in followers:
            if stage.random.random() < 0.6:
                network.cut(leader, follower)
            if stage.random.random() < 0.6:
                network.cut(follower, leader)
        stage.pause(0.05, 0.6)
        network.heal()
        stage.pause(0.05, 0.4)


CUTS = [
    isolated_leader,
    vanished_leader,
    minority,
    no_majority,
    one_link,
    bridge,
    deaf_leader,
    mute_leader,
    deaf_follower,
    flapping,
]
