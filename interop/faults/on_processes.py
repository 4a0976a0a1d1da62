"""Processes that are killed, and processes that are stopped and go on later as if no time had passed."""

from cluster import go_on, stop


def kills(stage):
    """kill -9 of the leader, of anybody at any moment, and of all at once."""
    with stage.play() as (cluster, load):
        for _ in range(3):
            leader = cluster.leader()
            leader.kill()
            load.go_on(50, f"without {leader.name}, which led")
            leader.start()
            load.go_on(stage.random.randrange(200), f"with {leader.name} back")
        for _ in range(3):
            stage.pause(0, 1)
            victim = stage.random.choice(cluster.members)
            victim.kill()
            stage.pause(0, 1)
            victim.start()
        for _ in range(2):
            load.go_on(100, "before all are killed")
            for member in stage.random.sample(cluster.members, 3):
                member.kill()
            cluster.start_ended()
            load.go_on(100, "after all were killed")


def pauses(stage):
    """SIGSTOP and SIGCONT: of the leader for longer than an election takes, of a follower, of a majority, of all."""
    pause_and_go_on(stage, doctor=True)


def pauses_with_leases(stage):
    """The same with reads that rely on the leader's clock: it must not believe in its lease after it was stopped."""
    pause_and_go_on(stage, flags=["--lease-reads"])


def pause_and_go_on(stage, **options):
    with stage.play(**options) as (cluster, load):
        for _ in range(3):
            leader = cluster.leader()
            stop(leader)
            load.go_on(50, f"without {leader.name}, which led")
            # Long enough for clients to have asked the stopped leader, which knows nothing of all this.
            stage.pause(1, 2)
            go_on(leader)
            load.go_on(50, f"with {leader.name} back")
        follower = stage.random.choice(cluster.others(cluster.leader()))
        stop(follower)
        load.go_on(50, "without a follower")
        stage.pause(1, 2)
        go_on(follower)
        for count in (2, 3):
            stopped = stage.random.sample(cluster.members, count)
            for member in stopped:
                stop(member)
            stage.pause(1.5, 3)
            for member in stopped:
                go_on(member)
                stage.pause(0, 0.5)
            load.go_on(50, f"after {count} of 3 were stopped")
