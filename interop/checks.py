"""The checks: steps of `etcdctl` and of plain HTTP, each with what it must answer.

A step is carried out alike against both kinds of cluster. What a step returns has everything taken out that may differ between
two sound clusters (ids, terms, times), so that the answers can be compared word for word with what is written here and with
the other cluster's.
"""

import base64
import json
import re
import subprocess
import time
import urllib.error
import urllib.request

from targets import free_ports

TIMEOUT = 20


class Session:
    """Carries out the steps at the endpoints of one cluster in turn, and remembers what each answered."""

    def __init__(self, etcdctl, cluster, offset):
        self.etcdctl = etcdctl
        self.cluster = cluster
        self.endpoints = endpoints = cluster.endpoints
        self.turn = offset
        self.here = endpoints[offset % len(endpoints)]
        self.names = {}
        self.answers = []
        self.failures = []

    def step(self, name, answer, expected):
        """Notes an answer and whether it is the expected one (a text, or a function that judges)."""
        self.answers.append((name, answer))
        right = expected(answer) if callable(expected) else answer == expected
        if not right:
            wanted = "something else" if callable(expected) else repr(expected)
            self.failures.append(f"{name} at {self.here}: {answer!r}, expected {wanted}")

    def next_endpoint(self):
        self.turn += 1
        self.here = self.endpoints[self.turn % len(self.endpoints)]

    def ctl(self, line, expected, stdin=None, stay=False):
        """One `etcdctl` command, at the next endpoint unless it must see at once what the one before did (serializable)."""
        if not stay:
            self.next_endpoint()
        words = [self.fill(word) for word in line.split()]
        words = ["" if word == "''" else word for word in words]
        self.step("etcdctl " + line, self.run_ctl(words, stdin), expected)

    def run_raw(self, words, stdin=None):
        # Without the scheme: with it, etcdctl 3.4 sends an authority that HTTP/2 forbids in `endpoint status` and `hashkv`.
        return subprocess.run(
            [self.etcdctl, "--endpoints", self.here.removeprefix("http://"), *words],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            env={"ETCDCTL_API": "3", "PATH": "/usr/bin:/bin"},
        )

    def run_ctl(self, words, stdin=None):
        run = self.run_raw(words, stdin)
        errors = [part for part in run.stderr.splitlines() if part.startswith("Error")]
        text = self.normal(run.stdout.strip("\n"))
        return text if run.returncode == 0 else "\n".join([text, *errors, f"exit {run.returncode}"]).strip("\n")

    def fill(self, word):
        for name, value in self.names.items():
            word = word.replace("{" + name + "}", value)
        return word

    def normal(self, text):
        for name, value in self.names.items():
            text = text.replace(value, "{" + name + "}")
        for k, endpoint in enumerate(self.endpoints):
            text = text.replace(endpoint, "ENDPOINT").replace(endpoint.removeprefix("http://"), "ENDPOINT")
        # etcdctl pads ids to sixteen places, and one in sixteen is shorter.
        text = re.sub(r" +(\{(?:n\d|cluster)\})", r" \1", text)
        text = re.sub(r"remaining\(\d+s\)", "remaining(Ns)", text)
        return re.sub(r"took = [\d.]+(µs|ms|s)", "took = T", text)

    def watch(self, line, lines, expected):
        """A watch from an old revision: read until as many lines have come as are expected."""
        self.next_endpoint()
        command = [self.etcdctl, "--endpoints", self.here, *[self.fill(word) for word in line.split()]]
        env = {"ETCDCTL_API": "3", "PATH": "/usr/bin:/bin"}
        # `timeout` ends a watch that never gets its lines, so that reading them cannot hang.
        command = ["timeout", str(TIMEOUT), *command]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=env) as watch:
            seen = []
            for text in watch.stdout:
                seen.append(text.rstrip("\n"))
                if len(seen) == lines:
                    break
            watch.terminate()
        self.step("etcdctl " + line, "\n".join(seen), expected)

    def http(self, method, path, body, expected):
        """One HTTP request: the status and the JSON answer without its header."""
        self.next_endpoint()
        self.step(f"{method} {path} {json.dumps(body)}", self.run_http(method, path, body), expected)

    def run_http(self, method, path, body):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.here + path, data=data, method=method)
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:
                status, text = answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            status, text = error.code, error.read().decode()
        try:
            parsed = json.loads(text)
        except ValueError:
            return {"status": status, "text": text[:200]}
        if isinstance(parsed, dict):
            parsed.pop("header", None)
        return {"status": status, "json": parsed}


def b64(text):
    return base64.b64encode(text.encode()).decode()


def kv(key, value, create, mod, version, **more):
    """A pair as the gateway writes it."""
    pair = {"key": b64(key), "create_revision": str(create), "mod_revision": str(mod), "version": str(version)}
    return pair | ({"value": b64(value)} if value else {}) | more


def ok(json_answer):
    return {"status": 200, "json": json_answer}


def refused(status, code, message):
    """An error of the gateway; older versions carry the message twice."""
    return lambda answer: (
        answer["status"] == status and answer["json"]["code"] == code and answer["json"]["message"] == message
    )


def keys_and_values(s):
    s.ctl("put a 1", "OK")  # revision 2
    s.ctl("put a 2 --prev-kv", "OK\na\n1")  # 3
    s.ctl("put b 3", "OK")  # 4
    s.ctl("put dir/x 4", "OK")  # 5
    s.ctl("put dir/y 5", "OK")  # 6
    s.ctl("get a", "a\n2")
    s.ctl("get absent", "")
    s.ctl("get a --print-value-only", "2")
    s.ctl("get --prefix dir/", "dir/x\n4\ndir/y\n5")
    s.ctl("get a c", "a\n2\nb\n3")
    s.ctl("get --from-key dir/y", "dir/y\n5")
    s.ctl("get '' --prefix --keys-only", "a\n\nb\n\ndir/x\n\ndir/y")
    s.ctl("get a --rev=2", "a\n1")
    s.ctl("get a --rev=1", "")
    s.ctl("get a --rev=1000", "Error: etcdserver: mvcc: required revision is a future revision\nexit 1")
    s.ctl("get --prefix dir/ --order=DESCEND", "dir/y\n5\ndir/x\n4")
    s.ctl("get '' --prefix --sort-by=VALUE --order=DESCEND --limit=2", "dir/y\n5\ndir/x\n4")
    s.ctl("get '' --prefix --sort-by=MODIFY --order=ASCEND --limit=1", "a\n2")
    s.ctl("get '' --prefix --limit=1", "a\n2")
    s.ctl("put fresh 1", "OK")  # 7
    s.ctl("get fresh --consistency=s", "fresh\n1", stay=True)
    s.ctl("del fresh --prev-kv", "1\nfresh\n1")  # 8
    s.ctl("del absent", "0")
    s.ctl("del --prefix dir/ --prev-kv", "2\ndir/x\n4\ndir/y\n5")  # 9
    s.ctl("put a --ignore-value", "OK")  # 10
    s.ctl("put absent --ignore-value", "Error: etcdserver: key not found\nexit 1")
    s.ctl("get a -w json", revisions_are(10, kv("a", "2", 2, 10, 3)))


def revisions_are(revision, *pairs):
    """The JSON answer has this revision and these pairs, whatever the order of its fields."""

    def judge(text):
        answer = json.loads(text)
        found = [{k: v if isinstance(v, str) else str(v) for k, v in pair.items()} for pair in answer.get("kvs", [])]
        return answer["header"]["revision"] == revision and found == list(pairs)

    return judge


def transactions(s):
    s.ctl("txn", "SUCCESS\n\nOK\n\na\n2", stdin='value("a") = "2"\n\nput b 4\nget a\n\nput b 5\n\n')  # 11
    s.ctl("txn", "FAILURE\n\n1", stdin='mod("a") > "100"\n\nput b 6\n\ndel b\n\n')  # 12
    s.ctl("txn", "SUCCESS\n\nOK\n\nOK", stdin='version("b") = "0"\ncreate("b") = "0"\n\nput b 7\nput c 8\n\n\n')  # 13
    duplicate = "Error: etcdserver: duplicate key given in txn request\nexit 1"
    s.ctl("txn", duplicate, stdin="\nput d 1\nput d 2\n\n\n")


def watches(s):
    s.watch("watch a --rev=2", 6, "PUT\na\n1\nPUT\na\n2")
    events = "PUT\ndir/x\n4\nPUT\ndir/y\n5\nDELETE\ndir/x\n4\ndir/x\n\nDELETE\ndir/y\n5\ndir/y"
    s.watch("watch --prefix dir/ --rev=5 --prev-kv", 15, events)
    s.watch("watch b c --rev=12", 5, "DELETE\nb\n\nPUT\nb")


def leases(s):
    s.next_endpoint()
    text = s.run_ctl(["lease", "grant", "120"])
    found = re.match(r"lease ([0-9a-f]+) granted with TTL\(120s\)$", text)
    s.step("etcdctl lease grant 120", bool(found), True)
    s.names["lease"] = found.group(1) if found else "0"
    s.ctl("put leased 1 --lease={lease}", "OK")
    s.ctl("lease timetolive {lease}", "lease {lease} granted with TTL(120s), remaining(Ns)")
    s.ctl("lease timetolive {lease} --keys", "lease {lease} granted with TTL(120s), remaining(Ns), attached keys([leased])")
    s.ctl("lease keep-alive --once {lease}", "lease {lease} keepalived with TTL(120)")
    s.ctl("lease list", "found 1 leases\n{lease}")
    s.ctl("lease revoke {lease}", "lease {lease} revoked")
    s.ctl("get leased", "")
    s.ctl("lease timetolive {lease}", "lease {lease} already expired")
    s.ctl("lease revoke {lease}", "Error: failed to revoke lease (etcdserver: requested lease not found)\nexit 1")
    s.ctl("put x 1 --lease=7777", "Error: etcdserver: requested lease not found\nexit 1")
    s.ctl("lease keep-alive --once 7777", "Error: etcdserver: requested lease not found\nexit 2")


def compaction(s):
    s.ctl("compact 5", "compacted revision 5")
    s.ctl("get a --rev=5", "a\n2")
    s.ctl("get a --rev=4", "Error: etcdserver: mvcc: required revision has been compacted\nexit 1")
    s.ctl("compact 5", "Error: etcdserver: mvcc: required revision has been compacted\nexit 1")
    s.ctl("compact 100000", "Error: etcdserver: mvcc: required revision is a future revision\nexit 1")


def cluster(s):
    # Its words go to standard error, in some versions to standard output; the exit code is the same.
    s.ctl("endpoint health", lambda text: "unhealthy" not in text and "exit" not in text)
    s.ctl("endpoint status -w json", status_is_sound)
    s.next_endpoint()
    members = json.loads(s.run_raw(["member", "list", "-w", "json"]).stdout)
    names = sorted(member["name"] for member in members["members"])
    urls = sorted(url for member in members["members"] for url in member["clientURLs"])
    s.step("etcdctl member list: names", names, ["n1", "n2", "n3"])
    s.step("etcdctl member list: client URLs", urls == sorted(s.endpoints), True)
    s.ctl("endpoint hashkv -w json", lambda text: json.loads(text)[0]["HashKV"]["hash"] != 0)


def status_is_sound(text):
    status = json.loads(text)[0]["Status"]
    return status["leader"] != 0 and status["raftTerm"] > 0 and status["version"].startswith("3.")


def gateway(s):
    s.http("GET", "/health", None, lambda answer: answer["json"]["health"] == "true")
    s.http("GET", "/version", None, lambda answer: {"etcdserver", "etcdcluster"} <= answer["json"].keys())
    s.http("GET", "/no/such/path", None, lambda answer: answer["status"] == 404)
    # The store's revision is 15 when this begins; see `SCENARIO`.
    s.http("POST", "/v3/kv/put", {"key": b64("g"), "value": b64("1")}, ok({}))
    s.http("POST", "/v3/kv/put", {"key": b64("g"), "value": b64("2"), "prev_kv": True},
           lambda answer: answer["json"]["prev_kv"]["value"] == b64("1"))
    s.http("POST", "/v3/kv/range", {"key": b64("g")},
           lambda answer: answer["json"]["count"] == "1" and answer["json"]["kvs"][0]["version"] == "2")
    s.http("POST", "/v3/kv/range", {"key": b64("g"), "keysOnly": True},
           lambda answer: "value" not in answer["json"]["kvs"][0])
    s.http("POST", "/v3/kv/range", {"key": b64("g"), "serializable": True, "limit": "1", "sort_order": "DESCEND"},
           lambda answer: answer["status"] == 200)
    s.http("POST", "/v3/kv/range", {"key": b64("absent")}, ok({}))
    s.http("POST", "/v3/kv/range", {"key": b64("g"), "count_only": True}, ok({"count": "1"}))
    s.http("POST", "/v3/kv/txn", {
        "compare": [{"key": b64("g"), "target": "VALUE", "value": b64("2")}],
        "success": [{"request_put": {"key": b64("g"), "value": b64("3")}}],
        "failure": [{"request_delete_range": {"key": b64("g")}}],
    }, lambda answer: answer["json"]["succeeded"] is True and len(answer["json"]["responses"]) == 1)
    s.http("POST", "/v3/kv/deleterange", {"key": b64("g")}, ok({"deleted": "1"}))
    s.http("POST", "/v3/kv/put", {"value": b64("1")}, refused(400, 3, "etcdserver: key is not provided"))
    s.http("POST", "/v3/kv/range", {"key": b64("g"), "revision": "99999"},
           refused(400, 11, "etcdserver: mvcc: required revision is a future revision"))
    s.http("POST", "/v3/lease/grant", {"TTL": 100, "ID": 4242}, ok({"ID": "4242", "TTL": "100"}))
    s.http("POST", "/v3/lease/timetolive", {"ID": 4242}, lambda answer: answer["json"]["grantedTTL"] == "100")
    s.http("POST", "/v3/lease/keepalive", {"ID": 4242}, lambda answer: answer["json"]["result"]["TTL"] == "100")
    s.http("POST", "/v3/lease/leases", {}, ok({"leases": [{"ID": "4242"}]}))
    s.http("POST", "/v3/lease/revoke", {"ID": 4242}, ok({}))
    s.http("POST", "/v3/lease/revoke", {"ID": 4242}, refused(404, 5, "etcdserver: requested lease not found"))
    s.http("POST", "/v3/maintenance/status", {}, lambda answer: answer["json"]["leader"] != "0")
    s.http("POST", "/v3/cluster/member/list", {}, lambda answer: len(answer["json"]["members"]) == 3)


def gateway_watch(s):
    """A watch over HTTP: one JSON object a line, the first says that the watch is there."""
    s.next_endpoint()
    body = json.dumps({"create_request": {"key": b64("a"), "start_revision": "10"}}).encode()
    request = urllib.request.Request(s.here + "/v3/watch", data=body, method="POST")
    with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:
        first = json.loads(answer.readline())["result"]
        second = json.loads(answer.readline())["result"]
    s.step("POST /v3/watch: created", first.get("created"), True)
    s.step("POST /v3/watch: event", second["events"][0]["kv"], kv("a", "2", 2, 10, 3))


def membership(s):
    """A learner is added, started, promoted and removed, and what etcd refuses is refused."""
    client, peer, unused = (f"http://127.0.0.1:{port}" for port in free_ports(3))
    members = json.loads(s.run_raw(["member", "list", "-w", "json"]).stdout)["members"]
    own = {member["name"]: member for member in members}
    s.names |= {name: f"{member['ID']:x}" for name, member in own.items()} | {"client": client, "peer": peer, "unused": unused}
    s.names |= {f"{name}-peer": member["peerURLs"][0] for name, member in own.items()}

    # etcd does not change a membership whose members have known each other for less than five seconds.
    text = until(lambda: s.run_ctl(["member", "add", "n4", "--learner", f"--peer-urls={peer}"]),
                 lambda text: "unhealthy cluster" not in text)
    found = re.search(r"Member +([0-9a-f]+) added (?:as learner )?to cluster +([0-9a-f]+)", text)
    s.names |= {"n4": found.group(1), "cluster": found.group(2)}
    listed = re.search(r'ETCD_INITIAL_CLUSTER="(.*)"', text).group(1)
    s.step("etcdctl member add: environment", s.normal(re.sub(r'ETCD_INITIAL_CLUSTER=".*"', "...", text)).split("\n", 1)[1],
           '\nETCD_NAME="n4"\n...\nETCD_INITIAL_ADVERTISE_PEER_URLS="{peer}"\nETCD_INITIAL_CLUSTER_STATE="existing"')
    s.step("etcdctl member add: initial cluster", sorted(s.normal(listed).split(",")),
           ["n1={n1-peer}", "n2={n2-peer}", "n3={n3-peer}", "n4={peer}"])
    s.ctl("member promote {n4}", "Error: etcdserver: can only promote a learner member which is in sync with leader\nexit 1")
    s.ctl("member promote {n1}", "Error: etcdserver: can only promote a learner member\nexit 1")
    s.ctl("member add n5 --peer-urls={n1-peer}", "Error: etcdserver: Peer URLs already exists\nexit 1")
    s.ctl("member update {n1} --peer-urls={n2-peer}", "Error: etcdserver: Peer URLs already exists\nexit 1")
    s.ctl("member remove 5", "Error: etcdserver: member not found\nexit 1")
    s.ctl("member update 5 --peer-urls={unused}", "Error: etcdserver: member not found\nexit 1")
    s.ctl("member update {n1} --peer-urls={n1-peer}", lambda text: re.match(r"Member {n1} updated in cluster +{cluster}$", text))

    process = s.cluster.start("n4", client, peer, s.fill(listed), "existing")
    text = until(lambda: s.run_ctl(["member", "promote", s.names["n4"]]), lambda text: "in sync with leader" not in text)
    s.step("etcdctl member promote", re.sub(" +", " ", s.normal(text)), "Member {n4} promoted in cluster {cluster}")
    lines = until(lambda: sorted(s.normal(s.run_ctl(["member", "list"])).splitlines()),
                  lambda lines: sum(", started, " in line for line in lines) == 4)
    expected = [f"{{n{k}}}, started, n{k}, {{n{k}-peer}}, ENDPOINT, false" for k in range(1, 4)]
    s.step("etcdctl member list", lines, expected + ["{n4}, started, n4, {peer}, {client}, false"])
    s.next_endpoint()
    s.http("POST", "/v3/cluster/member/promote", {"ID": str(int(s.names["n4"], 16))},
           lambda answer: (answer["json"]["code"], answer["json"]["message"]) == (9, "etcdserver: can only promote a learner member"))
    s.step("etcdctl member remove", re.sub(" +", " ", s.normal(until(
        lambda: s.run_ctl(["member", "remove", s.names["n4"]]), lambda text: "unhealthy cluster" not in text))),
        "Member {n4} removed from cluster {cluster}")
    s.ctl("member remove {n4}", "Error: etcdserver: member not found\nexit 1")
    process.wait(TIMEOUT)
    s.step("the removed member ends", process.returncode is not None, True)


def until(ask, good):
    """Asks until the answer is good; the last answer, in any case."""
    deadline = time.monotonic() + TIMEOUT
    while True:
        answer = ask()
        if good(answer) or time.monotonic() > deadline:
            return answer
        time.sleep(0.1)


SCENARIO = [keys_and_values, transactions, watches, leases, compaction, cluster, gateway, gateway_watch, membership]


def run(etcdctl, cluster, offset):
    """The whole scenario on a fresh cluster, beginning at one of the endpoints."""
    session = Session(etcdctl, cluster, offset)
    for part in SCENARIO:
        try:
            part(session)
        except Exception as error:  # whatever it is, it is a failed check, and the other parts are still of interest
            session.failures.append(f"{part.__name__}: {type(error).__name__}: {error}")
    return session
