"""Clusters to check: three `quorate serve` processes, or three of a real etcd, on free ports of the loopback address."""

import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import urllib.request

PATIENCE = 60


def free_port():
    """A port that nobody listens on right now."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def free_ports(count):
    """Distinct free ports."""
    ports = set()
    while len(ports) < count:
        ports.add(free_port())
    return list(ports)


class Cluster:
    """Three servers, alive as long as the `with` block. Both kinds take the same flags, which is a check of its own."""

    def __init__(self, kind, command):
        self.kind = kind
        self.command = command

    def __enter__(self):
        self.dir = tempfile.mkdtemp(prefix=f"interop-{self.kind}-")
        self.processes = []
        self.env = {name: value for name, value in os.environ.items() if not name.startswith("ETCD")}
        ports = free_ports(6)
        self.endpoints = [f"http://127.0.0.1:{port}" for port in ports[:3]]
        peers = [f"http://127.0.0.1:{port}" for port in ports[3:]]
        members = ",".join(f"n{k + 1}={url}" for k, url in enumerate(peers))
        for k in range(3):
            self.start(f"n{k + 1}", self.endpoints[k], peers[k], members, "new")
        try:
            for endpoint in self.endpoints:
                self.wait_until_healthy(endpoint)
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def start(self, name, client, peer, members, state):
        """Starts a member, and does not wait for it."""
        flags = [
            f"--name={name}",
            f"--data-dir={self.dir}/{name}",
            f"--listen-client-urls={client}",
            f"--advertise-client-urls={client}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster={members}",
            "--initial-cluster-token=interop",
            f"--initial-cluster-state={state}",
        ]
        log = open(f"{self.dir}/{name}.log", "w")
        command = self.command + flags
        self.processes.append(
            subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=self.env)
        )
        return self.processes[-1]

    def wait_until_healthy(self, endpoint):
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                with urllib.request.urlopen(endpoint + "/health", timeout=2) as answer:
                    if json.load(answer)["health"] == "true":
                        return
            except (OSError, ValueError, KeyError):
                pass
            for k, process in enumerate(self.processes):
                if process.poll() is not None:
                    raise RuntimeError(f"{self.kind} n{k + 1} ended: {self.log_tail(k)}")
            if time.monotonic() > deadline:
                raise RuntimeError(f"{self.kind} at {endpoint} is not healthy: {self.log_tail(0)}")
            time.sleep(0.05)

    def log_tail(self, k):
        with open(f"{self.dir}/n{k + 1}.log") as log:
            return log.read()[-2000:]

    def __exit__(self, *_):
        for process in self.processes:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + 10
        for process in self.processes:
            try:
                process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        shutil.rmtree(self.dir, ignore_errors=True)
