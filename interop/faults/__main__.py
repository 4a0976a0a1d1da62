#!/usr/bin/env python3
"""Breaks real clusters of real processes while clients work, and checks what the clients saw.

Each scenario starts servers, lets a dozen clients write, read, compare, delete and lease through all of it, brings faults, takes them
away, demands that work goes on, and then that all members hold the same and that it explains every answer anybody got.

Usage: python3 interop/faults [options] QUORATE CLIENT-PROGRAM
  --required      a scenario that this machine cannot play is a failure (as it is with CI set), and not skipped with a reason
  --only A,B      these scenarios only
  --rounds N      plays everything N times, with another seed each time
  --seed N        the first seed, which is drawn otherwise; a seed decides what is done, not when the processes do it
  --patience N    seconds to wait for what must happen, 60 if not given; more for a busy machine
  --keep DIR      where logs and histories of failed plays are left (default: the directory for temporary files)
"""

import argparse
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback

sys.path.insert(1, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

import disks
import injection
import network
import on_disks
import on_everything
import on_members
import on_network
import on_processes
import proof
from cluster import Failed, Patience, Programs
from stage import Stage


def scenarios(client):
    """Name, function, and why it cannot be played here."""
    nothing = lambda: None
    fuse = lambda: disks.missing_fuse(client)
    return [
        ("kills", on_processes.kills, nothing),
        ("pauses", on_processes.pauses, nothing),
        ("pauses-with-leases", on_processes.pauses_with_leases, nothing),
        ("network", on_network.cuts, network.missing),
        ("disk-errors", on_disks.errors, injection.missing),
        ("disk-full-one", on_disks.full_one, disks.missing_mounts),
        ("disk-full-all", on_disks.full_all, disks.missing_mounts),
        ("power-cuts", on_disks.power_cuts, fuse),
        ("snapshots", on_disks.snapshots, fuse),
        ("replacements", on_members.replacements, network.missing),
        ("chaos", on_everything.chaos, lambda: fuse() or network.missing()),
        ("stale-reads", proof.stale_reads, nothing),
        ("lying-disk", proof.lying_disk, lambda: fuse() or injection.missing()),
    ]


def play(name, scenario, programs, seed, keep):
    """Whether it went well. What it left is kept if not."""
    dir = tempfile.mkdtemp(prefix=f"faults-{name}-", dir=keep)
    stage = Stage(programs, dir, seed)
    print(f"{name} (seed {seed}): {scenario.__doc__.splitlines()[0]}", flush=True)
    begun = time.monotonic()
    try:
        scenario(stage)
    except Exception as failure:
        print("".join(f"  {note}\n" for note in stage.notes), end="")
        if not isinstance(failure, Failed):
            traceback.print_exception(failure)
        print(f"FAILED {name}: {failure}\n  logs and history: {dir}")
        print(f"  again: python3 interop/faults --only {name} --seed {seed} {programs.server[0]} {programs.client}", flush=True)
        return False
    except BaseException:
        shutil.rmtree(dir, ignore_errors=True)
        raise
    print("".join(f"  {note}\n" for note in stage.notes), end="")
    print(f"  ok after {time.monotonic() - begun:.0f} s", flush=True)
    shutil.rmtree(dir, ignore_errors=True)
    return True


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--required", action="store_true")
    parser.add_argument("--only", default="")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    parser.add_argument("--patience", type=int, default=60)
    parser.add_argument("--keep")
    parser.add_argument("quorate")
    parser.add_argument("client")
    return parser.parse_args()


def main():
    options = arguments()
    # Ends the `with` blocks, which take mounts, namespaces and processes away.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    client = os.path.abspath(options.client)
    Patience.seconds = options.patience
    programs = Programs([os.path.abspath(options.quorate), "serve"], client)
    wanted = set(options.only.split(",")) - {""}
    known = scenarios(client)
    if wanted - {name for name, _, _ in known}:
        sys.exit(f"no such scenario: {wanted - {name for name, _, _ in known}}")
    passed = failed = 0
    reasons = {name: missing() for name, _, missing in known if not wanted or name in wanted}
    for name, reason in reasons.items():
        if reason:
            print(f"skipped: {name}: {reason}")
            failed += options.required or "CI" in os.environ
    for seed in range(options.seed, options.seed + options.rounds):
        for name, scenario, _ in known:
            if name not in reasons or reasons[name]:
                continue
            if play(name, scenario, programs, seed, options.keep):
                passed += 1
            else:
                failed += 1
    print(f"{passed} passed, {failed} failed")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
