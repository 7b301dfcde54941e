"""What nobody should send, at every port of ours, before anybody has said who they are: no process ends, grows, or
keeps others waiting."""

import json
from pathlib import Path

import pytest

pytestmark = pytest.mark.system

JUNK = Path(__file__).with_name("junk.py")
GROWTH_KB = 50_000


def processes(mesh, app, namespace, container):
    """Process number -> resident kB, of our processes in a pod."""
    told = "$(tr '\\0' ' ' < $p/cmdline | cut -c1-60) $(grep VmRSS $p/status)"
    script = f"for p in /proc/[0-9]*; do echo ${{p#/proc/}} {told}; done"
    where = ("exec", mesh.pod(app, namespace), "-n", namespace, "-c", container, "--")
    out = {}
    for line in mesh.kubectl(*where, "sh", "-c", script).stdout.splitlines():
        words = line.split()
        if "VmRSS:" in words and ("envoy" in line or "python" in line):
            out[words[0]] = int(words[words.index("VmRSS:") + 1])
    return out


def test_no_port_of_ours_suffers_from_junk(mesh):
    istiod = json.loads(mesh.get("pod", mesh.pod("istiod", "istio-system"), "-n", "istio-system", "-o", "json"))
    gateway = json.loads(
        mesh.get("pod", mesh.pod("istio-ingressgateway", "istio-system"), "-n", "istio-system", "-o", "json")
    )
    reviews = json.loads(mesh.get("pod", mesh.pod("reviews"), "-o", "json"))
    at = istiod["status"]["podIP"]
    targets = [(at, port, True) for port in (15010, 15012, 15017)] + [(at, 15014, False)]
    targets += [(gateway["status"]["podIP"], port, False) for port in (8080, 15020, 15021, 15090)]
    targets += [(reviews["status"]["podIP"], port, False) for port in (9080, 15001, 15006, 15020, 15021, 15090)]
    targets += [("10.96.0.1", 443, True)]
    places = [
        ("istiod", "istio-system", "discovery"),
        ("istio-ingressgateway", "istio-system", "istio-proxy"),
        ("reviews", "default", "istio-proxy"),
    ]
    before = [processes(mesh, *place) for place in places]
    assert all(before)
    name = mesh.pod("productpage")
    sent = mesh.kubectl(
        *("exec", "-i", name, "-c", "istio-proxy", "--", "python3", "-", json.dumps(targets), "10.96.0.10"),
        stdin=JUNK.read_text(),
        timeout=400,
    )
    assert int(sent.stdout.split()[0]) >= 20 * len(targets) - 40, sent  # two ports may be closed to strangers
    for place, then in zip(places, before, strict=True):
        now = processes(mesh, *place)
        assert then.keys() <= now.keys(), f"a process of {place[0]} has ended"
        assert all(now[p] - then[p] < GROWTH_KB for p in then), (place, then, now)
    mesh.until(lambda: mesh.page()[0] == 200, what="the page")
    assert mesh.kubectl("get", "--raw", "/readyz").stdout == "ok"
    assert "reviews-v1" in mesh.lateen("proxy-status").stdout
