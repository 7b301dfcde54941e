"""A pod's status from its containers' states, and probes, without a cluster."""

import asyncio

import grpc
import pytest

from lateen.cluster.kubelet import pod_status, probes
from lateen.cluster.kubelet.container import Container, Role, Terminated, Waiting
from lateen.cluster.rules import amounts
from lateen.kit import http

NOW = "2026-01-01T00:00:00Z"


def container(name="main", role=Role.MAIN, **spec):
    return Container({"name": name, "image": "x", **spec}, role, lambda: None)


def running(name="main", role=Role.MAIN, ready=True):
    c = container(name, role)
    c.starts(0, "u/main/0", 100.0, {})
    c.has_started()
    c.is_ready(ready)
    return c


def ended(code, name="main", role=Role.MAIN):
    c = running(name, role)
    c.ends(code, 101.0)
    return c


def facts(policy="Always", initialized=True, failure=None):
    return pod_status.Facts(policy, NOW, "10.0.0.9", "10.0.0.1", initialized, failure)


def pod(**spec):
    return {"metadata": {"name": "p"}, "spec": {"containers": [{"name": "main", "image": "x"}], **spec}}


def condition(kind, init, main, of=None, f=None):
    found = pod_status.conditions(of or pod(), init, main, f or facts(), NOW)
    return next(c for c in found if c["type"] == kind)


# --- a container's states --------------------------------------------------------------------------------------------


def test_the_last_termination_is_kept_while_a_container_waits_and_runs_again():
    c = ended(1)
    assert c.last is None
    c.waits("CrashLoopBackOff", "back-off")
    assert c.last.code == 1
    c.starts(1, "u/main/1", 200.0, {})
    status = pod_status.container_status(c, True)
    assert status["restartCount"] == 1
    assert status["lastState"]["terminated"]["containerID"] == "lateen://u/main/0"
    assert not status["ready"]
    assert pod_status.parse(status["lastState"]) == c.last


def test_a_running_container_does_not_wait():
    with pytest.raises(ValueError, match="is running"):
        running().waits("X")


def test_a_command_that_cannot_be_run_counts_as_a_termination():
    c = container()
    c.fails_to_start(0, 5.0, "no")
    assert pod_status.container_status(c, True)["state"]["terminated"]["exitCode"] == 128


@pytest.mark.parametrize(
    ("role", "policy", "code", "again"),
    [
        (Role.MAIN, "Always", 0, True),
        (Role.MAIN, "OnFailure", 0, False),
        (Role.MAIN, "OnFailure", 1, True),
        (Role.MAIN, "Never", 1, False),
        (Role.INIT, "Always", 0, False),
        (Role.INIT, "Always", 1, True),
        (Role.INIT, "Never", 1, False),
        (Role.SIDECAR, "Never", 0, True),
    ],
)
def test_which_containers_are_restarted(role, policy, code, again):
    assert ended(code, role=role).restarts(policy) is again


# --- the pod ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("policy", "init", "main", "initialized", "phase"),
    [
        ("Always", [], [container()], True, "Pending"),
        ("Always", [container("i", Role.INIT)], [container()], False, "Pending"),
        ("Never", [ended(1, "i", Role.INIT)], [container()], False, "Failed"),
        ("Always", [ended(1, "i", Role.INIT)], [container()], False, "Pending"),
        ("Always", [], [running()], True, "Running"),
        ("Always", [], [ended(1)], True, "Running"),
        ("OnFailure", [], [ended(1)], True, "Running"),
        ("OnFailure", [], [ended(0)], True, "Succeeded"),
        ("Never", [], [ended(0), ended(1, "b")], True, "Failed"),
        ("Never", [running("s", Role.SIDECAR)], [ended(0)], True, "Running"),
        ("Never", [ended(0, "s", Role.SIDECAR)], [ended(0)], True, "Succeeded"),
    ],
)
def test_the_phase(policy, init, main, initialized, phase):
    assert pod_status.phase(facts(policy, initialized), init, main) == phase


def test_readiness_asks_containers_sidecars_and_gates():
    assert condition("Ready", [], [running()])["status"] == "True"
    assert "[main]" in condition("Ready", [], [running(ready=False)])["message"]
    assert condition("Ready", [running("s", Role.SIDECAR, ready=False)], [running()])["status"] == "False"
    gated = pod(readinessGates=[{"conditionType": "example.com/open"}])
    assert condition("Ready", [], [running()], gated)["reason"] == "ReadinessGatesNotReady"
    assert condition("ContainersReady", [], [running()], gated)["status"] == "True"
    gated["status"] = {"conditions": [{"type": "example.com/open", "status": "True"}]}
    assert condition("Ready", [], [running()], gated)["status"] == "True"
    assert condition("example.com/open", [], [running()], gated)["status"] == "True"


def test_a_condition_keeps_its_time_until_it_changes():
    of = pod()
    then = [{"type": "Ready", "status": "True", "lastTransitionTime": "2020-01-01T00:00:00Z"}]
    of["status"] = {"conditions": then}
    assert condition("Ready", [], [running()], of)["lastTransitionTime"] == "2020-01-01T00:00:00Z"
    assert condition("Ready", [], [running(ready=False)], of)["lastTransitionTime"] == NOW


def test_a_pod_that_was_stopped_as_a_whole_has_failed():
    status = pod_status.status(pod(), [], [running()], facts(failure=("DeadlineExceeded", "late")), NOW)
    assert (status["phase"], status["reason"], status["message"]) == ("Failed", "DeadlineExceeded", "late")


def limits(**resources):
    return {"spec": {"containers": [{"name": "a", "resources": resources}]}}


def test_quality_of_service():
    both = {"cpu": "1", "memory": "1Gi"}
    assert amounts.qos(limits()["spec"]) == "BestEffort"
    assert amounts.qos(limits(requests={"cpu": "10m"})["spec"]) == "Burstable"
    assert amounts.qos(limits(limits={"cpu": "1"})["spec"]) == "Burstable"
    assert amounts.qos(limits(limits=both)["spec"]) == "Guaranteed"
    assert amounts.qos(limits(limits=both, requests={"cpu": "1000m", "memory": "1024Mi"})["spec"]) == "Guaranteed"
    assert amounts.qos(limits(limits=both, requests={"cpu": "500m"})["spec"]) == "Burstable"


# --- probes ----------------------------------------------------------------------------------------------------------


async def never(*_):
    raise AssertionError("no command is run")


def probe(**what):
    return asyncio.run(probes.check(what, {"ports": [{"name": "web", "containerPort": 80}]}, "127.0.0.1", never))


def test_ports_by_number_and_name():
    spec = {"ports": [{"name": "web", "containerPort": 80}]}
    assert probes.port_number(spec, "web") == probes.port_number(spec, 80) == probes.port_number(spec, "80") == 80
    for bad in ("nosuch", 0, 65536):
        with pytest.raises(probes.BadProbe):
            probes.port_number(spec, bad)


def test_thresholds_count_consecutive_results():
    t = probes.Threshold({"failureThreshold": 2, "successThreshold": 2})
    assert [t.add(x) for x in (True, False, False, True, True)] == [None, None, False, None, True]


def test_a_probe_of_a_port_where_nobody_listens_fails_in_kubernetes_words():
    assert probe(tcpSocket={"port": 1}) == "dial tcp 127.0.0.1:1: connect: connection refused"
    found = probe(httpGet={"port": 1, "path": "/x"})
    assert found == 'Get "http://127.0.0.1:1/x": dial tcp 127.0.0.1:1: connect: connection refused'
    assert "nosuch" in probe(httpGet={"port": "nosuch"})
    assert probe(grpc={"port": 1}).startswith("timeout: failed to connect service")
    assert probe() == "missing probe handler"


def test_http_probes_send_headers_and_follow_redirects_of_the_same_host():
    seen = []

    async def answer(request):
        seen.append(request)
        if request.path == "/moved":
            return http.Response(302, headers={"location": "/there"})
        if request.path == "/away":
            return http.Response(302, headers={"location": "http://elsewhere.invalid/"})
        return http.Response(503 if request.path == "/there" else 204)

    async def ask(path, *headers):
        server = await http.serve(answer, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        get = {"httpGet": {"port": port, "path": path, "httpHeaders": list(headers)}}
        try:
            return await probes.check(get, {}, "127.0.0.1", never)
        finally:
            server.close()

    assert asyncio.run(ask("/ok", {"name": "Host", "value": "a.example.com"})) is None
    assert seen[0].headers["host"] == "a.example.com"
    assert seen[0].headers["user-agent"].startswith("kube-probe/")
    assert asyncio.run(ask("/moved")) == "HTTP probe failed with statuscode: 503"
    assert asyncio.run(ask("/away")) is None
    assert "invalid header" in asyncio.run(ask("/ok", {"name": "X", "value": "a\r\nb"}))


class Health(grpc.GenericRpcHandler):
    """The health service: "good" serves, all others do not."""

    def service(self, details):
        if details.method != "/grpc.health.v1.Health/Check":
            return None

        async def check(request, _):
            return b"\x08\x01" if request == b"\x0a\x04good" else b"\x08\x02"

        return grpc.unary_unary_rpc_method_handler(check)


@pytest.mark.parametrize(
    ("handlers", "service", "says"),
    [
        ([Health()], "good", None),
        ([Health()], "bad", 'service unhealthy (responded with "NOT_SERVING")'),
        ([], "good", "this server does not implement the grpc health protocol"),
    ],
)
def test_grpc_probes_ask_the_health_service(handlers, service, says):
    async def ask():
        server = grpc.aio.server()
        server.add_generic_rpc_handlers(handlers)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        try:
            what = {"grpc": {"port": port, "service": service}, "timeoutSeconds": 10}
            return await probes.check(what, {}, "127.0.0.1", never)
        finally:
            await server.stop(0)

    found = asyncio.run(ask())
    assert found is None if says is None else found.startswith(says)


def test_waiting_has_a_reason():
    assert pod_status.container_status(container(), False)["state"] == {"waiting": {"reason": "PodInitializing"}}
    c = container()
    c.restore(Terminated("k", 0, 1.0, 2.0, "Completed"), None, 0)
    assert c.succeeded
    assert isinstance(container().state, Waiting)
