"""Listeners at addresses of the proxy itself: ``captureMode: NONE``, ``interceptionMode: NONE``."""

from dataclasses import replace

import judge
import meshes as mesh
import pytest

from lateen.api import kinds
from lateen.wire import names

SHOP = """
kind: ServiceEntry
metadata: {name: shop}
spec:
  hosts: [shop.test]
  addresses: [10.9.0.1]
  ports:
  - {number: 8000, name: http, protocol: HTTP}
  - {number: 3306, name: mysql, protocol: MYSQL}
  - {number: 7000, name: any}
  - {number: 5353, name: dns, protocol: UDP}
  - {number: 15021, name: status, protocol: HTTP}
  - {number: 443, name: tls, protocol: TLS}
  resolution: STATIC
  endpoints: [{address: 10.9.9.9}]
---
kind: ServiceEntry
metadata: {name: stock}
spec:
  hosts: [stock.test]
  addresses: [10.9.0.2]
  ports:
  - {number: 8000, name: http, protocol: HTTP}
  - {number: 7001, name: any}
  - {number: 443, name: tls, protocol: TLS}
  resolution: STATIC
  endpoints: [{address: 10.9.9.8}]
---
kind: ServiceEntry
metadata: {name: mixed}
spec:
  hosts: [mixed.test]
  addresses: [10.9.0.3]
  ports: [{number: 7001, name: http, protocol: HTTP}]
  resolution: STATIC
  endpoints: [{address: 10.9.9.7}]
"""
FREE = """
kind: Sidecar
metadata: {name: s}
spec:
  egress:
  - {captureMode: NONE, hosts: ["./*"]}
"""
NONE = {"INTERCEPTION_MODE": "NONE"}


def made(*documents, agent=None):
    found = mesh.objects("---".join((SHOP, *documents)))
    return judge.messages(mesh.view(found, agent=mesh.AGENT | (agent or {})))


def bound(found):
    """Name -> listener of those that Envoy binds."""
    return {n: li for n, li in found[names.LDS].items() if li.bind_to_port.value or not li.HasField("bind_to_port")}


WHOLE = ["127.0.0.1_3306", "127.0.0.1_443", "127.0.0.1_7000", "127.0.0.1_7001", "127.0.0.1_8000"]


@pytest.mark.parametrize(
    ("documents", "agent", "wanted"),
    [
        ((FREE,), {}, [names.VIRTUAL_INBOUND, names.VIRTUAL_OUTBOUND, *WHOLE]),
        ((FREE,), NONE, WHOLE),
        ((), NONE, [*WHOLE, "127.0.0.1_80"]),  # the gateway's Service
        ((FREE,), NONE | {"INSTANCE_IPS": "fd00::1"}, [n.replace("127.0.0.1", "::1") for n in WHOLE]),
        ((FREE.replace("{capt", "{bind: 127.0.0.2, capt"),), NONE, [n.replace("0.1_", "0.2_") for n in WHOLE]),
        ((FREE.replace("captureMode: NONE, ", ""),), {}, [names.VIRTUAL_INBOUND, names.VIRTUAL_OUTBOUND]),
        ((FREE.replace("./*", "./stock.test"),), NONE, [n for n in WHOLE if n[10:] in ("8000", "7001", "443")]),
        ((FREE,), NONE | {"UNPRIVILEGED_POD": "true"}, [n for n in WHOLE if n != "127.0.0.1_443"]),
    ],
)
def test_without_a_port_envoy_binds_every_port_of_the_services_that_an_egress_listener_names(documents, agent, wanted):
    """But neither 9080, where the application itself listens, nor what is the proxy's own."""
    found = made(*documents, agent=agent)
    assert sorted(bound(found)) == sorted(wanted)
    assert all(li.address.socket_address.address == n.partition("_")[0] for n, li in bound(found).items() if "_" in n)


def test_ports_of_services_are_bound_where_the_application_listens_elsewhere():
    ingress = '{port: {number: 9080, protocol: HTTP, name: http}, bind: 10.0.0.1, defaultEndpoint: "127.0.0.1:8000"}'
    found = made(FREE.replace("spec:", f"spec:\n  ingress: [{ingress}]"), agent=NONE)
    assert {"127.0.0.1_9080", "10.0.0.1_9080"} <= bound(found).keys()
    assert "127.0.0.1_8000" not in bound(found)


def test_an_ingress_listener_leaves_the_ports_that_the_application_declares_to_it():
    """Such as that of its metrics, which some Service has, too."""
    ingress = '{port: {number: 9081, protocol: HTTP, name: http}, defaultEndpoint: "127.0.0.1:9082"}'
    found = mesh.objects(f"{SHOP}---{FREE.replace('spec:', f'spec:{chr(10)}  ingress: [{ingress}]')}")
    (key,) = (k for k, p in found.pods.items() if p.name == "productpage-v1")
    pod = found.pods[key]
    for ports, there in ((pod.ports, True), ((*pod.ports, ("metrics", 8000, "TCP")), False)):
        given = found.put(kinds.POD, key, replace(pod, ports=ports))
        listeners = bound(judge.messages(mesh.view(given, agent=mesh.AGENT | NONE)))
        assert ("127.0.0.1_8000" in listeners) == there
        assert "127.0.0.1_9080" not in listeners, "a Service leads there"


def test_a_bound_port_of_requests_goes_by_the_host_that_they_name():
    found = made(FREE, agent=NONE)
    (chain,) = found[names.LDS]["127.0.0.1_8000"].filter_chains
    manager = judge.http_connection_manager_pb2.HttpConnectionManager()
    chain.filters[-1].typed_config.Unpack(manager)
    hosts = judge.routes(found, manager.rds.route_config_name).virtual_hosts
    assert {"outbound|8000||shop.test", "outbound|8000||stock.test"} <= {h.routes[0].route.cluster for h in hosts}


@pytest.mark.parametrize(
    ("port", "names_wanted", "cluster"),
    [("3306", [], b"outbound|3306||shop.test"), ("443", ["shop.test", "stock.test"], b"outbound|443||shop.test")],
)
def test_a_bound_port_of_connections_goes_by_the_name_in_tls_or_to_its_only_service(port, names_wanted, cluster):
    chains = made(FREE, agent=NONE)[names.LDS][f"127.0.0.1_{port}"].filter_chains
    assert [n for c in chains for n in c.filter_chain_match.server_names] == names_wanted
    assert cluster in chains[0].filters[-1].typed_config.value


def test_a_bound_port_of_unknown_protocol_is_looked_at():
    """The requests of its only service need not name it; others' do."""
    found = made(FREE, agent=NONE)
    for port, route, hosts in (("7000", "shop.test:7000", ["any"]), ("7001", "7001", ["mixed", "stock"])):
        listener = found[names.LDS][f"127.0.0.1_{port}"]
        (http,) = listener.filter_chains
        assert list(http.filter_chain_match.application_protocols) == ["http/1.1", "h2c"]
        manager = judge.http_connection_manager_pb2.HttpConnectionManager()
        http.filters[-1].typed_config.Unpack(manager)
        assert manager.rds.route_config_name == route
        clusters = {h.routes[0].route.cluster for h in judge.routes(found, route).virtual_hosts}
        assert any(f"outbound|{port}||" in c for c in clusters), hosts
        other = "shop" if port == "7000" else "stock"
        assert f"outbound|{port}||{other}.test".encode() in listener.default_filter_chain.filters[-1].typed_config.value


def test_a_port_that_an_earlier_listener_binds_is_that_listeners():
    port = "{port: {number: 8000, protocol: HTTP, name: http}, captureMode: NONE, hosts: [./shop.test]}"
    found = made(FREE.replace("egress:", f"egress:\n  - {port}"), agent=NONE)
    assert sorted(bound(found)) == WHOLE
    listener = found[names.LDS]["127.0.0.1_8000"]
    assert len(listener.filter_chains) == 1


def test_an_address_without_a_port_takes_what_is_redirected_there():
    found = made(FREE.replace("captureMode: NONE", "bind: 10.7.7.7"))
    listener = found[names.LDS]["10.7.7.7_3306"]
    assert not listener.bind_to_port.value
    assert b"outbound|3306||shop.test" in listener.filter_chains[0].filters[-1].typed_config.value
    assert sorted(bound(found)) == [names.VIRTUAL_INBOUND, names.VIRTUAL_OUTBOUND]


def test_real_envoy_takes_all_of_them(tmp_path):
    found = mesh.objects(f"{SHOP}---{FREE}")
    judge.validate(mesh.view(found, agent=mesh.AGENT | NONE), tmp_path)


RULED = """
kind: VirtualService
metadata: {name: virtual}
spec: {hosts: [virtual.test, elsewhere.test], http: [{route: [{destination: {host: shop.test, port: {number: 8000}}}]}]}
---
apiVersion: v1
kind: Service
metadata: {name: alias, namespace: default}
spec: {type: ExternalName, externalName: ratings.default.svc.cluster.local}
---
kind: VirtualService
metadata: {name: alias, namespace: default}
spec: {hosts: [alias], http: [{route: [{destination: {host: stock.test, port: {number: 8000}}}]}]}
"""


@pytest.mark.parametrize(
    "place",
    ["{number: 15080, protocol: HTTP_PROXY}, bind: 127.0.0.1", "{number: 0, protocol: HTTP}, bind: 'unix:///a'"],
)
def test_hosts_that_only_rules_name_and_aliases_with_rules_are_behind_an_http_proxy_and_a_socket(place):
    shown = '[./virtual.test, ./shop.test, "./alias.default.svc.cluster.local", "./ratings.default.svc.cluster.local"]'
    rest = '{hosts: ["./*"]}'
    found = made(RULED, FREE.partition("  -")[0] + f"  - {{port: {place}, hosts: {shown}}}\n  - {rest}")
    name = "127.0.0.1_15080" if "15080" in place else "unix:///a"
    to = {d: h.routes[0].route.cluster for h in judge.routes(found, name).virtual_hosts for d in h.domains}
    assert to["virtual.test"] == "outbound|8000||shop.test"
    assert to["alias.default.svc.cluster.local"] == "outbound|8000||stock.test"
    assert to["ratings.default.svc.cluster.local"] == "outbound|9080||ratings.default.svc.cluster.local"
    assert "elsewhere.test" not in to
