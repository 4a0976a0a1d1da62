#!/usr/bin/env python3
"""Proves from the outside that no put is acknowledged before it is durable on a majority.

Three servers run under `strace`, which slows their syncs, while clients put (gRPC through the crate `etcd-client`, and JSON). The
traces then show, for every acknowledged put, which entry of the log it is, when a sync of the log's file that began after the
entry was written had ended on each member, and when the answer began to leave. Two of the three syncs must come first.

A checker that never objects proves nothing, so it is then given traces that were tampered with, and servers whose syncs `strace`
has turned into nothing, and must object to each.

Usage: durability.py [--required] QUORATE ETCD-CLIENT-PROGRAM. Without `strace` it says so and passes, unless it is required, as it
is with `CI` set.
"""

import http.client
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
from base64 import b64encode

import strace
from doctored import DOCTORED, NotApplicable
from evidence import Log, answers
from strace import Trace, Unclear
from targets import Cluster

MAJORITY = 2
KEY = re.compile(rb"(?:put|json)-\d+-\d+;")
GRPC_CLIENTS, GRPC_PUTS, JSON_CLIENTS, JSON_PUTS = 24, 300, 3, 20
# Every sync of a log begins 3 ms late: whoever does not wait for it answers long before it ends, and not by luck after it.
SLOW_SYNCS = ["-e", "inject=fdatasync:delay_enter=3000"]
NO_SYNCS = ["-e", "inject=fdatasync,fsync:retval=0"]


class TracedCluster(Cluster):
    """Three servers, each under a `strace` of its own. `traces` are complete after the `with` block."""

    def __init__(self, program, dir, extra):
        super().__init__("quorate", [])
        self.program, self.into, self.extra = program, dir, extra
        self.traces = {}

    def start(self, name, *rest):
        self.traces[name] = os.path.join(self.into, f"{name}.trace")
        self.command = strace.command(self.traces[name], self.program, self.extra)
        return super().start(name, *rest)

    def __exit__(self, *outcome):
        super().__exit__(*outcome)
        for process, trace in zip(self.processes, self.traces.values()):
            strace.wait_for_end(trace, process.pid)

    def lines(self):
        """The traces by member."""
        return {name: list(without_preparation(trace)) for name, trace in self.traces.items()}


def without_preparation(path):
    """The lines of a trace without the writes of zeros to segments in the making, which are most of its bytes."""
    prepared = "".join(f"\\x{byte:02x}" for byte in b"/wal-prepare>")
    skipped = set()
    with open(path) as trace:
        for line in trace:
            thread, _, what = line.split(maxsplit=2)
            if what.startswith("pwrite") and prepared in what:
                if what.endswith(strace.UNFINISHED + "\n"):
                    skipped.add(thread)
            elif thread in skipped and what.startswith("<... "):
                skipped.remove(thread)
            else:
                yield line


def grpc_puts(program, endpoints):
    """Puts through the Rust client: revisions by key."""
    command = [program, "puts", str(GRPC_CLIENTS), str(GRPC_PUTS), *endpoints]
    run = subprocess.run(command, capture_output=True, timeout=600)
    if run.returncode:
        raise RuntimeError(f"{command} failed: {run.stderr.decode()}")
    return {key: int(revision) for key, revision in (line.split() for line in run.stdout.splitlines())}


def json_puts(number, endpoint, revisions):
    """Puts through the gateway, one after the other on one connection."""
    connection = http.client.HTTPConnection(endpoint.removeprefix("http://"), timeout=60)
    for put in range(JSON_PUTS):
        key = f"json-{number}-{put};".encode()
        body = json.dumps({"key": b64encode(key).decode(), "value": b64encode(b"y" * 50).decode()})
        connection.request("POST", "/v3/kv/put", body)
        answer = connection.getresponse()
        content = json.loads(answer.read())
        # Any other was not acknowledged: whether it is in the log does not matter.
        if answer.status == 200:
            revisions[key] = int(content["header"]["revision"])
    connection.close()


def put_all(program, endpoints):
    """All puts at the same time: revisions of the acknowledged ones by key."""
    revisions = {}
    threads = [threading.Thread(target=json_puts, args=(k, endpoints[k % 3], revisions)) for k in range(JSON_CLIENTS)]
    for thread in threads:
        thread.start()
    found = grpc_puts(program, endpoints)
    for thread in threads:
        thread.join()
    return revisions | found


class Verdict:
    """What the traces say of each acknowledged put: `objections` by key, and figures of those without."""

    def __init__(self, lines, acknowledged):
        traces = [Trace(name, text) for name, text in lines.items()]
        self.logs = {trace: Log(trace) for trace in traces}
        self.answers = {}
        for trace in traces:
            for revision, call in answers(trace):
                self.answers.setdefault(revision, []).append((trace, call))
        self.entries = self.find_entries()
        self.objections, self.margins = {}, []
        for key, revision in acknowledged.items():
            objection = self.judge(key, revision)
            if objection:
                self.objections[key] = objection
        self.check_order(acknowledged)

    def find_entries(self):
        """(index, term) of the entries by the key that they put, in whichever logs they are."""
        entries = {}
        for log in self.logs.values():
            for entry, body in log.bodies.items():
                for key in KEY.findall(body):
                    entries.setdefault(key, set()).add(entry)
        return entries

    def judge(self, key, revision):
        """What speaks against this put having been durable on a majority before any answer told of it; `None` if nothing does."""
        entries = self.entries.get(key, set())
        if len(entries) != 1:
            return f"is in the logs as {sorted(entries)}, not as one entry"
        entry = next(iter(entries))
        if revision not in self.answers:
            return f"has revision {revision}, and no answer says so"
        for trace, answer in self.answers[revision]:
            syncs = self.syncs(key, entry)
            before = [member.name for member, sync in syncs.items() if is_before(member, sync, trace, answer)]
            if len(before) < MAJORITY:
                return f"entry {entry[0]}: when the answer left {trace.name} it was durable on {before or 'no member'}"
            times = sorted(sync.ended_at for sync in syncs.values())
            self.margins.append(answer.began_at - times[MAJORITY - 1])
        return None

    def syncs(self, key, entry):
        """By member, the sync that made this entry with this key in it durable."""
        holders = ((member, log) for member, log in self.logs.items() if key in log.bodies.get(entry, b""))
        return {member: log.durable[entry] for member, log in holders if entry in log.durable}

    def check_order(self, acknowledged):
        """Revisions are given in the log's order; so a put's revision names its entry, and the keys have not misled."""
        believed = [key for key in acknowledged if key not in self.objections]
        believed.sort(key=lambda key: next(iter(self.entries[key])))
        for before, key in zip(believed, believed[1:]):
            earlier, later = acknowledged[before], acknowledged[key]
            if earlier >= later:
                self.objections[key] = f"has revision {later}, and an earlier entry has {earlier}"

    def figures(self):
        frames = [frame for log in self.logs.values() for frame in log.frames]
        keys = sum(len(KEY.findall(body)) for log in self.logs.values() for body in log.bodies.values())
        indexes = sorted(entry[0] for entries in self.entries.values() for entry in entries)
        return (
            f"entries {indexes[0]} to {indexes[-1]}; {keys} records in {len(frames)} frames on three members; "
            f"from the majority's sync to the answer at least {min(self.margins) // 1000} µs"
        )


def is_before(member, sync, trace, answer):
    """Whether the sync at `member` had certainly ended before the answer in `trace` began."""
    return sync.ended < answer.began if member is trace else sync.ended_at < answer.began_at


def prove(quorate, client, dir):
    """The proof itself: the traces' lines and the acknowledged puts, for more."""
    cluster = TracedCluster(quorate, dir, SLOW_SYNCS)
    with cluster:
        acknowledged = put_all(client, cluster.endpoints)
    lines = cluster.lines()
    verdict = Verdict(lines, acknowledged)
    if not verdict.objections:
        print(f"{len(acknowledged)} acknowledged puts, each durable on a majority before its answer left: {verdict.figures()}")
    return lines, acknowledged, verdict


def check_doctored(lines, acknowledged, verdict):
    """Tampered traces: how many were objected to, and the names of those that were not."""
    caught, missed = 0, []
    for doctor in DOCTORED:
        what = doctor.__doc__.splitlines()[0].rstrip(".")
        try:
            changed, expected = doctor(lines, acknowledged, verdict)
        except NotApplicable as reason:
            missed.append(f"{what}: cannot be tried, {reason}")
            continue
        try:
            objections = set(Verdict(changed, acknowledged).objections)
        except Unclear as unclear:
            missed.append(f"{what}: {unclear}")
            continue
        if objections and expected <= objections:
            caught += 1
            print(f"objects to {len(objections)} puts: {what}")
        else:
            missed.append(f"{what}: {len(objections)} objections, {len(expected - objections)} are missing")
    return caught, missed


def check_without_syncs(quorate, dir):
    """Servers whose syncs do nothing and say that all is well, so that only the traces tell: whether each put was objected to."""
    cluster = TracedCluster(quorate, dir, NO_SYNCS)
    acknowledged = {}
    with cluster:
        json_puts(0, cluster.endpoints[0], acknowledged)
    objections = Verdict(cluster.lines(), acknowledged).objections
    print(f"objects to {len(objections)} of {len(acknowledged)} puts: syncs that were not carried out")
    return bool(acknowledged) and objections.keys() == acknowledged.keys()


def check(quorate, client, dir):
    """Everything: how many checks passed, and what failed."""
    lines, acknowledged, verdict = prove(quorate, client, dir)
    failures = [f"{key.decode()} {objection}" for key, objection in verdict.objections.items()]
    passed = len(acknowledged) - len(failures)
    if len(acknowledged) < GRPC_PUTS:
        failures.append(f"only {len(acknowledged)} puts were acknowledged")
    if failures:
        return passed, failures
    caught, missed = check_doctored(lines, acknowledged, verdict)
    if check_without_syncs(quorate, dir):
        caught += 1
    else:
        missed.append("servers without syncs go unnoticed")
    return passed + caught, missed


def main():
    arguments = [argument for argument in sys.argv[1:] if argument != "--required"]
    if len(arguments) != 2:
        sys.exit(__doc__)
    reason = strace.missing()
    if reason:
        print(f"skipped: {reason}")
        sys.exit(1 if "--required" in sys.argv or "CI" in os.environ else 0)
    quorate, client = [os.path.abspath(arguments[0]), "serve"], os.path.abspath(arguments[1])
    with tempfile.TemporaryDirectory(prefix="durability-") as dir:
        passed, failures = check(quorate, client, dir)
    for failure in failures:
        print(f"FAILED {failure}")
    print(f"{passed} passed, {len(failures)} failed")
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
