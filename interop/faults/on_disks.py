"""Disks that fail: calls with errors, no space left, and power cuts that take what was not synced."""

import json
import os
import urllib.error
import urllib.request
from base64 import b64encode
from contextlib import ExitStack

from cluster import Cluster, Failed, on_loopback, wait_for
from disks import ForgetfulDisk, SmallDisk
from injection import Injection
from load import ANSWERED, LARGE, REFUSED

# By name, the files that are meant.
FILES = {"log": [f"wal-{number:016x}" for number in range(1, 50)], "store": ["store"], "directory": [""]}
# Files, call, error, and after how many such calls at most.
ERRORS = [
    ("log", "fdatasync", "EIO", 300),
    ("log", "pwritev", "EIO", 300),
    ("log", "pwritev", "ENOSPC", 300),
    ("store", "fdatasync", "EIO", 2),
    ("store", "pwrite64", "EIO", 20),
    ("directory", "fsync", "EIO", 2),
]
# Bytes of a value, and the bytes of entries that a leader keeps for slow followers: after more than these they need a snapshot.
HUGE, LONG_LOG = 60_000, 16 << 20


def errors(stage):
    """Writes and syncs of log and store that fail, one at a time: the server must end and not try again."""
    with stage.play(value_bytes=LARGE) as (cluster, load):
        for files, call, error, most in stage.random.sample(ERRORS, len(ERRORS)):
            member = stage.random.choice([cluster.leader(), *cluster.members])
            what = f"{call} of the {files} failed with {error} at {member.name}"
            when = stage.random.randrange(1, most)
            with Injection(member, FILES[files], call, f"error={error}", when, stage.dir) as injection:
                injection.wait_until_injected()
                code = member.wait_for_end()
                again = injection.after()
            if code != 1:
                raise Failed(f"{what}, and it ended with {code}: {member.log_tail()}")
            # Names are also made durable for what is known of the peers, by another thread, and that may fail.
            if again and files != "directory":
                raise Failed(f"{what}, and it went on with {again[:5]}")
            load.go_on(50, f"after {what}")
            member.start()
            load.go_on(50, "with all members back")


def gateway(endpoint, path, request):
    """What the JSON gateway answers."""
    body = json.dumps(request).encode()
    with urllib.request.urlopen(f"{endpoint}/v3/{path}", body, timeout=10) as answer:
        return json.load(answer)


def refusal(endpoint, path, request):
    """What is said to a request that is not carried out."""
    try:
        return f"was answered with {gateway(endpoint, path, request)}"
    except urllib.error.HTTPError as error:
        return error.read().decode()


def full_one(stage):
    """The disk of one member is full."""
    full(stage, 1)


def full_all(stage):
    """The disks of all members are full."""
    full(stage, 3)


def full(stage, count):
    with ExitStack() as stack:
        places = on_loopback(stage.dir)
        small = stage.random.sample(places, count)
        disks = [stack.enter_context(SmallDisk(place.data_dir, 200)) for place in small]
        with stage.play(places, value_bytes=4000) as (cluster, load):
            endpoint = stage.random.choice(cluster.endpoints)
            key = b64encode(b"other").decode()
            gateway(endpoint, "kv/put", {"key": key, "value": key})
            for disk in disks:
                take_space(disk)
            wait_for("the alarm", lambda: gateway(endpoint, "maintenance/alarm", {}).get("alarms"))
            refused = load.counted(REFUSED)
            wait_for("clients to be refused", lambda: load.counted(REFUSED) > refused)
            why = refusal(endpoint, "kv/put", {"key": key, "value": key})
            if "mvcc: database space exceeded" not in why:
                raise Failed(f"a put while the disk is full: {why}")
            # What a full disk does not keep anybody from.
            if len(gateway(endpoint, "kv/range", {"key": key}).get("kvs", [])) != 1:
                raise Failed("a key is gone while the disk is full")
            load.go_on(50, "while the disk is full", ANSWERED)
            if gateway(endpoint, "kv/deleterange", {"key": key}).get("deleted") != "1":
                raise Failed("a deletion is refused while the disk is full")
            for member in cluster.members:
                member.check()
            for disk in disks:
                disk.grow(1000)
                os.remove(os.path.join(disk.at, "ballast"))
            wait_for("writes to be accepted again", lambda: accepts_writes(endpoint, key))


def take_space(disk):
    """Fills it but for a few pages."""
    with open(os.path.join(disk.at, "ballast"), "wb") as ballast:
        try:
            while True:
                ballast.write(bytes(1 << 16))
                ballast.flush()
        except OSError:
            pass


def accepts_writes(endpoint, key):
    """Clears the alarms, which come again as long as there is no room, and tries."""
    try:
        for alarm in gateway(endpoint, "maintenance/alarm", {}).get("alarms", []):
            gateway(endpoint, "maintenance/alarm", {"action": "DEACTIVATE", **alarm})
        gateway(endpoint, "kv/put", {"key": key, "value": key})
        return True
    except OSError:
        return False


def power_cuts(stage):
    """Disks that forget what was not synced: power fails at one member and at all, in the first moments and while they recover."""
    with ExitStack() as stack:
        places, disks = forgetful(stage, stack)
        cuts = []
        beginning = Cluster(stage.programs, stage.dir, places)
        start(beginning.members)
        stage.pause(0, 0.5)
        cuts += cut_power(beginning.members, disks)
        with stage.play(places, value_bytes=5000) as (cluster, load):
            for victims in (1, 3, 1, 3, 3):
                load.go_on(stage.random.randrange(200), "before power fails")
                struck = stage.random.sample(cluster.members, victims)
                cuts += cut_power(struck, disks)
                if victims == 1:
                    load.go_on(30, "while one member is off")
                start(struck)
                if stage.random.random() < 0.5:
                    stage.pause(0, 0.5)
                    cuts += cut_power(struck, disks)
                    start(struck)
                load.go_on(50, f"after power failed at {victims} of 3")
            sectors, of, names, of_names = (sum(counts) for counts in zip(*cuts))
            stage.note(f"{len(cuts)} power cuts, which {sectors} of {of} sectors and {names} of {of_names} names survived")


def snapshots(stage):
    """A member is off for so long that the others' logs no longer have what it lacks, and loses power again while it gets a snapshot."""
    with ExitStack() as stack:
        places, disks = forgetful(stage, stack)
        with stage.play(places, value_bytes=HUGE) as (cluster, load):
            victim = stage.random.choice(cluster.members)
            cut_power([victim], disks)
            load.go_on(LONG_LOG // HUGE + 50, f"without {victim.name}")
            victim.start()
            for _ in range(stage.random.randrange(1, 4)):
                stage.pause(0.1, 0.6)
                cut_power([victim], disks)
                victim.start()
            wait_for(f"{victim.name} to restore a snapshot", lambda: "the snapshot is restored" in victim.log_text())


def start(members):
    for member in members:
        member.start()


def cut_power(members, disks):
    """Power fails, at nearly the same moment, and comes back when all of them are dead. What survived, by member."""
    for member in members:
        disks[member.name].power_off()
    for member in members:
        member.kill()
    return [disks[member.name].power_on() for member in members]


def forgetful(stage, stack, places=None):
    """Places on disks of their own, and these by member's name."""
    places, disks = places or on_loopback(stage.dir), {}
    for number, place in enumerate(places):
        mount = f"{place.data_dir}-disk"
        disk = ForgetfulDisk(stage.programs.client, mount, stage.seed + number)
        disks[f"n{number + 1}"] = stack.enter_context(disk)
        # Not the mount itself: the server makes its directory, and must make its name durable too.
        place.data_dir = os.path.join(mount, "data")
    return places, disks
