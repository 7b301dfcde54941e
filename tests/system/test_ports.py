"""What nobody should send, at every port of ours, before anybody has said who they are: no process ends, grows, keeps
busy, or keeps others waiting."""

import contextlib
import ipaddress
import json
import os
import re
import struct
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from test_several_clusters import HELLO
from world import ROOT, Mesh, _children

pytestmark = [pytest.mark.system, pytest.mark.timeout(500)]

JUNK = Path(__file__).with_name("junk.py")
GROWTH_KB, LEAK_KB = 60_000, 25_000
"""What a process may keep of what it is sent first (code and buffers), and of what comes after that."""
LISTENS, UNCONNECTED, EPHEMERAL = "0A", "07", 32768
KNOWN = {15010, 15012, 15014, 15017, 8080, 15020, 15021, 15090, 9080, 15001, 15006, 4317, 4318, 9411, 9090, 20001, 6443}
KNOWN_OF_OTHERS = {8000, 15053, 15099, 8081, 6443}
"""Ports of which some are not found only if the search for ports is wrong."""
PAGE = ROOT / "docs" / "explanation-threats.md"
OF_SAMPLES = {9080, 5000, 7070}


def documented():
    """The ports in the first column of the threat model's table."""
    section = PAGE.read_text().partition("### Every port that listens")[2].partition("\n## ")[0]
    cells = (line.split("|")[1] for line in section.splitlines() if line.startswith("|"))
    return {int(number) for cell in cells for number in re.findall(r"\d+", cell)}


def listening(text, owned=None):
    """(address, port) of /proc/net/tcp and tcp6; also of /proc/net/udp, whose sockets have no such state. ``owned``:
    the numbers of the sockets that count; None for all."""
    for line in text.splitlines():
        words = line.split()
        if len(words) < 10 or ":" not in words[1] or words[3] not in (LISTENS, UNCONNECTED):
            continue
        if owned is not None and words[9] not in owned:
            continue
        address, _, port = words[1].partition(":")
        raw = b"".join(struct.pack("<I", int(address[i : i + 8], 16)) for i in range(0, len(address), 8))
        found = ipaddress.ip_address(raw)
        yield getattr(found, "ipv4_mapped", None) or found, int(port, 16)


def split(found, own):
    """Addresses that others reach, and those of the loopback interface; ``own`` stands for any address."""
    outside, inside = set(), set()
    for address, port in found:
        if address.is_unspecified:
            outside.add((own, port))
        elif address.is_loopback:
            inside.add(("127.0.0.1" if address.version == 4 else "::1", port))
        else:
            outside.add((str(address), port))
    return outside, inside


def family(mesh):
    """The portal and all its descendants: the processes of a cluster."""
    found, queue = [], [int((mesh.home / "cluster.pid").read_text().split()[0])]
    while queue:
        found.append(queue.pop())
        queue += _children(found[-1])
    return found


def sockets(pids):
    """The numbers of the processes' sockets."""
    links = (link for pid in pids for link in Path(f"/proc/{pid}/fd").glob("*"))
    found = set()
    for link in links:
        with contextlib.suppress(OSError):
            found.update(re.findall(r"socket:\[(\d+)\]", os.readlink(link)))
    return found


def own_address(net):
    """The first address of a network namespace besides those of the loopback interface."""
    local = re.findall(r"\|-- (\S+)\n\s+/32 host LOCAL", (net / "fib_trie").read_text())
    return next((a for a in local if not a.startswith("127.")), "")


class Ports:
    """Every port on which something of a cluster listens, by where it can be asked from: from a pod (``stranger``: its
    name), in the network namespace itself, and on the host. Of pods with the same ports, one counts."""

    def __init__(self, mesh, stranger):
        self.mesh, self.stranger = mesh, stranger
        self.outside, self.datagrams, self.inside, self.host = set(), set(), {}, set()
        namespaces, pods, pids = {}, {}, family(mesh)
        for pid in pids:
            with contextlib.suppress(OSError):
                namespaces.setdefault(os.readlink(f"/proc/{pid}/ns/net"), pid)
        here, node = (os.readlink(f"/proc/{pid}/ns/net") for pid in ("self", mesh.outside()))
        for name, pid in namespaces.items():
            net, owned = Path(f"/proc/{pid}/net"), sockets(pids) if name == here else None
            tcp = [a for f in ("tcp", "tcp6") for a in listening((net / f).read_text(), owned)]
            udp = [a for a in listening((net / "udp").read_text(), owned) if a[1] < EPHEMERAL]
            if name == here:
                self.host = {(str(address), port) for address, port in tcp}
                continue
            own = own_address(net)
            found = (*split(tcp, own), *split(udp, own))
            kind = name if name == node else tuple(tuple(sorted(p for _, p in some)) for some in found)
            pods.setdefault(kind, (pid, found))
        for pid, (outside, inside, datagrams, inner) in pods.values():
            self.outside |= outside
            self.datagrams |= datagrams
            if inside or inner:
                self.inside[pid] = inside, inner

    def numbers(self):
        """All ports but those of the host."""
        inside = [place for found in self.inside.values() for some in found for place in some]
        return {port for _, port in (*self.outside, *self.datagrams, *inside)}

    def send(self, what):
        """From a pod, from where only the loopback interface leads, and from the host. Every target must have accepted
        the connections that were tried: where nobody listens, nothing is shown."""
        user = () if os.geteuid() == 0 else ("-U", "--preserve-credentials")
        stranger = (self.mesh.kubectl_path, "exec", "-i", self.stranger, "-c", "istio-proxy", "--", "python3")
        calls = [(stranger, self.outside, self.datagrams), ((sys.executable,), self.host, ())]
        for pid, (tcp, udp) in self.inside.items():
            calls.append((("nsenter", "-t", str(pid), *user, "-n", sys.executable), tcp, udp))
        with ThreadPoolExecutor(len(calls)) as pool:
            made = [
                pool.submit(
                    self.mesh.run, *where, "-", what, json.dumps(sorted(tcp)), json.dumps(sorted(udp)),
                    stdin=JUNK.read_text(), timeout=300,
                )
                for where, tcp, udp in calls
            ]  # fmt: skip
            for each, (_, tcp, _) in zip(made, calls, strict=True):
                counted = json.loads(each.result().stdout)
                assert counted.keys() == {f"{address}:{port}" for address, port in tcp}
                assert refused(counted) == {}


def refused(counted):
    """The targets that accepted fewer connections than were tried, but for some that a busy machine has lost."""
    return {target: (opened, tried) for target, (opened, tried) in counted.items() if opened < max(1, 0.9 * tried)}


def processes(mesh):
    """Process number -> (command, resident kB, seconds of CPU time), of everything of ours in the cluster."""
    out, tick = {}, os.sysconf("SC_CLK_TCK")
    for pid in family(mesh):
        try:
            command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            times = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        except OSError:
            continue
        if any(word in command for word in ("envoy", "lateen", "pilot-agent")):
            kb = pages * os.sysconf("SC_PAGE_SIZE") // 1024
            out[pid] = command[:120], kb, (int(times[11]) + int(times[12])) / tick
    return out


def grown(before, now, limit_kb):
    """The processes that are gone or have grown by more."""
    return [
        (command, kb, now.get(pid))
        for pid, (command, kb, _) in before.items()
        if pid not in now or now[pid][1] - kb > limit_kb
    ]


def ending(mesh):
    """The pods that are about to end: nobody listens there in a moment."""
    found = json.loads(mesh.kubectl("get", "pods", "-A", "-o", "json").stdout)["items"]
    return [p["metadata"]["name"] for p in found if "deletionTimestamp" in p["metadata"]]


@pytest.fixture(scope="module")
def ports(mesh):
    mesh.lateen("addons", "apply", timeout=180)
    mesh.until(lambda: not ending(mesh), 60, "the end of other tests' pods")
    return Ports(mesh, mesh.pod("productpage"))


@pytest.fixture(scope="module")
def others(mesh, tmp_path_factory):
    """A cluster with what the usual one has not: the CNI plugin, DNS in pods, a neighbour, the rate limit service."""
    tmp = tmp_path_factory.mktemp("others")
    found = Mesh(tmp / "home", tmp)
    dns = "meshConfig.defaultConfig.proxyMetadata.ISTIO_META_DNS_CAPTURE=true"
    try:
        found.lateen("cluster", "start", "--neighbour", str(mesh.home))
        found.lateen(
            "install", "-y", *("--set", "profile=minimal", "--set", "components.cni.enabled=true", "--set", dns)
        )
        found.kubectl("label", "namespace", "default", "istio-injection=enabled")
        found.apply(HELLO.format("v1"))
        found.kubectl("apply", "-f", str(ROOT / "samples" / "ratelimit" / "rate-limit-service.yaml"))
        found.kubectl("wait", "pod", "--all", "--for=condition=Ready", "--timeout=110s", timeout=120)
        yield found
    finally:
        found.lateen("cluster", "delete", ok=False)


def well(mesh, app="reviews"):
    if app == "reviews":
        mesh.until(lambda: mesh.page()[0] == 200, what="the page")
    assert mesh.kubectl("get", "--raw", "/readyz").stdout == "ok"
    # Envoy may take half a minute to come back to an istiod whose answer was late on a busy machine.
    mesh.until(lambda: f"{app}-v1" in mesh.lateen("proxy-status").stdout, 60, "the proxy at istiod")


def bear(mesh, ports, app):
    """What is sent to ports does nobody harm."""
    assert ports.numbers() - OF_SAMPLES <= documented()
    before = processes(mesh)
    ports.send("cases")
    after = processes(mesh)
    assert grown(before, after, GROWTH_KB) == []
    well(mesh, app)
    ports.send("mutants")
    assert grown(after, processes(mesh), LEAK_KB) == []
    well(mesh, app)


def test_no_port_of_ours_suffers_from_junk(mesh, ports):
    assert ports.numbers() >= KNOWN
    assert {port for _, port in ports.host} >= {mesh.host_port(80), mesh.host_port(443)}
    bear(mesh, ports, "reviews")


def test_nor_does_one_of_what_is_rarely_installed(others):
    found = Ports(others, others.pod("helloworld"))
    assert found.numbers() >= KNOWN_OF_OTHERS
    bear(others, found, "helloworld")


def test_silent_connections_keep_nobody_busy(mesh, ports):
    with ThreadPoolExecutor(1) as pool:
        silent = pool.submit(ports.send, "silence")
        time.sleep(3)
        before, since = processes(mesh), time.monotonic()
        time.sleep(4)
        now, took = processes(mesh), time.monotonic() - since
        busy = [(c, now[p][2] - cpu) for p, (c, _, cpu) in before.items() if p in now and now[p][2] - cpu > took / 2]
        silent.result()
    assert busy == []
    well(mesh)
