"""What proxies with IPv6 addresses get, and what those without do not get."""

import asyncio
import json
import os
from dataclasses import replace
from types import SimpleNamespace

import judge
import meshes as mesh
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from lateen.agent import bootstrap, dns, envoy, following, interfaces, probing, serving
from lateen.agent.options import Options
from lateen.api import kinds
from lateen.api import objects as o
from lateen.ca.authority import Identity
from lateen.control.agents import Agents
from lateen.control.ca_service import Caller
from lateen.kit import http, tasks
from lateen.mesh.model import Mesh
from lateen.mesh.views import Views
from lateen.wire import names
from lateen.wire.node import IPV6_REDIRECTED, NodeId

V4, DUAL, V6 = ({**mesh.AGENT, "INSTANCE_IPS": text} for text in ("10.0.0.1", "10.0.0.1,fd00::1", "fd00::1"))
ENTRY = """
kind: ServiceEntry
metadata: {name: outside}
spec:
  hosts: [outside.test]
  addresses: ['fd00:7::7', 'fd00:8::/64']
  ports: [{number: 5432, name: tcp-db, protocol: TCP}]
  resolution: STATIC
  endpoints: [{address: 'fd00:9::9'}]
"""


def dual(documents=ENTRY, **service):
    """Reviews has addresses of both families, and one of its pods, too."""
    found = mesh.objects(documents)
    old = found.services["default", "reviews"]
    found = found.put(kinds.SERVICE, ("default", "reviews"), replace(old, addresses=("fd00:96::2",), **service))
    part = {old.ports[0].name: (o.Endpoint("fd00:244::3", 9080, "reviews-v1"),)}
    return found.put(kinds.ENDPOINT_SLICE, ("default", "reviews-v6"), ("reviews", part))


def addresses(listener):
    own = [listener.address, *(a.address for a in listener.additional_addresses)]
    return [a.socket_address.address for a in own]


def sidecar(agent, found=None, name="reviews-v1"):
    return judge.messages(mesh.view(found or dual(), name, agent=agent))


@pytest.mark.parametrize("agent", [V6, DUAL], ids=["ipv6", "dual"])
def test_a_proxy_with_ipv6_listens_at_all_addresses_of_both_families(agent):
    made = sidecar(agent)[names.LDS]
    for name in ("virtualInbound", "virtualOutbound", "0.0.0.0_9080"):
        assert addresses(made[name]) == ["0.0.0.0", "::"]
    assert addresses(made["fd00:7::7_5432"]) == ["fd00:7::7"]
    assert addresses(made["0.0.0.0_5432"]) == ["0.0.0.0", "::"]  # the range is matched there


def test_a_proxy_without_ipv6_has_nothing_that_a_kernel_without_it_would_refuse():
    found = sidecar(V4)
    assert not [n for n in found[names.LDS] if ":" in n.split("_")[0]]
    assert all(len(addresses(li)) == 1 for li in found[names.LDS].values())
    assert not found[names.CDS]["inbound|9080||"].upstream_bind_config.extra_source_addresses


def test_connections_to_the_application_come_from_the_guard_of_their_family():
    for cluster in ("inbound|9080||", "InboundPassthroughCluster"):
        bind = sidecar(DUAL)[names.CDS][cluster].upstream_bind_config
        assert bind.source_address.address == "127.0.0.6"
        assert [e.address.address for e in bind.extra_source_addresses] == ["::6"]


@pytest.mark.parametrize("agent", [V4, DUAL, V6])
def test_where_nothing_is_redirected_connections_to_the_application_have_no_source_of_their_own(agent):
    """The source ::6 is an address that is made with the rules; without them, binding to it fails."""
    ingress = """
kind: Sidecar
metadata: {name: s}
spec:
  ingress: [{port: {number: 9081, name: http, protocol: HTTP}, defaultEndpoint: '[::]:9080'}]
"""
    made = sidecar({**agent, "INTERCEPTION_MODE": "NONE"}, dual(ENTRY + "---" + ingress))
    inbound = [c for name, c in made[names.CDS].items() if name.startswith("inbound|")]
    assert inbound
    assert not [c.name for c in made[names.CDS].values() if c.HasField("upstream_bind_config")]


def test_a_pod_in_slices_of_both_families_is_one_endpoint():
    """It would get twice the requests of others, and half of them at an address that IPv4-only clients do not reach."""
    (group,) = sidecar(DUAL)[names.EDS]["outbound|9080||reviews.default.svc.cluster.local"].endpoints
    found = [e.endpoint for e in group.lb_endpoints]
    own = [e.address.socket_address.address for e in found]
    assert own == ["10.244.0.3", "10.244.0.4", "10.244.0.5"]
    assert [[a.address.socket_address.address for a in e.additional_addresses] for e in found] == [
        ["fd00:244::3"],
        [],
        [],
    ]


def test_a_headless_service_is_reached_at_all_addresses_of_its_pods():
    found = dual(address="None")
    old = found.services["default", "reviews"]
    port = replace(old.ports[0], name="tcp")
    found = found.put(kinds.SERVICE, ("default", "reviews"), replace(old, ports=(port,), addresses=()))
    for name, address in (("reviews", "10.244.0.3"), ("reviews-v6", "fd00:244::3")):
        part = {"tcp": (o.Endpoint(address, 9080, "reviews-v1"),)}
        found = found.put(kinds.ENDPOINT_SLICE, ("default", name), ("reviews", part))
    assert {"10.244.0.3_9080", "fd00:244::3_9080"} <= sidecar(DUAL, found, "ratings-v1")[names.LDS].keys()
    assert "fd00:244::3_9080" not in sidecar(V4, found, "ratings-v1")[names.LDS]


GATEWAY = """
kind: Gateway
metadata: {name: g, namespace: istio-system}
spec:
  selector: {istio: ingressgateway}
  servers:
  - {port: {number: 80, name: http, protocol: HTTP}, hosts: ['*']}
  - {port: {number: 81, name: http, protocol: HTTP}, bind: 127.0.0.9, hosts: ['*']}
---
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: istio}
spec: {controllerName: istio.io/gateway-controller}
---
apiVersion: v1
kind: Service
metadata: {name: front, namespace: istio-system}
spec: {clusterIP: 10.96.0.77, selector: {istio: ingressgateway}, ports: [{name: udp, port: 5300, protocol: UDP}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: udp, namespace: istio-system}
spec:
  gatewayClassName: istio
  addresses: [{type: Hostname, value: front.istio-system.svc.cluster.local}]
  listeners: [{name: dns, port: 5300, protocol: UDP, allowedRoutes: {namespaces: {from: All}}}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: UDPRoute
metadata: {name: dns}
spec:
  parentRefs: [{name: udp, namespace: istio-system}]
  rules: [{backendRefs: [{name: dns, port: 53}]}]
---
apiVersion: v1
kind: Service
metadata: {name: dns, namespace: default}
spec: {clusterIP: 10.96.0.53, selector: {app: productpage}, ports: [{name: dns, port: 53, protocol: UDP}]}
"""


def test_gateways_listen_at_both_families_unless_they_are_bound_to_an_address(tmp_path):
    view = mesh.view(dual(GATEWAY), "ingress", "istio-system", DUAL)
    made = judge.messages(view)[names.LDS]
    found = {name: addresses(li) for name, li in made.items()}
    assert found["127.0.0.9_81"] == ["127.0.0.9"]
    assert found["0.0.0.0_8080"] == ["0.0.0.0", "::"]
    assert [a for n, a in found.items() if n.endswith("_udp")] == [["0.0.0.0", "::"]]
    judge.validate(view, tmp_path)


@pytest.mark.parametrize("mode", ["REDIRECT", "TPROXY"])
def test_envoy_accepts_what_proxies_with_ipv6_get(mode, tmp_path):
    judge.validate(mesh.view(dual(), "reviews-v1", agent={**DUAL, "INTERCEPTION_MODE": mode}), tmp_path)


def test_the_agent_tells_all_of_its_addresses():
    options = Options(env={"INSTANCE_IP": "fd00::5"}, found=("10.0.0.5", "fd00::5"))
    assert options.metadata["INSTANCE_IPS"] == "fd00::5,10.0.0.5"
    assert options.ipv6
    assert not Options(env={"INSTANCE_IP": "10.0.0.5"}, found=("10.0.0.5",)).ipv6


def test_a_family_of_addresses_that_comes_later_is_taken_up_once(monkeypatch):
    seen = [["10.0.0.1"], ["10.0.0.1"], ["10.0.0.1", "fd00::1"]]
    taken = []
    monkeypatch.setattr(following, "LOOK_S", 0.0)
    monkeypatch.setattr(interfaces, "addresses", lambda: seen.pop(0))
    monkeypatch.setattr(interfaces, "redirected", lambda: True)

    async def take(options):
        taken.append(options)

    asyncio.run(following.follow(Options(env={"INSTANCE_IP": "10.0.0.1"}, found=("10.0.0.1",)), take))
    (options,) = taken
    assert (options.addresses, options.families, seen) == (("10.0.0.1", "fd00::1"), "46", [])


ENVOY = """#!/usr/bin/env python3
import json, pathlib, signal, sys
config = json.loads(pathlib.Path(sys.argv[sys.argv.index("-c") + 1]).read_text())
listeners = config["static_resources"]["listeners"]
said = [config["node"]["metadata"]["INSTANCE_IPS"], sorted({len(l.get("additional_addresses", [])) for l in listeners})]
with open(sys.argv[0] + ".log", "a") as log:
    print(json.dumps(said), file=log, flush=True)
signal.pause()
"""


def test_envoy_is_started_again_with_the_addresses_that_are_new(monkeypatch, tmp_path, caplog):
    program = tmp_path / "envoy"
    program.write_text(ENVOY)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setattr(envoy, "DIRECTORY", tmp_path)
    monkeypatch.setattr(envoy.tap, "FILE", str(tmp_path / "tap"))
    nothing = SimpleNamespace(open=lambda: None, ended=lambda: None, own=SimpleNamespace(envoy=0), mark="m")

    async def ask(*_):
        raise OSError("no istiod")

    async def started(count):
        log = tmp_path / "envoy.log"
        async with asyncio.timeout(30):
            while not log.exists() or log.read_text().count("\n") < count:
                await asyncio.sleep(0.01)
        return [json.loads(line) for line in log.read_text().splitlines()]

    async def restarted():
        before = Options(env={"INSTANCE_IP": "10.0.0.1", "PATH": os.environ["PATH"]})
        running = envoy.Envoy(before, SimpleNamespace(ask=ask), nothing, nothing, nothing, tmp_path)
        task = tasks.spawn(running.run(), "envoy")
        await started(1)
        await running.restart(replace(before, found=("10.0.0.1", "fd00::1")))
        found = await started(2)
        running._draining = True  # there is no Envoy to be drained
        await running.stop()
        await task
        return found

    assert asyncio.run(restarted()) == [["10.0.0.1", [0]], ["10.0.0.1,fd00::1", [1]]]
    assert "exited" not in caplog.text, "it was asked to"


def test_the_agent_tells_whether_ipv6_is_redirected(monkeypatch):
    """`lateen check` names the pods whose rules an earlier version has written."""
    shown = "00000000000000000000000000000001 01 80 10 80       lo\n"
    monkeypatch.setattr(interfaces, "_shown", lambda: shown)
    assert not interfaces.redirected()
    shown += "00000000000000000000000000000006 01 80 00 80       lo\n"
    assert interfaces.redirected()
    assert Options(ipv6_redirected=True).metadata[IPV6_REDIRECTED] == "true"
    assert IPV6_REDIRECTED not in Options().metadata


@pytest.mark.parametrize(
    ("ipv4", "ipv6", "lookup", "bound"),
    [
        (True, False, "V4_ONLY", ["0.0.0.0"]),
        (True, True, "ALL", ["0.0.0.0", "::"]),
        (False, True, "V6_ONLY", ["0.0.0.0", "::"]),
    ],
)
def test_envoys_own_ports_and_its_way_to_istiod_have_the_pods_families(ipv4, ipv6, lookup, bound):
    node = NodeId("sidecar", "10.0.0.1", "a", "default", "default.svc.cluster.local")
    made = bootstrap.bootstrap(bootstrap.Proxy(node, {}, "a", "istiod.test", ipv4=ipv4, ipv6=ipv6))["static_resources"]
    assert made["clusters"][0]["dns_lookup_family"] == lookup
    for listener in made["listeners"]:
        places = [listener, *listener.get("additional_addresses", [])]
        assert [p["address"]["socket_address"]["address"] for p in places] == bound


@pytest.mark.parametrize(
    ("peer", "inside"), [("::1", True), ("127.0.0.1", True), ("::6", False), ("127.0.0.6", False), ("fd00::1", False)]
)
def test_only_the_pod_itself_may_stop_its_proxy(peer, inside):
    assert serving.from_inside(peer) == inside


def test_the_kubelets_probes_reach_an_application_at_an_ipv6_address():
    seen = []

    async def answer(request):
        seen.append(request.headers["host"])
        return http.Response(204)

    async def probed():
        server = await http.serve(answer, "::1", 0)
        port = server.sockets[0].getsockname()[1]
        prober = probing.Prober({"/app-health/a/livez": {"httpGet": {"port": port, "path": "/"}}}, "::1")
        found = await prober.handle("/app-health/a/livez", {})
        server.close()
        return found.status, port

    status, port = asyncio.run(probed())
    assert (status, seen) == (204, [f"[::1]:{port}"])


NAMED = """
kind: ServiceEntry
metadata: {name: named}
spec:
  hosts: [named.test]
  ports: [{number: 5432, name: tcp-db, protocol: TCP}]
  resolution: DNS
"""


def test_a_host_without_an_address_gets_one_of_each_family_that_the_proxy_has():
    def found(agent):
        made = sidecar({**agent, "DNS_CAPTURE": "true"}, dual(NAMED))
        return sorted(n.removesuffix("_5432") for n in made[names.LDS] if n.endswith("_5432"))

    (v4,) = found(V4)
    (v6,) = found(V6)
    assert v4.startswith("240.240.")
    assert v6.startswith("2001:2::")
    assert found(DUAL) == sorted([v6, v4])
    views = Views(Mesh(dual(NAMED)))
    assert sorted(views.names("default", "46")["named.test"]) == sorted([v6, v4])
    assert views.names("default", "6")["named.test"] == [v6]
    assert "named.test" not in views.names("default", ""), "whose real addresses DNS has"


@pytest.mark.parametrize(
    ("families", "v4", "v6"),
    [(None, True, False), ("4", True, False), ("6", False, True), ("46", True, True), ("", False, False)],
)
def test_agents_get_the_automatic_addresses_that_are_redirected_to_their_proxy(families, v4, v6):
    """None: an agent of a version that redirects IPv4 alone, and does not say so."""
    status, found = answered({"families": families} if families is not None else {})
    given = found["names"].get("named.test", [])
    assert (status, any("." in a for a in given), any(":" in a for a in given)) == (200, v4, v6)


def test_other_families_than_there_are_are_refused():
    status, found = answered({"families": "64" * 100})
    assert (status, found["error"][:14]) == (400, 'families: "646')


def answered(question):
    """What istiod answers an agent in the namespace ``default`` that asks for names."""

    class Ca:
        async def caller(self, _):
            return Caller(Identity("cluster.local", "default", "default"))

    async def asked():
        app = web.Application()
        agents = Agents(Ca(), lambda _: Views(Mesh(dual(NAMED))), None)
        app.router.add_post("/names", agents.names)
        async with TestClient(TestServer(app)) as client:
            answer = await client.post("/names", json=question)
            return answer.status, await answer.json()

    return asyncio.run(asked())


@pytest.mark.parametrize(
    ("addresses", "redirected", "families"),
    [
        (("10.0.0.1",), True, "4"),
        (("10.0.0.1", "fd00::1"), True, "46"),
        (("10.0.0.1", "fd00::1"), False, "4"),
        (("fd00::1",), True, "6"),
        (("fd00::1",), False, ""),
    ],
)
def test_an_agent_names_the_families_that_come_to_its_proxy(addresses, redirected, families):
    """An older CNI plugin has redirected IPv4 alone."""
    options = Options(env={"INSTANCE_IP": addresses[0]}, found=addresses, ipv6_redirected=redirected)
    assert options.families == families


@pytest.mark.parametrize(("agent", "lookup"), [(V4, "V4_PREFERRED"), (DUAL, "V4_PREFERRED"), (V6, "V6_ONLY")])
def test_a_proxy_without_ipv4_looks_up_ipv6_addresses(agent, lookup):
    made = sidecar(agent, dual(NAMED))[names.CDS]["outbound|5432||named.test"]
    assert made.DnsLookupFamily.Name(made.dns_lookup_family) == lookup


@pytest.mark.parametrize(
    ("families", "answers"),
    [
        ("4", {"both": ("240.240.0.1",), "six": ("fd00::7",)}),
        ("6", {"both": ("2001:2::1",), "six": ("fd00::7",)}),
        ("46", {"both": ("240.240.0.1", "2001:2::1"), "six": ("fd00::7",)}),
    ],
)
def test_the_dns_proxy_answers_addresses_that_the_pod_can_reach(families, answers):
    assert dns.usable({"both": ["240.240.0.1", "2001:2::1"], "six": ["fd00::7"]}, families) == answers
