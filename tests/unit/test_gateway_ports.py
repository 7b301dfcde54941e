"""Which Gateway has a port where several open it, and which of its Services' ports a gateway listens to."""

from dataclasses import replace

import judge
import meshes as mesh
import pytest

from lateen.api import decoding, kinds
from lateen.api import objects as o
from lateen.mesh.model import Mesh
from lateen.wire import names


def served(text):
    return judge.messages(mesh.view(mesh.objects(text), "ingress", "istio-system"))


TWO = """
kind: Gateway
metadata: {name: first}
spec: {selector: {istio: ingressgateway}, servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: ["*"]}]}
---
kind: Gateway
metadata: {name: second}
spec: {selector: {istio: ingressgateway}, servers: [{port: {number: 80, name: tcp, protocol: TCP}, hosts: ["*"]}]}
---
kind: VirtualService
metadata: {name: own}
spec: {hosts: [own.example.com], exportTo: ['.'], gateways: [first], http: [{directResponse: {status: 200}}]}
---
kind: VirtualService
metadata: {name: open}
spec: {hosts: [open.example.com], gateways: [first], http: [{directResponse: {status: 200}}]}
"""


def test_the_older_gateway_decides_a_port_and_the_other_is_reported():
    (outcome,) = Mesh(mesh.objects(TWO)).outcomes()
    assert str(outcome.of) == "Gateway default/second"
    assert [p.says for p in outcome.problems] == [
        "port 80 is already HTTP because of the older Gateway default/first; the server of TCP is left out"
    ]


@pytest.mark.parametrize(
    ("bind", "reported"), [("0.0.0.0", True), ("10.0.0.1", False)], ids=["every address", "another address"]
)
def test_a_gateway_at_every_address_is_where_one_without_an_address_is(bind, reported):
    found = mesh.objects(TWO.replace("protocol: TCP}", f"protocol: TCP}}, bind: {bind}"))
    assert list(judge.messages(mesh.view(found, "ingress", "istio-system"))[names.LDS]) == ["0.0.0.0_8080"]
    assert bool(Mesh(found).outcomes()) == reported


@pytest.mark.parametrize(
    ("first", "second", "reported"),
    [
        ("{}", "{istio: ingressgateway}", True),
        ("{istio: ingressgateway}", "{istio: ingressgateway, app: door}", True),
        ("{istio: ingressgateway, app: door}", "{istio: ingressgateway}", False),
        ("{istio: ingressgateway}", "{istio: egressgateway}", False),
    ],
)
def test_a_port_is_lost_to_an_older_gateway_that_selects_all_of_its_pods(first, second, reported):
    one, two, *rest = TWO.split("selector: {istio: ingressgateway}")
    text = f"{one}selector: {first}{two}selector: {second}{''.join(rest)}"
    found = Mesh(mesh.objects(text)).outcomes()
    assert [str(o.of) for o in found] == (["Gateway default/second"] if reported else [])


DOOR = (("app", "door"), ("istio", "ingressgateway"))


@pytest.mark.parametrize(
    ("first", "second", "pods", "says"),
    [
        ("{app: door}", "{istio: ingressgateway}", [], None),
        ("{app: door}", "{istio: ingressgateway}", [DOOR], "is left out at the pods that both Gateways select"),
        ("{app: door, istio: ingressgateway}", "{istio: ingressgateway}", [DOOR], "left out at the pods that both"),
        ("{istio: ingressgateway}", "{app: door}", [DOOR], "the server of TCP is left out"),
        ("{istio: ingressgateway}", "{app: door}", [DOOR, (("app", "door"),)], "left out at the pods that both"),
        ("{istio: ingressgateway}", "{app: door}", [(("app", "door"),)], None),
        ("{istio: ingressgateway, x: a}", "{istio: ingressgateway, x: b}", [DOOR], None),
    ],
)
def test_a_port_is_lost_at_the_pods_that_an_older_gateway_selects_as_well(first, second, pods, says):
    one, two, *rest = TWO.split("selector: {istio: ingressgateway}")
    found = mesh.objects(f"{one}selector: {first}{two}selector: {second}{''.join(rest)}")
    for i, labels in enumerate(pods):
        door = replace(mesh.pod(f"p{i}", f"10.1.0.{i}", "doors", **dict(labels)), gateway=True)
        found = found.put(kinds.POD, ("doors", door.name), door)
    sidecar = mesh.pod("s", "10.1.0.9", "doors", istio="ingressgateway", app="door")
    found = found.put(kinds.POD, ("doors", "s"), sidecar)
    outcomes = Mesh(found).outcomes()
    assert [str(o.of) for o in outcomes] == (["Gateway default/second"] if says else [])
    if says:
        (problem,) = outcomes[0].problems
        assert problem.says.endswith(says) or says in problem.says
        assert ("both" in problem.says) == ("both" in says)


def gateway_at_80(name, selector, protocol):
    servers = f"[{{port: {{number: 80, name: a, protocol: {protocol}}}, hosts: ['*']}}]"
    return f"kind: Gateway\nmetadata: {{name: {name}}}\nspec: {{selector: {selector}, servers: {servers}}}\n"


def test_the_oldest_gateway_of_shared_pods_decides_also_for_those_that_agree_with_it():
    """The youngest one speaks HTTP as the oldest one does; the one in between has neither."""
    found = mesh.objects(
        "---\n".join(
            (
                gateway_at_80("oldest", "{app: door}", "HTTP"),
                gateway_at_80("between", "{istio: ingressgateway, app: door}", "TCP"),
                gateway_at_80("youngest", "{istio: ingressgateway}", "HTTP"),
            )
        )
    )
    door = replace(mesh.pod("p", "10.1.0.1", "doors", **dict(DOOR)), gateway=True)
    found = found.put(kinds.POD, ("doors", "p"), door)
    assert [str(o.of) for o in Mesh(found).outcomes()] == ["Gateway default/between"]


def test_a_rule_that_is_exported_to_its_namespace_alone_is_not_at_a_gateway_elsewhere():
    view_ = mesh.view(mesh.objects(TWO), "ingress", "istio-system")
    hosts = [h.name for h in judge.routes(judge.messages(view_), "http.8080").virtual_hosts]
    assert hosts == ["http.8080/open.example.com:80"]


TCP_TWICE = """
kind: Gateway
metadata: {name: first}
spec: {selector: {istio: ingressgateway}, servers: [{port: {number: 31400, name: a, protocol: TCP}, hosts: ['*']}]}
---
kind: Gateway
metadata: {name: second}
spec: {selector: {istio: ingressgateway}, servers: [{port: {number: 31400, name: a, protocol: TCP}, hosts: ['*']}]}
---
kind: VirtualService
metadata: {name: rule}
spec:
  hosts: ['*']
  gateways: [GATEWAY]
  tcp: [{route: [{destination: {host: reviews, port: {number: 9080}}}]}]
"""


@pytest.mark.parametrize(("gateway", "opened"), [("first", True), ("second", False)])
def test_connections_of_a_port_belong_to_the_oldest_gateway(gateway, opened):
    text = TCP_TWICE.replace("GATEWAY", gateway)
    (outcome,) = Mesh(mesh.objects(text)).outcomes()
    assert str(outcome.of) == "Gateway default/second"
    assert [p.says for p in outcome.problems] == [
        "port 31400 is already TCP because of the older Gateway default/first; the other server is left out"
    ]
    assert ("0.0.0.0_31400" in served(text)[names.LDS]) is opened


def test_servers_with_addresses_of_their_own_have_routes_of_their_own():
    text = """
kind: Gateway
metadata: {name: near}
spec:
  selector: {istio: ingressgateway}
  servers: [{port: {number: 8000, name: http, protocol: HTTP}, hosts: ['*'], bind: 127.0.0.1}]
---
kind: Gateway
metadata: {name: far}
spec:
  selector: {istio: ingressgateway}
  servers: [{port: {number: 8000, name: http, protocol: HTTP}, hosts: ['*']}]
---
kind: VirtualService
metadata: {name: a}
spec: {hosts: [a.test], gateways: [near], http: [{directResponse: {status: 200}}]}
---
kind: VirtualService
metadata: {name: b}
spec: {hosts: [b.test], gateways: [far], http: [{directResponse: {status: 200}}]}
"""
    found = served(text)
    assert {"127.0.0.1_8000", "0.0.0.0_8000"} <= set(found[names.LDS])
    hosts = {n: [h.name for h in judge.routes(found, n).virtual_hosts] for n in ("http.8000", "http.8000.127.0.0.1")}
    assert hosts == {
        "http.8000": ["http.8000/b.test:8000"],
        "http.8000.127.0.0.1": ["http.8000.127.0.0.1/a.test:8000"],
    }


PORTS = """
kind: ServiceEntry
metadata: {name: front, namespace: istio-system LABELS}
spec:
  hosts: [front.test]
  ports: [{number: 8000, name: http, protocol: HTTP, targetPort: 18000}]
  location: MESH_INTERNAL
  resolution: STATIC
  workloadSelector: {labels: {istio: ingressgateway}}
---
kind: ServiceEntry
metadata: {name: other, namespace: istio-system}
spec:
  hosts: [other.test]
  ports: [{number: 8000, name: http, protocol: HTTP, targetPort: 18001}]
  location: MESH_INTERNAL
  resolution: STATIC
  workloadSelector: {labels: {istio: ingressgateway}}
---
kind: Gateway
metadata: {name: gw, namespace: istio-system NOTES}
spec:
  selector: {istio: ingressgateway}
  servers: [{port: {number: 8000, name: http, protocol: HTTP}, hosts: ['*']}]
---
kind: VirtualService
metadata: {name: a, namespace: istio-system}
spec: {hosts: [a.test], gateways: [gw], http: [{directResponse: {status: 200}}]}
"""
LITERAL = ", labels: {experimental.istio.io/disable-gateway-port-translation: 'true'}"
NAMED = ", annotations: {internal.istio.io/gateway-service: 'front.test,other.test'}"


@pytest.mark.parametrize(
    ("labels", "notes", "ports"),
    [
        ("", "", {"0.0.0.0_18000"}),
        (LITERAL, "", {"0.0.0.0_18001"}),
        ("", NAMED, {"0.0.0.0_18000", "0.0.0.0_18001"}),
        (LITERAL, NAMED, {"0.0.0.0_18000", "0.0.0.0_18001"}),
    ],
)
def test_a_gateways_port_is_one_of_its_services(labels, notes, ports):
    found = served(PORTS.replace(" LABELS", labels).replace(" NOTES", notes))
    assert {name for name in found[names.LDS] if "_1800" in name} == ports
    for name in ports:
        port = name.rpartition("_")[2]
        hosts = judge.routes(found, f"http.{port}").virtual_hosts
        assert [names.plain_host(h.name) for h in hosts] == ["a.test:8000"]


def test_a_service_can_keep_its_ports_out_of_gateways():
    service = {"metadata": {"name": "s", "namespace": "d", "labels": {o.LITERAL_PORTS: "true"}}, "spec": {"ports": []}}
    assert decoding.service(service, "cluster.local").literal_ports
    service["metadata"]["labels"] = {}
    assert not decoding.service(service, "cluster.local").literal_ports
