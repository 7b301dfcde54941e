"""A machine outside of the cluster's namespaces, with a network of its own, joins the mesh by the files that
``lateen x workload entry configure`` writes, as the how-to says: it runs the sidecar, calls and is called."""

import os
import shutil
import signal
import time

import pytest
from machines import HOST, MACHINE, UNIT, Booted, child, configured, joinable, plugged

pytestmark = [pytest.mark.system, pytest.mark.long]


@pytest.fixture(scope="module")
def mesh(tmp_path_factory):
    with joinable(tmp_path_factory) as found:
        yield found


@pytest.fixture
def machine(mesh, tmp_path):
    with plugged(mesh, tmp_path) as found:
        yield found


def test_a_machine_with_a_network_of_its_own_calls_and_is_called_by_mutual_tls(mesh, machine):
    def calls(url, *more):
        user = ("setpriv", "--reuid", "1000", "--clear-groups")
        return mesh.run(*machine.inside(*user, "curl", "-s", "-m", "5", *more, url), ok=False).stdout

    def rack():
        return mesh.inside("sleep", "curl", "-s", "-m", "5", "-w", " %{http_code}", "http://rack/", ok=False).stdout

    sidecar = machine.start("sh", "/etc/istio/machine/sidecar.sh")
    entry = ("workloadentry", "-n", "default")
    mesh.until(lambda: mesh.get(*entry, "-o", "name").strip() == "workloadentry.networking.istio.io/racks-198-51-100-2",
               60, "the entry")  # fmt: skip
    # It is called when its application answers, and by mutual TLS only.
    assert "503" in rack()
    machine.start("setpriv", "--reuid", "1000", "--clear-groups", "/usr/bin/python3", "-m", "http.server", "8080")
    mesh.until(lambda: rack().endswith(" 200"), 60, "an answer of the machine")
    plain = ["curl", "-s", "-m", "5", f"http://{MACHINE}:8080/"]
    assert mesh.run(*plain, ok=False).returncode == 56, machine.said()
    # It calls Services by their names, through the gateway of their network, and they know who calls.
    mesh.until(lambda: calls("http://httpbin:8000/status/201", "-w", "%{http_code}") == "201", 30, "an answer to it")
    assert "spiffe://cluster.local/ns/default/sa/default" in calls("http://httpbin.default:8000/headers")
    # An IPv6 address that comes later is behind the sidecar, too: there is no answer in plain text, and it is called.
    later = "fd00:198::2"
    mesh.run(*f"ip addr add fd00:198::1/64 dev {machine.link} nodad".split())
    mesh.run(*machine.inside(*f"ip addr add {later}/64 dev eth0 nodad".split()))
    plain = ["curl", "-sg", "-m", "5", f"http://[{later}]:8080/"]
    assert mesh.run(*plain, ok=False).returncode != 0, machine.said()
    mesh.until(lambda: mesh.run(*plain, ok=False).returncode == 56, 60, "a proxy that listens there")
    mesh.until(lambda: rack().endswith(" 200"), 60, "an answer of the proxy that was started again")
    # What it has taken, it gives back.
    os.kill(child(sidecar), signal.SIGTERM)
    assert sidecar.wait(timeout=60) == 0, machine.said()
    mesh.until(lambda: not mesh.get(*entry, "-o", "name").strip(), 60, "the end of the entry")
    path = "PATH=/opt/lateen/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    mesh.run(*machine.inside("env", path, "sh", "/etc/istio/machine/sidecar.sh", "stop"))
    rules = mesh.run(*machine.inside("iptables", "-t", "nat", "-S")).stdout
    assert "ISTIO" not in rules
    assert "53" not in rules


@pytest.fixture
def kept(mesh, tmp_path):
    """/etc/istio of a machine whose disk outlives it."""
    if missing := [p for p in Booted.NEEDED if not shutil.which(p)]:
        pytest.skip(f"there is no {', '.join(missing)} (apt-get install systemd-container)")
    directory = tmp_path / "etc-istio"
    directory.mkdir()
    configured(mesh, directory / "machine")
    return directory


APPLICATION = f"""
[Unit]
After={UNIT}.service
[Service]
Type=oneshot
ExecStart=/bin/sh -c "iptables -t nat -S PREROUTING >/run/app"
"""
"""It keeps what is redirected when it starts."""


def enabled(mesh, machine, kept, tmp_path):
    """A booted systemd with the unit running, as the how-to says."""
    found = Booted(machine, kept, tmp_path)
    try:
        found.up(mesh)
        mesh.run(*found.inside("cp", f"/etc/istio/machine/{UNIT}.service", "/etc/systemd/system"))
        mesh.run(*found.inside("sh", "-c", f"echo '{APPLICATION}' > /etc/systemd/system/app.service"))
        mesh.run(*found.inside("systemctl", "enable", UNIT))
        mesh.run(*found.inside("systemctl", "start", UNIT, "app"))
    except BaseException:
        found.end()
        raise
    return found


@pytest.mark.timeout(900)  # two starts of systemd, and what a loaded machine takes for each
def test_a_systemd_unit_restarts_the_sidecar_survives_reboots_and_says_when_a_token_is_needed(
    mesh, machine, kept, tmp_path
):
    entry = ("workloadentry", "-n", "default", "-o", "name")
    named = "workloadentry.networking.istio.io/racks-198-51-100-2"

    def ask(booted):
        user = ("setpriv", "--reuid", "1000", "--clear-groups", "curl", "-sS", "-m", "5", "-w", "%{http_code}")
        return mesh.run(*booted.inside(*user, "http://httpbin:8000/status/201"), ok=False)

    def answered(booted, what):
        for _ in range(40):
            done = ask(booted)
            if done.stdout == "201":
                return
            time.sleep(1)
        raise AssertionError(f"{what}: {done.stdout} {done.stderr} {booted.said(mesh)[-3000:]}")

    def of_unit(booted, name):
        return mesh.run(*booted.inside("systemctl", "show", UNIT, "-P", name)).stdout.strip()

    def redirected(booted):
        return "ISTIO_INBOUND" in mesh.run(*booted.inside("iptables", "-t", "nat", "-S", "PREROUTING")).stdout

    checked = mesh.run("systemd-analyze", "verify", str(kept / "machine" / f"{UNIT}.service"))
    assert "lateen" not in checked.stderr
    booted = enabled(mesh, machine, kept, tmp_path)
    try:
        assert "ISTIO_INBOUND" in mesh.run(*booted.inside("cat", "/run/app")).stdout
        answered(booted, "an answer to the machine")
        assert mesh.get(*entry).strip() == named
        assert "certificate for spiffe://cluster.local/ns/default/sa/default" in booted.said(mesh)
        first = of_unit(booted, "MainPID")
        rules = mesh.run(*booted.inside("iptables", "-t", "nat", "-S")).stdout
        # Without an address it cannot start; it tries again as often as it takes. Nobody gets past it meanwhile.
        mesh.run(*booted.inside("ip", "addr", "flush", "dev", "eth0"))
        mesh.run(*booted.inside("systemctl", "kill", "-s", "KILL", UNIT))
        mesh.until(lambda: int(of_unit(booted, "NRestarts")) > 7, 60, "more starts than systemd's limit")
        assert "no address yet" in booted.said(mesh)
        assert redirected(booted)
        for line in (f"addr add {MACHINE}/30 dev eth0", f"route add default via {HOST}"):
            mesh.run(*booted.inside("ip", *line.split()))
        mesh.until(lambda: of_unit(booted, "MainPID") not in ("0", first), 60, "another sidecar")
        answered(booted, "an answer after the restart")
        assert mesh.run(*booted.inside("iptables", "-t", "nat", "-S")).stdout == rules
    finally:
        booted.end()
    mesh.until(lambda: not mesh.get(*entry).strip(), 60, "the end of the entry")

    (kept / "machine" / "istio-token").write_text("expired")  # within the hour
    booted = enabled(mesh, machine, kept, tmp_path)
    try:  # the certificate is enough
        answered(booted, "an answer after the reboot")
        mesh.run(*booted.inside("systemctl", "stop", UNIT))
        assert "ISTIO" not in mesh.run(*booted.inside("iptables", "-t", "nat", "-S")).stdout
        assert of_unit(booted, "Result") == "success"
        shutil.rmtree(kept / "proxy")  # as on a machine that was off for longer than it is valid
        mesh.run(*booted.inside("systemctl", "start", UNIT))
        says = "lateen x workload entry configure"
        mesh.until(lambda: says in booted.said(mesh), 60, "what to do")
        configured(mesh, kept / "machine")
        mesh.run(*booted.inside("systemctl", "restart", UNIT))
        answered(booted, "an answer with the new token")
    finally:
        booted.end()
