"""What nobody should send, at every port of ours, before anybody has said who they are: no process ends, grows, keeps
busy, or keeps others waiting."""

import ipaddress
import json
import os
import re
import struct
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from world import ROOT, _children

pytestmark = [pytest.mark.system, pytest.mark.timeout(500)]

JUNK = Path(__file__).with_name("junk.py")
GROWTH_KB, LEAK_KB = 60_000, 25_000
"""What a process may keep of what it is sent first (code and buffers), and of what comes after that."""
LISTENS = "0A"
SYSTEM = "istio-system"
PODS = [
    ("istiod", SYSTEM, "discovery"),
    ("istio-ingressgateway", SYSTEM, "istio-proxy"),
    ("prometheus", SYSTEM, None),
    ("jaeger", SYSTEM, None),
    ("kiali", SYSTEM, None),
    ("reviews", "default", "istio-proxy"),
]
KNOWN = {15010, 15012, 15014, 15017, 8080, 15020, 15021, 15090, 9080, 15001, 15006, 4317, 4318, 9411, 9090, 20001}
"""Ports of which some are not found only if the search for ports is wrong."""
PAGE = ROOT / "docs" / "explanation-threats.md"
OF_SAMPLES = {9080}


def documented():
    """The ports in the first column of the threat model's table."""
    section = PAGE.read_text().partition("### Every port that listens")[2].partition("\n## ")[0]
    cells = (line.split("|")[1] for line in section.splitlines() if line.startswith("|"))
    return {int(number) for cell in cells for number in re.findall(r"\d+", cell)}


def listening(text):
    """(address, port) of /proc/net/tcp and tcp6; also of /proc/net/udp, whose sockets have no such state."""
    for line in text.splitlines():
        words = line.split()
        if len(words) < 4 or ":" not in words[1] or words[3] not in (LISTENS, "07"):
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


class Ports:
    """Every port on which something of ours listens, by where it can be asked from."""

    def __init__(self, mesh):
        self.mesh = mesh
        self.outside, self.inside = set(), {}
        for app, namespace, container in PODS:
            name = mesh.pod(app, namespace)
            where = ("exec", name, "-n", namespace, *(("-c", container) if container else ()), "--")
            text = mesh.kubectl(*where, "cat", "/proc/net/tcp", "/proc/net/tcp6").stdout
            own = mesh.get("pod", name, "-n", namespace, "-o", "jsonpath={.status.podIP}").strip()
            outside, inside = split(listening(text), own)
            self.outside |= outside
            if inside:
                self.inside[where] = inside
        net = Path(f"/proc/{mesh.outside()}/net")
        found, _ = split([a for f in ("tcp", "tcp6") for a in listening((net / f).read_text())], "10.244.0.1")
        self.outside |= found
        self.datagrams = sorted(split(listening((net / "udp").read_text()), "10.244.0.1")[0])
        ours = {mesh.host_port(80), mesh.host_port(443)}
        self.host = {("127.0.0.1", port) for port in ours}

    def send(self, what):
        """From a pod, from where only the loopback interface leads, and from the host. Every target must have accepted
        the connections that were tried: where nobody listens, nothing is shown."""
        mesh, told = self.mesh, json.dumps(self.datagrams)
        script = ("python3", "-", what)
        stranger = ("exec", mesh.pod("productpage"), "-c", "istio-proxy", "--")
        calls = [(stranger, self.outside, told), *((where, found, "[]") for where, found in self.inside.items())]
        targets = [*(found for _, found, _ in calls), self.host]
        with ThreadPoolExecutor(len(calls) + 1) as pool:
            made = [
                pool.submit(
                    mesh.kubectl, "exec", "-i", *where[1:], *script, json.dumps(sorted(found)), udp,
                    stdin=JUNK.read_text(), timeout=300,
                )
                for where, found, udp in calls
            ]  # fmt: skip
            host = [sys.executable, str(JUNK), what, json.dumps(sorted(self.host)), "[]"]
            made.append(pool.submit(subprocess.run, host, check=True, timeout=300, stdout=subprocess.PIPE, text=True))
            for each, found in zip(made, targets, strict=True):
                counted = json.loads(each.result().stdout)
                assert counted.keys() == {f"{address}:{port}" for address, port in found}
                assert refused(counted) == {}


def refused(counted):
    """The targets that accepted fewer connections than were tried, but for some that a busy machine has lost."""
    return {target: (opened, tried) for target, (opened, tried) in counted.items() if opened < max(1, 0.9 * tried)}


def processes(mesh):
    """Process number -> (command, resident kB, seconds of CPU time), of everything of ours in the cluster."""
    out, queue, tick = {}, [mesh.outside()], os.sysconf("SC_CLK_TCK")
    while queue:
        pid = queue.pop()
        queue += _children(pid)
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


@pytest.fixture(scope="module")
def ports(mesh):
    mesh.lateen("addons", "apply", timeout=180)
    return Ports(mesh)


def well(mesh):
    mesh.until(lambda: mesh.page()[0] == 200, what="the page")
    assert mesh.kubectl("get", "--raw", "/readyz").stdout == "ok"
    assert "reviews-v1" in mesh.lateen("proxy-status").stdout


def test_no_port_of_ours_suffers_from_junk(mesh, ports):
    assert {port for _, port in ports.outside} >= KNOWN
    inside = [place for found in ports.inside.values() for place in found]
    assert {port for _, port in (*ports.outside, *inside, *ports.datagrams)} - OF_SAMPLES <= documented()
    before = processes(mesh)
    ports.send("cases")
    after = processes(mesh)
    assert grown(before, after, GROWTH_KB) == []
    well(mesh)
    ports.send("mutants")
    assert grown(after, processes(mesh), LEAK_KB) == []
    well(mesh)


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
