#!/usr/bin/env python3
"""Checks Quorate with clients that know nothing of it: `etcdctl`, plain HTTP, and the Rust crate `etcd-client`.

The same checks run against a real etcd, which shows that the checks themselves are right, and the answers of both are
compared. Usage: run.py QUORATE [ETCD-CLIENT-PROGRAM]; environment ETCD and ETCDCTL name other programs than those on the path.
Ends with exit code 1 if a check fails.
"""

import os
import shutil
import subprocess
import sys

import checks
from targets import Cluster


def program(variable, name):
    found = os.environ.get(variable) or shutil.which(name)
    if not found:
        sys.exit(f"{name} is not installed (Debian: etcd-client, etcd-server); {variable} may name it")
    return found


def run_client(client, kind, command):
    """The Rust client against a cluster of its own: passed and failed checks."""
    with Cluster(kind, command) as cluster:
        run = subprocess.run([client, *cluster.endpoints], capture_output=True, text=True, timeout=600)
    print("\n".join(f"  {line}" for line in run.stdout.splitlines()))
    words = run.stdout.splitlines()[-1].split() if run.stdout else []
    if len(words) != 4 or (run.returncode == 0) != (words[2] == "0"):
        print(f"  FAILED: exit code {run.returncode}: {run.stderr}")
        return 0, 1
    return int(words[0]), int(words[2])


def main():
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    quorate = [os.path.abspath(sys.argv[1]), "serve"]
    etcd = [program("ETCD", "etcd")]
    etcdctl = program("ETCDCTL", "etcdctl")
    passed, failures = 0, []

    sessions = []
    for kind, command, offset in [("etcd", etcd, 0), ("quorate", quorate, 0), ("quorate", quorate, 1), ("quorate", quorate, 2)]:
        with Cluster(kind, command) as cluster:
            session = checks.run(etcdctl, cluster, offset)
        good = len(session.answers) - len(session.failures)
        print(f"etcdctl and HTTP against {kind}, first at endpoint {offset + 1}: {good} passed, {len(session.failures)} failed")
        passed += max(good, 0)
        failures += [f"{kind}: {text}" for text in session.failures]
        sessions.append(session)

    reference = dict_of(sessions[0])
    for session in sessions[1:]:
        for step, answer in dict_of(session).items():
            if isinstance(answer, str) and reference.get(step) != answer and not differs_by_nature(step):
                failures.append(f"{step[1]}: etcd says {reference.get(step)!r}, quorate {answer!r}")
            else:
                passed += 1

    if len(sys.argv) == 3:
        for kind, command in [("etcd", etcd), ("quorate", quorate)]:
            print(f"etcd-client (Rust) against {kind}:")
            good, bad = run_client(os.path.abspath(sys.argv[2]), kind, command)
            passed += good
            failures += [f"{kind}: etcd-client: {bad} checks"] if bad else []

    for text in failures:
        print(f"FAILED {text}")
    print(f"{passed} passed, {len(failures)} failed")
    sys.exit(1 if failures or not passed else 0)


def dict_of(session):
    """Answers by position and step, since a step may come twice."""
    return {(at, name): answer for at, (name, answer) in enumerate(session.answers)}


def differs_by_nature(step):
    """Steps whose text holds ids, sizes or hashes; they are judged one by one in the checks."""
    return any(word in step[1] for word in ("-w json", "--write-out=fields"))


if __name__ == "__main__":
    main()
