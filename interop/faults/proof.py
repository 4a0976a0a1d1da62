"""That the checks would notice: servers whose syncs do nothing, on disks that forget what was not synced, and reads that are old."""

import os
from contextlib import ExitStack

from cluster import Cluster, Failed, go_on, on_loopback, stop
from injection import Injection
from load import Load, Wrong
from on_disks import forgetful

CALLS = 300


def lying_disk(stage):
    """Syncs that say that all is well and do nothing: acknowledged writes must be missed after a power cut."""
    with ExitStack() as stack:
        places, disks = forgetful(stage, stack)
        cluster = stack.enter_context(Cluster(stage.programs, stage.dir, places))
        load = stack.enter_context(Load(cluster, os.path.join(stage.dir, "history"), stage.seed))
        load.go_on(CALLS, "before the disks lie")
        with ExitStack() as lies:
            for member in cluster.members:
                lies.enter_context(Injection(member, [], "fdatasync,fsync", "retval=0", "1+", stage.dir))
            load.go_on(CALLS, "while the disks lie")
            load.stop()
            for member in cluster.members:
                disks[member.name].power_off()
                member.kill()
        lost = sum(disks[member.name].power_on(mood=0)[1] for member in cluster.members)
        stage.note(f"{lost} sectors were forgotten")
        cluster.start_ended()
        cluster.leader()
        try:
            load.verify()
        except Wrong as objection:
            stage.note(f"objects: {str(objection).splitlines()[0]}")
            return
    raise Failed("what the disks forgot was not missed")


def stale_reads(stage):
    """Reads of what a member happens to have, noted as if they had asked for the newest: it must show."""
    with ExitStack() as stack:
        cluster = stack.enter_context(Cluster(stage.programs, stage.dir, on_loopback(stage.dir)))
        history = os.path.join(stage.dir, "history")
        load = stack.enter_context(Load(cluster, history, stage.seed, more=["--stale-reads"]))
        load.go_on(CALLS, "with stale reads")
        stopped = cluster.leader()
        stop(stopped)
        load.go_on(CALLS, "while the leader is stopped")
        go_on(stopped)
        load.go_on(CALLS, "with the leader back")
        load.stop()
        try:
            load.verify()
        except Wrong as objection:
            stage.note(f"objects: {str(objection).splitlines()[0]}")
            return
    raise Failed("stale reads went unnoticed")
